//! Guest memory of user mode: a reserved window of host address space and a byte of flags a page.
//!
//! Guest linear address 0 is at [`GuestMemory::base`]; the window is [`GuestMemory::limit`] bytes
//! long, with [`GUARD`] inaccessible bytes on both sides. Guest pages are host pages, mapped with
//! `mmap`, never executable on the host. What the guest may do with a page is in the flag table
//! ([`page`]), which the interpreter, helpers and system calls test; compiled code lets the host
//! MMU do it, so both always agree.
//!
//! - [`map`](self): mapping, unmapping, protection, search for free space (`map.rs`).
//! - typed and bulk access by the interpreter and helpers (`access.rs`), atomics (`atomic.rs`).
//! - pages that hold translations (`code.rs`).
//!
//! Limits: a shared file mapping that is shorter than the mapping raises SIGBUS in *our* process
//! when the guest touches a page past the end of the file; nothing here catches it. Two mappings
//! of one file page are two pages here: a write through one does not invalidate translations made
//! from the other.

mod access;
mod atomic;
mod code;
mod journal;
mod map;
pub mod paged;
mod relocate;
#[cfg(test)]
mod tests;

use rustix::mm::{MapFlags, ProtFlags};
use std::collections::BTreeSet;
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

pub use access::Scalar;
pub(crate) use access::fill;
pub use atomic::Word;
pub use journal::SavedPage;
pub use map::{FileMapping, MapError};
pub use paged::{Paged, PhysMemory};

/// Size of a guest page, and the only host page size that works.
pub const PAGE: u64 = 4096;

/// Size of each inaccessible zone around the window: more than any displacement that compiled
/// code adds without a test.
pub const GUARD: u64 = 2 << 30;

/// The flags of a page.
pub mod page {
    /// The guest may read it (implied by `WRITE` and `EXEC`, as on x86 without protection keys).
    pub const READ: u8 = 1;
    /// The guest may write it.
    pub const WRITE: u8 = 2;
    /// The guest may execute it.
    pub const EXEC: u8 = 4;
    /// The guest has mapped it, maybe without any right.
    pub const MAPPED: u8 = 8;
    /// It holds code that has been translated: writes must drop the translations first.
    pub const CODE: u8 = 16;
    /// The next write to it saves its bytes first: see `journal.rs`.
    pub const WATCH: u8 = 32;
}

/// Which window to reserve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// 4 GiB, for 32-bit guests.
    Bits32,
    /// 1 TiB, or the largest smaller power of two that the host grants, for 64-bit guests.
    Bits64,
}

/// An access that guest memory refuses. Nothing of it has happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemFault {
    /// Linear address of the first byte that is refused.
    pub addr: u64,
    /// It was a write.
    pub write: bool,
    /// The guest may make it, but not so: the page holds translations, or a device is there and the
    /// instruction does not run alone.
    pub code: bool,
}

/// Why no window could be reserved.
#[derive(thiserror::Error, Debug)]
pub enum ReserveError {
    /// The host's pages are not 4 KiB.
    #[error("the host's page size is {0} bytes; guest memory needs a host with 4096-byte pages")]
    PageSize(usize),
    /// The host refuses the address space.
    #[error("the host refuses {0:#x} bytes of address space for guest memory: {1}")]
    AddressSpace(u64, rustix::io::Errno),
}

/// A guest's memory.
///
/// All methods take `&self`: guest memory is shared by its nature, and is only touched through raw
/// pointers.
#[derive(Debug)]
pub struct GuestMemory {
    base: *mut u8,
    limit: u64,
    flags: *const AtomicU8,
    dirty_code: Mutex<Vec<u64>>,
    journal: Mutex<journal::Journal>,
    /// 2 MiB chunks in which something was ever mapped.
    chunks: Mutex<BTreeSet<u64>>,
    /// A full system's memory. Then the window is empty, so that every access takes the slow path
    /// of user mode, which leads there.
    paged: Option<Box<Paged>>,
}

