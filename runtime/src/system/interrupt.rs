//! Exceptions and interrupts: delivery, INT n, IRET (SDM volume 3, chapter 6).

use super::{Cx, Delivered, Event, Fault, Outcome};
use metaphrase_ir::SystemOp;

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn int(_cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    Err(Fault::UD)
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn iret(_cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    Err(Fault::UD)
}

/// Delivers an exception or interrupt: pushes the frame and goes to the handler, or ends in
/// another exception, a double fault or shutdown. RIP is the address to return to.
pub fn deliver(_cx: &Cx, _event: Event) -> Delivered {
    Delivered::Shutdown
}
