//! Loads of segment registers, and SWAPGS. All of them leave: bases, checks and the privilege
//! level are part of the mode, and a load of SS opens an interrupt shadow.

use super::op;
use crate::lift::Lift;
use crate::lift::system::further;
use crate::policy::Sensitive;
use iced_x86::{Mnemonic, Register};
use metaphrase_ir::{Reg, SystemKind, SystemOp, Type, Value};

/// MOV Sreg, r/m16. CS cannot be loaded so.
pub(super) fn mov(cx: &mut Lift<'_>) {
    let segment = cx.insn.op0_register();
    if segment == Register::CS {
        return cx.ud();
    }
    if cx.policy(Sensitive::LoadSeg).is_none() {
        return;
    }
    let selector = super::registers::word(cx, 1);
    let n = segment.number() as u8;
    cx.system(op(SystemKind::LoadSegment, 2, n), Some(selector), None);
}

/// POP into a segment register: the helper moves the stack pointer once the load has succeeded.
pub(super) fn pop(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::LoadSeg).is_none() {
        return;
    }
    let size = cx.insn.stack_pointer_increment().unsigned_abs();
    let v = cx.peek(Type::int(size), 0);
    let selector = cx.ir.trunc(Type::I16, v);
    let top = cx.stack_offset(i64::from(size));
    let top = if cx.mode.stack_type() == Type::I16 {
        // SS may become another stack, so this says what all of RSP becomes.
        let low = cx.ir.trunc(Type::I16, top);
        let old = cx.ir.getreg(Reg::Rsp);
        cx.ir.insert(old, low, 0)
    } else {
        top
    };
    let n = cx.insn.op0_register().number() as u8;
    let op = op(SystemKind::PopSegment, size, n);
    cx.system(op, Some(selector), Some(top));
}

/// LDS, LES, LFS, LGS, LSS: a far pointer from memory.
pub(super) fn load_far(cx: &mut Lift<'_>, mnemonic: Mnemonic) {
    let segment = match mnemonic {
        Mnemonic::Lds => Register::DS,
        Mnemonic::Les => Register::ES,
        Mnemonic::Lfs => Register::FS,
        Mnemonic::Lgs => Register::GS,
        _ => Register::SS,
    };
    if cx.policy(Sensitive::LoadSeg).is_none() {
        return;
    }
    let ty = cx.op_type(0);
    let (offset, selector) = far_pointer(cx, ty);
    let op = SystemOp {
        m: cx.insn.op0_register().full_register().number() as u8,
        ..op(SystemKind::LoadFar, ty.bytes(), segment.number() as u8)
    };
    cx.system(op, Some(selector), Some(offset));
}

/// The far pointer in memory: an offset of type `ty`, and a selector behind it.
pub(super) fn far_pointer(cx: &mut Lift<'_>, ty: Type) -> (Value, Value) {
    let ea = cx.effective_address();
    let segment = cx.insn.memory_segment();
    // SDM volume 3, table 6-7: pointers of 16:16 bits are aligned to 2.
    let addr = cx.access_aligned(segment, ea, ty.bytes() + 2, false, ty.bytes());
    let kind = cx.operand_kind();
    let offset = cx.ir.load(ty, addr, kind);
    let addr = further(cx, addr, ty.bytes());
    let selector = cx.ir.load(Type::I16, addr, kind);
    (offset, selector)
}

/// SWAPGS: 64-bit code only, which the decoder sees to.
pub(super) fn swapgs(cx: &mut Lift<'_>) {
    if cx.privileged(Sensitive::Swapgs) {
        cx.plain(SystemKind::Swapgs, 0);
    }
}
