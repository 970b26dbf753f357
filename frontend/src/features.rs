//! The instruction sets that a virtual CPU can offer: one table for what CPUID says and for what
//! the lifter accepts, so that the two cannot disagree.
//!
//! An instruction of a set that the CPU model does not offer raises #UD, or is what older CPUs
//! read in its bytes (LZCNT is BSR with a prefix, TZCNT is BSF). A set that has no row here is
//! never offered.

use iced_x86::{CpuidFeature, Instruction, Mnemonic};

/// A register of a CPUID leaf that holds feature bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuidWord {
    /// Leaf 1, ECX.
    Leaf1Ecx,
    /// Leaf 1, EDX.
    Leaf1Edx,
    /// Leaf 7, sub-leaf 0, EBX.
    Leaf7Ebx,
    /// Leaf 7, sub-leaf 0, ECX.
    Leaf7Ecx,
    /// Leaf 13, sub-leaf 1, EAX.
    Leaf13Eax,
    /// Leaf 80000001, ECX.
    ExtendedEcx,
    /// Leaf 80000001, EDX.
    ExtendedEdx,
}

macro_rules! features {
    ($($variant:ident $konst:ident $name:literal $word:ident $bit:literal [$($iced:ident)*] $doc:literal;)*) => {
        /// A feature that a CPU model can offer.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Feature { $(#[doc = $doc] $variant,)* }

        impl Feature {
            /// Every feature, in declaration order.
            pub const ALL: &'static [Feature] = &[$(Feature::$variant,)*];

            /// The name, as it follows `+` or `-` after a CPU model.
            pub const fn name(self) -> &'static str {
                match self { $(Feature::$variant => $name,)* }
            }

            /// Where CPUID shows it: the register and the bit.
            pub const fn cpuid(self) -> (CpuidWord, u32) {
                match self { $(Feature::$variant => (CpuidWord::$word, $bit),)* }
            }

            /// The feature that an instruction with this mark needs.
            pub const fn of(mark: CpuidFeature) -> Option<Feature> {
                match mark {
                    $($(CpuidFeature::$iced => Some(Feature::$variant),)*)*
                    _ => None,
                }
            }
        }

        impl Features {
            $(#[doc = $doc] pub const $konst: Features = Features(1 << Feature::$variant as u32);)*
        }
    };
}

