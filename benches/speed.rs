//! `cargo bench`: speed of the engines against native code and `qemu-x86_64`, and what translation
//! costs. Medians with their spread; nothing is asserted.
//!
//! Whole processes are compared with whole processes: the same static ELF file runs natively, under
//! `qemu-x86_64` where it is installed, and under `metaphrase user` with each engine.

use metaphrase::guest::{self, Workload};
use metaphrase_backend::Compiler;
use metaphrase_frontend::{Lifted, Limits, Mode, SensitivePolicy, lift_region};
use metaphrase_ir::passes::PassSet;
use metaphrase_runtime::interp::Program;
use metaphrase_runtime::{CpuState, Engine, Options};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const RUNS: usize = 5;

fn main() {
    // `cargo bench -- NAME` runs one workload; `cargo test --benches` only sees that it builds.
    let args: Vec<String> = std::env::args().skip(1).collect();
    if !args.iter().any(|a| a == "--bench") {
        println!("run this with cargo bench");
        return;
    }
    let wanted = args.iter().find(|a| !a.starts_with('-'));
    let chosen: Vec<&Workload> = guest::ALL
        .iter()
        .filter(|w| wanted.is_none_or(|name| w.name == name))
        .collect();
    println!("medians of {RUNS} runs taken in turn; ± is half the distance from least to most\n");
    speed(&chosen);
    start_up();
    interpreter(&chosen);
    translation(&chosen);
}

/// A set of measured times.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn take(mut f: impl FnMut()) -> Times {
        let mut times = Times::default();
        for _ in 0..RUNS {
            let begun = Instant::now();
            f();
            times.0.push(begun.elapsed());
        }
        times
    }

    fn median(&mut self) -> f64 {
        self.0.sort();
        self.0[self.0.len() / 2].as_secs_f64()
    }

    fn spread(&self) -> f64 {
        let (least, most) = (self.0.iter().min(), self.0.iter().max());
        least
            .zip(most)
            .map_or(0.0, |(a, b)| (*b - *a).as_secs_f64() / 2.0)
    }
}

/// The systems to compare, each with the words that come before the program.
fn systems() -> Vec<(&'static str, Vec<&'static str>)> {
    let us = env!("CARGO_BIN_EXE_metaphrase");
    let qemu = Command::new("qemu-x86_64")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    let mut systems = Vec::new();
    if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        systems.push(("native", vec![]));
    }
    if qemu {
        systems.push(("qemu-x86_64", vec!["qemu-x86_64"]));
    } else {
        println!("(qemu-x86_64 is not installed: no column for it)");
    }
    systems.push(("tiered", vec![us, "user", "--engine", "tiered"]));
    systems.push(("jit", vec![us, "user", "--engine", "jit"]));
    systems
}

/// Runs every system in turn, `RUNS` times, on one program.
fn compare(systems: &[(&str, Vec<&str>)], program: &Path, args: &[&str]) -> Vec<Times> {
    let mut times: Vec<Times> = systems.iter().map(|_| Times::default()).collect();
    for _ in 0..RUNS {
        for (n, (_, prefix)) in systems.iter().enumerate() {
            times[n].0.push(process(prefix, program, args));
        }
    }
    times
}

/// Whole processes, side by side.
fn speed(workloads: &[&Workload]) {
    let dir = std::env::temp_dir().join(format!("metaphrase-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory for the guest programs");
    let systems = systems();
    println!("speed: seconds a process, and the ratio to the first column\n");
    print!("{:<8}", "");
    for (name, _) in &systems {
        print!(" {name:>24}");
    }
    println!(" {:>14}", "tiered/qemu");
    let mut against_qemu = Vec::new();
    for workload in workloads {
        let path = program(&dir, workload);
        let mut times = compare(&systems, &path, &[]);
        let medians: Vec<f64> = times.iter_mut().map(Times::median).collect();
        print!("{:<8}", workload.name);
        for (n, t) in times.iter().enumerate() {
            print!(
                " {:>8.3} ±{:<6.3} {:>6.2}x",
                medians[n],
                t.spread(),
                medians[n] / medians[0]
            );
        }
        let place = |name: &str| systems.iter().position(|(n, _)| *n == name);
        if let (Some(t), Some(q)) = (place("tiered"), place("qemu-x86_64")) {
            let ratio = medians[t] / medians[q];
            against_qemu.push(ratio);
            print!(" {ratio:>13.2}x");
        }
        println!();
    }
    if !against_qemu.is_empty() {
        let mean = against_qemu.iter().map(|r| r.ln()).sum::<f64>() / against_qemu.len() as f64;
        println!(
            "geometric mean of tiered/qemu: {:.2}x (below 1: faster than qemu)",
            mean.exp()
        );
    }
    println!();
    // Only temporary files are left behind if this fails.
    let _ = std::fs::remove_dir_all(&dir);
}

/// What a program that does nothing costs.
fn start_up() {
    let busybox = ["/usr/bin/busybox", "/bin/busybox"]
        .map(Path::new)
        .into_iter()
        .find(|p| p.exists());
    let Some(busybox) = busybox else {
        println!("start-up: busybox is not installed\n");
        return;
    };
    let systems = systems();
    let mut times = compare(&systems, busybox, &["true"]);
    println!("start-up: milliseconds for busybox true\n");
    for ((name, _), t) in systems.iter().zip(&mut times) {
        println!(
            "{name:<12} {:>8.2} ±{:.2}",
            t.median() * 1e3,
            t.spread() * 1e3
        );
    }
    println!();
}

/// Writes a workload as an executable file.
fn program(dir: &Path, workload: &Workload) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let code = guest::image(workload, workload.repeat).expect("the workload assembles");
    let path = dir.join(workload.name);
    std::fs::write(&path, guest::elf::file(&code)).expect("the guest program can be written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
        .expect("the guest program can be made executable");
    path
}

/// Runs a program once.
fn process(prefix: &[&str], path: &Path, args: &[&str]) -> Duration {
    let mut command = match prefix.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(path);
            command
        }
        None => Command::new(path),
    };
    let begun = Instant::now();
    let output = command
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .expect("the process starts");
    let time = begun.elapsed();
    assert!(
        output.status.success(),
        "{prefix:?} {path:?}: {}",
        output.status
    );
    time
}

