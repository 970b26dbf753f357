//! What disk controllers store their sectors in.
//!
//! A backend counts in sectors of 512 bytes, whatever the medium's own blocks are. The controller
//! has checked the range when it calls; a backend that is asked for more answers with an error all
//! the same. Errors of the host become errors of the drive, and it is the backend that tells the
//! user about them.

use std::sync::{Arc, Mutex, PoisonError};

/// Bytes in a sector.
pub const SECTOR: usize = 512;

/// Why sectors could not be read or written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BlockError {
    /// Not all of them are on the medium.
    #[error("beyond the end of the medium")]
    Range,
    /// The medium cannot be written.
    #[error("the medium is write-protected")]
    ReadOnly,
    /// The host could not do it.
    #[error("{0}")]
    Host(String),
}

/// A medium. Buffers are whole sectors.
pub trait BlockBackend: Send {
    /// How many sectors there are.
    fn sectors(&self) -> u64;

    /// Whether writes are refused.
    fn read_only(&self) -> bool {
        false
    }

    /// Reads sectors from `lba` on.
    ///
    /// # Errors
    /// If they are not there or the host fails; `into` then holds anything.
    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), BlockError>;

    /// Writes sectors from `lba` on.
    ///
    /// # Errors
    /// If they are not there, may not be written, or the host fails.
    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), BlockError>;

    /// Returns when all that was written will survive a crash of the host.
    ///
    /// # Errors
    /// If the host fails.
    fn flush(&mut self) -> Result<(), BlockError>;

    /// Lets sectors read as zeros, at best without storing any. With `keep`, room for them stays
    /// reserved if the medium can do that.
    ///
    /// # Errors
    /// As for [`BlockBackend::write`].
    fn write_zeroes(&mut self, lba: u64, sectors: u64, _keep: bool) -> Result<(), BlockError> {
        write_zeros(lba, sectors, |at, zeros| self.write(at, zeros))
    }

    /// Gives up what sectors hold; they read as anything afterwards. A medium need not do
    /// anything.
    ///
    /// # Errors
    /// As for [`BlockBackend::write`].
    fn discard(&mut self, _lba: u64, _sectors: u64) -> Result<(), BlockError> {
        Ok(())
    }
}

/// Writes zeros piece by piece.
pub(crate) fn write_zeros(
    lba: u64,
    sectors: u64,
    mut write: impl FnMut(u64, &[u8]) -> Result<(), BlockError>,
) -> Result<(), BlockError> {
    const PIECE: u64 = 2048;
    let zeros = vec![0; sectors.min(PIECE) as usize * SECTOR];
    let mut done = 0;
    while done < sectors {
        let piece = (sectors - done).min(PIECE);
        let at = lba.checked_add(done).ok_or(BlockError::Range)?;
        write(at, &zeros[..piece as usize * SECTOR])?;
        done += piece;
    }
    Ok(())
}

/// A medium in memory. Clones are the same medium.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    bytes: Arc<Mutex<Vec<u8>>>,
    read_only: bool,
}

impl MemoryDisk {
    /// A medium with these contents, filled up with zeros to a whole sector.
    pub fn new(mut bytes: Vec<u8>) -> MemoryDisk {
        bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
        MemoryDisk {
            bytes: Arc::new(Mutex::new(bytes)),
            read_only: false,
        }
    }

    /// The same medium, for a drive that cannot write it.
    pub fn write_protected(&self) -> MemoryDisk {
        MemoryDisk {
            bytes: Arc::clone(&self.bytes),
            read_only: true,
        }
    }

    /// A copy of the contents.
    pub fn contents(&self) -> Vec<u8> {
        self.with(|bytes| bytes.clone())
    }

    fn with<R>(&self, f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        f(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The bytes of a run of sectors, if a medium of `all` bytes has them.
fn range(lba: u64, len: usize, all: usize) -> Result<std::ops::Range<usize>, BlockError> {
    let start = usize::try_from(lba)
        .ok()
        .and_then(|n| n.checked_mul(SECTOR));
    start
        .and_then(|start| Some(start..start.checked_add(len)?))
        .filter(|range| range.end <= all)
        .ok_or(BlockError::Range)
}

impl BlockBackend for MemoryDisk {
    fn sectors(&self) -> u64 {
        self.with(|bytes| (bytes.len() / SECTOR) as u64)
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), BlockError> {
        self.with(|bytes| {
            let range = range(lba, into.len(), bytes.len())?;
            into.copy_from_slice(&bytes[range]);
            Ok(())
        })
    }

    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), BlockError> {
        if self.read_only {
            return Err(BlockError::ReadOnly);
        }
        self.with(|bytes| {
            let range = range(lba, from.len(), bytes.len())?;
            bytes[range].copy_from_slice(from);
            Ok(())
        })
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_of_a_memory_disk() {
        let mut disk = MemoryDisk::new(vec![7; 700]);
        assert_eq!(disk.sectors(), 2);
        disk.write(1, &[9; 512]).unwrap();
        let mut all = [0; 1024];
        disk.read(0, &mut all).unwrap();
        assert_eq!((all[511], all[512]), (7, 9));
        assert_eq!(disk.read(1, &mut all), Err(BlockError::Range));
        assert_eq!(disk.write(u64::MAX, &all), Err(BlockError::Range));
        let mut protected = disk.write_protected();
        assert_eq!(protected.write(0, &all), Err(BlockError::ReadOnly));
        assert_eq!(protected.contents(), all);
    }
}
