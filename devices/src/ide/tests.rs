use super::*;
use crate::block::{BlockError, MemoryDisk, SECTOR};
use crate::testing::{Probe, Random, TestMemory, round_trip};
use crate::{Bus, Shared};

/// The ports of a controller with a disk of 1000 sectors, each filled with its number, as drive 0
/// of channel 0.
pub(super) struct Rig {
    pub ide: Shared<Ide>,
    pub bus: Bus,
    pub memory: TestMemory,
    pub irqs: [Probe; 2],
    pub disk: MemoryDisk,
}

const BUS_MASTER: u64 = 0xc000;

pub(super) fn bare() -> Rig {
    let memory = TestMemory::new(0x20_0000);
    let irqs = [Probe::default(), Probe::default()];
    let mut ide = Ide::new(Box::new(memory.clone()), irqs.each_ref().map(Probe::line));
    ide.enable();
    let ide = Shared::new(ide);
    let mut bus = Bus::new();
    for channel in 0..2 {
        let (command, control) = (COMMAND_BLOCKS[channel], CONTROL_BLOCKS[channel]);
        bus.attach(command.into(), 8, "ide", ide.command_block(channel))
            .unwrap();
        bus.attach(control.into(), 1, "ide", ide.control_block(channel))
            .unwrap();
    }
    bus.attach(BUS_MASTER, BUS_MASTER_PORTS, "bm", ide.bus_master())
        .unwrap();
    Rig {
        ide,
        bus,
        memory,
        irqs,
        disk: MemoryDisk::default(),
    }
}

fn rig() -> Rig {
    let mut rig = bare();
    let bytes = (0..1000u32).flat_map(|n| n.to_le_bytes().repeat(SECTOR / 4));
    rig.disk = MemoryDisk::new(bytes.collect());
    let disk = Box::new(rig.disk.clone());
    assert!(rig.ide.lock().add_disk(0, 0, disk, "S1"));
    rig
}

impl Rig {
    pub fn get(&mut self, port: u64) -> u8 {
        self.bus.read(port, Width::Byte) as u8
    }

    pub fn set(&mut self, port: u64, value: u8) {
        self.bus.write(port, Width::Byte, value.into());
    }

    /// A command with 28-bit address.
    fn command(&mut self, command: u8, lba: u32, count: u8) {
        let [low, mid, high, top] = lba.to_le_bytes();
        for (port, value) in [(6, 0xe0 | top), (2, count), (3, low), (4, mid), (5, high)] {
            self.set(0x1f0 + port, value);
        }
        self.set(0x1f7, command);
    }

    /// A command with 48-bit address.
    fn command48(&mut self, command: u8, lba: u64, count: u16) {
        let a = lba.to_le_bytes();
        let [low, high] = count.to_le_bytes();
        for (port, before, now) in [
            (2, high, low),
            (3, a[3], a[0]),
            (4, a[4], a[1]),
            (5, a[5], a[2]),
        ] {
            self.set(0x1f0 + port, before);
            self.set(0x1f0 + port, now);
        }
        self.set(0x1f6, 0x40);
        self.set(0x1f7, command);
    }

    pub fn data(&mut self, base: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0xcc; len];
        self.bus.read_many(base, Width::Word, &mut data);
        data
    }

    /// A table of one region or more at 1000h.
    pub fn prd(&self, regions: &[(u32, u32)]) {
        let table: Vec<u8> = (1..)
            .zip(regions)
            .flat_map(|(n, (address, len))| {
                let last = u32::from(n == regions.len()) << 31;
                [address.to_le_bytes(), (len & 0xffff | last).to_le_bytes()].concat()
            })
            .collect();
        self.memory.write(0x1000, &table);
    }

    pub fn bus_master(&mut self, channel: u64, command: u8) {
        let base = BUS_MASTER + 8 * channel;
        self.bus.write(base + 4, Width::Dword, 0x1000);
        self.set(base, command);
    }

    pub fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(at, &mut bytes);
        bytes
    }
}

fn sector(n: u32) -> Vec<u8> {
    n.to_le_bytes().repeat(SECTOR / 4)
}

