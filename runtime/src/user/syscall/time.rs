//! Clocks, sleeping, timers.

use super::{Call, Errno, Process, SysResult, check, host, host_call};
use crate::user::abi::{Pack, Unpack};

/// Width of the times in a structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::user) enum Width {
    /// Longs of the ABI.
    Native,
    /// 64 bits: the `…_time64` calls of i386.
    Wide,
}

impl Call<'_> {
    /// A `timespec`.
    pub fn timespec(&self, at: u64, width: Width) -> Result<libc::timespec, Errno> {
        let mut u = Unpack::new(self.abi, self.mem(), at);
        let (sec, nsec) = match width {
            Width::Native => (u.long()?, u.long()?),
            // The upper half of the nanoseconds is padding on i386.
            Width::Wide if self.abi.is_64() => (u.u64()? as i64, u.u64()? as i64),
            Width::Wide => (u.u64()? as i64, i64::from(u.i32()?)),
        };
        Ok(libc::timespec {
            tv_sec: sec,
            tv_nsec: nsec,
        })
    }

    /// A `timespec` that may be null.
    pub fn optional_timespec(
        &self,
        at: u64,
        width: Width,
    ) -> Result<Option<libc::timespec>, Errno> {
        if at == 0 {
            return Ok(None);
        }
        self.timespec(at, width).map(Some)
    }

    /// A `timeval`.
    fn timeval(&self, at: u64) -> Result<libc::timeval, Errno> {
        let mut u = Unpack::new(self.abi, self.mem(), at);
        Ok(libc::timeval {
            tv_sec: u.long()?,
            tv_usec: u.long()?,
        })
    }

    /// A `timeval` that may be null, as a `timespec`.
    pub fn optional_timeval(&self, at: u64) -> Result<Option<libc::timespec>, Errno> {
        if at == 0 {
            return Ok(None);
        }
        let v = self.timeval(at)?;
        if v.tv_sec < 0 || !(0..1_000_000).contains(&v.tv_usec) {
            return Err(Errno(libc::EINVAL));
        }
        Ok(Some(libc::timespec {
            tv_sec: v.tv_sec,
            tv_nsec: v.tv_usec * 1000,
        }))
    }

    /// Stores a pair of seconds and a fraction.
    pub fn store_pair(&self, at: u64, width: Width, sec: i64, part: i64) -> Result<(), Errno> {
        let mut p = Pack::new(self.abi);
        match width {
            Width::Native => p.word(sec as u64).word(part as u64),
            Width::Wide => p.u64(sec as u64).u64(part as u64),
        };
        p.store(self.mem(), at)
    }
}

impl Process {
    /// `time`.
    pub(super) fn time(&mut self, c: &Call<'_>) -> SysResult {
        // SAFETY: a null pointer asks for the value only.
        let now = unsafe { libc::time(std::ptr::null_mut()) };
        if c.args[0] != 0 {
            let mut p = Pack::new(c.abi);
            p.word(now as u64);
            p.store(c.mem(), c.args[0])?;
        }
        Ok(now as u64)
    }

    /// `gettimeofday`.
    pub(super) fn gettimeofday(&mut self, c: &Call<'_>) -> SysResult {
        if c.args[0] != 0 {
            let now = clock(libc::CLOCK_REALTIME)?;
            c.store_pair(c.args[0], Width::Native, now.tv_sec, now.tv_nsec / 1000)?;
        }
        if c.args[1] != 0 {
            c.mem().write_bytes(c.args[1], &[0; 8])?;
        }
        Ok(0)
    }

    /// `clock_gettime` and `clock_getres`.
    pub(super) fn clock_get(&mut self, c: &Call<'_>, resolution: bool, width: Width) -> SysResult {
        let id = c.int(0);
        let value = if resolution {
            let mut t = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: the structure is ours.
            check(unsafe { libc::clock_getres(id, &mut t) })?;
            t
        } else {
            clock(id)?
        };
        if c.args[1] != 0 || !resolution {
            c.store_pair(c.args[1], width, value.tv_sec, value.tv_nsec)?;
        }
        Ok(0)
    }

