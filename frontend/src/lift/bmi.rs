//! BMI1, BMI2 and ADX: ANDN, BEXTR, BLSI, BLSMSK, BLSR, BZHI, MULX, PDEP, PEXT, RORX, SARX, SHLX,
//! SHRX, ADCX, ADOX.

use super::Lift;
use super::bits::even_parity;
use iced_x86::{Code, Mnemonic, Register};
use metaphrase_ir::flags::{AF, ARITH, CF, OF, PF, ZF};
use metaphrase_ir::{Cond, FlagKind, Helper, IntCc, Op, Type, Value};

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    match mnemonic {
        Mnemonic::Andn => andn(cx),
        Mnemonic::Bextr => return bextr(cx),
        Mnemonic::Blsi | Mnemonic::Blsmsk | Mnemonic::Blsr => lowest_bit(cx, mnemonic),
        Mnemonic::Bzhi => bzhi(cx),
        Mnemonic::Mulx => mulx(cx),
        Mnemonic::Pdep => scatter(cx, Helper::Pdep),
        Mnemonic::Pext => scatter(cx, Helper::Pext),
        Mnemonic::Rorx => shift(cx, Op::RotR),
        Mnemonic::Sarx => shift(cx, Op::AShr),
        Mnemonic::Shlx => shift(cx, Op::Shl),
        Mnemonic::Shrx => shift(cx, Op::LShr),
        Mnemonic::Adcx => add_with(cx, Cond::B, CF),
        Mnemonic::Adox => add_with(cx, Cond::O, OF),
        _ => return false,
    }
    true
}

/// ANDN: dst := not src1 and src2.
fn andn(cx: &mut Lift<'_>) {
    let (a, b) = (cx.read(1), cx.read(2));
    let inverted = cx.ir.not(a);
    let result = cx.ir.and(inverted, b);
    cx.write(0, result);
    cx.ir.setflags(FlagKind::Logic, &[result]);
}

/// BEXTR: dst := the bits of src1 from src2\[7:0\] on, src2\[15:8\] of them. Hosts set AF, clear SF
/// and set PF from the result.
fn bextr(cx: &mut Lift<'_>) -> bool {
    if !matches!(
        cx.insn.code(),
        Code::VEX_Bextr_r32_rm32_r32 | Code::VEX_Bextr_r64_rm64_r64
    ) {
        // The XOP form with an immediate.
        return false;
    }
    let src = cx.read(1);
    let ty = cx.ir.ty(src);
    let control = cx.read(2);
    let control = cx.ir.zext(Type::I64, control);
    let x = cx.ir.zext(Type::I64, src);
    let start = cx.ir.ext(Type::I8, control, 0);
    let len = cx.ir.ext(Type::I8, control, 8);
    let (zero, one) = (cx.iconst(Type::I64, 0), cx.iconst(Type::I64, 1));
    let wide_start = cx.ir.zext(Type::I64, start);
    let shifted = cx.ir.lshr(x, wide_start);
    let inside = cx.ir.icmp_imm(IntCc::Ult, start, 64);
    let shifted = cx.ir.select(inside, shifted, zero);
    let wide_len = cx.ir.zext(Type::I64, len);
    let limit = cx.ir.shl(one, wide_len);
    let mask = cx.ir.sub(limit, one);
    let cut = cx.ir.and(shifted, mask);
    let short = cx.ir.icmp_imm(IntCc::Ult, len, 64);
    let result = cx.ir.select(short, cut, shifted);
    let result = cx.ir.trunc(ty, result);
    cx.write(0, result);
    let none = cx.ir.icmp_imm(IntCc::Eq, result, 0);
    let parity = even_parity(cx, result);
    let set = cx.iconst(Type::I8, 1);
    cx.set_some_flags(0, &[(ZF, none), (PF, parity), (AF, set)]);
    true
}

