//! A disk in a qcow2 image, with backing files that are only read. The work is done by the library
//! `imago`; the image has been checked before it gets it (`check.rs`).
//!
//! A flush writes what the library holds of the tables, reference counts first, and then waits for
//! the disk of the host: so a machine that is killed loses nothing that it had flushed, and leaves an
//! image whose tables agree. (The two kinds of tables are not kept apart by a wait of their own. If
//! the host loses its power between them, clusters may be in use that are not counted; such an image
//! is refused afterwards, and `qemu-img check -r all` repairs it.)

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, FormatDriverBuilder,
    StorageOpenOptions,
};

use super::file::HostFile;
use super::{Cache, Doing, Faults, Format, ImageError, check};
use crate::block::{BlockBackend, BlockError, SECTOR, write_zeros};

/// Most files behind one another.
const MOST_FILES: usize = 64;

/// A medium in a qcow2 image.
pub struct Qcow2Disk {
    image: FormatAccess<Storage>,
    /// The image, its backing file, and so on.
    files: Vec<HostFile>,
    size: u64,
    write: bool,
    cache: Cache,
    /// Flushing has failed once.
    lost: bool,
    faults: Faults,
}

impl Qcow2Disk {
    pub(super) fn new(
        file: HostFile,
        write: bool,
        cache: Cache,
        faults: Faults,
    ) -> Result<Qcow2Disk, ImageError> {
        let mut files = Vec::new();
        let image = qcow2(file, write, &mut files)?;
        Ok(Qcow2Disk {
            size: image.size(),
            image,
            files,
            write,
            cache,
            lost: false,
            faults,
        })
    }

    /// Where a run of sectors begins, if they are all there and no file was truncated.
    fn at(&mut self, lba: u64, sectors: u64, doing: Doing) -> Result<u64, BlockError> {
        if doing == Doing::Writing && !self.write {
            return Err(BlockError::ReadOnly);
        }
        if lba
            .checked_add(sectors)
            .is_none_or(|end| end > self.sectors())
        {
            return Err(BlockError::Range);
        }
        self.done(doing, Ok(()))?;
        Ok(lba * SECTOR as u64)
    }

    /// What the library said, unless a file was truncated: it takes what is missing for zeros.
    fn done(&mut self, doing: Doing, result: io::Result<()>) -> Result<(), BlockError> {
        let looked = self.files.iter_mut().try_for_each(HostFile::look);
        let result = looked.and(result);
        result.map_err(|error| self.faults.host(doing, &error))
    }

    fn written(&mut self, result: io::Result<()>) -> Result<(), BlockError> {
        self.done(Doing::Writing, result)?;
        match self.cache {
            Cache::Writethrough => self.flush(),
            Cache::Writeback | Cache::Unsafe => Ok(()),
        }
    }
}

/// Opens a qcow2 image and what is behind it.
fn qcow2(
    file: HostFile,
    write: bool,
    files: &mut Vec<HostFile>,
) -> Result<FormatAccess<Storage>, ImageError> {
    if files.iter().any(|other| other.id == file.id) {
        return Err(file.invalid("the image is its own backing file"));
    }
    if files.len() >= MOST_FILES {
        return Err(file.invalid("too many backing files"));
    }
    let header = check::header(&file).map_err(|why| file.invalid(why))?;
    check::tables(&file, &header, write)
        .map_err(|why| file.invalid(format!("the image is corrupt: {why}")))?;
    let (path, storage) = (file.path.clone(), storage(&file, write)?);
    files.push(file);
    let backing = match header.backing {
        Some((name, format)) => Some(backing(&path, &name, format.as_deref(), files)?),
        None => None,
    };
    let image = Qcow2::<Storage>::builder(storage)
        .write(write)
        .backing(backing)
        .data_file(None)
        .open(DenyImplicitOpenGate::default())
        .map_err(|error| ImageError::Invalid(path, error.to_string()))?;
    Ok(FormatAccess::new(image))
}

/// The library's view of a file. It shares our lock.
fn storage(file: &HostFile, write: bool) -> Result<Storage, ImageError> {
    let host = |error| ImageError::Host(file.path.clone(), error);
    let copy = file.file.try_clone().map_err(host)?;
    let options = StorageOpenOptions::new().write(write);
    Storage::from_open_file(copy, options).map_err(host)
}

