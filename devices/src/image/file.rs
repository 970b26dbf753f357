//! A file of the host that an image is in: what may be opened, the lock, the length.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{Format, ImageError, check};

/// An open, locked file.
pub(super) struct HostFile {
    pub file: File,
    pub path: PathBuf,
    /// Its length. Of an image that grows, what it was last.
    pub len: u64,
    /// Device and inode.
    pub id: (u64, u64),
    regular: bool,
}

/// What a file is not when it is no image; opening a pipe would wait for ever.
fn usable(kind: std::fs::FileType) -> Result<(), &'static str> {
    if kind.is_file() || kind.is_block_device() {
        Ok(())
    } else if kind.is_dir() {
        Err("is a directory")
    } else {
        Err("is neither a file nor a block device")
    }
}

impl HostFile {
    /// Opens a file and locks it: for us alone if it is to be written, else against writers.
    ///
    /// # Errors
    /// If it is no file, cannot be opened so, or is in use.
    pub fn open(path: &Path, write: bool) -> Result<HostFile, ImageError> {
        let host = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => ImageError::NotFound(path.into()),
            _ => ImageError::Host(path.into(), error),
        };
        let invalid = |why: &str| ImageError::Invalid(path.into(), why.into());
        usable(std::fs::metadata(path).map_err(host)?.file_type()).map_err(invalid)?;
        let opened = File::options().read(true).write(write).open(path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if write && File::open(path).is_ok() => {
                return Err(ImageError::NotWritable(path.into(), error));
            }
            Err(error) => return Err(host(error)),
        };
        // The path may be another file by now.
        let metadata = file.metadata().map_err(host)?;
        usable(metadata.file_type()).map_err(invalid)?;
        lock(&file, write).map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => ImageError::InUse(path.into(), write),
            std::fs::TryLockError::Error(error) => host(error),
        })?;
        let len = file.seek(SeekFrom::End(0)).map_err(host)?;
        Ok(HostFile {
            file,
            path: path.into(),
            len,
            id: (metadata.dev(), metadata.ino()),
            regular: metadata.is_file(),
        })
    }

    /// What format the file seems to have.
    pub fn probe(&self) -> Result<Format, ImageError> {
        let mut start = [0; 4];
        if self.len >= 4 {
            let read = self.file.read_exact_at(&mut start, 0);
            read.map_err(|error| ImageError::Host(self.path.clone(), error))?;
        }
        Ok(if start == check::MAGIC {
            Format::Qcow2
        } else {
            Format::Raw
        })
    }

    /// An error about the contents.
    pub fn invalid(&self, why: impl Into<String>) -> ImageError {
        ImageError::Invalid(self.path.clone(), why.into())
    }

    /// Remembers how long the file has become.
    ///
    /// # Errors
    /// If it has become shorter: then somebody else has truncated it.
    pub fn look(&mut self) -> io::Result<()> {
        if !self.regular {
            return Ok(());
        }
        let len = self.file.metadata()?.len();
        if len < self.len {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "{} was truncated from {} to {len} bytes while the machine runs",
                    self.path.display(),
                    self.len
                ),
            ));
        }
        self.len = len;
        Ok(())
    }
}

/// Locks a file. File systems that cannot lock do without.
fn lock(file: &File, write: bool) -> Result<(), std::fs::TryLockError> {
    let result = if write {
        file.try_lock()
    } else {
        file.try_lock_shared()
    };
    match result {
        Err(std::fs::TryLockError::Error(error))
            if matches!(
                error.kind(),
                io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(())
        }
        result => result,
    }
}
