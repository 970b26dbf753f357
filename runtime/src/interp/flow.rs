//! Handlers of branches, checks, helper calls and exits.

use super::code::{Context, Handler, Ins, Int, put, rd, state};
use super::int::{condition, holds, with_cc, with_type};
use super::{Exit, NO_SLOT};
use metaphrase_ir::exit::{exception_info, has_error_code};
use metaphrase_ir::{Cond, ExitReason, IntCc, Type};

/// Takes fuel for `imm` guest instructions.
pub(super) unsafe fn fuel(ip: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let s = state(st);
        let left = (*s).fuel.wrapping_sub((*ip).imm as i64);
        if left < 0 {
            return out_of_fuel(ip, st, cx);
        }
        (*s).fuel = left;
        ip.add(1)
    }
}

/// Leaves unless there is fuel for `imm` guest instructions.
pub(super) unsafe fn need(ip: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        if (*state(st)).fuel < (*ip).imm as i64 {
            return out_of_fuel(ip, st, cx);
        }
        ip.add(1)
    }
}

/// Takes fuel for `imm` guest instructions, unasked.
pub(super) unsafe fn spend(ip: *const Ins, st: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let s = state(st);
        (*s).fuel = (*s).fuel.wrapping_sub((*ip).imm as i64);
        ip.add(1)
    }
}

/// Leaves before the instruction. Nothing was taken for it, so nothing is given back.
pub(super) unsafe fn out_of_fuel(ip: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        (*state(st)).rip = (*cx).pc_at((*cx).program.guest_insn(ip).offset);
        (*cx).leave(ExitReason::Fuel)
    }
}

/// Goes `imm` bytes from here.
pub(super) unsafe fn branch(ip: *const Ins, _: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe { ip.byte_offset((*ip).imm as isize) }
}

/// Goes `imm` bytes from here if `a` is not 0.
pub(super) unsafe fn branch_if(ip: *const Ins, st: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        if rd::<u8>(st, i.a) != 0 {
            ip.byte_offset(i.imm as isize)
        } else {
            ip.add(1)
        }
    }
}

/// Goes `imm` bytes from here if condition `a` (a number, not a slot) holds.
pub(super) unsafe fn branch_cond(ip: *const Ins, st: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        if condition(&*state(st), Cond::ALL[usize::from(i.a & 15)]) {
            ip.byte_offset(i.imm as isize)
        } else {
            ip.add(1)
        }
    }
}

/// Goes as many bytes from here as the high half of `imm` says if `a cc b`; `b` is the
/// sign-extended low half if `IMM`.
unsafe fn branch_cmp<T: Int, const CC: u8, const IMM: bool>(
    ip: *const Ins,
    st: *mut u8,
    _: *mut Context<'_>,
) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let a = rd::<T>(st, i.a).wide();
        let b = if IMM {
            T::cut(i.imm as i32 as u64).wide()
        } else {
            rd::<T>(st, i.b).wide()
        };
        if holds::<T, CC>(a, b) {
            ip.byte_offset((i.imm as i64 >> 32) as isize)
        } else {
            ip.add(1)
        }
    }
}

/// The handler of a comparison that a branch follows.
pub(super) fn compare_branch(cc: IntCc, ty: Type, imm: bool) -> Handler {
    with_type!(ty, T => with_cc!(cc, C => if imm {
        branch_cmp::<T, C, true> as Handler
    } else {
        branch_cmp::<T, C, false>
    }))
}

/// Raises exception `imm` if `a` is not 0.
pub(super) unsafe fn trap_if(ip: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        if rd::<u8>(st, (*ip).a) != 0 {
            return (*cx).raise(ip, st, (*ip).imm as u8);
        }
        ip.add(1)
    }
}

/// Calls a helper. `imm`: its number (16 bits), the third argument's slot (16 bits), descriptor.
/// Slots of arguments that the helper does not take hold anything. `CHECK`: it may exit.
pub(super) unsafe fn call<const CHECK: bool>(
    ip: *const Ins,
    st: *mut u8,
    cx: *mut Context<'_>,
) -> *const Ins {
    // SAFETY: see `Handler`; the helper's number is valid, and the state is attached to an
    // environment as `run` demands.
    unsafe {
        let i = &*ip;
        let helper = crate::helpers::TABLE.helpers[usize::from(i.imm as u16)];
        let (a, b) = (rd::<u64>(st, i.a), rd::<u64>(st, i.b));
        let c = rd::<u64>(st, (i.imm >> 16) as u16);
        let result = helper(st.cast(), i.imm >> 32, a, b, c);
        if CHECK {
            let s = state(st);
            let reason = (*s).exit_reason;
            if reason != 0 {
                (*s).exit_reason = 0;
                return (*cx).leave_at(ip, st, ExitReason::from_u32(reason));
            }
        }
        put::<u64>(st, i.d, result);
        ip.add(1)
    }
}

/// Leaves by direct exit number `a` (not a slot) for PC offset `imm`.
pub(super) unsafe fn jump(ip: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        (*state(st)).rip = (*cx).pc_at((*ip).imm as i64);
        (*cx).exit = Exit {
            reason: ExitReason::Jump,
            slot: u32::from((*ip).a),
        };
        std::ptr::null()
    }
}

/// Leaves for PC `a`.
pub(super) unsafe fn jump_indirect(
    ip: *const Ins,
    st: *mut u8,
    cx: *mut Context<'_>,
) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        (*state(st)).rip = rd::<u64>(st, (*ip).a);
        (*cx).exit = Exit {
            reason: ExitReason::Jump,
            slot: NO_SLOT,
        };
        std::ptr::null()
    }
}

/// System call of kind `imm`; the next instruction is at the PC offset in the high half.
pub(super) unsafe fn syscall(ip: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let next = (*cx).leave_after(ip, st, ExitReason::Syscall);
        let s = state(st);
        (*s).exit_info = i.imm & 0xffff_ffff;
        (*s).rip = (*cx).pc_at(i.imm as i64 >> 32);
        next
    }
}

/// Fault `imm` of the instruction.
pub(super) unsafe fn raise(ip: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe { (*cx).raise(ip, st, (*ip).imm as u8) }
}

/// Trap `imm` after the instruction.
pub(super) unsafe fn trap(ip: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let vector = (*ip).imm as u8;
        let code = has_error_code(vector).then_some(0);
        (*state(st)).exit_info = exception_info(vector, code);
        (*cx).leave_after(ip, st, ExitReason::Exception)
    }
}

/// HLT.
pub(super) unsafe fn halt(ip: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe { (*cx).leave_after(ip, st, ExitReason::Halt) }
}

/// Leaves before the instruction, for the runtime to emulate it.
pub(super) unsafe fn emulate(ip: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe { (*cx).leave_at(ip, st, ExitReason::Emulate) }
}

/// Leaves after a helper that has set RIP or a reason.
pub(super) unsafe fn resume(_: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let s = state(st);
        let reason = match ExitReason::from_u32((*s).exit_reason) {
            ExitReason::None => ExitReason::Jump,
            reason => reason,
        };
        (*s).exit_reason = 0;
        (*cx).leave(reason)
    }
}
