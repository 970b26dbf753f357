//! Interrupts at given instructions, their shadows, NMI, HLT, and the single step.

use crate::contexts::Context;
use crate::harness::{CODE, Guest, assemble, engines, word};
use crate::tables::{IDT, bytes, gate32, gate64, sel};
use Context::*;
use iced_x86::code_asm::*;
use metaphrase_devices::Timed;
use metaphrase_runtime::system::InterruptController;
use metaphrase_runtime::{Machine, MachineStop};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Where handlers write.
const LOG: u64 = 0x500;
/// Where the tests' own handler lies.
const OWN: u64 = 0x5c00;
/// The vector of the interrupts.
const VECTOR: u8 = 0x20;

const IF: u64 = 0x200;
const TF: u64 = 0x100;

/// Vectors that wait.
type Raised = Arc<Mutex<VecDeque<u8>>>;

/// Raises its line when its time has come; a nanosecond is an instruction.
struct Plan {
    at: VecDeque<u64>,
    raised: Raised,
}

impl Timed for Plan {
    fn next_event(&self, _now: u64) -> Option<u64> {
        self.at.front().copied()
    }

    fn advance(&mut self, now: u64) {
        while self.at.front().is_some_and(|&at| at <= now) {
            self.at.pop_front();
            let mut raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
            raised.push_back(VECTOR);
        }
    }
}

struct Controller(Raised);

impl InterruptController for Controller {
    fn pending(&self) -> bool {
        let raised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !raised.is_empty()
    }

    fn acknowledge(&mut self) -> u8 {
        let mut raised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        raised.pop_front().unwrap_or(0x3f)
    }
}

/// The guest with interrupts after those instructions.
fn interrupted(guest: Guest, at: &[u64]) -> Guest {
    let at: VecDeque<u64> = at.iter().copied().collect();
    guest.wire(move |parts| {
        let raised = Raised::default();
        parts.interrupts = Some(Box::new(Controller(raised.clone())));
        parts.timers.push(Box::new(Plan {
            at: at.clone(),
            raised,
        }));
    })
}

/// The guest with the handler of the test for those vectors: it counts in the word at [`LOG`],
/// and keeps the first eight return addresses behind it.
fn logging(guest: Guest, context: Context, vectors: &[u8]) -> Guest {
    let bits = match context {
        Real => 16,
        _ if context.is_ia32e() => 64,
        _ => 32,
    };
    let handler = assemble(bits, OWN, |a| match bits {
        16 => {
            a.push(bp).unwrap();
            a.mov(bp, sp).unwrap();
            a.push(ax).unwrap();
            a.push(bx).unwrap();
            a.mov(bx, word_ptr(LOG)).unwrap();
            a.mov(ax, word_ptr(bp + 2)).unwrap();
            a.shl(bx, 2).unwrap();
            a.mov(word_ptr(bx + LOG as i32 + 4), ax).unwrap();
            a.inc(word_ptr(LOG)).unwrap();
            a.pop(bx).unwrap();
            a.pop(ax).unwrap();
            a.pop(bp).unwrap();
            a.iret().unwrap();
        }
        32 => {
            a.push(eax).unwrap();
            a.push(ebx).unwrap();
            a.mov(ebx, dword_ptr(LOG).ss()).unwrap();
            a.mov(eax, dword_ptr(esp + 8)).unwrap();
            a.mov(dword_ptr(ebx * 4 + LOG as i32 + 4).ss(), eax)
                .unwrap();
            a.inc(dword_ptr(LOG).ss()).unwrap();
            a.pop(ebx).unwrap();
            a.pop(eax).unwrap();
            a.iretd().unwrap();
        }
        _ => {
            a.push(rax).unwrap();
            a.push(rbx).unwrap();
            a.mov(ebx, dword_ptr(LOG)).unwrap();
            a.mov(rax, qword_ptr(rsp + 16)).unwrap();
            a.mov(dword_ptr(rbx * 4 + LOG as i32 + 4), eax).unwrap();
            a.inc(dword_ptr(LOG)).unwrap();
            a.pop(rbx).unwrap();
            a.pop(rax).unwrap();
            a.iretq().unwrap();
        }
    });
    let mut guest = guest.with(OWN, handler);
    for &vector in vectors {
        let vector = u64::from(vector);
        guest = match bits {
            16 => guest.with(4 * vector, (OWN as u32).to_le_bytes()),
            32 => guest.with(
                IDT + 8 * vector,
                gate32(sel::CODE32, OWN as u32, 0xee).to_le_bytes(),
            ),
            _ => guest.with(IDT + 16 * vector, bytes(&gate64(sel::CODE64, OWN, 0xee, 0))),
        };
    }
    guest
}

