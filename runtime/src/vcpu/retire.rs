//! Taking translations away: invalidation, eviction, flushes, forks.

use super::{Jit, Vcpu, VcpuError};
use crate::cache::TransId;
use crate::memory::{GuestMemory, MapError};
use crate::state::{JUMP_ENTRIES, JumpEntry};
use metaphrase_backend::jump_hash;
use metaphrase_frontend::Mode;

impl Vcpu {
    /// Takes a translation's compiled code away; the interpreter keeps the block.
    pub(super) fn drop_code(&mut self, id: TransId) {
        let Some(jit) = &mut self.jit else { return };
        let miss = jit.miss_stub();
        let Some(arena) = &mut jit.arena else { return };
        let Some((code, incoming)) = self.cache.detach(id) else {
            return;
        };
        for slot in incoming {
            if let Some(s) = self.cache.slots[slot as usize]
                && let Some(source) = &self.cache.get(s.from).code
            {
                arena.unlink(source.sites[s.index as usize]);
            }
        }
        let t = self.cache.get_mut(id);
        let n = jump_hash(t.pc, JUMP_ENTRIES as u32) as usize;
        let caches = self.parked.iter_mut().map(|(_, cache)| cache);
        for cache in std::iter::once(&mut self.jump_cache).chain(caches) {
            if cache[n].code == code.code.entry() as u64 {
                cache[n] = JumpEntry::empty(miss);
            }
        }
        (t.runs, t.samples) = (0, 0);
        arena.free(code.code);
    }

    pub(super) fn fill_jump_cache(&mut self, id: TransId) {
        let t = self.cache.get(id);
        if let Some(code) = &t.code
            && self.options.jump_cache
            && t.second.is_none()
            && t.checked.is_none()
        {
            let n = jump_hash(t.pc, JUMP_ENTRIES as u32) as usize;
            self.jump_cache[n] = JumpEntry {
                pc: t.pc,
                code: code.code.entry() as u64,
            };
        }
    }

    pub(super) fn clear_jump_cache(&mut self) {
        let miss = self.miss_stub();
        self.jump_cache.fill(JumpEntry::empty(miss));
        self.parked.clear();
    }

    /// Where the empty entries of a jump cache lead.
    pub(super) fn miss_stub(&self) -> u64 {
        self.jit.as_ref().map_or(0, Jit::miss_stub)
    }

    /// Drops every translation made from a page and lets the guest write to it again.
    pub fn invalidate_page(&mut self, n: u64) -> Result<(), VcpuError> {
        let ids = self.cache.on_page(n);
        if !ids.is_empty() {
            self.stats.invalidated_pages += 1;
            self.stats.invalidated_translations += ids.len() as u64;
        }
        for id in ids {
            self.drop_code(id);
            self.cache.remove(id);
        }
        if let Some(paged) = self.env.memory.paged() {
            paged.phys().forget_code(n);
            return Ok(());
        }
        match self.env.memory.release_code(n) {
            Ok(()) | Err(MapError::NotMapped | MapError::BadRange) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Drops the translations of pages that a system call has written to or mapped anew. To be
    /// called after each system call.
    pub fn drop_stale(&mut self) -> Result<(), VcpuError> {
        let dirty = match self.env.memory.paged() {
            Some(paged) => paged.phys().take_dirty(),
            None => self.env.memory.take_dirty_code(),
        };
        for n in dirty {
            self.invalidate_page(n)?;
        }
        Ok(())
    }

    /// Drops every translation.
    pub fn flush(&mut self) -> Result<(), VcpuError> {
        self.stats.flushes += 1;
        for n in self.cache.pages() {
            self.invalidate_page(n)?;
        }
        for id in self.cache.ids() {
            self.drop_code(id);
            self.cache.remove(id);
        }
        self.clear_jump_cache();
        Ok(())
    }

    /// To be called before the process forks: ends the background thread.
    pub fn before_fork(&mut self) -> Result<(), VcpuError> {
        let finished = self
            .jit
            .as_mut()
            .map(|jit| jit.service.stop())
            .unwrap_or_default();
        for done in finished {
            self.install(done)?;
        }
        Ok(())
    }

    /// To be called in the child of a fork: the arena is shared with the parent, so the child
    /// drops all compiled code and takes an arena of its own once it compiles something. What the
    /// interpreter has stays.
    pub fn after_fork_in_child(&mut self) -> Result<(), VcpuError> {
        if self.jit.is_none() {
            return Ok(());
        }
        self.cache.forget_code();
        self.jit = Some(Jit::new(&self.options)?);
        self.clear_jump_cache();
        self.warm_up();
        Ok(())
    }

    /// Gives the CPU another memory and mode, as `execve` does; every translation goes. The state
    /// is left as it is but for what describes the memory.
    pub fn replace_memory(&mut self, memory: GuestMemory, mode: Mode) -> Result<(), VcpuError> {
        self.flush()?;
        self.env.memory = memory;
        self.mode = mode.with_features(self.env.cpu.features());
        self.env.attach(&mut self.state);
        self.warm_up();
        Ok(())
    }
}
