use std::sync::{Arc, Mutex};

use super::*;
use crate::block::{BlockBackend, MemoryDisk, SECTOR};
use crate::pci::PciFunction;
use crate::testing::{Probe, Random, TestMemory, round_trip};
use crate::{BusDevice, Width};

const TABLE: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const SIZE: u16 = 8;

/// A driver with queues one after the other, 1_0000h apart.
pub(super) struct Rig<D> {
    pub dev: VirtioPci<D>,
    pub memory: TestMemory,
    pub line: Probe,
    messages: Arc<Mutex<Vec<(u64, u32)>>>,
    next: [u16; 3],
}

impl<D: VirtioDevice> Rig<D> {
    /// After negotiation of all features but those.
    pub fn new(device: D, without: u64) -> Rig<D> {
        let (memory, line) = (TestMemory::new(0x10_0000), Probe::default());
        let messages = Arc::new(Mutex::new(Vec::new()));
        let sent = messages.clone();
        let sink = Box::new(move |address, data| sent.lock().unwrap().push((address, data)));
        let dev = VirtioPci::new(device, Box::new(memory.clone()), line.line(), sink);
        let mut rig = Rig {
            dev,
            memory,
            line,
            messages,
            next: [0; 3],
        };
        rig.dev.write_config(4, 6, 0xffff);
        rig.start(without);
        rig
    }

    pub fn set(&mut self, offset: u64, width: Width, value: u64) {
        self.dev.write(offset, width, value);
    }

    pub fn get(&mut self, offset: u64, width: Width) -> u64 {
        self.dev.read(offset, width) & width.ones()
    }

    pub fn start(&mut self, without: u64) {
        self.set(0x14, Width::Byte, 0);
        self.set(0x14, Width::Byte, 3);
        for half in 0..2 {
            self.set(0x00, Width::Dword, half);
            let offered = self.get(0x04, Width::Dword);
            self.set(0x08, Width::Dword, half);
            self.set(0x0c, Width::Dword, offered & !(without >> (32 * half)));
        }
        self.set(0x14, Width::Byte, 0x0b);
        self.memory.write(0, &[0; 0x3_0000]);
        for queue in 0..self.get(0x12, Width::Word) {
            let base = queue << 16;
            self.set(0x16, Width::Word, queue);
            self.set(0x18, Width::Word, SIZE.into());
            self.set(0x20, Width::Dword, base + TABLE);
            self.set(0x28, Width::Qword, base + AVAILABLE);
            self.set(0x30, Width::Qword, base + USED);
            self.set(0x1c, Width::Word, 1);
        }
        self.set(0x14, Width::Byte, 0x0f);
        self.next = [0; 3];
    }

    pub fn status(&mut self) -> u64 {
        self.get(0x14, Width::Byte)
    }

    fn descriptor(&self, at: u64, address: u64, len: u32, flags: u16, next: u16) {
        let all = u128::from(address)
            | u128::from(len) << 64
            | u128::from(flags) << 96
            | u128::from(next) << 112;
        self.memory.write(at, &all.to_le_bytes());
    }

    /// Puts a chain into the table from descriptor 0 on and offers it: pieces and whether the device
    /// writes them.
    pub fn offer(&mut self, queue: u64, pieces: &[(u64, u32, bool)]) {
        let base = queue << 16;
        for (n, (address, len, write)) in (0..).zip(pieces) {
            let next = usize::from(n) + 1 < pieces.len();
            let flags = u16::from(next) | u16::from(*write) << 1;
            let at = base + TABLE + 16 * u64::from(n);
            self.descriptor(at, *address, *len, flags, n + 1);
        }
        self.publish(queue, 0);
    }

    pub fn publish(&mut self, queue: u64, head: u16) {
        let base = queue << 16;
        let slot = &mut self.next[queue as usize];
        let at = base + AVAILABLE + 4 + 2 * u64::from(*slot % SIZE);
        *slot = slot.wrapping_add(1);
        self.memory.write(at, &head.to_le_bytes());
        self.memory.write(base + AVAILABLE + 2, &slot.to_le_bytes());
        self.set(0x3000 + 4 * queue, Width::Word, queue);
    }

    /// How many requests came back, and the length of the last.
    pub fn used(&self, queue: u64) -> (u16, u32) {
        let base = (queue << 16) + USED;
        let index = u16::from_le_bytes(self.bytes(base + 2, 2).try_into().unwrap());
        let slot = u64::from(index.wrapping_sub(1) % SIZE);
        let len = self.bytes(base + 4 + 8 * slot + 4, 4);
        (index, u32::from_le_bytes(len.try_into().unwrap()))
    }

