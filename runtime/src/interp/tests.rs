//! Tests of the interpreter: every op against a literal evaluation, the exit protocol, places.

mod model;
mod ops;
mod protocol;
mod random;

use super::*;
use crate::cpu_model::CpuModel;
use crate::memory::{GuestMemory, Window, page};
use metaphrase_ir::{Builder, CodeSize};

/// A CPU with memory: two pages at 0x10000 (read, write), one at 0x20000 (read only).
pub(super) struct Guest {
    pub state: Box<CpuState>,
    pub env: Box<Env>,
}

pub(super) const DATA: u64 = 0x10000;
pub(super) const CONSTANT: u64 = 0x20000;

impl Guest {
    pub fn new() -> Guest {
        let memory = GuestMemory::new(Window::Bits32).unwrap();
        memory
            .map_anon(DATA, 0x2000, page::READ | page::WRITE)
            .unwrap();
        memory.map_anon(CONSTANT, 0x1000, page::READ).unwrap();
        let mut env = Env::new(memory, CpuModel::max());
        let mut state = CpuState::new();
        env.attach(&mut state);
        env.add_fuel(&mut state, 1 << 40);
        state.rip = 0x40_0000;
        Guest { state, env }
    }

    pub fn run(&mut self, program: &Program) -> Exit {
        // SAFETY: the state is attached to the environment; both are ours alone.
        unsafe { run(program, &mut *self.state) }
    }
}

/// A region at 0x400000 with `n` guest instructions of one byte.
pub(super) fn region(n: u16) -> Region {
    let mut region = Region::new(0x40_0000, CodeSize::Code64);
    for i in 0..n {
        region.guest.push(GuestInsn {
            offset: i64::from(i),
            len: 1,
            fuel_left: n - i,
        });
    }
    region
}

/// Builds a region, runs it in a fresh guest that `prepare` may change.
pub(super) fn run_built(
    insns: u16,
    prepare: impl FnOnce(&mut Guest),
    build: impl FnOnce(&mut Builder<'_>),
) -> (Guest, Exit) {
    let mut region = region(insns);
    build(&mut Builder::new(&mut region));
    let program = Program::new(&region).unwrap();
    let mut guest = Guest::new();
    prepare(&mut guest);
    let exit = guest.run(&program);
    (guest, exit)
}