/// The return addresses that the handler has logged, from [`CODE`] on.
fn log(m: &Machine) -> Vec<u32> {
    let count = u64::from(word(m, LOG)).min(40);
    (0..count)
        .map(|n| word(m, LOG + 4 + 4 * n).wrapping_sub(CODE as u32))
        .collect()
}

const KERNELS: [Context; 5] = [
    Real,
    Protected16(0),
    Protected32(0),
    Compatibility32(0),
    Long(0),
];

fn enabled(guest: Guest) -> Guest {
    guest.setup(|s| s.set_rflags(s.rflags() | IF))
}

/// A guest that ends in CLI and HLT.
fn kernel(context: Context, write: impl FnOnce(&mut CodeAssembler)) -> Guest {
    context.guest(assemble(context.bits(), CODE, |a| {
        write(a);
        a.cli().unwrap();
        a.hlt().unwrap();
    }))
}

#[test]
fn an_interrupt_comes_at_its_instruction() {
    for context in KERNELS {
        // Each of 30 NOPs is a byte: the return address says where it came.
        for at in [1, 2, 9, 20] {
            let guest = kernel(context, |a| (0..30).for_each(|_| a.nop().unwrap()));
            let guest = enabled(logging(interrupted(guest, &[at]), context, &[VECTOR]));
            guest.run(|m| assert_eq!(log(m), [at as u32], "{context:?}"));
        }
    }
}

#[test]
fn interrupts_stop_a_program() {
    for context in [V86, Protected32(3), Compatibility32(3), Long(3)] {
        // A loop without end; a later interrupt's handler halts.
        let code = assemble(context.bits(), CODE, |a| {
            let mut again = a.create_label();
            a.set_label(&mut again).unwrap();
            a.inc(ebx).unwrap();
            a.jmp(again).unwrap();
        });
        let guest = interrupted(context.guest(code), &[1000, 5001]);
        enabled(guest).run(|m| {
            let record = crate::tables::Record::of(m);
            assert_eq!(record.vector, u32::from(VECTOR));
            assert_eq!(record.error, u32::MAX);
            assert_eq!(record.cs, u32::from(context.cs()));
            assert_eq!(
                record.flags & (IF as u32 | 1 << 16),
                IF as u32,
                "RF is clear"
            );
            assert_eq!(m.state().gpr[3], 500);
        });
    }
}

#[test]
fn interrupts_interrupt_rep() {
    for context in KERNELS {
        let guest = kernel(context, |a| {
            a.mov(ecx, 100u32).unwrap();
            a.mov(esi, 0x9000u32).unwrap();
            a.mov(edi, 0xa000u32).unwrap();
            a.rep().movsb().unwrap();
        });
        let code = assemble(context.bits(), CODE, |a| {
            a.mov(ecx, 100u32).unwrap();
            a.mov(esi, 0x9000u32).unwrap();
            a.mov(edi, 0xa000u32).unwrap();
        });
        let source: Vec<u8> = (1..=100).collect();
        let guest = enabled(logging(
            interrupted(guest, &[3, 30, 90]),
            context,
            &[VECTOR],
        ));
        guest.with(0x9000, source.clone()).run(|m| {
            let mut copied = [0; 100];
            m.memory().read_bytes(0xa000, &mut copied);
            assert_eq!(copied[..], source[..]);
            assert_eq!(m.state().gpr[1], 0);
            assert_eq!(log(m).first(), Some(&(code.len() as u32)), "{context:?}");
        });
    }
}

