//! The translation pipeline, in one place: fetch → decode → lift → passes → verify, and from there
//! to a program for the interpreter or to host code.

use crate::interp::Program;
use crate::memory::GuestMemory;
use crate::options::Options;
use metaphrase_backend::{BackendError, CompileError, CompiledRegion, Compiler};
use metaphrase_frontend::{
    CodeSource, LiftError, Lifted, Limits, Mode, SensitivePolicy, lift_region,
};
use metaphrase_ir::Region;
use metaphrase_ir::passes::{self, PassSet};

impl CodeSource for GuestMemory {
    fn fetch(&self, pc: u64, buf: &mut [u8]) -> usize {
        GuestMemory::fetch(self, pc, buf)
    }
}

/// Why there is no translation.
#[derive(Debug, thiserror::Error)]
pub enum TranslateError {
    /// The guest cannot fetch the first instruction.
    #[error(transparent)]
    Lift(#[from] LiftError),
    /// A pass left an invalid region: a defect of ours.
    #[error("a pass left invalid IR: {0}")]
    Verify(String),
    /// The interpreter cannot hold the region.
    #[error(transparent)]
    Program(#[from] crate::interp::ProgramError),
    /// The region cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// There is no compiler for this host.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The compilation was called off before it began.
    #[error("called off")]
    Cancelled,
}

/// Guest bytes to optimised IR.
pub fn to_ir(
    code: &dyn CodeSource,
    pc: u64,
    mode: Mode,
    limits: Limits,
    policy: &SensitivePolicy,
    passes: &PassSet,
) -> Result<Lifted, TranslateError> {
    let mut lifted = lift_region(pc, mode, code, limits, policy)?;
    optimise(&mut lifted.region, passes)?;
    Ok(lifted)
}

/// Runs the passes.
pub fn optimise(region: &mut Region, passes: &PassSet) -> Result<(), TranslateError> {
    passes::run(region, passes).map_err(|e| TranslateError::Verify(e.to_string()))
}

/// Optimised IR to a program for the interpreter.
pub fn to_program(region: &Region) -> Result<Box<Program>, TranslateError> {
    Ok(Box::new(Program::new(region)?))
}

/// Optimised IR to host code.
pub fn to_code(
    compiler: &mut Compiler,
    region: &Region,
    slot_base: u32,
) -> Result<CompiledRegion, TranslateError> {
    Ok(compiler.compile(region, slot_base)?)
}

/// The limits of a tier: 0 and 1 translate blocks, 2 regions.
pub fn limits(options: &Options, tier: u8) -> Limits {
    if tier == 2 {
        options.region_limits
    } else {
        options.block_limits
    }
}
