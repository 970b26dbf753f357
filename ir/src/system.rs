//! System instructions that a helper carries out: the descriptor of [`crate::Helper::System`].
//!
//! The lifter reads the operands and writes the results; the helper does what only the runtime can.
//! Each row says what `a` and `b` are. `next` is the PC of the next instruction. The helper either
//! raises a fault, with nothing changed, or completes the instruction. A *transfer* sets RIP itself
//! and is followed by `exit_resume`; so is whatever may change the mode, the mapping of memory or
//! what interrupts may come (the helper then makes RIP `next`). The others only give their result.

macro_rules! system_ops {
    ($($variant:ident $name:literal $leaves:ident $doc:literal;)*) => {
        /// A system instruction, or a part of one.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum SystemKind { $(#[doc = $doc] $variant,)* }

        impl SystemKind {
            /// Every one, in declaration order.
            pub const ALL: &'static [SystemKind] = &[$(SystemKind::$variant,)*];

            /// The name, for logs and counters.
            pub const fn name(self) -> &'static str {
                match self { $(SystemKind::$variant => $name,)* }
            }

            /// Whether the helper sets RIP, so that `exit_resume` must follow.
            pub const fn leaves(self) -> bool {
                match self { $(SystemKind::$variant => system_ops!(@$leaves),)* }
            }
        }
    };
    (@leaves) => { true };
    (@stays) => { false };
}

system_ops! {
    // Control, debug and model-specific registers.
    ReadCr "mov_from_cr" stays "MOV from CRn: the value.";
    WriteCr "mov_to_cr" leaves "MOV to CRn of a.";
    ReadDr "mov_from_dr" stays "MOV from DRn: the value; #UD or #DB by CR4.DE and DR7.GD.";
    WriteDr "mov_to_dr" leaves "MOV to DRn of a.";
    Clts "clts" leaves "CLTS.";
    Lmsw "lmsw" leaves "LMSW of a (16 bits).";
    Rdmsr "rdmsr" stays "RDMSR of ECX into EDX:EAX.";
    Wrmsr "wrmsr" leaves "WRMSR of EDX:EAX to ECX.";
    Rdtsc "rdtsc" stays "RDTSC: the counter; #GP by CR4.TSD.";
    Rdtscp "rdtscp" stays "RDTSCP, RDPID: IA32_TSC_AUX; n = 1: with the check of CR4.TSD.";
    Rdpmc "rdpmc" stays "RDPMC of ECX: the counter.";
    Xsetbv "xsetbv" leaves "XSETBV of EDX:EAX to register ECX.";

    // Descriptor-table registers. UMIP is the helper's to check.
    GdtBase "sgdt_base" stays "SGDT: the base.";
    GdtLimit "sgdt_limit" stays "SGDT: the limit.";
    IdtBase "sidt_base" stays "SIDT: the base.";
    IdtLimit "sidt_limit" stays "SIDT: the limit.";
    Sldt "sldt" stays "SLDT: the selector.";
    Str "str" stays "STR: the selector.";
    Smsw "smsw" stays "SMSW: CR0.";
    Lgdt "lgdt" leaves "LGDT of limit a and base b.";
    Lidt "lidt" leaves "LIDT of limit a and base b.";
    Lldt "lldt" leaves "LLDT of selector a.";
    Ltr "ltr" leaves "LTR of selector a.";

    // Segments.
    LoadSegment "load_seg" leaves "Loads segment register n (encoding order) with selector a.";
    LoadFar "load_far" leaves "LDS and its kin: segment register n := selector a, general register m := b, at the operand size.";
    PopSegment "pop_seg" leaves "POP into segment register n: selector a, and RSP := b, all of it.";
    SegmentInfo "segment_info" stays "LAR, LSL, VERR, VERW (n = 0 to 3) of selector a: bit 32 if valid, the low half the value.";
    Swapgs "swapgs" stays "SWAPGS.";

    // Transfers.
    JmpFar "jmp_far" leaves "JMP to a:b (selector, offset).";
    CallFar "call_far" leaves "CALL to a:b at the operand size.";
    RetFar "ret_far" leaves "RETF at the operand size, releasing a bytes.";
    Iret "iret" leaves "IRET at the operand size.";
    Int "int" leaves "INT n, INT3, INTO (taken) of vector n; m = 1: INT3 or INTO; m = 2: INT1.";
    Syscall "syscall" leaves "SYSCALL.";
    Sysret "sysret" leaves "SYSRET at the operand size.";
    Sysenter "sysenter" leaves "SYSENTER.";
    Sysexit "sysexit" leaves "SYSEXIT at the operand size.";
    Rsm "rsm" leaves "RSM.";

    // Flags and interrupts.
    Cli "cli" stays "CLI.";
    Sti "sti" leaves "STI.";
    Pushf "pushf" stays "RFLAGS as PUSHF stores it at the operand size; #GP in virtual-8086 mode.";
    Popf "popf" leaves "POPF of image a at the operand size, and RSP := b at the stack size.";
    Clac "clac" leaves "CLAC (n = 0), STAC (n = 1).";
    Monitor "monitor" leaves "MONITOR of linear address a.";
    Hlt "hlt" leaves "HLT (n = 0), MWAIT (n = 1).";

    // Memory management and caches.
    Invlpg "invlpg" leaves "INVLPG of linear address a.";
    Invpcid "invpcid" leaves "INVPCID of type a with its descriptor at linear address b.";
    Wbinvd "wbinvd" leaves "INVD, WBINVD, WBNOINVD.";

    // Ports. The helper checks IOPL and the I/O bitmap.
    In "in" leaves "IN of port a at the operand size: into AL, AX or EAX.";
    Out "out" leaves "OUT of b to port a at the operand size.";
    PortString "port_string" leaves "INS (n = 0) or OUTS (n = 1) at the operand size; m: bits 0 to 3 the address size in bytes, bit 4 REP, bits 5 to 7 the segment of OUTS. a is the PC of the instruction itself: RIP while REP has more to do.";
}

