//! The command line of metaphrase, the guest programs that its demo, benches and tests run, and the
//! whole systems that it can fetch and boot.

pub mod cli;
pub mod guest;
pub mod guests;
