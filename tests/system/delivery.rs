//! Exceptions while exceptions are delivered: double faults, triple faults, and stacks that fail.

use crate::contexts::Context;
use crate::harness::{CODE, assemble};
use crate::tables::{
    GDT, IDT, INNER_STACK, Record, STACK, STUB, STUBS, TSS, bytes, descriptor, gate32, gate64, sel,
};
use Context::*;
use metaphrase_runtime::MachineStop;

const DF: u64 = 8;
const GP: u64 = 13;
const NP: u64 = 11;

/// A guest whose only instruction is UD2.
fn undefined(context: Context) -> crate::harness::Guest {
    context.guest(assemble(context.bits(), CODE, |a| a.ud2().unwrap()))
}

/// A guest with another gate for a vector.
fn gate(
    guest: crate::harness::Guest,
    context: Context,
    vector: u64,
    selector: u16,
    access: u8,
) -> crate::harness::Guest {
    let at = STUBS + STUB * vector;
    if context.is_ia32e() {
        guest.with(IDT + 16 * vector, bytes(&gate64(selector, at, access, 0)))
    } else {
        guest.with(
            IDT + 8 * vector,
            gate32(selector, at as u32, access).to_le_bytes(),
        )
    }
}

const KERNELS: [Context; 3] = [Protected16(0), Protected32(0), Long(0)];
const ALL: [Context; 6] = [
    V86,
    Protected32(0),
    Protected32(3),
    Compatibility32(3),
    Long(0),
    Long(3),
];

fn code_of(context: Context) -> u16 {
    if context.is_ia32e() {
        sel::CODE64
    } else {
        sel::CODE32
    }
}

#[test]
fn a_gate_that_is_not_present() {
    for context in ALL {
        let guest = gate(undefined(context), context, 6, code_of(context), 0x0e);
        guest.run(|m| {
            let record = Record::of(m);
            let seen = (record.vector, record.error, record.ip);
            // #NP of an external event: IDT and EXT.
            assert_eq!(seen, (NP as u32, 6 * 8 + 3, CODE as u32));
        });
    }
}

#[test]
fn a_gate_to_nowhere() {
    for context in ALL {
        // To a selector beyond the table; to data; to a gate type that there is not.
        let cases = [
            (0x0ff8, 0x8e, 0x0ff9),
            (sel::DATA, 0x8e, u32::from(sel::DATA) + 1),
            (0, 0x8e, 1),
            (sel::CODE32, 0x80, 6 * 8 + 3),
            (sel::CODE32, 0x8c, 6 * 8 + 3),
        ];
        for (selector, access, error) in cases {
            let guest = gate(undefined(context), context, 6, selector, access);
            guest.run(|m| {
                let record = Record::of(m);
                assert_eq!((record.vector, record.error), (GP as u32, error));
            });
        }
    }
}

#[test]
fn a_table_that_ends_before_the_vector() {
    for context in ALL {
        let size = if context.is_ia32e() { 16 } else { 8 };
        // #UD is beyond the end, and so are #DF and #GP: a triple fault.
        let guest = undefined(context).setup(move |s| s.sys.idtr.limit = 6 * size - 1);
        guest.run_to(MachineStop::Shutdown, |_| {});
        // One byte is missing.
        let guest = undefined(context).setup(move |s| s.sys.idtr.limit = 7 * size - 2);
        guest.run_to(MachineStop::Shutdown, |_| {});
    }
}

#[test]
fn real_mode_table_that_ends_before_the_vector() {
    let guest = undefined(Real).setup(|s| s.sys.idtr.limit = 6 * 4 + 2);
    guest.run_to(MachineStop::Shutdown, |_| {});
}

#[test]
fn contributory_faults_make_a_double_fault() {
    for context in ALL {
        // #GP by LGDT or a null segment, whose gate is not present: #NP, so a double fault.
        let code = assemble(context.bits(), CODE, |a| match context.cpl() {
            0 => {
                // A load of a selector beyond the table.
                a.mov(iced_x86::code_asm::eax, 0xfff8u32).unwrap();
                a.mov(iced_x86::code_asm::ds, iced_x86::code_asm::eax)
                    .unwrap();
            }
            _ => a.hlt().unwrap(),
        });
        let guest = gate(context.guest(code), context, GP, code_of(context), 0x0e);
        guest.run(|m| {
            let record = Record::of(m);
            assert_eq!((record.vector, record.error), (DF as u32, 0));
            assert_eq!(record.flags & 1 << 16, 0, "an abort has no RF");
        });
        // And if the double fault's gate is not present either, a triple fault.
        let guest = gate(guest, context, DF, code_of(context), 0x0e);
        guest.run_to(MachineStop::Shutdown, |_| {});
    }
}

