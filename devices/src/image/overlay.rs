//! A disk whose image is never written: what the guest writes goes to a temporary file that has no
//! name and is gone with the machine.
//!
//! The temporary file grows by slots of 64 sectors in the order in which they are first written; a
//! slot knows which of its sectors it has.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Doing, Faults, ImageError};
use crate::block::{BlockBackend, BlockError, SECTOR};

/// Sectors in a slot.
const SLOT: u64 = 64;

/// Where sectors that were written are.
struct Slot {
    /// Its place in the temporary file.
    number: u64,
    /// Which sectors it has.
    present: u64,
}

/// A medium with changes that do not stay.
pub struct Overlay {
    base: Box<dyn BlockBackend>,
    changes: File,
    slots: HashMap<u64, Slot>,
    faults: Faults,
}

/// A run of sectors in one slot, all of them changed or all of them not.
struct Run {
    first: u64,
    sectors: u64,
    slot: Option<u64>,
}

impl Overlay {
    /// Changes over a medium, in a new temporary file in a directory.
    pub(super) fn new(
        base: Box<dyn BlockBackend>,
        directory: &Path,
        faults: Faults,
    ) -> Result<Overlay, ImageError> {
        let changes = temporary(directory)
            .map_err(|error| ImageError::Host(directory.to_path_buf(), error))?;
        Ok(Overlay {
            base,
            changes,
            slots: HashMap::new(),
            faults,
        })
    }

    fn check(&self, lba: u64, sectors: u64) -> Result<(), BlockError> {
        match lba.checked_add(sectors) {
            Some(end) if end <= self.base.sectors() => Ok(()),
            _ => Err(BlockError::Range),
        }
    }

    /// The longest run from a sector on that ends before `end`.
    fn run(&self, first: u64, end: u64) -> Run {
        let stop = end.min((first / SLOT + 1) * SLOT);
        let Some(slot) = self.slots.get(&(first / SLOT)) else {
            return Run {
                first,
                sectors: stop - first,
                slot: None,
            };
        };
        let has = |sector: u64| slot.present >> (sector % SLOT) & 1 != 0;
        let kind = has(first);
        let sectors = (first..stop).take_while(|s| has(*s) == kind).count() as u64;
        Run {
            first,
            sectors,
            slot: kind.then_some(slot.number),
        }
    }
}

/// Where a sector is in the temporary file.
fn place(slot: u64, sector: u64) -> u64 {
    (slot * SLOT + sector % SLOT) * SECTOR as u64
}

/// The bits of sectors in their slot.
fn bits(first: u64, sectors: u64) -> u64 {
    (u64::MAX >> (SLOT - sectors)) << (first % SLOT)
}

/// A file without a name.
fn temporary(directory: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match open(directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
            unlinked(directory)
        }
        Err(error) => Err(error.into()),
    }
}

/// The same where the file system knows only files with names.
fn unlinked(directory: &Path) -> io::Result<File> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!(".metaphrase-{}-{number}", std::process::id());
        let path = directory.join(name);
        let new = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        match new {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

impl BlockBackend for Overlay {
    fn sectors(&self) -> u64 {
        self.base.sectors()
    }

    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), BlockError> {
        let end = lba.saturating_add((into.len() / SECTOR) as u64);
        self.check(lba, (into.len() / SECTOR) as u64)?;
        let mut at = lba;
        while at < end {
            let mut run = self.run(at, end);
            // Unchanged sectors of several slots are one request.
            while run.slot.is_none() && run.first + run.sectors < end {
                let next = self.run(run.first + run.sectors, end);
                if next.slot.is_some() {
                    break;
                }
                run.sectors += next.sectors;
            }
            let from = (at - lba) as usize * SECTOR;
            let piece = &mut into[from..from + run.sectors as usize * SECTOR];
            match run.slot {
                None => self.base.read(at, piece)?,
                Some(slot) => {
                    let read = self.changes.read_exact_at(piece, place(slot, at));
                    read.map_err(|error| self.faults.host(Doing::Reading, &error))?;
                }
            }
            at += run.sectors;
        }
        Ok(())
    }

    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), BlockError> {
        let sectors = (from.len() / SECTOR) as u64;
        self.check(lba, sectors)?;
        let (mut at, end) = (lba, lba + sectors);
        while at < end {
            let count = (end - at).min(SLOT - at % SLOT);
            let new = self.slots.len() as u64;
            let slot = self.slots.entry(at / SLOT).or_insert(Slot {
                number: new,
                present: 0,
            });
            let start = (at - lba) as usize * SECTOR;
            let piece = &from[start..start + count as usize * SECTOR];
            let written = self.changes.write_all_at(piece, place(slot.number, at));
            written.map_err(|error| self.faults.host(Doing::Writing, &error))?;
            slot.present |= bits(at, count);
            at += count;
        }
        Ok(())
    }

    /// What was written is gone after a crash anyway.
    fn flush(&mut self) -> Result<(), BlockError> {
        Ok(())
    }
}
