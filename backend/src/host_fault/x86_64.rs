//! The machine context of a signal on x86-64 Linux.

use super::Context;
use std::ffi::c_void;

/// Where the fault happened; bit 1 of the page-fault error code says whether it was a write.
///
/// # Safety
/// `context` is the third argument of a SA_SIGINFO handler.
pub(super) unsafe fn read(context: *mut c_void) -> Context {
    // SAFETY: by the caller's promise.
    let regs = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    Context {
        pc: regs[libc::REG_RIP as usize] as u64,
        write: regs[libc::REG_ERR as usize] & 2 != 0,
    }
}

/// Makes the handler return to `pc` with that stack and frame pointer.
///
/// # Safety
/// `context` as above; `pc` expects those pointers and no other register.
pub(super) unsafe fn resume(context: *mut c_void, pc: u64, sp: u64, fp: u64) {
    // SAFETY: by the caller's promise.
    let regs = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    regs[libc::REG_RIP as usize] = pc as i64;
    regs[libc::REG_RSP as usize] = sp as i64;
    regs[libc::REG_RBP as usize] = fp as i64;
}

/// Makes the handler return to `pc`, with all registers as they were.
///
/// # Safety
/// `context` as above; `pc` expects them so.
pub(super) unsafe fn go_on(context: *mut c_void, pc: u64) {
    // SAFETY: by the caller's promise.
    let regs = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    regs[libc::REG_RIP as usize] = pc as i64;
}
