//! Far JMP, CALL and RET, and task switches.

use super::*;
use metaphrase_ir::sysflags;

const CODE: u32 = attr::S | attr::CODE | attr::RW | attr::ACCESSED;

fn call(g: &mut Guest, size: u8, selector: u16, offset: u64) -> Outcome {
    g.run(op(SystemKind::CallFar, size, 0, 0), selector.into(), offset)
}

fn jmp(g: &mut Guest, size: u8, selector: u16, offset: u64) -> Outcome {
    g.run(op(SystemKind::JmpFar, size, 0, 0), selector.into(), offset)
}

fn ret(g: &mut Guest, size: u8, release: u64) -> Outcome {
    g.run(op(SystemKind::RetFar, size, 0, 0), release, 0)
}

#[test]
fn real_mode_calls_and_returns() {
    let mut g = Guest::new();
    g.state.gpr[4] = 0x100;
    g.state.seg_sel[1] = 0x777;
    call(&mut g, 2, 0x1000, 0x1_0042).unwrap();
    assert_eq!((g.state.seg_base[1], g.state.rip), (0x10000, 0x42));
    assert_eq!((g.get16(0xfc), g.get16(0xfe)), (NEXT as u16, 0x777));
    ret(&mut g, 2, 8).unwrap();
    assert_eq!((g.state.seg_sel[1], g.state.rip), (0x777, NEXT));
    assert_eq!(g.state.gpr[4], 0x108);
    assert_eq!(jmp(&mut g, 4, 0, 0x1_0000), Err(Fault::gp(0)));
    g.state.gpr[4] = 1;
    assert_eq!(call(&mut g, 2, 0, 0), Err(Fault::ss(0)));
}

#[test]
fn the_jump_after_cr0_pe_enters_32_bit_code() {
    let mut g = Guest::protected();
    g.state.sys.seg_attr[1] = 0x93;
    g.state.sys.seg_limit[1] = 0xffff;
    g.state.seg_sel[1] = 0xf000;
    jmp(&mut g, 4, CODE0, 0x12_3456).unwrap();
    assert_eq!((g.state.seg_sel[1], g.state.rip), (CODE0, 0x12_3456));
    assert_eq!(g.state.sys.seg_attr[1] & 0xf0ff, 0xc09b);
    assert!(g.state.sys.mode_changed);
}

#[test]
fn call_gates_switch_stacks_and_copy_parameters() {
    let mut g = Guest::protected();
    g.define(FREE, gate(CODE0, 0x1_2345, present(12, 3), 2));
    g.put32(TSS + 4, 0x9000);
    g.put32(TSS + 8, DATA0.into());
    g.level(3);
    g.state.gpr[4] = 0x8000;
    g.put32(0x8000, 0xaaaa_aaaa);
    g.put32(0x8004, 0xbbbb_bbbb);
    assert_eq!(jmp(&mut g, 4, FREE | 3, 0), Err(Fault::gp(CODE0.into())));
    call(&mut g, 4, FREE | 3, 0xdead).unwrap();
    assert_eq!((g.state.sys.cpl, g.state.seg_sel[1]), (0, CODE0));
    assert_eq!((g.state.rip, g.state.gpr[4]), (0x1_2345, 0x8fe8));
    let frame: [u32; 6] = std::array::from_fn(|n| g.get32(0x8fe8 + 4 * n as u64));
    let cs = u32::from(CODE3);
    let expected = [NEXT as u32, cs, 0xaaaa_aaaa, 0xbbbb_bbbb, 0x8000];
    assert_eq!(frame[..5], expected);
    assert_eq!(frame[5], DATA3.into());
    g.cache(0, DATA0);
    ret(&mut g, 4, 8).unwrap();
    assert_eq!((g.state.sys.cpl, g.state.rip), (3, NEXT));
    assert_eq!((g.state.gpr[4], g.state.seg_sel[2]), (0x8008, DATA3));
    assert_eq!((g.state.seg_sel[0], g.state.seg_sel[5]), (0, DATA3));
}

#[test]
fn a_16_bit_call_gate_pushes_words() {
    let mut g = Guest::protected();
    g.define(FREE, gate(CODE0, 0x1_2345, present(4, 0), 0));
    g.state.gpr[4] = 0x8000;
    call(&mut g, 4, FREE, 0).unwrap();
    assert_eq!((g.state.rip, g.state.gpr[4]), (0x2345, 0x7ffc));
    assert_eq!((g.get16(0x7ffc), g.get16(0x7ffe)), (NEXT as u16, CODE0));
}

#[test]
fn conforming_code_keeps_the_level() {
    let mut g = Guest::protected();
    g.define(FREE, descriptor(0, 0xffff, present(CODE | attr::DC, 0)));
    g.level(3);
    jmp(&mut g, 4, FREE, 0x10).unwrap();
    assert_eq!((g.state.sys.cpl, g.state.seg_sel[1]), (3, FREE | 3));
    assert_eq!(jmp(&mut g, 4, CODE0, 0), Err(Fault::gp(8)));
}

