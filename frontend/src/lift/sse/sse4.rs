//! SSSE3, SSE4.1 and SSE4.2, AES-NI, PCLMULQDQ and SHA, and the MMX forms of SSSE3.

use super::{Lift, call};
use iced_x86::{Mnemonic, OpKind, Register};
use metaphrase_ir::Shape::{self, I8x16, I16x8, I32x4, I64x2};
use metaphrase_ir::{FlagKind, Helper, IntCc, Op, SseOp, Type, Value, VecOp, flags};

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    if let Some(op) = vec_op(mnemonic) {
        let imm = immediate(cx);
        let b = if is_sha(op) {
            sha_source(cx)
        } else {
            cx.xmm_m128(1)
        };
        let a = cx.xmm(0);
        let r = if op == VecOp::Palignr {
            let mask: super::shuffle::Bytes =
                std::array::from_fn(|i| match i as u32 + u32::from(imm) {
                    from @ 0..32 => from as u8,
                    _ => 0x80,
                });
            cx.ir.vshuffle(b, a, u128::from_le_bytes(mask))
        } else {
            cx.ir.call(Helper::VecOp, op.pack(imm, false), &[a, b])
        };
        cx.set_xmm(0, r);
        return true;
    }
    match mnemonic {
        Pabsb | Pabsw | Pabsd => {
            let v = cx.xmm_m128(1);
            let r = absolute(cx, mnemonic, v);
            cx.set_xmm(0, r);
        }
        Pblendw => blend(cx, 2),
        Blendps => blend(cx, 4),
        Blendpd => blend(cx, 8),
        Pblendvb => blend_by_sign(cx, I8x16),
        Blendvps => blend_by_sign(cx, I32x4),
        Blendvpd => blend_by_sign(cx, I64x2),
        Roundps => call(cx, SseOp::Roundps, cx.imm8(2)),
        Roundpd => call(cx, SseOp::Roundpd, cx.imm8(2)),
        Roundss => call(cx, SseOp::Roundss, cx.imm8(2)),
        Roundsd => call(cx, SseOp::Roundsd, cx.imm8(2)),
        Dpps => call(cx, SseOp::Dpps, cx.imm8(2)),
        Dppd => call(cx, SseOp::Dppd, cx.imm8(2)),
        Pmovsxbw | Pmovzxbw => extend(cx, 1, 2, mnemonic == Pmovsxbw),
        Pmovsxbd | Pmovzxbd => extend(cx, 1, 4, mnemonic == Pmovsxbd),
        Pmovsxbq | Pmovzxbq => extend(cx, 1, 8, mnemonic == Pmovsxbq),
        Pmovsxwd | Pmovzxwd => extend(cx, 2, 4, mnemonic == Pmovsxwd),
        Pmovsxwq | Pmovzxwq => extend(cx, 2, 8, mnemonic == Pmovsxwq),
        Pmovsxdq | Pmovzxdq => extend(cx, 4, 8, mnemonic == Pmovsxdq),
        Pinsrb => insert(cx, I8x16),
        Pinsrd => insert(cx, I32x4),
        Pinsrq => insert(cx, I64x2),
        Pextrb => extract(cx, I8x16),
        Pextrd | Extractps => extract(cx, I32x4),
        Pextrq => extract(cx, I64x2),
        Insertps => insert_single(cx),
        Ptest => test(cx),
        Sha256rnds2 => {
            let b = sha_source(cx);
            let a = cx.xmm(0);
            let c = cx.ir.getreg(metaphrase_ir::Reg::Xmm0);
            let r = cx.ir.call(Helper::Sha256Rnds2, 0, &[a, b, c]);
            cx.set_xmm(0, r);
        }
        Pcmpestri | Pcmpestri64 | Pcmpestrm | Pcmpestrm64 | Pcmpistri | Pcmpistrm => {
            compare_strings(cx, mnemonic);
        }
        _ => return false,
    }
    true
}

