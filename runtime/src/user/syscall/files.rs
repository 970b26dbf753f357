//! Calls that take paths, and directories.

use super::descriptors::open_flags_to_host;
use super::{Call, Errno, Process, SysResult, check, host, host_call, stat};
use crate::user::abi::{Abi, Pack, Unpack};
use crate::user::paths::{self, Own};
use std::io::Write;
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;

impl Process {
    /// A directory argument of the `…at` calls.
    pub(super) fn dir(&self, fd: i32) -> Result<i32, Errno> {
        if fd == libc::AT_FDCWD {
            return Ok(fd);
        }
        self.fd(fd)
    }

    /// `open`, `openat`, `creat`.
    pub(super) fn open(
        &mut self,
        c: &Call<'_>,
        dir: i32,
        path: u64,
        flags: i32,
        mode: u64,
    ) -> SysResult {
        let guest = c.string_at(path)?;
        match paths::own(&guest) {
            Some(Own::Maps) => {
                let maps = self.space.maps(c.mem());
                return own_file("maps", maps.as_bytes(), flags);
            }
            Some(Own::CommandLine) => {
                let mut text = Vec::new();
                for arg in &self.args {
                    text.extend_from_slice(arg);
                    text.push(0);
                }
                return own_file("cmdline", &text, flags);
            }
            Some(Own::Exe) | None => {}
        }
        let path = self.host_path(&guest)?;
        let args = [
            self.dir(dir)? as u64,
            path.as_ptr() as u64,
            open_flags_to_host(flags) as u64,
            mode & 0o7777,
            0,
            0,
        ];
        // SAFETY: the path is a C string of ours. Opening a FIFO may wait.
        unsafe { host::blocking(libc::SYS_openat, args) }
    }

    /// `access` and its like.
    pub(super) fn access(&mut self, c: &Call<'_>, dir: i32, path: usize, flags: i32) -> SysResult {
        let name = self.path_arg(c, path)?;
        stat::access(self.dir(dir)?, &name, c.int(path + 1), flags)
    }

    /// Calls of the form `nr(dir, path, a, b)`. `path` is the argument that holds the path.
    pub(super) fn on_path(
        &mut self,
        c: &Call<'_>,
        nr: i64,
        dir: i32,
        path: usize,
        rest: [u64; 3],
    ) -> SysResult {
        let name = self.path_arg(c, path)?;
        let dir = self.dir(dir)? as u64;
        let args = [dir, name.as_ptr() as u64, rest[0], rest[1], rest[2], 0];
        // SAFETY: the path is a C string of ours; the rest are plain values.
        unsafe { host_call(nr, args) }
    }

    /// Calls of the form `nr(path, a, b)`.
    pub(super) fn on_plain_path(&mut self, c: &Call<'_>, nr: i64, rest: [u64; 2]) -> SysResult {
        let name = self.path_arg(c, 0)?;
        let args = [name.as_ptr() as u64, rest[0], rest[1], 0, 0, 0];
        // SAFETY: as above.
        unsafe { host_call(nr, args) }
    }

    /// `truncate` and `truncate64`.
    pub(super) fn truncate(&mut self, c: &Call<'_>, wide: bool) -> SysResult {
        let len = if wide { c.offset(1) } else { c.long(1) };
        self.on_plain_path(c, libc::SYS_truncate, [len as u64, 0])
    }

    /// Calls with two paths: `rename…`, `link…`. The arguments are indices of paths and the
    /// directories that they are relative to.
    pub(super) fn on_two_paths(
        &mut self,
        c: &Call<'_>,
        nr: i64,
        from: (i32, usize),
        to: (i32, usize),
        flags: u64,
    ) -> SysResult {
        let (old, new) = (self.path_arg(c, from.1)?, self.path_arg(c, to.1)?);
        let (old_dir, new_dir) = (self.dir(from.0)?, self.dir(to.0)?);
        let args = [
            old_dir as u64,
            old.as_ptr() as u64,
            new_dir as u64,
            new.as_ptr() as u64,
            flags,
            0,
        ];
        // SAFETY: the paths are C strings of ours.
        unsafe { host_call(nr, args) }
    }

    /// `symlink` and `symlinkat`: the text of a link is not a path to translate.
    pub(super) fn symlink(&mut self, c: &Call<'_>, dir: i32, path: usize) -> SysResult {
        let text = super::cstring(&c.string(0)?)?;
        let name = self.path_arg(c, path)?;
        // SAFETY: both are C strings of ours.
        check(unsafe { libc::symlinkat(text.as_ptr(), self.dir(dir)?, name.as_ptr()) })
    }

    /// `readlink` and `readlinkat`.
    pub(super) fn readlink(&mut self, c: &Call<'_>, dir: i32, path: usize) -> SysResult {
        let guest = c.string(path)?;
        let (out, size) = (c.args[path + 1], c.args[path + 2]);
        if size == 0 || size > i32::MAX as u64 {
            return Err(Errno(libc::EINVAL));
        }
        if paths::own(&guest) == Some(Own::Exe) {
            let exe = self.exe.as_os_str().as_bytes();
            let n = exe.len().min(size as usize);
            c.mem().write_bytes(out, &exe[..n])?;
            return Ok(n as u64);
        }
        let name = self.host_path(&guest)?;
        let (p, n) = c.buffer(out, size, true)?;
        // SAFETY: the path is a C string of ours, the buffer was checked.
        let dir = self.dir(dir)?;
        // SAFETY: as above.
        check(unsafe { libc::readlinkat(dir, name.as_ptr(), p.cast(), n) } as i64)
    }

