//! VDPPS of 256 bits while an exception is unmasked. It works in steps, each on both halves: the
//! products, the sums of pairs, the sums of these; and what a step raises keeps the later ones from
//! reporting anything.

use super::{Lift, is_wide};
use iced_x86::Mnemonic;
use metaphrase_ir::{Helper, SseOp, Value};

/// Lifts the instruction if it is this one.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    if mnemonic != Mnemonic::Vdpps || !cx.mode.unmasked || !is_wide(cx) {
        return false;
    }
    let imm = cx.imm8(3) as u8;
    let (a, b) = (cx.ymm(1), cx.ymm(2));
    // Lanes that do not take part count as 0, whatever they hold.
    let taken = (0..4).filter(|n| imm >> (4 + n) & 1 != 0);
    let mask = taken.fold(0u128, |m, n| m | 0xffff_ffff << (32 * n));
    let mask = cx.ir.vconst(mask);
    let [x, y] = [a, b].map(|v| v.map(|half| cx.ir.vand(half, mask)));
    let products = step(cx, SseOp::Mulps, 0, x, y);
    let zero = cx.ir.vconst(0);
    let pairs = step(cx, SseOp::Haddps, 0, products, [zero; 2]);
    let others = pairs.map(|v| {
        let bytes = u128::from_le_bytes(std::array::from_fn(|n| (n as u8 + 4) & 15));
        cx.ir.vshuffle(v, v, bytes)
    });
    step(cx, SseOp::Addss, 0, pairs, others);
    // Nothing raises any more: the result is the instruction's own.
    let result = step(cx, SseOp::Dpps, imm, a, b);
    cx.set_ymm(0, result);
    true
}

/// An operation on both halves, which raises #XM for both.
fn step(cx: &mut Lift<'_>, op: SseOp, imm: u8, a: [Value; 2], b: [Value; 2]) -> [Value; 2] {
    let low = cx.ir.call(Helper::SseDeferred, op.pack(imm), &[a[0], b[0]]);
    let high = cx.ir.call(Helper::SseChecked, op.pack(imm), &[a[1], b[1]]);
    [low, high]
}
