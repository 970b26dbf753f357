//! Unmodified guests of a whole system, from Debian packages: memtest86+, a Debian kernel and SeaBIOS. Each
//! runs in the interpreter and in the tiered engine in deterministic time, and both must print the
//! same, execute the same number of instructions, and end with the same registers and RAM.
//! `tests/install-guests` fetches the images.

mod guest_kit;

use guest_kit::{Guest, in_both, read_image};
use metaphrase_devices::MemoryDisk;
use metaphrase_runtime::machine::TimeMode;
use metaphrase_runtime::machine::pc::Seat;
use metaphrase_runtime::{Engine, MachineStop};

fn memtest(name: &str) {
    let Some(kernel) = read_image("boot", name) else {
        return;
    };
    let outcome = in_both(|engine| {
        let mut guest = Guest::new(engine, 8 << 20, |config| {
            config.time = TimeMode::Deterministic { shift: 5 };
        });
        guest.load(&kernel, &[], "console=ttyS0,115200");
        guest.run(400_000_000);
        guest.outcome()
    });
    let text = &outcome.serial;
    assert!(text.contains("Memtest86+ v"), "the banner: {text:?}");
    let test = (0..10).rev().find(|n| text.contains(&format!("#{n}  [")));
    assert!(test >= Some(3), "patterns ran as far as test {test:?}");
    let counts: Vec<&str> = text
        .split("Errors: ")
        .skip(1)
        .map(|rest| rest.split(' ').next().unwrap_or(""))
        .collect();
    assert!(counts.len() > 3, "the error count was shown");
    assert!(counts.iter().all(|&n| n == "0"), "errors: {counts:?}");
}

#[test]
fn memtest86_64_bit_finds_no_error() {
    memtest("memtest86+x64.bin");
}

#[test]
fn memtest86_32_bit_finds_no_error() {
    memtest("memtest86+ia32.bin");
}

#[test]
fn a_debian_kernel_boots_to_user_space() {
    let Some(kernel) = read_image("boot", "vmlinuz-") else {
        return;
    };
    let script = "#!/bin/busybox sh\n\
        /bin/busybox mount -t proc proc /proc\n\
        /bin/busybox mount -t sysfs sys /sys\n\
        echo user space: $(/bin/busybox uname -m) $((6 * 7))\n\
        /bin/busybox sha256sum /bin/busybox\n\
        /bin/busybox poweroff -f\n";
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut archive = metaphrase::guests::cpio::Archive::default();
    for directory in ["bin", "dev", "proc", "sys"] {
        archive.directory(directory);
    }
    archive.file("bin/busybox", &busybox);
    archive.file("init", script.as_bytes());
    archive.device("dev/console", 5, 1);
    let initrd = archive.finish();
    let outcome = in_both(|engine| {
        let mut guest = Guest::new(engine, 128 << 20, |_| {});
        guest.load(&kernel, &initrd, "console=ttyS0 quiet panic=-1 nokaslr");
        guest.run(5_000_000_000);
        guest.outcome()
    });
    let text = &outcome.serial;
    assert_eq!(outcome.stop, MachineStop::PowerOff, "{text}");
    assert!(text.contains("user space: x86_64 42"), "{text}");
    let native = std::process::Command::new("sha256sum")
        .arg("/bin/busybox")
        .output()
        .expect("sha256sum");
    let native = String::from_utf8_lossy(&native.stdout).into_owned();
    assert!(
        text.contains(native.trim()),
        "the same hash as the host's: {text}"
    );
    assert!(text.contains("Power down"), "{text}");
}

/// SeaBIOS finds no disk. Before, it has moved itself into shadowed RAM, left a handler in SMRAM,
/// and found the board through fw_cfg, PCI and the NVRAM; afterwards it resets the machine.
#[test]
fn seabios_finds_nothing_to_boot_from_and_resets() {
    let Some(image) = read_image("usr/share/seabios", "bios-256k.bin") else {
        return;
    };
    let outcome = in_both(|engine| {
        let mut guest = Guest::new(engine, 64 << 20, |config| {
            config.time = TimeMode::Deterministic { shift: 4 };
            config.firmware = Some(image.clone());
        });
        guest.run(30_000_000);
        guest.outcome()
    });
    let text = &outcome.debug;
    assert!(text.starts_with("SeaBIOS (version"), "{text}");
    assert!(text.contains("len 0x0000000004000000 [RAM]"), "{text}");
    assert!(text.contains("Found 4 PCI devices"), "{text}");
    assert!(text.contains("PS2 keyboard initialized"), "{text}");
    assert!(text.contains("Attempting a hard reboot"), "{text}");
    let again = text.matches("SeaBIOS (version").count();
    assert!(again > 1, "it starts anew after the reset: {text}");
}

/// A boot sector has SeaBIOS read the sector after it, and ends the run with the byte it finds
/// there: through the IDE disk, and the port for exit codes.
#[test]
fn seabios_boots_a_disk_whose_program_gives_the_exit_code() {
    const FOUND: u8 = 0x21;
    #[rustfmt::skip]
    const PROGRAM: [u8; 29] = [
        0x31, 0xc0, 0x8e, 0xc0, 0x8e, 0xd8, // ES and DS: 0
        0xbb, 0x00, 0x7e,                   // to 7E00h
        0xb8, 0x01, 0x02,                   // read one sector,
        0xb9, 0x02, 0x00, 0xba, 0x80, 0x00, // the second of the first disk
        0xcd, 0x13,
        0xa0, 0x00, 0x7e,                   // its first byte
        0xba, 0x01, 0x05, 0xee,             // to port 501h
        0xeb, 0xfe,
    ];
    let Some(image) = read_image("usr/share/seabios", "bios-256k.bin") else {
        return;
    };
    let mut sectors = vec![0; 1 << 20];
    sectors[..PROGRAM.len()].copy_from_slice(&PROGRAM);
    sectors[510..512].copy_from_slice(&[0x55, 0xaa]);
    sectors[512] = FOUND;
    for engine in [Engine::Interp, Engine::Tiered] {
        let mut guest = Guest::new(engine, 64 << 20, |config| {
            config.time = TimeMode::Deterministic { shift: 4 };
            config.firmware = Some(image.clone());
            let seat = Seat::IdeDisk {
                channel: 0,
                unit: 0,
            };
            config.add_drive(seat, Box::new(MemoryDisk::new(sectors.clone())));
            config.debug_exit = Some(0x501);
        });
        guest.run(100_000_000);
        assert_eq!(guest.stop, MachineStop::Requested(2 * u32::from(FOUND) + 1));
    }
}