#[test]
fn benign_exceptions_are_followed_by_what_their_delivery_raises() {
    for context in ALL {
        // #UD is benign: its #NP is delivered, not a double fault; if #NP's gate is missing too,
        // that is one.
        let guest = gate(undefined(context), context, 6, code_of(context), 0x0e);
        let guest = gate(guest, context, NP, code_of(context), 0x0e);
        guest.run(|m| {
            let record = Record::of(m);
            assert_eq!((record.vector, record.error), (DF as u32, 0));
        });
    }
}

#[test]
fn page_faults_during_delivery() {
    for context in [Compatibility32(3), Long(3)] {
        // The stack of level 0 is at an address that is not mapped: the #UD becomes #PF, whose
        // delivery fails too: a double fault; and then a triple fault.
        let nowhere =
            |guest: crate::harness::Guest| guest.with(TSS + 4, 0x7000_0000u64.to_le_bytes());
        nowhere(undefined(context)).run_to(MachineStop::Shutdown, |m| {
            assert_eq!(m.state().sys.cr2, 0x7000_0000 - 8);
        });
        // With a stack of its own the double fault is handled.
        let [low, high] = gate64(sel::CODE64, STUBS + STUB * DF, 0x8e, 1);
        let guest = nowhere(undefined(context))
            .with(IDT + 16 * DF, bytes(&[low, high]))
            .with(TSS + 36, INNER_STACK.to_le_bytes());
        guest.run(|m| {
            let record = Record::of(m);
            assert_eq!((record.vector, record.error), (DF as u32, 0));
            assert_eq!(record.cr2, 0x7000_0000 - 8);
            assert_eq!(record.ip, CODE as u32);
            assert_eq!(record.stack(m, 0, 8), context.sp() as u32);
        });
        // A page fault with a stack of its own sees what delivery of #UD has touched: a write by
        // the supervisor.
        let [low, high] = gate64(sel::CODE64, STUBS + STUB * 14, 0x8e, 2);
        let guest = nowhere(undefined(context))
            .with(IDT + 16 * 14, bytes(&[low, high]))
            .with(TSS + 44, INNER_STACK.to_le_bytes());
        guest.run(|m| {
            let record = Record::of(m);
            assert_eq!((record.vector, record.error), (14, 2));
            assert_eq!(record.cr2, 0x7000_0000 - 8);
        });
    }
}

#[test]
fn interrupt_stack_table() {
    for context in [Compatibility32(0), Long(0), Long(3)] {
        for ist in 1..8u8 {
            let [low, high] = gate64(sel::CODE64, STUBS + STUB * 6, 0x8e, ist);
            // Not aligned: delivery aligns it.
            let guest = undefined(context)
                .with(IDT + 16 * 6, bytes(&[low, high]))
                .with(
                    TSS + 28 + 8 * u64::from(ist),
                    (INNER_STACK - 0x93).to_le_bytes(),
                );
            guest.run(|m| {
                let record = Record::of(m);
                assert_eq!(record.vector, 6);
                assert_eq!(record.esp as u64, INNER_STACK - 0xa0 - 16);
                assert_eq!(record.stack(m, 0, 8), context.sp() as u32);
            });
        }
    }
}

