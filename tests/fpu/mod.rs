//! What the tests of the x87 share: telling values, images, a page for native code.
#![allow(dead_code)]

use super::host::case::DATA;
use super::host::rng::Rng;

/// Size of a memory operand: an FSAVE image and room around it.
pub const OPERAND_LEN: usize = 128;
/// An FSAVE image.
pub type Image = [u8; 108];

// Places in the data area.
pub const BEFORE: u64 = DATA;
pub const OPERAND: u64 = DATA + 0x200;
pub const AFTER: u64 = DATA + 0x400;
pub const WORDS: u64 = DATA + 0x600;
pub const STACK: u64 = DATA + 0x1000;

/// An 80-bit value of any class: significand, then sign and exponent.
pub fn extended(rng: &mut Rng) -> (u64, u16) {
    let sign = (rng.below(2) << 15) as u16;
    let top = 1u64 << 63;
    let (mantissa, exponent) = match rng.below(16) {
        0 => (0, 0),
        1 => (top, 0x3fff),
        2 => (top, 0x7fff),
        3 => (0xc0 << 56 | rng.u64() >> 3, 0x7fff),
        4 => (top | rng.u64() >> 2 | 1, 0x7fff),
        5 => (rng.u64() >> 1, 0),
        6 => (rng.u64() >> 1, rng.below(0x8000)),
        7 => (top | rng.u64(), rng.below(0x8000)),
        8 => (top | rng.below(64) << 56, 0x3fff + rng.below(8)),
        9 => (top | rng.u64(), 0x3fff - 0x3ff + rng.below(0x7ff)),
        10 => (top | rng.u64() << 11, 0x3fff - 20 + rng.below(40)),
        11 => (top | rng.u64() << 40, 0x3fff - 0x80 + rng.below(0x100)),
        12 => (top | rng.u64(), rng.pick(&[0, 1, 0x7ffe, 0x3bff, 0x43ff])),
        _ => (top | rng.u64(), 0x3fff - 4 + rng.below(70)),
    };
    (mantissa, exponent as u16 | sign)
}

/// Bytes for a memory operand: often a float or integer of a telling value.
pub fn operand(rng: &mut Rng) -> [u8; OPERAND_LEN] {
    let mut out = [0; OPERAND_LEN];
    for chunk in out.chunks_mut(8) {
        chunk.copy_from_slice(&rng.u64().to_le_bytes());
    }
    let telling: u64 = match rng.below(12) {
        0 => 0,
        1 => 1.0f64.to_bits(),
        2 => f64::INFINITY.to_bits(),
        3 => 0x7ff8 << 48 | rng.u64() >> 16,
        4 => 0x7ff0 << 48 | rng.u64() >> 16,
        5 => rng.u64() >> 13,
        6 => f64::from(rng.u64() as i32).to_bits(),
        7 => f32::from(rng.u64() as i16).to_bits().into(),
        8 => rng.pick(&[0x7f80_0000, 0x7fc0_1234, 0xff80_0001, 0x8000_0001, 0x1234]),
        9 => rng.below(1000),
        _ => return out,
    };
    out[..8].copy_from_slice(&telling.to_le_bytes());
    out
}

/// Ten bytes of packed decimal.
pub fn decimal(rng: &mut Rng) -> [u8; 10] {
    let mut out = [0; 10];
    for b in &mut out[..9] {
        *b = (rng.below(10) << 4 | rng.below(10)) as u8;
    }
    out[9] = (rng.below(2) << 7) as u8;
    out
}

/// A random FSAVE image without a pending exception.
pub fn random_image(rng: &mut Rng) -> Image {
    let mut image = [0u8; 108];
    let masks = match rng.below(3) {
        0 => rng.u64() as u16 & 0x3f,
        _ => 0x3f,
    };
    let mut control = rng.u64() as u16 & 0xf00 | masks | 0x40;
    if control & 0x300 == 0x100 {
        // A reserved precision has no meaning.
        control ^= 0x200;
    }
    let status = rng.u64() as u16 & (0x7f40 | masks);
    let empty = match rng.below(4) {
        0 => rng.u64() as u8,
        1 => 0,
        // Free room above the stack, whatever TOP is.
        n => (if n == 2 { 0x80u8 } else { 0xe0 }).rotate_left(u32::from(status >> 11 & 7)),
    };
    let tags = (0..8)
        .filter(|n| empty >> n & 1 != 0)
        .fold(0u16, |w, n| w | 3 << (2 * n));
    image[0..2].copy_from_slice(&control.to_le_bytes());
    image[4..6].copy_from_slice(&status.to_le_bytes());
    image[8..10].copy_from_slice(&tags.to_le_bytes());
    let pointers = [0x7654_3210, 0x0123_1234, 0x0fed_cba9, 0x5678u32];
    for (bytes, word) in image[12..28].chunks_mut(4).zip(pointers) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    for register in image[28..].chunks_mut(10) {
        let (mantissa, exponent) = extended(rng);
        register[..8].copy_from_slice(&mantissa.to_le_bytes());
        register[8..].copy_from_slice(&exponent.to_le_bytes());
    }
    image
}

/// A page of native code.
pub struct Native(pub *mut u8);

impl Native {
    pub fn new() -> Native {
        // SAFETY: a new anonymous mapping goes where nothing else is.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(p, libc::MAP_FAILED);
        Native(p.cast())
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nobody runs in it.
        unsafe { libc::munmap(self.0.cast(), 4096) };
    }
}

/// Whether the host keeps selectors, opcode and operand pointer whatever happens (CPUID leaf 7:
/// neither FDP_EXCPTN_ONLY nor deprecated FCS and FDS).
pub fn host_keeps_pointers() -> bool {
    std::arch::x86_64::__cpuid_count(7, 0).ebx & (1 << 6 | 1 << 13) == 0
}
