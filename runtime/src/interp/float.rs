//! Floating-point arithmetic as SSE does it, on any host (SDM volume 1, 4.8 and 11.5.2).
//!
//! The rules for NaNs are spelled out instead of left to the host: the first NaN operand, made
//! quiet, is the result; an invalid operation gives the default NaN. Arithmetic rounds to nearest;
//! MXCSR's rounding control only governs [`to_int`], and its exception flags are not kept yet.

use metaphrase_ir::FloatCc;

/// `f32` or `f64`.
pub(super) trait Float: Copy + PartialOrd {
    /// The bits, as slots hold them.
    type Bits: super::code::Int;
    /// The default NaN: negative, quiet, no payload.
    const DEFAULT_NAN: Self;
    fn of(bits: Self::Bits) -> Self;
    fn bits(self) -> Self::Bits;
    fn is_nan(self) -> bool;
    fn quiet(self) -> Self;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    fn sqrt(self) -> Self;
    /// Exact for both.
    fn to_f64(self) -> f64;
    fn from_int(v: i64) -> Self;
}

macro_rules! floats {
    ($($ty:ident $bits:ident $nan:literal $quiet:literal;)*) => {$(
        impl Float for $ty {
            type Bits = $bits;
            const DEFAULT_NAN: $ty = $ty::from_bits($nan);
            #[inline(always)]
            fn of(bits: $bits) -> $ty {
                $ty::from_bits(bits)
            }
            #[inline(always)]
            fn bits(self) -> $bits {
                self.to_bits()
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                $ty::is_nan(self)
            }
            #[inline(always)]
            fn quiet(self) -> $ty {
                $ty::from_bits(self.to_bits() | $quiet)
            }
            #[inline(always)]
            fn add(self, b: $ty) -> $ty {
                self + b
            }
            #[inline(always)]
            fn sub(self, b: $ty) -> $ty {
                self - b
            }
            #[inline(always)]
            fn mul(self, b: $ty) -> $ty {
                self * b
            }
            #[inline(always)]
            fn div(self, b: $ty) -> $ty {
                self / b
            }
            #[inline(always)]
            fn sqrt(self) -> $ty {
                $ty::sqrt(self)
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn from_int(v: i64) -> $ty {
                v as $ty
            }
        }
    )*};
}

floats! {
    f32 u32 0xffc0_0000 0x0040_0000;
    f64 u64 0xfff8_0000_0000_0000 0x0008_0000_0000_0000;
}

/// `op` with the rules for NaNs.
#[inline(always)]
pub(super) fn arith<F: Float>(a: F, b: F, op: impl Fn(F, F) -> F) -> F {
    let r = op(a, b);
    if !r.is_nan() {
        r
    } else if a.is_nan() {
        a.quiet()
    } else if b.is_nan() {
        b.quiet()
    } else {
        F::DEFAULT_NAN
    }
}

/// The square root, likewise.
#[inline(always)]
pub(super) fn sqrt<F: Float>(a: F) -> F {
    arith(a, a, |a, _| a.sqrt())
}

/// MINSS: `a < b ? a : b`.
#[inline(always)]
pub(super) fn min<F: Float>(a: F, b: F) -> F {
    if a < b { a } else { b }
}

/// MAXSS: `a > b ? a : b`.
#[inline(always)]
pub(super) fn max<F: Float>(a: F, b: F) -> F {
    if a > b { a } else { b }
}

/// A comparison.
#[inline(always)]
pub(super) fn compare<F: Float>(cc: FloatCc, a: F, b: F) -> bool {
    let unordered = a.is_nan() || b.is_nan();
    match cc {
        FloatCc::Eq => a == b,
        FloatCc::Lt => a < b,
        FloatCc::Le => a <= b,
        FloatCc::Uno => unordered,
        FloatCc::Ne => a != b,
        FloatCc::Nlt => unordered || a >= b,
        FloatCc::Nle => unordered || a > b,
        FloatCc::Ord => !unordered,
    }
}

/// CVTSS2SD.
#[inline(always)]
pub(super) fn widen(a: f32) -> f64 {
    if a.is_nan() {
        let bits = u64::from(a.to_bits());
        let sign = (bits >> 31) << 63;
        return f64::from_bits(sign | 0x7ff8_0000_0000_0000 | (bits & 0x7f_ffff) << 29);
    }
    f64::from(a)
}

/// CVTSD2SS.
#[inline(always)]
pub(super) fn narrow(a: f64) -> f32 {
    if a.is_nan() {
        let bits = a.to_bits();
        let sign = ((bits >> 63) as u32) << 31;
        return f32::from_bits(sign | 0x7fc0_0000 | (bits >> 29) as u32 & 0x7f_ffff);
    }
    a as f32
}

/// A float as a signed integer of `bits` (32 or 64) bits: rounded as `rounding` says (MXCSR.RC: to
/// nearest even, down, up, to zero); the integer indefinite value where that does not fit.
#[inline]
pub(super) fn to_int(a: f64, rounding: u32, bits: u32) -> i64 {
    let rounded = match rounding & 3 {
        0 => a.round_ties_even(),
        1 => a.floor(),
        2 => a.ceil(),
        _ => a.trunc(),
    };
    let limit = if bits == 32 {
        2147483648.0
    } else {
        9223372036854775808.0
    };
    // Also false for a NaN.
    if rounded >= -limit && rounded < limit {
        rounded as i64
    } else {
        i64::MIN >> (64 - bits)
    }
}
