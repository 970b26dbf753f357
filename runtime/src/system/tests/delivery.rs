//! Delivery of exceptions and interrupts, INT n and IRET.

use super::*;
use metaphrase_ir::sysflags;

const HANDLER: u32 = 0x5_4321;
const INT32: u32 = 14;
const TRAP32: u32 = 15;

fn deliver(g: &mut Guest, fault: Fault, source: Source) -> Delivered {
    interrupt::deliver(&g.cx(), Event { fault, source })
}

fn external(g: &mut Guest, vector: u8) -> Delivered {
    deliver(g, Fault::plain(vector), Source::External)
}

/// Puts a gate to `CODE0` at a vector.
fn handle(g: &Guest, vector: u8, kind: u32, dpl: u32) {
    let at = IDT + 8 * u64::from(vector);
    g.put(at, gate(CODE0, HANDLER, present(kind, dpl), 0));
}

fn handle_long(g: &Guest, vector: u8, offset: u64, ist: u8) {
    let at = IDT + 16 * u64::from(vector);
    g.put(at, gate(LONG0, offset as u32, present(INT32, 0), ist));
    g.put(at + 8, offset >> 32);
}

fn iret(g: &mut Guest, size: u8) -> Outcome {
    g.run(op(SystemKind::Iret, size, 0, 0), 0, 0)
}

fn int(g: &mut Guest, vector: u8) -> Outcome {
    g.run(op(SystemKind::Int, 0, vector, 0), 0, 0)
}

/// The doublewords from `at` on.
fn words<const N: usize>(g: &Guest, at: u64) -> [u32; N] {
    std::array::from_fn(|n| g.get32(at + 4 * n as u64))
}

fn quads<const N: usize>(g: &Guest, at: u64) -> [u64; N] {
    std::array::from_fn(|n| g.get(at + 8 * n as u64))
}

#[test]
fn real_mode_pushes_three_words_and_iret_takes_them() {
    let mut g = Guest::new();
    g.put32(4 * 0x21, 0x1000_0042);
    g.state.gpr[4] = 0xffff_ffff_0000_0100;
    g.state.seg_sel[1] = 0x777;
    g.state.set_rflags(0x4_0b46);
    int(&mut g, 0x21).unwrap();
    assert_eq!(g.state.rip, 0x42);
    assert_eq!((g.state.seg_sel[1], g.state.seg_base[1]), (0x1000, 0x10000));
    assert_eq!(g.state.gpr[4], 0xffff_ffff_0000_00fa);
    assert_eq!(g.state.rflags(), 0x846);
    let frame = [0xfa, 0xfc, 0xfe].map(|at| g.get16(at));
    assert_eq!(frame, [NEXT as u16, 0x777, 0xb46]);
    g.state.set_rflags(2);
    iret(&mut g, 2).unwrap();
    assert_eq!((g.state.rip, g.state.seg_sel[1]), (NEXT, 0x777));
    assert_eq!(g.state.rflags(), 0xb46);
    assert_eq!(g.state.gpr[4], 0xffff_ffff_0000_0100);
}

#[test]
fn real_mode_without_table_shuts_down() {
    let mut g = Guest::new();
    g.state.sys.idtr.limit = 3;
    g.state.gpr[4] = 0x100;
    assert_eq!(int(&mut g, 1), Err(Fault::gp(10)));
    assert_eq!(external(&mut g, 1), Delivered::Shutdown);
    assert_eq!(g.state.sys.activity, Activity::Shutdown);
}

#[test]
fn an_interrupt_of_the_same_level_stays_on_its_stack() {
    let mut g = Guest::protected();
    handle(&g, 0x30, INT32, 0);
    g.state.gpr[4] = 0x8000;
    g.state.rip = 0x1111;
    g.state.set_rflags(0x4302);
    assert_eq!(external(&mut g, 0x30), Delivered::Handler);
    assert_eq!(g.state.rip, HANDLER.into());
    assert_eq!(g.state.gpr[4], 0x7ff4);
    assert_eq!(g.state.rflags(), 2);
    assert_eq!(words(&g, 0x7ff4), [0x1111, 8, 0x4302]);
    iret(&mut g, 4).unwrap();
    assert_eq!((g.state.rip, g.state.gpr[4]), (0x1111, 0x8000));
    assert_eq!(g.state.rflags(), 0x4302);
}

