//! Descriptors: opening flags, duplication, `fcntl`, pipes, locks.

use super::{Call, Errno, Process, SysResult, check, host};
use crate::user::abi::{Abi, Pack, Unpack};

/// Opening flags whose value differs between x86 and some hosts: (guest, host).
const OPEN_FLAGS: [(i32, i32); 4] = [
    (0o40000, libc::O_DIRECT),
    (0o200_000, libc::O_DIRECTORY),
    (0o400_000, libc::O_NOFOLLOW),
    (0o20_000_000 | 0o200_000, libc::O_TMPFILE),
];
/// `O_LARGEFILE` of x86: always in force here.
const LARGE_FILE: i32 = 0o100_000;

/// Opening flags of the guest for the host.
pub(super) fn open_flags_to_host(flags: i32) -> i32 {
    let known = OPEN_FLAGS.iter().fold(LARGE_FILE, |m, f| m | f.0);
    OPEN_FLAGS
        .iter()
        .filter(|f| flags & f.0 == f.0)
        .fold(flags & !known, |out, f| out | f.1)
}

/// Opening flags of the host for the guest.
fn open_flags_to_guest(flags: i32) -> i32 {
    let known = OPEN_FLAGS.iter().fold(0, |m, f| m | f.1);
    OPEN_FLAGS
        .iter()
        .filter(|f| flags & f.1 == f.1)
        .fold(flags & !known, |out, f| out | f.0)
}

const F_GETLK: i32 = 5;
const F_SETLK: i32 = 6;
const F_SETLKW: i32 = 7;
/// i386: the same with 64-bit offsets.
const F_GETLK64: i32 = 12;
const F_SETLK64: i32 = 13;
const F_SETLKW64: i32 = 14;
const F_OFD_GETLK: i32 = 36;
const F_OFD_SETLK: i32 = 37;
const F_OFD_SETLKW: i32 = 38;

impl Process {
    /// `close`.
    pub(super) fn close(&mut self, c: &Call<'_>) -> SysResult {
        let fd = self.fd(c.int(0))?;
        // SAFETY: the descriptor is the guest's.
        check(unsafe { libc::close(fd) })
    }

    /// `close_range`, which leaves our own descriptors alone.
    pub(super) fn close_range(&mut self, c: &Call<'_>) -> SysResult {
        let (first, last) = (c.args[0] as u32, c.args[1] as u32);
        let flags = c.args[2] as u32;
        if last < first || flags & !(libc::CLOSE_RANGE_CLOEXEC | libc::CLOSE_RANGE_UNSHARE) != 0 {
            return Err(Errno(libc::EINVAL));
        }
        // No descriptor is above this limit.
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the structure is ours.
        unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
        let end = u64::from(last).min(limit.rlim_cur.clamp(1 << 10, 1 << 20));
        for fd in u64::from(first)..=end {
            let Ok(fd) = self.fd(fd as i32) else { continue };
            // SAFETY: the descriptor is the guest's.
            unsafe {
                if flags & libc::CLOSE_RANGE_CLOEXEC != 0 {
                    libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
                } else {
                    libc::close(fd);
                }
            }
        }
        Ok(0)
    }

    /// `dup`.
    pub(super) fn dup(&mut self, c: &Call<'_>) -> SysResult {
        let fd = self.fd(c.int(0))?;
        // SAFETY: plain values.
        check(unsafe { libc::dup(fd) })
    }

    /// `dup2` and `dup3`.
    pub(super) fn dup_to(&mut self, c: &Call<'_>, flags: Option<i32>) -> SysResult {
        let (from, to) = (self.fd(c.int(0))?, self.fd(c.int(1))?);
        // SAFETY: plain values; the target is not a descriptor of ours.
        check(unsafe {
            match flags {
                None => libc::dup2(from, to),
                Some(flags) => libc::dup3(from, to, open_flags_to_host(flags)),
            }
        })
    }

    /// `pipe` and `pipe2`.
    pub(super) fn pipe(&mut self, c: &Call<'_>, flags: i32) -> SysResult {
        let mut fds = [0; 2];
        c.exact(c.args[0], 8, true)?;
        // SAFETY: the array is ours.
        check(unsafe { libc::pipe2(fds.as_mut_ptr(), open_flags_to_host(flags)) })?;
        let mut p = Pack::new(c.abi);
        p.u32(fds[0] as u32).u32(fds[1] as u32);
        p.store(c.mem(), c.args[0])?;
        Ok(0)
    }

