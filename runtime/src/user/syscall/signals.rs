//! System calls about signals.

use super::{Call, Errno, Outcome, Process, SysResult, check, host, host_call};
use crate::user::abi::{Pack, Unpack};
use crate::user::signal::host::Mask;
use crate::user::signal::siginfo::SigInfo;
use crate::user::signal::{
    AltStack, GuestAction, SA_NODEFER, SA_RESETHAND, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK,
};

const EINVAL: Errno = Errno(libc::EINVAL);

/// Smallest alternate stack.
const MINSIGSTKSZ: u64 = 2048;

/// A signal number of the guest, 1 to 64.
fn signal(n: i32) -> Result<i32, Errno> {
    if (1..=64).contains(&n) {
        Ok(n)
    } else {
        Err(EINVAL)
    }
}

impl Call<'_> {
    /// The signal set at an address, whose size is an argument and must be 8.
    pub fn mask(&self, at: u64, size: u64) -> Result<Mask, Errno> {
        if size != 8 {
            return Err(EINVAL);
        }
        Ok(self.mem().read::<u64>(at)?)
    }

    /// The same where a null pointer means none.
    pub fn optional_mask(&self, at: u64, size: u64) -> Result<Option<Mask>, Errno> {
        if at == 0 {
            return Ok(None);
        }
        self.mask(at, size).map(Some)
    }
}

impl Process {
    /// `rt_sigaction`.
    pub(super) fn rt_sigaction(&mut self, c: &Call<'_>) -> SysResult {
        let n = signal(c.int(0))?;
        if c.args[3] != 8 {
            return Err(EINVAL);
        }
        let old = self.signals.action(n);
        if c.args[1] != 0 {
            let mut u = Unpack::new(c.abi, c.mem(), c.args[1]);
            let action = GuestAction {
                handler: u.word()?,
                flags: u.word()?,
                restorer: u.word()?,
                mask: u.u64()?,
            };
            self.change_action(n, action)?;
        }
        if c.args[2] != 0 {
            let mut p = Pack::new(c.abi);
            p.word(old.handler).word(old.flags).word(old.restorer);
            p.u64(old.mask).store(c.mem(), c.args[2])?;
        }
        Ok(0)
    }

    fn change_action(&mut self, n: i32, action: GuestAction) -> Result<(), Errno> {
        if matches!(n, libc::SIGKILL | libc::SIGSTOP) {
            return Err(EINVAL);
        }
        self.signals.set_action(n, action);
        Ok(())
    }

    /// i386's `sigaction`, with a 32-bit mask between handler and flags.
    pub(super) fn old_sigaction(&mut self, c: &Call<'_>) -> SysResult {
        let n = signal(c.int(0))?;
        let old = self.signals.action(n);
        if c.args[1] != 0 {
            let mut u = Unpack::new(c.abi, c.mem(), c.args[1]);
            let (handler, mask) = (u.word()?, u.word()?);
            let (flags, restorer) = (u.word()?, u.word()?);
            let action = GuestAction {
                handler,
                flags,
                restorer,
                mask,
            };
            self.change_action(n, action)?;
        }
        if c.args[2] != 0 {
            let mut p = Pack::new(c.abi);
            p.word(old.handler)
                .word(old.mask)
                .word(old.flags)
                .word(old.restorer);
            p.store(c.mem(), c.args[2])?;
        }
        Ok(0)
    }

    /// i386's `signal`.
    pub(super) fn old_signal(&mut self, c: &Call<'_>) -> SysResult {
        let n = signal(c.int(0))?;
        let old = self.signals.action(n).handler;
        let action = GuestAction {
            handler: c.args[1],
            flags: SA_RESETHAND | SA_NODEFER,
            ..GuestAction::default()
        };
        self.change_action(n, action)?;
        Ok(old)
    }

    /// `rt_sigprocmask` and `sigprocmask` (`old`: a 32-bit set).
    pub(super) fn sigprocmask(&mut self, c: &Call<'_>, old: bool) -> SysResult {
        let before = self.signals.mask;
        if !old && c.args[3] != 8 {
            return Err(EINVAL);
        }
        if c.args[1] != 0 {
            let set = if old {
                u64::from(c.mem().read::<u32>(c.args[1])?)
            } else {
                c.mem().read::<u64>(c.args[1])?
            };
            let keep_high = if old { before & !0xffff_ffff } else { 0 };
            let mask = match c.int(0) {
                0 => before | set,
                1 => before & !set,
                2 => set | keep_high,
                _ => return Err(EINVAL),
            };
            self.signals.set_mask(mask);
        }
        if c.args[2] != 0 {
            let bytes = before.to_le_bytes();
            let size = if old { 4 } else { 8 };
            c.mem().write_bytes(c.args[2], &bytes[..size])?;
        }
        Ok(0)
    }

    /// `rt_sigpending` and `sigpending`.
    pub(super) fn sigpending(&mut self, c: &Call<'_>, size: u64) -> SysResult {
        if size > 8 {
            return Err(EINVAL);
        }
        let mut set: Mask = 0;
        let args = [&raw mut set as u64, 8, 0, 0, 0, 0];
        // SAFETY: the set is ours.
        unsafe { host_call(libc::SYS_rt_sigpending, args) }?;
        set = (set & self.signals.mask) | self.signals.pending_mask();
        c.mem()
            .write_bytes(c.args[0], &set.to_le_bytes()[..size as usize])?;
        Ok(0)
    }

