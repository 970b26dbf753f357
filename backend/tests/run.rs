//! Regions that are compiled, published, entered and left in every way there is.

mod machine;

use machine::{ENTRIES, Machine, PC, WINDOW, mixed, region, region_at};
use metaphrase_backend::{
    CompileError, Compiler, FaultInfo, OptLevel, Options, Regalloc, jump_hash,
};
use metaphrase_ir::exit::exception_info;
use metaphrase_ir::{
    AccessKind, CcOp, Cond, ExitReason, FlagKind, Helper, IntCc, Op, Reg, RmwOp, SyscallKind, Type,
};

fn each_option(mut test: impl FnMut(&mut Machine)) {
    for opt in [OptLevel::None, OptLevel::Speed] {
        for regalloc in [Regalloc::Backtracking, Regalloc::SinglePass] {
            let options = Options {
                opt,
                regalloc,
                ..Options::default()
            };
            test(&mut Machine::with(options, 1 << 20));
        }
    }
}

#[test]
fn adds_registers_and_leaves_by_an_unlinked_jump() {
    each_option(|m| {
        m.state.gpr[0] = 40;
        m.state.gpr[1] = 2;
        let r = region(1, |b| {
            b.fuel(1);
            let (a, c) = (b.getreg(Reg::Rax), b.getreg(Reg::Rcx));
            let sum = b.add(a, c);
            b.setreg(Reg::Rdx, sum);
            b.setflags(FlagKind::Add, &[a, c]);
            b.exit_jump(4);
        });
        assert_eq!(m.run(&r), (ExitReason::Jump, 101));
        assert_eq!(m.state.gpr[2], 42);
        assert_eq!(m.state.fuel, 999);
        assert_eq!(m.state.cc_op, CcOp::new(FlagKind::Add, Type::I64).0);
        assert_eq!(m.state.cc[..2], [40, 2]);
    });
}

#[test]
fn lack_of_fuel_takes_none_and_names_the_block() {
    each_option(|m| {
        let r = region(5, |b| {
            b.set_insn(2);
            b.fuel(3);
            let one = b.iconst(Type::I64, 1);
            b.setreg(Reg::Rax, one);
            b.exit_jump(20);
        });
        m.state.fuel = 2;
        assert_eq!(m.run(&r).0, ExitReason::Fuel);
        assert_eq!((m.state.fuel, m.state.rip), (2, PC + 8));
        assert_eq!(m.state.gpr[0], 0);
        m.state.fuel = 3;
        assert_eq!(m.run(&r).0, ExitReason::Jump);
        assert_eq!((m.state.fuel, m.state.gpr[0]), (0, 1));
        m.state.fuel = i64::MIN;
        assert_eq!(m.run(&r).0, ExitReason::Fuel);
    });
}

#[test]
fn direct_exits_can_be_linked_and_unlinked() {
    each_option(|m| {
        let count = |b: &mut metaphrase_ir::Builder<'_>| {
            b.fuel(1);
            let n = b.getreg(Reg::Rbx);
            let one = b.iconst(Type::I64, 1);
            let n = b.add(n, one);
            b.setreg(Reg::Rbx, n);
        };
        let first = region(1, |b| {
            count(b);
            b.exit_jump(0x100);
        });
        let second = region_at(PC + 0x100, 1, |b| {
            count(b);
            let n = b.getreg(Reg::Rbx);
            let odd = b.icmp_imm(IntCc::Ult, n, 10);
            b.exit_jumpif(odd, -0x100, 8);
        });
        let (a, a_code) = m.publish(&first);
        let (b, b_code) = m.publish(&second);
        assert_eq!(a_code.links[0].target, 0x100);
        let targets: Vec<i64> = b_code.links.iter().map(|l| l.target).collect();
        assert_eq!(targets, [-0x100, 8]);
        assert_eq!(m.enter(a), (ExitReason::Jump, a_code.links[0].slot + 1));
        let site = |code: metaphrase_backend::CodeRef, l: metaphrase_backend::LinkSite| {
            code.entry() + l.offset as usize
        };
        m.arena.link(site(a, a_code.links[0]), b.entry());
        m.arena.link(site(b, b_code.links[0]), a.entry());
        m.state.gpr[3] = 0;
        assert_eq!(m.enter(a), (ExitReason::Jump, b_code.links[1].slot + 1));
        assert_eq!(m.state.gpr[3], 10);
        m.arena.unlink(site(a, a_code.links[0]));
        assert_eq!(m.enter(a), (ExitReason::Jump, a_code.links[0].slot + 1));
        assert_eq!(m.state.gpr[3], 11);
    });
}

