//! Every exception that an instruction can raise, in every mode and at both ends of privilege.

use crate::contexts::{Context, ENDS};
use crate::harness::{CODE, assemble};
use crate::tables::{
    IDT, INNER_STACK, Record, STACK, STUB, STUBS, descriptor, gate32, gate64, sel,
};
use Context::*;
use iced_x86::code_asm::*;
use metaphrase_runtime::CpuState;
use metaphrase_runtime::system::{cr0, cr4};

/// Writes code.
type Write = fn(&mut CodeAssembler);

const NONE: u32 = u32::MAX;
const RF: u32 = 1 << 16;
const NOT_PRESENT: u16 = sel::FREE;
const READ_ONLY: u16 = sel::FREE + 8;

/// An instruction that raises an exception.
struct Case {
    /// What comes before it.
    before: Write,
    raise: Write,
    vector: u32,
    error: u32,
    /// The return address lies behind it.
    trap: bool,
    /// Registers.
    set: fn(&mut CpuState),
}

impl Case {
    fn fault(raise: Write, vector: u32, error: u32) -> Case {
        Case {
            before: |_| {},
            raise,
            vector,
            error,
            trap: false,
            set: |_| {},
        }
    }

    fn trap(raise: Write, vector: u32) -> Case {
        Case {
            trap: true,
            ..Case::fault(raise, vector, NONE)
        }
    }

    fn after(self, before: Write) -> Case {
        Case { before, ..self }
    }

    fn with(self, set: fn(&mut CpuState)) -> Case {
        Case { set, ..self }
    }

    /// Runs it in those contexts; the whole frame must be as the manual has it.
    fn run(&self, contexts: impl IntoIterator<Item = Context>) {
        for context in contexts {
            eprintln!("{context:?}");
            self.run_in(context);
        }
    }

    fn run_in(&self, context: Context) {
        let bits = context.bits();
        let code = |parts: &[Write]| {
            assemble(bits, CODE, |a| {
                a.nop().unwrap();
                parts.iter().for_each(|write| write(a));
            })
        };
        let begin = code(&[self.before]).len() as u32;
        let end = code(&[self.before, self.raise]).len() as u32;
        let ip = CODE as u32 + if self.trap { end } else { begin };
        let set = self.set;
        let mut guest = context
            .guest(code(&[self.before, self.raise, |a| a.hlt().unwrap()]))
            .entry(NOT_PRESENT, descriptor(0, 0xfffff, 0x73, 0xc))
            .entry(READ_ONLY, descriptor(0, 0xfffff, 0xf1, 0xc))
            .setup(set);
        for vector in [3, 4, 0x21] {
            guest = open_gate(guest, context, vector);
        }
        let (vector, trap) = (self.vector, self.trap);
        let error = if context == Real { NONE } else { self.error };
        guest.run(|m| {
            let record = Record::of(m);
            assert_eq!(
                (record.vector, record.error, record.ip),
                (vector, error, ip),
                "{record:x?}"
            );
            assert_eq!(record.cs, u32::from(context.cs()), "CS");
            if context != Real {
                assert_eq!(record.flags & RF != 0, !trap, "RF: {:x}", record.flags);
            }
            let width = context.frame_word();
            let outer = context.cpl() != 0;
            if outer || context.is_ia32e() {
                let saved = (record.stack(m, 0, width), record.stack(m, 1, width));
                let expected = (context.sp() as u32, u32::from(context.ss()));
                assert_eq!(saved, expected, "ESP, SS");
            }
            let top = if outer { INNER_STACK } else { STACK } as u32;
            let above = match context {
                Real => 0,
                V86 => 6 * 4,
                _ if context.is_ia32e() => 2 * 8,
                _ if outer => 2 * 4,
                _ => 0,
            };
            assert_eq!(record.esp, top - above, "the frame's end");
            let s = m.state();
            assert_eq!(s.sys.cpl, 0);
            assert_eq!(s.rflags() & (u64::from(RF) | 0x4300), 0, "IF, TF, NT, RF");
        });
    }
}

/// Lets every level call a vector's handler.
fn open_gate(guest: crate::harness::Guest, context: Context, vector: u64) -> crate::harness::Guest {
    let at = STUBS + STUB * vector;
    if context.is_ia32e() {
        let gate = gate64(sel::CODE64, at, 0xee, 0);
        guest.with(IDT + 16 * vector, crate::tables::bytes(&gate))
    } else if context != Real {
        let gate = gate32(sel::CODE32, at as u32, 0xee);
        guest.with(IDT + 8 * vector, gate.to_le_bytes())
    } else {
        guest
    }
}

