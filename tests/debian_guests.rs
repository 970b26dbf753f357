//! A Debian system with its own init as a guest: systemd starts its services, somebody logs in at
//! the serial port, looks around, and switches off. `tests/install-guests` makes the disk, by
//! `src/guests/debian.sh`.

mod guest_kit;

use guest_kit::{Guest, Outcome, image, in_both, user_space};
use metaphrase_devices::image::{self as disks, ImageOptions};
use metaphrase_runtime::machine::pc::{PcConfig, Seat};
use metaphrase_runtime::{Engine, MachineStop};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

/// Warnings that say nothing against the machine.
const HARMLESS: &[&str] = &[
    // PCI Express only.
    "fail to add MMCONFIG information",
    // The kernel's modules are not on the disk.
    "Failed to find module 'autofs4'",
    "Automount Point unsupported",
];

/// A kernel, and where the disk is.
struct Setup {
    flavour: &'static str,
    seat: Seat,
    root: &'static str,
}

const VIRTIO: Setup = Setup {
    flavour: "cloud-amd64",
    seat: Seat::Virtio,
    root: "/dev/vda",
};

const IDE: Setup = Setup {
    flavour: "amd64",
    seat: Seat::IdeDisk {
        channel: 0,
        unit: 0,
    },
    root: "/dev/sda",
};

/// Boots and logs in; every service runs and nothing has complained; and switches off.
fn boots_and_switches_off(engine: Engine, setup: &Setup) -> Option<Outcome> {
    let (kernel, initrd) = user_space::linux(setup.flavour)?;
    let path = image("debian", "debian.img")?;
    // What is written is forgotten. The clock is right for the files.
    let options = ImageOptions {
        snapshot: Some(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))),
        ..ImageOptions::default()
    };
    let disk = disks::open(&path, &options).expect("the disk");
    let modified = path.metadata().and_then(|m| m.modified()).expect("a time");
    let mut guest = Guest::new(engine, 512 << 20, |config: &mut PcConfig| {
        let now = modified.duration_since(UNIX_EPOCH).expect("after 1970");
        config.unix_seconds = now.as_secs();
        config.add_drive(setup.seat, disk);
    });
    let line = format!(
        "console=ttyS0 quiet systemd.show_status=1 cryptomgr.notests panic=-1 root={}",
        setup.root
    );
    guest.load(&kernel, &initrd, &line);
    let reached = |guest: &Guest, what: &str| {
        println!("{engine:?}: {} to {what}", guest.machine.instructions());
    };
    guest.expect("Welcome to", 8_000_000_000);
    reached(&guest, "systemd");
    guest.expect("metaphrase login:", 8_000_000_000);
    reached(&guest, "the prompt");
    guest.type_serial("root\n");
    guest.expect("root@metaphrase:~# ", 4_000_000_000);
    reached(&guest, "the shell");

    let mut ask = |line: &str| user_space::command(&mut guest, line, 4_000_000_000);
    ask("export TERM=dumb PAGER=cat SYSTEMD_COLORS=0");
    let text = ask("systemctl is-system-running --wait; systemctl --failed");
    assert!(text.contains("running\r\n"), "{text}");
    assert!(text.contains("0 loaded units listed"), "{text}");
    let text = ask("uname -a; findmnt -n /; hostname; id -un");
    let disk = format!("{} ext4", setup.root);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("x86_64 GNU/Linux / "), "{text}");
    assert!(text.contains(&disk), "{text}");
    assert!(text.ends_with("metaphrase root"), "{text}");
    let text = ask("dpkg -l | grep -c ^ii; dpkg --audit");
    let packages = text.split_whitespace().next().and_then(|n| n.parse().ok());
    assert!(packages.is_some_and(|n: u32| n > 80), "{text}");
    let text = ask("journalctl -b -p warning -o cat");
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let harmless = HARMLESS.iter().any(|known| line.contains(known));
        assert!(harmless, "{line:?} in the journal:\n{text}");
    }
    reached(&guest, "the end of the commands");

    guest.type_serial("poweroff\n");
    guest.run(8_000_000_000);
    reached(&guest, "the end");
    let text = guest.serial.text();
    assert_eq!(guest.stop, MachineStop::PowerOff, "{text}");
    assert!(text.contains("poweroff.target"), "{text}");
    Some(guest.outcome())
}

#[test]
fn debian_boots_to_a_login_and_switches_off() {
    boots_and_switches_off(Engine::Tiered, &VIRTIO);
}

#[test]
#[ignore = "minutes: see docs/testing.md"]
fn debian_boots_from_an_ide_disk() {
    boots_and_switches_off(Engine::Tiered, &IDE);
}

#[test]
#[ignore = "minutes: see docs/testing.md"]
fn debian_boots_the_same_in_the_interpreter() {
    if image("debian", "debian.img").is_some() {
        in_both(|engine| boots_and_switches_off(engine, &VIRTIO).expect("the kernel"));
    }
}
