//! The x87 FPU and its images.
//!
//! [`x87`] does one instruction. Stack, tags, conditions and the response to exceptions are here
//! and in `stack`; the arithmetic itself is in the module of the host's name or in `portable`, and
//! `fpu` calls one of them. Images
//! (FSTENV, FSAVE, FXSAVE and their loads) are in `image`, exact conversions in `convert`.
//!
//! Where the manual leaves a condition code undefined (FCOMI's C1, the codes of a partial remainder
//! without a result, …) it is what the CPU that the tests were written on gives.
//!
//! An unmasked exception leaves the operands as the manual says (SDM volume 1, 8.5), sets ES, and
//! becomes #MF at the next waiting instruction.

mod convert;
mod fast;
mod fpu;
#[cfg(target_arch = "x86_64")]
mod host_x86_64;
mod image;
#[cfg(target_arch = "x86_64")]
pub mod live;
mod memory;
mod ops;
mod portable;
mod stack;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;

use super::Cx;
use crate::state::{X87Reg, X87State};
use metaphrase_ir::{X87Op, flags};
use ops::{Arith, Binary, Pair, Source, Unary};
use stack::*;

pub(super) use image::{Parts, fxrstor, fxsave, init, read_parts, write_parts};

/// The #MF vector.
const MF: u8 = 16;

/// The control word for the host: with the exceptions masked that are decided here.
#[inline(always)]
fn control(f: &X87State) -> u16 {
    f.control | EARLY
}

/// One x87 instruction.
#[inline(always)]
pub(super) fn x87(cx: &Cx, descriptor: u32, [a, pc, _]: [u64; 3]) -> u64 {
    let op = X87Op::unpack(descriptor);
    let f = &mut cx.state().x87;
    if f.status & ES != 0 && waits(op) {
        cx.raise(MF, None);
        return 0;
    }
    if op.wait {
        return 0;
    }
    if op.is_memory() {
        memory::run(cx, op, a, pc);
        return 0;
    }
    if !is_control(op) {
        let cs = cx.state().seg_sel[1];
        f.opcode = descriptor as u16 & 0x7ff;
        (f.ip, f.cs) = (pc, cs);
    }
    registers(f, op, a)
}

/// False for the instructions that run in spite of a pending exception.
fn waits(op: X87Op) -> bool {
    let reg = op.modrm >> 3 & 7;
    match (op.is_memory() && !op.wait, op.escape) {
        // FNSTENV, FNSTCW; FNSAVE, FNSTSW.
        (true, 1 | 5) => reg < 6,
        // FNCLEX, FNINIT and what used to be FNENI, FNDISI, FNSETPM.
        (false, 3) => !matches!(op.modrm, 0xe0..=0xe4),
        // FNSTSW AX.
        (false, 7) => op.modrm != 0xe0,
        _ => true,
    }
}

/// True for the register forms that do not count as the last instruction.
fn is_control(op: X87Op) -> bool {
    matches!((op.escape, op.modrm), (3, 0xe0..=0xe4) | (7, 0xe0))
}

