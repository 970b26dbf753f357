//! Broadcasts, and moves of a 128-bit half.

use super::Lift;
use iced_x86::Mnemonic;
use metaphrase_ir::{Shape, Type, Value};

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    match mnemonic {
        Vpbroadcastb => broadcast(cx, Shape::I8x16),
        Vpbroadcastw => broadcast(cx, Shape::I16x8),
        Vpbroadcastd | Vbroadcastss => broadcast(cx, Shape::I32x4),
        Vpbroadcastq | Vbroadcastsd => broadcast(cx, Shape::I64x2),
        Vbroadcastf128 | Vbroadcasti128 => {
            let v = half(cx, 1);
            cx.set_ymm(0, [v, v]);
        }
        Vinsertf128 | Vinserti128 => {
            let v = half(cx, 2);
            let [low, high] = cx.ymm(1);
            let r = if cx.imm8(3) & 1 == 0 {
                [v, high]
            } else {
                [low, v]
            };
            cx.set_ymm(0, r);
        }
        Vextractf128 | Vextracti128 => extract(cx),
        Vperm2f128 | Vperm2i128 => choose_halves(cx),
        _ => return false,
    }
    true
}

/// Operand `n`, an XMM register or 16 bytes of memory at any alignment.
fn half(cx: &mut Lift<'_>, n: u32) -> Value {
    if cx.is_mem(n) {
        cx.load_scalar(Type::V128)
    } else {
        cx.xmm(n)
    }
}

/// VPBROADCASTB and the like: the low element, or one from memory, in every lane.
fn broadcast(cx: &mut Lift<'_>, shape: Shape) {
    let v = cx.scalar(1, shape);
    let r = cx.ir.vsplat(shape, v);
    cx.set_vector([r, r]);
}

/// VEXTRACTF128, VEXTRACTI128.
fn extract(cx: &mut Lift<'_>) {
    let v = cx.ymm(1)[cx.imm8(2) as usize & 1];
    if cx.is_mem(0) {
        let addr = cx.linear_write();
        cx.ir.store(addr, v, cx.operand_kind());
    } else {
        cx.set_xmm_zero_upper(0, v);
    }
}

/// VPERM2F128, VPERM2I128: each half is any half of the sources, or zero.
fn choose_halves(cx: &mut Lift<'_>) {
    let imm = cx.imm8(3);
    let (b, a) = (cx.ymm(2), cx.ymm(1));
    let zero = cx.ir.vconst(0);
    let pick = |field: u32| match field & 0xb {
        0..=3 if field & 8 == 0 => [a, b][field as usize >> 1 & 1][field as usize & 1],
        _ => zero,
    };
    cx.set_ymm(0, [pick(imm), pick(imm >> 4)]);
}