    /// `clock_settime`, which only the host's administrator may do.
    pub(super) fn clock_settime(&mut self, c: &Call<'_>, width: Width) -> SysResult {
        let t = c.timespec(c.args[1], width)?;
        // SAFETY: the structure is ours.
        check(unsafe { libc::clock_settime(c.int(0), &t) })
    }

    /// `nanosleep` and `clock_nanosleep`; `first` is the argument that holds the time.
    pub(super) fn sleep(
        &mut self,
        c: &Call<'_>,
        id: i32,
        flags: i32,
        first: usize,
        width: Width,
    ) -> SysResult {
        let t = c.timespec(c.args[first], width)?;
        let mut left = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let args = [
            id as u64,
            flags as u64,
            &raw const t as u64,
            &raw mut left as u64,
            0,
            0,
        ];
        // SAFETY: both times are ours.
        let result = unsafe { host::blocking(libc::SYS_clock_nanosleep, args) };
        match result {
            Err(Errno::RESTART) => {
                let remaining = c.args[first + 1];
                if flags & libc::TIMER_ABSTIME == 0 && remaining != 0 {
                    c.store_pair(remaining, width, left.tv_sec, left.tv_nsec)?;
                }
                Err(Errno::RESTART_NO_HANDLER)
            }
            other => other,
        }
    }

    /// `times`, in hundredths of a second.
    pub(super) fn times(&mut self, c: &Call<'_>) -> SysResult {
        // SAFETY: all zeros is a valid tms, and the structure is ours.
        let mut t: libc::tms = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let now = unsafe { libc::times(&mut t) };
        if c.args[0] != 0 {
            let mut p = Pack::new(c.abi);
            for v in [t.tms_utime, t.tms_stime, t.tms_cutime, t.tms_cstime] {
                p.word(v as u64);
            }
            p.store(c.mem(), c.args[0])?;
        }
        Ok(now as u64)
    }

    /// `alarm`.
    pub(super) fn alarm(&mut self, c: &Call<'_>) -> SysResult {
        // SAFETY: plain value.
        Ok(u64::from(unsafe { libc::alarm(c.args[0] as u32) }))
    }

    /// `setitimer`.
    pub(super) fn setitimer(&mut self, c: &Call<'_>) -> SysResult {
        let zero = libc::timeval {
            tv_sec: 0,
            tv_usec: 0,
        };
        let mut new = libc::itimerval {
            it_interval: zero,
            it_value: zero,
        };
        if c.args[1] != 0 {
            new.it_interval = c.timeval(c.args[1])?;
            new.it_value = c.timeval(c.args[1].wrapping_add(2 * c.abi.word()))?;
        }
        let mut old = new;
        let args = [
            c.args[0] & 0xffff_ffff,
            &raw const new as u64,
            &raw mut old as u64,
            0,
            0,
            0,
        ];
        // SAFETY: both structures are ours.
        unsafe { host_call(libc::SYS_setitimer, args) }?;
        if c.args[2] != 0 {
            store_itimer(c, c.args[2], &old)?;
        }
        Ok(0)
    }

    /// `getitimer`.
    pub(super) fn getitimer(&mut self, c: &Call<'_>) -> SysResult {
        // SAFETY: all zeros is a valid itimerval.
        let mut t: libc::itimerval = unsafe { std::mem::zeroed() };
        let args = [c.args[0] & 0xffff_ffff, &raw mut t as u64, 0, 0, 0, 0];
        // SAFETY: the structure is ours.
        unsafe { host_call(libc::SYS_getitimer, args) }?;
        store_itimer(c, c.args[1], &t)?;
        Ok(0)
    }

