//! What compiled code costs: microseconds to compile a block of guest-like instructions, and
//! nanoseconds to go through chained blocks. `cargo run --release --example cost -p
//! metaphrase-backend`; with `-- asm` it writes the machine code of one block.

#[path = "../tests/machine/mod.rs"]
mod machine;

use machine::{Machine, region, region_at};
use metaphrase_backend::{OptLevel, Options, Regalloc};
use metaphrase_ir::{AccessKind, Builder, FlagKind, Helper, IntCc, Op, Reg, Region, Type};
use std::time::Instant;

/// `n` instructions as our own passes leave them: registers forwarded inside the block and
/// written once, three memory operands in ten, flags of the last one only.
fn block(n: u16) -> Region {
    region(n, |b| {
        b.fuel(u64::from(n));
        let mut regs: Vec<_> = (0..6).map(|k| b.getreg(Reg::gpr(k))).collect();
        let base = b.getreg(Reg::Rsi);
        for k in 0..n {
            b.set_insn(k);
            let (d, s) = (usize::from(k) % 6, usize::from(k * 5 + 1) % 6);
            regs[d] = match k % 10 {
                0 | 5 => {
                    let disp = b.iconst(Type::I64, u64::from(k) * 8);
                    let at = b.add(base, disp);
                    b.load(Type::I64, at, AccessKind::Data)
                }
                3 => {
                    let disp = b.iconst(Type::I64, u64::from(k) * 8);
                    let at = b.add(base, disp);
                    // What a fault may observe is in the state before it.
                    for (r, &v) in regs.iter().enumerate().take(2) {
                        b.setreg(Reg::gpr(r), v);
                    }
                    b.store(at, regs[s], AccessKind::Data);
                    regs[d]
                }
                1 | 6 => b.add(regs[d], regs[s]),
                2 => b.xor(regs[d], regs[s]),
                4 => {
                    let c = b.iconst(Type::I64, 0x1234);
                    b.and(regs[d], c)
                }
                7 => b.sub(regs[d], regs[s]),
                _ => {
                    let c = b.iconst(Type::I64, 3);
                    b.shl(regs[d], c)
                }
            };
        }
        for (k, &v) in regs.iter().enumerate() {
            b.setreg(Reg::gpr(k), v);
        }
        b.setflags(FlagKind::Logic, &[regs[0]]);
        let c = b.icmp_imm(IntCc::Ne, regs[0], 0);
        b.exit_jumpif(c, 0x40, 0x80);
    })
}

fn count(b: &mut Builder<'_>) {
    b.fuel(1);
    let n = b.getreg(Reg::Rbx);
    let one = b.iconst(Type::I64, 1);
    let n = b.add(n, one);
    b.setreg(Reg::Rbx, n);
}

const RUNS: i64 = 20_000_000;

fn time(what: &str, m: &mut Machine, code: metaphrase_backend::CodeRef) {
    let best = (0..5)
        .map(|_| {
            m.state.fuel = RUNS;
            let start = Instant::now();
            m.enter(code);
            start.elapsed().as_nanos() as f64 / RUNS as f64
        })
        .fold(f64::MAX, f64::min);
    println!("{what:40} {best:6.2} ns a block");
}

