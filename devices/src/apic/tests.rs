use std::sync::Mutex;

use super::local::reg;
use super::*;
use crate::testing::{Probe, Random, TestClock, round_trip};

struct Rig {
    apics: Shared<Apics>,
    clock: Arc<TestClock>,
    interrupts: Vec<Probe>,
    signals: Arc<Mutex<Vec<(usize, CpuSignal)>>>,
}

/// Processors with their APICs enabled and logical identities 1, 2, 4…
fn rig(cpus: usize) -> Rig {
    let clock = TestClock::new();
    let signals = Arc::new(Mutex::new(vec![]));
    let interrupts: Vec<Probe> = (0..cpus).map(|_| Probe::default()).collect();
    let pins = |cpu: usize| {
        let signals = signals.clone();
        CpuPins {
            interrupt: interrupts[cpu].line(),
            signal: Box::new(move |signal| signals.lock().unwrap().push((cpu, signal))),
        }
    };
    let apics = Apics::new(clock.clone(), (0..cpus).map(pins).collect());
    let mut rig = Rig {
        apics: Shared::new(apics),
        clock,
        interrupts,
        signals,
    };
    for cpu in 0..cpus {
        rig.write(cpu, reg::SPURIOUS, 0x1ff);
        rig.write(cpu, reg::LOGICAL, 1 << (24 + cpu));
    }
    rig
}

impl Rig {
    fn write(&mut self, cpu: usize, register: u64, value: u32) {
        let mut view = self.apics.local(cpu);
        view.write(register, Width::Dword, u64::from(value));
    }

    fn read(&mut self, cpu: usize, register: u64) -> u32 {
        self.apics.local(cpu).read(register, Width::Dword) as u32
    }

    fn take(&mut self, cpu: usize) -> Option<u8> {
        self.apics.lock().acknowledge(cpu)
    }

    fn eoi(&mut self, cpu: usize) {
        self.write(cpu, reg::EOI, 0);
    }

    fn command(&mut self, cpu: usize, high: u32, low: u32) {
        self.write(cpu, reg::COMMAND_HIGH, high);
        self.write(cpu, reg::COMMAND, low);
    }

    /// Sets an entry of the I/O APIC's table.
    fn route(&mut self, input: u32, entry: u64) {
        let mut io = self.apics.io();
        for (register, half) in [(0x11 + 2 * input, entry >> 32), (0x10 + 2 * input, entry)] {
            io.write(0x00, Width::Dword, u64::from(register));
            io.write(0x10, Width::Dword, half & 0xffff_ffff);
        }
    }

    fn entry(&mut self, input: u32) -> u32 {
        let mut io = self.apics.io();
        io.write(0x00, Width::Dword, u64::from(0x10 + 2 * input));
        io.read(0x10, Width::Dword) as u32
    }
}

#[test]
fn identity_and_priorities() {
    let mut rig = rig(2);
    assert_eq!(rig.read(1, reg::ID), 1 << 24);
    assert_eq!(rig.read(0, reg::VERSION) & 0xff, 0x14);
    assert_eq!(rig.apics.lock().base(0), 0xfee0_0900);
    assert_eq!(rig.apics.lock().base(1), 0xfee0_0800);
    for vector in [0x31, 0x52, 0x45] {
        rig.command(0, 0, 0x40000 | vector);
    }
    assert!(rig.interrupts[0].level() && !rig.interrupts[1].level());
    assert_eq!(rig.take(0), Some(0x52));
    assert_eq!(rig.read(0, reg::PPR), 0x50);
    assert!(!rig.interrupts[0].level(), "the others are lower");
    assert_eq!(rig.read(0, reg::IN_SERVICE + 0x20), 1 << 18);
    rig.apics.lock().set_cr8(0, 4);
    rig.eoi(0);
    assert!(!rig.interrupts[0].level(), "class 4 is held back");
    assert_eq!(rig.read(0, reg::TPR), 0x40);
    rig.write(0, reg::TPR, 0x3f);
    assert_eq!(rig.apics.lock().cr8(0), 3);
    assert_eq!(rig.take(0), Some(0x45));
    rig.eoi(0);
    assert_eq!(rig.read(0, reg::REQUESTS + 0x10), 1 << 17);
    assert_eq!(rig.take(0), Some(0xff), "spurious");
}

