//! XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B, with and without LOCK.

use super::bcd::flag_bit;
use super::operand::Place;
use super::{GP, Lift};
use iced_x86::{Mnemonic, Register};
use metaphrase_ir::{FlagKind, IntCc, Reg, RmwOp, Shape, Type, Value, flags};

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    match mnemonic {
        Mnemonic::Xadd => xadd(cx),
        Mnemonic::Cmpxchg => cmpxchg(cx),
        Mnemonic::Cmpxchg8b => cmpxchg8b(cx),
        Mnemonic::Cmpxchg16b => cmpxchg16b(cx),
        _ => return false,
    }
    true
}

/// XADD: dst := dst + src, src := old dst. For two equal registers the sum is what stays.
fn xadd(cx: &mut Lift<'_>) {
    let b = cx.read(1);
    let place = cx.place(0);
    let locked = match place {
        Place::Mem(addr, _) if cx.insn.has_lock_prefix() => Some(addr),
        _ => None,
    };
    let a = match locked {
        Some(addr) => cx.ir.rmw(RmwOp::Add, addr, b),
        None => cx.load(place),
    };
    let sum = cx.ir.add(a, b);
    let source = cx.insn.op1_register();
    match place {
        Place::Mem(..) => {
            if locked.is_none() {
                cx.store(place, sum);
            }
            cx.write_gpr(source, a);
        }
        Place::Reg(dest) => {
            cx.write_gpr(source, a);
            cx.write_gpr(dest, sum);
        }
    }
    cx.ir.setflags(FlagKind::Add, &[a, b]);
}

/// CMPXCHG: if the accumulator equals dst then dst := src, else accumulator := dst. Memory is
/// written in both cases.
fn cmpxchg(cx: &mut Lift<'_>) {
    let new = cx.read(1);
    let ty = cx.ir.ty(new);
    let accumulator = match ty {
        Type::I8 => Register::AL,
        Type::I16 => Register::AX,
        Type::I32 => Register::EAX,
        _ => Register::RAX,
    };
    let expected = cx.read_gpr(accumulator);
    let place = cx.place(0);
    let (old, equal) = match place {
        Place::Mem(addr, _) if cx.insn.has_lock_prefix() => {
            let old = cx.ir.cas(addr, expected, new);
            (old, cx.ir.icmp(IntCc::Eq, old, expected))
        }
        _ => {
            let old = cx.load(place);
            let equal = cx.ir.icmp(IntCc::Eq, old, expected);
            if let Place::Mem(..) = place {
                let v = cx.ir.select(equal, new, old);
                cx.store(place, v);
            }
            (old, equal)
        }
    };
    // The accumulator keeps all its bits when the comparison holds, the upper half of RAX too.
    let before = cx.ir.getreg(Reg::Rax);
    cx.write_gpr(accumulator, old);
    let written = cx.ir.getreg(Reg::Rax);
    let rax = cx.ir.select(equal, before, written);
    cx.ir.setreg(Reg::Rax, rax);
    if let Place::Reg(dest) = place {
        // So does a register that is not written.
        let whole = Reg::gpr(dest.full_register().number());
        let before = cx.ir.getreg(whole);
        cx.write_gpr(dest, new);
        let written = cx.ir.getreg(whole);
        let v = cx.ir.select(equal, written, before);
        cx.ir.setreg(whole, v);
    }
    cx.ir.setflags(FlagKind::Sub, &[expected, old]);
}

/// Sets ZF from a condition and leaves the other flags.
pub fn set_zf(cx: &mut Lift<'_>, zero: Value) {
    let old = cx.ir.getflags();
    let others = cx.iconst(Type::I64, !flags::ZF);
    let kept = cx.ir.and(old, others);
    let zf = flag_bit(cx, zero, flags::ZF);
    let image = cx.ir.or(kept, zf);
    cx.ir.setflags(FlagKind::Raw, &[image]);
}

/// Writes `v` to a register where `equal` is 0; otherwise the register keeps all its bits.
fn write_unless(cx: &mut Lift<'_>, equal: Value, reg: Reg, v: Value) {
    let before = cx.ir.getreg(reg);
    let wide = cx.ir.zext(Type::I64, v);
    let kept = cx.ir.select(equal, before, wide);
    cx.ir.setreg(reg, kept);
}

/// CMPXCHG8B: if EDX:EAX equals m64 then m64 := ECX:EBX, else EDX:EAX := m64. Only ZF changes.
fn cmpxchg8b(cx: &mut Lift<'_>) {
    let addr = cx.linear_write();
    let pair = |cx: &mut Lift<'_>, low: Register, high: Register| {
        let (low, high) = (cx.read_gpr(low), cx.read_gpr(high));
        let low = cx.ir.zext(Type::I64, low);
        cx.ir.insert(low, high, 32)
    };
    let expected = pair(cx, Register::EAX, Register::EDX);
    let new = pair(cx, Register::EBX, Register::ECX);
    let old = cx.ir.cas(addr, expected, new);
    let equal = cx.ir.icmp(IntCc::Eq, old, expected);
    let (low, high) = (cx.ir.ext(Type::I32, old, 0), cx.ir.ext(Type::I32, old, 32));
    write_unless(cx, equal, Reg::Rax, low);
    write_unless(cx, equal, Reg::Rdx, high);
    set_zf(cx, equal);
}

/// CMPXCHG16B: the same with RDX:RAX, RCX:RBX and m128, which must be aligned.
fn cmpxchg16b(cx: &mut Lift<'_>) {
    let addr = cx.linear_write();
    let low_bits = cx.iconst(Type::I64, 15);
    let misaligned = cx.ir.and(addr, low_bits);
    let misaligned = cx.ir.icmp_imm(IntCc::Ne, misaligned, 0);
    cx.ir.trapif(misaligned, GP);
    let pair = |cx: &mut Lift<'_>, low: Reg, high: Reg| {
        let (low, high) = (cx.ir.getreg(low), cx.ir.getreg(high));
        let v = cx.ir.vfromint(low);
        cx.ir.vset(Shape::I64x2, v, 1, high)
    };
    let expected = pair(cx, Reg::Rax, Reg::Rdx);
    let new = pair(cx, Reg::Rbx, Reg::Rcx);
    let old = cx.ir.cas(addr, expected, new);
    let (low, high) = (
        cx.ir.vget(Shape::I64x2, old, 0),
        cx.ir.vget(Shape::I64x2, old, 1),
    );
    let (rax, rdx) = (cx.ir.getreg(Reg::Rax), cx.ir.getreg(Reg::Rdx));
    let (a, d) = (cx.ir.xor(low, rax), cx.ir.xor(high, rdx));
    let differ = cx.ir.or(a, d);
    let equal = cx.ir.icmp_imm(IntCc::Eq, differ, 0);
    // Where they are equal, the old value is what the registers hold already.
    cx.ir.setreg(Reg::Rax, low);
    cx.ir.setreg(Reg::Rdx, high);
    set_zf(cx, equal);
}
