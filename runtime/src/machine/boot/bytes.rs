//! Little-endian numbers in files, with every access checked.

/// A part of a file.
pub fn slice(file: &[u8], at: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(at).ok()?;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    file.get(start..end)
}

fn array<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// 16 bits.
pub fn u16_at(file: &[u8], at: usize) -> Option<u16> {
    array(file, at).map(u16::from_le_bytes)
}

/// 32 bits.
pub fn u32_at(file: &[u8], at: usize) -> Option<u32> {
    array(file, at).map(u32::from_le_bytes)
}

/// 64 bits.
pub fn u64_at(file: &[u8], at: usize) -> Option<u64> {
    array(file, at).map(u64::from_le_bytes)
}

/// A number of the file's class: 64 bits at `at64`, or 32 bits at `at32`.
pub fn word_at(file: &[u8], wide: bool, at32: usize, at64: usize) -> Option<u64> {
    if wide {
        u64_at(file, at64)
    } else {
        u32_at(file, at32).map(u64::from)
    }
}

/// Writes numbers one after the other.
pub fn dwords(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