/// The operations that are one call.
pub fn vec_op(mnemonic: Mnemonic) -> Option<VecOp> {
    use Mnemonic::*;
    Some(match mnemonic {
        Pshufb => VecOp::Pshufb,
        Phaddw => VecOp::Phaddw,
        Phaddd => VecOp::Phaddd,
        Phaddsw => VecOp::Phaddsw,
        Phsubw => VecOp::Phsubw,
        Phsubd => VecOp::Phsubd,
        Phsubsw => VecOp::Phsubsw,
        Pmaddubsw => VecOp::Pmaddubsw,
        Pmulhrsw => VecOp::Pmulhrsw,
        Psignb => VecOp::Psignb,
        Psignw => VecOp::Psignw,
        Psignd => VecOp::Psignd,
        Palignr => VecOp::Palignr,
        Mpsadbw => VecOp::Mpsadbw,
        Phminposuw => VecOp::Phminposuw,
        Pmuldq => VecOp::Pmuldq,
        Aesenc => VecOp::Aesenc,
        Aesenclast => VecOp::Aesenclast,
        Aesdec => VecOp::Aesdec,
        Aesdeclast => VecOp::Aesdeclast,
        Aesimc => VecOp::Aesimc,
        Aeskeygenassist => VecOp::Aeskeygenassist,
        Pclmulqdq => VecOp::Pclmulqdq,
        Sha1rnds4 => VecOp::Sha1rnds4,
        Sha1nexte => VecOp::Sha1nexte,
        Sha1msg1 => VecOp::Sha1msg1,
        Sha1msg2 => VecOp::Sha1msg2,
        Sha256msg1 => VecOp::Sha256msg1,
        Sha256msg2 => VecOp::Sha256msg2,
        _ => return None,
    })
}

/// Whether it is an operation of the SHA extensions.
fn is_sha(op: VecOp) -> bool {
    use VecOp::*;
    matches!(
        op,
        Sha1rnds4 | Sha1nexte | Sha1msg1 | Sha1msg2 | Sha256msg1 | Sha256msg2
    )
}

/// The source of a SHA instruction. In memory it needs no alignment: AMD's CPUs ask for none, and
/// that is the vendor that CPUID names (Intel's raise #GP).
fn sha_source(cx: &mut Lift<'_>) -> Value {
    if cx.is_mem(1) {
        cx.load_scalar(Type::V128)
    } else {
        cx.xmm(1)
    }
}

/// The immediate in operand 2, if there is one.
pub fn immediate(cx: &Lift<'_>) -> u8 {
    if cx.insn.op_count() > 2 && cx.insn.op_kind(2) == OpKind::Immediate8 {
        cx.imm8(2) as u8
    } else {
        0
    }
}

/// PABSB, PABSW, PABSD: the greater of the number and its negation.
pub fn absolute(cx: &mut Lift<'_>, mnemonic: Mnemonic, v: Value) -> Value {
    let shape = match mnemonic {
        Mnemonic::Pabsb => I8x16,
        Mnemonic::Pabsw => I16x8,
        _ => I32x4,
    };
    let zero = cx.ir.vconst(0);
    let negative = cx.ir.vsub(shape, zero, v);
    cx.ir.vmaxs(shape, v, negative)
}

/// All ones in the lanes of `size` bytes whose bits are set.
fn lane_mask(bits: u32, size: u32) -> u128 {
    let bytes: [u8; 16] = std::array::from_fn(|i| {
        if bits >> (i as u32 / size) & 1 != 0 {
            0xff
        } else {
            0
        }
    });
    u128::from_le_bytes(bytes)
}

/// PBLENDW, BLENDPS, BLENDPD: lanes of the source where the immediate has ones.
fn blend(cx: &mut Lift<'_>, size: u32) {
    let mask = lane_mask(cx.imm8(2), size);
    let b = cx.xmm_m128(1);
    let a = cx.xmm(0);
    let mask = cx.ir.vconst(mask);
    let r = cx.ir.vselect(mask, b, a);
    cx.set_xmm(0, r);
}

