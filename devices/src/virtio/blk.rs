//! The block device (VIRTIO 1.2, section 5.2): one queue, reads, writes, flushes, its name, and
//! sectors that are given up or become zeros.
//!
//! A driver that does not negotiate flushing gets every write flushed before it is told.

use super::{Chain, Context, Malformed, Served, VirtioDevice, gather, scatter, total};
use crate::block::{BlockBackend, BlockError, SECTOR};

const FEATURE_SEGMENTS: u64 = 1 << 2;
const FEATURE_READ_ONLY: u64 = 1 << 5;
const FEATURE_BLOCK_SIZE: u64 = 1 << 6;
const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_DISCARD: u64 = 1 << 13;
const FEATURE_WRITE_ZEROES: u64 = 1 << 14;

const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

/// Bytes of a request's header, and of the name.
const HEADER: u64 = 16;
const NAME: usize = 20;
/// What is moved at once.
const PIECE: u64 = 0x1_0000;
/// Bytes that describe a range to be discarded or zeroed: first sector, how many, flags.
const RANGE: u64 = 16;
/// Most of them in a request, and most sectors in one.
const RANGES: u32 = 64;
const RANGE_SECTORS: u32 = 1 << 22;
/// The only flag: room need not stay reserved.
const UNMAP: u32 = 1;
/// Data segments of a request: all descriptors but header and status.
const SEGMENTS: u32 = super::queue::MOST as u32 - 2;

/// The device.
pub struct Blk {
    disk: Box<dyn BlockBackend>,
    name: [u8; NAME],
}

impl Blk {
    /// A device for a medium. Of the name, 20 bytes are shown.
    pub fn new(disk: Box<dyn BlockBackend>, name: &str) -> Blk {
        let mut bytes = name.bytes();
        Blk {
            disk,
            name: std::array::from_fn(|_| bytes.next().unwrap_or(0)),
        }
    }

    /// Moves data for a request; how many bytes were written to memory.
    fn transfer(
        &mut self,
        kind: u32,
        sector: u64,
        chain: &Chain,
        cx: &Context<'_>,
    ) -> Result<u64, BlockError> {
        let len = match kind {
            READ => total(&chain.writable) - 1,
            _ => total(&chain.readable) - HEADER,
        };
        let all = self.disk.sectors();
        let end = sector.checked_add(len / SECTOR as u64);
        if len % SECTOR as u64 != 0 || end.is_none_or(|end| end > all) {
            return Err(BlockError::Range);
        }
        if kind == WRITE && self.disk.read_only() {
            return Err(BlockError::ReadOnly);
        }
        let (mut at, mut buffer) = (0, vec![0; len.min(PIECE) as usize]);
        while at < len {
            let piece = &mut buffer[..(len - at).min(PIECE) as usize];
            let lba = sector + at / SECTOR as u64;
            if kind == READ {
                self.disk.read(lba, piece)?;
                scatter(cx.memory, &chain.writable, at, piece);
            } else {
                gather(cx.memory, &chain.readable, HEADER + at, piece);
                self.disk.write(lba, piece)?;
            }
            at += piece.len() as u64;
        }
        if kind == WRITE && cx.features & FEATURE_FLUSH == 0 {
            self.disk.flush()?;
        }
        Ok(if kind == READ { len } else { 0 })
    }