#[test]
fn who_is_there() {
    let mut rig = rig();
    assert_eq!(rig.get(0x1f7), 0x50);
    rig.set(0x1f6, 0xb0);
    assert_eq!(rig.get(0x1f7), 0x00, "no drive 1");
    assert_eq!(rig.get(0x177), 0x7f, "nobody on the second channel");
    assert_eq!(rig.bus.read(0x170, Width::Word), 0xffff);
    rig.set(0x3f6, 0x04);
    assert_eq!(rig.get(0x3f6), 0x80);
    rig.set(0x1f7, 0xec);
    rig.set(0x3f6, 0x00);
    let seen = [1, 2, 3, 4, 5, 6, 7].map(|n| rig.get(0x1f0 + n));
    assert_eq!(seen, [1, 1, 1, 0, 0, 0xa0, 0x50]);
    assert_eq!(rig.irqs[0].rises(), 0);
    rig.set(0x1f6, 0xb0);
    rig.set(0x1f7, 0x90);
    assert_eq!((rig.get(0x1f6), rig.irqs[0].level()), (0xa0, true));
    assert_eq!(rig.get(0x1f7), 0x50);
}

#[test]
fn firmware_switches_the_ports_on() {
    let mut rig = rig();
    rig.ide.lock().reset();
    assert_eq!(rig.get(0x1f7), 0xff);
    rig.ide.write_config(0x04, 0x5, 0xffff);
    assert_eq!((rig.get(0x1f7), rig.get(0x177)), (0x50, 0x7f));
    rig.ide.write_config(0x40, 0x8000, !0);
    assert_eq!((rig.get(0x1f7), rig.get(0x177)), (0x50, 0xff));
    rig.ide.write_config(0x40, 0, 0xffff);
    assert_eq!(rig.get(0x1f7), 0xff);
    rig.ide.write_config(0x20, BUS_MASTER as u32, !0);
    let mapping = rig.ide.mappings()[0];
    assert_eq!(
        (mapping.bar, mapping.start, mapping.len),
        (4, BUS_MASTER, 16)
    );
}

#[test]
fn identify() {
    let mut rig = rig();
    rig.set(0x1f7, 0xec);
    assert_eq!((rig.get(0x3f6), rig.irqs[0].level()), (0x58, true));
    let data = rig.data(0x1f0, 512);
    assert!(
        rig.irqs[0].level(),
        "the alternate status acknowledges nothing"
    );
    assert_eq!(rig.get(0x1f7), 0x50);
    assert!(!rig.irqs[0].level());
    let word = |n: usize| u16::from_le_bytes([data[2 * n], data[2 * n + 1]]);
    assert_eq!(
        (word(0), word(60), word(61), word(100)),
        (0x40, 1000, 0, 1000)
    );
    assert_eq!(&data[20..24], b"1S  ");
    assert_eq!(word(63), 0x0407);
    let sum = data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    assert_eq!(sum, 0);
}

#[test]
fn sectors_through_the_port() {
    let mut rig = rig();
    rig.command(0x20, 5, 2);
    assert_eq!(rig.data(0x1f0, 512), sector(5));
    assert_eq!(rig.irqs[0].rises(), 1, "not acknowledged");
    rig.get(0x1f7);
    assert_eq!(rig.bus.read(0x1f0, Width::Dword), 6);
    assert_eq!(rig.data(0x1f0, 508), sector(6)[4..]);
    assert_eq!(rig.get(0x1f7), 0x50);
    assert_eq!(rig.bus.read(0x1f0, Width::Word), 0, "no more data");

    rig.command(0x30, 7, 2);
    assert_eq!((rig.get(0x1f7), rig.irqs[0].level()), (0x58, false));
    rig.bus.write_many(0x1f0, Width::Word, &[0xaa; 512]);
    assert_eq!((rig.irqs[0].level(), rig.get(0x1f7)), (true, 0x58));
    rig.bus.write_many(0x1f0, Width::Dword, &[0xbb; 512]);
    assert_eq!((rig.irqs[0].level(), rig.get(0x1f7)), (true, 0x50));
    let all = rig.disk.contents();
    assert_eq!(all[7 * 512..8 * 512], [0xaa; 512]);
    assert_eq!(all[8 * 512..9 * 512], [0xbb; 512]);
    assert_eq!(all[9 * 512..10 * 512], sector(9));
}