    /// `rt_sigsuspend` and `sigsuspend`.
    pub(super) fn sigsuspend(&mut self, mask: Mask) -> SysResult {
        self.with_mask(Some(mask), |host_mask| {
            let args = [host_mask as u64, 8, 0, 0, 0, 0];
            // SAFETY: the set is ours.
            unsafe { host::blocking(libc::SYS_rt_sigsuspend, args) }
        })
    }

    /// `pause`.
    pub(super) fn pause(&mut self) -> SysResult {
        self.sigsuspend(self.signals.mask)
    }

    /// `rt_sigtimedwait`.
    pub(super) fn sigtimedwait(
        &mut self,
        c: &Call<'_>,
        timeout: Option<libc::timespec>,
    ) -> SysResult {
        let set = c.mask(c.args[0], c.args[3])?;
        let info = match self.signals.take_of(set) {
            Some(info) => info,
            None => {
                let mut raw = [0u8; 128];
                let pointer = timeout.as_ref().map_or(0, |t| std::ptr::from_ref(t) as u64);
                let args = [
                    &raw const set as u64,
                    raw.as_mut_ptr() as u64,
                    pointer,
                    8,
                    0,
                    0,
                ];
                // SAFETY: set, buffer and time are ours.
                unsafe { host::blocking(libc::SYS_rt_sigtimedwait, args) }.map_err(|e| {
                    if e == Errno::RESTART {
                        Errno::RESTART_NO_HANDLER
                    } else {
                        e
                    }
                })?;
                SigInfo::from_host(raw)
            }
        };
        if c.args[1] != 0 {
            c.mem().write_bytes(c.args[1], &info.pack(c.abi))?;
        }
        Ok(info.signal() as u64)
    }

    /// `sigaltstack`.
    pub(super) fn sigaltstack(&mut self, c: &Call<'_>) -> SysResult {
        let sp = if c.abi.is_64() {
            c.cpu.gpr[4]
        } else {
            c.cpu.gpr[4] & 0xffff_ffff
        };
        let old = self.signals.alt;
        if c.args[0] != 0 {
            let mut u = Unpack::new(c.abi, c.mem(), c.args[0]);
            let base = u.word()?;
            let flags = u.u32()?;
            if c.abi.is_64() {
                u.skip(4);
            }
            let size = u.word()?;
            if old.contains(sp) {
                return Err(Errno(libc::EPERM));
            }
            let mode = flags & !SS_AUTODISARM;
            if mode & !SS_ONSTACK != 0 && mode != SS_DISABLE {
                return Err(EINVAL);
            }
            self.signals.alt = if mode == SS_DISABLE {
                AltStack::NONE
            } else if size < MINSIGSTKSZ {
                return Err(Errno(libc::ENOMEM));
            } else {
                AltStack {
                    sp: base,
                    flags: flags & SS_AUTODISARM,
                    size,
                }
            };
        }
        if c.args[1] != 0 {
            let mut p = Pack::new(c.abi);
            p.word(old.sp).u32(old.flags_at(sp));
            if c.abi.is_64() {
                p.u32(0);
            }
            p.word(old.size).store(c.mem(), c.args[1])?;
        }
        Ok(0)
    }

    /// `sigreturn` and `rt_sigreturn`. A frame that cannot be read is deadly.
    pub(super) fn sigreturn(&mut self, c: &mut Call<'_>, rt: bool) -> Outcome {
        match self.signals.sigreturn(c.cpu, c.env, c.abi, rt) {
            Ok(()) => Outcome::Registers,
            Err(_) => Outcome::Killed(libc::SIGSEGV),
        }
    }

    /// `kill`, `tkill`, `tgkill`. A fault signal to ourselves must not reach the host's handlers,
    /// which are for faults of compiled code.
    pub(super) fn kill(&mut self, nr: i64, target: i32, args: [u64; 6], n: i32) -> SysResult {
        if n != 0 {
            signal(n)?;
        }
        let us = std::process::id() as i32;
        let group = nr == libc::SYS_kill && target == 0;
        if host::ENGINE_SIGNALS.contains(&n) && (target == us || group) {
            // SAFETY: plain libc call.
            let uid = unsafe { libc::getuid() };
            let code = if nr == libc::SYS_kill {
                libc::SI_USER
            } else {
                libc::SI_TKILL
            };
            self.signals.raise(SigInfo::sent(n, code, us, uid));
            return Ok(0);
        }
        // SAFETY: plain values.
        unsafe { host_call(nr, args) }
    }

    /// `rt_sigqueueinfo`.
    pub(super) fn sigqueueinfo(&mut self, c: &Call<'_>) -> SysResult {
        let n = signal(c.int(1))?;
        let mut raw = [0; 128];
        c.mem().read_bytes(c.args[2], &mut raw)?;
        let info = SigInfo::unpack(c.abi, &raw);
        if host::ENGINE_SIGNALS.contains(&n) && c.int(0) == std::process::id() as i32 {
            self.signals.raise(info);
            return Ok(0);
        }
        // SAFETY: the buffer is ours and as large as a siginfo_t.
        check(unsafe {
            libc::syscall(
                libc::SYS_rt_sigqueueinfo,
                c.int(0),
                n,
                info.host_bytes().as_ptr(),
            )
        })
    }
}
