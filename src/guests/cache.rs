//! The cache directory: one directory for each guest that is complete, and beside them what
//! fetching needs.
//!
//! ```text
//! guests/NAME/            the files of a guest, and its manifest
//! guests/.NAME.part/      one that is being made
//! deb/                    packages; may be deleted at any time
//! apt/ARCHITECTURE/       apt's lists
//! lock                    held by who fetches
//! ```

use super::catalogue::Guest;
use super::{Error, at, initramfs, recipe};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const MANIFEST: &str = "manifest.json";

/// What is in a guest's directory.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// [`recipe_of`] when it was made.
    pub recipe: u64,
    /// The packages, with versions.
    pub packages: Vec<String>,
    /// The files.
    pub files: Vec<Entry>,
}

/// A file of a guest.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    name: String,
    size: u64,
    hash: u64,
}

/// What is wrong with a guest's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// There is no manifest, or none that can be read.
    Manifest,
    /// This file is missing or has changed.
    File(String),
}

/// Whether a guest is at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It was not fetched.
    Missing,
    /// It can be booted.
    Ready,
    /// It was made by another version of metaphrase, in another way.
    Outdated,
    /// Its directory was changed.
    Damaged(Damage),
}

/// How much of a guest's directory is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// That all files are there with their sizes.
    Sizes,
    /// Their contents too.
    Contents,
}

/// A cache directory.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// Keeps other processes from fetching into the same cache.
pub(super) struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl Cache {
    /// The cache in that directory, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Cache {
        Cache { root: root.into() }
    }

    /// The directory of a guest that is ready.
    pub fn directory(&self, guest: &Guest) -> PathBuf {
        self.root.join("guests").join(guest.name)
    }

    /// The directory for a guest that is being made.
    pub(super) fn part(&self, guest: &Guest) -> PathBuf {
        self.root
            .join("guests")
            .join(format!(".{}.part", guest.name))
    }

    /// The directory for packages.
    pub(super) fn packages(&self) -> PathBuf {
        self.root.join("deb")
    }

    /// The directory for apt.
    pub(super) fn apt(&self, architecture: &str) -> PathBuf {
        self.root.join("apt").join(architecture)
    }

    /// Waits until nobody else fetches.
    pub(super) fn lock(&self) -> Result<Lock, Error> {
        fs::create_dir_all(&self.root).map_err(at(&self.root))?;
        let path = self.root.join("lock");
        let file = File::create(&path).map_err(at(&path))?;
        file.lock().map_err(at(&path))?;
        Ok(Lock(file))
    }

    /// Whether a guest is at hand.
    pub fn state(&self, guest: &Guest, check: Check) -> State {
        let directory = self.directory(guest);
        if !directory.exists() {
            return State::Missing;
        }
        let Some(manifest) = read_manifest(&directory) else {
            return State::Damaged(Damage::Manifest);
        };
        for file in &manifest.files {
            let path = directory.join(&file.name);
            let sound = fs::metadata(&path).is_ok_and(|meta| meta.len() == file.size)
                && (check == Check::Sizes || hash_file(&path).is_ok_and(|h| h == file.hash));
            if !sound {
                return State::Damaged(Damage::File(file.name.clone()));
            }
        }
        match manifest.recipe == recipe_of(guest) {
            true => State::Ready,
            false => State::Outdated,
        }
    }

    /// Writes the manifest of what is in `part`, and puts it in the guest's place.
    pub(super) fn complete(&self, guest: &Guest, packages: Vec<String>) -> Result<(), Error> {
        let part = self.part(guest);
        let mut files = Vec::new();
        for entry in fs::read_dir(&part).map_err(at(&part))? {
            let path = entry.map_err(at(&part))?.path();
            let name = path.file_name().unwrap_or_default();
            files.push(Entry {
                name: name.to_string_lossy().into_owned(),
                size: fs::metadata(&path).map_err(at(&path))?.len(),
                hash: hash_file(&path)?,
            });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let manifest = Manifest {
            recipe: recipe_of(guest),
            packages,
            files,
        };
        let path = part.join(MANIFEST);
        let text = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
        fs::write(&path, text).map_err(at(&path))?;
        let place = self.directory(guest);
        remove(&place)?;
        fs::rename(&part, &place).map_err(at(&place))
    }
}

/// Removes a directory that may not be there.
pub(super) fn remove(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(directory)(error)),
        _ => Ok(()),
    }
}

fn read_manifest(directory: &Path) -> Option<Manifest> {
    let text = fs::read(directory.join(MANIFEST)).ok()?;
    let manifest: Manifest = serde_json::from_slice(&text).ok()?;
    // Names lead nowhere else.
    let plain = |file: &Entry| !file.name.contains('/');
    manifest.files.iter().all(plain).then_some(manifest)
}

/// Changes whenever a guest would be made in another way.
fn recipe_of(guest: &Guest) -> u64 {
    let table = format!("{guest:?}");
    let seed = fnv(FNV, table.as_bytes());
    let seed = fnv(seed, initramfs::RECIPE.as_bytes());
    fnv(seed, recipe::RECIPE.as_bytes())
}

const FNV: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a: enough against damage, which is all that is looked for.
fn fnv(seed: u64, bytes: &[u8]) -> u64 {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(seed, step)
}

fn hash_file(path: &Path) -> Result<u64, Error> {
    Ok(fnv(FNV, &fs::read(path).map_err(at(path))?))
}
