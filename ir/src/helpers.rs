//! The helper table: runtime functions that IR calls, with their declared effects.
//!
//! A helper does what is too large to write in IR (CPUID, bulk string moves, x87, …). Both engines
//! call the same function, so the semantics stay in one place. The functions themselves live in
//! the runtime; this table tells the passes and the engines what each may touch. Before a helper
//! that reads a class of the state the engines make that class current in memory; after one that
//! writes it they forget what they knew. A helper that may fault or exit sees the complete state
//! and reports through the guest state's exit reason, which the engines test after the call.
//!
//! Every helper takes its descriptor (`Inst::aux`, a `u32`) and the listed arguments; integers are
//! passed zero-extended to 64 bits, floats as their bits, v128 through the guest state's helper
//! vector slots.

use crate::types::Type::{self, *};
use std::fmt;

/// What a helper touches: a set of the `Effects` constants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effects(pub u16);

impl Effects {
    /// Touches nothing: the call is as pure as an `add`.
    pub const NONE: Effects = Effects(0);
    /// Reads RAX to R15.
    pub const READ_GPR: Effects = Effects(1 << 0);
    /// Writes some of RAX to R15.
    pub const WRITE_GPR: Effects = Effects(1 << 1);
    /// Reads the arithmetic flags.
    pub const READ_FLAGS: Effects = Effects(1 << 2);
    /// Writes the arithmetic flags.
    pub const WRITE_FLAGS: Effects = Effects(1 << 3);
    /// Reads selectors or bases.
    pub const READ_SEGMENT: Effects = Effects(1 << 4);
    /// Writes selectors or bases.
    pub const WRITE_SEGMENT: Effects = Effects(1 << 5);
    /// Reads DF or the system flags.
    pub const READ_CONTROL: Effects = Effects(1 << 6);
    /// Writes DF or the system flags.
    pub const WRITE_CONTROL: Effects = Effects(1 << 7);
    /// Reads MXCSR or XMM registers.
    pub const READ_SSE: Effects = Effects(1 << 8);
    /// Writes MXCSR or XMM registers.
    pub const WRITE_SSE: Effects = Effects(1 << 9);
    /// Reads or writes state that no IR op names (x87, time): must not be removed or moved. MMX
    /// registers are part of that state.
    pub const OPAQUE: Effects = Effects(1 << 10);
    /// Reads guest memory.
    pub const READ_MEM: Effects = Effects(1 << 11);
    /// Writes guest memory.
    pub const WRITE_MEM: Effects = Effects(1 << 12);
    /// May raise a guest fault or otherwise ask to leave the region.
    pub const MAY_EXIT: Effects = Effects(1 << 13);

    /// The union.
    pub const fn and(self, other: Effects) -> Effects {
        Effects(self.0 | other.0)
    }

    /// Whether any of `other` is in the set.
    pub const fn has(self, other: Effects) -> bool {
        self.0 & other.0 != 0
    }
}

macro_rules! effects {
    ($($e:ident)*) => { Effects(0 $(| Effects::$e.0)*) };
}

macro_rules! helpers {
    ($($variant:ident $name:ident [$($arg:ident)*] $result:ident [$($effect:ident)*] $doc:literal;)*) => {
        /// A runtime function that IR can call.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Helper { $(#[doc = $doc] $variant,)* }

        impl Helper {
            /// Every helper, in declaration order.
            pub const ALL: &'static [Helper] = &[$(Helper::$variant,)*];

            /// The name in the text form, which is also the runtime function's.
            pub const fn name(self) -> &'static str {
                match self { $(Helper::$variant => stringify!($name),)* }
            }

            /// The argument types.
            pub const fn args(self) -> &'static [Type] {
                match self { $(Helper::$variant => &[$($arg),*],)* }
            }

            /// The result type; helpers without a meaningful result give an i64 0.
            pub const fn result(self) -> Type {
                match self { $(Helper::$variant => $result,)* }
            }

            /// The declared effects.
            pub const fn effects(self) -> Effects {
                match self { $(Helper::$variant => effects!($($effect)*),)* }
            }

            /// The helper with that name.
            pub fn from_name(name: &str) -> Option<Helper> {
                $(if name == stringify!($name) { return Some(Helper::$variant); })*
                None
            }

            /// The helper with that number, as `Inst::imm` holds it.
            ///
            /// # Panics
            /// If there is none: the verifier excludes that.
            pub fn from_imm(n: u64) -> Helper {
                Helper::ALL[n as usize]
            }
        }
    };
}