fn legacy() -> impl Iterator<Item = Context> {
    ENDS.into_iter().filter(|c| c.bits() != 64)
}

fn protected() -> impl Iterator<Item = Context> {
    ENDS.into_iter().filter(|c| c.is_protected())
}

fn users() -> impl Iterator<Item = Context> {
    ENDS.into_iter().filter(|c| c.cpl() == 3)
}

#[test]
fn divide_error() {
    Case::fault(|a| a.div(ecx).unwrap(), 0, NONE)
        .after(|a| a.xor(ecx, ecx).unwrap())
        .run(ENDS);
    Case::fault(|a| a.idiv(bl).unwrap(), 0, NONE)
        .after(|a| {
            a.mov(ax, 0x4000).unwrap();
            a.mov(bl, 2).unwrap();
        })
        .run(ENDS);
    Case::fault(|a| a.db(&[0xd4, 0]).unwrap(), 0, NONE).run(legacy());
}

#[test]
fn debug_by_int1() {
    Case::trap(|a| a.int1().unwrap(), 1).run(ENDS);
}

#[test]
fn breakpoint_and_overflow() {
    Case::trap(|a| a.int3().unwrap(), 3).run(ENDS);
    Case::trap(|a| a.into().unwrap(), 4)
        .after(|a| {
            a.mov(al, 0x7f).unwrap();
            a.inc(al).unwrap();
        })
        .run(legacy());
}

#[test]
fn software_interrupt() {
    let contexts = ENDS.into_iter().filter(|&c| c != V86);
    Case::trap(|a| a.int(0x21).unwrap(), 0x21).run(contexts);
    // Without IOPL 3 virtual-8086 code cannot; with it, it can.
    Case::fault(|a| a.int(0x21).unwrap(), 13, 0).run([V86]);
    Case::trap(|a| a.int(0x21).unwrap(), 0x21)
        .with(|s| s.set_rflags(s.rflags() | 0x3000))
        .run([V86]);
    // A gate of level 0.
    let closed = users().filter(|&c| c != V86);
    Case::fault(|a| a.int(0x22).unwrap(), 13, 0x22 * 8 + 2).run(closed);
}

#[test]
fn bound_range() {
    // Both bounds are 0.
    Case::fault(|a| a.bound(ax, dword_ptr(0x500)).unwrap(), 5, NONE)
        .after(|a| a.mov(eax, 5u32).unwrap())
        .run(legacy());
}

#[test]
fn invalid_opcode() {
    Case::fault(|a| a.ud2().unwrap(), 6, NONE).run(ENDS);
    // LOCK NOP.
    Case::fault(|a| a.db(&[0xf0, 0x90]).unwrap(), 6, NONE).run(ENDS);
    // LOCK ADD EAX, EAX.
    Case::fault(|a| a.db(&[0xf0, 0x01, 0xc0]).unwrap(), 6, NONE).run(ENDS);
    // MOV CS, EAX.
    Case::fault(|a| a.db(&[0x8e, 0xc8]).unwrap(), 6, NONE).run(ENDS);
    Case::fault(|a| a.db(&[0x0f, 0xff, 0xc0]).unwrap(), 6, NONE).run(ENDS);
}

#[test]
fn device_not_available() {
    Case::fault(|a| a.fld1().unwrap(), 7, NONE)
        .with(|s| s.sys.cr0 |= cr0::TS)
        .run(ENDS);
    Case::fault(|a| a.fld1().unwrap(), 7, NONE)
        .with(|s| s.sys.cr0 |= cr0::EM)
        .run(ENDS);
    Case::fault(|a| a.wait().unwrap(), 7, NONE)
        .with(|s| s.sys.cr0 |= cr0::TS | cr0::MP)
        .run(ENDS);
    Case::fault(|a| a.addps(xmm1, xmm2).unwrap(), 7, NONE)
        .with(|s| {
            s.sys.cr0 |= cr0::TS;
            s.sys.cr4 |= cr4::OSFXSR;
        })
        .run(ENDS);
}

#[test]
fn sse_that_the_system_has_not_turned_on() {
    Case::fault(|a| a.addps(xmm1, xmm2).unwrap(), 6, NONE)
        .with(|s| s.sys.cr4 &= !cr4::OSFXSR)
        .run(ENDS);
}

#[test]
fn segment_not_present() {
    let load = |a: &mut CodeAssembler| a.mov(ds, eax).unwrap();
    Case::fault(load, 11, u32::from(NOT_PRESENT))
        .after(|a| a.mov(eax, u32::from(NOT_PRESENT | 3)).unwrap())
        .run(protected());
}