    /// `utimensat` and the calls before it.
    pub(super) fn utimensat(&mut self, c: &Call<'_>, width: Width) -> SysResult {
        let times = match c.args[2] {
            0 => None,
            at => {
                let size = if width == Width::Wide {
                    16
                } else {
                    2 * c.abi.word()
                };
                Some([
                    c.timespec(at, width)?,
                    c.timespec(at.wrapping_add(size), width)?,
                ])
            }
        };
        let path = match c.args[1] {
            0 => None,
            _ => Some(self.path_arg(c, 1)?),
        };
        self.set_times(c.int(0), path.as_deref(), times, c.int(3))
    }

    /// `utime`: two times in seconds. `utimes`, `futimesat`: two `timeval`s.
    pub(super) fn utimes(&mut self, c: &Call<'_>, dir: i32, path: usize, whole: bool) -> SysResult {
        let at = c.args[path + 1];
        let times = if at == 0 {
            None
        } else if whole {
            let mut u = Unpack::new(c.abi, c.mem(), at);
            let seconds = |tv_sec| libc::timespec { tv_sec, tv_nsec: 0 };
            Some([seconds(u.long()?), seconds(u.long()?)])
        } else {
            let first = c.optional_timeval(at)?;
            let second = c.optional_timeval(at.wrapping_add(2 * c.abi.word()))?;
            first.zip(second).map(|(a, b)| [a, b])
        };
        let name = self.path_arg(c, path)?;
        self.set_times(dir, Some(&name), times, 0)
    }

    /// `timerfd_create`, `timerfd_settime`, `timerfd_gettime`.
    pub(super) fn timerfd_create(&mut self, c: &Call<'_>) -> SysResult {
        let flags = super::descriptors::open_flags_to_host(c.int(1));
        // SAFETY: plain values.
        check(unsafe { libc::timerfd_create(c.int(0), flags) })
    }

    /// `timerfd_settime`.
    pub(super) fn timerfd_settime(&mut self, c: &Call<'_>, width: Width) -> SysResult {
        let fd = self.fd(c.int(0))?;
        let size = if width == Width::Wide {
            16
        } else {
            2 * c.abi.word()
        };
        let new = libc::itimerspec {
            it_interval: c.timespec(c.args[2], width)?,
            it_value: c.timespec(c.args[2].wrapping_add(size), width)?,
        };
        let mut old = new;
        // SAFETY: both structures are ours.
        check(unsafe { libc::timerfd_settime(fd, c.int(1), &new, &mut old) })?;
        if c.args[3] != 0 {
            store_itimerspec(c, c.args[3], width, &old)?;
        }
        Ok(0)
    }

    /// `timerfd_gettime`.
    pub(super) fn timerfd_gettime(&mut self, c: &Call<'_>, width: Width) -> SysResult {
        let fd = self.fd(c.int(0))?;
        // SAFETY: all zeros is a valid itimerspec.
        let mut t: libc::itimerspec = unsafe { std::mem::zeroed() };
        // SAFETY: the structure is ours.
        check(unsafe { libc::timerfd_gettime(fd, &mut t) })?;
        store_itimerspec(c, c.args[1], width, &t)?;
        Ok(0)
    }
}

fn clock(id: i32) -> Result<libc::timespec, Errno> {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure is ours.
    check(unsafe { libc::clock_gettime(id, &mut t) })?;
    Ok(t)
}

fn store_itimer(c: &Call<'_>, at: u64, t: &libc::itimerval) -> Result<(), Errno> {
    let mut p = Pack::new(c.abi);
    p.word(t.it_interval.tv_sec as u64)
        .word(t.it_interval.tv_usec as u64);
    p.word(t.it_value.tv_sec as u64)
        .word(t.it_value.tv_usec as u64);
    p.store(c.mem(), at)
}

fn store_itimerspec(c: &Call<'_>, at: u64, w: Width, t: &libc::itimerspec) -> Result<(), Errno> {
    let size = if w == Width::Wide {
        16
    } else {
        2 * c.abi.word()
    };
    c.store_pair(at, w, t.it_interval.tv_sec, t.it_interval.tv_nsec)?;
    let next = at.wrapping_add(size);
    c.store_pair(next, w, t.it_value.tv_sec, t.it_value.tv_nsec)
}
