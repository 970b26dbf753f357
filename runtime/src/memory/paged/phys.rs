//! Physical memory: RAM, ROM and memory-mapped devices, and which of its bytes hold translated
//! code.

use metaphrase_devices::{Bus, Width};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::PAGE;
use super::shadow::{self, Shadow};

/// Why a range cannot be mapped.
#[derive(Debug, thiserror::Error)]
pub enum PhysError {
    /// It is empty, not made of whole pages, or runs over the end of the address space.
    #[error("physical range {start:#x} of {len:#x} bytes is not made of whole pages")]
    BadRange {
        /// First address.
        start: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Something is mapped there already.
    #[error("physical range {start:#x} of {len:#x} bytes overlaps another")]
    Overlap {
        /// First address.
        start: u64,
        /// Length in bytes.
        len: u64,
    },
    /// The host has no memory for it.
    #[error("the host refuses {len:#x} bytes of memory: {source}")]
    Host {
        /// Length in bytes.
        len: u64,
        /// Its answer.
        source: rustix::io::Errno,
    },
}

/// A range of RAM or ROM.
struct Range {
    start: u64,
    len: u64,
    host: *mut u8,
    rom: bool,
    /// By page: which of its 64 pieces hold translated code.
    code: Box<[AtomicU64]>,
}

impl std::fmt::Debug for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.rom { "ROM" } else { "RAM" };
        write!(f, "{kind} {:#x}+{:#x}", self.start, self.len)
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        // SAFETY: mapped in `PhysMemory::add` with this length; nobody uses it any more.
        let _ = unsafe { rustix::mm::munmap(self.host.cast(), self.len as usize) };
    }
}

/// Translated code is noted in pieces of that many bytes: 64 a page.
pub const CODE_GRAIN: u64 = PAGE / 64;

/// Where a page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// At that host address, writable.
    Ram(*mut u8),
    /// At that host address; writes go nowhere.
    Rom(*mut u8),
    /// Not memory: a device, or nothing.
    Io,
}

/// Physical memory. All methods take `&self`: guest memory is shared by its nature, and is only
/// touched through raw pointers.
#[derive(Debug, Default)]
pub struct PhysMemory {
    /// By start.
    ranges: Vec<Range>,
    /// What shows at A0000h to FFFFFh, if there is RAM.
    pub(super) shadow: Option<Box<Shadow>>,
    /// Memory-mapped devices.
    mmio: Mutex<Bus>,
    /// Pages whose translations must go because a device or a system access wrote to them.
    dirty: Mutex<Vec<u64>>,
    /// Whether there are any.
    any_dirty: AtomicBool,
}

// SAFETY: the ranges' pointers name mappings that live as long as the value and are only accessed
// through raw pointers, as memory that others may change.
unsafe impl Send for PhysMemory {}
// SAFETY: as for Send.
unsafe impl Sync for PhysMemory {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PhysMemory {
    /// Nothing anywhere.
    pub fn new() -> PhysMemory {
        PhysMemory::default()
    }

    /// Maps zeroed RAM.
    ///
    /// # Errors
    /// If the range is not made of whole pages, overlaps another, or the host has no memory.
    pub fn add_ram(&mut self, start: u64, len: u64) -> Result<(), PhysError> {
        self.add(start, len, false)
    }

    /// Maps zeroed RAM from address 0 on, of which devices hide A0000h to FFFFFh until
    /// [`PhysMemory::set_shadow`] shows it.
    ///
    /// # Errors
    /// As [`PhysMemory::add_ram`]; it has to reach to 1 MiB at least.
    pub fn add_low_ram(&mut self, len: u64) -> Result<(), PhysError> {
        if len < shadow::END {
            return Err(PhysError::BadRange { start: 0, len });
        }
        self.add(0, len, false)?;
        if let Some((range, offset)) = self.find(shadow::START) {
            let ram = range.host.wrapping_add(offset as usize);
            self.shadow = Some(Box::new(Shadow::new(ram)));
        }
        Ok(())
    }

