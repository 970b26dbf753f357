//! The mode key: everything besides the bytes that changes what code means.

use crate::features::Features;
use metaphrase_ir::{CodeSize, Type};

/// What a translation depends on besides its address and bytes. Two translations of the same
/// physical address with different modes are different translations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mode {
    /// The code segment's default size.
    pub code: CodeSize,
    /// True if the stack segment is 32-bit (or the code 64-bit): ESP rather than SP moves.
    pub big_stack: bool,
    /// True if ES, CS, SS and DS have base 0, so that no base is added for them. Always so in
    /// 64-bit code.
    pub flat: bool,
    /// What the CPU model offers: an instruction of anything else raises #UD.
    pub features: Features,
    /// True if MXCSR unmasks an exception, so that SSE arithmetic may raise #XM.
    pub unmasked: bool,
}

impl Mode {
    /// 64-bit code.
    pub const LONG: Mode = Mode {
        code: CodeSize::Code64,
        big_stack: true,
        flat: true,
        features: Features::MAX,
        unmasked: false,
    };
    /// 32-bit code with flat segments.
    pub const FLAT32: Mode = Mode {
        code: CodeSize::Code32,
        big_stack: true,
        flat: true,
        features: Features::MAX,
        unmasked: false,
    };
    /// 16-bit code with flat segments and a 16-bit stack.
    pub const FLAT16: Mode = Mode {
        code: CodeSize::Code16,
        big_stack: false,
        flat: true,
        features: Features::MAX,
        unmasked: false,
    };

    /// The same mode on a CPU that offers other features.
    pub const fn with_features(self, features: Features) -> Mode {
        Mode { features, ..self }
    }

    /// True in 64-bit code.
    pub const fn is_64(self) -> bool {
        matches!(self.code, CodeSize::Code64)
    }

    /// The width in which the stack pointer moves.
    pub const fn stack_type(self) -> Type {
        if self.is_64() {
            Type::I64
        } else if self.big_stack {
            Type::I32
        } else {
            Type::I16
        }
    }
}
