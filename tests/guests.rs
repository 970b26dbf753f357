//! Unmodified guests of a whole system, from Debian packages: memtest86+ and a Debian kernel. Each
//! runs in the interpreter and in the tiered engine in deterministic time, and both must print the
//! same, execute the same number of instructions, and end with the same registers and RAM.
//! `tests/install-guests` fetches the images.

mod cpio;

use metaphrase_devices::serial::SerialSink;
use metaphrase_runtime::machine::TimeMode;
use metaphrase_runtime::machine::linux_boot;
use metaphrase_runtime::machine::pc::{PcConfig, pc};
use metaphrase_runtime::{CpuModel, Engine, Machine, MachineStop, Options};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A guest: an image with what it is given.
struct Guest {
    kernel: PathBuf,
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
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guests/system/boot");
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
        config.serial = sink;
        let (parts, _board) = pc(config).expect("a PC");
        let mut machine = Machine::new(parts).expect("a machine");
        let kernel = std::fs::read(&self.kernel).expect("the image");
        linux_boot::load(
            &mut machine,
            self.ram,
            &kernel,
            &self.initrd,
            self.command_line,
        )
        .expect("a bzImage");
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
            self.kernel.display(),
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
        kernel,
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
        kernel,
        initrd: archive.finish(),
        command_line: "console=ttyS0 quiet panic=-1 nokaslr",
        ram: 128 << 20,
        shift: 2,
        budget: 5_000_000_000,
    };
    let outcome = guest.agree();
    let text = &outcome.text;
    assert_eq!(outcome.stop, MachineStop::Halted, "{text}");
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
    assert!(text.contains("System halted"), "{text}");
}
