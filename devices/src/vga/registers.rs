//! The registers of a VGA (IBM Personal System/2 Hardware Interface Technical Reference, "Video
//! Subsystem"), and what can be worked out from them: addresses, sizes, colours and the beam.

use serde::{Deserialize, Serialize};

/// Sequencer registers.
pub(super) mod seq {
    pub const CLOCKING: usize = 1;
    pub const MAP_MASK: usize = 2;
    pub const CHARACTER_MAP: usize = 3;
    pub const MEMORY_MODE: usize = 4;
    /// Memory mode: planes one after the other; not odd and even.
    pub const SEQUENTIAL: u8 = 0x04;
    /// Memory mode: four bytes, four planes.
    pub const CHAIN_4: u8 = 0x08;
}

/// Graphics controller registers.
pub(super) mod gc {
    pub const SET_RESET: usize = 0;
    pub const ENABLE_SET_RESET: usize = 1;
    pub const COMPARE: usize = 2;
    pub const ROTATE: usize = 3;
    pub const READ_MAP: usize = 4;
    pub const MODE: usize = 5;
    pub const MISC: usize = 6;
    pub const CARE: usize = 7;
    pub const BIT_MASK: usize = 8;
    /// Mode: reads go to odd and even planes.
    pub const ODD_EVEN: u8 = 0x10;
    /// Mode: two bits a pixel, as in a CGA.
    pub const INTERLEAVE: u8 = 0x20;
    /// Mode: eight bits a pixel.
    pub const COLOURS_256: u8 = 0x40;
    /// Misc: graphics, not text.
    pub const GRAPHICS: u8 = 0x01;
}

/// CRT controller registers.
pub(super) mod crtc {
    pub const H_TOTAL: usize = 0x00;
    pub const H_DISPLAYED: usize = 0x01;
    pub const V_TOTAL: usize = 0x06;
    pub const OVERFLOW: usize = 0x07;
    pub const PRESET_ROW: usize = 0x08;
    pub const MAX_SCAN: usize = 0x09;
    pub const CURSOR_START: usize = 0x0a;
    pub const CURSOR_END: usize = 0x0b;
    pub const START_HIGH: usize = 0x0c;
    pub const CURSOR_HIGH: usize = 0x0e;
    pub const V_SYNC_START: usize = 0x10;
    pub const V_SYNC_END: usize = 0x11;
    pub const V_DISPLAYED: usize = 0x12;
    pub const OFFSET: usize = 0x13;
    pub const UNDERLINE: usize = 0x14;
    pub const MODE: usize = 0x17;
    pub const LINE_COMPARE: usize = 0x18;
}

/// Attribute controller registers.
pub(super) mod attr {
    pub const MODE: usize = 0x10;
    pub const PLANES: usize = 0x12;
    pub const PANNING: usize = 0x13;
    pub const COLOUR_SELECT: usize = 0x14;
    /// Index: the palette is connected, and the screen is not blank.
    pub const PALETTE_ON: u8 = 0x20;
}

/// Misc: CRT controller at 3D4h, not 3B4h.
const MISC_COLOUR: u8 = 0x01;
/// Misc: memory answers.
pub(super) const MISC_RAM: u8 = 0x02;

/// The bits that each register of a block has.
const SEQ_BITS: [u8; 5] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e];
const GC_BITS: [u8; 9] = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff];
const ATTR_BITS: [u8; 5] = [0xef, 0xff, 0x3f, 0x0f, 0x0f];

/// All registers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Registers {
    pub misc: u8,
    feature: u8,
    seq_index: u8,
    pub seq: [u8; 5],
    crtc_index: u8,
    pub crtc: [u8; 25],
    gc_index: u8,
    pub gc: [u8; 9],
    attr_index: u8,
    pub attr: [u8; 21],
    /// The next write to 3C0h is data.
    attr_data: bool,
    pub dac_mask: u8,
    /// Entry and component of the next access to the DAC's data.
    dac_at: u16,
    /// It was set up for reading.
    dac_reading: bool,
    dac: Vec<u8>,
    /// DAC values have 8 bits instead of 6.
    pub dac_8_bits: bool,
}

impl Registers {
    pub fn new() -> Registers {
        Registers {
            misc: 0,
            feature: 0,
            seq_index: 0,
            seq: [0; 5],
            crtc_index: 0,
            crtc: [0; 25],
            gc_index: 0,
            gc: [0; 9],
            attr_index: 0,
            attr: [0; 21],
            attr_data: false,
            dac_mask: 0xff,
            dac_at: 0,
            dac_reading: false,
            dac: vec![0; 768],
            dac_8_bits: false,
        }
    }

    /// Makes a state from anywhere one that can be.
    pub fn sanitize(&mut self) {
        self.dac.resize(768, 0);
        self.dac_at %= 768;
    }

