//! SSE floating point by the host.
//!
//! On x86-64 the host's MXCSR holds the guest's rounding mode, DAZ, FTZ and exception flags while
//! guest code runs in either engine, with all exceptions masked: [`Control::enter`] puts it
//! there, [`Control::leave`] takes the flags back. So arithmetic in compiled code sets the guest's
//! flags by itself. Whatever Cranelift has no instruction for goes through a [`Prepared`] operation, one stub
//! of one host instruction for each [`SseOp`]. [`operate_checked`] runs with the guest's own
//! masks, and says whether the host raised the exception.
//!
//! Elsewhere `portable` computes the same bit by bit, and MXCSR stays in the guest state.

mod portable;
mod soft;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
use x86_64 as host;

#[cfg(not(target_arch = "x86_64"))]
use portable as host;

pub use host::{Control, Prepared, flags_now, operate_checked, set_now};
pub use portable::operate as operate_portably;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{has, stub};

use metaphrase_ir::{SseForm, SseOp};

/// Whether the host's arithmetic keeps the guest's MXCSR: compiled code may then use it.
pub const NATIVE: bool = cfg!(target_arch = "x86_64");

/// MXCSR's exception flags.
pub const FLAGS: u32 = 0x3f;
/// MXCSR's exception masks.
pub const MASKS: u32 = 0x1f80;

#[cfg(target_arch = "x86_64")]
/// Where each operation's stubs begin, counted in stubs.
const STARTS: [usize; SseOp::ALL.len() + 1] = {
    let mut starts = [0; SseOp::ALL.len() + 1];
    let mut n = 0;
    while n < SseOp::ALL.len() {
        starts[n + 1] = starts[n] + SseOp::ALL[n].form().variants();
        n += 1;
    }
    starts
};

/// The number of an operation's stub.
const fn index(op: SseOp, imm: u8) -> usize {
    STARTS[op as usize] + (imm as usize & (op.form().variants() - 1))
}

/// Whether the operation needs SSE4.1, which not every x86-64 host has.
const fn is_sse41(op: SseOp) -> bool {
    matches!(op.form(), SseForm::Imm(16 | 256))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
