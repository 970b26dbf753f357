//! Makes a guest: packages come by apt, files are taken out of them, images are made of those, and
//! the directory is put in its place only when it is complete.

use super::apt::{Apt, Architecture};
use super::cache::{Cache, Check, State, remove};
use super::catalogue::{Guest, Source};
use super::{Error, Progress, at, deb, recipe};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Makes sure that a guest is at hand; its directory. A guest that is there needs neither apt nor a
/// network. Calls at the same time wait for each other.
pub fn fetch(
    cache: &Cache,
    guest: &Guest,
    check: Check,
    progress: &dyn Progress,
) -> Result<PathBuf, Error> {
    if cache.state(guest, check) == State::Ready {
        return Ok(cache.directory(guest));
    }
    let _lock = cache.lock()?;
    // Somebody else may have made it while we waited.
    if cache.state(guest, check) == State::Ready {
        return Ok(cache.directory(guest));
    }
    let part = cache.part(guest);
    remove(&part)?;
    fs::create_dir_all(&part).map_err(at(&part))?;
    let packages = take_all(cache, guest, &part, progress)?;
    progress.step(&format!("preparing {}", guest.name));
    for step in guest.steps {
        recipe::carry_out(step, &part)?;
    }
    remove(&part.join(MODULES))?;
    cache.complete(guest, packages)?;
    Ok(cache.directory(guest))
}

/// Where kernel modules are put until the initial RAM disk is made.
pub(super) const MODULES: &str = "modules";

/// Gets the packages, and takes out of them what the guest needs. Their names and versions.
fn take_all(
    cache: &Cache,
    guest: &Guest,
    part: &Path,
    progress: &dyn Progress,
) -> Result<Vec<String>, Error> {
    let mut apts: Vec<(Architecture, Apt<'_>)> = Vec::new();
    let mut packages = Vec::new();
    for source in guest.sources {
        let known = apts.iter().position(|(a, _)| *a == source.architecture);
        let index = match known {
            Some(index) => index,
            None => {
                let directory = cache.apt(source.architecture.name());
                let apt = Apt::new(&directory, source.architecture, progress)?;
                apts.push((source.architecture, apt));
                apts.len() - 1
            }
        };
        let file = apts[index].1.download(source.package, &cache.packages())?;
        packages.push(
            file.file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into(),
        );
        progress.step(&format!("unpacking {}", source.package));
        take(&file, source, part)?;
    }
    Ok(packages)
}

/// Takes files out of a package.
fn take(package: &Path, source: &Source, part: &Path) -> Result<(), Error> {
    let mut found = vec![false; source.take.len()];
    deb::files(package, &mut |name, body| {
        // Newer packages have everything below /usr.
        let short = name.strip_prefix("usr/").unwrap_or(name);
        let fits = |(pattern, _): &(&str, &str)| matches(pattern, short);
        let target = if let Some(index) = source.take.iter().position(fits) {
            found[index] = true;
            part.join(source.take[index].1)
        } else if source.modules && name.contains(".ko") && is_module(name) {
            part.join(MODULES).join(name)
        } else {
            return Ok(());
        };
        let parent = target.parent().unwrap_or(part);
        fs::create_dir_all(parent).map_err(at(parent))?;
        let mut file = File::create(&target).map_err(at(&target))?;
        std::io::copy(body, &mut file).map_err(at(&target))?;
        Ok(())
    })?;
    match found.iter().position(|found| !found) {
        None => Ok(()),
        Some(index) => Err(Error::Content(format!(
            "{} has no file {}",
            source.package, source.take[index].0
        ))),
    }
}

/// Whether the path is that of a kernel module, and leads nowhere else.
fn is_module(name: &str) -> bool {
    (name.starts_with("lib/modules/") || name.starts_with("usr/lib/modules/"))
        && name.split('/').all(|part| part != "..")
}

/// Whether a path has the form of `pattern`, in which `*` stands for anything within one name.
fn matches(pattern: &str, path: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern == path;
    };
    let Some(rest) = path.strip_prefix(before) else {
        return false;
    };
    let name = rest.find('/').unwrap_or(rest.len());
    (0..=name).any(|n| rest.is_char_boundary(n) && matches(after, &rest[n..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_one_name() {
        assert!(matches("boot/vmlinuz-*", "boot/vmlinuz-6.1.0-9-amd64"));
        assert!(matches("a/*/b", "a/12/b"));
        assert!(matches("a*b*c", "abbc"));
        assert!(!matches("a/*/b", "a/1/2/b"));
        assert!(!matches("a/*", "a/1/b"));
        assert!(!matches("a", "ab"));
        assert!(!matches("a*b", "a"));
    }

    #[test]
    fn modules_stay_in_their_tree() {
        assert!(is_module("usr/lib/modules/6.1/kernel/a.ko"));
        assert!(!is_module("lib/modules/../../a.ko"));
        assert!(!is_module("etc/a.ko"));
    }
}
