//! Disks in files of the host: raw images and qcow2 images, with their backing files.
//!
//! [`open`] gives a [`BlockBackend`]. What it does for every format: the file is locked, so that two
//! machines do not write one image; a file that has been truncated behind our back, a full disk and
//! every other error of the host become [`BlockError::Host`], of which the user hears once through
//! [`ImageOptions::report`]; and after a flush has failed no flush succeeds any more, because the
//! host forgets what it could not write.
//!
//! A format that is not given is found by looking: what begins as a qcow2 image does is one, and
//! everything else is raw. A guest whose raw image was found so must not turn it into a qcow2 image,
//! which at the next start could name any file of the host as its backing file; so it cannot write
//! such a beginning. `docs/disks.md` has the whole picture.

mod check;
mod file;
mod overlay;
mod qcow2;
mod raw;
#[cfg(test)]
mod tests;

pub use check::info;
pub use overlay::Overlay;
pub use qcow2::{Qcow2Disk, create as create_qcow2};
pub use raw::RawDisk;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::block::{BlockBackend, BlockError};
use file::HostFile;

/// How a file holds the sectors of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// One after the other.
    Raw,
    /// QEMU's format, version 2 or 3.
    Qcow2,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        match text {
            "raw" => Ok(Format::Raw),
            "qcow2" => Ok(Format::Qcow2),
            _ => Err(format!("the formats are raw and qcow2, not {text}")),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
        })
    }
}

/// When what a guest writes has to be on the disk of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Cache {
    /// When it flushes.
    #[default]
    Writeback,
    /// With each write.
    Writethrough,
    /// When the host sees fit: flushes do nothing.
    Unsafe,
}

/// Hears of errors of the host.
pub type Report = Arc<dyn Fn(&str) + Send + Sync>;

/// How to open an image.
#[derive(Clone)]
pub struct ImageOptions {
    /// The format, if it is known.
    pub format: Option<Format>,
    /// The guest must not write.
    pub read_only: bool,
    /// What the guest writes goes to a temporary file in this directory, and is gone at the end.
    pub snapshot: Option<PathBuf>,
    /// When writes have to be on disk.
    pub cache: Cache,
    /// Hears of errors of the host.
    pub report: Report,
}

impl Default for ImageOptions {
    fn default() -> ImageOptions {
        ImageOptions {
            format: None,
            read_only: false,
            snapshot: None,
            cache: Cache::Writeback,
            report: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for ImageOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageOptions")
            .field("format", &self.format)
            .field("read_only", &self.read_only)
            .field("snapshot", &self.snapshot)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no such file.
    #[error("{}: there is no such file", .0.display())]
    NotFound(PathBuf),
    /// The host does not let us.
    #[error("{}: {}", .0.display(), .1)]
    Host(PathBuf, io::Error),
    /// The file can be read but not written.
    #[error("{}: the file cannot be written: {}", .0.display(), .1)]
    NotWritable(PathBuf, io::Error),
    /// Another machine uses it.
    #[error("{}: the image is in use{}", .0.display(), if *.1 { "" } else { " by a machine that writes it" })]
    InUse(PathBuf, bool),
    /// Its contents make no sense, or are of a kind that is not supported.
    #[error("{}: {}", .0.display(), .1)]
    Invalid(PathBuf, String),
}

impl ImageError {
    /// What the user could do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            ImageError::NotWritable(..) => Some(
                "open it with readonly=on, or keep what the guest writes in a temporary file \
                 with -snapshot",
            ),
            ImageError::InUse(_, true) => Some("end the machine that uses it, or make a copy"),
            _ => None,
        }
    }

    /// Whether it is that there is no such file.
    pub fn is_not_found(&self) -> bool {
        matches!(self, ImageError::NotFound(_))
    }
}

/// Opens an image.
///
/// # Errors
/// If the file cannot be used as asked. Nothing has been written to it then.
pub fn open(path: &Path, options: &ImageOptions) -> Result<Box<dyn BlockBackend>, ImageError> {
    let write = !options.read_only && options.snapshot.is_none();
    let file = HostFile::open(path, write)?;
    let probed = options.format.is_none();
    let format = match options.format {
        Some(format) => format,
        None => file.probe()?,
    };
    let faults = Faults::new(path, Arc::clone(&options.report));
    let disk: Box<dyn BlockBackend> = match format {
        Format::Raw => Box::new(RawDisk::new(file, write, probed, options.cache, faults)?),
        Format::Qcow2 => Box::new(Qcow2Disk::new(file, write, options.cache, faults)?),
    };
    match &options.snapshot {
        Some(directory) if !options.read_only => {
            let faults = Faults::new(directory, Arc::clone(&options.report));
            Ok(Box::new(Overlay::new(disk, directory, faults)?))
        }
        _ => Ok(disk),
    }
}

/// What the host was doing when it failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Doing {
    Reading,
    Writing,
    Flushing,
}

/// Makes errors of a drive from errors of the host, and tells the user about the first of a kind.
struct Faults {
    name: String,
    report: Report,
    told: [bool; 3],
}

impl Faults {
    fn new(path: &Path, report: Report) -> Faults {
        Faults {
            name: path.display().to_string(),
            report,
            told: [false; 3],
        }
    }

    fn host(&mut self, doing: Doing, error: &io::Error) -> BlockError {
        let what = match doing {
            Doing::Reading => "cannot be read",
            Doing::Writing => "cannot be written",
            Doing::Flushing => "cannot be flushed to disk",
        };
        let message = format!("{}: {what}: {error}", self.name);
        if !std::mem::replace(&mut self.told[doing as usize], true) {
            (self.report)(&format!(
                "{message}; the guest sees errors of its disk, and more of this kind are not \
                 reported"
            ));
        }
        BlockError::Host(message)
    }
}