features! {
    Fpu FPU "fpu" Leaf1Edx 0 [FPU FPU287 FPU387] "The x87 FPU.";
    Tsc TSC "tsc" Leaf1Edx 4 [TSC] "RDTSC.";
    Cx8 CX8 "cx8" Leaf1Edx 8 [CX8] "CMPXCHG8B.";
    Sep SEP "sep" Leaf1Edx 11 [SEP] "SYSENTER.";
    Cmov CMOV "cmov" Leaf1Edx 15 [CMOV] "CMOVcc, FCMOVcc, FCOMI.";
    Clfsh CLFSH "clfsh" Leaf1Edx 19 [CLFSH] "CLFLUSH.";
    Mmx MMX "mmx" Leaf1Edx 23 [MMX] "MMX.";
    Fxsr FXSR "fxsr" Leaf1Edx 24 [FXSR] "FXSAVE, FXRSTOR.";
    Sse SSE "sse" Leaf1Edx 25 [SSE] "SSE.";
    Sse2 SSE2 "sse2" Leaf1Edx 26 [SSE2] "SSE2.";
    Sse3 SSE3 "sse3" Leaf1Ecx 0 [SSE3] "SSE3.";
    Pclmulqdq PCLMULQDQ "pclmulqdq" Leaf1Ecx 1 [PCLMULQDQ] "PCLMULQDQ.";
    Ssse3 SSSE3 "ssse3" Leaf1Ecx 9 [SSSE3] "SSSE3.";
    Fma FMA "fma" Leaf1Ecx 12 [FMA] "FMA3.";
    Cx16 CX16 "cx16" Leaf1Ecx 13 [CMPXCHG16B] "CMPXCHG16B.";
    Sse41 SSE41 "sse4.1" Leaf1Ecx 19 [SSE4_1] "SSE4.1.";
    Sse42 SSE42 "sse4.2" Leaf1Ecx 20 [SSE4_2] "SSE4.2, CRC32.";
    Movbe MOVBE "movbe" Leaf1Ecx 22 [MOVBE] "MOVBE.";
    Popcnt POPCNT "popcnt" Leaf1Ecx 23 [POPCNT] "POPCNT.";
    F16c F16C "f16c" Leaf1Ecx 29 [F16C] "Half-precision conversions.";
    Aes AES "aes" Leaf1Ecx 25 [AES] "AES-NI.";
    Xsave XSAVE "xsave" Leaf1Ecx 26 [XSAVE] "XSAVE, XRSTOR, XGETBV; the operating system has turned them on.";
    Avx AVX "avx" Leaf1Ecx 28 [AVX] "AVX.";
    FsGsBase FSGSBASE "fsgsbase" Leaf7Ebx 0 [FSGSBASE] "RDFSBASE and the like.";
    Bmi1 BMI1 "bmi1" Leaf7Ebx 3 [BMI1] "ANDN, BEXTR, BLSI, BLSMSK, BLSR, TZCNT.";
    Avx2 AVX2 "avx2" Leaf7Ebx 5 [AVX2] "AVX2.";
    Bmi2 BMI2 "bmi2" Leaf7Ebx 8 [BMI2] "BZHI, MULX, PDEP, PEXT, RORX, SARX, SHLX, SHRX.";
    Adx ADX "adx" Leaf7Ebx 19 [ADX] "ADCX, ADOX.";
    ClflushOpt CLFLUSHOPT "clflushopt" Leaf7Ebx 23 [CLFLUSHOPT] "CLFLUSHOPT.";
    Sha SHA "sha" Leaf7Ebx 29 [SHA] "SHA-1 and SHA-256.";
    Rdpid RDPID "rdpid" Leaf7Ecx 22 [RDPID] "RDPID.";
    Xsaveopt XSAVEOPT "xsaveopt" Leaf13Eax 0 [XSAVEOPT] "XSAVEOPT.";
    Xsavec XSAVEC "xsavec" Leaf13Eax 1 [XSAVEC] "XSAVEC, and XRSTOR of compacted images.";
    Xgetbv1 XGETBV1 "xgetbv1" Leaf13Eax 2 [] "XGETBV of the components in use.";
    LahfLm LAHF_LM "lahf_lm" ExtendedEcx 0 [] "LAHF and SAHF in 64-bit code.";
    Lzcnt LZCNT "lzcnt" ExtendedEcx 5 [LZCNT] "LZCNT.";
    Prefetchw PREFETCHW "prefetchw" ExtendedEcx 8 [PREFETCHW] "PREFETCHW.";
    Syscall SYSCALL "syscall" ExtendedEdx 11 [SYSCALL] "SYSCALL.";
    Nx NX "nx" ExtendedEdx 20 [] "Pages that are not executable.";
    Rdtscp RDTSCP "rdtscp" ExtendedEdx 27 [RDTSCP] "RDTSCP.";
    Lm LM "lm" ExtendedEdx 29 [X64] "64-bit code.";
}

/// A set of [`Feature`]s.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Features(pub u64);

impl Features {
    /// Nothing.
    pub const NONE: Features = Features(0);

    /// Everything that is implemented and tested.
    pub const MAX: Features = Features((1 << Feature::ALL.len()) - 1);

    /// The union.
    pub const fn and(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }

    /// The difference.
    pub const fn without(self, other: Features) -> Features {
        Features(self.0 & !other.0)
    }

