//! Ports: IN, OUT, INS, OUTS, with IOPL and the I/O bitmap (SDM volume 1, 19.5).

use super::{Cx, Fault, Outcome};
use metaphrase_ir::SystemOp;

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn input(_cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    Err(Fault::UD)
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn output(_cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    Err(Fault::UD)
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn port_string(_cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    Err(Fault::UD)
}
