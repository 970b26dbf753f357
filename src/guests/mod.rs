//! Whole systems to boot, made from Debian packages.
//!
//! [`catalogue`] is the table of guests: packages, the files that are taken out of them, what is
//! made of those ([`recipe`]), and the command line that boots the result. [`fetch`] makes one in a
//! [`Cache`]: [`apt`] finds and downloads packages without touching the system, [`deb`] reads
//! them, [`initramfs`] puts a small user space for Linux together from busybox and kernel
//! [`modules`], and [`iso`] and [`cpio`] write the images.
//!
//! Nothing here prints or reads the environment: what happens is told to a [`Progress`].

pub mod apt;
mod cache;
pub mod catalogue;
pub mod cpio;
mod deb;
mod fetch;
pub mod initramfs;
pub mod iso;
mod modules;
mod recipe;
mod run;

pub use cache::{Cache, Check, Damage, State};
pub use fetch::fetch;

use std::path::PathBuf;

/// Why a guest cannot be had.
#[derive(Debug)]
pub enum Error {
    /// There is no apt here.
    NoApt,
    /// apt knows no such package for that architecture.
    NoPackage {
        /// The package's name, or a pattern.
        name: String,
        /// Debian's name of the architecture.
        architecture: &'static str,
        /// What apt said when it read the lists, if that failed.
        apt: String,
    },
    /// A command that is needed failed or cannot be run.
    Command {
        /// Its name.
        name: String,
        /// What it said, or why it cannot be run.
        message: String,
    },
    /// What came is not what the signed lists promise.
    Hash(String),
    /// A package lacks a file, or something in it is not as expected.
    Content(String),
    /// A file or directory cannot be used.
    File(PathBuf, std::io::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::NoApt => write!(f, "there is no apt here, so guests cannot be fetched"),
            Error::NoPackage {
                name,
                architecture,
                apt,
            } => {
                write!(f, "apt knows no package {name} for {architecture}")?;
                if !apt.is_empty() {
                    write!(f, " (reading the lists: {apt})")?;
                }
                Ok(())
            }
            Error::Command { name, message } => write!(f, "{name}: {message}"),
            Error::Hash(what) => write!(f, "{what} has not the hash that apt's lists give"),
            Error::Content(what) => write!(f, "{what}"),
            Error::File(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Error::NoApt => {
                "run this on Debian, or copy the cache directory of a Debian machine; \
                 metaphrase demo needs nothing"
            }
            Error::NoPackage { .. } => {
                "the package must be in this system's apt sources; Debian 12 is the last release \
                 with 32-bit kernels"
            }
            Error::Command { .. } => "is there a network? What was fetched before needs none",
            _ => return None,
        })
    }
}

/// Where `fetch` tells what it does.
pub trait Progress {
    /// A step begins.
    fn step(&self, what: &str);
    /// Of the step's bytes so many are there.
    fn bytes(&self, done: u64, total: u64);
}

/// A [`Progress`] that says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: &str) {}
    fn bytes(&self, _: u64, _: u64) {}
}

/// Turns an I/O error into ours.
fn at(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_path_buf();
    move |error| Error::File(path, error)
}
