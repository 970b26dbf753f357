//! The pair of DMA controllers of a PC: two Intel 8237A (datasheet 231466) with the page registers.
//!
//! Ports: 00h to 0Fh the first (channels 0 to 3, bytes), C0h to DFh the second at every other port
//! (channels 4 to 7, words; 4 is the cascade), 80h to 8Fh the page registers. Port 80h, where
//! firmware shows its progress, is the machine's to attach elsewhere (`system_ports`): it is no
//! page register of a channel.
//!
//! A device with a request moves its data through [`Dma::device_writes`] or [`Dma::device_reads`],
//! at once and as much as fits: single, block and demand mode differ only in who else gets the bus.
//! Left out: memory-to-memory transfers, priorities, compressed timing, the signal polarities of
//! the command register.

use serde::{Deserialize, Serialize};

use crate::{GuestMemory, PortDevice};

/// First port of the byte-wide controller.
pub const FIRST: u16 = 0x00;
/// First port of the word-wide controller.
pub const SECOND: u16 = 0xc0;
/// First page register.
pub const PAGES: u16 = 0x80;

const COMMAND_DISABLE: u8 = 0x04;

const MODE_KIND: u8 = 0x0c;
const MODE_WRITES_MEMORY: u8 = 0x04;
const MODE_READS_MEMORY: u8 = 0x08;
const MODE_VERIFY: u8 = 0x00;
const MODE_AUTO: u8 = 0x10;
const MODE_DOWN: u8 = 0x20;
const MODE_CASCADE: u8 = 0xc0;

/// The page register of each channel, from 80h.
const PAGE_OF: [usize; 8] = [0x7, 0x3, 0x1, 0x2, 0xf, 0xb, 0x9, 0xa];

/// One channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Channel {
    base_address: u16,
    base_count: u16,
    address: u16,
    /// Transfers still to do, less one; FFFFh after the last.
    count: u16,
    mode: u8,
}

/// One 8237A.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Chip {
    channels: [Channel; 4],
    command: u8,
    mask: u8,
    /// Channels that reached terminal count since the status was read.
    done: u8,
    /// Software requests.
    requests: u8,
    /// The next access to an address or count is to its upper byte.
    upper: bool,
    temporary: u8,
}

impl Chip {
    fn new() -> Chip {
        Chip {
            channels: [Channel::default(); 4],
            command: 0,
            mask: 0x0f,
            done: 0,
            requests: 0,
            upper: false,
            temporary: 0,
        }
    }

    fn clear(&mut self) {
        *self = Chip {
            channels: self.channels,
            ..Chip::new()
        };
    }

    /// Which byte this access is to; the next is to the other.
    fn flip(&mut self) -> bool {
        let upper = self.upper;
        self.upper = !upper;
        upper
    }

    fn set_byte(word: &mut u16, upper: bool, value: u8) {
        let mut bytes = word.to_le_bytes();
        bytes[usize::from(upper)] = value;
        *word = u16::from_le_bytes(bytes);
    }

    fn read(&mut self, register: u8) -> u8 {
        match register {
            0..8 => {
                let channel = &self.channels[usize::from(register >> 1)];
                let word = if register & 1 == 0 {
                    channel.address
                } else {
                    channel.count
                };
                let upper = self.flip();
                word.to_le_bytes()[usize::from(upper)]
            }
            8 => std::mem::take(&mut self.done) | self.requests << 4,
            13 => self.temporary,
            15 => self.mask | 0xf0,
            _ => 0xff,
        }
    }

    fn write(&mut self, register: u8, value: u8) {
        let selected = usize::from(value & 3);
        let bit = 1 << selected;
        match register {
            0..8 => {
                let upper = self.flip();
                let channel = &mut self.channels[usize::from(register >> 1)];
                // Both the base and the current register take it.
                let (base, current) = if register & 1 == 0 {
                    (&mut channel.base_address, &mut channel.address)
                } else {
                    (&mut channel.base_count, &mut channel.count)
                };
                Chip::set_byte(base, upper, value);
                Chip::set_byte(current, upper, value);
            }
            8 => self.command = value,
            9 if value & 4 != 0 => self.requests |= bit,
            9 => self.requests &= !bit,
            10 if value & 4 != 0 => self.mask |= bit,
            10 => self.mask &= !bit,
            11 => self.channels[selected].mode = value,
            12 => self.upper = false,
            13 => self.clear(),
            14 => self.mask = 0,
            _ => self.mask = value & 0x0f,
        }
    }
}

