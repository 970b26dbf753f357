//! Far transfers: JMP, CALL, RET through code segments and call gates (SDM volume 3, 5.8).

use super::{Cx, Fault, Outcome};
use metaphrase_ir::SystemOp;

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn jmp_far(_cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    Err(Fault::UD)
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn call_far(_cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    Err(Fault::UD)
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn ret_far(_cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    Err(Fault::UD)
}
