//! FADD, FSUB, FMUL, FDIV and FSQRT: each is exact up to one rounding.

use super::format::*;
use super::round::{Mode, round, shift_sticky};
use crate::helpers::x87::stack::ZE;
use crate::state::X87Reg;

/// a + b.
pub fn add(control: u16, a: Operand, b: Operand) -> Outcome {
    if let Some(nan) = no_numbers(&a, &b) {
        return nan;
    }
    let outcome = match (a.value, b.value) {
        (Value::Infinity, Value::Infinity) if a.negative != b.negative => INVALID,
        (Value::Infinity, _) => (infinity(a.negative), 0),
        (_, Value::Infinity) => (infinity(b.negative), 0),
        (Value::Finite(ea, ma), Value::Finite(eb, mb)) => {
            // The one with the larger exponent first.
            if (ea, ma) >= (eb, mb) {
                sum(control, a.negative, b.negative, (ea, ma), (eb, mb))
            } else {
                sum(control, b.negative, a.negative, (eb, mb), (ea, ma))
            }
        }
        (Value::Finite(e, m), _) => round(control, a.negative, e, u128::from(m) << 64),
        (_, Value::Finite(e, m)) => round(control, b.negative, e, u128::from(m) << 64),
        _ if a.negative == b.negative => (zero(a.negative), 0),
        _ => (zero(Mode::of(control) == Mode::Down), 0),
    };
    denormals([&a, &b], outcome)
}

/// The sum of two finite numbers, the larger magnitude first.
fn sum(control: u16, na: bool, nb: bool, (ea, ma): (i32, u64), (eb, mb): (i32, u64)) -> Outcome {
    // A bit of room for the carry. The dropped bits of the smaller one lie below all that
    // rounding looks at but for being there.
    let x = u128::from(ma) << 63;
    let y = shift_sticky(u128::from(mb) << 63, (ea - eb) as u32);
    let s = if na == nb { x + y } else { x - y };
    if s == 0 {
        return (zero(Mode::of(control) == Mode::Down), 0);
    }
    let shift = s.leading_zeros();
    round(control, na, ea + 1 - shift as i32, s << shift)
}

/// a * b.
pub fn mul(control: u16, a: Operand, b: Operand) -> Outcome {
    if let Some(nan) = no_numbers(&a, &b) {
        return nan;
    }
    let negative = a.negative != b.negative;
    let outcome = match (a.value, b.value) {
        (Value::Infinity, Value::Zero) | (Value::Zero, Value::Infinity) => INVALID,
        (Value::Infinity, _) | (_, Value::Infinity) => (infinity(negative), 0),
        (Value::Finite(ea, ma), Value::Finite(eb, mb)) => {
            let product = u128::from(ma) * u128::from(mb);
            let shift = product.leading_zeros();
            let e = ea + eb - BIAS + 1 - shift as i32;
            round(control, negative, e, product << shift)
        }
        _ => (zero(negative), 0),
    };
    denormals([&a, &b], outcome)
}

/// a / b.
pub fn div(control: u16, a: Operand, b: Operand) -> Outcome {
    if let Some(nan) = no_numbers(&a, &b) {
        return nan;
    }
    let negative = a.negative != b.negative;
    let outcome = match (a.value, b.value) {
        (Value::Infinity, Value::Infinity) | (Value::Zero, Value::Zero) => INVALID,
        (Value::Infinity, _) => (infinity(negative), 0),
        (_, Value::Infinity) | (Value::Zero, _) => (zero(negative), 0),
        (_, Value::Zero) => (infinity(negative), ZE),
        (Value::Finite(ea, ma), Value::Finite(eb, mb)) => {
            let (e, q) = quotient((ea, ma), (eb, mb));
            round(control, negative, e, q)
        }
        _ => INVALID,
    };
    denormals([&a, &b], outcome)
}

/// The quotient's exponent, and its significand with a last bit that tells of a remainder.
fn quotient((ea, ma): (i32, u64), (eb, mb): (i32, u64)) -> (i32, u128) {
    let divisor = u128::from(mb);
    // 2^63 <= high < 2^65 or so; 62 more bits and a sticky one.
    let dividend = u128::from(ma) << 63;
    let (high, rest) = (dividend / divisor, dividend % divisor);
    let low = rest << 63;
    let sticky = u128::from(low % divisor != 0);
    let q = (high << 63) | (low / divisor);
    let shift = q.leading_zeros();
    // q is the quotient times 2^126.
    (ea - eb + BIAS + 1 - shift as i32, q << shift | sticky)
}

/// The square root.
pub fn sqrt(control: u16, a: X87Reg) -> Outcome {
    let a = Operand::register(a);
    if let Some(nan) = no_number(&a) {
        return nan;
    }
    match a.value {
        Value::Zero => (a.bits, 0),
        _ if a.negative => INVALID,
        Value::Finite(e, m) => {
            let odd = (e - BIAS) & 1;
            // 126 or 127 bits, an even power of two away from the value: a root of 64 bits.
            let square = u128::from(m) << (62 + odd + 1);
            let root = square.isqrt();
            let rest = square - root * root;
            // The next bit of the root: set if (root + 1/2)^2 is not above the square.
            let half = u128::from(rest > root);
            let sticky = u128::from(rest != 0);
            let significand = root << 64 | half << 63 | sticky;
            let outcome = round(control, false, (e - BIAS - odd) / 2 + BIAS, significand);
            denormals([&a], outcome)
        }
        _ => (infinity(false), 0),
    }
}
