//! MXCSR.

use super::Cx;

const GP: u8 = 13;

/// The bits of MXCSR that exist (what FXSAVE gives as MXCSR_MASK).
pub(super) const MXCSR_MASK: u32 = 0xffff;

/// LDMXCSR: #GP for reserved bits.
pub(super) fn ldmxcsr(cx: &Cx, _descriptor: u32, args: [u64; 3]) -> u64 {
    let value = args[0] as u32;
    if value & !MXCSR_MASK != 0 {
        cx.raise(GP, Some(0));
    } else {
        cx.state().mxcsr = value;
    }
    0
}
