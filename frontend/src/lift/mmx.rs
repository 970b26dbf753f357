//! MMX: every instruction that names an MMX register, and EMMS.
//!
//! The MMX registers are the significands of the x87 registers, so each instruction first answers
//! for a pending x87 exception and then puts the x87 state into what MMX code sees (SDM volume 1,
//! 9.5): that is a helper, called once nothing else can fault. The operations are those of SSE on
//! the low half of a vector.

use super::Lift;
use super::sse::{checked, int, masked, shuffle, sse4};
use crate::features::names_mmx;
use iced_x86::{Mnemonic, OpKind};
use metaphrase_ir::Shape::{F32x4, F64x2, I8x16, I16x8, I32x4, I64x2};
use metaphrase_ir::{Helper, Reg, SseOp, Type, Value};

/// Descriptor bit of [`Helper::EnterMmx`]: only the check.
const CHECK: u32 = 1 << 8;

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    if mnemonic == Emms {
        cx.ir.call(Helper::Emms, 0, &[]);
        return true;
    }
    if !names_mmx(&cx.insn) {
        return false;
    }
    match mnemonic {
        Movd => int_move(cx, Type::I32),
        Movq | Movntq => int_move(cx, Type::I64),
        Movq2dq => {
            let v = cx.mm(1);
            cx.enter_mmx(None);
            cx.set_xmm(0, v);
        }
        Movdq2q => {
            let v = cx.xmm(1);
            cx.set_mm(v);
        }
        Maskmovq => masked_move(cx),
        Pmovmskb => {
            let v = cx.mm(1);
            cx.enter_mmx(None);
            let bits = cx.ir.vmask(I8x16, v);
            cx.set_gpr_zext(0, bits);
        }
        Pextrw => {
            let lane = cx.imm8(2) & 3;
            let v = cx.mm(1);
            cx.enter_mmx(None);
            let word = cx.ir.vget(I16x8, v, lane);
            cx.set_gpr_zext(0, word);
        }
        Pinsrw => {
            let lane = cx.imm8(2) & 3;
            cx.check_mmx();
            let v = cx.read(1);
            let word = cx.ir.trunc(Type::I16, v);
            let old = cx.mm(0);
            let new = cx.ir.vset(I16x8, old, lane, word);
            cx.set_mm(new);
        }
        Pshufw => {
            let imm = cx.imm8(2);
            let v = cx.mm_m64(1);
            let mask = shuffle::lanes(2, |n| imm >> (2 * (n & 3)) & 3);
            let r = cx.ir.vshuffle(v, v, u128::from_le_bytes(mask));
            cx.set_mm(r);
        }
        Punpcklbw => unpack(cx, 1, 0),
        Punpcklwd => unpack(cx, 2, 0),
        Punpckldq => unpack(cx, 4, 0),
        Punpckhbw => unpack(cx, 1, 4),
        Punpckhwd => unpack(cx, 2, 4),
        Punpckhdq => unpack(cx, 4, 4),
        Packsswb | Packssdw | Packuswb => pack(cx, mnemonic),
        Cvtpi2ps | Cvtpi2pd | Cvtps2pi | Cvttps2pi | Cvtpd2pi | Cvttpd2pi => {
            convert(cx, mnemonic);
        }
        _ => return lanes(cx, mnemonic),
    }
    true
}

impl Lift<'_> {
    /// #MF if an x87 exception is pending: before the instruction's own accesses.
    fn check_mmx(&mut self) {
        self.ir.call(Helper::EnterMmx, CHECK, &[]);
    }

    /// The x87 state becomes that of MMX code; `written` is the MMX register to be written.
    fn enter_mmx(&mut self, written: Option<usize>) {
        let descriptor = written.map_or(0, |n| 1 << n);
        self.ir.call(Helper::EnterMmx, descriptor, &[]);
    }

    fn mm_number(&self, n: u32) -> usize {
        self.insn.op_register(n).number() & 7
    }

    /// Operand `n`, an MMX register, with zeros above.
    fn mm(&mut self, n: u32) -> Value {
        let v = self.ir.getreg(Reg::mm(self.mm_number(n)));
        self.ir.vfromint(v)
    }

    /// Operand `n`: an MMX register, or memory of the operand's size, with zeros above.
    fn mm_m64(&mut self, n: u32) -> Value {
        if !self.is_mem(n) {
            return self.mm(n);
        }
        self.check_mmx();
        let ty = if self.insn.memory_size().size() == 4 {
            Type::I32
        } else {
            Type::I64
        };
        let v = self.load_scalar(ty);
        self.ir.vfromint(v)
    }

    /// Enters MMX state and writes operand 0, an MMX register, with the low half of a vector.
    fn set_mm(&mut self, v: Value) {
        let n = self.mm_number(0);
        self.enter_mmx(Some(n));
        let low = self.ir.vget(I64x2, v, 0);
        self.ir.setreg(Reg::mm(n), low);
    }
}

/// The operations that SSE has too: lane by lane, and shifts.
fn lanes(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    if let Some(op) = sse4::vec_op(mnemonic) {
        let imm = sse4::immediate(cx);
        let b = cx.mm_m64(1);
        let a = cx.mm(0);
        let r = cx.ir.call(Helper::VecOp, op.pack(imm, true), &[a, b]);
        cx.set_mm(r);
    } else if matches!(
        mnemonic,
        Mnemonic::Pabsb | Mnemonic::Pabsw | Mnemonic::Pabsd
    ) {
        let v = cx.mm_m64(1);
        let r = sse4::absolute(cx, mnemonic, v);
        cx.set_mm(r);
    } else if let Some(f) = int::binary(mnemonic) {
        let b = cx.mm_m64(1);
        let a = cx.mm(0);
        let r = f(&mut cx.ir, a, b);
        cx.set_mm(r);
    } else if let Some((op, shape)) = int::shift(mnemonic) {
        let count = if cx.insn.op_kind(1) == OpKind::Immediate8 {
            let n = u64::from(cx.imm8(1));
            cx.iconst(Type::I64, n)
        } else {
            let v = cx.mm_m64(1);
            cx.ir.vget(I64x2, v, 0)
        };
        let a = cx.mm(0);
        let r = cx.ir.vshift(op, shape, a, count);
        cx.set_mm(r);
    } else {
        return false;
    }
    true
}

