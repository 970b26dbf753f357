//! PCLMULQDQ: products of polynomials over GF(2).

/// The product of the quadwords that the immediate chooses.
pub fn operate(imm: u8, a: u128, b: u128) -> u128 {
    let quad = |v: u128, high: bool| (if high { v >> 64 } else { v }) as u64;
    let (x, y) = (quad(a, imm & 1 != 0), quad(b, imm & 16 != 0));
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("pclmulqdq") {
        // SAFETY: the host has the instruction.
        return unsafe { host(x, y) };
    }
    portable(x, y)
}

fn portable(x: u64, y: u64) -> u128 {
    (0..64).fold(0, |sum, n| {
        let part = if y >> n & 1 != 0 { u128::from(x) } else { 0 };
        sum ^ part << n
    })
}

/// The host's own instruction.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "pclmulqdq")]
fn host(x: u64, y: u64) -> u128 {
    use std::arch::x86_64::*;
    let (x, y) = (_mm_set_epi64x(0, x as i64), _mm_set_epi64x(0, y as i64));
    let r = _mm_clmulepi64_si128::<0>(x, y);
    // SAFETY: both are 16 bytes without invalid values.
    unsafe { std::mem::transmute::<__m128i, u128>(r) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_agree() {
        let mut x = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..1000 {
            let y = x.wrapping_mul(0x2545_f491_4f6c_dd1d).rotate_left(17);
            let pair = u128::from(x) << 64;
            assert_eq!(operate(1, pair, y.into()), portable(x, y));
            x = y ^ x >> 7;
        }
        assert_eq!(portable(3, 3), 5);
    }
}