#[test]
fn multiple_sectors_between_interrupts() {
    let mut rig = rig();
    rig.command(0xc4, 0, 1);
    assert_eq!((rig.get(0x1f7), rig.get(0x1f1)), (0x51, 0x04));
    rig.command(0xc6, 0, 3);
    assert_eq!(rig.get(0x1f7), 0x51);
    rig.command(0xc6, 0, 4);
    assert_eq!(rig.get(0x1f7), 0x50);
    let before = rig.irqs[0].rises();
    rig.command48(0x29, 100, 6);
    rig.get(0x1f7);
    let mut want: Vec<u8> = (100..104).flat_map(sector).collect();
    assert_eq!(rig.data(0x1f0, 4 * 512), want);
    rig.get(0x1f7);
    want = (104..106).flat_map(sector).collect();
    assert_eq!(rig.data(0x1f0, 2 * 512), want);
    assert_eq!(rig.irqs[0].rises() - before, 2);
}

#[test]
fn addresses_in_three_forms() {
    let mut rig = rig();
    // Cylinder 0, head 2, sector 3 of 63.
    for (port, value) in [(6, 0xa2), (2, 1), (3, 3), (4, 0), (5, 0), (7, 0x20)] {
        rig.set(0x1f0 + port, value);
    }
    assert_eq!(rig.data(0x1f0, 512), sector(2 * 63 + 2));
    rig.set(0x1f3, 0);
    rig.set(0x1f7, 0x20);
    assert_eq!((rig.get(0x1f7), rig.get(0x1f1)), (0x51, 0x10), "sector 0");
    rig.command48(0x24, 999, 1);
    assert_eq!(rig.data(0x1f0, 512), sector(999));
    rig.command48(0x24, 0x0100_0000_0000, 1);
    assert_eq!((rig.get(0x1f7), rig.get(0x1f1)), (0x51, 0x10));
    rig.command(0x20, 999, 2);
    assert_eq!((rig.get(0x1f7), rig.get(0x1f1)), (0x51, 0x10));
    rig.command(0xf8, 0, 0);
    assert_eq!([3, 4, 5, 6].map(|n| rig.get(0x1f0 + n)), [0xe7, 3, 0, 0xe0]);
    rig.command48(0x27, 0x1234_5678_9abc, 0);
    assert_eq!([3, 4, 5].map(|n| rig.get(0x1f0 + n)), [0xe7, 3, 0]);
    rig.set(0x3f6, 0x80);
    assert_eq!([3, 4, 5].map(|n| rig.get(0x1f0 + n)), [0, 0, 0]);
}

#[test]
fn dma_through_a_table() {
    let mut rig = rig();
    rig.prd(&[(0x1_0000, 0x300), (0x2_0000, 0x500)]);
    rig.command(0xc8, 20, 4);
    assert!(!rig.irqs[0].level());
    rig.bus_master(0, 0x09);
    assert!(rig.irqs[0].level());
    assert_eq!((rig.get(0x1f7), rig.get(BUS_MASTER + 2)), (0x50, 0x04));
    let want: Vec<u8> = (20..24).flat_map(sector).collect();
    assert_eq!(rig.bytes(0x1_0000, 0x300), want[..0x300]);
    assert_eq!(rig.bytes(0x2_0000, 0x500), want[0x300..]);
    rig.set(BUS_MASTER, 0);
    rig.set(BUS_MASTER + 2, 0x64);
    assert_eq!(rig.get(BUS_MASTER + 2), 0x60);

    // The engine may be started before the command; 0 means 64 KiB.
    rig.prd(&[(0x1_0000, 0)]);
    rig.bus_master(0, 0x01);
    rig.command48(0x35, 500, 3);
    assert_eq!((rig.get(0x1f7), rig.get(BUS_MASTER + 2)), (0x50, 0x65));
    assert_eq!(rig.disk.contents()[500 * 512..][..0x300], want[..0x300]);
    rig.set(BUS_MASTER, 0);
    assert_eq!(rig.get(BUS_MASTER + 2), 0x64);
}