#[test]
fn chaining_switched_off_changes_nothing_else() {
    let options = Options {
        chain: false,
        jump_cache: false,
        ..Options::default()
    };
    let mut m = Machine::with(options, 1 << 20);
    let r = region(1, |b| {
        let c = b.getreg(Reg::Rax);
        let c = b.icmp_imm(IntCc::Ne, c, 0);
        b.exit_jumpif(c, 64, -64);
    });
    let (code, compiled) = m.publish(&r);
    let slots: Vec<u32> = compiled.links.iter().map(|l| l.slot).collect();
    assert_eq!(slots, [100, 101]);
    assert_eq!(m.enter(code), (ExitReason::Jump, 102));
    m.state.gpr[0] = 1;
    assert_eq!(m.enter(code), (ExitReason::Jump, 101));
    let r = region(1, |b| {
        let pc = b.iconst(Type::I64, 0x77);
        b.ins(Op::IJump, Type::I64, &[pc], 0, 0);
    });
    assert_eq!(m.run(&r), (ExitReason::Jump, 0));
    assert_eq!(m.state.rip, 0x77);
}

#[test]
fn indirect_exits_use_the_jump_cache() {
    each_option(|m| {
        let target = region_at(0x4000, 1, |b| {
            let seven = b.iconst(Type::I64, 7);
            b.setreg(Reg::Rdi, seven);
            b.exit_jump(4);
        });
        let (code, compiled) = m.publish(&target);
        for op in [Op::IJump, Op::ICall, Op::Ret] {
            let jump = region(1, |b| {
                let pc = b.getreg(Reg::Rax);
                b.ins(op, Type::I64, &[pc], 0, 4);
            });
            let empty = m.cache()[0];
            let slot = jump_hash(0x4000, ENTRIES as u32) as usize;
            m.state.gpr[0] = 0x4000;
            m.state.gpr[7] = 0;
            assert_eq!(m.run(&jump), (ExitReason::Jump, 0));
            assert_eq!((m.state.rip, m.state.gpr[7]), (0x4000, 0));
            m.cache()[slot] = [0x4000, code.entry() as u64];
            assert_eq!(m.run(&jump), (ExitReason::Jump, compiled.links[0].slot + 1));
            assert_eq!(m.state.gpr[7], 7);
            // Same slot, other PC.
            let other = (0x4001..).find(|&pc| jump_hash(pc, ENTRIES as u32) as usize == slot);
            m.state.gpr[0] = other.expect("a collision");
            assert_eq!(m.run(&jump), (ExitReason::Jump, 0));
            assert_eq!(m.state.rip, m.state.gpr[0]);
            m.cache()[slot] = empty;
            // The tag of an empty entry leads to the miss stub.
            let slot = jump_hash(empty[0], ENTRIES as u32) as usize;
            assert_eq!(m.cache()[slot], empty);
            m.state.gpr[0] = empty[0];
            assert_eq!(m.run(&jump), (ExitReason::Jump, 0));
            assert_eq!(m.state.rip, empty[0]);
        }
    });
}

