//! The portable operations against the host's, bit for bit: results and MXCSR.

use super::x86_64::has;
use super::*;
use metaphrase_ir::{SseForm, SseOp};

/// What is worth trying in a lane: zeros, denormals, the borders of the normal numbers and of
/// integers, halves, infinities, and NaNs of both kinds, each with both signs.
fn special(f64: bool) -> Vec<u64> {
    let (fraction, width) = if f64 { (52u32, 64u32) } else { (23, 32) };
    let bias = if f64 { 1023u64 } else { 127 };
    let infinity = (2 * bias + 1) << fraction;
    let power = |e: i64| (bias as i64 + e) as u64;
    let mut all = vec![
        0,
        1,
        2,
        1 << (fraction - 1),
        (1 << fraction) - 1,
        1 << fraction,
        (1 << fraction) + 1,
        infinity - 1,
        infinity,
        infinity + 1,
        infinity | 1 << (fraction - 1),
        infinity | 1 << (fraction - 1) | 0x123,
        infinity | 0x77,
    ];
    for e in [
        -1,
        0,
        1,
        2,
        30,
        31,
        32,
        62,
        63,
        64,
        i64::from(fraction),
        -20,
    ] {
        all.extend([0, 1].map(|low| power(e) << fraction | low));
    }
    // One and a half, two and a half, a third.
    all.push(power(0) << fraction | 1 << (fraction - 1));
    all.push(power(1) << fraction | 1 << (fraction - 2));
    all.push((power(-2) << fraction) | ((1 << fraction) / 3));
    // A product of two of these is about the least normal number.
    all.push((bias / 2) << fraction | 5);
    all.push((bias / 2 + 1) << fraction);
    let negative: Vec<u64> = all.iter().map(|x| x | 1 << (width - 1)).collect();
    all.extend(negative);
    all
}

/// Every lane of a vector that is `x`, but the others shifted along a list.
fn vector(list: &[u64], n: usize, f64: bool) -> u128 {
    let (lanes, width) = if f64 { (2, 64) } else { (4, 32) };
    (0..lanes).fold(0, |v, i| {
        v | u128::from(list[(n + i * 7) % list.len()]) << (i * width)
    })
}

fn is_double(op: SseOp) -> bool {
    let name = op.name();
    name.ends_with("sd") || name.ends_with("pd") || name.contains("sd2") || name.contains("pd2")
}

fn is_estimate(op: SseOp) -> bool {
    op.name().contains("rcp") || op.name().contains("rsqrt")
}

/// Both ways to do one operation with every exception masked.
fn both(op: SseOp, imm: u8, a: u128, b: u128, mxcsr: u32) {
    let (mut host, mut ours) = (mxcsr, mxcsr);
    let control = Control::enter(host);
    let want = Prepared::new(op, imm).run(a, b, &mut host);
    control.leave(&mut host);
    let mut got = operate_portably(op, imm, a, b, &mut ours);
    if op.form() == SseForm::Flags {
        got |= want & !0x45;
    }
    assert!(
        (want, host) == (got, ours),
        "{op:?} {imm:#x} of {a:#034x}, {b:#034x} with {mxcsr:#06x}:\n{want:#034x} {host:#06x}, ours\n{got:#034x} {ours:#06x}"
    );
}

/// The same under the guest's own masks.
fn both_checked(op: SseOp, imm: u8, a: u128, b: u128, mxcsr: u32) {
    let (mut host, mut ours) = (mxcsr, mxcsr);
    let control = Control::enter(host);
    let want = operate_checked(op, imm, a, b, &mut host);
    control.leave(&mut host);
    let mut got = portable::operate_checked(op, imm, a, b, &mut ours);
    if let (SseForm::Flags, Some(got), Some(want)) = (op.form(), &mut got, want) {
        *got |= want & !0x45;
    }
    assert!(
        (want, host) == (got, ours),
        "{op:?} {imm:#x} of {a:#034x}, {b:#034x} with {mxcsr:#06x}:\n{want:x?} {host:#06x}, ours\n{got:x?} {ours:#06x}"
    );
}

#[test]
fn all_pairs_of_special_values() {
    for &op in SseOp::ALL {
        if is_estimate(op) || !has(op) {
            continue;
        }
        let list = special(is_double(op));
        let last = (op.form().variants() - 1) as u8;
        let mut turn = 0u8;
        for (i, _) in list.iter().enumerate() {
            for (j, _) in list.iter().enumerate() {
                let a = vector(&list, i, is_double(op));
                let b = vector(&list, j, is_double(op));
                for rc in 0..4u32 {
                    for more in [0, 0x40, 0x8000, 0x8040] {
                        turn = turn.wrapping_add(1);
                        both(op, turn & last, a, b, 0x1f80 | rc << 13 | more);
                    }
                }
            }
        }
    }
}

#[test]
fn unmasked_exceptions() {
    for &op in SseOp::ALL {
        // DPPS rounds in steps, and a step's exceptions need not be all there are.
        if is_estimate(op) || !has(op) || op.form() == SseForm::Imm(256) {
            continue;
        }
        let list = special(is_double(op));
        let last = (op.form().variants() - 1) as u8;
        let mut turn = 0u8;
        for n in 0..list.len() * 12 {
            let (i, j) = (n % list.len(), (n * 5 + n / list.len()) % list.len());
            let a = vector(&list, i, is_double(op));
            let b = vector(&list, j, is_double(op));
            let masks = (n as u32).wrapping_mul(0x9e37_79b9) >> 20 & MASKS;
            for rc in 0..4u32 {
                turn = turn.wrapping_add(1);
                let more = [0, 0x40, 0x8000, 0x8040][n % 4];
                both_checked(op, turn & last, a, b, masks | rc << 13 | more);
            }
        }
    }
}
