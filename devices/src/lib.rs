//! The bus of the metaphrase PC: port and memory ranges, interrupt lines and the clock that devices
//! are given.
//!
//! A device is a plain struct that implements [`BusDevice`]. It never sleeps, never reads host time
//! and never panics on guest input; what it needs from outside comes in as an [`InterruptLine`] or
//! a [`Clock`].

#![forbid(unsafe_code)]

pub mod bus;

pub use bus::{Bus, BusDevice, BusError, Width};

/// An interrupt request line, as a device drives it.
pub trait InterruptLine: Send {
    /// Drives the line high or low.
    fn set_level(&self, high: bool);

    /// A pulse: high, then low. Edge-triggered inputs see one request.
    fn pulse(&self) {
        self.set_level(true);
        self.set_level(false);
    }
}

/// Guest time, in nanoseconds since the machine was switched on.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> u64;
}

/// A line that goes nowhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct NotConnected;

impl InterruptLine for NotConnected {
    fn set_level(&self, _high: bool) {}
}