    /// Whether the CRT controller is at that one of its two places.
    fn here(&self, port: u16) -> bool {
        (self.misc & MISC_COLOUR != 0) == (port >= 0x3d0)
    }

    /// Reads a port; `input` is input status 1.
    pub fn read(&mut self, port: u16, input: u8) -> u8 {
        let get = |block: &[u8], index: u8| block.get(usize::from(index)).copied().unwrap_or(0);
        match port {
            0x3b0..0x3c0 | 0x3d0..0x3e0 if !self.here(port) => 0xff,
            0x3b4 | 0x3d4 => self.crtc_index,
            0x3b5 | 0x3d5 => get(&self.crtc, self.crtc_index),
            0x3ba | 0x3da => {
                self.attr_data = false;
                input
            }
            0x3c0 => self.attr_index,
            0x3c1 => get(&self.attr, self.attr_index & 0x1f),
            // The monitor is a colour monitor.
            0x3c2 => 0x10,
            0x3c3 => 0x01,
            0x3c4 => self.seq_index,
            0x3c5 => get(&self.seq, self.seq_index),
            0x3c6 => self.dac_mask,
            0x3c7 => {
                if self.dac_reading {
                    0x03
                } else {
                    0x00
                }
            }
            0x3c8 => (self.dac_at / 3) as u8,
            0x3c9 => {
                let value = self.dac[usize::from(self.dac_at)];
                self.dac_next();
                value
            }
            0x3ca => self.feature,
            0x3cc => self.misc,
            0x3ce => self.gc_index,
            0x3cf => get(&self.gc, self.gc_index),
            _ => 0xff,
        }
    }

    pub fn write(&mut self, port: u16, value: u8) {
        let set = |block: &mut [u8], index: u8, value: u8| {
            if let Some(register) = block.get_mut(usize::from(index)) {
                *register = value;
            }
        };
        let bits = |all: &[u8], index: u8| all.get(usize::from(index)).copied().unwrap_or(0);
        match port {
            0x3b0..0x3c0 | 0x3d0..0x3e0 if !self.here(port) => {}
            0x3b4 | 0x3d4 => self.crtc_index = value & 0x3f,
            0x3b5 | 0x3d5 => self.write_crtc(value),
            0x3ba | 0x3da => self.feature = value & 0x03,
            0x3c0 if !self.attr_data => {
                self.attr_index = value & 0x3f;
                self.attr_data = true;
            }
            0x3c0 => {
                self.attr_data = false;
                let index = self.attr_index & 0x1f;
                // The palette can be written only while it is not in use.
                if index >= 0x10 {
                    set(
                        &mut self.attr,
                        index,
                        value & bits(&ATTR_BITS, index - 0x10),
                    );
                } else if self.attr_index & attr::PALETTE_ON == 0 {
                    set(&mut self.attr, index, value & 0x3f);
                }
            }
            0x3c2 => self.misc = value & 0xef,
            0x3c4 => self.seq_index = value & 0x07,
            0x3c5 => set(
                &mut self.seq,
                self.seq_index,
                value & bits(&SEQ_BITS, self.seq_index),
            ),
            0x3c6 => self.dac_mask = value,
            0x3c7 | 0x3c8 => {
                self.dac_reading = port == 0x3c7;
                self.dac_at = u16::from(value) * 3;
            }
            0x3c9 => {
                let mask = if self.dac_8_bits { 0xff } else { 0x3f };
                self.dac[usize::from(self.dac_at)] = value & mask;
                self.dac_next();
            }
            0x3ce => self.gc_index = value & 0x0f,
            0x3cf => set(
                &mut self.gc,
                self.gc_index,
                value & bits(&GC_BITS, self.gc_index),
            ),
            _ => {}
        }
    }

    fn dac_next(&mut self) {
        self.dac_at = (self.dac_at + 1) % 768;
    }

    fn write_crtc(&mut self, value: u8) {
        const PROTECT: u8 = 0x80;
        const LINE_COMPARE_8: u8 = 0x10;
        let index = usize::from(self.crtc_index);
        let protected = self.crtc[crtc::V_SYNC_END] & PROTECT != 0;
        let Some(register) = self.crtc.get_mut(index) else {
            return;
        };
        match index {
            crtc::OVERFLOW if protected => {
                *register = *register & !LINE_COMPARE_8 | value & LINE_COMPARE_8;
            }
            0..=7 if protected => {}
            _ => *register = value,
        }
    }

    /// A CRT controller number of 10 bits: 8 in a register, and two from the overflow register.
    fn vertical(&self, low: usize, bit_8: u8, bit_9: u8) -> u32 {
        let overflow = u32::from(self.crtc[crtc::OVERFLOW]);
        u32::from(self.crtc[low]) | (overflow >> bit_8 & 1) << 8 | (overflow >> bit_9 & 1) << 9
    }

