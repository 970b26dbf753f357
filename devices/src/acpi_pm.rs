//! ACPI power management as in the PIIX4 (datasheet 290562) and the ACPI specification, chapter 4:
//! the PM timer, the PM1 event and control registers, general-purpose events, and the ports through
//! which firmware hands control over (APM control and status).
//!
//! The block of [`LEN`] ports is a [`BusDevice`], to attach where the PCI function says: status 0,
//! enable 2, control 4, timer 8, GPE status C, GPE enable E. [`APM_CONTROL`] and the port after it
//! are a [`PortDevice`].
//!
//! Left out: processor clock control, SMBus, device monitors, the sleep button, wake-up events
//! (a machine that sleeps is switched off or reset by its owner).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::rate::Rate;
use crate::{BusDevice, Clock, InterruptLine, PortDevice, Timed, Width};

/// Ports of the block.
pub const LEN: u64 = 64;
/// What is written here asks firmware for something; the status port follows.
pub const APM_CONTROL: u16 = 0xb2;
/// Written to [`APM_CONTROL`], switches to ACPI mode.
pub const ACPI_ENABLE: u8 = 0xf1;
/// Written to [`APM_CONTROL`], leaves ACPI mode.
pub const ACPI_DISABLE: u8 = 0xf0;

/// The counter's most significant bit, whose changes are events.
const TIMER_TOP: u32 = 23;
const TIMER: u16 = 0x0001;
const GLOBAL: u16 = 0x0020;
const POWER_BUTTON: u16 = 0x0100;
const RTC: u16 = 0x0400;
const STATUS_CLEARABLE: u16 = 0x8d31;
const ENABLE_WRITABLE: u16 = TIMER | GLOBAL | POWER_BUTTON | RTC;
const CONTROL_SCI: u16 = 0x0001;
const CONTROL_WRITABLE: u16 = 0x1c03;
const CONTROL_SLEEP: u16 = 0x2000;

/// The state of the registers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AcpiPmState {
    status: u16,
    enable: u16,
    control: u16,
    events: u16,
    events_enable: u16,
    apm: [u8; 2],
    /// Half periods of the counter that are accounted for.
    halves: u64,
}

/// Where the block's outputs lead.
pub struct AcpiPmLines {
    /// The system control interrupt; a level.
    pub sci: Box<dyn InterruptLine>,
    /// A pulse asks for a system management interrupt.
    pub smi: Box<dyn InterruptLine>,
    /// Called with the sleep type when the guest goes to sleep. What each type means is written in
    /// the tables that the machine gives its guest.
    pub sleep: Box<dyn FnMut(u8) + Send>,
}

/// The power management registers.
pub struct AcpiPm {
    state: AcpiPmState,
    clock: Arc<dyn Clock>,
    lines: AcpiPmLines,
}

impl AcpiPm {
    /// After reset: not in ACPI mode.
    pub fn new(clock: Arc<dyn Clock>, lines: AcpiPmLines) -> AcpiPm {
        let mut pm = AcpiPm {
            state: AcpiPmState::default(),
            clock,
            lines,
        };
        pm.state.halves = pm.ticks() >> TIMER_TOP;
        pm
    }

    /// Somebody presses the power button.
    pub fn press_power_button(&mut self) {
        self.state.status |= POWER_BUTTON;
        self.drive();
    }

    /// General-purpose event 0 to 15 happens.
    pub fn raise_event(&mut self, event: u8) {
        self.state.events |= 1 << (event & 15);
        self.drive();
    }

    /// Whether the guest has switched to ACPI mode.
    pub fn acpi_mode(&self) -> bool {
        self.state.control & CONTROL_SCI != 0
    }

    /// The state.
    pub fn save(&self) -> AcpiPmState {
        self.state.clone()
    }

    /// Takes over a state. The clock has to show the time at which it was saved.
    pub fn restore(&mut self, state: AcpiPmState) {
        self.state = state;
        self.drive();
    }

    fn ticks(&self) -> u64 {
        Rate::PM_TIMER.cycles(self.clock.now())
    }

    fn run_to(&mut self, now: u64) {
        let halves = Rate::PM_TIMER.cycles(now) >> TIMER_TOP;
        if halves != self.state.halves {
            self.state.halves = halves;
            self.state.status |= TIMER;
        }
        self.drive();
    }

    fn drive(&self) {
        let s = &self.state;
        let asks = s.status & s.enable != 0 || s.events & s.events_enable != 0;
        self.lines.sci.set_level(asks && self.acpi_mode());
    }

