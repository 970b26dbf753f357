//! `metaphrase guest` and `boot` as a user meets them. The packages come from a repository on this
//! disk, made here, so that nothing depends on a network; apt is the real one.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod command;

use command::{Scratch, stderr, stdout};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A place with a repository, a cache, and a configuration that leads apt to the repository.
struct Place {
    scratch: Scratch,
}

impl Place {
    /// An empty repository.
    fn new() -> Place {
        let place = Place {
            scratch: Scratch::new(),
        };
        fs::create_dir_all(place.path("repository")).expect("a directory");
        let list = format!(
            "deb [trusted=yes] file:{} ./\n",
            place.path("repository").display()
        );
        place.scratch.file("sources.list", list.as_bytes());
        let lines = format!(
            "Dir::Etc::sourcelist \"{}\";\nDir::Etc::sourceparts \"/dev/null\";\n",
            place.path("sources.list").display()
        );
        place.scratch.file("apt.conf", lines.as_bytes());
        place.index();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.0.join(name)
    }

    /// Writes the repository's list of packages.
    fn index(&self) {
        let repository = self.path("repository");
        let mut list = String::new();
        for entry in fs::read_dir(&repository).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|suffix| suffix != "deb") {
                continue;
            }
            let fields = output(Command::new("dpkg-deb").arg("-f").arg(&path));
            let sum = output(Command::new("sha256sum").arg(&path));
            let name = path.file_name().expect("a name").to_string_lossy();
            list += &format!(
                "{}\nFilename: ./{name}\nSize: {}\nSHA256: {}\n\n",
                fields.trim(),
                fs::metadata(&path).expect("it is there").len(),
                sum.split(' ').next().expect("a hash"),
            );
        }
        fs::write(repository.join("Packages"), list).expect("the list");
    }

    /// Adds a package with files.
    fn package(&self, name: &str, architecture: &str, files: &[(&str, &[u8])]) {
        let tree = self.path(&format!("tree-{name}"));
        fs::create_dir_all(tree.join("DEBIAN")).expect("a directory");
        let control = format!(
            "Package: {name}\nVersion: 1:2-3\nArchitecture: {architecture}\n\
             Maintainer: nobody <nobody@localhost>\nDescription: for a test\n"
        );
        fs::write(tree.join("DEBIAN/control"), control).expect("a file");
        for (path, content) in files {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(path, content).expect("a file");
        }
        let target = self
            .path("repository")
            .join(format!("{name}_{architecture}.deb"));
        output(
            Command::new("dpkg-deb")
                .arg("--build")
                .arg(&tree)
                .arg(&target),
        );
        self.index();
    }

    /// The command, with this cache and repository.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metaphrase"));
        command
            .args(arguments)
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("APT_CONFIG", self.path("apt.conf"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("it runs")
    }

    /// The command succeeds; what it prints.
    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let out = self.run(arguments);
        assert_eq!(
            out.status.code(),
            Some(0),
            "{arguments:?}: {}",
            stderr(&out)
        );
        stdout(&out)
    }

    /// The command fails with that code and says that.
    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32, words: &str) {
        let out = self.run(arguments);
        let text = stderr(&out);
        assert_eq!(out.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(
            text.contains(words),
            "{arguments:?} does not say {words}: {text}"
        );
        assert!(out.stdout.is_empty(), "{arguments:?}");
    }

    /// Makes it impossible to get anything new.
    fn take_repository_away(&self) {
        fs::remove_dir_all(self.path("repository")).expect("it was there");
    }
}

fn output(command: &mut Command) -> String {
    let out = command.output().expect("it runs");
    assert!(out.status.success(), "{command:?}: {}", stderr(&out));
    stdout(&out)
}

/// Whether this is a system with apt; said loudly if not, or an error where guests are required.
fn has_apt() -> bool {
    let there = Path::new("/usr/bin/apt-get").exists();
    if !there {
        let required = std::env::var_os("METAPHRASE_REQUIRE_GUESTS").is_some();
        assert!(!required, "no apt here");
        println!("NOT TESTED: no apt here");
    }
    there
}

const MEMTEST: &[(&str, &[u8])] = &[("boot/memtest86+x64.bin", b"not really memtest")];

#[test]
fn without_a_command_there_is_a_page() {
    let place = Place::new();
    let page = place.succeeds(&[]);
    for word in [
        "metaphrase boot linux",
        "metaphrase demo",
        "guest list",
        "--help",
    ] {
        assert!(page.contains(word), "{page}");
    }
    assert!(page.lines().count() < 20, "it is short");
}

