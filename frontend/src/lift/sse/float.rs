//! Packed and scalar floating-point arithmetic.

use super::Lift;
use iced_x86::Mnemonic;
use metaphrase_ir::Shape::{self, F32x4, F64x2};
use metaphrase_ir::{Builder, SseOp, Value};

/// A function of two vectors of a shape.
type Packed = fn(&mut Builder<'_>, Shape, Value, Value) -> Value;
/// A function of two scalars.
type Scalar = fn(&mut Builder<'_>, Value, Value) -> Value;

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    match mnemonic {
        Addps => packed(cx, F32x4, |ir, s, a, b| ir.vadd(s, a, b)),
        Addpd => packed(cx, F64x2, |ir, s, a, b| ir.vadd(s, a, b)),
        Subps => packed(cx, F32x4, |ir, s, a, b| ir.vsub(s, a, b)),
        Subpd => packed(cx, F64x2, |ir, s, a, b| ir.vsub(s, a, b)),
        Mulps => packed(cx, F32x4, |ir, s, a, b| ir.vmul(s, a, b)),
        Mulpd => packed(cx, F64x2, |ir, s, a, b| ir.vmul(s, a, b)),
        Divps => packed(cx, F32x4, |ir, s, a, b| ir.vdiv(s, a, b)),
        Divpd => packed(cx, F64x2, |ir, s, a, b| ir.vdiv(s, a, b)),
        Minps => packed(cx, F32x4, |ir, s, a, b| ir.vmins(s, a, b)),
        Minpd => packed(cx, F64x2, |ir, s, a, b| ir.vmins(s, a, b)),
        Maxps => packed(cx, F32x4, |ir, s, a, b| ir.vmaxs(s, a, b)),
        Maxpd => packed(cx, F64x2, |ir, s, a, b| ir.vmaxs(s, a, b)),
        Addss => scalar(cx, F32x4, |ir, a, b| ir.fadd(a, b)),
        Addsd => scalar(cx, F64x2, |ir, a, b| ir.fadd(a, b)),
        Subss => scalar(cx, F32x4, |ir, a, b| ir.fsub(a, b)),
        Subsd => scalar(cx, F64x2, |ir, a, b| ir.fsub(a, b)),
        Mulss => scalar(cx, F32x4, |ir, a, b| ir.fmul(a, b)),
        Mulsd => scalar(cx, F64x2, |ir, a, b| ir.fmul(a, b)),
        Divss => scalar(cx, F32x4, |ir, a, b| ir.fdiv(a, b)),
        Divsd => scalar(cx, F64x2, |ir, a, b| ir.fdiv(a, b)),
        Minss => scalar(cx, F32x4, |ir, a, b| ir.fmin(a, b)),
        Minsd => scalar(cx, F64x2, |ir, a, b| ir.fmin(a, b)),
        Maxss => scalar(cx, F32x4, |ir, a, b| ir.fmax(a, b)),
        Maxsd => scalar(cx, F64x2, |ir, a, b| ir.fmax(a, b)),
        Sqrtps => packed_sqrt(cx, F32x4),
        Sqrtpd => packed_sqrt(cx, F64x2),
        Sqrtss => scalar_sqrt(cx, F32x4),
        Sqrtsd => scalar_sqrt(cx, F64x2),
        // Each CPU has estimates of its own: the host's.
        Rcpps => super::call(cx, SseOp::Rcpps, 0),
        Rcpss => super::call(cx, SseOp::Rcpss, 0),
        Rsqrtps => super::call(cx, SseOp::Rsqrtps, 0),
        Rsqrtss => super::call(cx, SseOp::Rsqrtss, 0),
        _ => return false,
    }
    true
}

/// dst := dst op src in every lane.
fn packed(cx: &mut Lift<'_>, shape: Shape, op: Packed) {
    let b = cx.xmm_m128(1);
    let a = cx.xmm(0);
    let r = op(&mut cx.ir, shape, a, b);
    cx.set_xmm(0, r);
}

/// dst := dst op src in the low lane.
fn scalar(cx: &mut Lift<'_>, shape: Shape, op: Scalar) {
    let b = cx.scalar(1, shape);
    let a = cx.scalar(0, shape);
    let r = op(&mut cx.ir, a, b);
    cx.set_scalar(0, shape, r);
}

/// SQRTPS, SQRTPD.
fn packed_sqrt(cx: &mut Lift<'_>, shape: Shape) {
    let v = cx.xmm_m128(1);
    let r = cx.ir.vsqrt(shape, v);
    cx.set_xmm(0, r);
}

/// SQRTSS, SQRTSD.
fn scalar_sqrt(cx: &mut Lift<'_>, shape: Shape) {
    let v = cx.scalar(1, shape);
    let r = cx.ir.fsqrt(v);
    cx.set_scalar(0, shape, r);
}
