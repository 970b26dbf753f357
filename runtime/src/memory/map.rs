//! Mapping, unmapping and protection: every change of what a guest page is goes through here.

use super::{GuestMemory, PAGE, page};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

/// Pages in a chunk: the granularity in which `mapped_ranges` knows where to look.
const CHUNK_PAGES: u64 = 512;

/// Why a mapping could not be changed.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// Address or length is not a multiple of the page size, the length is 0, or the range leaves
    /// the window.
    #[error("bad range for a guest mapping")]
    BadRange,
    /// A page of the range is not mapped.
    #[error("guest range is not mapped")]
    NotMapped,
    /// The host refused.
    #[error("the host refuses a guest mapping: {0}")]
    Host(Errno),
}

/// What to map from a file.
#[derive(Clone, Copy, Debug)]
pub struct FileMapping<'a> {
    /// The file.
    pub fd: BorrowedFd<'a>,
    /// Where in the file; a multiple of the page size.
    pub offset: u64,
    /// Writes reach the file.
    pub shared: bool,
}

impl GuestMemory {
    /// Maps zeroed private memory, replacing what was there. `prot` is a set of
    /// [`page::READ`], [`page::WRITE`], [`page::EXEC`].
    pub fn map_anon(&self, addr: u64, len: u64, prot: u8) -> Result<(), MapError> {
        self.map(addr, len, prot, None, false)
    }

    /// The same, shared with children of `fork`.
    pub fn map_anon_shared(&self, addr: u64, len: u64, prot: u8) -> Result<(), MapError> {
        self.map(addr, len, prot, None, true)
    }

    /// Maps a file, replacing what was there.
    pub fn map_file(
        &self,
        addr: u64,
        len: u64,
        prot: u8,
        file: FileMapping<'_>,
    ) -> Result<(), MapError> {
        self.map(addr, len, prot, Some(file), file.shared)
    }

    fn map(
        &self,
        addr: u64,
        len: u64,
        prot: u8,
        file: Option<FileMapping<'_>>,
        shared: bool,
    ) -> Result<(), MapError> {
        self.check_range(addr, len)?;
        let flags = page_flags(prot);
        let host_flags = if shared {
            MapFlags::SHARED
        } else {
            MapFlags::PRIVATE
        } | MapFlags::FIXED
            | MapFlags::NORESERVE;
        let (ptr, len_host) = (self.host(addr).cast(), len as usize);
        // SAFETY: the range lies in the window, all of which belongs to this value.
        let mapped = unsafe {
            match file {
                Some(f) => {
                    rustix::mm::mmap(ptr, len_host, host_prot(flags), host_flags, f.fd, f.offset)
                }
                None => rustix::mm::mmap_anonymous(ptr, len_host, host_prot(flags), host_flags),
            }
        };
        mapped.map_err(MapError::Host)?;
        self.set_flags(addr, len, flags);
        Ok(())
    }

    /// Removes mappings; pages that are not mapped are left alone.
    pub fn unmap(&self, addr: u64, len: u64) -> Result<(), MapError> {
        self.check_range(addr, len)?;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        let (ptr, len_host) = (self.host(addr).cast(), len as usize);
        // SAFETY: the range lies in the window; a fresh inaccessible mapping replaces what was
        // there, so that the address space stays ours.
        unsafe { rustix::mm::mmap_anonymous(ptr, len_host, ProtFlags::empty(), flags) }
            .map_err(MapError::Host)?;
        self.set_flags(addr, len, 0);
        Ok(())
    }

    /// Changes the rights of mapped pages. If a page of the range is not mapped, nothing changes.
    pub fn protect(&self, addr: u64, len: u64, prot: u8) -> Result<(), MapError> {
        self.check_range(addr, len)?;
        if !self.all_mapped(addr, len) {
            return Err(MapError::NotMapped);
        }
        let flags = page_flags(prot);
        self.host_protect(addr, len, host_prot(flags))?;
        self.set_flags(addr, len, flags);
        Ok(())
    }

    /// Whether every page of the range is mapped.
    pub fn all_mapped(&self, addr: u64, len: u64) -> bool {
        self.check_range(addr, len).is_ok()
            && (addr / PAGE..(addr + len) / PAGE)
                .all(|n| self.flag(n).load(Ordering::Relaxed) & page::MAPPED != 0)
    }

    /// Whether no page of the range is mapped (and the range lies in the window).
    pub fn all_free(&self, addr: u64, len: u64) -> bool {
        self.check_range(addr, len).is_ok()
            && (addr / PAGE..(addr + len) / PAGE)
                .all(|n| self.flag(n).load(Ordering::Relaxed) & page::MAPPED == 0)
    }

