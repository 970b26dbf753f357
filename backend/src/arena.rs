//! The code arena: one bounded piece of memory for all compiled code.
//!
//! It is mapped twice, once to execute and once to write, so that no page is ever both (W^X).
//! Translations are placed by best fit and freed one by one. The first bytes hold the common
//! code: the trampoline, and the stubs where unlinked exits end.

use crate::code::CompiledRegion;
use crate::common::{self, Trampoline};
use crate::error::{ArenaFull, BackendError};
use crate::layout::StateLayout;
use crate::patch;
use crate::resume::Resumes;
use memmap2::{Mmap, MmapMut, MmapOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

/// Host code starts at a multiple of this.
const ALIGN: usize = 32;
const MIN_SIZE: usize = 64 << 10;

/// Where a published translation lies. It stays valid until it is freed or the arena is reset.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CodeRef {
    offset: u32,
    size: u32,
    entry: usize,
}

impl CodeRef {
    /// The address of the first instruction.
    pub fn entry(self) -> usize {
        self.entry
    }

    /// Bytes of the arena that it takes.
    pub fn size(self) -> usize {
        self.size as usize
    }

    /// The offset of a host PC from the entry, if it lies in this translation.
    pub fn offset_of(self, host_pc: usize) -> Option<u32> {
        let offset = host_pc.wrapping_sub(self.entry);
        (offset < self.size as usize).then_some(offset as u32)
    }
}

/// The code memory of one machine.
#[derive(Debug)]
pub struct Arena {
    exec: Mmap,
    write: MmapMut,
    free_at: BTreeMap<u32, u32>,
    free_by_size: BTreeSet<(u32, u32)>,
    live: BTreeMap<u32, u32>,
    used: usize,
    common_size: usize,
    exit_stub: usize,
    miss_stub: usize,
    trampoline: Trampoline,
    resumes: Arc<Resumes>,
}

