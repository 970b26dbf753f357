//! The timer of a PC: Intel 8254 (datasheet 231164), with port 61h, which holds the gate of its
//! counter 2, the speaker, and the refresh signal.
//!
//! Ports: 40h to 42h the counters, 43h the control word, 61h.
//!
//! Counter 0 drives an interrupt line with its OUT. Counter 1 (memory refresh) counts but drives
//! nothing: the refresh bit of port 61h toggles every 18 cycles whatever counter 1 says. The
//! parity and channel check bits are never set. Two edges that are driven late together reach the
//! line both; of more than a few missed periods, some are left out.

mod counter;

use std::sync::Arc;

use counter::Counter;
use serde::{Deserialize, Serialize};

use crate::rate::Rate;
use crate::{Clock, InterruptLine, PortDevice, Timed};

/// Port of counter 0; 1 and 2 and the control word follow.
pub const COUNTERS: u16 = 0x40;
/// The control word.
pub const CONTROL: u16 = 0x43;
/// System control port B: gate, speaker, refresh.
pub const PORT_B: u16 = 0x61;

const GATE_2: u8 = 0x01;
const SPEAKER: u8 = 0x02;
const PORT_B_WRITABLE: u8 = 0x0f;
const REFRESH: u8 = 0x10;
const OUT_2: u8 = 0x20;
/// Cycles between two refreshes.
const REFRESH_CYCLES: u64 = 18;

const READ_BACK: u8 = 3;
const READ_BACK_NO_COUNT: u8 = 0x20;
const READ_BACK_NO_STATUS: u8 = 0x10;

/// The state of the timer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PitState {
    counters: [Counter; 3],
    port_b: u8,
    /// The cycle up to which the counters have run.
    cycle: u64,
}

/// The timer.
pub struct Pit {
    state: PitState,
    clock: Arc<dyn Clock>,
    irq: Box<dyn InterruptLine>,
}

impl Pit {
    /// Nothing programmed. `irq` follows OUT of counter 0.
    pub fn new(clock: Arc<dyn Clock>, irq: Box<dyn InterruptLine>) -> Pit {
        let cycle = Rate::PIT.cycles(clock.now());
        let on = Counter::new(true);
        Pit {
            state: PitState {
                counters: [on, on, Counter::new(false)],
                port_b: 0,
                cycle,
            },
            clock,
            irq,
        }
    }

    /// The frequency of the speaker in millihertz, while it sounds.
    pub fn tone(&self) -> Option<u64> {
        let on = self.state.port_b & (GATE_2 | SPEAKER) == GATE_2 | SPEAKER;
        let period = self.state.counters[2].period().filter(|_| on)?;
        Some(Rate::PIT.cycles(1_000_000_000_000) / u64::from(period))
    }

    /// The state.
    pub fn save(&self) -> PitState {
        self.state.clone()
    }

    /// Takes over a state.
    pub fn restore(&mut self, state: PitState) {
        self.state = state;
        self.state.port_b &= PORT_B_WRITABLE;
        for counter in &mut self.state.counters {
            counter.sanitise();
        }
        self.irq.set_level(self.state.counters[0].out());
    }

    /// Runs the counters up to the time, edge by edge for the one that has a line.
    fn run_to(&mut self, now: u64) {
        let cycle = Rate::PIT.cycles(now);
        let passed = cycle.saturating_sub(self.state.cycle);
        self.state.cycle = cycle;
        let [timer, refresh, speaker] = &mut self.state.counters;
        refresh.run(passed);
        speaker.run(passed);
        let mut left = passed;
        for _ in 0..4 {
            let Some(step) = timer.until_change().filter(|step| *step <= left) else {
                break;
            };
            timer.run(step);
            left -= step;
            self.irq.set_level(timer.out());
        }
        timer.run(left);
        self.irq.set_level(timer.out());
    }

