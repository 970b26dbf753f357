//! Where a serial port sends: a buffer, and a thread that empties it into a descriptor.
//!
//! The guest sends byte by byte. What it sends within [`PAUSE`] of the first byte, or until [`BATCH`]
//! bytes wait, is one write. A reader that is slow holds the guest up once [`LIMIT`] bytes wait, as a
//! slow line would; nothing is lost. Where nobody may be reading at all (a pseudo-terminal, a socket
//! without a peer), the oldest bytes go instead. A reader that has gone away ends nothing.

use metaphrase_devices::serial::SerialSink;
use std::io::{ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the first byte waits for more.
const PAUSE: Duration = Duration::from_millis(2);
/// Bytes that are written without waiting for more.
const BATCH: usize = 4096;
/// Bytes that may wait.
const LIMIT: usize = 1 << 20;

/// What happens to a guest that sends faster than somebody reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenFull {
    /// It waits.
    Wait,
    /// What waits longest is dropped.
    Drop,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// The thread is writing what it has taken.
    busy: bool,
    /// No more will come, or none is wanted.
    closed: bool,
    /// The other end is gone.
    broken: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Something changed for the writer.
    filled: Condvar,
    /// Something changed for those who wait for it.
    emptied: Condvar,
    when_full: WhenFull,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The buffer; clones lead to the same descriptor.
#[derive(Clone)]
pub struct Output {
    shared: Arc<Shared>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Output {
    /// A buffer in front of a writer.
    pub fn new(to: Box<dyn Write + Send>, when_full: WhenFull) -> Output {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            when_full,
        });
        let theirs = shared.clone();
        let writer = std::thread::spawn(move || empty(&theirs, to));
        Output {
            shared,
            writer: Arc::new(Mutex::new(Some(writer))),
        }
    }

    /// Adds bytes.
    pub fn push(&self, bytes: &[u8]) {
        let mut state = self.shared.lock();
        while state.waiting.len() >= LIMIT && !state.closed && !state.broken {
            if self.shared.when_full == WhenFull::Drop {
                state.waiting.drain(..LIMIT / 2);
                break;
            }
            state = wait(&self.shared.emptied, state);
        }
        if state.closed || state.broken {
            return;
        }
        let before = state.waiting.len();
        state.waiting.extend_from_slice(bytes);
        let after = state.waiting.len();
        // The writer looks when there is something, and when there is enough.
        if before == 0 || before < BATCH && after >= BATCH {
            self.shared.filled.notify_one();
        }
    }

    /// Lets go of a guest that waits for a reader, whose output is then lost.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.filled.notify_all();
        self.shared.emptied.notify_all();
    }

    /// Writes everything out and ends. If a limit is given and the reader is slower, the rest is
    /// lost.
    pub fn finish(&self, limit: Option<Duration>) {
        self.close();
        let end = limit.map(|limit| Instant::now() + limit);
        let mut state = self.shared.lock();
        while !state.broken && (state.busy || !state.waiting.is_empty()) {
            let left = match end {
                Some(end) => end.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(1),
            };
            if left.is_zero() {
                return;
            }
            state = wait_for(&self.shared.emptied, state, left);
        }
        drop(state);
        let writer = self.writer.lock().map(|mut writer| writer.take());
        if let Ok(Some(writer)) = writer {
            let _ = writer.join();
        }
    }
}

/// The thread.
fn empty(shared: &Shared, mut to: Box<dyn Write + Send>) {
    let mut taken = Vec::new();
    loop {
        let mut state = shared.lock();
        while state.waiting.is_empty() && !state.closed {
            state = wait(&shared.filled, state);
        }
        let end = Instant::now() + PAUSE;
        while state.waiting.len() < BATCH && !state.closed {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = wait_for(&shared.filled, state, left);
        }
        if state.waiting.is_empty() {
            return;
        }
        std::mem::swap(&mut state.waiting, &mut taken);
        state.busy = true;
        drop(state);
        shared.emptied.notify_all();
        let written = write_all(&mut *to, &taken);
        taken.clear();
        let mut state = shared.lock();
        state.busy = false;
        state.broken = !written;
        shared.emptied.notify_all();
        if state.broken {
            return;
        }
    }
}

