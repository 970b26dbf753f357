//! What a CPU model offers to the system: the features that change how the system registers, paging
//! and the privileged instructions work. Those that user code can use are in the frontend's table,
//! since the lifter asks for them; these are only asked for by the helpers, and CPUID shows them
//! only in a whole system.

/// A register of a CPUID leaf that shows system features.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SystemWord {
    /// Leaf 1, ECX.
    Leaf1Ecx,
    /// Leaf 1, EDX.
    Leaf1Edx,
    /// Leaf 7, sub-leaf 0, EBX.
    Leaf7Ebx,
    /// Leaf 7, sub-leaf 0, ECX.
    Leaf7Ecx,
    /// Leaf 7, sub-leaf 0, EDX.
    Leaf7Edx,
    /// Leaf 7, sub-leaf 2, EDX.
    Leaf7Sub2Edx,
    /// Leaf 80000001, EDX.
    ExtendedEdx,
}

macro_rules! system_features {
    ($($variant:ident $konst:ident $name:literal $word:ident $bit:literal $doc:literal;)*) => {
        /// A feature that only a whole system sees.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum SystemFeature { $(#[doc = $doc] $variant,)* }

        impl SystemFeature {
            /// Every feature, in declaration order.
            pub const ALL: &'static [SystemFeature] = &[$(SystemFeature::$variant,)*];

            /// The name, as it follows `+` or `-` after a CPU model.
            pub const fn name(self) -> &'static str {
                match self { $(SystemFeature::$variant => $name,)* }
            }

            /// Where CPUID shows it: the register and the bit.
            pub const fn cpuid(self) -> (SystemWord, u32) {
                match self { $(SystemFeature::$variant => (SystemWord::$word, $bit),)* }
            }
        }

        impl SystemFeatures {
            $(
                #[doc = $doc]
                pub const $konst: SystemFeatures =
                    SystemFeatures(1 << SystemFeature::$variant as u32);
            )*
        }
    };
}

system_features! {
    Vme VME "vme" Leaf1Edx 1 "Virtual-8086 mode extensions.";
    De DE "de" Leaf1Edx 2 "Debugging extensions: I/O breakpoints, and no DR4 and DR5.";
    Pse PSE "pse" Leaf1Edx 3 "4 MiB pages.";
    Msr MSR "msr" Leaf1Edx 5 "RDMSR, WRMSR.";
    Pae PAE "pae" Leaf1Edx 6 "Physical address extension.";
    Mce MCE "mce" Leaf1Edx 7 "Machine-check exception.";
    Mtrr MTRR "mtrr" Leaf1Edx 12 "Memory-type range registers.";
    Pge PGE "pge" Leaf1Edx 13 "Global pages.";
    Mca MCA "mca" Leaf1Edx 14 "Machine-check banks.";
    Pat PAT "pat" Leaf1Edx 16 "Page attribute table.";
    Pse36 PSE36 "pse36" Leaf1Edx 17 "4 MiB pages above 4 GiB.";
    Monitor MONITOR "monitor" Leaf1Ecx 3 "MONITOR, MWAIT.";
    Pcid PCID "pcid" Leaf1Ecx 17 "Process-context identifiers.";
    TscDeadline TSC_DEADLINE "tsc_deadline" Leaf1Ecx 24 "IA32_TSC_DEADLINE, where there is a local APIC.";
    TscAdjust TSC_ADJUST "tsc_adjust" Leaf7Ebx 1 "IA32_TSC_ADJUST.";
    Smep SMEP "smep" Leaf7Ebx 7 "Supervisor-mode execution prevention.";
    Invpcid INVPCID "invpcid" Leaf7Ebx 10 "INVPCID.";
    Smap SMAP "smap" Leaf7Ebx 20 "Supervisor-mode access prevention.";
    Umip UMIP "umip" Leaf7Ecx 2 "User-mode instruction prevention.";
    SpecCtrl SPEC_CTRL "spec_ctrl" Leaf7Edx 26 "IA32_SPEC_CTRL, IA32_PRED_CMD.";
    ArchCapabilities ARCH_CAPABILITIES "arch_capabilities" Leaf7Edx 29 "IA32_ARCH_CAPABILITIES.";
    BhiCtrl BHI_CTRL "bhi_ctrl" Leaf7Sub2Edx 4 "IA32_SPEC_CTRL.BHI_DIS_S.";
    Pdpe1gb PDPE1GB "pdpe1gb" ExtendedEdx 26 "1 GiB pages.";
}

/// A set of [`SystemFeature`]s.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SystemFeatures(pub u32);

impl SystemFeatures {
    /// Nothing.
    pub const NONE: SystemFeatures = SystemFeatures(0);

    /// Everything that is implemented.
    pub const MAX: SystemFeatures = SystemFeatures((1 << SystemFeature::ALL.len()) - 1);

    /// The union.
    pub const fn and(self, other: SystemFeatures) -> SystemFeatures {
        SystemFeatures(self.0 | other.0)
    }

    /// The difference.
    pub const fn without(self, other: SystemFeatures) -> SystemFeatures {
        SystemFeatures(self.0 & !other.0)
    }

    /// Whether all of `other` is in the set.
    pub const fn has(self, other: SystemFeatures) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of a CPUID register.
    pub fn cpuid(self, word: SystemWord) -> u32 {
        let offered = SystemFeature::ALL
            .iter()
            .filter(|&&f| self.0 >> f as u32 & 1 != 0);
        offered
            .map(|f| f.cpuid())
            .filter(|&(w, _)| w == word)
            .fold(0, |all, (_, bit)| all | 1 << bit)
    }
}
