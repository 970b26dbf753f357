//! FSIN, FCOS, FSINCOS, FPTAN.
//!
//! The argument is reduced by the 66-bit pi of the x87 (SDM volume 1, 8.3.8), exactly, as the
//! hardware does it; then follow power series.

use super::format::*;
use super::wide::{Wide, series};
use crate::helpers::x87::stack::{C2, PE};
use crate::state::X87Reg;

/// The x87's pi, 66 bits, in units of 2^-64: half of it in units of 2^-65.
const PI_66: u128 = 0x3_243f_6a88_85a3_08d3;

/// 1/(2n+1)! for the sine.
const SINE: [u128; 15] = inverse_factorials(1);
/// 1/(2n)! for the cosine.
const COSINE: [u128; 15] = inverse_factorials(0);

/// 2^127 / (2n + start)!.
const fn inverse_factorials(start: u128) -> [u128; 15] {
    let mut out = [0; 15];
    let mut term = 1u128 << 127;
    let mut n = 0;
    while n < 15 {
        out[n] = term;
        let k = 2 * n as u128 + start;
        term = term / (k + 1) / (k + 2);
        n += 1;
    }
    out
}

/// An argument in the range of the instructions.
enum Argument {
    /// It has a result without a computation, or none.
    Special(Outcome),
    /// It is 2^63 or larger.
    TooLarge,
    /// Zero.
    Zero,
    /// The quadrant, and the rest from -pi/4 to pi/4.
    Reduced(u8, Wide),
}

/// Looks at the operand.
fn argument(a: &Operand) -> Argument {
    if let Some(nan) = no_number(a) {
        return Argument::Special(nan);
    }
    match a.value {
        Value::Zero => Argument::Zero,
        Value::Finite(e, _) if e >= BIAS + 63 => Argument::TooLarge,
        Value::Finite(e, m) => {
            let (quadrant, rest) = reduce(a.negative, e, m);
            Argument::Reduced(quadrant, rest)
        }
        _ => Argument::Special(INVALID),
    }
}

/// x = quadrant * pi/2 + rest, modulo 2 pi.
fn reduce(negative: bool, e: i32, m: u64) -> (u8, Wide) {
    let x = Wide::finite(negative, e, m);
    // Below pi/4 there is nothing to do; 1/2 is a convenient bound, and the code below does what
    // lies between.
    if e < BIAS - 1 {
        return (0, x);
    }
    // In units of 2^-65, where the significand is in units of 2^(e - BIAS - 63).
    let units = u128::from(m) << (e - BIAS + 2);
    let (mut n, mut rest) = (units / PI_66, units % PI_66);
    let mut sign = negative;
    if rest * 2 > PI_66 {
        rest = PI_66 - rest;
        n += 1;
        sign = !sign;
    }
    let quadrant = (n & 3) as u8;
    let quadrant = if negative {
        quadrant.wrapping_neg() & 3
    } else {
        quadrant
    };
    // No number of 64 bits below 2^63 is a multiple of pi/2, so the rest is not 0.
    (quadrant, Wide::new(sign, 127 - 65, rest.max(1)))
}

/// sin x and cos x for x from -pi/4 to pi/4.
fn sin_cos(x: Wide) -> (Wide, Wide) {
    let z = x.times(x).fraction();
    (x.times(series(&SINE, z, true)), series(&COSINE, z, true))
}

/// sin and cos of a reduced argument.
fn in_quadrant(quadrant: u8, x: Wide) -> (Wide, Wide) {
    let (sin, cos) = sin_cos(x);
    match quadrant {
        0 => (sin, cos),
        1 => (cos, sin.negated()),
        2 => (sin.negated(), cos.negated()),
        _ => (cos.negated(), sin),
    }
}

/// FSIN and FCOS.
pub fn sine(control: u16, a: X87Reg, cosine: bool) -> Outcome {
    let a = Operand::register(a);
    let outcome = match argument(&a) {
        Argument::Special(outcome) => outcome,
        Argument::TooLarge => (a.bits, C2),
        Argument::Zero if cosine => (X87Reg::ONE, 0),
        Argument::Zero => (a.bits, 0),
        Argument::Reduced(quadrant, x) => {
            let (sin, cos) = in_quadrant(quadrant, x);
            if cosine { cos } else { sin }.round(control)
        }
    };
    denormals([&a], outcome)
}

/// FSINCOS: sine, cosine, status word.
pub fn sine_cosine(control: u16, a: X87Reg) -> (X87Reg, X87Reg, u16) {
    let a = Operand::register(a);
    let (sin, cos, sw) = match argument(&a) {
        Argument::Special((v, sw)) => (v, v, sw),
        Argument::TooLarge => (a.bits, X87Reg::ZERO, C2),
        Argument::Zero => (a.bits, X87Reg::ONE, 0),
        Argument::Reduced(quadrant, x) => {
            let (sin, cos) = in_quadrant(quadrant, x);
            let ((sin, first), (cos, second)) = (sin.round(control), cos.round(control));
            (sin, cos, first | second)
        }
    };
    let (sin, sw) = denormals([&a], (sin, sw));
    (sin, cos, sw)
}

/// FPTAN: the tangent, and the 1 that is pushed.
pub fn tangent(control: u16, a: X87Reg) -> (X87Reg, X87Reg, u16) {
    let a = Operand::register(a);
    let (tan, one, sw) = match argument(&a) {
        Argument::Special((v, sw)) => (v, v, sw),
        Argument::TooLarge => (a.bits, X87Reg::ZERO, C2),
        Argument::Zero => (a.bits, X87Reg::ONE, 0),
        Argument::Reduced(quadrant, x) => {
            let (sin, cos) = in_quadrant(quadrant, x);
            let (tan, sw) = sin.over(cos).round(control);
            (tan, X87Reg::ONE, sw | PE)
        }
    };
    let (tan, sw) = denormals([&a], (tan, sw));
    (tan, one, sw)
}