helpers! {
    // Bit manipulation without a host op everywhere. The descriptor is not used.
    Pdep pdep [I64 I64] I64 [] "PDEP: the low bits of a deposited where mask b has ones.";
    Pext pext [I64 I64] I64 [] "PEXT: the bits of a where mask b has ones, packed low.";
    Crc32 crc32 [I64 I64] I64 [] "CRC32 (Castagnoli) of crc a over the low bytes of b; descriptor: their number, 1 to 8.";

    // Wide division: dividend a:b (high:low), divisor c. The quotient must be representable.
    UDivW udivw [I64 I64 I64] I64 [] "Unsigned 128 by 64-bit quotient.";
    SDivW sdivw [I64 I64 I64] I64 [] "Signed 128 by 64-bit quotient.";
    SDivFits sdivfits [I64 I64 I64] I64 [] "1 if c is not 0 and the signed quotient is representable, else 0.";

    // Identification and time.
    Cpuid cpuid [] I64 [READ_GPR WRITE_GPR OPAQUE] "CPUID: leaf EAX, sub-leaf ECX.";
    Rdtsc rdtsc [] I64 [OPAQUE] "The time-stamp counter.";
    TscAux tsc_aux [] I64 [OPAQUE] "IA32_TSC_AUX, for RDTSCP and RDPID.";

    // Strings. The descriptor is a `StringOp`; the argument is the source segment's base. One call
    // does a bounded number of iterations; the result is 1 if the instruction must be run again.
    RepString rep_string [I64] I64 [READ_GPR WRITE_GPR READ_FLAGS WRITE_FLAGS READ_CONTROL READ_SEGMENT READ_MEM WRITE_MEM MAY_EXIT] "REP MOVS, STOS, LODS, CMPS, SCAS.";

    // x87 and the state images. The descriptor of `x87` is an `X87Op`; a is the linear address of
    // a memory operand or, for FCMOVcc, the condition; b is the instruction's RIP; c is the address
    // of the last two bytes of an operand of ten.
    X87 x87 [I64 I64 I64] I64 [OPAQUE READ_MEM WRITE_MEM READ_SEGMENT MAY_EXIT] "An x87 instruction; the result is the flags image of FCOMI and its kin, the status word of FNSTSW AX, else 0.";
    Fxsave fxsave [I64] I64 [READ_SSE OPAQUE WRITE_MEM MAY_EXIT] "FXSAVE to linear address a; descriptor: bit 0 with REX.W, bit 1 in 64-bit code.";
    Fxrstor fxrstor [I64] I64 [WRITE_SSE OPAQUE READ_MEM MAY_EXIT] "FXRSTOR from linear address a; descriptor: bit 0 with REX.W, bit 1 in 64-bit code.";
    Xsave xsave [I64 I64] I64 [READ_SSE OPAQUE READ_MEM WRITE_MEM MAY_EXIT] "XSAVE to linear address a of the components in b; descriptor: a packed `XsaveOp`.";
    Xrstor xrstor [I64 I64] I64 [WRITE_SSE OPAQUE READ_MEM MAY_EXIT] "XRSTOR from linear address a of the components in b; descriptor: a packed `XsaveOp`.";
    Xgetbv xgetbv [I32] I64 [READ_SSE OPAQUE MAY_EXIT] "XGETBV of register a; descriptor: 1 if register 1 exists.";
    Ldmxcsr ldmxcsr [I32] I64 [OPAQUE MAY_EXIT] "LDMXCSR of value a; #GP for reserved bits. If exceptions become unmasked or masked it asks for the dispatcher, to be run again.";
    Stmxcsr stmxcsr [] I32 [OPAQUE] "MXCSR as it is now; while code runs, the guest register holds it as it was when the run began.";

    // Floating point. The descriptor is a packed `SseOp`.
    SseFloat sse_float [V128 V128] V128 [OPAQUE] "A floating-point operation that has no op of its own; sets MXCSR's flags.";
    SseChecked sse_checked [V128 V128] V128 [OPAQUE MAY_EXIT] "The same where exceptions are unmasked: raises #XM.";

    SseDeferred sse_deferred [V128 V128] V128 [OPAQUE] "The same for the lower half of a 256-bit operation: the next `sse_checked` raises #XM for both.";

    // MMX. The registers themselves are guest registers; these keep the rest of the x87 state.
    EnterMmx enter_mmx [] I64 [MAY_EXIT] "What every MMX instruction does to the x87 state: #MF if an exception is pending; else, unless bit 8 of the descriptor is set, TOP 0, every register in use, and ones in sign and exponent of the MMX registers in the descriptor's low eight bits.";
    Emms emms [] I64 [OPAQUE MAY_EXIT] "EMMS: every x87 register is empty.";

    // Vectors.
    VecOp vec_op [V128 V128] V128 [] "A rare vector operation of a and b; descriptor: a packed `VecOp`.";
    Sha256Rnds2 sha256_rnds2 [V128 V128 V128] V128 [] "SHA256RNDS2 of a and b, c being the implicit operand.";
    Fma fma [V128 V128 V128] V128 [OPAQUE] "a * b + c in every lane, rounded once; descriptor: a packed `FmaOp`; sets MXCSR's flags.";
    FmaChecked fma_checked [V128 V128 V128] V128 [OPAQUE MAY_EXIT] "The same where exceptions are unmasked: raises #XM.";
    HalfFloat half_float [V128] V128 [OPAQUE] "Four half-precision numbers to singles, or back; descriptor: a packed `HalfOp`; sets MXCSR's flags.";
    HalfFloatChecked half_float_checked [V128] V128 [OPAQUE MAY_EXIT] "The same where exceptions are unmasked: raises #XM.";
    PermuteDwords permute_dwords [V128 V128 V128] V128 [] "The doublewords of a and, from 4 on, of b whose numbers are in c.";
    MaskMove mask_move [I64] I64 [READ_SSE WRITE_SSE READ_MEM WRITE_MEM MAY_EXIT] "VMASKMOV of memory at linear address a; descriptor: a packed `MaskOp`.";
    Gather gather [I64 I64] I64 [READ_SSE WRITE_SSE READ_MEM MAY_EXIT] "VGATHER with base and displacement a and segment base b; descriptor: a packed `GatherOp`.";
    PcmpStr pcmp_str [V128 V128 I64] I64 [] "PCMPxSTRx of a and b with c their lengths (bits 0 to 7, 8 to 15); descriptor: the immediate, and bit 8 for implicit lengths. The result has the mask in bits 0 to 15, the index in bits 16 to 31 and the flags in the upper half.";

    // Segments in user mode.
    LoadSegment load_segment [I16] I64 [READ_SEGMENT WRITE_SEGMENT MAY_EXIT] "Loads selector a; descriptor: the segment's number in encoding order (ES, CS, SS, DS, FS, GS).";
    SegmentInfo segment_info [I16] I64 [OPAQUE] "What LAR, LSL, VERR, VERW (descriptor 0 to 3) find for selector a: bit 32 is set if it is valid, the low half is the value.";

    // System mode. `c` of `system` is the next instruction's PC.
    System system [I64 I64 I64] I64 [READ_GPR WRITE_GPR READ_FLAGS WRITE_FLAGS READ_SEGMENT WRITE_SEGMENT READ_CONTROL WRITE_CONTROL READ_SSE WRITE_SSE OPAQUE READ_MEM WRITE_MEM MAY_EXIT] "A system instruction; descriptor: a packed `SystemOp`.";
    SegmentCheck segment_check [I64] I64 [READ_SEGMENT MAY_EXIT] "Raises #GP, or #SS for SS, unless an access at offset a lies in the segment and the segment allows it, or unless CS reaches as far as the target a of a near transfer; descriptor: a packed `SegmentAccess`.";

    // Flags and leaving, as callouts.
    PushfImage pushf_image [] I64 [READ_FLAGS READ_CONTROL] "RFLAGS as PUSHF stores it.";
    Popf popf [I64] I64 [WRITE_FLAGS READ_CONTROL WRITE_CONTROL OPAQUE] "POPF of image a at CPL 3; descriptor: the operand size in bytes.";
    LeaveAt leave_at [I64] I64 [OPAQUE] "Makes RIP a and asks for the dispatcher; `exit_resume` must follow.";
    RaiseError raise_error [I64] I64 [MAY_EXIT] "Raises the exception that the descriptor names, with error code a; `exit_resume` must follow.";
}