    /// Discards or zeroes ranges. `None` for a request that is not supported.
    fn ranges(
        &mut self,
        kind: u32,
        chain: &Chain,
        cx: &Context<'_>,
    ) -> Option<Result<(), BlockError>> {
        let len = total(&chain.readable) - HEADER;
        if len == 0 || !len.is_multiple_of(RANGE) || len / RANGE > RANGES.into() {
            return Some(Err(BlockError::Range));
        }
        let mut ranges = Vec::new();
        for i in 0..len / RANGE {
            let mut range = [0; RANGE as usize];
            gather(cx.memory, &chain.readable, HEADER + i * RANGE, &mut range);
            let range = u128::from_le_bytes(range);
            let (sector, sectors) = (range as u64, (range >> 64) as u32);
            let flags = (range >> 96) as u32;
            if flags & !UNMAP != 0 || kind == DISCARD && flags != 0 {
                return None;
            }
            let end = sector.checked_add(sectors.into());
            if sectors > RANGE_SECTORS || end.is_none_or(|end| end > self.disk.sectors()) {
                return Some(Err(BlockError::Range));
            }
            ranges.push((sector, u64::from(sectors), flags & UNMAP == 0));
        }
        if self.disk.read_only() {
            return Some(Err(BlockError::ReadOnly));
        }
        let mut done = ranges
            .into_iter()
            .try_for_each(|(sector, sectors, keep)| match kind {
                DISCARD => self.disk.discard(sector, sectors),
                _ => self.disk.write_zeroes(sector, sectors, keep),
            });
        if done.is_ok() && cx.features & FEATURE_FLUSH == 0 {
            done = self.disk.flush();
        }
        Some(done)
    }
}

impl VirtioDevice for Blk {
    fn kind(&self) -> u16 {
        2
    }

    fn class(&self) -> u32 {
        0x01_0000
    }

    fn features(&self) -> u64 {
        let read_only = if self.disk.read_only() {
            FEATURE_READ_ONLY
        } else {
            0
        };
        let ranges = FEATURE_DISCARD | FEATURE_WRITE_ZEROES;
        FEATURE_SEGMENTS | FEATURE_BLOCK_SIZE | FEATURE_FLUSH | ranges | read_only
    }

    fn queues(&self) -> usize {
        1
    }

    fn config(&self) -> Vec<u8> {
        let mut config = vec![0; 60];
        config[..8].copy_from_slice(&self.disk.sectors().to_le_bytes());
        config[12..16].copy_from_slice(&SEGMENTS.to_le_bytes());
        let rest = [
            (20, SECTOR as u32),
            // Discarding: most sectors, most ranges, alignment in sectors. Then the same for zeros,
            // which may unmap.
            (36, RANGE_SECTORS),
            (40, RANGES),
            (44, 128),
            (48, RANGE_SECTORS),
            (52, RANGES),
            (56, 1),
        ];
        for (at, value) in rest {
            config[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        config
    }

    fn serve(&mut self, _: usize, chain: &Chain, cx: &Context<'_>) -> Result<Served, Malformed> {
        let mut header = [0; HEADER as usize];
        let room = total(&chain.writable);
        if gather(cx.memory, &chain.readable, 0, &mut header) < header.len() || room == 0 {
            return Err(Malformed);
        }
        let header = u128::from_le_bytes(header);
        let (kind, sector) = (header as u32, (header >> 64) as u64);
        let unsupported = || {
            scatter(cx.memory, &chain.writable, room - 1, &[UNSUPPORTED]);
            Served::Done(1)
        };
        let result = match kind {
            READ | WRITE => self.transfer(kind, sector, chain, cx),
            FLUSH => self.disk.flush().map(|()| 0),
            GET_ID => {
                let len = (room - 1).min(NAME as u64);
                scatter(cx.memory, &chain.writable, 0, &self.name[..len as usize]);
                Ok(len)
            }
            DISCARD | WRITE_ZEROES => match self.ranges(kind, chain, cx) {
                Some(result) => result.map(|()| 0),
                None => return Ok(unsupported()),
            },
            _ => return Ok(unsupported()),
        };
        let (written, status) = match result {
            Ok(written) => (written, OK),
            Err(_) => (0, IO_ERROR),
        };
        // The status is the last byte, whatever comes before it.
        scatter(cx.memory, &chain.writable, room - 1, &[status]);
        Ok(Served::Done((written + 1).min(u32::MAX.into()) as u32))
    }
}