/// Instructions without a memory operand, by opcode and reg field: `0o14` is D9 /4.
#[inline(always)]
fn registers(f: &mut X87State, op: X87Op, a: u64) -> u64 {
    let (reg, i) = (op.modrm >> 3 & 7, op.modrm & 7);
    match op.escape << 3 | reg {
        0o00..=0o07 | 0o42 | 0o43 => arithmetic(f, reg, i),
        0o10 => load_register(f, i),
        0o11 | 0o51 | 0o71 => exchange(f, i),
        // FNOP.
        0o12 => {}
        0o13 => store_unchecked(f, i),
        0o14 => match i {
            0 | 1 => sign(f, i == 1),
            4 => test(f),
            _ => examine(f),
        },
        0o15 => constant(f, i),
        0o16 | 0o17 => transcendental(f, op.modrm),
        0o20..=0o23 | 0o30..=0o33 => conditional_move(f, i, a != 0),
        // FUCOMPP.
        0o24..=0o27 => compare(f, 1, true, 2),
        0o34 | 0o37 => match i {
            2 => f.status &= !(EXCEPTIONS | SF | ES | BUSY),
            3 => image::init(f),
            _ => {}
        },
        // FUCOMI, FCOMI.
        0o35 => return compare_to_flags(f, i, true, false),
        0o36 => return compare_to_flags(f, i, false, false),
        0o40 | 0o41 | 0o44..=0o47 => arithmetic_to(f, reg, i, false),
        0o60 | 0o61 | 0o64..=0o67 => arithmetic_to(f, reg, i, true),
        0o50 => {
            f.free(i);
            f.conditions(C1, 0);
        }
        0o52 | 0o53 => store_register(f, i, reg == 3),
        // FUCOM, FUCOMP.
        0o54..=0o57 => compare(f, i, true, reg & 1),
        // FCOMP by another opcode, FCOMPP.
        0o62 => compare(f, i, false, 1),
        0o63 => compare(f, 1, false, 2),
        0o70 => {
            f.free(i);
            f.conditions(C1, 0);
            f.pop();
        }
        0o72 | 0o73 => store_register(f, i, true),
        0o74 => return u64::from(f.status_word()),
        // FUCOMIP, FCOMIP.
        0o75 => return compare_to_flags(f, i, true, true),
        _ => return compare_to_flags(f, i, false, true),
    }
    0
}

/// The arithmetic operation of a reg field other than 2 and 3.
fn arith_of(reg: u8) -> Arith {
    match reg {
        0 => Arith::Add,
        1 => Arith::Mul,
        4 => Arith::Sub,
        5 => Arith::SubR,
        6 => Arith::Div,
        _ => Arith::DivR,
    }
}

/// D8, and the comparisons by other opcodes: ST(0) := ST(0) op ST(i).
#[inline(never)]
fn arithmetic(f: &mut X87State, reg: u8, i: u8) {
    if matches!(reg, 2 | 3) {
        return compare(f, i, false, reg & 1);
    }
    if f.is_empty(0) || f.is_empty(i) {
        if f.stack_fault(false) {
            f.set(0, X87Reg::INDEFINITE);
        }
        return;
    }
    let (v, sw) = fpu::arith(f, arith_of(reg), control(f), f.st(0), Source::Reg(f.st(i)));
    if !f.commit(sw, C1, EARLY) {
        f.set(0, v);
    }
}

/// DC, DE: ST(i) := ST(i) op ST(0), and pop. The reversed operations have each other's opcodes
/// here.
#[inline(never)]
fn arithmetic_to(f: &mut X87State, reg: u8, i: u8, pop: bool) {
    let reg = if reg >= 4 { reg ^ 1 } else { reg };
    if f.is_empty(0) || f.is_empty(i) {
        if f.stack_fault(false) {
            f.set(i, X87Reg::INDEFINITE);
            if pop {
                f.pop();
            }
        }
        return;
    }
    let (v, sw) = fpu::arith(f, arith_of(reg), control(f), f.st(i), Source::Reg(f.st(0)));
    if !f.commit(sw, C1, EARLY) {
        f.set(i, v);
        if pop {
            f.pop();
        }
    }
}

/// Pushes a value, or what a stack overflow gives.
fn push_checked(f: &mut X87State, v: X87Reg) {
    if f.is_empty(7) {
        f.conditions(C1, 0);
        f.push(v);
    } else if f.stack_fault(true) {
        f.push(X87Reg::INDEFINITE);
    }
}

/// FLD ST(i).
#[inline(never)]
fn load_register(f: &mut X87State, i: u8) {
    if f.is_empty(i) {
        if f.stack_fault(false) {
            f.push(X87Reg::INDEFINITE);
        }
        return;
    }
    push_checked(f, f.st(i));
}

/// FXCH ST(i).
#[inline(never)]
fn exchange(f: &mut X87State, i: u8) {
    let (mut a, mut b) = (f.st(0), f.st(i));
    if f.is_empty(0) || f.is_empty(i) {
        if !f.stack_fault(false) {
            return;
        }
        if f.is_empty(0) {
            a = X87Reg::INDEFINITE;
        }
        if f.is_empty(i) {
            b = X87Reg::INDEFINITE;
        }
    } else {
        f.conditions(C1, 0);
    }
    f.set(0, b);
    f.set(i, a);
}

