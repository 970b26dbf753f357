//! Signals of the host: the handler that records them, masks, and system calls that a signal
//! interrupts without a race.
//!
//! The host's signal mask mirrors the guest's. A signal that the guest wants to know about runs
//! [`record`], which stores it in the one slot there is, blocks everything else (so that the host
//! keeps the queue), and asks for attention. The slot is emptied by [`take`], and [`set_mask`]
//! lets the next signal in. This is the only global state of user mode: a process has one set of
//! signal handlers.

use super::siginfo::SigInfo;
use crate::host_mask::swap_mask;
pub use crate::host_mask::{
    ENGINE_SIGNALS, Mask, bit, current_mask, host_mask, with_signals_blocked,
};
use crate::user::abi::{Errno, SysResult};
use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

/// The flag of the engine, set when a signal waits in the slot; the dispatcher polls it between
/// slices. Null, or a flag that lives for ever.
static ATTENTION: AtomicPtr<AtomicBool> = AtomicPtr::new(std::ptr::null_mut());

/// Number of the signal in the slot, 0 if it is empty.
static SLOT: AtomicU32 = AtomicU32::new(0);

struct Info(UnsafeCell<[u8; 128]>);

// SAFETY: written only by `record` while `SLOT` is 0 (all signals are blocked until `take` has
// emptied it), read only by `take` while `SLOT` is not 0.
unsafe impl Sync for Info {}

static INFO: Info = Info(UnsafeCell::new([0; 128]));

/// Names the flag that is to be set when a signal has been recorded. The flag is never freed.
pub fn set_attention(flag: Arc<AtomicBool>) {
    let new = Arc::into_raw(flag).cast_mut();
    // The previous one leaks: a handler may be using it.
    ATTENTION.store(new, Ordering::Release);
}

fn ask_for_attention() {
    let flag = ATTENTION.load(Ordering::Acquire);
    if !flag.is_null() {
        // SAFETY: `set_attention` stored a pointer to a flag that is never freed.
        unsafe { (*flag).store(true, Ordering::Release) };
    }
}

/// Whether a signal is waiting.
pub fn is_waiting() -> bool {
    SLOT.load(Ordering::Acquire) != 0
}

/// Sets the host's signal mask and gives the old one. While a signal is in the slot, everything
/// stays blocked; the mask is to be set again when the slot is empty.
pub fn set_mask(mask: Mask) -> Mask {
    let old = swap_mask(!0);
    if !is_waiting() {
        swap_mask(mask);
    }
    old
}

/// What the host does with a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostAction {
    /// The default.
    Default,
    /// Nothing.
    Ignore,
    /// It is recorded for the guest.
    Record,
}

/// Sets what the host does with a signal; `flags` are those of the guest that concern children
/// (`SA_NOCLDSTOP`, `SA_NOCLDWAIT`).
pub fn set_action(signal: i32, action: HostAction, flags: i32) {
    if ENGINE_SIGNALS.contains(&signal) || matches!(signal, libc::SIGKILL | libc::SIGSTOP) {
        return;
    }
    // SAFETY: a zeroed sigaction is a valid one (default action, no flags, empty mask).
    let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
    new.sa_flags = flags & (libc::SA_NOCLDSTOP | libc::SA_NOCLDWAIT);
    match action {
        HostAction::Default => new.sa_sigaction = libc::SIG_DFL,
        HostAction::Ignore => new.sa_sigaction = libc::SIG_IGN,
        HostAction::Record => {
            let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = record;
            new.sa_sigaction = handler as usize;
            // On the alternate stack that the fault handler has, if there is one: compiled code
            // may be close to the end of the main one.
            new.sa_flags |= libc::SA_SIGINFO | libc::SA_ONSTACK;
            // SAFETY: the set is ours.
            unsafe {
                libc::sigfillset(&mut new.sa_mask);
                for s in ENGINE_SIGNALS {
                    libc::sigdelset(&mut new.sa_mask, s);
                }
            }
        }
    }
    // SAFETY: `record` does only what a signal handler may. The C library refuses its own two
    // signals (32 and 33); then the host's default stays, which nobody sends.
    unsafe { libc::sigaction(signal, &new, std::ptr::null_mut()) };
}

