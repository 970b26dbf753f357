//! Bit manipulation and wide division.

use super::Cx;

/// PDEP.
pub(super) fn pdep(_: &Cx, _: u32, [source, mut mask, _]: [u64; 3]) -> u64 {
    let (mut out, mut bit) = (0, 0);
    while mask != 0 {
        out |= (source >> bit & 1) << mask.trailing_zeros();
        mask &= mask - 1;
        bit += 1;
    }
    out
}

/// PEXT.
pub(super) fn pext(_: &Cx, _: u32, [source, mut mask, _]: [u64; 3]) -> u64 {
    let (mut out, mut bit) = (0, 0);
    while mask != 0 {
        out |= (source >> mask.trailing_zeros() & 1) << bit;
        mask &= mask - 1;
        bit += 1;
    }
    out
}

/// The Castagnoli polynomial, bit-reflected.
const CASTAGNOLI: u32 = 0x82f6_3b78;

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { CASTAGNOLI } else { 0 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

/// CRC32.
pub(super) fn crc32(_: &Cx, bytes: u32, [crc, data, _]: [u64; 3]) -> u64 {
    let data = data.to_le_bytes();
    let used = &data[..(bytes as usize).min(8)];
    u64::from(used.iter().fold(crc as u32, |crc, &byte| {
        crc >> 8 ^ CRC_TABLE[usize::from(crc as u8 ^ byte)]
    }))
}

fn unsigned(high: u64, low: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

/// Unsigned quotient; 0 for a zero divisor, which the frontend excludes.
pub(super) fn udivw(_: &Cx, _: u32, [high, low, by]: [u64; 3]) -> u64 {
    unsigned(high, low).checked_div(u128::from(by)).unwrap_or(0) as u64
}

/// Signed quotient, likewise; an unrepresentable one is cut.
pub(super) fn sdivw(_: &Cx, _: u32, [high, low, by]: [u64; 3]) -> u64 {
    let by = i128::from(by as i64);
    (unsigned(high, low) as i128).checked_div(by).unwrap_or(0) as u64
}

/// Whether the signed quotient exists and fits in 64 bits.
pub(super) fn sdivfits(_: &Cx, _: u32, [high, low, by]: [u64; 3]) -> u64 {
    let quotient = (unsigned(high, low) as i128).checked_div(i128::from(by as i64));
    u64::from(quotient.is_some_and(|q| i64::try_from(q).is_ok()))
}
