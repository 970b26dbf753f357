//! System-management mode: entry and RSM (SDM volume 3, chapter 32).

use super::{Cx, Fault, Outcome};
use metaphrase_ir::SystemOp;

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn rsm(_cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    Err(Fault::UD)
}
