//! How each exit leaves the state.

use super::*;
use metaphrase_ir::exit::exception_info;
use metaphrase_ir::{AccessKind, Cond, FlagKind, IntCc, Reg, SyscallKind, Type};

const ENTRY: u64 = 0x40_0000;

fn fuel(guest: &Guest) -> u64 {
    (1u64 << 40) - guest.state.fuel as u64
}

#[test]
fn jump_writes_rip_and_names_its_slot() {
    let (guest, exit) = run_built(
        1,
        |_| (),
        |b| {
            b.fuel(1);
            b.exit_jump(0x10);
        },
    );
    assert_eq!(
        exit,
        Exit {
            reason: ExitReason::Jump,
            slot: 0
        }
    );
    assert_eq!(guest.state.rip, ENTRY + 0x10);
    assert_eq!(fuel(&guest), 1);
}

#[test]
fn jumpif_numbers_the_taken_side_first() {
    for (value, slot, rip) in [(1, 0, ENTRY - 5), (0, 1, ENTRY + 2)] {
        let build = |b: &mut Builder<'_>| {
            let rax = b.getreg(Reg::Rax);
            let c = b.icmp_imm(IntCc::Ne, rax, 0);
            b.exit_jumpif(c, -5, 2);
        };
        let (guest, exit) = run_built(1, |g| g.state.gpr[0] = value, build);
        assert_eq!((exit.slot, guest.state.rip), (slot, rip));
        let mut r = region(1);
        build(&mut Builder::new(&mut r));
        assert_eq!(Program::new(&r).unwrap().exits(), [-5, 2]);
    }
}

#[test]
fn a_program_runs_at_another_pc() {
    let (guest, _) = run_built(
        1,
        |g| g.state.rip = 0x7000,
        |b| {
            let pc = b.pc(3);
            b.setreg(Reg::Rax, pc);
            b.exit_jump(0x10);
        },
    );
    assert_eq!((guest.state.rip, guest.state.gpr[0]), (0x7010, 0x7003));
}

#[test]
fn fuel_that_does_not_suffice_is_not_taken() {
    let (guest, exit) = run_built(
        3,
        |g| g.state.fuel = 2,
        |b| {
            b.fuel(3);
            b.exit_jump(3);
        },
    );
    assert_eq!(exit.reason, ExitReason::Fuel);
    assert_eq!((guest.state.fuel, guest.state.rip), (2, ENTRY));
    let (guest, exit) = run_built(
        3,
        |g| g.state.fuel = 3,
        |b| {
            b.fuel(3);
            b.exit_jump(3);
        },
    );
    assert_eq!((exit.reason, guest.state.fuel), (ExitReason::Jump, 0));
}

#[test]
fn a_refused_load_is_precise() {
    let (guest, exit) = run_built(
        4,
        |g| g.state.gpr[0] = 7,
        |b| {
            b.fuel(4);
            let one = b.iconst(Type::I64, 1);
            b.setreg(Reg::Rcx, one);
            b.set_insn(2);
            let at = b.iconst(Type::I64, CONSTANT + 0xffd);
            let v = b.load(Type::I32, at, AccessKind::Data);
            let v = b.zext(Type::I64, v);
            b.setreg(Reg::Rax, v);
            b.exit_jump(4);
        },
    );
    assert_eq!(
        exit,
        Exit {
            reason: ExitReason::Memory,
            slot: NO_SLOT
        }
    );
    assert_eq!(guest.state.fault_addr, CONSTANT + 0x1000);
    assert_eq!(guest.state.exit_info, 0);
    assert_eq!(guest.state.rip, ENTRY + 2);
    assert_eq!(fuel(&guest), 2, "two of the four are given back");
    assert_eq!((guest.state.gpr[0], guest.state.gpr[1]), (7, 1));
}