/// What became of a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// Bytes moved.
    pub bytes: usize,
    /// The channel reached its terminal count.
    pub finished: bool,
}

/// The state of the pair.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DmaState {
    chips: [Chip; 2],
    pages: [u8; 16],
}

/// The pair of controllers.
pub struct Dma {
    state: DmaState,
    memory: Box<dyn GuestMemory>,
}

impl Dma {
    /// After reset: every channel masked.
    pub fn new(memory: Box<dyn GuestMemory>) -> Dma {
        Dma {
            state: DmaState {
                chips: [Chip::new(), Chip::new()],
                pages: [0; 16],
            },
            memory,
        }
    }

    /// Whether a request of the device on that channel would be served now.
    pub fn ready(&self, channel: u8) -> bool {
        let (chip, index) = self.chip(channel);
        let open = |chip: &Chip, index: usize| {
            chip.command & COMMAND_DISABLE == 0 && chip.mask & 1 << index == 0
        };
        // The first controller asks for the bus through channel 4.
        channel < 8 && channel != 4 && open(chip, index) && {
            let cascade = &self.state.chips[1];
            channel >= 4 || open(cascade, 0) && cascade.channels[0].mode & 0xc0 == MODE_CASCADE
        }
    }

    /// The device has data for memory. A channel set to verify counts, and writes nothing.
    pub fn device_writes(&mut self, channel: u8, data: &[u8]) -> Transfer {
        let mut from = data.chunks(width(channel));
        self.transfer(channel, data.len(), MODE_WRITES_MEMORY, |memory, at| {
            if let Some(unit) = from.next() {
                memory.write(at, unit);
            }
        })
    }

    /// The device wants data from memory.
    pub fn device_reads(&mut self, channel: u8, data: &mut [u8]) -> Transfer {
        let len = data.len();
        let mut into = data.chunks_mut(width(channel));
        self.transfer(channel, len, MODE_READS_MEMORY, |memory, at| {
            if let Some(unit) = into.next() {
                memory.read(at, unit);
            }
        })
    }

    /// The state.
    pub fn save(&self) -> DmaState {
        self.state.clone()
    }

    /// Takes over a state.
    pub fn restore(&mut self, state: DmaState) {
        self.state = state;
    }

    fn chip(&self, channel: u8) -> (&Chip, usize) {
        let chip = usize::from(channel >> 2 & 1);
        (&self.state.chips[chip], usize::from(channel & 3))
    }

    /// Moves whole units until the data or the count is used up.
    fn transfer(
        &mut self,
        channel: u8,
        len: usize,
        kind: u8,
        mut unit: impl FnMut(&dyn GuestMemory, u64),
    ) -> Transfer {
        let mut result = Transfer {
            bytes: 0,
            finished: false,
        };
        let width = width(channel);
        let page = u64::from(self.state.pages[PAGE_OF[usize::from(channel & 7)]]);
        while !result.finished && len - result.bytes >= width && self.ready(channel) {
            let chip = &mut self.state.chips[usize::from(channel >> 2 & 1)];
            let index = usize::from(channel & 3);
            let state = &mut chip.channels[index];
            match state.mode & MODE_KIND {
                MODE_VERIFY => {}
                set if set == kind => {
                    // The second controller counts words, and its page loses the lowest bit.
                    let at = match width {
                        1 => page << 16 | u64::from(state.address),
                        _ => (page & 0xfe) << 16 | u64::from(state.address) << 1,
                    };
                    unit(&*self.memory, at);
                }
                _ => break,
            }
            result.bytes += width;
            state.address = match state.mode & MODE_DOWN {
                0 => state.address.wrapping_add(1),
                _ => state.address.wrapping_sub(1),
            };
            state.count = state.count.wrapping_sub(1);
            if state.count == u16::MAX {
                result.finished = true;
                chip.done |= 1 << index;
                chip.requests &= !(1 << index);
                if state.mode & MODE_AUTO != 0 {
                    state.address = state.base_address;
                    state.count = state.base_count;
                } else {
                    chip.mask |= 1 << index;
                }
            }
        }
        result
    }
}

