//! Guest time.
//!
//! In deterministic mode guest time is the number of guest instructions, each of which takes a
//! power of two of nanoseconds, plus what was skipped while the processor had nothing to do: the
//! same in every run and engine. In real-time mode it is the host's monotonic clock.

use metaphrase_devices::Clock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What guest time follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeMode {
    /// The number of guest instructions.
    Deterministic {
        /// An instruction takes `1 << shift` nanoseconds; at most 20.
        shift: u32,
    },
    /// The host's clock.
    RealTime,
}

impl TimeMode {
    /// One instruction a nanosecond.
    pub const COUNTED: TimeMode = TimeMode::Deterministic { shift: 0 };
}

/// Nanoseconds that real time lets the guest run between two looks at the clock: how late a timer or
/// the outside may be noticed.
const REAL_TIME_RUN: u64 = 1_000_000;
/// The fewest instructions of such a run, which the look must not cost more than.
const SHORTEST_RUN: u64 = 1_000;
/// Instructions in a millisecond as long as nothing is known about it.
const FIRST_PACE: u64 = 50_000;
/// Nanoseconds of running that tell about the pace.
const TELLING: u64 = 20_000;

/// The longest sleep at once: how late a stop that nobody announces may be noticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// The clock of a machine; devices hold it as a [`Clock`].
#[derive(Debug)]
pub struct GuestClock {
    mode: TimeMode,
    start: Instant,
    /// Deterministic: instructions executed when last told.
    instructions: AtomicU64,
    /// Deterministic: nanoseconds skipped; else nanoseconds slept.
    skipped: AtomicU64,
    /// Somebody has something for the machine.
    woken: Mutex<bool>,
    wake: Condvar,
    /// Makes a virtual CPU that runs return.
    attention: OnceLock<Arc<AtomicBool>>,
    pace: Mutex<Pace>,
}

/// How fast the guest runs in real time: as in the last few runs.
#[derive(Debug)]
struct Pace {
    /// Instructions in a millisecond.
    pace: u64,
    /// The time and the instructions at the start of the run.
    from: (u64, u64),
}

impl Pace {
    /// Another run begins.
    fn begin(&mut self, time: u64, instructions: u64) {
        let passed = time.saturating_sub(self.from.0);
        let done = instructions.saturating_sub(self.from.1);
        if passed < TELLING || done == 0 {
            return;
        }
        self.from = (time, instructions);
        let now = u128::from(done) * 1_000_000 / u128::from(passed);
        self.pace = (3 * self.pace + now as u64) / 4;
    }

    /// Instructions that take about that many nanoseconds.
    fn instructions(&self, ns: u64) -> u64 {
        let n = u128::from(self.pace) * u128::from(ns.min(REAL_TIME_RUN)) / 1_000_000;
        (n as u64).max(SHORTEST_RUN)
    }
}

/// Makes the machine look at its devices, from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<GuestClock>);

impl Waker {
    /// Ends the machine's sleep or its run of instructions; if it looks already, its next sleep
    /// ends at once.
    pub fn wake(&self) {
        if let Some(attention) = self.0.attention.get() {
            attention.store(true, Ordering::Relaxed);
        }
        let mut woken = self.0.woken.lock().unwrap_or_else(PoisonError::into_inner);
        *woken = true;
        self.0.wake.notify_all();
    }
}

impl GuestClock {
    /// A clock that starts at 0 now.
    pub fn new(mode: TimeMode) -> GuestClock {
        GuestClock {
            mode,
            start: Instant::now(),
            instructions: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            woken: Mutex::new(false),
            wake: Condvar::new(),
            attention: OnceLock::new(),
            pace: Mutex::new(Pace {
                pace: FIRST_PACE,
                from: (0, 0),
            }),
        }
    }

    /// A handle to wake the machine with.
    pub fn waker(self: &Arc<Self>) -> Waker {
        Waker(self.clone())
    }

    /// Sets what a wake-up has to set for a virtual CPU that runs.
    pub(super) fn set_attention(&self, attention: Arc<AtomicBool>) {
        // A clock has one machine.
        let _ = self.attention.set(attention);
    }

    /// What it follows.
    pub fn mode(&self) -> TimeMode {
        self.mode
    }

    /// When it started.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Tells it how many instructions have been executed.
    pub fn follow(&self, instructions: u64) {
        self.instructions.store(instructions, Ordering::Relaxed);
    }

    /// Nanoseconds that were skipped (deterministic) or slept.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Nanoseconds since the start.
    pub fn time(&self) -> u64 {
        match self.mode {
            TimeMode::Deterministic { shift } => (self.instructions.load(Ordering::Relaxed)
                << shift.min(20))
            .wrapping_add(self.skipped()),
            TimeMode::RealTime => self.start.elapsed().as_nanos() as u64,
        }
    }

    /// How many instructions may run before the time `at` has to be looked at.
    pub fn instructions_until(&self, at: u64) -> u64 {
        match self.mode {
            TimeMode::Deterministic { shift } => {
                at.saturating_sub(self.time()).div_ceil(1 << shift.min(20))
            }
            TimeMode::RealTime => {
                let now = self.time();
                let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
                pace.begin(now, self.instructions.load(Ordering::Relaxed));
                pace.instructions(at.saturating_sub(now))
            }
        }
    }

    /// Lets the time pass until `at`, or (in real time) some of it.
    pub fn idle_until(&self, at: u64) {
        let missing = at.saturating_sub(self.time());
        match self.mode {
            TimeMode::Deterministic { .. } => {
                self.skipped.fetch_add(missing, Ordering::Relaxed);
            }
            TimeMode::RealTime => {
                let slept = self.sleep(Duration::from_nanos(missing).min(LONGEST_SLEEP));
                self.skipped
                    .fetch_add(slept.as_nanos() as u64, Ordering::Relaxed);
                // Sleep tells nothing about the pace.
                let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
                pace.from = (self.time(), self.instructions.load(Ordering::Relaxed));
            }
        }
    }
}

impl GuestClock {
    /// Sleeps until it is woken, that long at most; how long it was.
    fn sleep(&self, most: Duration) -> Duration {
        let begun = Instant::now();
        let woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake.wait_timeout_while(woken, most, |woken| !*woken);
        let (mut woken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *woken = false;
        begun.elapsed()
    }
}

impl Clock for GuestClock {
    fn now(&self) -> u64 {
        self.time()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_in_real_time_is_as_long_as_the_pace_makes_it() {
        let mut pace = Pace {
            pace: FIRST_PACE,
            from: (0, 0),
        };
        assert_eq!(pace.instructions(u64::MAX), 50_000);
        assert_eq!(pace.instructions(100_000), 5_000);
        assert_eq!(pace.instructions(0), SHORTEST_RUN);
        let mut time = 0;
        let mut instructions = 0;
        for _ in 0..50 {
            let run = pace.instructions(u64::MAX);
            instructions += run;
            // 200 million a second.
            time += run * 5;
            pace.begin(time, instructions);
        }
        assert!((190_000..=200_000).contains(&pace.instructions(u64::MAX)));
        pace.begin(time + 1, instructions + 1);
        assert_eq!(pace.from, (time, instructions), "too short to tell");
    }
}
