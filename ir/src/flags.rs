//! The six arithmetic flags: how `setflags` defines them, and the conditions that read them.
//!
//! `setflags KIND.T a, b, c` records what the flags are without computing them. Both engines keep
//! the record in the guest state as it is (kind, size and up to three operands); `getcond` and
//! `getflags` evaluate it. [`FlagKind`] says which flags each kind defines: always all six.
//! Instructions that change some flags only read the others with `getflags` and write a
//! [`FlagKind::Raw`] image.

use crate::types::Type;
use std::fmt;

/// RFLAGS.CF, carry.
pub const CF: u64 = 1 << 0;
/// RFLAGS.PF, parity of the result's low byte.
pub const PF: u64 = 1 << 2;
/// RFLAGS.AF, carry out of bit 3.
pub const AF: u64 = 1 << 4;
/// RFLAGS.ZF, zero.
pub const ZF: u64 = 1 << 6;
/// RFLAGS.SF, sign.
pub const SF: u64 = 1 << 7;
/// RFLAGS.DF, string direction.
pub const DF: u64 = 1 << 10;
/// RFLAGS.OF, signed overflow.
pub const OF: u64 = 1 << 11;
/// The six arithmetic flags.
pub const ARITH: u64 = CF | PF | AF | ZF | SF | OF;

macro_rules! flag_kinds {
    ($($variant:ident $name:literal $args:literal $doc:literal;)*) => {
        /// How a `setflags` defines the arithmetic flags from its operands `a`, `b`, `c`, each of
        /// the op's type T (for `raw`: i64).
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum FlagKind { $(#[doc = $doc] $variant,)* }

        impl FlagKind {
            /// Every kind, in declaration order.
            pub const ALL: &'static [FlagKind] = &[$(FlagKind::$variant,)*];

            /// The name in the text form.
            pub const fn name(self) -> &'static str {
                match self { $(FlagKind::$variant => $name,)* }
            }

            /// The number of operands, 1 to 3.
            pub const fn arity(self) -> usize {
                match self { $(FlagKind::$variant => $args,)* }
            }

            /// The kind with that name.
            pub fn from_name(name: &str) -> Option<FlagKind> {
                match name { $($name => Some(FlagKind::$variant),)* _ => None }
            }
        }
    };
}

flag_kinds! {
    Raw "raw" 1 "`a` is an image of RFLAGS; only its six arithmetic flags count.";
    Add "add" 2 "Flags of `a + b`.";
    Adc "adc" 3 "Flags of `a + b + c`, `c` 0 or 1.";
    Sub "sub" 2 "Flags of `a - b`.";
    Sbb "sbb" 3 "Flags of `a - b - c`, `c` 0 or 1.";
    Logic "logic" 1 "SF, ZF, PF of the result `a`; CF, OF, AF clear.";
    Inc "inc" 2 "Flags of an increment with result `a`; CF is bit 0 of `b`.";
    Dec "dec" 2 "Flags of a decrement with result `a`; CF is bit 0 of `b`.";
    Result "result" 3 "SF, ZF, PF of the result `a`; CF is bit 0 of `b`, OF bit 0 of `c`, AF clear.";
    Shift "shift" 3 "As `result`, but AF is set: what AMD hosts do after a shift, where AF is undefined.";
}

/// The lazy form of the flags in the guest state: kind and size in one word, so that both engines
/// and the helpers agree on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CcOp(pub u32);

impl CcOp {
    /// The word for `kind` on operands of type `ty`.
    pub const fn new(kind: FlagKind, ty: Type) -> CcOp {
        CcOp((kind as u32) << 2 | (ty as u32 & 3))
    }

    /// The kind; words that were not made by [`CcOp::new`] read as [`FlagKind::Raw`].
    pub fn kind(self) -> FlagKind {
        FlagKind::ALL
            .get((self.0 >> 2) as usize)
            .copied()
            .unwrap_or(FlagKind::Raw)
    }

    /// The operand type.
    pub const fn ty(self) -> Type {
        Type::int(1 << (self.0 & 3))
    }
}

/// Evaluates a lazy flag record to the six flags in their RFLAGS positions.
///
/// This is the one definition of every [`FlagKind`]; operands may have garbage above their size.
pub fn evaluate(op: CcOp, a: u64, b: u64, c: u64) -> u64 {
    let ty = op.ty();
    let (mask, top) = (ty.mask(), 1u64 << (ty.bits() - 1));
    let (a, b) = (a & mask, b & mask);
    let szp = |r: u64| {
        let parity = if (r as u8).count_ones().is_multiple_of(2) {
            PF
        } else {
            0
        };
        parity | if r == 0 { ZF } else { 0 } | if r & top != 0 { SF } else { 0 }
    };
    let bit = |cond: bool, flag: u64| if cond { flag } else { 0 };
    // Carries out of each bit of an addition, borrows into each bit of a subtraction.
    let adc = |c: u64| {
        let r = a.wrapping_add(b).wrapping_add(c) & mask;
        let carries = (a & b) | ((a | b) & !r);
        let of = (a ^ r) & (b ^ r) & top != 0;
        szp(r) | bit(carries & top != 0, CF) | bit(carries & 8 != 0, AF) | bit(of, OF)
    };
    let sbb = |c: u64| {
        let r = a.wrapping_sub(b).wrapping_sub(c) & mask;
        let borrows = (!a & b) | ((!a | b) & r);
        let of = (a ^ b) & (a ^ r) & top != 0;
        szp(r) | bit(borrows & top != 0, CF) | bit(borrows & 8 != 0, AF) | bit(of, OF)
    };
    match op.kind() {
        FlagKind::Raw => a & ARITH,
        FlagKind::Add => adc(0),
        FlagKind::Adc => adc(c & 1),
        FlagKind::Sub => sbb(0),
        FlagKind::Sbb => sbb(c & 1),
        FlagKind::Logic => szp(a),
        FlagKind::Inc => szp(a) | (b & 1) | bit(a & 15 == 0, AF) | bit(a == top, OF),
        FlagKind::Dec => szp(a) | (b & 1) | bit(a & 15 == 15, AF) | bit(a == top - 1, OF),
        FlagKind::Result => szp(a) | (b & 1) | bit(c & 1 != 0, OF),
        FlagKind::Shift => szp(a) | (b & 1) | bit(c & 1 != 0, OF) | AF,
    }
}

/// A condition of Jcc, SETcc and CMOVcc, in the encoding's order (SDM volume 1, appendix B).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum Cond {
    /// OF.
    O,
    /// Not OF.
    No,
    /// CF.
    B,
    /// Not CF.
    Nb,
    /// ZF.
    Z,
    /// Not ZF.
    Nz,
    /// CF or ZF.
    Be,
    /// Neither CF nor ZF.
    Nbe,
    /// SF.
    S,
    /// Not SF.
    Ns,
    /// PF.
    P,
    /// Not PF.
    Np,
    /// SF differs from OF.
    L,
    /// SF equals OF.
    Nl,
    /// ZF, or SF differs from OF.
    Le,
    /// Not ZF, and SF equals OF.
    Nle,
}