#[test]
fn long_mode_calls_through_64_bit_gates_alone() {
    let mut g = Guest::long();
    g.define(FREE, gate(LONG0, 0x1234_5678, present(12, 3), 0));
    g.put(GDT + u64::from(FREE) + 8, 0xffff_8000);
    g.put(TSS + 4, 0x9000);
    g.level(3);
    g.state.gpr[4] = 0x8000;
    call(&mut g, 4, FREE, 0).unwrap();
    assert_eq!(g.state.rip, 0xffff_8000_1234_5678);
    assert_eq!((g.state.sys.cpl, g.state.seg_sel[2]), (0, 0));
    assert_eq!(g.state.gpr[4], 0x8fe0);
    let frame: [u64; 4] = std::array::from_fn(|n| g.get(0x8fe0 + 8 * n as u64));
    assert_eq!(frame, [NEXT, LONG3.into(), 0x8000, DATA3.into()]);
    ret(&mut g, 8, 0).unwrap();
    assert_eq!((g.state.sys.cpl, g.state.gpr[4]), (3, 0x8000));
    let gp = Err(Fault::gp(FREE.into()));
    for kind in [4, 5, 9] {
        g.define(FREE, gate(LONG0, 0, present(kind, 3), 0));
        assert_eq!(call(&mut g, 4, FREE, 0), gp, "type {kind}");
    }
    jmp(&mut g, 4, CODE3, 0x1000).unwrap();
    assert!(!mode::is_long_code(&g.state));
}

#[test]
fn a_return_inward_or_to_data_is_refused() {
    let mut g = Guest::protected();
    g.level(3);
    g.state.gpr[4] = 0x8000;
    g.put32(0x8000, 0);
    for (cs, fault) in [
        (CODE0, Fault::gp(8)),
        (DATA3, Fault::gp(0x20)),
        (0, Fault::gp(0)),
        (0x1003, Fault::gp(0x1000)),
    ] {
        g.put32(0x8004, cs.into());
        assert_eq!(ret(&mut g, 4, 0), Err(fault), "{cs:#x}");
    }
}

#[test]
fn a_return_to_a_16_bit_stack_changes_sp_alone() {
    let mut g = Guest::protected();
    g.define(FREE, descriptor(0, 0xffff, present(attr::S | attr::RW, 3)));
    g.state.gpr[4] = 0x1_8000;
    let frame = [0x1111, CODE3.into(), 0x7777_9000, u32::from(FREE | 3)];
    for (n, word) in frame.into_iter().enumerate() {
        g.put32(0x1_8000 + 4 * n as u64, word);
    }
    ret(&mut g, 4, 0).unwrap();
    assert_eq!(g.state.gpr[4], 0x1_9000);
}

/// Another task: TSS at 0x5000, 32-bit, with code and stack of level 0.
fn other_task(g: &Guest) {
    g.define(FREE, descriptor(0x5000, 0x67, present(9, 0)));
    g.put32(0x5020, 0x4444);
    g.put32(0x5024, 0x202);
    for n in 0..8 {
        g.put32(0x5028 + 4 * n, 0x100 * n as u32);
    }
    g.put32(0x5038, 0xa000);
    for n in 0..6 {
        let selector = if n == 1 { CODE0 } else { DATA0 };
        g.put32(0x5048 + 4 * n, selector.into());
    }
    g.put32(0x5060, LDT_SEL.into());
}

fn busy(g: &Guest, selector: u16) -> bool {
    g.get(GDT + u64::from(selector)) >> 41 & 1 != 0
}

#[test]
fn a_call_nests_tasks_and_iret_goes_back() {
    let mut g = Guest::protected();
    other_task(&g);
    g.state.gpr[..8].copy_from_slice(&[1, 2, 3, 4, 0x8000, 6, 7, 8]);
    g.state.set_rflags(0x246);
    g.state.sys.dr[7] = 0x4ff;
    call(&mut g, 4, FREE, 0).unwrap();
    assert_eq!(g.state.rip, 0x4444);
    assert_eq!(g.state.gpr[..5], [0, 0x100, 0x200, 0x300, 0xa000]);
    assert_eq!(g.state.rflags(), 0x4202);
    assert_eq!(g.state.sys.tr.selector, FREE);
    assert_eq!(g.state.sys.tr.attr, 0x8b);
    assert_eq!(g.state.sys.ldtr.base, LDT);
    assert_eq!(g.state.sys.cr0 & cr0::TS, cr0::TS);
    assert_eq!(g.state.sys.dr[7], 0x4aa);
    assert!(busy(&g, FREE) && busy(&g, TSS_SEL));
    assert_eq!(g.get16(0x5000), TSS_SEL);
    assert_eq!(g.get32(TSS + 0x20), NEXT as u32);
    assert_eq!(g.get32(TSS + 0x24), 0x246);
    assert_eq!(g.get32(TSS + 0x38), 0x8000);
    assert_eq!(g.get32(TSS + 0x4c), CODE0.into());
    g.put32(TSS + 0x60, 0);
    g.run(op(SystemKind::Iret, 4, 0, 0), 0, 0).unwrap();
    assert_eq!((g.state.rip, g.state.rflags()), (NEXT, 0x246));
    assert_eq!(g.state.gpr[..5], [1, 2, 3, 4, 0x8000]);
    assert_eq!(g.state.sys.tr.selector, TSS_SEL);
    assert!(!busy(&g, FREE) && busy(&g, TSS_SEL));
    // The nested task's saved flags have lost NT.
    assert_eq!(g.get32(0x5024), 0x202);
}

