//! Compiles the metaphrase IR to host code with Cranelift, in a code arena of its own.

pub mod layout;

pub use layout::{HelperFn, HelperTable, StateLayout, jump_hash};
