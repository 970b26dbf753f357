//! The machine context of a signal on AArch64 Linux.

use super::Context;
use std::ffi::c_void;

/// Marks the record with the fault's syndrome (`esr_context` in the kernel's uapi).
const ESR_MAGIC: u32 = 0x4553_5201;
/// Size of the area for extension records.
const RECORDS: usize = 4096;

/// Where the fault happened; WnR (bit 6) of the syndrome says whether it was a write.
///
/// # Safety
/// `context` is the third argument of a SA_SIGINFO handler.
pub(super) unsafe fn read(context: *mut c_void) -> Context {
    // SAFETY: by the caller's promise.
    let mcontext = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
    // The records follow the registers, aligned to 16; each begins with its kind and size.
    let records = ((&raw const mcontext.pstate).addr() + 8).next_multiple_of(16) as *const u8;
    let mut at = 0;
    let mut write = false;
    while at + 16 <= RECORDS {
        // SAFETY: the records lie inside the context, and `at` inside their area.
        let (kind, size) = unsafe {
            let head = records.add(at).cast::<u32>();
            (*head, *head.add(1) as usize)
        };
        if kind == ESR_MAGIC {
            // SAFETY: likewise; the syndrome follows the head.
            let esr = unsafe { *records.add(at + 8).cast::<u64>() };
            write = esr & 1 << 6 != 0;
        }
        if kind == 0 || size == 0 {
            break;
        }
        at += size;
    }
    Context {
        pc: mcontext.pc,
        write,
    }
}

/// Makes the handler return to `pc` with that stack and frame pointer.
///
/// # Safety
/// `context` as above; `pc` expects those pointers and no other register.
pub(super) unsafe fn resume(context: *mut c_void, pc: u64, sp: u64, fp: u64) {
    // SAFETY: by the caller's promise.
    let mcontext = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext };
    mcontext.pc = pc;
    mcontext.sp = sp;
    mcontext.regs[29] = fp;
}

/// Makes the handler return to `pc`, with all registers as they were.
///
/// # Safety
/// `context` as above; `pc` expects them so.
pub(super) unsafe fn go_on(context: *mut c_void, pc: u64) {
    // SAFETY: by the caller's promise.
    let mcontext = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext };
    mcontext.pc = pc;
}
