//! Lifts x86 guest instructions to the metaphrase IR.
//!
//! [`lift_region`] is the whole pipeline: discover guest blocks from an entry PC ([`discover`]),
//! decode them with iced-x86, and lift each instruction ([`lift`]) into one [`metaphrase_ir::Region`].
//! The lifter is the only place that says what an instruction means.

#![forbid(unsafe_code)]

pub mod discover;
pub mod features;
pub mod lift;
pub mod mode;
pub mod policy;

pub use discover::{CodeSource, LiftError, Lifted, Limits, lift_region, operand_is_in_stack};
pub use features::{CpuidWord, Feature, Features};
pub use mode::{Level, Mode, SystemMode};
pub use policy::{Policy, Sensitive, SensitivePolicy};
