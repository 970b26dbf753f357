//! One device at several ranges, and byte-wide registers behind wider accesses.
//!
//! A chip may answer at ports that are far apart (the two 8259A at 20h, A0h and 4D0h), and other
//! parts of the machine talk to it too. [`Shared`] is the handle for that; its clones are the same
//! device. Lock order: a device may drive a line into another while it is locked, so lines lead
//! towards the interrupt controllers and from there to the CPU, never back.
//!
//! # Widths
//! The registers of ISA devices are 8 bits wide. A wider access to them is split, as the bus
//! controller splits it: the lowest byte goes to the lowest port, and goes first. So a word written
//! to 70h selects a CMOS register with its low byte and writes it with its high byte.
//! [`PortView`] is where this happens, and the only place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{BusDevice, Timed, Width};

/// A device with 8-bit registers at ports.
pub trait PortDevice: Send {
    /// Reads a register.
    fn read_port(&mut self, port: u16) -> u8;

    /// Writes a register.
    fn write_port(&mut self, port: u16, value: u8);
}

/// A handle to a device that has several holders.
#[derive(Debug, Default)]
pub struct Shared<T>(Arc<Mutex<T>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared(Arc::clone(&self.0))
    }
}

impl<T> Shared<T> {
    /// Puts a device behind a handle.
    pub fn new(device: T) -> Shared<T> {
        Shared(Arc::new(Mutex::new(device)))
    }

    /// The device, for as long as the guard lives.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A view of the device's ports from `base` on, to attach to the port bus. Devices with fixed
    /// addresses are given the number of the port (so attach `port(0xa0)` at A0h); devices that may
    /// sit anywhere number their registers from 0 (attach `port(0)` at 3F8h).
    pub fn port(&self, base: u16) -> Box<dyn BusDevice>
    where
        T: PortDevice + 'static,
    {
        Box::new(PortView {
            device: self.clone(),
            base,
        })
    }
}

impl<T: BusDevice> BusDevice for Shared<T> {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        self.lock().read(offset, width)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.lock().write(offset, width, value);
    }

    fn is_passive(&self) -> bool {
        self.lock().is_passive()
    }

    fn read_many(&mut self, offset: u64, width: Width, into: &mut [u8]) {
        self.lock().read_many(offset, width, into);
    }

    fn write_many(&mut self, offset: u64, width: Width, from: &[u8]) {
        self.lock().write_many(offset, width, from);
    }
}

impl<T: Timed> Timed for Shared<T> {
    fn next_event(&self, now: u64) -> Option<u64> {
        self.lock().next_event(now)
    }

    fn advance(&mut self, now: u64) {
        self.lock().advance(now);
    }
}

/// The ports of a shared device from a base on; splits wide accesses into bytes.
#[derive(Debug)]
pub struct PortView<T> {
    device: Shared<T>,
    base: u16,
}

impl<T> PortView<T> {
    fn port(&self, offset: u64, byte: u64) -> u16 {
        self.base.wrapping_add(offset.wrapping_add(byte) as u16)
    }
}

impl<T: PortDevice> BusDevice for PortView<T> {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        let mut device = self.device.lock();
        (0..width.bytes()).fold(0, |value, i| {
            value | u64::from(device.read_port(self.port(offset, i))) << (8 * i)
        })
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        let mut device = self.device.lock();
        for i in 0..width.bytes() {
            device.write_port(self.port(offset, i), (value >> (8 * i)) as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bus;

    #[derive(Default)]
    struct Log(Vec<(u16, u8)>);

    impl PortDevice for Log {
        fn read_port(&mut self, port: u16) -> u8 {
            port as u8
        }

        fn write_port(&mut self, port: u16, value: u8) {
            self.0.push((port, value));
        }
    }

    #[test]
    fn wide_accesses_are_bytes_from_the_lowest_port() {
        let log = Shared::new(Log::default());
        let mut bus = Bus::new();
        bus.attach(0x20, 4, "a", log.port(0x20)).unwrap();
        bus.attach(0x3f8, 8, "b", log.port(0)).unwrap();
        assert_eq!(bus.read(0x20, Width::Dword), 0x2322_2120);
        assert_eq!(bus.read(0x3fa, Width::Word), 0x0302);
        bus.write(0x21, Width::Word, 0xbbaa);
        bus.write(0x3ff, Width::Byte, 0xcc);
        assert_eq!(log.lock().0, [(0x21, 0xaa), (0x22, 0xbb), (7, 0xcc)]);
    }
}
