//! Instructions that only move lanes about: each is one byte shuffle with a constant mask.

use super::Lift;
use iced_x86::Mnemonic;

/// A byte shuffle: entry `i` names the source byte of result byte `i`, 0 to 15 in the first
/// vector, 16 to 31 in the second; [`ZERO`] gives 0.
pub type Bytes = [u8; 16];

/// A result byte that is 0.
const ZERO: u8 = 0x80;

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    match mnemonic {
        Pshufd => one(cx, |imm| lanes(4, |n| sel(imm, n))),
        Pshuflw => one(cx, |imm| lanes(2, |n| if n < 4 { sel(imm, n) } else { n })),
        Pshufhw => one(cx, |imm| {
            lanes(2, |n| if n < 4 { n } else { 4 + sel(imm, n - 4) })
        }),
        Shufps => two(
            cx,
            lanes(4, |n| {
                let imm = cx.imm8(2);
                sel(imm, n) + if n < 2 { 0 } else { 4 }
            }),
        ),
        Shufpd => two(cx, lanes(8, |n| (cx.imm8(2) >> n & 1) + 2 * n)),
        Punpcklbw => two(cx, interleave(1, 0)),
        Punpcklwd => two(cx, interleave(2, 0)),
        Punpckldq | Unpcklps => two(cx, interleave(4, 0)),
        Punpcklqdq | Unpcklpd => two(cx, interleave(8, 0)),
        Punpckhbw => two(cx, interleave(1, 8)),
        Punpckhwd => two(cx, interleave(2, 8)),
        Punpckhdq | Unpckhps => two(cx, interleave(4, 8)),
        Punpckhqdq | Unpckhpd => two(cx, interleave(8, 8)),
        Movsldup => one(cx, |_| lanes(4, |n| n & 2)),
        Movshdup => one(cx, |_| lanes(4, |n| n | 1)),
        Movddup => {
            // Only 8 bytes of memory, at any alignment.
            let v = cx.xmm_m64(1);
            let mask = lanes(8, |_| 0);
            let r = cx.ir.vshuffle(v, v, u128::from_le_bytes(mask));
            cx.set_xmm(0, r);
        }
        Pslldq => shift_bytes(cx, true),
        Psrldq => shift_bytes(cx, false),
        _ => return false,
    }
    true
}

/// The two-bit field `n` of an immediate.
fn sel(imm: u32, n: u32) -> u32 {
    imm >> (2 * n) & 3
}

/// The shuffle that takes lane `n` of the result, of `size` bytes, from lane `from(n)`; the
/// second vector's lanes are numbered on from the first's.
pub fn lanes(size: u32, from: impl Fn(u32) -> u32) -> Bytes {
    std::array::from_fn(|i| {
        let i = i as u32;
        (from(i / size) * size + i % size) as u8
    })
}

/// Lanes of `size` bytes alternating from both vectors, starting at byte `start`.
pub fn interleave(size: u32, start: u32) -> Bytes {
    let first = start / size;
    lanes(size, |n| first + n / 2 + n % 2 * (16 / size))
}

/// The destination from the source operand alone, and the immediate if there is one.
fn one(cx: &mut Lift<'_>, mask: impl Fn(u32) -> Bytes) {
    let imm = if cx.insn.op_count() > 2 {
        cx.imm8(2)
    } else {
        0
    };
    let mask = u128::from_le_bytes(mask(imm));
    let v = cx.xmm_m128(1);
    let r = cx.ir.vshuffle(v, v, mask);
    cx.set_xmm(0, r);
}

/// The destination from the old destination and the source.
fn two(cx: &mut Lift<'_>, mask: Bytes) {
    let b = cx.xmm_m128(1);
    let a = cx.xmm(0);
    let r = cx.ir.vshuffle(a, b, u128::from_le_bytes(mask));
    cx.set_xmm(0, r);
}

/// PSLLDQ, PSRLDQ: counts above 15 clear the register.
fn shift_bytes(cx: &mut Lift<'_>, left: bool) {
    let count = cx.imm8(1).min(16) as usize;
    let mask: Bytes = std::array::from_fn(|i| {
        let from = if left {
            i.checked_sub(count)
        } else {
            Some(i + count)
        };
        from.filter(|&i| i < 16).map_or(ZERO, |i| i as u8)
    });
    let v = cx.xmm(0);
    let r = cx.ir.vshuffle(v, v, u128::from_le_bytes(mask));
    cx.set_xmm(0, r);
}