    fn control(&mut self, word: u8) {
        let select = word >> 6;
        if select == READ_BACK {
            for (i, counter) in self.state.counters.iter_mut().enumerate() {
                if word & (2 << i) != 0 {
                    if word & READ_BACK_NO_COUNT == 0 {
                        counter.latch_count();
                    }
                    if word & READ_BACK_NO_STATUS == 0 {
                        counter.latch_status();
                    }
                }
            }
            return;
        }
        let counter = &mut self.state.counters[usize::from(select)];
        match word >> 4 & 3 {
            0 => counter.latch_count(),
            access => counter.program(access, word >> 1 & 7, word & 1 != 0),
        }
    }

    fn port_b(&self) -> u8 {
        let refresh = (self.state.cycle / REFRESH_CYCLES) & 1 != 0;
        self.state.port_b
            | if refresh { REFRESH } else { 0 }
            | if self.state.counters[2].out() {
                OUT_2
            } else {
                0
            }
    }
}

impl PortDevice for Pit {
    fn read_port(&mut self, port: u16) -> u8 {
        self.run_to(self.clock.now());
        match port {
            COUNTERS..CONTROL => self.state.counters[usize::from(port - COUNTERS)].read(),
            PORT_B => self.port_b(),
            // The control word cannot be read.
            _ => 0xff,
        }
    }

    fn write_port(&mut self, port: u16, value: u8) {
        self.run_to(self.clock.now());
        match port {
            COUNTERS..CONTROL => self.state.counters[usize::from(port - COUNTERS)].write(value),
            CONTROL => self.control(value),
            PORT_B => {
                self.state.port_b = value & PORT_B_WRITABLE;
                self.state.counters[2].set_gate(value & GATE_2 != 0);
            }
            _ => {}
        }
        self.irq.set_level(self.state.counters[0].out());
    }
}

impl Timed for Pit {
    fn next_event(&self, _now: u64) -> Option<u64> {
        let cycles = self.state.counters[0].until_change()?;
        Some(Rate::PIT.when(self.state.cycle.saturating_add(cycles)))
    }