#[test]
fn a_trap_gate_leaves_interrupts_on_and_a_16_bit_gate_pushes_words() {
    let mut g = Guest::protected();
    handle(&g, 0x30, TRAP32, 0);
    handle(&g, 0x31, 6, 0);
    g.state.gpr[4] = 0x8000;
    g.state.set_rflags(0x202);
    external(&mut g, 0x30);
    assert_eq!(g.state.rflags(), 0x202);
    external(&mut g, 0x31);
    assert_eq!(g.state.rip, u64::from(HANDLER & 0xffff));
    assert_eq!(g.state.gpr[4], 0x7fee);
    assert_eq!(g.get16(0x7fee), HANDLER as u16);
    assert_eq!(g.get16(0x7ff2), 0x202);
}

#[test]
fn an_interrupt_of_level_3_takes_the_stack_of_the_tss_and_iret_goes_back() {
    let mut g = Guest::protected();
    handle(&g, 0x30, INT32, 3);
    g.put32(TSS + 4, 0x9000);
    g.put32(TSS + 8, DATA0.into());
    g.level(3);
    g.state.gpr[4] = 0x8000;
    g.state.set_rflags(0x202);
    int(&mut g, 0x30).unwrap();
    assert_eq!((g.state.sys.cpl, g.state.seg_sel[1]), (0, CODE0));
    assert_eq!((g.state.seg_sel[2], g.state.gpr[4]), (DATA0, 0x8fec));
    let frame = [NEXT as u32, CODE3.into(), 0x202, 0x8000, DATA3.into()];
    assert_eq!(words(&g, 0x8fec), frame);
    // The handler's data segment must not be left to level 3; GS is level 3's own.
    g.cache(3, DATA0);
    iret(&mut g, 4).unwrap();
    assert_eq!((g.state.sys.cpl, g.state.rip), (3, NEXT));
    assert_eq!((g.state.seg_sel[2], g.state.gpr[4]), (DATA3, 0x8000));
    assert_eq!((g.state.seg_sel[3], g.state.sys.seg_attr[3]), (0, 0));
    assert_eq!(g.state.seg_sel[5], DATA3);
    assert_eq!(g.state.rflags(), 0x202);
}

#[test]
fn faults_push_their_error_code_and_ask_to_be_resumed() {
    let mut g = Guest::protected();
    handle(&g, 14, INT32, 0);
    g.state.gpr[4] = 0x8000;
    g.state.rip = 0x1111;
    deliver(&mut g, Fault::pf(0xabcd_e000, 2), Source::Exception);
    assert_eq!(g.state.sys.cr2, 0xabcd_e000);
    assert_eq!(words(&g, 0x7ff0), [2, 0x1111, 8, 0x1_0002]);
}

#[test]
fn a_software_interrupt_needs_the_gates_leave() {
    let mut g = Guest::protected();
    handle(&g, 0x30, INT32, 0);
    g.put32(TSS + 4, 0x9000);
    g.put32(TSS + 8, DATA0.into());
    g.level(3);
    assert_eq!(int(&mut g, 0x30), Err(Fault::gp(0x30 * 8 + 2)));
    let int1 = op(SystemKind::Int, 0, 0x30, 2);
    g.run(int1, 0, 0).unwrap();
    assert_eq!(g.state.sys.cpl, 0);
}

#[test]
fn bad_gates_say_which() {
    let mut g = Guest::protected();
    g.state.gpr[4] = 0x8000;
    let at = IDT + 8 * 0x30;
    let idt = 0x30 * 8 + 2;
    let free = u32::from(FREE);
    let code = attr::S | attr::CODE;
    let cases = [
        (gate(CODE0, 0, INT32, 0), 0, Err(Fault::np(idt))),
        (gate(CODE0, 0, present(12, 0), 0), 0, Err(Fault::gp(idt))),
        (gate(0, 0, present(INT32, 0), 0), 0, Err(Fault::gp(0))),
        (
            gate(DATA0, 0, present(INT32, 0), 0),
            0,
            Err(Fault::gp(0x10)),
        ),
        (
            gate(FREE, 0, present(INT32, 0), 0),
            code,
            Err(Fault::np(free)),
        ),
        (
            gate(FREE, 0, present(INT32, 0), 0),
            present(code, 3),
            Err(Fault::gp(free)),
        ),
        (
            gate(FREE, 0x100, present(INT32, 0), 0),
            present(code, 0),
            Err(Fault::gp(0)),
        ),
        (
            gate(FREE, 0xff, present(INT32, 0), 0),
            present(code, 0),
            Ok(0),
        ),
    ];
    for (raw, attributes, outcome) in cases {
        g.level(0);
        g.put(at, raw);
        g.define(FREE, descriptor(0, 0xff, attributes));
        assert_eq!(int(&mut g, 0x30), outcome, "{raw:#x} {attributes:#x}");
    }
}

