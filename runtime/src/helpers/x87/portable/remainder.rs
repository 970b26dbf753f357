//! FPREM and FPREM1: exact, in steps of at most 63 quotient bits.

use super::format::*;
use super::round::{full, round};
use crate::helpers::x87::stack::{C0, C1, C2, C3};
use crate::state::X87Reg;

/// The partial remainder of a by b: truncated quotient, or rounded to nearest. C2: not complete.
/// Else C0, C3 and C1 are the quotient's bits 2, 1 and 0.
pub fn remainder(control: u16, nearest: bool, a: X87Reg, b: X87Reg) -> Outcome {
    let (a, b) = (Operand::register(a), Operand::register(b));
    if let Some(nan) = no_numbers(&a, &b) {
        return nan;
    }
    let outcome = match (a.value, b.value) {
        (Value::Infinity, _) | (_, Value::Zero) => INVALID,
        (Value::Zero, _) => (a.bits, 0),
        (Value::Finite(e, m), Value::Infinity) => rest(control, a.negative, e, u128::from(m)),
        (Value::Finite(ea, ma), Value::Finite(eb, mb)) => {
            let distance = ea - eb;
            if distance < 64 {
                complete(control, nearest, a.negative, (ea, ma), (eb, mb))
            } else {
                let bits = STEP_LEAST + distance % STEP_LEAST;
                let m = (u128::from(ma) << bits) % u128::from(mb);
                let (v, sw) = rest(control, a.negative, ea - bits, m);
                (v, sw | C2)
            }
        }
        _ => INVALID,
    };
    denormals([&a, &b], outcome)
}

/// A step that does not complete takes this many quotient bits at least.
const STEP_LEAST: i32 = 32;

/// The remainder of exponents that differ by less than 64.
fn complete(
    control: u16,
    nearest: bool,
    negative: bool,
    (ea, ma): (i32, u64),
    (eb, mb): (i32, u64),
) -> Outcome {
    let distance = ea - eb;
    let divisor = u128::from(mb);
    // Both as multiples of the same unit, which is half a unit of the one with less.
    if distance < -1 || distance < 0 && !nearest {
        return rest(control, negative, ea, u128::from(ma));
    }
    let (dividend, divisor, unit) = if distance < 0 {
        (u128::from(ma), divisor << 1, ea)
    } else {
        (u128::from(ma) << distance, divisor, eb)
    };
    let (mut quotient, mut m) = (dividend / divisor, dividend % divisor);
    let mut sign = negative;
    if nearest && (m * 2 > divisor || m * 2 == divisor && quotient & 1 != 0) {
        m = divisor - m;
        sign = !sign;
        quotient += 1;
    }
    let bit = |n: u32, c: u16| if quotient >> n & 1 != 0 { c } else { 0 };
    let conditions = bit(2, C0) | bit(1, C3) | bit(0, C1);
    if m == 0 {
        return (zero(negative), conditions);
    }
    let (v, sw) = rest(control, sign, unit, m);
    (v, sw | conditions)
}

/// m * 2^(e - BIAS - 63) as a register; always exact.
fn rest(control: u16, negative: bool, e: i32, m: u128) -> Outcome {
    if m == 0 {
        return (zero(negative), 0);
    }
    let shift = m.leading_zeros();
    round(full(control), negative, e + 64 - shift as i32, m << shift)
}
