//! The writers of initial RAM disks and CDs against other people's readers: `cpio`, `isoinfo`
//! (genisoimage), `file`, and `sfdisk`'s view of a disk. `tests/install-guests` installs them.

use metaphrase::guests::cpio::Archive;
use metaphrase::guests::iso::{Boot, Iso};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory for one test's files; removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let n = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("metaphrase-images-{}-{n}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        Scratch(directory)
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("a file");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a reader prints; none if it is not installed, which is said loudly, or fails where the tools
/// are required.
fn ask(command: &str, arguments: &[&str], directory: &Path, input: &[u8]) -> Option<Vec<u8>> {
    let child = Command::new(command)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            let message = format!("{command}: {error}: run tests/install-guests");
            assert!(
                std::env::var_os("METAPHRASE_REQUIRE_GUESTS").is_none(),
                "{message}"
            );
            println!("NOT TESTED: {message}");
            return None;
        }
    };
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(input).expect("the reader reads");
    drop(pipe);
    let out = child.wait_with_output().expect("it ends");
    let complaint = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{command} {arguments:?}: {complaint}");
    Some(out.stdout)
}

/// Bytes that differ from sector to sector.
fn bytes(length: usize, seed: u32) -> Vec<u8> {
    let next = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((*state >> 24) as u8)
    };
    std::iter::repeat_n((), length)
        .scan(seed, |state, ()| next(state))
        .collect()
}

#[test]
fn cpio_reads_our_archives() {
    let scratch = Scratch::new();
    let mut archive = Archive::default();
    archive.directory("d");
    archive.file("d/program", &bytes(1001, 1));
    archive.data("d/text", b"words\n");
    archive.data("empty", b"");
    archive.link("link", "d/text");
    archive.device("console", 5, 1);
    let archive = archive.finish();
    let quiet = ["-i", "-t", "-v", "--quiet"];
    let Some(list) = ask("cpio", &quiet, &scratch.0, &archive) else {
        return;
    };
    let list = String::from_utf8_lossy(&list).into_owned();
    let lines: Vec<Vec<&str>> = list
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let modes: Vec<(&str, &str)> = lines
        .iter()
        .map(|words| (words[0], *words.last().expect("a name")))
        .collect();
    let expected = [
        ("drwxr-xr-x", "d"),
        ("-rwxr-xr-x", "d/program"),
        ("-rw-r--r--", "d/text"),
        ("-rw-r--r--", "empty"),
        ("lrwxrwxrwx", "d/text"),
        ("crw-------", "console"),
    ];
    assert_eq!(modes, expected, "{list}");
    assert!(list.contains("link -> d/text"), "{list}");
    assert!(
        lines[5].contains(&"5,") && lines[5].contains(&"1"),
        "{list}"
    );
    let wanted = ["-i", "-d", "--quiet", "d/program", "d/text", "empty"];
    ask("cpio", &wanted, &scratch.0, &archive);
    let read = |name: &str| std::fs::read(scratch.0.join(name)).expect(name);
    assert_eq!(read("d/program"), bytes(1001, 1));
    assert_eq!(read("d/text"), b"words\n");
    assert_eq!(read("empty"), b"");
}

/// A CD with directories, one of which takes several sectors.
fn disc() -> (Iso, Vec<(String, Vec<u8>)>) {
    let mut files = vec![
        ("BOOT/LOADER.BIN".to_string(), bytes(38_912, 2)),
        ("BOOT/DEEP/ER/KERNEL".to_string(), bytes(100_001, 3)),
        ("README.TXT".to_string(), b"read me\n".to_vec()),
        ("EMPTY".to_string(), Vec::new()),
    ];
    for n in 0..150 {
        files.push((format!("MANY/FILE{n}.X"), bytes(n, n as u32)));
    }
    let mut iso = Iso::default();
    for (path, content) in &files {
        iso.file(&path.to_lowercase(), content.clone())
            .expect("a name");
    }
    (iso, files)
}

