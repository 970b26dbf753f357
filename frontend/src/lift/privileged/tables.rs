//! Descriptor tables and what descriptors say: SGDT, LGDT, SLDT, LLDT and their kin, LAR, LSL,
//! VERR, VERW.

use super::{op, registers};
use crate::lift::Lift;
use crate::lift::atomic::set_zf;
use crate::lift::system::further;
use crate::policy::Sensitive;
use iced_x86::{Code, Mnemonic};
use metaphrase_ir::{AccessKind, Reg, SystemKind, Type};

/// The base's type in memory, and the operand's size.
fn base_type(cx: &Lift<'_>) -> (Type, u32) {
    if cx.mode.is_64() {
        (Type::I64, 10)
    } else {
        (Type::I32, 6)
    }
}

/// SGDT, SIDT: limit and base to memory; all 32 bits of the base whatever the operand size, as
/// every CPU since the 386 has it. Both parts must be writable before one is written.
pub(super) fn store_table(cx: &mut Lift<'_>, global: bool) {
    let (sensitive, base, limit) = if global {
        (Sensitive::Sgdt, SystemKind::GdtBase, SystemKind::GdtLimit)
    } else {
        (Sensitive::Sidt, SystemKind::IdtBase, SystemKind::IdtLimit)
    };
    if cx.policy(sensitive).is_none() {
        return;
    }
    let (ty, size) = base_type(cx);
    let base = cx.system(op(base, size - 2, 0), None, None);
    let base = cx.ir.trunc(ty, base);
    let limit = cx.system(op(limit, 2, 0), None, None);
    let limit = cx.ir.trunc(Type::I16, limit);
    let addr = cx.linear_of(size, true);
    let base_addr = further(cx, addr, 2);
    cx.ir.load(ty, base_addr, AccessKind::Update);
    let kind = cx.operand_kind();
    cx.ir.store(addr, limit, kind);
    cx.ir.store(base_addr, base, kind);
}

/// LGDT, LIDT: with a 16-bit operand size the base has 24 bits.
pub(super) fn load_table(cx: &mut Lift<'_>, global: bool) {
    let (sensitive, kind) = if global {
        (Sensitive::Lgdt, SystemKind::Lgdt)
    } else {
        (Sensitive::Lidt, SystemKind::Lidt)
    };
    if !cx.privileged(sensitive) {
        return;
    }
    let (ty, size) = base_type(cx);
    let addr = cx.linear_of(size, false);
    let limit = cx.ir.load(Type::I16, addr, cx.operand_kind());
    let base_addr = further(cx, addr, 2);
    let mut base = cx.ir.load(ty, base_addr, cx.operand_kind());
    let short = matches!(cx.insn.code(), Code::Lgdt_m1632_16 | Code::Lidt_m1632_16);
    if short {
        let mask = cx.iconst(ty, 0xff_ffff);
        base = cx.ir.and(base, mask);
    }
    let size = if short { 2 } else { ty.bytes() };
    cx.system(op(kind, size, 0), Some(limit), Some(base));
}

/// SLDT, STR: 16 bits to memory, zero-extended into a register.
pub(super) fn store_selector(cx: &mut Lift<'_>, ldt: bool) {
    let (sensitive, kind) = if ldt {
        (Sensitive::Sldt, SystemKind::Sldt)
    } else {
        (Sensitive::Str, SystemKind::Str)
    };
    if cx.protected() && cx.policy(sensitive).is_some() {
        let v = cx.system(op(kind, 0, 0), None, None);
        registers::store_word(cx, v);
    }
}

/// LLDT, LTR.
pub(super) fn load_selector(cx: &mut Lift<'_>, ldt: bool) {
    let (sensitive, kind) = if ldt {
        (Sensitive::Lldt, SystemKind::Lldt)
    } else {
        (Sensitive::Ltr, SystemKind::Ltr)
    };
    if cx.protected() && cx.privileged(sensitive) {
        let v = registers::word(cx, 0);
        cx.system(op(kind, 2, 0), Some(v), None);
    }
}

/// LAR, LSL, VERR, VERW: ZF tells whether the selector is valid; then LAR and LSL write.
pub(super) fn segment_info(cx: &mut Lift<'_>, mnemonic: Mnemonic) {
    let (sensitive, which) = match mnemonic {
        Mnemonic::Lar => (Sensitive::Lar, 0),
        Mnemonic::Lsl => (Sensitive::Lsl, 1),
        Mnemonic::Verr => (Sensitive::Verr, 2),
        _ => (Sensitive::Verw, 3),
    };
    if !cx.protected() || cx.policy(sensitive).is_none() {
        return;
    }
    let writes = which < 2;
    let selector = registers::word(cx, u32::from(writes));
    let info = cx.system(op(SystemKind::SegmentInfo, 0, which), Some(selector), None);
    let valid = cx.ir.ext(Type::I8, info, 32);
    if writes {
        let dest = cx.insn.op0_register();
        let whole = Reg::gpr(dest.full_register().number());
        let value = cx.ir.trunc(Type::I32, info);
        let ty = cx.op_type(0);
        let value = if ty == Type::I64 {
            cx.ir.zext(ty, value)
        } else {
            cx.ir.trunc(ty, value)
        };
        let before = cx.ir.getreg(whole);
        cx.write_gpr(dest, value);
        let written = cx.ir.getreg(whole);
        let kept = cx.ir.select(valid, written, before);
        cx.ir.setreg(whole, kept);
    }
    set_zf(cx, valid);
}
