//! Moves between XMM registers, memory and general registers.

use super::Lift;
use iced_x86::Mnemonic;
use metaphrase_ir::{Shape, Type};

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    match mnemonic {
        Movaps | Movapd | Movdqa | Movntps | Movntpd | Movntdq | Movntdqa => whole(cx, true),
        Movups | Movupd | Movdqu | Lddqu => whole(cx, false),
        Movss => scalar(cx, Shape::F32x4),
        Movsd => scalar(cx, Shape::F64x2),
        Movd => int(cx, Type::I32),
        Movq => movq(cx),
        Movlps | Movlpd => half(cx, 0),
        Movhps | Movhpd => half(cx, 1),
        Movhlps => between_halves(cx, 0, 1),
        Movlhps => between_halves(cx, 1, 0),
        Movnti => {
            let v = cx.read(1);
            cx.write(0, v);
        }
        Movmskps => mask(cx, Shape::I32x4),
        Movmskpd => mask(cx, Shape::I64x2),
        Pmovmskb => mask(cx, Shape::I8x16),
        Pextrw => extract_word(cx),
        Pinsrw => insert_word(cx),
        _ => return false,
    }
    true
}

/// MOVAPS, MOVUPS and the like: all 16 bytes.
fn whole(cx: &mut Lift<'_>, aligned: bool) {
    if cx.is_mem(0) {
        let addr = cx.vector_address(aligned, true);
        let v = cx.xmm(1);
        cx.ir.store(addr, v, cx.operand_kind());
        return;
    }
    let v = if cx.is_mem(1) {
        cx.load_vector(aligned)
    } else {
        cx.xmm(1)
    };
    cx.set_xmm(0, v);
}

/// MOVSS, MOVSD: a load clears the upper lanes, a move between registers keeps them.
fn scalar(cx: &mut Lift<'_>, shape: Shape) {
    if cx.is_mem(0) {
        let addr = cx.linear_write();
        let v = cx.scalar(1, shape);
        cx.ir.store(addr, v, cx.operand_kind());
        return;
    }
    let v = cx.scalar(1, shape);
    if cx.is_mem(1) {
        let v = cx.ir.vfromint(v);
        cx.set_xmm(0, v);
    } else {
        cx.set_scalar(0, shape, v);
    }
}

/// MOVD, and MOVQ with a general register: between an XMM register and r/m32 or r/m64.
fn int(cx: &mut Lift<'_>, ty: Type) {
    let shape = if ty == Type::I32 {
        Shape::I32x4
    } else {
        Shape::I64x2
    };
    if !cx.is_mem(0) && cx.insn.op_register(0).is_xmm() {
        let v = cx.read(1);
        let v = cx.ir.vfromint(v);
        cx.set_xmm(0, v);
    } else {
        let v = cx.scalar(1, shape);
        cx.write(0, v);
    }
}

/// MOVQ: its register form clears the upper half too.
fn movq(cx: &mut Lift<'_>) {
    let xmm_to_xmm = (0..2).all(|n| !cx.is_mem(n) && cx.insn.op_register(n).is_xmm());
    if xmm_to_xmm {
        let v = cx.scalar(1, Shape::I64x2);
        let v = cx.ir.vfromint(v);
        cx.set_xmm(0, v);
    } else {
        int(cx, Type::I64);
    }
}

/// MOVLPS, MOVHPS and the like: one half from or to memory.
fn half(cx: &mut Lift<'_>, lane: u32) {
    if cx.is_mem(0) {
        let addr = cx.linear_write();
        let v = cx.xmm(1);
        let v = cx.ir.vget(Shape::I64x2, v, lane);
        cx.ir.store(addr, v, cx.operand_kind());
    } else {
        let v = cx.load_scalar(Type::I64);
        let old = cx.xmm(0);
        let new = cx.ir.vset(Shape::I64x2, old, lane, v);
        cx.set_xmm(0, new);
    }
}

/// MOVHLPS, MOVLHPS: one half of the source to one half of the destination.
fn between_halves(cx: &mut Lift<'_>, to: u32, from: u32) {
    let (old, v) = (cx.xmm(0), cx.xmm(1));
    let v = cx.ir.vget(Shape::I64x2, v, from);
    let new = cx.ir.vset(Shape::I64x2, old, to, v);
    cx.set_xmm(0, new);
}

/// PMOVMSKB, MOVMSKPS, MOVMSKPD.
fn mask(cx: &mut Lift<'_>, shape: Shape) {
    let v = cx.xmm(1);
    let bits = cx.ir.vmask(shape, v);
    cx.set_gpr_zext(0, bits);
}

/// PEXTRW: a word to a general register (zero-extended) or to memory.
fn extract_word(cx: &mut Lift<'_>) {
    let lane = cx.imm8(2) & 7;
    if cx.is_mem(0) {
        let addr = cx.linear_write();
        let v = cx.xmm(1);
        let word = cx.ir.vget(Shape::I16x8, v, lane);
        cx.ir.store(addr, word, cx.operand_kind());
    } else {
        let v = cx.xmm(1);
        let word = cx.ir.vget(Shape::I16x8, v, lane);
        cx.set_gpr_zext(0, word);
    }
}

/// PINSRW: a word from memory or from a general register's low part.
fn insert_word(cx: &mut Lift<'_>) {
    let lane = cx.imm8(2) & 7;
    let v = cx.read(1);
    let word = cx.ir.trunc(Type::I16, v);
    let old = cx.xmm(0);
    let new = cx.ir.vset(Shape::I16x8, old, lane, word);
    cx.set_xmm(0, new);
}
