//! Small guests for a whole system, written with the code assembler and run in every engine.

use iced_x86::code_asm::CodeAssembler;
use metaphrase_devices::Bus;
use metaphrase_runtime::machine::Parts;
use metaphrase_runtime::machine::lockstep::{Compared, compare};
use metaphrase_runtime::memory::PhysMemory;
use metaphrase_runtime::{CpuModel, CpuState, Engine, Machine, MachineStop, Options};
use std::rc::Rc;

/// Bytes of RAM from address 0 on that every guest has.
pub const RAM: u64 = 16 << 20;

/// Where code starts, unless a test says otherwise.
pub const CODE: u64 = 0x8000;

/// Guest instructions after which a guest counts as hanging.
pub const BUDGET: u64 = 10_000_000;

/// The instructions between two comparisons in lock step.
const CHUNKS: [u64; 3] = [1, 7, 1000];

/// The engines and tiers that every guest runs in, with their names; the interpreter first.
pub fn engines() -> Vec<(&'static str, Options)> {
    let jit = Options {
        engine: Engine::Jit,
        ..Options::default()
    };
    vec![
        (
            "interpreter",
            Options {
                engine: Engine::Interp,
                ..Options::default()
            },
        ),
        ("tier 1", jit.clone()),
        (
            "tier 2",
            Options {
                eager_regions: true,
                ..jit
            },
        ),
        (
            "tiered",
            Options {
                warm_up: 0,
                tier1_threshold: 3,
                tier2_samples: 2,
                slice: 1000,
                ..Options::default()
            },
        ),
    ]
}

/// Assembles code for `bits`, to run at `base`.
pub fn assemble(bits: u32, base: u64, write: impl FnOnce(&mut CodeAssembler)) -> Vec<u8> {
    let mut a = CodeAssembler::new(bits).expect("a code size");
    write(&mut a);
    a.assemble(base).expect("valid code")
}

/// What sets registers.
type Setup = Rc<dyn Fn(&mut CpuState)>;

/// What connects devices.
type Wiring = Rc<dyn Fn(&mut Parts)>;

/// A guest: pieces of memory, the registers that it starts with, and its devices.
#[derive(Clone, Default)]
pub struct Guest {
    /// Bytes by physical address; later ones win.
    pub pieces: Vec<(u64, Vec<u8>)>,
    /// What sets the registers, in this order, after a reset with CS 0 and IP [`CODE`].
    pub setups: Vec<Setup>,
    /// What makes its ports; none otherwise.
    pub ports: Option<fn() -> Bus>,
    /// What connects devices.
    pub wirings: Vec<Wiring>,
}

impl Guest {
    /// Real-mode code at [`CODE`], entered with CS 0.
    pub fn real(code: Vec<u8>) -> Guest {
        Guest {
            pieces: vec![(CODE, code)],
            ..Guest::default()
        }
    }

    /// More memory.
    pub fn with(mut self, at: u64, bytes: impl Into<Vec<u8>>) -> Guest {
        self.pieces.push((at, bytes.into()));
        self
    }

    /// Other registers to start with.
    pub fn setup(mut self, set: impl Fn(&mut CpuState) + 'static) -> Guest {
        self.setups.push(Rc::new(set));
        self
    }

    /// Devices.
    pub fn wire(mut self, wire: impl Fn(&mut Parts) + 'static) -> Guest {
        self.wirings.push(Rc::new(wire));
        self
    }

    /// A machine with the guest in it.
    pub fn machine(&self, options: Options) -> Machine {
        let mut memory = PhysMemory::new();
        memory.add_ram(0, RAM).expect("RAM");
        for (at, bytes) in &self.pieces {
            memory.write_bytes(*at, bytes);
        }
        let mut parts = Parts::new(memory, CpuModel::max(), options);
        if let Some(ports) = self.ports {
            parts.ports = ports();
        }
        for wire in &self.wirings {
            wire(&mut parts);
        }
        let mut machine = Machine::new(parts).expect("a machine");
        self.registers(&mut machine);
        machine
    }

    /// Gives the machine the registers that the guest starts with.
    pub fn registers(&self, machine: &mut Machine) {
        let s = machine.state_mut();
        (s.seg_sel[1], s.seg_base[1], s.rip) = (0, 0, CODE);
        for set in &self.setups {
            set(s);
        }
        machine.touch();
    }

    /// Runs in every engine to the first HLT with interrupts off, has `check` look at it, and
    /// compares instruction count and digest between the engines; then runs every compiled engine
    /// in lock step with the interpreter.
    pub fn run(&self, check: impl Fn(&Machine)) {
        self.run_to(MachineStop::Halted, check);
    }

    /// The same, to another stop.
    pub fn run_to(&self, end: MachineStop, check: impl Fn(&Machine)) {
        let instructions = self.run_in_turn(end, check);
        self.run_in_lock_step(end, instructions);
    }

    /// Runs in one engine after the other. The number of instructions.
    pub fn run_in_turn(&self, end: MachineStop, check: impl Fn(&Machine)) -> u64 {
        let mut first: Option<(u64, u64)> = None;
        for (name, options) in engines() {
            let mut machine = self.machine(options);
            let stop = machine.run(BUDGET).expect("the engine goes on");
            let s = machine.state();
            assert_eq!(
                stop,
                end,
                "{name}: at {:x}:{:x} after {} instructions",
                s.seg_sel[1],
                s.rip,
                machine.instructions()
            );
            eprintln!("{name}: {} instructions", machine.instructions());
            check(&machine);
            let outcome = (machine.instructions(), machine.digest());
            let expected = *first.get_or_insert(outcome);
            assert_eq!(outcome, expected, "{name} differs from the interpreter");
        }
        first.map_or(0, |(instructions, _)| instructions)
    }

    /// Runs every compiled engine side by side with the interpreter, for about that many
    /// instructions.
    pub fn run_in_lock_step(&self, end: MachineStop, instructions: u64) {
        let all = engines();
        let (_, interpreter) = &all[0];
        for (name, options) in &all[1..] {
            // Chunks that are longer than the guest do what the last one did.
            let useful = |&chunk: &u64| chunk == 1 || chunk < instructions;
            for chunk in CHUNKS.into_iter().filter(useful) {
                let mut first = self.machine(interpreter.clone());
                let mut second = self.machine(options.clone());
                let outcome = compare(&mut first, &mut second, BUDGET, chunk);
                assert_eq!(
                    outcome.expect("the engines go on"),
                    Compared::Agreed(end),
                    "{name}, {chunk} instructions at a time"
                );
            }
        }
    }
}

/// A 32-bit word of guest memory.
pub fn word(machine: &Machine, at: u64) -> u32 {
    let mut bytes = [0; 4];
    machine.memory().read_bytes(at, &mut bytes);
    u32::from_le_bytes(bytes)
}
