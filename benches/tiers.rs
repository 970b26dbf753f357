//! What starting a program costs, and what each threshold of the tiers does for programs of
//! different kinds; see `docs/tiers.md`.
//!
//! `cargo bench --bench tiers` measures everything. Words choose parts: `start`, or the names of
//! settings: `cargo bench --bench tiers -- start tier1-threshold`.
//!
//! A setting's values and the defaults take turns, so that a busy machine is busy for all of them;
//! each figure is the ratio of medians to the defaults, in wall time and in CPU time of all threads.

use metaphrase::guest;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Turns for each value of a setting.
const TURNS: usize = 9;
/// Turns for the start-up cost.
const STARTS: usize = 41;

/// The settings, each with the values to try beside the default.
const SETTINGS: [(&str, &[&str]); 7] = [
    ("tier1-threshold", &["10", "30", "60", "200"]),
    ("warm-up", &["0", "1000000"]),
    ("queue-limit", &["8", "64", "1024"]),
    ("tier2-samples", &["1", "3", "10", "40"]),
    ("slice", &["30000", "300000"]),
    ("no-quick", &[""]),
    ("no-regions", &[""]),
];

const US: &str = env!("CARGO_BIN_EXE_metaphrase");

fn main() {
    // `cargo test --benches` only sees that it builds.
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !words.iter().any(|w| w == "--bench") {
        println!("run this with cargo bench");
        return;
    }
    let names: Vec<&String> = words.iter().filter(|w| !w.starts_with('-')).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| *n == name);
    let dir = std::env::temp_dir().join(format!("metaphrase-tiers-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory for the guests' files");
    let guests = guests(&dir);
    if wanted("start") {
        start_up();
    }
    for (name, values) in SETTINGS {
        if wanted(name) {
            setting(name, values, &guests);
        }
    }
    // Only temporary files are left behind if this fails.
    let _ = fs::remove_dir_all(&dir);
}

/// A program with its arguments.
struct Guest {
    name: &'static str,
    words: Vec<String>,
}

/// The guests that are there.
fn guests(dir: &Path) -> Vec<Guest> {
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, bytes).expect("the guests' files can be written");
        path.to_string_lossy().into_owned()
    };
    // Text that compresses neither too well nor badly.
    let mut x = 1u32;
    let text: Vec<u8> = std::iter::repeat_with(|| {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"etaoin shrdlu\n"[(x >> 24) as usize % 14]
    })
    .take(1 << 20)
    .collect();
    let text = file("text", &text);
    let script = file(
        "loop.sh",
        b"i=0\nwhile [ $i -lt 2000 ]; do i=$((i+1)); s=\"x$i\"; case $s in *y*) echo no;; esac; done\n\
          f() { for w in $*; do n=$((n+${#w})); done; }\n\
          for k in 1 2 3 4 5 6 7 8 9; do f a bb ccc dddd eeeee; done; echo $n\n",
    );
    let lua = file(
        "sort.lua",
        b"local t = {}\nfor i = 1, 30000 do t[i] = (i * 7919) % 10007 end\ntable.sort(t)\n\
          local s = {}\nfor i = 1, #t, 100 do s[#s + 1] = string.format('%d:%s', i, t[i]) end\n\
          print(#table.concat(s, ','))\n",
    );
    let mut all = vec![
        ("true", "busybox", vec!["true".to_string()]),
        ("bash", "bash-static", vec![script]),
        ("sha256", "busybox", vec!["sha256sum".into(), text.clone()]),
        ("lua", "lua5.4", vec![lua]),
        ("gzip", "gzip", vec!["-9c".into(), text]),
    ]
    .into_iter()
    .filter_map(|(name, program, args)| {
        let Some(path) = find(program) else {
            println!("({program} is not installed)");
            return None;
        };
        let mut words = vec![path.to_string_lossy().into_owned()];
        words.extend(args);
        Some(Guest { name, words })
    })
    .collect::<Vec<Guest>>();
    for workload in guest::ALL {
        use std::os::unix::fs::PermissionsExt;
        let repeat = (workload.repeat / 20).max(1);
        let code = guest::image(workload, repeat).expect("the workload assembles");
        let path = file(workload.name, &guest::elf::file(&code));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .expect("the guest program can be made executable");
        all.push(Guest {
            name: workload.name,
            words: vec![path],
        });
    }
    all
}

fn find(program: &str) -> Option<PathBuf> {
    let dirs = ["/usr/bin", "/bin"].map(Path::new);
    dirs.iter().map(|d| d.join(program)).find(|p| p.exists())
}

/// Wall and CPU time of a process, in milliseconds.
fn run(words: &[&str]) -> (f64, f64) {
    let before = children_cpu();
    let begun = Instant::now();
    let status = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .status()
        .expect("the process starts");
    let wall = begun.elapsed().as_secs_f64() * 1e3;
    assert!(status.success(), "{words:?}: {status}");
    (wall, (children_cpu() - before).as_secs_f64() * 1e3)
}

