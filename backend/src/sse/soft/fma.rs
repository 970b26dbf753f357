//! Fused multiplication and addition (FMA3), and half precision (F16C).

use super::{DE, F32, F64, Format, Soft};
use metaphrase_ir::FmaOp;

/// Half precision.
const F16: Format = Format {
    fraction: 10,
    exponent: 5,
};

/// A result, and the exceptions of operands and of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The result.
    pub value: u128,
    /// Exceptions of operands, as flags of MXCSR.
    pub pre: u32,
    /// Exceptions of results.
    pub post: u32,
}

impl Soft {
    /// x * y + z, rounded once.
    fn fma(&mut self, f: Format, x: u64, y: u64, z: u64) -> u64 {
        let [x, y, z] = [x, y, z].map(|v| self.operand(f, v));
        let product_invalid = f.is_infinite(x) && f.is_zero(y) || f.is_zero(x) && f.is_infinite(y);
        if [x, y, z].iter().any(|&v| f.is_signaling(v)) {
            self.pre |= super::IE;
        }
        if let Some(nan) = [x, y, z].into_iter().find(|&v| f.is_nan(v)) {
            return nan | f.quiet();
        }
        let negative = f.negative(x) != f.negative(y);
        let infinite = f.is_infinite(x) || f.is_infinite(y);
        if product_invalid || infinite && f.is_infinite(z) && negative != f.negative(z) {
            return self.invalid(f);
        }
        self.note_denormals(f, x, y);
        self.note_denormals(f, z, z);
        if infinite {
            return f.signed(negative, f.infinity());
        }
        if f.is_infinite(z) {
            return z;
        }
        match (f.is_zero(x) || f.is_zero(y), f.is_zero(z)) {
            (true, true) if negative == f.negative(z) => return z,
            (true, true) => return f.signed(self.rc == 1, 0),
            (true, false) => return self.exact(f, z),
            _ => {}
        }
        let ((ex, sx), (ey, sy)) = (f.unpack(x), f.unpack(y));
        let (exp, product) = normal(ex + ey, u128::from(sx) * u128::from(sy));
        if f.is_zero(z) {
            return self.round(f, negative, exp, product);
        }
        let (ez, sz) = f.unpack(z);
        let addend = normal(ez, sz.into());
        let (big, small, sign) = if (exp, product) >= addend {
            ((exp, product), addend, negative)
        } else {
            (addend, (exp, product), f.negative(z))
        };
        let distance = big.0 - small.0;
        // What is lost counts as one bit; then nothing cancels but the top.
        let low = match distance {
            0..128 => small.1 >> distance | u128::from(small.1 & ((1 << distance) - 1) != 0),
            _ => 1,
        };
        if negative == f.negative(z) {
            return self.round(f, sign, big.0, big.1 + low);
        }
        match big.1 - low {
            0 => f.signed(self.rc == 1, 0),
            r => self.round(f, sign, big.0, r),
        }
    }
}

/// The same number with the significand's top bit at 125.
fn normal(exp: i32, sig: u128) -> (i32, u128) {
    let up = sig.leading_zeros() as i32 - 2;
    (exp - up, sig << up)
}

fn found(fp: Soft, value: u128) -> Found {
    Found {
        value,
        pre: fp.pre,
        post: fp.post,
    }
}

/// Fused multiplication and addition of every lane under an MXCSR.
pub fn fma(op: FmaOp, x: u128, y: u128, z: u128, mxcsr: u32) -> Found {
    let mut fp = Soft::new(mxcsr);
    let f = if op.double { F64 } else { F32 };
    let flip = |v: u64, on: bool| {
        if on && !f.is_nan(v) { v ^ f.sign() } else { v }
    };
    let lane = |v: u128, n: u32| (v >> (n * f.width())) as u64 & f.all();
    let value = (0..128 / f.width()).fold(0, |all, n| {
        let subtract = if n % 2 == 0 { op.even } else { op.odd };
        let x = flip(lane(x, n), op.negate);
        let z = flip(lane(z, n), subtract);
        all | u128::from(fp.fma(f, x, lane(y, n), z)) << (n * f.width())
    });
    found(fp, value)
}

/// VCVTPH2PS: the four low halves to singles. DAZ does not count, and denormal operands are none.
pub fn from_half(v: u128, mxcsr: u32) -> Found {
    let mut fp = Soft::new(mxcsr);
    fp.daz = false;
    let value = (0..4).fold(0, |all, n| {
        let x = (v >> (16 * n)) as u64 & 0xffff;
        all | u128::from(fp.convert(F16, F32, x)) << (32 * n)
    });
    fp.pre &= !DE;
    found(fp, value)
}

/// VCVTPS2PH: the four singles to halves, rounded as the immediate says. FTZ does not count.
pub fn to_half(v: u128, imm: u8, mxcsr: u32) -> Found {
    let mut fp = Soft::new(mxcsr);
    fp.ftz = false;
    if imm & 4 == 0 {
        fp.rc = u32::from(imm & 3);
    }
    let value = (0..4).fold(0, |all, n| {
        let x = (v >> (32 * n)) as u64 & 0xffff_ffff;
        all | u128::from(fp.convert(F32, F16, x)) << (16 * n)
    });
    found(fp, value)
}