#[test]
fn interprocessor_interrupts_reach_whom_they_name() {
    let mut rig = rig(3);
    let pending = |rig: &Rig| -> Vec<bool> { rig.interrupts.iter().map(Probe::level).collect() };
    rig.command(0, 0x0200_0000, 0x4041);
    assert_eq!(pending(&rig), [false, false, true]);
    rig.command(0, 0x0300_0000, 0x4842);
    assert_eq!(pending(&rig), [true, true, true], "logical");
    for cpu in 0..3 {
        assert_eq!(rig.take(cpu), Some(if cpu == 2 { 0x41 } else { 0x42 }));
    }
    for cpu in 0..3 {
        rig.eoi(cpu);
    }
    rig.command(1, 0, 0xc_4043);
    assert_eq!(pending(&rig), [true, false, true], "all but itself");
    rig.command(0, 0xff00_0000, 0x4500);
    rig.command(0, 0xff00_0000, 0x8500);
    rig.command(0, 0x0100_0000, 0x4609);
    rig.command(0, 0x0100_0000, 0x4400);
    let signals = std::mem::take(&mut *rig.signals.lock().unwrap());
    let init = |cpu| (cpu, CpuSignal::Init);
    let rest = [(1, CpuSignal::Startup(9)), (1, CpuSignal::Nmi)];
    assert_eq!(signals[..3], [init(0), init(1), init(2)]);
    assert_eq!(signals[3..], rest);
    assert_eq!(pending(&rig), [false; 3], "reset");
}

#[test]
fn clusters_and_lowest_priority() {
    let mut rig = rig(3);
    for (cpu, id) in [(0, 0x11), (1, 0x12), (2, 0x21)] {
        rig.write(cpu, reg::FORMAT, 0x0fff_ffff);
        rig.write(cpu, reg::LOGICAL, id << 24);
    }
    rig.write(0, reg::TPR, 0x20);
    rig.command(2, 0x1300_0000, 0x4961);
    assert!(!rig.interrupts[0].level() && rig.interrupts[1].level());
    rig.command(2, 0xf100_0000, 0x4862);
    assert!(rig.interrupts[0].level() && rig.interrupts[2].level());
}

#[test]
fn the_timer_counts_down_once_or_again_and_again() {
    let mut rig = rig(1);
    rig.write(0, reg::DIVIDE, 0x3);
    rig.write(0, reg::LVT, 0x0040);
    rig.write(0, reg::INITIAL, 1_000);
    assert_eq!(rig.apics.next_event(0), Some(16_000));
    rig.clock.set(1_600);
    assert_eq!(rig.read(0, reg::CURRENT), 900);
    rig.clock.set(16_000);
    rig.apics.advance(16_000);
    assert_eq!(rig.take(0), Some(0x40));
    assert_eq!(rig.read(0, reg::CURRENT), 0);
    assert_eq!(rig.apics.next_event(0), None);
    rig.eoi(0);

    rig.write(0, reg::LVT, 0x2_0041);
    rig.write(0, reg::DIVIDE, 0xb);
    rig.write(0, reg::INITIAL, 500);
    for n in 1..=5 {
        let at = rig.apics.next_event(0).unwrap();
        assert_eq!(at, 16_000 + 500 * n);
        rig.clock.set(at);
        rig.apics.advance(at);
        assert_eq!(rig.take(0), Some(0x41));
        rig.eoi(0);
    }
    rig.write(0, reg::LVT, 0x3_0041);
    assert_eq!(rig.apics.next_event(0), None, "masked");
    rig.clock.step(10_250);
    assert_eq!(rig.read(0, reg::CURRENT), 250, "but counting");
    assert!(!rig.interrupts[0].level());
}

