//! SSE3: horizontal and alternating arithmetic. (Its moves are with the other moves and shuffles.)

use super::Lift;
use iced_x86::Mnemonic;
use metaphrase_ir::Shape::{self, F32x4, F64x2};
use metaphrase_ir::{Builder, Value};

/// A function of two vectors of a shape.
type Packed = fn(&mut Builder<'_>, Shape, Value, Value) -> Value;

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    match mnemonic {
        Haddps => horizontal(cx, F32x4, |ir, s, a, b| ir.vadd(s, a, b)),
        Haddpd => horizontal(cx, F64x2, |ir, s, a, b| ir.vadd(s, a, b)),
        Hsubps => horizontal(cx, F32x4, |ir, s, a, b| ir.vsub(s, a, b)),
        Hsubpd => horizontal(cx, F64x2, |ir, s, a, b| ir.vsub(s, a, b)),
        Addsubps => alternate(cx, F32x4),
        Addsubpd => alternate(cx, F64x2),
        _ => return false,
    }
    true
}

/// The shuffle of two vectors that takes their even lanes, or with `first` 1 their odd ones.
fn every_second(shape: Shape, first: u32) -> u128 {
    let size = shape.lane().bytes();
    let bytes: [u8; 16] = std::array::from_fn(|i| {
        let i = i as u32;
        ((2 * (i / size) + first) * size + i % size) as u8
    });
    u128::from_le_bytes(bytes)
}

/// HADDPS and the like: neighbours combined, those of the destination first.
fn horizontal(cx: &mut Lift<'_>, shape: Shape, op: Packed) {
    let b = cx.xmm_m128(1);
    let a = cx.xmm(0);
    let even = cx.ir.vshuffle(a, b, every_second(shape, 0));
    let odd = cx.ir.vshuffle(a, b, every_second(shape, 1));
    let r = op(&mut cx.ir, shape, even, odd);
    cx.set_xmm(0, r);
}

/// ADDSUBPS, ADDSUBPD: differences in even lanes, sums in odd ones.
fn alternate(cx: &mut Lift<'_>, shape: Shape) {
    let b = cx.xmm_m128(1);
    let a = cx.xmm(0);
    let sums = cx.ir.vadd(shape, a, b);
    let differences = cx.ir.vsub(shape, a, b);
    let even = cx.ir.vconst(if shape == F32x4 {
        0x0000_0000_ffff_ffff_0000_0000_ffff_ffff
    } else {
        0x0000_0000_0000_0000_ffff_ffff_ffff_ffff
    });
    let r = cx.ir.vselect(even, differences, sums);
    cx.set_xmm(0, r);
}
