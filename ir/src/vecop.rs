//! The descriptor of [`crate::Helper::VecOp`]: vector operations too rare for ops of their own.

macro_rules! vec_ops {
    ($($variant:ident $doc:literal;)*) => {
        /// A vector operation of `a` and `b`.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum VecOp { $(#[doc = $doc] $variant,)* }

        impl VecOp {
            /// Every operation; `ALL[op as usize] == op`.
            pub const ALL: &'static [VecOp] = &[$(VecOp::$variant,)*];
        }
    };
}

vec_ops! {
    Pshufb "PSHUFB: bytes of a chosen by b.";
    Phaddw "PHADDW.";
    Phaddd "PHADDD.";
    Phaddsw "PHADDSW.";
    Phsubw "PHSUBW.";
    Phsubd "PHSUBD.";
    Phsubsw "PHSUBSW.";
    Pmaddubsw "PMADDUBSW: unsigned bytes of a, signed bytes of b.";
    Pmulhrsw "PMULHRSW.";
    Psignb "PSIGNB.";
    Psignw "PSIGNW.";
    Psignd "PSIGND.";
    Palignr "PALIGNR: a:b shifted right by the immediate, in bytes.";
    Mpsadbw "MPSADBW with that immediate.";
    Phminposuw "PHMINPOSUW of b.";
    Pmuldq "PMULDQ.";
    SignExtend "Lanes of b extended with their sign; immediate: their bytes, and those of the results shifted left by 4.";
    Aesenc "AESENC: state a, round key b.";
    Aesenclast "AESENCLAST.";
    Aesdec "AESDEC.";
    Aesdeclast "AESDECLAST.";
    Aesimc "AESIMC of b.";
    Aeskeygenassist "AESKEYGENASSIST of b.";
    Pclmulqdq "PCLMULQDQ.";
    Sha1rnds4 "SHA1RNDS4.";
    Sha1nexte "SHA1NEXTE.";
    Sha1msg1 "SHA1MSG1.";
    Sha1msg2 "SHA1MSG2.";
    Sha256msg1 "SHA256MSG1.";
    Sha256msg2 "SHA256MSG2.";
    ExpandMask "Bits of b to all ones in lanes; immediate: the lanes' bytes.";
}

impl VecOp {
    /// The descriptor: immediate, and whether the operands are 8 bytes (MMX) rather than 16.
    pub const fn pack(self, imm: u8, short: bool) -> u32 {
        self as u32 | (imm as u32) << 8 | (short as u32) << 16
    }

    /// Operation, immediate and shortness of a descriptor; `None` for what `pack` never gives.
    pub fn unpack(word: u32) -> Option<(VecOp, u8, bool)> {
        let op = *VecOp::ALL.get(word as usize & 0xff)?;
        Some((op, (word >> 8) as u8, word >> 16 & 1 != 0))
    }
}