/// Whether the host ignores a signal.
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: a zeroed sigaction is valid, and only the old action is asked for.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut old) == 0
            && old.sa_sigaction == libc::SIG_IGN
    }
}

/// The handler. Async-signal-safe: it only stores.
extern "C" fn record(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives valid pointers; all signals that come here are blocked while a
    // handler runs and, through the saved mask, until the slot is empty again. A siginfo_t has
    // 128 bytes on Linux.
    unsafe {
        std::ptr::copy_nonoverlapping(info.cast::<u8>(), INFO.0.get().cast::<u8>(), 128);
        let context = context.cast::<libc::ucontext_t>();
        libc::sigfillset(&mut (*context).uc_sigmask);
        for s in ENGINE_SIGNALS {
            libc::sigdelset(&mut (*context).uc_sigmask, s);
        }
        arch::leave_blocking_call(context);
    }
    SLOT.store(signal as u32, Ordering::Release);
    ask_for_attention();
}

/// Empties the slot. The other signals stay blocked until [`set_mask`].
pub fn take() -> Option<SigInfo> {
    if SLOT.load(Ordering::Acquire) == 0 {
        return None;
    }
    // SAFETY: the slot is full, so `record` does not run; see `Info`.
    let raw = unsafe { *INFO.0.get() };
    let info = SigInfo::from_host(raw);
    SLOT.store(0, Ordering::Release);
    Some(info)
}

/// A host system call that may wait. If a signal is in the slot, or one comes before the call, it
/// answers [`Errno::RESTART_ALWAYS`]: on a real machine the handler would have run first. If one
/// comes during the call, it answers [`Errno::RESTART`]. A signal cannot slip in between the test
/// and the call.
///
/// # Safety
/// As for the system call itself: pointers must be good for it.
pub unsafe fn blocking(nr: i64, args: [u64; 6]) -> SysResult {
    // SAFETY: the caller vouches for the arguments; SLOT is a static.
    let value = unsafe { arch::call(SLOT.as_ptr(), nr, &args) };
    if (-4095..0).contains(&value) {
        match -value as i32 {
            libc::EINTR => Err(Errno::RESTART),
            e => Err(Errno(e)),
        }
    } else {
        Ok(value as u64)
    }
}

/// Ends this process by a signal, as the guest was ended: default disposition, unblocked, raised.
pub fn die_by(signal: i32) -> ! {
    // SAFETY: plain libc calls on sets and actions of ours. `_exit` is the fallback for a signal
    // that does not end a process.
    unsafe {
        let no_core = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &no_core);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(signal, &action, std::ptr::null_mut());
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
        libc::kill(libc::getpid(), signal);
        libc::raise(signal);
        libc::_exit(128 + signal)
    }
}

/// x86-64 hosts: the call as a few instructions whose addresses the handler knows.
#[cfg(target_arch = "x86_64")]
mod arch {
    std::arch::global_asm!(
        ".globl metaphrase_blocking_call",
        ".hidden metaphrase_blocking_call",
        "metaphrase_blocking_call:",
        "mov r11, rdi",
        "mov rax, rsi",
        "mov rcx, rdx",
        "mov rdi, [rcx]",
        "mov rsi, [rcx + 8]",
        "mov rdx, [rcx + 16]",
        "mov r10, [rcx + 24]",
        "mov r8, [rcx + 32]",
        "mov r9, [rcx + 40]",
        ".globl metaphrase_blocking_test",
        ".hidden metaphrase_blocking_test",
        "metaphrase_blocking_test:",
        "cmp dword ptr [r11], 0",
        "jne metaphrase_blocking_interrupted",
        "syscall",
        ".globl metaphrase_blocking_done",
        ".hidden metaphrase_blocking_done",
        "metaphrase_blocking_done:",
        "ret",
        ".globl metaphrase_blocking_interrupted",
        ".hidden metaphrase_blocking_interrupted",
        "metaphrase_blocking_interrupted:",
        "mov rax, -513",
        "ret",
    );

    unsafe extern "C" {
        fn metaphrase_blocking_call(slot: *const u32, nr: i64, args: *const u64) -> i64;
        fn metaphrase_blocking_test();
        fn metaphrase_blocking_done();
        fn metaphrase_blocking_interrupted();
    }

