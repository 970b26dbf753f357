//! The memory of a VGA: four planes of 64 KiB behind a window at A0000h, with latches and the
//! graphics controller between them and the processor. Plane `p` at `a` is byte `4 a + p` of the
//! video memory.

use super::registers::{MISC_RAM, Registers, gc, seq};

/// Where the window begins that the planes may be seen through.
pub const WINDOW: u64 = 0xa_0000;
/// Its length.
pub const WINDOW_LEN: u64 = 0x2_0000;

/// Each bit of four becomes a byte of ones or zeros.
fn spread(bits: u8) -> [u8; 4] {
    std::array::from_fn(|i| if bits >> i & 1 != 0 { 0xff } else { 0 })
}

impl Registers {
    /// The offset in the part of the window that answers.
    pub fn window(&self, offset: u64) -> Option<u32> {
        let (start, len) = match self.gc[gc::MISC] >> 2 & 3 {
            0 => (0, 0x2_0000),
            1 => (0, 0x1_0000),
            2 => (0x1_0000, 0x8000),
            _ => (0x1_8000, 0x8000),
        };
        let at = offset.checked_sub(start).filter(|at| *at < len)?;
        (self.misc & MISC_RAM != 0).then_some(at as u32)
    }

    /// Reads through the graphics controller. `memory` has at least 256 KiB.
    pub fn read_planes(&self, at: u32, memory: &[u8], latches: &mut [u8; 4]) -> u8 {
        let low = at as u8;
        let (address, plane) = if self.seq[seq::MEMORY_MODE] & seq::CHAIN_4 != 0 {
            (at & !3, low & 3)
        } else if self.gc[gc::MODE] & gc::ODD_EVEN != 0 {
            (at & !1, self.gc[gc::READ_MAP] & 2 | low & 1)
        } else {
            (at, self.gc[gc::READ_MAP])
        };
        let cell = (address as usize & 0xffff) * 4;
        latches.copy_from_slice(&memory[cell..cell + 4]);
        if self.gc[gc::MODE] & 8 == 0 {
            return latches[usize::from(plane & 3)];
        }
        let (wanted, care) = (spread(self.gc[gc::COMPARE]), spread(self.gc[gc::CARE]));
        let differ = |n: usize| (latches[n] ^ wanted[n]) & care[n];
        !(differ(0) | differ(1) | differ(2) | differ(3))
    }

    /// Writes through the graphics controller.
    pub fn write_planes(&self, at: u32, value: u8, memory: &mut [u8], latches: [u8; 4]) {
        let (mode, mut mask) = (self.seq[seq::MEMORY_MODE], self.seq[seq::MAP_MASK]);
        let address = if mode & seq::CHAIN_4 != 0 {
            mask &= 1 << (at & 3);
            at & !3
        } else if mode & seq::SEQUENTIAL == 0 {
            mask &= 0x5 << (at & 1);
            at & !1
        } else {
            at
        };
        let cell = (address as usize & 0xffff) * 4;
        let data = self.combine(value, latches);
        for plane in (0..4).filter(|plane| mask & 1 << plane != 0) {
            memory[cell + plane] = data[plane];
        }
    }

    /// What a write puts into the planes.
    fn combine(&self, value: u8, latches: [u8; 4]) -> [u8; 4] {
        let rotated = value.rotate_right(u32::from(self.gc[gc::ROTATE] & 7));
        let set = spread(self.gc[gc::SET_RESET]);
        let mut bits = self.gc[gc::BIT_MASK];
        let data = match self.gc[gc::MODE] & 3 {
            0 => {
                let enable = spread(self.gc[gc::ENABLE_SET_RESET]);
                std::array::from_fn(|i| set[i] & enable[i] | rotated & !enable[i])
            }
            1 => return latches,
            2 => spread(value),
            _ => {
                bits &= rotated;
                set
            }
        };
        let function = self.gc[gc::ROTATE] >> 3 & 3;
        std::array::from_fn(|i| {
            let result = match function {
                0 => data[i],
                1 => data[i] & latches[i],
                2 => data[i] | latches[i],
                _ => data[i] ^ latches[i],
            };
            result & bits | latches[i] & !bits
        })
    }
}
