//! Reads and writes of guest memory by the interpreter, helpers and system calls.
//!
//! Every access is checked against the page flags, all of it before any of it happens. The checks
//! do not overflow for any address.

use super::{GuestMemory, MemFault, PAGE, page};

mod sealed {
    pub trait Sealed {}
}

/// A value that is read or written as a whole: `u8` to `u128`.
pub trait Scalar: Copy + sealed::Sealed {}

macro_rules! scalars {
    ($($ty:ty)*) => {$(
        impl sealed::Sealed for $ty {}
        impl Scalar for $ty {}
    )*};
}

scalars!(u8 u16 u32 u64 u128);

impl GuestMemory {
    /// Reads a little-endian value at any alignment.
    #[inline(always)]
    pub fn read<T: Scalar>(&self, addr: u64) -> Result<T, MemFault> {
        let size = size_of::<T>() as u64;
        if self.flags(addr) & page::READ == 0 || addr % PAGE > PAGE - size {
            if let Some(paged) = self.paged() {
                return paged.read(addr);
            }
            self.check_slow(addr, size, false)?;
        }
        // SAFETY: the pages that the value lies on are mapped and readable.
        Ok(unsafe { self.host(addr).cast::<T>().read_unaligned() })
    }

    /// Reads an operand that the instruction writes afterwards: in a full system that needs the
    /// right to write. (In a Linux program the write itself tells.)
    #[inline(always)]
    pub fn read_update<T: Scalar>(&self, addr: u64) -> Result<T, MemFault> {
        match self.paged() {
            Some(paged) => paged.read_update(addr),
            None => self.read(addr),
        }
    }

    /// Writes a little-endian value at any alignment.
    #[inline(always)]
    pub fn write<T: Scalar>(&self, addr: u64, value: T) -> Result<(), MemFault> {
        let size = size_of::<T>() as u64;
        let wanted = page::WRITE | page::CODE | page::WATCH;
        if self.flags(addr) & wanted != page::WRITE || addr % PAGE > PAGE - size {
            if let Some(paged) = self.paged() {
                return paged.write(addr, value);
            }
            self.check_slow(addr, size, true)?;
        }
        // SAFETY: the pages that the value lies on are mapped and writable.
        unsafe { self.host(addr).cast::<T>().write_unaligned(value) };
        Ok(())
    }

    /// Checks an access of `size` bytes that crosses pages or is refused.
    #[cold]
    #[inline(never)]
    fn check_slow(&self, addr: u64, size: u64, write: bool) -> Result<(), MemFault> {
        self.check(addr, size, write)
    }

    /// Checks every page of a range for reading or for writing; an empty range is always fine.
    pub fn check(&self, addr: u64, len: u64, write: bool) -> Result<(), MemFault> {
        if let Some(paged) = self.paged() {
            return paged.check(addr, len, write);
        }
        let mut done = 0;
        while done < len {
            let at = addr.wrapping_add(done);
            let flags = self.flags(at);
            let right = if write { page::WRITE } else { page::READ };
            let code = write && flags & page::CODE != 0;
            if flags & right == 0 || code {
                return Err(MemFault {
                    addr: at,
                    write,
                    code: code && flags & right != 0,
                });
            }
            done += PAGE - at % PAGE;
        }
        if write && len > 0 {
            self.save_watched(addr, len);
        }
        Ok(())
    }

    /// Saves the watched pages of a range that is about to be written to.
    fn save_watched(&self, addr: u64, len: u64) {
        for n in addr / PAGE..=(addr + (len - 1)) / PAGE {
            if self.flags(n * PAGE) & page::WATCH != 0 {
                self.save_page(n);
            }
        }
    }

