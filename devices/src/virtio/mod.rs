//! Virtio devices (VIRTIO 1.2): disk, console, network card, memory balloon and a source of
//! randomness, behind the modern PCI transport [`VirtioPci`].
//!
//! A device is a [`VirtioDevice`]; it sees requests as [`Chain`]s and knows nothing of rings,
//! interrupts and PCI. Requests take no time.

mod balloon;
#[cfg(test)]
mod balloon_tests;
mod blk;
mod console;
mod net;
#[cfg(test)]
mod net_tests;
mod pci;
mod queue;
mod rng;
#[cfg(test)]
mod tests;

pub use balloon::Balloon;
pub use blk::Blk;
pub use console::Console;
pub use net::Net;
pub use pci::{BAR, BAR_LEN, MessageSink, VirtioPci, VirtioState};
pub use queue::{Chain, Malformed, Piece, gather, scatter, total};
pub use rng::{RandomSource, Rng};

use crate::GuestMemory;

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Served {
    /// It is done, with so many bytes written.
    Done(u32),
    /// It has to wait in its queue.
    Later,
}

/// What a device may use while it serves a request.
pub struct Context<'a> {
    /// Guest memory.
    pub memory: &'a dyn GuestMemory,
    /// The features that driver and device have agreed on.
    pub features: u64,
}

/// A kind of device.
pub trait VirtioDevice: Send {
    /// Its number in the specification.
    fn kind(&self) -> u16;

    /// Its PCI class.
    fn class(&self) -> u32;

    /// Features of its own that it offers.
    fn features(&self) -> u64 {
        0
    }

    /// How many queues it has.
    fn queues(&self) -> usize;

    /// Its configuration, as the driver reads it.
    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The driver writes to the configuration: 1, 2, 4 or 8 bytes.
    fn write_config(&mut self, _offset: u64, _bytes: &[u8]) {}

    /// Serves a request of a queue.
    ///
    /// # Errors
    /// If the request does not have the form that the specification demands.
    fn serve(&mut self, queue: usize, chain: &Chain, cx: &Context<'_>)
    -> Result<Served, Malformed>;

    /// Whatever it has to remember.
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes that over.
    fn restore(&mut self, _state: &[u8]) {}
}
