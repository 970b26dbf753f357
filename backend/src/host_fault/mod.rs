//! Host faults inside compiled code.
//!
//! Compiled code accesses guest memory without asking whether the page is there: the host MMU
//! knows. When it faults, the signal handler finds the host PC inside the arena of the run that
//! this thread has declared with [`Watch`], and goes on elsewhere:
//!
//! - in the access's cold block, if it has one (see [`crate::resume`]). The block writes the guest
//!   state and leaves with `Memory`; what it cannot know is in [`take`].
//! - else in the trampoline, which returns [`metaphrase_ir::ExitReason::HostFault`] to the
//!   dispatcher, with what happened in the guest state. The guest registers in host registers are
//!   lost; the translation has written to the state whatever the guest instruction may observe.
//!
//! Faults anywhere else go to whoever handled them before.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as host;
#[cfg(target_arch = "x86_64")]
use x86_64 as host;

use crate::arena::Arena;
use crate::error::BackendError;
use crate::layout::StateLayout;
use crate::resume::Resumes;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::{Arc, OnceLock};

const WRITE: u64 = 1 << 63;
const BUS: u64 = 1 << 62;

/// What the handler left in the state's `exit_info`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultInfo {
    /// The host instruction that faulted.
    pub host_pc: usize,
    /// The host says that it was a write; [`crate::Fault`] knows what the guest's access was.
    pub write: bool,
    /// SIGBUS rather than SIGSEGV: the page is mapped, but there is nothing behind it.
    pub bus: bool,
}

impl FaultInfo {
    /// Unpacks the `exit_info` of an exit with reason `HostFault`.
    pub fn unpack(exit_info: u64) -> FaultInfo {
        FaultInfo {
            host_pc: (exit_info & !(WRITE | BUS)) as usize,
            write: exit_info & WRITE != 0,
            bus: exit_info & BUS != 0,
        }
    }
}

/// A host fault that has gone on in a cold block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ColdFault {
    /// The linear address that could not be accessed. The cold block reports where the access
    /// begins.
    pub linear: u64,
    /// SIGBUS, as in [`FaultInfo`].
    pub bus: bool,
}

/// The host fault that made compiled code leave with `Memory`, if it was one, and not the address
/// alone. To be asked after each such exit: it answers once.
pub fn take() -> Option<ColdFault> {
    COLD.take()
}

/// What the handler must know about the run on its thread.
#[derive(Clone, Copy)]
struct Run {
    resumes: *const Resumes,
    state: *mut u8,
    start: usize,
    end: usize,
    exit_info: u32,
    fault_addr: u32,
    mem_base: u32,
    host_sp: u32,
    host_fp: u32,
    host_resume: u32,
}

