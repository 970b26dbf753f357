//! SSE floating point by the host.
//!
//! On x86-64 the host's MXCSR holds the guest's rounding mode, DAZ, FTZ and exception flags while
//! guest code runs in either engine, with all exceptions masked: [`Control::enter`] puts it
//! there, [`Control::leave`] takes the flags back. So arithmetic in compiled code sets the guest's
//! flags by itself. Whatever Cranelift has no instruction for goes through a [`Prepared`]
//! operation, one stub of one host instruction for each [`metaphrase_ir::SseOp`].
//! [`operate_checked`] runs with the guest's own masks, and says whether the host raised the
//! exception.
//!
//! Elsewhere `portable` computes the same bit by bit, and MXCSR stays in the guest state. The
//! feature `portable-float` does so on x86-64 too, for tests.

mod fma;
mod portable;
mod soft;
#[cfg(all(target_arch = "x86_64", not(feature = "portable-float")))]
mod x86_64;

#[cfg(all(target_arch = "x86_64", not(feature = "portable-float")))]
use x86_64 as host;

#[cfg(any(not(target_arch = "x86_64"), feature = "portable-float"))]
use portable as host;

pub use fma::{Found, fma, fma_portably, from_half, to_half};
pub use host::{Control, Prepared, flags_now, operate_checked, set_now};
pub use portable::operate as operate_portably;
#[cfg(all(target_arch = "x86_64", not(feature = "portable-float")))]
pub(crate) use x86_64::{has, stub};

/// Whether the host's arithmetic keeps the guest's MXCSR: compiled code may then use it.
pub const NATIVE: bool = cfg!(all(target_arch = "x86_64", not(feature = "portable-float")));

/// MXCSR's exception flags.
pub const FLAGS: u32 = 0x3f;
/// MXCSR's exception masks.
pub const MASKS: u32 = 0x1f80;

#[cfg(all(test, target_arch = "x86_64", not(feature = "portable-float")))]
mod tests;
