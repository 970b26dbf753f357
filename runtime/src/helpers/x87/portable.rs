//! The x87's operations on any host, in integer arithmetic of our own.
//!
//! The same functions as `host_x86_64`, and the same results and status words, bit for bit; the
//! transcendental functions within a unit in the last place. As there, the control word that is
//! passed masks invalid operations, denormal operands and divisions by zero; overflow and underflow
//! may be unmasked.
//!
//! [`format`](self::format) takes numbers apart, [`round`](self::round) puts results together; the
//! other modules have one family of instructions each. `wide` is the arithmetic of the
//! transcendental functions.

mod arith;
mod atan;
mod compare;
mod exponential;
mod format;
mod integer;
mod real;
mod remainder;
mod round;
mod scale;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
mod trig;
mod wide;

use super::ops::{Arith, Binary, Pair, Source, Unary};
use crate::state::X87Reg;
use format::Operand;

/// Arithmetic: the result and the status word.
pub fn arith(op: Arith, control: u16, a: X87Reg, b: Source) -> (X87Reg, u16) {
    let (a, b) = (Operand::register(a), Operand::of(b));
    match op {
        Arith::Add => arith::add(control, a, b),
        Arith::Mul => arith::mul(control, a, b),
        Arith::Sub => arith::add(control, a, b.negated()),
        Arith::SubR => arith::add(control, b, a.negated()),
        Arith::Div => arith::div(control, a, b),
        Arith::DivR => arith::div(control, b, a),
    }
}

/// Compares; the status word. `quiet`: only signaling NaNs are invalid.
pub fn compare(_control: u16, a: X87Reg, b: Source, quiet: bool) -> u16 {
    compare::compare(Operand::register(a), Operand::of(b), quiet)
}

/// FTST: compares with 0.
pub fn test(control: u16, a: X87Reg) -> u16 {
    compare(control, a, Source::Reg(X87Reg::ZERO), false)
}

/// Loads a binary32 or binary64.
pub fn load(_control: u16, source: Source) -> (X87Reg, u16) {
    real::load(source)
}

/// Loads a packed decimal.
pub fn load_bcd(_control: u16, bytes: [u8; 10]) -> (X87Reg, u16) {
    (integer::load_bcd(bytes), 0)
}

/// Stores as binary32; nothing meaningful with an unmasked overflow or underflow.
pub fn store_f32(control: u16, a: X87Reg) -> (u32, u16) {
    let (bits, sw) = real::store(control, a, 24, 8);
    (bits as u32, sw)
}

/// Stores as binary64, likewise.
pub fn store_f64(control: u16, a: X87Reg) -> (u64, u16) {
    real::store(control, a, 53, 11)
}

/// Stores as an integer of 2, 4 or 8 bytes, rounded as the control word says.
pub fn store_int(control: u16, a: X87Reg, bytes: u32) -> (u64, u16) {
    integer::store_int(control, a, bytes)
}

/// Stores as packed decimal.
pub fn store_bcd(control: u16, a: X87Reg) -> ([u8; 10], u16) {
    integer::store_bcd(control, a)
}

/// An operation on ST(0) alone: the result and the status word.
pub fn unary(op: Unary, control: u16, a: X87Reg) -> (X87Reg, u16) {
    match op {
        Unary::F2xm1 => exponential::exponential(control, a),
        Unary::Sqrt => arith::sqrt(control, a),
        Unary::RndInt => integer::round_to_integer(control, a),
        Unary::Sin => trig::sine(control, a, false),
        Unary::Cos => trig::sine(control, a, true),
    }
}

/// An operation on ST(0) and ST(1): the one result and the status word.
pub fn binary(op: Binary, control: u16, st0: X87Reg, st1: X87Reg) -> (X87Reg, u16) {
    match op {
        Binary::Scale => scale::scale(control, st0, st1),
        Binary::Prem => remainder::remainder(control, false, st0, st1),
        Binary::Prem1 => remainder::remainder(control, true, st0, st1),
        Binary::Yl2x => exponential::y_log2(control, st0, st1),
        Binary::Yl2xp1 => exponential::y_log2_plus_1(control, st0, st1),
        Binary::Patan => atan::arc_tangent(control, st0, st1),
    }
}

/// An operation that pushes: what ST(0) becomes, what is pushed, and the status word. If its C2 is
/// set (for the trigonometric ones), ST(0) stays and nothing is pushed.
pub fn pair(op: Pair, control: u16, a: X87Reg) -> (X87Reg, X87Reg, u16) {
    match op {
        Pair::Ptan => trig::tangent(control, a),
        Pair::SinCos => trig::sine_cosine(control, a),
        Pair::Xtract => scale::extract(a),
    }
}

/// A constant of D9 E8 to D9 ED by the low three bits of its opcode: 1, log2 10, log2 e, pi,
/// log10 2, ln 2, rounded as the control word says.
pub fn constant(n: u8, control: u16) -> X87Reg {
    scale::constant(control, n)
}