impl SystemKind {
    /// Whether it may set RFLAGS.IF or TF, so that something that waits may come after it.
    pub const fn opens_window(self) -> bool {
        use SystemKind::*;
        matches!(
            self,
            Iret | Syscall | Sysret | Sysenter | Sysexit | Sti | Popf
        )
    }
}

/// The descriptor of [`crate::Helper::System`], packed into a `u32`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SystemOp {
    /// Which instruction.
    pub kind: SystemKind,
    /// The operand size in bytes: 1, 2, 4 or 8; 0 where there is none.
    pub size: u8,
    /// The number that the row names.
    pub n: u8,
    /// The other number that the row names.
    pub m: u8,
}

impl SystemOp {
    /// One without operand size and numbers.
    pub const fn new(kind: SystemKind) -> SystemOp {
        SystemOp {
            kind,
            size: 0,
            n: 0,
            m: 0,
        }
    }

    /// Packs into the descriptor.
    pub const fn pack(self) -> u32 {
        self.kind as u32 | (self.size as u32) << 8 | (self.n as u32) << 16 | (self.m as u32) << 24
    }

    /// Unpacks a descriptor; `None` for numbers that name no instruction.
    pub fn unpack(word: u32) -> Option<SystemOp> {
        let [kind, size, n, m] = word.to_le_bytes();
        let kind = *SystemKind::ALL.get(usize::from(kind))?;
        Some(SystemOp { kind, size, n, m })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_round_trip() {
        for &kind in SystemKind::ALL {
            let op = SystemOp {
                kind,
                size: 4,
                n: 5,
                m: 0xb4,
            };
            assert_eq!(SystemOp::unpack(op.pack()), Some(op));
        }
        assert_eq!(SystemOp::unpack(0xff), None);
    }
}
