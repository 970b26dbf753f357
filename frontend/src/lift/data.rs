//! Moves and conversions: MOV, MOVZX, MOVSX, LEA, CMOVcc, SETcc, XCHG, XLAT, the CBW and CWD families,
//! and the instructions that do nothing.

use super::Lift;
use super::operand::Place;
use iced_x86::{Code, ConditionCode, Mnemonic, OpKind, Register};
use metaphrase_ir::{Cond, Reg, RmwOp, Type, Value};

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    match mnemonic {
        Mov => return mov(cx),
        Lea => lea(cx),
        Movzx => movzx(cx),
        Movsx | Movsxd => movsx(cx),
        Xchg => xchg(cx),
        Xlatb => xlat(cx),
        Cbw => widen(cx, Register::AL, Register::AX),
        Cwde => widen(cx, Register::AX, Register::EAX),
        Cdqe => widen(cx, Register::EAX, Register::RAX),
        Cwd => sign_into(cx, Register::AX, Register::DX),
        Cdq => sign_into(cx, Register::EAX, Register::EDX),
        Cqo => sign_into(cx, Register::RAX, Register::RDX),
        Cmovo | Cmovno | Cmovb | Cmovae | Cmove | Cmovne | Cmovbe | Cmova | Cmovs | Cmovns
        | Cmovp | Cmovnp | Cmovl | Cmovge | Cmovle | Cmovg => cmov(cx),
        Seto | Setno | Setb | Setae | Sete | Setne | Setbe | Seta | Sets | Setns | Setp | Setnp
        | Setl | Setge | Setle | Setg => set(cx),
        // Hints change nothing that a guest can see, and their operands are not accessed. RDSSP
        // without shadow stacks is one of the reserved NOPs (SDM volume 1, 17.2.4).
        Nop | Reservednop | Endbr32 | Endbr64 | Pause | Cldemote | Prefetch | Prefetchw
        | Prefetchwt1 | Prefetchnta | Prefetcht0 | Prefetcht1 | Prefetcht2 | Prefetchit0
        | Prefetchit1 | Rdsspd | Rdsspq => {}
        Ud0 | Ud1 | Ud2 => cx.ud(),
        _ => return false,
    }
    true
}

/// The condition of a Jcc, SETcc or CMOVcc, or of LOOPE and LOOPNE.
pub fn condition(cx: &Lift<'_>) -> Option<Cond> {
    match cx.insn.condition_code() {
        ConditionCode::None => None,
        cc => Some(Cond::ALL[(cc as usize - 1) & 15]),
    }
}

/// MOV between general registers, memory and immediates; the other forms belong elsewhere.
fn mov(cx: &mut Lift<'_>) -> bool {
    for n in 0..2 {
        if cx.insn.op_kind(n) == OpKind::Register && !cx.insn.op_register(n).is_gpr() {
            return false;
        }
    }
    let v = cx.read(1);
    cx.write(0, v);
    true
}

/// LEA: dst := effective address, cut or zero-extended to the operand size.
fn lea(cx: &mut Lift<'_>) {
    let ty = cx.op_type(0);
    let address = cx.effective_address();
    let v = match ty {
        // The address is zero-extended already.
        Type::I64 => address,
        Type::I32 if cx.address_type() != Type::I64 => {
            let r = cx.insn.op0_register().full_register();
            return cx.write_gpr(r, address);
        }
        _ => cx.ir.trunc(ty, address),
    };
    cx.write(0, v);
}

/// MOVZX: dst := src extended with zeros.
fn movzx(cx: &mut Lift<'_>) {
    let v = cx.read(1);
    let dst = cx.insn.op0_register();
    if cx.op_type(0) == Type::I16 {
        let v = cx.ir.zext(Type::I16, v);
        cx.write_gpr(dst, v);
    } else {
        // One extension does for 32-bit destinations as well.
        let v = cx.ir.zext(Type::I64, v);
        cx.write_gpr(dst.full_register(), v);
    }
}

/// MOVSX, MOVSXD: dst := src extended with its sign.
fn movsx(cx: &mut Lift<'_>) {
    let v = if cx.insn.code() == Code::Movsxd_r16_rm16 && cx.is_mem(1) {
        // AMD hosts access 32 bits all the same, which shows at the end of a page.
        let addr = cx.linear_of(4, false);
        let v = cx.ir.load(Type::I32, addr, cx.operand_kind());
        cx.ir.trunc(Type::I16, v)
    } else {
        cx.read(1)
    };
    let ty = cx.op_type(0);
    // MOVSXD r16, r/m16 and r32, r/m32 only move.
    let v = cx.ir.sext(ty, v);
    cx.write(0, v);
}

/// XCHG: with memory it is atomic, LOCK or not.
fn xchg(cx: &mut Lift<'_>) {
    let (mem, reg) = if cx.is_mem(1) { (1, 0) } else { (0, 1) };
    let b = cx.read(reg);
    match cx.place(mem) {
        Place::Mem(addr, _) => {
            let old = cx.ir.rmw(RmwOp::Xchg, addr, b);
            cx.write(reg, old);
        }
        place => {
            let a = cx.load(place);
            cx.store(place, b);
            cx.write(reg, a);
        }
    }
}

/// XLAT: AL := the byte at rBX + AL.
fn xlat(cx: &mut Lift<'_>) {
    let addr = cx.linear();
    let v = cx.ir.load(Type::I8, addr, cx.operand_kind());
    cx.write_gpr(Register::AL, v);
}

/// CBW, CWDE, CDQE: dst := src extended with its sign.
fn widen(cx: &mut Lift<'_>, src: Register, dst: Register) {
    let v = cx.read_gpr(src);
    let v = cx.ir.sext(Type::int(dst.size() as u32), v);
    cx.write_gpr(dst, v);
}

/// CWD, CDQ, CQO: every bit of dst := the sign of src.
fn sign_into(cx: &mut Lift<'_>, src: Register, dst: Register) {
    let v = cx.read_gpr(src);
    let sign = sign_of(cx, v);
    cx.write_gpr(dst, sign);
}

/// All ones if `v` is negative, else 0, of the same type.
pub fn sign_of(cx: &mut Lift<'_>, v: Value) -> Value {
    let ty = cx.ir.ty(v);
    let top = cx.iconst(ty, u64::from(ty.bits()) - 1);
    cx.ir.ashr(v, top)
}

/// CMOVcc: the source is read in any case, and a 32-bit destination is zero-extended in any case.
fn cmov(cx: &mut Lift<'_>) {
    let Some(cond) = condition(cx) else { return };
    let v = cx.read(1);
    let dst = cx.insn.op0_register();
    let old = cx.read_gpr(dst);
    let c = cx.ir.getcond(cond);
    let v = cx.ir.select(c, v, old);
    cx.write_gpr(dst, v);
}

/// SETcc: dst := 1 if the condition holds, else 0.
fn set(cx: &mut Lift<'_>) {
    let Some(cond) = condition(cx) else { return };
    let c = cx.ir.getcond(cond);
    cx.write(0, c);
}

/// Reads the double-width pair `high:low` as it is: two values.
pub fn read_pair(cx: &mut Lift<'_>, high: Reg, low: Reg, ty: Type) -> (Value, Value) {
    let (h, l) = (cx.ir.getreg(high), cx.ir.getreg(low));
    if ty == Type::I64 {
        (h, l)
    } else {
        (cx.ir.ext(ty, h, 0), cx.ir.ext(ty, l, 0))
    }
}