    /// Scan lines that are shown.
    pub fn lines(&self) -> u32 {
        self.vertical(crtc::V_DISPLAYED, 1, 6) + 1
    }

    /// Characters in a line.
    pub fn columns(&self) -> u32 {
        u32::from(self.crtc[crtc::H_DISPLAYED]) + 1
    }

    /// The last scan line before the screen goes on with address 0.
    pub fn line_compare(&self) -> u32 {
        let bit_9 = u32::from(self.crtc[crtc::MAX_SCAN] >> 6 & 1) << 9;
        self.vertical(crtc::LINE_COMPARE, 4, 4) & 0x1ff | bit_9
    }

    /// Scan lines of a row of characters.
    pub fn row_height(&self) -> u32 {
        u32::from(self.crtc[crtc::MAX_SCAN] & 0x1f) + 1
    }

    /// Every line is shown twice.
    pub fn doubles(&self) -> bool {
        self.crtc[crtc::MAX_SCAN] & 0x80 != 0
    }

    /// A 16-bit number in two registers.
    pub fn pair(&self, high: usize) -> u16 {
        u16::from_be_bytes([self.crtc[high], self.crtc[high + 1]])
    }

    /// By how much the address counter grows from row to row.
    pub fn pitch(&self) -> u32 {
        u32::from(self.crtc[crtc::OFFSET]) * 2
    }

    /// The address in a plane that the address counter means, in that scan line of its row.
    pub fn address(&self, counter: u32, scan: u32) -> u16 {
        let (mode, counter) = (self.crtc[crtc::MODE], counter & 0xffff);
        let address = if self.crtc[crtc::UNDERLINE] & 0x40 != 0 {
            counter << 2 | counter >> 14
        } else if mode & 0x40 == 0 {
            let wrap = if mode & 0x20 != 0 { 15 } else { 13 };
            counter << 1 | counter >> wrap & 1
        } else {
            counter
        };
        let mut address = address as u16;
        // As in older adapters, the scan line chooses a bank.
        for bit in 0..2 {
            if mode & 1 << bit == 0 {
                address = address & !(0x2000 << bit) | ((scan >> bit & 1) as u16) << (13 + bit);
            }
        }
        address
    }

    /// Nothing is shown.
    pub fn is_blank(&self) -> bool {
        self.attr_index & attr::PALETTE_ON == 0 || self.seq[seq::CLOCKING] & 0x20 != 0
    }

    /// The number in the DAC of one of the 16 colours of the attribute controller.
    pub fn colour(&self, index: u8) -> u8 {
        let palette = self.attr[usize::from(index & self.attr[attr::PLANES] & 0x0f)];
        let select = self.attr[attr::COLOUR_SELECT];
        let low = if self.attr[attr::MODE] & 0x80 != 0 {
            palette & 0x0f | (select & 3) << 4
        } else {
            palette
        };
        low | (select & 0x0c) << 4
    }

    /// A colour of the DAC, 8 bits each.
    pub fn rgb(&self, index: u8) -> [u8; 3] {
        let at = usize::from(index & self.dac_mask) * 3;
        let wide = |value: u8| {
            if self.dac_8_bits {
                value
            } else {
                value << 2 | value >> 4
            }
        };
        std::array::from_fn(|i| wide(self.dac[at + i]))
    }

    /// Input status 1 without the changing bits of diagnosis: where the beam is at a time.
    pub fn beam(&self, now: u64) -> u8 {
        const NOT_DISPLAYING: u8 = 0x01;
        const RETRACE: u8 = 0x08;
        let clocking = self.seq[seq::CLOCKING];
        let dots = if clocking & 1 != 0 { 8 } else { 9 };
        // Nanoseconds of a thousand characters, with a clock of 25.175 or 28.322 MHz, or half.
        let dot = if self.misc & 0x0c == 0x04 {
            35_308
        } else {
            39_722
        };
        let character = (dots * dot) << (clocking >> 3 & 1);
        let line = (u64::from(self.crtc[crtc::H_TOTAL]) + 5) * character / 1000;
        let lines = u64::from(self.vertical(crtc::V_TOTAL, 0, 5)) + 2;
        let at = now % (line * lines);
        let (y, x) = (at / line, at % line);
        let shown = u64::from(self.columns()) * character / 1000;
        let mut status = 0;
        if y >= u64::from(self.lines()) || x >= shown {
            status |= NOT_DISPLAYING;
        }
        let start = u64::from(self.vertical(crtc::V_SYNC_START, 2, 7));
        let end = u64::from(self.crtc[crtc::V_SYNC_END] & 0x0f);
        // The end is known by its lowest four bits.
        let len = match end.wrapping_sub(start) & 0x0f {
            0 => 16,
            len => len,
        };
        if (start..start + len).contains(&y) {
            status |= RETRACE | NOT_DISPLAYING;
        }
        status
    }
}
