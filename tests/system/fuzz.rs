//! Random instructions in every mode and at every level, with random tables: no engine panics,
//! hangs, or disagrees with the interpreter, and what is not RAM stays as it was.
//!
//! - `METAPHRASE_STRINGS=N`: so many strings of instructions in each mode and level.
//! - `METAPHRASE_STRING=N`: that one alone, as a failure names it.

mod generate;

use crate::contexts::Context;
use crate::harness::{CODE, Guest, engines};
use crate::tables::{HANDLER, STUBS};
use generate::{LENGTH, Rng, code, handlers, registers, tables};
use metaphrase_runtime::machine::Parts;
use metaphrase_runtime::machine::lockstep::{Compared, compare};
use metaphrase_runtime::memory::PhysMemory;
use metaphrase_runtime::{CpuModel, Machine, MachineStop, Options};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of RAM: less than other guests have, since all of it is cleared for each string.
const RAM: usize = 0x12_0000;
/// Guest instructions that one string may run.
const BUDGET: u64 = 300;
/// How long one string may take on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the ROM behind RAM holds.
const ROM: [u8; 4096] = [0xa5; 4096];

fn machine(options: Options) -> Machine {
    let mut memory = PhysMemory::new();
    memory.add_ram(0, RAM as u64).expect("RAM");
    memory.add_rom(RAM as u64, &ROM).expect("ROM");
    Machine::new(Parts::new(memory, CpuModel::max(), options)).expect("a machine")
}

/// What all strings in a context have in common, and RAM with that in it.
fn common(context: Context) -> (Guest, Vec<u8>) {
    let mut guest = context.guest(Vec::new());
    guest.pieces.retain(|(at, _)| *at < STUBS || *at > HANDLER);
    guest.pieces.extend(handlers(context));
    let mut ram = vec![0; RAM];
    for (at, bytes) in &guest.pieces {
        let at = *at as usize;
        ram[at..at + bytes.len()].copy_from_slice(bytes);
    }
    (guest, ram)
}

/// Makes string `n` in that context the machine's only content.
fn load(machine: &mut Machine, context: Context, common: &(Guest, Vec<u8>), n: u64) {
    let (guest, ram) = common;
    let mut rng = Rng::new(n);
    let code = code(&mut rng);
    machine.reset();
    let memory = machine.memory();
    memory.write_bytes(0, ram);
    memory.write_bytes(CODE, &code);
    for (at, bytes) in tables(&mut rng, context) {
        memory.write_bytes(at, &bytes);
    }
    guest.registers(machine);
    let s = machine.state_mut();
    registers(&mut rng, context, s);
    machine.touch();
}

/// Says which string it was that panicked.
struct Name(Context, u64);

impl Drop for Name {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "string {} in {:?}: {:02x?}",
                self.1,
                self.0,
                code(&mut Rng::new(self.1))
            );
        }
    }
}

/// Stops machines that take too long over a string.
struct Watch {
    flags: Vec<Arc<AtomicU32>>,
    started: Mutex<Instant>,
    over: AtomicBool,
}

impl Watch {
    fn begin(&self) {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn look(&self) {
        while !self.over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
            let started = *self.started.lock().unwrap_or_else(PoisonError::into_inner);
            if started.elapsed() > PATIENCE {
                for flag in &self.flags {
                    flag.store(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Ends the watch, even by a panic.
struct Over<'a>(&'a Watch);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// An environment variable's number.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The options of an engine of the harness.
fn options(name: &str) -> Options {
    let all = engines();
    let found = all.into_iter().find(|(n, _)| *n == name);
    found.expect("an engine").1
}

/// Runs so many strings in each mode and level on fresh machines of these engines, which must agree
/// if there are two.
fn survive(names: &[&str], strings: u64) {
    let strings = number("METAPHRASE_STRINGS").unwrap_or(strings);
    let numbers = match number("METAPHRASE_STRING") {
        Some(n) => n..n + 1,
        None => 0..strings,
    };
    let contexts = Mutex::new(Context::all().into_iter());
    let next = || {
        contexts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next()
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(context) = next() {
                    survive_in(context, names, numbers.clone());
                }
            });
        }
    });
}

/// The same in one mode and level.
fn survive_in(context: Context, names: &[&str], numbers: Range<u64>) {
    let mut machines: Vec<Machine> = names.iter().map(|n| machine(options(n))).collect();
    let common = common(context);
    let watch = Watch {
        flags: machines.iter().map(Machine::stop_flag).collect(),
        started: Mutex::new(Instant::now()),
        over: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        let _over = Over(&watch);
        scope.spawn(|| watch.look());
        for n in numbers {
            let _name = Name(context, n);
            watch.begin();
            for machine in &mut machines {
                load(machine, context, &common, n);
            }
            let stop = run(names, &mut machines);
            assert!(!matches!(stop, MachineStop::Requested(_)), "it hangs");
            let mut rom = [0; 4096];
            for machine in &machines {
                machine.memory().read_bytes(RAM as u64, &mut rom);
                assert!(rom == ROM, "ROM was written to");
            }
        }
    });
    eprintln!("{context:?}: {} instructions", machines[0].instructions());
}

/// Runs what was loaded: one machine, or two side by side.
fn run(names: &[&str], machines: &mut [Machine]) -> MachineStop {
    match machines {
        [first, second] => match compare(first, second, BUDGET, BUDGET).expect("they go on") {
            Compared::Agreed(stop) => stop,
            Compared::Parted(parted) => panic!("{names:?} part: {parted:x?}"),
        },
        _ => machines[0].run(BUDGET).expect("the engine goes on"),
    }
}

/// Strings of a million bytes in all.
const MILLION: u64 = 1_000_000 / LENGTH as u64 + 1;

#[test]
fn random_instructions_in_the_interpreter() {
    survive(&["interpreter"], 40);
}

#[test]
fn random_instructions_in_tier_1() {
    survive(&["interpreter", "tier 1"], 10);
}

#[test]
fn random_instructions_in_tier_2() {
    survive(&["interpreter", "tier 2"], 3);
}

/// A million bytes in each mode and level, in the interpreter.
#[test]
#[ignore = "many minutes: see docs/testing.md"]
fn a_million_random_bytes() {
    survive(&["interpreter"], MILLION);
}

/// The same in compiled code beside the interpreter.
#[test]
#[ignore = "hours: see docs/testing.md"]
fn a_million_random_bytes_compiled() {
    survive(&["interpreter", "tier 1"], MILLION);
    survive(&["interpreter", "tiered"], MILLION);
}