/// FST, FSTP ST(i).
#[inline(never)]
fn store_register(f: &mut X87State, i: u8, pop: bool) {
    let v = if f.is_empty(0) {
        if !f.stack_fault(false) {
            return;
        }
        X87Reg::INDEFINITE
    } else {
        f.conditions(C1, 0);
        f.st(0)
    };
    f.set(i, v);
    if pop {
        f.pop();
    }
}

/// FSTP ST(i) by opcode D9 D8: from an empty register it only pops.
#[inline(never)]
fn store_unchecked(f: &mut X87State, i: u8) {
    f.conditions(C1, 0);
    if !f.is_empty(0) {
        f.set(i, f.st(0));
    }
    f.pop();
}

/// FABS (`clear`) and FCHS.
fn sign(f: &mut X87State, clear: bool) {
    if f.is_empty(0) {
        if f.stack_fault(false) {
            f.set(0, X87Reg::INDEFINITE);
        }
        return;
    }
    f.conditions(C1, 0);
    let mut v = f.st(0);
    v.exponent = if clear {
        v.exponent & 0x7fff
    } else {
        v.exponent ^ 0x8000
    };
    f.set(0, v);
}

/// FTST.
fn test(f: &mut X87State) {
    if f.is_empty(0) {
        unordered_fault(f);
        return;
    }
    let sw = fpu::test(control(f), f.st(0));
    f.commit(sw, C0 | C1 | C2 | C3, IE | DE);
}

/// FXAM: the class of ST(0) and its sign in the condition codes.
fn examine(f: &mut X87State) {
    let v = f.st(0);
    let exponent = v.exponent & 0x7fff;
    let class = if f.is_empty(0) {
        C3 | C0
    } else {
        match (exponent, v.mantissa) {
            (0, 0) => C3,
            (0, _) => C3 | C2,
            (_, m) if m >> 63 == 0 => 0,
            (0x7fff, 0x8000_0000_0000_0000) => C2 | C0,
            (0x7fff, _) => C0,
            _ => C2,
        }
    };
    let sign = if v.exponent & 0x8000 != 0 { C1 } else { 0 };
    f.conditions(C0 | C1 | C2 | C3, class | sign);
}

/// FLD1 and the other constants.
fn constant(f: &mut X87State, n: u8) {
    let v = match n {
        0 => X87Reg::ONE,
        1..=5 => fpu::constant(f, n, control(f)),
        _ => X87Reg::ZERO,
    };
    push_checked(f, v);
}

/// FCMOVcc.
#[inline(never)]
fn conditional_move(f: &mut X87State, i: u8, holds: bool) {
    if f.is_empty(0) || f.is_empty(i) {
        if f.stack_fault(false) {
            f.set(0, X87Reg::INDEFINITE);
        }
        return;
    }
    if holds {
        f.set(0, f.st(i));
    }
}

/// The condition codes of a comparison with an empty register. True if invalid operations are
/// masked.
fn unordered_fault(f: &mut X87State) -> bool {
    let masked = f.stack_fault(false);
    f.conditions(C0 | C2 | C3, C0 | C2 | C3);
    masked
}

/// FCOM, FUCOM and their popping forms: ST(0) against ST(i), then `pops` pops.
#[inline(never)]
fn compare(f: &mut X87State, i: u8, quiet: bool, pops: u8) {
    let stopped = if f.is_empty(0) || f.is_empty(i) {
        !unordered_fault(f)
    } else {
        let sw = fpu::compare(control(f), f.st(0), Source::Reg(f.st(i)), quiet);
        f.commit(sw, C0 | C1 | C2 | C3, IE | DE)
    };
    if !stopped {
        for _ in 0..pops {
            f.pop();
        }
    }
}

