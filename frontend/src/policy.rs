//! How sensitive instructions are emulated: the seam that experiments switch.
//!
//! The lifter asks [`SensitivePolicy`] for every sensitive instruction it meets, by kind and by
//! site. The answer never changes what the guest sees, only how the translator gets there.

use std::collections::BTreeMap;
use std::fmt;

/// How one sensitive instruction is emulated.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Policy {
    /// Leave the region; the runtime emulates the instruction alone and goes on behind it, as a
    /// trap-and-emulate monitor would.
    Trap,
    /// Call a helper from the translation.
    #[default]
    Callout,
    /// Emulate inside the translation where that can be expressed in IR; a callout elsewhere.
    Inline,
}

impl Policy {
    /// The policy with that name: `trap`, `callout` or `inline`.
    pub fn from_name(name: &str) -> Option<Policy> {
        match name {
            "trap" => Some(Policy::Trap),
            "callout" => Some(Policy::Callout),
            "inline" => Some(Policy::Inline),
            _ => None,
        }
    }
}

macro_rules! sensitive {
    ($($variant:ident $name:literal $doc:literal;)*) => {
        /// A sensitive instruction: it reads or changes machine state that a monitor must keep.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Sensitive { $(#[doc = $doc] $variant,)* }

        impl Sensitive {
            /// Every one, in declaration order.
            pub const ALL: &'static [Sensitive] = &[$(Sensitive::$variant,)*];

            /// The mnemonic, as switches and reports name it.
            pub const fn name(self) -> &'static str {
                match self { $(Sensitive::$variant => $name,)* }
            }

            /// The one with that name.
            pub fn from_name(name: &str) -> Option<Sensitive> {
                match name { $($name => Some(Sensitive::$variant),)* _ => None }
            }
        }
    };
}

sensitive! {
    Cpuid "cpuid" "CPUID.";
    Rdtsc "rdtsc" "RDTSC.";
    Rdtscp "rdtscp" "RDTSCP.";
    Pushf "pushf" "PUSHF, PUSHFD, PUSHFQ.";
    Popf "popf" "POPF, POPFD, POPFQ.";
    Sgdt "sgdt" "SGDT.";
    Sidt "sidt" "SIDT.";
    Sldt "sldt" "SLDT.";
    Str "str" "STR.";
    Smsw "smsw" "SMSW.";
    Lar "lar" "LAR.";
    Lsl "lsl" "LSL.";
    Verr "verr" "VERR.";
    Verw "verw" "VERW.";
    LoadSeg "load_seg" "MOV, POP, LDS and the like into a segment register.";
    StoreSeg "store_seg" "MOV and PUSH from a segment register.";
    Int "int" "INT n, INT3, INTO.";
    Io "io" "IN, OUT, INS, OUTS.";
    Cli "cli" "CLI.";
    Sti "sti" "STI.";
    Hlt "hlt" "HLT.";
    MovCr "mov_cr" "MOV to and from control registers.";
    MovDr "mov_dr" "MOV to and from debug registers.";
    Clts "clts" "CLTS.";
    Lmsw "lmsw" "LMSW.";
    Lgdt "lgdt" "LGDT.";
    Lidt "lidt" "LIDT.";
    Lldt "lldt" "LLDT.";
    Ltr "ltr" "LTR.";
    Far "far" "Far JMP, CALL and RET.";
    Iret "iret" "IRET, IRETD, IRETQ.";
    Syscall "syscall" "SYSCALL, SYSRET, SYSENTER, SYSEXIT.";
    Rdmsr "rdmsr" "RDMSR.";
    Wrmsr "wrmsr" "WRMSR.";
    Rdpmc "rdpmc" "RDPMC.";
    Xsetbv "xsetbv" "XSETBV.";
    Swapgs "swapgs" "SWAPGS.";
    Clac "clac" "CLAC, STAC.";
    Monitor "monitor" "MONITOR, MWAIT.";
    Invlpg "invlpg" "INVLPG.";
    Invpcid "invpcid" "INVPCID.";
    Invd "invd" "INVD, WBINVD.";
    Rsm "rsm" "RSM.";
}

impl fmt::Display for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The policy table: a default, one by instruction, one by site.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SensitivePolicy {
    /// For instructions without an entry of their own.
    pub default: Policy,
    /// By instruction.
    pub by_kind: BTreeMap<Sensitive, Policy>,
    /// By instruction address (RIP); stronger than by instruction.
    pub by_site: BTreeMap<u64, Policy>,
}

impl SensitivePolicy {
    /// The policy for the instruction `kind` at `pc`.
    pub fn of(&self, kind: Sensitive, pc: u64) -> Policy {
        let by_kind = || self.by_kind.get(&kind).copied();
        self.by_site
            .get(&pc)
            .copied()
            .or_else(by_kind)
            .unwrap_or(self.default)
    }
}
