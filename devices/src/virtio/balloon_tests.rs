use std::sync::{Arc, Mutex};

use super::tests::Rig;
use super::*;
use crate::testing::{TestMemory, round_trip};
use crate::{GuestMemory, Width};

/// Memory that remembers what it may forget.
#[derive(Clone)]
struct Forgetful(TestMemory, Arc<Mutex<Vec<(u64, u64)>>>);

impl GuestMemory for Forgetful {
    fn read(&self, address: u64, into: &mut [u8]) {
        self.0.read(address, into);
    }

    fn write(&self, address: u64, from: &[u8]) {
        self.0.write(address, from);
    }

    fn discard(&self, address: u64, len: u64) {
        self.1.lock().unwrap().push((address, len));
    }
}

#[test]
fn a_balloon_takes_pages() {
    let mut balloon = Balloon::new();
    let memory = Forgetful(TestMemory::new(0x1_0000), Arc::default());
    let numbers: Vec<u8> = [3u32, 0xffff_ffff]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect();
    memory.write(0x100, &numbers);
    let cx = Context {
        memory: &memory,
        features: 0,
    };
    let piece = |address, len| Piece { address, len };
    let mut chain = Chain::default();
    chain.readable = vec![piece(0x100, 4), piece(0x104, 5)];
    assert_eq!(balloon.serve(0, &chain, &cx), Ok(Served::Done(0)));
    assert_eq!(balloon.serve(1, &chain, &cx), Ok(Served::Done(0)));
    let pages = [(0x3000, 4096), (0xfff_ffff_f000, 4096)];
    assert_eq!(*memory.1.lock().unwrap(), pages);
}

#[test]
fn a_balloon_is_asked_to_grow() {
    let mut rig = Rig::new(Balloon::new(), 0);
    rig.dev.device.set_target(0x1234);
    rig.dev.config_changed();
    assert!(rig.line.level());
    assert_eq!(rig.get(0x1000, Width::Byte), 2);
    assert_eq!(rig.get(0x2000, Width::Dword), 0x1234);
    rig.set(0x2000, Width::Dword, 5);
    rig.set(0x2004, Width::Dword, 0x1200);
    rig.set(0x2005, Width::Byte, 1);
    assert_eq!(rig.get(0x2000, Width::Qword), 0x1200_0000_1234);
    assert_eq!(rig.dev.device.actual(), 0x1200);
    let saved = round_trip(&rig.dev.save());
    let mut other = Rig::new(Balloon::new(), 0);
    other.dev.restore(saved);
    assert_eq!(other.get(0x2000, Width::Qword), 0x1200_0000_1234);
}

#[test]
fn a_balloon_tells_statistics() {
    let mut rig = Rig::new(Balloon::new(), 0);
    rig.memory.write(0x8000, &[4, 0, 0x39, 0x30]);
    rig.memory.write(0x800a, &[5, 0, 1]);
    rig.offer(2, &[(0x8000, 23, false)]);
    assert_eq!(rig.used(2).0, 0, "kept until somebody asks");
    assert_eq!(rig.dev.device.statistics(), [(4, 12345), (5, 1)]);
    rig.dev.device.want_statistics();
    rig.dev.poll();
    assert_eq!(rig.used(2).0, 1);
}
