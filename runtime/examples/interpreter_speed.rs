//! Measures the interpreter on one loop of eight guest instructions, as the lifter gives it:
//! `add rax,rbx; xor rbx,rax; mov rcx,[rsi+rdx*8]; add rcx,rax; mov [rdi+rdx*8],rcx; inc rdx;
//! cmp rdx,1000; jb loop`. Run it with `--release`.

use metaphrase_ir::{AccessKind, Builder, CodeSize, FlagKind, GuestInsn, IntCc, Reg, Region, Type};
use metaphrase_runtime::memory::{GuestMemory, Window, page};
use metaphrase_runtime::{CpuModel, CpuState, Env, Program, interp};
use std::time::Instant;

const DATA: u64 = 0x10000;
const ITERATIONS: u64 = 1000;
const RUNS: u32 = 20_000;

/// The loop; flags that nobody can observe are not defined.
fn region() -> Region {
    let mut r = Region::new(0x40_0000, CodeSize::Code64);
    for i in 0..8 {
        r.guest.push(GuestInsn {
            offset: i64::from(i) * 4,
            len: 4,
            fuel_left: 8 - i,
        });
    }
    let mut b = Builder::new(&mut r);
    let (body, done) = (b.new_block(), b.new_block());
    b.br(body, &[]);
    b.switch_to(body);
    b.fuel(8);
    let (rax, rbx) = (b.getreg(Reg::Rax), b.getreg(Reg::Rbx));
    let sum = b.add(rax, rbx);
    b.setreg(Reg::Rax, sum);
    b.set_insn(1);
    let x = b.xor(rbx, sum);
    b.setreg(Reg::Rbx, x);
    b.setflags(FlagKind::Logic, &[x]);
    b.set_insn(2);
    let (rsi, rdx) = (b.getreg(Reg::Rsi), b.getreg(Reg::Rdx));
    let three = b.iconst(Type::I64, 3);
    let scaled = b.shl(rdx, three);
    let at = b.add(rsi, scaled);
    let v = b.load(Type::I64, at, AccessKind::Data);
    b.setreg(Reg::Rcx, v);
    b.set_insn(3);
    let v2 = b.add(v, sum);
    b.setreg(Reg::Rcx, v2);
    b.setflags(FlagKind::Add, &[v, sum]);
    b.set_insn(4);
    let rdi = b.getreg(Reg::Rdi);
    let scaled = b.shl(rdx, three);
    let at = b.add(rdi, scaled);
    b.store(at, v2, AccessKind::Data);
    b.set_insn(5);
    let one = b.iconst(Type::I64, 1);
    let next = b.add(rdx, one);
    b.setreg(Reg::Rdx, next);
    b.set_insn(6);
    let limit = b.iconst(Type::I64, ITERATIONS);
    b.setflags(FlagKind::Sub, &[next, limit]);
    b.set_insn(7);
    let c = b.icmp(IntCc::Ult, next, limit);
    b.brif(c, (body, &[]), (done, &[]));
    b.switch_to(done);
    b.exit_jump(0);
    r
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let memory = GuestMemory::new(Window::Bits64)?;
    memory.map_anon(DATA, 0x4000, page::READ | page::WRITE)?;
    let mut env = Env::new(memory, CpuModel::max());
    let mut state = CpuState::new();
    env.attach(&mut state);
    (state.gpr[6], state.gpr[7]) = (DATA, DATA + 0x2000);
    let region = region();
    let program = Program::new(&region)?;
    let built = Instant::now();
    for _ in 0..1000 {
        std::hint::black_box(Program::new(std::hint::black_box(&region))?);
    }
    let predecoding = built.elapsed() / 1000;
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..RUNS {
            state.rip = region.pc;
            state.gpr[2] = 0;
            env.add_fuel(&mut state, 8 * ITERATIONS);
            // SAFETY: the state is attached to the environment, and both are only used here.
            unsafe { interp::run(&program, &mut *state) };
        }
        let ns = start.elapsed().as_secs_f64() * 1e9;
        best = best.min(ns / (f64::from(RUNS) * 8.0 * ITERATIONS as f64));
    }
    println!(
        "predecoding       {predecoding:?} ({} instructions)",
        program.len()
    );
    println!(
        "per guest insn    {best:.3} ns, {:.1} cycles at 3 GHz",
        best * 3.0
    );
    println!("guest MIPS        {:.0}", 1e3 / best);
    Ok(())
}
