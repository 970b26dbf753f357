//! Two-operand arithmetic and logic: ADD, ADC, SUB, SBB, CMP, AND, OR, XOR, TEST.

use super::Lift;
use super::operand::Place;
use iced_x86::{Mnemonic, OpKind};
use metaphrase_ir::{Cond, FlagKind, RmwOp, Value};

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    match mnemonic {
        Mnemonic::Add => add(cx),
        Mnemonic::Sub => sub(cx),
        Mnemonic::Cmp => cmp(cx),
        Mnemonic::And => logic(cx, RmwOp::And),
        Mnemonic::Or => logic(cx, RmwOp::Or),
        Mnemonic::Xor => logic(cx, RmwOp::Xor),
        Mnemonic::Test => test(cx),
        Mnemonic::Adc => adc(cx),
        Mnemonic::Sbb => sbb(cx),
        _ => return false,
    }
    true
}

/// The old value of operand 0 and, for a LOCK form, the atomic update already done.
fn read_modify(cx: &mut Lift<'_>, place: Place, op: RmwOp, b: Value) -> Value {
    match place {
        Place::Mem(addr, _) if cx.insn.has_lock_prefix() => cx.ir.rmw(op, addr, b),
        _ => cx.load(place),
    }
}

/// Writes the result unless a LOCK form has done so.
fn write_back(cx: &mut Lift<'_>, place: Place, v: Value) {
    if !cx.insn.has_lock_prefix() {
        cx.store(place, v);
    }
}

/// ADD: dst := dst + src.
fn add(cx: &mut Lift<'_>) {
    let b = cx.read(1);
    let place = cx.place(0);
    let a = read_modify(cx, place, RmwOp::Add, b);
    let sum = cx.ir.add(a, b);
    write_back(cx, place, sum);
    cx.ir.setflags(FlagKind::Add, &[a, b]);
}

/// True if both operands are the same register: the result then depends on less than both.
fn same_register(cx: &Lift<'_>) -> bool {
    cx.insn.op0_kind() == OpKind::Register
        && cx.insn.op1_kind() == OpKind::Register
        && cx.insn.op0_register() == cx.insn.op1_register()
}

/// XOR and SUB of a register with itself: dst := 0, with the flags of that.
fn clear(cx: &mut Lift<'_>) {
    let zero = cx.iconst(cx.op_type(0), 0);
    cx.write_gpr(cx.insn.op0_register(), zero);
    cx.ir.setflags(FlagKind::Logic, &[zero]);
}

/// SUB: dst := dst - src.
fn sub(cx: &mut Lift<'_>) {
    if same_register(cx) {
        return clear(cx);
    }
    let b = cx.read(1);
    let place = cx.place(0);
    let a = read_modify(cx, place, RmwOp::Sub, b);
    let difference = cx.ir.sub(a, b);
    write_back(cx, place, difference);
    cx.ir.setflags(FlagKind::Sub, &[a, b]);
}

/// CMP: the flags of dst - src.
fn cmp(cx: &mut Lift<'_>) {
    let (a, b) = (cx.read(0), cx.read(1));
    cx.ir.setflags(FlagKind::Sub, &[a, b]);
}

/// AND, OR, XOR: dst := dst op src.
fn logic(cx: &mut Lift<'_>, op: RmwOp) {
    if same_register(cx) {
        if op == RmwOp::Xor {
            return clear(cx);
        }
        // A test of the register; a 32-bit one is zero-extended.
        let a = cx.read(0);
        cx.write(0, a);
        return cx.ir.setflags(FlagKind::Logic, &[a]);
    }
    let b = cx.read(1);
    let place = cx.place(0);
    let a = read_modify(cx, place, op, b);
    let result = match op {
        RmwOp::And => cx.ir.and(a, b),
        RmwOp::Or => cx.ir.or(a, b),
        _ => cx.ir.xor(a, b),
    };
    write_back(cx, place, result);
    cx.ir.setflags(FlagKind::Logic, &[result]);
}

/// TEST: the flags of dst and src.
fn test(cx: &mut Lift<'_>) {
    let a = cx.read(0);
    let result = if same_register(cx) {
        a
    } else {
        let b = cx.read(1);
        cx.ir.and(a, b)
    };
    cx.ir.setflags(FlagKind::Logic, &[result]);
}

/// CF as a value of the type of `like`.
pub fn carry_in(cx: &mut Lift<'_>, like: Value) -> Value {
    let c = cx.ir.getcond(Cond::B);
    let ty = cx.ir.ty(like);
    cx.ir.zext(ty, c)
}

/// ADC: dst := dst + src + CF.
fn adc(cx: &mut Lift<'_>) {
    let b = cx.read(1);
    let c = carry_in(cx, b);
    let place = cx.place(0);
    let addend = cx.ir.add(b, c);
    let a = read_modify(cx, place, RmwOp::Add, addend);
    let sum = cx.ir.add(a, addend);
    write_back(cx, place, sum);
    cx.ir.setflags(FlagKind::Adc, &[a, b, c]);
}

/// SBB: dst := dst - src - CF.
fn sbb(cx: &mut Lift<'_>) {
    if same_register(cx) {
        let zero = cx.iconst(cx.op_type(0), 0);
        let c = carry_in(cx, zero);
        let result = cx.ir.neg(c);
        cx.write_gpr(cx.insn.op0_register(), result);
        return cx.ir.setflags(FlagKind::Sbb, &[zero, zero, c]);
    }
    let b = cx.read(1);
    let c = carry_in(cx, b);
    let place = cx.place(0);
    let subtrahend = cx.ir.add(b, c);
    let a = read_modify(cx, place, RmwOp::Sub, subtrahend);
    let difference = cx.ir.sub(a, subtrahend);
    write_back(cx, place, difference);
    cx.ir.setflags(FlagKind::Sbb, &[a, b, c]);
}
