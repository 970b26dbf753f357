//! Packages by apt, without touching the system and without being root: apt gets lists, caches and
//! a status file of its own in our cache directory, for one architecture. The system's sources,
//! keyrings, pins and proxies are used; its hooks are not.
//!
//! apt checks signatures of the lists; we check that each package has the hash they give.

use super::{Error, Progress, at, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// Lists older than this are read again before use.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// Debian's architectures that guests are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// 32-bit x86.
    I386,
}

impl Architecture {
    /// Debian's name.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Amd64 => "amd64",
            Architecture::I386 => "i386",
        }
    }
}

/// How a package is found. Many have names with versions in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// This one.
    Exact(&'static str),
    /// What the metapackage of that name depends on.
    Behind(&'static str),
    /// The prefix, the greatest version there is, the suffix.
    Newest(&'static str, &'static str),
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Name::Exact(name) | Name::Behind(name) => write!(f, "{name}"),
            Name::Newest(prefix, suffix) => write!(f, "{prefix}N{suffix}"),
        }
    }
}

/// A package as the lists describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The size of the `.deb` file.
    pub size: u64,
    /// The hash of the `.deb` file.
    pub sha256: String,
    depends: String,
}

/// apt with directories of its own.
pub struct Apt<'a> {
    directory: PathBuf,
    architecture: Architecture,
    progress: &'a dyn Progress,
    /// What the last reading of the lists complained about; none if it did not happen.
    updated: Option<String>,
}

