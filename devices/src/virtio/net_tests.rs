use super::tests::Rig;
use super::*;
use crate::net::{MAX_FRAME, NetBackend, cable};
use crate::pci::PciFunction;
use crate::testing::Random;
use crate::{GuestMemory, Width};

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

fn card() -> (Rig<Net>, impl NetBackend) {
    let (ours, theirs) = cable(Box::new(|| {}), Box::new(|| {}));
    (Rig::new(Net::new(Box::new(ours), MAC), 0), theirs)
}

#[test]
fn a_card_says_who_it_is() {
    let (mut rig, _) = card();
    assert_eq!(rig.dev.read_config(0), 0x1041_1af4);
    let config: Vec<u64> = (0..12)
        .map(|at| rig.get(0x2000 + at, Width::Byte))
        .collect();
    assert_eq!(config[..6], MAC.map(u64::from));
    assert_eq!(config[6..], [1, 0, 1, 0, 0xdc, 0x05]);
    rig.set(0, Width::Dword, 0);
    assert_eq!(rig.get(4, Width::Dword) & 0xff_ffff, 0x01_0029);
}

#[test]
fn frames_go_both_ways() {
    let (mut rig, mut wire) = card();
    rig.memory.write(0x8000, &[0; 12]);
    rig.memory.write(0x8100, &[7; 60]);
    rig.offer(1, &[(0x8000, 12, false), (0x8100, 60, false)]);
    assert_eq!(rig.used(1), (1, 0));
    assert_eq!(wire.receive(), Some(vec![7; 60]));
    rig.offer(0, &[(0x9000, 100, true), (0xa000, 1426, true)]);
    assert_eq!(rig.used(0).0, 0, "waits");
    wire.send(&[9; 200]);
    wire.send(&[8; 100]);
    rig.dev.poll();
    assert_eq!(rig.used(0), (1, 212));
    assert!(rig.line.level());
    let header = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(rig.bytes(0x9000, 12), header);
    assert_eq!(rig.bytes(0x900c, 88), [9; 88]);
    assert_eq!(rig.bytes(0xa000, 113), [vec![9; 112], vec![0]].concat());
    rig.offer(0, &[(0xb000, 1526, true)]);
    assert_eq!(rig.used(0), (2, 112), "the next one had waited");
}

#[test]
fn frames_of_a_wrong_length_are_lost() {
    let (mut rig, mut wire) = card();
    for len in [0, 5, 12] {
        rig.offer(1, &[(0x8000, len, false)]);
    }
    rig.offer(1, &[(0x8000, 12 + 1519, false)]);
    rig.offer(1, &[(0x8000, u32::MAX, false), (0, u32::MAX, false)]);
    assert_eq!(rig.used(1).0, 5);
    assert_eq!(wire.receive(), None);
    rig.offer(1, &[(0x8000, 12 + 1518, false)]);
    assert_eq!(wire.receive().map(|frame| frame.len()), Some(1518));
    wire.send(&[1; MAX_FRAME + 5]);
    wire.send(&[2; 61]);
    wire.send(&[3; 60]);
    rig.offer(0, &[(0x9000, 72, true)]);
    assert_eq!(rig.used(0), (1, 72));
    assert_eq!(rig.bytes(0x900c, 2), [3; 2]);
    assert_eq!(rig.status(), 0x0f);
    rig.offer(0, &[(0x9000, 0, true)]);
    wire.send(&[1]);
    rig.dev.poll();
    assert_eq!(rig.used(0).0, 1, "nothing fits");
}

/// A backend that takes long segments.
struct Long(Box<dyn NetBackend>);

impl NetBackend for Long {
    fn send(&mut self, frame: &[u8]) {
        self.0.send(frame);
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        self.0.receive()
    }

    fn longest(&self) -> usize {
        30_000
    }
}

fn header(flags: u8, kind: u8, start: u16, offset: u16) -> Vec<u8> {
    let mut header = vec![flags, kind, 54, 0, 0xb4, 5];
    header.extend([start.to_le_bytes(), offset.to_le_bytes(), [0; 2]].concat());
    header
}