#[test]
fn sti_shields_one_instruction() {
    for context in KERNELS {
        // The interrupt waits from the start; the byte behind STI is still done.
        let guest = kernel(context, |a| {
            a.sti().unwrap();
            (0..4).for_each(|_| a.nop().unwrap());
        });
        let guest = logging(interrupted(guest, &[0]), context, &[VECTOR]);
        guest.run(|m| assert_eq!(log(m), [2], "{context:?}"));
        // STI; CLI: never.
        let guest = kernel(context, |a| {
            a.sti().unwrap();
            a.cli().unwrap();
            (0..4).for_each(|_| a.nop().unwrap());
        });
        let guest = logging(interrupted(guest, &[0]), context, &[VECTOR]);
        guest.run(|m| assert_eq!(log(m), [], "{context:?}"));
        // STI with IF set already shields nothing: a second STI is no shield either.
        let guest = kernel(context, |a| {
            a.sti().unwrap();
            a.sti().unwrap();
            (0..4).for_each(|_| a.nop().unwrap());
        });
        let guest = logging(interrupted(guest, &[0]), context, &[VECTOR]);
        guest.run(|m| assert_eq!(log(m), [2], "{context:?}"));
        // POPF shields nothing.
        let guest = kernel(context, |a| {
            a.push(0x202).unwrap();
            popf(a);
            (0..4).for_each(|_| a.nop().unwrap());
        });
        let popf = assemble(context.bits(), CODE, |a| {
            a.push(0x202).unwrap();
            popf(a);
        });
        let guest = logging(interrupted(guest, &[0]), context, &[VECTOR]);
        guest.run(|m| assert_eq!(log(m), [popf.len() as u32], "{context:?}"));
    }
}

#[test]
fn a_load_of_ss_shields_one_instruction() {
    for context in KERNELS {
        let before = |a: &mut CodeAssembler| {
            a.mov(eax, ss).unwrap();
            a.mov(ss, eax).unwrap();
        };
        let at = assemble(context.bits(), CODE, before).len() as u32;
        // The line rises with MOV SS done.
        let guest = kernel(context, |a| {
            before(a);
            (0..4).for_each(|_| a.nop().unwrap());
        });
        let guest = enabled(logging(interrupted(guest, &[2]), context, &[VECTOR]));
        guest.run(|m| assert_eq!(log(m), [at + 1], "{context:?}"));
    }
}

#[test]
fn hlt_waits() {
    for context in KERNELS {
        let guest = kernel(context, |a| {
            a.sti().unwrap();
            a.hlt().unwrap();
            a.nop().unwrap();
            a.hlt().unwrap();
        });
        let guest = logging(interrupted(guest, &[1_000, 1_000_000]), context, &[VECTOR]);
        guest.run(|m| {
            assert_eq!(log(m), [2, 4], "{context:?}");
            assert!(m.instructions() < 100, "waiting is no instruction");
        });
        // With interrupts off nothing wakes it.
        let guest = context.guest(assemble(context.bits(), CODE, |a| a.hlt().unwrap()));
        let guest = logging(interrupted(guest, &[100]), context, &[VECTOR]);
        let mut machine = guest.machine(engines().remove(0).1);
        assert_eq!(machine.run(10_000).expect("it runs"), MachineStop::Halted);
        assert_eq!(log(&machine), []);
    }
}

#[test]
fn nmi() {
    for context in KERNELS {
        for (name, options) in engines() {
            let guest = kernel(context, |a| {
                (0..8).for_each(|_| a.nop().unwrap());
                a.hlt().unwrap();
            });
            let guest = logging(guest, context, &[2]);
            let mut machine = guest.machine(options);
            machine.run(3).expect("it runs");
            machine.raise_nmi();
            assert_eq!(machine.run(2).expect("it runs"), MachineStop::Budget);
            assert!(machine.state().sys.nmi_blocked);
            // Another waits for the handler's IRET, then comes at once.
            machine.raise_nmi();
            assert_eq!(machine.run(1000).expect("it runs"), MachineStop::Halted);
            assert_eq!(log(&machine), [3, 3], "{name} {context:?}");
            assert!(!machine.state().sys.nmi_blocked);
            // It wakes from HLT with interrupts off; there is another HLT.
            machine.raise_nmi();
            assert_eq!(machine.run(1000).expect("it runs"), MachineStop::Halted);
            assert_eq!(log(&machine), [3, 3, 9], "{name} {context:?}");
        }
    }
}

