//! The real-time clock and its RAM: Motorola MC146818A, with 128 bytes as in the PIIX3.
//!
//! Ports: 70h the index (its upper bit masks NMI), 71h the data. Byte 32h holds the century, where
//! ACPI and firmware look for it, and counts with the year.
//!
//! Left out: daylight saving, square-wave output, the 4 and 1 MHz time bases, power failure. Values
//! that are no date are kept as written until the next second, which brings them into range.
//!
//! The chip divides 32.768 kHz down to 1 Hz in one chain; the periodic interrupt and the update of
//! the time are taps of it. So all that happens is worked out from the time since the chain began,
//! `elapsed`, when a register is accessed or an interrupt is due.

mod calendar;

use std::sync::Arc;

use calendar::{Alarm, DAY, Field, Moment, days_in_month};
use serde::{Deserialize, Serialize};

use crate::rate::Rate;
use crate::{Clock, InterruptLine, PortDevice, Timed};

/// The port that selects a register; the data port follows.
pub const INDEX: u16 = 0x70;
/// Bytes of RAM, the registers included.
pub const LEN: usize = 128;

const SECONDS: usize = 0x00;
const SECONDS_ALARM: usize = 0x01;
const MINUTES: usize = 0x02;
const MINUTES_ALARM: usize = 0x03;
const HOURS: usize = 0x04;
const HOURS_ALARM: usize = 0x05;
const WEEKDAY: usize = 0x06;
const DAY_OF_MONTH: usize = 0x07;
const MONTH: usize = 0x08;
const YEAR: usize = 0x09;
const A: usize = 0x0a;
const B: usize = 0x0b;
const C: usize = 0x0c;
const D: usize = 0x0d;
const CENTURY: usize = 0x32;

const A_UPDATING: u8 = 0x80;
const A_DIVIDER: u8 = 0x70;
const A_DIVIDER_ON: u8 = 0x20;
const A_RATE: u8 = 0x0f;
const B_SET: u8 = 0x80;
const B_PERIODIC: u8 = 0x40;
const B_ALARM: u8 = 0x20;
const B_UPDATE: u8 = 0x10;
const B_BINARY: u8 = 0x04;
const B_24_HOURS: u8 = 0x02;
const C_REQUEST: u8 = 0x80;
const C_PERIODIC: u8 = 0x40;
const C_ALARM: u8 = 0x20;
const C_UPDATE: u8 = 0x10;
const D_VALID: u8 = 0x80;
const HOUR_PM: u8 = 0x80;
/// Alarm bytes from here on match any value.
const ALARM_ANY: u8 = 0xc0;

const SECOND: u64 = 1_000_000_000;
/// How long before the end of an update bit 7 of A is set: 244 µs of warning and the 1984 µs that
/// it takes.
const UPDATE: u64 = 2_228_000;

/// The state of the clock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RtcState {
    index: u8,
    /// All bytes; what the guest reads of A, C and D is made up from more.
    ram: Vec<u8>,
    /// Guest time plus this, wrapping, is the time since the divider chain began.
    chain: u64,
    /// Time since the chain began, as of the last look.
    elapsed: u64,
}

/// The clock.
pub struct Rtc {
    state: RtcState,
    clock: Arc<dyn Clock>,
    irq: Box<dyn InterruptLine>,
}

impl Rtc {
    /// A running clock that shows `unix_seconds` since the start of 1970, BCD, 24 hours. The rest
    /// of the RAM is 0; the machine fills in what its firmware expects.
    pub fn new(clock: Arc<dyn Clock>, irq: Box<dyn InterruptLine>, unix_seconds: u64) -> Rtc {
        let mut ram = vec![0; LEN];
        ram[A] = 0x26;
        ram[B] = B_24_HOURS;
        let mut rtc = Rtc {
            state: RtcState {
                index: 0,
                ram,
                chain: clock.now().wrapping_neg(),
                elapsed: 0,
            },
            clock,
            irq,
        };
        rtc.put(Moment::from_unix(unix_seconds));
        rtc
    }

    /// A byte of the RAM, without side effects.
    pub fn ram(&self, index: u8) -> u8 {
        self.state.ram[usize::from(index & 0x7f)]
    }

    /// Sets a byte of the RAM, as firmware before the guest would have.
    pub fn set_ram(&mut self, index: u8, value: u8) {
        self.state.ram[usize::from(index & 0x7f)] = value;
    }

