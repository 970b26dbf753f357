//! Guest paths on the host: the sysroot prefix, and the files of `/proc/self` that would show us
//! rather than the guest.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The host path of a guest path: absolute paths are looked for under the sysroot first.
pub fn to_host(sysroot: Option<&Path>, path: &[u8]) -> PathBuf {
    let plain = Path::new(OsStr::from_bytes(path));
    if let Some(root) = sysroot
        && let Ok(below) = plain.strip_prefix("/")
        && !below.as_os_str().is_empty()
    {
        let candidate = root.join(below);
        if candidate.symlink_metadata().is_ok() {
            return candidate;
        }
    }
    plain.to_path_buf()
}

/// A file of `/proc/self` that must be the guest's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Own {
    /// The executable.
    Exe,
    /// The mappings.
    Maps,
    /// The arguments.
    CommandLine,
}

/// Whether a path names one of them.
pub fn own(path: &[u8]) -> Option<Own> {
    let rest = path.strip_prefix(b"/proc/")?;
    let mut parts = rest.splitn(2, |&b| b == b'/');
    let (who, what) = (parts.next()?, parts.next()?);
    let us = match who {
        b"self" | b"thread-self" => true,
        digits => std::str::from_utf8(digits)
            .ok()
            .and_then(|s| s.parse().ok())
            .is_some_and(|pid: u32| pid == std::process::id()),
    };
    match what {
        _ if !us => None,
        b"exe" => Some(Own::Exe),
        b"maps" => Some(Own::Maps),
        b"cmdline" => Some(Own::CommandLine),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_files_are_recognised() {
        assert_eq!(own(b"/proc/self/exe"), Some(Own::Exe));
        let pid = format!("/proc/{}/maps", std::process::id());
        assert_eq!(own(pid.as_bytes()), Some(Own::Maps));
        assert_eq!(own(b"/proc/1/exe"), None);
        assert_eq!(own(b"/proc/self/status"), None);
        assert_eq!(own(b"/proc/"), None);
    }

    #[test]
    fn the_sysroot_is_only_for_what_it_has() {
        let root = Path::new("/proc");
        assert_eq!(
            to_host(Some(root), b"/version"),
            PathBuf::from("/proc/version")
        );
        assert_eq!(to_host(Some(root), b"/no/such"), PathBuf::from("/no/such"));
        assert_eq!(to_host(Some(root), b"version"), PathBuf::from("version"));
    }
}
