//! What network cards are plugged into.
//!
//! A [`NetBackend`] takes the frames that the guest sends and holds those that are for it. Frames
//! are Ethernet frames from destination address to payload, without preamble and check sequence.
//! A backend that gets frames by itself calls the [`FramesWait`] that it was made with, from
//! whatever thread; the machine then has the card ask [`NetBackend::receive`] on its own thread.

mod cable;
pub mod user;

pub use cable::{Plug, cable};

/// Called by a backend, from any thread, when frames wait that did not wait before. It must return
/// soon and must not call the backend.
pub type FramesWait = Box<dyn Fn() + Send + Sync>;

/// Longest frame without a tag: a header of 14 bytes and 1500 bytes of payload.
pub const MAX_FRAME: usize = 14 + 1500;

/// The other end of a network card's cable. Neither method ever blocks.
pub trait NetBackend: Send {
    /// The guest sends a frame. One for which there is no room is lost, as on a real network.
    fn send(&mut self, frame: &[u8]);

    /// The next frame for the guest.
    fn receive(&mut self) -> Option<Vec<u8>>;

    /// The longest frame that it takes. Those beyond [`MAX_FRAME`] and a tag hold a TCP segment over
    /// IPv4 that the guest has left to others to cut up.
    fn longest(&self) -> usize {
        MAX_FRAME
    }
}

/// A card without a cable: what is sent is lost, nothing comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unplugged;

impl NetBackend for Unplugged {
    fn send(&mut self, _frame: &[u8]) {}

    fn receive(&mut self) -> Option<Vec<u8>> {
        None
    }
}
