//! Guests that SeaBIOS boots from floppy disks, discs and hard disks, from Debian packages: what
//! stands on the screen, and what they do with keys. `tests/install-guests` fetches the images.

mod guest_kit;

use guest_kit::{Guest, read_image};
use metaphrase_devices::MemoryDisk;
use metaphrase_devices::keyboard::keys::Key;
use metaphrase_runtime::machine::TimeMode;
use metaphrase_runtime::machine::pc::{BootFrom, Display, PcConfig, Seat};
use metaphrase_runtime::{Engine, MachineStop};

/// Where SeaBIOS is.
const SEABIOS: &str = "usr/share/seabios";

/// A PC with SeaBIOS, a display, and a medium to boot from.
fn booting(engine: Engine, seat: Seat, medium: &[u8]) -> Option<Guest> {
    let firmware = read_image(SEABIOS, "bios-256k.bin")?;
    let rom = read_image(SEABIOS, "vgabios-stdvga.bin")?;
    Some(Guest::new(engine, 64 << 20, |config: &mut PcConfig| {
        config.time = TimeMode::Deterministic { shift: 4 };
        config.firmware = Some(firmware);
        config.display = Some(Display::new(rom));
        config.boot_order = vec![match seat {
            Seat::Floppy(_) => BootFrom::Floppy,
            Seat::IdeCd { .. } => BootFrom::Cd,
            _ => BootFrom::Disk,
        }];
        config.add_drive(seat, Box::new(MemoryDisk::new(medium.to_vec())));
    }))
}

const CD: Seat = Seat::IdeCd {
    channel: 1,
    unit: 0,
};

/// GRUB comes to its menu or prompt, takes keys, and reads them back.
fn grub(seat: Seat, image: &str) {
    let Some(medium) = read_image("usr/lib/grub-rescue", image) else {
        return;
    };
    for engine in [Engine::Interp, Engine::Tiered] {
        let Some(mut guest) = booting(engine, seat, &medium) else {
            return;
        };
        guest.expect("GNU GRUB  version", 2_000_000_000);
        guest.press(Key::C);
        guest.expect("grub>", 500_000_000);
        guest.type_keys("echo $grub_platform $grub_cpu");
        guest.press(Key::Enter);
        guest.expect("pc i386", 500_000_000);
        assert_eq!(guest.stop, MachineStop::Budget);
    }
}

#[test]
fn grub_boots_from_a_floppy_disk() {
    grub(Seat::Floppy(0), "grub-rescue-floppy.img");
}

#[test]
fn grub_boots_from_a_disc() {
    grub(CD, "grub-rescue-cdrom.iso");
}

/// memtest86+ runs patterns over all memory and finds no error.
fn memtest(seat: Seat, medium: &[u8]) {
    for engine in [Engine::Interp, Engine::Tiered] {
        let Some(mut guest) = booting(engine, seat, medium) else {
            return;
        };
        guest.expect("Memtest86+", 2_000_000_000);
        guest.expect("#2  [", 2_000_000_000);
        let screen = guest.screen();
        assert!(screen.contains("Errors: 0"), "{screen}");
    }
}

#[test]
fn memtest86_boots_from_a_disc() {
    if let Some(medium) = read_image("usr/lib/memtest86+", "memtest86+x64.iso") {
        memtest(CD, &medium);
    }
}

/// The same file that `-kernel` takes is a floppy disk with its boot sector.
#[test]
fn memtest86_boots_from_a_floppy_disk() {
    if let Some(mut medium) = read_image("boot", "memtest86+x64.bin") {
        medium.resize(1440 << 10, 0);
        memtest(Seat::Floppy(0), &medium);
    }
}