#[test]
fn bad_selectors() {
    let load = |a: &mut CodeAssembler| a.mov(fs, eax).unwrap();
    // Beyond the table, and in no LDT.
    Case::fault(load, 13, 0xfff8)
        .after(|a| a.mov(eax, 0xfff8u32).unwrap())
        .run(protected());
    Case::fault(load, 13, 0x14)
        .after(|a| a.mov(eax, 0x17u32).unwrap())
        .run(protected());
    // A TSS.
    Case::fault(load, 13, u32::from(sel::TSS))
        .after(|a| a.mov(eax, u32::from(sel::TSS)).unwrap())
        .run(protected());
    // SS: null, read-only.
    let stack = |a: &mut CodeAssembler| a.mov(ss, eax).unwrap();
    let no_null = protected().filter(|&c| c != Long(0));
    Case::fault(stack, 13, 0)
        .after(|a| a.xor(eax, eax).unwrap())
        .run(no_null);
    Case::fault(stack, 13, u32::from(READ_ONLY))
        .after(|a| a.mov(eax, u32::from(READ_ONLY | 3)).unwrap())
        .run(protected());
}

#[test]
fn segment_limits() {
    // A word over the end of a segment of 64 KiB.
    let at_the_end = |a: &mut CodeAssembler| a.mov(ax, word_ptr(bx)).unwrap();
    Case::fault(at_the_end, 13, 0)
        .after(|a| a.mov(bx, 0xffffu32).unwrap())
        .run([Real, V86]);
    let on_the_stack = |a: &mut CodeAssembler| a.mov(ax, word_ptr(bp)).unwrap();
    Case::fault(on_the_stack, 12, 0)
        .after(|a| a.mov(bp, 0xffffu32).unwrap())
        .run([Real, V86]);
    // In 32-bit code, with a limit.
    let limited = |s: &mut CpuState| s.sys.seg_limit[4] = 0x2fff;
    let word = |a: &mut CodeAssembler| a.mov(eax, dword_ptr(0x2ffd).fs()).unwrap();
    let small = [
        Protected16(0),
        Protected32(0),
        Protected32(3),
        Compatibility32(0),
        Compatibility32(3),
    ];
    Case::fault(word, 13, 0).with(limited).run(small);
    // Null segments.
    let null = |s: &mut CpuState| {
        s.seg_sel[4] = 0;
        s.sys.seg_attr[4] = 0;
    };
    Case::fault(word, 13, 0).with(null).run(small);
    // Writes to what is read-only.
    let read_only = |s: &mut CpuState| s.sys.seg_attr[4] &= !2;
    let write = |a: &mut CodeAssembler| a.mov(dword_ptr(0x2000).fs(), eax).unwrap();
    Case::fault(write, 13, 0).with(read_only).run(small);
}

#[test]
fn addresses_that_are_not_canonical() {
    let set = |s: &mut CpuState| {
        s.gpr[3] = 0x8000_0000_0000;
        s.gpr[5] = 0x8000_0000_0000;
    };
    let long = [Long(0), Long(3)];
    Case::fault(|a| a.mov(eax, dword_ptr(rbx)).unwrap(), 13, 0)
        .with(set)
        .run(long);
    Case::fault(|a| a.mov(dword_ptr(rbx), eax).unwrap(), 13, 0)
        .with(set)
        .run(long);
    Case::fault(|a| a.mov(rax, qword_ptr(rbp)).unwrap(), 12, 0)
        .with(set)
        .run(long);
    Case::fault(|a| a.jmp(rbx).unwrap(), 13, 0)
        .with(set)
        .run(long);
}

#[test]
fn privileged_instructions_below_level_0() {
    let instructions: [Write; 12] = [
        |a| a.hlt().unwrap(),
        |a| a.clts().unwrap(),
        |a| a.lgdt(fword_ptr(0x500)).unwrap(),
        |a| a.lidt(fword_ptr(0x500)).unwrap(),
        |a| a.lmsw(ax).unwrap(),
        |a| a.rdmsr().unwrap(),
        |a| a.wrmsr().unwrap(),
        |a| a.invd().unwrap(),
        |a| a.wbinvd().unwrap(),
        |a| a.db(&[0x0f, 0x01, 0x38]).unwrap(),
        |a| a.db(&[0x0f, 0x20, 0xc0]).unwrap(),
        |a| a.db(&[0x0f, 0x21, 0xc0]).unwrap(),
    ];
    for raise in instructions {
        Case::fault(raise, 13, 0).run(users());
    }
}

