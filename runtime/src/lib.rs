//! Guest state, interpreter, block cache, dispatcher and Linux user mode of metaphrase.

pub mod activity;
pub mod cache;
pub mod cpu_model;
pub mod env;
pub mod helpers;
pub mod host_mask;
pub mod interp;
pub mod lockstep;
pub mod machine;
pub mod memory;
pub mod options;
pub mod state;
pub mod stats;
pub mod system;
pub mod tier;
pub mod translate;
pub mod user;
pub mod vcpu;

pub use cpu_model::CpuModel;
pub use env::Env;
pub use interp::Program;
pub use machine::{Machine, MachineStop};
pub use memory::{GuestMemory, MemFault};
pub use options::{Engine, Options};
pub use state::CpuState;
pub use stats::Stats;
pub use vcpu::{Exception, Observer, Stop, Vcpu, VcpuError};