    pub fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        crate::GuestMemory::read(&self.memory, at, &mut bytes);
        bytes
    }
}

use crate::GuestMemory;

fn disk() -> MemoryDisk {
    MemoryDisk::new((0..100u8).flat_map(|n| [n; SECTOR]).collect())
}

impl Rig<Blk> {
    /// A request with its header at 8000h, data at 9000h, status at 8100h.
    fn request(&mut self, kind: u32, sector: u64, len: u32) -> u8 {
        self.memory.write(0x8000, &kind.to_le_bytes());
        self.memory.write(0x8008, &sector.to_le_bytes());
        self.memory.write(0x8100, &[0xff]);
        let data = (0x9000, len, kind != 1);
        self.offer(0, &[(0x8000, 16, false), data, (0x8100, 1, true)]);
        self.bytes(0x8100, 1)[0]
    }
}

#[test]
fn a_disk_reads_and_writes() {
    let disk = disk();
    let mut rig = Rig::new(Blk::new(Box::new(disk.clone()), "a name"), 0);
    assert_eq!(rig.status(), 0x0f);
    assert_eq!(rig.get(0x2000, Width::Qword), 100);
    assert_eq!(rig.request(0, 7, 1024), 0);
    assert_eq!(rig.used(0), (1, 1025));
    assert_eq!(rig.bytes(0x9000, 1024), [[7; 512], [8; 512]].concat());
    assert!(rig.line.level());
    assert_eq!(rig.get(0x1000, Width::Byte), 1);
    assert!(!rig.line.level());
    rig.memory.write(0x9000, &[0xaa; 512]);
    assert_eq!(rig.request(1, 99, 512), 0);
    assert_eq!(rig.used(0), (2, 1));
    assert_eq!(disk.contents()[99 * 512..], [0xaa; 512]);
    assert_eq!(rig.request(0, 99, 1024), 1, "beyond the end");
    assert_eq!(rig.request(0, u64::MAX, 512), 1);
    assert_eq!(rig.request(0, 0, 100), 1, "no whole sector");
    assert_eq!(rig.request(4, 0, 0), 0);
    assert_eq!(rig.request(8, 0, 20), 0);
    assert_eq!(rig.bytes(0x9000, 8), b"a name\0\0");
    assert_eq!(rig.request(77, 0, 0), 2);
}

impl Rig<Blk> {
    /// A request about ranges of sectors.
    fn ranges(&mut self, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
        for (at, (sector, sectors, flags)) in (0x9000..).step_by(16).zip(ranges) {
            self.memory.write(at, &sector.to_le_bytes());
            self.memory.write(at + 8, &sectors.to_le_bytes());
            self.memory.write(at + 12, &flags.to_le_bytes());
        }
        self.memory.write(0x8000, &kind.to_le_bytes());
        let data = (0x9000, 16 * ranges.len() as u32, false);
        self.offer(0, &[(0x8000, 16, false), data, (0x8100, 1, true)]);
        self.bytes(0x8100, 1)[0]
    }
}

#[test]
fn a_disk_discards_and_zeroes() {
    let disk = disk();
    let mut rig = Rig::new(Blk::new(Box::new(disk.clone()), ""), 0);
    assert_eq!(rig.get(0x2000 + 36, Width::Dword), 1 << 22);
    assert_eq!(rig.get(0x2000 + 56, Width::Byte), 1);
    assert_eq!(rig.ranges(13, &[(3, 2, 0), (9, 1, 1)]), 0);
    let bytes = disk.contents();
    let sector = |n: usize| bytes[n * SECTOR];
    assert_eq!([2, 3, 4, 5, 8, 9, 10].map(sector), [2, 0, 0, 5, 8, 0, 10]);
    assert_eq!(rig.ranges(11, &[(3, 2, 0)]), 0);
    // All ranges are looked at before anything is done.
    assert_eq!(
        rig.ranges(13, &[(20, 1, 0), (99, 2, 0)]),
        1,
        "beyond the end"
    );
    assert_eq!(rig.ranges(13, &[(u64::MAX, 2, 0)]), 1);
    assert_eq!(rig.ranges(13, &[(20, u32::MAX, 0)]), 1);
    assert_eq!(rig.ranges(13, &[(20, 1, 2)]), 2, "no such flag");
    assert_eq!(rig.ranges(11, &[(20, 1, 1)]), 2, "not for discarding");
    assert_eq!(rig.ranges(11, &[(20, 1, 0); 65]), 1, "too many");
    assert_eq!(rig.ranges(13, &[]), 1);
    assert_eq!(disk.contents()[20 * SECTOR], 20);
    let mut rig = Rig::new(Blk::new(Box::new(disk.write_protected()), ""), 0);
    assert_eq!(rig.ranges(13, &[(20, 1, 0)]), 1);
    assert_eq!(rig.ranges(11, &[(20, 1, 0)]), 1);
}

