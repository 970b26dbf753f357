//! CPUID.

use super::bench::Bench;
use crate::CpuModel;
use crate::system::cpuid;
use crate::system::features::{SystemFeature, SystemWord};
use crate::system::state::cr4;
use crate::system::{ClockRates, LocalApic};
use std::sync::Mutex;

fn ask(bench: &mut Bench, leaf: u32, sub: u32) -> [u32; 4] {
    cpuid(&bench.cx(), leaf, sub)
}

/// The register that shows system features.
fn register(bench: &mut Bench, word: SystemWord) -> u32 {
    match word {
        SystemWord::Leaf1Ecx => ask(bench, 1, 0)[2],
        SystemWord::Leaf1Edx => ask(bench, 1, 0)[3],
        SystemWord::Leaf7Ebx => ask(bench, 7, 0)[1],
        SystemWord::Leaf7Ecx => ask(bench, 7, 0)[2],
        SystemWord::Leaf7Edx => ask(bench, 7, 0)[3],
        SystemWord::Leaf7Sub2Edx => ask(bench, 7, 2)[3],
        SystemWord::ExtendedEdx => ask(bench, 0x8000_0001, 0)[3],
    }
}

/// A local APIC that remembers one number of each kind.
#[derive(Default)]
struct Apic {
    deadline: Mutex<Option<u64>>,
}

impl LocalApic for Apic {
    fn priority(&self) -> u8 {
        0
    }

    fn set_priority(&self, _: u8) {}

    fn set_base(&self, _: u64) {}

    fn deadline(&self) -> Option<u64> {
        *self.deadline.lock().unwrap()
    }

    fn set_deadline(&self, at: Option<u64>) {
        *self.deadline.lock().unwrap() = at;
    }
}

fn with_apic(mut bench: Bench) -> Bench {
    bench.env.system.as_mut().unwrap().apic = Some(Box::<Apic>::default());
    bench
}

/// The deadline is one of the counter: it stays where it is when the counter is changed.
#[test]
fn a_deadline_follows_the_counter() {
    let mut bench = with_apic(Bench::new());
    let apic = |b: &Bench| {
        b.env
            .system
            .as_ref()
            .unwrap()
            .apic
            .as_ref()
            .unwrap()
            .deadline()
    };
    const DEADLINE: u32 = 0x6e0;
    const ADJUST: u32 = 0x3b;
    let write = |b: &mut Bench, n, value| super::msr::write(b, n, value).unwrap();
    write(&mut bench, DEADLINE, 5_000);
    assert_eq!(apic(&bench), Some(5_000));
    write(&mut bench, ADJUST, 1_000);
    assert_eq!(apic(&bench), Some(4_000));
    assert_eq!(super::msr::read(&mut bench, DEADLINE).unwrap(), 5_000);
    write(&mut bench, ADJUST, 1_000u64.wrapping_neg());
    assert_eq!(apic(&bench), Some(6_000));
    write(&mut bench, ADJUST, 10_000);
    assert_eq!(apic(&bench), Some(0), "long past");
    write(&mut bench, DEADLINE, 0);
    assert_eq!(apic(&bench), None);
    assert!(bench.state.sys.look);
}

#[test]
fn every_system_feature_is_shown_and_hidden() {
    for &feature in SystemFeature::ALL {
        let (word, bit) = feature.cpuid();
        let name = feature.name();
        let mut with = with_apic(Bench::with_cpu(&format!("max,+{name}")).long(0));
        let mut without = with_apic(Bench::with_cpu(&format!("max,-{name}")).long(0));
        assert_eq!(register(&mut with, word) >> bit & 1, 1, "{name}");
        assert_eq!(register(&mut without, word) >> bit & 1, 0, "{name}");
        let difference = register(&mut with, word) ^ register(&mut without, word);
        assert_eq!(difference, 1 << bit, "{name}");
    }
}

/// What a Linux program sees does not change with what only the system sees.
#[test]
fn programs_see_no_system_features() {
    let with = CpuModel::from_name("max,+monitor").unwrap();
    let names = SystemFeature::ALL.iter().map(|f| format!(",-{}", f.name()));
    let without = CpuModel::from_name(&format!("max{}", names.collect::<String>())).unwrap();
    for leaf in (0..0x20).chain(0x8000_0000..0x8000_0010) {
        for sub in 0..3 {
            assert_eq!(with.cpuid(leaf, sub), without.cpuid(leaf, sub), "{leaf:#x}");
        }
    }
}

