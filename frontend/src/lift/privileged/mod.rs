//! System instructions of a full system ([`Mode::system`](crate::Mode)): whatever a monitor must
//! keep from the guest is one call of the helper `system`, between the reading of the operands and
//! the writing of the results, which is IR.
//!
//! Here is the list, and what all of them share: which of them the mode makes #UD or #GP straight
//! away, the call, and how the block goes on. What depends on more than the mode key (IOPL, UMIP,
//! the I/O bitmap, descriptors) is the helper's to check. Every one ends its guest block, so that
//! the count of instructions is exact when the helper runs; one whose kind
//! [`leaves`](SystemKind::leaves) ends in `exit_resume`.

mod interrupts;
mod ports;
mod registers;
mod segments;
mod tables;
mod transfers;

use super::{GP, Lift};
use crate::mode::Level;
use crate::policy::Sensitive;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use metaphrase_ir::{Helper, SystemKind, SystemOp, Type, Value};

/// How the guest block of an instruction goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// With the next instruction: it is none of these.
    Next,
    /// It ends; the next instruction starts another one.
    Ends,
    /// It ends, and where execution goes on the dispatcher finds out.
    Leaves,
}

/// How the guest block of an instruction goes on in system mode.
pub fn flow(insn: &Instruction) -> Flow {
    use Mnemonic::*;
    let segment = |n: u32| insn.op_kind(n) == OpKind::Register && is_segment(insn.op_register(n));
    let special = |n: u32| insn.op_kind(n) == OpKind::Register && is_special(insn.op_register(n));
    match insn.mnemonic() {
        Mov if special(1) => Flow::Ends,
        Mov if special(0) || segment(0) => Flow::Leaves,
        Pop if segment(0) => Flow::Leaves,
        Rdmsr | Rdtsc | Rdtscp | Rdpid | Rdpmc | Sgdt | Sidt | Sldt | Str | Smsw | Lar | Lsl
        | Verr | Verw | Pushf | Pushfd | Pushfq | Swapgs | Cli => Flow::Ends,
        Clts | Lmsw | Wrmsr | Xsetbv | Lgdt | Lidt | Lldt | Ltr | Lds | Les | Lfs | Lgs | Lss
        | Retf | Iret | Iretd | Iretq | Int | Int1 | Int3 | Into | Syscall | Sysret | Sysretq
        | Sysenter | Sysexit | Sysexitq | Rsm | Sti | Popf | Popfd | Popfq | Clac | Stac
        | Monitor | Mwait | Hlt | Invlpg | Invpcid | Invd | Wbinvd | Wbnoinvd | In | Out | Insb
        | Insw | Insd | Outsb | Outsw | Outsd => Flow::Leaves,
        Jmp | Call if is_far(insn) => Flow::Leaves,
        _ => Flow::Next,
    }
}

