//! MXCSR, and the floating-point operations that have no op of their own.
//!
//! While guest code runs, an x86-64 host's MXCSR holds the guest's flags, and those in the state
//! are old (see [`metaphrase_backend::sse`]): everything here goes through [`mxcsr`] and
//! [`set_mxcsr`].

use super::Cx;
use metaphrase_backend::sse::{self, FLAGS, MASKS, Prepared};
use metaphrase_ir::{ExitReason, SseOp};

const GP: u8 = 13;
const XM: u8 = 19;

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

/// See [`metaphrase_ir::Helper::SseChecked`].
pub(super) fn sse_checked(cx: &Cx, descriptor: u32, _args: [u64; 3]) -> u64 {
    let s = cx.state();
    if let Some((op, imm)) = SseOp::unpack(descriptor) {
        let [a, b, ..] = s.helper_v;
        match sse::operate_checked(op, imm, a, b, &mut s.mxcsr) {
            Some(r) => s.helper_v[0] = r,
            None => cx.raise(XM, None),
        }
    }
    0
}
