//! An address space of device ranges: one for I/O ports, one for memory-mapped devices.
//!
//! An access that lies inside one device goes to it whole, and the device decides what its width
//! means (byte devices split it, see [`crate::shared`]). An access that runs over the end of a
//! device is split into bytes, each of which goes where it belongs, as a chipset does when the
//! parts have different targets.

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

    /// Whether its registers are as plain as memory: neither time nor any line has to do with them,
    /// and an access leads to no event. Then nobody need know the exact time of an access.
    fn is_passive(&self) -> bool {
        false
    }

    /// Which accesses are quiet.
    fn quiet(&self) -> QuietAccess {
        if self.is_passive() {
            QuietAccess::All
        } else {
            QuietAccess::None
        }
    }

    /// Reads a register again and again, as REP INS does. `into` is a whole number of accesses.
    fn read_many(&mut self, offset: u64, width: Width, into: &mut [u8]) {
        for unit in into.chunks_exact_mut(width.bytes() as usize) {
            unit.copy_from_slice(&self.read(offset, width).to_le_bytes()[..unit.len()]);
        }
    }

    /// Writes a register again and again, as REP OUTS does. `from` is a whole number of accesses.
    fn write_many(&mut self, offset: u64, width: Width, from: &[u8]) {
        for unit in from.chunks_exact(width.bytes() as usize) {
            self.write(offset, width, unit_value(unit));
        }
    }
}

/// The value of up to 8 bytes.
fn unit_value(unit: &[u8]) -> u64 {
    unit.iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
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

/// Accesses that lead to nothing but what they read, changes of interrupt lines, and writes to
/// memory: no timer runs otherwise than before, and nothing answers elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum QuietAccess {
    /// None can be relied on to be quiet.
    None,
    /// Reads.
    Reads,
    /// Reads and writes.
    All,
}

/// A device about which somebody knows which accesses are quiet.
struct Quiet {
    device: Box<dyn BusDevice>,
    quiet: QuietAccess,
}

/// Declares which accesses to a device are quiet.
pub fn quiet(quiet: QuietAccess, device: Box<dyn BusDevice>) -> Box<dyn BusDevice> {
    Box::new(Quiet { device, quiet })
}

impl BusDevice for Quiet {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        self.device.read(offset, width)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.device.write(offset, width, value);
    }

    fn is_passive(&self) -> bool {
        self.device.is_passive()
    }

    fn quiet(&self) -> QuietAccess {
        self.quiet
    }

    fn read_many(&mut self, offset: u64, width: Width, into: &mut [u8]) {
        self.device.read_many(offset, width, into);
    }

    fn write_many(&mut self, offset: u64, width: Width, from: &[u8]) {
        self.device.write_many(offset, width, from);
    }
}

/// An attached range.
struct Range {
    len: u64,
    quiet: QuietAccess,
    name: String,
    device: Box<dyn BusDevice>,
}

