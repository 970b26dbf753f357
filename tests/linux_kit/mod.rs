//! Debian kernels as guests: the initial RAM disk with a script that runs on busybox, the kernel's
//! modules in the order in which they must be loaded, and what the kernel has complained about.

pub mod hardware;
pub mod network;

use crate::guest_kit::{Guest, Outcome, image, in_both, read_image};
use metaphrase::guests::cpio::Archive;
use metaphrase_runtime::machine::TimeMode;
use metaphrase_runtime::machine::pc::PcConfig;
use metaphrase_runtime::{Engine, MachineStop};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A kernel from a package, in a directory of its own under `target/guests/system/linux`.
pub struct Kernel {
    /// The directory.
    pub name: &'static str,
    /// User space is i386.
    pub narrow: bool,
}

/// The kernel for the cloud, which has most drivers built in.
pub const CLOUD: Kernel = Kernel::new("cloud-amd64", false);
/// The 64-bit kernel.
pub const AMD64: Kernel = Kernel::new("amd64", false);
/// The 32-bit kernel without physical address extension.
pub const I686: Kernel = Kernel::new("686", true);
/// The 32-bit kernel with it.
pub const I686_PAE: Kernel = Kernel::new("686-pae", true);

/// Where the script's list of complaints begins and ends.
const COMPLAINTS: &str = "-- complaints --";
const END: &str = "-- end --";

/// Warnings of a kernel that say nothing against the machine.
const HARMLESS: &[&str] = &[
    // PCI Express only.
    "fail to add MMCONFIG information",
    // A file system with small inodes.
    "supports timestamps until 2038",
];

/// Words of a kernel in trouble, wherever they stand.
const TROUBLE: &[&str] = &[
    "Oops",
    "BUG:",
    "WARNING:",
    "Call Trace",
    "unstable",
    "nobody cared",
    "soft lockup",
    "hung_task",
    "Uhhuh",
    "insmod:",
];

/// How a kernel is run.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub enum Run {
    /// In deterministic time, in the interpreter and in the tiered engine, which must do the same.
    #[default]
    Compared,
    /// In the time of the host, in the tiered engine: with a network, whose other end has no other.
    RealTime,
}

/// What happens outside of a guest.
pub type Act<'a> = &'a dyn Fn(&Guest);

/// What a boot needs besides the kernel.
#[derive(Clone, Copy, Default)]
pub struct Setup<'a> {
    /// How it is run.
    pub run: Run,
    /// What happens outside once the machine has been made.
    pub begin: Option<Act<'a>>,
    /// What happens outside once the guest has printed that.
    pub when: Option<(&'a str, Act<'a>)>,
    /// Modules that are loaded, with all that they depend on.
    pub modules: &'a [&'a str],
    /// Words of the command line.
    pub options: &'a str,
    /// What the script does once the file systems of the kernel are mounted.
    pub script: &'a str,
    /// The instructions that all of it may take.
    pub budget: u64,
}

impl Kernel {
    const fn new(name: &'static str, narrow: bool) -> Kernel {
        Kernel { name, narrow }
    }

    /// The busybox that it runs.
    pub fn busybox(&self) -> PathBuf {
        if self.narrow {
            Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guests/i386/bin/busybox")
        } else {
            PathBuf::from("/bin/busybox")
        }
    }

