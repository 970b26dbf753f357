//! MUL, IMUL, DIV, IDIV.
//!
//! Everything up to 32 bits is done in a wider integer. 64-bit division has a fast path for
//! dividends that fit 64 bits, and helpers for the rest.

use super::data::{read_pair, sign_of};
use super::{DE, Lift};
use iced_x86::{Mnemonic, Register};
use metaphrase_ir::flags::{AF, CF, OF};
use metaphrase_ir::{Block, Helper, IntCc, Reg, Type, Value};

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    match mnemonic {
        Mnemonic::Mul => mul(cx, false),
        Mnemonic::Imul if cx.insn.op_count() == 1 => mul(cx, true),
        Mnemonic::Imul => imul(cx),
        Mnemonic::Div => div(cx, false),
        Mnemonic::Idiv => div(cx, true),
        _ => return false,
    }
    true
}

/// The type twice as wide; for 8 to 32 bits.
fn wider(ty: Type) -> Type {
    Type::int(ty.bytes() * 2)
}

/// `v` extended to `ty`.
fn extend(cx: &mut Lift<'_>, ty: Type, v: Value, signed: bool) -> Value {
    if signed {
        cx.ir.sext(ty, v)
    } else {
        cx.ir.zext(ty, v)
    }
}

/// The low and high halves of a * b.
fn product(cx: &mut Lift<'_>, a: Value, b: Value, signed: bool) -> (Value, Value) {
    let ty = cx.ir.ty(a);
    if ty == Type::I64 {
        let low = cx.ir.mul(a, b);
        let high = if signed {
            cx.ir.smulhi(a, b)
        } else {
            cx.ir.umulhi(a, b)
        };
        return (low, high);
    }
    let wide = wider(ty);
    let (a, b) = (extend(cx, wide, a, signed), extend(cx, wide, b, signed));
    let p = cx.ir.mul(a, b);
    let low = cx.ir.trunc(ty, p);
    let half = cx.iconst(wide, u64::from(ty.bits()));
    let high = cx.ir.lshr(p, half);
    (low, cx.ir.trunc(ty, high))
}

/// CF and OF: whether the high half says more than the low one. The others are undefined; hosts
/// keep them.
fn product_flags(cx: &mut Lift<'_>, low: Value, high: Value, signed: bool) {
    let ty = cx.ir.ty(low);
    let expected = if signed {
        sign_of(cx, low)
    } else {
        cx.iconst(ty, 0)
    };
    let c = cx.ir.icmp(IntCc::Ne, high, expected);
    cx.set_cf_of(c, c);
}

/// MUL and one-operand IMUL: rDX:rAX (AX) := rAX (AL) * src.
fn mul(cx: &mut Lift<'_>, signed: bool) {
    let b = cx.read(0);
    let ty = cx.ir.ty(b);
    let (acc, high_reg) = match ty {
        Type::I8 => (Register::AL, Register::AH),
        Type::I16 => (Register::AX, Register::DX),
        Type::I32 => (Register::EAX, Register::EDX),
        _ => (Register::RAX, Register::RDX),
    };
    let a = cx.read_gpr(acc);
    let (low, high) = product(cx, a, b, signed);
    cx.write_gpr(acc, low);
    cx.write_gpr(high_reg, high);
    product_flags(cx, low, high, signed);
}

/// IMUL with two or three operands: dst := the low half.
fn imul(cx: &mut Lift<'_>) {
    let n = cx.insn.op_count();
    let (a, b) = (cx.read(n - 2), cx.read(n - 1));
    let low = cx.ir.mul(a, b);
    cx.write(0, low);
    // The high half is only for the flags, and mostly dead.
    let (_, high) = product(cx, a, b, true);
    product_flags(cx, low, high, true);
}

/// DIV and IDIV: quotient to rAX (AL), remainder to rDX (AH); #DE if the divisor is 0 or the
/// quotient does not fit. The flags are undefined; hosts keep CF and OF, set AF and clear the rest.
fn div(cx: &mut Lift<'_>, signed: bool) {
    let d = cx.read(0);
    match cx.ir.ty(d) {
        Type::I8 => {
            let rax = cx.ir.getreg(Reg::Rax);
            let dividend = cx.ir.ext(Type::I16, rax, 0);
            let (q, r) = divide_in(cx, Type::I32, dividend, d, signed);
            cx.write_gpr(Register::AL, q);
            cx.write_gpr(Register::AH, r);
        }
        Type::I16 => {
            let dividend = joined(cx, Type::I16);
            let (q, r) = divide_in(cx, Type::I64, dividend, d, signed);
            cx.write_gpr(Register::AX, q);
            cx.write_gpr(Register::DX, r);
        }
        Type::I32 => {
            let dividend = joined(cx, Type::I32);
            let (q, r) = divide_in(cx, Type::I64, dividend, d, signed);
            cx.write_gpr(Register::EAX, q);
            cx.write_gpr(Register::EDX, r);
        }
        _ => {
            let (high, low) = read_pair(cx, Reg::Rdx, Reg::Rax, Type::I64);
            let (q, r) = if signed {
                divide_signed_wide(cx, high, low, d)
            } else {
                divide_unsigned_wide(cx, high, low, d)
            };
            cx.write_gpr(Register::RAX, q);
            cx.write_gpr(Register::RDX, r);
        }
    }
    let set = cx.iconst(Type::I8, 1);
    cx.set_some_flags(CF | OF, &[(AF, set)]);
}

