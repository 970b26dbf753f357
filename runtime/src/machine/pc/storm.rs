//! A whole board under random accesses: to every port and every range of a device, of every width,
//! with values that drivers write and with others, while memory is full of what looks like
//! descriptors and time passes, mostly in small steps. Nothing may panic or take long; and what
//! masters write stays in RAM.

use super::*;
use crate::{CpuModel, Options};
use metaphrase_devices::net::Unplugged;
use metaphrase_devices::{MemoryDisk, Width};
use std::time::{Duration, Instant};

const RAM: u64 = 2 << 20;
/// Where descriptors and what they point to are.
const BUSY: u64 = 0x1_0000;

/// Random numbers: xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// Small numbers, single bits, addresses, and anything.
    fn value(&mut self) -> u64 {
        match self.below(6) {
            0 => self.below(16),
            1 => 1 << self.below(64),
            2 => self.below(BUSY) & !15,
            3 => u64::MAX >> self.below(64),
            _ => self.next(),
        }
    }

    fn width(&mut self) -> Width {
        self.of(&[Width::Byte, Width::Word, Width::Dword, Width::Qword])
    }
}

fn board() -> (Parts, Board) {
    let cpu = CpuModel::from_name("x86-64-v2").expect("a model");
    let mut config = PcConfig::new(RAM, cpu, Options::default());
    let disk = |sectors: usize| Box::new(MemoryDisk::new(vec![0x5a; sectors * 512]));
    let (channel, unit) = (0, 0);
    config.add_drive(Seat::IdeDisk { channel, unit }, disk(3000));
    config.add_drive(Seat::IdeDisk { channel, unit: 1 }, disk(10));
    config.add_drive(Seat::IdeCd { channel: 1, unit }, disk(400));
    config.add_drive(Seat::Floppy(0), disk(2880));
    config.add_drive(Seat::Floppy(1), disk(1440));
    config.add_drive(Seat::Virtio, disk(300));
    config.display = Some(Display::new(vec![0x55; 0x8000]));
    config.nics.push(Nic {
        mac: [2, 0, 0, 0, 0, 1],
        plug: Box::new(|_| Box::new(Unplugged)),
    });
    config.balloon = true;
    config.entropy = Some(Box::new(|bytes: &mut [u8]| bytes.fill(7)));
    config.console = Some(Box::new(metaphrase_devices::serial::NoSink));
    config.second_serial = Some(Box::new(metaphrase_devices::serial::NoSink));
    config.debug_exit = Some(0x501);
    pc(config).expect("a board")
}

/// A board with what the storm knows about it.
struct Storm {
    parts: Parts,
    board: Board,
    random: Random,
    ports: Vec<(u64, u64)>,
    ranges: Vec<(u64, u64)>,
}

impl Storm {
    fn new(seed: u64) -> Storm {
        let (parts, board) = board();
        let mut storm = Storm {
            parts,
            board,
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            ports: Vec::new(),
            ranges: Vec::new(),
        };
        storm.follow();
        storm.look_around();
        // Video memory of the display, and one range of each virtio device.
        assert!(storm.ranges.len() >= 4 + 1 + 5, "{:x?}", storm.ranges);
        storm
    }

    /// Finds out where devices are now: fixed places, and those of PCI devices.
    fn look_around(&mut self) {
        self.ports = [
            (0x00, 0x20),
            (0x20, 2),
            (0x40, 4),
            (0x60, 5),
            (0x70, 2),
            (0x80, 0x10),
            (0x92, 1),
            (0xa0, 2),
            (0xb2, 2),
            (0xc0, 0x20),
            (0xf0, 2),
            (0x170, 8),
            (0x1ce, 4),
            (0x1f0, 8),
            (0x2f8, 8),
            (0x376, 1),
            (0x3b0, 0x30),
            (0x3f0, 8),
            (0x3f8, 8),
            (0x402, 1),
            (0x4d0, 2),
            (0x501, 4),
            (0x510, 12),
            (0x600, 0x40),
            (0xcf8, 8),
            (0xcf8, 8),
            (0xcf8, 8),
        ]
        .to_vec();
        self.ranges = vec![
            (0xa_0000, 0x2_0000),
            (apic::LOCAL_BASE, 0x400),
            (apic::IO_BASE, 0x20),
            (0xc_0000, 0x4_0000),
        ];
        for device in 0..32u64 {
            for function in [0, 1, 3] {
                let base = 0x8000_0000 | device << 11 | function << 8;
                for bar in 0..6 {
                    self.parts
                        .ports
                        .write(0xcf8, Width::Dword, base + 0x10 + 4 * bar);
                    let value = self.parts.ports.read(0xcfc, Width::Dword);
                    match value {
                        0 | 0xffff_ffff => {}
                        v if v & 1 != 0 => self.ports.push((v & 0xfffc, 0x40)),
                        v => self.ranges.push((v & 0xffff_fff0, 0x8000)),
                    }
                }
            }
        }
    }