    fn advance(&mut self, now: u64) {
        self.run_to(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Probe, TestClock, round_trip, storm};

    fn pit() -> (Pit, Arc<TestClock>, Probe) {
        let (clock, probe) = (TestClock::new(), Probe::default());
        (Pit::new(clock.clone(), probe.line()), clock, probe)
    }

    fn out(pit: &mut Pit, writes: &[(u16, u8)]) {
        for (port, value) in writes {
            pit.write_port(*port, *value);
        }
    }

    #[test]
    fn an_hour_of_periodic_interrupts_does_not_drift() {
        let (mut pit, clock, probe) = pit();
        out(&mut pit, &[(0x43, 0x34), (0x40, 0x9c), (0x40, 0x2e)]);
        // 11932 cycles are just over 10 ms.
        let mut events = 0;
        while let Some(at) = pit
            .next_event(clock.now())
            .filter(|t| *t <= 3_600_000_000_000)
        {
            assert!(at > clock.now());
            clock.set(at);
            pit.advance(at);
            events += 1;
        }
        let periods = (3_600 * 105_000_000u64 / 88 - 1) / 11_932;
        assert_eq!(events, 2 * periods);
        // The line rose when the mode was set, too.
        assert_eq!(probe.rises(), periods + 1);
    }

    #[test]
    fn late_calls_still_give_an_edge() {
        let (mut pit, clock, probe) = pit();
        out(&mut pit, &[(0x43, 0x14), (0x40, 100)]);
        clock.step(1_000_000_000);
        pit.advance(clock.now());
        assert!(probe.rises() >= 2);
        let (rises, at) = (probe.rises(), pit.next_event(0).unwrap());
        assert!(at > clock.now() && at - clock.now() <= 84_000);
        clock.set(at);
        pit.read_port(0x40);
        pit.advance(at + 839);
        assert_eq!(probe.rises(), rises + 1, "an access drives the line too");
    }

    #[test]
    fn one_shot_interrupt_comes_once() {
        let (mut pit, clock, probe) = pit();
        out(&mut pit, &[(0x43, 0x30), (0x40, 0xa9), (0x40, 0x04)]);
        assert!(!probe.level());
        let at = pit.next_event(0).unwrap();
        assert_eq!(at, Rate::PIT.when(1_194));
        pit.advance(at - 1);
        assert!(!probe.level());
        pit.advance(at);
        assert!(probe.level());
        assert_eq!(pit.next_event(at), None);
        clock.set(at);
        assert_eq!(pit.read_port(0x40), 0);
    }

    #[test]
    fn read_back_latches_what_it_names() {
        let (mut pit, clock, _) = pit();
        out(&mut pit, &[(0x43, 0xb6), (0x42, 0x10), (0x42, 0x00)]);
        out(&mut pit, &[(0x43, 0x14), (0x40, 0x80), (0x43, 0xe8)]);
        clock.step(84_000);
        assert_eq!(pit.read_port(0x42), 0xf6, "null count, OUT high, mode 3");
        let now = pit.read_port(0x40);
        assert_eq!(now, 0x80 - 99, "not named: live");
        out(&mut pit, &[(0x43, 0x00)]);
        clock.step(84_000);
        assert_eq!(pit.read_port(0x40), now, "latched");
        assert_ne!(pit.read_port(0x40), now);
        assert_eq!(pit.read_port(0x43), 0xff);
    }

    #[test]
    fn port_b_gates_counter_2_and_shows_its_output() {
        let (mut pit, clock, _) = pit();
        // What firmware does to calibrate: counter 2 in mode 0, gate on, wait for OUT.
        out(&mut pit, &[(0x43, 0xb0), (0x42, 0xa9), (0x42, 0x04)]);
        clock.step(10_000_000);
        assert_eq!(pit.read_port(0x61) & 0x2f, 0, "gate off");
        pit.write_port(0x61, 0x01);
        clock.step(999_000);
        assert_eq!(pit.read_port(0x61) & 0x2f, 0x01);
        clock.step(2_000);
        assert_eq!(pit.read_port(0x61) & 0x2f, 0x21);

        let toggles = (0..1_000).fold((0, 0), |(n, last), _| {
            clock.step(1_000);
            let bit = pit.read_port(0x61) & 0x10;
            (n + i32::from(bit != last), bit)
        });
        assert!((65..=67).contains(&toggles.0), "every 15.1 µs");
    }

    #[test]
    fn the_speaker_sounds_when_gate_and_data_are_on() {
        let (mut pit, clock, _) = pit();
        out(
            &mut pit,
            &[(0x43, 0xb6), (0x42, 0xa9), (0x42, 0x04), (0x61, 2)],
        );
        clock.step(10_000);
        pit.read_port(0x61);
        assert_eq!(pit.tone(), None);
        pit.write_port(0x61, 0x03);
        clock.step(10_000);
        pit.read_port(0x61);
        assert_eq!(pit.tone(), Some(1_000_152));
    }

    #[test]
    fn state_round_trip() {
        let (mut one, clock, _) = pit();
        out(&mut one, &[(0x43, 0x36), (0x40, 0x34), (0x40, 0x12)]);
        clock.step(1_234_567);
        one.advance(clock.now());
        let probe = Probe::default();
        let mut two = Pit::new(clock.clone(), probe.line());
        two.restore(round_trip(&one.save()));
        clock.step(1_000_000);
        assert_eq!(two.read_port(0x40), one.read_port(0x40));
        assert_eq!(two.next_event(0), one.next_event(0));
        assert_eq!(probe.level(), one.state.counters[0].out());
    }

    #[test]
    fn survives_a_storm() {
        let (mut pit, clock, _) = pit();
        storm(&mut pit, &clock, &[0x40, 0x41, 0x42, 0x43, 0x61, 0x44]);
    }
}
