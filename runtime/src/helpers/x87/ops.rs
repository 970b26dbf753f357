//! The operations that a host's FPU module does.

use crate::state::X87Reg;

/// An operand of an arithmetic instruction or a load.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// A register.
    Reg(X87Reg),
    /// A binary32.
    F32(u32),
    /// A binary64.
    F64(u64),
    /// A 16-bit integer.
    I16(i16),
    /// A 32-bit integer.
    I32(i32),
}

/// Arithmetic, in the order of the opcodes (2 and 3 are comparisons).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arith {
    /// a + b.
    Add,
    /// a * b.
    Mul,
    /// a - b.
    Sub,
    /// b - a.
    SubR,
    /// a / b.
    Div,
    /// b / a.
    DivR,
}

/// An operation on ST(0) alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unary {
    /// 2^x - 1.
    F2xm1,
    /// The square root.
    Sqrt,
    /// To an integer.
    RndInt,
    /// The sine.
    Sin,
    /// The cosine.
    Cos,
}

/// An operation on ST(0) and ST(1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binary {
    /// ST(0) := ST(0) * 2^trunc(ST(1)).
    Scale,
    /// ST(0) := partial remainder, truncated quotient.
    Prem,
    /// ST(0) := partial remainder, rounded quotient.
    Prem1,
    /// ST(1) := ST(1) * log2(ST(0)), pop.
    Yl2x,
    /// ST(1) := ST(1) * log2(ST(0) + 1), pop.
    Yl2xp1,
    /// ST(1) := atan(ST(1) / ST(0)), pop.
    Patan,
}

/// An operation that replaces ST(0) and pushes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pair {
    /// The tangent, then 1.
    Ptan,
    /// The sine, then the cosine.
    SinCos,
    /// The exponent, then the significand.
    Xtract,
}