    /// The registers that can be read, as bytes. The timer is read in one piece.
    fn registers(&self) -> [u8; 16] {
        let s = &self.state;
        let mut bytes = [0; 16];
        for (at, word) in [
            (0, s.status),
            (2, s.enable),
            (4, s.control),
            (12, s.events),
            (14, s.events_enable),
        ] {
            bytes[at..at + 2].copy_from_slice(&word.to_le_bytes());
        }
        let timer = self.ticks() as u32 & 0x00ff_ffff;
        bytes[8..12].copy_from_slice(&timer.to_le_bytes());
        bytes
    }

    /// Writes bits of the word register at an even offset; `mask` has those that are written.
    fn write_word(&mut self, register: u64, value: u16, mask: u16) {
        let s = &mut self.state;
        let set = |word: &mut u16, writable: u16| {
            *word = *word & !(mask & writable) | value & mask & writable;
        };
        match register {
            0 => s.status &= !(value & mask & STATUS_CLEARABLE),
            2 => set(&mut s.enable, ENABLE_WRITABLE),
            4 => {
                set(&mut s.control, CONTROL_WRITABLE);
                if value & mask & CONTROL_SLEEP != 0 {
                    (self.lines.sleep)((s.control >> 10 & 7) as u8);
                }
            }
            12 => s.events &= !(value & mask),
            14 => set(&mut s.events_enable, 0xffff),
            _ => {}
        }
    }
}

impl BusDevice for AcpiPm {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        self.run_to(self.clock.now());
        let registers = self.registers();
        (0..width.bytes()).fold(0, |value, i| {
            let at = offset.wrapping_add(i) as usize;
            value | u64::from(registers.get(at).copied().unwrap_or(0)) << (8 * i)
        })
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.run_to(self.clock.now());
        let end = offset.wrapping_add(width.bytes());
        // Each 16-bit register that the access touches, once.
        let mut register = offset & !1;
        while register < end {
            let shift = |x: u64| match register.checked_sub(offset) {
                Some(after) => x >> (8 * after),
                None => x << 8,
            };
            self.write_word(register, shift(value) as u16, shift(width.ones()) as u16);
            register += 2;
        }
        self.drive();
    }
}

impl PortDevice for AcpiPm {
    fn read_port(&mut self, port: u16) -> u8 {
        self.state.apm[usize::from(port & 1)]
    }

    fn write_port(&mut self, port: u16, value: u8) {
        self.state.apm[usize::from(port & 1)] = value;
        if port == APM_CONTROL {
            match value {
                ACPI_ENABLE => self.state.control |= CONTROL_SCI,
                ACPI_DISABLE => self.state.control &= !CONTROL_SCI,
                _ => {}
            }
            self.lines.smi.pulse();
            self.drive();
        }
    }
}

impl Timed for AcpiPm {
    fn next_event(&self, _now: u64) -> Option<u64> {
        let s = &self.state;
        let next = s.halves.saturating_add(1).saturating_mul(1 << TIMER_TOP);
        (self.acpi_mode() && s.enable & !s.status & TIMER != 0).then(|| Rate::PM_TIMER.when(next))
    }