    fn follow(&mut self) {
        self.parts.pins.remap.store(false, Ordering::Relaxed);
        let smm = self.random.below(2) == 0;
        let chipset = self.parts.chipset.as_mut().expect("a chipset");
        chipset.follow(&mut self.parts.ports, &self.parts.memory, smm);
    }

    fn write_memory(&self, at: u64, bytes: &[u8]) {
        MasterView(self.parts.memory.clone()).write(at, bytes);
    }

    /// Brings a virtio device up, with rings in low memory, and rings.
    fn virtio(&mut self, base: u64) {
        let set = |at: u64, width, value| {
            self.parts.memory.mmio().write(base + at, width, value);
        };
        set(0x14, Width::Byte, 0);
        for (select, features) in [(0, self.random.next() as u32), (1, 1)] {
            set(8, Width::Dword, select);
            set(0xc, Width::Dword, features.into());
        }
        set(0x14, Width::Byte, 0x0b);
        for queue in 0..3 {
            set(0x16, Width::Word, queue);
            set(0x18, Width::Word, 1 << self.random.below(9));
            for at in [0x20, 0x28, 0x30] {
                set(at, Width::Qword, self.random.below(BUSY) & !15);
            }
            set(0x1c, Width::Word, 1);
        }
        set(0x14, Width::Byte, 0x0f);
        for queue in 0..3 {
            set(0x3000 + 4 * queue, Width::Word, queue);
        }
    }

    fn fill(&mut self) {
        let at = self.random.below(BUSY);
        let mut bytes = Vec::new();
        for _ in 0..self.random.below(64) {
            let value = self.random.value();
            let len = self.random.of(&[2, 4, 8]);
            bytes.extend_from_slice(&value.to_le_bytes()[..len]);
        }
        self.write_memory(at, &bytes);
    }

    fn pass_time(&mut self) {
        let clock = self.parts.clock.clone();
        let step = self.random.next() >> self.random.below(64) >> 20;
        let random = self.random.below(2);
        for timer in &mut self.parts.timers {
            let next = timer.next_event(clock.time());
            let at = next.filter(|_| random == 0);
            clock.idle_until(at.unwrap_or(clock.time().saturating_add(step)).min(1 << 60));
            timer.advance(clock.time());
        }
        let interrupts = self.parts.interrupts.as_mut().expect("a controller");
        if interrupts.pending() {
            interrupts.acknowledge();
        }
    }

    fn step(&mut self) {
        let width = self.random.width();
        match self.random.below(200) {
            0 => self.fill(),
            1 | 2 => self.pass_time(),
            3 => {
                let base = self.random.of(&self.ranges).0;
                self.virtio(base);
            }
            4 => {
                let byte = self.random.next() as u8;
                self.board.serial.lock().receive(&[byte]);
                self.board.pm.lock().press_power_button();
            }
            5 if self.random.below(500) == 0 => {
                self.parts.chipset.as_mut().expect("a chipset").reset();
                self.follow();
            }
            6 if self.random.below(100) == 0 => self.look_around(),
            7..40 => {
                let (start, len) = self.random.of(&self.ranges);
                let at = start + self.random.below(len);
                let mut mmio = self.parts.memory.mmio();
                if self.random.below(3) == 0 {
                    mmio.read(at, width);
                } else {
                    mmio.write(at, width, self.random.value());
                }
            }
            40..44 => {
                let (start, len) = self.random.of(&self.ports);
                let at = start + self.random.below(len);
                let mut bytes = [0x5a; 600];
                let len = (self.random.below(600) as usize)
                    .next_multiple_of(8)
                    .min(600);
                let ports = &mut self.parts.ports;
                if self.random.below(2) == 0 {
                    ports.read_many(at, width, &mut bytes[..len]);
                } else {
                    ports.write_many(at, width, &bytes[..len]);
                }
            }
            kind => {
                let (start, len) = self.random.of(&self.ports);
                let start = if kind == 44 {
                    self.random.below(0x1_0000)
                } else {
                    start
                };
                let at = start + self.random.below(len);
                if self.random.below(3) == 0 {
                    self.parts.ports.read(at, width);
                } else {
                    let value = self.random.value();
                    self.parts.ports.write(at, width, value);
                }
            }
        }
        if self.parts.pins.remap.load(Ordering::Relaxed) {
            self.follow();
        }
    }
}

#[test]
fn a_board_survives_a_storm() {
    let begun = Instant::now();
    for seed in 1..=12 {
        let mut storm = Storm::new(seed);
        for n in 0..300_000 {
            let before = Instant::now();
            storm.step();
            let took = before.elapsed();
            assert!(
                took < Duration::from_secs(5),
                "seed {seed}, step {n}: {took:?}"
            );
        }
        // Above RAM there is still nothing.
        let mut above = [0; 64];
        MasterView(storm.parts.memory.clone()).read(RAM, &mut above);
        assert_eq!(above, [0xff; 64]);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(300),
        "{:?}",
        begun.elapsed()
    );
}
