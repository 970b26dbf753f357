//! Debian kernels of every flavour as guests: to user space and to power off, with disks and discs,
//! in the interpreter and in the tiered engine. What the kernels warn of is a failure.
//! `tests/install-guests` fetches them.

mod guest_kit;
mod linux_kit;

use guest_kit::{Guest, Outcome, image, read_image};
use linux_kit::hardware::{self, Hardware, host_hash};
use linux_kit::network::{self, Network};
use linux_kit::{AMD64, CLOUD, I686, I686_PAE, Kernel, Run, Setup};
use metaphrase_devices::image::RawDisk;
use metaphrase_runtime::Engine;
use metaphrase_runtime::machine::pc::{PcConfig, Seat};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Modules for disks and discs at the IDE controller.
const STORAGE: &[&str] = &[
    "ata_piix",
    "sd_mod",
    "sr_mod",
    "ext4",
    "isofs",
    "crc32c_generic",
];

/// The first drive, and the one at the other cable.
const DISK: Seat = Seat::IdeDisk {
    channel: 0,
    unit: 0,
};
const DISC: Seat = Seat::IdeCd {
    channel: 1,
    unit: 0,
};

const SECTOR: u64 = 512;
/// The partition on the disk: where it begins, which takes more than 28 bits, and its length.
const START: u64 = 280_000_000;
const SECTORS: u64 = 65_536;

/// A kernel mounts its file systems, runs a script, hashes a file of two megabytes, and powers off.
fn user_space(
    kernel: &Kernel,
    setup: Setup<'_>,
    adjust: impl Fn(&mut PcConfig),
) -> Option<Outcome> {
    let script = format!(
        "echo user space: $(uname -m) $((6 * 7))\n\
         sha256sum /bin/busybox\n\
         for i in 1 2; do sleep 1; done\n\
         ls /sys/bus/pci/devices\n\
         grep timer /proc/interrupts\n\
         {}",
        setup.script
    );
    let setup = Setup {
        script: &script,
        budget: 12_000_000_000,
        ..setup
    };
    let outcome = kernel.boot(&setup, adjust)?;
    let text = &outcome.serial;
    let greeting = format!("user space: {} 42", kernel.machine());
    assert!(text.contains(&greeting), "{text}");
    assert!(text.contains(&host_hash(&kernel.busybox())), "{text}");
    assert!(text.contains("0000:00:01.1"), "the PCI bus: {text}");
    assert!(
        text.contains("IO-APIC   2-edge"),
        "the timer's line: {text}"
    );
    Some(outcome)
}

/// A kernel's self-tests of cryptography would be most of the instructions of a boot.
const FEWER_TESTS: Setup<'static> = Setup {
    run: Run::Compared,
    begin: None,
    when: None,
    modules: &[],
    options: "cryptomgr.notests",
    script: "",
    budget: 0,
};

/// With a disk at the IDE controller and one on the PCI bus, a source of randomness and a second
/// console, the same in both engines.
fn disks(kernel: &Kernel) {
    let hardware = Hardware::new();
    let setup = Setup {
        when: Some((hardware::WAITING, &|guest| hardware.type_text(guest))),
        modules: hardware::MODULES,
        script: hardware::SCRIPT,
        ..FEWER_TESTS
    };
    if let Some(outcome) = user_space(kernel, setup, |config| hardware.put_into(config)) {
        hardware.check(&outcome, &kernel.busybox());
        // A kernel measures it, which comes out right only if the host keeps it from nothing.
        let text = &outcome.serial;
        assert!(text.contains("tsc hpet acpi_pm"), "{text}");
    }
}

#[test]
fn the_cloud_kernel_reaches_user_space_and_uses_its_disks() {
    disks(&CLOUD);
}

#[test]
fn the_686_kernel_reaches_user_space_and_uses_its_disks() {
    disks(&I686);
}

/// All of that, and a network, in the time of the host. What is `further` has its script run too.
fn with_network(
    kernel: &Kernel,
    further: Setup<'_>,
    adjust: impl Fn(&mut PcConfig),
) -> Option<Outcome> {
    let (hardware, network) = (Hardware::new(), Network::new());
    let modules = [hardware::MODULES, further.modules].concat();
    let script = [hardware::SCRIPT, network::SCRIPT, further.script].join("\n");
    let setup = Setup {
        run: Run::RealTime,
        begin: Some(&|guest| network.begin(guest)),
        when: Some((hardware::WAITING, &|guest| hardware.type_text(guest))),
        modules: &modules,
        script: &script,
        ..FEWER_TESTS
    };
    let outcome = user_space(kernel, setup, |config| {
        hardware.put_into(config);
        network.put_into(config);
        adjust(config);
    })?;
    hardware.check(&outcome, &kernel.busybox());
    network.check(&outcome, &kernel.busybox());
    Some(outcome)
}

#[test]
fn the_cloud_kernel_is_reached_through_its_network() {
    with_network(&CLOUD, FEWER_TESTS, |_| {});
}

#[test]
fn the_686_kernel_is_reached_through_its_network() {
    with_network(&I686, FEWER_TESTS, |_| {});
}

