//! The bus master of one channel (SFF-8038i; PIIX3 datasheet, "Bus Master IDE").
//!
//! It moves data between a drive and the memory that a table of physical region descriptors
//! names. A drive that ends before the table leaves the engine active; a table that ends before
//! the drive stops the engine without an interrupt, and a new table may go on.

use serde::{Deserialize, Serialize};

use super::drive::{Drive, Phase};
use crate::GuestMemory;

/// Registers of a channel.
pub(super) const REGISTERS: u64 = 8;

const START: u8 = 0x01;
/// Towards memory.
const TO_MEMORY: u8 = 0x08;
const ACTIVE: u8 = 0x01;
const ERROR: u8 = 0x02;
const INTERRUPT: u8 = 0x04;
/// Which drives can do DMA: for software to remember.
const CAPABLE: u8 = 0x60;

/// The last descriptor of a table.
const LAST: u32 = 0x8000_0000;
/// What is moved at once.
const PIECE: usize = 4096;
/// A table does not cross a 64 KiB boundary, so it has no more descriptors than this; one without
/// an end would otherwise go around for ever.
const DESCRIPTORS: u32 = 0x2000;

/// The registers, and where the engine is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BusMasterState {
    command: u8,
    status: u8,
    table: u32,
    /// The next descriptor.
    next: u32,
    /// How many descriptors were used.
    used: u32,
    address: u32,
    /// Bytes left in the region.
    bytes: u32,
    last: bool,
}

impl BusMasterState {
    pub fn read(&self, register: u64) -> u8 {
        match register {
            0 => self.command,
            2 => self.status,
            4..8 => self.table.to_le_bytes()[register as usize - 4],
            _ => 0,
        }
    }

    pub fn write(&mut self, register: u64, value: u8) {
        match register {
            0 => {
                let started = value & !self.command & START != 0;
                self.command = value & (START | TO_MEMORY);
                if started {
                    self.status |= ACTIVE;
                    (self.next, self.used) = (self.table, 0);
                    (self.bytes, self.last) = (0, false);
                } else if value & START == 0 {
                    self.status &= !ACTIVE;
                }
            }
            2 => {
                self.status = self.status & !CAPABLE | value & CAPABLE;
                self.status &= !(value & (ERROR | INTERRUPT));
            }
            4..8 => {
                let mut bytes = self.table.to_le_bytes();
                bytes[register as usize - 4] = value;
                self.table = u32::from_le_bytes(bytes) & !3;
            }
            _ => {}
        }
    }

    /// The drive has asked for an interrupt.
    pub fn note_interrupt(&mut self) {
        self.status |= INTERRUPT;
    }

    /// After a reset of the controller.
    pub fn reset(&mut self) {
        *self = BusMasterState::default();
    }

    /// Moves what can be moved.
    pub fn run(&mut self, drive: &mut Drive, memory: &dyn GuestMemory) {
        let mut piece = [0; PIECE];
        while self.status & ACTIVE != 0 && drive.state.is_dma() {
            let to_memory = drive.state.phase == Phase::DmaIn;
            if to_memory != (self.command & TO_MEMORY != 0) {
                // The wrong way round: nobody answers the other's requests.
                return;
            }
            if self.bytes == 0 && !self.next_region(memory) {
                return;
            }
            let at = u64::from(self.address);
            let piece = &mut piece[..PIECE.min(self.bytes as usize)];
            let moved = if to_memory {
                let moved = drive.take(piece);
                memory.write(at, &piece[..moved]);
                moved
            } else {
                memory.read(at, piece);
                drive.put(piece)
            };
            self.address = self.address.wrapping_add(moved as u32);
            self.bytes -= moved as u32;
            if moved == 0 {
                return;
            }
            if !drive.state.is_dma() && self.bytes == 0 && self.last {
                self.status &= !ACTIVE;
            }
        }
    }

    /// Goes to the next region. False if there is none: the engine then stops.
    fn next_region(&mut self, memory: &dyn GuestMemory) -> bool {
        if self.last || self.used == DESCRIPTORS {
            self.status &= !ACTIVE;
            return false;
        }
        let mut descriptor = [0; 8];
        memory.read(self.next.into(), &mut descriptor);
        let descriptor = u64::from_le_bytes(descriptor);
        let (address, length) = (descriptor as u32, (descriptor >> 32) as u32);
        self.next = self.next.wrapping_add(8);
        self.used += 1;
        self.address = address & !1;
        self.bytes = match length & 0xfffe {
            0 => 0x1_0000,
            bytes => bytes,
        };
        self.last = length & LAST != 0;
        true
    }
}
