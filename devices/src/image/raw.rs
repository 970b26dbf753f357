//! A disk or a disc in a file of the host: sector after sector, nothing else.
//!
//! A file that does not end with a whole sector can be read, its last sector filled up with zeros.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

use super::file::HostFile;
use super::{Cache, Doing, Faults, ImageError, ImageOptions, check};
use crate::block::{BlockBackend, BlockError, SECTOR, write_zeros};

/// A medium in a file.
pub struct RawDisk {
    file: HostFile,
    /// What the guest sees of the file.
    len: u64,
    write: bool,
    /// Nobody has said that this is a raw image.
    probed: bool,
    cache: Cache,
    /// Flushing has failed once.
    lost: bool,
    faults: Faults,
}

impl RawDisk {
    /// Opens a file, for reading alone if asked.
    ///
    /// # Errors
    /// If the file cannot be opened so, is empty, or is to be written and no whole number of
    /// sectors.
    pub fn open(path: &Path, read_only: bool) -> Result<RawDisk, ImageError> {
        let options = ImageOptions::default();
        let file = HostFile::open(path, !read_only)?;
        let faults = Faults::new(path, options.report);
        RawDisk::new(file, !read_only, false, options.cache, faults)
    }

    pub(super) fn new(
        file: HostFile,
        write: bool,
        probed: bool,
        cache: Cache,
        faults: Faults,
    ) -> Result<RawDisk, ImageError> {
        if file.len == 0 {
            return Err(file.invalid("the image is empty"));
        }
        if write && !file.len.is_multiple_of(SECTOR as u64) {
            return Err(file.invalid(format!(
                "{} bytes are no whole number of sectors of 512, so the image can only be read",
                file.len
            )));
        }
        Ok(RawDisk {
            len: file.len,
            file,
            write,
            probed,
            cache,
            lost: false,
            faults,
        })
    }

    /// Where a run of sectors begins, if they are all there.
    fn at(&self, lba: u64, sectors: u64) -> Result<u64, BlockError> {
        match lba.checked_add(sectors) {
            Some(end) if end <= self.sectors() => Ok(lba * SECTOR as u64),
            _ => Err(BlockError::Range),
        }
    }

    /// The same, for writing.
    fn writable_at(&mut self, lba: u64, sectors: u64) -> Result<u64, BlockError> {
        if !self.write {
            return Err(BlockError::ReadOnly);
        }
        let at = self.at(lba, sectors)?;
        let looked = self.file.look();
        looked.map_err(|error| self.faults.host(Doing::Writing, &error))?;
        Ok(at)
    }

    fn written(&mut self, result: io::Result<()>) -> Result<(), BlockError> {
        result.map_err(|error| self.faults.host(Doing::Writing, &error))?;
        match self.cache {
            Cache::Writethrough => self.flush(),
            Cache::Writeback | Cache::Unsafe => Ok(()),
        }
    }

    /// Changes how a range is allocated; false if the file system cannot.
    fn allocate(&mut self, at: u64, len: u64, flags: FallocateFlags) -> io::Result<bool> {
        let flags = flags | FallocateFlags::KEEP_SIZE;
        loop {
            return match fallocate(&self.file.file, flags, at, len) {
                Ok(()) => Ok(true),
                Err(rustix::io::Errno::INTR) => continue,
                Err(
                    rustix::io::Errno::OPNOTSUPP
                    | rustix::io::Errno::NOSYS
                    | rustix::io::Errno::INVAL
                    | rustix::io::Errno::NODEV,
                ) => Ok(false),
                Err(error) => Err(error.into()),
            };
        }
    }
}

impl BlockBackend for RawDisk {
    fn sectors(&self) -> u64 {
        self.len.div_ceil(SECTOR as u64)
    }

    fn read_only(&self) -> bool {
        !self.write
    }

    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), BlockError> {
        let at = self.at(lba, (into.len() / SECTOR) as u64)?;
        let there = (self.len - at).min(into.len() as u64) as usize;
        let (into, rest) = into.split_at_mut(there);
        rest.fill(0);
        let read = self.file.file.read_exact_at(into, at);
        read.map_err(|error| {
            // Says how much is missing, if that is why.
            let error = self.file.look().err().unwrap_or(error);
            self.faults.host(Doing::Reading, &error)
        })
    }

    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), BlockError> {
        let at = self.writable_at(lba, (from.len() / SECTOR) as u64)?;
        if self.probed && lba == 0 && from.starts_with(&check::MAGIC) {
            let error = io::Error::other(
                "with this beginning the image would be taken for a qcow2 image next time; \
                 format=raw allows it",
            );
            return Err(self.faults.host(Doing::Writing, &error));
        }
        let result = self.file.file.write_all_at(from, at);
        self.written(result)
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        if !self.write || self.cache == Cache::Unsafe {
            return Ok(());
        }
        let result = if self.lost {
            Err(io::Error::other("an earlier flush has failed"))
        } else {
            self.file.look().and_then(|()| self.file.file.sync_data())
        };
        result.map_err(|error| {
            self.lost = true;
            self.faults.host(Doing::Flushing, &error)
        })
    }

    fn write_zeroes(&mut self, lba: u64, sectors: u64, keep: bool) -> Result<(), BlockError> {
        let at = self.writable_at(lba, sectors)?;
        if sectors == 0 {
            return Ok(());
        }
        let len = sectors * SECTOR as u64;
        let flags = if keep {
            FallocateFlags::ZERO_RANGE
        } else {
            FallocateFlags::PUNCH_HOLE
        };
        match self.allocate(at, len, flags) {
            Ok(false) => write_zeros(lba, sectors, |lba, zeros| self.write(lba, zeros)),
            result => self.written(result.map(|_| ())),
        }
    }

    fn discard(&mut self, lba: u64, sectors: u64) -> Result<(), BlockError> {
        let at = self.writable_at(lba, sectors)?;
        if sectors == 0 {
            return Ok(());
        }
        let len = sectors * SECTOR as u64;
        let result = self.allocate(at, len, FallocateFlags::PUNCH_HOLE);
        self.written(result.map(|_| ()))
    }
}