    /// Whether all of `other` is in the set.
    pub const fn has(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether one feature is in the set.
    pub const fn offers(self, feature: Feature) -> bool {
        self.0 >> feature as u32 & 1 != 0
    }

    /// What needs what: XSAVE is what saves YMM registers, and AVX what has them.
    const NEEDS: [(Features, Features); 2] = [
        (
            Features::XSAVE,
            Features::AVX
                .and(Features::XSAVEOPT)
                .and(Features::XSAVEC)
                .and(Features::XGETBV1),
        ),
        (
            Features::AVX,
            Features::AVX2.and(Features::FMA).and(Features::F16C),
        ),
    ];

    /// Without what needs a feature that is not in the set.
    pub fn consistent(self) -> Features {
        Self::NEEDS.iter().fold(self, |all, &(base, users)| {
            if all.has(base) {
                all
            } else {
                all.without(users)
            }
        })
    }

    /// With the features that those in the set need.
    pub fn complete(self) -> Features {
        Self::NEEDS.iter().rev().fold(self, |all, &(base, users)| {
            if all.0 & users.0 == 0 {
                all
            } else {
                all.and(base)
            }
        })
    }

    /// The features in the set.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL
            .iter()
            .copied()
            .filter(move |&f| self.offers(f))
    }

    /// The bits of a CPUID register.
    pub fn cpuid(self, word: CpuidWord) -> u32 {
        let bits = self.iter().map(Feature::cpuid);
        bits.filter(|&(w, _)| w == word)
            .fold(0, |all, (_, bit)| all | 1 << bit)
    }

    /// Whether a whole system's CPU may know an instruction: some that privileged code alone can
    /// use are the helper's to refuse, which knows what the CPU model offers to the system.
    pub fn allow_in_system(self, insn: &Instruction) -> bool {
        self.allow(insn)
            || matches!(
                insn.mnemonic(),
                Mnemonic::Clac
                    | Mnemonic::Stac
                    | Mnemonic::Invpcid
                    | Mnemonic::Monitor
                    | Mnemonic::Mwait
            )
    }

    /// Whether the CPU knows an instruction.
    pub fn allow(self, insn: &Instruction) -> bool {
        use Mnemonic::*;
        match insn.mnemonic() {
            // Hints that CPUs before them take for NOPs.
            Prefetchnta | Prefetcht0 | Prefetcht1 | Prefetcht2 => return true,
            Lahf | Sahf if insn.code_size() == iced_x86::CodeSize::Code64 => {
                return self.has(Features::LAHF_LM);
            }
            _ => {}
        }
        if names_mmx(insn) && !self.has(Features::MMX) {
            return false;
        }
        insn.cpuid_features().iter().all(|&mark| {
            Feature::of(mark).map_or_else(|| is_always_there(mark), |f| self.offers(f))
        })
    }
}

/// True if an operand is an MMX register, or memory in place of one.
pub(crate) fn names_mmx(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Cvtpi2ps | Mnemonic::Cvtpi2pd)
        || (0..insn.op_count())
            .any(|n| insn.op_kind(n) == iced_x86::OpKind::Register && insn.op_register(n).is_mm())
}

/// Marks of what every CPU here knows, without a CPUID bit of its own: the instructions up to the
/// 486, CPUID, encodings that are NOPs (or another instruction) on CPUs without the feature, and privileged instructions,
/// which the policy for those answers.
const fn is_always_there(mark: CpuidFeature) -> bool {
    use CpuidFeature::*;
    matches!(
        mark,
        INTEL8086
            | INTEL8086_ONLY
            | INTEL186
            | INTEL286
            | INTEL286_ONLY
            | INTEL386
            | INTEL386_ONLY
            | INTEL486
            | CPUID
            | MSR
            | RDPMC
            | SMM
            | WBNOINVD
            | MULTIBYTENOP
            | PAUSE
            | CET_IBT
            | CET_SS
            | CLDEMOTE
            | PREFETCHITI
            | PREFETCHWT1
    )
}

impl Default for Features {
    /// [`Features::MAX`].
    fn default() -> Features {
        Features::MAX
    }
}
