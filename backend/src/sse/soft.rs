//! IEEE arithmetic of SSE in integers: one lane, f32 or f64, with MXCSR's rounding, DAZ, FTZ and
//! exceptions.

use std::cmp::Ordering;

pub mod fma;

/// A binary format: fraction bits and exponent bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    fraction: u32,
    exponent: u32,
}

/// Single precision.
pub const F32: Format = Format {
    fraction: 23,
    exponent: 8,
};
/// Double precision.
pub const F64: Format = Format {
    fraction: 52,
    exponent: 11,
};

impl Format {
    /// Bits in all.
    pub const fn width(self) -> u32 {
        1 + self.exponent + self.fraction
    }
    /// A lane of ones.
    pub const fn all(self) -> u64 {
        u64::MAX >> (64 - self.width())
    }
    const fn sign(self) -> u64 {
        1 << (self.width() - 1)
    }
    const fn infinity(self) -> u64 {
        ((1 << self.exponent) - 1) << self.fraction
    }
    const fn quiet(self) -> u64 {
        1 << (self.fraction - 1)
    }
    const fn default_nan(self) -> u64 {
        self.sign() | self.infinity() | self.quiet()
    }
    const fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }
    const fn magnitude(self, x: u64) -> u64 {
        x & (self.sign() - 1)
    }
    const fn is_nan(self, x: u64) -> bool {
        self.magnitude(x) > self.infinity()
    }
    const fn is_signaling(self, x: u64) -> bool {
        self.is_nan(x) && x & self.quiet() == 0
    }
    const fn is_infinite(self, x: u64) -> bool {
        self.magnitude(x) == self.infinity()
    }
    const fn is_zero(self, x: u64) -> bool {
        self.magnitude(x) == 0
    }
    const fn is_denormal(self, x: u64) -> bool {
        let m = self.magnitude(x);
        m != 0 && m >> self.fraction == 0
    }
    const fn negative(self, x: u64) -> bool {
        x & self.sign() != 0
    }
    const fn signed(self, negative: bool, magnitude: u64) -> u64 {
        if negative {
            magnitude | self.sign()
        } else {
            magnitude
        }
    }

    /// A finite number that is not 0 as `significand * 2^exponent`, the significand's top bit
    /// being bit 62.
    fn unpack(self, x: u64) -> (i32, u64) {
        let m = self.magnitude(x);
        let stored = (m >> self.fraction) as i32;
        let fraction = m & ((1 << self.fraction) - 1);
        let (exp, sig) = match stored {
            0 => (1, fraction),
            e => (e, fraction | 1 << self.fraction),
        };
        let up = sig.leading_zeros() - 1;
        let exp = exp - self.bias() - self.fraction as i32 - up as i32;
        (exp, sig << up)
    }
}

/// Invalid operation.
const IE: u32 = 1;
/// Denormal operand.
const DE: u32 = 2;
/// Division by zero.
const ZE: u32 = 4;
/// Overflow.
const OE: u32 = 8;
/// Underflow.
const UE: u32 = 16;
/// Precision.
const PE: u32 = 32;

/// MXCSR as one instruction sees it, and the exceptions that it finds.
pub struct Soft {
    /// Rounding control: to nearest even, down, up, to zero.
    rc: u32,
    daz: bool,
    ftz: bool,
    /// The masks, as bits of exceptions.
    masks: u32,
    /// Exceptions of operands.
    pub pre: u32,
    /// Exceptions of results.
    pub post: u32,
}

/// `sig / 2^shift` rounded, and whether that is inexact.
fn shift_round(sig: u128, shift: i32, negative: bool, rc: u32) -> (u128, bool) {
    if shift <= 0 {
        return (sig << -shift, false);
    }
    let (q, rest, half) = if shift >= 128 {
        (0, Ordering::Less, sig != 0)
    } else {
        let rest = sig & ((1 << shift) - 1);
        (sig >> shift, rest.cmp(&(1 << (shift - 1))), rest != 0)
    };
    let inexact = half;
    let up = match rc {
        0 => rest == Ordering::Greater || rest == Ordering::Equal && q & 1 != 0,
        1 => inexact && negative,
        2 => inexact && !negative,
        _ => false,
    };
    (q + u128::from(up), inexact)
}

impl Soft {
    /// With this MXCSR.
    pub fn new(mxcsr: u32) -> Soft {
        Soft {
            rc: mxcsr >> 13 & 3,
            daz: mxcsr & 1 << 6 != 0,
            ftz: mxcsr & 1 << 15 != 0,
            masks: mxcsr >> 7 & 0x3f,
            pre: 0,
            post: 0,
        }
    }