#[test]
fn helpers_get_their_arguments_and_can_leave() {
    each_option(|m| {
        let r = region(1, |b| {
            let (a, c, d) = (b.getreg(Reg::Rax), b.getreg(Reg::Rcx), b.getreg(Reg::Rdx));
            let x = b.call(Helper::UDivW, 9, &[a, c, d]);
            b.setreg(Reg::Rax, x);
            let small = b.trunc(Type::I32, c);
            let y = b.call(Helper::Ldmxcsr, 0, &[small]);
            b.setreg(Reg::Rcx, y);
            b.exit_resume();
        });
        m.state.gpr[..3].copy_from_slice(&[5, u64::MAX, 7]);
        assert_eq!(m.run(&r), (ExitReason::Jump, 0));
        assert_eq!(m.state.gpr[0], mixed(9, [5, u64::MAX, 7]));
        assert_eq!(m.state.gpr[1], mixed(0, [0xffff_ffff, 0, 0]));

        let r = region(3, |b| {
            b.fuel(3);
            b.set_insn(1);
            let a = b.getreg(Reg::Rax);
            let x = b.call(Helper::X87, 0, &[a]);
            b.setreg(Reg::Rbx, x);
            b.set_insn(2);
            b.exit_jump(12);
        });
        m.state.fuel = 10;
        m.state.gpr[0] = 0;
        m.state.gpr[3] = 0;
        assert_eq!(m.run(&r).0, ExitReason::Jump);
        assert_eq!((m.state.gpr[3], m.state.fuel), (1, 7));
        for reason in [ExitReason::Exception, ExitReason::Memory, ExitReason::Jump] {
            m.state.fuel = 10;
            m.state.gpr[0] = reason as u64;
            m.state.gpr[3] = 0;
            assert_eq!(m.run(&r), (reason, 0));
            assert_eq!((m.state.gpr[3], m.state.fuel, m.state.rip), (0, 9, PC + 4));
            assert_eq!((m.state.exit_reason, m.state.exit_info), (0, 77));
        }
        let resume = region(1, |b| b.exit_resume());
        m.state.rip = 0x1234;
        for reason in [ExitReason::None, ExitReason::Syscall] {
            m.state.exit_reason = reason as u32;
            let expected = match reason {
                ExitReason::None => ExitReason::Jump,
                other => other,
            };
            assert_eq!(m.run(&resume), (expected, 0));
            assert_eq!((m.state.exit_reason, m.state.rip), (0, 0x1234));
        }
    });
}

#[test]
fn exceptions_and_other_exits_say_where_and_why() {
    each_option(|m| {
        let mut exit = |op: &dyn Fn(&mut metaphrase_ir::Builder<'_>)| {
            let r = region(3, |b| {
                b.fuel(3);
                b.set_insn(1);
                op(b);
            });
            m.state.fuel = 10;
            let reason = m.run(&r).0;
            (reason, m.state.rip - PC, m.state.exit_info, m.state.fuel)
        };
        let gp = exception_info(13, Some(0));
        let bp = exception_info(3, None);
        let de = exception_info(0, None);
        assert_eq!(
            exit(&|b| b.exit_raise(13)),
            (ExitReason::Exception, 4, gp, 9)
        );
        assert_eq!(exit(&|b| b.exit_trap(3)), (ExitReason::Exception, 8, bp, 8));
        assert_eq!(
            exit(&|b| {
                let zero = b.iconst(Type::I64, 0);
                let c = b.icmp(IntCc::Eq, zero, zero);
                b.trapif(c, 0);
                b.exit_jump(0);
            }),
            (ExitReason::Exception, 4, de, 9)
        );
        assert_eq!(
            exit(&|b| b.exit_syscall(SyscallKind::Int80, 8)),
            (ExitReason::Syscall, 8, SyscallKind::Int80 as u64, 8)
        );
        let (reason, rip, _, fuel) = exit(&|b| b.exit_halt());
        assert_eq!((reason, rip, fuel), (ExitReason::Halt, 8, 8));
        let (reason, rip, _, fuel) = exit(&|b| b.exit_emulate());
        assert_eq!((reason, rip, fuel), (ExitReason::Emulate, 4, 9));
    });
}

