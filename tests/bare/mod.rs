//! Small guests on a bare virtual CPU: no loader, no operating system, a few system calls that the
//! tests need.
#![allow(dead_code)] // Each test file uses its part.

use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use metaphrase_frontend::Mode;
use metaphrase_ir::Reg;
use metaphrase_runtime::memory::{PAGE, Window, page};
use metaphrase_runtime::{CpuModel, Engine, Env, GuestMemory, Options, Stop, Vcpu};

/// Code, readable, writable and executable.
pub const CODE: u64 = 0x40_0000;
/// Its size.
pub const CODE_BYTES: u64 = 0x10_0000;
/// Data.
pub const DATA: u64 = 0x80_0000;
/// Its size.
pub const DATA_BYTES: u64 = 0x1_0000;
/// The top of the stack.
pub const STACK: u64 = 0x200_0000;
const STACK_BYTES: u64 = 0x1_0000;

/// The engines that must agree, the reference first. Compilation is never in the background, so
/// that every run is the same.
pub fn engines() -> Vec<(&'static str, Options)> {
    let base = Options {
        background: false,
        arena_bytes: 8 << 20,
        ..Options::default()
    };
    let jit = Options {
        engine: Engine::Jit,
        ..base.clone()
    };
    vec![
        (
            "interp",
            Options {
                engine: Engine::Interp,
                ..base.clone()
            },
        ),
        ("jit", jit.clone()),
        (
            "regions",
            Options {
                eager_regions: true,
                ..jit
            },
        ),
        (
            "tiered",
            Options {
                engine: Engine::Tiered,
                warm_up: 0,
                tier1_threshold: 1,
                tier2_samples: 1,
                slice: 1000,
                ..base
            },
        ),
    ]
}

/// Assembles code for an address.
pub fn assemble(
    at: u64,
    emit: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).unwrap();
    emit(&mut a).unwrap();
    a.assemble(at).unwrap()
}

/// A CPU with pieces of code in memory, about to execute the first of them.
pub fn machine(pieces: &[(u64, Vec<u8>)], options: Options) -> Vcpu {
    let memory = GuestMemory::new(Window::Bits64).unwrap();
    let rw = page::READ | page::WRITE;
    memory.map_anon(CODE, CODE_BYTES, rw | page::EXEC).unwrap();
    memory.map_anon(DATA, DATA_BYTES, rw).unwrap();
    memory
        .map_anon(STACK - STACK_BYTES, STACK_BYTES, rw)
        .unwrap();
    for (at, bytes) in pieces {
        memory.write_bytes(*at, bytes).unwrap();
    }
    let env = Env::new(memory, CpuModel::max());
    let mut vcpu = Vcpu::new(env, Mode::LONG, options).unwrap();
    vcpu.state.rip = pieces[0].0;
    vcpu.state.gpr[Reg::Rsp as usize] = STACK;
    vcpu
}

/// Everything about the end of a run that must not depend on the engine.
#[derive(Clone, PartialEq, Eq)]
pub struct End {
    pub stop: Stop,
    pub rip: u64,
    pub gpr: [u64; 16],
    pub flags: u64,
    pub instructions: u64,
    pub data: Vec<u8>,
}

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sum = self.data.iter().fold(0u64, |sum, &b| {
            sum.wrapping_mul(31).wrapping_add(u64::from(b))
        });
        write!(
            f,
            "{:?} at {:#x} after {} instructions, registers {:x?}, flags {:x}, data {sum:x}",
            self.stop, self.rip, self.instructions, self.gpr, self.flags
        )
    }
}

/// What there is to see of a CPU that has stopped.
pub fn end(vcpu: &Vcpu, stop: Stop) -> End {
    let mut data = vec![0; DATA_BYTES as usize];
    vcpu.env.memory.read_bytes(DATA, &mut data).unwrap();
    End {
        stop,
        rip: vcpu.state.rip,
        gpr: vcpu.state.gpr,
        flags: vcpu.state.rflags(),
        instructions: vcpu.instructions(),
        data,
    }
}

/// The bytes that the system call `read` delivers: `mov eax, 1234; ret`.
pub const FILE: [u8; 6] = [0xb8, 0xd2, 0x04, 0, 0, 0xc3];

/// Runs to system call 60, to an exception, or until `budget` is used up. On the way it does the
/// system calls read, mmap, mprotect and munmap.
pub fn run(vcpu: &mut Vcpu, budget: u64) -> End {
    let limit = vcpu.instructions() + budget;
    loop {
        let stop = vcpu.run(limit - vcpu.instructions()).unwrap();
        let Stop::Syscall(_) = stop else {
            return end(vcpu, stop);
        };
        let [rax, _, rdx, _, _, _, rsi, rdi, ..] = vcpu.state.gpr;
        let memory = &vcpu.env.memory;
        match rax {
            0 => memory.write_bytes(rsi, &FILE).unwrap(),
            9 => memory.map_anon(rdi, rsi, rdx as u8).unwrap(),
            10 => memory.protect(rdi, rsi, rdx as u8).unwrap(),
            11 => memory.unmap(rdi, rsi).unwrap(),
            60 => return end(vcpu, stop),
            other => panic!("the guest wants system call {other}"),
        }
        vcpu.state.gpr[0] = 0;
        vcpu.drop_stale().unwrap();
    }
}

/// Runs the pieces in every engine: all must end alike. Gives the reference's end and the CPUs.
pub fn agree(pieces: &[(u64, Vec<u8>)]) -> (End, Vec<Vcpu>) {
    let mut reference = None;
    let mut machines = Vec::new();
    for (name, options) in engines() {
        let mut vcpu = machine(pieces, options);
        let end = run(&mut vcpu, 100_000_000);
        let expected = reference.get_or_insert_with(|| end.clone());
        assert_eq!(&end, expected, "{name} and the interpreter end differently");
        machines.push(vcpu);
    }
    (reference.unwrap(), machines)
}

/// Number of the page that an address is on.
pub fn page_of(addr: u64) -> u64 {
    addr / PAGE
}
