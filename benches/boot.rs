//! `cargo bench --bench boot`: Debian's cloud kernel from its entry to user space and power-off,
//! here and under `qemu-system-x86_64 -accel tcg`, side by side. Wall and processor time of whole
//! processes, medians with their spread; nothing is asserted.
//!
//! QEMU's time holds that of SeaBIOS, which it goes through; ours starts the kernel directly.

use metaphrase::guests::catalogue::Guest;
use metaphrase::guests::{Cache, Check, Silent, fetch};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const RUNS: usize = 5;

/// The first program powers off at once.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 rdinit=/bin/busybox -- poweroff -f";

fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        println!("run this with cargo bench");
        return;
    }
    let guest = Guest::named("linux").expect("the catalogue has it");
    let cache = Cache::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guests/cache"));
    let directory = match fetch(&cache, guest, Check::Sizes, &Silent) {
        Ok(directory) => directory,
        Err(error) => return println!("the kernel cannot be fetched: {error}"),
    };
    let mut systems = vec![
        ("tiered", ours(&directory, "tiered")),
        ("jit", ours(&directory, "jit")),
        ("interp", ours(&directory, "interp")),
    ];
    let qemu = qemu(&directory);
    if is_there(&qemu[0]) {
        systems.insert(0, ("qemu tcg", qemu));
    } else {
        println!("(qemu-system-x86_64 is not installed: no line for it)");
    }
    println!("boot of Debian's cloud kernel: medians of {RUNS} runs taken in turn, in seconds\n");
    println!(
        "{:<10} {:>16} {:>16} {:>9} {:>9}",
        "", "wall", "processor", "wall", "processor"
    );
    let mut times = vec![Vec::new(); systems.len()];
    for _ in 0..RUNS {
        for (n, (_, command)) in systems.iter().enumerate() {
            times[n].push(run(command));
        }
    }
    let mut first = None;
    for ((name, _), runs) in systems.iter().zip(&times) {
        let [wall, cpu] = [0, 1].map(|n| median(runs.iter().map(|run| run[n]).collect()));
        let base = *first.get_or_insert((wall.0, cpu.0));
        println!(
            "{name:<10} {:>8.2} ±{:<6.2} {:>8.2} ±{:<6.2} {:>8.2}x {:>8.2}x",
            wall.0,
            wall.1,
            cpu.0,
            cpu.1,
            wall.0 / base.0,
            cpu.0 / base.1
        );
    }
    println!("\nthe tiered engine, once more with --stats:");
    let mut command = ours(&directory, "tiered");
    command.push("--stats".into());
    let output = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .output();
    if let Ok(output) = output {
        print!("{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The command for one of our engines.
fn ours(directory: &Path, engine: &str) -> Vec<String> {
    let mut command: Vec<String> = vec![env!("CARGO_BIN_EXE_metaphrase").into(), "system".into()];
    command.extend(["--engine".into(), engine.into()]);
    command.extend(kernel(directory));
    command
}

/// The command for QEMU.
fn qemu(directory: &Path) -> Vec<String> {
    let words = ["qemu-system-x86_64", "-accel", "tcg", "-no-reboot"];
    let mut command: Vec<String> = words.map(String::from).into();
    command.extend(kernel(directory));
    command
}

/// What both are given.
fn kernel(directory: &Path) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    [
        "-m",
        "256",
        "-nographic",
        "-kernel",
        &file("vmlinuz"),
        "-initrd",
        &file("initrd"),
        "-append",
        COMMAND_LINE,
    ]
    .map(String::from)
    .into()
}

fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null());
    command.status().is_ok()
}

/// Runs a process to its end: wall time and processor time.
fn run(command: &[String]) -> [f64; 2] {
    let (begun, before) = (Instant::now(), children());
    let status = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("the program starts");
    assert!(status.success(), "{command:?}: {status}");
    [begun.elapsed().as_secs_f64(), children() - before]
}

/// Seconds of processor time, user and system, of all processes waited for so far.
fn children() -> f64 {
    // SAFETY: all zeros are a value of the structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is that of a structure of ours.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// The median, and half the distance from least to most.
fn median(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    (values[values.len() / 2], (most - least) / 2.0)
}