/// Opens a backing file.
fn backing(
    of: &Path,
    name: &str,
    format: Option<&str>,
    files: &mut Vec<HostFile>,
) -> Result<FormatAccess<Storage>, ImageError> {
    let because = |why: String| ImageError::Invalid(of.into(), format!("backing file: {why}"));
    let path = backing_path(of, name).map_err(because)?;
    let file = HostFile::open(&path, false).map_err(|error| because(error.to_string()))?;
    let format = match format {
        None => file.probe()?,
        Some("file" | "host_device") => Format::Raw,
        Some(format) => format.parse().map_err(because)?,
    };
    match format {
        Format::Qcow2 => qcow2(file, false, files).map_err(|error| because(error.to_string())),
        Format::Raw => {
            let storage = storage(&file, false)?;
            files.push(file);
            Raw::builder(storage)
                .open(DenyImplicitOpenGate::default())
                .map(FormatAccess::new)
                .map_err(|error| because(format!("{}: {error}", path.display())))
        }
    }
}

/// Where a backing file is: names are relative to the image.
fn backing_path(of: &Path, name: &str) -> Result<PathBuf, String> {
    let name = name.strip_prefix("file:").unwrap_or(name);
    // What a colon before the first slash follows is no file but a protocol.
    let start = name.split('/').next().unwrap_or_default();
    if start.contains(':') {
        return Err(format!("{name} is no file"));
    }
    Ok(of.parent().unwrap_or(Path::new("")).join(name))
}

/// Makes an empty qcow2 image for a disk of so many bytes, perhaps with a backing file.
///
/// # Errors
/// If there is such a file already, the size is none, or the host fails.
pub fn create(path: &Path, size: u64, backing: Option<(&str, Format)>) -> Result<(), ImageError> {
    let host = |error: io::Error| ImageError::Host(path.into(), error);
    if size == 0 || !size.is_multiple_of(SECTOR as u64) || size > 1 << 55 {
        let why = format!("a disk of {size} bytes is not possible");
        return Err(ImageError::Invalid(path.into(), why));
    }
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(host)?;
    let options = StorageOpenOptions::new().write(true);
    let storage = Storage::from_open_file(file, options).map_err(host)?;
    let mut builder = Qcow2::<Storage>::create_builder(storage).size(size);
    if let Some((name, format)) = backing {
        builder = builder.backing(name.into(), format.to_string());
    }
    builder.create().map_err(host)
}

impl BlockBackend for Qcow2Disk {
    fn sectors(&self) -> u64 {
        self.size / SECTOR as u64
    }

    fn read_only(&self) -> bool {
        !self.write
    }

    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), BlockError> {
        let at = self.at(lba, (into.len() / SECTOR) as u64, Doing::Reading)?;
        let result = self.image.read(into, at);
        self.done(Doing::Reading, result)
    }

    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), BlockError> {
        let at = self.at(lba, (from.len() / SECTOR) as u64, Doing::Writing)?;
        let result = self.image.write(from, at);
        self.written(result)
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        if !self.write || self.cache == Cache::Unsafe {
            return Ok(());
        }
        if self.lost {
            let error = io::Error::other("an earlier flush has failed");
            return Err(self.faults.host(Doing::Flushing, &error));
        }
        // What cannot be written of the tables stays in memory, and can be tried again.
        let result = self.image.flush();
        self.done(Doing::Flushing, result)?;
        let result = self.image.sync();
        self.lost = result.is_err();
        self.done(Doing::Flushing, result)
    }

    fn write_zeroes(&mut self, lba: u64, sectors: u64, keep: bool) -> Result<(), BlockError> {
        let at = self.at(lba, sectors, Doing::Writing)?;
        let len = sectors * SECTOR as u64;
        let result = if keep {
            self.image.write_zeroes(at, len)
        } else {
            self.image.discard_to_zero(at, len)
        };
        match result {
            // Version 2 of the format knows no clusters of zeros.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                write_zeros(lba, sectors, |lba, zeros| self.write(lba, zeros))
            }
            result => self.written(result),
        }
    }

    fn discard(&mut self, lba: u64, sectors: u64) -> Result<(), BlockError> {
        let at = self.at(lba, sectors, Doing::Writing)?;
        let result = self.image.discard_to_any(at, sectors * SECTOR as u64);
        let result = match result {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            result => result,
        };
        self.written(result)
    }
}
