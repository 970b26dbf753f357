//! Numbers with 128 significant bits, for the transcendental functions: what these lose in a few
//! dozen operations lies far below the 64 bits of a result.
//!
//! Operations truncate. There is no 0 among the numbers: callers treat it apart.

use super::format::*;
use super::round::{full, round};
use crate::helpers::x87::stack::{PE, UE};

/// pi / 2, as the significand of a number with exponent 0, to 128 bits.
pub const PI: u128 = 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1;
/// log2 e * 2^127.
pub const LOG2_E: u128 = 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e88;
/// ln 2 * 2^128.
pub const LN_2: u128 = 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af;

/// significand * 2^(exponent - 127); the significand has its top bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wide {
    /// Below 0.
    pub negative: bool,
    /// The exponent.
    pub exponent: i32,
    /// The significand.
    pub significand: u128,
}

/// The high half of a product.
#[inline(always)]
pub fn high(a: u128, b: u128) -> u128 {
    const LOW: u128 = u64::MAX as u128;
    let (a1, a0, b1, b0) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let middle = a1 * b0 + ((a0 * b0) >> 64);
    let other = a0 * b1 + (middle & LOW);
    a1 * b1 + (middle >> 64) + (other >> 64)
}

impl Wide {
    /// m * 2^(exponent - 127); m is not 0.
    pub fn new(negative: bool, exponent: i32, m: u128) -> Wide {
        let shift = m.leading_zeros();
        Wide {
            negative,
            exponent: exponent - shift as i32,
            significand: m << shift,
        }
    }

    /// The value of a finite operand.
    pub fn finite(negative: bool, e: i32, m: u64) -> Wide {
        Wide {
            negative,
            exponent: e - BIAS,
            significand: u128::from(m) << 64,
        }
    }

    /// 1.
    pub const ONE: Wide = Wide {
        negative: false,
        exponent: 0,
        significand: 1 << 127,
    };

    /// The number with the other sign.
    pub fn negated(self) -> Wide {
        Wide {
            negative: !self.negative,
            ..self
        }
    }

    /// The product.
    pub fn times(self, b: Wide) -> Wide {
        let product = high(self.significand, b.significand);
        let negative = self.negative != b.negative;
        Wide::new(negative, self.exponent + b.exponent + 1, product)
    }

    /// The quotient, to about 120 bits.
    pub fn over(self, b: Wide) -> Wide {
        let d = b.significand;
        // 1/d in units of 2^-128, from the top half of d; then one step of Newton's.
        let rough = (u128::MAX / (d >> 64)) << 63;
        let product = high(d, rough);
        const ONE: u128 = 1 << 127;
        let correction = high(rough, product.abs_diff(ONE) << 1);
        let reciprocal = if product < ONE {
            rough.saturating_add(correction)
        } else {
            rough - correction
        };
        let negative = self.negative != b.negative;
        let quotient = high(self.significand, reciprocal);
        Wide::new(negative, self.exponent - b.exponent, quotient)
    }

    /// The sum, unless it is 0.
    pub fn plus(self, b: Wide) -> Option<Wide> {
        let key = |w: &Wide| (w.exponent, w.significand);
        let (a, b) = if key(&self) >= key(&b) {
            (self, b)
        } else {
            (b, self)
        };
        let distance = (a.exponent - b.exponent).min(127);
        let (x, y) = (a.significand >> 1, b.significand >> 1 >> distance);
        let s = if a.negative == b.negative {
            x + y
        } else {
            x - y
        };
        (s != 0).then(|| Wide::new(a.negative, a.exponent + 1, s))
    }

    /// The magnitude as a fraction of 2^128; it must be below 1.
    pub fn fraction(self) -> u128 {
        match self.exponent {
            e if e >= 0 => u128::MAX,
            e if e < -128 => 0,
            e => self.significand >> (-1 - e),
        }
    }

    /// Rounded into the 80-bit format; what truncation has lost makes it inexact.
    pub fn round(self, control: u16) -> Outcome {
        let significand = self.significand | 1;
        round(
            full(control),
            self.negative,
            self.exponent + BIAS,
            significand,
        )
    }

    /// Rounded where the number is exact. The hardware calls the result inexact all the same.
    pub fn round_exact(self, control: u16) -> Outcome {
        let e = self.exponent + BIAS;
        let (v, sw) = round(full(control), self.negative, e, self.significand);
        let tiny = if v.exponent & 0x7fff == 0 { UE } else { 0 };
        (v, sw | PE | tiny)
    }
}

/// The sum of the powers of `z` (a fraction of 2^128) times the coefficients (units of 2^-127),
/// the signs alternating or not: a number near 1. Alternating, it is below the first coefficient
/// even where the next term is too small to be seen, so that directed rounding has the right side.
pub fn series(coefficients: &[u128], z: u128, alternating: bool) -> Wide {
    let mut sum = 0u128;
    for &c in coefficients.iter().rev() {
        let term = high(sum, z);
        sum = if alternating {
            c.saturating_sub(term.max(1))
        } else {
            c.saturating_add(term)
        };
    }
    Wide::new(false, 0, sum.max(1))
}
