use super::*;
use crate::GuestMemory;
use crate::block::{MemoryDisk, SECTOR};
use crate::testing::{Probe, Random, TestMemory, round_trip};

struct Rig {
    floppy: Floppy,
    dma: Shared<Dma>,
    memory: TestMemory,
    irq: Probe,
    disk: MemoryDisk,
}

/// A running controller whose drive 0 has a 1.44 MB disk, each sector filled with its number.
fn rig() -> Rig {
    let (memory, irq) = (TestMemory::new(0x10_0000), Probe::default());
    let dma = Shared::new(Dma::new(Box::new(memory.clone())));
    dma.lock().write_port(0xd6, 0xc0);
    dma.lock().write_port(0xd4, 0x00);
    let bytes = (0..2880u32).flat_map(|n| n.to_le_bytes().repeat(SECTOR / 4));
    let disk = MemoryDisk::new(bytes.collect());
    let mut floppy = Floppy::new(dma.clone(), irq.line());
    assert!(floppy.add_drive(0, Some(Box::new(disk.clone()))));
    let mut rig = Rig {
        floppy,
        dma,
        memory,
        irq,
        disk,
    };
    rig.floppy.write_port(0x3f2, 0x1c);
    for drive in 0..4 {
        assert_eq!(rig.command(&[0x08]), [0xc0 | drive, 0]);
    }
    rig.floppy.write_port(0x3f7, 0);
    rig.command(&[0x03, 0xaf, 0x02]);
    rig
}

fn sector(n: u32) -> Vec<u8> {
    n.to_le_bytes().repeat(SECTOR / 4)
}

impl Rig {
    /// Sends a command.
    fn send(&mut self, bytes: &[u8]) {
        for byte in bytes {
            assert_eq!(self.floppy.read_port(0x3f4) & 0xc0, 0x80);
            self.floppy.write_port(0x3f5, *byte);
        }
    }

    /// Reads a result.
    fn result(&mut self) -> Vec<u8> {
        let mut result = Vec::new();
        while self.floppy.read_port(0x3f4) & 0xf0 == 0xd0 {
            result.push(self.floppy.read_port(0x3f5));
        }
        assert_eq!(self.floppy.read_port(0x3f4), 0x80);
        result
    }

    fn command(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.send(bytes);
        self.result()
    }

    /// Sets channel 2 up for memory at 1_0000h.
    fn channel(&mut self, mode: u8, bytes: u16) {
        let mut dma = self.dma.lock();
        let [low, high] = (bytes - 1).to_le_bytes();
        for (port, value) in [
            (0x0c, 0),
            (0x0b, mode | 2),
            (0x04, 0),
            (0x04, 0),
            (0x05, low),
            (0x05, high),
            (0x81, 1),
            (0x0a, 2),
        ] {
            dma.write_port(port, value);
        }
    }

    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(at, &mut bytes);
        bytes
    }

    fn seek(&mut self, track: u8) {
        self.send(&[0x0f, 0, track]);
        assert!(self.irq.level());
        assert_eq!(self.command(&[0x08]), [0x20, track]);
        assert!(!self.irq.level());
    }
}

#[test]
fn reset_and_identification() {
    let mut rig = rig();
    assert_eq!(rig.irq.rises(), 1);
    assert_eq!(rig.command(&[0x08]), [0x80], "nothing to tell");
    assert_eq!(rig.command(&[0x10]), [0x90]);
    assert_eq!(rig.command(&[0x1f]), [0x80]);
    rig.command(&[0x13, 0, 0x57, 5]);
    assert_eq!(rig.command(&[0x94]), [0x10]);
    rig.command(&[0x12, 0x84]);
    let dump = [0, 0, 0, 0, 0xaf, 0x02, 0, 0x84, 0x57, 5];
    assert_eq!(rig.command(&[0x0e]), dump);
    rig.floppy.write_port(0x3f4, 0x80);
    assert!(rig.irq.level());
    assert_eq!(rig.command(&[0x0e])[7..], [0x84, 0x57, 5]);
    assert_eq!(rig.command(&[0x14]), [0x00]);
    rig.floppy.write_port(0x3f2, 0x18);
    assert_eq!(rig.floppy.read_port(0x3f4), 0);
    rig.floppy.write_port(0x3f2, 0x14);
    assert!(!rig.irq.level(), "the gate is closed");
    rig.floppy.write_port(0x3f2, 0x1c);
    assert!(rig.irq.level());
    assert_eq!(rig.command(&[0x0e])[7..], [0x04, 0x20, 0]);
    assert_eq!(rig.command(&[0x08]), [0xc0, 0]);
    rig.send(&[0x07, 0]);
    assert_eq!(rig.command(&[0x08]), [0x20, 0], "the newer report");
    assert_eq!(rig.command(&[0x08]), [0x80]);
}