#[test]
fn a_short_table_stops_until_there_is_another() {
    let mut rig = rig();
    rig.prd(&[(0x1_0000, 512)]);
    rig.command(0xc8, 30, 2);
    rig.bus_master(0, 0x09);
    assert_eq!((rig.irqs[0].level(), rig.get(BUS_MASTER + 2)), (false, 0));
    assert_eq!(rig.get(0x3f6), 0x58);
    rig.set(BUS_MASTER, 0);
    rig.bus_master(0, 0x09);
    assert_eq!((rig.irqs[0].level(), rig.get(BUS_MASTER + 2)), (true, 4));
    assert_eq!(rig.bytes(0x1_0000, 512), sector(31));
    // The wrong direction moves nothing.
    rig.set(BUS_MASTER, 0);
    rig.command(0xca, 30, 1);
    rig.bus_master(0, 0x09);
    assert_eq!(rig.get(BUS_MASTER + 2) & 1, 1);
    assert_eq!(rig.disk.contents()[30 * 512..31 * 512], sector(30));
}

struct Broken(bool);

impl crate::BlockBackend for Broken {
    fn sectors(&self) -> u64 {
        1 << 40
    }

    fn read_only(&self) -> bool {
        self.0
    }

    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), BlockError> {
        into.fill(1);
        match lba {
            0..0x1_2345 => Ok(()),
            _ => Err(BlockError::Host("gone".into())),
        }
    }

    fn write(&mut self, _lba: u64, _from: &[u8]) -> Result<(), BlockError> {
        Err(BlockError::Host("full".into()))
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        Err(BlockError::Host("gone".into()))
    }
}

#[test]
fn the_host_fails() {
    let mut rig = bare();
    assert!(rig.ide.lock().add_disk(0, 0, Box::new(Broken(false)), ""));
    assert!(rig.ide.lock().add_disk(1, 1, Box::new(Broken(true)), ""));
    assert!(!rig.ide.lock().add_disk(1, 1, Box::new(Broken(true)), ""));
    assert!(!rig.ide.lock().add_disk(2, 0, Box::new(Broken(true)), ""));
    rig.command(0x20, 0x1_2344, 2);
    rig.data(0x1f0, 512);
    assert_eq!((rig.get(0x1f7), rig.get(0x1f1)), (0x51, 0x40));
    assert_eq!(
        [3, 4, 5, 6].map(|n| rig.get(0x1f0 + n)),
        [0x45, 0x23, 1, 0xe0]
    );
    rig.command(0x30, 1, 1);
    rig.bus.write_many(0x1f0, Width::Word, &[0; 512]);
    assert_eq!((rig.get(0x1f7), rig.get(0x1f1)), (0x71, 0x04));
    rig.command(0xe7, 0, 0);
    assert_eq!(rig.get(0x1f7), 0x71);
    for (port, value) in [(6, 0xf0), (2, 1), (3, 0), (7, 0x30)] {
        rig.set(0x170 + port, value);
    }
    assert_eq!((rig.get(0x177), rig.get(0x171)), (0x51, 0x04));
    assert!(rig.irqs[1].rises() == 1);
}

#[test]
fn interrupts_can_be_held_back() {
    let mut rig = rig();
    rig.set(0x3f6, 0x02);
    rig.set(0x1f7, 0xe7);
    assert!(!rig.irqs[0].level());
    rig.set(0x3f6, 0x00);
    assert!(rig.irqs[0].level());
    rig.set(0x1f6, 0xb0);
    assert!(!rig.irqs[0].level(), "that of the selected drive only");
    rig.set(0x1f6, 0xa0);
    assert!(rig.irqs[0].level());
    rig.set(0x1f7, 0xb0);
    assert_eq!((rig.get(0x1f7), rig.get(0x1f1)), (0x51, 0x04), "no SMART");
}

