//! Vector operations of SSSE3 and SSE4 that have no op of their own.

use super::{Cx, aes, avx, clmul, sha};
use metaphrase_ir::{VecOp, flags};

/// Lane `n` of 16 bits.
fn word(v: u128, n: usize) -> i16 {
    (v >> (16 * n)) as i16
}

/// Lane `n` of 32 bits.
fn dword(v: u128, n: usize) -> i32 {
    (v >> (32 * n)) as i32
}

/// A vector of words.
fn words(n: usize, f: impl Fn(usize) -> i16) -> u128 {
    (0..n).fold(0, |v, i| v | u128::from(f(i) as u16) << (16 * i))
}

/// A vector of doublewords.
fn dwords(n: usize, f: impl Fn(usize) -> i32) -> u128 {
    (0..n).fold(0, |v, i| v | u128::from(f(i) as u32) << (32 * i))
}

/// A vector of bytes.
fn bytes(n: usize, f: impl Fn(usize) -> u8) -> u128 {
    (0..n).fold(0, |v, i| v | u128::from(f(i)) << (8 * i))
}

/// Lane `i` of a horizontal operation on `n` lanes: which vector, and the first of the two lanes.
fn pair(i: usize, n: usize) -> (bool, usize) {
    (i >= n / 2, 2 * i % n)
}

/// `v` with the sign of `s`, or 0 where that is 0.
fn sign(v: i32, s: i32) -> i32 {
    match s {
        0 => 0,
        _ if s < 0 => v.wrapping_neg(),
        _ => v,
    }
}

/// Signed saturation to 16 bits.
fn saturate(v: i32) -> i16 {
    v.clamp(-0x8000, 0x7fff) as i16
}

fn operate(op: VecOp, imm: u8, size: usize, a: u128, b: u128) -> u128 {
    let across_words = |f: &dyn Fn(i16, i16) -> i16| {
        words(size / 2, |i| {
            let (second, at) = pair(i, size / 2);
            let v = if second { b } else { a };
            f(word(v, at), word(v, at + 1))
        })
    };
    let across_dwords = |f: &dyn Fn(i32, i32) -> i32| {
        dwords(size / 4, |i| {
            let (second, at) = pair(i, size / 4);
            let v = if second { b } else { a };
            f(dword(v, at), dword(v, at + 1))
        })
    };
    let byte = |v: u128, n: usize| (v >> (8 * n)) as u8;
    match op {
        VecOp::Pshufb => bytes(size, |i| match byte(b, i) {
            n if n & 0x80 != 0 => 0,
            n => byte(a, usize::from(n) & (size - 1)),
        }),
        VecOp::Phaddw => across_words(&|x, y| x.wrapping_add(y)),
        VecOp::Phaddd => across_dwords(&|x, y| x.wrapping_add(y)),
        VecOp::Phaddsw => across_words(&|x, y| x.saturating_add(y)),
        VecOp::Phsubw => across_words(&|x, y| x.wrapping_sub(y)),
        VecOp::Phsubd => across_dwords(&|x, y| x.wrapping_sub(y)),
        VecOp::Phsubsw => across_words(&|x, y| x.saturating_sub(y)),
        VecOp::Pmaddubsw => words(size / 2, |i| {
            let product = |n| i32::from(byte(a, n)) * i32::from(byte(b, n) as i8);
            saturate(product(2 * i) + product(2 * i + 1))
        }),
        VecOp::Pmulhrsw => words(size / 2, |i| {
            let product = i32::from(word(a, i)) * i32::from(word(b, i));
            (((product >> 14) + 1) >> 1) as i16
        }),
        VecOp::Psignb => bytes(size, |i| {
            sign(i32::from(byte(a, i) as i8), i32::from(byte(b, i) as i8)) as u8
        }),
        VecOp::Psignw => words(size / 2, |i| {
            sign(word(a, i).into(), word(b, i).into()) as i16
        }),
        VecOp::Psignd => dwords(size / 4, |i| sign(dword(a, i), dword(b, i))),
        VecOp::Palignr => bytes(size, |i| {
            let from = i + usize::from(imm);
            if from < size {
                byte(b, from)
            } else if from < 2 * size {
                byte(a, from - size)
            } else {
                0
            }
        }),
        VecOp::Mpsadbw => {
            let (first, block) = (usize::from(imm >> 2 & 1) * 4, usize::from(imm & 3) * 4);
            words(8, |i| {
                (0..4)
                    .map(|k| byte(a, first + i + k).abs_diff(byte(b, block + k)))
                    .fold(0, |sum, d| sum + i16::from(d))
            })
        }
        VecOp::Phminposuw => {
            let lanes = (0..8).map(|i| (word(b, i) as u16, i));
            let (least, at) = lanes.min().unwrap_or_default();
            u128::from(least) | (at as u128) << 16
        }
        VecOp::Pmuldq => (0..2).fold(0, |v, i| {
            let product = i64::from(dword(a, 2 * i)) * i64::from(dword(b, 2 * i));
            v | u128::from(product as u64) << (64 * i)
        }),
        VecOp::Aesenc
        | VecOp::Aesenclast
        | VecOp::Aesdec
        | VecOp::Aesdeclast
        | VecOp::Aesimc
        | VecOp::Aeskeygenassist => aes::operate(op, imm, a, b),
        VecOp::Pclmulqdq => clmul::operate(imm, a, b),
        VecOp::Sha1rnds4
        | VecOp::Sha1nexte
        | VecOp::Sha1msg1
        | VecOp::Sha1msg2
        | VecOp::Sha256msg1
        | VecOp::Sha256msg2 => sha::operate(op, imm, a, b),
        VecOp::Vpermilps
        | VecOp::Vpermilpd
        | VecOp::Vpsllvd
        | VecOp::Vpsllvq
        | VecOp::Vpsrlvd
        | VecOp::Vpsrlvq
        | VecOp::Vpsravd => avx::operate(op, a, b),
        VecOp::ExpandMask => {
            let lane = usize::from(imm.max(1));
            bytes(16, |i| if b >> (i / lane) & 1 != 0 { 0xff } else { 0 })
        }
    }
}