impl Helper {
    /// True for the helpers that do floating-point arithmetic.
    pub const fn is_float(self) -> bool {
        use Helper::*;
        self.has_host_form()
            || matches!(
                self,
                SseChecked | SseDeferred | FmaChecked | HalfFloat | HalfFloatChecked
            )
    }

    /// True for those in whose place compiled code has an instruction of the host, if there is one.
    pub const fn has_host_form(self) -> bool {
        matches!(self, Helper::SseFloat | Helper::Fma | Helper::X87)
    }
}

impl fmt::Display for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The descriptor of [`Helper::RepString`], packed into a `u32`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StringOp {
    /// Which instruction.
    pub kind: StringKind,
    /// Element size: 1, 2, 4 or 8 bytes.
    pub size: u32,
    /// Address size: 2, 4 or 8 bytes.
    pub addr: u32,
    /// REPNE rather than REP/REPE.
    pub repne: bool,
    /// 64-bit code: ES has base 0, and linear addresses do not wrap at 2^32.
    pub long: bool,
    /// The source's segment, in encoding order.
    pub segment: u32,
    /// Accesses must be checked against the segments first.
    pub checked: bool,
    /// Unaligned accesses raise #AC.
    pub aligned: bool,
}

/// A string instruction that takes a REP prefix (without INS and OUTS).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum StringKind {
    /// MOVS.
    Movs,
    /// STOS.
    Stos,
    /// LODS.
    Lods,
    /// CMPS.
    Cmps,
    /// SCAS.
    Scas,
}