#[test]
fn checksums_are_completed() {
    let (mut rig, mut wire) = card();
    // From 4 on, with 5 where the checksum is to be.
    let frame = [9, 9, 9, 9, 0xff, 0xff, 0, 5, 0xff, 0xfe];
    for len in [10u32, 9] {
        rig.memory.write(0x8000, &header(1, 0, 4, 2));
        rig.memory.write(0x800c, &frame);
        rig.offer(1, &[(0x8000, 12 + len, false)]);
        let sent = wire.receive().unwrap();
        assert_eq!(sent.len(), len as usize);
        assert_eq!(sent[..6], frame[..6]);
        assert_eq!(sent[8..], frame[8..len as usize]);
        let words = sent[4..].chunks(2);
        let word = |w: &[u8]| (u32::from(w[0]) << 8) | w.get(1).map_or(0, |b| u32::from(*b));
        // What was there before counts.
        let sum = words.map(word).sum::<u32>() + 5;
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
    for (start, offset) in [(4, 5), (11, 0), (0xffff, 0xffff), (10, 0)] {
        rig.memory.write(0x8000, &header(1, 0, start, offset));
        rig.offer(1, &[(0x8000, 22, false)]);
        assert_eq!(wire.receive(), None, "outside of the frame");
    }
    rig.start(1);
    rig.memory.write(0x8000, &header(1, 0, 4, 2));
    rig.memory.write(0x800c, &frame);
    rig.offer(1, &[(0x8000, 22, false)]);
    assert_eq!(wire.receive(), Some(frame.to_vec()), "not agreed");
}

#[test]
fn long_segments_are_sent_if_the_backend_takes_them() {
    let (ours, mut wire) = cable(Box::new(|| {}), Box::new(|| {}));
    let mut rig = Rig::new(Net::new(Box::new(Long(Box::new(ours))), MAC), 0);
    let mut send = |rig: &mut Rig<Net>, kind, len: u32| {
        rig.memory.write(0x8000, &header(0, kind, 0, 0));
        rig.offer(1, &[(0x8000, 12 + len, false)]);
        wire.receive().map(|frame| frame.len())
    };
    assert_eq!(send(&mut rig, 1, 30_000), Some(30_000));
    assert_eq!(send(&mut rig, 1, 30_001), None);
    assert_eq!(send(&mut rig, 0, 1519), None, "not meant to be cut up");
    assert_eq!(send(&mut rig, 4, 2000), None, "of another kind");
    rig.start(1 << 11);
    assert_eq!(send(&mut rig, 1, 2000), None, "not agreed");
    assert_eq!(send(&mut rig, 0, 1518), Some(1518));
}

#[test]
fn malformed_rings_stop_the_card() {
    for queue in [0, 1] {
        let (mut rig, mut wire) = card();
        wire.send(&[1; 60]);
        rig.publish(queue, 9);
        assert_eq!(rig.status(), 0x4f);
    }
}

#[test]
fn a_card_survives_a_storm() {
    let (mut rig, mut wire) = card();
    let mut random = Random::new(17);
    for _ in 0..20_000 {
        let queue = random.below(2);
        let base = queue << 16;
        let value = random.next() >> random.below(64);
        match random.below(6) {
            0 => wire.send(&vec![1; random.below(1700) as usize]),
            1 => rig
                .memory
                .write(base + 0x1000 + random.below(0x80), &value.to_le_bytes()),
            2 => rig
                .memory
                .write(base + 0x2000 + random.below(0x14), &value.to_le_bytes()),
            3 => rig.start(0),
            4 => rig.publish(queue, value as u16 & 7),
            _ => {
                let piece = |random: &mut Random, write| {
                    (random.below(0x10_0000), random.below(1600) as u32, write)
                };
                let pieces = [
                    piece(&mut random, queue == 0),
                    piece(&mut random, queue == 0),
                ];
                rig.offer(queue, &pieces);
            }
        }
        rig.dev.poll();
        while let Some(frame) = wire.receive() {
            assert!((1..=MAX_FRAME + 4).contains(&frame.len()));
        }
    }
}
