//! A split virtqueue (VIRTIO 1.2, section 2.7), with indirect descriptors.
//!
//! The crate `virtio-queue` is not used: it needs guest memory that is mapped and described by the
//! types of `vm-memory`, and here memory is reached through [`GuestMemory`], whose owner hears of
//! every write.

use serde::{Deserialize, Serialize};

use crate::GuestMemory;

/// Most descriptors in a queue.
pub(super) const MOST: u16 = 256;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// In the available ring: the driver wants no interrupt.
const NO_INTERRUPT: u16 = 1;

/// The driver has put something into a queue that makes no sense. The device stops until reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed virtqueue")]
pub struct Malformed;

/// A piece of guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Where it begins.
    pub address: u64,
    /// Its length.
    pub len: u32,
}

/// A request: memory that the device reads, and then memory that it writes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chain {
    head: u16,
    /// What the driver says.
    pub readable: Vec<Piece>,
    /// Room for what the device answers.
    pub writable: Vec<Piece>,
}

/// Bytes in all pieces.
pub fn total(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| u64::from(piece.len)).sum()
}

/// The pieces without their first bytes.
fn skip(pieces: &[Piece], mut bytes: u64) -> impl Iterator<Item = Piece> + '_ {
    pieces.iter().filter_map(move |piece| {
        let skipped = bytes.min(piece.len.into());
        bytes -= skipped;
        let rest = Piece {
            address: piece.address.wrapping_add(skipped),
            len: piece.len - skipped as u32,
        };
        (rest.len > 0).then_some(rest)
    })
}

/// Copies from pieces, from a byte on; how many bytes there were.
pub fn gather(memory: &dyn GuestMemory, pieces: &[Piece], from: u64, into: &mut [u8]) -> usize {
    let mut done = 0;
    for piece in skip(pieces, from) {
        let len = (piece.len as usize).min(into.len() - done);
        memory.read(piece.address, &mut into[done..done + len]);
        done += len;
    }
    done
}

/// Copies into pieces, from a byte on; how many bytes there was room for.
pub fn scatter(memory: &dyn GuestMemory, pieces: &[Piece], at: u64, from: &[u8]) -> usize {
    let mut done = 0;
    for piece in skip(pieces, at) {
        let len = (piece.len as usize).min(from.len() - done);
        memory.write(piece.address, &from[done..done + len]);
        done += len;
    }
    done
}

fn read_u16(memory: &dyn GuestMemory, address: u64) -> u16 {
    let mut bytes = [0; 2];
    memory.read(address, &mut bytes);
    u16::from_le_bytes(bytes)
}

/// The state of a queue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Queue {
    pub size: u16,
    pub enabled: bool,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    /// The MSI-X vector.
    pub vector: u16,
    next_available: u16,
    next_used: u16,
}

impl Queue {
    pub fn new() -> Queue {
        Queue {
            size: MOST,
            enabled: false,
            descriptors: 0,
            available: 0,
            used: 0,
            vector: 0xffff,
            next_available: 0,
            next_used: 0,
        }
    }

    /// Whether the size is one that a queue can have.
    pub fn is_sound(&self) -> bool {
        self.size.is_power_of_two() && self.size <= MOST
    }

    /// The next request, which stays in the queue until [`Queue::done`].
    pub fn peek(&self, memory: &dyn GuestMemory) -> Result<Option<Chain>, Malformed> {
        if !self.enabled {
            return Ok(None);
        }
        if !self.is_sound() {
            return Err(Malformed);
        }
        let index = read_u16(memory, self.available.wrapping_add(2));
        let waiting = index.wrapping_sub(self.next_available);
        if waiting > self.size {
            return Err(Malformed);
        }
        if waiting == 0 {
            return Ok(None);
        }
        let slot = u64::from(self.next_available % self.size);
        let head = read_u16(memory, self.available.wrapping_add(4 + 2 * slot));
        self.chain(memory, head).map(Some)
    }

    fn chain(&self, memory: &dyn GuestMemory, head: u16) -> Result<Chain, Malformed> {
        let mut chain = Chain {
            head,
            ..Chain::default()
        };
        let (mut table, mut size) = (self.descriptors, u32::from(self.size));
        let (mut index, mut indirect) = (head, false);
        // No chain has more descriptors than its table, so one that has goes around.
        let mut left = size;
        loop {
            if u32::from(index) >= size || left == 0 {
                return Err(Malformed);
            }
            left -= 1;
            let mut bytes = [0; 16];
            memory.read(table.wrapping_add(16 * u64::from(index)), &mut bytes);
            let all = u128::from_le_bytes(bytes);
            let (address, len) = (all as u64, (all >> 64) as u32);
            let (flags, next) = ((all >> 96) as u16, (all >> 112) as u16);
            if flags & INDIRECT != 0 {
                // Not within another, and not with a successor.
                let entries = len / 16;
                if indirect || flags & NEXT != 0 || len % 16 != 0 || entries > 0x1_0000 {
                    return Err(Malformed);
                }
                indirect = true;
                (table, size, left, index) = (address, entries, entries.min(1024), 0);
                continue;
            }
            let piece = Piece { address, len };
            if flags & WRITE != 0 {
                chain.writable.push(piece);
            } else if chain.writable.is_empty() {
                chain.readable.push(piece);
            } else {
                return Err(Malformed);
            }
            if flags & NEXT == 0 {
                return Ok(chain);
            }
            index = next;
        }
    }

    /// Gives a request back, with so many bytes written. Whether the driver wants an interrupt.
    pub fn done(&mut self, memory: &dyn GuestMemory, chain: &Chain, written: u32) -> bool {
        self.next_available = self.next_available.wrapping_add(1);
        let slot = u64::from(self.next_used % self.size.max(1));
        let entry = u64::from(chain.head) | u64::from(written) << 32;
        let at = self.used.wrapping_add(4 + 8 * slot);
        memory.write(at, &entry.to_le_bytes());
        self.next_used = self.next_used.wrapping_add(1);
        let at = self.used.wrapping_add(2);
        memory.write(at, &self.next_used.to_le_bytes());
        read_u16(memory, self.available) & NO_INTERRUPT == 0
    }
}
