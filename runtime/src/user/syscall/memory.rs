//! Memory: `brk`, `mmap` and the rest of the family.

use super::{Call, Errno, Process, SysResult, check, pages};
use crate::memory::{FileMapping, PAGE, page};
use crate::user::abi::Unpack;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

const MAP_SHARED: u64 = 1;
const MAP_TYPE: u64 = 15;
const MAP_SHARED_VALIDATE: u64 = 3;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_32BIT: u64 = 0x40;
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
const MREMAP_MAYMOVE: u64 = 1;
const MREMAP_FIXED: u64 = 2;

/// Rights that `mmap` and `mprotect` know; x86 has no other effect of the growing flags.
const PROT_MASK: u64 = 7;

const EINVAL: Errno = Errno(libc::EINVAL);
const ENOMEM: Errno = Errno(libc::ENOMEM);

impl Process {
    /// `brk`.
    pub(super) fn brk(&mut self, c: &Call<'_>) -> SysResult {
        let wanted = c.args[0];
        let space = &mut self.space;
        if wanted < space.brk_start || wanted > space.layout.mmap_top {
            return Ok(space.brk);
        }
        let (old, new) = match (pages(space.brk), pages(wanted)) {
            (Some(old), Some(new)) => (old, new),
            _ => return Ok(space.brk),
        };
        if new > old {
            let len = new - old;
            let prot = page::READ | page::WRITE;
            if !c.mem().all_free(old, len) || c.mem().map_anon(old, len, prot).is_err() {
                return Ok(space.brk);
            }
            let start = pages(space.brk_start).unwrap_or(old);
            space.note(start, new - start, "[heap]", 0, false);
        } else if new < old {
            c.mem().unmap(new, old - new)?;
            space.forget(new, old - new);
        }
        space.brk = wanted;
        Ok(wanted)
    }

