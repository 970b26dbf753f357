//! What IDENTIFY DEVICE and IDENTIFY PACKET DEVICE answer (ATA/ATAPI-6, 8.15 and 8.16).

use super::drive::DriveState;

/// Heads of the geometry that disks show to software that does not know LBA.
pub(super) const HEADS: u8 = 16;
/// Sectors of a track of that geometry.
pub(super) const SECTORS: u8 = 63;
/// Most sectors that READ MULTIPLE moves in one window.
pub(super) const MULTIPLE: u8 = 16;

/// Multiword DMA modes 0 to 2, and ultra DMA modes 0 to 5.
const MULTIWORD: u16 = 0x0007;
const ULTRA: u16 = 0x003f;
/// 256 words.
const WORDS: usize = 256;

/// Puts text where IDENTIFY has it: two characters a word, the first in the upper byte, filled up
/// with spaces.
fn text(words: &mut [u16], text: &str) {
    let mut bytes = text.bytes().chain(std::iter::repeat(b' '));
    for word in words {
        *word = u16::from_be_bytes([0; 2].map(|_| bytes.next().unwrap_or(b' ')));
    }
}

/// The cylinders of a disk of that many sectors.
pub(super) fn cylinders(total: u64, heads: u8, sectors: u8) -> u16 {
    let track = u64::from(heads.max(1)) * u64::from(sectors.max(1));
    (total / track).min(16_383) as u16
}

/// The modes that a drive offers, with the one that is chosen in the upper byte.
fn modes(offered: u16, kind: u8, chosen: u8) -> u16 {
    if chosen & 0xf8 == kind {
        offered | 0x0100 << (chosen & 7)
    } else {
        offered
    }
}

/// What both kinds of drives say.
fn common(state: &DriveState, serial: &str, model: &str) -> [u16; WORDS] {
    let mut words = [0; WORDS];
    text(&mut words[10..20], serial);
    text(&mut words[23..27], "1.0");
    text(&mut words[27..47], model);
    // DMA, LBA, IORDY.
    words[49] = 0x0b00;
    words[51] = 0x0200;
    words[63] = modes(MULTIWORD, 0x20, state.transfer_mode);
    // PIO modes 3 and 4, with a cycle of 120 ns.
    words[64] = 0x0003;
    words[65..69].fill(120);
    // ATA/ATAPI-4 to 6.
    words[80] = 0x0070;
    words[83] = 0x4000;
    words[84] = 0x4000;
    words[87] = 0x4000;
    words[88] = modes(ULTRA, 0x40, state.transfer_mode);
    words
}

/// The bytes, with a checksum.
fn bytes(mut words: [u16; WORDS]) -> Vec<u8> {
    words[255] = 0x00a5;
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[511] = sum.wrapping_neg();
    bytes
}

/// A disk of that many sectors.
pub(super) fn disk(state: &DriveState, serial: &str, total: u64) -> Vec<u8> {
    let mut words = common(state, serial, "METAPHRASE DISK");
    let dwords = |words: &mut [u16], value: u64| {
        for (i, word) in words.iter_mut().enumerate() {
            *word = (value >> (16 * i)) as u16;
        }
    };
    words[0] = 0x0040;
    words[1] = cylinders(total, HEADS, SECTORS);
    words[3] = u16::from(HEADS);
    words[6] = u16::from(SECTORS);
    words[47] = 0x8000 | u16::from(MULTIPLE);
    words[50] = 0x4000;
    words[53] = 0x0007;
    let (heads, sectors) = (state.heads, state.sectors);
    words[54] = cylinders(total, heads, sectors);
    words[55] = u16::from(heads);
    words[56] = u16::from(sectors);
    let current = u64::from(words[54]) * u64::from(heads) * u64::from(sectors);
    dwords(&mut words[57..59], current);
    if state.multiple != 0 {
        words[59] = 0x0100 | u16::from(state.multiple);
    }
    dwords(&mut words[60..62], total.min(0x0fff_ffff));
    // Power management, write cache; 48 bits, cache flushes; forced unit access.
    words[82] = 0x0028;
    words[83] |= 0x3400;
    words[84] |= 0x0040;
    words[85] = 0x0008 | u16::from(state.write_cache) << 5;
    words[86] = 0x3400;
    words[87] |= 0x0040;
    // A cable of 80 wires.
    words[93] = 0x6001;
    dwords(&mut words[100..104], total.min((1 << 48) - 1));
    bytes(words)
}

/// A CD-ROM drive.
pub(super) fn cd(state: &DriveState, serial: &str) -> Vec<u8> {
    let mut words = common(state, serial, "METAPHRASE CD-ROM");
    // A removable CD-ROM with packets of 12 bytes, which it wants within 50 µs.
    words[0] = 0x85c0;
    words[53] = 0x0006;
    // Packets, DEVICE RESET, power management.
    words[82] = 0x0218;
    words[85] = 0x0218;
    words[93] = 0x6001;
    bytes(words)
}