impl<'a> Apt<'a> {
    /// apt for `architecture` in `directory`, which may be empty or not exist.
    pub fn new(
        directory: &Path,
        architecture: Architecture,
        progress: &'a dyn Progress,
    ) -> Result<Apt<'a>, Error> {
        for part in ["lists/partial", "archives/partial"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).map_err(at(&path))?;
        }
        let apt = Apt {
            directory: directory.to_path_buf(),
            architecture,
            progress,
            updated: None,
        };
        let status = directory.join("status");
        fs::write(&status, "").map_err(at(&status))?;
        let settings = apt.settings()?;
        fs::write(apt.config(), settings).map_err(at(&apt.config()))?;
        Ok(apt)
    }

    fn config(&self) -> PathBuf {
        self.directory.join("apt.conf")
    }

    /// The configuration: the system's on what to fetch and how, and our directories. The system's other
    /// files are not read a second time, for their hooks would run.
    fn settings(&self) -> Result<String, Error> {
        let dump = run::stdout("apt-config", &["dump".as_ref()])?;
        let dump = String::from_utf8_lossy(&dump).into_owned();
        let fetching = |line: &&str| {
            let wanted = ["Acquire::", "Dir::Etc"];
            let other = [
                "Acquire::IndexTargets",
                "Acquire::Languages",
                "Acquire::Changelogs",
                "Dir::Etc::main",
                "Dir::Etc::parts",
            ];
            wanted.iter().any(|start| line.starts_with(start))
                && !other.iter().any(|start| line.starts_with(start))
        };
        let mut text: String = dump
            .lines()
            .filter(fetching)
            .map(|line| format!("{line}\n"))
            .collect();
        let name = self.architecture.name();
        let directory = self.directory.display();
        // Without the sandbox's user a cache in a private home directory can be written.
        text += &format!(
            "Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\n\
             Dir::State \"{directory}\";\nDir::State::status \"{directory}/status\";\n\
             Dir::Cache \"{directory}\";\nDir::Log \"{directory}\";\n\
             APT::Architecture \"{name}\";\nAPT::Architectures {{ \"{name}\"; }};\n\
             APT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\nAcquire::GzipIndexes \"true\";\n\
             Acquire::Retries \"3\";\n"
        );
        Ok(text)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = run::command(name);
        command.env("APT_CONFIG", self.config());
        command
    }

    /// Reads the lists if they are missing or old. That one of several sources fails is no error
    /// yet: what matters is whether the packages come.
    fn update(&mut self) -> Result<(), Error> {
        let name = self.architecture.name();
        self.progress
            .step(&format!("reading apt's lists for {name}"));
        let out = run::output("apt-get", self.command("apt-get").args(["-qq", "update"]))?;
        let complaint = match out.status.success() {
            true => String::new(),
            false => run::failed("apt-get", &out.stderr).to_string(),
        };
        if complaint.is_empty() {
            let stamp = self.directory.join("updated");
            fs::write(&stamp, "").map_err(at(&stamp))?;
        }
        self.updated = Some(complaint);
        Ok(())
    }

    fn is_fresh(&self) -> bool {
        let stamp = fs::metadata(self.directory.join("updated")).and_then(|m| m.modified());
        let age = stamp
            .ok()
            .map(|then| SystemTime::now().duration_since(then));
        matches!(age, Some(Ok(age)) if age < FRESH)
    }

    /// What the lists say of a package.
    pub fn find(&mut self, name: Name) -> Result<Package, Error> {
        if self.updated.is_none() && !self.is_fresh() {
            self.update()?;
        }
        if let Some(found) = self.look(name)? {
            return Ok(found);
        }
        if self.updated.is_none() {
            self.update()?;
            if let Some(found) = self.look(name)? {
                return Ok(found);
            }
        }
        Err(Error::NoPackage {
            name: name.to_string(),
            architecture: self.architecture.name(),
            apt: self.updated.clone().unwrap_or_default(),
        })
    }

    fn look(&self, name: Name) -> Result<Option<Package>, Error> {
        match name {
            Name::Exact(name) => self.show(name),
            Name::Behind(meta) => {
                let Some(package) = self.show(meta)? else {
                    return Ok(None);
                };
                // A kernel's metapackage depends on one package; others name it first.
                match dependencies(&package.depends).next() {
                    Some(behind) => self.show(behind),
                    None => Ok(None),
                }
            }
            Name::Newest(prefix, suffix) => {
                let mut command = self.command("apt-cache");
                let out = run::output("apt-cache", command.args(["pkgnames", prefix]))?;
                let names = String::from_utf8_lossy(&out.stdout).into_owned();
                // apt knows names too that no package for this architecture has.
                for name in newest_first(&names, prefix, suffix) {
                    if let Some(found) = self.show(name)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
        }
    }

    fn show(&self, name: &str) -> Result<Option<Package>, Error> {
        let mut command = self.command("apt-cache");
        command.args(["show", "--no-all-versions", "--", name]);
        let out = run::output("apt-cache", &mut command)?;
        Ok(parse(&String::from_utf8_lossy(&out.stdout)))
    }

    /// Downloads a package into `directory`, unless it is there. What an earlier call has begun
    /// is gone on with. Lists that have become stale are read again.
    pub fn download(&mut self, name: Name, directory: &Path) -> Result<PathBuf, Error> {
        let package = self.find(name)?;
        match self.get(&package, directory) {
            Err(Error::Command { .. }) if self.updated.is_none() => {
                self.update()?;
                let package = self.find(name)?;
                self.get(&package, directory)
            }
            result => result,
        }
    }

    fn get(&self, package: &Package, directory: &Path) -> Result<PathBuf, Error> {
        let architecture = self.architecture.name();
        let version = package.version.replace(':', "%3a");
        let file = format!("{}_{version}_{architecture}.deb", package.name);
        let kept = directory.join(&file);
        if is_intact(&kept, package)? {
            return Ok(kept);
        }
        let partial = directory.join("partial").join(&file);
        fs::create_dir_all(&partial).map_err(at(&partial))?;
        let wanted = format!("{}={}", package.name, package.version);
        self.progress.step(&format!("fetching {}", package.name));
        // What was left by an interrupted call may be damaged: the second time begins anew.
        for again in [true, false] {
            self.spawn_download(&wanted, &partial, package.size)?;
            let came = only_file(&partial)?;
            if is_intact(&came, package)? {
                fs::rename(&came, &kept).map_err(at(&kept))?;
                fs::remove_dir_all(&partial).map_err(at(&partial))?;
                return Ok(kept);
            }
            fs::remove_file(&came).map_err(at(&came))?;
            if !again {
                break;
            }
        }
        Err(Error::Hash(wanted))
    }

    /// Runs `apt-get download` in `partial`; tells how much has come while it runs.
    fn spawn_download(&self, wanted: &str, partial: &Path, size: u64) -> Result<(), Error> {
        let mut child = self
            .command("apt-get")
            .args(["-qq", "download", wanted])
            .current_dir(partial)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| run::cannot_start("apt-get", &error))?;
        loop {
            let ended = child.try_wait().map_err(at(partial))?;
            let there = only_file(partial).and_then(|p| fs::metadata(&p).map_err(at(&p)));
            self.progress.bytes(there.map_or(0, |m| m.len()), size);
            if ended.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let out = child.wait_with_output().map_err(at(partial))?;
        match out.status.success() {
            true => Ok(()),
            false => Err(run::failed("apt-get", &out.stderr)),
        }
    }
}

/// Whether the file is there and is what the lists promise.
fn is_intact(path: &Path, package: &Package) -> Result<bool, Error> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() == package.size => Ok(run::sha256(path)? == package.sha256),
        _ => Ok(false),
    }
}

