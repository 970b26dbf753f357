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
    assert_eq!(rig.get(4, Width::Dword) & 0xff_ffff, 0x01_0028);
}

#[test]
fn frames_go_both_ways() {
    let (mut rig, mut wire) = card();
    rig.memory.write(0x8000, &[0xee; 12]);
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