#[test]
fn loops_pass_values_through_block_parameters() {
    each_option(|m| {
        // Sum of 1 to n, with a vector carried along.
        let r = region(1, |b| {
            let (head, done) = (b.new_block(), b.new_block());
            let n = b.param(head, Type::I64);
            let sum = b.param(head, Type::I64);
            let v = b.param(head, Type::V128);
            let start = b.getreg(Reg::Rcx);
            let zero = b.iconst(Type::I64, 0);
            let ones = b.vconst(1 << 64 | 1);
            let nothing = b.vconst(0);
            b.br(head, &[start, zero, nothing]);
            b.switch_to(head);
            b.fuel(1);
            let sum2 = b.add(sum, n);
            let v2 = b.vadd(metaphrase_ir::Shape::I64x2, v, ones);
            let one = b.iconst(Type::I64, 1);
            let n2 = b.sub(n, one);
            let more = b.icmp_imm(IntCc::Ne, n2, 0);
            b.brif(more, (head, &[n2, sum2, v2]), (done, &[]));
            b.switch_to(done);
            b.setreg(Reg::Rax, sum2);
            b.setreg(Reg::Xmm3, v2);
            b.exit_jump(4);
        });
        m.state.gpr[1] = 100;
        m.state.fuel = 100;
        assert_eq!(m.run(&r).0, ExitReason::Jump);
        assert_eq!((m.state.gpr[0], m.state.fuel), (5050, 0));
        assert_eq!(m.state.xmm[3], 100 << 64 | 100);
    });
}

#[test]
fn memory_reads_and_writes_every_width() {
    each_option(|m| {
        let r = region(1, |b| {
            let at = b.getreg(Reg::Rsi);
            for (ty, reg, disp) in [
                (Type::I8, Reg::Rax, 1),
                (Type::I16, Reg::Rcx, 3),
                (Type::I32, Reg::Rdx, -7i64),
                (Type::I64, Reg::Rbx, 0x1001),
            ] {
                let d = b.iconst(Type::I64, disp as u64);
                let a = b.add(at, d);
                let v = b.load(ty, a, AccessKind::Data);
                let wide = b.zext(Type::I64, v);
                b.setreg(reg, wide);
                let e = b.iconst(Type::I64, 0x2000);
                let to = b.add(a, e);
                b.store(to, v, AccessKind::Data);
            }
            let v = b.load(Type::V128, at, AccessKind::Data);
            b.setreg(Reg::Xmm1, v);
            let to = b.iconst(Type::I64, 0x8003);
            b.store(to, v, AccessKind::Stack);
            b.exit_jump(4);
        });
        for (n, byte) in m.memory().iter_mut().enumerate() {
            *byte = (n * 7 + n / 256) as u8;
        }
        m.state.gpr[6] = 0x4000;
        assert_eq!(m.run(&r).0, ExitReason::Jump);
        let memory = m.memory().to_vec();
        let read = |at: usize, len: usize| {
            memory[at..at + len]
                .iter()
                .rev()
                .fold(0u128, |v, &b| v << 8 | u128::from(b))
        };
        let expected: [(usize, usize); 4] = [(0x4001, 1), (0x4003, 2), (0x3ff9, 4), (0x5001, 8)];
        for (reg, (at, len)) in expected.into_iter().enumerate() {
            assert_eq!(u128::from(m.state.gpr[reg]), read(at, len));
            assert_eq!(read(at + 0x2000, len), read(at, len));
        }
        assert_eq!(m.state.xmm[1], read(0x4000, 16));
        assert_eq!(read(0x8003, 16), read(0x4000, 16));
    });
}

