//! Guests of the catalogue as `metaphrase boot` gives them, made from real packages: to a shell and
//! to their end. They are fetched into `target/guests/cache` when they are not there yet.

mod guest_kit;

use guest_kit::Guest;
use metaphrase::guests::apt::{Apt, Architecture};
use metaphrase::guests::{Cache, Check, Error, Silent, catalogue, fetch};
use metaphrase_devices::MemoryDisk;
use metaphrase_runtime::machine::TimeMode;
use metaphrase_runtime::machine::pc::{BootFrom, PcConfig, Seat};
use metaphrase_runtime::{Engine, MachineStop};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The directory of a guest; none if it cannot be had, which is said loudly, or fails where guests
/// are required.
fn fetched(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guests/cache");
    let guest = catalogue::Guest::named(name).expect("it is in the table");
    match fetch(&Cache::new(root), guest, Check::Sizes, &Silent) {
        Ok(directory) => Some(directory),
        Err(error) => {
            untested(&error);
            None
        }
    }
}

fn untested(error: &Error) {
    let required = std::env::var_os("METAPHRASE_REQUIRE_GUESTS").is_some();
    assert!(!required, "{error}");
    println!("NOT TESTED: {error}");
}

fn read(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// At the prompt: commands, job control, and the end.
fn uses_the_shell(guest: &mut Guest) {
    guest.expect("run by metaphrase. exit switches", 5_000_000_000);
    guest.expect("/root # ", 500_000_000);
    guest.type_serial("echo $((6 * 7)) is the sum; cut -d' ' -f2 /proc/mounts | xargs\n");
    guest.expect("42 is the sum", 500_000_000);
    guest.expect("/proc /sys /dev /dev/pts /dev/shm /tmp /run", 500_000_000);
    guest.type_serial("tail -f /dev/null\n");
    // Ctrl-Z needs a controlling terminal.
    guest.type_serial("\u{1a}");
    guest.expect("Stopped", 500_000_000);
    guest.type_serial("kill -9 %1; lsmod | grep -c -e ^ata_piix -e ^sd_mod -e ^sr_mod\n");
    guest.expect("\n3\r\n", 1_000_000_000);
    guest.type_serial("exit\n");
    guest.run(2_000_000_000);
    assert_eq!(guest.stop, MachineStop::PowerOff, "{}", guest.printed());
}

#[test]
fn linux_gives_a_shell_and_ends_with_it() {
    let Some(directory) = fetched("linux") else {
        return;
    };
    let kernel = read(directory.join("vmlinuz"));
    let initrd = read(directory.join("initrd"));
    let mut guest = Guest::new(Engine::Tiered, 256 << 20, |_| {});
    guest.load(&kernel, &initrd, "console=ttyS0 quiet panic=-1");
    uses_the_shell(&mut guest);
}

/// isolinux out of an image that we have written loads Linux.
fn isolinux(name: &str, seat: Seat, order: BootFrom) {
    let Some(directory) = fetched(name) else {
        return;
    };
    let image = read(directory.join("isolinux.iso"));
    let firmware = read(directory.join("bios-256k.bin"));
    let mut guest = Guest::new(Engine::Tiered, 256 << 20, |config: &mut PcConfig| {
        config.time = TimeMode::Deterministic { shift: 2 };
        config.firmware = Some(firmware);
        config.boot_order = vec![order];
        config.add_drive(seat, Box::new(MemoryDisk::new(image)));
    });
    guest.expect("ISOLINUX 6.", 1_000_000_000);
    uses_the_shell(&mut guest);
}

#[test]
fn isolinux_boots_linux_from_a_cd() {
    let seat = Seat::IdeCd {
        channel: 1,
        unit: 0,
    };
    isolinux("isolinux", seat, BootFrom::Cd);
}

#[test]
fn isolinux_boots_linux_from_the_same_image_as_a_disk() {
    let seat = Seat::IdeDisk {
        channel: 0,
        unit: 0,
    };
    isolinux("isolinux-disk", seat, BootFrom::Disk);
}

#[test]
fn isolinux_boots_linux_from_the_same_image_as_a_virtio_disk() {
    isolinux("isolinux-disk", Seat::Virtio, BootFrom::Disk);
}

#[test]
fn the_table_is_sound_and_apt_knows_every_package() {
    for (n, guest) in catalogue::ALL.iter().enumerate() {
        let before = &catalogue::ALL[..n];
        assert!(
            before.iter().all(|other| other.name != guest.name),
            "{}",
            guest.name
        );
        assert!(
            !guest.sources.is_empty() && !guest.boot.is_empty(),
            "{}",
            guest.name
        );
        assert!(!guest.about.ends_with('.'), "{}", guest.name);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guests/lists");
    for architecture in [Architecture::Amd64, Architecture::I386] {
        let directory = root.join(architecture.name());
        let mut apt = match Apt::new(&directory, architecture, &Silent) {
            Ok(apt) => apt,
            Err(error) => return untested(&error),
        };
        let sources = catalogue::ALL.iter().flat_map(|guest| guest.sources);
        for source in sources.filter(|source| source.architecture == architecture) {
            match apt.find(source.package) {
                Ok(package) => assert!(package.size > 0),
                Err(error) => untested(&error),
            }
        }
    }
}

/// As a script would use it: commands through a pipe, in the guest's own time.
#[test]
fn boot_linux_through_a_pipe_ends_with_the_shell() {
    if fetched("linux").is_none() {
        return;
    }
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guests/cache-home");
    let _ = std::fs::create_dir_all(&cache);
    let _ = std::os::unix::fs::symlink("../cache", cache.join("metaphrase"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_metaphrase"))
        .args(["boot", "linux", "-m", "192"])
        .env("XDG_CACHE_HOME", &cache)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut keys = child.stdin.take().expect("a pipe");
    let mut screen = child.stdout.take().expect("a pipe");
    let mut shown = Vec::new();
    let mut wait = |text: &str| {
        let mut byte = [0];
        while !shown.ends_with(text.as_bytes()) {
            match screen.read(&mut byte) {
                Ok(1) => shown.push(byte[0]),
                end => panic!("{end:?}: {}", String::from_utf8_lossy(&shown)),
            }
        }
    };
    wait("/root # ");
    keys.write_all(b"expr 6 \\* 7; exit\n").expect("it reads");
    wait("42\r\n");
    let out = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(0), "{said}");
    assert!(
        said.starts_with("metaphrase system -m 256 -kernel "),
        "{said}"
    );
}