#[test]
fn a_protected_disk_is_not_written() {
    let disk = disk();
    let mut rig = Rig::new(Blk::new(Box::new(disk.write_protected()), ""), 0);
    rig.set(0, Width::Dword, 0);
    assert_eq!(rig.get(4, Width::Dword) & 0x220, 0x220);
    assert_eq!(rig.request(1, 0, 512), 1);
}

/// A disk of which the host has lost everything.
struct Lost;

impl BlockBackend for Lost {
    fn sectors(&self) -> u64 {
        100
    }

    fn read(&mut self, _: u64, _: &mut [u8]) -> Result<(), crate::BlockError> {
        Err(crate::BlockError::Host("gone".into()))
    }

    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), crate::BlockError> {
        Err(crate::BlockError::Host("full".into()))
    }

    fn flush(&mut self) -> Result<(), crate::BlockError> {
        Err(crate::BlockError::Host("gone".into()))
    }
}

#[test]
fn errors_of_the_host_are_errors_of_the_device() {
    let mut rig = Rig::new(Blk::new(Box::new(Lost), ""), 0);
    assert_eq!(rig.request(0, 0, 512), 1);
    assert_eq!(rig.used(0), (1, 1));
    assert_eq!(rig.request(1, 0, 512), 1);
    assert_eq!(rig.request(4, 0, 0), 1);
    assert_eq!(rig.ranges(13, &[(0, 1, 0)]), 1);
    assert_eq!(rig.status(), 0x0f, "the device goes on");
}

struct Counting(MemoryDisk, Arc<Mutex<u32>>);

impl BlockBackend for Counting {
    fn sectors(&self) -> u64 {
        self.0.sectors()
    }

    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), crate::BlockError> {
        self.0.read(lba, into)
    }

    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), crate::BlockError> {
        self.0.write(lba, from)
    }

    fn flush(&mut self) -> Result<(), crate::BlockError> {
        *self.1.lock().unwrap() += 1;
        Ok(())
    }
}

#[test]
fn drivers_that_do_not_flush_get_their_writes_flushed() {
    for (without, flushes) in [(0, 0), (1 << 9, 1)] {
        let count = Arc::new(Mutex::new(0));
        let disk = Counting(disk(), count.clone());
        let mut rig = Rig::new(Blk::new(Box::new(disk), ""), without);
        rig.request(1, 0, 512);
        assert_eq!(*count.lock().unwrap(), flushes);
    }
}

#[test]
fn requests_may_be_scattered_and_indirect() {
    let mut rig = Rig::new(Blk::new(Box::new(disk()), ""), 0);
    rig.memory.write(0x8000, &[0; 16]);
    rig.memory.write(0x8008, &[5]);
    let pieces = [
        (0x8000, 7, 1),
        (0x8007, 9, 1),
        (0x9000, 300, 3),
        (0xa000, 213, 2),
    ];
    for (n, (address, len, flags)) in (0..).zip(pieces) {
        rig.descriptor(0xc000 + 16 * u64::from(n), address, len, flags, n + 1);
    }
    rig.descriptor(TABLE + 16 * 3, 0xc000, 64, 4, 0);
    rig.publish(0, 3);
    assert_eq!(rig.used(0), (1, 513));
    assert_eq!(rig.bytes(USED + 4, 4), [3, 0, 0, 0]);
    assert_eq!(rig.bytes(0x9000, 301), [vec![5; 300], vec![0]].concat());
    assert_eq!(rig.bytes(0xa000, 213), [vec![5; 212], vec![0]].concat());
}

