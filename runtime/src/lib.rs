//! Guest state, interpreter, block cache, dispatcher and Linux user mode of metaphrase.

pub mod cpu_model;
pub mod env;
pub mod helpers;
pub mod interp;
pub mod memory;
pub mod state;

pub use cpu_model::CpuModel;
pub use env::Env;
pub use interp::Program;
pub use memory::{GuestMemory, MemFault};
pub use state::CpuState;
