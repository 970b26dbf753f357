//! REP string instructions.

use super::Cx;

/// REP MOVS, STOS, LODS, CMPS, SCAS.
pub(super) fn rep_string(cx: &Cx, _descriptor: u32, _args: [u64; 3]) -> u64 {
    cx.raise(6, None);
    0
}
