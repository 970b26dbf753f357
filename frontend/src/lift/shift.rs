//! Shifts and rotates: SHL, SHR, SAR, ROL, ROR, RCL, RCR, SHLD, SHRD.
//!
//! Counts are taken modulo 32 (64 for 64-bit operands); a count of 0 changes no flag. Shifts of 8
//! and 16 bits are done in 32, so that counts up to 31 need no special case. Flags that the manual
//! leaves undefined (OF for counts above 1, AF) come out as on AMD Zen hosts.

use super::Lift;
use super::alu::carry_in;
use iced_x86::{Mnemonic, OpKind};
use metaphrase_ir::{FlagKind, IntCc, Op, Type, Value};

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    match mnemonic {
        Mnemonic::Shl | Mnemonic::Sal => shift(cx, Op::Shl),
        Mnemonic::Shr => shift(cx, Op::LShr),
        Mnemonic::Sar => shift(cx, Op::AShr),
        Mnemonic::Rol => rotate(cx, Op::RotL),
        Mnemonic::Ror => rotate(cx, Op::RotR),
        Mnemonic::Rcl => rotate_carry(cx, true),
        Mnemonic::Rcr => rotate_carry(cx, false),
        Mnemonic::Shld => shift_double(cx, true),
        Mnemonic::Shrd => shift_double(cx, false),
        _ => return false,
    }
    true
}

/// A shift count.
#[derive(Clone, Copy)]
enum Count {
    /// An immediate, masked.
    Imm(u64),
    /// CL, not masked.
    Cl(Value),
}

impl Count {
    /// The count operand of number `n`, for a destination of type `ty`.
    fn operand(cx: &mut Lift<'_>, n: u32, ty: Type) -> Count {
        match cx.insn.op_kind(n) {
            OpKind::Register => Count::Cl(cx.read(n)),
            _ => Count::Imm(cx.insn.immediate(n) & count_mask(ty)),
        }
    }

    /// The count as a value of type `ty`; CL keeps its upper bits, which IR shifts ignore.
    fn value(self, cx: &mut Lift<'_>, ty: Type) -> Value {
        match self {
            Count::Imm(n) => cx.iconst(ty, n),
            Count::Cl(v) => cx.ir.zext(ty, v),
        }
    }

    /// The count minus 1, likewise; for a count of 0 it means nothing.
    fn less_one(self, cx: &mut Lift<'_>, ty: Type) -> Value {
        match self {
            Count::Imm(n) => cx.iconst(ty, n.wrapping_sub(1)),
            Count::Cl(v) => {
                let v = cx.ir.zext(ty, v);
                let one = cx.iconst(ty, 1);
                cx.ir.sub(v, one)
            }
        }
    }

    /// For CL: whether the masked count is not 0.
    fn nonzero(self, cx: &mut Lift<'_>, ty: Type) -> Option<Value> {
        let Count::Cl(v) = self else { return None };
        let mask = cx.iconst(Type::I8, count_mask(ty));
        let masked = cx.ir.and(v, mask);
        Some(cx.ir.icmp_imm(IntCc::Ne, masked, 0))
    }
}

/// Which bits of a count matter for a destination of type `ty`.
fn count_mask(ty: Type) -> u64 {
    if ty == Type::I64 { 63 } else { 31 }
}

/// `a op count`, in the type of `a`.
fn apply(cx: &mut Lift<'_>, op: Op, a: Value, count: Value) -> Value {
    cx.ir.ins(op, cx.ir.ty(a), &[a, count], 0, 0)
}

/// Bit `n` of `v` in bit 0; garbage above.
fn bit(cx: &mut Lift<'_>, v: Value, n: u32) -> Value {
    if n == 0 {
        return v;
    }
    let n = cx.iconst(cx.ir.ty(v), u64::from(n));
    cx.ir.lshr(v, n)
}

/// SHL, SHR, SAR.
fn shift(cx: &mut Lift<'_>, op: Op) {
    let place = cx.place(0);
    let a = cx.load(place);
    let ty = cx.ir.ty(a);
    let count = Count::operand(cx, 1, ty);
    if let Count::Imm(0) = count {
        // A 32-bit register is zero-extended all the same.
        return cx.store(place, a);
    }
    let wide = if ty == Type::I64 { ty } else { Type::I32 };
    let x = match op {
        Op::AShr => cx.ir.sext(wide, a),
        _ => cx.ir.zext(wide, a),
    };
    let n = count.value(cx, wide);
    let result = apply(cx, op, x, n);
    let result = cx.ir.trunc(ty, result);
    cx.store(place, result);

    // All but the last step: its outgoing bit is CF.
    let almost = match count {
        Count::Imm(1) => a,
        _ => {
            let n = count.less_one(cx, wide);
            let almost = apply(cx, op, x, n);
            cx.ir.trunc(ty, almost)
        }
    };
    let changed = count.nonzero(cx, ty);
    let top = ty.bits() - 1;
    let (cf, of) = match op {
        Op::Shl => {
            let differ = cx.ir.xor(almost, result);
            (bit(cx, almost, top), bit(cx, differ, top))
        }
        Op::LShr => (almost, bit(cx, almost, top)),
        _ => (almost, cx.iconst(ty, 0)),
    };
    cx.setflags_if(changed, FlagKind::Shift, &[result, cf, of]);
}

