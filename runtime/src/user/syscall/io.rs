//! Reading and writing.

use super::{Call, Errno, Process, SysResult, check, host, host_call};
use crate::user::abi::Unpack;

/// Most elements of an `iovec` array.
const IOV_MAX: u64 = 1024;

impl Call<'_> {
    /// The `iovec` array at an address, with host pointers. Where memory ends in the middle of
    /// an element the list ends too; if nothing is left, that is an error.
    pub fn iovecs(&self, at: u64, count: u64, write: bool) -> Result<Vec<libc::iovec>, Errno> {
        if count > IOV_MAX {
            return Err(Errno(libc::EINVAL));
        }
        let mut u = Unpack::new(self.abi, self.mem(), at);
        let mut list = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let (base, len) = (u.word()?, u.long()?);
            if len < 0 {
                return Err(Errno(libc::EINVAL));
            }
            match self.buffer(base, len as u64, write) {
                Ok((p, n)) => {
                    list.push(libc::iovec {
                        iov_base: p.cast(),
                        iov_len: n,
                    });
                    if (n as i64) < len {
                        break;
                    }
                }
                Err(e) if list.is_empty() => return Err(e),
                Err(_) => break,
            }
        }
        Ok(list)
    }
}

impl Process {
    /// `read` and `write`.
    pub(super) fn transfer(&mut self, c: &Call<'_>, read: bool) -> SysResult {
        let fd = self.fd(c.int(0))?;
        let (p, n) = c.buffer(c.args[1], c.args[2], read)?;
        let nr = if read {
            libc::SYS_read
        } else {
            libc::SYS_write
        };
        // SAFETY: the buffer was checked for its length.
        unsafe { host::blocking(nr, [fd as u64, p as u64, n as u64, 0, 0, 0]) }
    }

    /// `pread64` and `pwrite64`.
    pub(super) fn transfer_at(&mut self, c: &Call<'_>, read: bool) -> SysResult {
        let fd = self.fd(c.int(0))?;
        let (p, n) = c.buffer(c.args[1], c.args[2], read)?;
        let nr = if read {
            libc::SYS_pread64
        } else {
            libc::SYS_pwrite64
        };
        let offset = c.offset(3) as u64;
        // SAFETY: the buffer was checked for its length.
        unsafe { host::blocking(nr, [fd as u64, p as u64, n as u64, offset, 0, 0]) }
    }

    /// `readv` and `writev`; with `at` also `preadv` and `pwritev`, whose offset is two words in
    /// both ABIs.
    pub(super) fn transfer_vector(&mut self, c: &Call<'_>, read: bool, at: bool) -> SysResult {
        let fd = self.fd(c.int(0))? as u64;
        let list = c.iovecs(c.args[1], c.args[2], read)?;
        let (p, n) = (list.as_ptr() as u64, list.len() as u64);
        let args = if at {
            let offset = if c.abi.is_64() {
                c.args[3]
            } else {
                c.args[3] & 0xffff_ffff | c.args[4] << 32
            };
            [fd, p, n, offset, 0, 0]
        } else {
            [fd, p, n, 0, 0, 0]
        };
        let nr = match (read, at) {
            (true, false) => libc::SYS_readv,
            (false, false) => libc::SYS_writev,
            (true, true) => libc::SYS_preadv,
            (false, true) => libc::SYS_pwritev,
        };
        // SAFETY: the list and all that it points to were checked.
        unsafe { host::blocking(nr, args) }
    }

    /// `lseek`.
    pub(super) fn lseek(&mut self, c: &Call<'_>) -> SysResult {
        let fd = self.fd(c.int(0))?;
        // SAFETY: plain values.
        check(unsafe { libc::lseek64(fd, c.long(1), c.int(2)) })
    }

    /// `_llseek`: the result goes to memory.
    pub(super) fn llseek(&mut self, c: &Call<'_>) -> SysResult {
        let fd = self.fd(c.int(0))?;
        let offset = (c.args[1] << 32 | c.args[2] & 0xffff_ffff) as i64;
        // SAFETY: plain values.
        let at = check(unsafe { libc::lseek64(fd, offset, c.int(4)) })?;
        c.mem().write_bytes(c.args[3], &at.to_le_bytes())?;
        Ok(0)
    }

