//! The registers of the I/O APIC: Intel 82093AA (datasheet 290566), 24 inputs. Interrupts leave as
//! [`Message`]s, which the caller delivers.
//!
//! Inputs are driven as "asserted" or not; the polarity bit is kept and means nothing. Left out:
//! the ExtINT mode of an input (the 8259A reaches the processor through its local APIC).

use serde::{Deserialize, Serialize};

use super::Message;

/// Inputs.
pub(super) const INPUTS: usize = 24;

const VERSION: u32 = 0x11 | (INPUTS as u32 - 1) << 16;

const LOGICAL: u64 = 1 << 11;
const REMOTE: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
const READ_ONLY: u64 = 1 << 12 | REMOTE;
const WRITABLE: u64 = 0xff00_0000_0001_afff;

/// The I/O APIC.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Io {
    select: u8,
    id: u8,
    table: [u64; INPUTS],
    lines: u32,
}

impl Io {
    pub(super) fn new() -> Io {
        Io {
            select: 0,
            id: 0,
            table: [MASKED; INPUTS],
            lines: 0,
        }
    }

    /// With the levels that drive another's inputs.
    pub(super) fn with_inputs_of(self, other: &Io) -> Io {
        let lines = other.lines;
        Io { lines, ..self }
    }

    /// Drives an input.
    pub(super) fn set_line(&mut self, input: usize, high: bool) -> Option<Message> {
        let entry = *self.table.get(input)?;
        let bit = 1 << input;
        let rises = high && self.lines & bit == 0;
        self.lines = self.lines & !bit | if high { bit } else { 0 };
        match entry & LEVEL {
            // An edge that finds its input masked is lost.
            0 => (rises && entry & MASKED == 0).then(|| message(entry)),
            _ => self.service(input),
        }
    }

    /// Sends what a level-triggered input asks for, unless it was sent and is not over.
    fn service(&mut self, input: usize) -> Option<Message> {
        let entry = self.table[input];
        let asks = self.lines & 1 << input != 0;
        if !asks || entry & LEVEL == 0 || entry & (MASKED | REMOTE) != 0 {
            return None;
        }
        self.table[input] |= REMOTE;
        Some(message(entry))
    }

    /// The end of a level-triggered interrupt: inputs that still ask do so again.
    pub(super) fn end_of_interrupt(&mut self, vector: u8) -> Vec<Message> {
        let mut again = Vec::new();
        for input in 0..INPUTS {
            let entry = self.table[input];
            if entry as u8 == vector && entry & LEVEL != 0 && entry & REMOTE != 0 {
                self.table[input] &= !REMOTE;
                again.extend(self.service(input));
            }
        }
        again
    }

    /// Reads at an offset in the memory range.
    pub(super) fn read(&self, offset: u64) -> u32 {
        match offset {
            0x00 => u32::from(self.select),
            0x10 => match self.select {
                0 | 2 => u32::from(self.id) << 24,
                1 => VERSION,
                select => match self.table.get(entry_of(select)) {
                    Some(entry) => (entry >> (32 * (select & 1))) as u32,
                    None => 0,
                },
            },
            _ => 0,
        }
    }

    /// Writes at an offset in the memory range.
    pub(super) fn write(&mut self, offset: u64, value: u32) -> Option<Message> {
        match (offset, self.select) {
            (0x00, _) => self.select = value as u8,
            (0x10, 0) => self.id = (value >> 24) as u8 & 0x0f,
            (0x10, select @ 0x10..) => {
                let input = entry_of(select);
                let entry = self.table.get_mut(input)?;
                let shift = 32 * (select & 1);
                let mask = (u64::from(u32::MAX) << shift) & WRITABLE;
                *entry = *entry & !mask | u64::from(value) << shift & mask;
                if *entry & LEVEL == 0 {
                    // As an edge, it waits for no end.
                    *entry &= !READ_ONLY;
                }
                return self.service(input);
            }
            _ => {}
        }
        None
    }
}

/// The table entry that a register belongs to; too large where there is none.
fn entry_of(select: u8) -> usize {
    usize::from(select.wrapping_sub(0x10) >> 1)
}

fn message(entry: u64) -> Message {
    Message {
        vector: entry as u8,
        mode: (entry >> 8 & 7) as u8,
        destination: (entry >> 56) as u8,
        logical: entry & LOGICAL != 0,
        level: entry & LEVEL != 0,
    }
}
