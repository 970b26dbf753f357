//! x87 and the state images: not implemented yet, so each raises #UD.

use super::Cx;

const UD: u8 = 6;

/// An x87 instruction.
pub(super) fn x87(cx: &Cx, _descriptor: u32, _args: [u64; 3]) -> u64 {
    cx.raise(UD, None);
    0
}

/// FXSAVE.
pub(super) fn fxsave(cx: &Cx, _descriptor: u32, _args: [u64; 3]) -> u64 {
    cx.raise(UD, None);
    0
}

/// FXRSTOR.
pub(super) fn fxrstor(cx: &Cx, _descriptor: u32, _args: [u64; 3]) -> u64 {
    cx.raise(UD, None);
    0
}