    /// The call, or [`Errno::RESTART_ALWAYS`] negated if the slot is full.
    ///
    /// # Safety
    /// As for the system call.
    pub unsafe fn call(slot: *const u32, nr: i64, args: &[u64; 6]) -> i64 {
        // SAFETY: as for the caller.
        unsafe { metaphrase_blocking_call(slot, nr, args.as_ptr()) }
    }

    /// If the interrupted code is between the test and the call, makes it answer as if the slot
    /// had been full.
    ///
    /// # Safety
    /// `context` is that of a signal handler.
    pub unsafe fn leave_blocking_call(context: *mut libc::ucontext_t) {
        // SAFETY: as for the caller.
        unsafe {
            let rip = &mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize];
            let test = metaphrase_blocking_test as *const () as usize as i64;
            let done = metaphrase_blocking_done as *const () as usize as i64;
            if (test..done).contains(rip) {
                *rip = metaphrase_blocking_interrupted as *const () as usize as i64;
            }
        }
    }
}

/// aarch64 hosts: the same.
#[cfg(target_arch = "aarch64")]
mod arch {
    std::arch::global_asm!(
        ".globl metaphrase_blocking_call",
        ".hidden metaphrase_blocking_call",
        "metaphrase_blocking_call:",
        "mov x9, x0",
        "mov x8, x1",
        "mov x10, x2",
        "ldp x0, x1, [x10]",
        "ldp x2, x3, [x10, #16]",
        "ldp x4, x5, [x10, #32]",
        ".globl metaphrase_blocking_test",
        ".hidden metaphrase_blocking_test",
        "metaphrase_blocking_test:",
        "ldr w11, [x9]",
        "cbnz w11, metaphrase_blocking_interrupted",
        "svc #0",
        ".globl metaphrase_blocking_done",
        ".hidden metaphrase_blocking_done",
        "metaphrase_blocking_done:",
        "ret",
        ".globl metaphrase_blocking_interrupted",
        ".hidden metaphrase_blocking_interrupted",
        "metaphrase_blocking_interrupted:",
        "mov x0, #-513",
        "ret",
    );

    unsafe extern "C" {
        fn metaphrase_blocking_call(slot: *const u32, nr: i64, args: *const u64) -> i64;
        fn metaphrase_blocking_test();
        fn metaphrase_blocking_done();
        fn metaphrase_blocking_interrupted();
    }

    /// The call, or [`Errno::RESTART_ALWAYS`] negated if the slot is full.
    ///
    /// # Safety
    /// As for the system call.
    pub unsafe fn call(slot: *const u32, nr: i64, args: &[u64; 6]) -> i64 {
        // SAFETY: as for the caller.
        unsafe { metaphrase_blocking_call(slot, nr, args.as_ptr()) }
    }

    /// If the interrupted code is between the test and the call, makes it answer as if the slot
    /// had been full.
    ///
    /// # Safety
    /// `context` is that of a signal handler.
    pub unsafe fn leave_blocking_call(context: *mut libc::ucontext_t) {
        // SAFETY: as for the caller.
        unsafe {
            let pc = &mut (*context).uc_mcontext.pc;
            let test = metaphrase_blocking_test as *const () as usize as u64;
            let done = metaphrase_blocking_done as *const () as usize as u64;
            if (test..done).contains(pc) {
                *pc = metaphrase_blocking_interrupted as *const () as usize as u64;
            }
        }
    }
}

/// Other hosts: a signal between the test and the call is noticed when the call ends.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod arch {
    /// The call, or [`Errno::RESTART_ALWAYS`] negated if the slot is full.
    ///
    /// # Safety
    /// As for the system call.
    pub unsafe fn call(slot: *const u32, nr: i64, args: &[u64; 6]) -> i64 {
        // SAFETY: the slot is a static; the rest is as for the caller.
        unsafe {
            if slot.read_volatile() != 0 {
                return -i64::from(Errno::RESTART_ALWAYS.0);
            }
            let r = libc::syscall(nr, args[0], args[1], args[2], args[3], args[4], args[5]);
            if r == -1 {
                return -i64::from(*libc::__errno_location());
            }
            r
        }
    }

    /// Nothing to do here.
    ///
    /// # Safety
    /// None.
    pub unsafe fn leave_blocking_call(_: *mut libc::ucontext_t) {}
}
