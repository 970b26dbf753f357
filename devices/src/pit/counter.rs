//! One counter of an 8254, in clock cycles: the six modes, loading, latching, and skipping over
//! any number of cycles at once.
//!
//! [`Counter::tick`] is the datasheet, one cycle at a time. [`Counter::run`] gives the same result
//! for many cycles: between two cycles in which something happens the counter only counts, so it
//! jumps from one of those to the next.

use serde::{Deserialize, Serialize};

/// One counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Counter {
    mode: u8,
    /// Which bytes the guest reads and writes: 1 low, 2 high, 3 low then high.
    access: u8,
    bcd: bool,
    /// Count register: what is loaded next.
    register: u16,
    /// The low byte, while the high one is awaited.
    low: Option<u8>,
    /// A count was written since the control word.
    written: bool,
    /// The count register has not been loaded yet.
    null: bool,
    /// Counting element, 0 to 10000h (or 10000 for BCD, which reads as 0 too).
    count: u32,
    /// Mode 3: the count of this half was odd.
    odd: bool,
    /// Something was loaded since the control word.
    running: bool,
    /// Mode 0: the first of two bytes has stopped the counter.
    halted: bool,
    /// Loads at the next cycle.
    load: bool,
    /// Modes 0, 1, 4, 5: reaching zero has yet to change the output.
    armed: bool,
    out: bool,
    gate: bool,
    latch: Option<u16>,
    status: Option<u8>,
    read_high: bool,
}

impl Counter {
    /// After power-on a counter does nothing until it is programmed.
    pub fn new(gate: bool) -> Counter {
        Counter {
            mode: 0,
            access: 3,
            bcd: false,
            register: 0,
            low: None,
            written: false,
            null: true,
            count: 0,
            odd: false,
            running: false,
            halted: false,
            load: false,
            armed: false,
            out: false,
            gate,
            latch: None,
            status: None,
            read_high: false,
        }
    }

    /// Brings every field into its range, whatever a saved state said.
    pub fn sanitise(&mut self) {
        self.mode = self.mode.min(5);
        self.access = self.access.clamp(1, 3);
        self.count = self.count.min(self.modulus());
        if self.mode == 3 {
            self.count &= !1;
        }
    }

    /// OUT.
    pub fn out(&self) -> bool {
        self.out
    }

    /// The period of modes 2 and 3 in cycles, while they run.
    pub fn period(&self) -> Option<u32> {
        (matches!(self.mode, 2 | 3) && self.counting()).then(|| self.initial())
    }

    /// A control word: access 1 to 3, mode as in the word.
    pub fn program(&mut self, access: u8, mode: u8, bcd: bool) {
        let mode = if mode & 2 != 0 { mode & 3 } else { mode & 7 };
        *self = Counter {
            mode,
            access,
            bcd,
            out: mode != 0,
            count: self.count.min(if bcd { 9_999 } else { 0xffff }),
            ..Counter::new(self.gate)
        };
    }

    /// A byte of the count.
    pub fn write(&mut self, value: u8) {
        let count = match (self.access, self.low.take()) {
            (1, _) => u16::from(value),
            (2, _) => u16::from(value) << 8,
            (_, Some(low)) => u16::from_le_bytes([low, value]),
            (_, None) => {
                self.low = Some(value);
                if self.mode == 0 {
                    self.halted = true;
                    self.out = false;
                }
                return;
            }
        };
        self.register = count;
        self.null = true;
        match self.mode {
            0 => {
                self.halted = false;
                self.out = false;
                self.load = true;
            }
            2 | 3 => self.load |= !self.written,
            4 => self.load = true,
            _ => {}
        }
        self.written = true;
    }

    /// A byte of the status, of the latched count, or of the count as it is.
    pub fn read(&mut self) -> u8 {
        if let Some(status) = self.status.take() {
            return status;
        }
        let [low, high] = self.latch.unwrap_or(self.visible()).to_le_bytes();
        let (value, done) = match (self.access, self.read_high) {
            (1, _) => (low, true),
            (2, _) | (_, true) => (high, true),
            (_, false) => (low, false),
        };
        self.read_high = !done;
        if done {
            self.latch = None;
        }
        value
    }