/// OF of a rotate to the right: whether the two top bits of the result differ.
fn top_bits_differ(cx: &mut Lift<'_>, result: Value) -> Value {
    let top = cx.ir.ty(result).bits() - 1;
    let (high, next) = (bit(cx, result, top), bit(cx, result, top - 1));
    cx.ir.xor(high, next)
}

/// ROL, ROR: only CF and OF change.
fn rotate(cx: &mut Lift<'_>, op: Op) {
    let place = cx.place(0);
    let a = cx.load(place);
    let ty = cx.ir.ty(a);
    let count = Count::operand(cx, 1, ty);
    if let Count::Imm(0) = count {
        return cx.store(place, a);
    }
    let n = count.value(cx, ty);
    let result = apply(cx, op, a, n);
    cx.store(place, result);
    let changed = count.nonzero(cx, ty);
    let high = bit(cx, result, ty.bits() - 1);
    let (cf, of) = match op {
        Op::RotL => (result, cx.ir.xor(high, result)),
        _ => (high, top_bits_differ(cx, result)),
    };
    cx.set_cf_of_if(changed, cf, of);
}

/// RCL, RCR: a rotate of one bit more than the operand has, CF being the top one.
fn rotate_carry(cx: &mut Lift<'_>, left: bool) {
    let place = cx.place(0);
    let a = cx.load(place);
    let ty = cx.ir.ty(a);
    let count = Count::operand(cx, 1, ty);
    if let Count::Imm(0) = count {
        return cx.store(place, a);
    }
    let changed = count.nonzero(cx, ty);
    let (result, cf) = match (ty, count) {
        (_, Count::Imm(1)) => rotate_carry_once(cx, a, left),
        (Type::I64, _) => rotate_carry_64(cx, a, count, left),
        _ => rotate_carry_narrow(cx, a, count, left),
    };
    let result = match changed {
        Some(c) => cx.ir.select(c, result, a),
        None => result,
    };
    cx.store(place, result);
    let of = if left {
        let high = bit(cx, result, ty.bits() - 1);
        let cf = cx.ir.trunc(Type::I8, cf);
        let high = cx.ir.trunc(Type::I8, high);
        cx.ir.xor(high, cf)
    } else {
        top_bits_differ(cx, result)
    };
    cx.set_cf_of_if(changed, cf, of);
}

/// A rotate through carry by 1: the result, and CF in bit 0.
fn rotate_carry_once(cx: &mut Lift<'_>, a: Value, left: bool) -> (Value, Value) {
    let ty = cx.ir.ty(a);
    let carry = carry_in(cx, a);
    let one = cx.iconst(ty, 1);
    let top = cx.iconst(ty, u64::from(ty.bits()) - 1);
    if left {
        let shifted = cx.ir.shl(a, one);
        (cx.ir.or(shifted, carry), cx.ir.lshr(a, top))
    } else {
        let shifted = cx.ir.lshr(a, one);
        let carry = cx.ir.shl(carry, top);
        (cx.ir.or(shifted, carry), a)
    }
}

/// A rotate through carry of 8 to 32 bits, in an integer that has room for the carry.
fn rotate_carry_narrow(cx: &mut Lift<'_>, a: Value, count: Count, left: bool) -> (Value, Value) {
    let ty = cx.ir.ty(a);
    let wide = if ty == Type::I32 {
        Type::I64
    } else {
        Type::I32
    };
    let bits = u64::from(ty.bits()) + 1;
    let n = match count {
        Count::Imm(n) => cx.iconst(wide, n % bits),
        Count::Cl(v) => {
            let v = cx.ir.zext(wide, v);
            let mask = cx.iconst(wide, 31);
            let v = cx.ir.and(v, mask);
            let bits = cx.iconst(wide, bits);
            match ty {
                Type::I32 => v,
                _ => cx.ir.urem(v, bits),
            }
        }
    };
    let a = cx.ir.zext(wide, a);
    let carry = carry_in(cx, a);
    let width = cx.iconst(wide, bits - 1);
    let carry = cx.ir.shl(carry, width);
    let x = cx.ir.or(a, carry);
    let whole = cx.iconst(wide, bits);
    let rest = cx.ir.sub(whole, n);
    let (first, second) = if left {
        (cx.ir.shl(x, n), cx.ir.lshr(x, rest))
    } else {
        (cx.ir.lshr(x, n), cx.ir.shl(x, rest))
    };
    let rotated = cx.ir.or(first, second);
    let cf = cx.ir.lshr(rotated, width);
    (cx.ir.trunc(ty, rotated), cf)
}

