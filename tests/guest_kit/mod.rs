//! What the tests with real guests share: finding an image, a PC with what it prints, typing on
//! it, and running the same in two engines.
//!
//! ```ignore
//! let outcome = in_both(|engine| {
//!     let mut guest = Guest::new(engine, 64 << 20, |config| config.firmware = Some(rom.clone()));
//!     guest.expect("login:", 500_000_000);
//!     guest.type_serial("root\n");
//!     guest.expect("# ", 100_000_000);
//!     guest.outcome()
//! });
//! ```
//!
//! Time is deterministic and everything happens after a number of instructions that does not depend
//! on the engine: so both must print the same and end with the same registers and RAM.

#![allow(dead_code, reason = "each test program uses a part of this")]

pub mod user_space;

use metaphrase_devices::keyboard::keys::Key;
use metaphrase_devices::serial::SerialSink;
use metaphrase_runtime::machine::TimeMode;
use metaphrase_runtime::machine::boot::{self, Format, Kernel, Module};
use metaphrase_runtime::machine::pc::{Board, PcConfig, pc};
use metaphrase_runtime::{CpuModel, Engine, Machine, MachineStop, Options};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Instructions between two looks at what the guest has printed.
const STEP: u64 = 500_000;

/// Instructions that a guest gets to take what was typed.
const KEY_TIME: u64 = 200_000;

/// Keys that the guest does not take after so many times [`KEY_TIME`] are an error.
const PATIENCE: u32 = 10_000;

/// What a guest sends somewhere.
#[derive(Clone, Default)]
pub struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    /// The other end of a line.
    pub fn sink(&self) -> Box<dyn SerialSink> {
        Box::new(self.0.clone())
    }

    /// All of it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("what is printed")).into_owned()
    }
}