#[test]
fn a_nested_task_returns_only_to_a_busy_task_that_is_there() {
    let mut g = Guest::protected();
    g.state.sysflags |= sysflags::NT;
    let free = u32::from(FREE);
    for (link, attributes, fault) in [
        (FREE, present(9, 0), Fault::ts(free)),
        (FREE, 11, Fault::np(free)),
        (FREE | 4, present(11, 0), Fault::ts(free | 4)),
        (0x1000, 0, Fault::ts(0x1000)),
    ] {
        g.define(FREE, descriptor(0x5000, 0x67, attributes));
        g.put16(TSS, link);
        let iret = op(SystemKind::Iret, 4, 0, 0);
        assert_eq!(g.run(iret, 0, 0), Err(fault), "{attributes:#x}");
    }
}

#[test]
fn a_jump_leaves_no_way_back() {
    let mut g = Guest::protected();
    other_task(&g);
    jmp(&mut g, 4, FREE, 0).unwrap();
    assert!(busy(&g, FREE) && !busy(&g, TSS_SEL));
    assert_eq!(g.state.sysflags & sysflags::NT, 0);
    assert_eq!(jmp(&mut g, 4, FREE, 0), Err(Fault::gp(FREE.into())));
}

#[test]
fn an_exception_through_a_task_gate_pushes_its_error_code_there() {
    let mut g = Guest::protected();
    other_task(&g);
    g.put(IDT + 8 * 13, gate(FREE, 0, present(5, 0), 0));
    g.state.rip = 0x1111;
    let event = Event {
        fault: Fault::gp(0x50),
        source: Source::Exception,
    };
    assert_eq!(interrupt::deliver(&g.cx(), event), Delivered::Handler);
    assert_eq!((g.state.rip, g.state.gpr[4]), (0x4444, 0x9ffc));
    assert_eq!(g.get32(0x9ffc), 0x50);
    assert_eq!(g.get32(TSS + 0x20), 0x1111);
    assert_eq!(g.get32(TSS + 0x24), 0x1_0002);
}

#[test]
fn faults_of_the_new_task_are_its_own() {
    let mut g = Guest::protected();
    other_task(&g);
    g.put32(0x5054, 0x1000);
    g.put(IDT + 8 * 10, gate(CODE0, 0x6666, present(14, 0), 0));
    jmp(&mut g, 4, FREE, 0).unwrap();
    assert_eq!(g.state.sys.tr.selector, FREE);
    assert_eq!((g.state.rip, g.state.gpr[4]), (0x6666, 0x9ff0));
    assert_eq!((g.get32(0x9ff0), g.get32(0x9ff4)), (0x1000, 0x4444));
}

#[test]
fn the_t_flag_traps_before_the_new_task() {
    let mut g = Guest::protected();
    other_task(&g);
    g.put32(0x5064, 1);
    g.put(IDT + 8, gate(CODE0, 0x6666, present(14, 0), 0));
    jmp(&mut g, 4, FREE, 0).unwrap();
    assert_eq!(g.state.rip, 0x6666);
    assert_eq!(g.state.sys.dr[6] & 1 << 15, 1 << 15);
    assert_eq!(g.get32(0x9ff4), 0x4444);
}

/// With a 16-bit TSS at 0x5000.
fn task16() -> Guest {
    let g = Guest::protected();
    g.define(FREE, descriptor(0x5000, 0x2b, present(1, 0)));
    g.put16(0x500e, 0x4444);
    g.put16(0x5010, 0x202);
    g.put16(0x501a, 0xa000);
    for n in 0..4 {
        g.put16(0x5022 + 2 * n, if n == 1 { CODE0 } else { DATA0 });
    }
    g
}

#[test]
fn tasks_of_16_bits() {
    let mut g = task16();
    call(&mut g, 4, FREE, 0).unwrap();
    assert_eq!((g.state.rip, g.state.gpr[4]), (0x4444, 0xa000));
    assert_eq!(g.state.sys.seg_attr[4], 0);
    assert_eq!(g.state.rflags(), 0x4202);
    // Its error codes are words.
    let mut g = task16();
    g.put(IDT + 8 * 13, gate(FREE, 0, present(5, 0), 0));
    let event = Event {
        fault: Fault::gp(0x50),
        source: Source::Exception,
    };
    assert_eq!(interrupt::deliver(&g.cx(), event), Delivered::Handler);
    assert_eq!((g.state.gpr[4], g.get16(0x9ffe)), (0x9ffe, 0x50));
    g.define(FREE + 8, descriptor(0x5000, 0x2a, present(1, 0)));
    let short = Err(Fault::ts(u32::from(FREE) + 8));
    assert_eq!(jmp(&mut g, 4, FREE + 8, 0), short);
}
