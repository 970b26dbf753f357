//! Guest signals: handlers, masks, pending signals, delivery.

pub mod frame32;
pub mod frame64;
pub mod fxsave;
pub mod host;
pub mod siginfo;
#[cfg(test)]
mod tests;

use crate::env::Env;
use crate::state::CpuState;
use crate::user::abi::{Abi, Errno};
use host::{HostAction, Mask, bit};
use siginfo::SigInfo;
use std::collections::VecDeque;

/// Number of signals plus one.
pub const SIGNALS: usize = 65;

/// `sa_handler` for the default action.
pub const SIG_DFL: u64 = 0;
/// `sa_handler` for ignoring.
pub const SIG_IGN: u64 = 1;

/// The handler takes `siginfo`.
pub const SA_SIGINFO: u64 = 4;
/// The handler runs on the alternate stack.
pub const SA_ONSTACK: u64 = 0x0800_0000;
/// Interrupted system calls start again.
pub const SA_RESTART: u64 = 0x1000_0000;
/// The signal is not blocked while its handler runs.
pub const SA_NODEFER: u64 = 0x4000_0000;
/// The handler is good for one signal.
pub const SA_RESETHAND: u64 = 0x8000_0000;
/// `sa_restorer` is valid.
pub const SA_RESTORER: u64 = 0x0400_0000;

/// RFLAGS bits that a signal handler's return may change: AC, RF, OF, DF, TF, SF, ZF, AF, PF, CF.
pub const FIX_FLAGS: u64 = 0x5_0dd5;

/// DF, TF and RF are clear when a handler begins.
const CLEARED_FLAGS: u64 = 0x400 | 0x100 | 0x1_0000;

/// A guest's `sigaction`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct GuestAction {
    /// Address, [`SIG_DFL`] or [`SIG_IGN`].
    pub handler: u64,
    /// `SA_…`.
    pub flags: u64,
    /// Where the handler returns to.
    pub restorer: u64,
    /// Blocked while the handler runs.
    pub mask: Mask,
}

/// The alternate signal stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AltStack {
    /// Lowest address.
    pub sp: u64,
    /// `SS_DISABLE`, `SS_AUTODISARM`.
    pub flags: u32,
    /// Size.
    pub size: u64,
}

/// `SS_ONSTACK`.
pub const SS_ONSTACK: u32 = 1;
/// `SS_DISABLE`.
pub const SS_DISABLE: u32 = 2;
/// `SS_AUTODISARM`.
pub const SS_AUTODISARM: u32 = 1 << 31;

impl AltStack {
    /// None.
    pub const NONE: AltStack = AltStack {
        sp: 0,
        flags: SS_DISABLE,
        size: 0,
    };

    /// Whether a stack pointer lies on it.
    pub fn contains(&self, sp: u64) -> bool {
        self.flags & (SS_DISABLE | SS_AUTODISARM) == 0 && sp.wrapping_sub(self.sp) < self.size
    }

    /// The flags as `sigaltstack` and frames report them.
    pub fn flags_at(&self, sp: u64) -> u32 {
        if self.contains(sp) {
            self.flags | SS_ONSTACK
        } else {
            self.flags
        }
    }
}

/// The last exception, as frames report it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Trap {
    /// Vector.
    pub number: u64,
    /// Error code.
    pub error: u64,
    /// Linear address of a page fault.
    pub cr2: u64,
}

/// A system call that a signal interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Restart {
    /// What it answered: one of the marks for an interrupted call.
    pub mark: Errno,
    /// The call's number.
    pub number: u64,
    /// Where the call can be made again.
    pub rip: u64,
}

/// The signal state of a process.
#[derive(Debug)]
pub struct Signals {
    actions: [GuestAction; SIGNALS],
    /// Blocked signals.
    pub mask: Mask,
    /// The mask to go back to after `sigsuspend` and its like.
    pub saved_mask: Option<Mask>,
    /// The alternate stack.
    pub alt: AltStack,
    /// The last exception.
    pub trap: Trap,
    /// Signals that have left the host's queue and are blocked by the guest.
    pending: VecDeque<SigInfo>,
}

/// SIGKILL and SIGSTOP cannot be blocked.
const UNBLOCKABLE: Mask = bit(libc::SIGKILL) | bit(libc::SIGSTOP);

/// What a signal does by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Default {
    Ignore,
    Stop,
    End,
}

fn default_of(signal: i32) -> Default {
    match signal {
        libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH | libc::SIGCONT => Default::Ignore,
        libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => Default::Stop,
        _ => Default::End,
    }
}

