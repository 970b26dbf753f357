//! Value types of the IR and the lane shapes of its vectors.

use std::fmt;

/// The type of an SSA value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum Type {
    /// 8-bit integer; also the type of conditions, which are 0 or 1.
    I8,
    /// 16-bit integer.
    I16,
    /// 32-bit integer.
    I32,
    /// 64-bit integer; the type of guest addresses.
    I64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// 128-bit vector; ops that care about lanes carry a [`Shape`].
    V128,
}

impl Type {
    /// Every type, in declaration order.
    pub const ALL: [Type; 7] = [
        Type::I8,
        Type::I16,
        Type::I32,
        Type::I64,
        Type::F32,
        Type::F64,
        Type::V128,
    ];

    /// Size in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Type::I8 => 1,
            Type::I16 => 2,
            Type::I32 | Type::F32 => 4,
            Type::I64 | Type::F64 => 8,
            Type::V128 => 16,
        }
    }

    /// Size in bits.
    pub const fn bits(self) -> u32 {
        self.bytes() * 8
    }

    /// True for the four integer types.
    pub const fn is_int(self) -> bool {
        matches!(self, Type::I8 | Type::I16 | Type::I32 | Type::I64)
    }

    /// True for `f32` and `f64`.
    pub const fn is_float(self) -> bool {
        matches!(self, Type::F32 | Type::F64)
    }

    /// The integer type of `bytes` bytes: 1, 2, 4 or 8.
    ///
    /// # Panics
    /// On any other size.
    pub const fn int(bytes: u32) -> Type {
        match bytes {
            1 => Type::I8,
            2 => Type::I16,
            4 => Type::I32,
            8 => Type::I64,
            _ => panic!("no integer type of that size"),
        }
    }

    /// All ones in the low `bits()` bits; integers only up to 64 bits.
    pub const fn mask(self) -> u64 {
        match self.bits() {
            8 => 0xff,
            16 => 0xffff,
            32 => 0xffff_ffff,
            _ => u64::MAX,
        }
    }

    /// The name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Type::I8 => "i8",
            Type::I16 => "i16",
            Type::I32 => "i32",
            Type::I64 => "i64",
            Type::F32 => "f32",
            Type::F64 => "f64",
            Type::V128 => "v128",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a vector op divides its 128 bits into lanes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum Shape {
    /// Sixteen bytes.
    I8x16,
    /// Eight 16-bit words.
    I16x8,
    /// Four 32-bit doublewords.
    I32x4,
    /// Two 64-bit quadwords.
    I64x2,
    /// Four binary32.
    F32x4,
    /// Two binary64.
    F64x2,
}

impl Shape {
    /// Every shape, in declaration order.
    pub const ALL: [Shape; 6] = [
        Shape::I8x16,
        Shape::I16x8,
        Shape::I32x4,
        Shape::I64x2,
        Shape::F32x4,
        Shape::F64x2,
    ];

    /// The type of one lane.
    pub const fn lane(self) -> Type {
        match self {
            Shape::I8x16 => Type::I8,
            Shape::I16x8 => Type::I16,
            Shape::I32x4 => Type::I32,
            Shape::I64x2 => Type::I64,
            Shape::F32x4 => Type::F32,
            Shape::F64x2 => Type::F64,
        }
    }

    /// The number of lanes.
    pub const fn lanes(self) -> u32 {
        16 / self.lane().bytes()
    }

    /// The name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Shape::I8x16 => "i8x16",
            Shape::I16x8 => "i16x8",
            Shape::I32x4 => "i32x4",
            Shape::I64x2 => "i64x2",
            Shape::F32x4 => "f32x4",
            Shape::F64x2 => "f64x2",
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
