//! Unmodified guests of a whole system, from Debian packages: memtest86+, a Debian kernel and SeaBIOS. Each
//! runs in the interpreter and in the tiered engine in deterministic time, and both must print the
//! same, execute the same number of instructions, and end with the same registers and RAM.
//! `tests/install-guests` fetches the images.

mod cpio;

use metaphrase_devices::MemoryDisk;
use metaphrase_devices::serial::SerialSink;
use metaphrase_runtime::machine::TimeMode;
use metaphrase_runtime::machine::linux_boot;
use metaphrase_runtime::machine::pc::{PcConfig, pc};
use metaphrase_runtime::{CpuModel, Engine, Machine, MachineStop, Options};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A guest: an image with what it is given.
struct Guest {
    /// A bzImage, or firmware.
    image: PathBuf,
    /// It is firmware; its debug console is what is read.
    firmware: bool,
    initrd: Vec<u8>,
    command_line: &'static str,
    ram: u64,
    shift: u32,
    budget: u64,
}

/// What a run ended with.
#[derive(PartialEq)]
struct Outcome {
    stop: MachineStop,
    text: String,
    instructions: u64,
    digest: u64,
}

/// An image from a package. Without it the test says loudly that nothing was tested, or fails where
/// the guests are required.
fn image(name: &str) -> Option<PathBuf> {
    image_in("boot", name)
}

fn image_in(directory: &str, name: &str) -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guests/system");
    let dir = dir.join(directory);
    let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
    let fits = |p: &PathBuf| {
        let file = p.file_name().unwrap_or_default();
        file.to_string_lossy().starts_with(name)
    };
    let found = entries.map(|e| e.path()).filter(fits).max();
    if found.is_none() {
        let message = format!("no {name}* in {}: run tests/install-guests", dir.display());
        assert!(
            std::env::var_os("METAPHRASE_REQUIRE_GUESTS").is_none(),
            "{message}"
        );
        println!("NOT TESTED: {message}");
    }
    found
}

impl Guest {
    fn run(&self, engine: Engine) -> Outcome {
        let output = Arc::new(Mutex::new(Vec::new()));
        let sink: Box<dyn SerialSink> = Box::new(output.clone());
        let options = Options {
            engine,
            ..Options::default()
        };
        let cpu = CpuModel::from_name("x86-64-v2").expect("a model");
        let mut config = PcConfig::new(self.ram, cpu, options);
        config.time = TimeMode::Deterministic { shift: self.shift };
        let image = std::fs::read(&self.image).expect("the image");
        if self.firmware {
            config.debug_console = Some(sink);
            config.firmware = Some(image.clone());
        } else {
            config.serial = sink;
        }
        let (parts, _board) = pc(config).expect("a PC");
        let mut machine = Machine::new(parts).expect("a machine");
        if !self.firmware {
            linux_boot::load(
                &mut machine,
                self.ram,
                &image,
                &self.initrd,
                self.command_line,
            )
            .expect("a bzImage");
        }
        let stop = machine.run(self.budget).expect("the engine goes on");
        let text = String::from_utf8_lossy(&output.lock().expect("output")).into_owned();
        Outcome {
            stop,
            text,
            instructions: machine.instructions(),
            digest: machine.digest(),
        }
    }

    /// Runs in both engines; what they agree on.
    fn agree(&self) -> Outcome {
        let [a, b] = [Engine::Interp, Engine::Tiered].map(|engine| self.run(engine));
        println!(
            "{}: {} instructions, digest {:#018x}",
            self.image.display(),
            a.instructions,
            a.digest
        );
        assert_eq!(a.text, b.text, "what the guest prints");
        assert_eq!(a.instructions, b.instructions);
        assert_eq!(a.digest, b.digest, "registers and RAM");
        assert_eq!(a.stop, b.stop);
        a
    }
}

fn memtest(name: &str) {
    let Some(kernel) = image(name) else { return };
    let guest = Guest {
        image: kernel,
        firmware: false,
        initrd: Vec::new(),
        command_line: "console=ttyS0,115200",
        ram: 8 << 20,
        shift: 5,
        budget: 400_000_000,
    };
    let outcome = guest.agree();
    let text = &outcome.text;
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
    let Some(kernel) = image("vmlinuz-") else {
        return;
    };
    let script = "#!/bin/busybox sh\n\
        /bin/busybox mount -t proc proc /proc\n\
        /bin/busybox mount -t sysfs sys /sys\n\
        echo user space: $(/bin/busybox uname -m) $((6 * 7))\n\
        /bin/busybox sha256sum /bin/busybox\n\
        /bin/busybox poweroff -f\n";
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut archive = cpio::Archive::default();
    for directory in ["bin", "dev", "proc", "sys"] {
        archive.directory(directory);
    }
    archive.file("bin/busybox", &busybox);
    archive.file("init", script.as_bytes());
    archive.device("dev/console", 5, 1);
    let guest = Guest {
        image: kernel,
        firmware: false,
        initrd: archive.finish(),
        command_line: "console=ttyS0 quiet panic=-1 nokaslr",
        ram: 128 << 20,
        shift: 2,
        budget: 5_000_000_000,
    };
    let outcome = guest.agree();
    let text = &outcome.text;
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
    let Some(image) = image_in("usr/share/seabios", "bios-256k.bin") else {
        return;
    };
    let guest = Guest {
        image,
        firmware: true,
        initrd: Vec::new(),
        command_line: "",
        ram: 64 << 20,
        shift: 4,
        budget: 30_000_000,
    };
    let outcome = guest.agree();
    let text = &outcome.text;
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
    let Some(image) = image_in("usr/share/seabios", "bios-256k.bin") else {
        return;
    };
    let mut sectors = vec![0; 1 << 20];
    sectors[..PROGRAM.len()].copy_from_slice(&PROGRAM);
    sectors[510..512].copy_from_slice(&[0x55, 0xaa]);
    sectors[512] = FOUND;
    for engine in [Engine::Interp, Engine::Tiered] {
        let options = Options {
            engine,
            ..Options::default()
        };
        let cpu = CpuModel::from_name("x86-64-v2").expect("a model");
        let mut config = PcConfig::new(64 << 20, cpu, options);
        config.time = TimeMode::Deterministic { shift: 4 };
        config.firmware = Some(std::fs::read(&image).expect("the image"));
        config.disk = Some(Box::new(MemoryDisk::new(sectors.clone())));
        config.debug_exit = Some(0x501);
        let (parts, _board) = pc(config).expect("a PC");
        let mut machine = Machine::new(parts).expect("a machine");
        let stop = machine.run(100_000_000).expect("the engine goes on");
        assert_eq!(stop, MachineStop::Requested(2 * u32::from(FOUND) + 1));
    }
}
