//! Far transfers of control: JMP, CALL, RETF, IRET, INT n, and the fast system calls.

use super::{op, segments};
use crate::lift::Lift;
use crate::policy::Sensitive;
use iced_x86::{Code, Mnemonic, OpKind};
use metaphrase_ir::{Cond, SystemKind, SystemOp, Type};

/// JMP and CALL through a far pointer, in the instruction or in memory.
pub(super) fn far(cx: &mut Lift<'_>, call: bool) {
    if cx.policy(Sensitive::Far).is_none() {
        return;
    }
    let (ty, offset, selector) = match cx.insn.op0_kind() {
        kind @ (OpKind::FarBranch16 | OpKind::FarBranch32) => {
            let (ty, offset) = if kind == OpKind::FarBranch16 {
                (Type::I16, u64::from(cx.insn.far_branch16()))
            } else {
                (Type::I32, u64::from(cx.insn.far_branch32()))
            };
            let selector = u64::from(cx.insn.far_branch_selector());
            (
                ty,
                cx.iconst(Type::I64, offset),
                cx.iconst(Type::I64, selector),
            )
        }
        _ => {
            let ty = match cx.insn.code() {
                Code::Jmp_m1616 | Code::Call_m1616 => Type::I16,
                Code::Jmp_m1632 | Code::Call_m1632 => Type::I32,
                _ => Type::I64,
            };
            let (offset, selector) = segments::far_pointer(cx, ty);
            (ty, offset, selector)
        }
    };
    let kind = if call {
        SystemKind::CallFar
    } else {
        SystemKind::JmpFar
    };
    cx.system(op(kind, ty.bytes(), 0), Some(selector), Some(offset));
}

/// RETF, with or without a count of bytes to release.
pub(super) fn retf(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::Far).is_none() {
        return;
    }
    let size = match cx.insn.code() {
        Code::Retfw | Code::Retfw_imm16 => 2,
        Code::Retfd | Code::Retfd_imm16 => 4,
        _ => 8,
    };
    let release = match cx.insn.op_count() {
        0 => 0,
        _ => u64::from(cx.insn.immediate16()),
    };
    let release = cx.iconst(Type::I64, release);
    cx.system(op(SystemKind::RetFar, size, 0), Some(release), None);
}

/// IRET, IRETD, IRETQ.
pub(super) fn iret(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::Iret).is_some() {
        let size = match cx.insn.code() {
            Code::Iretw => 2,
            Code::Iretd => 4,
            _ => 8,
        };
        cx.system(op(SystemKind::Iret, size, 0), None, None);
    }
}

/// INT n, INT3, INT1, and INTO, which is one only if OF is set.
pub(super) fn int(cx: &mut Lift<'_>, mnemonic: Mnemonic) {
    if cx.policy(Sensitive::Int).is_none() {
        return;
    }
    let (vector, origin) = match mnemonic {
        Mnemonic::Int3 => (3, 1),
        Mnemonic::Into => (4, 1),
        Mnemonic::Int1 => (1, 2),
        _ => (cx.insn.immediate8(), 0),
    };
    let op = SystemOp {
        m: origin,
        ..op(SystemKind::Int, 0, vector)
    };
    if mnemonic != Mnemonic::Into {
        cx.system(op, None, None);
        return;
    }
    let overflow = cx.ir.getcond(Cond::O);
    let (taken, rest) = (cx.ir.new_block(), cx.ir.new_block());
    cx.ir.brif(overflow, (taken, &[]), (rest, &[]));
    cx.ir.switch_to(taken);
    cx.system(op, None, None);
    cx.ir.switch_to(rest);
}

/// SYSCALL, SYSRET, SYSENTER, SYSEXIT. In which modes they exist depends on IA32_EFER.SCE and the
/// CPU's vendor, and #UD comes before #GP: all of it is the helper's.
pub(super) fn fast(cx: &mut Lift<'_>, mnemonic: Mnemonic) {
    use Mnemonic::*;
    if cx.policy(Sensitive::Syscall).is_none() {
        return;
    }
    let (kind, size) = match mnemonic {
        Syscall => (SystemKind::Syscall, 0),
        Sysret => (SystemKind::Sysret, 4),
        Sysretq => (SystemKind::Sysret, 8),
        Sysenter => (SystemKind::Sysenter, 0),
        Sysexit => (SystemKind::Sysexit, 4),
        _ => (SystemKind::Sysexit, 8),
    };
    cx.system(op(kind, size, 0), None, None);
}

/// RSM: #UD outside system-management mode, which the helper knows.
pub(super) fn rsm(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::Rsm).is_some() {
        cx.plain(SystemKind::Rsm, 0);
    }
}
