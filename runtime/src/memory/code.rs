//! Pages that hold translations.
//!
//! Such a page is write-protected on the host if the guest may write to it. The interpreter and
//! helpers refuse to write to it ([`super::MemFault::code`]); a system call that writes to guest
//! memory takes the page out of that state by itself and leaves a note, because it cannot be
//! restarted: see [`GuestMemory::take_dirty_code`].

use super::map::host_prot;
use super::{GuestMemory, MapError, PAGE, page};
use std::sync::atomic::Ordering;

impl GuestMemory {
    /// Marks page number `n` (address / 4096) as holding translations.
    pub fn protect_code(&self, n: u64) -> Result<(), MapError> {
        if n >= self.limit / PAGE {
            return Err(MapError::BadRange);
        }
        let old = self.flag(n).load(Ordering::Relaxed);
        if old & page::CODE != 0 {
            return Ok(());
        }
        if old & page::MAPPED == 0 {
            return Err(MapError::NotMapped);
        }
        if old & page::WRITE != 0 {
            self.host_protect(n * PAGE, PAGE, host_prot(old | page::CODE))?;
        }
        self.flag(n).store(old | page::CODE, Ordering::Relaxed);
        Ok(())
    }

    /// Takes the mark off page number `n`: its translations are gone, writes may go on.
    pub fn release_code(&self, n: u64) -> Result<(), MapError> {
        if n >= self.limit / PAGE {
            return Err(MapError::BadRange);
        }
        let old = self.flag(n).load(Ordering::Relaxed);
        if old & page::CODE == 0 {
            return Ok(());
        }
        let new = old & !page::CODE;
        if old & page::WRITE != 0 {
            self.host_protect(n * PAGE, PAGE, host_prot(new))?;
        }
        self.flag(n).store(new, Ordering::Relaxed);
        Ok(())
    }

    /// The numbers of the pages whose translations must be dropped because a system call wrote to
    /// them, or because they were mapped anew, unmapped or given other rights. They are released
    /// already. To be called after each system call.
    pub fn take_dirty_code(&self) -> Vec<u64> {
        std::mem::take(&mut *self.lock_dirty())
    }

    /// Notes that the translations of page number `n` are stale.
    pub(super) fn note_dirty(&self, n: u64) {
        self.lock_dirty().push(n);
    }

    fn lock_dirty(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.dirty_code
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
