//! SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM volume 3, 5.8.7 and 5.8.8).

use super::{Cx, Fault, Outcome};
use metaphrase_ir::SystemOp;

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn syscall(_cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    Err(Fault::UD)
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn sysret(_cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    Err(Fault::UD)
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn sysenter(_cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    Err(Fault::UD)
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn sysexit(_cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    Err(Fault::UD)
}