/// BLSI, BLSMSK, BLSR: isolate, mask up to, and reset the lowest one bit.
fn lowest_bit(cx: &mut Lift<'_>, mnemonic: Mnemonic) {
    let src = cx.read(1);
    let ty = cx.ir.ty(src);
    let one = cx.iconst(ty, 1);
    let (result, cc) = if mnemonic == Mnemonic::Blsi {
        let negative = cx.ir.neg(src);
        (cx.ir.and(src, negative), IntCc::Ne)
    } else {
        let less = cx.ir.sub(src, one);
        let result = match mnemonic {
            Mnemonic::Blsr => cx.ir.and(src, less),
            _ => cx.ir.xor(src, less),
        };
        (result, IntCc::Eq)
    };
    cx.write(0, result);
    let cf = cx.ir.icmp_imm(cc, src, 0);
    result_flags(cx, result, cf);
}

/// SF, ZF and PF of the result, CF as given (i8), OF and AF clear.
fn result_flags(cx: &mut Lift<'_>, result: Value, cf: Value) {
    let ty = cx.ir.ty(result);
    let cf = cx.ir.zext(ty, cf);
    let clear = cx.iconst(ty, 0);
    cx.ir.setflags(FlagKind::Result, &[result, cf, clear]);
}

/// BZHI: dst := src1 with the bits from src2\[7:0\] on cleared.
fn bzhi(cx: &mut Lift<'_>) {
    let src = cx.read(1);
    let ty = cx.ir.ty(src);
    let index = cx.read(2);
    let mask = cx.iconst(ty, 0xff);
    let n = cx.ir.and(index, mask);
    let one = cx.iconst(ty, 1);
    let limit = cx.ir.shl(one, n);
    let below = cx.ir.sub(limit, one);
    let cut = cx.ir.and(src, below);
    let beyond = cx.ir.icmp_imm(IntCc::Ugt, n, u64::from(ty.bits()) - 1);
    let result = cx.ir.select(beyond, src, cut);
    cx.write(0, result);
    result_flags(cx, result, beyond);
}

/// MULX: dst1:dst2 := rDX * src, no flags. The high half wins if both are one register.
fn mulx(cx: &mut Lift<'_>) {
    let b = cx.read(2);
    let ty = cx.ir.ty(b);
    let (low, high) = if ty == Type::I64 {
        let a = cx.read_gpr(Register::RDX);
        (cx.ir.mul(a, b), cx.ir.umulhi(a, b))
    } else {
        let a = cx.read_gpr(Register::EDX);
        (cx.ir.mul(a, b), cx.ir.umulhi(a, b))
    };
    cx.write(1, low);
    cx.write(0, high);
}

/// PDEP, PEXT: dst := src1 spread over, or gathered from, the ones of mask src2.
fn scatter(cx: &mut Lift<'_>, helper: Helper) {
    let (a, mask) = (cx.read(1), cx.read(2));
    let ty = cx.ir.ty(a);
    let (a, mask) = (cx.ir.zext(Type::I64, a), cx.ir.zext(Type::I64, mask));
    let result = cx.ir.call(helper, 0, &[a, mask]);
    let result = cx.ir.trunc(ty, result);
    cx.write(0, result);
}

/// RORX, SARX, SHLX, SHRX: dst := src1 shifted by src2, no flags.
fn shift(cx: &mut Lift<'_>, op: Op) {
    let a = cx.read(1);
    let ty = cx.ir.ty(a);
    let n = if op == Op::RotR {
        cx.iconst(ty, cx.insn.immediate(2) & (u64::from(ty.bits()) - 1))
    } else {
        cx.read(2)
    };
    let result = cx.ir.ins(op, ty, &[a, n], 0, 0);
    cx.write(0, result);
}

/// ADCX, ADOX: dst := dst + src + the flag; only that flag changes.
fn add_with(cx: &mut Lift<'_>, cond: Cond, flag: u64) {
    let b = cx.read(1);
    let a = cx.read(0);
    let ty = cx.ir.ty(a);
    let carry = cx.ir.getcond(cond);
    let carry = cx.ir.zext(ty, carry);
    let sum = cx.ir.add(a, b);
    let result = cx.ir.add(sum, carry);
    cx.write(0, result);
    let first = cx.ir.icmp(IntCc::Ult, sum, a);
    let second = cx.ir.icmp(IntCc::Ult, result, sum);
    let out = cx.ir.or(first, second);
    cx.set_some_flags(ARITH & !flag, &[(flag, out)]);
}
