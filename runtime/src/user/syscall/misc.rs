//! The rest: system information, limits, scheduling, `prctl`.

use super::{Call, Errno, Process, SysResult, check, host_call};
use crate::user::abi::{Abi, Pack};
use std::mem::zeroed;

/// Length of each field of `utsname`.
const UTS: usize = 65;

/// `RLIM_INFINITY` of i386.
const INFINITY_32: u64 = 0xffff_ffff;

impl Process {
    /// `uname`: the host's kernel, the guest's machine.
    pub(super) fn uname(&mut self, c: &Call<'_>) -> SysResult {
        // SAFETY: all zeros is a valid utsname, and the structure is ours.
        let mut u: libc::utsname = unsafe { zeroed() };
        // SAFETY: as above.
        check(unsafe { libc::uname(&mut u) })?;
        let mut p = Pack::new(c.abi);
        let machine = self.abi.machine();
        for (n, field) in [u.sysname, u.nodename, u.release, u.version]
            .iter()
            .enumerate()
        {
            let bytes: Vec<u8> = field
                .iter()
                .map(|&b| b as u8)
                .take_while(|&b| b != 0)
                .collect();
            p.raw(&bytes[..bytes.len().min(UTS - 1)])
                .pad_to((n + 1) * UTS);
        }
        p.raw(machine.as_bytes()).pad_to(5 * UTS);
        p.raw(b"(none)").pad_to(6 * UTS);
        p.store(c.mem(), c.args[0])?;
        Ok(0)
    }

    /// `sysinfo`.
    pub(super) fn sysinfo(&mut self, c: &Call<'_>) -> SysResult {
        // SAFETY: all zeros is a valid sysinfo, and the structure is ours.
        let mut s: libc::sysinfo = unsafe { zeroed() };
        // SAFETY: as above.
        check(unsafe { libc::sysinfo(&mut s) })?;
        let mut p = Pack::new(c.abi);
        let mut amounts = [
            s.totalram,
            s.freeram,
            s.sharedram,
            s.bufferram,
            s.totalswap,
            s.freeswap,
        ];
        let mut high = [s.totalhigh, s.freehigh];
        let mut unit = u64::from(s.mem_unit);
        if !c.abi.is_64() {
            // As the kernel: in pages if bytes do not fit.
            let most = amounts.iter().chain(&high).max().copied().unwrap_or(0);
            if most.saturating_mul(unit) > u64::from(u32::MAX) {
                for a in amounts.iter_mut().chain(&mut high) {
                    *a = a.saturating_mul(unit) / 4096;
                }
                unit = 4096;
            }
        }
        p.word(s.uptime as u64);
        for v in s.loads.into_iter().chain(amounts) {
            p.word(v);
        }
        p.u16(s.procs).u16(0);
        if c.abi.is_64() {
            p.u32(0);
        }
        for v in high {
            p.word(v);
        }
        p.u32(unit as u32);
        let size = if c.abi.is_64() { 112 } else { 64 };
        p.pad_to(size).store(c.mem(), c.args[0])?;
        Ok(0)
    }

    /// `getrlimit` and `ugetrlimit`.
    pub(super) fn getrlimit(&mut self, c: &Call<'_>) -> SysResult {
        let old = rlimit(c.int(0), None)?;
        let mut p = Pack::new(c.abi);
        for v in [old.rlim_cur, old.rlim_max] {
            p.word(if c.abi.is_64() { v } else { v.min(INFINITY_32) });
        }
        p.store(c.mem(), c.args[1])?;
        Ok(0)
    }

    /// `setrlimit`.
    pub(super) fn setrlimit(&mut self, c: &Call<'_>) -> SysResult {
        let mut u = crate::user::abi::Unpack::new(c.abi, c.mem(), c.args[1]);
        let wide = |v: u64| {
            if v == INFINITY_32 && !c.abi.is_64() {
                libc::RLIM_INFINITY
            } else {
                v
            }
        };
        let new = libc::rlimit64 {
            rlim_cur: wide(u.word()?),
            rlim_max: wide(u.word()?),
        };
        set_rlimit(c.int(0), &new)
    }

    /// `prlimit64`, whose structure is the same everywhere.
    pub(super) fn prlimit(&mut self, c: &Call<'_>) -> SysResult {
        let (pid, what) = (c.int(0), c.int(1));
        if pid != 0 && pid != std::process::id() as i32 {
            return Err(Errno(libc::EPERM));
        }
        let new = match c.args[2] {
            0 => None,
            at => Some(libc::rlimit64 {
                rlim_cur: c.mem().read::<u64>(at)?,
                rlim_max: c.mem().read::<u64>(at.wrapping_add(8))?,
            }),
        };
        let old = rlimit(what, None)?;
        if let Some(new) = &new {
            set_rlimit(what, new)?;
        }
        if c.args[3] != 0 {
            let mut p = Pack::new(c.abi);
            p.u64(old.rlim_cur).u64(old.rlim_max);
            p.store(c.mem(), c.args[3])?;
        }
        Ok(0)
    }