#[test]
fn a_deadline_fires_once() {
    let mut rig = rig(1);
    rig.apics.lock().set_deadline(0, Some(5_000));
    assert_eq!(rig.apics.lock().deadline(0), None, "not in that mode");
    rig.write(0, reg::LVT, 0x4_0042);
    rig.apics.lock().set_deadline(0, Some(5_000));
    assert_eq!(rig.apics.next_event(0), Some(5_000));
    rig.apics.advance(4_999);
    assert!(!rig.interrupts[0].level());
    rig.clock.set(5_000);
    rig.apics.advance(5_000);
    assert_eq!(rig.take(0), Some(0x42));
    assert_eq!(rig.apics.lock().deadline(0), None);
    rig.apics.lock().set_deadline(0, Some(9_000));
    rig.write(0, reg::LVT, 0x0042);
    assert_eq!(rig.apics.next_event(0), None, "disarmed by the mode");
}

#[test]
fn edges_of_the_io_apic() {
    let mut rig = rig(2);
    let line = rig.apics.input(4);
    line.pulse();
    rig.route(4, 0x0100_0000_0000_0034);
    assert!(!rig.interrupts[1].level(), "masked edges are lost");
    line.pulse();
    assert!(rig.interrupts[1].level() && !rig.interrupts[0].level());
    assert_eq!(rig.take(1), Some(0x34));
    rig.eoi(1);
    line.set_level(true);
    line.set_level(true);
    assert_eq!(rig.take(1), Some(0x34));
    rig.eoi(1);
    assert!(!rig.interrupts[1].level());
}

#[test]
fn levels_of_the_io_apic_ask_until_they_fall() {
    let mut rig = rig(1);
    let line = rig.apics.input(10);
    line.set_level(true);
    rig.route(10, 0x0100_0000_0000_a955);
    assert!(rig.interrupts[0].level(), "unmasked while it asks; logical");
    assert_eq!(rig.entry(10), 0xe955, "remote IRR");
    assert_eq!(rig.take(0), Some(0x55));
    assert_eq!(rig.read(0, reg::TRIGGER + 0x20), 1 << 21);
    rig.eoi(0);
    assert!(rig.interrupts[0].level(), "again");
    rig.take(0);
    line.set_level(false);
    rig.eoi(0);
    assert!(!rig.interrupts[0].level());
    assert_eq!(rig.entry(10), 0xa955);
    line.set_level(true);
    rig.route(10, 0x0100_0000_0001_2955);
    assert_eq!(rig.entry(10), 0x1_2955, "as an edge it waits for no end");
    let mut io = rig.apics.io();
    io.write(0, Width::Dword, 1);
    assert_eq!(io.read(0x10, Width::Dword), 0x17_0011);
}

#[test]
fn messages_from_devices() {
    let mut rig = rig(2);
    rig.apics.lock().message(0xfee0_1000, 0x4071);
    assert_eq!(rig.take(1), Some(0x71));
    rig.apics.lock().message(0xfee0_1004, 0x0072);
    assert_eq!(rig.take(0), Some(0x72));
}

#[test]
fn the_8259_comes_through_the_first_processor() {
    let mut rig = rig(2);
    // Enabling the APICs has kept the wiring that firmware left; masking ends it.
    let line = rig.apics.lint0();
    line.set_level(true);
    assert!(rig.interrupts[0].level() && !rig.interrupts[1].level());
    assert_eq!(rig.take(0), None);
    line.set_level(false);
    assert!(!rig.interrupts[0].level(), "the level falls again");
    line.set_level(true);
    assert!(rig.interrupts[0].level());
    rig.write(0, 0x350, 0x1_0700);
    assert!(!rig.interrupts[0].level());
    rig.apics.lock().set_base(0, 0xfee0_0000);
    assert!(rig.interrupts[0].level(), "past an APIC that is off");
    assert_eq!(rig.apics.lock().base(0), 0xfee0_0100);
    let nmi = rig.apics.lint1();
    rig.write(1, 0x360, 0x0400);
    nmi.pulse();
    let both = [(0, CpuSignal::Nmi), (1, CpuSignal::Nmi)];
    assert_eq!(*rig.signals.lock().unwrap(), both);
}

