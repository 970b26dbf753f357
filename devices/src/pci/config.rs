//! The configuration space of one PCI function: 256 bytes with write masks, base address registers
//! that can be sized and moved, an expansion ROM, and a list of capabilities (PCI Local Bus
//! Specification 3.0, chapter 6).
//!
//! ```
//! use metaphrase_devices::pci::{Bar, ConfigSpace};
//!
//! let mut config = ConfigSpace::new(0x1af4, 0x1042, 0x01_00_00, 1);
//! config.set_bar(0, Bar::Memory64 { size: 0x4000, prefetchable: true });
//! config.set_interrupt_pin(1);
//! config.write(0x10, 0xffff_ffff, 0xffff_ffff);
//! assert_eq!(config.read(0x10), 0xffff_c00c);
//! ```

use serde::{Deserialize, Serialize};

/// Offset of the command register.
pub const COMMAND: u8 = 0x04;
/// Offset of the status register.
pub const STATUS: u8 = 0x06;
/// Offset of the first base address register.
pub const BARS: u8 = 0x10;
/// Offset of the expansion ROM's base address.
pub const ROM: u8 = 0x30;
/// Offset of the interrupt line, which software uses as it likes.
pub const INTERRUPT_LINE: u8 = 0x3c;

/// Command: answers at I/O ports.
pub const COMMAND_IO: u16 = 0x0001;
/// Command: answers at memory addresses.
pub const COMMAND_MEMORY: u16 = 0x0002;
/// Command: may be a bus master.
pub const COMMAND_MASTER: u16 = 0x0004;
/// Command: drives no interrupt pin.
pub const COMMAND_NO_INTX: u16 = 0x0400;

const HEADER_TYPE: usize = 0x0e;
const MULTI_FUNCTION: u8 = 0x80;
const SUBSYSTEM: usize = 0x2c;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_PIN: usize = 0x3d;
const STATUS_CAPABILITIES: u8 = 0x10;
const FIRST_CAPABILITY: usize = 0x40;
/// The index under which the expansion ROM is listed with the base address registers.
pub const ROM_INDEX: u8 = 6;
/// The index of a range that another register places.
pub const FIXED_INDEX: u8 = 7;

/// What a base address register asks for. Sizes are powers of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Bar {
    /// I/O ports; at least 4.
    Io {
        /// Number of ports.
        size: u32,
    },
    /// Memory below 4 GiB; at least 16 bytes.
    Memory32 {
        /// In bytes.
        size: u32,
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// Memory anywhere. Takes the next register too.
    Memory64 {
        /// In bytes.
        size: u64,
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// The expansion ROM.
    Rom {
        /// In bytes; at least 2 KiB.
        size: u32,
    },
}

impl Bar {
    fn size(self) -> u64 {
        match self {
            Bar::Io { size } | Bar::Memory32 { size, .. } | Bar::Rom { size } => u64::from(size),
            Bar::Memory64 { size, .. } => size,
        }
    }

    /// The lowest bits, which cannot be written.
    fn kind_bits(self) -> u32 {
        match self {
            Bar::Io { .. } => 1,
            Bar::Memory32 { prefetchable, .. } => u32::from(prefetchable) << 3,
            Bar::Memory64 { prefetchable, .. } => 4 | u32::from(prefetchable) << 3,
            Bar::Rom { .. } => 0,
        }
    }
}

/// A range at which a function answers at present.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mapping {
    /// Base address register 0 to 5, or [`ROM_INDEX`], or [`FIXED_INDEX`].
    pub bar: u8,
    /// I/O ports, not memory.
    pub io: bool,
    /// First address.
    pub start: u64,
    /// Length.
    pub len: u64,
}

/// What the guest can change: the bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConfigState {
    bytes: Vec<u8>,
}

/// A configuration space.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: [u8; 256],
    writable: [u8; 256],
    /// Bits that a written 1 clears.
    clearable: [u8; 256],
    bars: [Option<Bar>; 7],
    next_capability: usize,
    last_capability: usize,
}