#[test]
fn what_the_registers_change() {
    let mut bench = Bench::new().long(0);
    let osxsave = |b: &mut Bench| ask(b, 1, 0)[2] >> 27 & 1;
    assert_eq!(osxsave(&mut bench), 0);
    bench.state.sys.cr4 |= cr4::OSXSAVE;
    assert_eq!(osxsave(&mut bench), 1);
    // The size of XSAVE's image follows XCR0.
    assert_eq!(ask(&mut bench, 13, 0), [7, 576, 832, 0]);
    assert_eq!(ask(&mut bench, 13, 1)[1], 576);
    bench.state.sys.xcr0 = 7;
    assert_eq!(ask(&mut bench, 13, 0), [7, 832, 832, 0]);
    assert_eq!(ask(&mut bench, 13, 1)[1], 832);
    assert_eq!(ask(&mut bench, 13, 2), [256, 576, 0, 0]);
    let extended = |b: &mut Bench| ask(b, 0x8000_0001, 0)[3];
    let (syscall, nx) = (1 << 11, 1 << 20);
    assert_eq!(extended(&mut bench) & (syscall | nx), syscall | nx);
    bench.state.sys.msr.misc_enable |= 1 << 34;
    assert_eq!(extended(&mut bench) & (syscall | nx), syscall);
    let mut legacy = Bench::new().protected(0);
    assert_eq!(
        extended(&mut legacy) & (syscall | nx),
        nx,
        "64-bit code only"
    );
    bench.state.sys.msr.misc_enable |= 1 << 22;
    assert_eq!(ask(&mut bench, 0, 0)[0], 2);
    let mut waits = Bench::with_cpu("max,+monitor");
    assert_eq!(ask(&mut waits, 1, 0)[2] & 8, 8);
    assert_eq!(ask(&mut waits, 5, 0), [64, 64, 3, 0x10]);
    waits.state.sys.msr.misc_enable &= !(1 << 18);
    assert_eq!(ask(&mut waits, 1, 0)[2] & 8, 0);
}

#[test]
fn what_the_machine_changes() {
    let mut bench = Bench::new();
    let apic = |b: &mut Bench| (ask(b, 1, 0)[1] >> 24, ask(b, 1, 0)[3] >> 9 & 1);
    assert_eq!(apic(&mut bench), (0, 0));
    bench.env.system.as_mut().unwrap().apic_id = Some(5);
    assert_eq!(apic(&mut bench), (5, 1));
    bench.state.sys.msr.apic_base &= !(1 << 11);
    assert_eq!(apic(&mut bench), (5, 0));
    assert_eq!(ask(&mut bench, 0, 0)[0], 13);
    bench.env.system.as_mut().unwrap().rates = Some(ClockRates {
        crystal_hz: 25_000_000,
        tsc_ratio: 40,
    });
    assert_eq!(ask(&mut bench, 0, 0)[0], 0x16);
    assert_eq!(ask(&mut bench, 0x15, 0), [1, 40, 25_000_000, 0]);
    assert_eq!(ask(&mut bench, 0x16, 0), [1000, 1000, 100, 0]);
    assert_eq!(ask(&mut bench, 0xb, 0), [0; 4]);
}

#[test]
fn leaves_that_do_not_exist_read_as_the_last() {
    let mut bench = Bench::new();
    bench.state.sys.xcr0 = 7;
    let last = ask(&mut bench, 13, 0);
    for leaf in [14, 0x4000_0000, 0x7fff_ffff, 0x8000_0009, u32::MAX] {
        assert_eq!(ask(&mut bench, leaf, 0), last, "{leaf:#x}");
    }
    let mut old = Bench::with_cpu("486");
    assert_eq!(ask(&mut old, 0, 0)[0], 1);
    assert_eq!(ask(&mut old, 0x8000_0000, 0), ask(&mut old, 1, 0));
}

#[test]
fn identity_addresses_and_caches() {
    let mut bench = Bench::new();
    let [_, b, c, d] = ask(&mut bench, 0, 0);
    let name: Vec<u8> = [b, d, c].into_iter().flat_map(u32::to_le_bytes).collect();
    assert_eq!(name, b"GenuineIntel");
    assert_eq!(ask(&mut bench, 0x8000_0000, 0)[0], 0x8000_0008);
    assert_eq!(ask(&mut bench, 0x8000_0008, 0), [40 | 48 << 8, 0, 0, 0]);
    // Sizes in KiB: ways, lines, sets.
    let sizes = [0, 1, 2, 3, 4].map(|n| {
        let [a, b, c, _] = ask(&mut bench, 4, n);
        let size = ((b >> 22) + 1) * ((b & 0xfff) + 1) * (c + 1) / 1024;
        (a & 0x1f, a >> 5 & 7, if a == 0 { 0 } else { size })
    });
    assert_eq!(
        sizes,
        [(1, 1, 32), (2, 1, 32), (3, 2, 512), (3, 3, 4096), (0, 0, 0)]
    );
    assert_eq!(
        ask(&mut bench, 0x8000_0006, 0),
        [0, 0, 512 << 16 | 0x6140, 0]
    );
}