#[test]
fn bad_stacks_of_the_tss_say_which() {
    let mut g = Guest::protected();
    handle(&g, 0x30, INT32, 3);
    g.define(FREE, descriptor(0, 7, present(attr::S | attr::RW, 0)));
    let refused = [
        (0, 0x67, Fault::ts(0)),
        (DATA3, 0x67, Fault::ts(0x20)),
        (CODE0, 0x67, Fault::ts(8)),
        (0x1000, 0x67, Fault::ts(0x1000)),
        (DATA0, 8, Fault::ts(TSS_SEL.into())),
        (FREE, 0x67, Fault::ss(FREE.into())),
    ];
    for (ss, limit, fault) in refused {
        g.put32(TSS + 4, 0x9000);
        g.put32(TSS + 8, ss.into());
        g.state.sys.tr.limit = limit;
        g.level(3);
        assert_eq!(int(&mut g, 0x30), Err(fault), "{ss:#x}");
    }
}

#[test]
fn faults_during_delivery_escalate_by_the_table() {
    // No gate for #DE: #GP, contributory on contributory: a double fault.
    let mut g = Guest::protected();
    handle(&g, 8, INT32, 0);
    handle(&g, 13, INT32, 0);
    g.state.gpr[4] = 0x8000;
    assert_eq!(
        deliver(&mut g, Fault::plain(0), Source::Exception),
        Delivered::Handler
    );
    assert_eq!(g.get32(0x7ff0), 0);
    assert_eq!(g.state.gpr[4], 0x7ff0);
    // No gate for #BR, or an interrupt: only #GP, which says that it is not the program's.
    for (vector, source) in [(5, Source::Exception), (0x31, Source::External)] {
        g.state.gpr[4] = 0x8000;
        deliver(&mut g, Fault::plain(vector), source);
        assert_eq!(g.get32(0x7ff0), u32::from(vector) * 8 + 3);
    }
    // #GP without a gate: a double fault; that without one: shutdown.
    g.put(IDT + 8 * 13, 0);
    g.put(IDT + 8 * 8, 0);
    assert_eq!(external(&mut g, 0x31), Delivered::Shutdown);
}

#[test]
fn virtual_8086_mode_is_left_with_all_segments_and_entered_again() {
    let mut g = Guest::protected();
    handle(&g, 0x30, INT32, 3);
    g.put32(TSS + 4, 0x9000);
    g.put32(TSS + 8, DATA0.into());
    // Enter from level 0.
    g.state.gpr[4] = 0x8000;
    let frame = [
        0x77, 0x1000, 0x2_3202, 0x666, 0x2000, 0x11, 0x22, 0x33, 0x44,
    ];
    for (n, word) in frame.into_iter().enumerate() {
        g.put32(0x8000 + 4 * n as u64, word);
    }
    iret(&mut g, 4).unwrap();
    assert_eq!(g.state.rip, 0x77);
    assert_eq!(g.state.seg_sel, [0x11, 0x1000, 0x2000, 0x22, 0x33, 0x44]);
    assert_eq!(g.state.seg_base[1], 0x10000);
    assert_eq!(g.state.rflags(), 0x2_3202);
    assert_eq!((g.state.sys.cpl, g.state.gpr[4]), (3, 0x666));
    // And out again.
    int(&mut g, 0x30).unwrap();
    assert_eq!((g.state.sys.cpl, g.state.gpr[4]), (0, 0x8fdc));
    let mut frame = frame;
    frame[0] = NEXT as u32;
    assert_eq!(words(&g, 0x8fdc), frame);
    assert_eq!(g.state.rflags(), 0x3002);
    assert_eq!(g.state.seg_sel[3], 0);
    assert_eq!(g.state.sys.seg_attr[3], 0);
}

#[test]
fn virtual_8086_mode_depends_on_iopl() {
    let mut g = Guest::protected();
    g.level(3);
    g.state.sysflags |= sysflags::VM;
    assert_eq!(int(&mut g, 0x30), Err(Fault::gp(0)));
    assert_eq!(iret(&mut g, 2), Err(Fault::gp(0)));
}

#[test]
fn long_mode_pushes_a_whole_aligned_frame() {
    let mut g = Guest::long();
    handle_long(&g, 0x30, 0xffff_8000_1234_5678, 0);
    g.state.gpr[4] = 0x8009;
    g.state.rip = 0x1111;
    external(&mut g, 0x30);
    assert_eq!(g.state.rip, 0xffff_8000_1234_5678);
    assert_eq!(g.state.gpr[4], 0x7fd8);
    let frame = [0x1111, LONG0.into(), 2, 0x8009, DATA0.into()];
    assert_eq!(quads(&g, 0x7fd8), frame);
    iret(&mut g, 8).unwrap();
    assert_eq!((g.state.rip, g.state.gpr[4]), (0x1111, 0x8009));
}

