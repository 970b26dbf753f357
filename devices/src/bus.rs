//! An address space of device ranges: one for I/O ports, one for memory-mapped devices.

use std::collections::BTreeMap;

/// The width of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Word,
    /// 32 bits.
    Dword,
    /// 64 bits; memory only.
    Qword,
}

impl Width {
    /// In bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Width::Byte => 1,
            Width::Word => 2,
            Width::Dword => 4,
            Width::Qword => 8,
        }
    }

    /// All ones in that width: what an open bus reads.
    pub const fn ones(self) -> u64 {
        match self {
            Width::Qword => u64::MAX,
            w => (1 << (8 * w.bytes())) - 1,
        }
    }
}

/// A device as the bus sees it. Offsets count from the start of the range it was attached at.
pub trait BusDevice: Send {
    /// Reads a register; bits above the width are ignored.
    fn read(&mut self, offset: u64, width: Width) -> u64;

    /// Writes a register; `value` has zeros above the width.
    fn write(&mut self, offset: u64, width: Width, value: u64);
}

/// A range that cannot be attached.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BusError {
    /// It is empty or wraps around.
    #[error("the range {start:#x} of {len:#x} bytes is empty or wraps around")]
    BadRange {
        /// First address.
        start: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Another device has part of it.
    #[error("the range {start:#x} of {len:#x} bytes overlaps {other}")]
    Overlap {
        /// First address.
        start: u64,
        /// Length in bytes.
        len: u64,
        /// The other device's name.
        other: String,
    },
}

/// An attached range.
struct Range {
    len: u64,
    name: String,
    device: Box<dyn BusDevice>,
}

/// Devices by address. Where none is, reads give all ones and writes go nowhere.
#[derive(Default)]
pub struct Bus {
    ranges: BTreeMap<u64, Range>,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entry = |(start, r): (&u64, &Range)| (*start, r.len, r.name.clone());
        f.debug_list()
            .entries(self.ranges.iter().map(entry))
            .finish()
    }
}

impl Bus {
    /// An empty bus.
    pub fn new() -> Bus {
        Bus::default()
    }

    /// Attaches a device at `start` for `len` addresses.
    ///
    /// # Errors
    /// If the range is empty, wraps, or overlaps another.
    pub fn attach(
        &mut self,
        start: u64,
        len: u64,
        name: &str,
        device: Box<dyn BusDevice>,
    ) -> Result<(), BusError> {
        let Some(last) = len.checked_sub(1).and_then(|n| start.checked_add(n)) else {
            return Err(BusError::BadRange { start, len });
        };
        if let Some((other_start, other)) = self.ranges.range(..=last).next_back()
            && other_start + (other.len - 1) >= start
        {
            return Err(BusError::Overlap {
                start,
                len,
                other: other.name.clone(),
            });
        }
        self.ranges.insert(
            start,
            Range {
                len,
                name: name.to_string(),
                device,
            },
        );
        Ok(())
    }

    /// Reads; an access that no device covers whole reads all ones.
    pub fn read(&mut self, addr: u64, width: Width) -> u64 {
        match self.find(addr, width) {
            Some((offset, device)) => device.read(offset, width) & width.ones(),
            None => width.ones(),
        }
    }

    /// Writes; an access that no device covers whole is dropped. Whether there was a device.
    pub fn write(&mut self, addr: u64, width: Width, value: u64) -> bool {
        match self.find(addr, width) {
            Some((offset, device)) => {
                device.write(offset, width, value & width.ones());
                true
            }
            None => false,
        }
    }

    fn find(&mut self, addr: u64, width: Width) -> Option<(u64, &mut dyn BusDevice)> {
        let (start, range) = self.ranges.range_mut(..=addr).next_back()?;
        let offset = addr - start;
        (offset < range.len && range.len - offset >= width.bytes())
            .then_some((offset, &mut *range.device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Cells([u8; 8]);

    impl BusDevice for Cells {
        fn read(&mut self, offset: u64, width: Width) -> u64 {
            let at = offset as usize;
            let mut bytes = [0; 8];
            let n = width.bytes() as usize;
            bytes[..n].copy_from_slice(&self.0[at..at + n]);
            u64::from_le_bytes(bytes)
        }

        fn write(&mut self, offset: u64, width: Width, value: u64) {
            let (at, n) = (offset as usize, width.bytes() as usize);
            self.0[at..at + n].copy_from_slice(&value.to_le_bytes()[..n]);
        }
    }

    fn bus() -> Bus {
        let mut bus = Bus::new();
        bus.attach(0x60, 8, "cells", Box::new(Cells([0; 8])))
            .unwrap();
        bus
    }

    #[test]
    fn accesses_reach_their_device_and_no_other() {
        let mut bus = bus();
        assert!(bus.write(0x62, Width::Word, 0x1_2345));
        assert_eq!(bus.read(0x60, Width::Dword), 0x2345_0000);
        assert_eq!(
            bus.read(0x66, Width::Dword),
            0xffff_ffff,
            "runs over the end"
        );
        assert_eq!(bus.read(0x5f, Width::Byte), 0xff, "open bus");
        assert!(!bus.write(0x68, Width::Byte, 1));
    }

    #[test]
    fn overlaps_and_empty_ranges_are_refused() {
        let mut bus = bus();
        for (start, len) in [(0x5f, 2), (0x67, 1), (0x62, 2), (0, 0x100)] {
            let got = bus.attach(start, len, "new", Box::new(Cells([0; 8])));
            assert!(
                matches!(got, Err(BusError::Overlap { .. })),
                "{start:#x}+{len:#x}"
            );
        }
        let got = bus.attach(u64::MAX, 2, "new", Box::new(Cells([0; 8])));
        assert!(matches!(got, Err(BusError::BadRange { .. })));
        bus.attach(0x68, 1, "next", Box::new(Cells([0; 8])))
            .unwrap();
    }
}
