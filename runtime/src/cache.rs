//! The block cache: translations by (physical address, mode), by page, and by host PC.
//!
//! In user mode linear addresses are physical ones. A translation starts with a program for the
//! interpreter and may get compiled code later; it keeps its id while it lives. Ids are reused, so
//! whatever outlives a translation (a compile job, an interpreter chain) remembers its version or
//! the cache's generation and compares.

use crate::interp::Program;
use hashbrown::HashMap;
use metaphrase_backend::CodeRef;
use metaphrase_frontend::{Lifted, Mode};
use metaphrase_ir::{GuestInsn, Region};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};

/// What a translation is found by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    /// Physical address of the first instruction.
    pub address: u64,
    /// Its PC: compiled code holds PCs, so it serves at no other. In user mode the same as the
    /// address.
    pub pc: u64,
    /// Everything else that its meaning depends on.
    pub mode: Mode,
}

impl Key {
    /// The key of the code at another PC on the same page.
    pub fn beside(self, pc: u64) -> Key {
        Key {
            address: self.address.wrapping_add(pc.wrapping_sub(self.pc)),
            pc,
            ..self
        }
    }
}

/// A translation's number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct TransId(pub u32);

/// Compiled code of a translation.
#[derive(Debug)]
pub struct Code {
    /// Where it lies in the arena.
    pub code: CodeRef,
    /// 1 for a block, 2 for a region.
    pub tier: u8,
    /// Its first link slot.
    pub slot_base: u32,
    /// How many slots are reserved for it, at least `sites.len()`: exits that were found to be
    /// dead use none. They are given back together, so that the next code of the kind finds them.
    pub slots: u32,
    /// Host addresses of its direct exits' patchable fields.
    pub sites: Vec<usize>,
    /// The guest instructions of host instructions that may fault.
    pub faults: Vec<metaphrase_backend::Fault>,
    /// The guest instructions that `faults` refers to.
    pub guest: Box<[GuestInsn]>,
}

/// Where compilation stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Nothing asked for.
    Idle,
    /// A job is under way.
    Requested,
    /// It failed: the interpreter keeps the block.
    Failed,
}

/// A translation.
#[derive(Debug)]
pub struct Translation {
    /// Its key.
    pub key: Key,
    /// The PC it was lifted at.
    pub pc: u64,
    /// Distinguishes it from other users of its id.
    pub version: u32,
    /// For the interpreter.
    pub program: Option<Box<Program>>,
    /// The interpreter's direct exits: where each goes, and the version that it had.
    pub next: Vec<(u32, TransId)>,
    /// Compiled code.
    pub code: Option<Code>,
    /// Whether more is under way.
    pub progress: Progress,
    /// Interpreted executions.
    pub runs: u32,
    /// Fuel samples taken at its entry.
    pub samples: u32,
    /// Regions under way that it is part of: meanwhile it is no head of another.
    pub covered: u32,
    /// First and last PC of its page, if mappings can change: see [`Region::page`].
    pub page: Option<(u64, u64)>,
    /// If mappings can change and its first instruction ends on another page: the PC at which that
    /// page begins, and its physical address. It is entered by the dispatcher alone, which looks
    /// whether the page is still there.
    pub second: Option<(u64, u64)>,
    /// On a page that is not watched: the bytes, which the dispatcher compares before it enters.
    pub checked: Option<Box<[u8]>>,
    /// The pages it was made from.
    pub pages: Vec<u64>,
    /// The guest bytes it was made from: first and last address of each piece.
    pub bytes: Vec<(u64, u64)>,
    /// Link slots of others that jump to its code.
    pub incoming: Vec<u32>,
}

/// The guest bytes that a region was made from, in pieces without gaps. An instruction that cannot
/// be decoded counts with its first byte.
pub fn guest_bytes(region: &Region) -> Vec<(u64, u64)> {
    let piece = |g: &GuestInsn| {
        let first = region.pc_at(g.offset);
        (first, first.saturating_add(u64::from(g.len.max(1)) - 1))
    };
    let mut pieces: Vec<(u64, u64)> = region.guest.iter().map(piece).collect();
    pieces.sort_unstable();
    pieces.dedup_by(|next, last| {
        let joins = next.0 <= last.1.saturating_add(1);
        if joins {
            last.1 = last.1.max(next.1);
        }
        joins
    });
    pieces
}

/// A direct exit of compiled code.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// The translation that it belongs to.
    pub from: TransId,
    /// Its index among that translation's exits.
    pub index: u32,
    /// The guest PC it goes to.
    pub target: u64,
    /// The translation that it is patched to jump to.
    pub linked: Option<TransId>,
}

/// A version that no translation has.
const NO_VERSION: u32 = u32::MAX;

/// Entries of the table that remembers what was found of late: a power of two.
const RECENT: usize = 8192;

