//! The 80-bit format taken apart: classes of numbers, and the NaN that an operation gives.

use crate::helpers::x87::convert;
use crate::helpers::x87::ops::Source;
use crate::helpers::x87::stack::{DE, IE, ZE};
use crate::state::X87Reg;

/// The exponent's bias.
pub const BIAS: i32 = 0x3fff;
/// The integer bit.
pub const TOP: u64 = 1 << 63;
/// The bit that makes a NaN quiet.
const QUIET: u64 = 1 << 62;

/// What a result and its status word are made of.
pub type Outcome = (X87Reg, u16);

/// The value of an operand, without its sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    /// 0.
    Zero,
    /// significand * 2^(exponent - BIAS - 63), where the significand has its integer bit; for
    /// denormals the exponent is 0 or below.
    Finite(i32, u64),
    /// Infinity.
    Infinity,
    /// A NaN.
    Nan,
    /// An encoding that is no operand: unnormals, pseudo-infinities, pseudo-NaNs.
    Unsupported,
}

/// An operand.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// Its encoding.
    pub bits: X87Reg,
    /// Its sign.
    pub negative: bool,
    /// Its value.
    pub value: Value,
    /// It is a denormal (or pseudo-denormal).
    pub denormal: bool,
}

impl Operand {
    /// A register's contents.
    pub fn register(bits: X87Reg) -> Operand {
        let exponent = (bits.exponent & 0x7fff) as i32;
        let shift = bits.mantissa.leading_zeros();
        let value = match (exponent, bits.mantissa) {
            (0, 0) => Value::Zero,
            (0, m) => Value::Finite(1 - shift as i32, m << shift),
            (_, m) if m < TOP => Value::Unsupported,
            (0x7fff, TOP) => Value::Infinity,
            (0x7fff, _) => Value::Nan,
            (e, m) => Value::Finite(e, m),
        };
        Operand {
            bits,
            negative: bits.exponent & 0x8000 != 0,
            value,
            denormal: exponent == 0 && bits.mantissa != 0,
        }
    }

    /// An operand of any kind. A signaling NaN stays one.
    pub fn of(source: Source) -> Operand {
        match source {
            Source::Reg(r) => Operand::register(r),
            Source::F32(bits) => {
                let bits = u64::from(bits);
                Operand::real(bits >> 31 != 0, bits >> 23 & 0xff, bits << 41, 8)
            }
            Source::F64(bits) => Operand::real(bits >> 63 != 0, bits >> 52 & 0x7ff, bits << 12, 11),
            Source::I16(n) => Operand::register(convert::from_int(i64::from(n))),
            Source::I32(n) => Operand::register(convert::from_int(i64::from(n))),
        }
    }

    /// A binary32 or binary64: the fraction at the top of a word, and the exponent's width.
    fn real(negative: bool, exponent: u64, fraction: u64, width: u32) -> Operand {
        let top = (1u64 << width) - 1;
        let bias = BIAS - (1 << (width - 1)) + 1;
        let (exponent, mantissa, denormal) = match (exponent, fraction) {
            (0, 0) => (0, 0, false),
            (0, f) => {
                let shift = f.leading_zeros();
                (bias - shift as i32, f << shift, true)
            }
            (e, f) if e == top => (0x7fff, TOP | f >> 1, false),
            (e, f) => (e as i32 + bias, TOP | f >> 1, false),
        };
        let bits = pack(negative, exponent, mantissa);
        Operand {
            denormal,
            ..Operand::register(bits)
        }
    }

    /// A NaN that is not quiet.
    pub fn signaling(&self) -> bool {
        self.value == Value::Nan && self.bits.mantissa & QUIET == 0
    }

    /// The operand with the opposite sign; a NaN keeps its own.
    pub fn negated(self) -> Operand {
        Operand {
            negative: !self.negative,
            ..self
        }
    }
}

/// An encoding from its parts.
pub fn pack(negative: bool, exponent: i32, mantissa: u64) -> X87Reg {
    X87Reg {
        mantissa,
        exponent: u64::from(negative) << 15 | (exponent as u64 & 0x7fff),
    }
}

/// A signed zero.
pub fn zero(negative: bool) -> X87Reg {
    pack(negative, 0, 0)
}

/// A signed infinity.
pub fn infinity(negative: bool) -> X87Reg {
    pack(negative, 0x7fff, TOP)
}

/// An invalid operation.
pub const INVALID: Outcome = (X87Reg::INDEFINITE, IE);

/// An outcome with the denormal-operand flag, if one of the operands is one and the operation was
/// neither invalid nor a division by zero: those are found first.
pub fn denormals<const N: usize>(operands: [&Operand; N], (v, sw): Outcome) -> Outcome {
    let found = sw & (IE | ZE) == 0 && operands.iter().any(|o| o.denormal);
    (v, if found { sw | DE } else { sw })
}

/// A NaN made quiet.
pub fn quiet(bits: X87Reg) -> X87Reg {
    X87Reg {
        mantissa: bits.mantissa | QUIET,
        ..bits
    }
}

/// What an operation on one operand gives if that is no number.
pub fn no_number(a: &Operand) -> Option<Outcome> {
    match a.value {
        Value::Unsupported => Some(INVALID),
        Value::Nan => Some((quiet(a.bits), if a.signaling() { IE } else { 0 })),
        _ => None,
    }
}

/// What an operation on two operands gives if one is no number: of two NaNs a quiet one before a
/// signaling one, then the larger significand, then the positive one (SDM volume 1, table 4-7).
pub fn no_numbers(a: &Operand, b: &Operand) -> Option<Outcome> {
    if a.value == Value::Unsupported || b.value == Value::Unsupported {
        return Some(INVALID);
    }
    let invalid = if a.signaling() || b.signaling() {
        IE
    } else {
        0
    };
    let chosen = match (a.value == Value::Nan, b.value == Value::Nan) {
        (false, false) => return None,
        (true, false) => a,
        (false, true) => b,
        (true, true) => match (a.signaling(), b.signaling()) {
            (true, false) => b,
            (false, true) => a,
            _ => {
                let rank = |o: &Operand| (o.bits.mantissa, o.bits.exponent & 0x8000 == 0);
                if rank(a) >= rank(b) { a } else { b }
            }
        },
    };
    Some((quiet(chosen.bits), invalid))
}