    /// `prctl`: what a process may do to itself without changing how we work.
    pub(super) fn prctl(&mut self, c: &Call<'_>) -> SysResult {
        let option = c.int(0);
        let args = |second: u64| [option as u64, second, c.args[2], c.args[3], c.args[4], 0];
        match option {
            libc::PR_SET_NAME => {
                let mut name = c.mem().read_cstr(c.args[1], 16)?.unwrap_or_else(|| {
                    let mut raw = vec![0; 15];
                    let _ = c.mem().read_bytes(c.args[1], &mut raw);
                    raw
                });
                name.truncate(15);
                name.push(0);
                // SAFETY: a C string of ours.
                unsafe { host_call(libc::SYS_prctl, args(name.as_ptr() as u64)) }
            }
            libc::PR_GET_NAME => {
                let mut name = [0u8; 16];
                // SAFETY: the call writes at most 16 bytes.
                unsafe { host_call(libc::SYS_prctl, args(name.as_mut_ptr() as u64)) }?;
                c.mem().write_bytes(c.args[1], &name)?;
                Ok(0)
            }
            libc::PR_GET_PDEATHSIG => {
                let mut signal = 0i32;
                // SAFETY: the call writes one int.
                unsafe { host_call(libc::SYS_prctl, args(&raw mut signal as u64)) }?;
                c.mem().write_bytes(c.args[1], &signal.to_le_bytes())?;
                Ok(0)
            }
            libc::PR_SET_PDEATHSIG
            | libc::PR_GET_DUMPABLE
            | libc::PR_SET_DUMPABLE
            | libc::PR_GET_NO_NEW_PRIVS
            | libc::PR_SET_NO_NEW_PRIVS
            | libc::PR_CAPBSET_READ
            | libc::PR_GET_TIMERSLACK
            | libc::PR_SET_TIMERSLACK
            | libc::PR_SET_CHILD_SUBREAPER => {
                // SAFETY: plain values.
                unsafe { host_call(libc::SYS_prctl, args(c.args[1])) }
            }
            _ => Err(Errno(libc::EINVAL)),
        }
    }

    /// `sched_getaffinity`.
    pub(super) fn sched_getaffinity(&mut self, c: &Call<'_>) -> SysResult {
        let size = c.args[1].min(1024) & !7;
        let p = c.exact(c.args[2], size, true)?;
        let args = [c.int(0) as u64, size, p as u64, 0, 0, 0];
        // SAFETY: the buffer was checked for its size.
        unsafe { host_call(libc::SYS_sched_getaffinity, args) }
    }

    /// `sched_setaffinity`: accepted, without effect.
    pub(super) fn sched_setaffinity(&mut self, c: &Call<'_>) -> SysResult {
        c.exact(c.args[2], c.args[1].min(1024), false)?;
        Ok(0)
    }

    /// `sched_getparam`, `sched_setparam`, `sched_setscheduler`: one int in memory at argument
    /// `at`.
    pub(super) fn sched_param(
        &mut self,
        c: &Call<'_>,
        nr: i64,
        at: usize,
        write: bool,
    ) -> SysResult {
        let mut args = c.args;
        args[0] = c.int(0) as u64;
        args[at] = c.exact(c.args[at], 4, write)? as u64;
        // SAFETY: the parameter is four bytes, which were checked.
        unsafe { host_call(nr, args) }
    }

    /// `sched_rr_get_interval`.
    pub(super) fn sched_interval(&mut self, c: &Call<'_>, width: super::time::Width) -> SysResult {
        let mut t = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the structure is ours.
        check(unsafe { libc::sched_rr_get_interval(c.int(0), &mut t) })?;
        c.store_pair(c.args[1], width, t.tv_sec, t.tv_nsec)?;
        Ok(0)
    }

    /// `getcpu`.
    pub(super) fn getcpu(&mut self, c: &Call<'_>) -> SysResult {
        for &at in &c.args[..2] {
            if at != 0 {
                c.mem().write_bytes(at, &[0; 4])?;
            }
        }
        Ok(0)
    }

    /// `personality`: Linux, as it is; asking is allowed, changing is not.
    pub(super) fn personality(&mut self, c: &Call<'_>) -> SysResult {
        let own = if self.abi == Abi::I386 { 8 } else { 0 };
        match c.args[0] as u32 {
            u32::MAX => Ok(own),
            n if u64::from(n) == own || n == 0 => Ok(own),
            _ => Err(Errno(libc::EINVAL)),
        }
    }

    /// `capget`: no capability is shown to the guest.
    pub(super) fn capget(&mut self, c: &Call<'_>) -> SysResult {
        let version: u32 = c.mem().read(c.args[0])?;
        const VERSION_3: u32 = 0x2008_0522;
        if version != VERSION_3 {
            c.mem().write_bytes(c.args[0], &VERSION_3.to_le_bytes())?;
            return if c.args[1] == 0 {
                Ok(0)
            } else {
                Err(Errno(libc::EINVAL))
            };
        }
        if c.args[1] != 0 {
            c.mem().write_bytes(c.args[1], &[0; 24])?;
        }
        Ok(0)
    }
}

fn rlimit(what: i32, new: Option<&libc::rlimit64>) -> Result<libc::rlimit64, Errno> {
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the structures are ours or null.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, what, new, &raw mut old) })?;
    Ok(old)
}

/// Sets a limit. Limits on address space, data and stack would hit our own memory, not the
/// guest's, so they are accepted without effect.
fn set_rlimit(what: i32, new: &libc::rlimit64) -> SysResult {
    let ours = [libc::RLIMIT_AS, libc::RLIMIT_DATA, libc::RLIMIT_STACK]
        .iter()
        .any(|&r| r as i32 == what);
    if !ours {
        rlimit(what, Some(new))?;
    }
    Ok(0)
}
