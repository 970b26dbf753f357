//! Handlers of floating-point and vector ops.

use super::code::{Context, Handler, Ins};
use metaphrase_ir::{Inst, Type};

unsafe fn none(ip: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe { (*cx).raise(ip, st, 6) }
}

pub(super) fn handler(inst: &Inst, from: Type) -> Handler {
    let _ = (inst, from);
    none
}
