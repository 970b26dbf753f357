//! Where the machine and the network's thread meet: a queue of frames each way.
//!
//! Neither side ever waits for the other. The thread is woken when the queue towards it is no longer
//! empty, and when the one towards the guest has room again after it had none; the machine is told
//! when the queue towards the guest is no longer empty. So a burst of frames costs one wake-up.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::net::FramesWait;

/// Longest frame that the guest may send: a TCP segment that is cut up by nobody.
pub const LONGEST: usize = 14 + 0xffff;
/// Most frames, and most bytes, that wait for the thread. What the guest sends beyond is lost.
const MOST_FROM_GUEST: usize = 4096;
const MOST_BYTES: usize = 4 << 20;
/// How many frames wait for the guest before the thread holds back, and when it goes on.
pub const MOST_FOR_GUEST: usize = 512;
const ROOM_AGAIN: usize = MOST_FOR_GUEST / 2;
/// Most frames that wait for the guest. Connections hold back before; answers beyond are lost.
const LIMIT_FOR_GUEST: usize = 2 * MOST_FOR_GUEST;

#[derive(Default)]
struct FromGuest {
    frames: Vec<Vec<u8>>,
    bytes: usize,
}

#[derive(Default)]
struct ForGuest {
    frames: VecDeque<Vec<u8>>,
    /// The thread waits for room.
    held_back: bool,
}

/// The meeting place.
pub struct Link {
    from_guest: Mutex<FromGuest>,
    for_guest: Mutex<ForGuest>,
    stopped: AtomicBool,
    wake: OwnedFd,
    wait: OnceLock<FramesWait>,
    /// How often the thread has gone around.
    #[cfg(test)]
    pub turns: std::sync::atomic::AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Empty queues.
    pub fn new() -> io::Result<Link> {
        Ok(Link {
            from_guest: Mutex::default(),
            for_guest: Mutex::default(),
            stopped: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            wait: OnceLock::new(),
            #[cfg(test)]
            turns: Default::default(),
        })
    }

    /// Calls `wait` from now on when the guest has something to fetch.
    pub fn tell(&self, wait: FramesWait) {
        let _ = self.wait.set(wait);
        if !lock(&self.for_guest).frames.is_empty() {
            self.call();
        }
    }

    fn call(&self) {
        if let Some(wait) = self.wait.get() {
            wait();
        }
    }

    /// The guest sends a frame.
    pub fn guest_sends(&self, frame: &[u8]) {
        let waiting = {
            let mut queue = lock(&self.from_guest);
            let bytes = queue.bytes + frame.len();
            let full = queue.frames.len() >= MOST_FROM_GUEST || bytes > MOST_BYTES;
            if full || frame.len() > LONGEST {
                return;
            }
            queue.bytes = bytes;
            queue.frames.push(frame.to_vec());
            queue.frames.len()
        };
        if waiting == 1 {
            self.wake();
        }
    }

    /// The guest fetches a frame.
    pub fn guest_fetches(&self) -> Option<Vec<u8>> {
        let mut queue = lock(&self.for_guest);
        let frame = queue.frames.pop_front();
        let wake = queue.held_back && queue.frames.len() <= ROOM_AGAIN;
        if wake {
            queue.held_back = false;
        }
        drop(queue);
        if wake {
            self.wake();
        }
        frame
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        // It only fails when the counter is full, and then the thread has not yet looked.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Whether the thread is to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// What becomes readable when the thread is to look.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The thread has seen that it is to look.
    pub fn awake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
    }

    /// All that the guest has sent.
    pub fn take(&self) -> Vec<Vec<u8>> {
        #[cfg(test)]
        self.turns.fetch_add(1, Ordering::SeqCst);
        std::mem::take(&mut *lock(&self.from_guest)).frames
    }

    /// How many frames there is room for.
    pub fn room(&self) -> usize {
        MOST_FOR_GUEST.saturating_sub(lock(&self.for_guest).frames.len())
    }

    /// Frames for the guest. If the thread holds back, it is woken when there is room; the answer
    /// is whether there already is.
    pub fn give(&self, frames: &mut Vec<Vec<u8>>, held_back: bool) -> bool {
        let (tell, room) = {
            let mut queue = lock(&self.for_guest);
            let tell = queue.frames.is_empty() && !frames.is_empty();
            let space = LIMIT_FOR_GUEST.saturating_sub(queue.frames.len());
            queue.frames.extend(frames.drain(..).take(space));
            let room = queue.frames.len() <= ROOM_AGAIN;
            queue.held_back = held_back && !room;
            (tell, room)
        };
        if tell {
            self.call();
        }
        held_back && room
    }
}