/// PBLENDVB, BLENDVPS, BLENDVPD: lanes of the source where XMM0's are negative.
fn blend_by_sign(cx: &mut Lift<'_>, shape: Shape) {
    let b = cx.xmm_m128(1);
    let a = cx.xmm(0);
    let chooser = cx.ir.getreg(metaphrase_ir::Reg::Xmm0);
    let zero = cx.ir.vconst(0);
    let mask = cx.ir.vicmp(shape, IntCc::Slt, chooser, zero);
    let r = cx.ir.vselect(mask, b, a);
    cx.set_xmm(0, r);
}

/// PMOVSX.., PMOVZX..: the low lanes widened. A memory operand has just those.
fn extend(cx: &mut Lift<'_>, from: u32, to: u32, signed: bool) {
    let v = cx.xmm_low(1, 16 / to * from);
    let r = if signed {
        sign_extend(cx, v, from, to)
    } else {
        let mask: [u8; 16] = std::array::from_fn(|i| {
            let i = i as u32;
            if i % to < from {
                (i / to * from + i % to) as u8
            } else {
                0x80
            }
        });
        cx.ir.vshuffle(v, v, u128::from_le_bytes(mask))
    };
    cx.set_xmm(0, r);
}

/// Low lanes of `from` bytes extended with their sign to `to` bytes.
fn sign_extend(cx: &mut Lift<'_>, v: Value, from: u32, to: u32) -> Value {
    let middle = to.min(4);
    let mut r = v;
    if from < middle {
        // To the upper ends of the wider lanes, and down again.
        let low = middle - from;
        let mask: super::shuffle::Bytes = std::array::from_fn(|i| {
            let i = i as u32;
            match (i % middle).checked_sub(low) {
                Some(byte) => (i / middle * from + byte) as u8,
                None => 0x80,
            }
        });
        r = cx.ir.vshuffle(r, r, u128::from_le_bytes(mask));
        let shape = if middle == 2 { I16x8 } else { I32x4 };
        let count = cx.iconst(Type::I64, u64::from(low) * 8);
        r = cx.ir.vshift(Op::VAShr, shape, r, count);
    }
    if to == 8 {
        let zero = cx.ir.vconst(0);
        let signs = cx.ir.vicmp(I32x4, IntCc::Slt, r, zero);
        let mask = super::shuffle::interleave(4, 0);
        r = cx.ir.vshuffle(r, signs, u128::from_le_bytes(mask));
    }
    r
}

/// PINSRB, PINSRD, PINSRQ.
fn insert(cx: &mut Lift<'_>, shape: Shape) {
    let lane = cx.imm8(2) & (shape.lanes() - 1);
    let v = cx.read(1);
    let v = cx.ir.trunc(shape.lane(), v);
    let old = cx.xmm(0);
    let new = cx.ir.vset(shape, old, lane, v);
    cx.set_xmm(0, new);
}

/// PEXTRB, PEXTRD, PEXTRQ, EXTRACTPS.
fn extract(cx: &mut Lift<'_>, shape: Shape) {
    let lane = cx.imm8(2) & (shape.lanes() - 1);
    let v = cx.xmm(1);
    let v = cx.ir.vget(shape, v, lane);
    if cx.is_mem(0) {
        let addr = cx.linear_write();
        cx.ir.store(addr, v, cx.operand_kind());
    } else {
        cx.set_gpr_zext(0, v);
    }
}

/// INSERTPS: a lane of the source to a lane of the destination, then lanes cleared.
fn insert_single(cx: &mut Lift<'_>) {
    let imm = cx.imm8(2);
    let v = if cx.is_mem(1) {
        cx.load_scalar(Type::I32)
    } else {
        let v = cx.xmm(1);
        cx.ir.vget(I32x4, v, imm >> 6)
    };
    let old = cx.xmm(0);
    let new = cx.ir.vset(I32x4, old, imm >> 4 & 3, v);
    let keep = cx.ir.vconst(lane_mask(!imm, 4));
    let r = cx.ir.vand(new, keep);
    cx.set_xmm(0, r);
}