/// FCOMI, FUCOMI and their popping forms: the image of the flags. Without a stack fault they leave
/// the condition codes.
fn compare_to_flags(f: &mut X87State, i: u8, quiet: bool, pop: bool) -> u64 {
    let (sw, stopped) = if f.is_empty(0) || f.is_empty(i) {
        (C0 | C2 | C3, !f.stack_fault(false))
    } else {
        let sw = fpu::compare(control(f), f.st(0), Source::Reg(f.st(i)), quiet);
        (sw, f.commit(sw, 0, IE | DE))
    };
    if pop && !stopped {
        f.pop();
    }
    let flag = |condition: u16, flag: u64| if sw & condition != 0 { flag } else { 0 };
    flag(C0, flags::CF) | flag(C2, flags::PF) | flag(C3, flags::ZF)
}

/// D9 F0 to D9 FF.
fn transcendental(f: &mut X87State, modrm: u8) {
    match modrm {
        0xf0 => unary(f, Unary::F2xm1),
        0xf1 => binary(f, Binary::Yl2x),
        0xf2 => pair(f, Pair::Ptan),
        0xf3 => binary(f, Binary::Patan),
        0xf4 => pair(f, Pair::Xtract),
        0xf5 => binary(f, Binary::Prem1),
        0xf6 => {
            f.top = f.top.wrapping_sub(1) & 7;
            f.conditions(C1, 0);
        }
        0xf7 => {
            f.top = f.top.wrapping_add(1) & 7;
            f.conditions(C1, 0);
        }
        0xf8 => binary(f, Binary::Prem),
        0xf9 => binary(f, Binary::Yl2xp1),
        0xfa => unary(f, Unary::Sqrt),
        0xfb => pair(f, Pair::SinCos),
        0xfc => unary(f, Unary::RndInt),
        0xfd => binary(f, Binary::Scale),
        0xfe => unary(f, Unary::Sin),
        _ => unary(f, Unary::Cos),
    }
}

/// An operation on ST(0) alone.
fn unary(f: &mut X87State, op: Unary) {
    let defined = match op {
        Unary::Sin | Unary::Cos => C1 | C2,
        _ => C1,
    };
    if f.is_empty(0) {
        f.conditions(defined, 0);
        if f.stack_fault(false) {
            f.set(0, X87Reg::INDEFINITE);
        }
        return;
    }
    let (v, sw) = fpu::unary(f, op, control(f), f.st(0));
    if !f.commit(sw, defined, EARLY) {
        f.set(0, v);
    }
}

/// An operation on ST(0) and ST(1).
fn binary(f: &mut X87State, op: Binary) {
    let pops = matches!(op, Binary::Yl2x | Binary::Yl2xp1 | Binary::Patan);
    let to = u8::from(pops);
    let remainder = matches!(op, Binary::Prem | Binary::Prem1);
    if f.is_empty(0) || f.is_empty(1) {
        if remainder {
            f.conditions(C2, 0);
        }
        if f.stack_fault(false) {
            f.set(to, X87Reg::INDEFINITE);
            if pops {
                f.pop();
            }
        }
        return;
    }
    let (v, sw) = fpu::binary(f, op, control(f), f.st(0), f.st(1));
    // Without a remainder there is no quotient to tell of.
    let none = v.exponent & 0x7fff == 0x7fff || sw & EARLY & !f.control != 0;
    let (sw, defined) = match (remainder, none) {
        (true, false) => (sw, C0 | C1 | C2 | C3),
        (true, true) => (sw & !(C1 | C2), C1 | C2),
        _ => (sw, C1),
    };
    if !f.commit(sw, defined, EARLY) {
        f.set(to, v);
        if pops {
            f.pop();
        }
    }
}

/// An operation that replaces ST(0) and pushes.
fn pair(f: &mut X87State, op: Pair) {
    let trigonometric = op != Pair::Xtract;
    let defined = if trigonometric { C1 | C2 } else { C1 };
    if f.is_empty(0) || !f.is_empty(7) {
        f.conditions(defined, 0);
        let overflow = !f.is_empty(0);
        if f.stack_fault(overflow) {
            f.set(0, X87Reg::INDEFINITE);
            f.push(X87Reg::INDEFINITE);
        }
        return;
    }
    let (v, pushed, sw) = fpu::pair(f, op, control(f), f.st(0));
    let out_of_range = trigonometric && sw & C2 != 0;
    if !f.commit(sw, defined, EARLY) && !out_of_range {
        f.set(0, v);
        f.push(pushed);
    }
}
