//! Decimal adjustment: AAA, AAS, DAA, DAS, AAM, AAD. 64-bit code does not have them.
//!
//! The flags that the manual leaves undefined are those of the addition or subtraction that the CPU
//! does: in AAA and AAS those of all of AX before AL is masked; in DAA and DAS OF of the whole
//! adjustment; in AAD all six of the sum; in AAM those of a logical operation.

use super::{DE, Lift};
use iced_x86::{Mnemonic, Register};
use metaphrase_ir::{FlagKind, IntCc, Type, Value, flags};

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    match mnemonic {
        Mnemonic::Aaa => ascii_adjust(cx, false),
        Mnemonic::Aas => ascii_adjust(cx, true),
        Mnemonic::Daa => decimal_adjust(cx, false),
        Mnemonic::Das => decimal_adjust(cx, true),
        Mnemonic::Aam => aam(cx),
        Mnemonic::Aad => aad(cx),
        _ => return false,
    }
    true
}

/// 1 (i8) if `flag` is set in an image of the flags.
fn flag_set(cx: &mut Lift<'_>, image: Value, flag: u64) -> Value {
    let bit = cx.ir.ext(Type::I8, image, 0);
    let mask = cx.iconst(Type::I8, flag);
    let bit = cx.ir.and(bit, mask);
    cx.ir.icmp_imm(IntCc::Ne, bit, 0)
}

/// A condition (i8, 0 or 1) as an i64 with `flag` set if it holds.
pub fn flag_bit(cx: &mut Lift<'_>, c: Value, flag: u64) -> Value {
    let wide = cx.ir.zext(Type::I64, c);
    let shift = cx.iconst(Type::I64, u64::from(flag.trailing_zeros()));
    cx.ir.shl(wide, shift)
}

/// SF, ZF and PF of a result, in place; PF is of its low byte.
fn sign_zero_parity(cx: &mut Lift<'_>, v: Value) -> Value {
    let ty = cx.ir.ty(v);
    let zero = cx.ir.icmp_imm(IntCc::Eq, v, 0);
    let zero = flag_bit(cx, zero, flags::ZF);
    let low = cx.ir.trunc(Type::I8, v);
    let ones = cx.ir.popcnt(low);
    let one = cx.iconst(Type::I8, 1);
    let odd = cx.ir.and(ones, one);
    let even = cx.ir.xor(odd, one);
    let parity = flag_bit(cx, even, flags::PF);
    let sign = cx.ir.icmp_imm(IntCc::Ugt, v, ty.mask() >> 1);
    let sign = flag_bit(cx, sign, flags::SF);
    let image = cx.ir.or(zero, parity);
    cx.ir.or(image, sign)
}

/// AAA, AAS: AL := AL ± 6 if the low digit is above 9 or AF is set, with a carry into AH.
fn ascii_adjust(cx: &mut Lift<'_>, subtract: bool) {
    let old = cx.ir.getflags();
    let ax = cx.read_gpr(Register::AX);
    let al = cx.read_gpr(Register::AL);
    let low = cx.iconst(Type::I8, 15);
    let digit = cx.ir.and(al, low);
    let above = cx.ir.icmp_imm(IntCc::Ugt, digit, 9);
    let af = flag_set(cx, old, flags::AF);
    let adjust = cx.ir.or(above, af);
    // AX ± 0x106: the carry of AL goes into AH as well (SDM volume 2, AAA).
    let by = cx.iconst(Type::I16, 0x106);
    let adjusted = if subtract {
        cx.ir.sub(ax, by)
    } else {
        cx.ir.add(ax, by)
    };
    let old_ax = ax;
    let ax = cx.ir.select(adjust, adjusted, ax);
    // Only one sign can overflow, the operand being positive.
    let (high, low) = if subtract { (old_ax, ax) } else { (ax, old_ax) };
    let low = cx.ir.not(low);
    let overflow = cx.ir.and(high, low);
    let overflow = cx.ir.icmp_imm(IntCc::Ugt, overflow, 0x7fff);
    let overflow = flag_bit(cx, overflow, flags::OF);
    let mask = cx.iconst(Type::I16, 0xff0f);
    let result = cx.ir.and(ax, mask);
    let carry = flag_bit(cx, adjust, flags::CF);
    let aux = flag_bit(cx, adjust, flags::AF);
    let szp = sign_zero_parity(cx, ax);
    let image = cx.ir.or(carry, aux);
    let image = cx.ir.or(image, overflow);
    let image = cx.ir.or(image, szp);
    cx.write_gpr(Register::AX, result);
    cx.ir.setflags(FlagKind::Raw, &[image]);
}