    /// `mmap`, `mmap2`, `old_mmap`: `offset` is in bytes.
    pub(super) fn mmap(&mut self, c: &Call<'_>, a: [u64; 5], offset: u64) -> SysResult {
        let [addr, len, prot, flags, fd] = a;
        let len = match pages(len) {
            Some(0) => return Err(EINVAL),
            Some(len) => len,
            None => return Err(ENOMEM),
        };
        let kind = flags & MAP_TYPE;
        let shared = kind == MAP_SHARED || kind == MAP_SHARED_VALIDATE;
        if (!shared && kind != 2) || !offset.is_multiple_of(PAGE) {
            return Err(EINVAL);
        }
        let at = self.place(c, addr, len, flags)?;
        let prot = (prot & PROT_MASK) as u8;
        let mut name = String::new();
        if flags & MAP_ANONYMOUS != 0 {
            if shared {
                c.mem().map_anon_shared(at, len, prot)?;
            } else {
                c.mem().map_anon(at, len, prot)?;
            }
        } else {
            let fd = self.fd(fd as i32)?;
            // SAFETY: plain values.
            check(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
            // SAFETY: the descriptor is open, as the call above has shown, and nothing closes it
            // before the mapping is made.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            c.mem()
                .map_file(at, len, prot, FileMapping { fd, offset, shared })?;
            name = file_name(fd);
        }
        self.space.note(at, len, &name, offset, shared);
        Ok(at)
    }

    /// Where a new mapping goes.
    fn place(&mut self, c: &Call<'_>, addr: u64, len: u64, flags: u64) -> SysResult {
        let limit = c.mem().limit();
        let layout = self.space.layout;
        if flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0 {
            if !addr.is_multiple_of(PAGE) {
                return Err(EINVAL);
            }
            if addr < layout.low {
                return Err(Errno(libc::EPERM));
            }
            if addr.checked_add(len).is_none_or(|end| end > limit) {
                return Err(ENOMEM);
            }
            if flags & MAP_FIXED_NOREPLACE != 0 && !c.mem().all_free(addr, len) {
                return Err(Errno(libc::EEXIST));
            }
            return Ok(addr);
        }
        if flags & MAP_32BIT != 0 && limit > 1 << 32 {
            return c
                .mem()
                .find_free(len, 0x4000_0000, 0x8000_0000)
                .ok_or(ENOMEM);
        }
        let hint = addr & !(PAGE - 1);
        let fits = hint
            .checked_add(len)
            .is_some_and(|end| end <= layout.mmap_top);
        if hint >= layout.low && fits && c.mem().all_free(hint, len) {
            return Ok(hint);
        }
        self.space.find(&c.env.memory, len).ok_or(ENOMEM)
    }

    /// i386's first `mmap`, with its arguments in memory.
    pub(super) fn old_mmap(&mut self, c: &Call<'_>) -> SysResult {
        let mut u = Unpack::new(c.abi, c.mem(), c.args[0]);
        let a = [u.word()?, u.word()?, u.word()?, u.word()?, u.word()?];
        let offset = u.word()?;
        self.mmap(c, a, offset)
    }

    /// `munmap`.
    pub(super) fn munmap(&mut self, c: &Call<'_>) -> SysResult {
        let addr = c.args[0];
        let len = pages(c.args[1]).ok_or(EINVAL)?;
        c.mem().unmap(addr, len)?;
        self.space.forget(addr, len);
        Ok(0)
    }

    /// `mprotect`.
    pub(super) fn mprotect(&mut self, c: &Call<'_>) -> SysResult {
        let addr = c.args[0];
        if !addr.is_multiple_of(PAGE) {
            return Err(EINVAL);
        }
        let len = pages(c.args[1]).ok_or(ENOMEM)?;
        if len == 0 {
            return Ok(0);
        }
        if addr
            .checked_add(len)
            .is_none_or(|end| end > c.mem().limit())
        {
            return Err(ENOMEM);
        }
        c.mem().protect(addr, len, (c.args[2] & PROT_MASK) as u8)?;
        Ok(0)
    }

    /// `mremap`.
    pub(super) fn mremap(&mut self, c: &Call<'_>) -> SysResult {
        let [addr, old, new, flags, wanted, _] = c.args;
        if !addr.is_multiple_of(PAGE) || flags & !3 != 0 || flags == MREMAP_FIXED {
            return Err(EINVAL);
        }
        let (old, new) = (pages(old).ok_or(EINVAL)?, pages(new).ok_or(EINVAL)?);
        if new == 0 || old == 0 {
            return Err(EINVAL);
        }
        if !c.mem().all_mapped(addr, old) {
            return Err(Errno(libc::EFAULT));
        }
        let fixed = flags & MREMAP_FIXED != 0;
        if !fixed && new <= old {
            if new < old {
                c.mem().unmap(addr + new, old - new)?;
                self.space.forget(addr + new, old - new);
            }
            return Ok(addr);
        }
        let (name, offset, shared) = self.space.origin(addr);
        let anonymous = !shared && !name.starts_with('/');
        let room = addr
            .checked_add(new)
            .is_some_and(|end| end <= self.space.layout.mmap_top);
        if !fixed && anonymous && room && c.mem().all_free(addr + old, new - old) {
            let prot = c.mem().flags(addr) & PROT_MASK as u8;
            c.mem().map_anon(addr + old, new - old, prot)?;
            self.space.note(addr + old, new - old, &name, 0, false);
            return Ok(addr);
        }
        if flags & MREMAP_MAYMOVE == 0 {
            return Err(ENOMEM);
        }
        let to = if fixed {
            let overlap = wanted < addr.saturating_add(old) && addr < wanted.saturating_add(new);
            if !wanted.is_multiple_of(PAGE) || overlap || wanted < self.space.layout.low {
                return Err(EINVAL);
            }
            wanted
        } else {
            self.space.find(&c.env.memory, new).ok_or(ENOMEM)?
        };
        c.mem().relocate(addr, old, to, new)?;
        self.space.forget(addr, old);
        self.space.note(to, new, &name, offset, shared);
        Ok(to)
    }

    /// `madvise`: what changes contents is done, the rest is advice.
    pub(super) fn madvise(&mut self, c: &Call<'_>) -> SysResult {
        let (addr, advice) = (c.args[0], c.int(2));
        if !addr.is_multiple_of(PAGE) {
            return Err(EINVAL);
        }
        let len = pages(c.args[1]).ok_or(EINVAL)?;
        if len == 0 {
            return Ok(0);
        }
        if !c.mem().all_mapped(addr, len) {
            return Err(ENOMEM);
        }
        match advice {
            libc::MADV_DONTNEED | libc::MADV_REMOVE | libc::MADV_FREE => {
                c.mem().discard(addr, len, advice)?;
                Ok(0)
            }
            0..=4 | 10..=20 => Ok(0),
            _ => Err(EINVAL),
        }
    }

    /// `msync`.
    pub(super) fn msync(&mut self, c: &Call<'_>) -> SysResult {
        let addr = c.args[0];
        if !addr.is_multiple_of(PAGE) {
            return Err(EINVAL);
        }
        let len = pages(c.args[1]).ok_or(ENOMEM)?;
        if len == 0 {
            return Ok(0);
        }
        if !c.mem().all_mapped(addr, len) {
            return Err(ENOMEM);
        }
        let host = c.mem().base().wrapping_add(addr as usize);
        // SAFETY: the range is mapped and lies in the guest's window.
        check(unsafe { libc::msync(host.cast(), len as usize, c.int(2)) })
    }

    /// `mincore`: everything mapped counts as present.
    pub(super) fn mincore(&mut self, c: &Call<'_>) -> SysResult {
        let (addr, out) = (c.args[0], c.args[2]);
        if !addr.is_multiple_of(PAGE) {
            return Err(EINVAL);
        }
        let len = pages(c.args[1]).ok_or(ENOMEM)?;
        if len != 0 && !c.mem().all_mapped(addr, len) {
            return Err(ENOMEM);
        }
        let present = vec![1; (len / PAGE) as usize];
        c.mem().write_bytes(out, &present)?;
        Ok(0)
    }
}

/// The path of an open file.
fn file_name(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    match std::fs::read_link(link) {
        Ok(path) => String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned(),
        Err(_) => "/?".to_owned(),
    }
}