/// Lifts the instruction if it is one of this family and the mode a full system's.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    if cx.mode.system.is_none() || flow(&cx.insn) == Flow::Next {
        return false;
    }
    match mnemonic {
        Mov if is_special(cx.insn.op0_register()) => registers::mov_to(cx),
        Mov if is_special(cx.insn.op1_register()) => registers::mov_from(cx),
        Mov => segments::mov(cx),
        Pop => segments::pop(cx),
        Lds | Les | Lfs | Lgs | Lss => segments::load_far(cx, mnemonic),
        Swapgs => segments::swapgs(cx),
        Clts => registers::clts(cx),
        Lmsw => registers::lmsw(cx),
        Smsw => registers::smsw(cx),
        Rdmsr => registers::rdmsr(cx),
        Wrmsr => registers::wrmsr(cx),
        Rdtsc => registers::rdtsc(cx),
        Rdtscp => registers::rdtscp(cx),
        Rdpid => registers::rdpid(cx),
        Rdpmc => registers::rdpmc(cx),
        Xsetbv => registers::xsetbv(cx),
        Sgdt | Sidt => tables::store_table(cx, mnemonic == Sgdt),
        Lgdt | Lidt => tables::load_table(cx, mnemonic == Lgdt),
        Sldt | Str => tables::store_selector(cx, mnemonic == Sldt),
        Lldt | Ltr => tables::load_selector(cx, mnemonic == Lldt),
        Lar | Lsl | Verr | Verw => tables::segment_info(cx, mnemonic),
        Jmp | Call => transfers::far(cx, mnemonic == Call),
        Retf => transfers::retf(cx),
        Iret | Iretd | Iretq => transfers::iret(cx),
        Int | Int1 | Int3 | Into => transfers::int(cx, mnemonic),
        Syscall | Sysret | Sysretq | Sysenter | Sysexit | Sysexitq => {
            transfers::fast(cx, mnemonic);
        }
        Rsm => transfers::rsm(cx),
        Cli => interrupts::cli(cx),
        Sti => interrupts::sti(cx),
        Pushf | Pushfd | Pushfq => interrupts::pushf(cx),
        Popf | Popfd | Popfq => interrupts::popf(cx),
        Clac | Stac => interrupts::clac(cx, mnemonic == Stac),
        Monitor | Mwait => interrupts::monitor(cx, mnemonic == Mwait),
        Hlt => interrupts::hlt(cx),
        Invlpg | Invpcid => interrupts::invalidate(cx, mnemonic == Invlpg),
        Invd | Wbinvd | Wbnoinvd => interrupts::flush_caches(cx),
        In | Out => ports::port(cx, mnemonic == Out),
        Insb | Insw | Insd | Outsb | Outsw | Outsd => ports::string(cx),
        _ => return false,
    }
    true
}

/// Control, debug and test registers.
fn is_special(r: Register) -> bool {
    r.is_cr() || r.is_dr() || r.is_tr()
}

/// ES, CS, SS, DS, FS, GS.
fn is_segment(r: Register) -> bool {
    r.is_segment_register()
}

/// A far JMP or CALL.
fn is_far(insn: &Instruction) -> bool {
    insn.is_jmp_far()
        || insn.is_call_far()
        || insn.is_jmp_far_indirect()
        || insn.is_call_far_indirect()
}

/// A system instruction's descriptor.
fn op(kind: SystemKind, size: u32, n: u8) -> SystemOp {
    SystemOp {
        size: size as u8,
        n,
        ..SystemOp::new(kind)
    }
}

impl Lift<'_> {
    /// Privileges and addresses; in a Linux program those of level 3.
    fn level(&self) -> Level {
        self.mode.system.map_or(Level::Protected(3), |s| s.level)
    }

    /// Asks the policy, then raises #GP unless the CPL is 0. False if there is nothing more to do.
    fn privileged(&mut self, kind: Sensitive) -> bool {
        if self.policy(kind).is_none() {
            return false;
        }
        if self.level().cpl() != 0 {
            self.ir.exit_raise(GP);
            return false;
        }
        true
    }

    /// Raises #UD in real-address and virtual-8086 mode, where selectors name no descriptors.
    /// False if there is nothing more to do.
    fn protected(&mut self) -> bool {
        let protected = self.level().is_protected();
        if !protected {
            self.ud();
        }
        protected
    }

    /// Calls the helper; `a` and `b` are zero-extended. Leaves if the kind does.
    fn system(&mut self, op: SystemOp, a: Option<Value>, b: Option<Value>) -> Value {
        let [a, b] = [a, b].map(|v| match v {
            Some(v) if self.ir.ty(v) == Type::I64 => v,
            Some(v) => self.ir.zext(Type::I64, v),
            None => self.iconst(Type::I64, 0),
        });
        let next = self.next_offset();
        let next = self.ir.pc(next);
        let result = self.ir.call(Helper::System, op.pack(), &[a, b, next]);
        if op.kind.leaves() {
            self.ir.exit_resume();
        }
        result
    }

    /// A system instruction without operands in IR and without a result.
    fn plain(&mut self, kind: SystemKind, n: u8) {
        self.system(op(kind, 0, n), None, None);
    }

    /// EDX:EAX := an i64.
    fn write_pair(&mut self, v: Value) {
        for (r, at) in [(Register::EAX, 0), (Register::EDX, 32)] {
            let half = self.ir.ext(Type::I32, v, at);
            self.write_gpr(r, half);
        }
    }
}