    /// Maps ROM with that content, filled up with zeros to whole pages.
    ///
    /// # Errors
    /// As [`PhysMemory::add_ram`].
    pub fn add_rom(&mut self, start: u64, bytes: &[u8]) -> Result<(), PhysError> {
        let len = (bytes.len() as u64).next_multiple_of(PAGE);
        self.add(start, len, true)?;
        if let Some((range, _)) = self.find(start) {
            // SAFETY: the mapping is at least that long, new, and not yet known to anybody.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), range.host, bytes.len()) };
        }
        Ok(())
    }

    fn add(&mut self, start: u64, len: u64, rom: bool) -> Result<(), PhysError> {
        let whole = start.is_multiple_of(PAGE) && len.is_multiple_of(PAGE) && len > 0;
        let Some(last) = start.checked_add(len.wrapping_sub(1)).filter(|_| whole) else {
            return Err(PhysError::BadRange { start, len });
        };
        let n = self.ranges.partition_point(|r| r.start <= last);
        if let Some(other) = n.checked_sub(1).map(|n| &self.ranges[n])
            && other.start + (other.len - 1) >= start
        {
            return Err(PhysError::Overlap { start, len });
        }
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: without MAP_FIXED a mapping goes where nothing else is.
        let host =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len as usize, prot, flags) };
        let host = host.map_err(|source| PhysError::Host { len, source })?;
        let host = host.cast();
        // SAFETY: all zeros are a value of an atomic integer.
        let code = unsafe { Box::new_zeroed_slice((len / PAGE) as usize).assume_init() };
        let range = Range {
            start,
            len,
            host,
            rom,
            code,
        };
        self.ranges.insert(n, range);
        Ok(())
    }

    /// The bus of memory-mapped devices.
    pub fn mmio(&self) -> MutexGuard<'_, Bus> {
        lock(&self.mmio)
    }

    /// The range that holds `addr`, and how far into it that is.
    #[inline]
    fn find(&self, addr: u64) -> Option<(&Range, u64)> {
        let n = self.ranges.partition_point(|r| r.start <= addr);
        let range = &self.ranges[n.checked_sub(1)?];
        let offset = addr - range.start;
        (offset < range.len).then_some((range, offset))
    }

    /// Where the page that holds `addr` is.
    #[inline]
    pub fn place(&self, addr: u64) -> Place {
        if let Some(place) = self.shadow.as_ref().and_then(|s| s.place(addr)) {
            return place;
        }
        let Some((range, offset)) = self.find(addr) else {
            return Place::Io;
        };
        let host = range.host.wrapping_add((offset & !(PAGE - 1)) as usize);
        if range.rom {
            Place::Rom(host)
        } else {
            Place::Ram(host)
        }
    }

    /// The code pieces of the page that holds `addr`; `None` where no memory is.
    #[inline]
    fn code(&self, addr: u64) -> Option<&AtomicU64> {
        let (range, offset) = self.find(addr)?;
        range.code.get((offset / PAGE) as usize)
    }

    /// Reads bytes of RAM and ROM; where neither is, all ones.
    pub fn read_bytes(&self, addr: u64, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let at = addr.wrapping_add(done as u64);
            let offset = (at % PAGE) as usize;
            let n = (PAGE as usize - offset).min(out.len() - done);
            match self.place(at) {
                Place::Ram(host) | Place::Rom(host) => {
                    let from = host.wrapping_add(offset);
                    // SAFETY: `n` bytes of the page are left; `out` is not guest memory.
                    unsafe {
                        std::ptr::copy_nonoverlapping(from, out[done..].as_mut_ptr(), n);
                    }
                }
                Place::Io => out[done..done + n].fill(0xff),
            }
            done += n;
        }
    }

    /// Writes bytes to RAM, as a device or a loader does: translations made from them become
    /// dirty. Where no RAM is, nothing happens.
    pub fn write_bytes(&self, addr: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = addr.wrapping_add(done as u64);
            let offset = at % PAGE;
            let n = ((PAGE - offset) as usize).min(bytes.len() - done);
            if self.write_shadow(at, &bytes[done..done + n]) {
                // Nobody reads there.
            } else if let Place::Ram(host) = self.place(at) {
                if self.hits_code(at, n as u64) {
                    self.note_dirty(at);
                }
                let to = host.wrapping_add(offset as usize);
                // SAFETY: `n` bytes of the page are left; `bytes` is not guest memory.
                unsafe { std::ptr::copy_nonoverlapping(bytes[done..].as_ptr(), to, n) };
            }
            done += n;
        }
    }

    /// Gives the host's memory behind whole pages of RAM back; they read as zeros afterwards. What
    /// is not a whole page of RAM stays.
    pub fn discard(&self, addr: u64, len: u64) {
        let end = addr.saturating_add(len) & !(PAGE - 1);
        let mut at = addr.next_multiple_of(PAGE);
        while at < end {
            if let Place::Ram(host) = self.place(at) {
                if self.hits_code(at, PAGE) {
                    self.note_dirty(at);
                }
                // SAFETY: a whole page of a private anonymous mapping of ours, which stays mapped.
                // Where the host refuses, the page keeps what it holds, which is allowed too.
                let _ = unsafe {
                    rustix::mm::madvise(host.cast(), PAGE as usize, Advice::LinuxDontNeed)
                };
            }
            at += PAGE;
        }
    }

    /// Feeds all RAM to a hasher. Pages of zeros count as little more than their number.
    pub fn hash_ram(&self, hasher: &mut impl Hasher) {
        let mut bytes = [0; PAGE as usize];
        for range in self.ranges.iter().filter(|r| !r.rom) {
            for at in (0..range.len).step_by(PAGE as usize) {
                let from = range.host.wrapping_add(at as usize);
                // SAFETY: a whole page of the mapping; `bytes` is not guest memory.
                unsafe {
                    std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len());
                }
                if bytes != [0; PAGE as usize] {
                    (range.start + at).hash(hasher);
                    bytes.hash(hasher);
                }
            }
        }
    }

    /// Reads a device register.
    pub fn read_device(&self, addr: u64, width: Width) -> u64 {
        self.mmio().read(addr, width)
    }

    /// Writes a device register.
    pub fn write_device(&self, addr: u64, width: Width, value: u64) {
        self.mmio().write(addr, width, value);
    }

    /// Notes that `len` bytes from `addr` on, all on one page, were translated. Whether they are
    /// the first of the page: then every soft TLB must stop writing to it unseen. Nothing is noted
    /// outside memory.
    pub(super) fn note_code(&self, addr: u64, len: u64) -> bool {
        let Some(code) = self.code(addr).filter(|_| self.place(addr) != Place::Io) else {
            return false;
        };
        code.fetch_or(pieces(addr, len), Ordering::SeqCst) == 0
    }

    /// Whether any code of page number `page` was translated.
    #[inline]
    pub fn has_code(&self, page: u64) -> bool {
        self.code(page.wrapping_mul(PAGE))
            .is_some_and(|code| code.load(Ordering::Relaxed) != 0)
    }

    /// Whether any of `len` bytes from `addr` on, all on one page, lies in a piece that holds
    /// translated code.
    #[inline]
    pub fn hits_code(&self, addr: u64, len: u64) -> bool {
        self.code(addr)
            .is_some_and(|code| code.load(Ordering::Relaxed) & pieces(addr, len) != 0)
    }

    /// The first of those bytes that does.
    pub(super) fn first_code(&self, addr: u64, len: u64) -> Option<u64> {
        let hit = self.code(addr)?.load(Ordering::Relaxed) & pieces(addr, len);
        let piece = (addr & !(PAGE - 1)) + u64::from(hit.trailing_zeros()) * CODE_GRAIN;
        (hit != 0).then(|| piece.max(addr))
    }

    /// Notes that the translations of page number `page` are gone.
    pub fn forget_code(&self, page: u64) {
        if let Some(code) = self.code(page.wrapping_mul(PAGE)) {
            code.store(0, Ordering::SeqCst);
        }
    }

    /// Notes that the translations of the page at `addr` must go.
    pub fn note_dirty(&self, addr: u64) {
        lock(&self.dirty).push(addr / PAGE);
        self.any_dirty.store(true, Ordering::Release);
    }

    /// Whether [`PhysMemory::take_dirty`] would give any.
    #[inline]
    pub fn has_dirty(&self) -> bool {
        self.any_dirty.load(Ordering::Acquire)
    }

    /// The numbers of the pages whose translations must go.
    pub fn take_dirty(&self) -> Vec<u64> {
        if !self.any_dirty.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *lock(&self.dirty))
    }
}

