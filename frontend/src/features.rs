//! The instruction sets that the virtual CPU offers, as far as the lifter must ask.
//!
//! An instruction of a set that is off raises #UD, whether or not the lifter knows it. The CPU
//! model decides; [`Features::default`] is what every 64-bit CPU has.

use iced_x86::CpuidFeature;

/// A set of the constants below.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Features(pub u32);

impl Features {
    /// SSE.
    pub const SSE: Features = Features(1 << 0);
    /// SSE2.
    pub const SSE2: Features = Features(1 << 1);
    /// SSE3.
    pub const SSE3: Features = Features(1 << 2);
    /// SSSE3.
    pub const SSSE3: Features = Features(1 << 3);
    /// SSE4.1.
    pub const SSE41: Features = Features(1 << 4);
    /// SSE4.2.
    pub const SSE42: Features = Features(1 << 5);

    /// The union.
    pub const fn and(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }

    /// Whether all of `other` is in the set.
    pub const fn has(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }

    /// What an instruction with this CPUID feature needs; nothing for features that are not asked
    /// about here.
    pub const fn needed(feature: CpuidFeature) -> Features {
        match feature {
            CpuidFeature::SSE => Features::SSE,
            CpuidFeature::SSE2 => Features::SSE2,
            CpuidFeature::SSE3 => Features::SSE3,
            CpuidFeature::SSSE3 => Features::SSSE3,
            CpuidFeature::SSE4_1 => Features::SSE41,
            CpuidFeature::SSE4_2 => Features::SSE42,
            _ => Features(0),
        }
    }

    /// Whether every one of an instruction's CPUID features is on.
    pub fn allow(self, needed: &[CpuidFeature]) -> bool {
        needed.iter().all(|&f| self.has(Features::needed(f)))
    }
}

impl Default for Features {
    /// SSE and SSE2.
    fn default() -> Features {
        Features::SSE.and(Features::SSE2)
    }
}