/// A rotate through carry of 64 bits, by 1 to 63.
fn rotate_carry_64(cx: &mut Lift<'_>, a: Value, count: Count, left: bool) -> (Value, Value) {
    let n = count.value(cx, Type::I64);
    let less = count.less_one(cx, Type::I64);
    let carry = carry_in(cx, a);
    // 64 - n; IR shifts take it modulo 64, so the bits that wrap are shifted by 1 beforehand.
    let rest = cx.ir.neg(n);
    let one = cx.iconst(Type::I64, 1);
    if left {
        let kept = cx.ir.shl(a, n);
        let carry = cx.ir.shl(carry, less);
        let wrapped = cx.ir.lshr(a, one);
        let wrapped = cx.ir.lshr(wrapped, rest);
        let cf = cx.ir.lshr(a, rest);
        let x = cx.ir.or(kept, carry);
        (cx.ir.or(x, wrapped), cf)
    } else {
        let kept = cx.ir.lshr(a, n);
        let carry = cx.ir.shl(carry, rest);
        let wrapped = cx.ir.shl(a, one);
        let wrapped = cx.ir.shl(wrapped, rest);
        let cf = cx.ir.lshr(a, less);
        let x = cx.ir.or(kept, carry);
        (cx.ir.or(x, wrapped), cf)
    }
}

/// SHLD, SHRD: bits of the second operand come in.
fn shift_double(cx: &mut Lift<'_>, left: bool) {
    let b = cx.read(1);
    let place = cx.place(0);
    let a = cx.load(place);
    let ty = cx.ir.ty(a);
    let count = Count::operand(cx, 2, ty);
    if let Count::Imm(0) = count {
        return cx.store(place, a);
    }
    let result = if ty == Type::I16 {
        shift_double_16(cx, a, b, count, left)
    } else {
        let n = count.value(cx, ty);
        let one = cx.iconst(ty, 1);
        // Width minus count, less the 1 that is shifted beforehand: right for 0 too.
        let rest = cx.ir.not(n);
        let (kept, incoming) = if left {
            let b = cx.ir.lshr(b, one);
            (cx.ir.shl(a, n), cx.ir.lshr(b, rest))
        } else {
            let b = cx.ir.shl(b, one);
            (cx.ir.lshr(a, n), cx.ir.shl(b, rest))
        };
        cx.ir.or(kept, incoming)
    };
    cx.store(place, result);
    let changed = count.nonzero(cx, ty);
    let (cf, of) = double_flags(cx, a, result, count, left);
    cx.setflags_if(changed, FlagKind::Shift, &[result, cf, of]);
}

/// The 16-bit forms. For counts above 16 the manual leaves the result undefined; on the hosts the
/// second operand comes in again.
fn shift_double_16(cx: &mut Lift<'_>, a: Value, b: Value, count: Count, left: bool) -> Value {
    let (a, b) = (cx.ir.zext(Type::I64, a), cx.ir.zext(Type::I64, b));
    let (high, low) = if left { (a, b) } else { (b, a) };
    let (sixteen, thirty_two) = (cx.iconst(Type::I64, 16), cx.iconst(Type::I64, 32));
    let high = cx.ir.shl(high, thirty_two);
    let middle = cx.ir.shl(b, sixteen);
    let x = cx.ir.or(high, middle);
    let x = cx.ir.or(x, low);
    let n = count.value(cx, Type::I64);
    let mask = cx.iconst(Type::I64, 31);
    let n = cx.ir.and(n, mask);
    let x = if left {
        let x = cx.ir.shl(x, n);
        cx.ir.lshr(x, thirty_two)
    } else {
        cx.ir.lshr(x, n)
    };
    cx.ir.trunc(Type::I16, x)
}

/// CF and OF of SHLD and SHRD, in bit 0 of values of the operand's type.
fn double_flags(
    cx: &mut Lift<'_>,
    a: Value,
    result: Value,
    count: Count,
    left: bool,
) -> (Value, Value) {
    let ty = cx.ir.ty(a);
    let top = ty.bits() - 1;
    let wide = if ty == Type::I64 { ty } else { Type::I32 };
    let x = cx.ir.zext(wide, a);
    let n = count.less_one(cx, wide);
    let op = if left { Op::Shl } else { Op::LShr };
    let almost = apply(cx, op, x, n);
    let almost = cx.ir.trunc(ty, almost);
    if !left {
        return (almost, top_bits_differ(cx, result));
    }
    let one = cx.iconst(ty, 1);
    let last = cx.ir.shl(almost, one);
    let differ = cx.ir.xor(almost, last);
    (bit(cx, almost, top), bit(cx, differ, top))
}
