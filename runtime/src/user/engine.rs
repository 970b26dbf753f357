//! What user mode needs from whoever executes guest code: a narrow trait, so that loading, system
//! calls and signals can be tested without an engine.

use super::abi::Abi;
use crate::env::Env;
use crate::memory::GuestMemory;
use crate::state::CpuState;
use crate::vcpu::{Stop, Vcpu, VcpuError};
use metaphrase_frontend::Mode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Executes guest code.
pub trait Engine {
    /// Runs until there is something to do.
    fn run(&mut self) -> Result<Stop, VcpuError>;

    /// The registers and their surroundings.
    fn parts(&mut self) -> (&mut CpuState, &mut Env);

    /// Drops the translations of pages that a system call has written to or mapped anew.
    fn drop_stale(&mut self) -> Result<(), VcpuError>;

    /// Another program starts: takes its memory, drops every translation, and switches to its
    /// code size. The registers are set afterwards.
    fn replace_memory(&mut self, memory: GuestMemory, abi: Abi) -> Result<(), VcpuError>;

    /// Called before `fork`: afterwards no other thread runs.
    fn before_fork(&mut self) -> Result<(), VcpuError>;

    /// Called in the child of a fork.
    fn after_fork_in_child(&mut self) -> Result<(), VcpuError>;

    /// The flag that makes `run` return soon.
    fn attention(&self) -> Arc<AtomicBool>;
}

impl Engine for Vcpu {
    fn run(&mut self) -> Result<Stop, VcpuError> {
        Vcpu::run(self, u64::MAX)
    }

    fn parts(&mut self) -> (&mut CpuState, &mut Env) {
        (&mut self.state, &mut self.env)
    }

    fn drop_stale(&mut self) -> Result<(), VcpuError> {
        Vcpu::drop_stale(self)
    }

    fn replace_memory(&mut self, memory: GuestMemory, abi: Abi) -> Result<(), VcpuError> {
        // Jobs of the background thread read nothing but their own IR, but what they bring back
        // belongs to the old program.
        Vcpu::before_fork(self)?;
        self.flush()?;
        self.env.memory = memory;
        self.env.attach(&mut self.state);
        self.mode = mode(abi).with_features(self.env.cpu.features());
        self.warm_up();
        Ok(())
    }

    fn before_fork(&mut self) -> Result<(), VcpuError> {
        Vcpu::before_fork(self)
    }

    fn after_fork_in_child(&mut self) -> Result<(), VcpuError> {
        Vcpu::after_fork_in_child(self)
    }

    fn attention(&self) -> Arc<AtomicBool> {
        Vcpu::attention(self)
    }
}

/// The mode in which a program starts.
pub const fn mode(abi: Abi) -> Mode {
    match abi {
        Abi::X86_64 => Mode::LONG,
        Abi::I386 => Mode::FLAT32,
    }
}
