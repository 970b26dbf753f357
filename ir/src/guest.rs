//! The guest registers that IR ops name: one table gives enum, names and types.
//!
//! Where a register lies in memory is not known here: the runtime owns the guest state and hands
//! the engines its offsets. RIP is not in the table: inside a region it is a constant relative to
//! the region's entry (the `pc` op), and exits write it. The six arithmetic flags are in the table
//! only as the record that `setflags` leaves, see [`crate::flags`]; frontends use the flag ops.

use crate::types::Type;
use std::fmt;

macro_rules! guest_regs {
    ($($variant:ident $name:literal $ty:ident $doc:literal;)*) => {
        /// A register of the guest, as `getreg` and `setreg` name it.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reg { $(#[doc = $doc] $variant,)* }

        impl Reg {
            /// Every register, in declaration order; `ALL[r as usize] == r`.
            pub const ALL: &'static [Reg] = &[$(Reg::$variant,)*];

            /// The number of registers.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in the text form.
            pub const fn name(self) -> &'static str {
                match self { $(Reg::$variant => $name,)* }
            }

            /// The type of the register's value.
            pub const fn ty(self) -> Type {
                match self { $(Reg::$variant => Type::$ty,)* }
            }

            /// The register with that name.
            pub fn from_name(name: &str) -> Option<Reg> {
                match name { $($name => Some(Reg::$variant),)* _ => None }
            }
        }
    };
}

guest_regs! {
    Rax "rax" I64 "General register 0.";
    Rcx "rcx" I64 "General register 1.";
    Rdx "rdx" I64 "General register 2.";
    Rbx "rbx" I64 "General register 3.";
    Rsp "rsp" I64 "General register 4, the stack pointer.";
    Rbp "rbp" I64 "General register 5.";
    Rsi "rsi" I64 "General register 6.";
    Rdi "rdi" I64 "General register 7.";
    R8 "r8" I64 "General register 8.";
    R9 "r9" I64 "General register 9.";
    R10 "r10" I64 "General register 10.";
    R11 "r11" I64 "General register 11.";
    R12 "r12" I64 "General register 12.";
    R13 "r13" I64 "General register 13.";
    R14 "r14" I64 "General register 14.";
    R15 "r15" I64 "General register 15.";
    EsBase "es_base" I64 "Linear base of ES.";
    CsBase "cs_base" I64 "Linear base of CS.";
    SsBase "ss_base" I64 "Linear base of SS.";
    DsBase "ds_base" I64 "Linear base of DS.";
    FsBase "fs_base" I64 "Linear base of FS.";
    GsBase "gs_base" I64 "Linear base of GS.";
    Es "es" I16 "Selector of ES.";
    Cs "cs" I16 "Selector of CS.";
    Ss "ss" I16 "Selector of SS.";
    Ds "ds" I16 "Selector of DS.";
    Fs "fs" I16 "Selector of FS.";
    Gs "gs" I16 "Selector of GS.";
    Df "df" I64 "String step sign: +1 where RFLAGS.DF is 0, -1 where it is 1.";
    SysFlags "sysflags" I64 "RFLAGS without DF and the six arithmetic flags, in place (TF, IF, IOPL, NT, RF, VM, AC, VIF, VIP, ID).";
    Mxcsr "mxcsr" I32 "SSE control and status.";
    Xmm0 "xmm0" V128 "SSE register 0.";
    Xmm1 "xmm1" V128 "SSE register 1.";
    Xmm2 "xmm2" V128 "SSE register 2.";
    Xmm3 "xmm3" V128 "SSE register 3.";
    Xmm4 "xmm4" V128 "SSE register 4.";
    Xmm5 "xmm5" V128 "SSE register 5.";
    Xmm6 "xmm6" V128 "SSE register 6.";
    Xmm7 "xmm7" V128 "SSE register 7.";
    Xmm8 "xmm8" V128 "SSE register 8.";
    Xmm9 "xmm9" V128 "SSE register 9.";
    Xmm10 "xmm10" V128 "SSE register 10.";
    Xmm11 "xmm11" V128 "SSE register 11.";
    Xmm12 "xmm12" V128 "SSE register 12.";
    Xmm13 "xmm13" V128 "SSE register 13.";
    Xmm14 "xmm14" V128 "SSE register 14.";
    Xmm15 "xmm15" V128 "SSE register 15.";
    YmmHi0 "ymm0h" V128 "Bits 128 to 255 of YMM0.";
    YmmHi1 "ymm1h" V128 "Bits 128 to 255 of YMM1.";
    YmmHi2 "ymm2h" V128 "Bits 128 to 255 of YMM2.";
    YmmHi3 "ymm3h" V128 "Bits 128 to 255 of YMM3.";
    YmmHi4 "ymm4h" V128 "Bits 128 to 255 of YMM4.";
    YmmHi5 "ymm5h" V128 "Bits 128 to 255 of YMM5.";
    YmmHi6 "ymm6h" V128 "Bits 128 to 255 of YMM6.";
    YmmHi7 "ymm7h" V128 "Bits 128 to 255 of YMM7.";
    YmmHi8 "ymm8h" V128 "Bits 128 to 255 of YMM8.";
    YmmHi9 "ymm9h" V128 "Bits 128 to 255 of YMM9.";
    YmmHi10 "ymm10h" V128 "Bits 128 to 255 of YMM10.";
    YmmHi11 "ymm11h" V128 "Bits 128 to 255 of YMM11.";
    YmmHi12 "ymm12h" V128 "Bits 128 to 255 of YMM12.";
    YmmHi13 "ymm13h" V128 "Bits 128 to 255 of YMM13.";
    YmmHi14 "ymm14h" V128 "Bits 128 to 255 of YMM14.";
    YmmHi15 "ymm15h" V128 "Bits 128 to 255 of YMM15.";
    Mm0 "mm0" I64 "MMX register 0: the significand of physical x87 register 0.";
    Mm1 "mm1" I64 "MMX register 1: the significand of physical x87 register 1.";
    Mm2 "mm2" I64 "MMX register 2: the significand of physical x87 register 2.";
    Mm3 "mm3" I64 "MMX register 3: the significand of physical x87 register 3.";
    Mm4 "mm4" I64 "MMX register 4: the significand of physical x87 register 4.";
    Mm5 "mm5" I64 "MMX register 5: the significand of physical x87 register 5.";
    Mm6 "mm6" I64 "MMX register 6: the significand of physical x87 register 6.";
    Mm7 "mm7" I64 "MMX register 7: the significand of physical x87 register 7.";
    Fuel "fuel" I64 "Guest instructions that may still run; what the `fuel` and `spend` ops take from.";
    CcOp "cc_op" I32 "The flag record's kind and size, a [`crate::CcOp`]; `setflags` writes the record, `getcond` and `getflags` read it.";
    CcA "cc_a" I64 "The flag record's first operand.";
    CcB "cc_b" I64 "The flag record's second operand.";
    CcC "cc_c" I64 "The flag record's third operand.";
    FloatOps "float_ops" I64 "How many floating-point operations have run; only the pass `count` names it.";
}