    fn advance(&mut self, now: u64) {
        self.run_to(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Probe, Random, TestClock, round_trip};
    use std::sync::Mutex;

    struct Rig {
        pm: AcpiPm,
        clock: Arc<TestClock>,
        sci: Probe,
        smi: Probe,
        slept: Arc<Mutex<Vec<u8>>>,
    }

    fn rig() -> Rig {
        let (clock, sci, smi) = (TestClock::new(), Probe::default(), Probe::default());
        let slept = Arc::new(Mutex::new(vec![]));
        let seen = slept.clone();
        let lines = AcpiPmLines {
            sci: sci.line(),
            smi: smi.line(),
            sleep: Box::new(move |kind| seen.lock().unwrap().push(kind)),
        };
        Rig {
            pm: AcpiPm::new(clock.clone(), lines),
            clock,
            sci,
            smi,
            slept,
        }
    }

    #[test]
    fn the_timer_counts_at_its_rate_and_wraps_at_24_bits() {
        let mut rig = rig();
        rig.clock.set(88_000_000);
        assert_eq!(rig.pm.read(8, Width::Dword), 315_000);
        assert_eq!(rig.pm.read(9, Width::Byte), 315_000 >> 8 & 0xff);
        rig.clock.set(Rate::PM_TIMER.when(1 << 24));
        assert_eq!(rig.pm.read(8, Width::Dword), 0);
        rig.pm.write(8, Width::Dword, 77);
        assert_eq!(rig.pm.read(8, Width::Dword), 0);
    }

    #[test]
    fn the_timer_interrupts_when_its_top_bit_changes() {
        let mut rig = rig();
        rig.pm.write(2, Width::Word, 1);
        assert_eq!(rig.pm.next_event(0), None, "not in ACPI mode");
        rig.pm.write_port(APM_CONTROL, ACPI_ENABLE);
        assert_eq!(rig.smi.rises(), 1);
        for half in 1..5 {
            let at = rig.pm.next_event(0).unwrap();
            assert_eq!(at, Rate::PM_TIMER.when(half << 23));
            rig.clock.set(at);
            rig.pm.advance(at - 1);
            assert!(!rig.sci.level());
            rig.pm.advance(at);
            assert!(rig.sci.level());
            assert_eq!(rig.pm.next_event(at), None);
            assert_eq!(rig.pm.read(0, Width::Word), 1);
            rig.pm.write(0, Width::Word, 1);
            assert!(!rig.sci.level());
        }
    }

    #[test]
    fn the_power_button_is_an_event() {
        let mut rig = rig();
        rig.pm.write(4, Width::Word, 1);
        rig.pm.press_power_button();
        assert!(!rig.sci.level());
        rig.pm.write(0, Width::Dword, 0x0100_0000);
        assert!(rig.sci.level(), "enabled, by the upper half");
        assert_eq!(rig.pm.read(0, Width::Dword), 0x0100_0100);
        rig.pm.write(1, Width::Byte, 0x01);
        assert!(!rig.sci.level(), "cleared through its byte");
        rig.pm.write_port(APM_CONTROL, ACPI_DISABLE);
        rig.pm.press_power_button();
        assert!(!rig.sci.level());
    }

    #[test]
    fn general_purpose_events() {
        let mut rig = rig();
        rig.pm.write(4, Width::Word, 1);
        rig.pm.write(15, Width::Byte, 0x02);
        rig.pm.raise_event(9);
        rig.pm.raise_event(3);
        assert!(rig.sci.level());
        assert_eq!(rig.pm.read(12, Width::Dword), 0x0200_0208);
        rig.pm.write(12, Width::Word, 0x0200);
        assert!(!rig.sci.level());
        assert_eq!(rig.pm.read(12, Width::Word), 0x0008);
    }

    #[test]
    fn sleep_is_reported_with_its_type() {
        let mut rig = rig();
        rig.pm.write(4, Width::Word, 5 << 10 | 1);
        assert!(rig.slept.lock().unwrap().is_empty(), "only announced");
        rig.pm.write(4, Width::Word, 5 << 10 | 0x2001);
        rig.pm.write(5, Width::Byte, 0x20);
        assert_eq!(*rig.slept.lock().unwrap(), [5, 0]);
        assert_eq!(rig.pm.read(4, Width::Word), 1, "SLP_EN reads as 0");
    }

    #[test]
    fn state_round_trip() {
        let mut one = rig();
        one.pm.write_port(APM_CONTROL, ACPI_ENABLE);
        one.pm.write_port(APM_CONTROL + 1, 0x42);
        one.pm.write(2, Width::Word, 0x0101);
        one.pm.press_power_button();
        let mut two = rig();
        two.pm.restore(round_trip(&one.pm.save()));
        assert!(two.sci.level());
        assert_eq!(two.pm.read_port(APM_CONTROL + 1), 0x42);
        assert_eq!(two.pm.read(0, Width::Qword), one.pm.read(0, Width::Qword));
        assert_eq!(two.pm.next_event(0), one.pm.next_event(0));
    }

    #[test]
    fn survives_a_storm() {
        let mut rig = rig();
        let mut random = Random::new(6);
        for _ in 0..100_000 {
            let offset = random.below(64);
            let width =
                [Width::Byte, Width::Word, Width::Dword, Width::Qword][random.below(4) as usize];
            match random.below(5) {
                0 => {
                    rig.clock.step(random.time());
                }
                1 => {
                    rig.pm.read(offset, width);
                }
                2 => rig.pm.write_port(random.next() as u16, random.next() as u8),
                3 => {
                    if let Some(at) = rig.pm.next_event(rig.clock.now()) {
                        rig.pm.advance(at);
                    }
                }
                _ => rig.pm.write(offset, width, random.next() & width.ones()),
            }
        }
    }
}