/// PTEST: ZF for a and b without common ones, CF for b without ones beyond a.
fn test(cx: &mut Lift<'_>) {
    let b = cx.xmm_m128(1);
    let a = cx.xmm(0);
    let common = cx.ir.vand(a, b);
    let beyond = cx.ir.vandnot(a, b);
    let mut image = cx.iconst(Type::I64, 0);
    for (v, flag) in [(common, flags::ZF), (beyond, flags::CF)] {
        let (low, high) = (cx.ir.vget(I64x2, v, 0), cx.ir.vget(I64x2, v, 1));
        let any = cx.ir.or(low, high);
        let none = cx.ir.icmp_imm(IntCc::Eq, any, 0);
        let wide = cx.ir.zext(Type::I64, none);
        let place = cx.iconst(Type::I64, u64::from(flag.trailing_zeros()));
        let placed = cx.ir.shl(wide, place);
        image = cx.ir.or(image, placed);
    }
    cx.ir.setflags(FlagKind::Raw, &[image]);
}

/// The length in EAX or EDX, RAX or RDX with REX.W: its absolute value, at most 16.
fn length(cx: &mut Lift<'_>, wide: bool, register: Register) -> Value {
    let v = cx.read_gpr(register);
    let v = if wide { v } else { cx.ir.sext(Type::I64, v) };
    let negative = cx.ir.icmp_imm(IntCc::Slt, v, 0);
    let opposite = cx.ir.neg(v);
    let v = cx.ir.select(negative, opposite, v);
    let short = cx.ir.icmp_imm(IntCc::Ult, v, 16);
    let most = cx.iconst(Type::I64, 16);
    cx.ir.select(short, v, most)
}

/// PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM. Their memory operands need no alignment.
fn compare_strings(cx: &mut Lift<'_>, mnemonic: Mnemonic) {
    let imm = cx.imm8(2);
    let b = if cx.is_mem(1) {
        cx.load_scalar(Type::V128)
    } else {
        cx.xmm(1)
    };
    let a = cx.xmm(0);
    let implicit = matches!(mnemonic, Mnemonic::Pcmpistri | Mnemonic::Pcmpistrm);
    let lengths = if implicit {
        cx.iconst(Type::I64, 0)
    } else {
        let wide = matches!(mnemonic, Mnemonic::Pcmpestri64 | Mnemonic::Pcmpestrm64);
        let (ra, rb) = if wide {
            (Register::RAX, Register::RDX)
        } else {
            (Register::EAX, Register::EDX)
        };
        let (a, b) = (length(cx, wide, ra), length(cx, wide, rb));
        let eight = cx.iconst(Type::I64, 8);
        let b = cx.ir.shl(b, eight);
        cx.ir.or(a, b)
    };
    let descriptor = imm | u32::from(implicit) << 8;
    let r = cx.ir.call(Helper::PcmpStr, descriptor, &[a, b, lengths]);
    let to_index = matches!(
        mnemonic,
        Mnemonic::Pcmpestri | Mnemonic::Pcmpestri64 | Mnemonic::Pcmpistri
    );
    if to_index {
        let index = cx.ir.ext(Type::I16, r, 16);
        let index = cx.ir.zext(Type::I32, index);
        cx.write_gpr(Register::ECX, index);
    } else {
        let bits = cx.ir.ext(Type::I16, r, 0);
        let bits = cx.ir.zext(Type::I64, bits);
        let mut v = cx.ir.vfromint(bits);
        if imm & 0x40 != 0 {
            let lane = 1 + (imm & 1) as u8;
            let descriptor = VecOp::ExpandMask.pack(lane, false);
            v = cx.ir.call(Helper::VecOp, descriptor, &[v, v]);
        }
        cx.ir.setreg(metaphrase_ir::Reg::Xmm0, v);
        if cx.vex.is_some() {
            let zero = cx.ir.vconst(0);
            cx.ir.setreg(metaphrase_ir::Reg::ymm_hi(0), zero);
        }
    }
    let image = cx.ir.ext(Type::I32, r, 32);
    let image = cx.ir.zext(Type::I64, image);
    cx.ir.setflags(FlagKind::Raw, &[image]);
}
