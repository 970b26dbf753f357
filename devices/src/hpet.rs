//! High precision event timers: IA-PC HPET specification 1.0a, with a counter of 100 MHz and three
//! comparators, the first of which can repeat.
//!
//! Attach it at FED00000h for [`LEN`] bytes. While the guest has chosen legacy replacement, the
//! first two comparators take the place of the 8254 and of the real-time clock: `legacy` goes high,
//! and the machine keeps those two from their lines (see [`crate::lines::Gate`]).
//!
//! Left out: interrupts as messages (FSB). A comparator that is set to the present count or to one
//! that has passed matches when the counter comes round again, as the specification warns.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::rate::Rate;
use crate::{BusDevice, Clock, InterruptLine, Timed, Width};

/// Bytes of the register block.
pub const LEN: u64 = 0x400;

const RATE: Rate = Rate::new(1, 10);
const FEMTOSECONDS: u64 = 10_000_000;
const TIMERS: usize = 3;
/// Identity: Intel, legacy replacement, 64 bits, three comparators, revision 1.
pub const CAPABILITIES: u64 =
    FEMTOSECONDS << 32 | 0x8086_0000 | 0xa000 | (TIMERS as u64 - 1) << 8 | 1;

const ENABLE: u64 = 0x1;
const LEGACY: u64 = 0x2;

const LEVEL: u64 = 0x0002;
const INTERRUPT: u64 = 0x0004;
const PERIODIC: u64 = 0x0008;
const CAN_REPEAT: u64 = 0x0010;
const IS_64_BITS: u64 = 0x0020;
const SET_VALUE: u64 = 0x0040;
const FORCE_32_BITS: u64 = 0x0100;
const ROUTE: u64 = 0x3e00;
const CONFIG_WRITABLE: u64 = LEVEL | INTERRUPT | PERIODIC | SET_VALUE | FORCE_32_BITS | ROUTE;

/// Where the interrupts lead.
pub struct HpetLines {
    /// In place of the 8254 (0) and of the real-time clock (1), with legacy replacement.
    pub replacing: [Box<dyn InterruptLine>; 2],
    /// High while the guest has chosen legacy replacement.
    pub legacy: Box<dyn InterruptLine>,
    /// Drives an input of the I/O APIC.
    pub route: Box<dyn Fn(u8, bool) + Send>,
    /// The inputs that comparators may be routed to, one bit each.
    pub routes: u32,
}

/// One comparator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Comparator {
    config: u64,
    compare: u64,
    period: u64,
}

impl Comparator {
    fn periodic(&self) -> bool {
        self.config & PERIODIC != 0 && self.period != 0
    }

    fn modulus_mask(&self) -> u64 {
        if self.config & FORCE_32_BITS != 0 {
            u64::from(u32::MAX)
        } else {
            u64::MAX
        }
    }

    /// Counts from `counter` to the next match; at least 1. `None` if that is 2^64.
    fn distance(&self, counter: u64) -> Option<u64> {
        let mask = self.modulus_mask();
        match self.compare.wrapping_sub(counter) & mask {
            0 => mask.checked_add(1),
            n => Some(n),
        }
    }

    /// The counter goes from `counter` on by `passed`. Whether there was a match.
    fn run(&mut self, counter: u64, passed: u64) -> bool {
        let Some(first) = self.distance(counter).filter(|first| *first <= passed) else {
            return false;
        };
        if self.periodic() {
            let matches = (passed - first) / self.period + 1;
            let next = self.compare.wrapping_add(matches.wrapping_mul(self.period));
            self.compare = next & self.modulus_mask();
        }
        true
    }
}

/// The state of the timers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HpetState {
    config: u64,
    status: u64,
    /// The counter as of `cycle`.
    counter: u64,
    cycle: u64,
    comparators: [Comparator; TIMERS],
}

/// The timers.
pub struct Hpet {
    state: HpetState,
    clock: Arc<dyn Clock>,
    lines: HpetLines,
}

impl Hpet {
    /// Stopped, with the counter at 0.
    pub fn new(clock: Arc<dyn Clock>, lines: HpetLines) -> Hpet {
        Hpet {
            state: HpetState {
                cycle: RATE.cycles(clock.now()),
                ..HpetState::default()
            },
            clock,
            lines,
        }
    }

