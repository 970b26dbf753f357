//! VCMPPS and its kin: the 32 predicates (SDM volume 2, CMPPD, table 3-1).
//!
//! The upper 24 come from the eight of SSE: by exchanging the operands, by combining two of them,
//! and by taking the result of one and the exceptions of another.

use super::{Lift, each_half};
use crate::lift::sse::checked;
use iced_x86::Mnemonic;
use metaphrase_ir::Shape::{self, F32x4, F64x2, I32x4, I64x2};
use metaphrase_ir::{FloatCc, SseOp, Value};

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    match mnemonic {
        Vcmpps => each_half(cx, mnemonic, |cx| packed(cx, F32x4)),
        Vcmppd => each_half(cx, mnemonic, |cx| packed(cx, F64x2)),
        Vcmpss => each_half(cx, mnemonic, |cx| scalar(cx, F32x4, I32x4)),
        Vcmpsd => each_half(cx, mnemonic, |cx| scalar(cx, F64x2, I64x2)),
        _ => false,
    }
}

fn packed(cx: &mut Lift<'_>, shape: Shape) -> bool {
    let b = cx.xmm_m128(1);
    let a = cx.xmm(0);
    let r = compare(cx, shape, a, b);
    cx.set_xmm(0, r);
    true
}

/// The low lane; zeros in the others raise no exception.
fn scalar(cx: &mut Lift<'_>, shape: Shape, ints: Shape) -> bool {
    let b = cx.scalar(1, shape);
    let a = cx.scalar(0, shape);
    let (a, b) = (cx.ir.vfromint(a), cx.ir.vfromint(b));
    let r = compare(cx, shape, a, b);
    let mask = cx.ir.vget(ints, r, 0);
    cx.set_scalar(0, ints, mask);
    true
}

/// One of SSE's eight comparisons.
fn basic(cx: &mut Lift<'_>, shape: Shape, cc: FloatCc, a: Value, b: Value) -> Value {
    if !cx.mode.unmasked {
        return cx.ir.vfcmp(shape, cc, a, b);
    }
    let op = if shape == F32x4 {
        SseOp::Cmpps
    } else {
        SseOp::Cmppd
    };
    checked::call(cx, op, cc as u8, a, b)
}

/// The comparison that the immediate names.
fn compare(cx: &mut Lift<'_>, shape: Shape, a: Value, b: Value) -> Value {
    let imm = cx.imm8(2) as usize & 31;
    let n = imm & 15;
    if imm < 16 {
        return first_sixteen(cx, shape, n, a, b);
    }
    // The others signal quiet NaNs where the first sixteen do not, and the other way round.
    if !matches!(n & 7, 1 | 2 | 5 | 6) {
        basic(cx, shape, LT, a, b);
        return first_sixteen(cx, shape, n, a, b);
    }
    // Without the NaNs, whose result is known: what is negated holds for them.
    let ordered = basic(cx, shape, ORD, a, b);
    let (x, y) = (cx.ir.vand(a, ordered), cx.ir.vand(b, ordered));
    let r = first_sixteen(cx, shape, n, x, y);
    if matches!(n, 5 | 6 | 9 | 10) {
        let all = cx.ir.vconst(u128::MAX);
        let unordered = cx.ir.vxor(ordered, all);
        cx.ir.vor(r, unordered)
    } else {
        cx.ir.vand(r, ordered)
    }
}

const EQ: FloatCc = FloatCc::ALL[0];
const LT: FloatCc = FloatCc::ALL[1];
const LE: FloatCc = FloatCc::ALL[2];
const UNORD: FloatCc = FloatCc::ALL[3];
const NEQ: FloatCc = FloatCc::ALL[4];
const NLT: FloatCc = FloatCc::ALL[5];
const NLE: FloatCc = FloatCc::ALL[6];
const ORD: FloatCc = FloatCc::ALL[7];

/// The first sixteen predicates.
fn first_sixteen(cx: &mut Lift<'_>, shape: Shape, n: usize, a: Value, b: Value) -> Value {
    match n {
        0..8 => basic(cx, shape, FloatCc::ALL[n], a, b),
        // EQ_UQ.
        8 => {
            let unordered = basic(cx, shape, UNORD, a, b);
            let equal = basic(cx, shape, EQ, a, b);
            cx.ir.vor(unordered, equal)
        }
        // NGE_US, NGT_US.
        9 => basic(cx, shape, NLE, b, a),
        10 => basic(cx, shape, NLT, b, a),
        // FALSE_OQ, TRUE_UQ.
        11 | 15 => {
            basic(cx, shape, UNORD, a, b);
            cx.ir.vconst(if n == 15 { u128::MAX } else { 0 })
        }
        // NEQ_OQ.
        12 => {
            let ordered = basic(cx, shape, ORD, a, b);
            let unequal = basic(cx, shape, NEQ, a, b);
            cx.ir.vand(ordered, unequal)
        }
        // GE_OS, GT_OS.
        13 => basic(cx, shape, LE, b, a),
        _ => basic(cx, shape, LT, b, a),
    }
}