impl Signals {
    /// Takes over this process's signals: what the host ignores, the guest ignores (SIGPIPE
    /// excepted, which the Rust runtime ignores on its own), and everything else has its default.
    pub fn adopt() -> Signals {
        let mut signals = Signals {
            actions: [GuestAction::default(); SIGNALS],
            mask: host::current_mask(),
            saved_mask: None,
            alt: AltStack::NONE,
            trap: Trap::default(),
            pending: VecDeque::new(),
        };
        for signal in 1..SIGNALS as i32 {
            if signal != libc::SIGPIPE && host::is_ignored(signal) {
                signals.actions[signal as usize].handler = SIG_IGN;
            }
            signals.update_host(signal);
        }
        signals
    }

    /// Defaults only, without touching the host.
    pub fn fresh() -> Signals {
        Signals {
            actions: [GuestAction::default(); SIGNALS],
            mask: 0,
            saved_mask: None,
            alt: AltStack::NONE,
            trap: Trap::default(),
            pending: VecDeque::new(),
        }
    }

    /// The action of a signal (1 to 64).
    pub fn action(&self, signal: i32) -> GuestAction {
        self.actions[signal as usize & 127]
    }

    /// Sets the action of a signal (1 to 64).
    pub fn set_action(&mut self, signal: i32, action: GuestAction) {
        self.actions[signal as usize] = action;
        if action.handler == SIG_IGN {
            self.pending.retain(|info| info.signal() != signal);
        }
        self.update_host(signal);
    }

    fn update_host(&self, signal: i32) {
        let action = &self.actions[signal as usize];
        let host = match (action.handler, default_of(signal)) {
            (SIG_IGN, _) => HostAction::Ignore,
            (SIG_DFL, Default::Ignore | Default::Stop) => HostAction::Default,
            _ => HostAction::Record,
        };
        host::set_action(signal, host, action.flags as i32);
    }

    /// Sets the mask, here and on the host.
    pub fn set_mask(&mut self, mask: Mask) {
        self.mask = mask & !UNBLOCKABLE;
        host::set_mask(self.mask);
    }

    /// `execve`: handlers go back to the default, the alternate stack is gone.
    pub fn reset_for_exec(&mut self) {
        for signal in 1..SIGNALS as i32 {
            let action = &mut self.actions[signal as usize];
            let handler = if action.handler == SIG_IGN {
                SIG_IGN
            } else {
                SIG_DFL
            };
            *action = GuestAction {
                handler,
                ..GuestAction::default()
            };
            self.update_host(signal);
        }
        self.alt = AltStack::NONE;
        self.saved_mask = None;
    }

    /// `fork`, in the child: pending signals are the parent's, also one that was recorded just
    /// before the fork.
    pub fn forget_pending(&mut self) {
        self.pending.clear();
        let _ = host::take();
    }

    /// Makes a signal pending (it came from this process itself, or the guest blocks it).
    pub fn raise(&mut self, info: SigInfo) {
        self.pending.push_back(info);
    }

    /// Signals that are pending here (not those that the host still holds).
    pub fn pending_mask(&self) -> Mask {
        self.pending
            .iter()
            .fold(0, |m, info| m | bit(info.signal()))
    }

    /// Takes a pending signal of a set.
    pub fn take_of(&mut self, set: Mask) -> Option<SigInfo> {
        if let Some(info) = host::take() {
            self.pending.push_back(info);
            host::set_mask(self.mask);
        }
        let at = self
            .pending
            .iter()
            .position(|info| set & bit(info.signal()) != 0)?;
        self.pending.remove(at)
    }

    /// Whether a signal waits that the guest does not block.
    pub fn is_due(&self) -> bool {
        host::is_waiting()
            || self
                .pending
                .iter()
                .any(|info| self.mask & bit(info.signal()) == 0)
    }

    /// Delivers what is due. `Some(signal)` means that the guest dies by it.
    pub fn deliver(
        &mut self,
        cpu: &mut CpuState,
        env: &Env,
        abi: Abi,
        trampoline: u64,
        mut restart: Option<Restart>,
    ) -> Option<i32> {
        while let Some(info) = self.take_of(!self.mask) {
            let signal = info.signal();
            let action = self.action(signal);
            match (action.handler, default_of(signal)) {
                (SIG_IGN, _) | (SIG_DFL, Default::Ignore) => {}
                (SIG_DFL, Default::Stop) => {
                    // SAFETY: plain libc call. SIGSTOP, because the signal itself may have
                    // been recorded while it had a handler.
                    unsafe { libc::raise(libc::SIGSTOP) };
                }
                (SIG_DFL, Default::End) => return Some(signal),
                _ => {
                    if let Some(r) = restart.take() {
                        let again = match r.mark {
                            Errno::RESTART_ALWAYS => true,
                            Errno::RESTART => action.flags & SA_RESTART != 0,
                            _ => false,
                        };
                        if again {
                            cpu.rip = r.rip;
                            cpu.gpr[0] = r.number;
                        } else {
                            cpu.gpr[0] = eintr(abi);
                        }
                    }
                    if let Err(killed) = self.enter(cpu, env, abi, trampoline, &info) {
                        return Some(killed);
                    }
                }
            }
        }
        if let Some(r) = restart {
            // No handler ran: the call is made again, under the mask that it was made with.
            cpu.rip = r.rip;
            cpu.gpr[0] = r.number;
        }
        if let Some(mask) = self.saved_mask.take() {
            self.set_mask(mask);
        }
        None
    }

