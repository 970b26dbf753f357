//! The host's signal masks: which signals may come to this thread.
//!
//! The engine's own signals (its host faults) are never blocked.

/// Signals that belong to the engine (host faults in compiled code): never blocked on the host,
/// their dispositions never touched.
pub const ENGINE_SIGNALS: [i32; 5] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
];

/// A signal set with a bit for each signal, bit 0 for signal 1, as Linux has it.
pub type Mask = u64;

/// The bit of a signal.
pub const fn bit(signal: i32) -> Mask {
    1 << (signal - 1)
}

/// The host mask that goes with a guest mask.
pub fn host_mask(mask: Mask) -> Mask {
    ENGINE_SIGNALS.iter().fold(mask, |m, &s| m & !bit(s))
}

/// Sets this thread's signal mask and gives the old one; the signals of the engine stay open.
pub fn swap_mask(mask: Mask) -> Mask {
    let new = host_mask(mask);
    let mut old: Mask = 0;
    // SAFETY: both pointers are to 8-byte sets, which is the size that the call is told.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const new,
            &raw mut old,
            8,
        );
    }
    old
}

/// The host's signal mask.
pub fn current_mask() -> Mask {
    let mut old: Mask = 0;
    // SAFETY: a null set asks for the old one only.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            std::ptr::null::<Mask>(),
            &raw mut old,
            8,
        );
    }
    old
}

/// Runs something (the start of a thread, say) with all signals blocked. Threads of the engine
/// must be started so: a signal that the host gave to one of them would not interrupt the guest.
pub fn with_signals_blocked<T>(f: impl FnOnce() -> T) -> T {
    let old = swap_mask(!0);
    let result = f();
    swap_mask(old);
    result
}
