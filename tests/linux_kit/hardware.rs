//! A virtio disk and a small IDE disk that a guest reads and writes, a source of randomness and a
//! second console; what the guest has to say of them, and what the host finds on the disks.

use crate::guest_kit::{Guest, Outcome, Printed};
use metaphrase_devices::image::RawDisk;
use metaphrase_runtime::machine::pc::{PcConfig, Seat};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The modules for them.
pub const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "virtio_console",
    "ata_piix",
    "sd_mod",
];

/// Bytes of a disk, and how many of the first half have something in them.
const DISK: usize = 8 << 20;
const FILLED: usize = 256 << 10;
/// Where the guest writes: the second half.
const PLACE: usize = 4 << 20;

/// What comes from the source of randomness, so that it is known when it is seen.
const RANDOM: u8 = b'R';

const TYPED: &str = "typed at the other console";
/// What the guest says before it reads that.
pub const WAITING: &str = "waiting at the other console";

/// What the guest does: it hashes what the disks hold, writes there beyond it, and looks for the
/// rest. The slave at the first channel is the small disk.
pub const SCRIPT: &str = r#"slave=/sys/bus/pci/devices/*/ata1/host*/target*:1/*:1:0/block
until small=$(ls $slave 2>/dev/null); do sleep 1; done
for d in vda $small; do
    until [ -b /dev/$d ]; do sleep 1; done
    echo $d held $(dd if=/dev/$d bs=64k count=4 2>/dev/null | sha256sum)
    dd if=/bin/busybox of=/dev/$d bs=64k seek=64 conv=fsync 2>/dev/null
    echo 1 >/proc/sys/vm/drop_caches
done
echo random: $(cat /sys/class/misc/hw_random/rng_current) $(dd if=/dev/hwrng bs=8 count=1 2>/dev/null)
echo said at the other console >/dev/hvc0
{ echo waiting at the other console; read -t 100 line; echo heard: $line; } </dev/hvc0
cat /proc/interrupts /sys/devices/system/clocksource/clocksource0/available_clocksource"#;

/// The hash that a program of the host finds.
pub fn host_hash(path: &Path) -> String {
    let out = Command::new("sha256sum").arg(path).output();
    let out = String::from_utf8_lossy(&out.expect("sha256sum").stdout).into_owned();
    out.split(' ').next().unwrap_or_default().to_owned()
}

/// The same of some bytes.
pub fn host_hash_of(bytes: &[u8]) -> String {
    let file = Scratch::new(bytes);
    host_hash(&file.0)
}

/// Bytes without a pattern.
pub fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let mut step = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 56) as u8
    };
    (0..len).map(|_| step()).collect()
}

/// A file that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(content: &[u8]) -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let n = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("hardware-{}-{n}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, content).expect("a file");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The disks of up to two machines, one after the other, and what they say at the other console.
pub struct Hardware {
    disks: [[Scratch; 2]; 2],
    consoles: [Printed; 2],
    made: Cell<usize>,
}

impl Hardware {
    /// Disks with something in them.
    pub fn new() -> Hardware {
        let disk = |seed| {
            let mut bytes = noise(FILLED, seed);
            bytes.resize(DISK, 0);
            Scratch::new(&bytes)
        };
        Hardware {
            disks: [[disk(1), disk(2)], [disk(1), disk(2)]],
            consoles: Default::default(),
            made: Cell::new(0),
        }
    }

    /// Puts it into the next machine.
    pub fn put_into(&self, config: &mut PcConfig) {
        let n = self.made.replace(self.made.get() + 1);
        let slave = Seat::IdeDisk {
            channel: 0,
            unit: 1,
        };
        for (seat, disk) in [Seat::Virtio, slave].into_iter().zip(&self.disks[n]) {
            let raw = RawDisk::open(&disk.0, false).expect("the disk");
            config.add_drive(seat, Box::new(raw));
        }
        config.entropy = Some(Box::new(|bytes: &mut [u8]| bytes.fill(RANDOM)));
        config.console = Some(self.consoles[n].sink());
    }

    /// Types at the other console. A driver throws away what comes before somebody reads there.
    pub fn type_text(&self, guest: &Guest) {
        let console = guest.board.console.as_ref().expect("the other console");
        let text = format!("{TYPED}\n");
        let taken = console.lock().device.receive(text.as_bytes());
        assert_eq!(taken, text.len());
        console.lock().poll();
    }

    /// Compares what the guest has said with what is there, in every machine that was made.
    pub fn check(&self, outcome: &Outcome, busybox: &Path) {
        let text = &outcome.serial;
        let busybox = std::fs::read(busybox).expect("busybox-static is installed");
        for n in 0..self.made.get() {
            for (disk, seed) in self.disks[n].iter().zip(1..) {
                let held = noise(FILLED, seed);
                let line = format!(" held {}", host_hash_of(&held));
                assert!(text.contains(&line), "{line:?} in {text}");
                let now = std::fs::read(&disk.0).expect("the disk");
                let written = &now[PLACE..][..busybox.len()];
                assert_eq!(host_hash_of(written), host_hash_of(&busybox), "{text}");
                assert!(now[..FILLED] == held, "what was there is there still");
                let rest = now[FILLED..PLACE].iter();
                let rest = rest.chain(&now[PLACE + busybox.len()..]);
                assert!(rest.copied().all(|b| b == 0), "nothing else was written");
            }
            let said = self.consoles[n].text();
            assert!(said.contains("said at the other console\r\n"), "{said:?}");
        }
        for line in ["random: virtio_rng.0 RRRRRRRR", &format!("heard: {TYPED}")] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
        let clocks = text.lines().find(|line| line.starts_with("tsc "));
        let clocks = clocks.expect("the list of clocks");
        assert!(clocks.contains("hpet"), "{clocks:?} in {text}");
        interrupts_come(text, &["-req.0", "-input"]);
    }
}

/// The interrupts of the board's devices and messages have come, as the guest's table of them says.
fn interrupts_come(text: &str, messages: &[&str]) {
    let count = |row: &dyn Fn(&str) -> bool| {
        let row = text.lines().find(|line| row(line));
        let row = row.unwrap_or_else(|| panic!("no such interrupt in {text}"));
        let count = row.split_whitespace().nth(1).map(str::parse::<u64>);
        assert!(matches!(count, Some(Ok(1..))), "{row:?} in {text}");
    };
    for name in messages {
        count(&|line| line.contains("PCI-MSI") && line.trim_end().ends_with(name));
    }
    count(&|line| line.contains("IO-APIC  14-edge"));
    count(&|line| line.contains("IO-APIC   4-edge"));
    count(&|line| line.trim_start().starts_with("LOC:"));
}
