//! Guest state, interpreter, block cache, dispatcher and Linux user mode of metaphrase.

pub mod state;

pub use state::CpuState;