/// A disk of 160 GB, which takes no room where nothing was written, with one partition.
fn make_disk(path: &Path) {
    let mut file = File::create(path).expect("a file");
    file.set_len(160 << 30).expect("its length");
    let mut sector = [0; SECTOR as usize];
    sector[446 + 4] = 0x83;
    sector[446 + 8..][..4].copy_from_slice(&(START as u32).to_le_bytes());
    sector[446 + 12..][..4].copy_from_slice(&(SECTORS as u32).to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    file.write_all(&sector).expect("the first sector");
}

fn partition(path: &Path) -> Vec<u8> {
    let mut file = File::open(path).expect("the disk");
    let mut bytes = vec![0; (SECTORS * SECTOR) as usize];
    file.seek(SeekFrom::Start(START * SECTOR)).expect("a place");
    file.read_exact(&mut bytes).expect("the partition");
    bytes
}

/// Finds the partition of the master at the first channel. Linux looks at its disks side by side, so
/// their letters may be in any order.
const FIND_DISK: &str = "master=/sys/bus/pci/devices/*/ata1/host*/target*:0/*:0:0/block\n\
    until disk=$(ls $master 2>/dev/null) && [ -b /dev/${disk}1 ]; do sleep 1; done\n\
    part=/dev/${disk}1";

/// One kernel makes a file system beyond what 28 bits can address and fills it. The other reads it,
/// and a disc. Both do all that the others do besides.
#[test]
fn the_686_pae_and_the_amd64_kernel_use_their_networks_and_share_a_disk() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let disk = directory.join(format!("linux-{}.img", std::process::id()));
    make_disk(&disk);
    let setup = Setup {
        modules: STORAGE,
        script: &format!(
            "{FIND_DISK}\n\
            mke2fs $part >/dev/null && mount -t ext4 $part /mnt\n\
            cp /bin/busybox /mnt/copy && echo a note of the guest >/mnt/note\n\
            umount /mnt && mount -t ext4 -o ro $part /mnt && sha256sum /mnt/copy\n\
            umount /mnt"
        ),
        ..FEWER_TESTS
    };
    let written = with_network(&I686_PAE, setup, |config| {
        let raw = RawDisk::open(&disk, false).expect("the disk");
        config.add_drive(DISK, Box::new(raw));
    });
    let Some(written) = written else { return };
    let hash = host_hash(&I686_PAE.busybox());
    let line = format!("{hash}  /mnt/copy");
    assert!(written.serial.contains(&line), "{}", written.serial);
    let first = partition(&disk);
    assert_eq!(first[1024 + 56..][..2], [0x53, 0xef], "a file system");
    let note = b"a note of the guest";
    assert!(first.windows(note.len()).any(|w| w == note));

    let Some(disc) = image("usr/lib/ipxe", "ipxe.iso") else {
        return;
    };
    let setup = Setup {
        modules: STORAGE,
        script: &format!(
            "{FIND_DISK}\n\
            until [ -b /dev/sr0 ]; do sleep 1; done\n\
            mount -t ext4 -o ro $part /mnt && cat /mnt/note && sha256sum /mnt/copy\n\
            umount /mnt\n\
            sha256sum /dev/sr0\n\
            mount -t iso9660 -o ro /dev/sr0 /mnt && ls /mnt"
        ),
        ..FEWER_TESTS
    };
    let read = with_network(&AMD64, setup, |config| {
        let raw = RawDisk::open(&disk, true).expect("the disk");
        config.add_drive(DISK, Box::new(raw));
        let raw = RawDisk::open(&disc, true).expect("the disc");
        config.add_drive(DISC, Box::new(raw));
    });
    let Some(read) = read else { return };
    let text = &read.serial;
    assert!(text.contains("a note of the guest"), "{text}");
    assert!(text.contains(&line), "{text}");
    let disc_line = format!("{}  /dev/sr0", host_hash(&disc));
    assert!(text.contains(&disc_line), "{text}");
    assert!(text.to_lowercase().contains("ipxe.krn"), "{text}");
    std::fs::remove_file(disk).expect("the disk was there");
}

/// The installer of Debian on the serial line: it asks for the language, and, when it has been
/// answered, for the country.
fn installer(architecture: &str) {
    let directory = format!("installer/{architecture}");
    let [kernel, initrd] = ["linux", "initrd.gz"].map(|name| read_image(&directory, name));
    let (Some(kernel), Some(initrd)) = (kernel, initrd) else {
        return;
    };
    let mut guest = Guest::new(Engine::Tiered, 1 << 30, |_| {});
    let line = "console=ttyS0,115200 DEBIAN_FRONTEND=text";
    guest.load(&kernel, &initrd, line);
    guest.expect("Choose the language", 60_000_000_000);
    guest.expect("Prompt: '?' for help", 1_000_000_000);
    println!("{} instructions", guest.machine.instructions());
    guest.type_serial("\n");
    guest.expect("Select your location", 10_000_000_000);
    let outcome = guest.outcome();
    println!(
        "{architecture}: {} instructions, digest {:#018x}",
        outcome.instructions, outcome.digest
    );
}

#[test]
#[ignore = "minutes: see docs/testing.md"]
fn the_installer_for_amd64_asks_its_questions() {
    installer("amd64");
}

#[test]
#[ignore = "minutes: see docs/testing.md"]
fn the_installer_for_i386_asks_its_questions() {
    installer("i386");
}
