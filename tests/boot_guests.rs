//! Kernels that are no Linux, from Debian packages, in the formats of boot loaders.
//! `tests/install-guests` fetches the images.

mod guest_kit;

use guest_kit::{Guest, in_both, read_image};
use metaphrase_runtime::machine::TimeMode;
use metaphrase_runtime::machine::boot::{FirmwareKernel, Format, Kernel, KernelEntry};
use metaphrase_runtime::machine::pc::Display;
use metaphrase_runtime::{Engine, MachineStop};

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

/// GRUB Invaders, a Multiboot kernel with load addresses in its header. It writes to the screen and
/// reads keys from the keyboard controller.
#[test]
fn grub_invaders_plays() {
    let Some(kernel) = read_image("boot", "invaders.exec") else {
        return;
    };
    let outcome = in_both(|engine| {
        let mut guest = Guest::new(engine, 16 << 20, |config| {
            config.display = Some(Display::new(Vec::new()));
        });
        guest.load(&kernel, &[], "");
        guest.run(50_000_000);
        let screen = guest.screen();
        assert!(screen.matches("-*-").count() > 20, "invaders: {screen}");
        assert!(screen.contains("/ \\"), "the ship: {screen}");
        assert!(!screen.contains('|'), "nobody shoots: {screen}");
        guest.type_keys(" ");
        guest.run(50_000_000);
        let screen = guest.screen();
        assert!(screen.contains('|'), "a shot: {screen}");
        guest.outcome()
    });
    assert_eq!(outcome.stop, MachineStop::Budget);
}

/// SeaBIOS, with a kernel to start. An instruction takes 2 to the power of `shift` nanoseconds.
fn through_seabios(engine: Engine, kernel: &Kernel<'_>, shift: u32) -> Option<Guest> {
    const RAM: u64 = 256 << 20;
    let firmware = read_image("usr/share/seabios", "bios-256k.bin")?;
    let rom = read_image("usr/share/seabios", "vgabios-stdvga.bin")?;
    Some(Guest::new(engine, RAM, |config| {
        config.time = TimeMode::Deterministic { shift };
        config.firmware = Some(firmware);
        config.display = Some(Display::new(rom));
        let kernel = FirmwareKernel::new(RAM, kernel);
        config.firmware_kernel = Some(kernel.expect("a bzImage"));
    }))
}

/// iPXE has a 16-bit entry only. Its loader asks the BIOS, and so does what it shows. It measures the
/// processor with the timer, finds no network card, and gives up: firmware has nothing else to boot.
#[test]
fn ipxe_starts_through_firmware() {
    let Some(image) = read_image("boot", "ipxe.lkrn") else {
        return;
    };
    let kernel = Kernel {
        image: &image,
        ..Kernel::default()
    };
    let Some(mut guest) = through_seabios(Engine::Tiered, &kernel, 8) else {
        return;
    };
    guest.expect("Open Source Network Boot Firmware", 1_000_000_000);
    guest.expect("No more network devices", 1_000_000_000);
}

/// What a kernel says of its start when it is told to use the serial port early.
const EARLY: &str = "earlyprintk=ttyS0,115200 nokaslr panic=-1";

/// Debian's kernel by its 16-bit entry: the memory map is the firmware's.
#[test]
fn a_debian_kernel_starts_through_firmware() {
    let Some(image) = read_image("boot", "vmlinuz-") else {
        return;
    };
    let kernel = Kernel {
        image: &image,
        command_line: EARLY,
        entry: KernelEntry::Real,
        ..Kernel::default()
    };
    let Some(mut guest) = through_seabios(Engine::Tiered, &kernel, 2) else {
        return;
    };
    guest.expect("Zone ranges", 3_000_000_000);
    let text = guest.serial.text();
    assert!(text.contains(&format!("Command line: {EARLY}")), "{text}");
    assert!(
        text.contains("[mem 0x0000000000000000-0x000000000009fbff] usable"),
        "the memory map of SeaBIOS: {text}"
    );
    assert!(text.contains("SMBIOS 2"), "its tables: {text}");
}

/// The same without firmware, by its 64-bit entry.
#[test]
fn a_debian_kernel_starts_by_its_64_bit_entry() {
    let Some(image) = read_image("boot", "vmlinuz-") else {
        return;
    };
    let mut guest = Guest::new(Engine::Tiered, 256 << 20, |_| {});
    guest.load_kernel(&Kernel {
        image: &image,
        command_line: EARLY,
        entry: KernelEntry::Long,
        random_seed: Some([7; 32]),
        ..Kernel::default()
    });
    guest.expect("Zone ranges", 3_000_000_000);
    let text = guest.serial.text();
    assert!(text.contains(&format!("Command line: {EARLY}")), "{text}");
    assert!(
        text.contains("[mem 0x0000000000100000-0x000000000fffffff] usable"),
        "our memory map: {text}"
    );
    assert!(text.contains("random: crng init done"), "the seed: {text}");
}

/// The ELF file within a bzImage that is compressed by lz4 in its oldest form: blocks with their
/// length in front, each of literals and copies.
fn vmlinux(image: &[u8]) -> Vec<u8> {
    let number = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().expect("four bytes"));
    let start = 512 * (usize::from(image[0x1f1]) + 1) + number(0x248) as usize;
    // The length of the result follows the blocks.
    let end = start + number(0x24c) as usize - 4;
    assert_eq!(number(start), 0x184c_2102, "lz4, legacy");
    let (mut out, mut at) = (Vec::new(), start + 4);
    while at < end {
        let block_end = at + 4 + number(at) as usize;
        at += 4;
        while at < block_end {
            let token = image[at];
            at += 1;
            let more = |start: u8, at: &mut usize| {
                let mut len = usize::from(start);
                let mut last = if start == 15 { 255 } else { 0 };
                while last == 255 {
                    last = image[*at];
                    len += usize::from(last);
                    *at += 1;
                }
                len
            };
            let literals = more(token >> 4, &mut at);
            out.extend_from_slice(&image[at..at + literals]);
            at += literals;
            if at < block_end {
                let back = usize::from(image[at]) | usize::from(image[at + 1]) << 8;
                at += 2;
                for _ in 0..more(token & 15, &mut at) + 4 {
                    out.push(out[out.len() - back]);
                }
            }
        }
    }
    assert_eq!(out.len(), number(end) as usize);
    out
}

/// Debian's kernel as an ELF file has an entry for PVH.
#[test]
fn a_debian_kernel_starts_by_its_pvh_entry() {
    let Some(image) = read_image("boot", "vmlinuz-") else {
        return;
    };
    let mut guest = Guest::new(Engine::Tiered, 256 << 20, |_| {});
    let format = guest.load_kernel(&Kernel {
        image: &vmlinux(&image),
        command_line: EARLY,
        ..Kernel::default()
    });
    assert_eq!(format, Format::Pvh);
    guest.expect("Zone ranges", 3_000_000_000);
    let text = guest.serial.text();
    assert!(text.contains(&format!("Command line: {EARLY}")), "{text}");
    assert!(text.contains("ACPI: RSDP"), "the root pointer: {text}");
    assert!(!text.contains("crng init done"), "no seed: {text}");
}
