//! The devices of the metaphrase PC: the bus they sit on, the lines between them, and the chips.
//!
//! A device is a plain struct that implements [`BusDevice`], or [`PortDevice`] if its registers are
//! bytes at ports. It never sleeps, never reads host time and never panics on guest input; what it
//! needs from outside comes in as an [`InterruptLine`], a [`Clock`], or a narrow trait of its own.
//! A device whose outputs change by themselves is [`Timed`]: the machine asks when, and calls back.
//! Its state is one serialisable struct, which `save` gives and `restore` takes.
//!
//! `docs/devices.md` lists the devices, their datasheets, and what is left out.

#![forbid(unsafe_code)]

pub mod acpi_pm;
pub mod apic;
pub mod block;
pub mod bus;
pub mod dma;
pub mod floppy;
pub mod fw_cfg;
pub mod hpet;
pub mod i440fx;
pub mod ide;
pub mod image;
pub mod keyboard;
pub mod lines;
pub mod net;
pub mod pci;
pub mod pic;
pub mod piix;
pub mod pit;
pub mod rate;
pub mod rtc;
pub mod serial;
pub mod shared;
pub mod system_ports;
#[cfg(test)]
mod testing;
pub mod vga;
pub mod virtio;

pub use block::{BlockBackend, BlockError, MemoryDisk};
pub use bus::{Bus, BusDevice, BusError, QuietAccess, Width, quiet};
pub use image::{ImageError, ImageOptions};
pub use lines::{Gate, InterruptLine, NotConnected, WiredOr};
pub use shared::{PortDevice, PortView, Shared};

/// Guest time, in nanoseconds since the machine was switched on.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> u64;
}

/// A device whose outputs change as time passes. Times are guest nanoseconds, as of its [`Clock`].
pub trait Timed {
    /// When an output next changes, if nothing else happens before; `None` if it never does.
    /// The machine asks again after every access to a device. May be earlier than `now` if
    /// [`Timed::advance`] is overdue.
    fn next_event(&self, now: u64) -> Option<u64>;

    /// Does what has become due until `now`. The machine calls it when the time of
    /// [`Timed::next_event`] has come; calling it early or often does no harm.
    fn advance(&mut self, now: u64);
}

/// Guest memory as a bus master sees it. Holders keep it behind a shared handle, so writing needs
/// no exclusive access; the owner drops translations of code that is overwritten.
pub trait GuestMemory: Send {
    /// Reads from a physical address. What is not memory reads as ones.
    fn read(&self, address: u64, into: &mut [u8]);

    /// Writes to a physical address. What is not memory ignores it.
    fn write(&self, address: u64, from: &[u8]);

    /// The guest has no use for what these bytes hold, so their owner may forget it. They may be
    /// read and written as before.
    fn discard(&self, _address: u64, _len: u64) {}
}
