//! Floating-point comparisons: lane masks and flags.

use super::Lift;
use iced_x86::Mnemonic;
use metaphrase_ir::Shape::{self, F32x4, F64x2, I32x4, I64x2};
use metaphrase_ir::{FlagKind, FloatCc, Type, flags};

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    match mnemonic {
        Cmpps => packed(cx, F32x4),
        Cmppd => packed(cx, F64x2),
        Cmpss => scalar(cx, F32x4, I32x4),
        Cmpsd => scalar(cx, F64x2, I64x2),
        Comiss | Ucomiss => to_flags(cx, F32x4, mnemonic == Comiss),
        Comisd | Ucomisd => to_flags(cx, F64x2, mnemonic == Comisd),
        _ => return false,
    }
    true
}

/// The predicate in the immediate; its upper five bits are ignored without VEX.
fn predicate(cx: &Lift<'_>) -> FloatCc {
    FloatCc::ALL[cx.imm8(2) as usize & 7]
}

/// CMPPS, CMPPD.
fn packed(cx: &mut Lift<'_>, shape: Shape) {
    let cc = predicate(cx);
    let b = cx.xmm_m128(1);
    let a = cx.xmm(0);
    let r = cx.ir.vfcmp(shape, cc, a, b);
    cx.set_xmm(0, r);
}

/// CMPSS, CMPSD: the low lane becomes all ones or zeros; `ints` is the shape with integer lanes.
/// They raise the same exceptions as the packed ones; zeros in the other lanes raise none.
fn scalar(cx: &mut Lift<'_>, shape: Shape, ints: Shape) {
    let cc = predicate(cx);
    let b = cx.scalar(1, shape);
    let a = cx.scalar(0, shape);
    let (a, b) = (cx.ir.vfromint(a), cx.ir.vfromint(b));
    let holds = cx.ir.vfcmp(shape, cc, a, b);
    let mask = cx.ir.vget(ints, holds, 0);
    cx.set_scalar(0, ints, mask);
}

/// COMISS and the like: CF for less, ZF for equal, both and PF for unordered; OF, SF, AF clear.
/// COMIS is `signaling`: a quiet NaN is invalid too.
fn to_flags(cx: &mut Lift<'_>, shape: Shape, signaling: bool) {
    let b = cx.scalar(1, shape);
    let a = cx.scalar(0, shape);
    cx.ir.fsignal(signaling, a, b);
    let unordered = cx.ir.fcmp(FloatCc::Uno, a, b);
    let equal = cx.ir.fcmp(FloatCc::Eq, a, b);
    let zero = cx.ir.or(equal, unordered);
    // Not a >= b.
    let carry = cx.ir.fcmp(FloatCc::Nle, b, a);
    let mut image = cx.ir.zext(Type::I64, carry);
    for (bit, flag) in [(unordered, flags::PF), (zero, flags::ZF)] {
        let wide = cx.ir.zext(Type::I64, bit);
        let place = cx.iconst(Type::I64, u64::from(flag.trailing_zeros()));
        let placed = cx.ir.shl(wide, place);
        image = cx.ir.or(image, placed);
    }
    cx.ir.setflags(FlagKind::Raw, &[image]);
}