    /// `getcwd`: the length with the 0.
    pub(super) fn getcwd(&mut self, c: &Call<'_>) -> SysResult {
        let cwd =
            std::env::current_dir().map_err(|e| Errno(e.raw_os_error().unwrap_or(libc::ENOENT)))?;
        let mut bytes = cwd.as_os_str().as_bytes().to_vec();
        bytes.push(0);
        if bytes.len() as u64 > c.args[1] {
            return Err(Errno(libc::ERANGE));
        }
        c.mem().write_bytes(c.args[0], &bytes)?;
        Ok(bytes.len() as u64)
    }

    /// `utimensat` and its like; `times` are two pairs of seconds and nanoseconds.
    pub(super) fn set_times(
        &mut self,
        dir: i32,
        path: Option<&std::ffi::CStr>,
        times: Option<[libc::timespec; 2]>,
        flags: i32,
    ) -> SysResult {
        let times = times.as_ref().map_or(std::ptr::null(), |t| t.as_ptr());
        let path = path.map_or(std::ptr::null(), std::ffi::CStr::as_ptr);
        let dir = self.dir(dir)?;
        // SAFETY: the path is null or a C string of ours, the times are null or ours.
        check(unsafe { libc::syscall(libc::SYS_utimensat, dir, path, times, flags) })
    }

    /// `getdents64` (the same everywhere) and `getdents`.
    pub(super) fn getdents(&mut self, c: &Call<'_>, wide: bool) -> SysResult {
        let fd = self.fd(c.int(0))?;
        let size = c.args[2].min(0x7fff_f000);
        if wide {
            let (p, n) = c.buffer(c.args[1], size, true)?;
            // SAFETY: the buffer was checked.
            return unsafe {
                host_call(
                    libc::SYS_getdents64,
                    [fd as u64, p as u64, n as u64, 0, 0, 0],
                )
            };
        }
        // The old entries are never longer than the new ones (by the position of the type and the
        // width of two fields), so what is read always fits.
        let mut entries = vec![0u8; (size as usize).min(1 << 16)];
        let args = [
            fd as u64,
            entries.as_mut_ptr() as u64,
            entries.len() as u64,
            0,
            0,
            0,
        ];
        // SAFETY: the buffer is ours.
        let n = unsafe { host_call(libc::SYS_getdents64, args) }?;
        let out = old_entries(c.abi, &entries[..n as usize]);
        c.mem().write_bytes(c.args[1], &out)?;
        Ok(out.len() as u64)
    }

    /// `openat2`: only what `openat` can do as well.
    pub(super) fn openat2(&mut self, c: &Call<'_>) -> SysResult {
        if c.args[3] < 24 {
            return Err(Errno(libc::EINVAL));
        }
        let mut u = Unpack::new(c.abi, c.mem(), c.args[2]);
        let (flags, mode, resolve) = (u.u64()?, u.u64()?, u.u64()?);
        if resolve != 0 {
            return Err(Errno(libc::ENOSYS));
        }
        self.open(c, c.int(0), c.args[1], flags as i32, mode)
    }
}

/// A file of `/proc/self` with our contents.
fn own_file(name: &str, contents: &[u8], flags: i32) -> SysResult {
    let mut memfd = libc::MFD_ALLOW_SEALING;
    if flags & libc::O_CLOEXEC != 0 {
        memfd |= libc::MFD_CLOEXEC;
    }
    let name = super::cstring(name.as_bytes())?;
    // SAFETY: the name is a C string of ours.
    let fd = check(unsafe { libc::memfd_create(name.as_ptr(), memfd) })?;
    // SAFETY: the descriptor is new.
    let mut file: std::fs::File = unsafe { std::os::fd::FromRawFd::from_raw_fd(fd as i32) };
    let io = |e: std::io::Error| Errno(e.raw_os_error().unwrap_or(libc::EIO));
    file.write_all(contents).map_err(io)?;
    std::io::Seek::rewind(&mut file).map_err(io)?;
    Ok(file.into_raw_fd() as u64)
}

/// `linux_dirent64` entries as `linux_dirent`: inode and offset are longs, and the type moves
/// from before the name to the entry's last byte.
fn old_entries(abi: Abi, mut entries: &[u8]) -> Vec<u8> {
    let mut out = Pack::new(abi);
    while entries.len() >= 19 {
        let inode = u64::from_le_bytes(entries[..8].try_into().unwrap_or_default());
        let offset = u64::from_le_bytes(entries[8..16].try_into().unwrap_or_default());
        let len = usize::from(u16::from_le_bytes([entries[16], entries[17]]));
        if len < 19 || len > entries.len() {
            break;
        }
        let kind = entries[18];
        let name = entries[19..len].split(|&b| b == 0).next().unwrap_or(&[]);
        let word = abi.word() as usize;
        let start = out.bytes.len();
        // Head, name, its 0, the type; rounded up to words.
        let size = (2 * word + 2 + name.len() + 2).next_multiple_of(word);
        out.word(inode).word(offset).u16(size as u16).raw(name);
        out.pad_to(start + size - 1).raw(&[kind]);
        entries = &entries[len..];
    }
    out.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_directory_entries() {
        let mut p = Pack::new(Abi::X86_64);
        p.u64(5).u64(6).u16(24).raw(&[8]).raw(b"abc").pad_to(24);
        let old = old_entries(Abi::I386, &p.bytes);
        assert_eq!(old.len(), 16);
        assert_eq!(&old[..4], &5u32.to_le_bytes());
        assert_eq!(u16::from_le_bytes([old[8], old[9]]), 16);
        assert_eq!(&old[10..14], b"abc\0");
        assert_eq!(old[15], 8);
        assert!(old.len() <= p.bytes.len());
        assert_eq!(old_entries(Abi::X86_64, &p.bytes).len(), 24);
    }
}