/// DAA, DAS: AL := AL ± 6 for the low digit, then ± 0x60 for the high one.
fn decimal_adjust(cx: &mut Lift<'_>, subtract: bool) {
    let old = cx.ir.getflags();
    let al = cx.read_gpr(Register::AL);
    let fifteen = cx.iconst(Type::I8, 15);
    let digit = cx.ir.and(al, fifteen);
    let above = cx.ir.icmp_imm(IntCc::Ugt, digit, 9);
    let af = flag_set(cx, old, flags::AF);
    let low = cx.ir.or(above, af);
    let above = cx.ir.icmp_imm(IntCc::Ugt, al, 0x99);
    let cf = flag_set(cx, old, flags::CF);
    let high = cx.ir.or(above, cf);
    let (zero, six, sixty) = (
        cx.iconst(Type::I8, 0),
        cx.iconst(Type::I8, 6),
        cx.iconst(Type::I8, 0x60),
    );
    let by_low = cx.ir.select(low, six, zero);
    let by_high = cx.ir.select(high, sixty, zero);
    let by = cx.ir.or(by_low, by_high);
    let result = if subtract {
        cx.ir.sub(al, by)
    } else {
        cx.ir.add(al, by)
    };
    let carry = if subtract {
        // DAS also sets CF when subtracting 6 borrows (SDM volume 2, DAS).
        let borrows = cx.ir.icmp_imm(IntCc::Ult, al, 6);
        let borrows = cx.ir.and(borrows, low);
        cx.ir.or(high, borrows)
    } else {
        high
    };
    let carry = flag_bit(cx, carry, flags::CF);
    let aux = flag_bit(cx, low, flags::AF);
    let szp = sign_zero_parity(cx, result);
    let changed = cx.ir.xor(al, result);
    let other = if subtract {
        cx.ir.xor(al, by)
    } else {
        cx.ir.xor(by, result)
    };
    let overflow = cx.ir.and(changed, other);
    let overflow = cx.ir.icmp_imm(IntCc::Ugt, overflow, 0x7f);
    let overflow = flag_bit(cx, overflow, flags::OF);
    let image = cx.ir.or(carry, aux);
    let image = cx.ir.or(image, szp);
    let image = cx.ir.or(image, overflow);
    cx.write_gpr(Register::AL, result);
    cx.ir.setflags(FlagKind::Raw, &[image]);
}

/// AAM: AH := AL / imm8, AL := AL mod imm8; #DE for 0.
fn aam(cx: &mut Lift<'_>) {
    let base = cx.insn.immediate(0) & 0xff;
    if base == 0 {
        return cx.ir.exit_raise(DE);
    }
    let al = cx.read_gpr(Register::AL);
    let base = cx.iconst(Type::I8, base);
    let quotient = cx.ir.udiv(al, base);
    let remainder = cx.ir.urem(al, base);
    cx.write_gpr(Register::AH, quotient);
    cx.write_gpr(Register::AL, remainder);
    cx.ir.setflags(FlagKind::Logic, &[remainder]);
}

/// AAD: AL := AH * imm8 + AL, AH := 0.
fn aad(cx: &mut Lift<'_>) {
    let (ah, al) = (cx.read_gpr(Register::AH), cx.read_gpr(Register::AL));
    let base = cx.iconst(Type::I8, cx.insn.immediate(0));
    let tens = cx.ir.mul(ah, base);
    let result = cx.ir.add(al, tens);
    let wide = cx.ir.zext(Type::I16, result);
    cx.write_gpr(Register::AX, wide);
    cx.ir.setflags(FlagKind::Add, &[al, tens]);
}
