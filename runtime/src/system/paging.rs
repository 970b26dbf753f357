//! Memory management and caches: INVLPG, INVPCID, INVD, WBINVD.

use super::{Cx, Fault, Outcome};
use metaphrase_ir::SystemOp;

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn invlpg(_cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    Err(Fault::UD)
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn invpcid(_cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    Err(Fault::UD)
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn wbinvd(_cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    Err(Fault::UD)
}
