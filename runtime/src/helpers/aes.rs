//! The rounds of AES (FIPS 197) as AES-NI has them.
//!
//! The host's own instructions where it has them, otherwise tables of S-boxes made at compile
//! time. A state is 16 bytes, column by column, byte 0 lowest.

use metaphrase_ir::VecOp;

/// A product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1.
const fn product(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut r) = (a, b, 0);
    while b != 0 {
        if b & 1 != 0 {
            r ^= a;
        }
        let carry = a >> 7;
        a = (a << 1) ^ (carry * 0x1b);
        b >>= 1;
    }
    r
}

/// The S-box and its inverse.
const BOXES: ([u8; 256], [u8; 256]) = {
    let (mut forward, mut inverse) = ([0; 256], [0; 256]);
    // Powers of the generator 3 and of its inverse 0xf6 give each number with its reciprocal.
    let (mut p, mut q) = (1u8, 1u8);
    loop {
        let s = q ^ q.rotate_left(1) ^ q.rotate_left(2) ^ q.rotate_left(3) ^ q.rotate_left(4);
        forward[p as usize] = s ^ 0x63;
        p = product(p, 3);
        q = product(q, 0xf6);
        if p == 1 {
            break;
        }
    }
    forward[0] = 0x63;
    let mut n = 0;
    while n < 256 {
        inverse[forward[n] as usize] = n as u8;
        n += 1;
    }
    (forward, inverse)
};

static SBOX: [u8; 256] = BOXES.0;
static INVERSE: [u8; 256] = BOXES.1;

fn map(v: u128, f: impl Fn(u8) -> u8) -> u128 {
    u128::from_le_bytes(v.to_le_bytes().map(f))
}

/// ShiftRows, or with `step` 13 its inverse: byte `i` comes from `i * step + ...` columns on.
fn shift_rows(v: u128, step: usize) -> u128 {
    let from = v.to_le_bytes();
    u128::from_le_bytes(std::array::from_fn(|i| {
        let (column, row) = (i / 4, i % 4);
        from[(column + row * step) % 4 * 4 + row]
    }))
}

/// Each column multiplied by a polynomial, given by the factors of its own row and the next ones.
fn mix(v: u128, factors: [u8; 4]) -> u128 {
    let from = v.to_le_bytes();
    u128::from_le_bytes(std::array::from_fn(|i| {
        let (column, row) = (i & !3, i % 4);
        (0..4).fold(0, |sum, k| {
            sum ^ product(from[column + (row + k) % 4], factors[k])
        })
    }))
}

const MIX: [u8; 4] = [2, 3, 1, 1];
const UNMIX: [u8; 4] = [14, 11, 13, 9];

/// The operation on `a` (the state) and `b` (the key, or the only operand) without host help.
fn portable(op: VecOp, imm: u8, a: u128, b: u128) -> u128 {
    let forward = || map(shift_rows(a, 1), |x| SBOX[usize::from(x)]);
    let backward = || map(shift_rows(a, 3), |x| INVERSE[usize::from(x)]);
    match op {
        VecOp::Aesenc => mix(forward(), MIX) ^ b,
        VecOp::Aesenclast => forward() ^ b,
        VecOp::Aesdec => mix(backward(), UNMIX) ^ b,
        VecOp::Aesdeclast => backward() ^ b,
        VecOp::Aesimc => mix(b, UNMIX),
        _ => keygenassist(imm, b),
    }
}

fn keygenassist(imm: u8, b: u128) -> u128 {
    let substituted = |shift: u32| {
        let word = (b >> shift) as u32;
        u32::from_le_bytes(word.to_le_bytes().map(|x| SBOX[usize::from(x)]))
    };
    let (one, three) = (substituted(32), substituted(96));
    let with = |word: u32| word.rotate_right(8) ^ u32::from(imm);
    u128::from(one)
        | u128::from(with(one)) << 32
        | u128::from(three) << 64
        | u128::from(with(three)) << 96
}

/// The operation; `op` is one of AES-NI's.
#[cfg(target_arch = "x86_64")]
pub fn operate(op: VecOp, imm: u8, a: u128, b: u128) -> u128 {
    if op != VecOp::Aeskeygenassist && std::arch::is_x86_feature_detected!("aes") {
        // SAFETY: the host has the instructions.
        unsafe { host(op, a, b) }
    } else {
        portable(op, imm, a, b)
    }
}

/// The operation; `op` is one of AES-NI's.
#[cfg(not(target_arch = "x86_64"))]
pub fn operate(op: VecOp, imm: u8, a: u128, b: u128) -> u128 {
    portable(op, imm, a, b)
}

/// The host's own instruction.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "aes")]
fn host(op: VecOp, a: u128, b: u128) -> u128 {
    use std::arch::x86_64::*;
    // SAFETY: both are 16 bytes without invalid values.
    let [a, b] = [a, b].map(|v| unsafe { std::mem::transmute::<u128, __m128i>(v) });
    let r = match op {
        VecOp::Aesenc => _mm_aesenc_si128(a, b),
        VecOp::Aesenclast => _mm_aesenclast_si128(a, b),
        VecOp::Aesdec => _mm_aesdec_si128(a, b),
        VecOp::Aesdeclast => _mm_aesdeclast_si128(a, b),
        _ => _mm_aesimc_si128(b),
    };
    // SAFETY: as above.
    unsafe { std::mem::transmute::<__m128i, u128>(r) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 197, appendix A.1 and B: the first round key and the first round of the example.
    #[test]
    fn the_example_of_the_standard() {
        let be = |v: u128| v.swap_bytes();
        let key = be(0x2b7e1516_28aed2a6_abf71588_09cf4f3c);
        let assisted = keygenassist(1, key) >> 96;
        let mut word = assisted as u32;
        let mut next = 0u128;
        for n in 0..4 {
            word ^= (key >> (32 * n)) as u32;
            next |= u128::from(word) << (32 * n);
        }
        assert_eq!(next, be(0xa0fafe17_88542cb1_23a33939_2a6c7605));
        let start = be(0x193de3be_a0f4e22b_9ac68d2a_e9f84808);
        let after = be(0xa49c7ff2_689f352b_6b5bea43_026a5049);
        assert_eq!(portable(VecOp::Aesenc, 0, start, next), after);
    }

    #[test]
    fn both_ways_agree() {
        let mut x = 0x0123_4567_89ab_cdef_u128;
        for _ in 0..1000 {
            let a = x;
            x = x
                .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
                .wrapping_add(77);
            for op in [
                VecOp::Aesenc,
                VecOp::Aesenclast,
                VecOp::Aesdec,
                VecOp::Aesdeclast,
                VecOp::Aesimc,
            ] {
                assert_eq!(operate(op, 0, a, x), portable(op, 0, a, x), "{op:?}");
            }
        }
    }
}
