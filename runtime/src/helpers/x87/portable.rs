//! x87 operations on a host without an x87 FPU: through binary64.
//!
//! Limits: results have 53 significant bits and binary64's range, whatever the control word's
//! precision says; rounding is to nearest except in conversions to integers; of the exceptions only
//! invalid operation and division by zero are found. Loads, stores of binary64 values, integer
//! values below 2^53 and comparisons of such are exact.

use super::convert;
use super::ops::{Arith, Binary, Pair, Source, Unary};
use super::stack::{C0, C1, C2, C3, IE, ZE};
use crate::state::X87Reg;

/// The nearest binary64.
fn value(r: X87Reg) -> f64 {
    if let Some((bits, _)) = convert::to_f64(r, 0) {
        return f64::from_bits(bits);
    }
    let negative = r.exponent & 0x8000 != 0;
    let magnitude = match (r.exponent & 0x7fff, r.mantissa) {
        (0x7fff, 0x8000_0000_0000_0000) => f64::INFINITY,
        (0x7fff, m) => {
            // Keeps the quiet bit and the top of the payload.
            let payload = m << 1 >> 12;
            f64::from_bits(0x7ff0_0000_0000_0000 | payload.max(1))
        }
        (_, m) if m >> 63 == 0 && r.exponent & 0x7fff != 0 => f64::NAN,
        (e, m) => m as f64 * exp2(e as i32 - 0x3fff - 63),
    };
    if negative { -magnitude } else { magnitude }
}

/// 2^n, in two steps so that denormal results are right.
fn exp2(n: i32) -> f64 {
    let half = n / 2;
    2f64.powi(half) * 2f64.powi(n - half)
}

/// A binary64 in the 80-bit format.
fn reg(v: f64) -> X87Reg {
    let bits = v.to_bits();
    if let Some(r) = convert::from_f64(bits) {
        return r;
    }
    let sign = bits >> 63 << 15;
    if v.is_nan() {
        return X87Reg {
            mantissa: 0xc000_0000_0000_0000 | bits << 11,
            exponent: sign | 0x7fff,
        };
    }
    if v.is_infinite() {
        return X87Reg {
            mantissa: 1 << 63,
            exponent: sign | 0x7fff,
        };
    }
    // A denormal is normal in the 80-bit format.
    let fraction = bits << 12;
    let shift = u64::from(fraction.leading_zeros());
    X87Reg {
        mantissa: fraction << shift,
        exponent: sign | (0x3fff - 0x3ff - shift),
    }
}

/// A result with the invalid-operation flag where it is a NaN that no operand was.
fn result(v: f64, operands: [f64; 2]) -> (X87Reg, u16) {
    if v.is_nan() && !operands.iter().any(|o| o.is_nan()) {
        return (X87Reg::INDEFINITE, IE);
    }
    (reg(v), 0)
}

/// The value of an operand.
fn operand(b: Source) -> f64 {
    match b {
        Source::Reg(r) => value(r),
        Source::F32(bits) => f64::from(f32::from_bits(bits)),
        Source::F64(bits) => f64::from_bits(bits),
        Source::I16(n) => f64::from(n),
        Source::I32(n) => f64::from(n),
    }
}

/// Arithmetic: the result and the status word.
pub fn arith(op: Arith, _control: u16, a: X87Reg, b: Source) -> (X87Reg, u16) {
    let (x, y) = (value(a), operand(b));
    let (x, y) = match op {
        Arith::SubR | Arith::DivR => (y, x),
        _ => (x, y),
    };
    let v = match op {
        Arith::Add => x + y,
        Arith::Mul => x * y,
        Arith::Sub | Arith::SubR => x - y,
        Arith::Div | Arith::DivR => x / y,
    };
    let divides = matches!(op, Arith::Div | Arith::DivR);
    let (r, sw) = result(v, [x, y]);
    let zero = divides && y == 0.0 && x.is_finite() && x != 0.0;
    (r, if zero { sw | ZE } else { sw })
}

/// Compares; the status word.
pub fn compare(_control: u16, a: X87Reg, b: Source, quiet: bool) -> u16 {
    let (x, y) = (value(a), operand(b));
    match x.partial_cmp(&y) {
        Some(std::cmp::Ordering::Greater) => 0,
        Some(std::cmp::Ordering::Less) => C0,
        Some(std::cmp::Ordering::Equal) => C3,
        None => C0 | C2 | C3 | if quiet { 0 } else { IE },
    }
}

/// FTST: compares with 0.
pub fn test(control: u16, a: X87Reg) -> u16 {
    compare(control, a, Source::F64(0), false)
}

/// Loads a binary32 or binary64 that `convert` does not take.
pub fn load(_control: u16, source: Source) -> (X87Reg, u16) {
    (reg(operand(source)), 0)
}

/// Loads a packed decimal.
pub fn load_bcd(_control: u16, bytes: [u8; 10]) -> (X87Reg, u16) {
    let magnitude = bytes[..9].iter().rev().fold(0i64, |n, b| {
        n.wrapping_mul(100)
            .wrapping_add(i64::from(b >> 4) * 10 + i64::from(b & 15))
    });
    let mut r = convert::from_int(magnitude);
    r.exponent |= u64::from(bytes[9] >> 7) << 15;
    (r, 0)
}

/// Stores as binary32.
pub fn store_f32(_control: u16, a: X87Reg) -> (u32, u16) {
    ((value(a) as f32).to_bits(), 0)
}

/// Stores as binary64.
pub fn store_f64(_control: u16, a: X87Reg) -> (u64, u16) {
    (value(a).to_bits(), 0)
}