/// A set of guest registers, one bit each by their number; see [`Reg::bit`]. The top bit is free for
/// what goes along with them.
pub type RegMask = u128;

const _: () = assert!(Reg::COUNT < RegMask::BITS as usize);

impl Reg {
    /// The set of this register alone.
    pub const fn bit(self) -> RegMask {
        1 << self as u32
    }

    /// The registers of a class.
    pub const fn of_class(class: RegClass) -> RegMask {
        CLASSES[class as usize]
    }

    /// General register `n`, 0 to 15, in the encoding's order (RAX, RCX, RDX, RBX, RSP, …).
    pub const fn gpr(n: usize) -> Reg {
        assert!(n < 16);
        Reg::ALL[n]
    }

    /// XMM register `n`, 0 to 15.
    pub const fn xmm(n: usize) -> Reg {
        assert!(n < 16);
        Reg::ALL[Reg::Xmm0 as usize + n]
    }

    /// The upper half of YMM register `n`, 0 to 15.
    pub const fn ymm_hi(n: usize) -> Reg {
        assert!(n < 16);
        Reg::ALL[Reg::YmmHi0 as usize + n]
    }

    /// MMX register `n`, 0 to 7.
    pub const fn mm(n: usize) -> Reg {
        assert!(n < 8);
        Reg::ALL[Reg::Mm0 as usize + n]
    }

    /// Which part of the guest state the register belongs to, for helper effects.
    pub const fn class(self) -> RegClass {
        let n = self as u8;
        if n <= Reg::R15 as u8 {
            RegClass::Gpr
        } else if n <= Reg::Gs as u8 {
            RegClass::Segment
        } else if n <= Reg::SysFlags as u8 {
            RegClass::Control
        } else if n <= Reg::YmmHi15 as u8 {
            RegClass::Sse
        } else if n <= Reg::Mm7 as u8 {
            RegClass::Mmx
        } else if n == Reg::Fuel as u8 {
            RegClass::Fuel
        } else if n == Reg::FloatOps as u8 {
            RegClass::Counter
        } else {
            RegClass::Flags
        }
    }
}

/// Groups of guest registers that a helper declares to read or write as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RegClass {
    /// RAX to R15.
    Gpr,
    /// Selectors and bases.
    Segment,
    /// DF and the system flags.
    Control,
    /// MXCSR, XMM0 to XMM15 and the upper halves of YMM0 to YMM15.
    Sse,
    /// MM0 to MM7, which every opaque helper reads and writes: they are part of the x87 registers.
    Mmx,
    /// The fuel.
    Fuel,
    /// The record of the arithmetic flags.
    Flags,
    /// A counter of ours, which no helper touches.
    Counter,
}

/// By [`RegClass`].
const CLASSES: [RegMask; 8] = {
    let (mut sets, mut n) = ([0; 8], 0);
    while n < Reg::COUNT {
        let r = Reg::ALL[n];
        sets[r.class() as usize] |= r.bit();
        n += 1;
    }
    sets
};

impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