    /// Holds the count until it is read. A latched count stays.
    pub fn latch_count(&mut self) {
        self.latch = self.latch.or(Some(self.visible()));
    }

    /// Holds the status until it is read.
    pub fn latch_status(&mut self) {
        let now = u8::from(self.out) << 7
            | u8::from(self.null) << 6
            | self.access << 4
            | self.mode << 1
            | u8::from(self.bcd);
        self.status = self.status.or(Some(now));
    }

    /// Drives GATE.
    pub fn set_gate(&mut self, gate: bool) {
        let rising = gate && !self.gate;
        self.gate = gate;
        match self.mode {
            1 | 2 | 3 | 5 if rising => self.load |= self.written,
            2 | 3 if !gate => self.out = true,
            _ => {}
        }
    }

    /// One cycle.
    pub fn tick(&mut self) {
        if self.mode >= 4 {
            // The strobe lasts one cycle.
            self.out = true;
        }
        if self.load {
            self.start();
        } else if self.counting() {
            match self.mode {
                2 if self.count <= 1 => {
                    self.reload();
                    self.out = true;
                }
                2 => {
                    self.count -= 1;
                    self.out = self.count != 1;
                }
                3 if self.half_ends() => {
                    self.reload();
                    // A count of 1 is not allowed; the output stays high.
                    self.out = !self.out || self.initial() == 1;
                }
                3 => self.count -= 2,
                _ => {
                    self.count = self.count.checked_sub(1).unwrap_or(self.modulus() - 1);
                    if self.count == 0 && self.armed {
                        self.armed = false;
                        self.out = self.mode <= 1;
                    }
                }
            }
        }
    }

    /// Many cycles.
    pub fn run(&mut self, mut cycles: u64) {
        while cycles > 0 {
            if !self.load
                && !self.null
                && let Some(period) = self.period()
            {
                cycles %= u64::from(period);
            }
            let plain = self.plain().min(cycles);
            self.skip(plain);
            cycles -= plain;
            if cycles > 0 {
                self.tick();
                cycles -= 1;
            }
        }
    }

    /// How many cycles from now OUT changes, if it does.
    pub fn until_change(&self) -> Option<u64> {
        let mut ahead = *self;
        let mut cycles = 0;
        // A load, the end of a period that was loaded before, and one more.
        for _ in 0..4 {
            let plain = ahead.plain();
            if plain == u64::MAX {
                return None;
            }
            ahead.skip(plain);
            ahead.tick();
            cycles += plain + 1;
            if ahead.out != self.out {
                return Some(cycles);
            }
        }
        None
    }

    /// Cycles that only count, before the next one that does more.
    fn plain(&self) -> u64 {
        if self.load || (self.mode >= 4 && !self.out) {
            return 0;
        }
        if !self.counting() {
            return u64::MAX;
        }
        u64::from(match self.mode {
            2 => self.count.saturating_sub(2),
            3 if self.odd && self.out => self.count / 2,
            3 => (self.count / 2).saturating_sub(1),
            _ if self.armed => self.count.saturating_sub(1),
            _ => return u64::MAX,
        })
    }

    /// That many cycles, at most [`Counter::plain`].
    fn skip(&mut self, cycles: u64) {
        if !self.counting() {
            return;
        }
        let modulus = self.modulus();
        let n = (cycles % u64::from(modulus)) as u32;
        match self.mode {
            2 => self.count = self.count.saturating_sub(n),
            3 => self.count = self.count.saturating_sub(2 * n),
            _ if n <= self.count => self.count -= n,
            _ => self.count = self.count + modulus - n,
        }
    }

    fn counting(&self) -> bool {
        self.running
            && match self.mode {
                0 => self.gate && !self.halted,
                1 | 5 => true,
                _ => self.gate,
            }
    }

