//! To integers: FIST, FISTTP, FBSTP, FRNDINT; from packed decimal: FBLD.

use super::format::*;
use super::round::{Mode, full, round};
use crate::helpers::x87::stack::{C1, IE, PE};
use crate::state::X87Reg;

/// The magnitude rounded to an integer, with PE and C1; `None` if it needs more than 64 bits.
fn magnitude(mode: Mode, negative: bool, e: i32, m: u64) -> Option<(u64, u16)> {
    let whole = e - BIAS;
    if whole >= 64 {
        return None;
    }
    // The integer above the fraction, in 128 bits.
    let (kept, rest) = if whole >= 0 {
        let v = u128::from(m) << (whole + 1);
        ((v >> 64) as u64, v << 64)
    } else {
        // Below 2^-64 only that it is not 0 matters.
        (0, u128::from(m) << 64 >> (-1 - whole).min(64))
    };
    if rest == 0 {
        return Some((kept, 0));
    }
    if mode.rounds_up(negative, kept & 1 != 0, rest) {
        kept.checked_add(1).map(|n| (n, PE | C1))
    } else {
        Some((kept, PE))
    }
}

/// To an integer of 2, 4 or 8 bytes.
pub fn store_int(control: u16, a: X87Reg, bytes: u32) -> (u64, u16) {
    let a = Operand::register(a);
    let least = 1u64 << (bytes * 8 - 1);
    let (n, sw) = match a.value {
        Value::Zero => return (0, 0),
        Value::Finite(e, m) => match magnitude(Mode::of(control), a.negative, e, m) {
            Some(v) => v,
            None => return (least, IE),
        },
        _ => return (least, IE),
    };
    let limit = if a.negative { least } else { least - 1 };
    if n > limit {
        return (least, IE);
    }
    let v = if a.negative { n.wrapping_neg() } else { n };
    (v & (least << 1).wrapping_sub(1), sw)
}

/// The packed decimal that stands for an invalid value.
const INDEFINITE_BCD: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff];

/// To packed decimal.
pub fn store_bcd(control: u16, a: X87Reg) -> ([u8; 10], u16) {
    let a = Operand::register(a);
    let rounded = match a.value {
        Value::Zero => Some((0, 0)),
        Value::Finite(e, m) => magnitude(Mode::of(control), a.negative, e, m),
        _ => None,
    };
    let Some((mut n, sw)) = rounded.filter(|&(n, _)| n < 1_000_000_000_000_000_000) else {
        return (INDEFINITE_BCD, IE);
    };
    let mut out = [0; 10];
    for byte in &mut out[..9] {
        let two = (n % 100) as u8;
        n /= 100;
        *byte = ((two / 10) << 4) | (two % 10);
    }
    out[9] = u8::from(a.negative) << 7;
    (out, sw)
}

/// From packed decimal. Digits above 9 have no meaning; they count as what they are.
pub fn load_bcd(bytes: [u8; 10]) -> X87Reg {
    let n = bytes[..9].iter().rev().fold(0u64, |n, b| {
        n.wrapping_mul(100)
            .wrapping_add(u64::from(b >> 4) * 10 + u64::from(b & 15))
    });
    let negative = bytes[9] >> 7 != 0;
    if n == 0 {
        return zero(negative);
    }
    let shift = n.leading_zeros();
    pack(negative, BIAS + 63 - shift as i32, n << shift)
}

/// FRNDINT.
pub fn round_to_integer(control: u16, a: X87Reg) -> Outcome {
    let a = Operand::register(a);
    if let Some(nan) = no_number(&a) {
        return nan;
    }
    let Value::Finite(e, m) = a.value else {
        return (a.bits, 0);
    };
    // From 2^63 all are integers.
    let outcome = if e >= BIAS + 63 {
        (a.bits, 0)
    } else {
        match magnitude(Mode::of(control), a.negative, e, m) {
            Some((n, sw)) if n != 0 => {
                let shift = n.leading_zeros();
                let e = BIAS + 63 - shift as i32;
                (
                    round(full(control), a.negative, e, u128::from(n << shift) << 64).0,
                    sw,
                )
            }
            Some((_, sw)) => (zero(a.negative), sw),
            None => (a.bits, 0),
        }
    };
    denormals([&a], outcome)
}