    /// `sendfile` and `sendfile64`: `wide` says that the offset has 64 bits.
    pub(super) fn sendfile(&mut self, c: &Call<'_>, wide: bool) -> SysResult {
        let (out, from) = (self.fd(c.int(0))?, self.fd(c.int(1))?);
        let count = c.args[3].min(0x7fff_f000);
        let at = c.args[2];
        let mut offset: i64 = 0;
        let pointer = if at == 0 {
            0
        } else {
            offset = if wide {
                c.mem().read::<u64>(at)? as i64
            } else {
                i64::from(c.mem().read::<u32>(at)? as i32)
            };
            &raw mut offset as u64
        };
        let args = [out as u64, from as u64, pointer, count, 0, 0];
        // SAFETY: the offset is ours.
        let n = unsafe { host::blocking(libc::SYS_sendfile, args) }?;
        if at != 0 {
            if wide {
                c.mem().write_bytes(at, &offset.to_le_bytes())?;
            } else {
                c.mem().write_bytes(at, &(offset as i32).to_le_bytes())?;
            }
        }
        Ok(n)
    }

    /// `copy_file_range`.
    pub(super) fn copy_file_range(&mut self, c: &Call<'_>) -> SysResult {
        let (from, to) = (self.fd(c.int(0))?, self.fd(c.int(2))?);
        let mut offsets = [0i64; 2];
        let mut pointers = [0u64; 2];
        for (n, &at) in [c.args[1], c.args[3]].iter().enumerate() {
            if at != 0 {
                offsets[n] = c.mem().read::<u64>(at)? as i64;
                pointers[n] = &raw mut offsets[n] as u64;
            }
        }
        let args = [
            from as u64,
            pointers[0],
            to as u64,
            pointers[1],
            c.args[4],
            c.args[5] & 0xffff_ffff,
        ];
        // SAFETY: the offsets are ours.
        let n = unsafe { host::blocking(libc::SYS_copy_file_range, args) }?;
        for (n, &at) in [c.args[1], c.args[3]].iter().enumerate() {
            if at != 0 {
                c.mem().write_bytes(at, &offsets[n].to_le_bytes())?;
            }
        }
        Ok(n)
    }

    /// `fsync`, `fdatasync`, `syncfs`: calls of one descriptor.
    pub(super) fn on_descriptor(&mut self, c: &Call<'_>, nr: i64) -> SysResult {
        let fd = self.fd(c.int(0))? as u64;
        // SAFETY: plain values.
        unsafe { host::blocking(nr, [fd, 0, 0, 0, 0, 0]) }
    }

    /// `ftruncate` and `ftruncate64`.
    pub(super) fn ftruncate(&mut self, c: &Call<'_>, wide: bool) -> SysResult {
        let fd = self.fd(c.int(0))?;
        let len = if wide { c.offset(1) } else { c.long(1) };
        // SAFETY: plain values.
        check(unsafe { libc::ftruncate64(fd, len) })
    }

    /// `fallocate`.
    pub(super) fn fallocate(&mut self, c: &Call<'_>) -> SysResult {
        let fd = self.fd(c.int(0))?;
        let (offset, len) = if c.abi.is_64() {
            (c.args[2] as i64, c.args[3] as i64)
        } else {
            (c.offset(2), c.offset(4))
        };
        // SAFETY: plain values.
        check(unsafe { libc::fallocate64(fd, c.int(1), offset, len) })
    }

    /// `fadvise64`: advice only, so what a host refuses is no matter.
    pub(super) fn fadvise(&mut self, c: &Call<'_>) -> SysResult {
        let fd = self.fd(c.int(0))?;
        // SAFETY: plain values.
        unsafe {
            host_call(
                libc::SYS_fcntl,
                [fd as u64, libc::F_GETFD as u64, 0, 0, 0, 0],
            )
        }?;
        Ok(0)
    }

    /// `getrandom`.
    pub(super) fn getrandom(&mut self, c: &Call<'_>) -> SysResult {
        let (p, n) = c.buffer(c.args[0], c.args[1], true)?;
        let args = [p as u64, n as u64, c.args[2] & 0xffff_ffff, 0, 0, 0];
        // SAFETY: the buffer was checked for its length.
        unsafe { host::blocking(libc::SYS_getrandom, args) }
    }
}
