//! Near transfers of control: JMP, Jcc, JCXZ, LOOP, CALL, RET.
//!
//! The operand size cuts the new instruction pointer outside 64-bit code; in 64-bit code it is
//! always 64 bits (SDM volume 2, "JMP": the operand-size prefix is ignored). In a full system a
//! target that is not canonical or beyond CS's limit is a fault of the branch, which has then done
//! nothing; in a Linux program, of the fetch.

use super::data::condition;
use super::{GP, Lift};
use iced_x86::{Code, Mnemonic, OpKind, Register};
use metaphrase_ir::{Helper, IntCc, SegmentAccess, Type, Value};

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    match mnemonic {
        Jmp => return jmp(cx),
        Call => return call(cx),
        Ret => ret(cx),
        Jo | Jno | Jb | Jae | Je | Jne | Jbe | Ja | Js | Jns | Jp | Jnp | Jl | Jge | Jle | Jg => {
            jcc(cx);
        }
        Jcxz => jump_if_zero(cx, Register::CX),
        Jecxz => jump_if_zero(cx, Register::ECX),
        Jrcxz => jump_if_zero(cx, Register::RCX),
        Loop | Loope | Loopne => count_and_jump(cx),
        _ => return false,
    }
    true
}

/// The operand-size of a near branch with a target of type `ty`.
fn near_target(cx: &Lift<'_>) -> Option<u64> {
    matches!(
        cx.insn.op0_kind(),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
    )
    .then(|| cx.insn.near_branch_target())
}

/// True if the instruction is a far JMP or CALL.
fn is_far(cx: &Lift<'_>) -> bool {
    cx.insn.is_jmp_far()
        || cx.insn.is_call_far()
        || cx.insn.is_jmp_far_indirect()
        || cx.insn.is_call_far_indirect()
}

/// JMP, near.
fn jmp(cx: &mut Lift<'_>) -> bool {
    if is_far(cx) {
        return false;
    }
    if let Some(target) = near_target(cx) {
        cx.check_direct(target, None);
        cx.jump_to(target);
    } else {
        let v = cx.read(0);
        let target = cx.check_target(v);
        cx.ir.exit_ijump(target);
    }
    true
}

/// CALL, near: the target is read before the return address is pushed.
fn call(cx: &mut Lift<'_>) -> bool {
    if is_far(cx) {
        return false;
    }
    let next = cx.next_offset();
    if let Some(target) = near_target(cx) {
        let ty = match cx.insn.op0_kind() {
            OpKind::NearBranch16 => Type::I16,
            OpKind::NearBranch32 => Type::I32,
            _ => Type::I64,
        };
        cx.check_direct(target, None);
        push_pc(cx, ty);
        let target = cx.offset(target);
        cx.ir.exit_call(target, next);
    } else {
        let v = cx.read(0);
        let target = cx.check_target(v);
        push_pc(cx, cx.ir.ty(v));
        cx.ir.exit_icall(target, next);
    }
    true
}

/// Pushes the next instruction's PC in the operand size.
fn push_pc(cx: &mut Lift<'_>, ty: Type) {
    let offset = cx.next_offset();
    let pc = cx.ir.pc(offset);
    let v = cx.ir.trunc(ty, pc);
    cx.push(v);
}

/// RET, near, with or without a count of bytes to release.
fn ret(cx: &mut Lift<'_>) {
    let ty = match cx.insn.code() {
        Code::Retnw | Code::Retnw_imm16 => Type::I16,
        Code::Retnd | Code::Retnd_imm16 => Type::I32,
        _ => Type::I64,
    };
    let release = match cx.insn.op_count() {
        0 => 0,
        _ => i64::from(cx.insn.immediate16()),
    };
    let v = cx.peek(ty, 0);
    let target = cx.check_target(v);
    cx.move_stack(i64::from(ty.bytes()) + release);
    cx.ir.exit_ret(target);
}

/// Jcc.
fn jcc(cx: &mut Lift<'_>) {
    let Some(cond) = condition(cx) else { return };
    let c = cx.ir.getcond(cond);
    conditional(cx, c);
}

/// Ends the block: to the branch's target if `c` is not 0.
fn conditional(cx: &mut Lift<'_>, c: Value) {
    let target = cx.insn.near_branch_target();
    cx.check_direct(target, Some(c));
    cx.cond_jump(c, target);
}