/// The file in a directory that has one.
fn only_file(directory: &Path) -> Result<PathBuf, Error> {
    let mut entries = fs::read_dir(directory).map_err(at(directory))?;
    match entries.next() {
        Some(entry) => Ok(entry.map_err(at(directory))?.path()),
        None => Err(Error::Content("apt-get has brought nothing".into())),
    }
}

/// The first stanza of `apt-cache show`.
fn parse(text: &str) -> Option<Package> {
    let stanza = text.split("\n\n").next()?;
    let field = |name: &str| {
        stanza
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    Some(Package {
        name: field("Package")?.into(),
        version: field("Version")?.into(),
        size: field("Size")?.parse().ok()?,
        sha256: field("SHA256")?.into(),
        depends: field("Depends").unwrap_or_default().into(),
    })
}

/// The names in a field of dependencies; of alternatives the first.
fn dependencies(field: &str) -> impl Iterator<Item = &str> {
    field.split(',').filter_map(|one| {
        let name = one.trim().split([' ', '(', '|', ':']).next()?;
        (!name.is_empty()).then_some(name)
    })
}

/// The names that consist of the prefix, numbers with points, and the suffix, the greatest numbers
/// first.
fn newest_first<'n>(names: &'n str, prefix: &str, suffix: &str) -> Vec<&'n str> {
    let version = |name: &str| -> Option<Vec<u32>> {
        let middle = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
        middle.split('.').map(|part| part.parse().ok()).collect()
    };
    let versions = names.lines().filter_map(|n| Some((version(n)?, n)));
    let mut versions: Vec<_> = versions.collect();
    versions.sort();
    versions.iter().rev().map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stanza_is_the_candidate() {
        let text = "Package: a\nVersion: 1:2-3\nDepends: b (= 1), c | d\nSize: 12\n\
                    SHA256: ab\nDescription: x\n Size: 99\n\nPackage: old\nVersion: 0\n";
        let package = parse(text).expect("a package");
        assert_eq!(package.name, "a");
        assert_eq!(package.version, "1:2-3");
        assert_eq!((package.size, &*package.sha256), (12, "ab"));
        let names: Vec<&str> = dependencies(&package.depends).collect();
        assert_eq!(names, ["b", "c"]);
        assert_eq!(parse(""), None);
        assert_eq!(parse("Package: a\nVersion: 1\nSize: x\nSHA256: y\n"), None);
    }

    #[test]
    fn the_newest_goes_by_numbers() {
        let names = "k-9-net\nk-12-net\nk-12.1-net\nk-12.1-net-dbg\nk-x-net\nk--net\n";
        let order = newest_first(names, "k-", "-net");
        assert_eq!(order, ["k-12.1-net", "k-12-net", "k-9-net"]);
        assert!(newest_first(names, "k-", "-iso").is_empty());
    }
}