#[test]
fn a_guest_is_fetched_once_and_needs_nothing_then() {
    if !has_apt() {
        return;
    }
    let place = Place::new();
    place.package("memtest86+", "amd64", MEMTEST);
    place.fails(&["guest", "path", "memtest"], 4, "guest fetch memtest");
    assert!(!place.succeeds(&["guest", "list"]).contains("(at hand)"));
    let printed = place.succeeds(&["guest", "fetch", "memtest"]);
    let directory = place.path("cache/metaphrase/guests/memtest");
    assert_eq!(printed.trim(), directory.to_str().expect("a name"));
    let content = fs::read(directory.join("memtest.bin")).expect("the file");
    assert_eq!(content, MEMTEST[0].1);
    place.take_repository_away();
    assert_eq!(place.succeeds(&["guest", "path", "memtest"]), printed);
    assert_eq!(place.succeeds(&["guest", "fetch", "memtest"]), printed);
    let list = place.succeeds(&["guest", "list"]);
    assert_eq!(list.matches("(at hand)").count(), 1, "{list}");
    // What boots is what `system` would be told; this one is no kernel.
    let out = place.run(&["boot", "memtest", "-m", "16"]);
    let text = stderr(&out);
    let line = text.lines().next().expect("a line");
    assert!(
        line.starts_with("metaphrase system -m 32 -kernel /"),
        "{text}"
    );
    assert!(
        line.ends_with("-append console=ttyS0,115200 -m 16"),
        "{text}"
    );
    assert_eq!(out.status.code(), Some(126), "{text}");
}

#[test]
fn packages_of_another_architecture_and_with_numbers_in_their_names_are_found() {
    if !has_apt() {
        return;
    }
    let place = Place::new();
    let mut zipped = Command::new("gzip");
    let zipped = zipped
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = zipped.spawn().expect("gzip");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), b"a kernel")
        .expect("it reads");
    let wrapped = child.wait_with_output().expect("it ends").stdout;
    for version in ["1.8", "1.10", "1.9"] {
        let path = format!("boot/gnumach-{version}.gz");
        let name = format!("gnumach-image-{version}-486");
        place.package(&name, "i386", &[(&path, &wrapped)]);
    }
    place.package("gnumach-image-9-486", "amd64", &[]);
    let printed = place.succeeds(&["guest", "fetch", "gnumach"]);
    let directory = Path::new(printed.trim());
    assert_eq!(
        fs::read(directory.join("gnumach")).expect("the file"),
        b"a kernel"
    );
    let manifest = fs::read_to_string(directory.join("manifest.json")).expect("it");
    assert!(
        manifest.contains("gnumach-image-1.10-486_1%3a2-3_i386"),
        "{manifest}"
    );
}

#[test]
fn what_is_not_to_be_had_is_said_with_a_way_out() {
    let place = Place::new();
    place.fails(&["guest", "fetch", "nonesuch"], 2, "guest list");
    place.fails(&["boot", "nonesuch"], 2, "there is no guest nonesuch");
    place.fails(&["guest", "fetch"], 2, "NAME");
    place.fails(&["guest", "path", "linux"], 4, "not at hand");
    if !has_apt() {
        return;
    }
    place.fails(
        &["guest", "fetch", "memtest"],
        4,
        "apt knows no package memtest86+ for amd64",
    );
    place.package("memtest86+", "amd64", &[("boot/other", b"x")]);
    // The lists are read again, for the package was not in them.
    place.fails(
        &["guest", "fetch", "memtest"],
        4,
        "has no file boot/memtest86+x64.bin",
    );
    assert!(!place.path("cache/metaphrase/guests/memtest").exists());
    let out = place
        .command(&["guest", "list"])
        .env_remove("XDG_CACHE_HOME")
        .env_remove("HOME")
        .output();
    assert_eq!(out.expect("it runs").status.code(), Some(4));
}

#[test]
fn without_apt_linux_becomes_the_demo_and_others_say_so() {
    let place = Place::new();
    let none = place.path("nothing");
    fs::create_dir(&none).expect("a directory");
    let out = place
        .command(&["guest", "fetch", "memtest"])
        .env("PATH", &none)
        .output();
    let out = out.expect("it runs");
    assert_eq!(out.status.code(), Some(4));
    assert!(
        stderr(&out).contains("there is no apt here"),
        "{}",
        stderr(&out)
    );
    assert!(stderr(&out).contains("metaphrase demo"), "{}", stderr(&out));
    let out = place
        .command(&["boot", "linux"])
        .env("PATH", &none)
        .output();
    let out = out.expect("it runs");
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    assert!(
        stderr(&out).contains("embedded demo instead"),
        "{}",
        stderr(&out)
    );
    assert!(
        stdout(&out).contains("the same checksums"),
        "{}",
        stdout(&out)
    );
}