// SAFETY: the pointers name mappings that live as long as the value; the flag table is atomic, and
// guest memory is only accessed through raw pointers, as memory that others may change.
unsafe impl Send for GuestMemory {}
// SAFETY: as for Send.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// Reserves a window; nothing is mapped in it.
    pub fn new(window: Window) -> Result<GuestMemory, ReserveError> {
        let host_page = rustix::param::page_size();
        if host_page as u64 != PAGE {
            return Err(ReserveError::PageSize(host_page));
        }
        let (mut limit, least) = match window {
            Window::Bits32 => (1u64 << 32, 1u64 << 32),
            Window::Bits64 => (1u64 << 40, 1u64 << 34),
        };
        let start = loop {
            match reserve(limit + 2 * GUARD, ProtFlags::empty()) {
                Ok(start) => break start,
                Err(_) if limit > least => limit /= 2,
                Err(errno) => return Err(ReserveError::AddressSpace(limit + 2 * GUARD, errno)),
            }
        };
        let flags = match reserve(limit / PAGE, ProtFlags::READ | ProtFlags::WRITE) {
            Ok(flags) => flags,
            Err(errno) => {
                // SAFETY: the reservation was made above and nobody knows of it yet.
                let _ = unsafe { rustix::mm::munmap(start, (limit + 2 * GUARD) as usize) };
                return Err(ReserveError::AddressSpace(limit / PAGE, errno));
            }
        };
        Ok(GuestMemory {
            base: start.cast::<u8>().wrapping_add(GUARD as usize),
            limit,
            flags: flags.cast_const().cast(),
            dirty_code: Mutex::new(Vec::new()),
            journal: Mutex::default(),
            chunks: Mutex::default(),
            paged: None,
        })
    }

    /// The memory of a full system.
    pub fn system(paged: Paged) -> GuestMemory {
        GuestMemory {
            base: std::ptr::null_mut(),
            limit: 0,
            flags: std::ptr::null(),
            dirty_code: Mutex::new(Vec::new()),
            journal: Mutex::default(),
            chunks: Mutex::default(),
            paged: Some(Box::new(paged)),
        }
    }

    /// The linear address space, if it is a full system's.
    #[inline(always)]
    pub fn paged(&self) -> Option<&Paged> {
        self.paged.as_deref()
    }

    /// Host address of guest linear address 0.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// Size of the window.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The [`page`] flags of the page that holds `addr`; 0 outside the window.
    #[inline(always)]
    pub fn flags(&self, addr: u64) -> u8 {
        if addr >= self.limit {
            return 0;
        }
        self.flag(addr / PAGE).load(Ordering::Relaxed)
    }

    /// The flag byte of page number `n`, which must lie in the window.
    #[inline(always)]
    fn flag(&self, n: u64) -> &AtomicU8 {
        debug_assert!(n < self.limit / PAGE);
        // SAFETY: the table has a byte for each page of the window, and lives as long as `self`.
        unsafe { &*self.flags.add(n as usize) }
    }

    /// Host address of a guest address, which need not be mapped.
    #[inline(always)]
    fn host(&self, addr: u64) -> *mut u8 {
        self.base.wrapping_add(addr as usize)
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        if self.paged.is_some() {
            return;
        }
        let start = self.base.wrapping_sub(GUARD as usize).cast::<c_void>();
        // SAFETY: both mappings were made in `new` with these sizes; nobody uses them any more.
        let _ = unsafe { rustix::mm::munmap(start, (self.limit + 2 * GUARD) as usize) };
        let flags = self.flags.cast_mut().cast::<c_void>();
        // SAFETY: as above.
        let _ = unsafe { rustix::mm::munmap(flags, (self.limit / PAGE) as usize) };
    }
}

/// Takes address space anywhere.
fn reserve(len: u64, prot: ProtFlags) -> rustix::io::Result<*mut c_void> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: without MAP_FIXED a mapping goes where nothing else is.
    unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len as usize, prot, flags) }
}