/// See [`metaphrase_ir::Helper::VecOp`].
pub(super) fn vec_op(cx: &Cx, descriptor: u32, _args: [u64; 3]) -> u64 {
    let v = &mut cx.state().helper_v;
    if let Some((op, imm, short)) = VecOp::unpack(descriptor) {
        let size = if short { 8 } else { 16 };
        v[0] = operate(op, imm, size, v[0], v[1]);
    }
    0
}

/// Elements of the operands of PCMPxSTRx.
#[derive(Clone, Copy)]
struct Elements {
    v: u128,
    words: bool,
    signed: bool,
    /// How many of them are valid.
    len: usize,
}

impl Elements {
    fn get(self, n: usize) -> i32 {
        match (self.words, self.signed) {
            (false, false) => i32::from((self.v >> (8 * n)) as u8),
            (false, true) => i32::from((self.v >> (8 * n)) as i8),
            (true, false) => i32::from((self.v >> (16 * n)) as u16),
            (true, true) => i32::from((self.v >> (16 * n)) as i16),
        }
    }

    fn count(self) -> usize {
        if self.words { 8 } else { 16 }
    }

    /// With the length up to the first 0.
    fn implicit(mut self) -> Elements {
        self.len = (0..self.count())
            .find(|&n| self.get(n) == 0)
            .unwrap_or(self.count());
        self
    }
}

/// The aggregated comparison (SDM volume 2, 4.1.4), before the polarity.
fn aggregate(a: Elements, b: Elements, kind: u8) -> u32 {
    let count = a.count();
    let holds = |j: usize| match kind {
        // Equal any.
        0 => j < b.len && (0..a.len).any(|i| a.get(i) == b.get(j)),
        // Ranges.
        1 => {
            let inside = |i: usize| a.get(i) <= b.get(j) && b.get(j) <= a.get(i + 1);
            j < b.len && (0..a.len / 2).any(|p| inside(2 * p))
        }
        // Equal each: two invalid elements are equal.
        2 => match (j < a.len, j < b.len) {
            (true, true) => a.get(j) == b.get(j),
            (x, y) => x == y,
        },
        // Equal ordered: a is found at j; what reaches beyond the vector counts as found.
        _ => (0..a.len)
            .take(count - j)
            .all(|i| j + i < b.len && a.get(i) == b.get(j + i)),
    };
    (0..count).fold(0, |m, j| m | u32::from(holds(j)) << j)
}

/// See [`metaphrase_ir::Helper::PcmpStr`].
pub(super) fn pcmp_str(cx: &Cx, descriptor: u32, [_, _, lengths]: [u64; 3]) -> u64 {
    let imm = descriptor as u8;
    let v = &cx.state().helper_v;
    let elements = |v: u128, len: u64| {
        let e = Elements {
            v,
            words: imm & 1 != 0,
            signed: imm & 2 != 0,
            len: len as usize,
        };
        if descriptor & 0x100 != 0 {
            e.implicit()
        } else {
            let len = e.len.min(e.count());
            Elements { len, ..e }
        }
    };
    let (a, b) = (
        elements(v[0], lengths & 0xff),
        elements(v[1], lengths >> 8 & 0xff),
    );
    let count = a.count();
    let all = (1u32 << count) - 1;
    let found = aggregate(a, b, imm >> 2 & 3);
    let result = match imm >> 4 & 3 {
        1 => found ^ all,
        3 => found ^ ((1 << b.len) - 1),
        _ => found,
    };
    let index = match result {
        0 => count as u32,
        _ if imm & 0x40 != 0 => 31 - result.leading_zeros(),
        _ => result.trailing_zeros(),
    };
    let mut image = 0;
    for (on, flag) in [
        (result != 0, flags::CF),
        (b.len < count, flags::ZF),
        (a.len < count, flags::SF),
        (result & 1 != 0, flags::OF),
    ] {
        image |= if on { flag } else { 0 };
    }
    u64::from(result) | u64::from(index) << 16 | image << 32
}
