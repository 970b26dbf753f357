//! Near transfers of control: JMP, Jcc, JCXZ, LOOP, CALL, RET.
//!
//! The operand size cuts the new instruction pointer outside 64-bit code; in 64-bit code it is
//! always 64 bits (SDM volume 2, "JMP": the operand-size prefix is ignored). Targets that are not
//! canonical or outside the segment fault when they are fetched.

use super::Lift;
use super::data::condition;
use iced_x86::{Code, Mnemonic, OpKind, Register};
use metaphrase_ir::{IntCc, Type, Value};

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
        cx.jump_to(target);
    } else {
        let v = cx.read(0);
        let target = cx.ir.zext(Type::I64, v);
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
        push_pc(cx, ty);
        let target = cx.offset(target);
        cx.ir.exit_call(target, next);
    } else {
        let v = cx.read(0);
        let target = cx.ir.zext(Type::I64, v);
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
    cx.move_stack(i64::from(ty.bytes()) + release);
    let target = cx.ir.zext(Type::I64, v);
    cx.ir.exit_ret(target);
}

/// Jcc.
fn jcc(cx: &mut Lift<'_>) {
    let Some(cond) = condition(cx) else { return };
    let c = cx.ir.getcond(cond);
    cx.cond_jump(c, cx.insn.near_branch_target());
}

/// JCXZ, JECXZ, JRCXZ.
fn jump_if_zero(cx: &mut Lift<'_>, counter: Register) {
    let v = cx.read_gpr(counter);
    let c = cx.ir.icmp_imm(IntCc::Eq, v, 0);
    cx.cond_jump(c, cx.insn.near_branch_target());
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
    cx.write_gpr(counter, v);
    let mut c: Value = cx.ir.icmp_imm(IntCc::Ne, v, 0);
    if let Some(cond) = condition(cx) {
        let flags = cx.ir.getcond(cond);
        c = cx.ir.and(c, flags);
    }
    cx.cond_jump(c, cx.insn.near_branch_target());
}