/// Rounds as the control word says.
fn rounded(control: u16, v: f64) -> f64 {
    match control >> 10 & 3 {
        0 => v.round_ties_even(),
        1 => v.floor(),
        2 => v.ceil(),
        _ => v.trunc(),
    }
}

/// Stores as an integer of 2, 4 or 8 bytes, rounded as the control word says.
pub fn store_int(control: u16, a: X87Reg, bytes: u32) -> (u64, u16) {
    let v = rounded(control, value(a));
    let limit = exp2(bytes as i32 * 8 - 1);
    if v >= -limit && v < limit {
        (v as i64 as u64, 0)
    } else {
        (1 << (bytes * 8 - 1), IE)
    }
}

/// Stores as packed decimal.
pub fn store_bcd(control: u16, a: X87Reg) -> ([u8; 10], u16) {
    let v = rounded(control, value(a));
    // False for NaNs as well.
    let fits = v.abs() < 1e18;
    if !fits {
        return ([0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff], IE);
    }
    let mut out = [0; 10];
    let mut rest = v.abs() as u64;
    for byte in &mut out[..9] {
        *byte = ((rest % 10) | ((rest / 10 % 10) << 4)) as u8;
        rest /= 100;
    }
    out[9] = if v.is_sign_negative() { 0x80 } else { 0 };
    (out, 0)
}

/// True if a trigonometric operation does not reduce its operand.
fn out_of_range(a: X87Reg) -> bool {
    (0x3fff + 63..0x7fff).contains(&(a.exponent & 0x7fff))
}

/// An operation on ST(0) alone: the result and the status word.
pub fn unary(op: Unary, control: u16, a: X87Reg) -> (X87Reg, u16) {
    if matches!(op, Unary::Sin | Unary::Cos) && out_of_range(a) {
        return (a, C2);
    }
    let x = value(a);
    let v = match op {
        Unary::F2xm1 => (x * std::f64::consts::LN_2).exp_m1(),
        Unary::Sqrt => x.sqrt(),
        Unary::RndInt => rounded(control, x),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
    };
    result(v, [x, x])
}

/// An operation on ST(0) and ST(1): the one result and the status word.
pub fn binary(op: Binary, _control: u16, st0: X87Reg, st1: X87Reg) -> (X87Reg, u16) {
    let (x, y) = (value(st0), value(st1));
    let v = match op {
        Binary::Scale => x * exp2(y.trunc().clamp(-40_000.0, 40_000.0) as i32),
        Binary::Prem | Binary::Prem1 => return remainder(op == Binary::Prem1, x, y),
        Binary::Yl2x => y * x.log2(),
        Binary::Yl2xp1 => y * x.ln_1p() * std::f64::consts::LOG2_E,
        Binary::Patan => y.atan2(x),
    };
    result(v, [x, y])
}

/// FPREM and FPREM1, always complete: C0, C3 and C1 get the quotient's low three bits.
fn remainder(nearest: bool, x: f64, y: f64) -> (X87Reg, u16) {
    let truncated = x % y;
    // The quotient modulo 8, from the remainder modulo 8y.
    let mut quotient = ((x % (8.0 * y) - truncated) / y).abs().round() as u16 & 7;
    let mut v = truncated;
    if nearest {
        let twice = 2.0 * truncated.abs();
        if twice > y.abs() || twice == y.abs() && quotient & 1 != 0 {
            v = truncated - y.abs().copysign(truncated);
            quotient = (quotient + 1) & 7;
        }
    }
    let bit = |n: u16, c: u16| if quotient >> n & 1 != 0 { c } else { 0 };
    let (r, sw) = result(v, [x, y]);
    (r, sw | bit(2, C0) | bit(1, C3) | bit(0, C1))
}

/// An operation that pushes: what ST(0) becomes, what is pushed, and the status word.
pub fn pair(op: Pair, _control: u16, a: X87Reg) -> (X87Reg, X87Reg, u16) {
    if op != Pair::Xtract && out_of_range(a) {
        return (a, X87Reg::ZERO, C2);
    }
    let x = value(a);
    match op {
        Pair::Ptan => {
            let (v, sw) = result(x.tan(), [x, x]);
            let pushed = if v == X87Reg::INDEFINITE {
                v
            } else {
                X87Reg::ONE
            };
            (v, pushed, sw)
        }
        Pair::SinCos => {
            let (sin, sw) = result(x.sin(), [x, x]);
            let (cos, _) = result(x.cos(), [x, x]);
            (sin, cos, sw)
        }
        Pair::Xtract if x == 0.0 => (reg(f64::NEG_INFINITY), a, ZE),
        Pair::Xtract if !x.is_finite() => (reg(x.abs()), a, 0),
        Pair::Xtract => {
            let exponent = (a.exponent & 0x7fff) as i64 - 0x3fff;
            let significand = X87Reg {
                exponent: a.exponent & 0x8000 | 0x3fff,
                ..a
            };
            (convert::from_int(exponent), significand, 0)
        }
    }
}

/// A constant of D9 E8 to D9 ED by the low three bits of its opcode: 1, log2 10, log2 e, pi,
/// log10 2, ln 2, to 64 bits and nearest.
pub fn constant(n: u8, _control: u16) -> X87Reg {
    let (mantissa, exponent) = match n {
        1 => (0xd49a_784b_cd1b_8afe, 0x4000),
        2 => (0xb8aa_3b29_5c17_f0bc, 0x3fff),
        3 => (0xc90f_daa2_2168_c235, 0x4000),
        4 => (0x9a20_9a84_fbcf_f799, 0x3ffd),
        5 => (0xb172_17f7_d1cf_79ac, 0x3ffe),
        _ => (1 << 63, 0x3fff),
    };
    X87Reg { mantissa, exponent }
}
