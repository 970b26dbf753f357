//! What `stat` and its like answer, in the layouts of both ABIs.

use super::{Call, Errno, Process, SysResult, check};
use crate::user::abi::{Abi, Pack};
use std::ffi::{CStr, CString};

/// Which structure a call fills.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    /// x86-64's `stat`.
    Long,
    /// i386's `stat`, with 32-bit sizes.
    Short,
    /// i386's `stat64`.
    Wide,
}

/// Encodes a device number as old structures hold it (16 bits).
fn old_dev(dev: u64) -> u16 {
    (libc::major(dev) << 8 | libc::minor(dev) & 0xff) as u16
}

/// The structure's bytes.
pub(super) fn pack(layout: Layout, s: &libc::stat64) -> Result<Pack, Errno> {
    let overflow = Errno(libc::EOVERFLOW);
    let times = [
        (s.st_atime, s.st_atime_nsec),
        (s.st_mtime, s.st_mtime_nsec),
        (s.st_ctime, s.st_ctime_nsec),
    ];
    match layout {
        Layout::Long => {
            let mut p = Pack::new(Abi::X86_64);
            // Its width differs between hosts.
            #[allow(clippy::unnecessary_cast)]
            p.u64(s.st_dev).u64(s.st_ino).u64(s.st_nlink as u64);
            p.u32(s.st_mode).u32(s.st_uid).u32(s.st_gid).u32(0);
            p.u64(s.st_rdev).u64(s.st_size as u64);
            p.u64(s.st_blksize as u64).u64(s.st_blocks as u64);
            for (sec, nsec) in times {
                p.u64(sec as u64).u64(nsec as u64);
            }
            p.pad_to(144);
            Ok(p)
        }
        Layout::Short => {
            let size = i32::try_from(s.st_size).map_err(|_| overflow)?;
            let inode = u32::try_from(s.st_ino).map_err(|_| overflow)?;
            let mut p = Pack::new(Abi::I386);
            p.u32(u32::from(old_dev(s.st_dev))).u32(inode);
            p.u16(s.st_mode as u16).u16(s.st_nlink as u16);
            p.u16(short_id(s.st_uid)).u16(short_id(s.st_gid));
            p.u32(u32::from(old_dev(s.st_rdev))).u32(size as u32);
            p.u32(s.st_blksize as u32).u32(s.st_blocks as u32);
            for (sec, nsec) in times {
                p.u32(sec as u32).u32(nsec as u32);
            }
            p.pad_to(64);
            Ok(p)
        }
        Layout::Wide => {
            let mut p = Pack::new(Abi::I386);
            p.u64(s.st_dev).u32(0).u32(s.st_ino as u32);
            p.u32(s.st_mode).u32(s.st_nlink as u32);
            p.u32(s.st_uid).u32(s.st_gid);
            p.u64(s.st_rdev).u32(0).u64(s.st_size as u64);
            p.u32(s.st_blksize as u32).u64(s.st_blocks as u64);
            for (sec, nsec) in times {
                p.u32(sec as u32).u32(nsec as u32);
            }
            p.u64(s.st_ino);
            Ok(p)
        }
    }
}

/// A user or group number in 16 bits; what does not fit is the overflow number.
pub(super) fn short_id(id: u32) -> u16 {
    u16::try_from(id).unwrap_or(65534)
}

impl Process {
    /// `fstat` and its like.
    pub(super) fn fstat(&mut self, c: &Call<'_>, layout: Layout) -> SysResult {
        let fd = self.fd(c.int(0))?;
        // SAFETY: all zeros is a valid stat, and the structure is ours.
        let mut s: libc::stat64 = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        check(unsafe { libc::fstat64(fd, &mut s) })?;
        pack(layout, &s)?.store(c.mem(), c.args[1])?;
        Ok(0)
    }

    /// `stat`, `lstat`, `fstatat`: the path and the buffer are arguments `at` and `at + 1`.
    pub(super) fn stat(
        &mut self,
        c: &Call<'_>,
        dir: i32,
        at: usize,
        flags: i32,
        layout: Layout,
    ) -> SysResult {
        let path = self.path_or_empty(c, at, flags)?;
        let dir = if dir == libc::AT_FDCWD {
            dir
        } else {
            self.fd(dir)?
        };
        // SAFETY: all zeros is a valid stat.
        let mut s: libc::stat64 = unsafe { std::mem::zeroed() };
        // SAFETY: path and structure are ours.
        check(unsafe { libc::fstatat64(dir, path.as_ptr(), &mut s, flags) })?;
        pack(layout, &s)?.store(c.mem(), c.args[at + 1])?;
        Ok(0)
    }