#[test]
fn a_package_that_is_not_what_the_list_says_is_refused() {
    if !has_apt() {
        return;
    }
    let place = Place::new();
    place.package("memtest86+", "amd64", MEMTEST);
    let package = place.path("repository/memtest86+_amd64.deb");
    let mut bytes = fs::read(&package).expect("the package");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&package, bytes).expect("the package");
    let out = place.run(&["guest", "fetch", "memtest"]);
    assert_eq!(out.status.code(), Some(4), "{}", stderr(&out));
    assert!(
        stderr(&out).to_lowercase().contains("hash"),
        "{}",
        stderr(&out)
    );
    assert!(!place.path("cache/metaphrase/guests/memtest").exists());
}

#[test]
fn a_damaged_guest_is_made_again() {
    if !has_apt() {
        return;
    }
    let place = Place::new();
    place.package("memtest86+", "amd64", MEMTEST);
    place.succeeds(&["guest", "fetch", "memtest"]);
    let directory = place.path("cache/metaphrase/guests/memtest");
    let file = directory.join("memtest.bin");
    let manifest = directory.join("manifest.json");
    let damages: [(&str, &dyn Fn()); 5] = [
        ("memtest.bin", &|| {
            fs::remove_file(&file).expect("it was there")
        }),
        ("memtest.bin", &|| {
            fs::write(&file, b"short").expect("a file")
        }),
        ("memtest.bin", &|| {
            fs::write(&file, vec![0; MEMTEST[0].1.len()]).expect("a file")
        }),
        ("list of files", &|| {
            fs::write(&manifest, b"{").expect("a file")
        }),
        ("list of files", &|| {
            fs::remove_file(&manifest).expect("it was there")
        }),
    ];
    for (word, damage) in damages {
        damage();
        let out = place.run(&["guest", "fetch", "memtest"]);
        assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
        assert!(stderr(&out).contains("is damaged"), "{}", stderr(&out));
        assert!(stderr(&out).contains(word), "{word}: {}", stderr(&out));
        assert_eq!(fs::read(&file).expect("the file"), MEMTEST[0].1);
    }
}

#[test]
fn a_fetch_that_was_interrupted_is_gone_on_with() {
    if !has_apt() {
        return;
    }
    let place = Place::new();
    place.package("memtest86+", "amd64", MEMTEST);
    // What a kill at the worst times leaves: half a guest, half a package, and a package under its
    // final name that is not whole.
    let cache = place.path("cache/metaphrase");
    let part = cache.join("guests/.memtest.part");
    fs::create_dir_all(part.join("modules")).expect("a directory");
    fs::write(part.join("other.bin"), b"left over").expect("a file");
    let name = "memtest86+_1%3a2-3_amd64.deb";
    let partial = cache.join("deb/partial").join(name);
    fs::create_dir_all(&partial).expect("a directory");
    fs::write(partial.join(name), b"!<arch>\nhalf").expect("a file");
    fs::write(cache.join("deb").join(name), b"!<arch>\nhalf").expect("a file");
    let printed = place.succeeds(&["guest", "fetch", "memtest"]);
    let files = fs::read_dir(printed.trim()).expect("the directory");
    let mut files: Vec<_> = files.map(|f| f.expect("an entry").file_name()).collect();
    files.sort();
    assert_eq!(files, ["manifest.json", "memtest.bin"]);
    assert!(!part.exists());
}

#[test]
fn fetches_at_the_same_time_wait_for_each_other() {
    if !has_apt() {
        return;
    }
    let place = Place::new();
    place.package("memtest86+", "amd64", MEMTEST);
    let start = |_| {
        let mut command = place.command(&["guest", "fetch", "memtest"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it starts")
    };
    let children: Vec<_> = (0..4).map(start).collect();
    let mut fetched = 0;
    for child in children {
        let out = child.wait_with_output().expect("it ends");
        assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
        fetched += usize::from(stderr(&out).contains("fetching memtest86+"));
    }
    assert_eq!(fetched, 1);
}