    /// What it calls the processor.
    pub fn machine(&self) -> &'static str {
        if self.narrow { "i686" } else { "x86_64" }
    }

    fn directory(&self) -> String {
        format!("linux/{}", self.name)
    }

    fn image(&self) -> Option<Vec<u8>> {
        read_image(&self.directory(), "vmlinuz-")
    }

    /// A module and, before it, what it depends on, by what each says in its file.
    fn order(&self, files: &BTreeMap<String, PathBuf>, name: &str, order: &mut Vec<String>) {
        let name = name.replace('-', "_");
        if name.is_empty() || order.contains(&name) {
            return;
        }
        // A kernel has others built in, as the guest's script will notice.
        let Some(file) = files.get(&name) else { return };
        let content = std::fs::read(file).expect("a module");
        const KEY: &[u8] = b"\0depends=";
        let at = content.windows(KEY.len()).position(|w| w == KEY);
        let rest = at.map_or(&[][..], |at| &content[at + KEY.len()..]);
        let list = rest.split(|&b| b == 0).next().unwrap_or_default();
        for needed in String::from_utf8_lossy(list).split(',') {
            self.order(files, needed, order);
        }
        order.push(name);
    }

    fn initrd(&self, setup: &Setup<'_>) -> Vec<u8> {
        let busybox = std::fs::read(self.busybox()).expect("busybox-static is installed");
        let mut archive = Archive::default();
        for directory in ["bin", "dev", "proc", "sys", "mnt", "modules"] {
            archive.directory(directory);
        }
        archive.file("bin/busybox", &busybox);
        archive.device("dev/console", 5, 1);
        let mut order = Vec::new();
        if !setup.modules.is_empty() {
            let directory = image(&self.directory(), "modules").expect("the modules");
            let mut files = BTreeMap::new();
            find_modules(&directory, &mut files);
            for module in setup.modules {
                self.order(&files, module, &mut order);
            }
            for name in &order {
                let content = std::fs::read(&files[name]).expect("a module");
                archive.file(&format!("modules/{name}.ko"), &content);
            }
        }
        let script = format!(
            "#!/bin/busybox sh\n\
             /bin/busybox --install -s /bin\n\
             export PATH=/bin\n\
             mount -t proc proc /proc\n\
             mount -t sysfs sys /sys\n\
             mount -t devtmpfs dev /dev\n\
             for m in {}; do insmod /modules/$m.ko; done\n\
             {}\n\
             echo clock: $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)\n\
             echo {COMPLAINTS}\n\
             dmesg -r | grep '^<[0-4]>'\n\
             echo {END}\n\
             poweroff -f\n",
            order.join(" "),
            setup.script
        );
        archive.file("init", script.as_bytes());
        archive.finish()
    }

    /// Boots, runs the script, powers off; and the kernel has complained about nothing. `None` if the
    /// kernel is not installed.
    pub fn boot(&self, setup: &Setup<'_>, adjust: impl Fn(&mut PcConfig)) -> Option<Outcome> {
        let kernel = self.image()?;
        let initrd = self.initrd(setup);
        // A host that does other things keeps the guest waiting, which must not look like a clock that
        // goes wrong or a timer that is not connected.
        let (patient, time) = match setup.run {
            Run::RealTime => ("tsc=nowatchdog no_timer_check", TimeMode::RealTime),
            Run::Compared => ("", TimeMode::Deterministic { shift: 2 }),
        };
        let options = setup.options;
        let line = format!("console=ttyS0 panic=-1 nokaslr {patient} {options}");
        let boot = |engine| {
            let mut guest = Guest::new(engine, 256 << 20, |config| {
                config.time = time;
                adjust(config);
            });
            guest.load(&kernel, &initrd, &line);
            if let Some(begin) = setup.begin {
                begin(&guest);
            }
            let start = Instant::now();
            let _watchdog = (setup.run == Run::RealTime).then(|| watch(&guest));
            if let Some((text, act)) = setup.when {
                guest.expect(text, setup.budget);
                act(&guest);
            }
            guest.run(setup.budget);
            println!("{}, {engine:?}: {:?}", self.name, start.elapsed());
            guest.outcome()
        };
        let outcome = match setup.run {
            Run::Compared => in_both(boot),
            Run::RealTime => boot(Engine::Tiered),
        };
        let text = &outcome.serial;
        assert_eq!(outcome.stop, MachineStop::PowerOff, "{text}");
        assert!(text.contains("Power down"), "{text}");
        assert!(text.contains("clock: tsc\r"), "{text}");
        for word in TROUBLE {
            assert!(!text.contains(word), "{word:?} in {text}");
        }
        let complaints = text.split(COMPLAINTS).nth(1).expect("the list");
        let complaints = complaints.split(END).next().expect("its end");
        for line in complaints.lines().filter(|line| !line.is_empty()) {
            let harmless = HARMLESS.iter().any(|known| line.contains(known));
            assert!(harmless, "the kernel complains: {line:?}\n{text}");
        }
        Some(outcome)
    }
}

/// How long a guest may take in the time of the host.
const PATIENCE: Duration = Duration::from_secs(600);

/// Ends the machine if it takes too long: one that waits executes nothing, and so never uses up its
/// instructions. Dropping what is returned ends the watch.
fn watch(guest: &Guest) -> mpsc::Sender<()> {
    let (stop, waker) = (guest.machine.stop_flag(), guest.machine.waker());
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || {
        if wait.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            stop.store(1, Ordering::Relaxed);
            waker.wake();
        }
    });
    done
}

fn find_modules(directory: &Path, files: &mut BTreeMap<String, PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("modules").flatten() {
        let path = entry.path();
        if path.is_dir() {
            find_modules(&path, files);
        } else if path.extension().is_some_and(|e| e == "ko") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            files.insert(name.replace('-', "_"), path.clone());
        }
    }
}