#[test]
fn instructions_under_iopl() {
    let instructions: [Write; 4] = [
        |a| a.cli().unwrap(),
        |a| a.sti().unwrap(),
        |a| a.in_(al, dx).unwrap(),
        |a| a.out(dx, al).unwrap(),
    ];
    for raise in instructions {
        Case::fault(raise, 13, 0).run(users());
    }
    let virtual_8086: [Write; 2] = [|a| a.pushf().unwrap(), |a| a.popf().unwrap()];
    for raise in virtual_8086 {
        Case::fault(raise, 13, 0).run([V86]);
    }
}

#[test]
fn page_fault() {
    // Outside RAM and page tables: 4 GiB in 64-bit code; nothing maps it.
    let nowhere = |s: &mut CpuState| s.gpr[3] = 0x4000_1234;
    let set_cr2 = |a: &mut CodeAssembler| a.mov(eax, dword_ptr(ebx)).unwrap();
    Case::fault(set_cr2, 14, 0)
        .with(nowhere)
        .run([Compatibility32(0), Long(0)]);
    Case::fault(set_cr2, 14, 4)
        .with(nowhere)
        .run([Compatibility32(3), Long(3)]);
    let write = |a: &mut CodeAssembler| a.mov(dword_ptr(ebx), eax).unwrap();
    Case::fault(write, 14, 2)
        .with(nowhere)
        .run([Compatibility32(0), Long(0)]);
    Case::fault(write, 14, 6)
        .with(nowhere)
        .run([Compatibility32(3), Long(3)]);
    let jump = |a: &mut CodeAssembler| a.call(rbx).unwrap();
    // The jump is done; the fetch at its target is not.
    for (context, error) in [(Long(0), 0x10), (Long(3), 0x14)] {
        let code = assemble(64, CODE, jump);
        context.guest(code).setup(nowhere).run(|m| {
            let record = Record::of(m);
            let seen = (record.vector, record.error, record.ip, record.cr2);
            assert_eq!(seen, (14, error, 0x4000_1234, 0x4000_1234));
        });
    }
}

#[test]
fn floating_point_error() {
    // FLDCW with nothing masked; 1 / 0; the next waiting instruction faults.
    let divide = |a: &mut CodeAssembler| {
        a.fninit().unwrap();
        a.fldcw(word_ptr(0x500)).unwrap();
        a.fld1().unwrap();
        a.fldz().unwrap();
        a.fdivp(st1, st0).unwrap();
    };
    for context in ENDS {
        eprintln!("{context:?}");
        let bits = context.bits();
        let begin = assemble(bits, CODE, divide).len() as u32;
        let code = assemble(bits, CODE, |a| {
            divide(a);
            a.wait().unwrap();
            a.hlt().unwrap();
        });
        let guest = context.guest(code).with(0x500, 0x340u16.to_le_bytes());
        let guest = guest.setup(|s| s.sys.cr0 |= cr0::NE);
        guest.run(|m| {
            let record = Record::of(m);
            assert_eq!((record.vector, record.ip), (16, CODE as u32 + begin));
        });
    }
}

#[test]
fn alignment_check() {
    let set = |s: &mut CpuState| {
        s.sys.cr0 |= cr0::AM;
        s.set_rflags(s.rflags() | 1 << 18);
    };
    let read = |a: &mut CodeAssembler| a.mov(eax, dword_ptr(0x502)).unwrap();
    Case::fault(read, 17, 0).with(set).run(users());
    let write = |a: &mut CodeAssembler| a.mov(word_ptr(0x501), ax).unwrap();
    Case::fault(write, 17, 0).with(set).run(users());
}

#[test]
fn simd_error() {
    let divide = |a: &mut CodeAssembler| a.divss(xmm1, xmm2).unwrap();
    let set = |s: &mut CpuState| {
        s.sys.cr4 |= cr4::OSFXSR | cr4::OSXMMEXCPT;
        s.mxcsr = 0x1d80;
        s.xmm[1] = 0x3f80_0000;
    };
    Case::fault(divide, 19, NONE).with(set).run(ENDS);
    // Without OSXMMEXCPT it is an invalid opcode.
    let unknown = |s: &mut CpuState| {
        s.sys.cr4 |= cr4::OSFXSR;
        s.sys.cr4 &= !cr4::OSXMMEXCPT;
        s.mxcsr = 0x1d80;
        s.xmm[1] = 0x3f80_0000;
    };
    Case::fault(divide, 6, NONE).with(unknown).run(ENDS);
}
