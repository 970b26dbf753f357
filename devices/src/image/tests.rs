//! Images of both formats against a model in memory, damaged files, and what hosts do.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::*;
use crate::block::SECTOR;
use crate::testing::Random;

mod damage;
mod hosts;

/// A directory of a test, which is removed at its end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let name = format!("metaphrase-images-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a new directory");
        Dir(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A raw file of zeros without blocks.
    fn raw(&self, name: &str, len: u64) -> PathBuf {
        let path = self.file(name);
        File::create(&path).unwrap().set_len(len).unwrap();
        path
    }

    fn qcow2(&self, name: &str, len: u64, backing: Option<(&str, Format)>) -> PathBuf {
        let path = self.file(name);
        create_qcow2(&path, len, backing).expect("a new image");
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the user was told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn options(&self) -> ImageOptions {
        let told = Arc::clone(&self.0);
        ImageOptions {
            report: Arc::new(move |text| told.lock().unwrap().push(text.into())),
            ..ImageOptions::default()
        }
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn default(path: &Path) -> Box<dyn BlockBackend> {
    open(path, &ImageOptions::default()).expect("an image")
}

fn read_only() -> ImageOptions {
    ImageOptions {
        read_only: true,
        ..ImageOptions::default()
    }
}

fn error(path: &Path, options: &ImageOptions) -> String {
    match open(path, options) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error.to_string(),
    }
}

/// The whole of a small disk.
fn contents(disk: &mut dyn BlockBackend) -> Vec<u8> {
    let mut all = vec![0xee; disk.sectors() as usize * SECTOR];
    disk.read(0, &mut all).expect("all of it");
    all
}

/// Random writes, zeros, discards, reads and flushes, and the same on a vector. Discarded sectors
/// are written anew, because they may hold anything.
fn exercise(disk: &mut dyn BlockBackend, model: &mut [u8], seed: u64, steps: usize) {
    let mut random = Random::new(seed);
    let sectors = disk.sectors();
    assert_eq!(sectors as usize * SECTOR, model.len());
    for step in 0..steps {
        let most = if random.below(4) == 0 { 600 } else { 16 };
        let count = (1 + random.below(most)).min(sectors);
        let lba = random.below(sectors - count + 1);
        let range = lba as usize * SECTOR..(lba + count) as usize * SECTOR;
        let kind = random.below(10);
        match kind {
            0..5 => {
                let byte = random.next() as u8;
                let data: Vec<u8> = (0..range.len())
                    .map(|i| byte.wrapping_add((i / 512) as u8))
                    .collect();
                disk.write(lba, &data).unwrap();
                model[range].copy_from_slice(&data);
            }
            5 | 6 => {
                disk.write_zeroes(lba, count, kind == 5).unwrap();
                model[range].fill(0);
            }
            7 => {
                disk.discard(lba, count).unwrap();
                let data = vec![step as u8; range.len()];
                disk.write(lba, &data).unwrap();
                model[range].copy_from_slice(&data);
            }
            8 => disk.flush().unwrap(),
            _ => {
                let mut data = vec![0xee; range.len()];
                disk.read(lba, &mut data).unwrap();
                assert!(
                    data == model[range],
                    "step {step}: {count} sectors at {lba}"
                );
            }
        }
    }
    assert!(contents(disk) == model);
}

fn sound(path: &Path) {
    let info = info(path, None).expect("an image");
    assert_eq!(info.defect, None, "{}", path.display());
}

const MIB: u64 = 1 << 20;

#[test]
fn both_formats_hold_what_was_written() {
    let dir = Dir::new("both");
    let raw = dir.raw("raw", 3 * MIB);
    let qcow2 = dir.qcow2("qcow2", 3 * MIB, None);
    for (seed, path) in [(1, raw), (2, qcow2)] {
        let mut model = vec![0; 3 * MIB as usize];
        for round in 0..3 {
            let mut disk = default(&path);
            assert!(contents(&mut *disk) == model, "reopened");
            exercise(&mut *disk, &mut model, seed + 10 * round, 200);
        }
        sound(&path);
    }
}

#[test]
fn backing_files_are_read_and_never_written() {
    let dir = Dir::new("backing");
    // The backing file is smaller than the image.
    let base = dir.raw("base", 2 * MIB);
    let mut model = vec![0; 2 * MIB as usize];
    exercise(&mut *default(&base), &mut model, 3, 100);
    let before = std::fs::read(&base).unwrap();
    assert!(before == model);
    model.resize(3 * MIB as usize, 0);
    let middle = dir.qcow2("middle", 3 * MIB, Some(("base", Format::Raw)));
    exercise(&mut *default(&middle), &mut model, 4, 100);
    let below = std::fs::read(&middle).unwrap();
    let top = dir.qcow2("top", 3 * MIB, Some(("middle", Format::Qcow2)));
    exercise(&mut *default(&top), &mut model, 5, 200);
    assert!(contents(&mut *default(&top)) == model);
    assert!(std::fs::read(&base).unwrap() == before);
    assert!(std::fs::read(&middle).unwrap() == below);
    sound(&top);
}

#[test]
fn a_snapshot_leaves_the_image_alone() {
    let dir = Dir::new("snapshot");
    let raw = dir.raw("raw", 2 * MIB);
    let qcow2 = dir.qcow2("qcow2", 2 * MIB, None);
    for path in [raw, qcow2] {
        let mut model = vec![0; 2 * MIB as usize];
        exercise(&mut *default(&path), &mut model, 6, 100);
        let before = std::fs::read(&path).unwrap();
        let options = ImageOptions {
            snapshot: Some(dir.0.clone()),
            ..ImageOptions::default()
        };
        let mut first = open(&path, &options).unwrap();
        // Nothing is written, so another machine may do the same.
        let mut second = open(&path, &options).unwrap();
        assert!(!first.read_only());
        let mut changed = model.clone();
        exercise(&mut *first, &mut changed, 7, 300);
        assert!(contents(&mut *second) == model);
        drop(first);
        assert!(std::fs::read(&path).unwrap() == before);
        assert_eq!(
            second.write(second.sectors(), &[0; 512]),
            Err(BlockError::Range)
        );
    }
    let names: Vec<_> = std::fs::read_dir(&dir.0).unwrap().collect();
    assert_eq!(names.len(), 2, "temporary files have no names");
}

#[test]
fn ranges_and_rights() {
    let dir = Dir::new("ranges");
    let raw = dir.raw("raw", MIB);
    let qcow2 = dir.qcow2("qcow2", MIB, None);
    for path in [raw, qcow2] {
        let mut disk = default(&path);
        let last = disk.sectors() - 1;
        assert_eq!(disk.write(last, &[7; 512]), Ok(()));
        let mut two = [0; 1024];
        assert_eq!(disk.read(last, &mut two), Err(BlockError::Range));
        assert_eq!(disk.write(last, &two), Err(BlockError::Range));
        assert_eq!(disk.read(u64::MAX, &mut two), Err(BlockError::Range));
        assert_eq!(disk.write(u64::MAX - 1, &two), Err(BlockError::Range));
        assert_eq!(disk.discard(1, u64::MAX), Err(BlockError::Range));
        assert_eq!(
            disk.write_zeroes(u64::MAX, 2, false),
            Err(BlockError::Range)
        );
        drop(disk);
        let mut disk = open(&path, &read_only()).unwrap();
        assert!(disk.read_only());
        assert_eq!(disk.write(0, &two), Err(BlockError::ReadOnly));
        assert_eq!(disk.write_zeroes(0, 1, false), Err(BlockError::ReadOnly));
        assert_eq!(disk.discard(0, 1), Err(BlockError::ReadOnly));
        assert_eq!(disk.flush(), Ok(()));
        assert_eq!(contents(&mut *disk)[last as usize * 512..], [7; 512]);
    }
}

#[test]
fn holes_stay_holes() {
    let dir = Dir::new("holes");
    let big = 3 << 40;
    let raw = dir.raw("raw", big);
    let qcow2 = dir.qcow2("qcow2", big, None);
    for path in [raw, qcow2] {
        let mut disk = default(&path);
        assert_eq!(disk.sectors(), big / 512);
        let mut data = vec![1; 64 << 10];
        disk.read(disk.sectors() / 2, &mut data).unwrap();
        assert!(data.iter().all(|byte| *byte == 0));
        // The last sectors, beyond what 32 bits of sectors can say.
        let last = disk.sectors() - 128;
        disk.write(last, &[5; 64 << 10]).unwrap();
        disk.flush().unwrap();
        disk.read(last, &mut data).unwrap();
        assert_eq!(data, [5; 64 << 10]);
        disk.write_zeroes(1, 1 << 20, false).unwrap();
        disk.flush().unwrap();
        drop(disk);
        let blocks = std::fs::metadata(&path).unwrap().blocks() * 512;
        assert!(blocks < 2 * MIB, "{blocks} bytes for one of 64 KiB");
        sound(&path);
    }
}

#[test]
fn formats_are_found_or_forced() {
    let dir = Dir::new("formats");
    let qcow2 = dir.qcow2("qcow2", MIB, None);
    let forced = |format| ImageOptions {
        format: Some(format),
        ..read_only()
    };
    assert_eq!(default(&qcow2).sectors(), MIB / 512);
    let file = std::fs::metadata(&qcow2).unwrap().len();
    let shown = open(&qcow2, &forced(Format::Raw)).unwrap().sectors();
    assert_eq!(shown, file.div_ceil(512));
    let raw = dir.raw("raw", MIB);
    let message = error(&raw, &forced(Format::Qcow2));
    assert!(message.contains("is no qcow2 image"), "{message}");
    // A raw image cannot become another one, unless it is said to be raw.
    let told = Told::default();
    let mut magic = [0; 512];
    magic[..4].copy_from_slice(b"QFI\xfb");
    let mut disk = open(&raw, &told.options()).unwrap();
    assert!(matches!(disk.write(0, &magic), Err(BlockError::Host(_))));
    assert!(disk.write(0, &magic).is_err());
    assert_eq!(disk.write(1, &magic), Ok(()));
    assert_eq!(told.all().len(), 1, "{:?}", told.all());
    drop(disk);
    let options = ImageOptions {
        format: Some(Format::Raw),
        ..ImageOptions::default()
    };
    assert_eq!(open(&raw, &options).unwrap().write(0, &magic), Ok(()));
}

#[test]
fn one_machine_writes_an_image() {
    let dir = Dir::new("locks");
    let base = dir.raw("base", MIB);
    let raw = dir.raw("raw", MIB);
    let qcow2 = dir.qcow2("qcow2", MIB, Some(("base", Format::Raw)));
    for path in [raw, qcow2] {
        let disk = default(&path);
        let message = error(&path, &ImageOptions::default());
        assert!(message.contains("in use"), "{message}");
        assert!(error(&path, &read_only()).contains("in use by a machine that writes it"));
        drop(disk);
        let readers = [open(&path, &read_only()), open(&path, &read_only())];
        assert!(readers.iter().all(Result::is_ok));
        let message = error(&path, &ImageOptions::default());
        assert!(message.contains("in use"), "{message}");
        drop(readers);
        default(&path);
    }
    // Nor may a backing file change under its image.
    let _top = default(&dir.file("qcow2"));
    assert!(error(&base, &ImageOptions::default()).contains("in use"));
}