    /// An operand as DAZ leaves it.
    fn operand(&self, f: Format, x: u64) -> u64 {
        if self.daz && f.is_denormal(x) {
            x & f.sign()
        } else {
            x
        }
    }

    /// The result if an operand is a NaN: the first of them, made quiet.
    fn nan(&mut self, f: Format, a: u64, b: u64) -> Option<u64> {
        if f.is_signaling(a) || f.is_signaling(b) {
            self.pre |= IE;
        }
        let nan = [a, b].into_iter().find(|&x| f.is_nan(x))?;
        Some(nan | f.quiet())
    }

    fn invalid(&mut self, f: Format) -> u64 {
        self.pre |= IE;
        f.default_nan()
    }

    fn note_denormals(&mut self, f: Format, a: u64, b: u64) {
        if f.is_denormal(a) || f.is_denormal(b) {
            self.pre |= DE;
        }
    }

    /// `sig * 2^exp`, not 0, rounded to the format. Bit 0 of `sig` may stand for anything lost
    /// below it, if there are enough bits above.
    fn round(&mut self, f: Format, negative: bool, exp: i32, sig: u128) -> u64 {
        let len = 128 - sig.leading_zeros() as i32;
        let precision = f.fraction as i32 + 1;
        let (mut q, inexact) = shift_round(sig, len - precision, negative, self.rc);
        let mut top = exp + len - 1;
        if q >> precision != 0 {
            q >>= 1;
            top += 1;
        }
        let least = 1 - f.bias();
        if top < least {
            return self.tiny(f, negative, exp, sig, inexact);
        }
        if top > f.bias() {
            let exact_masked = self.masks & OE != 0;
            self.post |= OE | if inexact || exact_masked { PE } else { 0 };
            let to_infinity = match self.rc {
                0 => true,
                1 => negative,
                2 => !negative,
                _ => false,
            };
            return f.signed(negative, f.infinity() - u64::from(!to_infinity));
        }
        if inexact {
            self.post |= PE;
        }
        let stored = ((top + f.bias()) as u64) << f.fraction;
        f.signed(negative, stored | q as u64 & ((1 << f.fraction) - 1))
    }

    /// A result below the normal numbers, found after rounding (SDM volume 1, 4.9.1.5).
    fn tiny(&mut self, f: Format, negative: bool, exp: i32, sig: u128, inexact: bool) -> u64 {
        if self.masks & UE == 0 {
            self.post |= UE | if inexact { PE } else { 0 };
            return f.signed(negative, 0);
        }
        if self.ftz {
            self.post |= UE | PE;
            return f.signed(negative, 0);
        }
        let unit = 1 - f.bias() - f.fraction as i32;
        let (q, inexact) = shift_round(sig, unit - exp, negative, self.rc);
        if inexact {
            self.post |= UE | PE;
        }
        f.signed(negative, q as u64)
    }

    /// a + b.
    pub fn add(&mut self, f: Format, a: u64, b: u64) -> u64 {
        let (a, b) = (self.operand(f, a), self.operand(f, b));
        if let Some(nan) = self.nan(f, a, b) {
            return nan;
        }
        if f.is_infinite(a) && f.is_infinite(b) && a != b {
            return self.invalid(f);
        }
        self.note_denormals(f, a, b);
        if f.is_infinite(a) || f.is_infinite(b) {
            return if f.is_infinite(a) { a } else { b };
        }
        let zero = |negative| f.signed(negative, 0);
        match (f.is_zero(a), f.is_zero(b)) {
            (true, true) if a == b => return a,
            (true, true) => return zero(self.rc == 1),
            (true, false) => return self.exact(f, b),
            (false, true) => return self.exact(f, a),
            _ => {}
        }
        let (big, small) = if f.magnitude(a) >= f.magnitude(b) {
            (a, b)
        } else {
            (b, a)
        };
        let ((exp, x), (exp_small, y)) = (f.unpack(big), f.unpack(small));
        let (x, y) = (u128::from(x) << 64, u128::from(y) << 64);
        let exp = exp - 64;
        let distance = exp - (exp_small - 64);
        let y = match distance {
            0..128 => y >> distance | u128::from(y & ((1 << distance) - 1) != 0),
            _ => 1,
        };
        let negative = f.negative(big);
        if f.negative(a) == f.negative(b) {
            return self.round(f, negative, exp, x + y);
        }
        match x - y {
            0 => zero(self.rc == 1),
            r => self.round(f, negative, exp, r),
        }
    }

    /// A number that is the result as it is; it may be denormal.
    fn exact(&mut self, f: Format, x: u64) -> u64 {
        let (exp, sig) = f.unpack(x);
        self.round(f, f.negative(x), exp, sig.into())
    }

