//! FMA3 and F16C.

use super::Cx;
use super::sse::{mxcsr, set_flags, settle};
use metaphrase_backend::sse::{Found, fma, fma_portably, from_half, to_half};
use metaphrase_ir::{FmaOp, HalfOp};

/// Every exception masked.
const MASKED: u32 = 0x1f80;

/// See [`metaphrase_ir::Helper::Fma`].
pub fn masked(cx: &Cx, descriptor: u32, _args: [u64; 3]) -> u64 {
    let [x, y, z, _] = cx.state().helper_v;
    let op = FmaOp::unpack(descriptor);
    cx.state().helper_v[0] = match fma(op, x, y, z) {
        Some(r) => r,
        None => finish_masked(cx, fma_portably(op, x, y, z, mxcsr(cx) | MASKED)),
    };
    0
}

/// The flags to MXCSR; the result.
fn finish_masked(cx: &Cx, found: Found) -> u128 {
    set_flags(cx, found.pre | found.post);
    found.value
}

/// See [`metaphrase_ir::Helper::FmaChecked`].
pub fn checked(cx: &Cx, descriptor: u32, _args: [u64; 3]) -> u64 {
    let [x, y, z, _] = cx.state().helper_v;
    let op = FmaOp::unpack(descriptor);
    let found = fma_portably(op, x, y, z, mxcsr(cx));
    settle(cx, op.deferred, found);
    0
}

fn convert(op: HalfOp, v: u128, mxcsr: u32) -> Found {
    if op.to_half {
        to_half(v, op.rounding, mxcsr)
    } else {
        from_half(v, mxcsr)
    }
}

/// See [`metaphrase_ir::Helper::HalfFloat`].
pub fn half_masked(cx: &Cx, descriptor: u32, _args: [u64; 3]) -> u64 {
    let found = convert(
        HalfOp::unpack(descriptor),
        cx.state().helper_v[0],
        mxcsr(cx) | MASKED,
    );
    cx.state().helper_v[0] = finish_masked(cx, found);
    0
}

/// See [`metaphrase_ir::Helper::HalfFloatChecked`].
pub fn half_checked(cx: &Cx, descriptor: u32, _args: [u64; 3]) -> u64 {
    let op = HalfOp::unpack(descriptor);
    let found = convert(op, cx.state().helper_v[0], mxcsr(cx));
    settle(cx, op.deferred, found);
    0
}