impl ConfigSpace {
    /// A function with these identities and a class of 24 bits. It can do what its base address
    /// registers will allow, and no more.
    pub fn new(vendor: u16, device: u16, class: u32, revision: u8) -> ConfigSpace {
        let mut config = ConfigSpace {
            bytes: [0; 256],
            writable: [0; 256],
            clearable: [0; 256],
            bars: [None; 7],
            next_capability: FIRST_CAPABILITY,
            last_capability: CAPABILITIES,
        };
        config.set(0x00, &vendor.to_le_bytes());
        config.set(0x02, &device.to_le_bytes());
        config.set(0x08, &(class << 8 | u32::from(revision)).to_le_bytes());
        // Bus master, parity and system error answers, INTx disable.
        config.set_writable(COMMAND, &[0x44, 0x05]);
        config.set_writable(0x0c, &[0xff, 0xff]);
        config.set_writable(INTERRUPT_LINE, &[0xff]);
        // Parity, abort and system error bits.
        config.clearable[usize::from(STATUS) + 1] = 0xf9;
        config
    }

    /// Sets bytes, whatever may be written there.
    pub fn set(&mut self, offset: u8, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            self.bytes[usize::from(offset.wrapping_add(i as u8))] = *byte;
        }
    }

    /// Lets the guest write these bits.
    pub fn set_writable(&mut self, offset: u8, mask: &[u8]) {
        for (i, bits) in mask.iter().enumerate() {
            self.writable[usize::from(offset.wrapping_add(i as u8))] = *bits;
        }
    }

    /// Subsystem vendor and device.
    pub fn set_subsystem(&mut self, vendor: u16, device: u16) {
        self.set(SUBSYSTEM as u8, &vendor.to_le_bytes());
        self.set(SUBSYSTEM as u8 + 2, &device.to_le_bytes());
    }

    /// Which pin the function drives: 1 for INTA to 4 for INTD.
    pub fn set_interrupt_pin(&mut self, pin: u8) {
        self.bytes[INTERRUPT_PIN] = pin;
    }

    /// Says that this is function 0 of several.
    pub fn set_multi_function(&mut self) {
        self.bytes[HEADER_TYPE] |= MULTI_FUNCTION;
    }

    /// Gives base address register `index` (below 6) a purpose, or [`ROM_INDEX`] a ROM.
    pub fn set_bar(&mut self, index: u8, bar: Bar) {
        let Some(slot) = self.bars.get_mut(usize::from(index)) else {
            return;
        };
        *slot = Some(bar);
        let at = bar_offset(index);
        let address_bits = !(bar.size().max(1) - 1);
        let low = match bar {
            Bar::Io { .. } => address_bits as u32 & 0xffff_fffc,
            Bar::Rom { .. } => address_bits as u32 & 0xffff_f800 | 1,
            _ => address_bits as u32 & 0xffff_fff0,
        };
        self.set(at, &bar.kind_bits().to_le_bytes());
        self.set_writable(at, &low.to_le_bytes());
        if let Bar::Memory64 { .. } = bar {
            self.set_writable(at + 4, &((address_bits >> 32) as u32).to_le_bytes());
        }
        let enable = if matches!(bar, Bar::Io { .. }) {
            COMMAND_IO
        } else {
            COMMAND_MEMORY
        };
        self.writable[usize::from(COMMAND)] |= enable as u8;
    }

    /// Appends a capability; `body` follows its identity and its link. Gives its offset, or `None`
    /// if there is no room left.
    pub fn add_capability(&mut self, id: u8, body: &[u8]) -> Option<u8> {
        let at = self.next_capability;
        let end = at + 2 + body.len();
        if end > 256 {
            return None;
        }
        self.bytes[self.last_capability] = at as u8;
        self.bytes[at] = id;
        self.bytes[at + 1] = 0;
        self.bytes[at + 2..end].copy_from_slice(body);
        self.bytes[usize::from(STATUS)] |= STATUS_CAPABILITIES;
        self.last_capability = at + 1;
        self.next_capability = end.next_multiple_of(4);
        Some(at as u8)
    }

    /// A byte.
    pub fn byte(&self, offset: u8) -> u8 {
        self.bytes[usize::from(offset)]
    }

    /// Two bytes.
    pub fn word(&self, offset: u8) -> u16 {
        u16::from_le_bytes([self.byte(offset), self.byte(offset.wrapping_add(1))])
    }

    /// The register at a multiple of 4.
    pub fn read(&self, register: u8) -> u32 {
        let at = usize::from(register & 0xfc);
        u32::from_le_bytes(std::array::from_fn(|i| self.bytes[at + i]))
    }

    /// Writes those bits of a register that are in `mask` and may be written.
    pub fn write(&mut self, register: u8, value: u32, mask: u32) {
        let at = usize::from(register & 0xfc);
        let pairs = value.to_le_bytes().into_iter().zip(mask.to_le_bytes());
        for (i, (value, mask)) in pairs.enumerate() {
            let bits = mask & self.writable[at + i];
            let clear = value & mask & self.clearable[at + i];
            let byte = &mut self.bytes[at + i];
            *byte = (*byte & !bits | value & bits) & !clear;
        }
    }

    /// The command register.
    pub fn command(&self) -> u16 {
        self.word(COMMAND)
    }

    /// Where the function answers now: what its registers say, as far as the command register
    /// lets it. A base of 0 or one whose range passes the end of the address space is no mapping;
    /// that includes a register that is just being sized.
    pub fn mappings(&self) -> Vec<Mapping> {
        (0..=ROM_INDEX).filter_map(|i| self.mapping(i)).collect()
    }

    fn mapping(&self, index: u8) -> Option<Mapping> {
        let bar = self.bars[usize::from(index)]?;
        let at = bar_offset(index);
        let low = u64::from(self.read(at));
        let (io, start, last) = match bar {
            Bar::Io { .. } => (true, low & 0xfffc, 0xffff),
            Bar::Memory32 { .. } => (false, low & !0xf, u64::from(u32::MAX)),
            Bar::Rom { .. } if low & 1 == 0 => return None,
            Bar::Rom { .. } => (false, low & !0x7ff, u64::from(u32::MAX)),
            Bar::Memory64 { .. } => {
                let high = u64::from(self.read(at + 4));
                (false, low & !0xf | high << 32, (1 << 52) - 1)
            }
        };
        let enable = if io { COMMAND_IO } else { COMMAND_MEMORY };
        let len = bar.size();
        let fits = start != 0 && start.checked_add(len - 1).is_some_and(|end| end < last);
        (fits && self.command() & enable != 0).then_some(Mapping {
            bar: index,
            io,
            start,
            len,
        })
    }

    /// The state.
    pub fn save(&self) -> ConfigState {
        ConfigState {
            bytes: self.bytes.to_vec(),
        }
    }

    /// Takes over a state of the same kind of function.
    pub fn restore(&mut self, state: &ConfigState) {
        for (byte, saved) in self.bytes.iter_mut().zip(&state.bytes) {
            *byte = *saved;
        }
    }
}