/// Devices by address. Where none is, reads give all ones and writes go nowhere.
#[derive(Default)]
pub struct Bus {
    ranges: BTreeMap<u64, Range>,
    /// There was an access that is not quiet.
    loud: bool,
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
                quiet: device.quiet(),
                name: name.to_string(),
                device,
            },
        );
        Ok(())
    }

    /// Takes the range away that was attached at `start`. Whether there was one.
    pub fn detach(&mut self, start: u64) -> bool {
        self.ranges.remove(&start).is_some()
    }

    /// Reads. Bytes that no device covers read as ones.
    pub fn read(&mut self, addr: u64, width: Width) -> u64 {
        if let Some((offset, device)) = self.find(addr, width, QuietAccess::Reads) {
            return device.read(offset, width) & width.ones();
        }
        let mut value = 0;
        for i in 0..width.bytes() {
            let byte = match self.find(addr.wrapping_add(i), Width::Byte, QuietAccess::Reads) {
                Some((offset, device)) => device.read(offset, Width::Byte) & 0xff,
                None => 0xff,
            };
            value |= byte << (8 * i);
        }
        value
    }

    /// Writes. Bytes that no device covers go nowhere. Whether there was a device.
    pub fn write(&mut self, addr: u64, width: Width, value: u64) -> bool {
        if let Some((offset, device)) = self.find(addr, width, QuietAccess::All) {
            device.write(offset, width, value & width.ones());
            return true;
        }
        let mut any = false;
        for i in 0..width.bytes() {
            if let Some((offset, device)) =
                self.find(addr.wrapping_add(i), Width::Byte, QuietAccess::All)
            {
                device.write(offset, Width::Byte, value >> (8 * i) & 0xff);
                any = true;
            }
        }
        any
    }

    /// Whether there was an access that is not quiet since this was last asked.
    pub fn take_loud(&mut self) -> bool {
        std::mem::take(&mut self.loud)
    }

    /// Whether the address belongs to a device that says [`BusDevice::is_passive`].
    pub fn is_passive(&mut self, addr: u64) -> bool {
        self.find(addr, Width::Byte, QuietAccess::None)
            .is_some_and(|(_, device)| device.is_passive())
    }

    /// Reads one address again and again, as REP INS does. `into` is a whole number of accesses.
    pub fn read_many(&mut self, addr: u64, width: Width, into: &mut [u8]) {
        if let Some((offset, device)) = self.find(addr, width, QuietAccess::Reads) {
            return device.read_many(offset, width, into);
        }
        for unit in into.chunks_exact_mut(width.bytes() as usize) {
            unit.copy_from_slice(&self.read(addr, width).to_le_bytes()[..unit.len()]);
        }
    }

    /// Writes one address again and again, as REP OUTS does.
    pub fn write_many(&mut self, addr: u64, width: Width, from: &[u8]) {
        if let Some((offset, device)) = self.find(addr, width, QuietAccess::All) {
            return device.write_many(offset, width, from);
        }
        for unit in from.chunks_exact(width.bytes() as usize) {
            self.write(addr, width, unit_value(unit));
        }
    }

    /// The device that has the whole access, and where it is there; `kind` is what would have to
    /// be quiet.
    fn find(
        &mut self,
        addr: u64,
        width: Width,
        kind: QuietAccess,
    ) -> Option<(u64, &mut dyn BusDevice)> {
        let (start, range) = self.ranges.range_mut(..=addr).next_back()?;
        let offset = addr - start;
        let inside = offset < range.len && range.len - offset >= width.bytes();
        self.loud |= inside && range.quiet < kind;
        inside.then_some((offset, &mut *range.device))
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
        assert_eq!(bus.read(0x5f, Width::Byte), 0xff, "open bus");
        assert!(!bus.write(0x68, Width::Byte, 1));
    }

    #[test]
    fn accesses_over_an_edge_are_split() {
        let mut bus = bus();
        assert!(bus.write(0x66, Width::Dword, 0x4433_2211));
        assert_eq!(bus.read(0x67, Width::Byte), 0x22);
        assert_eq!(bus.read(0x66, Width::Dword), 0xffff_2211);
        bus.attach(0x68, 8, "next", Box::new(Cells([0x77; 8])))
            .unwrap();
        assert_eq!(bus.read(0x66, Width::Dword), 0x7777_2211);
        assert!(bus.detach(0x60) && !bus.detach(0x61));
        assert_eq!(bus.read(0x66, Width::Dword), 0x7777_ffff);
    }

    #[test]
    fn runs_of_accesses_are_single_accesses_after_each_other() {
        let mut bus = bus();
        bus.write_many(0x66, Width::Word, &[1, 2, 3, 4]);
        let mut got = [0; 6];
        bus.read_many(0x66, Width::Word, &mut got);
        assert_eq!(got, [3, 4, 3, 4, 3, 4]);
        bus.write_many(0x67, Width::Word, &[5, 6, 7, 8]);
        bus.read_many(0x67, Width::Word, &mut got[..2]);
        assert_eq!(got[..4], [7, 0xff, 3, 4], "over the edge");
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
