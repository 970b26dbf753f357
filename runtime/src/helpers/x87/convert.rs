//! Conversions between the 80-bit format and others that need no FPU: the exact ones, and rounding
//! to nearest where the result is a normal number. `None` sends the caller to the FPU.

use super::stack::{C1, PE};
use crate::state::X87Reg;

/// What to add to a binary64 exponent to get that of the 80-bit format.
const BIAS64: u64 = 0x3fff - 0x3ff;
/// The same for binary32.
const BIAS32: u64 = 0x3fff - 0x7f;

/// A binary64, unless it is a denormal, an infinity or a NaN.
#[inline(always)]
pub fn from_f64(bits: u64) -> Option<X87Reg> {
    let sign = bits >> 63 << 15;
    let exponent = bits >> 52 & 0x7ff;
    if exponent.wrapping_sub(1) < 0x7fe {
        return Some(X87Reg {
            mantissa: 1 << 63 | bits << 11,
            exponent: sign | (exponent + BIAS64),
        });
    }
    (bits << 1 == 0).then_some(X87Reg {
        mantissa: 0,
        exponent: sign,
    })
}

/// A binary32, unless it is a denormal, an infinity or a NaN.
#[inline(always)]
pub fn from_f32(bits: u32) -> Option<X87Reg> {
    let bits = u64::from(bits);
    let sign = bits >> 31 << 15;
    let exponent = bits >> 23 & 0xff;
    if exponent.wrapping_sub(1) < 0xfe {
        return Some(X87Reg {
            mantissa: 1 << 63 | bits << 40,
            exponent: sign | (exponent + BIAS32),
        });
    }
    (bits << 33 == 0).then_some(X87Reg {
        mantissa: 0,
        exponent: sign,
    })
}

/// An integer, always exact.
#[inline(always)]
pub fn from_int(value: i64) -> X87Reg {
    if value == 0 {
        return X87Reg::ZERO;
    }
    let magnitude = value.unsigned_abs();
    let shift = magnitude.leading_zeros();
    X87Reg {
        mantissa: magnitude << shift,
        exponent: u64::from(value < 0) << 15 | u64::from(0x3fff + 63 - shift),
    }
}

/// Rounds to nearest even into a binary format with `fraction` fraction bits and the given bias
/// difference and largest exponent: the bits, and the status flags that this sets.
#[inline(always)]
fn round(reg: X87Reg, fraction: u32, bias: u64, top: u64) -> Option<(u64, u16)> {
    let exponent = reg.exponent & 0x7fff;
    if reg.mantissa >> 63 == 0 {
        let zero = reg.mantissa == 0 && exponent == 0;
        let sign = ((reg.exponent >> 15 & 1) * (top + 1)) << fraction;
        return zero.then_some((sign, 0));
    }
    let shift = 63 - fraction;
    let kept = reg.mantissa >> shift;
    let rest = reg.mantissa << (64 - shift);
    let half = 1 << 63;
    let up = rest > half || rest == half && kept & 1 != 0;
    // A carry out of the fraction goes into the exponent, as it must.
    let narrow = exponent.wrapping_sub(bias);
    if narrow.wrapping_sub(1) >= top - 2 {
        return None;
    }
    let sign = (reg.exponent >> 15 & 1) * (top + 1);
    let bits = ((sign | narrow) << fraction) + (kept & ((1 << fraction) - 1)) + u64::from(up);
    let flags = match (rest != 0, up) {
        (false, _) => 0,
        (true, false) => PE,
        (true, true) => PE | C1,
    };
    Some((bits, flags))
}

/// To binary64 where rounding is to nearest and the result is zero or normal and not the largest
/// binade.
#[inline(always)]
pub fn to_f64(reg: X87Reg, control: u16) -> Option<(u64, u16)> {
    if control & 0xc00 != 0 {
        return None;
    }
    round(reg, 52, BIAS64, 0x7ff)
}

/// To binary32, likewise.
#[inline(always)]
pub fn to_f32(reg: X87Reg, control: u16) -> Option<(u32, u16)> {
    if control & 0xc00 != 0 {
        return None;
    }
    round(reg, 23, BIAS32, 0xff).map(|(bits, flags)| (bits as u32, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_come_back() {
        for v in [0.0, -0.0, 1.0, -1.5, 1e300, f64::MIN_POSITIVE, 0.1] {
            let reg = from_f64(v.to_bits()).unwrap();
            assert_eq!(to_f64(reg, 0x37f), Some((v.to_bits(), 0)), "{v}");
        }
        assert_eq!(from_f64(f64::INFINITY.to_bits()), None);
        assert_eq!(from_f64(1), None);
    }

    #[test]
    fn rounding_is_to_nearest_even() {
        let reg = |mantissa| X87Reg {
            mantissa,
            exponent: 0x3fff,
        };
        let one = 1.0f64.to_bits();
        assert_eq!(to_f64(reg(1 << 63 | 0x400), 0x37f), Some((one, PE)));
        assert_eq!(
            to_f64(reg(1 << 63 | 0x401), 0x37f),
            Some((one + 1, PE | C1))
        );
        assert_eq!(
            to_f64(reg(1 << 63 | 0xc00), 0x37f),
            Some((one + 2, PE | C1))
        );
        assert_eq!(
            to_f64(reg(u64::MAX), 0x37f),
            Some((2.0f64.to_bits(), PE | C1))
        );
    }

    #[test]
    fn integers_are_exact() {
        assert_eq!(from_int(1), X87Reg::ONE);
        assert_eq!(from_int(i64::MIN).exponent, 0x8000 | (0x3fff + 63));
        assert_eq!(to_f64(from_int(-3), 0x37f).unwrap().0, (-3.0f64).to_bits());
    }
}
