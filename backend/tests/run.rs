//! Regions that are compiled, published, entered and left in every way there is.

mod machine;

use machine::{ENTRIES, Machine, PC, each_option, mixed, region, region_at};
use metaphrase_backend::{CompileError, Options, count_links, jump_hash};
use metaphrase_ir::exit::exception_info;
use metaphrase_ir::{
    AccessKind, CcOp, Cond, ExitReason, FlagKind, Helper, IntCc, Op, Reg, SyscallKind, Type,
};

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
fn direct_exits_to_other_pages_are_not_linked() {
    each_option(|m| {
        let mut r = region(1, |b| {
            let n = b.getreg(Reg::Rbx);
            let low = b.icmp_imm(IntCc::Ult, n, 10);
            b.exit_jumpif(low, 0x100, 0x2000);
        });
        r.page = Some((PC, PC + 0xfff));
        assert_eq!(count_links(&r), 1);
        let (code, compiled) = m.publish(&r);
        assert_eq!(compiled.links.len(), 1);
        assert_eq!(compiled.links[0].target, 0x100);
        assert_eq!(
            m.enter(code),
            (ExitReason::Jump, compiled.links[0].slot + 1)
        );
        m.state.gpr[3] = 10;
        assert_eq!(m.enter(code), (ExitReason::Jump, 0));
        assert_eq!(m.state.rip, PC + 0x2000);
        // The other page's code is found where indirect exits look.
        let target = region_at(PC + 0x2000, 1, |b| {
            let seven = b.iconst(Type::I64, 7);
            b.setreg(Reg::Rdi, seven);
            b.exit_jump(4);
        });
        let (there, there_code) = m.publish(&target);
        let slot = jump_hash(PC + 0x2000, ENTRIES as u32) as usize;
        let empty = m.cache()[slot];
        m.cache()[slot] = [PC + 0x2000, there.entry() as u64];
        assert_eq!(
            m.enter(code),
            (ExitReason::Jump, there_code.links[0].slot + 1)
        );
        assert_eq!(m.state.gpr[7], 7);
        m.cache()[slot] = empty;
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
