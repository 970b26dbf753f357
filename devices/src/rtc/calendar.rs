//! Dates for the real-time clock: a calendar that can be moved by any number of seconds, and the
//! search for the next moment that an alarm names.

/// Seconds of a day.
pub const DAY: u64 = 86_400;

/// A date and time as the clock counts it. The day of the week is counted by itself, as the chip
/// does: it is as right as the guest has set it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// With the century.
    pub year: u32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 1 to 7, 1 for Sunday.
    pub weekday: u32,
    /// Second of the day.
    pub second: u64,
}

impl Moment {
    /// From seconds since the start of 1970 (UTC, or whatever zone the guest is to see).
    pub fn from_unix(seconds: u64) -> Moment {
        let start = Moment {
            year: 1970,
            month: 1,
            day: 1,
            weekday: 5,
            second: 0,
        };
        start.plus(seconds)
    }

    /// Later by that much.
    pub fn plus(self, seconds: u64) -> Moment {
        let total = self.second.saturating_add(seconds);
        let days = total / DAY;
        let day_number = days_before_year(self.year)
            + days_before_month(self.year, self.month)
            + u64::from(self.day - 1)
            + days;
        let (year, month, day) = from_day_number(day_number);
        Moment {
            year,
            month,
            day,
            weekday: ((u64::from(self.weekday) + 6 + days) % 7 + 1) as u32,
            second: total % DAY,
        }
    }
}

fn leap(year: u32) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

/// Days of a month, 1 to 12.
pub fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from the start of year 0.
fn days_before_year(year: u32) -> u64 {
    let y = u64::from(year);
    // Leap days before this year; year 0 is one.
    y * 365 + y.div_ceil(4) - y.div_ceil(100) + y.div_ceil(400)
}

fn days_before_month(year: u32, month: u32) -> u64 {
    (1..month).map(|m| u64::from(days_in_month(year, m))).sum()
}

fn from_day_number(days: u64) -> (u32, u32, u32) {
    // 400 years have 146,097 days, whichever they are.
    let era = (days / 146_097) as u32;
    let in_era = days % 146_097;
    let mut year = (in_era / 366) as u32;
    while days_before_year(year + 1) <= in_era {
        year += 1;
    }
    let mut rest = (in_era - days_before_year(year)) as u32;
    let mut month = 1;
    while rest >= days_in_month(year, month) {
        rest -= days_in_month(year, month);
        month += 1;
    }
    (era.wrapping_mul(400).wrapping_add(year), month, rest + 1)
}

/// One field of an alarm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    /// Matches always.
    Any,
    /// Matches this value; one that is out of range never comes.
    Is(u32),
}

impl Field {
    fn matches(self, value: u64) -> bool {
        match self {
            Field::Any => true,
            Field::Is(wanted) => u64::from(wanted) == value,
        }
    }
}

/// An alarm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// Hour, 0 to 23.
    pub hour: Field,
    /// Minute.
    pub minute: Field,
    /// Second.
    pub second: Field,
}

impl Alarm {
    /// Seconds from that second of the day until the alarm next matches, at least 1 and at most
    /// a day; `None` if it never does.
    pub fn after(&self, second_of_day: u64) -> Option<u64> {
        let mut at = second_of_day + 1;
        let end = second_of_day + DAY;
        // At most a step for each hour of the day, each minute and each second.
        while at <= end {
            let now = at % DAY;
            if !self.hour.matches(now / 3_600) {
                at += 3_600 - now % 3_600;
            } else if !self.minute.matches(now / 60 % 60) {
                at += 60 - now % 60;
            } else if !self.second.matches(now % 60) {
                at += 1;
                if now % 60 == 59 && matches!(self.second, Field::Is(60..)) {
                    return None;
                }
            } else {
                return Some(at - second_of_day);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(m: Moment) -> (u32, u32, u32, u32, u64) {
        (m.year, m.month, m.day, m.weekday, m.second)
    }

    #[test]
    fn known_dates() {
        assert_eq!(date(Moment::from_unix(0)), (1970, 1, 1, 5, 0));
        let leap_day = Moment::from_unix(951_782_400);
        assert_eq!(date(leap_day), (2000, 2, 29, 3, 0));
        assert_eq!(date(leap_day.plus(DAY)), (2000, 3, 1, 4, 0));
        let later = Moment::from_unix(4_107_542_399);
        assert_eq!(date(later), (2100, 2, 28, 1, 86_399));
        assert_eq!(date(later.plus(1)), (2100, 3, 1, 2, 0));
    }

    #[test]
    fn every_day_of_nine_centuries_follows_the_one_before() {
        let mut now = Moment::from_unix(0);
        for n in 1..330_000 {
            let next = now.plus(DAY);
            let in_month = next.year == now.year && next.month == now.month;
            assert!(
                in_month && next.day == now.day + 1
                    || next.day == 1 && now.day == days_in_month(now.year, now.month)
            );
            assert_eq!(next.weekday, now.weekday % 7 + 1);
            if n % 1_000 == 0 {
                assert_eq!(next, Moment::from_unix(n * DAY));
            }
            now = next;
        }
    }

    #[test]
    fn alarms_are_found_as_by_trying_each_second() {
        let field = |n: u32| if n == 0 { Field::Any } else { Field::Is(n) };
        for (h, m, s) in [(0, 0, 0), (0, 0, 7), (0, 9, 0), (5, 0, 0), (23, 59, 59)]
            .into_iter()
            .chain([(0, 1, 2), (3, 0, 1), (12, 34, 0), (7, 61, 0), (0, 0, 75)])
        {
            let alarm = Alarm {
                hour: field(h),
                minute: field(m),
                second: field(s),
            };
            for start in [0, 7, 539, 540, 18_000, 45_239, 45_240, 86_399] {
                let tried = (1..=DAY).find(|d| {
                    let t = (start + d) % DAY;
                    alarm.hour.matches(t / 3_600)
                        && alarm.minute.matches(t / 60 % 60)
                        && alarm.second.matches(t % 60)
                });
                assert_eq!(alarm.after(start), tried, "{alarm:?} after {start}");
            }
        }
    }
}
