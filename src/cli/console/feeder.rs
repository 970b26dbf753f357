//! From the host to a serial port: a queue, of which the port takes what it has room for.
//!
//! Nothing is lost: what does not fit waits, and the reader of the descriptor waits with it. The
//! port is not fed faster than its line, or than the fastest line of a PC if it is set to a slower
//! one: drivers lose what comes in faster than any hardware sends. Nor before the guest listens.

use super::control::Control;
use metaphrase_devices::Shared;
use metaphrase_devices::serial::{Serial, SerialSink};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a port without room is left alone, if it does not say that it has some again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Bits a second of the fastest line.
const FASTEST: u32 = 115_200;
/// Start, data and stop bits of a byte.
const BITS: u32 = 10;

/// Wakes a thread that waits for a descriptor.
#[derive(Debug)]
pub struct Bell {
    event: OwnedFd,
    /// Somebody waits for it.
    awaited: AtomicBool,
}

impl Bell {
    /// A new one.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn new() -> std::io::Result<Arc<Bell>> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Arc::new(Bell {
            event: eventfd(0, flags)?,
            awaited: AtomicBool::new(false),
        }))
    }

    /// Wakes whoever waits.
    pub fn ring(&self) {
        if self.awaited.swap(false, Ordering::SeqCst) {
            // It fails only if it has been rung 2^64 times.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// Wakes whoever waits, or is about to.
    pub fn ring_loudly(&self) {
        self.arm();
        self.ring();
    }

    /// Waits for the bell, for a descriptor to be readable, or for a time. Whether the descriptor
    /// is readable, or closed at the other end.
    pub fn wait(&self, fd: Option<BorrowedFd<'_>>, time: Option<Duration>) -> bool {
        let time = time.and_then(|time| Timespec::try_from(time).ok());
        let mut fds = vec![PollFd::new(&self.event, PollFlags::IN)];
        fds.extend(fd.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let got = poll(&mut fds, time.as_ref());
        let readable = got.is_ok() && fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        let mut count = [0; 8];
        let _ = rustix::io::read(self.event.as_fd(), &mut count);
        readable
    }

    /// Makes the next ring count.
    pub fn arm(&self) {
        self.awaited.store(true, Ordering::SeqCst);
    }
}

/// A sink that also tells when the guest has taken what was received.
pub struct PortSink<S> {
    /// Where what the guest sends goes.
    pub to: S,
    /// Rung when there is room.
    pub bell: Arc<Bell>,
}

impl<S: SerialSink> SerialSink for PortSink<S> {
    fn write(&mut self, bytes: &[u8]) {
        self.to.write(bytes);
    }

    fn drained(&mut self) {
        self.bell.ring();
    }
}

/// The queue in front of a port.
pub struct Feeder {
    port: Shared<Serial>,
    control: Control,
    bell: Arc<Bell>,
    /// Bytes, and breaks.
    queue: VecDeque<Option<u8>>,
    /// When the line is free again.
    free: Instant,
}

impl Feeder {
    /// An empty queue. `bell` is that of the port's [`PortSink`].
    pub fn new(port: Shared<Serial>, bell: Arc<Bell>, control: Control) -> Feeder {
        Feeder {
            port,
            control,
            bell,
            queue: VecDeque::new(),
            free: Instant::now(),
        }
    }

    /// Puts a byte at the end.
    pub fn push(&mut self, byte: u8) {
        self.queue.push_back(Some(byte));
    }

    /// Puts a break at the end.
    pub fn push_break(&mut self) {
        self.queue.push_back(None);
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether the guest has read everything.
    pub fn is_done(&self) -> bool {
        self.queue.is_empty() && self.port.lock().unread() == 0
    }

    /// Gives the port what it takes. When to come again; the bell may ring before.
    pub fn feed(&mut self) -> Option<Duration> {
        if self.queue.is_empty() {
            return None;
        }
        let now = Instant::now();
        if now < self.free {
            return Some(self.free - now);
        }
        self.bell.arm();
        let mut port = self.port.lock();
        let mut given = 0;
        while port.listens()
            && port.room() > 0
            && let Some(next) = self.queue.pop_front()
        {
            match next {
                Some(byte) => {
                    port.receive(&[byte]);
                }
                None => port.receive_break(),
            }
            given += 1;
        }
        let speed = port.baud().max(FASTEST);
        drop(port);
        if given == 0 {
            return Some(LOOK_AGAIN);
        }
        self.control.touch();
        let line = Duration::from_secs(1) * (given * BITS) / speed;
        self.free = now + line;
        (!self.queue.is_empty()).then_some(line)
    }

    /// The bell.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaphrase_devices::serial::NoSink;
    use metaphrase_devices::{NotConnected, PortDevice};

    #[test]
    fn a_guest_that_reads_slowly_gets_every_byte() {
        let bell = Bell::new().unwrap();
        let sink = PortSink {
            to: NoSink,
            bell: bell.clone(),
        };
        let port = Shared::new(Serial::new(Box::new(sink), Box::new(NotConnected)));
        // FIFOs on.
        port.lock().write_port(2, 1);
        let guest = port.clone();
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            let mut idle = Instant::now();
            while idle.elapsed() < Duration::from_secs(2) && got.len() < 5000 {
                if guest.lock().read_port(5) & 1 == 0 {
                    std::thread::sleep(Duration::from_micros(50));
                    continue;
                }
                got.push(guest.lock().read_port(0));
                idle = Instant::now();
            }
            got
        });
        let control = Control::new(Arc::default(), Arc::new(|| {}));
        let mut feeder = Feeder::new(port, bell, control);
        let sent: Vec<u8> = (0..5000u32).map(|n| (n * 7) as u8).collect();
        sent.iter().for_each(|byte| feeder.push(*byte));
        let start = Instant::now();
        while let Some(time) = feeder.feed() {
            assert!(start.elapsed() < Duration::from_secs(60));
            feeder.bell().wait(None, Some(time));
        }
        assert_eq!(reader.join().unwrap(), sent);
        // 5000 bytes take 434 ms on the fastest line.
        assert!(start.elapsed() > Duration::from_millis(300));
    }

    #[test]
    fn a_break_keeps_its_place() {
        let bell = Bell::new().unwrap();
        let port = Shared::new(Serial::new(Box::new(NoSink), Box::new(NotConnected)));
        port.lock().write_port(2, 1);
        port.lock().write_port(1, 1);
        let control = Control::new(Arc::default(), Arc::new(|| {}));
        let mut feeder = Feeder::new(port.clone(), bell, control);
        feeder.push(b'a');
        feeder.push_break();
        feeder.push(b'b');
        feeder.feed();
        let mut port = port.lock();
        let mut next = || (port.read_port(5) & 0x11, port.read_port(0));
        assert_eq!([next(), next(), next()], [(1, b'a'), (0x11, 0), (1, b'b')]);
    }
}