#[test]
fn isoinfo_finds_every_file_with_its_bytes() {
    let scratch = Scratch::new();
    let (iso, files) = disc();
    let image = iso.finish(None).expect("an image");
    scratch.file("cd.iso", &image);
    let Some(list) = ask("isoinfo", &["-f", "-i", "cd.iso"], &scratch.0, &[]) else {
        return;
    };
    let list = String::from_utf8_lossy(&list).into_owned();
    let found: Vec<&str> = list.lines().collect();
    assert_eq!(found.len(), files.len() + 4, "and four directories: {list}");
    for (path, content) in &files {
        let dot = if path.contains('.') { "" } else { "." };
        let name = format!("/{path}{dot};1");
        assert!(found.contains(&&*name), "{name}: {list}");
        let got = ask("isoinfo", &["-i", "cd.iso", "-x", &name], &scratch.0, &[]);
        assert!(got.as_ref() == Some(content), "{name}");
    }
    let described = ask("isoinfo", &["-d", "-i", "cd.iso"], &scratch.0, &[]);
    let described = String::from_utf8_lossy(&described.expect("it is there")).into_owned();
    assert!(
        described.contains("CD-ROM is in ISO 9660 format"),
        "{described}"
    );
    assert!(described.contains("Volume id: METAPHRASE"), "{described}");
    let sectors = format!("Volume size is: {}", image.len() / 2048);
    assert!(described.contains(&sectors), "{described}");
    assert!(described.contains("NO Joliet present"), "{described}");
    // The path table leads to the same directories.
    let table = ask("isoinfo", &["-p", "-i", "cd.iso"], &scratch.0, &[]);
    let table = String::from_utf8_lossy(&table.expect("it is there")).into_owned();
    for line in ["BOOT", "MANY", "DEEP", "ER"] {
        assert!(table.contains(line), "{table}");
    }
}

#[test]
fn the_boot_catalogue_and_the_disk_lead_to_the_loader() {
    let scratch = Scratch::new();
    let (iso, _) = disc();
    let code = bytes(432, 9);
    let boot = Boot {
        loader: "boot/loader.bin",
        disk: Some(&code),
    };
    let image = iso.finish(Some(boot)).expect("an image");
    scratch.file("cd.iso", &image);
    let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().expect("four bytes"));
    let loader = word(432) / 4;
    assert_eq!(&image[..432], code);
    let at = loader as usize * 2048;
    // The information table: descriptor, place, length, and the sum of what follows it.
    assert_eq!(
        [word(at + 8), word(at + 12), word(at + 16)],
        [16, loader, 38_912]
    );
    let sum = (64..38_912)
        .step_by(4)
        .fold(0, |sum: u32, n| sum.wrapping_add(word(at + n)));
    assert_eq!(word(at + 20), sum);
    let original = bytes(38_912, 2);
    assert_eq!(image[at..at + 8], original[..8]);
    assert_eq!(image[at + 64..at + 38_912], original[64..]);
    if let Some(described) = ask("isoinfo", &["-d", "-i", "cd.iso"], &scratch.0, &[]) {
        let text = String::from_utf8_lossy(&described).into_owned();
        assert!(text.contains("El Torito VD version 1 found"), "{text}");
        assert!(text.contains("Bootid 88 (bootable)"), "{text}");
        assert!(text.contains("Boot media 0 (No Emulation Boot)"), "{text}");
        assert!(text.contains("Nsect 4"), "{text}");
        let place = format!("Bootoff {loader:X} {loader}");
        assert!(text.contains(&place), "{place}: {text}");
    }
    let arguments = ["--dump", "--quiet", "cd.iso"];
    if let Some(table) = ask("/sbin/sfdisk", &arguments, &scratch.0, &[]) {
        let text = String::from_utf8_lossy(&table).into_owned();
        let sectors = image.len() / 512;
        let line = text
            .lines()
            .find(|line| line.contains("start="))
            .expect("a partition");
        let line: String = line.split(' ').filter(|word| !word.is_empty()).collect();
        assert!(line.contains("start=0,"), "{text}");
        assert!(
            line.contains(&format!("size={sectors},type=17,bootable")),
            "{text}"
        );
    }
    assert_eq!(image.len() % (1 << 20), 0, "whole cylinders");
}

#[test]
fn what_no_cd_can_hold_is_refused() {
    for name in [
        "",
        "/a",
        "a/",
        "toolongname",
        "a.html",
        "a.b.c",
        "longdirectory/a",
        "dir.x/a",
        "ä",
        "a b",
        "../a",
        "1/2/3/4/5/6/7/8/9",
    ] {
        assert!(Iso::default().file(name, Vec::new()).is_err(), "{name:?}");
    }
    let mut iso = Iso::default();
    iso.file("loader", vec![0; 63]).expect("a name");
    let boot = |loader| Boot { loader, disk: None };
    assert!(iso.finish(Some(boot("loader"))).is_err(), "too short");
    assert!(
        Iso::default().finish(Some(boot("loader"))).is_err(),
        "not there"
    );
    let mut iso = Iso::default();
    iso.file("loader", vec![0; 64]).expect("a name");
    let boot = Boot {
        loader: "loader",
        disk: Some(&[0; 440]),
    };
    assert!(iso.finish(Some(boot)).is_err(), "another boot code");
}
