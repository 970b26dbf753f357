//! F2XM1, FYL2X, FYL2XP1.

use super::format::*;
use super::wide::{LN_2, LOG2_E, Wide, series};
use crate::helpers::x87::stack::{PE, ZE};
use crate::state::X87Reg;

/// ln 2.
const LN: Wide = Wide {
    negative: false,
    exponent: -1,
    significand: LN_2,
};

/// 1 / ln 2.
const PER_LN: Wide = Wide {
    negative: false,
    exponent: 0,
    significand: LOG2_E,
};

/// 2^127 / (n + 1)!.
const EXPONENTIAL: [u128; 26] = {
    let mut out = [0; 26];
    let mut term = 1u128 << 127;
    let mut n = 0;
    while n < 26 {
        out[n] = term;
        term /= n as u128 + 2;
        n += 1;
    }
    out
};

/// 2^127 / (2n + 1).
const LOGARITHM: [u128; 20] = {
    let mut out = [0; 20];
    let mut n = 0;
    while n < 20 {
        out[n] = (1 << 127) / (2 * n as u128 + 1);
        n += 1;
    }
    out
};

/// F2XM1: 2^x - 1 for x from -1 to 1.
pub fn exponential(control: u16, a: X87Reg) -> Outcome {
    let a = Operand::register(a);
    if let Some(nan) = no_number(&a) {
        return nan;
    }
    let outcome = match a.value {
        Value::Infinity if a.negative => (pack(true, BIAS, TOP), 0),
        Value::Finite(e, m) => {
            let x = Wide::finite(a.negative, e, m);
            match (e - BIAS, m) {
                // 2^1 - 1, 2^-1 - 1. What lies outside of the range stays as it is.
                (0, TOP) if a.negative => (pack(true, BIAS - 1, TOP), PE),
                (0.., _) => (a.bits, PE),
                _ => {
                    let y = x.times(LN);
                    y.times(series(&EXPONENTIAL, y.fraction(), y.negative))
                        .round(control)
                }
            }
        }
        _ => (a.bits, 0),
    };
    denormals([&a], outcome)
}

/// log2(1 + s) by 2 atanh(t), where t = s / (2 + s).
fn log2_by(t: Wide) -> Wide {
    let sum = t.times(series(&LOGARITHM, t.times(t).fraction(), false));
    let twice = Wide {
        exponent: sum.exponent + 1,
        ..sum
    };
    twice.times(PER_LN)
}

/// log2 of a positive number; `None` is 0.
fn log2(x: Wide) -> Option<Wide> {
    /// The square root of 2.
    const ROOT: u128 = 0xb504_f333 << 96;
    // x = 2^n * s with s around 1.
    let n = x.exponent + i32::from(x.significand > ROOT);
    let s = Wide {
        exponent: x.exponent - n,
        ..x
    };
    let fraction = s.plus(Wide::ONE.negated()).map(|d| {
        let sum = s.plus(Wide::ONE).unwrap_or(s);
        log2_by(d.over(sum))
    });
    let whole = (n != 0).then(|| Wide::new(n < 0, 127, u128::from(n.unsigned_abs())));
    match (whole, fraction) {
        (Some(n), Some(f)) => n.plus(f),
        (n, f) => n.or(f),
    }
}

/// log2(1 + x) for x above -1, and whether it is exact; x is not 0.
fn log2_plus_1(x: Wide) -> (Option<Wide>, bool) {
    if x.exponent < -2 {
        let two = Wide {
            exponent: 1,
            ..Wide::ONE
        };
        return (x.plus(two).map(|sum| log2_by(x.over(sum))), false);
    }
    match x.plus(Wide::ONE) {
        Some(sum) => (log2(sum), sum.significand == Wide::ONE.significand),
        None => (None, false),
    }
}

/// y times a logarithm.
fn scaled(control: u16, y: &Operand, log: Option<Wide>, exact: bool) -> Outcome {
    let Some(log) = log else {
        return match y.value {
            Value::Infinity => INVALID,
            _ => (zero(y.negative), 0),
        };
    };
    let negative = y.negative != log.negative;
    match y.value {
        Value::Zero => (zero(negative), 0),
        Value::Finite(e, m) => {
            let product = Wide::finite(y.negative, e, m).times(log);
            if exact {
                product.round_exact(control)
            } else {
                product.round(control)
            }
        }
        _ => (infinity(negative), 0),
    }
}

/// FYL2X: y * log2 x.
pub fn y_log2(control: u16, x: X87Reg, y: X87Reg) -> Outcome {
    let (x, y) = (Operand::register(x), Operand::register(y));
    if let Some(nan) = no_numbers(&x, &y) {
        return nan;
    }
    let outcome = match (x.value, y.value) {
        (Value::Zero, Value::Zero) => INVALID,
        (Value::Zero, Value::Infinity) => (infinity(!y.negative), 0),
        (Value::Zero, _) => (infinity(!y.negative), ZE),
        _ if x.negative => INVALID,
        (Value::Infinity, Value::Zero) => INVALID,
        (Value::Infinity, _) => (infinity(y.negative), 0),
        (Value::Finite(e, m), _) => {
            let log = log2(Wide::finite(false, e, m));
            scaled(control, &y, log, m == TOP)
        }
        _ => INVALID,
    };
    denormals([&x, &y], outcome)
}

/// FYL2XP1: y * log2(x + 1).
pub fn y_log2_plus_1(control: u16, x: X87Reg, y: X87Reg) -> Outcome {
    let (x, y) = (Operand::register(x), Operand::register(y));
    if let Some(nan) = no_numbers(&x, &y) {
        return nan;
    }
    let outcome = match (x.value, y.value) {
        (Value::Zero, Value::Infinity) => INVALID,
        (Value::Zero, _) => (zero(x.negative != y.negative), 0),
        (Value::Infinity, _) if x.negative => INVALID,
        (Value::Infinity, Value::Zero) => INVALID,
        (Value::Infinity, _) => (infinity(y.negative), 0),
        (Value::Finite(..), Value::Zero) => (zero(x.negative != y.negative), 0),
        (Value::Finite(..), Value::Infinity) => (infinity(x.negative != y.negative), 0),
        // Outside of the range: undefined. The hardware leaves x.
        (Value::Finite(e, _), _) if x.negative && e >= BIAS => (x.bits, PE),
        (Value::Finite(e, m), _) => {
            let (log, exact) = log2_plus_1(Wide::finite(x.negative, e, m));
            scaled(control, &y, log, exact)
        }
        _ => INVALID,
    };
    denormals([&x, &y], outcome)
}
