//! Conversions between integers, single and double precision.

use super::Lift;
use iced_x86::Mnemonic;
use metaphrase_ir::Shape::{self, F32x4, F64x2};
use metaphrase_ir::{Round, SseOp};

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    match mnemonic {
        Cvtsi2ss => from_int(cx, F32x4),
        Cvtsi2sd => from_int(cx, F64x2),
        Cvtss2si => to_int(cx, F32x4, Round::Mxcsr),
        Cvtsd2si => to_int(cx, F64x2, Round::Mxcsr),
        Cvttss2si => to_int(cx, F32x4, Round::Trunc),
        Cvttsd2si => to_int(cx, F64x2, Round::Trunc),
        Cvtss2sd => between(cx, F32x4, F64x2),
        Cvtsd2ss => between(cx, F64x2, F32x4),
        Cvtps2pd => {
            let v = cx.xmm_m64(1);
            let r = cx.ir.vfcvt(F64x2, v);
            cx.set_xmm(0, r);
        }
        Cvtpd2ps => {
            let v = cx.xmm_m128(1);
            let r = cx.ir.vfcvt(F32x4, v);
            cx.set_xmm(0, r);
        }
        Cvtdq2ps => {
            let v = cx.xmm_m128(1);
            let r = cx.ir.vitof(F32x4, v);
            cx.set_xmm(0, r);
        }
        Cvtdq2pd => {
            let v = cx.xmm_m64(1);
            let r = cx.ir.vitof(F64x2, v);
            cx.set_xmm(0, r);
        }
        Cvttps2dq => truncate(cx, F32x4),
        Cvttpd2dq => truncate(cx, F64x2),
        Cvtps2dq => super::call(cx, SseOp::Cvtps2dq, 0),
        Cvtpd2dq => super::call(cx, SseOp::Cvtpd2dq, 0),
        _ => return false,
    }
    true
}

/// CVTSI2SS, CVTSI2SD: from r/m32 or r/m64.
fn from_int(cx: &mut Lift<'_>, shape: Shape) {
    let v = cx.read(1);
    let r = cx.ir.itof(shape.lane(), v);
    cx.set_scalar(0, shape, r);
}

/// CVTSS2SI and the like: to r32 or r64.
fn to_int(cx: &mut Lift<'_>, shape: Shape, round: Round) {
    let v = cx.scalar(1, shape);
    let ty = cx.op_type(0);
    let r = cx.ir.ftoi(ty, v, round);
    cx.write(0, r);
}

/// CVTSS2SD, CVTSD2SS.
fn between(cx: &mut Lift<'_>, from: Shape, to: Shape) {
    let v = cx.scalar(1, from);
    let r = cx.ir.fcvt(to.lane(), v);
    cx.set_scalar(0, to, r);
}

/// CVTTPS2DQ, CVTTPD2DQ.
fn truncate(cx: &mut Lift<'_>, shape: Shape) {
    let v = cx.xmm_m128(1);
    let r = cx.ir.vftoi(shape, v);
    cx.set_xmm(0, r);
}