impl Arena {
    /// An arena of at most `limit` bytes (rounded to pages). Memory is taken as it is needed.
    pub fn new(limit: usize, layout: &StateLayout) -> Result<Arena, BackendError> {
        let limit = limit & !4095;
        if !(MIN_SIZE..=patch::MAX_SPAN).contains(&limit) {
            return Err(BackendError::ArenaSize {
                wanted: limit,
                min: MIN_SIZE,
                max: patch::MAX_SPAN,
            });
        }
        let os = |what| move |source: std::io::Error| BackendError::Os { what, source };
        let fd = rustix::fs::memfd_create("metaphrase-code", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(|e| os("cannot create the code arena")(e.into()))?;
        let file = File::from(fd);
        file.set_len(limit as u64)
            .map_err(os("cannot size the code arena"))?;
        // SAFETY: the file is anonymous and only these two mappings refer to it; the executable
        // one is never read as Rust data.
        let (exec, write) = unsafe {
            (
                MmapOptions::new()
                    .len(limit)
                    .map_exec(&file)
                    .map_err(os("cannot map the code arena for execution"))?,
                MmapOptions::new()
                    .len(limit)
                    .map_mut(&file)
                    .map_err(os("cannot map the code arena for writing"))?,
            )
        };
        let common = common::compile(layout)?;
        let common_size = common.code.len().next_multiple_of(ALIGN);
        let base = exec.as_ptr() as usize;
        let mut arena = Arena {
            exit_stub: base + common.exit_stub,
            miss_stub: base + common.miss_stub,
            trampoline: Trampoline::new(&common, base, layout),
            exec,
            write,
            free_at: BTreeMap::new(),
            free_by_size: BTreeSet::new(),
            live: BTreeMap::new(),
            used: 0,
            common_size,
            resumes: Arc::default(),
        };
        arena.write_code(0, &common.code);
        arena.reset();
        Ok(arena)
    }

    /// Places a compiled region; its direct exits go to the exit stub.
    pub fn publish(&mut self, region: &CompiledRegion) -> Result<CodeRef, ArenaFull> {
        let size = region.code.len().next_multiple_of(ALIGN).max(ALIGN);
        let offset = self.take(size)?;
        let entry = self.base() + offset as usize;
        let start = offset as usize;
        self.write[start..start + region.code.len()].copy_from_slice(&region.code);
        for link in &region.links {
            self.patch(entry + link.offset as usize, self.exit_stub);
        }
        self.sync(start, region.code.len());
        if !region.resumes.is_empty() {
            self.resumes.add(entry, &region.resumes);
        }
        Ok(CodeRef {
            offset,
            size: size as u32,
            entry,
        })
    }

    /// Makes the direct exit whose patchable field lies at host address `site` (the entry plus
    /// the link's offset) go to `target`.
    pub fn link(&mut self, site: usize, target: usize) {
        assert!(self.contains(target), "link out of the arena");
        self.patch(site, target);
        self.sync(site - self.base(), 4);
    }

    /// Makes the direct exit at `site` return to the dispatcher again.
    pub fn unlink(&mut self, site: usize) {
        self.link(site, self.exit_stub);
    }

    /// Gives a translation's memory back. Nothing may jump to it any more.
    pub fn free(&mut self, code: CodeRef) {
        let Some(size) = self.live.remove(&code.offset) else {
            debug_assert!(false, "freed twice: {code:?}");
            return;
        };
        self.used -= size as usize;
        self.resumes.remove(code.entry..code.entry + size as usize);
        self.give(code.offset, size);
    }

    /// Frees every translation.
    pub fn reset(&mut self) {
        self.live.clear();
        self.resumes.remove(self.range());
        self.free_at.clear();
        self.free_by_size.clear();
        self.used = self.common_size;
        let size = (self.exec.len() - self.common_size) as u32;
        self.give(self.common_size as u32, size);
    }

    /// Bytes in use, the common code included.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Size of the arena in bytes.
    pub fn limit(&self) -> usize {
        self.exec.len()
    }

    /// Number of translations.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// Host addresses of the arena.
    pub fn range(&self) -> Range<usize> {
        self.base()..self.base() + self.exec.len()
    }

    /// Whether a host PC lies in the arena.
    pub fn contains(&self, host_pc: usize) -> bool {
        self.range().contains(&host_pc)
    }

    /// Where unlinked direct exits go: returns to the dispatcher with the link slot.
    pub fn exit_stub(&self) -> usize {
        self.exit_stub
    }

    /// What empty jump-cache entries hold: writes RIP and returns to the dispatcher.
    pub fn miss_stub(&self) -> usize {
        self.miss_stub
    }

    /// How compiled code is entered.
    pub fn trampoline(&self) -> Trampoline {
        self.trampoline
    }

    /// The bytes of a translation, for disassembly.
    pub fn bytes(&self, code: CodeRef) -> &[u8] {
        &self.write[code.offset as usize..(code.offset + code.size) as usize]
    }

    /// Where faults in compiled code go on.
    pub(crate) fn resumes(&self) -> &Arc<Resumes> {
        &self.resumes
    }

    fn base(&self) -> usize {
        self.exec.as_ptr() as usize
    }

    fn write_code(&mut self, start: usize, code: &[u8]) {
        self.write[start..start + code.len()].copy_from_slice(code);
        self.sync(start, code.len());
    }

    fn patch(&mut self, site: usize, target: usize) {
        let at = site - self.base();
        let field: &mut [u8; 4] = (&mut self.write[at..at + 4])
            .try_into()
            .expect("four bytes were cut");
        patch::patch_jump(field, site, target);
    }

    fn sync(&self, start: usize, len: usize) {
        let (written, executed) = (&self.write[start..], &self.exec[start..]);
        patch::sync_code(written.as_ptr(), executed.as_ptr(), len);
    }

    fn take(&mut self, size: usize) -> Result<u32, ArenaFull> {
        let full = ArenaFull { wanted: size };
        let wanted = u32::try_from(size).map_err(|_| full)?;
        let &(found, offset) = self.free_by_size.range((wanted, 0)..).next().ok_or(full)?;
        self.free_by_size.remove(&(found, offset));
        self.free_at.remove(&offset);
        if found > wanted {
            self.give(offset + wanted, found - wanted);
        }
        self.live.insert(offset, wanted);
        self.used += size;
        Ok(offset)
    }

    fn give(&mut self, mut offset: u32, mut size: u32) {
        if let Some(&next) = self.free_at.get(&(offset + size)) {
            self.free_at.remove(&(offset + size));
            self.free_by_size.remove(&(next, offset + size));
            size += next;
        }
        if let Some((&before, &len)) = self.free_at.range(..offset).next_back()
            && before + len == offset
        {
            self.free_at.remove(&before);
            self.free_by_size.remove(&(len, before));
            offset = before;
            size += len;
        }
        self.free_at.insert(offset, size);
        self.free_by_size.insert((size, offset));
    }
}
