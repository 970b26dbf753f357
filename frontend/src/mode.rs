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
    /// What system code depends on besides; `None` in a Linux program, whose kernel is emulated.
    pub system: Option<SystemMode>,
}

/// How addresses and privileges work.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Level {
    /// Real-address mode.
    Real,
    /// Virtual-8086 mode (CPL 3).
    V86,
    /// Protected mode with that CPL, outside IA-32e mode.
    Protected(u8),
    /// IA-32e mode with that CPL: compatibility or, with 64-bit code, 64-bit mode.
    Long(u8),
}

impl Level {
    /// The current privilege level, 0 to 3.
    pub const fn cpl(self) -> u8 {
        match self {
            Level::Real => 0,
            Level::V86 => 3,
            Level::Protected(cpl) | Level::Long(cpl) => cpl,
        }
    }

    /// Whether selectors name descriptors.
    pub const fn is_protected(self) -> bool {
        matches!(self, Level::Protected(_) | Level::Long(_))
    }
}

/// What a full system's code depends on besides.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SystemMode {
    /// Addresses and privileges.
    pub level: Level,
    /// Segments (bit = number in encoding order) whose accesses need no check: 4 GiB, readable
    /// and writable (CS: readable). All of them in 64-bit code.
    pub unchecked: u8,
    /// Segments likewise, but of 64 KiB, as they are in real-address and virtual-8086 mode:
    /// offsets up to 0xffff need no check, and no others are allowed.
    pub short: u8,
    /// Segments (bit = number) whose base is known to be 0. `Mode::flat` says it of four.
    pub based_at_zero: u8,
    /// CR0.EM: x87 instructions raise #NM, MMX and SSE instructions #UD.
    pub em: bool,
    /// CR0.TS: x87, MMX and SSE instructions raise #NM.
    pub ts: bool,
    /// CR0.MP: WAIT raises #NM under TS.
    pub mp: bool,
    /// CR4.OSFXSR: without it SSE instructions raise #UD.
    pub osfxsr: bool,
    /// CR4.OSXSAVE with SSE and AVX enabled in XCR0: without it VEX instructions raise #UD.
    pub avx: bool,
    /// CR4.OSXSAVE: without it XSAVE and its kin raise #UD.
    pub osxsave: bool,
    /// CR4.FSGSBASE: without it RDFSBASE and its kin raise #UD.
    pub fsgsbase: bool,
    /// CR0.AM, RFLAGS.AC and CPL 3: unaligned accesses raise #AC.
    pub align: bool,
}

impl Mode {
    /// 64-bit code.
    pub const LONG: Mode = Mode {
        code: CodeSize::Code64,
        big_stack: true,
        flat: true,
        features: Features::MAX,
        unmasked: false,
        system: None,
    };
    /// 32-bit code with flat segments.
    pub const FLAT32: Mode = Mode {
        code: CodeSize::Code32,
        big_stack: true,
        flat: true,
        features: Features::MAX,
        unmasked: false,
        system: None,
    };
    /// 16-bit code with flat segments and a 16-bit stack.
    pub const FLAT16: Mode = Mode {
        code: CodeSize::Code16,
        big_stack: false,
        flat: true,
        features: Features::MAX,
        unmasked: false,
        system: None,
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