    /// a - b.
    pub fn sub(&mut self, f: Format, a: u64, b: u64) -> u64 {
        // The sign of a NaN stays as it is.
        let b = if f.is_nan(b) { b } else { b ^ f.sign() };
        self.add(f, a, b)
    }

    /// a * b.
    pub fn mul(&mut self, f: Format, a: u64, b: u64) -> u64 {
        let (a, b) = (self.operand(f, a), self.operand(f, b));
        if let Some(nan) = self.nan(f, a, b) {
            return nan;
        }
        let infinite = f.is_infinite(a) || f.is_infinite(b);
        let zero = f.is_zero(a) || f.is_zero(b);
        if infinite && zero {
            return self.invalid(f);
        }
        self.note_denormals(f, a, b);
        let negative = f.negative(a) != f.negative(b);
        if infinite {
            return f.signed(negative, f.infinity());
        }
        if zero {
            return f.signed(negative, 0);
        }
        let ((ea, x), (eb, y)) = (f.unpack(a), f.unpack(b));
        self.round(f, negative, ea + eb, u128::from(x) * u128::from(y))
    }

    /// a / b.
    pub fn div(&mut self, f: Format, a: u64, b: u64) -> u64 {
        let (a, b) = (self.operand(f, a), self.operand(f, b));
        if let Some(nan) = self.nan(f, a, b) {
            return nan;
        }
        if f.is_infinite(a) && f.is_infinite(b) || f.is_zero(a) && f.is_zero(b) {
            return self.invalid(f);
        }
        let negative = f.negative(a) != f.negative(b);
        if f.is_zero(b) && !f.is_infinite(a) {
            self.pre |= ZE;
            return f.signed(negative, f.infinity());
        }
        self.note_denormals(f, a, b);
        if f.is_infinite(a) {
            return f.signed(negative, f.infinity());
        }
        if f.is_infinite(b) || f.is_zero(a) {
            return f.signed(negative, 0);
        }
        let ((ea, x), (eb, y)) = (f.unpack(a), f.unpack(b));
        let (x, y) = (u128::from(x) << 64, u128::from(y));
        let q = (x / y) | u128::from(x % y != 0);
        self.round(f, negative, ea - 64 - eb, q)
    }

    /// The square root.
    pub fn sqrt(&mut self, f: Format, x: u64) -> u64 {
        let x = self.operand(f, x);
        if let Some(nan) = self.nan(f, x, x) {
            return nan;
        }
        if f.is_zero(x) {
            return x;
        }
        if f.negative(x) {
            return self.invalid(f);
        }
        self.note_denormals(f, x, x);
        if f.is_infinite(x) {
            return x;
        }
        let (exp, sig) = f.unpack(x);
        let (exp, sig) = if (exp - 64) % 2 == 0 {
            (exp - 64, u128::from(sig) << 64)
        } else {
            (exp - 63, u128::from(sig) << 63)
        };
        let root = sig.isqrt();
        let lost = u128::from(root * root != sig);
        // Two more bits, so that the lost ones have a place below those that count.
        self.round(f, false, exp / 2 - 2, root << 2 | lost)
    }

    /// `Some` if both are numbers. A NaN is invalid if it signals, or if `signaling`.
    fn compare(&mut self, f: Format, a: u64, b: u64, signaling: bool) -> Option<Ordering> {
        if f.is_nan(a) || f.is_nan(b) {
            if signaling || f.is_signaling(a) || f.is_signaling(b) {
                self.pre |= IE;
            }
            return None;
        }
        self.note_denormals(f, a, b);
        let value = |x: u64| {
            let m = f.magnitude(x) as i64;
            if f.negative(x) { -m } else { m }
        };
        Some(value(a).cmp(&value(b)))
    }

    /// MIN: the second operand for NaNs and for equal numbers.
    pub fn min(&mut self, f: Format, a: u64, b: u64) -> u64 {
        let (a, b) = (self.operand(f, a), self.operand(f, b));
        match self.compare(f, a, b, true) {
            Some(Ordering::Less) => a,
            _ => b,
        }
    }

    /// MAX, likewise.
    pub fn max(&mut self, f: Format, a: u64, b: u64) -> u64 {
        let (a, b) = (self.operand(f, a), self.operand(f, b));
        match self.compare(f, a, b, true) {
            Some(Ordering::Greater) => a,
            _ => b,
        }
    }

