//! Exact conversion between guest nanoseconds and the cycles of a clock that is a fraction of them.

/// A frequency: `num` cycles in `den` nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    num: u64,
    den: u64,
}

impl Rate {
    /// The clock of the 8254: 105/88 MHz, a twelfth of the 14.318 MHz crystal of a PC.
    pub const PIT: Rate = Rate::new(21, 17_600);
    /// The ACPI power management timer: 315/88 MHz, a quarter of the crystal.
    pub const PM_TIMER: Rate = Rate::new(63, 17_600);
    /// The clock of the RTC: 32.768 kHz.
    pub const RTC: Rate = Rate::new(512, 15_625_000);

    /// `num` cycles in `den` nanoseconds; neither more than 2^32 nor 0.
    pub const fn new(num: u64, den: u64) -> Rate {
        assert!(0 < num && num <= 1 << 32 && 0 < den && den <= 1 << 32);
        Rate { num, den }
    }

    /// Full cycles in that time.
    pub const fn cycles(self, ns: u64) -> u64 {
        let rest = (ns % self.den) * self.num / self.den;
        (ns / self.den).wrapping_mul(self.num).wrapping_add(rest)
    }

    /// The first nanosecond at which that many cycles are full; the end of time if it is later.
    pub const fn when(self, cycles: u64) -> u64 {
        let rest = ((cycles % self.num) * self.den).div_ceil(self.num);
        (cycles / self.num)
            .saturating_mul(self.den)
            .saturating_add(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn the_rates_are_what_they_say() {
        assert_eq!(Rate::PIT.cycles(88_000_000_000), 105_000_000);
        assert_eq!(Rate::PM_TIMER.cycles(88_000_000_000), 315_000_000);
        assert_eq!(Rate::RTC.cycles(1_000_000_000), 32_768);
        assert_eq!(Rate::PIT.cycles(1_000_000_000), 1_193_181);
    }

    #[test]
    fn when_is_the_first_moment() {
        let mut random = Random::new(3);
        for rate in [Rate::PIT, Rate::PM_TIMER, Rate::RTC, Rate::new(1, 10)] {
            for _ in 0..10_000 {
                let cycles = random.next() >> 24 >> random.below(40);
                let ns = rate.when(cycles);
                assert_eq!(rate.cycles(ns), cycles, "{rate:?}");
                assert!(ns == 0 || rate.cycles(ns - 1) < cycles);
            }
        }
        assert_eq!(Rate::PIT.when(u64::MAX), u64::MAX);
    }
}