impl StringOp {
    /// Packs into the descriptor.
    pub const fn pack(self) -> u32 {
        self.kind as u32
            | self.size << 8
            | self.addr << 16
            | (self.repne as u32) << 24
            | (self.long as u32) << 25
            | (self.segment & 7) << 26
            | (self.checked as u32) << 29
            | (self.aligned as u32) << 30
    }

    /// Unpacks a descriptor; unknown kinds read as SCAS.
    pub const fn unpack(word: u32) -> StringOp {
        let kind = match word & 0xff {
            0 => StringKind::Movs,
            1 => StringKind::Stos,
            2 => StringKind::Lods,
            3 => StringKind::Cmps,
            _ => StringKind::Scas,
        };
        StringOp {
            kind,
            size: word >> 8 & 0xff,
            addr: word >> 16 & 0xff,
            repne: word >> 24 & 1 != 0,
            long: word >> 25 & 1 != 0,
            segment: word >> 26 & 7,
            checked: word >> 29 & 1 != 0,
            aligned: word >> 30 & 1 != 0,
        }
    }
}

/// The descriptor of [`Helper::X87`], packed into a `u32`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct X87Op {
    /// The low three bits of the opcode byte, D8 to DF.
    pub escape: u8,
    /// The ModRM byte.
    pub modrm: u8,
    /// The segment of a memory operand, in encoding order.
    pub segment: u8,
    /// That segment's base is part of the operand's linear address.
    pub based: bool,
    /// 16-bit operand size: the short environment images.
    pub short: bool,
    /// WAIT rather than an escape opcode.
    pub wait: bool,
}

impl X87Op {
    /// Packs into the descriptor.
    pub const fn pack(self) -> u32 {
        self.modrm as u32
            | (self.escape as u32) << 8
            | (self.short as u32) << 11
            | (self.wait as u32) << 12
            | (self.segment as u32) << 13
            | (self.based as u32) << 16
    }

    /// Unpacks a descriptor.
    pub const fn unpack(word: u32) -> X87Op {
        X87Op {
            escape: (word >> 8) as u8 & 7,
            modrm: word as u8,
            short: word >> 11 & 1 != 0,
            wait: word >> 12 & 1 != 0,
            segment: (word >> 13) as u8 & 7,
            based: word >> 16 & 1 != 0,
        }
    }

    /// True if the operand is in memory.
    pub const fn is_memory(self) -> bool {
        self.modrm < 0xc0
    }
}

/// The descriptor of [`Helper::SegmentCheck`], packed into a `u32`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentAccess {
    /// The segment in encoding order (ES, CS, SS, DS, FS, GS).
    pub segment: u8,
    /// The number of bytes, 1 to 512.
    pub size: u16,
    /// It is a write.
    pub write: bool,
    /// It is a transfer of control to that offset in CS: only the limit counts.
    pub fetch: bool,
}

impl SegmentAccess {
    /// Packs into the descriptor.
    pub const fn pack(self) -> u32 {
        self.segment as u32
            | (self.write as u32) << 8
            | (self.fetch as u32) << 9
            | (self.size as u32) << 16
    }

    /// Unpacks a descriptor; segments above 5 read as GS.
    pub const fn unpack(word: u32) -> SegmentAccess {
        let segment = word as u8;
        SegmentAccess {
            segment: if segment > 5 { 5 } else { segment },
            size: (word >> 16) as u16,
            write: word >> 8 & 1 != 0,
            fetch: word >> 9 & 1 != 0,
        }
    }
}

impl Effects {
    /// True if a call whose result is not used can be dropped: nothing is written, nothing exits.
    pub const fn is_removable(self) -> bool {
        const READS: Effects = effects!(READ_GPR READ_FLAGS READ_SEGMENT READ_CONTROL READ_SSE);
        self.0 & !READS.0 == 0
    }
}
