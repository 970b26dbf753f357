//! Watching writes, so that a block can be run twice from the same memory (lock step).
//!
//! While watching, every page carries [`super::page::WATCH`], which sends writes to the slow path;
//! the first write to a page saves its bytes and takes the mark off. It costs nothing when off.

use super::{GuestMemory, PAGE, page};
use std::sync::atomic::Ordering;

/// A page as it was before the first write to it.
#[derive(Clone, Debug)]
pub struct SavedPage {
    /// Page number (address / 4096).
    pub number: u64,
    /// Its 4096 bytes.
    pub bytes: Box<[u8]>,
}

/// What has been saved, and whether to go on.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) watching: bool,
    saved: Vec<SavedPage>,
}

impl GuestMemory {
    /// Starts or ends watching; forgets what was saved.
    pub fn watch_writes(&self, on: bool) {
        let mut journal = self.lock_journal();
        journal.watching = on;
        journal.saved.clear();
        drop(journal);
        for (start, end) in self.mapped_ranges() {
            for n in start / PAGE..end / PAGE {
                if on {
                    self.flag(n).fetch_or(page::WATCH, Ordering::Relaxed);
                } else {
                    self.flag(n).fetch_and(!page::WATCH, Ordering::Relaxed);
                }
            }
        }
    }

    /// The pages written to since the last call, as they were before; watches them again.
    pub fn take_saved(&self) -> Vec<SavedPage> {
        let mut journal = self.lock_journal();
        let saved = std::mem::take(&mut journal.saved);
        if journal.watching {
            for page in &saved {
                let slot = self.flag(page.number);
                if slot.load(Ordering::Relaxed) & page::MAPPED != 0 {
                    slot.fetch_or(page::WATCH, Ordering::Relaxed);
                }
            }
        }
        saved
    }

    /// Saves page number `n`, which is about to be written to.
    #[cold]
    pub(super) fn save_page(&self, n: u64) {
        let mut bytes = vec![0; PAGE as usize].into_boxed_slice();
        // SAFETY: the caller is about to write to the page, so it is mapped; writable pages are
        // readable.
        unsafe {
            std::ptr::copy_nonoverlapping(self.host(n * PAGE), bytes.as_mut_ptr(), bytes.len());
        }
        self.flag(n).fetch_and(!page::WATCH, Ordering::Relaxed);
        self.lock_journal()
            .saved
            .push(SavedPage { number: n, bytes });
    }

    /// Puts a saved page's bytes back; the bytes that were there. `None` if the guest may no
    /// longer write there.
    pub fn restore_page(&self, saved: &SavedPage) -> Option<Box<[u8]>> {
        let flags = self.flags(saved.number * PAGE);
        if flags & page::WRITE == 0 || flags & page::CODE != 0 {
            return None;
        }
        let at = self.host(saved.number * PAGE);
        let mut now = vec![0; PAGE as usize].into_boxed_slice();
        // SAFETY: the page is mapped and writable on the host, since the guest may write to it and
        // it holds no translations; both buffers are a page long.
        unsafe {
            std::ptr::copy_nonoverlapping(at, now.as_mut_ptr(), now.len());
            std::ptr::copy_nonoverlapping(saved.bytes.as_ptr(), at, now.len());
        }
        Some(now)
    }

    /// Whether new mappings must be watched.
    pub(super) fn is_watching(&self) -> bool {
        self.lock_journal().watching
    }

    fn lock_journal(&self) -> std::sync::MutexGuard<'_, Journal> {
        self.journal
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Window;
    use super::*;

    #[test]
    fn a_first_write_saves_the_page_and_it_can_be_put_back() {
        let memory = GuestMemory::new(Window::Bits32).unwrap();
        let rw = page::READ | page::WRITE;
        memory.map_anon(0x10000, 2 * PAGE, rw).unwrap();
        memory.write(0x10ffcu64, 7u32).unwrap();
        memory.watch_writes(true);
        memory.write(0x10ffeu64, 0x1122_3344u32).unwrap();
        memory.write(0x10000u64, 1u8).unwrap();
        let saved = memory.take_saved();
        assert_eq!(
            saved.iter().map(|p| p.number).collect::<Vec<_>>(),
            [0x10, 0x11]
        );
        for page in &saved {
            memory.restore_page(page).unwrap();
        }
        assert_eq!(memory.read::<u32>(0x10ffc), Ok(7));
        assert_eq!(memory.read::<u8>(0x10000), Ok(0));
        memory.write(0x10000u64, 2u8).unwrap();
        assert_eq!(
            memory.take_saved().len(),
            1,
            "watched again after the first time"
        );
        memory.watch_writes(false);
        memory.write(0x10000u64, 2u8).unwrap();
        assert!(memory.take_saved().is_empty());
    }
}