#[test]
fn modes_and_power() {
    let mut rig = rig();
    for (feature, count, want) in [
        (3, 0x42, 0x50),
        (3, 0x77, 0x51),
        (0x82, 0, 0x50),
        (9, 0, 0x51),
    ] {
        rig.set(0x1f1, feature);
        rig.command(0xef, 0, count);
        assert_eq!(rig.get(0x1f7), want, "{feature:#x}");
    }
    rig.set(0x1f7, 0xe0);
    rig.set(0x1f7, 0xe5);
    assert_eq!(rig.get(0x1f2), 0);
    rig.command(0x40, 0, 0);
    assert_eq!(rig.get(0x1f7), 0x50);
    rig.set(0x1f7, 0xe5);
    assert_eq!(rig.get(0x1f2), 0xff);
    rig.command(0x91, 0, 32);
    rig.set(0x1f7, 0xec);
    let data = rig.data(0x1f0, 512);
    assert_eq!(data[2 * 85], 0x08, "no write cache");
    assert_eq!(data[2 * 55..2 * 57], [1, 0, 32, 0]);
    assert_eq!(data[2 * 88 + 1], 0x04);
    assert_eq!(data[2 * 63 + 1], 0);
}

#[test]
fn a_transfer_survives_a_round_trip() {
    let mut one = rig();
    one.command(0x20, 40, 3);
    one.data(0x1f0, 700);
    let saved = round_trip(&one.ide.lock().save());
    let mut two = rig();
    two.ide.lock().restore(saved);
    assert!(two.irqs[0].level());
    let want: Vec<u8> = (40..43).flat_map(sector).collect();
    assert_eq!(two.data(0x1f0, 3 * 512 - 700), want[700..]);
    assert_eq!(two.get(0x1f7), 0x50);
}

#[test]
fn survives_a_storm() {
    let mut rig = rig();
    let disc = Box::new(MemoryDisk::new(vec![3; 100 * 2048]));
    assert!(rig.ide.lock().add_cd(0, 1, Some(disc), ""));
    let mut random = Random::new(21);
    let widths = [Width::Byte, Width::Word, Width::Dword];
    let commands = [
        0x20, 0x24, 0x25, 0x30, 0x35, 0xa0, 0xa1, 0xc4, 0xc5, 0xc6, 0xc8, 0xca, 0xec, 0x08, 0x90,
    ];
    for n in 0..60_000 {
        let width = widths[random.below(3) as usize];
        let value = random.next() & width.ones();
        match random.below(16) {
            0..3 => {
                let at = 0x1f0 + random.below(9 - width.bytes());
                rig.bus.write(at, width, value);
            }
            3..5 => {
                rig.bus.read(0x1f0 + random.below(8), width);
            }
            5 => rig.set(0x3f6, if value & 7 == 0 { value as u8 } else { 0 }),
            6 => {
                rig.bus.write(BUS_MASTER + random.below(16), width, value);
            }
            7 => rig
                .memory
                .write(0x1000 + random.below(64), &value.to_le_bytes()),
            8 => rig.bus_master(0, value as u8),
            9 => {
                let len = random.below(3000) as usize * 4;
                rig.bus.read_many(0x1f0, width, &mut vec![0; len]);
            }
            10 => {
                let len = random.below(3000) as usize * 4;
                rig.bus.write_many(0x1f0, width, &vec![value as u8; len]);
            }
            11 => {
                let command = [
                    0x00, 0x03, 0x12, 0x1b, 0x28, 0x43, 0x46, 0x4a, 0x5a, 0xa8, 0xbe,
                ];
                let mut packet = [0; 12];
                packet.fill_with(|| random.next() as u8 & random.next() as u8);
                packet[0] = command[random.below(11) as usize];
                rig.set(0x1f7, 0xa0);
                rig.bus.write_many(0x1f0, Width::Word, &packet);
            }
            12 => rig.command48(0x24, random.below(1010), value as u16 & 0x1f),
            _ => rig.set(0x1f7, commands[random.below(15) as usize]),
        }
        if n % 10_000 == 0 {
            let saved = round_trip(&rig.ide.lock().save());
            rig.ide.lock().restore(saved);
        }
    }
    assert_eq!(rig.disk.contents().len(), 1000 * 512);
}