/// rDX:rAX as one integer of twice `ty`.
fn joined(cx: &mut Lift<'_>, ty: Type) -> Value {
    let wide = wider(ty);
    let (high, low) = read_pair(cx, Reg::Rdx, Reg::Rax, ty);
    let (high, low) = (cx.ir.zext(wide, high), cx.ir.zext(wide, low));
    let half = cx.iconst(wide, u64::from(ty.bits()));
    let high = cx.ir.shl(high, half);
    cx.ir.or(high, low)
}

/// Divides in `wide`, which is at least as wide as the dividend; quotient and remainder in the
/// divisor's type.
fn divide_in(
    cx: &mut Lift<'_>,
    wide: Type,
    dividend: Value,
    d: Value,
    signed: bool,
) -> (Value, Value) {
    let ty = cx.ir.ty(d);
    let a = extend(cx, wide, dividend, signed);
    let b = extend(cx, wide, d, signed);
    let zero = cx.ir.icmp_imm(IntCc::Eq, d, 0);
    if signed && cx.ir.ty(dividend) == wide {
        // MIN / -1 does not fit `wide` either, and IR division may not see it.
        let min = cx.ir.icmp_imm(IntCc::Eq, a, 1 << (wide.bits() - 1));
        let minus_one = cx.ir.icmp_imm(IntCc::Eq, d, u64::MAX);
        let overflow = cx.ir.and(min, minus_one);
        let bad = cx.ir.or(zero, overflow);
        cx.ir.trapif(bad, DE);
    } else {
        cx.ir.trapif(zero, DE);
    }
    let q = if signed {
        cx.ir.sdiv(a, b)
    } else {
        cx.ir.udiv(a, b)
    };
    let quotient = cx.ir.trunc(ty, q);
    let back = extend(cx, wide, quotient, signed);
    let lost = cx.ir.icmp(IntCc::Ne, back, q);
    cx.ir.trapif(lost, DE);
    let low = cx.ir.trunc(ty, dividend);
    (quotient, remainder(cx, low, quotient, d))
}

/// The remainder from the low half of the dividend, modulo the width: cheaper than a second
/// division.
fn remainder(cx: &mut Lift<'_>, low: Value, q: Value, d: Value) -> Value {
    let product = cx.ir.mul(q, d);
    cx.ir.sub(low, product)
}

/// A block with a parameter for the quotient, where both paths of a division meet.
fn meeting(cx: &mut Lift<'_>) -> (Block, Value) {
    let done = cx.ir.new_block();
    let q = cx.ir.param(done, Type::I64);
    (done, q)
}

/// 128 by 64-bit unsigned division.
fn divide_unsigned_wide(cx: &mut Lift<'_>, high: Value, low: Value, d: Value) -> (Value, Value) {
    // The quotient fits exactly if high < d; that excludes 0 as well.
    let bad = cx.ir.icmp(IntCc::Uge, high, d);
    cx.ir.trapif(bad, DE);
    let (fast, slow) = (cx.ir.new_block(), cx.ir.new_block());
    let (done, quotient) = meeting(cx);
    let narrow = cx.ir.icmp_imm(IntCc::Eq, high, 0);
    cx.ir.brif(narrow, (fast, &[]), (slow, &[]));
    cx.ir.switch_to(fast);
    let q = cx.ir.udiv(low, d);
    cx.ir.br(done, &[q]);
    cx.ir.switch_to(slow);
    let q = cx.ir.call(Helper::UDivW, 0, &[high, low, d]);
    cx.ir.br(done, &[q]);
    cx.ir.switch_to(done);
    (quotient, remainder(cx, low, quotient, d))
}

/// 128 by 64-bit signed division.
fn divide_signed_wide(cx: &mut Lift<'_>, high: Value, low: Value, d: Value) -> (Value, Value) {
    let (fast, slow) = (cx.ir.new_block(), cx.ir.new_block());
    let (done, quotient) = meeting(cx);
    // Fast: the dividend fits 64 bits, and the divisor is neither 0 nor -1.
    let sign = sign_of(cx, low);
    let narrow = cx.ir.icmp(IntCc::Eq, high, sign);
    let one = cx.iconst(Type::I64, 1);
    let shifted = cx.ir.add(d, one);
    let plain = cx.ir.icmp(IntCc::Ugt, shifted, one);
    let both = cx.ir.and(narrow, plain);
    cx.ir.brif(both, (fast, &[]), (slow, &[]));
    cx.ir.switch_to(fast);
    let q = cx.ir.sdiv(low, d);
    cx.ir.br(done, &[q]);
    cx.ir.switch_to(slow);
    let fits = cx.ir.call(Helper::SDivFits, 0, &[high, low, d]);
    let bad = cx.ir.icmp_imm(IntCc::Eq, fits, 0);
    cx.ir.trapif(bad, DE);
    let q = cx.ir.call(Helper::SDivW, 0, &[high, low, d]);
    cx.ir.br(done, &[q]);
    cx.ir.switch_to(done);
    (quotient, remainder(cx, low, quotient, d))
}