    /// A reset of the machine: as it was new.
    pub fn reset(&mut self) {
        let cycle = RATE.cycles(self.clock.now());
        self.rewire(|state| {
            *state = HpetState {
                cycle,
                ..HpetState::default()
            };
        });
    }

    /// The state.
    pub fn save(&self) -> HpetState {
        self.state.clone()
    }

    /// Takes over a state. The clock has to show the time at which it was saved.
    pub fn restore(&mut self, state: HpetState) {
        self.state = state;
        self.lines.legacy.set_level(self.state.config & LEGACY != 0);
        for index in 0..TIMERS {
            self.drive(index);
        }
    }

    fn run_to(&mut self, now: u64) {
        let cycle = RATE.cycles(now);
        let passed = cycle.saturating_sub(self.state.cycle);
        self.state.cycle = cycle;
        if self.state.config & ENABLE == 0 || passed == 0 {
            return;
        }
        let before = self.state.counter;
        self.state.counter = before.wrapping_add(passed);
        for index in 0..TIMERS {
            if self.state.comparators[index].run(before, passed) {
                self.matched(index);
            }
        }
    }

    fn matched(&mut self, index: usize) {
        let config = self.state.comparators[index].config;
        if config & LEVEL != 0 {
            self.state.status |= 1 << index;
            self.drive(index);
        } else if config & INTERRUPT != 0 {
            self.set_line(index, true);
            self.set_line(index, false);
        }
    }

    /// Drives the line of a comparator as its status says.
    fn drive(&self, index: usize) {
        let config = self.state.comparators[index].config;
        let active = self.state.status & 1 << index != 0;
        self.set_line(
            index,
            active && config & (LEVEL | INTERRUPT) == LEVEL | INTERRUPT,
        );
    }

    fn set_line(&self, index: usize, high: bool) {
        let config = self.state.comparators[index].config;
        match self.lines.replacing.get(index) {
            Some(line) if self.state.config & LEGACY != 0 => line.set_level(high),
            _ => {
                let route = ((config & ROUTE) >> 9) as u8;
                if self.lines.routes & 1 << route != 0 {
                    (self.lines.route)(route, high);
                }
            }
        }
    }

    /// Changes what decides where interrupts go, with every line down in between.
    fn rewire(&mut self, change: impl FnOnce(&mut HpetState)) {
        for index in 0..TIMERS {
            self.set_line(index, false);
        }
        change(&mut self.state);
        self.lines.legacy.set_level(self.state.config & LEGACY != 0);
        for index in 0..TIMERS {
            self.drive(index);
        }
    }

    /// The 64-bit register at a multiple of 8.
    fn read_register(&self, register: u64) -> u64 {
        let s = &self.state;
        if let Some((index, part)) = comparator(register) {
            let c = &s.comparators[index];
            return match part {
                0 => {
                    let repeat = if index == 0 { CAN_REPEAT } else { 0 };
                    c.config | repeat | IS_64_BITS | u64::from(self.lines.routes) << 32
                }
                8 => c.compare,
                _ => 0,
            };
        }
        match register {
            0x000 => CAPABILITIES,
            0x010 => s.config,
            0x020 => s.status,
            0x0f0 => s.counter,
            _ => 0,
        }
    }

    fn write_register(&mut self, register: u64, value: u64, mask: u64) {
        let merge = |old: u64| old & !mask | value & mask;
        if let Some((index, part)) = comparator(register) {
            let c = &mut self.state.comparators[index];
            match part {
                0 => {
                    let mut config = merge(c.config) & CONFIG_WRITABLE;
                    if index != 0 {
                        config &= !PERIODIC;
                    }
                    self.rewire(|state| state.comparators[index].config = config);
                }
                8 => {
                    // In periodic mode what is written is the period; the comparator itself is
                    // written only if the guest asked for that just before.
                    if c.config & PERIODIC == 0 || c.config & SET_VALUE != 0 {
                        c.compare = merge(c.compare) & c.modulus_mask();
                    }
                    if c.config & PERIODIC != 0 {
                        c.period = merge(c.period) & c.modulus_mask();
                    }
                    // Two halves of 32 bits are one write.
                    if mask >> 32 != 0 || c.config & FORCE_32_BITS != 0 {
                        c.config &= !SET_VALUE;
                    }
                }
                _ => {}
            }
            return;
        }
        match register {
            0x010 => {
                let config = merge(self.state.config) & (ENABLE | LEGACY);
                self.rewire(|state| state.config = config);
            }
            0x020 => {
                self.state.status &= !(value & mask);
                for index in 0..TIMERS {
                    self.drive(index);
                }
            }
            0x0f0 => self.state.counter = merge(self.state.counter),
            _ => {}
        }
    }
}