/// Entries of paging structures, which the processor reads whole and changes with
/// compare-and-swap.
impl PhysMemory {
    /// The host address of an aligned entry, and whether it can be written.
    #[inline]
    fn entry(&self, addr: u64) -> Option<(*mut u8, bool)> {
        let inside = (addr % PAGE) as usize;
        match self.place(addr) {
            Place::Ram(host) => Some((host.wrapping_add(inside), true)),
            Place::Rom(host) => Some((host.wrapping_add(inside), false)),
            Place::Io => None,
        }
    }

    /// Reads a 32-bit entry; `addr` is aligned. All ones where no memory is.
    #[inline]
    pub(super) fn entry32(&self, addr: u64) -> u32 {
        // SAFETY: inside a mapping, which is made of whole pages, and aligned.
        self.entry(addr).map_or(u32::MAX, |(host, _)| unsafe {
            AtomicU32::from_ptr(host.cast()).load(Ordering::Acquire)
        })
    }

    /// Reads a 64-bit entry; `addr` is aligned. All ones where no memory is.
    #[inline]
    pub(super) fn entry64(&self, addr: u64) -> u64 {
        // SAFETY: as in `entry32`.
        self.entry(addr).map_or(u64::MAX, |(host, _)| unsafe {
            AtomicU64::from_ptr(host.cast()).load(Ordering::Acquire)
        })
    }

