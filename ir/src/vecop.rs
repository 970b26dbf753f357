//! The descriptors of the vector helpers: [`crate::Helper::VecOp`], for operations too rare for ops
//! of their own, masked moves, gathers and XSAVE.

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
    Vpermilps "VPERMILPS: doublewords of a that b chooses.";
    Vpermilpd "VPERMILPD: quadwords of a that b chooses.";
    Vpsllvd "VPSLLVD: lanes of a shifted by those of b.";
    Vpsllvq "VPSLLVQ.";
    Vpsrlvd "VPSRLVD.";
    Vpsrlvq "VPSRLVQ.";
    Vpsravd "VPSRAVD.";
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

/// The descriptor of [`crate::Helper::MaskMove`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MaskOp {
    /// The register that is loaded or stored.
    pub data: u8,
    /// The register whose lanes' signs choose.
    pub mask: u8,
    /// Elements of 8 rather than 4 bytes.
    pub quads: bool,
    /// 256 rather than 128 bits.
    pub wide: bool,
    /// To memory.
    pub store: bool,
}

impl MaskOp {
    /// Packs into the descriptor.
    pub const fn pack(self) -> u32 {
        self.data as u32 & 15
            | (self.mask as u32 & 15) << 4
            | (self.quads as u32) << 8
            | (self.wide as u32) << 9
            | (self.store as u32) << 10
    }

    /// Unpacks a descriptor.
    pub const fn unpack(word: u32) -> MaskOp {
        MaskOp {
            data: word as u8 & 15,
            mask: (word >> 4) as u8 & 15,
            quads: word >> 8 & 1 != 0,
            wide: word >> 9 & 1 != 0,
            store: word >> 10 & 1 != 0,
        }
    }
}

/// The descriptor of [`crate::Helper::Gather`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GatherOp {
    /// The destination.
    pub to: u8,
    /// The register of indices.
    pub index: u8,
    /// The register whose lanes' signs choose.
    pub mask: u8,
    /// Indices of 8 rather than 4 bytes.
    pub quad_index: bool,
    /// Elements of 8 rather than 4 bytes.
    pub quads: bool,
    /// The number of elements, at most 8.
    pub count: u8,
    /// How far an index is shifted left.
    pub scale: u8,
    /// Effective addresses have 32 bits.
    pub short: bool,
    /// Linear addresses have 64 bits.
    pub long: bool,
}

impl GatherOp {
    /// Packs into the descriptor.
    pub const fn pack(self) -> u32 {
        self.to as u32 & 15
            | (self.index as u32 & 15) << 4
            | (self.mask as u32 & 15) << 8
            | (self.quad_index as u32) << 12
            | (self.quads as u32) << 13
            | (self.short as u32) << 14
            | (self.long as u32) << 15
            | (self.count as u32 & 15) << 16
            | (self.scale as u32 & 3) << 20
    }

    /// Unpacks a descriptor.
    pub const fn unpack(word: u32) -> GatherOp {
        GatherOp {
            to: word as u8 & 15,
            index: (word >> 4) as u8 & 15,
            mask: (word >> 8) as u8 & 15,
            quad_index: word >> 12 & 1 != 0,
            quads: word >> 13 & 1 != 0,
            short: word >> 14 & 1 != 0,
            long: word >> 15 & 1 != 0,
            count: (word >> 16) as u8 & 15,
            scale: (word >> 20) as u8 & 3,
        }
    }
}

/// The descriptor of [`crate::Helper::Xsave`] and [`crate::Helper::Xrstor`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct XsaveOp {
    /// The form with REX.W.
    pub rex_w: bool,
    /// 64-bit code: sixteen vector registers.
    pub long: bool,
    /// XSAVEOPT.
    pub optimized: bool,
    /// XSAVEC.
    pub compacted: bool,
    /// The CPU knows compacted images.
    pub offers_compaction: bool,
}

impl XsaveOp {
    /// Packs into the descriptor.
    pub const fn pack(self) -> u32 {
        self.rex_w as u32
            | (self.long as u32) << 1
            | (self.optimized as u32) << 2
            | (self.compacted as u32) << 3
            | (self.offers_compaction as u32) << 4
    }

    /// Unpacks a descriptor.
    pub const fn unpack(word: u32) -> XsaveOp {
        XsaveOp {
            rex_w: word & 1 != 0,
            long: word >> 1 & 1 != 0,
            optimized: word >> 2 & 1 != 0,
            compacted: word >> 3 & 1 != 0,
            offers_compaction: word >> 4 & 1 != 0,
        }
    }
}

/// The descriptor of [`crate::Helper::Fma`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FmaOp {
    /// Doubles rather than singles.
    pub double: bool,
    /// The product is negated.
    pub negate: bool,
    /// Even lanes subtract.
    pub even: bool,
    /// Odd lanes subtract.
    pub odd: bool,
    /// The lower half of a 256-bit operation, whose exceptions the upper half reports.
    pub deferred: bool,
}

impl FmaOp {
    /// Packs into the descriptor.
    pub const fn pack(self) -> u32 {
        self.double as u32
            | (self.negate as u32) << 1
            | (self.even as u32) << 2
            | (self.odd as u32) << 3
            | (self.deferred as u32) << 4
    }

    /// Unpacks a descriptor.
    pub const fn unpack(word: u32) -> FmaOp {
        FmaOp {
            double: word & 1 != 0,
            negate: word >> 1 & 1 != 0,
            even: word >> 2 & 1 != 0,
            odd: word >> 3 & 1 != 0,
            deferred: word >> 4 & 1 != 0,
        }
    }
}

/// The descriptor of [`crate::Helper::HalfFloat`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HalfOp {
    /// To half precision.
    pub to_half: bool,
    /// The low three bits of VCVTPS2PH's immediate.
    pub rounding: u8,
    /// As in [`FmaOp`].
    pub deferred: bool,
}

impl HalfOp {
    /// Packs into the descriptor.
    pub const fn pack(self) -> u32 {
        self.to_half as u32 | (self.deferred as u32) << 1 | (self.rounding as u32 & 7) << 4
    }

    /// Unpacks a descriptor.
    pub const fn unpack(word: u32) -> HalfOp {
        HalfOp {
            to_half: word & 1 != 0,
            rounding: (word >> 4) as u8 & 7,
            deferred: word >> 1 & 1 != 0,
        }
    }
}