#[test]
fn heads_move() {
    let mut rig = rig();
    assert_eq!(rig.floppy.read_port(0x3f7), 0x80);
    rig.seek(12);
    assert_eq!(rig.floppy.read_port(0x3f7), 0x00, "a disk is there");
    assert_eq!(rig.command(&[0x04, 0x04]), [0x2c]);
    rig.send(&[0xcf, 0, 3]);
    assert_eq!(rig.command(&[0x08]), [0x20, 15]);
    rig.send(&[0x07, 0]);
    assert_eq!(rig.command(&[0x08]), [0x20, 0]);
    assert_eq!(rig.command(&[0x04, 0x00]), [0x38]);
    rig.send(&[0x07, 1]);
    rig.send(&[0x07, 0]);
    assert_eq!(rig.command(&[0x08]), [0x20, 0]);
    assert!(rig.irq.level(), "another one");
    assert_eq!(rig.command(&[0x08]), [0x71, 0], "no drive 1");
    assert!(!rig.irq.level());
}

#[test]
fn sectors_are_read_by_dma() {
    let mut rig = rig();
    rig.seek(2);
    rig.channel(0x44, 1024);
    // Multi-track: the last sector of head 0 and the first of head 1.
    rig.send(&[0xe6, 0x00, 2, 0, 18, 2, 18, 0x1b, 0xff]);
    assert!(rig.irq.level());
    assert_eq!(rig.result(), [0x04, 0, 0, 2, 1, 2, 2]);
    assert!(!rig.irq.level());
    let first = 2 * 36 + 17;
    let want = [sector(first), sector(first + 1)].concat();
    assert_eq!(rig.bytes(0x1_0000, 1024), want);
    // Part of a sector, and what it says at the end of a cylinder.
    rig.channel(0x44, 100);
    let result = rig.command(&[0x46, 0x04, 2, 1, 18, 2, 18, 0x1b, 0xff]);
    assert_eq!(result, [0x04, 0, 0, 3, 1, 1, 2]);
    rig.channel(0x44, 1024);
    let result = rig.command(&[0x46, 0x04, 2, 1, 18, 2, 18, 0x1b, 0xff]);
    assert_eq!(result, [0x44, 0x80, 0, 3, 1, 1, 2]);
}

#[test]
fn sectors_are_written_by_dma() {
    let mut rig = rig();
    rig.memory.write(0x1_0000, &[0x5a; 700]);
    rig.channel(0x48, 700);
    let result = rig.command(&[0x45, 0x04, 0, 1, 3, 2, 18, 0x1b, 0xff]);
    assert_eq!(result, [0x04, 0, 0, 0, 1, 5, 2]);
    let all = rig.disk.contents();
    let at = 20 * SECTOR;
    assert_eq!(all[at..at + 700], [0x5a; 700]);
    assert_eq!(all[at + 700..at + 1024], [0; 324]);
    assert_eq!(all[at + 1024..at + 1536], sector(22));
    let protected = Box::new(rig.disk.write_protected());
    assert!(rig.floppy.insert(0, Some(protected)));
    assert_eq!(rig.command(&[0x04, 0]), [0x78]);
    let result = rig.command(&[0x45, 0, 0, 0, 3, 2, 18, 0x1b, 0xff]);
    assert_eq!(result[..3], [0x40, 0x02, 0]);
}

#[test]
fn tracks_are_formatted() {
    let mut rig = rig();
    rig.seek(79);
    let ids: Vec<u8> = (1..=18).flat_map(|n| [79, 1, n, 2]).collect();
    rig.memory.write(0x1_0000, &ids);
    rig.channel(0x48, 72);
    let result = rig.command(&[0x4d, 0x04, 2, 18, 0x54, 0xf6]);
    assert_eq!(result[..3], [0x04, 0, 0]);
    let all = rig.disk.contents();
    assert_eq!(all[2862 * SECTOR..], [0xf6; 18 * SECTOR]);
    assert_eq!(all[2861 * SECTOR..2862 * SECTOR], sector(2861));
}

#[test]
fn bytes_through_the_data_port() {
    let mut rig = rig();
    rig.command(&[0x03, 0xaf, 0x03]);
    rig.send(&[0x46, 0, 0, 0, 17, 2, 18, 0x1b, 0xff]);
    let mut data = Vec::new();
    while rig.floppy.read_port(0x3f4) == 0xf0 {
        assert!(rig.irq.level());
        data.push(rig.floppy.read_port(0x3f5));
    }
    assert_eq!(data, [sector(16), sector(17)].concat());
    assert_eq!(rig.result(), [0x40, 0x80, 0, 1, 0, 1, 2]);
    rig.send(&[0x45, 0, 0, 0, 1, 2, 1, 0x1b, 0xff]);
    for _ in 0..512 {
        assert_eq!(rig.floppy.read_port(0x3f4), 0xb0);
        rig.floppy.write_port(0x3f5, 0x77);
    }
    assert_eq!(rig.result()[..3], [0x40, 0x80, 0]);
    assert_eq!(rig.disk.contents()[..512], [0x77; 512]);
}