#[test]
fn atomics_combine_and_give_the_old_value() {
    each_option(|m| {
        for ty in [Type::I8, Type::I16, Type::I32, Type::I64] {
            for &op in RmwOp::ALL {
                let r = region(1, |b| {
                    let at = b.getreg(Reg::Rsi);
                    let v = b.getreg(Reg::Rax);
                    let v = b.trunc(ty, v);
                    let old = b.rmw(op, at, v);
                    let old = b.zext(Type::I64, old);
                    b.setreg(Reg::Rcx, old);
                    b.exit_jump(4);
                });
                let (old, value) = (0x8182_8384_8586_8788u64, 0x1234_5678_9abc_def0u64);
                m.memory()[0x100..0x108].copy_from_slice(&old.to_le_bytes());
                m.state.gpr[6] = 0x100;
                m.state.gpr[0] = value;
                assert_eq!(m.run(&r).0, ExitReason::Jump);
                let new = match op {
                    RmwOp::Add => old.wrapping_add(value),
                    RmwOp::Sub => old.wrapping_sub(value),
                    RmwOp::And => old & value,
                    RmwOp::Or => old | value,
                    RmwOp::Xor => old ^ value,
                    RmwOp::Xchg => value,
                };
                let mask = ty.mask();
                let expected = new & mask | old & !mask;
                assert_eq!(
                    m.memory()[0x100..0x108],
                    expected.to_le_bytes(),
                    "{op}.{ty}"
                );
                assert_eq!(m.state.gpr[1], old & mask);
            }
        }
        for equal in [false, true] {
            let r = region(1, |b| {
                let at = b.getreg(Reg::Rsi);
                let (e, n) = (b.getreg(Reg::Xmm0), b.getreg(Reg::Xmm1));
                let old = b.cas(at, e, n);
                b.setreg(Reg::Xmm2, old);
                let (e, n) = (b.getreg(Reg::Rax), b.getreg(Reg::Rcx));
                let d = b.iconst(Type::I64, 0x40);
                let at = b.add(at, d);
                let old = b.cas(at, e, n);
                b.setreg(Reg::Rdx, old);
                b.exit_jump(4);
            });
            let there = 0x1111_2222_3333_4444_5555_6666_7777_8888u128;
            m.memory()[0x100..0x110].copy_from_slice(&there.to_le_bytes());
            m.memory()[0x140..0x148].copy_from_slice(&99u64.to_le_bytes());
            m.state.xmm[0] = if equal { there } else { there ^ 1 << 100 };
            m.state.xmm[1] = 42;
            m.state.gpr[0] = if equal { 99 } else { 98 };
            m.state.gpr[1] = 55;
            assert_eq!(m.run(&r).0, ExitReason::Jump);
            assert_eq!((m.state.xmm[2], m.state.gpr[2]), (there, 99));
            let now: u128 = if equal { 42 } else { there };
            assert_eq!(m.memory()[0x100..0x110], now.to_le_bytes());
            let now: u64 = if equal { 55 } else { 99 };
            assert_eq!(m.memory()[0x140..0x148], now.to_le_bytes());
        }
    });
}

#[test]
fn accesses_above_the_limit_leave_before_anything_happens() {
    each_option(|m| {
        let r = region(3, |b| {
            b.fuel(3);
            b.set_insn(1);
            let at = b.getreg(Reg::Rsi);
            let v = b.iconst(Type::I32, 1);
            b.store(at, v, AccessKind::Data);
            b.set_insn(2);
            let one = b.iconst(Type::I64, 1);
            b.setreg(Reg::Rax, one);
            b.exit_jump(12);
        });
        for linear in [WINDOW as u64, WINDOW as u64 + 1, 1 << 47, u64::MAX, 1 << 63] {
            m.state.fuel = 10;
            m.state.gpr[6] = linear;
            assert_eq!(m.run(&r).0, ExitReason::Memory);
            assert_eq!((m.state.rip, m.state.fuel), (PC + 4, 9));
            assert_eq!((m.state.fault_addr, m.state.exit_info), (linear, 1));
            assert_eq!(m.state.gpr[0], 0);
        }
        let r = region(1, |b| {
            let at = b.iconst(Type::I64, 1 << 40);
            let v = b.load(Type::I64, at, AccessKind::Data);
            b.setreg(Reg::Rax, v);
            b.exit_jump(12);
        });
        assert_eq!(m.run(&r).0, ExitReason::Memory);
        assert_eq!((m.state.fault_addr, m.state.exit_info), (1 << 40, 0));
    });
}

