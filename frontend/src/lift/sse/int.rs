//! Packed integer and bitwise arithmetic, and lane shifts.

use super::Lift;
use iced_x86::{Mnemonic, OpKind};
use metaphrase_ir::Shape::{self, I8x16, I16x8, I32x4, I64x2};
use metaphrase_ir::{Builder, IntCc, Op, Type, Value};

/// A function of two vectors.
pub type Binary = fn(&mut Builder<'_>, Value, Value) -> Value;

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    if let Some(f) = binary(mnemonic) {
        let b = cx.xmm_m128(1);
        let a = cx.xmm(0);
        let r = f(&mut cx.ir, a, b);
        cx.set_xmm(0, r);
        return true;
    }
    if let Some((op, shape)) = shift(mnemonic) {
        let count = if cx.insn.op_kind(1) == OpKind::Immediate8 {
            let n = u64::from(cx.imm8(1));
            cx.iconst(Type::I64, n)
        } else {
            // The count is the low quadword, but a memory operand is read whole.
            let v = cx.xmm_m128(1);
            cx.ir.vget(I64x2, v, 0)
        };
        let a = cx.xmm(0);
        let r = cx.ir.vshift(op, shape, a, count);
        cx.set_xmm(0, r);
        return true;
    }
    false
}

/// The two-operand instructions: the destination is the first argument.
pub fn binary(mnemonic: Mnemonic) -> Option<Binary> {
    use Mnemonic::*;
    Some(match mnemonic {
        Pand | Andps | Andpd => |ir, a, b| ir.vand(a, b),
        Por | Orps | Orpd => |ir, a, b| ir.vor(a, b),
        Pxor | Xorps | Xorpd => |ir, a, b| ir.vxor(a, b),
        Pandn | Andnps | Andnpd => |ir, a, b| ir.vandnot(a, b),

        Paddb => |ir, a, b| ir.vadd(I8x16, a, b),
        Paddw => |ir, a, b| ir.vadd(I16x8, a, b),
        Paddd => |ir, a, b| ir.vadd(I32x4, a, b),
        Paddq => |ir, a, b| ir.vadd(I64x2, a, b),
        Psubb => |ir, a, b| ir.vsub(I8x16, a, b),
        Psubw => |ir, a, b| ir.vsub(I16x8, a, b),
        Psubd => |ir, a, b| ir.vsub(I32x4, a, b),
        Psubq => |ir, a, b| ir.vsub(I64x2, a, b),
        Paddsb => |ir, a, b| ir.vaddsats(I8x16, a, b),
        Paddsw => |ir, a, b| ir.vaddsats(I16x8, a, b),
        Paddusb => |ir, a, b| ir.vaddsatu(I8x16, a, b),
        Paddusw => |ir, a, b| ir.vaddsatu(I16x8, a, b),
        Psubsb => |ir, a, b| ir.vsubsats(I8x16, a, b),
        Psubsw => |ir, a, b| ir.vsubsats(I16x8, a, b),
        Psubusb => |ir, a, b| ir.vsubsatu(I8x16, a, b),
        Psubusw => |ir, a, b| ir.vsubsatu(I16x8, a, b),

        Pmullw => |ir, a, b| ir.vmul(I16x8, a, b),
        Pmulhw => |ir, a, b| ir.vmulhis(I16x8, a, b),
        Pmulhuw => |ir, a, b| ir.vmulhiu(I16x8, a, b),
        Pmuludq => |ir, a, b| ir.vmulwideu(a, b),
        Pmaddwd => |ir, a, b| ir.vmaddwd(a, b),
        Psadbw => |ir, a, b| ir.vsad(a, b),
        Pavgb => |ir, a, b| ir.vavgu(I8x16, a, b),
        Pavgw => |ir, a, b| ir.vavgu(I16x8, a, b),

        Pminub => |ir, a, b| ir.vminu(I8x16, a, b),
        Pmaxub => |ir, a, b| ir.vmaxu(I8x16, a, b),
        Pminsw => |ir, a, b| ir.vmins(I16x8, a, b),
        Pmaxsw => |ir, a, b| ir.vmaxs(I16x8, a, b),

        Pcmpeqb => |ir, a, b| ir.vicmp(I8x16, IntCc::Eq, a, b),
        Pcmpeqw => |ir, a, b| ir.vicmp(I16x8, IntCc::Eq, a, b),
        Pcmpeqd => |ir, a, b| ir.vicmp(I32x4, IntCc::Eq, a, b),
        Pcmpgtb => |ir, a, b| ir.vicmp(I8x16, IntCc::Sgt, a, b),
        Pcmpgtw => |ir, a, b| ir.vicmp(I16x8, IntCc::Sgt, a, b),
        Pcmpgtd => |ir, a, b| ir.vicmp(I32x4, IntCc::Sgt, a, b),

        Pmulld => |ir, a, b| ir.vmul(I32x4, a, b),
        Pminsb => |ir, a, b| ir.vmins(I8x16, a, b),
        Pminsd => |ir, a, b| ir.vmins(I32x4, a, b),
        Pminuw => |ir, a, b| ir.vminu(I16x8, a, b),
        Pminud => |ir, a, b| ir.vminu(I32x4, a, b),
        Pmaxsb => |ir, a, b| ir.vmaxs(I8x16, a, b),
        Pmaxsd => |ir, a, b| ir.vmaxs(I32x4, a, b),
        Pmaxuw => |ir, a, b| ir.vmaxu(I16x8, a, b),
        Pmaxud => |ir, a, b| ir.vmaxu(I32x4, a, b),
        Pcmpeqq => |ir, a, b| ir.vicmp(I64x2, IntCc::Eq, a, b),
        Pcmpgtq => |ir, a, b| ir.vicmp(I64x2, IntCc::Sgt, a, b),
        Packusdw => |ir, a, b| ir.vpackus(I32x4, a, b),

        Packsswb => |ir, a, b| ir.vpackss(I16x8, a, b),
        Packssdw => |ir, a, b| ir.vpackss(I32x4, a, b),
        Packuswb => |ir, a, b| ir.vpackus(I16x8, a, b),
        _ => return None,
    })
}

/// The shifts of all lanes by one count.
pub fn shift(mnemonic: Mnemonic) -> Option<(Op, Shape)> {
    use Mnemonic::*;
    Some(match mnemonic {
        Psllw => (Op::VShl, I16x8),
        Pslld => (Op::VShl, I32x4),
        Psllq => (Op::VShl, I64x2),
        Psrlw => (Op::VLShr, I16x8),
        Psrld => (Op::VLShr, I32x4),
        Psrlq => (Op::VLShr, I64x2),
        Psraw => (Op::VAShr, I16x8),
        Psrad => (Op::VAShr, I32x4),
        _ => return None,
    })
}