    /// CMP: all ones if predicate `imm` holds.
    pub fn mask(&mut self, f: Format, imm: u8, a: u64, b: u64) -> u64 {
        let (a, b) = (self.operand(f, a), self.operand(f, b));
        let signaling = matches!(imm & 3, 1 | 2);
        let order = self.compare(f, a, b, signaling);
        let holds = match imm & 3 {
            0 => order == Some(Ordering::Equal),
            1 => order == Some(Ordering::Less),
            2 => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            _ => order.is_none(),
        };
        if holds != (imm & 4 != 0) { f.all() } else { 0 }
    }

    /// COMIS and UCOMIS: the image of ZF, PF and CF.
    pub fn order(&mut self, f: Format, a: u64, b: u64, signaling: bool) -> u64 {
        let (a, b) = (self.operand(f, a & f.all()), self.operand(f, b & f.all()));
        match self.compare(f, a, b, signaling) {
            None => 0x45,
            Some(Ordering::Less) => 0x01,
            Some(Ordering::Equal) => 0x40,
            Some(Ordering::Greater) => 0,
        }
    }

    /// To the other format.
    pub fn convert(&mut self, from: Format, to: Format, x: u64) -> u64 {
        let x = self.operand(from, x);
        let negative = from.negative(x);
        if from.is_nan(x) {
            if from.is_signaling(x) {
                self.pre |= IE;
            }
            let fraction = (x | from.quiet()) & ((1 << from.fraction) - 1);
            let fraction = fraction << (64 - from.fraction) >> (64 - to.fraction);
            return to.signed(negative, to.infinity() | fraction);
        }
        if from.is_infinite(x) {
            return to.signed(negative, to.infinity());
        }
        if from.is_zero(x) {
            return to.signed(negative, 0);
        }
        self.note_denormals(from, x, x);
        let (exp, sig) = from.unpack(x);
        self.round(to, negative, exp, sig.into())
    }

    /// From an integer.
    pub fn of_int(&mut self, f: Format, n: i64) -> u64 {
        match n {
            0 => 0,
            _ => self.round(f, n < 0, 0, n.unsigned_abs().into()),
        }
    }

    /// To an integer of 32 or 64 bits, zero-extended; integer indefinite if it does not fit.
    pub fn integer(&mut self, f: Format, x: u64, bits: u32, truncate: bool) -> u64 {
        let x = self.operand(f, x);
        let indefinite = 1u64 << (bits - 1);
        if f.is_zero(x) {
            return 0;
        }
        if f.is_nan(x) || f.is_infinite(x) {
            self.pre |= IE;
            return indefinite;
        }
        let negative = f.negative(x);
        let (exp, sig) = f.unpack(x);
        if exp > 1 {
            self.pre |= IE;
            return indefinite;
        }
        let rc = if truncate { 3 } else { self.rc };
        let (n, inexact) = shift_round(sig.into(), -exp, negative, rc);
        let most = u128::from(indefinite) - u128::from(!negative);
        if n > most {
            self.pre |= IE;
            return indefinite;
        }
        if inexact {
            self.post |= PE;
        }
        let n = n as u64;
        let n = if negative { n.wrapping_neg() } else { n };
        n & u64::MAX >> (64 - bits)
    }

    /// ROUND: to an integer in the same format, as the immediate says.
    pub fn round_to_integer(&mut self, f: Format, x: u64, imm: u8) -> u64 {
        let x = self.operand(f, x);
        if let Some(nan) = self.nan(f, x, x) {
            return nan;
        }
        if f.is_zero(x) || f.is_infinite(x) {
            return x;
        }
        let rc = if imm & 4 != 0 {
            self.rc
        } else {
            u32::from(imm & 3)
        };
        let negative = f.negative(x);
        let (exp, sig) = f.unpack(x);
        if exp >= 0 {
            return x;
        }
        let (n, inexact) = shift_round(sig.into(), -exp, negative, rc);
        if inexact && imm & 8 == 0 {
            self.post |= PE;
        }
        match n {
            0 => f.signed(negative, 0),
            // Exact: an integer below the format's precision, or the number itself.
            _ => Soft::new(0x1f80).round(f, negative, 0, n),
        }
    }

    /// RCPSS: the SDM allows a relative error of 1.5 * 2^-12; this is the rounded quotient.
    /// Denormals count as zeros, and tiny results become zeros.
    pub fn reciprocal(x: u64) -> u64 {
        let mut fp = Soft::new(0x9fc0);
        let x = fp.operand(F32, x);
        fp.div(F32, 0x3f80_0000, x)
    }

    /// RSQRTSS: likewise.
    pub fn reciprocal_sqrt(x: u64) -> u64 {
        let mut fp = Soft::new(0x9fc0);
        let x = fp.operand(F32, x);
        let root = fp.sqrt(F32, x);
        fp.div(F32, 0x3f80_0000, root)
    }
}
