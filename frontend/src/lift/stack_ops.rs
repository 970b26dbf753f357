//! Stack instructions: PUSH, POP, PUSHA, POPA, ENTER, LEAVE, PUSHF, POPF.
//!
//! Loads and stores come before the stack pointer moves, so that a fault leaves it alone.

use super::Lift;
use super::system;
use crate::policy::{Policy, Sensitive};
use iced_x86::{Code, Mnemonic, OpKind, Register};
use metaphrase_ir::{
    AccessKind, FlagKind, Helper, IntCc, Reg, RmwOp, Type, Value, flags, sysflags,
};

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    match mnemonic {
        Mnemonic::Push => push(cx),
        Mnemonic::Pop => pop(cx),
        Mnemonic::Leave => leave(cx),
        Mnemonic::Enter => enter(cx),
        Mnemonic::Pusha => pusha(cx, Type::I16),
        Mnemonic::Pushad => pusha(cx, Type::I32),
        Mnemonic::Popa => popa(cx, Type::I16),
        Mnemonic::Popad => popa(cx, Type::I32),
        Mnemonic::Pushf => pushf(cx, Type::I16),
        Mnemonic::Pushfd => pushf(cx, Type::I32),
        Mnemonic::Pushfq => pushf(cx, Type::I64),
        Mnemonic::Popf => popf(cx, Type::I16),
        Mnemonic::Popfd => popf(cx, Type::I32),
        Mnemonic::Popfq => popf(cx, Type::I64),
        _ => return false,
    }
    true
}

/// A general register of that type by its number.
fn register(ty: Type, number: usize) -> Register {
    match ty {
        Type::I16 => Register::AX + number as u32,
        Type::I32 => Register::EAX + number as u32,
        _ => Register::RAX + number as u32,
    }
}

/// The width that a PUSH or POP moves the stack pointer by.
fn moved(cx: &Lift<'_>) -> Type {
    match cx.insn.stack_pointer_increment().unsigned_abs() {
        2 => Type::I16,
        4 => Type::I32,
        _ => Type::I64,
    }
}

/// PUSH of a register, memory, an immediate or a segment register. PUSH rSP pushes the old value.
fn push(cx: &mut Lift<'_>) {
    let r = cx.insn.op0_register();
    let v = if cx.insn.op0_kind() == OpKind::Register && r.is_segment_register() {
        if cx.policy(Sensitive::StoreSeg).is_none() {
            return;
        }
        let selector = system::selector(cx, r);
        let ty = moved(cx);
        cx.ir.zext(ty, selector)
    } else {
        cx.read(0)
    };
    cx.push(v);
}

/// POP into a register, memory or a segment register.
fn pop(cx: &mut Lift<'_>) {
    let ty = moved(cx);
    let size = i64::from(ty.bytes());
    if cx.is_mem(0) {
        // The address is computed with the incremented stack pointer (SDM volume 2, POP).
        let v = cx.peek(ty, 0);
        if matches!(cx.insn.memory_base(), Register::ESP | Register::RSP) {
            let disp = cx.insn.memory_displacement64();
            cx.insn
                .set_memory_displacement64(disp.wrapping_add(size as u64));
        }
        let addr = cx.linear_of(ty.bytes(), true);
        let kind = cx.operand_kind();
        cx.ir.store(addr, v, kind);
        return cx.move_stack(size);
    }
    let r = cx.insn.op0_register();
    if r.is_segment_register() {
        if cx.policy(Sensitive::LoadSeg).is_none() {
            return;
        }
        let v = cx.peek(ty, 0);
        let selector = cx.ir.trunc(Type::I16, v);
        system::load_segment(cx, r, selector);
        // SS may be another one now, but the stack pointer's width is the mode's either way.
        cx.move_stack(size);
        return system::check_mode(cx, r);
    }
    // POP rSP: the move comes first, the popped value stays.
    let v = cx.pop(ty);
    cx.write_gpr(r, v);
}

/// PUSHA, PUSHAD: all eight registers, with the old stack pointer among them.
fn pusha(cx: &mut Lift<'_>, ty: Type) {
    let size = i64::from(ty.bytes());
    for n in 0..8 {
        let v = cx.read_gpr(register(ty, n));
        let top = cx.stack_offset(-size * (n as i64 + 1));
        let addr = cx.stack_linear(top, ty.bytes(), true);
        cx.ir.store(addr, v, AccessKind::Stack);
    }
    cx.move_stack(-8 * size);
}

/// POPA, POPAD: all but the stack pointer, whose value is skipped.
fn popa(cx: &mut Lift<'_>, ty: Type) {
    let size = i64::from(ty.bytes());
    // From the top of the stack, so that a fault is that of the first refused element.
    let values: Vec<(Register, Value)> = (0..8)
        .rev()
        .filter(|&n| n != 4)
        .map(|n| {
            let v = cx.peek(ty, size * (7 - n as i64));
            (register(ty, n), v)
        })
        .collect();
    for (r, v) in values {
        cx.write_gpr(r, v);
    }
    cx.move_stack(8 * size);
}

