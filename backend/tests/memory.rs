//! Guest memory from compiled code: widths, atomics, the limit, host faults.

mod machine;

use machine::{PC, WINDOW, each_option, region};
use metaphrase_backend::{Compiler, FaultInfo, Options};
use metaphrase_ir::{AccessKind, ExitReason, Reg, RmwOp, Type};

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