fn bar_offset(index: u8) -> u8 {
    if index == ROM_INDEX {
        ROM
    } else {
        BARS + 4 * index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, round_trip};

    fn config() -> ConfigSpace {
        let mut config = ConfigSpace::new(0x8086, 0x1234, 0x02_0000, 3);
        config.set_bar(0, Bar::Io { size: 32 });
        let memory = Bar::Memory32 {
            size: 0x1000,
            prefetchable: false,
        };
        config.set_bar(1, memory);
        let large = Bar::Memory64 {
            size: 1 << 33,
            prefetchable: true,
        };
        config.set_bar(2, large);
        config.set_bar(ROM_INDEX, Bar::Rom { size: 0x1_0000 });
        config
    }

    fn write(config: &mut ConfigSpace, register: u8, value: u32) {
        config.write(register, value, u32::MAX);
    }

    #[test]
    fn identities_cannot_be_written() {
        let mut config = config();
        config.set_subsystem(0x1af4, 0x1100);
        for register in [0x00, 0x08, 0x2c, 0x34] {
            let before = config.read(register);
            write(&mut config, register, !before);
            assert_eq!(config.read(register), before, "{register:#x}");
        }
        assert_eq!(config.read(0x00), 0x1234_8086);
        assert_eq!(config.read(0x08), 0x0200_0003);
        assert_eq!(config.read(0x2c), 0x1100_1af4);
    }

    #[test]
    fn sizing_shows_the_size_and_the_kind() {
        let mut config = config();
        for register in [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30] {
            write(&mut config, register, u32::MAX);
        }
        let sized = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30].map(|at| config.read(at));
        assert_eq!(
            sized,
            [
                0xffff_ffe1,
                0xffff_f000,
                0x0000_000c,
                0xffff_fffe,
                0,
                0,
                0xffff_0001
            ]
        );
        write(&mut config, COMMAND, 0x3);
        assert_eq!(config.mappings(), [], "being sized is no place to be");
    }

    #[test]
    fn mappings_follow_command_and_bases() {
        let mut config = config();
        write(&mut config, 0x10, 0xc000);
        write(&mut config, 0x14, 0xfebc_0000);
        write(&mut config, 0x1c, 0x10);
        write(&mut config, 0x30, 0xfea0_0000);
        assert_eq!(config.mappings(), []);
        config.write(COMMAND, 1, 0xff);
        let io = Mapping {
            bar: 0,
            io: true,
            start: 0xc000,
            len: 32,
        };
        assert_eq!(config.mappings(), [io]);
        config.write(COMMAND, 3, 0xff);
        let ranges = |c: &ConfigSpace| -> Vec<_> {
            c.mappings()
                .iter()
                .map(|m| (m.bar, m.start, m.len))
                .collect()
        };
        assert_eq!(
            ranges(&config),
            [
                (0, 0xc000, 32),
                (1, 0xfebc_0000, 0x1000),
                (2, 1 << 36, 1 << 33)
            ]
        );
        write(&mut config, 0x30, 0xfea0_0001);
        assert_eq!(ranges(&config)[3], (6, 0xfea0_0000, 0x1_0000));
    }

    #[test]
    fn writes_touch_only_the_bytes_they_name() {
        let mut config = config();
        config.write(0x3c, 0xffff_ff0b, 0x0000_00ff);
        assert_eq!(config.read(0x3c), 0x0000_000b);
        config.set(STATUS, &[0x00, 0x28]);
        config.write(0x04, 0x0800_0000, 0xffff_0000);
        assert_eq!(config.word(STATUS), 0x2000, "cleared by its 1");
    }

    #[test]
    fn capabilities_are_chained() {
        let mut config = config();
        config.set_interrupt_pin(1);
        assert_eq!(config.add_capability(0x09, &[0xaa; 5]), Some(0x40));
        assert_eq!(config.add_capability(0x05, &[0; 12]), Some(0x48));
        assert_eq!((config.byte(0x34), config.byte(0x41)), (0x40, 0x48));
        assert_eq!((config.byte(0x48), config.byte(0x49)), (0x05, 0));
        assert_eq!(config.word(STATUS) & 0x10, 0x10);
        assert_eq!(config.add_capability(0x11, &[0; 200]), None);
    }

    #[test]
    fn survives_a_storm_and_a_round_trip() {
        let mut random = Random::new(11);
        let mut config = config();
        for _ in 0..100_000 {
            config.write(
                random.next() as u8,
                random.next() as u32,
                random.next() as u32,
            );
            for mapping in config.mappings() {
                assert!(mapping.start & (mapping.len - 1) == 0);
            }
        }
        let mut other = super::tests::config();
        other.restore(&round_trip(&config.save()));
        assert_eq!(other.mappings(), config.mappings());
    }
}