#[test]
fn a_refused_store_writes_nothing() {
    let (guest, exit) = run_built(
        1,
        |_| (),
        |b| {
            b.fuel(1);
            let at = b.iconst(Type::I64, DATA + 0x1fff);
            let v = b.iconst(Type::I16, 0xffff);
            b.store(at, v, AccessKind::Data);
            b.exit_jump(4);
        },
    );
    assert_eq!(exit.reason, ExitReason::Memory);
    assert_eq!(
        (guest.state.fault_addr, guest.state.exit_info),
        (DATA + 0x2000, 1)
    );
    assert_eq!(guest.env.memory.read::<u8>(DATA + 0x1fff), Ok(0));
    assert_eq!(fuel(&guest), 0);
}

#[test]
fn exceptions_carry_vector_and_code() {
    let (guest, exit) = run_built(
        2,
        |_| (),
        |b| {
            b.fuel(2);
            b.set_insn(1);
            b.exit_raise(13);
        },
    );
    assert_eq!(exit.reason, ExitReason::Exception);
    assert_eq!(guest.state.exit_info, exception_info(13, Some(0)));
    assert_eq!((guest.state.rip, fuel(&guest)), (ENTRY + 1, 1));

    let (guest, exit) = run_built(
        2,
        |_| (),
        |b| {
            b.fuel(2);
            b.set_insn(1);
            b.exit_trap(3);
        },
    );
    assert_eq!(exit.reason, ExitReason::Exception);
    assert_eq!(guest.state.exit_info, exception_info(3, None));
    assert_eq!((guest.state.rip, fuel(&guest)), (ENTRY + 2, 2));
}

#[test]
fn trapif_only_raises_if_it_holds() {
    for value in [0, 1] {
        let (guest, exit) = run_built(
            2,
            |g| g.state.gpr[3] = value,
            |b| {
                b.fuel(2);
                b.set_insn(1);
                let rbx = b.getreg(Reg::Rbx);
                let c = b.trunc(Type::I8, rbx);
                b.trapif(c, 0);
                b.exit_jump(9);
            },
        );
        if value == 0 {
            assert_eq!(
                (exit.reason, guest.state.rip),
                (ExitReason::Jump, ENTRY + 9)
            );
        } else {
            assert_eq!(
                (exit.reason, guest.state.rip),
                (ExitReason::Exception, ENTRY + 1)
            );
            assert_eq!((guest.state.exit_info, fuel(&guest)), (0, 1));
        }
    }
}

#[test]
fn syscall_halt_and_emulate() {
    let (guest, exit) = run_built(
        1,
        |_| (),
        |b| {
            b.fuel(1);
            b.exit_syscall(SyscallKind::Int80, 2);
        },
    );
    assert_eq!(exit.reason, ExitReason::Syscall);
    assert_eq!(guest.state.exit_info, SyscallKind::Int80 as u64);
    assert_eq!((guest.state.rip, fuel(&guest)), (ENTRY + 2, 1));

    let (guest, exit) = run_built(
        1,
        |_| (),
        |b| {
            b.fuel(1);
            b.exit_halt();
        },
    );
    assert_eq!(
        (exit.reason, guest.state.rip, fuel(&guest)),
        (ExitReason::Halt, ENTRY + 1, 1)
    );

    let (guest, exit) = run_built(
        1,
        |_| (),
        |b| {
            b.fuel(1);
            b.exit_emulate();
        },
    );
    assert_eq!(
        (exit.reason, guest.state.rip, fuel(&guest)),
        (ExitReason::Emulate, ENTRY, 0)
    );
}

#[test]
fn indirect_exits_take_the_value() {
    let (guest, exit) = run_built(
        1,
        |g| g.state.gpr[5] = 0x1234_5678_9abc,
        |b| {
            let to = b.getreg(Reg::Rbp);
            b.exit_icall(to, 2);
        },
    );
    assert_eq!(
        exit,
        Exit {
            reason: ExitReason::Jump,
            slot: NO_SLOT
        }
    );
    assert_eq!(guest.state.rip, 0x1234_5678_9abc);
}

