//! FPATAN: the angle of the point (x, y).

use super::format::*;
use super::wide::{PI, Wide, series};
use crate::state::X87Reg;

/// atan(k/8) for k from 1 to 8: exponent and significand.
const TABLE: [(i32, u128); 8] = [
    (-4, 0xfead_d4d5_617b_6e32_c897_989f_3e88_8ef7),
    (-3, 0xfadb_afc9_6406_eb15_6dc7_9ef5_f7a2_17e5),
    (-2, 0xb7b0_ca0f_26f7_8473_8aa3_2122_dcfe_4483),
    (-2, 0xed63_382b_0dda_7b45_6fe4_45ec_bc3a_8d03),
    (-1, 0x8f00_5d5e_f7f5_9f9b_5c83_5e16_65c4_3747),
    (-1, 0xa4bc_7d19_34f7_0924_19a8_7f2a_457d_ac9e),
    (-1, 0xb805_3e2b_c231_9e73_cb2d_a552_10a4_443d),
    (-1, PI),
];

/// 2^127 / (2n + 1).
const COEFFICIENTS: [u128; 13] = {
    let mut out = [0; 13];
    let mut n = 0;
    while n < 13 {
        out[n] = (1 << 127) / (2 * n as u128 + 1);
        n += 1;
    }
    out
};

/// n times pi/4; n is not 0.
fn quarters(n: u32, negative: bool) -> Wide {
    let w = Wide::new(negative, 2, (PI >> 3) * u128::from(n));
    // PI is pi/2 with exponent 0, so PI >> 3 times 2^(2 - 127) is pi/4.
    w
}

/// FPATAN: atan(y / x) in the quadrant of (x, y).
pub fn arc_tangent(control: u16, x: X87Reg, y: X87Reg) -> Outcome {
    let (x, y) = (Operand::register(x), Operand::register(y));
    if let Some(nan) = no_numbers(&x, &y) {
        return nan;
    }
    let (sign, left) = (y.negative, x.negative);
    let multiple = |n: u32| quarters(n, sign).round(control);
    let outcome = match (y.value, x.value) {
        (Value::Infinity, Value::Infinity) => multiple(if left { 3 } else { 1 }),
        (Value::Infinity, _) | (Value::Finite(..), Value::Zero) => multiple(2),
        (Value::Zero, _) | (_, Value::Infinity) if left => multiple(4),
        (Value::Zero, _) | (_, Value::Infinity) => (zero(sign), 0),
        (Value::Finite(ey, my), Value::Finite(ex, mx)) => {
            let (y, x) = (Wide::finite(false, ey, my), Wide::finite(false, ex, mx));
            Wide {
                negative: sign,
                ..angle(y, x, left)
            }
            .round(control)
        }
        _ => INVALID,
    };
    denormals([&x, &y], outcome)
}

/// The angle of (x, y), or of (-x, y) if `left`, for positive x and y.
fn angle(y: Wide, x: Wide, left: bool) -> Wide {
    let steep = (y.exponent, y.significand) > (x.exponent, x.significand);
    let a = if steep {
        first_octant(x, y)
    } else {
        first_octant(y, x)
    };
    // pi/2 - a, pi - a, pi/2 + a.
    let whole = match (steep, left) {
        (false, false) => return a,
        (true, _) => quarters(2, false),
        (false, true) => quarters(4, false),
    };
    let a = if steep && left { a } else { a.negated() };
    whole.plus(a).unwrap_or(whole)
}

/// atan(y / x) for 0 < y <= x.
fn first_octant(y: Wide, x: Wide) -> Wide {
    // The nearest k/8: atan(y/x) = atan(k/8) + atan((8y - kx) / (8x + ky)), and that numerator is
    // exact.
    let distance = x.exponent - y.exponent;
    let k = if distance > 5 {
        0
    } else {
        let (y, x) = (y.significand >> 64 >> distance, x.significand >> 64);
        (8 * y + x / 2) / x
    };
    if k == 0 {
        return small(y.over(x));
    }
    let scaled =
        |w: Wide, by: u128| Wide::new(w.negative, w.exponent + 4, (w.significand >> 4) * by);
    let (exponent, significand) = TABLE[(k as usize).min(8) - 1];
    let base = Wide {
        negative: false,
        exponent,
        significand,
    };
    let Some(numerator) = scaled(y, 8).plus(scaled(x, k).negated()) else {
        return base;
    };
    let denominator = scaled(x, 8).plus(scaled(y, k)).unwrap_or(x);
    base.plus(small(numerator.over(denominator)))
        .unwrap_or(base)
}

/// atan t for |t| up to about 1/16.
fn small(t: Wide) -> Wide {
    t.times(series(&COEFFICIENTS, t.times(t).fraction(), true))
}
