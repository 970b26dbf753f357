//! To and from binary32 and binary64.

use super::format::*;
use super::round::{Mode, round_bits, shift_sticky};
use crate::helpers::x87::ops::Source;
use crate::helpers::x87::stack::{C1, OE, PE, UE};
use crate::state::X87Reg;

/// Loads a binary32 or binary64, always exactly.
pub fn load(source: Source) -> Outcome {
    let a = Operand::of(source);
    no_number(&a).unwrap_or_else(|| denormals([&a], (a.bits, 0)))
}

/// Stores with `bits` significant bits and an exponent of `width` bits. With an unmasked overflow
/// or underflow only the flags mean something: nothing is stored then.
pub fn store(control: u16, a: X87Reg, bits: u32, width: u32) -> (u64, u16) {
    let a = Operand::register(a);
    let (fraction, top) = (bits - 1, (1u64 << width) - 1);
    let sign = u64::from(a.negative) << (fraction + width);
    if let Some((nan, sw)) = no_number(&a) {
        let sign = nan.exponent >> 15 << (fraction + width);
        return (
            sign | top << fraction | nan.mantissa << 1 >> (64 - fraction),
            sw,
        );
    }
    let (e, m) = match a.value {
        Value::Finite(e, m) => (e - BIAS + (top >> 1) as i32, u128::from(m) << 64),
        Value::Zero => return (sign, 0),
        _ => return (sign | top << fraction, 0),
    };
    let mode = Mode::of(control);
    let r = round_bits(mode, a.negative, m, bits);
    let rounded = if r.carry { e + 1 } else { e };
    if rounded >= top as i32 {
        if control & OE == 0 {
            return (sign, OE);
        }
        return if mode.overflows_to_infinity(a.negative) {
            (sign | top << fraction, OE | PE | C1)
        } else {
            (sign | ((top << fraction) - 1), OE | PE)
        };
    }
    if rounded >= 1 {
        let kept = r.significand << 1 >> (64 - fraction);
        return (sign | (rounded as u64) << fraction | kept, r.flags);
    }
    if control & UE == 0 {
        return (sign, UE);
    }
    let r = round_bits(mode, a.negative, shift_sticky(m, (1 - e) as u32), bits);
    let flags = if r.flags & PE != 0 { r.flags | UE } else { 0 };
    // The integer bit, if rounding set it, is the exponent 1.
    (sign | r.significand >> (64 - bits), flags)
}