/// The interpreter alone, in this process.
fn interpreter(workloads: &[&Workload]) {
    println!(
        "interpreter\n\n{:<8} {:>14} {:>10} {:>20}",
        "", "instructions", "MIPS", "ns an instruction"
    );
    for workload in workloads {
        let code = guest::image(workload, (workload.repeat / 10).max(1)).expect("it assembles");
        let mut instructions = 0;
        let mut times = Times::default();
        for _ in 0..RUNS {
            let options = Options {
                engine: Engine::Interp,
                ..Options::default()
            };
            let out = guest::run(&code, options).expect("it runs");
            instructions = out.stats.instructions;
            times.0.push(out.time);
        }
        let each = times.median() / instructions as f64;
        let spread = times.spread() * 1e9 / instructions as f64;
        println!(
            "{:<8} {instructions:>14} {:>10.0} {:>13.2} ±{spread:.2}",
            workload.name,
            1e-6 / each,
            each * 1e9
        );
    }
    println!();
}

/// What it costs to translate the workloads' code, by tier.
fn translation(workloads: &[&Workload]) {
    println!("translation: microseconds, and host bytes, a guest instruction\n");
    println!(
        "{:<8} {:>6} {:>12} {:>10} {:>8} {:>8} {:>9} {:>9}",
        "", "insns", "lift+passes", "predecode", "tier 1", "tier 2", "bytes 1", "bytes 2"
    );
    let options = Options::default();
    let compiler = |o: &metaphrase_backend::Options| {
        let mut o = o.clone();
        o.verify_clif = false;
        let table = metaphrase_runtime::helpers::table();
        Compiler::new(CpuState::layout(), table, o).expect("this host compiles")
    };
    let (mut tier1, mut tier2) = (compiler(&options.tier1), compiler(&options.tier2));
    for workload in workloads {
        let code = guest::image(workload, 1).expect("it assembles");
        let blocks = blocks(&code);
        let insns: usize = blocks.iter().map(|b| b.region.guest.len()).sum();
        let per = |mut t: Times, n: usize| t.median() * 1e6 / n.max(1) as f64;
        let lifting = Times::take(|| drop(self::blocks(&code)));
        let predecode = Times::take(|| {
            for b in &blocks {
                std::hint::black_box(Program::new(&b.region).is_ok());
            }
        });
        let mut bytes = [0usize; 2];
        let one = Times::take(|| {
            let compile = |b: &Lifted| tier1.compile(&b.region, 0).map_or(0, |c| c.code.len());
            bytes[0] = blocks.iter().map(compile).sum();
        });
        let start = (code.len() as u64).min(0x45);
        let region = lift(&code, start, Limits::REGION).expect("a region");
        let two = Times::take(|| {
            bytes[1] = tier2.compile(&region.region, 0).map_or(0, |c| c.code.len());
        });
        let n2 = region.region.guest.len();
        println!(
            "{:<8} {insns:>6} {:>12.2} {:>10.2} {:>8.2} {:>8.2} {:>9.0} {:>9.0}",
            workload.name,
            per(lifting, insns),
            per(predecode, insns),
            per(one, insns),
            per(two, n2),
            bytes[0] as f64 / insns.max(1) as f64,
            bytes[1] as f64 / n2.max(1) as f64
        );
    }
}

/// Lifts and optimises, as the runtime does.
fn lift(code: &[u8], pc: u64, limits: Limits) -> Option<Lifted> {
    let policy = SensitivePolicy::default();
    let mut lifted = lift_region(pc, Mode::LONG, &code, limits, &policy).ok()?;
    let passes = PassSet {
        verify: false,
        ..PassSet::default()
    };
    metaphrase_ir::passes::run(&mut lifted.region, &passes).ok()?;
    Some(lifted)
}

/// The code's blocks, each where the one before ended.
fn blocks(code: &[u8]) -> Vec<Lifted> {
    let mut at = 0;
    std::iter::from_fn(|| {
        let lifted = lift(code, at, Limits::BLOCK)?;
        at += u64::from(lifted.bytes.max(1));
        Some(lifted)
    })
    .collect()
}
