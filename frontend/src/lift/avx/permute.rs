//! Permutations across lanes and by a register, blends by a register, shifts by lane.

use super::{Lift, each_half};
use crate::lift::sse::shuffle::{Bytes, lanes};
use iced_x86::{Mnemonic, OpKind};
use metaphrase_ir::{Helper, IntCc, Shape, VecOp};

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    let by_immediate = cx.insn.op_count() == 3 && cx.insn.op_kind(2) == OpKind::Immediate8;
    match mnemonic {
        Vpermilps if by_immediate => super::as_legacy(cx, mnemonic, Pshufd),
        Vpermilpd if by_immediate => each_half(cx, mnemonic, |cx| {
            let imm = cx.imm8(2);
            let mask = lanes(8, |n| imm >> n & 1);
            let v = cx.xmm_m128(1);
            let r = cx.ir.vshuffle(v, v, u128::from_le_bytes(mask));
            cx.set_xmm(0, r);
            true
        }),
        Vpermilps => by_call(cx, mnemonic, VecOp::Vpermilps),
        Vpermilpd => by_call(cx, mnemonic, VecOp::Vpermilpd),
        Vpsllvd => by_call(cx, mnemonic, VecOp::Vpsllvd),
        Vpsllvq => by_call(cx, mnemonic, VecOp::Vpsllvq),
        Vpsrlvd => by_call(cx, mnemonic, VecOp::Vpsrlvd),
        Vpsrlvq => by_call(cx, mnemonic, VecOp::Vpsrlvq),
        Vpsravd => by_call(cx, mnemonic, VecOp::Vpsravd),
        Vpermq | Vpermpd => quads(cx),
        Vpermd | Vpermps => dwords(cx),
        Vpblendvb => blend(cx, Shape::I8x16),
        Vblendvps => blend(cx, Shape::I32x4),
        Vblendvpd => blend(cx, Shape::I64x2),
        _ => false,
    }
}

/// Half by half, by a call.
fn by_call(cx: &mut Lift<'_>, mnemonic: Mnemonic, op: VecOp) -> bool {
    each_half(cx, mnemonic, |cx| {
        let b = cx.xmm_m128(1);
        let a = cx.xmm(0);
        let r = cx.ir.call(Helper::VecOp, op.pack(0, false), &[a, b]);
        cx.set_xmm(0, r);
        true
    })
}

/// VPERMQ, VPERMPD: any quadword in each place.
fn quads(cx: &mut Lift<'_>) -> bool {
    let imm = cx.imm8(2);
    let [low, high] = cx.ymm(1);
    let r = [0, 2].map(|first| {
        let mask: Bytes = lanes(8, |n| imm >> (2 * (first + n)) & 3);
        cx.ir.vshuffle(low, high, u128::from_le_bytes(mask))
    });
    cx.set_ymm(0, r);
    true
}

/// VPERMD, VPERMPS: the doublewords of the last operand that those of the second name.
fn dwords(cx: &mut Lift<'_>) -> bool {
    let [low, high] = cx.ymm(2);
    let r = cx
        .ymm(1)
        .map(|which| cx.ir.call(Helper::PermuteDwords, 0, &[low, high, which]));
    cx.set_ymm(0, r);
    true
}

/// VPBLENDVB, VBLENDVPS, VBLENDVPD: lanes of the third operand where those of the fourth are
/// negative.
fn blend(cx: &mut Lift<'_>, shape: Shape) -> bool {
    let (b, a, chooser) = (cx.ymm(2), cx.ymm(1), cx.ymm(3));
    let zero = cx.ir.vconst(0);
    let r = [0, 1].map(|n| {
        let mask = cx.ir.vicmp(shape, IntCc::Slt, chooser[n], zero);
        cx.ir.vselect(mask, b[n], a[n])
    });
    cx.set_vector(r);
    true
}