#[test]
fn a_reset_leaves_only_what_drives_the_inputs() {
    let mut rig = rig(1);
    rig.apics.lint0().set_level(true);
    rig.apics.input(9).set_level(true);
    rig.route(9, 0x0000_0000_0000_8066);
    assert_eq!(rig.take(0), Some(0x66));
    rig.apics.lock().set_cr8(0, 9);
    rig.apics.lock().set_base(0, 0xfed0_0800);
    rig.apics.lock().reset();
    assert_eq!(rig.apics.lock().base(0), 0xfee0_0900);
    assert_eq!(rig.apics.lock().cr8(0), 0);
    assert_eq!(rig.take(0), None, "the 8259A asks as before");
    rig.write(0, reg::SPURIOUS, 0x1ff);
    rig.route(9, 0x0000_0000_0000_8067);
    assert_eq!(rig.take(0), Some(0x67));
}

#[test]
fn errors_are_shown_after_a_write() {
    let mut rig = rig(1);
    rig.write(0, 0x370, 0x00fe);
    rig.command(0, 0, 0x40003);
    assert_eq!(rig.take(0), Some(0xfe));
    assert_eq!(rig.read(0, reg::ERROR), 0);
    rig.write(0, reg::ERROR, 0);
    assert_eq!(rig.read(0, reg::ERROR), 0x20);
    rig.read(0, 0x3f0);
    rig.apics.lock().message(0xfee0_0000, 0x0004);
    rig.write(0, reg::ERROR, 0);
    assert_eq!(rig.read(0, reg::ERROR), 0xc0);
    rig.write(0, reg::SPURIOUS, 0xff);
    assert_eq!(rig.read(0, 0x370), 0x1_00fe, "disabled: everything masked");
    rig.write(0, 0x320, 0x40);
    assert_eq!(rig.read(0, 0x320), 0x1_0040);
}

#[test]
fn state_round_trip() {
    let mut one = rig(2);
    one.route(9, 0x0000_0000_0000_8066);
    one.apics.input(9).set_level(true);
    one.write(1, reg::LVT, 0x2_0044);
    one.write(1, reg::INITIAL, 77_777);
    let state = round_trip(&one.apics.lock().save());
    let two = rig(2);
    assert!(two.apics.lock().restore(state.clone()));
    assert!(two.interrupts[0].level());
    assert_eq!(two.apics.next_event(0), one.apics.next_event(0));
    assert!(!rig(1).apics.lock().restore(state), "another machine");
}

#[test]
fn survives_a_storm() {
    let mut rig = rig(3);
    let mut random = Random::new(13);
    let mut io = rig.apics.io();
    for _ in 0..100_000 {
        let width =
            [Width::Byte, Width::Word, Width::Dword, Width::Qword][random.below(4) as usize];
        let (cpu, value) = (random.below(3) as usize, random.next() & width.ones());
        let offset = match random.below(3) {
            0 => random.below(0x1000),
            _ => random.below(0x40) << 4,
        };
        match random.below(12) {
            0 => {
                rig.clock.step(random.time());
            }
            1 => {
                if let Some(at) = rig.apics.next_event(rig.clock.now()) {
                    rig.clock.set(at.max(rig.clock.now()));
                    rig.apics.advance(rig.clock.now());
                }
            }
            2 => {
                rig.take(cpu);
            }
            3 => rig
                .apics
                .input(random.next() as u8)
                .set_level(value & 1 != 0),
            4 => rig.apics.lock().message(random.next(), value as u32),
            5 => rig.apics.lock().set_base(cpu, value),
            6 => rig.apics.lock().set_deadline(cpu, Some(value)),
            7 => io.write(
                [0, 0x10][value as usize & 1],
                Width::Dword,
                random.next() & 0x3f_ffff,
            ),
            8 => {
                io.read(offset, width);
                rig.apics.local(cpu).read(offset, width);
            }
            9 => rig.write(cpu, reg::SPURIOUS, 0x1ff),
            _ => rig.apics.local(cpu).write(offset, width, value),
        }
        rig.signals.lock().unwrap().clear();
    }
}