    /// Replaces a 32-bit entry. `false` if it is no longer `old`. A change of ROM or of nothing is
    /// lost.
    pub(super) fn swap32(&self, addr: u64, old: u32, new: u32) -> bool {
        let Some((host, true)) = self.entry(addr) else {
            return true;
        };
        // SAFETY: as in `entry32`, and writable.
        let cell = unsafe { AtomicU32::from_ptr(host.cast()) };
        let done = cell.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed);
        self.entry_written(addr, 4, done.is_ok())
    }

    /// [`PhysMemory::swap32`] of 64 bits.
    pub(super) fn swap64(&self, addr: u64, old: u64, new: u64) -> bool {
        let Some((host, true)) = self.entry(addr) else {
            return true;
        };
        // SAFETY: as in `entry32`, and writable.
        let cell = unsafe { AtomicU64::from_ptr(host.cast()) };
        let done = cell.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed);
        self.entry_written(addr, 8, done.is_ok())
    }

    /// A paging structure may share its page with code that was translated.
    fn entry_written(&self, addr: u64, len: u64, done: bool) -> bool {
        if done && self.hits_code(addr, len) {
            self.note_dirty(addr);
        }
        done
    }
}

/// The bits of the pieces that `len` bytes from `addr` on lie in.
fn pieces(addr: u64, len: u64) -> u64 {
    if len == 0 {
        return 0;
    }
    let first = addr % PAGE / CODE_GRAIN;
    let last = ((addr % PAGE + len - 1) / CODE_GRAIN).min(63);
    (u64::MAX << first) & (u64::MAX >> (63 - last))
}
