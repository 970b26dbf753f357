use super::tests::{Rig, bare};
use super::*;
use crate::block::MemoryDisk;
use crate::testing::round_trip;

/// A CD-ROM drive with a disc of 100 blocks, each filled with its number, as drive 0 of channel 1.
fn rig() -> Rig {
    let rig = bare();
    let blocks = (0..100u8).flat_map(|n| [n; 2048]).collect();
    let disc = Box::new(MemoryDisk::new(blocks));
    assert!(rig.ide.lock().add_cd(1, 0, Some(disc), "C1"));
    rig
}

impl Rig {
    /// Sends a packet, with at most `limit` bytes a window.
    fn packet(&mut self, features: u8, limit: u16, packet: &[u8]) {
        let [low, high] = limit.to_le_bytes();
        for (port, value) in [(6, 0xa0), (1, features), (4, low), (5, high), (7, 0xa0)] {
            self.set(0x170 + port, value);
        }
        assert_eq!((self.get(0x172) & 3, self.get(0x177)), (1, 0x58));
        let mut bytes = [0; 12];
        bytes[..packet.len()].copy_from_slice(packet);
        self.bus.write_many(0x170, Width::Word, &bytes);
    }

    /// All that a packet answers, window by window.
    fn answer(&mut self, limit: u16, packet: &[u8]) -> Vec<u8> {
        self.packet(0, limit, packet);
        let mut all = Vec::new();
        loop {
            assert!(self.irqs[1].level());
            let status = self.get(0x177);
            if status & 8 == 0 {
                assert_eq!((status, self.get(0x172) & 3), (0x50, 3));
                return all;
            }
            assert_eq!(self.get(0x172) & 3, 2);
            let len = u16::from_le_bytes([self.get(0x174), self.get(0x175)]);
            assert!(0 < len && len <= limit);
            let even = usize::from(len).next_multiple_of(2);
            let window = self.data(0x170, even);
            all.extend(&window[..usize::from(len)]);
        }
    }

    /// That a packet fails with this sense.
    fn fails(&mut self, packet: &[u8], sense: (u8, u8)) {
        self.packet(0, 0xfffe, packet);
        assert_eq!((self.get(0x177), self.get(0x172) & 3), (0x41, 3));
        assert_eq!(self.get(0x171) >> 4, sense.0);
        let data = self.answer(18, &[3, 0, 0, 0, 18]);
        assert_eq!((data[2], data[12]), sense);
    }

    fn settle(&mut self) {
        self.fails(&[0], (6, 0x29));
        assert!(self.answer(64, &[0]).is_empty());
    }
}

#[test]
fn what_it_is() {
    let mut rig = rig();
    let seen = [2, 3, 4, 5, 7].map(|n| rig.get(0x170 + n));
    assert_eq!(seen, [1, 1, 0x14, 0xeb, 0x00]);
    rig.set(0x176, 0xb0);
    rig.set(0x172, 0x55);
    assert_eq!(
        [2, 3, 4, 5, 6, 7].map(|n| rig.get(0x170 + n)),
        [0; 6],
        "no drive 1"
    );
    rig.set(0x176, 0xa0);
    rig.set(0x177, 0xec);
    assert_eq!((rig.get(0x177), rig.get(0x171)), (0x51, 4));
    assert_eq!((rig.get(0x174), rig.get(0x175)), (0x14, 0xeb));
    let rises = rig.irqs[1].rises();
    rig.set(0x177, 0xa1);
    let data = rig.data(0x170, 512);
    assert_eq!(rig.get(0x177), 0x50);
    assert_eq!(
        (data[0], data[1], rig.irqs[1].rises()),
        (0xc0, 0x85, rises + 1)
    );
    let inquiry = rig.answer(0xffff, &[0x12, 0, 0, 0, 36]);
    assert_eq!((inquiry[0], inquiry[1], inquiry.len()), (5, 0x80, 36));
    assert_eq!(rig.answer(0xffff, &[0x12, 0, 0, 0, 5]).len(), 5);
    rig.settle();
    rig.set(0x177, 0x08);
    assert_eq!((rig.get(0x177), rig.get(0x175)), (0, 0xeb));
}