/// Bytes that a channel moves at a time.
fn width(channel: u8) -> usize {
    if channel < 4 { 1 } else { 2 }
}

impl PortDevice for Dma {
    fn read_port(&mut self, port: u16) -> u8 {
        match port {
            0x00..0x10 => self.state.chips[0].read(port as u8),
            0x80..0x90 => self.state.pages[usize::from(port & 15)],
            0xc0..0xe0 => self.state.chips[1].read((port - SECOND) as u8 >> 1),
            _ => 0xff,
        }
    }

    fn write_port(&mut self, port: u16, value: u8) {
        match port {
            0x00..0x10 => self.state.chips[0].write(port as u8, value),
            0x80..0x90 => self.state.pages[usize::from(port & 15)] = value,
            0xc0..0xe0 => self.state.chips[1].write((port - SECOND) as u8 >> 1, value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, TestMemory, round_trip};

    /// 2 MiB of memory; the cascade is open.
    fn dma() -> (Dma, TestMemory) {
        let memory = TestMemory::new(0x20_0000);
        let mut dma = Dma::new(Box::new(memory.clone()));
        dma.write_port(0xd6, 0xc0);
        dma.write_port(0xd4, 0x00);
        (dma, memory)
    }

    /// Sets up a channel as a driver does.
    fn set(dma: &mut Dma, channel: u8, mode: u8, page: u8, address: u16, count: u16) {
        let (base, step) = if channel < 4 { (0x00, 1) } else { (0xc0, 2) };
        let low = u16::from(channel & 3);
        dma.write_port(base + 12 * step, 0);
        dma.write_port(base + 11 * step, mode | channel & 3);
        for (register, word) in [(2 * low, address), (2 * low + 1, count)] {
            for byte in word.to_le_bytes() {
                dma.write_port(base + register * step, byte);
            }
        }
        dma.write_port(0x80 + PAGE_OF[usize::from(channel)] as u16, page);
        dma.write_port(base + 10 * step, channel & 3);
    }

    #[test]
    fn a_sector_from_the_floppy() {
        let (mut dma, memory) = dma();
        set(&mut dma, 2, 0x44, 0x01, 0x2000, 511);
        assert!(dma.ready(2) && !dma.ready(1) && !dma.ready(4) && !dma.ready(9));
        let first = dma.device_writes(2, &[0x11; 200]);
        assert_eq!((first.bytes, first.finished), (200, false));
        let rest = dma.device_writes(2, &[0x22; 400]);
        assert_eq!((rest.bytes, rest.finished), (312, true));
        let memory = memory.0.lock().unwrap();
        assert_eq!(memory[0x1_2000..0x1_20c8], [0x11; 200]);
        assert_eq!(memory[0x1_20c8..0x1_2200], [0x22; 312]);
        assert_eq!(memory[0x1_2200], 0);
        assert!(!dma.ready(2), "masked at the end");
        assert_eq!(dma.read_port(0x08), 0x04);
        assert_eq!(dma.read_port(0x08), 0x00);
        dma.write_port(0x0c, 0);
        let seen: Vec<u8> = [4, 4, 5, 5].map(|port| dma.read_port(port)).to_vec();
        assert_eq!(seen, [0x00, 0x22, 0xff, 0xff]);
    }

    #[test]
    fn words_downwards_and_again() {
        let (mut dma, memory) = dma();
        memory.0.lock().unwrap()[0x1f_fffc..].copy_from_slice(&[1, 2, 3, 4]);
        // Page 1F counts as 1E; word FFFFh there is the last below 2 MiB.
        set(&mut dma, 5, 0x78, 0x1f, 0xffff, 1);
        let mut data = [0; 7];
        let got = dma.device_reads(5, &mut data);
        assert_eq!((got.bytes, got.finished), (4, true));
        assert_eq!(data, [3, 4, 1, 2, 0, 0, 0]);
        assert!(dma.ready(5), "starts over by itself");
        let got = dma.device_reads(5, &mut data[..3]);
        assert_eq!((got.bytes, got.finished), (2, false), "no half words");
        assert_eq!(data[..2], [3, 4]);
    }

    #[test]
    fn words_ignore_the_lowest_bit_of_the_page() {
        let (mut dma, memory) = dma();
        set(&mut dma, 7, 0x44, 0x13, 0x1000, 0);
        dma.device_writes(7, &[1, 2]);
        assert_eq!(memory.0.lock().unwrap()[0x12_2000..0x12_2002], [1, 2]);
    }

    #[test]
    fn addresses_stay_in_their_page() {
        let (mut dma, memory) = dma();
        set(&mut dma, 1, 0x44, 0x00, 0xffff, 9);
        dma.device_writes(1, &[1, 2]);
        let memory = memory.0.lock().unwrap();
        assert_eq!(
            (memory[0xffff], memory[0x0000], memory[0x1_0000]),
            (1, 2, 0)
        );
    }

    #[test]
    fn the_wrong_direction_moves_nothing_and_verify_only_counts() {
        let (mut dma, memory) = dma();
        set(&mut dma, 3, 0x48, 0x00, 0x1000, 9);
        assert_eq!(dma.device_writes(3, &[1; 4]).bytes, 0);
        set(&mut dma, 3, 0x40, 0x00, 0x1000, 9);
        assert_eq!(dma.device_writes(3, &[1; 20]).bytes, 10);
        assert!(memory.0.lock().unwrap().iter().all(|b| *b == 0));
    }

    #[test]
    fn masks_disable_and_cascade() {
        let (mut dma, _) = dma();
        set(&mut dma, 2, 0x44, 0, 0, 9);
        dma.write_port(0x08, 0x04);
        assert!(!dma.ready(2));
        dma.write_port(0x08, 0x00);
        dma.write_port(0xd4, 0x04);
        assert!(!dma.ready(2), "through channel 4");
        dma.write_port(0xdc, 0);
        assert!(dma.ready(2));
        dma.write_port(0x0f, 0x04);
        assert_eq!((dma.ready(2), dma.read_port(0x0f)), (false, 0xf4));
        dma.write_port(0x0e, 0);
        assert!(dma.ready(2));
        dma.write_port(0x09, 0x06);
        assert_eq!(dma.read_port(0x08), 0x40, "a request by software");
        dma.write_port(0x0d, 0);
        assert!(!dma.ready(2), "master clear");
        assert_eq!(dma.read_port(0x08), 0);
    }

    #[test]
    fn state_round_trip() {
        let (mut one, _) = dma();
        set(&mut one, 6, 0x54, 3, 0x1234, 0x77);
        let (mut two, _) = dma();
        two.restore(round_trip(&one.save()));
        assert!(two.ready(6));
        assert_eq!(
            two.device_writes(6, &[1; 10]),
            one.device_writes(6, &[1; 10])
        );
        assert_eq!(two.save(), one.save());
    }

    #[test]
    fn survives_a_storm() {
        let (mut dma, _) = dma();
        let mut random = Random::new(4);
        let mut data = [0; 64];
        for _ in 0..100_000 {
            let port = random.below(0x100) as u16;
            let (channel, len) = (random.below(10) as u8, random.below(65) as usize);
            match random.below(6) {
                0 => {
                    dma.read_port(port);
                }
                1 => {
                    dma.device_writes(channel, &data[..len]);
                }
                2 => {
                    dma.device_reads(channel, &mut data[..len]);
                }
                _ => dma.write_port(port, random.next() as u8),
            }
        }
    }
}