/// JCXZ, JECXZ, JRCXZ.
fn jump_if_zero(cx: &mut Lift<'_>, counter: Register) {
    let v = cx.read_gpr(counter);
    let c = cx.ir.icmp_imm(IntCc::Eq, v, 0);
    conditional(cx, c);
}

/// The counter register of LOOP: its width is the address size.
fn loop_counter(code: Code) -> Register {
    use Code::*;
    match code {
        Loop_rel8_16_CX | Loop_rel8_32_CX | Loope_rel8_16_CX | Loope_rel8_32_CX
        | Loopne_rel8_16_CX | Loopne_rel8_32_CX => Register::CX,
        Loop_rel8_16_RCX | Loop_rel8_64_RCX | Loope_rel8_16_RCX | Loope_rel8_64_RCX
        | Loopne_rel8_16_RCX | Loopne_rel8_64_RCX => Register::RCX,
        _ => Register::ECX,
    }
}

/// LOOP, LOOPE, LOOPNE: the counter goes down without touching the flags.
fn count_and_jump(cx: &mut Lift<'_>) {
    let counter = loop_counter(cx.insn.code());
    let v = cx.read_gpr(counter);
    let one = cx.iconst(cx.ir.ty(v), 1);
    let v = cx.ir.sub(v, one);
    let mut c: Value = cx.ir.icmp_imm(IntCc::Ne, v, 0);
    if let Some(cond) = condition(cx) {
        let flags = cx.ir.getcond(cond);
        c = cx.ir.and(c, flags);
    }
    let target = cx.insn.near_branch_target();
    cx.check_direct(target, Some(c));
    cx.write_gpr(counter, v);
    cx.cond_jump(c, target);
}

impl Lift<'_> {
    /// The target of an indirect branch as an i64, once it is known to be one.
    fn check_target(&mut self, v: Value) -> Value {
        let target = self.ir.zext(Type::I64, v);
        if self.mode.system.is_none() {
            return target;
        }
        if self.mode.is_64() {
            // Bits 63 to 47 are alike.
            let sixteen = self.iconst(Type::I64, 16);
            let up = self.ir.shl(target, sixteen);
            let canonical = self.ir.ashr(up, sixteen);
            let wrong = self.ir.icmp(IntCc::Ne, canonical, target);
            self.ir.trapif(wrong, GP);
        } else if self.has_limited_code(self.ir.ty(v)) {
            self.check_limit(target);
        }
        target
    }

    /// The same for a direct branch, which is only taken if `taken` is not 0.
    fn check_direct(&mut self, target: u64, taken: Option<Value>) {
        if self.mode.system.is_none() {
            return;
        }
        if self.mode.is_64() {
            if (target as i64) << 16 >> 16 != target as i64 {
                let taken = taken.unwrap_or_else(|| self.iconst(Type::I8, 1));
                self.ir.trapif(taken, GP);
            }
            return;
        }
        let ty = match self.insn.op0_kind() {
            OpKind::NearBranch16 => Type::I16,
            _ => Type::I32,
        };
        if !self.has_limited_code(ty) {
            return;
        }
        if self.is_short(Register::CS) {
            if target > 0xffff {
                let taken = taken.unwrap_or_else(|| self.iconst(Type::I8, 1));
                self.ir.trapif(taken, GP);
            }
            return;
        }
        let offset = self.offset(target);
        let target = self.ir.pc(offset);
        let target = match taken {
            // Offset 0 lies in every segment.
            Some(taken) => {
                let zero = self.iconst(Type::I64, 0);
                self.ir.select(taken, target, zero)
            }
            None => target,
        };
        self.check_limit(target);
    }

    /// Whether a target of that type may lie beyond CS's limit. In real-address and virtual-8086
    /// mode the limit is taken to be no less than 0xffff; if it is less after all, the fetch
    /// faults.
    fn has_limited_code(&self, ty: Type) -> bool {
        let short = self.is_checked(Register::CS, false);
        let real = self.mode.system.is_some_and(|s| !s.level.is_protected());
        short && !(real && ty == Type::I16)
    }

    /// Raises #GP if an offset lies beyond CS's limit.
    fn check_limit(&mut self, target: Value) {
        if self.is_short(Register::CS) {
            let beyond = self.ir.icmp_imm(IntCc::Ugt, target, 0xffff);
            return self.ir.trapif(beyond, GP);
        }
        let access = SegmentAccess {
            segment: Register::CS.number() as u8,
            size: 1,
            write: false,
            fetch: true,
        };
        self.ir.call(Helper::SegmentCheck, access.pack(), &[target]);
    }
}