/// The cache.
#[derive(Debug)]
pub struct Cache {
    by_key: HashMap<Key, TransId>,
    /// Ids found of late, by a cheap hash of their keys. They are hints: the translation's own key
    /// tells whether one is right.
    recent: Box<[Cell<u32>]>,
    by_page: HashMap<u64, Vec<TransId>>,
    by_host: BTreeMap<usize, TransId>,
    slab: Vec<Option<Translation>>,
    free: Vec<u32>,
    next_version: u32,
    /// Counts removals: while it stays the same, every id means what it meant.
    pub generation: u64,
    /// Link slots; those of dead code wait in `free_slots`.
    pub slots: Vec<Option<Slot>>,
    free_slots: HashMap<u32, Vec<u32>>,
    /// Translations with code, the oldest first, for eviction.
    age: VecDeque<(TransId, u32)>,
}

impl Translation {
    /// Whether the exit to that PC may be remembered as leading to that translation.
    pub fn may_link(&self, pc: u64, to: &Translation) -> bool {
        to.second.is_none()
            && to.checked.is_none()
            && self
                .page
                .is_none_or(|(first, last)| (first..=last).contains(&pc))
    }
}

impl Default for Cache {
    fn default() -> Cache {
        Cache {
            by_key: HashMap::default(),
            recent: vec![Cell::new(0); RECENT].into(),
            by_page: HashMap::default(),
            by_host: BTreeMap::default(),
            slab: Vec::default(),
            free: Vec::default(),
            next_version: 0,
            generation: 0,
            slots: Vec::default(),
            free_slots: HashMap::default(),
            age: VecDeque::default(),
        }
    }
}

impl Cache {
    /// The translation for a key.
    #[inline]
    pub fn find(&self, key: Key) -> Option<TransId> {
        // Blocks that lie together differ in the low bits of the PC, aliases in the address.
        let index = (key.pc ^ key.pc >> 13 ^ key.address >> 12) as usize % RECENT;
        let recent = &self.recent[index];
        let hint = TransId(recent.get());
        let found = self.slab.get(hint.0 as usize).and_then(Option::as_ref);
        if found.is_some_and(|t| t.key == key) {
            return Some(hint);
        }
        let id = self.by_key.get(&key).copied()?;
        recent.set(id.0);
        Some(id)
    }

    /// The translation.
    ///
    /// # Panics
    /// If the id is not live.
    pub fn get(&self, id: TransId) -> &Translation {
        self.slab[id.0 as usize]
            .as_ref()
            .expect("a live translation")
    }

    /// The translation, to change.
    ///
    /// # Panics
    /// If the id is not live.
    pub fn get_mut(&mut self, id: TransId) -> &mut Translation {
        self.slab[id.0 as usize]
            .as_mut()
            .expect("a live translation")
    }

    /// Whether the id means that version.
    #[inline]
    pub fn is_version(&self, id: TransId, version: u32) -> bool {
        let t = self.slab.get(id.0 as usize).and_then(Option::as_ref);
        t.is_some_and(|t| t.version == version)
    }

    /// The translation if the id still means that version.
    pub fn get_version(&mut self, id: TransId, version: u32) -> Option<&mut Translation> {
        let slot = self.slab.get_mut(id.0 as usize)?.as_mut()?;
        (slot.version == version).then_some(slot)
    }

    /// Number of live translations.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// True without any translation.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Adds a translation.
    pub fn insert(
        &mut self,
        key: Key,
        pc: u64,
        program: Option<Box<Program>>,
        lifted: &Lifted,
    ) -> TransId {
        let version = self.next_version;
        self.next_version = (self.next_version + 1) % NO_VERSION;
        let exits = program.as_ref().map_or(0, |p| p.exits().len());
        let id = TransId(self.free.pop().unwrap_or_else(|| {
            self.slab.push(None);
            self.slab.len() as u32 - 1
        }));
        self.slab[id.0 as usize] = Some(Translation {
            key,
            pc,
            version,
            program,
            next: vec![(NO_VERSION, id); exits],
            code: None,
            progress: Progress::Idle,
            runs: 0,
            samples: 0,
            covered: 0,
            page: lifted.region.page,
            second: None,
            checked: None,
            pages: Vec::new(),
            bytes: Vec::new(),
            incoming: Vec::new(),
        });
        self.by_key.insert(key, id);
        self.add_source(id, lifted);
        id
    }

    /// Makes the translation depend on more guest code.
    pub fn add_source(&mut self, id: TransId, lifted: &Lifted) {
        for piece in guest_bytes(&lifted.region) {
            let own = &mut self.get_mut(id).bytes;
            if !own.contains(&piece) {
                own.push(piece);
            }
        }
        for &page in &lifted.pages {
            let own = &mut self.get_mut(id).pages;
            if !own.contains(&page) {
                own.push(page);
                self.by_page.entry(page).or_default().push(id);
            }
        }
    }

    /// Takes a translation out. Its code must have been detached before.
    pub fn remove(&mut self, id: TransId) {
        let Some(t) = self.slab[id.0 as usize].take() else {
            return;
        };
        debug_assert!(
            t.code.is_none(),
            "code of a removed translation must be detached"
        );
        self.by_key.remove(&t.key);
        for page in t.pages {
            if let Some(ids) = self.by_page.get_mut(&page) {
                ids.retain(|&other| other != id);
                if ids.is_empty() {
                    self.by_page.remove(&page);
                }
            }
        }
        self.free.push(id.0);
        self.generation += 1;
    }