#[test]
fn what_is_not_there() {
    let mut rig = rig();
    let read = |c, h, r, n| [0x46, h << 2, c, h, r, n, 18, 0x1b, 0xff];
    rig.channel(0x44, 512);
    assert_eq!(rig.command(&read(5, 0, 1, 2))[..3], [0x40, 0x04, 0x10]);
    assert_eq!(rig.command(&read(0, 0, 19, 2))[..3], [0x40, 0x04, 0]);
    assert_eq!(rig.command(&read(0, 1, 1, 3))[..3], [0x44, 0x04, 0]);
    assert_eq!(rig.command(&[0x4a, 4]), [4, 0, 0, 0, 1, 1, 2]);
    assert_eq!(rig.command(&[0x4a, 4]), [4, 0, 0, 0, 1, 2, 2]);
    rig.floppy.write_port(0x3f7, 2);
    assert_eq!(
        rig.command(&[0x4a, 0])[..3],
        [0x40, 0x01, 0],
        "another rate"
    );
    rig.floppy.write_port(0x3f7, 0);
    assert_eq!(
        rig.command(&[0x0a, 0])[..3],
        [0x40, 0x01, 0],
        "single density"
    );
    rig.dma.lock().write_port(0x0a, 6);
    assert_eq!(
        rig.command(&read(0, 0, 1, 2))[..3],
        [0x40, 0x10, 0],
        "no DMA"
    );
    assert!(rig.floppy.insert(0, None));
    assert_eq!(rig.command(&read(0, 0, 1, 2))[..3], [0x40, 0x01, 0]);
    rig.command(&[0x13, 0, 0x40, 0]);
    let disk = Box::new(MemoryDisk::new(vec![1; 100 * SECTOR]));
    assert!(rig.floppy.insert(0, Some(disk)));
    rig.floppy.write_port(0x3f7, 1);
    rig.channel(0x44, 512);
    let implied = [0x46, 0, 30, 0, 9, 2, 9, 0x1b, 0xff];
    assert_eq!(rig.command(&implied), [0, 0, 0, 31, 0, 1, 2]);
    assert_eq!(rig.bytes(0x1_0000, 1), [0], "behind the end of the image");
}

#[test]
fn formats_are_known_by_size() {
    let mut rig = rig();
    for (sectors, kind) in [(720, 1), (2400, 2), (1440, 3), (2880, 4), (5760, 5)] {
        let disk = Box::new(MemoryDisk::new(vec![0; sectors * SECTOR]));
        assert!(rig.floppy.insert(0, Some(disk)));
        assert_eq!(rig.floppy.drive_type(0), kind);
    }
    let large = Box::new(MemoryDisk::new(vec![0; 5761 * SECTOR]));
    assert!(!rig.floppy.insert(0, Some(large)));
    assert!(!rig.floppy.add_drive(0, None) && !rig.floppy.insert(1, None));
    assert_eq!((rig.floppy.drive_type(1), rig.floppy.drive_type(7)), (0, 0));
}

#[test]
fn a_transfer_survives_a_round_trip() {
    let mut one = rig();
    one.command(&[0x03, 0xaf, 0x03]);
    one.send(&[0x46, 0, 0, 0, 3, 2, 3, 0x1b, 0xff]);
    one.floppy.read_port(0x3f5);
    let saved = round_trip(&one.floppy.save());
    let mut two = rig();
    two.floppy.restore(saved);
    assert!(two.irq.level());
    let rest: Vec<u8> = (1..512).map(|_| two.floppy.read_port(0x3f5)).collect();
    assert_eq!(rest, sector(2)[1..]);
    assert_eq!(two.result().len(), 7);
}

#[test]
fn survives_a_storm() {
    let mut rig = rig();
    let mut random = Random::new(51);
    let opcodes = [
        0x46, 0xc5, 0x4d, 0x4a, 0x03, 0x07, 0x0f, 0x08, 0x12, 0x13, 0x14, 0x0e, 0x04,
    ];
    for n in 0..100_000 {
        let value = random.next() as u8;
        match random.below(12) {
            0 => rig.floppy.write_port(0x3f0 + random.below(8) as u16, value),
            1..5 => {
                rig.floppy.read_port(0x3f0 + random.below(8) as u16);
            }
            5 => rig.floppy.write_port(0x3f2, 0x1c),
            6 => rig.channel([0x44, 0x48, 0x54][random.below(3) as usize], 600),
            7 => rig.floppy.write_port(0x3f7, 0),
            8 => rig
                .floppy
                .write_port(0x3f5, opcodes[random.below(13) as usize]),
            _ => rig
                .floppy
                .write_port(0x3f5, value & random.next() as u8 & 0x1f),
        }
        if n % 10_000 == 0 {
            let saved = round_trip(&rig.floppy.save());
            rig.floppy.restore(saved);
        }
    }
    assert_eq!(rig.disk.contents().len(), 2880 * SECTOR);
}
