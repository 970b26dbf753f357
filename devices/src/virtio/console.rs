//! The console device (VIRTIO 1.2, section 5.3) with one port.

use std::collections::VecDeque;

use super::{Chain, Context, Malformed, Served, VirtioDevice, gather, scatter, total};
use crate::serial::SerialSink;

const RECEIVE: usize = 0;
/// Most bytes that are kept for a driver that does not fetch them.
const MOST_WAITING: usize = 0x1_0000;
/// Most bytes of one request; what a driver sends beyond is lost.
const MOST_SENT: u64 = 0x10_0000;
const PIECE: usize = 4096;

/// The device.
pub struct Console {
    sink: Box<dyn SerialSink>,
    waiting: VecDeque<u8>,
}

impl Console {
    /// A console whose output goes to a sink.
    pub fn new(sink: Box<dyn SerialSink>) -> Console {
        Console {
            sink,
            waiting: VecDeque::new(),
        }
    }

    /// Bytes arrive; how many were taken. The transport is to look at its queues after that
    /// ([`super::VirtioPci::poll`]).
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(MOST_WAITING - self.waiting.len());
        self.waiting.extend(&bytes[..taken]);
        taken
    }
}

impl VirtioDevice for Console {
    fn kind(&self) -> u16 {
        3
    }

    fn class(&self) -> u32 {
        0x07_8000
    }

    fn queues(&self) -> usize {
        2
    }

    fn config(&self) -> Vec<u8> {
        vec![0; 12]
    }

    fn serve(
        &mut self,
        queue: usize,
        chain: &Chain,
        cx: &Context<'_>,
    ) -> Result<Served, Malformed> {
        if queue == RECEIVE {
            if self.waiting.is_empty() {
                return Ok(Served::Later);
            }
            let bytes = self.waiting.make_contiguous();
            let written = scatter(cx.memory, &chain.writable, 0, bytes);
            self.waiting.drain(..written);
            if self.waiting.is_empty() {
                self.sink.drained();
            }
            return Ok(Served::Done(written as u32));
        }
        let (mut at, end) = (0, total(&chain.readable).min(MOST_SENT));
        let mut piece = [0; PIECE];
        while at < end {
            let len = (end - at).min(PIECE as u64) as usize;
            let len = gather(cx.memory, &chain.readable, at, &mut piece[..len]);
            self.sink.write(&piece[..len]);
            at += len as u64;
        }
        Ok(Served::Done(0))
    }

    fn save(&self) -> Vec<u8> {
        self.waiting.iter().copied().collect()
    }

    fn restore(&mut self, state: &[u8]) {
        self.waiting = state.iter().copied().take(MOST_WAITING).collect();
    }
}