fn main() {
    let options = |opt, regalloc| Options {
        opt,
        regalloc,
        ..Options::default()
    };
    if std::env::args().any(|a| a == "asm") {
        let options = Options {
            keep_vcode: true,
            keep_clif: true,
            ..Options::default()
        };
        let mut m = Machine::with(options, 1 << 20);
        let r = region(2, |b| {
            count(b);
            b.set_insn(1);
            let at = b.getreg(Reg::Rsi);
            let v = b.load(Type::I64, at, AccessKind::Data);
            let d = b.iconst(Type::I64, 8);
            let at2 = b.add(at, d);
            b.store(at2, v, AccessKind::Data);
            let x = b.call(Helper::X87, 3, &[v]);
            b.setreg(Reg::Rax, x);
            let zero = b.iconst(Type::I64, 0);
            b.setflags(FlagKind::Sub, &[v, zero]);
            b.ins(Op::Ret, Type::I64, &[v], 0, 0);
        });
        let c = m.compile(&r);
        println!(
            "{}\n{}",
            c.clif.unwrap_or_default(),
            c.vcode.unwrap_or_default()
        );
        return;
    }
    println!("compilation                        us a block, bytes");
    for (name, opt, regalloc) in [
        ("none, single pass", OptLevel::None, Regalloc::SinglePass),
        ("none, backtracking", OptLevel::None, Regalloc::Backtracking),
        (
            "speed, backtracking",
            OptLevel::Speed,
            Regalloc::Backtracking,
        ),
    ] {
        for n in [4, 20, 200] {
            let mut m = Machine::bench(options(opt, regalloc));
            let r = block(n);
            let best = (0..20)
                .map(|_| {
                    let start = Instant::now();
                    for _ in 0..20 {
                        m.compile(&r);
                    }
                    start.elapsed().as_micros() as f64 / 20.0
                })
                .fold(f64::MAX, f64::min);
            let bytes = m.compile(&r).code.len();
            println!("{name:20} {n:4} instructions {best:8.1} {bytes:6}");
        }
    }
    let mut m = Machine::bench(Options::default());
    let link = |m: &mut Machine, a: metaphrase_backend::CodeRef, offset: u32, to: usize| {
        m.arena.link(a.entry() + offset as usize, to);
    };
    let (a, ac) = m.publish(&region(1, |b| {
        count(b);
        b.exit_jump(0x100);
    }));
    let (b, bc) = m.publish(&region(1, |b| {
        count(b);
        b.exit_jump(-0x100);
    }));
    link(&mut m, a, ac.links[0].offset, b.entry());
    link(&mut m, b, bc.links[0].offset, a.entry());
    time("chained directly", &mut m, a);
    let (pc_a, pc_b) = (0x4000, 0x5120);
    let mut codes = Vec::new();
    for (pc, to) in [(pc_a, pc_b), (pc_b, pc_a)] {
        let (code, _) = m.publish(&region_at(pc, 1, |b| {
            count(b);
            let to = b.iconst(Type::I64, to);
            b.setreg(Reg::Rdx, to);
            let to = b.getreg(Reg::Rdx);
            b.ins(Op::Ret, Type::I64, &[to], 0, 0);
        }));
        let slot = metaphrase_backend::jump_hash(pc, machine::ENTRIES as u32);
        m.cache()[slot as usize] = [pc, code.entry() as u64];
        codes.push(code);
    }
    time("through the jump cache", &mut m, codes[0]);
    let (c, cc) = m.publish(&region(20, |b| {
        b.fuel(1);
        let base = b.getreg(Reg::Rsi);
        for k in 0..10u64 {
            let d = b.iconst(Type::I64, k * 8);
            let at = b.add(base, d);
            let v = b.load(Type::I64, at, AccessKind::Data);
            let r = b.getreg(Reg::gpr(k as usize % 4));
            let v = b.add(v, r);
            b.setreg(Reg::gpr(k as usize % 4), v);
            b.store(at, v, AccessKind::Data);
        }
        b.exit_jump(0);
    }));
    link(&mut m, c, cc.links[0].offset, c.entry());
    m.state.gpr[6] = 0x1000;
    time("ten loads, adds and stores", &mut m, c);
    let (d, _) = m.publish(&region(1, |b| b.exit_jump(0)));
    let state = (&raw mut *m.state).cast();
    let trampoline = m.arena.trampoline();
    let start = Instant::now();
    for _ in 0..1_000_000 {
        // SAFETY: as in `Machine::enter`; the code cannot fault.
        unsafe { trampoline.enter(state, d.entry()) };
    }
    let each = start.elapsed().as_nanos() as f64 / 1e6;
    println!("{:40} {each:6.2} ns", "entered and left");
    let start = Instant::now();
    let compiled = m.compile(&block(20));
    for _ in 0..100_000 {
        let code = m.arena.publish(&compiled).expect("room");
        m.arena.free(code);
    }
    let each = start.elapsed().as_nanos() as f64 / 1e5;
    println!("{:40} {each:6.0} ns", "published and freed");
}
