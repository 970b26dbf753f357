//! What goes where in memory before the first instruction, checked before any of it is written.
//!
//! A loader makes a [`Plan`] out of a kernel, which is untrusted: every part must lie in RAM and
//! touch no other. Only then [`Plan::commit`] writes.

use super::error::BootError;
use crate::memory::PhysMemory;
use std::borrow::Cow;

/// Where memory below 1 MiB ends for loaders: the ACPI tables and the extended BIOS data area follow.
pub const LOW_END: u64 = 0x9_c000;
/// Interrupt vectors and BIOS data area end there.
pub const LOW_START: u64 = 0x1000;
/// Where RAM goes on behind adapters and ROMs.
pub const HIGH_START: u64 = 0x10_0000;

/// A range with what it holds; behind the bytes it is zero, as memory is that nobody has written to.
#[derive(Debug)]
struct Part<'a> {
    start: u64,
    end: u64,
    bytes: Cow<'a, [u8]>,
}

/// The parts, by address. They borrow what they can from the files.
#[derive(Debug)]
pub struct Plan<'a> {
    parts: Vec<Part<'a>>,
    ram: u64,
}

impl<'a> Plan<'a> {
    /// An empty plan for that many bytes of RAM, which begins at address 0.
    pub fn new(ram: u64) -> Plan<'a> {
        Plan {
            parts: Vec::new(),
            ram,
        }
    }

    /// Bytes of RAM.
    pub fn ram(&self) -> u64 {
        self.ram
    }

    /// The end of RAM that loaders may use where that address lies; `None` outside.
    fn end_of_ram(&self, at: u64) -> Option<u64> {
        match at {
            LOW_START..LOW_END => Some(LOW_END.min(self.ram)),
            HIGH_START.. if at < self.ram => Some(self.ram),
            _ => None,
        }
    }

    /// Puts bytes, with zeros up to `len`, at an address.
    ///
    /// # Errors
    /// If that is not in RAM or in the way of another part.
    pub fn put(
        &mut self,
        what: &'static str,
        start: u64,
        bytes: impl Into<Cow<'a, [u8]>>,
        len: u64,
    ) -> Result<(), BootError> {
        let bytes = bytes.into();
        let len = len.max(bytes.len() as u64);
        if len == 0 {
            return Ok(());
        }
        let end = start
            .checked_add(len)
            .filter(|end| self.end_of_ram(start).is_some_and(|ram| *end <= ram))
            .ok_or(BootError::OutsideRam {
                what,
                start,
                len,
                ram: self.ram >> 20,
            })?;
        let n = self.parts.partition_point(|part| part.end <= start);
        if self.parts.get(n).is_some_and(|part| part.start < end) {
            return Err(BootError::Overlap { what, start, len });
        }
        self.parts.insert(n, Part { start, end, bytes });
        Ok(())
    }

    /// Puts bytes at the first place from `from` on that is free and aligned.
    ///
    /// # Errors
    /// If there is none in that stretch of RAM.
    pub fn place(
        &mut self,
        what: &'static str,
        from: u64,
        align: u64,
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Result<u64, BootError> {
        let bytes = bytes.into();
        let len = bytes.len() as u64;
        let mut at = from.next_multiple_of(align);
        for part in &self.parts {
            if part.start < at.saturating_add(len) && part.end > at {
                at = part.end.next_multiple_of(align);
            }
        }
        self.put(what, at, bytes, 0)?;
        Ok(at)
    }

    /// Puts bytes below 1 MiB if they fit there, else above.
    ///
    /// # Errors
    /// If there is no room anywhere.
    pub fn place_anywhere(
        &mut self,
        what: &'static str,
        align: u64,
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Result<u64, BootError> {
        let bytes = bytes.into();
        match self.place(what, LOW_START, align, bytes.clone()) {
            Ok(at) => Ok(at),
            Err(_) => self.place(what, HIGH_START, align, bytes),
        }
    }

    /// Replaces the bytes of the part that begins at an address, by as many.
    pub fn fill(&mut self, at: u64, bytes: Vec<u8>) {
        if let Some(part) = self.parts.iter_mut().find(|part| part.start == at) {
            debug_assert_eq!(part.bytes.len(), bytes.len());
            part.bytes = bytes.into();
        }
    }

    /// Puts bytes, page by page, as high as possible: below `limit` and at or above `floor`.
    ///
    /// # Errors
    /// If there is no room.
    pub fn place_high(
        &mut self,
        what: &'static str,
        floor: u64,
        limit: u64,
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Result<u64, BootError> {
        let bytes = bytes.into();
        const PAGE: u64 = 0x1000;
        let len = bytes.len() as u64;
        let top = limit.min(self.ram);
        match top.checked_sub(len).map(|at| at & !(PAGE - 1)) {
            Some(at) if at >= floor => {
                self.put(what, at, bytes, 0)?;
                Ok(at)
            }
            _ => Err(BootError::NoRoom {
                what,
                len,
                needed: (floor.saturating_add(len).saturating_add(PAGE) >> 20) + 1,
            }),
        }
    }

    /// Whether a part holds that address.
    #[cfg(test)]
    pub fn holds(&self, at: u64) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| (part.start..part.end).contains(&at))
    }

    /// Every part: its address and its bytes.
    pub fn parts(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.parts.iter().map(|part| (part.start, &part.bytes[..]))
    }

    /// Writes all of it.
    pub fn commit(&self, memory: &PhysMemory) {
        for (start, bytes) in self.parts() {
            memory.write_bytes(start, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_in_ram_and_apart() {
        let mut plan = Plan::new(4 << 20);
        assert!(plan.put("a", 0x10_0000, vec![1; 16], 0x1000).is_ok());
        assert!(plan.put("b", 0x10_0fff, vec![1], 0).is_err(), "the zeros");
        assert!(plan.put("b", 0x10_1000, vec![1], 0).is_ok());
        assert!(plan.put("c", 0x0f_ffff, vec![1], 0).is_err(), "a ROM");
        assert!(plan.put("c", 0x9_efff, vec![1, 2], 0).is_err());
        assert!(plan.put("c", 0, vec![1], 0).is_err());
        assert!(plan.put("c", 0x3f_ffff, vec![1, 2], 0).is_err());
        assert!(plan.put("c", u64::MAX, vec![1, 2], 0).is_err());
        assert!(plan.put("c", 0x20_0000, vec![1], u64::MAX).is_err());
        assert!(plan.put("c", 0x3f_ffff, vec![1], 0).is_ok());
        assert!(plan.put("nothing", u64::MAX, vec![], 0).is_ok());
    }

    #[test]
    fn places_are_the_first_or_the_last_that_fit() {
        let mut plan = Plan::new(4 << 20);
        assert!(plan.put("a", 0x11_0000, vec![], 0x1000).is_ok());
        assert_eq!(
            plan.place("b", HIGH_START, 0x1000, vec![0; 0x1_0001]).ok(),
            Some(0x11_1000)
        );
        assert_eq!(
            plan.place("c", HIGH_START, 16, vec![0; 0x1_0000]).ok(),
            Some(0x10_0000)
        );
        assert_eq!(
            plan.place_high("d", 0, u64::MAX, vec![0; 1]).ok(),
            Some(0x3f_f000)
        );
        assert!(
            plan.place_high("e", 0x3f_e001, 0x3f_f000, vec![0; 1])
                .is_err()
        );
        assert_eq!(
            plan.place_anywhere("f", 4, vec![0; 0xa_0000]).ok(),
            Some(0x12_1004)
        );
    }
}
