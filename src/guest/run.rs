//! Runs a guest program on a bare virtual CPU: no loader, no operating system, only the two system
//! calls that the program ends with.

use super::{CODE, DATA, DATA_BYTES};
use metaphrase_frontend::Mode;
use metaphrase_ir::Reg;
use metaphrase_runtime::memory::{PAGE, Window, page};
use metaphrase_runtime::{CpuModel, Env, GuestMemory, Options, Stats, Stop, Vcpu};
use std::time::{Duration, Instant};

const STACK: u64 = 0x200_0000;
const STACK_BYTES: u64 = 1 << 20;

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The checksum that the program wrote.
    pub checksum: u64,
    /// Wall time from the first guest instruction to the last.
    pub time: Duration,
    /// The virtual CPU's counters.
    pub stats: Stats,
}

/// Runs a program's code to its end.
pub fn run(code: &[u8], options: Options) -> Result<Outcome, Box<dyn std::error::Error>> {
    let memory = GuestMemory::new(Window::Bits64)?;
    let rw = page::READ | page::WRITE;
    let code_bytes = (code.len() as u64).next_multiple_of(PAGE);
    memory.map_anon(CODE, code_bytes, rw)?;
    memory.map_anon(DATA, DATA_BYTES, rw)?;
    memory.map_anon(STACK - STACK_BYTES, STACK_BYTES, rw)?;
    memory
        .write_bytes(CODE, code)
        .map_err(|f| format!("cannot write the code: {f:?}"))?;
    memory.protect(CODE, code_bytes, page::READ | page::EXEC)?;
    let mut vcpu = Vcpu::new(Env::new(memory, CpuModel::max()), Mode::LONG, options)?;
    vcpu.state.rip = CODE;
    vcpu.state.gpr[Reg::Rsp as usize] = STACK;
    let begun = Instant::now();
    let mut checksum = 0;
    loop {
        match vcpu.run(u64::MAX)? {
            Stop::Syscall(_) if vcpu.state.gpr[0] == 1 => {
                let at = vcpu.state.gpr[Reg::Rsi as usize];
                checksum = vcpu
                    .env
                    .memory
                    .read(at)
                    .map_err(|f| format!("bad buffer: {f:?}"))?;
                vcpu.state.gpr[0] = 8;
            }
            Stop::Syscall(_) => break,
            Stop::Budget | Stop::Attention => {}
            other => return Err(format!("the guest stopped: {other:?}").into()),
        }
    }
    Ok(Outcome {
        checksum,
        time: begun.elapsed(),
        stats: vcpu.report(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::{ALL, image};
    use metaphrase_runtime::Engine;

    #[test]
    fn every_engine_gives_the_same_checksum_and_instruction_count() {
        for workload in ALL {
            let code = image(workload, 1).unwrap();
            let [a, b, c] = [Engine::Interp, Engine::Jit, Engine::Tiered].map(|engine| {
                let out = run(
                    &code,
                    Options {
                        engine,
                        ..Options::default()
                    },
                )
                .unwrap();
                (out.checksum, out.stats.instructions)
            });
            assert!(a == b && b == c, "{}: {a:x?} {b:x?} {c:x?}", workload.name);
        }
    }
}