#[test]
fn malformed_rings_stop_the_device() {
    type Break = fn(&mut Rig<Blk>);
    let breaks: [Break; 7] = [
        // Around and around.
        |rig| {
            rig.descriptor(TABLE, 0x8000, 16, 1, 0);
            rig.publish(0, 0);
        },
        |rig| rig.publish(0, 8),
        |rig| rig.memory.write(AVAILABLE + 2, &[0xff, 0]),
        // Readable behind writable.
        |rig| rig.offer(0, &[(0x8000, 16, true), (0x8000, 16, false)]),
        |rig| rig.offer(0, &[(0x8000, 16, false)]),
        |rig| rig.offer(0, &[(0x8000, 15, false), (0x8100, 1, true)]),
        // Indirect within indirect.
        |rig| {
            rig.descriptor(TABLE, TABLE, 16, 4, 0);
            rig.publish(0, 0);
        },
    ];
    for (n, damage) in breaks.into_iter().enumerate() {
        let mut rig = Rig::new(Blk::new(Box::new(disk()), ""), 0);
        damage(&mut rig);
        rig.set(0x3000, Width::Word, 0);
        assert_eq!((n, rig.status()), (n, 0x4f));
        assert_eq!(rig.get(0x1000, Width::Byte), 2);
        assert_eq!(rig.used(0).0, 0);
        rig.start(0);
        assert_eq!(rig.request(0, 1, 512), 0, "after a reset all is well");
    }
}

#[test]
fn rings_on_top_of_each_other_end() {
    let mut rig = Rig::new(Rng::new(Box::new(|bytes: &mut [u8]| bytes.fill(1))), 0);
    rig.set(0x14, Width::Byte, 0);
    rig.start(0);
    rig.set(0x14, Width::Byte, 0);
    rig.set(0x08, Width::Dword, 1);
    rig.set(0x0c, Width::Dword, 1);
    rig.set(0x14, Width::Byte, 0x0b);
    for at in [0x28, 0x30] {
        rig.set(at, Width::Qword, AVAILABLE);
    }
    rig.set(0x20, Width::Qword, TABLE);
    rig.set(0x1c, Width::Word, 1);
    rig.set(0x14, Width::Byte, 0x0f);
    rig.descriptor(TABLE, 0x8000, 16, 2, 0);
    rig.memory.write(AVAILABLE, &[0, 0, 2, 0, 0, 0, 0, 0]);
    rig.set(0x3000, Width::Word, 0);
    assert_eq!(rig.bytes(0x8000, 16), [1; 16]);
}

#[test]
fn interrupts_as_messages() {
    let mut rig = Rig::new(Blk::new(Box::new(disk()), ""), 0);
    let capability = (0x40..0xf0)
        .step_by(4)
        .find(|at| rig.dev.read_config(*at) & 0xff == 0x11);
    let capability = capability.unwrap();
    assert_eq!(rig.dev.read_config(capability) >> 16, 1, "two vectors");
    rig.dev.write_config(capability, 0x8000_0000, 0xffff_0000);
    rig.set(0x4010, Width::Dword, 0xfee0_1000);
    rig.set(0x4018, Width::Dword, 0x41);
    rig.set(0x16, Width::Word, 0);
    rig.set(0x1a, Width::Word, 2);
    assert_eq!(rig.get(0x1a, Width::Word), 0xffff, "no such vector");
    rig.set(0x1a, Width::Word, 1);
    rig.request(0, 0, 512);
    assert!(rig.messages.lock().unwrap().is_empty());
    assert_eq!(rig.get(0x5000, Width::Dword), 2, "pending");
    rig.set(0x401c, Width::Dword, 0);
    assert_eq!(*rig.messages.lock().unwrap(), [(0xfee0_1000, 0x41)]);
    assert_eq!(rig.get(0x5000, Width::Dword), 0);
    // The driver does not want to know.
    rig.memory.write(AVAILABLE, &[1]);
    rig.request(0, 0, 512);
    assert_eq!(rig.messages.lock().unwrap().len(), 1);
    assert!(!rig.line.level());
}

#[test]
fn features_are_negotiated() {
    let mut rig = Rig::new(Blk::new(Box::new(disk()), ""), 1 << 32);
    assert_eq!(rig.status() & 8, 0, "version 1 is not optional");
    rig.set(0x14, Width::Byte, 0);
    rig.set(0x08, Width::Dword, 1);
    rig.set(0x0c, Width::Dword, 0x8000_0001);
    rig.set(0x14, Width::Byte, 0x0b);
    assert_eq!(rig.status(), 0x03, "not offered");
    rig.start(0);
    assert_eq!(rig.status(), 0x0f);
    assert_eq!(rig.dev.read_config(0), 0x1042_1af4);
}

