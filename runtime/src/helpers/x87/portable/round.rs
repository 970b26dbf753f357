//! Rounding into the 80-bit format, with what the masks of overflow and underflow make of the
//! result (SDM volume 1, 8.5.4 and 8.5.5).

use super::format::*;
use crate::helpers::x87::stack::{C1, OE, PE, UE};

/// Which way a control word rounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// To nearest, ties to even.
    Nearest,
    /// Towards minus infinity.
    Down,
    /// Towards plus infinity.
    Up,
    /// Towards 0.
    Chop,
}

impl Mode {
    /// The rounding control of a control word.
    pub fn of(control: u16) -> Mode {
        match control >> 10 & 3 {
            0 => Mode::Nearest,
            1 => Mode::Down,
            2 => Mode::Up,
            _ => Mode::Chop,
        }
    }

    /// Whether a magnitude is rounded up whose last kept bit is `odd` and whose dropped bits, put
    /// at the top of a word, are `rest`.
    #[inline(always)]
    pub fn rounds_up(self, negative: bool, odd: bool, rest: u128) -> bool {
        const HALF: u128 = 1 << 127;
        match self {
            Mode::Nearest => rest > HALF || rest == HALF && odd,
            Mode::Down => negative && rest != 0,
            Mode::Up => !negative && rest != 0,
            Mode::Chop => false,
        }
    }

    /// Whether what is too large becomes infinity, not the largest number.
    pub fn overflows_to_infinity(self, negative: bool) -> bool {
        self.rounds_up(negative, true, u128::MAX)
    }
}

/// The control word of operations that the precision control does not touch.
pub fn full(control: u16) -> u16 {
    control | 0x300
}

/// The significant bits that a control word asks for.
pub fn precision(control: u16) -> u32 {
    match control >> 8 & 3 {
        0 => 24,
        2 => 53,
        _ => 64,
    }
}

/// Shifts right; ones that fall out set the last bit.
pub fn shift_sticky(v: u128, by: u32) -> u128 {
    match by {
        0 => v,
        1..=127 => v >> by | u128::from(v << (128 - by) != 0),
        _ => u128::from(v != 0),
    }
}

/// A significand rounded to its first bits.
#[derive(Clone, Copy, Debug)]
pub struct Rounded {
    /// The bits, still at the top of the word; 0 if the carry ran out.
    pub significand: u64,
    /// The carry ran out of the top.
    pub carry: bool,
    /// PE and C1.
    pub flags: u16,
}

/// Rounds the significand to its first `bits` (1 to 64) bits.
#[inline(always)]
pub fn round_bits(mode: Mode, negative: bool, significand: u128, bits: u32) -> Rounded {
    let unit = 1u64 << (64 - bits);
    let kept = (significand >> 64) as u64 & !(unit - 1);
    let rest = significand << bits;
    if rest == 0 {
        return Rounded {
            significand: kept,
            carry: false,
            flags: 0,
        };
    }
    if !mode.rounds_up(negative, kept & unit != 0, rest) {
        return Rounded {
            significand: kept,
            carry: false,
            flags: PE,
        };
    }
    let (significand, carry) = kept.overflowing_add(unit);
    Rounded {
        significand,
        carry,
        flags: PE | C1,
    }
}

/// Rounds significand * 2^(exponent - BIAS - 127), whose significand has its top bit, as the
/// control word says.
pub fn round(control: u16, negative: bool, exponent: i32, significand: u128) -> Outcome {
    let (mode, bits) = (Mode::of(control), precision(control));
    let r = round_bits(mode, negative, significand, bits);
    let (e, m) = if r.carry {
        (exponent + 1, TOP)
    } else {
        (exponent, r.significand)
    };
    if e >= 0x7fff {
        return overflow(control, negative, e, m, r.flags);
    }
    if e >= 1 {
        return (pack(negative, e, m), r.flags);
    }
    if control & UE == 0 {
        // The biased result of the unmasked response.
        return match e + UNMASKED_BIAS {
            e if e >= 1 => (pack(negative, e, m), r.flags | UE),
            _ => (zero(negative), UE | PE),
        };
    }
    let shifted = shift_sticky(significand, (1 - exponent) as u32);
    let r = round_bits(mode, negative, shifted, bits);
    let flags = if r.flags & PE != 0 { r.flags | UE } else { 0 };
    // Rounding up to the smallest normal number leaves the integer bit set, and the exponent 1.
    let e = (r.significand >> 63) as i32;
    (pack(negative, e, r.significand), flags)
}

/// What the exponent of an unmasked overflow or underflow is corrected by.
const UNMASKED_BIAS: i32 = 0x6000;

/// The result is too large.
fn overflow(control: u16, negative: bool, e: i32, m: u64, flags: u16) -> Outcome {
    if control & OE == 0 {
        return match e - UNMASKED_BIAS {
            e if e < 0x7fff => (pack(negative, e, m), flags | OE),
            _ => (infinity(negative), OE | PE | C1),
        };
    }
    if Mode::of(control).overflows_to_infinity(negative) {
        (infinity(negative), OE | PE | C1)
    } else {
        let largest = !0u64 << (64 - precision(control));
        (pack(negative, 0x7ffe, largest), OE | PE)
    }
}