impl Cond {
    /// Every condition, in the encoding's order.
    pub const ALL: [Cond; 16] = [
        Cond::O,
        Cond::No,
        Cond::B,
        Cond::Nb,
        Cond::Z,
        Cond::Nz,
        Cond::Be,
        Cond::Nbe,
        Cond::S,
        Cond::Ns,
        Cond::P,
        Cond::Np,
        Cond::L,
        Cond::Nl,
        Cond::Le,
        Cond::Nle,
    ];

    /// The opposite condition.
    pub const fn invert(self) -> Cond {
        Cond::ALL[self as usize ^ 1]
    }

    /// Whether the condition holds for an RFLAGS image.
    pub const fn holds(self, flags: u64) -> bool {
        let less = (flags & SF != 0) != (flags & OF != 0);
        let base = match self as u8 >> 1 {
            0 => flags & OF != 0,
            1 => flags & CF != 0,
            2 => flags & ZF != 0,
            3 => flags & (CF | ZF) != 0,
            4 => flags & SF != 0,
            5 => flags & PF != 0,
            6 => less,
            _ => flags & ZF != 0 || less,
        };
        base != (self as u8 & 1 == 1)
    }

    /// The name in the text form: the Jcc suffix.
    pub const fn name(self) -> &'static str {
        const NAMES: [&str; 16] = [
            "o", "no", "b", "nb", "z", "nz", "be", "nbe", "s", "ns", "p", "np", "l", "nl", "le",
            "nle",
        ];
        NAMES[self as usize]
    }

    /// The condition with that name.
    pub fn from_name(name: &str) -> Option<Cond> {
        Cond::ALL.into_iter().find(|c| c.name() == name)
    }
}

impl fmt::Display for Cond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn add_carries_and_overflows_at_every_size() {
        for ty in [Type::I8, Type::I16, Type::I32, Type::I64] {
            let top = 1 << (ty.bits() - 1);
            let f = evaluate(CcOp::new(FlagKind::Add, ty), top, top, 0);
            assert_eq!(f, CF | OF | ZF | PF, "{ty}");
        }
    }

    #[test]
    fn sub_borrows() {
        let f = evaluate(CcOp::new(FlagKind::Sub, Type::I8), 0, 1, 0);
        assert_eq!(f, CF | AF | SF | PF);
    }

    #[test]
    fn adc_of_all_ones_with_carry() {
        let f = evaluate(CcOp::new(FlagKind::Adc, Type::I32), 5, 0xffff_ffff, 1);
        assert_eq!(
            f,
            CF | AF | PF,
            "5 + -1 + 1 = 5 carries out of bit 3 and of the top"
        );
    }

    #[test]
    fn condition_names_invert() {
        for c in Cond::ALL {
            assert_eq!(c.invert().invert(), c);
            assert_eq!(Cond::from_name(c.name()), Some(c));
            for flags in [0, ARITH, CF, ZF, SF, OF, SF | OF, PF] {
                assert_ne!(c.holds(flags), c.invert().holds(flags));
            }
        }
    }
}