/// An image from a package: the last file in that directory under `target/guests/system` whose name
/// begins so. Without it the test says loudly that nothing was tested, or fails where the guests are
/// required.
pub fn image(directory: &str, name: &str) -> Option<PathBuf> {
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

/// The content of [`image`].
pub fn read_image(directory: &str, name: &str) -> Option<Vec<u8>> {
    image(directory, name).map(|path| std::fs::read(path).expect("the image"))
}

/// What a run ended with.
#[derive(PartialEq, Debug)]
pub struct Outcome {
    /// Why, if it did not just use up its instructions.
    pub stop: MachineStop,
    /// What the first serial port sent.
    pub serial: String,
    /// What the debug console of firmware got.
    pub debug: String,
    /// Instructions executed.
    pub instructions: u64,
    /// A hash of registers and RAM.
    pub digest: u64,
}

/// A PC under way.
pub struct Guest {
    /// The machine.
    pub machine: Machine,
    /// Its devices.
    pub board: Board,
    /// What the first serial port has sent.
    pub serial: Printed,
    /// What firmware has written to the debug console.
    pub debug: Printed,
    /// What ended the machine.
    pub stop: MachineStop,
    ram: u64,
}

impl Guest {
    /// A PC with that many bytes of RAM in deterministic time, 4 ns an instruction; `adjust` changes
    /// what it is made of.
    pub fn new(engine: Engine, ram: u64, adjust: impl FnOnce(&mut PcConfig)) -> Guest {
        let options = Options {
            engine,
            ..Options::default()
        };
        let cpu = CpuModel::from_name("x86-64-v2").expect("a model");
        let (serial, debug) = (Printed::default(), Printed::default());
        let mut config = PcConfig::new(ram, cpu, options);
        config.time = TimeMode::Deterministic { shift: 2 };
        config.serial = serial.sink();
        config.debug_console = Some(debug.sink());
        adjust(&mut config);
        let (parts, board) = pc(config).expect("a PC");
        Guest {
            machine: Machine::new(parts).expect("a machine"),
            board,
            serial,
            debug,
            stop: MachineStop::Budget,
            ram,
        }
    }

    /// Loads a kernel, as `-kernel`, `-initrd` and `-append` do; no initial RAM disk if it is empty.
    pub fn load(&mut self, image: &[u8], initrd: &[u8], command_line: &str) {
        let initrd = Module {
            content: initrd.to_vec(),
            ..Module::default()
        };
        let modules = std::slice::from_ref(&initrd);
        self.load_kernel(&Kernel {
            image,
            name: "kernel",
            command_line,
            modules: if initrd.content.is_empty() {
                &[]
            } else {
                modules
            },
            ..Kernel::default()
        });
    }

    /// Loads a kernel with all that can be given to it.
    pub fn load_kernel(&mut self, kernel: &Kernel<'_>) -> Format {
        boot::load(&mut self.machine, self.ram, kernel).expect("a kernel")
    }

    /// Runs that many instructions, or until the machine ends, which [`Guest::stop`] says.
    pub fn run(&mut self, budget: u64) {
        if self.stop == MachineStop::Budget {
            self.stop = self.machine.run(budget).expect("the engine goes on");
        }
    }

    /// Runs until `done` says so; false if the budget is used up or the machine ends before that.
    pub fn run_until(&mut self, budget: u64, mut done: impl FnMut(&mut Guest) -> bool) -> bool {
        let mut left = budget;
        loop {
            if done(self) {
                return true;
            }
            if left == 0 || self.stop != MachineStop::Budget {
                return false;
            }
            let step = STEP.min(left);
            self.run(step);
            left -= step;
        }
    }

    /// Runs until this stands on the serial line, on the debug console or on the screen; false if
    /// it does not come.
    pub fn waits_for(&mut self, text: &str, budget: u64) -> bool {
        self.run_until(budget, |guest| guest.printed().contains(text))
    }

    /// As [`Guest::waits_for`], and fails with all that was printed.
    pub fn expect(&mut self, text: &str, budget: u64) {
        if !self.waits_for(text, budget) {
            panic!(
                "{text:?} has not come after {} instructions ({:?}, RIP {:#x}); printed:\n{}",
                self.machine.instructions(),
                self.stop,
                self.machine.state().rip,
                self.printed()
            );
        }
    }

    /// All that the guest has sent, and what stands on the screen.
    pub fn printed(&self) -> String {
        self.serial.text() + &self.debug.text() + &self.screen()
    }

    /// What stands on the screen, if there is one and it is in a text mode.
    pub fn screen(&self) -> String {
        let screen = self.board.vga.as_ref().and_then(|vga| vga.lock().text());
        screen.map_or(String::new(), |screen| screen.text())
    }

    /// Types on the terminal at the serial line. The guest runs while it takes the characters.
    pub fn type_serial(&mut self, text: &str) {
        let mut left = text.as_bytes();
        for _ in 0..PATIENCE {
            let taken = self.board.serial.lock().receive(left);
            left = &left[taken..];
            self.run(KEY_TIME);
            if left.is_empty() {
                return;
            }
        }
        panic!("the guest does not read its serial port");
    }

    /// Types on the keyboard. The guest runs while it takes the keys.
    pub fn type_keys(&mut self, text: &str) {
        for c in text.chars() {
            let (key, shift) = Key::for_char(c).expect("a key for the character");
            if shift {
                self.key(Key::ShiftLeft, true);
            }
            self.press(key);
            if shift {
                self.key(Key::ShiftLeft, false);
            }
        }
    }

    /// Presses a key and lets it go.
    pub fn press(&mut self, key: Key) {
        self.key(key, true);
        self.key(key, false);
    }

    /// A key goes down or up, and the guest runs for a while.
    pub fn key(&mut self, key: Key, pressed: bool) {
        for _ in 0..PATIENCE {
            let taken = self.board.keyboard.lock().key(key, pressed);
            self.run(KEY_TIME);
            if taken {
                return;
            }
        }
        panic!("the guest does not read its keyboard");
    }

    /// What has come of it.
    pub fn outcome(&self) -> Outcome {
        Outcome {
            stop: self.stop,
            serial: self.serial.text(),
            debug: self.debug.text(),
            instructions: self.machine.instructions(),
            digest: self.machine.digest(),
        }
    }
}

/// Does the same in the interpreter and in the tiered engine: what they agree on.
pub fn in_both(run: impl Fn(Engine) -> Outcome) -> Outcome {
    let [a, b] = [Engine::Interp, Engine::Tiered].map(|engine| {
        let outcome = run(engine);
        println!(
            "{engine:?}: {} instructions, digest {:#018x}",
            outcome.instructions, outcome.digest
        );
        outcome
    });
    assert_eq!(a.serial, b.serial, "what the guest prints");
    assert_eq!(a.debug, b.debug, "what the firmware prints");
    assert_eq!(a, b, "what the guest ends with");
    a
}