/// The loop `rax += rbx; rbx ^= rax; rcx = [rsi + rdx*8]; rcx += rax; [rdi + rdx*8] = rcx;
/// rdx += 1; while rdx < n` as the lifter gives it, with the flags that can be observed.
pub(in super::super) fn sample_loop(n: u64) -> Region {
    let mut r = region(8);
    let mut b = Builder::new(&mut r);
    let body = b.new_block();
    let done = b.new_block();
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
    let limit = b.iconst(Type::I64, n);
    b.setflags(FlagKind::Sub, &[next, limit]);
    b.set_insn(7);
    let c = b.icmp(IntCc::Ult, next, limit);
    b.brif(c, (body, &[]), (done, &[]));
    b.switch_to(done);
    b.exit_jump(0x40);
    r
}

#[test]
fn the_sample_loop_computes_what_it_should() {
    let program = Program::new(&sample_loop(100)).unwrap();
    let mut guest = Guest::new();
    let s = &mut guest.state;
    (s.gpr[0], s.gpr[3], s.gpr[6], s.gpr[7]) = (3, 5, DATA, DATA + 0x1000);
    for i in 0..100 {
        guest.env.memory.write::<u64>(DATA + i * 8, i * i).unwrap();
    }
    let exit = guest.run(&program);
    assert_eq!((exit.reason, exit.slot), (ExitReason::Jump, 0));
    let (mut rax, mut rbx) = (3u64, 5u64);
    for i in 0..100u64 {
        rax = rax.wrapping_add(rbx);
        rbx ^= rax;
        let stored = guest.env.memory.read::<u64>(DATA + 0x1000 + i * 8).unwrap();
        assert_eq!(stored, (i * i).wrapping_add(rax), "element {i}");
    }
    assert_eq!((guest.state.gpr[0], guest.state.gpr[3]), (rax, rbx));
    assert_eq!((guest.state.gpr[2], fuel(&guest)), (100, 800));
    assert!(guest.state.cond(Cond::Z) && !guest.state.cond(Cond::B));
}

#[test]
fn the_sample_loop_stays_small() {
    // 8 guest instructions, fuel, entry branch and exit.
    assert!(Program::new(&sample_loop(100)).unwrap().len() <= 13);
}

/// A loop whose three parameters change places in each turn: (a, b, c) := (b, a, c + a's low byte).
#[test]
fn parameters_change_places_at_once() {
    for turns in 1..6 {
        let (guest, _) = run_built(
            1,
            |_| (),
            |b| {
                let (body, done) = (b.new_block(), b.new_block());
                let p: Vec<_> = (0..4).map(|_| b.param(body, Type::I64)).collect();
                let v: Vec<_> = (0..2).map(|_| b.param(body, Type::V128)).collect();
                let start = [0x1_05, 0x2_07, 0, 0].map(|n| b.iconst(Type::I64, n));
                let wide = [1 << 100, 2 << 100].map(|n| b.vconst(n));
                let args: Vec<_> = start.into_iter().chain(wide).collect();
                b.br(body, &args);
                b.switch_to(body);
                let low = b.trunc(Type::I8, p[0]);
                let low = b.zext(Type::I64, low);
                let sum = b.add(p[2], low);
                let one = b.iconst(Type::I64, 1);
                let n = b.add(p[3], one);
                let c = b.icmp_imm(IntCc::Ult, n, turns);
                let next = [p[1], p[0], sum, n, v[1], v[0]];
                b.brif(c, (body, &next), (done, &[]));
                b.switch_to(done);
                for (reg, v) in [(Reg::Rax, p[0]), (Reg::Rcx, p[1]), (Reg::Rdx, sum)] {
                    b.setreg(reg, v);
                }
                b.setreg(Reg::Xmm0, v[0]);
                b.exit_jump(0);
            },
        );
        let (mut a, mut c, mut sum) = (0x105, 0x207, 0);
        for n in 0..turns {
            if n > 0 {
                (a, c) = (c, a);
            }
            sum += a & 0xff;
        }
        assert_eq!(guest.state.gpr[..3], [a, c, sum], "{turns} turns");
        assert_eq!(guest.state.xmm[0], (1 + u128::from(turns + 1) % 2) << 100);
    }
}