    /// A signal that an instruction caused. `Some(signal)` means that the guest dies by it, also
    /// if it blocks or ignores the signal.
    pub fn force(
        &mut self,
        cpu: &mut CpuState,
        env: &Env,
        abi: Abi,
        trampoline: u64,
        info: &SigInfo,
    ) -> Option<i32> {
        let signal = info.signal();
        let action = self.action(signal);
        let blocked = self.mask & bit(signal) != 0;
        if blocked || matches!(action.handler, SIG_DFL | SIG_IGN) {
            return Some(signal);
        }
        self.enter(cpu, env, abi, trampoline, info).err()
    }

    /// Builds the frame and enters the handler; a stack that takes no frame is deadly.
    fn enter(
        &mut self,
        cpu: &mut CpuState,
        env: &Env,
        abi: Abi,
        trampoline: u64,
        info: &SigInfo,
    ) -> Result<(), i32> {
        let signal = info.signal();
        let action = self.action(signal);
        let sp = if abi.is_64() {
            cpu.gpr[4]
        } else {
            cpu.gpr[4] & 0xffff_ffff
        };
        let on_alt = action.flags & SA_ONSTACK != 0
            && self.alt.flags & SS_DISABLE == 0
            && !self.alt.contains(sp);
        let top = on_alt.then(|| self.alt.sp.wrapping_add(self.alt.size));
        let mask = self.saved_mask.take().unwrap_or(self.mask);
        let (alt, trap) = (self.alt, self.trap);
        let pushed = if abi.is_64() {
            // The kernel refuses handlers without a restorer in the same way.
            if action.flags & SA_RESTORER == 0 {
                return Err(libc::SIGSEGV);
            }
            frame64::push(cpu, env, info, &action, mask, &alt, &trap, top)
        } else {
            frame32::push(cpu, env, info, &action, mask, &alt, &trap, top, trampoline)
        };
        if pushed.is_err() {
            tracing::warn!(target: "signal", "no room on the guest's stack for signal {signal}");
            return Err(libc::SIGSEGV);
        }
        tracing::debug!(target: "signal", "signal {signal} enters its handler at {:#x}", action.handler);
        cpu.set_rflags(cpu.rflags() & !CLEARED_FLAGS);
        if !abi.is_64() {
            for (n, selector) in [(0, 0x2b), (1, 0x23), (2, 0x2b), (3, 0x2b)] {
                crate::user::segments::load(cpu, env, n, selector);
            }
        }
        if self.alt.flags & SS_AUTODISARM != 0 && on_alt {
            self.alt = AltStack::NONE;
        }
        let mut mask = self.mask | action.mask;
        if action.flags & SA_NODEFER == 0 {
            mask |= bit(signal);
        }
        self.set_mask(mask);
        if action.flags & SA_RESETHAND != 0 {
            self.set_action(signal, GuestAction::default());
        }
        Ok(())
    }

    /// `sigreturn` and `rt_sigreturn`.
    pub fn sigreturn(
        &mut self,
        cpu: &mut CpuState,
        env: &Env,
        abi: Abi,
        rt: bool,
    ) -> Result<(), Errno> {
        let (mask, alt) = if abi.is_64() {
            let r = frame64::pop(cpu, env)?;
            (r.mask, Some(r.alt))
        } else if rt {
            let r = frame32::pop_rt(cpu, env)?;
            (r.mask, Some(r.alt))
        } else {
            (frame32::pop(cpu, env)?, None)
        };
        if let Some(alt) = alt {
            self.alt = AltStack {
                flags: alt.flags & !SS_ONSTACK,
                ..alt
            };
        }
        self.set_mask(mask);
        Ok(())
    }
}

/// -EINTR in RAX or EAX.
fn eintr(abi: Abi) -> u64 {
    let value = -i64::from(libc::EINTR) as u64;
    if abi.is_64() {
        value
    } else {
        value & 0xffff_ffff
    }
}