#[test]
fn blocks_through_the_port() {
    let mut rig = rig();
    rig.settle();
    assert_eq!(rig.answer(8, &[0x25]), [0, 0, 0, 99, 0, 0, 8, 0]);
    let read = [0x28, 0, 0, 0, 0, 10, 0, 0, 40];
    let want: Vec<u8> = (10..50).flat_map(|n| [n; 2048]).collect();
    for limit in [2048, 0xfffe, 1000, 2] {
        assert!(rig.answer(limit, &read) == want, "{limit}");
    }
    assert_eq!(
        rig.answer(0xfffe, &[0xa8, 0, 0, 0, 0, 99, 0, 0, 0, 1]),
        [99; 2048]
    );
    assert!(rig.answer(0xfffe, &[0x28, 0, 0, 0, 0, 10]).is_empty());
    rig.fails(&[0x28, 0, 0, 0, 0, 99, 0, 0, 2], (5, 0x21));
    rig.fails(
        &[0x28, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        (5, 0x21),
    );
    rig.fails(&[0x55], (5, 0x20));
}

#[test]
fn blocks_by_dma() {
    let mut rig = rig();
    rig.settle();
    rig.prd(&[(0x1_0000, 0), (0x2_0000, 2048 * 8)]);
    rig.packet(1, 0, &[0x28, 0, 0, 0, 0, 2, 0, 0, 40]);
    assert_eq!((rig.get(0x177), rig.get(0x172) & 3), (0x58, 2));
    rig.bus_master(1, 0x09);
    assert!(rig.irqs[1].level());
    assert_eq!((rig.get(0x177), rig.get(0x172) & 3), (0x50, 3));
    assert_eq!(rig.bytes(0x1_0000, 2048), [2; 2048]);
    assert_eq!(rig.bytes(0x2_3800, 2048), [41; 2048]);
    assert_eq!(rig.bytes(0x2_4000, 1), [0]);
}

#[test]
fn discs_come_and_go() {
    let mut rig = rig();
    rig.settle();
    rig.answer(8, &[0x1e, 0, 0, 0, 1]);
    rig.fails(&[0x1b, 0, 0, 0, 2], (5, 0x53));
    assert!(!rig.ide.lock().change_disc(1, 0, None), "locked");
    rig.answer(8, &[0x1e, 0, 0, 0, 0]);
    rig.answer(8, &[0x1b, 0, 0, 0, 2]);
    rig.fails(&[0], (2, 0x3a));
    let event = rig.answer(8, &[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8]);
    assert_eq!(event, [0, 6, 4, 0x10, 3, 1, 0, 0]);
    let disc = Box::new(MemoryDisk::new(vec![7; 4096]));
    assert!(rig.ide.lock().change_disc(1, 0, Some(disc)));
    rig.fails(&[0], (6, 0x28));
    assert_eq!(rig.answer(8, &[0x25]), [0, 0, 0, 1, 0, 0, 8, 0]);
    assert!(!rig.ide.lock().change_disc(0, 0, None), "no such drive");
    assert!(rig.ide.lock().change_disc(1, 0, None));
    rig.fails(&[0x25], (2, 0x3a));
}

#[test]
fn tables_of_contents() {
    let mut rig = rig();
    rig.settle();
    let toc = rig.answer(100, &[0x43, 0, 0, 0, 0, 0, 0, 0, 100]);
    assert_eq!(
        toc,
        [
            0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xaa, 0, 0, 0, 0, 100
        ]
    );
    let msf = rig.answer(100, &[0x43, 2, 0, 0, 0, 0, 0xaa, 0, 100]);
    assert_eq!(msf[4..], [0, 0x14, 0xaa, 0, 0, 0, 3, 25]);
    assert_eq!(
        rig.answer(100, &[0x43, 0, 0, 0, 0, 0, 0, 0, 100, 0x40])
            .len(),
        12
    );
    assert_eq!(rig.answer(100, &[0x43, 0, 2, 0, 0, 0, 0, 0, 100]).len(), 48);
    rig.fails(&[0x43, 0, 5, 0, 0, 0, 0, 0, 100], (5, 0x24));
    let all = rig.answer(200, &[0x46, 0, 0, 0, 0, 0, 0, 0, 200]);
    assert_eq!(
        u32::from_be_bytes([all[0], all[1], all[2], all[3]]) as usize,
        all.len() - 4
    );
    assert_eq!(all[6..8], [0, 8]);
    let mode = rig.answer(200, &[0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 200]);
    assert_eq!((usize::from(mode[1]), mode[8]), (mode.len() - 2, 1));
}

#[test]
fn a_packet_survives_a_round_trip() {
    let mut one = rig();
    one.settle();
    one.packet(0, 1000, &[0x28, 0, 0, 0, 0, 10, 0, 0, 2]);
    one.data(0x170, 600);
    let saved = round_trip(&one.ide.lock().save());
    let mut two = rig();
    two.ide.lock().restore(saved);
    assert_eq!(two.data(0x170, 400), [10; 400]);
    assert_eq!(two.get(0x174), (1000 & 0xff) as u8);
    assert_eq!(two.data(0x170, 1000), [10; 1000]);
}
