//! The command line of metaphrase, and the guest programs that its demo, benches and tests run.

pub mod cli;
pub mod guest;
