//! A disk or a disc in a file of the host: sector after sector, nothing else.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::block::{BlockBackend, BlockError, SECTOR};

/// A medium in a file.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    sectors: u64,
    read_only: bool,
    /// An error of the host was reported.
    reported: bool,
    name: String,
}

impl RawDisk {
    /// Opens a file, for reading alone if asked.
    ///
    /// # Errors
    /// If the file cannot be opened so, or is empty or no whole number of sectors.
    pub fn open(path: &Path, read_only: bool) -> io::Result<RawDisk> {
        let file = File::options().read(true).write(!read_only).open(path)?;
        let len = file.metadata()?.len();
        if len == 0 || !len.is_multiple_of(SECTOR as u64) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{len} bytes are no whole number of sectors of 512"),
            ));
        }
        Ok(RawDisk {
            file,
            sectors: len / SECTOR as u64,
            read_only,
            reported: false,
            name: path.display().to_string(),
        })
    }

    /// Where a run of sectors begins, if they are all there.
    fn at(&self, lba: u64, len: usize) -> Result<u64, BlockError> {
        let count = (len / SECTOR) as u64;
        match lba.checked_add(count) {
            Some(end) if end <= self.sectors => Ok(lba * SECTOR as u64),
            _ => Err(BlockError::Range),
        }
    }

    /// The drive's error for one of the host, of which the user hears once.
    fn failed(&mut self, error: &io::Error) -> BlockError {
        let message = format!("{}: {error}", self.name);
        if !std::mem::replace(&mut self.reported, true) {
            eprintln!("{message}");
        }
        BlockError::Host(message)
    }
}

impl BlockBackend for RawDisk {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), BlockError> {
        let at = self.at(lba, into.len())?;
        let done = self.file.read_exact_at(into, at);
        done.map_err(|error| self.failed(&error))
    }

    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), BlockError> {
        if self.read_only {
            return Err(BlockError::ReadOnly);
        }
        let at = self.at(lba, from.len())?;
        let done = self.file.write_all_at(from, at);
        done.map_err(|error| self.failed(&error))
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        let done = self.file.sync_data();
        done.map_err(|error| self.failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, len: usize) -> std::path::PathBuf {
        let name = format!("metaphrase-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, vec![0; len]).expect("a file");
        path
    }

    #[test]
    fn sectors_stay_in_the_file() {
        let path = file("raw", 4 * SECTOR);
        let mut disk = RawDisk::open(&path, false).expect("a disk");
        assert_eq!(disk.sectors(), 4);
        assert_eq!(disk.write(2, &[7; 2 * SECTOR]), Ok(()));
        assert_eq!(disk.flush(), Ok(()));
        let bytes = std::fs::read(&path).expect("the file");
        assert_eq!(bytes[..2 * SECTOR], [0; 2 * SECTOR]);
        assert_eq!(bytes[2 * SECTOR..], [7; 2 * SECTOR]);
        assert_eq!(disk.write(3, &[1; 2 * SECTOR]), Err(BlockError::Range));
        assert_eq!(
            disk.read(u64::MAX, &mut [0; SECTOR]),
            Err(BlockError::Range)
        );
        let mut protected = RawDisk::open(&path, true).expect("a disk");
        assert_eq!(protected.write(0, &[1; SECTOR]), Err(BlockError::ReadOnly));
        assert_eq!(std::fs::read(&path).expect("the file"), bytes);
        std::fs::remove_file(path).expect("removed");
    }

    #[test]
    fn a_torn_image_is_refused() {
        let path = file("torn", SECTOR + 1);
        assert!(RawDisk::open(&path, true).is_err());
        std::fs::remove_file(path).expect("removed");
    }
}
