//! Kernels that are no Linux, from Debian packages, in the formats of boot loaders.
//! `tests/install-guests` fetches the images.

mod guest_kit;

use guest_kit::{Guest, in_both, read_image};
use metaphrase_runtime::MachineStop;

/// GNU Mach, a Multiboot ELF file linked high, compressed by gzip. Its end without modules is fixed:
/// there is nothing to run.
#[test]
fn gnu_mach_gets_as_far_as_it_can_without_the_hurd() {
    let Some(kernel) = read_image("boot", "gnumach-1.8-486.gz") else {
        return;
    };
    let outcome = in_both(|engine| {
        let mut guest = Guest::new(engine, 64 << 20, |_| {});
        guest.load(&kernel, &[], "console=com0");
        guest.expect("No bootstrap code loaded with the kernel!", 3_000_000_000);
        guest.outcome()
    });
    let text = &outcome.serial;
    assert!(text.starts_with("GNU Mach 1.8"), "{text}");
    assert!(
        text.contains("000000000000100000:000000000004000000, available"),
        "the memory map: {text}"
    );
    assert!(text.contains("Intel 82371 PIIX3"), "the PCI bus: {text}");
    assert!(text.contains("RTC time is 2025-01-01 00:00"), "{text}");
}

/// Xen, a Multiboot ELF file, goes back to real mode for BIOS services before it starts. Without a
/// first guest it panics and halts.
#[test]
fn xen_panics_for_want_of_a_first_guest() {
    let Some(kernel) = read_image("boot", "xen-4.17-amd64.gz") else {
        return;
    };
    let outcome = in_both(|engine| {
        let mut guest = Guest::new(engine, 128 << 20, |_| {});
        guest.load(&kernel, &[], "console=com1 com1=115200 noreboot");
        guest.run(100_000_000);
        guest.outcome()
    });
    let text = &outcome.serial;
    assert_eq!(outcome.stop, MachineStop::Halted, "{text}");
    assert!(text.starts_with("(XEN) Xen version 4.17"), "{text}");
    assert!(text.contains("Bootloader: metaphrase"), "{text}");
    assert!(
        text.contains("dom0 kernel not specified"),
        "its last words: {text}"
    );
}