    /// A path that may be null or empty if `AT_EMPTY_PATH` is set.
    fn path_or_empty(&self, c: &Call<'_>, n: usize, flags: i32) -> Result<CString, Errno> {
        if flags & libc::AT_EMPTY_PATH != 0 && c.args[n] == 0 {
            return Ok(CString::default());
        }
        self.path_arg(c, n)
    }

    /// `statx`, whose structure is the same everywhere.
    pub(super) fn statx(&mut self, c: &Call<'_>) -> SysResult {
        let path = self.path_or_empty(c, 1, c.int(2))?;
        let dir = c.int(0);
        let dir = if dir == libc::AT_FDCWD {
            dir
        } else {
            self.fd(dir)?
        };
        let out = c.exact(c.args[4], 256, true)?;
        // SAFETY: the path is ours, and 256 bytes of guest memory were checked.
        check(unsafe {
            libc::syscall(
                libc::SYS_statx,
                dir,
                path.as_ptr(),
                c.int(2),
                c.args[3] as u32,
                out,
            )
        })
    }

    /// `statfs` and `fstatfs`; `wide` is i386's 64-bit form, which has the structure's size as
    /// its second argument.
    pub(super) fn statfs(&mut self, c: &Call<'_>, by_path: bool, wide: bool) -> SysResult {
        // SAFETY: all zeros is a valid statfs.
        let mut s: libc::statfs64 = unsafe { std::mem::zeroed() };
        if by_path {
            let path = self.path_arg(c, 0)?;
            // SAFETY: path and structure are ours.
            check(unsafe { libc::statfs64(path.as_ptr(), &mut s) })?;
        } else {
            let fd = self.fd(c.int(0))?;
            // SAFETY: the structure is ours.
            check(unsafe { libc::fstatfs64(fd, &mut s) })?;
        }
        if wide && c.args[1] != 84 && c.args[1] != 88 {
            return Err(Errno(libc::EINVAL));
        }
        let mut p = Pack::new(c.abi);
        // SAFETY: the identifier is two ints.
        let id: [u32; 2] = unsafe { std::mem::transmute(s.f_fsid) };
        p.word(s.f_type as u64).word(s.f_bsize as u64);
        for n in [s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree] {
            if wide {
                p.u64(n);
            } else {
                p.word(n);
            }
        }
        p.u32(id[0]).u32(id[1]);
        p.word(s.f_namelen as u64).word(s.f_frsize as u64).word(0);
        for _ in 0..4 {
            p.word(0);
        }
        p.store(c.mem(), c.args[if wide { 2 } else { 1 }])?;
        Ok(0)
    }
}

/// Whether a path exists for the access that is asked for.
pub(super) fn access(dir: i32, path: &CStr, mode: i32, flags: i32) -> SysResult {
    // SAFETY: the path is a C string.
    check(unsafe { libc::faccessat(dir, path.as_ptr(), mode, flags) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> libc::stat64 {
        // SAFETY: all zeros is a valid stat.
        let mut s: libc::stat64 = unsafe { std::mem::zeroed() };
        s.st_dev = 0x801;
        s.st_ino = 77;
        s.st_mode = 0o100_644;
        s.st_nlink = 2;
        s.st_uid = 70000;
        s.st_size = 0x1_0000_0001;
        s.st_mtime = 5;
        s.st_mtime_nsec = 6;
        s
    }

    #[test]
    fn sizes_are_those_of_linux() {
        let mut s = sample();
        assert_eq!(pack(Layout::Long, &s).unwrap().bytes.len(), 144);
        assert_eq!(pack(Layout::Wide, &s).unwrap().bytes.len(), 96);
        assert_eq!(pack(Layout::Short, &s).unwrap_err(), Errno(libc::EOVERFLOW));
        s.st_size = 9;
        let short = pack(Layout::Short, &s).unwrap().bytes;
        assert_eq!(short.len(), 64);
        // The user number does not fit.
        assert_eq!(u16::from_le_bytes([short[12], short[13]]), 65534);
        assert_eq!(short[20], 9);
    }

    #[test]
    fn offsets_of_stat64() {
        let b = pack(Layout::Wide, &sample()).unwrap().bytes;
        let at = |n: usize| u32::from_le_bytes(b[n..n + 4].try_into().unwrap());
        assert_eq!(at(12), 77);
        assert_eq!(at(16), 0o100_644);
        assert_eq!(at(24), 70000);
        assert_eq!((at(44), at(48)), (1, 1));
        assert_eq!((at(72), at(76)), (5, 6));
        assert_eq!(at(88), 77);
    }
}