/// Writes all, also to a descriptor that somebody else has made non-blocking. Whether it did.
fn write_all(to: &mut dyn Write, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return false,
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(_) => return false,
        }
    }
    to.flush().is_ok()
}

fn wait<'a>(on: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    on.wait(state).unwrap_or_else(PoisonError::into_inner)
}

fn wait_for<'a>(
    on: &Condvar,
    state: MutexGuard<'a, State>,
    time: Duration,
) -> MutexGuard<'a, State> {
    let waited = on.wait_timeout(state, time);
    waited.unwrap_or_else(PoisonError::into_inner).0
}

impl SerialSink for Output {
    fn write(&mut self, bytes: &[u8]) {
        self.push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Sender, channel};

    /// Tells of every write; waits while it is shut.
    struct Line(Sender<Vec<u8>>, Arc<AtomicBool>);

    impl Write for Line {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            while self.1.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            let sent = self.0.send(bytes.to_vec());
            sent.map_err(|_| ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bytes_go_together_and_none_is_lost() {
        let (to, from) = channel();
        let output = Output::new(Box::new(Line(to, Arc::default())), WhenFull::Wait);
        let sent: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        for byte in &sent {
            output.push(&[*byte]);
        }
        output.finish(None);
        let writes: Vec<Vec<u8>> = from.try_iter().collect();
        assert_eq!(writes.concat(), sent);
        assert!(writes.len() < 2000, "{} writes", writes.len());
    }

    #[test]
    fn a_byte_alone_arrives_soon() {
        let (to, from) = channel();
        let output = Output::new(Box::new(Line(to, Arc::default())), WhenFull::Wait);
        output.push(b"a");
        assert_eq!(from.recv_timeout(Duration::from_secs(5)), Ok(vec![b'a']));
        output.finish(None);
    }

    #[test]
    fn a_reader_that_is_gone_holds_nobody_up() {
        let (to, from) = channel();
        drop(from);
        let output = Output::new(Box::new(Line(to, Arc::default())), WhenFull::Wait);
        for _ in 0..4 * LIMIT / 1000 {
            output.push(&[0; 1000]);
        }
        output.finish(None);
    }

    #[test]
    fn a_reader_that_stands_still_holds_the_guest_until_it_is_closed() {
        let (to, from) = channel();
        let shut = Arc::new(AtomicBool::new(true));
        let output = Output::new(Box::new(Line(to, shut.clone())), WhenFull::Wait);
        let guest = output.clone();
        let pushed = Arc::new(AtomicBool::new(false));
        let done = pushed.clone();
        let thread = std::thread::spawn(move || {
            // One is taken by the writer, one waits, and the third does not fit.
            for _ in 0..3 {
                guest.push(&vec![0; LIMIT]);
                std::thread::sleep(Duration::from_millis(20));
            }
            done.store(true, Ordering::Relaxed);
        });
        std::thread::sleep(Duration::from_millis(200));
        assert!(!pushed.load(Ordering::Relaxed));
        output.finish(Some(Duration::from_millis(10)));
        thread.join().unwrap();
        shut.store(false, Ordering::Relaxed);
        drop(from);
    }

    #[test]
    fn where_nobody_may_read_the_guest_goes_on() {
        let (to, _from) = channel();
        let shut = Arc::new(AtomicBool::new(true));
        let output = Output::new(Box::new(Line(to, shut.clone())), WhenFull::Drop);
        for _ in 0..8 {
            output.push(&vec![0; LIMIT / 2]);
        }
        assert!(output.shared.lock().waiting.len() <= 2 * LIMIT);
        shut.store(false, Ordering::Relaxed);
        output.finish(None);
    }
}