    /// Looks for `len` free bytes between `low` and `high`: the highest such place, as Linux does.
    pub fn find_free(&self, len: u64, low: u64, high: u64) -> Option<u64> {
        let pages = len.checked_add(PAGE - 1)? / PAGE;
        let (low, high) = (low.div_ceil(PAGE), high.min(self.limit) / PAGE);
        if pages == 0 {
            return None;
        }
        let (mut n, mut run) = (high, 0);
        while n > low {
            n -= 1;
            if self.flag(n).load(Ordering::Relaxed) & page::MAPPED != 0 {
                run = 0;
            } else {
                run += 1;
                if run == pages {
                    return Some(n * PAGE);
                }
            }
        }
        None
    }

    /// Looks for `len` free bytes at `low` or above and below `high`: the lowest such place.
    pub fn find_free_up(&self, len: u64, low: u64, high: u64) -> Option<u64> {
        let pages = len.checked_add(PAGE - 1)? / PAGE;
        let (low, high) = (low.div_ceil(PAGE), high.min(self.limit) / PAGE);
        if pages == 0 {
            return None;
        }
        let mut run = 0;
        for n in low..high {
            if self.flag(n).load(Ordering::Relaxed) & page::MAPPED != 0 {
                run = 0;
            } else {
                run += 1;
                if run == pages {
                    return Some((n + 1 - pages) * PAGE);
                }
            }
        }
        None
    }

    /// The mapped ranges of the window, as (start, end) addresses.
    pub fn mapped_ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let chunks = self.lock_chunks().clone();
        for chunk in chunks {
            let end = ((chunk + 1) * CHUNK_PAGES).min(self.limit / PAGE);
            for n in chunk * CHUNK_PAGES..end {
                if self.flag(n).load(Ordering::Relaxed) & page::MAPPED == 0 {
                    continue;
                }
                match ranges.last_mut() {
                    Some(last) if last.1 == n * PAGE => last.1 += PAGE,
                    _ => ranges.push((n * PAGE, (n + 1) * PAGE)),
                }
            }
        }
        ranges
    }

    fn lock_chunks(&self) -> std::sync::MutexGuard<'_, BTreeSet<u64>> {
        self.chunks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Page-aligned, not empty, inside the window.
    pub(super) fn check_range(&self, addr: u64, len: u64) -> Result<(), MapError> {
        let fits = addr.checked_add(len).is_some_and(|end| end <= self.limit);
        if len == 0 || !addr.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE) || !fits {
            return Err(MapError::BadRange);
        }
        Ok(())
    }

    /// Gives pages new flags; those that held translations are reported as dirty.
    pub(super) fn set_flags(&self, addr: u64, len: u64, flags: u8) {
        if flags & page::MAPPED != 0 {
            let first = addr / PAGE / CHUNK_PAGES;
            self.lock_chunks()
                .extend(first..=(addr + len - 1) / PAGE / CHUNK_PAGES);
        }
        let watch = flags & page::MAPPED != 0 && self.is_watching();
        let flags = if watch { flags | page::WATCH } else { flags };
        for n in addr / PAGE..(addr + len) / PAGE {
            // Unmapping a large range must not touch table pages that were never used.
            let slot = self.flag(n);
            let old = slot.load(Ordering::Relaxed);
            if old != flags {
                slot.store(flags, Ordering::Relaxed);
            }
            if old & page::CODE != 0 {
                self.note_dirty(n);
            }
        }
    }

    pub(super) fn host_protect(
        &self,
        addr: u64,
        len: u64,
        prot: ProtFlags,
    ) -> Result<(), MapError> {
        let prot = rustix::mm::MprotectFlags::from_bits_retain(prot.bits());
        // SAFETY: the range lies in the window, all of which belongs to this value.
        unsafe { rustix::mm::mprotect(self.host(addr).cast(), len as usize, prot) }
            .map_err(MapError::Host)
    }
}

/// The flags of a page mapped with these rights.
pub(super) fn page_flags(prot: u8) -> u8 {
    let prot = prot & (page::READ | page::WRITE | page::EXEC);
    let implied = if prot != 0 { page::READ } else { 0 };
    prot | implied | page::MAPPED
}

/// The host protection that goes with page flags.
pub(super) fn host_prot(flags: u8) -> ProtFlags {
    let mut prot = ProtFlags::empty();
    if flags & page::READ != 0 {
        prot |= ProtFlags::READ;
    }
    if flags & page::WRITE != 0 && flags & page::CODE == 0 {
        prot |= ProtFlags::WRITE;
    }
    prot
}
