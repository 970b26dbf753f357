//! FSCALE, FXTRACT and the constants.

use super::format::*;
use super::round::{full, round};

use crate::helpers::x87::convert;
use crate::helpers::x87::stack::ZE;
use crate::state::X87Reg;

/// FSCALE: a * 2^b, with b truncated.
pub fn scale(control: u16, a: X87Reg, b: X87Reg) -> Outcome {
    let (a, b) = (Operand::register(a), Operand::register(b));
    if let Some(nan) = no_numbers(&a, &b) {
        return nan;
    }
    let outcome = match (a.value, b.value) {
        (Value::Infinity, Value::Infinity) if b.negative => INVALID,
        (Value::Zero, Value::Infinity) if !b.negative => INVALID,
        (Value::Infinity | Value::Zero, _) => (a.bits, 0),
        (_, Value::Infinity) if b.negative => (zero(a.negative), 0),
        (_, Value::Infinity) => (infinity(a.negative), 0),
        (Value::Finite(e, m), by) => {
            let by = match by {
                Value::Finite(eb, mb) => truncated(b.negative, eb, mb),
                _ => 0,
            };
            round(full(control), a.negative, e + by, u128::from(m) << 64)
        }
        _ => INVALID,
    };
    denormals([&a, &b], outcome)
}

/// The integer part, as far as it matters to an exponent.
fn truncated(negative: bool, e: i32, m: u64) -> i32 {
    let n = match e - BIAS {
        whole if whole < 0 => 0,
        whole if whole < 17 => (m >> (63 - whole)) as i32,
        _ => 1 << 17,
    };
    if negative { -n } else { n }
}

/// FXTRACT: the exponent and the significand, each as a number.
pub fn extract(a: X87Reg) -> (X87Reg, X87Reg, u16) {
    let a = Operand::register(a);
    if let Some((nan, sw)) = no_number(&a) {
        return (nan, nan, sw);
    }
    match a.value {
        Value::Finite(e, m) => {
            let significand = pack(a.negative, BIAS, m);
            let (exponent, sw) = denormals([&a], (convert::from_int(i64::from(e - BIAS)), 0));
            (exponent, significand, sw)
        }
        Value::Zero => (infinity(true), a.bits, ZE),
        _ => (infinity(false), a.bits, 0),
    }
}

/// A constant of D9 E8 to D9 ED by the low three bits of its opcode.
pub fn constant(control: u16, n: u8) -> X87Reg {
    let (exponent, significand) = match n {
        // log2 10, log2 e, pi, log10 2, ln 2.
        1 => (1, 0xd49a_784b_cd1b_8afe_492b_f6ff_4daf_db4c),
        2 => (0, super::wide::LOG2_E),
        3 => (1, super::wide::PI),
        4 => (-2, 0x9a20_9a84_fbcf_f798_8f89_59ac_0b7c_9178),
        5 => (-1, super::wide::LN_2),
        _ => (0, 1 << 127),
    };
    round(full(control), false, exponent + BIAS, significand).0
}
