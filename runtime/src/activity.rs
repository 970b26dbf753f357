//! What a virtual CPU does with its time. It keeps a note of what it does now, which costs a store
//! at each change; a thread looks at the note every millisecond and counts. So the shares cost
//! nothing to speak of, and are estimates: good after a second, not after a millisecond.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(1);

/// What a virtual CPU does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Doing {
    /// Choosing what runs next: dispatcher, exceptions, interrupts, timers.
    Dispatching,
    /// Running the interpreter.
    Interpreting,
    /// Running compiled code, with the helpers that it calls.
    Compiled,
    /// Translating to IR and predecoding.
    Translating,
    /// Compiling while the guest waits.
    Compiling,
    /// Walking page tables and filling the soft TLB.
    Memory,
    /// In devices.
    Devices,
    /// Asleep.
    Idle,
}

impl Doing {
    /// All of them.
    pub const ALL: [Doing; 8] = [
        Doing::Dispatching,
        Doing::Interpreting,
        Doing::Compiled,
        Doing::Translating,
        Doing::Compiling,
        Doing::Memory,
        Doing::Devices,
        Doing::Idle,
    ];

    /// A name for reports.
    pub const fn name(self) -> &'static str {
        match self {
            Doing::Dispatching => "dispatching",
            Doing::Interpreting => "interpreter",
            Doing::Compiled => "compiled code",
            Doing::Translating => "translating",
            Doing::Compiling => "waiting for the compiler",
            Doing::Memory => "soft MMU",
            Doing::Devices => "devices",
            Doing::Idle => "idle",
        }
    }
}

/// The note. Clones are the same note.
#[derive(Clone, Debug, Default)]
pub struct Note(Arc<AtomicU8>);

impl Note {
    /// Something else begins.
    #[inline]
    pub fn set(&self, doing: Doing) {
        self.0.store(doing as u8, Ordering::Relaxed);
    }

    /// Something else begins, until the value is dropped.
    #[inline]
    pub fn during(&self, doing: Doing) -> Span<'_> {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(doing as u8, Ordering::Relaxed);
        Span { note: self, before }
    }
}

/// The time in which a CPU does one thing; then it goes on with what it did before.
#[derive(Debug)]
pub struct Span<'a> {
    note: &'a Note,
    before: u8,
}

impl Drop for Span<'_> {
    #[inline]
    fn drop(&mut self) {
        self.note.0.store(self.before, Ordering::Relaxed);
    }
}

/// The thread that looks.
#[derive(Debug)]
pub struct Sampler {
    begun: Instant,
    counts: Arc<[AtomicU64; Doing::ALL.len()]>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Begins to look. `None` if the host gives no thread.
    pub fn start(note: &Note) -> Option<Sampler> {
        let counts: Arc<[AtomicU64; Doing::ALL.len()]> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (note, seen, ends) = (note.clone(), counts.clone(), stop.clone());
        let look = move || {
            while !ends.load(Ordering::Relaxed) {
                let doing = usize::from(note.0.load(Ordering::Relaxed));
                if let Some(count) = seen.get(doing) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::park_timeout(PERIOD);
            }
        };
        let thread = std::thread::Builder::new().name("activity".into());
        Some(Sampler {
            begun: Instant::now(),
            counts,
            stop,
            thread: Some(thread.spawn(look).ok()?),
        })
    }

    /// Nanoseconds for each activity so far, which add up to the time since the start.
    pub fn shares(&self) -> impl Iterator<Item = (Doing, u64)> {
        let counts = Doing::ALL.map(|d| self.counts[d as usize].load(Ordering::Relaxed));
        let all = u128::from(counts.iter().sum::<u64>().max(1));
        let elapsed = self.begun.elapsed().as_nanos();
        let share = move |n: u64| (elapsed * u128::from(n) / all) as u64;
        Doing::ALL.into_iter().zip(counts.map(share))
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_what_was_done() {
        let note = Note::default();
        let sampler = Sampler::start(&note).expect("a thread");
        {
            let _span = note.during(Doing::Devices);
            let _inner = note.during(Doing::Idle);
            std::thread::sleep(Duration::from_millis(100));
        }
        let share = |wanted| sampler.shares().find(|(d, _)| *d == wanted).expect("all").1;
        assert!(share(Doing::Idle) > share(Doing::Dispatching));
        assert_eq!(share(Doing::Devices), 0);
        std::thread::sleep(Duration::from_millis(50));
        assert!(share(Doing::Dispatching) > 0, "spans end");
    }
}
