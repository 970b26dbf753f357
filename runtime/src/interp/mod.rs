//! Tier 0: the IR interpreter, which is also the reference for the compiler.
//!
//! [`Program::new`] predecodes a region into a flat vector of 16-byte instructions whose operands
//! are offsets from the guest state pointer: guest registers are addressed in place, other values
//! lie in `CpuState::temps`. [`run`] executes one program until it leaves the region; it neither
//! hashes nor allocates.

mod analyze;
mod branches;
mod code;
mod copies;
mod emit;
mod float;
mod flow;
mod fold;
mod int;
mod mem;
mod slots;
mod statemap;
#[cfg(test)]
mod tests;
mod vector;

use crate::env::Env;
use crate::state::CpuState;
use code::{Context, Ins};
use metaphrase_backend::sse::Control;
use metaphrase_ir::{ExitReason, GuestInsn, Region};
use statemap::Mapped;

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exit {
    /// Why; `rip`, `exit_info` and `fault_addr` of the state say the rest.
    pub reason: ExitReason,
    /// Which direct exit of the program was taken (an index into [`Program::exits`]), or
    /// [`NO_SLOT`]. `rip` is written in either case.
    pub slot: u32,
}

/// [`Exit::slot`] of every exit that is not a direct jump.
pub const NO_SLOT: u32 = u32::MAX;

/// Why a region cannot be predecoded. Only too large ones cannot; the dispatcher splits them.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProgramError {
    /// More values are live at once than the state has slots for.
    #[error("the region needs more interpreter slots than there are")]
    TooManyValues,
    /// More than 2^31 instructions.
    #[error("the region is too long")]
    TooLong,
}

/// A predecoded region.
#[derive(Debug)]
pub struct Program {
    code: Box<[Ins]>,
    /// The guest instruction of each element of `code`.
    insns: Box<[u16]>,
    guest: Box<[GuestInsn]>,
    vconsts: Box<[u128]>,
    /// The state maps, by ascending index into `code`.
    maps: Box<[(u32, Box<[Mapped]>)]>,
    exits: Vec<i64>,
    pc_mask: u64,
    /// Whether the host's MXCSR must be the guest's while it runs.
    uses_mxcsr: bool,
}

impl Program {
    /// Predecodes a region, which must be valid (the verifier says what that means).
    pub fn new(region: &Region) -> Result<Program, ProgramError> {
        emit::predecode(region)
    }

    /// The direct exits' targets, as offsets from the region's entry PC: for `exit_jump` and
    /// `exit_call` one each, for `exit_jumpif` two (taken, then the other), in the order of the
    /// region's blocks.
    pub fn exits(&self) -> &[i64] {
        &self.exits
    }

    /// Number of predecoded instructions.
    pub fn len(&self) -> usize {
        self.code.len()
    }

    /// True if there are none, which no valid region gives.
    pub fn is_empty(&self) -> bool {
        self.code.is_empty()
    }

    /// The guest instruction that an element of `code` belongs to.
    fn guest_insn(&self, ip: *const Ins) -> GuestInsn {
        emit::guest_insn(self, ip)
    }
}

/// Runs a program from its entry until it leaves the region.
///
/// `state.rip` must be the entry's PC; it may differ from the PC that the region was lifted at, as
/// long as the code bytes are the same.
///
/// # Safety
/// `state` must be valid and used by nobody else meanwhile, and attached to a live
/// [`Env`] (see [`Env::attach`]) that nobody else borrows meanwhile.
pub unsafe fn run(program: &Program, state: *mut CpuState) -> Exit {
    if !program.uses_mxcsr {
        // SAFETY: handed on.
        return unsafe { execute(program, state) };
    }
    // SAFETY: the caller vouches for the state.
    unsafe {
        let control = Control::enter((*state).mxcsr);
        let exit = execute(program, state);
        control.leave(&mut (*state).mxcsr);
        exit
    }
}

/// Runs a program, with the host's MXCSR as the program needs it.
///
/// # Safety
/// As for [`run`].
unsafe fn execute(program: &Program, state: *mut CpuState) -> Exit {
    // SAFETY: the caller vouches for the state and its environment.
    let (pc, memory) = unsafe { ((*state).rip, &(*(*state).env.cast::<Env>()).memory) };
    let mut context = Context {
        memory,
        program,
        pc,
        exit: Exit {
            reason: ExitReason::None,
            slot: NO_SLOT,
        },
    };
    let cx = &raw mut context;
    let mut ip = program.code.as_ptr();
    while !ip.is_null() {
        // SAFETY: `ip` starts in the program and handlers only answer instructions of it; every
        // block ends with a terminator, so that none runs past the end.
        ip = unsafe { ((*ip).run)(ip, state.cast(), cx) };
    }
    context.exit
}