    /// The translations made from a page.
    pub fn on_page(&self, page: u64) -> Vec<TransId> {
        self.by_page.get(&page).cloned().unwrap_or_default()
    }

    /// Whether there are translations made from a page.
    pub fn holds(&self, page: u64) -> bool {
        self.by_page.contains_key(&page)
    }

    /// Whether any translation on a page was made from one of the `len` bytes at `addr`.
    pub fn made_from(&self, page: u64, addr: u64, len: u64) -> bool {
        let last = addr.saturating_add(len.saturating_sub(1));
        let ids = self.by_page.get(&page).map_or(&[][..], Vec::as_slice);
        let mut pieces = ids.iter().flat_map(|&id| &self.get(id).bytes);
        pieces.any(|&(from, to)| from <= last && addr <= to)
    }

    /// Every live translation.
    pub fn ids(&self) -> Vec<TransId> {
        self.by_key.values().copied().collect()
    }

    /// Every page with translations.
    pub fn pages(&self) -> Vec<u64> {
        self.by_page.keys().copied().collect()
    }

    /// Reserves `count` consecutive link slots; the first.
    pub fn reserve_slots(&mut self, count: u32) -> u32 {
        if let Some(base) = self.free_slots.get_mut(&count).and_then(Vec::pop) {
            return base;
        }
        let base = self.slots.len() as u32;
        self.slots.resize(self.slots.len() + count as usize, None);
        base
    }

    /// Gives link slots back.
    pub fn release_slots(&mut self, base: u32, count: u32) {
        for slot in &mut self.slots[base as usize..(base + count) as usize] {
            *slot = None;
        }
        if count > 0 {
            self.free_slots.entry(count).or_default().push(base);
        }
    }

    /// Attaches code to a translation. `exits` has the link slot and the target PC of each of
    /// `code.sites`, in their order; exits that were found to be dead leave gaps among the slots.
    pub fn attach(&mut self, id: TransId, code: Code, exits: impl Iterator<Item = (u32, u64)>) {
        for (index, (number, target)) in exits.enumerate() {
            let slot = Slot {
                from: id,
                index: index as u32,
                target,
                linked: None,
            };
            self.slots[number as usize] = Some(slot);
        }
        self.by_host.insert(code.code.entry(), id);
        let version = self.get(id).version;
        self.age.push_back((id, version));
        if self.age.len() > 2 * self.by_host.len() + 1024 {
            let slab = &self.slab;
            self.age.retain(|&(id, version)| {
                let t = slab[id.0 as usize].as_ref();
                t.is_some_and(|t| t.version == version && t.code.is_some())
            });
        }
        self.get_mut(id).code = Some(code);
    }

    /// Takes the code off a translation, with the slots of others that jump to it (to be
    /// unlinked) and the record of the code; its own slots are released.
    pub fn detach(&mut self, id: TransId) -> Option<(Code, Vec<u32>)> {
        let t = self.get_mut(id);
        let code = t.code.take()?;
        let incoming = std::mem::take(&mut t.incoming);
        self.by_host.remove(&code.code.entry());
        for &slot in &incoming {
            if let Some(s) = &mut self.slots[slot as usize] {
                s.linked = None;
            }
        }
        for n in code.slot_base..code.slot_base + code.slots {
            let linked = self.slots[n as usize].and_then(|s| s.linked);
            if let Some(to) = linked
                && let Some(other) = self.slab[to.0 as usize].as_mut()
            {
                other.incoming.retain(|&s| s != n);
            }
        }
        self.release_slots(code.slot_base, code.slots);
        Some((code, incoming))
    }

    /// Forgets all compiled code, without a look at its arena.
    pub fn forget_code(&mut self) {
        for t in self.slab.iter_mut().flatten() {
            t.code = None;
            t.incoming.clear();
            t.progress = Progress::Idle;
            (t.runs, t.samples, t.covered) = (0, 0, 0);
        }
        self.by_host.clear();
        self.age.clear();
        self.slots.clear();
        self.free_slots.clear();
    }

    /// Notes that a slot now jumps to `to`.
    pub fn set_link(&mut self, slot: u32, to: TransId) {
        if let Some(s) = &mut self.slots[slot as usize] {
            s.linked = Some(to);
            self.get_mut(to).incoming.push(slot);
        }
    }

    /// The translation with the oldest code.
    pub fn oldest(&mut self) -> Option<TransId> {
        while let Some((id, version)) = self.age.pop_front() {
            if self
                .get_version(id, version)
                .is_some_and(|t| t.code.is_some())
            {
                return Some(id);
            }
        }
        None
    }

    /// The translation whose code holds a host PC, and the offset in it.
    pub fn by_host_pc(&self, host_pc: usize) -> Option<(TransId, u32)> {
        let (_, &id) = self.by_host.range(..=host_pc).next_back()?;
        let offset = self.get(id).code.as_ref()?.code.offset_of(host_pc)?;
        Some((id, offset))
    }
}