/// CPU time of the children that have ended.
fn children_cpu() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the structure is ours, and all zero is valid for it; the call only writes to it.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// One table: a setting's values against the defaults, for every guest.
fn setting(name: &str, values: &[&str], guests: &[Guest]) {
    println!(
        "\n{name}: wall / CPU time, as ratios to the defaults' medians (ms in the first row)\n"
    );
    print!("{:<9}", "");
    for guest in guests {
        print!(" {:>11}", guest.name);
    }
    println!(" {:>11}", "geo. mean");
    let option = format!("--{name}");
    let mut commands = vec![vec![US, "user"]];
    for value in values {
        let mut words = vec![US, "user", &option];
        words.extend((!value.is_empty()).then_some(*value));
        commands.push(words);
    }
    let mut results: Vec<Vec<(f64, f64)>> = vec![Vec::new(); commands.len()];
    for guest in guests {
        let mut times = vec![(Vec::new(), Vec::new()); commands.len()];
        for _ in 0..TURNS {
            for (command, (walls, cpus)) in commands.iter().zip(&mut times) {
                let mut words = command.clone();
                words.extend(guest.words.iter().map(String::as_str));
                let (wall, cpu) = run(&words);
                walls.push(wall);
                cpus.push(cpu);
            }
        }
        for ((walls, cpus), result) in times.into_iter().zip(&mut results) {
            result.push((median(walls), median(cpus)));
        }
    }
    print!("{:<9}", "default");
    for (wall, cpu) in &results[0] {
        print!(" {:>5.0}/{:<5.0}", wall, cpu);
    }
    println!();
    for (value, result) in values.iter().zip(&results[1..]) {
        print!("{:<9}", if value.is_empty() { "on" } else { value });
        let (mut walls, mut cpus) = (0.0, 0.0);
        for (&(wall, cpu), &(wall0, cpu0)) in result.iter().zip(&results[0]) {
            print!(" {:>5.2}/{:<5.2}", wall / wall0, cpu / cpu0);
            walls += (wall / wall0).ln();
            cpus += (cpu / cpu0).ln();
        }
        let n = result.len() as f64;
        println!(" {:>5.2}/{:<5.2}", (walls / n).exp(), (cpus / n).exp());
    }
}

/// What a program that does nothing costs, and what it is spent on.
fn start_up() {
    let Some(busybox) = find("busybox") else {
        println!("start-up: busybox is not installed");
        return;
    };
    let busybox = busybox.to_string_lossy();
    let guest = [&*busybox, "true"];
    let mut systems: Vec<(&str, Vec<&str>)> = vec![
        ("native", vec![]),
        ("tiered", vec![US, "user"]),
        ("interp", vec![US, "user", "--engine", "interp"]),
        ("jit", vec![US, "user", "--engine", "jit"]),
    ];
    if find("qemu-x86_64").is_some() {
        systems.insert(1, ("qemu-x86_64", vec!["qemu-x86_64"]));
    } else {
        println!("(qemu-x86_64 is not installed: no row for it)");
    }
    let mut times = vec![(Vec::new(), Vec::new()); systems.len() + 1];
    let mut parts: [Vec<f64>; 3] = Default::default();
    for _ in 0..STARTS {
        for ((_, prefix), (walls, cpus)) in systems.iter().zip(&mut times) {
            let words: Vec<&str> = prefix.iter().chain(&guest).copied().collect();
            let (wall, cpu) = run(&words);
            walls.push(wall);
            cpus.push(cpu);
        }
        let (wall, cpu) = run(&[US, "--version"]);
        times[systems.len()].0.push(wall);
        times[systems.len()].1.push(cpu);
        let stats = stats(&guest);
        let ms = |name: &str| stats[name].as_u64().expect("a counter") as f64 / 1e6;
        let [translate, compile, interpret] = &mut parts;
        translate.push(ms("translate_ns"));
        compile.push(ms("compile_ns"));
        interpret.push(ms("run_ns") - ms("translate_ns") - ms("compile_wait_ns"));
    }
    println!("start-up: busybox true, medians of {STARTS} turns, milliseconds\n");
    println!("{:<24} {:>7} {:>7}", "", "wall", "CPU");
    let mut walls = Vec::new();
    let names = systems.iter().map(|s| s.0).chain(["metaphrase --version"]);
    for (name, (wall, cpu)) in names.zip(times) {
        let (wall, cpu) = (median(wall), median(cpu));
        println!("{name:<24} {wall:>7.2} {cpu:>7.2}");
        walls.push((name, wall));
    }
    let wall = |of: &str| walls.iter().find(|w| w.0 == of).map_or(0.0, |w| w.1);
    let process = wall("metaphrase --version");
    let [translate, compile, interpret] = parts.map(median);
    let rest = wall("tiered") - process - translate - interpret;
    println!(
        "\nof tiered: process start {process:.2}, translate {translate:.2}, interpret {interpret:.2},"
    );
    println!("compile {compile:.2} (elsewhere), load, system calls and end {rest:.2}");
}

/// The counters of a run with the defaults.
fn stats(guest: &[&str]) -> serde_json::Value {
    let out = Command::new(US)
        .args(["user", "--stats", "--json"])
        .args(guest)
        .output()
        .expect("the process starts");
    serde_json::from_slice(&out.stderr).expect("statistics")
}
