//! The common case of arithmetic, in either core: both operands and the result are normal numbers
//! or 0, and rounding is to nearest, in 64 or 53 bits. A few integer instructions do that in less
//! time than a host's x87 takes to load two registers and store one.
//!
//! `None` sends the caller to the core.

use super::convert;
use super::ops::{Arith, Source};
use super::stack::{C1, PE};
use crate::state::X87Reg;

/// Rounding and precision control.
const ROUNDING: u16 = 0xf00;
/// To nearest, 64 bits.
const EXTENDED: u16 = 0x300;
/// To nearest, 53 bits.
const DOUBLE: u16 = 0x200;

/// What an operation gives.
type Outcome = Option<(X87Reg, u16)>;

/// Addition, subtraction and multiplication.
#[inline(always)]
pub fn arith(op: Arith, control: u16, a: X87Reg, b: Source) -> Outcome {
    let double = match control & ROUNDING {
        EXTENDED => false,
        DOUBLE => true,
        _ => return None,
    };
    let b = match b {
        Source::Reg(r) => r,
        Source::F64(bits) => convert::from_f64(bits)?,
        Source::F32(bits) => convert::from_f32(bits)?,
        Source::I16(n) => convert::from_int(i64::from(n)),
        Source::I32(n) => convert::from_int(i64::from(n)),
    };
    match op {
        Arith::Add => add(double, a, b),
        Arith::Sub => add(double, a, negated(b)),
        Arith::SubR => add(double, negated(a), b),
        Arith::Mul => mul(double, a, b),
        Arith::Div | Arith::DivR => None,
    }
}

/// The number with the other sign.
#[inline(always)]
fn negated(a: X87Reg) -> X87Reg {
    X87Reg {
        exponent: a.exponent ^ 0x8000,
        ..a
    }
}

/// Normal, and not in the largest binade.
#[inline(always)]
fn is_normal(a: X87Reg) -> bool {
    a.mantissa >> 63 != 0 && (a.exponent & 0x7fff).wrapping_sub(1) < 0x7ffd
}

/// 0 of either sign.
#[inline(always)]
fn is_zero(a: X87Reg) -> bool {
    a.mantissa == 0 && a.exponent & 0x7fff == 0
}

/// Rounds a significand with its top bit; the exponent may be anything.
#[inline(always)]
fn round(double: bool, sign: u64, exponent: i64, significand: u128) -> Outcome {
    const HALF: u64 = 1 << 63;
    let (high, low) = ((significand >> 64) as u64, significand as u64);
    // What is kept, its last bit, and what is dropped.
    let (kept, unit, rest) = if double {
        (high & !0x7ff, 0x800, high << 53 | u64::from(low != 0))
    } else {
        (high, 1, low)
    };
    let up = rest > HALF || rest == HALF && kept & unit != 0;
    let (mantissa, carry) = kept.overflowing_add(if up { unit } else { 0 });
    let exponent = exponent + i64::from(carry);
    if !(1..0x7fff).contains(&exponent) {
        return None;
    }
    let flags = if rest == 0 { 0 } else { PE } | if up { C1 } else { 0 };
    let mantissa = mantissa | u64::from(carry) << 63;
    let exponent = sign | exponent as u64;
    Some((X87Reg { mantissa, exponent }, flags))
}

/// a + b.
#[inline(always)]
fn add(double: bool, a: X87Reg, b: X87Reg) -> Outcome {
    if !(is_normal(a) && is_normal(b)) {
        // One of them 0: only the other one is rounded.
        let other = if is_zero(a) { b } else { a };
        let one = is_zero(a) != is_zero(b) && is_normal(other);
        let significand = u128::from(other.mantissa) << 64;
        let exponent = (other.exponent & 0x7fff) as i64;
        return if one {
            round(double, other.exponent & 0x8000, exponent, significand)
        } else {
            None
        };
    }
    // The larger magnitude first.
    let (ea, eb) = (a.exponent & 0x7fff, b.exponent & 0x7fff);
    let swap = (eb, b.mantissa) > (ea, a.mantissa);
    let (sign, ma, mb) = if swap {
        (b.exponent & 0x8000, b.mantissa, a.mantissa)
    } else {
        (a.exponent & 0x8000, a.mantissa, b.mantissa)
    };
    let (exponent, distance) = (ea.max(eb) as i64, ea.abs_diff(eb));
    // A bit of room for the carry, 63 bits below the last one; ones that fall out set the last.
    let x = u128::from(ma) << 63;
    let y = match distance {
        0..64 => u128::from(mb) << 63 >> distance,
        64..127 => {
            let down = distance - 63;
            u128::from(mb >> down | u64::from(mb << (64 - down) != 0))
        }
        _ => 1,
    };
    if (a.exponent ^ b.exponent) & 0x8000 == 0 {
        let sum = x + y;
        let shift = sum.leading_zeros();
        return round(double, sign, exponent + 1 - i64::from(shift), sum << shift);
    }
    let difference = x - y;
    if difference == 0 {
        return Some((X87Reg::ZERO, 0));
    }
    let shift = difference.leading_zeros();
    round(
        double,
        sign,
        exponent + 1 - i64::from(shift),
        difference << shift,
    )
}

/// a * b.
#[inline(always)]
fn mul(double: bool, a: X87Reg, b: X87Reg) -> Outcome {
    let sign = (a.exponent ^ b.exponent) & 0x8000;
    if !(is_normal(a) && is_normal(b)) {
        let finite = |v: X87Reg| is_zero(v) || is_normal(v);
        let zero = X87Reg {
            mantissa: 0,
            exponent: sign,
        };
        return (finite(a) && finite(b)).then_some((zero, 0));
    }
    let product = u128::from(a.mantissa) * u128::from(b.mantissa);
    let shift = product.leading_zeros();
    let exponent = (a.exponent & 0x7fff) as i64 + (b.exponent & 0x7fff) as i64 - 0x3ffe;
    round(double, sign, exponent - i64::from(shift), product << shift)
}