/// Which comparator a register belongs to, and its offset there.
fn comparator(register: u64) -> Option<(usize, u64)> {
    let index = register.checked_sub(0x100)? / 0x20;
    (index < TIMERS as u64).then_some((index as usize, register & 0x18))
}

impl BusDevice for Hpet {
    fn read(&mut self, offset: u64, _width: Width) -> u64 {
        self.run_to(self.clock.now());
        self.read_register(offset & !7) >> (8 * (offset & 7))
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.run_to(self.clock.now());
        let shift = 8 * (offset & 7);
        self.write_register(offset & !7, value << shift, width.ones() << shift);
    }
}

impl Timed for Hpet {
    fn next_event(&self, _now: u64) -> Option<u64> {
        let s = &self.state;
        if s.config & ENABLE == 0 {
            return None;
        }
        let next = s.comparators.iter().enumerate().filter_map(|(i, c)| {
            let waits = c.config & LEVEL != 0 && s.status & 1 << i != 0;
            let on = c.config & INTERRUPT != 0 && !waits;
            c.distance(s.counter).filter(|_| on)
        });
        next.min()
            .map(|distance| RATE.when(s.cycle.saturating_add(distance)))
    }

    fn advance(&mut self, now: u64) {
        self.run_to(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Probe, Random, TestClock, round_trip};

    struct Rig {
        hpet: Hpet,
        clock: Arc<TestClock>,
        irq0: Probe,
        legacy: Probe,
        gsi: Probe,
    }

    /// Input 20 of the I/O APIC is probed.
    fn rig() -> Rig {
        let clock = TestClock::new();
        let [irq0, legacy, gsi] = [(); 3].map(|()| Probe::default());
        let routed = gsi.line();
        let lines = HpetLines {
            replacing: [irq0.line(), Probe::default().line()],
            legacy: legacy.line(),
            route: Box::new(move |input, high| {
                assert!((20..24).contains(&input));
                if input == 20 {
                    routed.set_level(high);
                }
            }),
            routes: 0x00f0_0000,
        };
        let hpet = Hpet::new(clock.clone(), lines);
        Rig {
            hpet,
            clock,
            irq0,
            legacy,
            gsi,
        }
    }

    impl Rig {
        fn set(&mut self, register: u64, value: u64) {
            self.hpet.write(register, Width::Qword, value);
        }

        fn get(&mut self, register: u64) -> u64 {
            self.hpet.read(register, Width::Qword)
        }

        /// Follows the events up to a time, and counts them.
        fn run(&mut self, until: u64) -> u64 {
            let mut events = 0;
            while let Some(at) = self.hpet.next_event(0).filter(|at| *at <= until) {
                assert!(at > self.clock.now());
                self.clock.set(at);
                self.hpet.advance(at);
                events += 1;
            }
            self.clock.set(until);
            events
        }
    }

    #[test]
    fn the_counter_runs_while_enabled() {
        let mut rig = rig();
        assert_eq!(rig.get(0), 0x0098_9680_8086_a201);
        rig.clock.step(1_000);
        assert_eq!(rig.get(0xf0), 0);
        rig.set(0xf0, 0xffff_fff0);
        rig.set(0x10, 1);
        rig.clock.step(1_000);
        assert_eq!(rig.get(0xf0), 0x1_0000_0054);
        assert_eq!(rig.hpet.read(0xf4, Width::Dword), 1);
        rig.hpet.write(0x10, Width::Dword, 0);
        rig.clock.step(1_000);
        assert_eq!(rig.get(0xf0), 0x1_0000_0054);
    }

    #[test]
    fn one_shot_pulses_its_route_once() {
        let mut rig = rig();
        rig.set(0x10, 1);
        rig.set(0x120, 20 << 9 | INTERRUPT);
        assert_eq!(rig.get(0x120), 0x00f0_0000_0000_2824);
        rig.set(0x128, 1_000);
        assert_eq!(rig.hpet.next_event(0), Some(10_000));
        assert_eq!(rig.run(1_000_000), 1);
        assert_eq!((rig.gsi.rises(), rig.gsi.level()), (1, false));
        assert_eq!(rig.hpet.next_event(0), None, "after the end of time");
        rig.set(0x120, 20 << 9 | INTERRUPT | FORCE_32_BITS);
        let round = (1 << 32) * 10 + 10_000;
        assert_eq!(rig.hpet.next_event(0), Some(round));
    }

    #[test]
    fn levels_stay_until_cleared() {
        let mut rig = rig();
        rig.set(0x10, 1);
        rig.set(0x140, 20 << 9 | INTERRUPT | LEVEL);
        rig.set(0x148, 50);
        rig.run(600);
        assert!(rig.gsi.level());
        assert_eq!(rig.get(0x20), 4);
        rig.set(0x20, 3);
        assert!(rig.gsi.level());
        rig.set(0x20, 4);
        assert!(!rig.gsi.level());
    }

    #[test]
    fn periodic_with_legacy_replacement_keeps_its_rate() {
        let mut rig = rig();
        rig.set(0x10, 3);
        assert!(rig.legacy.level());
        rig.set(0x100, INTERRUPT | PERIODIC | SET_VALUE);
        rig.set(0x108, 500);
        rig.set(0x108, 100_000);
        assert_eq!(rig.hpet.next_event(0), Some(5_000));
        assert_eq!(rig.run(100_000_000), 100);
        assert_eq!(rig.irq0.rises(), 100);
        assert_eq!(rig.get(0x108), 500 + 100 * 100_000);
        rig.clock.step(1_000_000_000);
        rig.hpet.advance(rig.clock.now());
        assert_eq!(rig.irq0.rises(), 101, "what was missed comes once");
        let late = rig.hpet.next_event(0).unwrap() - rig.clock.now();
        assert!(late <= 1_000_000);
        rig.set(0x10, 1);
        assert!(!rig.legacy.level());
    }

    #[test]
    fn a_reset_stops_everything() {
        let mut rig = rig();
        rig.set(0x10, 3);
        rig.set(0x140, 20 << 9 | INTERRUPT | LEVEL);
        rig.set(0x148, 50);
        rig.run(600);
        rig.hpet.reset();
        assert!(!rig.legacy.level() && !rig.gsi.level());
        rig.clock.step(1_000);
        assert_eq!((rig.get(0x10), rig.get(0xf0)), (0, 0));
        assert_eq!(rig.hpet.next_event(0), None);
    }

    #[test]
    fn state_round_trip() {
        let mut one = rig();
        one.set(0x10, 3);
        one.set(0x140, 20 << 9 | INTERRUPT | LEVEL);
        one.set(0x148, 50);
        one.run(600);
        let mut two = rig();
        two.clock.set(600);
        two.hpet.restore(round_trip(&one.hpet.save()));
        assert!(two.legacy.level() && two.gsi.level());
        assert_eq!(two.get(0xf0), one.get(0xf0));
    }

    #[test]
    fn survives_a_storm() {
        let mut rig = rig();
        let mut random = Random::new(8);
        for _ in 0..100_000 {
            let width =
                [Width::Byte, Width::Word, Width::Dword, Width::Qword][random.below(4) as usize];
            let offset = random.below(LEN - 8) & !(width.bytes() - 1);
            match random.below(6) {
                0 => {
                    rig.clock.step(random.time());
                }
                1 => {
                    rig.hpet.read(offset, width);
                }
                2 => {
                    if let Some(at) = rig.hpet.next_event(rig.clock.now()) {
                        rig.clock.set(at);
                        rig.hpet.advance(at);
                    }
                }
                3 => {
                    let register = [0x10, 0x100, 0x108, 0x120, 0x128][random.below(5) as usize];
                    let value = random.next() >> random.below(60);
                    rig.hpet.write(register, Width::Qword, value);
                }
                _ => rig.hpet.write(offset, width, random.next() & width.ones()),
            }
        }
    }
}
