//! The steps of SHA-1 and SHA-256 (FIPS 180-4) as the SHA extensions have them. Words count from
//! the low end of a vector.

use super::Cx;
use metaphrase_ir::VecOp;

fn words(v: u128) -> [u32; 4] {
    std::array::from_fn(|n| (v >> (32 * n)) as u32)
}

fn vector(w: [u32; 4]) -> u128 {
    (0..4).fold(0, |v, n| v | u128::from(w[n]) << (32 * n))
}

fn choose(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ !x & z
}

fn majority(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ x & z ^ y & z
}

fn parity(x: u32, y: u32, z: u32) -> u32 {
    x ^ y ^ z
}

fn sigma0(x: u32) -> u32 {
    x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3
}

fn sigma1(x: u32) -> u32 {
    x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10
}

/// SHA1RNDS4: four rounds of the kind that the immediate chooses. The first message word has E
/// added already.
fn sha1rnds4(imm: u8, a: u128, b: u128) -> u128 {
    let (f, k): (fn(u32, u32, u32) -> u32, u32) = match imm & 3 {
        0 => (choose, 0x5a82_7999),
        1 => (parity, 0x6ed9_eba1),
        2 => (majority, 0x8f1b_bcdc),
        _ => (parity, 0xca62_c1d6),
    };
    let ([mut d, mut c, mut b_, mut a_], w) = (words(a), words(b));
    let mut e = 0;
    for n in (0..4).rev() {
        let sum = f(b_, c, d)
            .wrapping_add(a_.rotate_left(5))
            .wrapping_add(w[n])
            .wrapping_add(e)
            .wrapping_add(k);
        (e, d, c, b_, a_) = (d, c, b_.rotate_left(30), a_, sum);
    }
    vector([d, c, b_, a_])
}

/// The operation on `a` and `b`; `op` is one of the SHA extensions'.
pub fn operate(op: VecOp, imm: u8, a: u128, b: u128) -> u128 {
    let (x, y) = (words(a), words(b));
    match op {
        VecOp::Sha1rnds4 => sha1rnds4(imm, a, b),
        VecOp::Sha1nexte => {
            let [y0, y1, y2, y3] = y;
            vector([y0, y1, y2, y3.wrapping_add(x[3].rotate_left(30))])
        }
        VecOp::Sha1msg1 => vector([x[0] ^ y[2], x[1] ^ y[3], x[2] ^ x[0], x[3] ^ x[1]]),
        VecOp::Sha1msg2 => {
            let w16 = (x[3] ^ y[2]).rotate_left(1);
            let w17 = (x[2] ^ y[1]).rotate_left(1);
            let w18 = (x[1] ^ y[0]).rotate_left(1);
            let w19 = (x[0] ^ w16).rotate_left(1);
            vector([w19, w18, w17, w16])
        }
        VecOp::Sha256msg1 => {
            let next = [x[1], x[2], x[3], y[0]];
            vector(std::array::from_fn(|n| x[n].wrapping_add(sigma0(next[n]))))
        }
        _ => {
            // SHA256MSG2.
            let w16 = x[0].wrapping_add(sigma1(y[2]));
            let w17 = x[1].wrapping_add(sigma1(y[3]));
            let w18 = x[2].wrapping_add(sigma1(w16));
            let w19 = x[3].wrapping_add(sigma1(w17));
            vector([w16, w17, w18, w19])
        }
    }
}

/// SHA256RNDS2 of `a`, `b` and the implicit operand.
fn rounds(a: u128, b: u128, constants: u128) -> u128 {
    let ([mut h, mut g, mut d, mut c], [mut f, mut e, mut b_, mut a_]) = (words(a), words(b));
    for wk in &words(constants)[..2] {
        let big1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let big0 = a_.rotate_right(2) ^ a_.rotate_right(13) ^ a_.rotate_right(22);
        let sum = choose(e, f, g)
            .wrapping_add(big1)
            .wrapping_add(*wk)
            .wrapping_add(h);
        let other = majority(a_, b_, c).wrapping_add(big0);
        (h, g, f, e) = (g, f, e, sum.wrapping_add(d));
        (d, c, b_, a_) = (c, b_, a_, sum.wrapping_add(other));
    }
    vector([f, e, b_, a_])
}

/// See [`metaphrase_ir::Helper::Sha256Rnds2`].
pub fn sha256_rnds2(cx: &Cx, _descriptor: u32, _args: [u64; 3]) -> u64 {
    let v = &mut cx.state().helper_v;
    v[0] = rounds(v[0], v[1], v[2]);
    0
}