    /// Loads because of a new count or a trigger.
    fn start(&mut self) {
        self.load = false;
        self.running = true;
        self.armed = true;
        match self.mode {
            1 => self.out = false,
            2 | 3 => self.out = true,
            _ => {}
        }
        self.reload();
    }

    fn reload(&mut self) {
        self.null = false;
        self.count = self.initial();
        self.odd = self.count & 1 != 0;
        if self.mode == 3 {
            self.count &= !1;
        }
    }

    /// Whether this cycle ends a half of mode 3. With an odd count the high half is one longer.
    fn half_ends(&self) -> bool {
        if self.odd && self.out {
            self.count == 0
        } else {
            self.count <= 2
        }
    }

    fn modulus(&self) -> u32 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    /// The count register as a number; 0 is the largest. BCD digits above 9 count what they are
    /// worth.
    fn initial(&self) -> u32 {
        let value = u32::from(self.register);
        let value = match self.bcd {
            true => (0..4).fold(0, |sum, i| sum * 10 + (value >> (12 - 4 * i) & 15)) % 10_000,
            false => value,
        };
        if value == 0 { self.modulus() } else { value }
    }

    /// The counting element as the guest reads it.
    fn visible(&self) -> u16 {
        if !self.bcd {
            return self.count as u16;
        }
        let mut rest = self.count;
        (0..4).fold(0, |value, i| {
            let digit = (rest % 10) as u16;
            rest /= 10;
            value | digit << (4 * i)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// OUT at each of the next cycles, as `_` and `#`.
    fn wave(counter: &mut Counter, cycles: usize) -> String {
        (0..cycles)
            .map(|_| {
                counter.tick();
                if counter.out() { '#' } else { '_' }
            })
            .collect()
    }

    fn counter(mode: u8, count: u8) -> Counter {
        let mut counter = Counter::new(true);
        counter.program(1, mode, false);
        counter.write(count);
        counter
    }

    #[test]
    fn mode_0_ends_n_plus_1_cycles_after_the_count() {
        let mut c = counter(0, 4);
        assert!(!c.out());
        assert_eq!(wave(&mut c, 7), "____###");
        assert_eq!(c.visible(), 0xfffe, "counts on");
        c.write(2);
        assert_eq!(wave(&mut c, 4), "__##");

        let mut c = counter(0, 3);
        wave(&mut c, 2);
        c.set_gate(false);
        assert_eq!((wave(&mut c, 3).as_str(), c.visible()), ("___", 2));
        c.set_gate(true);
        assert_eq!(wave(&mut c, 3), "_##");
    }

    #[test]
    fn mode_0_stops_at_the_first_byte() {
        let mut c = Counter::new(true);
        c.program(3, 0, false);
        c.write(2);
        assert_eq!(wave(&mut c, 4), "____");
        c.write(0);
        assert_eq!(wave(&mut c, 4), "__##");
        c.write(1);
        assert!(!c.out(), "at once");
    }

    #[test]
    fn mode_1_is_triggered_by_the_gate() {
        let mut c = counter(1, 3);
        assert_eq!(wave(&mut c, 3), "###");
        c.set_gate(false);
        c.set_gate(true);
        assert_eq!(wave(&mut c, 2), "__");
        c.set_gate(false);
        c.set_gate(true);
        c.write(2);
        assert_eq!(wave(&mut c, 5), "__###", "again, and with the new count");
    }

    #[test]
    fn mode_2_is_low_in_the_last_cycle() {
        let mut c = counter(2, 3);
        assert_eq!(wave(&mut c, 10), "##_##_##_#");
        c.write(2);
        assert_eq!(wave(&mut c, 7), "#_#_#_#", "after this period");
        c.tick();
        assert!(!c.out());
        c.set_gate(false);
        assert!(c.out(), "at once");
        assert_eq!(wave(&mut c, 3), "###");
        c.set_gate(true);
        assert_eq!(wave(&mut c, 4), "#_#_");
        assert_eq!(wave(&mut counter(2, 1), 4), "####");
    }

    #[test]
    fn mode_3_is_square() {
        assert_eq!(wave(&mut counter(3, 4), 9), "##__##__#");
        assert_eq!(wave(&mut counter(3, 5), 11), "###__###__#");
        assert_eq!(wave(&mut counter(7, 2), 4), "#_#_", "7 is 3");
        assert_eq!(wave(&mut counter(3, 1), 4), "####");
        let mut c = counter(3, 4);
        wave(&mut c, 1);
        c.write(6);
        assert_eq!(wave(&mut c, 8), "#___###_", "after this half");
        let mut c = counter(3, 8);
        let seen: Vec<u16> = (0..5)
            .map(|_| {
                c.tick();
                c.visible()
            })
            .collect();
        assert_eq!(seen, [8, 6, 4, 2, 8]);
    }

    #[test]
    fn modes_4_and_5_strobe_once() {
        let mut c = counter(4, 3);
        assert_eq!(wave(&mut c, 6), "###_##");
        c.write(1);
        assert_eq!(wave(&mut c, 4), "#_##");
        let mut c = counter(5, 2);
        assert_eq!(wave(&mut c, 4), "####");
        c.set_gate(false);
        c.set_gate(true);
        c.set_gate(false);
        assert_eq!(wave(&mut c, 5), "##_##", "the gate need not stay");
    }

    #[test]
    fn bcd_and_the_largest_counts() {
        let mut c = Counter::new(true);
        c.program(3, 4, true);
        c.write(0x00);
        c.write(0x10);
        c.run(2);
        assert_eq!(c.visible(), 0x0999);
        c.run(1_000);
        assert_eq!(c.visible(), 0x9999);
        c.write(0);
        c.write(0);
        c.run(10_001);
        assert!(!c.out(), "0 is 10000");
        let mut c = counter(4, 0);
        assert_eq!(c.until_change(), Some(65_537), "0 is 65536");
        c.run(65_537);
        assert!(!c.out());
    }

    #[test]
    fn reads_take_status_then_latch_then_the_count() {
        let mut c = Counter::new(true);
        c.program(3, 2, false);
        c.latch_status();
        assert_eq!(c.read(), 0xf4, "OUT, null, both bytes, mode 2");
        c.write(0x34);
        c.write(0x12);
        c.run(1);
        c.latch_count();
        c.run(0x10);
        c.latch_count();
        c.latch_status();
        let read: Vec<u8> = (0..5).map(|_| c.read()).collect();
        assert_eq!(read, [0xb4, 0x34, 0x12, 0x24, 0x12]);
    }

    #[test]
    fn running_is_ticking() {
        let mut random = Random::new(7);
        for _ in 0..3_000 {
            let mut fast = Counter::new(random.next() & 1 != 0);
            let mut slow = fast;
            for _ in 0..8 {
                match random.below(4) {
                    0 => {
                        let (mode, bcd) = (random.below(8) as u8, random.next() & 1 != 0);
                        for c in [&mut fast, &mut slow] {
                            c.program(1, mode, bcd);
                        }
                    }
                    1 => {
                        let count = random.below(20) as u8;
                        for c in [&mut fast, &mut slow] {
                            c.write(count);
                        }
                    }
                    2 => {
                        let gate = random.next() & 1 != 0;
                        for c in [&mut fast, &mut slow] {
                            c.set_gate(gate);
                        }
                    }
                    _ => {
                        let until = fast.until_change();
                        let most = 1 << random.below(12);
                        let cycles = random.below(most);
                        let mut changed = None;
                        for cycle in 1..=cycles {
                            let before = slow.out();
                            slow.tick();
                            if slow.out() != before {
                                changed = changed.or(Some(cycle));
                            }
                        }
                        fast.run(cycles);
                        assert_eq!(changed, until.filter(|at| *at <= cycles), "{slow:?}");
                    }
                }
                assert_eq!(fast, slow);
            }
        }
    }
}
