//! MXCSR, and the floating-point operations that have no op of their own.
//!
//! While guest code runs, an x86-64 host's MXCSR holds the guest's flags, and those in the state
//! are old (see [`metaphrase_backend::sse`]): everything here goes through [`mxcsr`] and
//! [`set_mxcsr`].

use super::Cx;
use crate::system::cr4;
use metaphrase_backend::sse::{self, FLAGS, Found, MASKS, Prepared};
use metaphrase_ir::{ExitReason, SseOp};

const GP: u8 = 13;
const XM: u8 = 19;
/// The #UD vector.
const UD: u8 = 6;

/// The bits of MXCSR that exist (what FXSAVE gives as MXCSR_MASK).
pub(super) const MXCSR_MASK: u32 = 0xffff;

/// MXCSR as it is now.
pub(super) fn mxcsr(cx: &Cx) -> u32 {
    let old = cx.state().mxcsr;
    old & !FLAGS | sse::flags_now(old)
}

/// Writes MXCSR. If exceptions become unmasked, or masked, the code that follows is another
/// translation: the dispatcher is asked for, to run the instruction again, which does nothing
/// more then.
pub(super) fn set_mxcsr(cx: &Cx, value: u32) {
    let s = cx.state();
    let unmasked = |v: u32| v & MASKS != MASKS;
    if unmasked(value) != unmasked(s.mxcsr) {
        s.exit_reason = ExitReason::Jump as u32;
    }
    s.mxcsr = value;
    sse::set_now(value);
}

/// LDMXCSR: #GP for reserved bits.
pub(super) fn ldmxcsr(cx: &Cx, _descriptor: u32, args: [u64; 3]) -> u64 {
    let value = args[0] as u32;
    if value & !MXCSR_MASK != 0 {
        cx.raise(GP, Some(0));
    } else {
        set_mxcsr(cx, value);
    }
    0
}

/// STMXCSR.
pub(super) fn stmxcsr(cx: &Cx, _descriptor: u32, _args: [u64; 3]) -> u64 {
    mxcsr(cx).into()
}

/// See [`metaphrase_ir::Helper::SseFloat`].
pub(super) fn sse_float(cx: &Cx, descriptor: u32, _args: [u64; 3]) -> u64 {
    let s = cx.state();
    if let Some((op, imm)) = SseOp::unpack(descriptor) {
        let [a, b, ..] = s.helper_v;
        s.helper_v[0] = Prepared::new(op, imm).run(a, b, &mut s.mxcsr);
    }
    0
}

/// [`sse_pending`](crate::state::CpuState::sse_pending) holds something.
const PENDING: u64 = 1 << 63;
/// It raises #XM.
const RAISES: u64 = 1 << 62;
/// The flags of what is found in the operands: invalid operation, denormal, division by zero.
const BEFORE: u32 = 7;

/// Computes an operation under the guest's masks from clear flags: the result if it raises
/// nothing, and the flags. MXCSR is as it was afterwards.
fn attempt(cx: &Cx, descriptor: u32) -> (Option<u128>, u32) {
    let s = cx.state();
    let Some((op, imm)) = SseOp::unpack(descriptor) else {
        return (None, 0);
    };
    let [a, b, ..] = s.helper_v;
    let old = mxcsr(cx);
    let mut now = old & !FLAGS;
    sse::set_now(now);
    let result = sse::operate_checked(op, imm, a, b, &mut now);
    s.mxcsr = old;
    sse::set_now(old);
    (result, now & FLAGS)
}

/// See [`metaphrase_ir::Helper::SseDeferred`].
pub(super) fn sse_deferred(cx: &Cx, descriptor: u32, _args: [u64; 3]) -> u64 {
    let (result, flags) = attempt(cx, descriptor);
    let s = cx.state();
    let raises = if result.is_none() { RAISES } else { 0 };
    s.helper_v[0] = result.unwrap_or(0);
    s.sse_pending |= PENDING | raises | u64::from(flags);
    0
}

/// See [`metaphrase_ir::Helper::SseChecked`].
pub(super) fn sse_checked(cx: &Cx, descriptor: u32, _args: [u64; 3]) -> u64 {
    let s = cx.state();
    if s.sse_pending != 0 {
        let lower = std::mem::take(&mut s.sse_pending);
        let (result, flags) = attempt(cx, descriptor);
        finish(
            cx,
            result,
            flags | lower as u32 & FLAGS,
            lower & RAISES != 0,
        );
    } else if let Some((op, imm)) = SseOp::unpack(descriptor) {
        let [a, b, ..] = s.helper_v;
        match sse::operate_checked(op, imm, a, b, &mut s.mxcsr) {
            Some(r) => s.helper_v[0] = r,
            None => raise_simd(cx),
        }
    }
    0
}

/// Ends an operation of both halves: the flags to MXCSR, and #XM if one of them raises it. If that
/// is for what is in an operand, no half reports what is wrong with results (SDM volume 1, 11.5.2).
fn finish(cx: &Cx, result: Option<u128>, flags: u32, lower_raises: bool) {
    let s = cx.state();
    let raises = lower_raises || result.is_none();
    let unmasked = flags & !(s.mxcsr >> 7);
    let flags = if raises && unmasked & BEFORE != 0 {
        flags & BEFORE
    } else {
        flags
    };
    s.mxcsr |= flags;
    sse::set_now(s.mxcsr);
    match result {
        Some(r) if !raises => s.helper_v[0] = r,
        _ => raise_simd(cx),
    }
}

/// An unmasked exception: #XM, or #UD where a system does not expect it (SDM volume 3, 2.5,
/// CR4.OSXMMEXCPT).
#[cold]
fn raise_simd(cx: &Cx) {
    let expected = cx.state().sys.cr4 & cr4::OSXMMEXCPT != 0;
    let vector = if expected || cx.env().memory.paged().is_none() {
        XM
    } else {
        UD
    };
    cx.raise(vector, None);
}

/// Sets exception flags in MXCSR.
pub(super) fn set_flags(cx: &Cx, flags: u32) {
    let s = cx.state();
    s.mxcsr = mxcsr(cx) | flags & FLAGS;
    sse::set_now(s.mxcsr);
}

/// Ends an operation that has been computed without the host, exceptions being unmasked: the
/// lower half of a 256-bit one is `deferred`.
pub(super) fn settle(cx: &Cx, deferred: bool, found: Found) {
    let s = cx.state();
    s.mxcsr = mxcsr(cx);
    let flags = (found.pre | found.post) & FLAGS;
    let raises = flags & !(s.mxcsr >> 7) != 0;
    if deferred {
        let bit = if raises { RAISES } else { 0 };
        s.helper_v[0] = found.value;
        s.sse_pending |= PENDING | bit | u64::from(flags);
        return;
    }
    let lower = std::mem::take(&mut s.sse_pending);
    let all = flags | lower as u32 & FLAGS;
    finish(
        cx,
        (!raises).then_some(found.value),
        all,
        lower & RAISES != 0,
    );
}