/// What a single step logs: the return addresses of #DB, and DR6 in the end.
fn stepped(context: Context, write: impl Fn(&mut CodeAssembler), expected: &[u32]) {
    eprintln!("{context:?}");
    let guest = context.guest(assemble(context.bits(), CODE, |a| {
        write(a);
        clear(a);
        a.hlt().unwrap();
    }));
    let guest = logging(guest, context, &[1, 0x21]);
    let guest = guest.setup(|s| s.set_rflags(s.rflags() | TF));
    guest.run(|m| {
        assert_eq!(log(m), expected, "{context:?}");
        assert_eq!(m.state().sys.dr[6] & 0xf00f, 0x4000, "BS");
    });
}

#[test]
fn single_step_over_everything() {
    for context in KERNELS {
        let length =
            |write: &dyn Fn(&mut CodeAssembler)| assemble(context.bits(), CODE, write).len() as u32;
        // The traps of the code, with those of what clears TF.
        let check = |code: &dyn Fn(&mut CodeAssembler), expected: &[u32]| {
            let end = length(&|a| {
                code(a);
                clear(a);
            });
            let mut expected = expected.to_vec();
            expected.extend([end - length(&popf), end]);
            stepped(context, code, &expected);
        };
        check(&|a| (0..2).for_each(|_| a.nop().unwrap()), &[1, 2]);

        // Each iteration of REP.
        let count = |a: &mut CodeAssembler| a.mov(ecx, 3u32).unwrap();
        let place = |a: &mut CodeAssembler| a.mov(edi, 0xa000u32).unwrap();
        let fill = |a: &mut CodeAssembler| a.rep().stosb().unwrap();
        let one = length(&count);
        let two = one + length(&place);
        let rep = |a: &mut CodeAssembler| {
            count(a);
            place(a);
            fill(a);
        };
        check(&rep, &[one, two, two, two, two + length(&fill)]);

        // MOV SS puts the trap off.
        let read = |a: &mut CodeAssembler| a.mov(eax, ss).unwrap();
        let write = |a: &mut CodeAssembler| a.mov(ss, eax).unwrap();
        let one = length(&read);
        let two = one + length(&write);
        let load = |a: &mut CodeAssembler| {
            read(a);
            write(a);
            a.nop().unwrap();
        };
        check(&load, &[one, two + 1]);

        // INT n clears TF before its handler, which logs INT's return address; what IRET sets
        // traps behind the next instruction.
        let int = |a: &mut CodeAssembler| {
            a.int(0x21).unwrap();
            a.nop().unwrap();
        };
        check(&int, &[2, 3]);
    }
}

#[test]
fn popf_that_sets_tf_traps_behind_the_next_instruction() {
    for context in KERNELS {
        let set = |a: &mut CodeAssembler| {
            a.push(0x102).unwrap();
            popf(a);
        };
        let at = assemble(context.bits(), CODE, set).len() as u32;
        let guest = kernel(context, |a| {
            set(a);
            a.nop().unwrap();
            a.nop().unwrap();
            clear(a);
        });
        let last = assemble(context.bits(), CODE, |a| {
            set(a);
            a.nop().unwrap();
            a.nop().unwrap();
            clear(a);
        })
        .len() as u32;
        let before = last - assemble(context.bits(), CODE, popf).len() as u32;
        let guest = logging(guest, context, &[1]);
        guest.run(|m| {
            assert_eq!(log(m), [at + 1, at + 2, before, last], "{context:?}");
        });
    }
}

/// POPF of everything that was pushed.
fn popf(a: &mut CodeAssembler) {
    match a.bitness() {
        16 => a.popf().unwrap(),
        32 => a.popfd().unwrap(),
        _ => a.popfq().unwrap(),
    }
}

/// Clears TF. Stepped over are PUSH and, though it clears TF, POPF.
fn clear(a: &mut CodeAssembler) {
    a.push(2).unwrap();
    popf(a);
}
