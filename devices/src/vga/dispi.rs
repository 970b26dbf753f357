//! The registers of the Bochs display interface, which sets up packed-pixel modes with one linear
//! frame buffer: an index at 1CEh and a 16-bit datum at 1CFh.

use serde::{Deserialize, Serialize};

/// Port of the index; the data port is the next.
pub const PORT: u16 = 0x1ce;
/// Ports to attach: a word at each of two.
pub const PORTS: u64 = 3;

const ID: u16 = 0;
const X: u16 = 1;
const Y: u16 = 2;
const BITS: u16 = 3;
const ENABLE: u16 = 4;
const BANK: u16 = 5;
const VIRTUAL_WIDTH: u16 = 6;
const VIRTUAL_HEIGHT: u16 = 7;
const X_OFFSET: u16 = 8;
const Y_OFFSET: u16 = 9;
const MEMORY: u16 = 10;

/// The newest version of the interface; older ones can be chosen.
const VERSIONS: std::ops::RangeInclusive<u16> = 0xb0c0..=0xb0c5;
const ENABLED: u16 = 0x01;
const CAPABILITIES: u16 = 0x02;
const DAC_8_BITS: u16 = 0x20;
const KEEP_MEMORY: u16 = 0x80;
const MOST: [u16; 3] = [2560, 1600, 32];

/// What a write asks for beside the change of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    None,
    /// A mode has been switched on or off.
    Mode {
        /// The memory of the mode is to be cleared.
        clear: bool,
    },
}

/// The registers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Dispi {
    index: u16,
    id: u16,
    /// Width, height, bits a pixel.
    size: [u16; 3],
    enable: u16,
    bank: u16,
    virtual_width: u16,
    offset: [u16; 2],
}

impl Dispi {
    pub fn new() -> Dispi {
        Dispi {
            index: 0,
            id: *VERSIONS.end(),
            size: [0, 0, 8],
            enable: 0,
            bank: 0,
            virtual_width: 0,
            offset: [0; 2],
        }
    }

    /// Makes a state from anywhere one that can be.
    pub fn sanitize(&mut self) {
        for (size, most) in self.size.iter_mut().zip(MOST) {
            *size = (*size).min(most);
        }
        if !matches!(self.size[2], 4 | 8 | 15 | 16 | 24) {
            self.size[2] = 32;
        }
    }

    /// Whether it has taken over from the VGA.
    pub fn is_enabled(&self) -> bool {
        self.enable & ENABLED != 0
    }

    pub fn dac_8_bits(&self) -> bool {
        self.enable & DAC_8_BITS != 0
    }

    pub fn width(&self) -> usize {
        self.size[0].into()
    }

    pub fn height(&self) -> usize {
        self.size[1].into()
    }

    pub fn bits(&self) -> usize {
        self.size[2].into()
    }

    /// Where the part of memory begins that the 64 KiB window shows.
    pub fn bank(&self) -> usize {
        usize::from(self.bank) << 16
    }

    /// Bytes from line to line. With 4 bits a pixel, those of each plane.
    pub fn pitch(&self) -> usize {
        let width = usize::from(self.virtual_width.max(self.size[0]));
        match self.bits() {
            4 => width / 8,
            15 => width * 2,
            bits => width * bits / 8,
        }
    }

    /// The first byte that is shown.
    pub fn start(&self) -> usize {
        let [x, y] = self.offset.map(usize::from);
        let bytes = match self.bits() {
            4 => x / 8,
            15 => x * 2,
            bits => x * bits / 8,
        };
        y * self.pitch() + bytes
    }

    pub fn read_index(&self) -> u16 {
        self.index
    }

    pub fn write_index(&mut self, value: u16) {
        self.index = value;
    }

    /// How many lines of the virtual width fit into memory.
    fn virtual_height(&self, memory: usize) -> u16 {
        let planes = if self.bits() == 4 { 4 } else { 1 };
        (memory / (self.pitch() * planes).max(1)).min(0xffff) as u16
    }

    pub fn read(&self, memory: usize) -> u16 {
        let capabilities = self.enable & CAPABILITIES != 0;
        match self.index {
            ID => self.id,
            X | Y | BITS if capabilities => MOST[usize::from(self.index - X)],
            X | Y | BITS => self.size[usize::from(self.index - X)],
            ENABLE => self.enable,
            BANK => self.bank,
            VIRTUAL_WIDTH => self.virtual_width.max(self.size[0]),
            VIRTUAL_HEIGHT => self.virtual_height(memory),
            X_OFFSET | Y_OFFSET => self.offset[usize::from(self.index - X_OFFSET)],
            MEMORY => (memory >> 16).min(0xffff) as u16,
            _ => 0,
        }
    }

    pub fn write(&mut self, value: u16, memory: usize) -> Effect {
        match self.index {
            ID if VERSIONS.contains(&value) => self.id = value,
            // The size of a mode that is on stays.
            X | Y if !self.is_enabled() => {
                let at = usize::from(self.index - X);
                if value <= MOST[at] {
                    self.size[at] = value;
                }
            }
            BITS if !self.is_enabled() => match value {
                0 => self.size[2] = 8,
                4 | 8 | 15 | 16 | 24 | 32 => self.size[2] = value,
                _ => {}
            },
            ENABLE => return self.write_enable(value, memory),
            BANK if (usize::from(value) << 16) < memory => self.bank = value,
            VIRTUAL_WIDTH if value >= self.size[0] => {
                let before = std::mem::replace(&mut self.virtual_width, value);
                if usize::from(self.virtual_height(memory)) < self.height() {
                    self.virtual_width = before;
                }
            }
            X_OFFSET | Y_OFFSET => self.offset[usize::from(self.index - X_OFFSET)] = value,
            _ => {}
        }
        Effect::None
    }

    fn write_enable(&mut self, value: u16, memory: usize) -> Effect {
        let before = self.enable;
        self.enable = value & 0xe3;
        if value & ENABLED == 0 {
            self.bank = 0;
        } else if before & ENABLED == 0 {
            (self.virtual_width, self.offset) = (0, [0; 2]);
            // What does not fit into memory is not shown.
            let fits = self.virtual_height(memory) >= self.size[1];
            if !fits || self.size[0] == 0 || self.size[1] == 0 {
                self.enable &= !ENABLED;
            }
        }
        if (before ^ self.enable) & (ENABLED | DAC_8_BITS) == 0 {
            return Effect::None;
        }
        let started = self.enable & !before & ENABLED != 0;
        Effect::Mode {
            clear: started && value & KEEP_MEMORY == 0,
        }
    }
}