    /// Reads bytes; on a fault nothing of `out` has changed.
    pub fn read_bytes(&self, addr: u64, out: &mut [u8]) -> Result<(), MemFault> {
        self.check(addr, out.len() as u64, false)?;
        if let Some(paged) = self.paged() {
            for (n, byte) in out.iter_mut().enumerate() {
                *byte = paged.read(addr.wrapping_add(n as u64))?;
            }
            return Ok(());
        }
        // SAFETY: every page is readable; `out` is not guest memory, which no slice refers to.
        unsafe { std::ptr::copy_nonoverlapping(self.host(addr), out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    /// Writes bytes; on a fault nothing is written. For system calls and loaders: translations on
    /// the pages are marked dirty first, as [`GuestMemory::host_ptr`] does.
    pub fn write_bytes(&self, addr: u64, bytes: &[u8]) -> Result<(), MemFault> {
        if let Some(paged) = self.paged() {
            paged.check(addr, bytes.len() as u64, true)?;
            for (n, &byte) in bytes.iter().enumerate() {
                paged.write(addr.wrapping_add(n as u64), byte)?;
            }
            return Ok(());
        }
        let to = self.host_ptr(addr, bytes.len() as u64, true)?;
        // SAFETY: every page is writable; `bytes` is not guest memory, which no slice refers to.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    /// Reads a string up to its 0 byte (not included), at most `max` bytes: a longer one gives
    /// `Ok(None)`.
    pub fn read_cstr(&self, addr: u64, max: usize) -> Result<Option<Vec<u8>>, MemFault> {
        let mut out = Vec::new();
        while out.len() < max {
            let at = addr.wrapping_add(out.len() as u64);
            let n = ((PAGE - at % PAGE) as usize).min(max - out.len());
            self.check(at, 1, false)?;
            let old = out.len();
            out.resize(old + n, 0);
            self.read_bytes(at, &mut out[old..])?;
            if let Some(end) = out[old..].iter().position(|&b| b == 0) {
                out.truncate(old + end);
                return Ok(Some(out));
            }
        }
        Ok(None)
    }

    /// A host pointer to guest memory for a system call, after checking every page. For a write,
    /// pages with translations are released and noted for [`GuestMemory::take_dirty_code`].
    ///
    /// Valid for `len` bytes as long as the guest's mappings do not change.
    pub fn host_ptr(&self, addr: u64, len: u64, write: bool) -> Result<*mut u8, MemFault> {
        let mut done = 0;
        while done < len {
            let at = addr.wrapping_add(done);
            match self.check(at, 1, write) {
                Ok(()) => {}
                Err(fault) if fault.code => {
                    self.release_code(at / PAGE).map_err(|_| fault)?;
                    self.note_dirty(at / PAGE);
                }
                Err(fault) => return Err(fault),
            }
            done += PAGE - at % PAGE;
        }
        Ok(self.host(addr))
    }

    /// Fetches code bytes: as many as lie on executable pages, up to the length of `out`. 0 means
    /// that the first byte cannot be fetched.
    pub fn fetch(&self, addr: u64, out: &mut [u8]) -> usize {
        if let Some(paged) = self.paged() {
            return paged.fetch(addr, out);
        }
        let mut done = 0;
        while done < out.len() {
            let at = addr.wrapping_add(done as u64);
            if self.flags(at) & page::EXEC == 0 {
                break;
            }
            let n = ((PAGE - at % PAGE) as usize).min(out.len() - done);
            // SAFETY: the page is executable for the guest, so readable; `n` bytes of it are left.
            unsafe {
                std::ptr::copy_nonoverlapping(self.host(at), out[done..].as_mut_ptr(), n);
            }
            done += n;
        }
        done
    }
}

impl GuestMemory {
    /// The host address of `len` bytes that may be accessed so, for the bulk of a string
    /// instruction; all on one page. `None`: they are to be accessed one by one.
    pub(crate) fn span(
        &self,
        addr: u64,
        len: u64,
        write: bool,
    ) -> Result<Option<*mut u8>, MemFault> {
        if let Some(paged) = self.paged() {
            return paged.span(addr, len, write);
        }
        self.check(addr, len, write)?;
        Ok(Some(self.host(addr)))
    }
}

/// Fills memory with `count` copies of the low `size` bytes of `value`.
///
/// # Safety
/// [`GuestMemory::span`] has given `to` for that many bytes to be written.
pub(crate) unsafe fn fill(to: *mut u8, size: usize, value: u64, count: u64) {
    // SAFETY: the caller vouches for the range.
    unsafe {
        if size == 1 {
            std::ptr::write_bytes(to, value as u8, count as usize);
            return;
        }
        let bytes = value.to_le_bytes();
        for n in 0..count as usize {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.add(n * size), size.min(8));
        }
    }
}
