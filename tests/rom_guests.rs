//! Firmware other than SeaBIOS in its place: U-Boot and OVMF, each to its command line.
//! `tests/install-guests` fetches them.

mod guest_kit;

use guest_kit::{Guest, in_both, read_image};
use metaphrase_devices::MemoryDisk;
use metaphrase_runtime::machine::TimeMode;
use metaphrase_runtime::machine::pc::{PcConfig, Seat};
use metaphrase_runtime::{Engine, MachineStop};

/// A PC with that ROM, with 32 ns an instruction, for both like to wait.
fn started(engine: Engine, rom: &[u8]) -> Guest {
    Guest::new(engine, 256 << 20, |config: &mut PcConfig| {
        config.time = TimeMode::Deterministic { shift: 5 };
        config.firmware = Some(rom.to_vec());
    })
}

#[test]
fn u_boot_comes_to_its_prompt() {
    let Some(rom) = read_image("usr/lib/u-boot/qemu-x86", "u-boot.rom") else {
        return;
    };
    let outcome = in_both(|engine| {
        let mut guest = started(engine, &rom);
        guest.expect("U-Boot 20", 1_000_000_000);
        guest.expect("DRAM:  256 MiB", 1_000_000_000);
        guest.expect("Hit any key to stop autoboot", 1_000_000_000);
        guest.type_serial(" ");
        guest.expect("=> ", 1_000_000_000);
        guest.type_serial("mw.l 2000000 12345678 100; crc32 2000000 400\n");
        guest.expect("crc32 for 02000000 ... 020003ff ==> ", 1_000_000_000);
        guest.expect("=> ", 1_000_000_000);
        guest.outcome()
    });
    assert_eq!(outcome.stop, MachineStop::Budget);
}

/// The 64-bit one finds a disk and reads from it.
#[test]
fn u_boot_in_64_bits_reads_a_disk() {
    let Some(rom) = read_image("usr/lib/u-boot/qemu-x86_64", "u-boot.rom") else {
        return;
    };
    let mut guest = Guest::new(Engine::Tiered, 64 << 20, |config: &mut PcConfig| {
        config.time = TimeMode::Deterministic { shift: 5 };
        config.firmware = Some(rom);
        let seat = Seat::IdeDisk {
            channel: 0,
            unit: 0,
        };
        config.add_drive(seat, Box::new(MemoryDisk::new(vec![0x5a; 1 << 20])));
    });
    guest.expect("Hit any key to stop autoboot", 1_000_000_000);
    guest.type_serial(" ");
    guest.expect("=> ", 1_000_000_000);
    guest.type_serial("ide reset\r");
    guest.expect("METAPHRASE DISK", 1_000_000_000);
    guest.type_serial("ide read 1000000 7 1; md.b 1000000 4\r");
    guest.expect("01000000: 5a 5a 5a 5a", 1_000_000_000);
    guest.type_serial("bdinfo\r");
    guest.expect("64-bit", 1_000_000_000);
}

#[test]
fn ovmf_comes_to_its_shell() {
    let Some(rom) = read_image("usr/share/ovmf", "OVMF.fd") else {
        return;
    };
    let mut guest = started(Engine::Tiered, &rom);
    guest.expect("EFI Internal Shell", 3_000_000_000);
    guest.expect("UEFI Interactive Shell", 1_000_000_000);
    guest.expect("Shell> ", 1_000_000_000);
    let count = guest.machine.instructions();
    println!("{count} instructions to the shell");
    // Escape ends the wait for a script.
    guest.type_serial("\u{1b}");
    guest.type_serial("memmap\r");
    guest.expect("Total Memory:            255 MB", 1_000_000_000);
    guest.type_serial("reset -s\r");
    guest.run(1_000_000_000);
    println!("{} to the end", guest.machine.instructions());
    assert_eq!(guest.stop, MachineStop::PowerOff, "{}", guest.printed());
}