/// ENTER: pushes rBP, copies the enclosing frames' pointers, makes room for the locals.
fn enter(cx: &mut Lift<'_>) {
    let ty = match cx.insn.code() {
        Code::Enterw_imm16_imm8 => Type::I16,
        Code::Enterd_imm16_imm8 => Type::I32,
        _ => Type::I64,
    };
    let size = i64::from(ty.bytes());
    let room = cx.insn.immediate(0) as i64;
    let level = cx.insn.immediate(1) as i64 & 31;
    let base_register = register(ty, 5);
    let old_base = cx.ir.getreg(Reg::Rbp);
    let pushed = cx.read_gpr(base_register);
    let frame = cx.stack_offset(-size);
    let addr = cx.stack_linear(frame, ty.bytes(), true);
    cx.ir.store(addr, pushed, AccessKind::Stack);
    for n in 1..level {
        let from = cx.offset_from(old_base, -size * n);
        let from = cx.stack_linear(from, ty.bytes(), false);
        let v = cx.ir.load(ty, from, AccessKind::Stack);
        let to = cx.stack_offset(-size * (n + 1));
        let to = cx.stack_linear(to, ty.bytes(), true);
        cx.ir.store(to, v, AccessKind::Stack);
    }
    // What rBP becomes: the stack pointer after the first push, all of ESP with a 16-bit stack.
    let old_stack = cx.ir.getreg(Reg::Rsp);
    let frame_pointer = if cx.mode.stack_type() == Type::I16 {
        let low = cx.ir.trunc(Type::I16, frame);
        cx.ir.insert(old_stack, low, 0)
    } else {
        frame
    };
    let frame_pointer = cx.ir.trunc(ty, frame_pointer);
    let mut pushes = 1;
    if level > 0 {
        let to = cx.stack_offset(-size * (level + 1));
        let to = cx.stack_linear(to, ty.bytes(), true);
        cx.ir.store(to, frame_pointer, AccessKind::Stack);
        pushes = level + 1;
    }
    let top = cx.stack_offset(-size * pushes - room);
    // A write at the new top must be possible (SDM volume 2, ENTER): one that changes nothing.
    let probe = cx.stack_linear(top, ty.bytes(), true);
    let zero = cx.iconst(ty, 0);
    cx.ir.rmw(RmwOp::Or, probe, zero);
    cx.set_stack_pointer(top);
    cx.write_gpr(base_register, frame_pointer);
}

/// LEAVE: rSP := rBP, then POP rBP.
fn leave(cx: &mut Lift<'_>) {
    let ty = match cx.insn.code() {
        Code::Leavew => Type::I16,
        Code::Leaved => Type::I32,
        _ => Type::I64,
    };
    let base = cx.ir.getreg(Reg::Rbp);
    let from = cx.offset_from(base, 0);
    let from = cx.stack_linear(from, ty.bytes(), false);
    let v = cx.ir.load(ty, from, AccessKind::Stack);
    let top = cx.offset_from(base, i64::from(ty.bytes()));
    cx.set_stack_pointer(top);
    cx.write_gpr(register(ty, 5), v);
}

/// PUSHF, PUSHFD, PUSHFQ: the image of RFLAGS with VM and RF clear.
fn pushf(cx: &mut Lift<'_>, ty: Type) {
    let Some(policy) = cx.policy(Sensitive::Pushf) else {
        return;
    };
    let image = if policy == Policy::Inline {
        rflags_image(cx)
    } else {
        cx.ir.call(Helper::PushfImage, 0, &[])
    };
    let v = cx.ir.trunc(ty, image);
    cx.push(v);
}

/// RFLAGS as PUSHF sees it, as an i64.
pub fn rflags_image(cx: &mut Lift<'_>) -> Value {
    let system = cx.ir.getreg(Reg::SysFlags);
    let mask = cx.iconst(Type::I64, !(sysflags::VM | sysflags::RF));
    let system = cx.ir.and(system, mask);
    let df = cx.ir.getreg(Reg::Df);
    // The step sign is all ones where DF is set, and 1 where it is clear.
    let mask = cx.iconst(Type::I64, flags::DF);
    let df = cx.ir.and(df, mask);
    let arith = cx.ir.getflags();
    let image = cx.ir.or(system, df);
    let image = cx.ir.or(image, arith);
    let fixed = cx.iconst(Type::I64, 2);
    cx.ir.or(image, fixed)
}

/// POPF, POPFD, POPFQ at CPL 3 with IOPL 0: IF, IOPL, VM, VIF and VIP stay as they are without a
/// fault (SDM volume 2, POPF, table 4-21). TF takes effect after the next instruction.
fn popf(cx: &mut Lift<'_>, ty: Type) {
    let Some(policy) = cx.policy(Sensitive::Popf) else {
        return;
    };
    let v = cx.pop(ty);
    let image = cx.ir.zext(Type::I64, v);
    if policy == Policy::Inline {
        set_rflags(cx, image, ty);
    } else {
        cx.ir.call(Helper::Popf, ty.bytes(), &[image]);
    }
    let trap = cx.iconst(Type::I64, sysflags::TF);
    let trap = cx.ir.and(image, trap);
    let trap = cx.ir.icmp_imm(IntCc::Ne, trap, 0);
    system::leave_if(cx, trap);
}

/// Writes the flags that POPF may change in user mode.
fn set_rflags(cx: &mut Lift<'_>, image: Value, ty: Type) {
    let writable = sysflags::popf_user(ty.bytes());
    let old = cx.ir.getreg(Reg::SysFlags);
    let keep = cx.iconst(Type::I64, !(writable | sysflags::RF));
    let kept = cx.ir.and(old, keep);
    let take = cx.iconst(Type::I64, writable);
    let taken = cx.ir.and(image, take);
    let system = cx.ir.or(kept, taken);
    cx.ir.setreg(Reg::SysFlags, system);
    // DF is bit 10: 1 - 2 * DF is the step sign.
    let nine = cx.iconst(Type::I64, 9);
    let df = cx.ir.lshr(image, nine);
    let two = cx.iconst(Type::I64, 2);
    let df = cx.ir.and(df, two);
    let one = cx.iconst(Type::I64, 1);
    let df = cx.ir.sub(one, df);
    cx.ir.setreg(Reg::Df, df);
    cx.ir.setflags(FlagKind::Raw, &[image]);
}