#[test]
fn host_faults_name_the_guest_instruction() {
    each_option(|m| {
        m.protect(0x3000, 0x1000, 0);
        m.protect(0x5000, 0x1000, libc::PROT_READ);
        // 600 instructions, more than there are trap codes; each adds memory to a register.
        let r = region(600, |b| {
            b.fuel(600);
            let base = b.getreg(Reg::Rsi);
            let mut sum = b.getreg(Reg::Rax);
            for n in 0..600u16 {
                b.set_insn(n);
                let d = b.iconst(Type::I64, u64::from(n) * 16);
                let at = b.add(base, d);
                match n % 4 {
                    0 => {
                        let v = b.load(Type::I64, at, AccessKind::Data);
                        sum = b.add(sum, v);
                    }
                    1 => b.store(at, sum, AccessKind::Data),
                    2 => {
                        let v = b.rmw(RmwOp::Or, at, sum);
                        sum = b.xor(sum, v);
                    }
                    _ => {
                        let v = b.load(Type::V128, at, AccessKind::Data);
                        let v = b.vget(metaphrase_ir::Shape::I64x2, v, 0);
                        sum = b.add(sum, v);
                    }
                }
            }
            b.setreg(Reg::Rax, sum);
            b.exit_jump(0);
        });
        let (code, compiled) = m.publish(&r);
        for first in [0, 1, 2, 3, 248, 249, 250, 251, 252, 399, 500, 598, 599u64] {
            m.state.fuel = 1000;
            // The instruction `first` is the first to reach the page.
            m.state.gpr[6] = 0x3000 - first * 16;
            assert_eq!(m.enter(code).0, ExitReason::HostFault);
            assert_eq!(m.state.fault_addr, 0x3000);
            let info = FaultInfo::unpack(m.state.exit_info);
            let offset = code.offset_of(info.host_pc).expect("a PC in the code");
            let fault = compiled.fault_at(offset).expect("a guest instruction");
            assert_eq!(u64::from(fault.insn), first);
            assert_eq!(fault.write, matches!(first % 4, 1 | 2), "{first}");
            // The host may see an `rmw` read before it writes.
            if first % 4 != 2 {
                assert_eq!(info.write, fault.write, "{first}");
            }
            assert!(!info.bus);
        }
        // Reads of the read-only page go through; the first write to it faults.
        m.state.gpr[6] = 0x5000;
        m.state.fuel = 1000;
        assert_eq!(m.enter(code).0, ExitReason::HostFault);
        let info = FaultInfo::unpack(m.state.exit_info);
        let offset = code.offset_of(info.host_pc).expect("a PC in the code");
        assert_eq!(compiled.fault_at(offset).map(|f| f.insn), Some(1));
        assert!(info.write);
        assert_eq!(m.state.fault_addr, 0x5010);
    });
}

#[test]
fn untested_neighbours_end_in_the_guard() {
    each_option(|m| {
        // The first access is tested; the second, near it, runs into the guard.
        for distance in [0x3fff_ffffi64, -0x3fff_ffff] {
            let r = region(2, |b| {
                let base = b.getreg(Reg::Rsi);
                let v = b.load(Type::I8, base, AccessKind::Data);
                let wide = b.zext(Type::I64, v);
                b.setreg(Reg::Rax, wide);
                b.set_insn(1);
                let d = b.iconst(Type::I64, distance as u64);
                let at = b.add(base, d);
                let v = b.load(Type::I8, at, AccessKind::Data);
                let wide = b.zext(Type::I64, v);
                b.setreg(Reg::Rax, wide);
                b.exit_jump(0);
            });
            let (code, compiled) = m.publish(&r);
            for start in [0, WINDOW as u64 - 1] {
                m.state.gpr[6] = start;
                assert_eq!(m.enter(code).0, ExitReason::HostFault);
                assert_eq!(m.state.fault_addr, start.wrapping_add(distance as u64));
                let info = FaultInfo::unpack(m.state.exit_info);
                let offset = code.offset_of(info.host_pc).expect("a PC in the code");
                assert_eq!(compiled.fault_at(offset).map(|f| f.insn), Some(1));
            }
        }
    });
}

