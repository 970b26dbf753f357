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

/// Guest instructions that real time lets run between two looks at the clock.
const REAL_TIME_RUN: u64 = 1_000_000;

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
            TimeMode::RealTime => REAL_TIME_RUN,
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