/// MOVD, MOVQ, MOVNTQ: between an MMX register and memory, a general or an MMX register.
fn int_move(cx: &mut Lift<'_>, ty: Type) {
    let to_mm = !cx.is_mem(0) && cx.insn.op_register(0).is_mm();
    if to_mm {
        let v = if !cx.is_mem(1) && cx.insn.op_register(1).is_mm() {
            cx.mm(1)
        } else {
            cx.check_mmx();
            let v = cx.read(1);
            cx.ir.vfromint(v)
        };
        cx.set_mm(v);
        return;
    }
    let v = cx.mm(1);
    let shape = if ty == Type::I32 { I32x4 } else { I64x2 };
    let v = cx.ir.vget(shape, v, 0);
    if cx.is_mem(0) {
        cx.check_mmx();
        cx.write(0, v);
        cx.enter_mmx(None);
    } else {
        cx.enter_mmx(None);
        cx.write(0, v);
    }
}

/// MASKMOVQ: the store of chosen bytes.
fn masked_move(cx: &mut Lift<'_>) {
    cx.check_mmx();
    let (data, mask) = (cx.mm(1), cx.mm(2));
    let chosen = cx.ir.vmask(I8x16, mask);
    // Real CPUs are in MMX state already when one of the bytes cannot be written.
    cx.enter_mmx(None);
    masked::touch(cx, 8);
    masked::store_chosen(cx, data, chosen);
}

/// PUNPCKL.., PUNPCKH..: lanes of `size` bytes alternating from both, starting at byte `start`.
fn unpack(cx: &mut Lift<'_>, size: u32, start: u32) {
    let b = cx.mm_m64(1);
    let a = cx.mm(0);
    let mask = u128::from_le_bytes(shuffle::interleave(size, start));
    let r = cx.ir.vshuffle(a, b, mask);
    cx.set_mm(r);
}

/// PACKSSWB and the like: both operands side by side, narrowed.
fn pack(cx: &mut Lift<'_>, mnemonic: Mnemonic) {
    let b = cx.mm_m64(1);
    let a = cx.mm(0);
    let b = cx.ir.vget(I64x2, b, 0);
    let both = cx.ir.vset(I64x2, a, 1, b);
    let r = match mnemonic {
        Mnemonic::Packsswb => cx.ir.vpackss(I16x8, both, both),
        Mnemonic::Packssdw => cx.ir.vpackss(I32x4, both, both),
        _ => cx.ir.vpackus(I16x8, both, both),
    };
    cx.set_mm(r);
}

/// Conversions between two integers in an MMX register and floats in an XMM register.
fn convert(cx: &mut Lift<'_>, mnemonic: Mnemonic) {
    use Mnemonic::*;
    match mnemonic {
        Cvtpi2ps | Cvtpi2pd => {
            let memory = cx.is_mem(1);
            // With a memory operand CVTPI2PD is no MMX instruction (SDM volume 2). Nor is CVTPI2PS
            // on AMD's CPUs, while Intel's manual says otherwise.
            let v = if memory {
                let v = cx.load_scalar(Type::I64);
                cx.ir.vfromint(v)
            } else {
                let v = cx.mm_m64(1);
                cx.enter_mmx(None);
                v
            };
            let r = if mnemonic == Cvtpi2pd {
                cx.ir.vitof(F64x2, v)
            } else {
                // The upper half must not raise anything.
                let low = cx.ir.vget(I64x2, v, 0);
                let v = cx.ir.vfromint(low);
                let floats = if cx.mode.unmasked {
                    checked::call(cx, SseOp::Cvtdq2ps, 0, v, v)
                } else {
                    cx.ir.vitof(F32x4, v)
                };
                let low = cx.ir.vget(I64x2, floats, 0);
                let old = cx.xmm(0);
                cx.ir.vset(I64x2, old, 0, low)
            };
            cx.set_xmm(0, r);
        }
        _ => {
            let shape = match mnemonic {
                Cvtps2pi | Cvttps2pi => F32x4,
                _ => F64x2,
            };
            if cx.is_mem(1) {
                cx.check_mmx();
            }
            let v = if shape == F32x4 {
                cx.xmm_m64(1)
            } else {
                cx.xmm_m128(1)
            };
            // The upper half of the source must not raise anything.
            let v = if shape == F32x4 {
                let low = cx.ir.vget(I64x2, v, 0);
                cx.ir.vfromint(low)
            } else {
                v
            };
            // The x87 state changes even if the conversion raises #XM.
            cx.enter_mmx(None);
            let op = match mnemonic {
                Cvttps2pi => SseOp::Cvttps2dq,
                Cvttpd2pi => SseOp::Cvttpd2dq,
                Cvtps2pi => SseOp::Cvtps2dq,
                _ => SseOp::Cvtpd2dq,
            };
            let r = if cx.mode.unmasked {
                checked::call(cx, op, 0, v, v)
            } else {
                cx.ir.call(Helper::SseFloat, op.pack(0), &[v, v])
            };
            cx.set_mm(r);
        }
    }
}