#[test]
fn registers_through_configuration_space() {
    let mut rig = Rig::new(Blk::new(Box::new(disk()), ""), 0);
    let at = (0x40..0xf0)
        .step_by(4)
        .find(|at| rig.dev.read_config(*at) >> 24 == 5 && rig.dev.read_config(*at) & 0xff == 9);
    let at = at.unwrap();
    rig.dev.write_config(at + 4, BAR.into(), 0xff);
    rig.dev.write_config(at + 8, 0x14, u32::MAX);
    rig.dev.write_config(at + 12, 1, u32::MAX);
    assert_eq!(rig.dev.read_config(at + 16), 0x0f);
    rig.dev.write_config(at + 16, 0, 0xff);
    assert_eq!(rig.status(), 0);
}

#[test]
fn a_console_talks_both_ways() {
    let output = Arc::new(Mutex::new(Vec::new()));
    let mut rig = Rig::new(Console::new(Box::new(output.clone())), 0);
    rig.offer(0, &[(0x8000, 4, true)]);
    assert_eq!(rig.used(0).0, 0, "waits");
    assert_eq!(rig.dev.device.receive(b"hello"), 5);
    rig.dev.poll();
    assert_eq!(rig.used(0), (1, 4));
    assert_eq!(rig.bytes(0x8000, 5), b"hell\0");
    let saved = round_trip(&rig.dev.save());
    let mut other = Rig::new(Console::new(Box::new(output.clone())), 0);
    other.dev.restore(saved);
    other
        .memory
        .0
        .lock()
        .unwrap()
        .clone_from(&rig.memory.0.lock().unwrap());
    other.next = rig.next;
    other.offer(0, &[(0x8000, 4, true)]);
    assert_eq!(other.used(0), (2, 1));
    rig.memory.write(0x8000, b"one two");
    rig.offer(1, &[(0x8000, 4, false), (0x8004, 3, false)]);
    assert_eq!(rig.used(1), (1, 0));
    assert_eq!(*output.lock().unwrap(), b"one two");
    assert_eq!(rig.dev.device.receive(&[0; 0x2_0000]), 0x1_0000 - 1);
}

#[test]
fn randomness_fills_buffers() {
    let mut count = 0u8;
    let source = move |bytes: &mut [u8]| {
        for byte in bytes {
            count = count.wrapping_add(1);
            *byte = count;
        }
    };
    let mut rig = Rig::new(Rng::new(Box::new(source)), 0);
    rig.offer(0, &[(0x8000, 3, true), (0x9000, 2, true)]);
    assert_eq!(rig.used(0), (1, 5));
    assert_eq!(
        (rig.bytes(0x8000, 4), rig.bytes(0x9000, 3)),
        (vec![1, 2, 3, 0], vec![4, 5, 0])
    );
    rig.dev.write_config(4, 0, 4);
    rig.offer(0, &[(0x8000, 3, true)]);
    assert_eq!(rig.used(0).0, 1, "no bus master");
}

#[test]
fn survives_a_storm() {
    let mut random = Random::new(61);
    let disk = MemoryDisk::new(vec![1; 64 * SECTOR]);
    let mut rig = Rig::new(Blk::new(Box::new(disk.clone()), ""), 0);
    let widths = [Width::Byte, Width::Word, Width::Dword, Width::Qword];
    for n in 0..60_000 {
        let width = widths[random.below(4) as usize];
        let value = random.next() >> random.below(64) & width.ones();
        match random.below(10) {
            0 => {
                let page = random.below(8) << 12;
                rig.set(page + random.below(0x40), width, value);
            }
            1 => {
                rig.get(random.below(0x8000), width);
            }
            2 => rig
                .memory
                .write(TABLE + random.below(0x80), &value.to_le_bytes()),
            3 => rig
                .memory
                .write(AVAILABLE + random.below(0x20), &value.to_le_bytes()),
            4 if random.below(8) == 0 => {
                rig.dev
                    .write_config(random.next() as u8 & 0xfc, value as u32, u32::MAX);
            }
            5 => {
                rig.dev.write_config(4, 6, 0xffff);
                rig.start(0);
            }
            6 => rig.publish(0, value as u16 & 7),
            _ => {
                rig.request(
                    value as u32 & 9,
                    random.below(70),
                    random.below(9) as u32 * 256,
                );
            }
        }
        if n % 10_000 == 0 {
            let saved = round_trip(&rig.dev.save());
            rig.dev.restore(saved);
        }
    }
    assert_eq!(disk.contents().len(), 64 * SECTOR);
}
