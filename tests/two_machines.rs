//! Two machines in one process, each on a thread of its own, side by side: each does exactly what
//! it does when it is alone.

mod guest_kit;

use guest_kit::{Guest, Outcome, read_image};
use metaphrase_devices::MemoryDisk;
use metaphrase_runtime::Engine;
use metaphrase_runtime::machine::TimeMode;
use metaphrase_runtime::machine::pc::{Display, Seat};
use std::sync::Barrier;

/// SeaBIOS with a display and GRUB on a floppy disk.
fn grub(firmware: &[u8], rom: &[u8], floppy: &[u8]) -> Outcome {
    let mut guest = Guest::new(Engine::Tiered, 64 << 20, |config| {
        config.time = TimeMode::Deterministic { shift: 4 };
        config.firmware = Some(firmware.to_vec());
        config.display = Some(Display::new(rom.to_vec()));
        config.add_drive(Seat::Floppy(0), Box::new(MemoryDisk::new(floppy.to_vec())));
    });
    guest.expect("GNU GRUB", 1_000_000_000);
    guest.run(100_000_000);
    guest.outcome()
}

/// memtest86+ without firmware.
fn memtest(kernel: &[u8]) -> Outcome {
    let mut guest = Guest::new(Engine::Tiered, 8 << 20, |config| {
        config.time = TimeMode::Deterministic { shift: 5 };
    });
    guest.load(kernel, &[], "console=ttyS0,115200");
    guest.run(200_000_000);
    guest.outcome()
}

#[test]
fn machines_side_by_side_do_what_they_do_alone() {
    let seabios = "usr/share/seabios";
    let (Some(firmware), Some(rom), Some(floppy), Some(kernel)) = (
        read_image(seabios, "bios-256k.bin"),
        read_image(seabios, "vgabios-stdvga.bin"),
        read_image("usr/lib/grub-rescue", "grub-rescue-floppy.img"),
        read_image("boot", "memtest86+x64.bin"),
    ) else {
        return;
    };
    let alone = (grub(&firmware, &rom, &floppy), memtest(&kernel));
    let start = Barrier::new(2);
    let together = std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            start.wait();
            grub(&firmware, &rom, &floppy)
        });
        start.wait();
        let second = memtest(&kernel);
        (first.join().expect("the first machine"), second)
    });
    assert_eq!(alone.0, together.0);
    assert_eq!(alone.1, together.1);
    assert!(alone.1.serial.contains("Memtest86+"), "{}", alone.1.serial);
}