    /// Whether the guest has masked NMI, by bit 7 of the index port.
    pub fn nmi_masked(&self) -> bool {
        self.state.index & 0x80 != 0
    }

    /// The state.
    pub fn save(&self) -> RtcState {
        self.state.clone()
    }

    /// Takes over a state. The clock has to show the time at which it was saved.
    pub fn restore(&mut self, mut state: RtcState) {
        state.ram.resize(LEN, 0);
        self.state = state;
        self.drive();
    }

    fn reg(&self, register: usize) -> u8 {
        self.state.ram[register]
    }

    fn divider_on(&self) -> bool {
        self.reg(A) & A_DIVIDER == A_DIVIDER_ON
    }

    /// Cycles of 32.768 kHz between two periodic interrupts.
    fn period(&self) -> Option<u64> {
        match self.reg(A) & A_RATE {
            0 => None,
            // The two slowest taps of the first stage are wired to the same rates as 8 and 9.
            rate @ 1..3 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    /// Catches up with the time.
    fn run_to(&mut self, now: u64) {
        let before = self.state.elapsed;
        let elapsed = now.wrapping_add(self.state.chain);
        self.state.elapsed = elapsed;
        if !self.divider_on() || elapsed < before {
            return;
        }
        if let Some(period) = self.period()
            && Rate::RTC.cycles(elapsed) / period > Rate::RTC.cycles(before) / period
        {
            self.state.ram[C] |= C_PERIODIC;
        }
        let seconds = elapsed / SECOND - before / SECOND;
        if seconds > 0 && self.reg(B) & B_SET == 0 {
            self.update(seconds);
        }
        self.drive();
    }

    /// That many updates.
    fn update(&mut self, seconds: u64) {
        let moment = self.get();
        let alarm = self.alarm().after(moment.second);
        if alarm.is_some_and(|after| after <= seconds) {
            self.state.ram[C] |= C_ALARM;
        }
        self.state.ram[C] |= C_UPDATE;
        self.put(moment.plus(seconds));
    }

    fn drive(&mut self) {
        // The flags of C and their enables in B are the same bits.
        let level = self.reg(B) & self.reg(C) & (C_PERIODIC | C_ALARM | C_UPDATE) != 0;
        self.irq.set_level(level);
    }

    fn decode(&self, value: u8) -> u32 {
        let value = u32::from(value);
        if self.reg(B) & B_BINARY != 0 {
            value
        } else {
            value / 16 * 10 + value % 16
        }
    }

    fn encode(&self, value: u32) -> u8 {
        let value = if self.reg(B) & B_BINARY != 0 {
            value
        } else {
            value / 10 * 16 + value % 10
        };
        value as u8
    }

    fn decode_hour(&self, value: u8) -> u32 {
        if self.reg(B) & B_24_HOURS != 0 {
            return self.decode(value);
        }
        let afternoon = if value & HOUR_PM != 0 { 12 } else { 0 };
        match self.decode(value & !HOUR_PM) {
            12 => afternoon,
            hour => hour + afternoon,
        }
    }

    fn encode_hour(&self, hour: u32) -> u8 {
        if self.reg(B) & B_24_HOURS != 0 {
            return self.encode(hour);
        }
        let afternoon = if hour >= 12 { HOUR_PM } else { 0 };
        match hour % 12 {
            0 => self.encode(12) | afternoon,
            hour => self.encode(hour) | afternoon,
        }
    }

    /// The time in the registers, brought into range.
    fn get(&self) -> Moment {
        let field = |register: usize| self.decode(self.reg(register));
        let year = field(CENTURY).min(99) * 100 + field(YEAR).min(99);
        let month = field(MONTH).clamp(1, 12);
        let hour = self.decode_hour(self.reg(HOURS)).min(23);
        let clock = hour * 3_600 + field(MINUTES).min(59) * 60 + field(SECONDS).min(59);
        Moment {
            year,
            month,
            day: field(DAY_OF_MONTH).clamp(1, days_in_month(year, month)),
            weekday: field(WEEKDAY).clamp(1, 7),
            second: u64::from(clock),
        }
    }

    fn put(&mut self, moment: Moment) {
        let clock = (moment.second % DAY) as u32;
        for (register, value) in [
            (SECONDS, self.encode(clock % 60)),
            (MINUTES, self.encode(clock / 60 % 60)),
            (HOURS, self.encode_hour(clock / 3_600)),
            (WEEKDAY, self.encode(moment.weekday)),
            (DAY_OF_MONTH, self.encode(moment.day)),
            (MONTH, self.encode(moment.month)),
            (YEAR, self.encode(moment.year % 100)),
            (CENTURY, self.encode(moment.year / 100 % 100)),
        ] {
            self.state.ram[register] = value;
        }
    }

    fn alarm(&self) -> Alarm {
        let field = |register: usize, decode: &dyn Fn(u8) -> u32| match self.reg(register) {
            ALARM_ANY.. => Field::Any,
            value => Field::Is(decode(value)),
        };
        let plain = |value| self.decode(value);
        Alarm {
            hour: field(HOURS_ALARM, &|value| self.decode_hour(value)),
            minute: field(MINUTES_ALARM, &plain),
            second: field(SECONDS_ALARM, &plain),
        }
    }

    fn updating(&self) -> bool {
        self.divider_on()
            && self.reg(B) & B_SET == 0
            && SECOND - self.state.elapsed % SECOND <= UPDATE
    }

    fn read_register(&mut self) -> u8 {
        let register = usize::from(self.state.index & 0x7f);
        match register {
            A if self.updating() => self.reg(A) | A_UPDATING,
            C => {
                let flags = std::mem::take(&mut self.state.ram[C]);
                let request = flags & self.reg(B) != 0;
                flags | if request { C_REQUEST } else { 0 }
            }
            D => D_VALID,
            _ => self.reg(register),
        }
    }

    fn write_register(&mut self, value: u8) {
        let register = usize::from(self.state.index & 0x7f);
        match register {
            A => {
                let was_on = self.divider_on();
                self.state.ram[A] = value & !A_UPDATING;
                if self.divider_on() && !was_on {
                    // Out of reset, the first update comes after half a second.
                    self.state.elapsed = SECOND / 2;
                    self.state.chain = self.state.elapsed.wrapping_sub(self.clock.now());
                }
            }
            // Setting the time ends the wish for interrupts at its updates.
            B if value & B_SET != 0 => self.state.ram[B] = value & !B_UPDATE,
            B => self.state.ram[B] = value,
            C | D => {}
            _ => self.state.ram[register] = value,
        }
    }

    /// When the chain has counted that long.
    fn time_of(&self, elapsed: u64) -> u64 {
        elapsed.wrapping_sub(self.state.chain)
    }
}

impl PortDevice for Rtc {
    fn read_port(&mut self, port: u16) -> u8 {
        if port == INDEX {
            // Write-only.
            return 0xff;
        }
        self.run_to(self.clock.now());
        let value = self.read_register();
        self.drive();
        value
    }

    fn write_port(&mut self, port: u16, value: u8) {
        if port == INDEX {
            self.state.index = value;
            return;
        }
        self.run_to(self.clock.now());
        self.write_register(value);
        self.drive();
    }
}

impl Timed for Rtc {
    /// Only what would raise the line: nothing while it is up, and nothing that is not enabled.
    fn next_event(&self, _now: u64) -> Option<u64> {
        let (enabled, flags) = (self.reg(B), self.reg(C));
        if !self.divider_on() || enabled & flags & (C_PERIODIC | C_ALARM | C_UPDATE) != 0 {
            return None;
        }
        let elapsed = self.state.elapsed;
        let mut next = None;
        let mut consider = |at: u64| next = Some(next.map_or(at, |n: u64| n.min(at)));
        if enabled & B_PERIODIC != 0
            && let Some(period) = self.period()
        {
            let count = Rate::RTC.cycles(elapsed) / period + 1;
            consider(Rate::RTC.when(count.saturating_mul(period)));
        }
        if enabled & B_SET == 0 {
            let second = elapsed / SECOND;
            let after = |n: u64| second.saturating_add(n).saturating_mul(SECOND);
            if enabled & B_UPDATE != 0 {
                consider(after(1));
            }
            if enabled & B_ALARM != 0
                && let Some(n) = self.alarm().after(self.get().second)
            {
                consider(after(n));
            }
        }
        next.map(|at| self.time_of(at))
    }

    fn advance(&mut self, now: u64) {
        self.run_to(now);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