#[test]
fn conditions_come_from_the_lazy_record() {
    each_option(|m| {
        for cond in Cond::ALL {
            let r = region(1, |b| {
                let c = b.getcond(cond);
                let c = b.zext(Type::I64, c);
                b.setreg(Reg::Rax, c);
                let f = b.getflags();
                b.setreg(Reg::Rbx, f);
                b.exit_jump(4);
            });
            for (x, y) in [
                (0u64, 0u64),
                (1, 2),
                (2, 1),
                (0x80, 1),
                (0x7f, 0xff),
                (3, 0),
            ] {
                m.state.cc_op = CcOp::new(FlagKind::Sub, Type::I8).0;
                m.state.cc = [x, y, 0];
                let image = metaphrase_ir::flags::evaluate(CcOp(m.state.cc_op), x, y, 0);
                assert_eq!(m.run(&r).0, ExitReason::Jump);
                assert_eq!(
                    m.state.gpr[0],
                    u64::from(cond.holds(image)),
                    "{cond} {x} {y}"
                );
                assert_eq!(m.state.gpr[3], image);
            }
        }
    });
}

#[test]
fn pcs_are_cut_to_the_code_size() {
    let mut m = Machine::new();
    let mut r = region_at(0xffff_fff0, 1, |b| {
        let pc = b.pc(0x20);
        b.setreg(Reg::Rax, pc);
        b.exit_jump(0x20);
    });
    r.code_size = metaphrase_ir::CodeSize::Code32;
    assert_eq!(m.run(&r).0, ExitReason::Jump);
    assert_eq!(m.state.gpr[0], 0x10);
}

#[test]
fn a_region_that_cannot_be_compiled_leaves_the_compiler_usable() {
    let mut m = Machine::new();
    let good = region(1, |b| b.exit_jump(4));
    let unsupported = region(1, |b| {
        let at = b.getreg(Reg::Rsi);
        let v = b.load(Type::I64, at, AccessKind::System);
        b.setreg(Reg::Rax, v);
        b.exit_jump(4);
    });
    let result = m.compiler.compile(&unsupported, 0);
    assert!(matches!(result, Err(CompileError::Unsupported(_))));
    // An operand that no instruction defines: the verifier's business, but it must not take the
    // process along.
    let broken = region(1, |b| {
        let block = b.new_block();
        let nowhere = b.param(block, Type::I64);
        b.region.blocks[1].params.clear();
        b.setreg(Reg::Rax, nowhere);
        b.exit_jump(4);
    });
    let result = m.compiler.compile(&broken, 0);
    assert!(matches!(result, Err(CompileError::Panic(_))));
    assert_eq!(m.run(&good).0, ExitReason::Jump);
}

#[test]
fn the_compiler_and_the_arena_can_change_threads() {
    fn can<T: Send + 'static>() {}
    can::<metaphrase_backend::Compiler>();
    can::<metaphrase_backend::Arena>();
    can::<metaphrase_backend::CompiledRegion>();
}

#[test]
fn narrow_addresses_need_no_test() {
    let options = Options {
        min_limit: 1 << 32,
        keep_clif: true,
        ..Options::default()
    };
    let mut compiler =
        Compiler::new(machine::layout(), machine::helpers(), options).expect("a compiler");
    let tests = |compiler: &mut Compiler, narrow: bool| {
        let r = region(1, |b| {
            let at = b.getreg(Reg::Rsi);
            let at = if narrow {
                let low = b.trunc(Type::I32, at);
                b.zext(Type::I64, low)
            } else {
                at
            };
            for disp in [0u64, 8, 16] {
                let d = b.iconst(Type::I64, disp);
                let at = b.add(at, d);
                let v = b.load(Type::I64, at, AccessKind::Data);
                b.setreg(Reg::Rax, v);
            }
            let fixed = b.iconst(Type::I64, 0x1000);
            let v = b.load(Type::I64, fixed, AccessKind::Data);
            b.setreg(Reg::Rcx, v);
            b.exit_jump(4);
        });
        let compiled = compiler.compile(&r, 0).expect("code");
        compiled.clif.expect("kept").matches("icmp uge").count()
    };
    assert_eq!(tests(&mut compiler, true), 0);
    assert_eq!(
        tests(&mut compiler, false),
        1,
        "one test for three neighbours"
    );
}