    /// `flock`.
    pub(super) fn flock(&mut self, c: &Call<'_>) -> SysResult {
        let fd = self.fd(c.int(0))?;
        // SAFETY: plain values.
        unsafe { host::blocking(libc::SYS_flock, [fd as u64, c.args[1], 0, 0, 0, 0]) }
    }

    /// `fcntl` and `fcntl64`.
    pub(super) fn fcntl(&mut self, c: &Call<'_>) -> SysResult {
        let fd = self.fd(c.int(0))?;
        let (cmd, arg) = (c.int(1), c.int(2));
        let is_64 = c.abi.is_64();
        match cmd {
            libc::F_GETFL => {
                // SAFETY: plain values.
                let flags = check(unsafe { libc::fcntl(fd, cmd) })?;
                Ok(open_flags_to_guest(flags as i32) as u64)
            }
            // SAFETY: plain values.
            libc::F_SETFL => check(unsafe { libc::fcntl(fd, cmd, open_flags_to_host(arg)) }),
            libc::F_DUPFD
            | libc::F_DUPFD_CLOEXEC
            | libc::F_GETFD
            | libc::F_SETFD
            | libc::F_GETOWN
            | libc::F_SETOWN
            | libc::F_GETPIPE_SZ
            | libc::F_SETPIPE_SZ
            | libc::F_ADD_SEALS
            | libc::F_GET_SEALS => {
                // SAFETY: plain values.
                check(unsafe { libc::fcntl(fd, cmd, arg) })
            }
            F_GETLK | F_SETLK | F_SETLKW => self.lock(c, fd, cmd, is_64),
            F_GETLK64 | F_SETLK64 | F_SETLKW64 if !is_64 => self.lock(c, fd, cmd - 7, true),
            F_OFD_GETLK | F_OFD_SETLK | F_OFD_SETLKW => self.lock(c, fd, cmd, true),
            _ => Err(Errno(libc::EINVAL)),
        }
    }

    fn lock(&mut self, c: &Call<'_>, fd: i32, cmd: i32, wide: bool) -> SysResult {
        let at = c.args[2];
        let mut u = Unpack::new(c.abi, c.mem(), at);
        // SAFETY: all zeros is a valid flock.
        let mut lock: libc::flock64 = unsafe { std::mem::zeroed() };
        lock.l_type = u.u16()? as i16;
        lock.l_whence = u.u16()? as i16;
        // Only x86-64 aligns the 64-bit offsets.
        if c.abi == Abi::X86_64 {
            u.skip(4);
        }
        if wide {
            lock.l_start = u.u64()? as i64;
            lock.l_len = u.u64()? as i64;
        } else {
            lock.l_start = u.long()?;
            lock.l_len = u.long()?;
        }
        lock.l_pid = u.i32()?;
        let host_cmd = match cmd {
            F_GETLK => libc::F_GETLK,
            F_SETLK => libc::F_SETLK,
            F_SETLKW => libc::F_SETLKW,
            other => other,
        };
        let args = [fd as u64, host_cmd as u64, &raw mut lock as u64, 0, 0, 0];
        // SAFETY: the structure is ours, and the one that 64-bit hosts have.
        let result = unsafe { host::blocking(libc::SYS_fcntl, args) }?;
        if matches!(cmd, F_GETLK | F_OFD_GETLK) {
            let mut p = Pack::new(c.abi);
            p.u16(lock.l_type as u16).u16(lock.l_whence as u16);
            if c.abi == Abi::X86_64 {
                p.u32(0);
            }
            if wide {
                p.u64(lock.l_start as u64).u64(lock.l_len as u64);
            } else {
                p.word(lock.l_start as u64).word(lock.l_len as u64);
            }
            p.u32(lock.l_pid as u32);
            p.store(c.mem(), at)?;
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_flags_round_trip() {
        let flags = libc::O_RDWR | libc::O_CREAT | 0o200_000 | 0o400_000;
        assert_eq!(open_flags_to_guest(open_flags_to_host(flags)), flags);
        assert_eq!(open_flags_to_host(LARGE_FILE), 0);
    }
}