#[test]
fn long_mode_takes_stacks_from_the_tss() {
    let mut g = Guest::long();
    handle_long(&g, 0x30, 0x1000, 0);
    handle_long(&g, 0x31, 0x1000, 2);
    g.put(TSS + 4, 0x9000);
    g.put(TSS + 36 + 8, 0xa000);
    g.level(3);
    g.state.gpr[4] = 0x8000;
    external(&mut g, 0x30);
    assert_eq!((g.state.sys.cpl, g.state.gpr[4]), (0, 0x8fd8));
    assert_eq!((g.state.seg_sel[2], g.state.seg_sel[1]), (0, LONG0));
    external(&mut g, 0x31);
    assert_eq!(g.state.gpr[4], 0x9fd8);
    iret(&mut g, 8).unwrap();
    assert_eq!((g.state.sys.cpl, g.state.gpr[4]), (0, 0x8fd8));
    iret(&mut g, 8).unwrap();
    assert_eq!((g.state.sys.cpl, g.state.gpr[4]), (3, 0x8000));
    assert_eq!((g.state.seg_sel[2], g.state.seg_sel[1]), (DATA3, LONG3));
}

#[test]
fn long_mode_stacks_must_lie_in_the_tss() {
    for (vector, ist, last) in [(0x30, 0, 11), (0x31, 7, 91)] {
        let mut g = Guest::long();
        handle_long(&g, vector, 0x1000, ist);
        let at = IDT + 16 * u64::from(vector);
        g.put(at, g.get(at) | 3 << 45);
        g.put(TSS + u64::from(last) - 7, 0x9000);
        g.level(3);
        g.state.sys.tr.limit = last - 1;
        assert_eq!(int(&mut g, vector), Err(Fault::ts(TSS_SEL.into())));
        g.state.sys.tr.limit = last;
        int(&mut g, vector).unwrap();
        assert_eq!(g.state.gpr[4], 0x8fd8);
    }
}

#[test]
fn long_mode_returns_to_compatibility_code() {
    let mut g = Guest::long();
    g.state.gpr[4] = 0x8000;
    let frame = [0x1111, CODE3.into(), 0x202, 0x1_0000_7000, DATA3.into()];
    for (n, quad) in frame.into_iter().enumerate() {
        g.put(0x8000 + 8 * n as u64, quad);
    }
    iret(&mut g, 8).unwrap();
    assert_eq!((g.state.seg_sel[1], g.state.rip), (CODE3, 0x1111));
    assert_eq!(g.state.gpr[4], 0x7000);
    assert!(!mode::is_long_code(&g.state));
    // A null stack is not for it.
    g.level(0);
    g.state.gpr[4] = 0x8000;
    g.put(0x8020, 3);
    assert_eq!(iret(&mut g, 8), Err(Fault::gp(0)));
    // Nor are gates to 32-bit code, or nested tasks, for IA-32e mode.
    handle_long(&g, 0x30, 0, 0);
    g.put(IDT + 16 * 0x30, gate(CODE0, 0, present(INT32, 0), 0));
    assert_eq!(int(&mut g, 0x30), Err(Fault::gp(CODE0.into())));
    g.state.sysflags |= sysflags::NT;
    assert_eq!(iret(&mut g, 8), Err(Fault::gp(0)));
}

#[test]
fn iret_lets_a_level_change_only_its_own_flags() {
    for (iopl, expected) in [(0, 0x4_4ed7), (3, 0x4_7cd7)] {
        let mut g = Guest::protected();
        g.level(3);
        g.state.set_rflags(0x202 | iopl << 12);
        g.state.gpr[4] = 0x8000;
        for (n, word) in [0x1111, CODE3.into(), 0x1f_4cd7_u32]
            .into_iter()
            .enumerate()
        {
            g.put32(0x8000 + 4 * n as u64, word);
        }
        iret(&mut g, 4).unwrap();
        // VM, VIF and VIP are not level 3's; RF is any level's.
        assert_eq!(g.state.rflags(), expected | 0x1_0000, "IOPL {iopl}");
    }
}

#[test]
fn iret_unblocks_nmi() {
    let mut g = Guest::protected();
    g.state.gpr[4] = 0x8000;
    g.state.sys.nmi_blocked = true;
    assert_eq!(iret(&mut g, 4), Err(Fault::gp(0)));
    assert!(!g.state.sys.nmi_blocked);
}