#[test]
fn stacks_of_inner_levels_that_are_bad() {
    // Legacy: SS0 null, of the wrong level, not writable, not present, beyond its limit.
    const ODD: u16 = sel::FREE;
    let read_only = descriptor(0, 0xfffff, 0x91, 0xc);
    let not_present = descriptor(0, 0xfffff, 0x13, 0xc);
    let small = descriptor(0, 0xff, 0x93, 0x4);
    let cases = [
        (0, 0, 10, 1),
        (sel::USER_DATA, 0, 10, u32::from(sel::USER_DATA & !3) + 1),
        (ODD, read_only, 10, u32::from(ODD) + 1),
        (ODD, not_present, 12, u32::from(ODD) + 1),
        (ODD, small, 12, u32::from(ODD) + 1),
    ];
    for context in [V86, Protected32(3), Protected16(3)] {
        for (selector, raw, vector, error) in cases {
            // The handlers of #TS and #SS are conforming, so they need no other stack; but in
            // virtual-8086 mode there is no way around level 0.
            const CONFORMING: u16 = sel::FREE + 8;
            let guest = undefined(context)
                .entry(ODD, raw)
                .entry(CONFORMING, descriptor(0, 0xfffff, 0x9f, 0xc))
                .with(TSS + 8, selector.to_le_bytes());
            let guest = gate(guest, context, 10, CONFORMING, 0x8e);
            let guest = gate(guest, context, 12, CONFORMING, 0x8e);
            let guest = gate(guest, context, GP, CONFORMING, 0x8e);
            if context == V86 {
                guest.run_to(MachineStop::Shutdown, |_| {});
                continue;
            }
            // The handler runs at level 3, where HLT and MOV from CR2 are #GP, which it gets in
            // its turn, and so on until the stack is full; so look at the state right away.
            let mut machine = guest.machine(crate::harness::engines().remove(0).1);
            machine.run(2).expect("it runs");
            let s = machine.state();
            assert_eq!(s.seg_sel[1], CONFORMING | 3, "{context:?} {selector:#x}");
            // Of the stub: PUSH the vector, below the error code.
            let sp = s.gpr[4];
            let _ = (vector, sp);
            let word = |n: u64| crate::harness::word(&machine, sp + 4 * n);
            let pushed = if s.rip == STUBS + STUB * vector {
                word(0)
            } else {
                word(1)
            };
            assert_eq!(pushed, error, "{context:?} {selector:#x}");
        }
    }
}

#[test]
fn a_task_state_too_short_for_stacks() {
    for context in [Protected32(3), Long(3)] {
        // #TS, which needs the stack as well: a double fault, and so on.
        let guest = undefined(context).setup(|s| s.sys.tr.limit = 3);
        guest.run_to(MachineStop::Shutdown, |_| {});
    }
}

#[test]
fn real_mode_without_a_stack() {
    // PUSH with SP = 1: #SS, for which there is no stack either.
    let code = assemble(16, CODE, |a| a.push(iced_x86::code_asm::ax).unwrap());
    Real.guest(code)
        .setup(|s| s.gpr[4] = 1)
        .run_to(MachineStop::Shutdown, |_| {});
}

#[test]
fn the_frame_in_16_bit_gates() {
    for context in [Protected16(0), Protected32(0)] {
        let gate = gate32(sel::CODE32, (STUBS + STUB * 6) as u32, 0x86);
        let guest = undefined(context).with(IDT + 8 * 6, gate.to_le_bytes());
        guest.run(|m| {
            // IP, CS, FLAGS as words, read as two doublewords by the handler.
            let record = Record::of(m);
            assert_eq!(record.ip & 0xffff, CODE as u32);
            assert_eq!(record.ip >> 16, u32::from(context.cs()));
            assert_eq!(m.state().gpr[4] as u32, STACK as u32 - 6 + 12);
        });
    }
}

#[test]
fn trap_gates_leave_interrupts_alone() {
    for context in KERNELS {
        for (access, expected) in [(0x8e, 0), (0x8f, 0x200)] {
            let guest = gate(undefined(context), context, 6, code_of(context), access);
            let guest = guest.setup(|s| s.set_rflags(s.rflags() | 0x200));
            guest.run(|m| {
                assert_eq!(Record::of(m).flags & 0x200, 0x200);
                assert_eq!(m.state().rflags() & 0x200, expected);
            });
        }
    }
}

#[test]
fn descriptors_of_handlers_become_accessed() {
    for context in KERNELS {
        const FRESH: u16 = sel::FREE;
        let flags = if context.is_ia32e() { 0xa } else { 0xc };
        let guest = undefined(context).entry(FRESH, descriptor(0, 0xfffff, 0x9a, flags));
        let guest = gate(guest, context, 6, FRESH, 0x8e);
        guest.run(|m| {
            let access = crate::harness::word(m, GDT + u64::from(FRESH) + 4) >> 8 & 0xff;
            assert_eq!(access, 0x9b);
            assert_eq!(m.state().seg_sel[1], FRESH);
        });
    }
}

#[test]
fn a_handler_that_is_not_there_ends_in_no_hang() {
    // The page fault's handler is on no page, and its stack never moves: #PF for ever.
    let [low, high] = gate64(sel::CODE64, 0x7000_0000, 0x8e, 1);
    let guest = Long(0)
        .guest(assemble(64, CODE, |a| a.jmp(0x7000_0000).unwrap()))
        .with(IDT + 16 * 14, bytes(&[low, high]))
        .with(TSS + 36, INNER_STACK.to_le_bytes());
    guest.run_to(MachineStop::Stuck, |m| {
        assert_eq!(m.state().sys.cr2, 0x7000_0000);
        assert_eq!(m.instructions(), 1);
    });
}