thread_local! {
    // Constant and without destructor: the handler may read it at any time.
    static RUN: Cell<Option<Run>> = const { Cell::new(None) };
    static COLD: Cell<Option<ColdFault>> = const { Cell::new(None) };
    // The thread is known to have an alternate signal stack.
    static HAS_STACK: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, host faults of this thread inside the arena end the run of that state.
#[derive(Debug)]
pub struct Watch {
    // Bound to its thread.
    _thread: PhantomData<*const ()>,
    // The handler has a pointer to it.
    _resumes: Arc<Resumes>,
}

impl Watch {
    /// Declares the run. One thread runs one state at a time; a second declaration replaces the
    /// first.
    ///
    /// # Safety
    /// `state` must be a guest state of that layout and stay valid until the value is dropped.
    pub unsafe fn new(arena: &Arena, layout: &StateLayout, state: *mut c_void) -> Watch {
        let range = arena.range();
        let resumes = arena.resumes().clone();
        RUN.set(Some(Run {
            resumes: Arc::as_ptr(&resumes),
            state: state.cast(),
            start: range.start,
            end: range.end,
            exit_info: layout.exit_info,
            fault_addr: layout.fault_addr,
            mem_base: layout.mem_base,
            host_sp: layout.host_sp,
            host_fp: layout.host_fp,
            host_resume: layout.host_resume,
        }));
        Watch {
            _thread: PhantomData,
            _resumes: resumes,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        RUN.set(None);
    }
}

/// The machine context of a signal, as the host modules read and change it.
struct Context {
    pc: u64,
    write: bool,
}

static PREVIOUS: OnceLock<[libc::sigaction; 2]> = OnceLock::new();
const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// Installs the handler for the process. Later calls do nothing.
pub fn install() -> Result<(), BackendError> {
    let mut result = Ok(());
    PREVIOUS.get_or_init(|| {
        // SAFETY: all zero is a valid sigaction (default action, empty mask).
        let mut previous: [libc::sigaction; 2] = unsafe { MaybeUninit::zeroed().assume_init() };
        // The old actions first: a fault right after the change must find them.
        for (signal, old) in SIGNALS.into_iter().zip(&mut previous) {
            // SAFETY: only reads the current action into valid memory.
            if unsafe { libc::sigaction(signal, std::ptr::null(), old) } != 0 {
                result = Err(last_error("cannot read the signal actions"));
            }
        }
        previous
    });
    for signal in SIGNALS {
        // SAFETY: as above.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: `handler` is async-signal-safe and has the signature that SA_SIGINFO wants.
        if unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } != 0 {
            result = Err(last_error("cannot install the fault handler"));
        }
    }
    result
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable-float")))]
/// What SIGFPE is asked first. It may only be called from a signal handler, with the number and
/// context that the handler was given.
type FloatHook = unsafe fn(c_int, *mut c_void) -> bool;

#[cfg(all(target_arch = "x86_64", not(feature = "portable-float")))]
/// The hook, and what handled SIGFPE before.
static FLOAT: OnceLock<(FloatHook, libc::sigaction)> = OnceLock::new();

#[cfg(all(target_arch = "x86_64", not(feature = "portable-float")))]
/// Installs a handler for SIGFPE that asks `hook`, with the signal and its context, whether the
/// signal is its own; others go to whoever handled them before.
pub(crate) fn chain_float(hook: FloatHook) {
    FLOAT.get_or_init(|| {
        // SAFETY: all zero is a valid sigaction; the call only reads the current action into it.
        let previous = unsafe {
            let mut previous: libc::sigaction = MaybeUninit::zeroed().assume_init();
            libc::sigaction(libc::SIGFPE, std::ptr::null(), &mut previous);
            previous
        };
        (hook, previous)
    });
    // SAFETY: all zero is a valid sigaction.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = float_handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler is async-signal-safe and has the signature that SA_SIGINFO wants.
    unsafe { libc::sigaction(libc::SIGFPE, &action, std::ptr::null_mut()) };
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable-float")))]
extern "C" fn float_handler(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some((hook, previous)) = FLOAT.get() else {
        return;
    };
    // SAFETY: the kernel passes a valid siginfo and ucontext.
    unsafe {
        if !hook(signal, context) {
            hand_on(Some(*previous), signal, info, context);
        }
    }
}

/// Makes sure that this thread has an alternate signal stack; compiled code may fault with little
/// of its own left. Threads of the Rust library have one; others get one for the rest of their
/// life.
pub fn enter_thread() -> Result<(), BackendError> {
    const SIZE: usize = 64 << 10;
    if HAS_STACK.get() {
        return Ok(());
    }
    // SAFETY: all zero is a valid stack_t; the call only writes to it.
    let old = unsafe {
        let mut old: libc::stack_t = MaybeUninit::zeroed().assume_init();
        if libc::sigaltstack(std::ptr::null(), &mut old) != 0 {
            return Err(last_error("cannot read the signal stack"));
        }
        old
    };
    if old.ss_flags & libc::SS_DISABLE == 0 {
        HAS_STACK.set(true);
        return Ok(());
    }
    let stack = Box::leak(vec![0u8; SIZE].into_boxed_slice());
    let new = libc::stack_t {
        ss_sp: stack.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: SIZE,
    };
    // SAFETY: the stack is leaked, so it outlives the thread.
    if unsafe { libc::sigaltstack(&new, std::ptr::null_mut()) } != 0 {
        return Err(last_error("cannot set the signal stack"));
    }
    HAS_STACK.set(true);
    Ok(())
}

fn last_error(what: &'static str) -> BackendError {
    BackendError::Os {
        what,
        source: std::io::Error::last_os_error(),
    }
}

extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo and ucontext for the signals installed above.
    let handled = unsafe { redirect(signal, info, context) };
    if !handled {
        // SAFETY: likewise.
        unsafe { chain(signal, info, context) };
    }
}

/// Ends the run if the fault is one of its.
///
/// # Safety
/// The arguments are those of a SA_SIGINFO handler for a memory fault.
unsafe fn redirect(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) -> bool {
    let Some(run) = RUN.get() else {
        return false;
    };
    // SAFETY: the context is valid by the caller's promise.
    let at = unsafe { host::read(context) };
    if !(run.start as u64..run.end as u64).contains(&at.pc) {
        return false;
    }
    // SAFETY: whoever declared the run keeps the state alive; the fields are 64 bits wide and
    // only this thread uses them while compiled code runs.
    unsafe {
        let field = |offset: u32| run.state.add(offset as usize).cast::<u64>();
        let address = (*info).si_addr() as u64;
        let linear = address.wrapping_sub(*field(run.mem_base));
        // The table lives as long as the declaration.
        if let Some(cold) = (*run.resumes).find(at.pc as usize) {
            let bus = signal == libc::SIGBUS;
            COLD.set(Some(ColdFault { linear, bus }));
            host::go_on(context, cold as u64);
            return true;
        }
        let bits = if at.write { WRITE } else { 0 } | if signal == libc::SIGBUS { BUS } else { 0 };
        *field(run.fault_addr) = linear;
        *field(run.exit_info) = at.pc | bits;
        host::resume(
            context,
            *field(run.host_resume),
            *field(run.host_sp),
            *field(run.host_fp),
        );
    }
    true
}

/// Does what would have happened without us.
///
/// # Safety
/// The arguments are those of a SA_SIGINFO handler.
unsafe fn chain(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let n = usize::from(signal == libc::SIGBUS);
    // SAFETY: handed on.
    unsafe { hand_on(PREVIOUS.get().map(|p| p[n]), signal, info, context) }
}

/// Gives a signal to the action that was there before ours.
///
/// # Safety
/// The arguments are those of a SA_SIGINFO handler.
unsafe fn hand_on(
    previous: Option<libc::sigaction>,
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    match previous {
        Some(p) if p.sa_sigaction != libc::SIG_DFL && p.sa_sigaction != libc::SIG_IGN => {
            if p.sa_flags & libc::SA_SIGINFO != 0 {
                type Action = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
                // SAFETY: with SA_SIGINFO the field holds a function of this type.
                let f: Action = unsafe { std::mem::transmute(p.sa_sigaction) };
                f(signal, info, context);
            } else {
                // SAFETY: without SA_SIGINFO the field holds a function of this type.
                let f: extern "C" fn(c_int) = unsafe { std::mem::transmute(p.sa_sigaction) };
                f(signal);
            }
        }
        // A fault cannot be ignored: the default action, when the instruction faults again (or at
        // once, when someone sent the signal).
        _ => {
            // SAFETY: signal and raise are async-signal-safe.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                if (*info).si_code <= 0 {
                    libc::raise(signal);
                }
            }
        }
    }
}
