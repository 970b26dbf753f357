//! `demo`: the embedded workloads under each engine.

use super::args::DemoArgs;
use super::{Failure, exit};
use crate::guest;
use metaphrase_runtime::{Engine, Options};
use serde::Serialize;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// One line of the table.
#[derive(Debug, Serialize)]
struct Row {
    workload: &'static str,
    about: &'static str,
    instructions: u64,
    interp_ms: f64,
    jit_ms: f64,
    tiered_ms: f64,
    interp_mips: f64,
    tiered_mips: f64,
    speedup: f64,
}

/// Runs the demo.
pub fn run(args: DemoArgs) -> Result<i32, Failure> {
    if !(args.scale > 0.0 && args.scale.is_finite()) {
        return Err(Failure::usage("--scale must be a number above 0"));
    }
    if let Some(dir) = &args.elf {
        return write_elf(dir, args.scale);
    }
    let mut rows = Vec::new();
    if !args.json {
        println!(
            "{:<7} {:>13} {:>11} {:>11} {:>11} {:>8} {:>8} {:>9}",
            "", "instructions", "interpreter", "JIT", "tiered", "MIPS", "MIPS", "speed-up"
        );
        println!(
            "{:<7} {:>13} {:>11} {:>11} {:>11} {:>8} {:>8} {:>9}",
            "work", "", "ms", "ms", "ms", "interp", "tiered", "tiered"
        );
    }
    for workload in guest::ALL {
        // A tenth of the bench's work: the interpreter has to do it too.
        let repeat = ((workload.repeat as f64 * args.scale / 10.0) as u64).max(1);
        let code = guest::image(workload, repeat).map_err(Failure::internal)?;
        let mut times = Vec::new();
        let mut answers = Vec::new();
        for engine in [Engine::Interp, Engine::Jit, Engine::Tiered] {
            let mut runs = Vec::new();
            for _ in 0..args.repeats.max(1) {
                let options = Options {
                    engine,
                    ..Options::default()
                };
                let outcome = guest::run(&code, options).map_err(Failure::internal)?;
                runs.push(outcome.time);
                answers.push((outcome.checksum, outcome.stats.instructions));
            }
            times.push(median(&mut runs));
        }
        if answers.iter().any(|a| *a != answers[0]) {
            return Err(Failure {
                code: exit::DIFFERENT,
                message: format!(
                    "the engines disagree on {}: checksums and instruction counts {answers:x?}",
                    workload.name
                ),
                hint: None,
            });
        }
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        let mips = |d: Duration| answers[0].1 as f64 / d.as_secs_f64() / 1e6;
        let row = Row {
            workload: workload.name,
            about: workload.about,
            instructions: answers[0].1,
            interp_ms: ms(times[0]),
            jit_ms: ms(times[1]),
            tiered_ms: ms(times[2]),
            interp_mips: mips(times[0]),
            tiered_mips: mips(times[2]),
            speedup: times[0].as_secs_f64() / times[2].as_secs_f64(),
        };
        if !args.json {
            println!(
                "{:<7} {:>13} {:>11.1} {:>11.1} {:>11.1} {:>8.0} {:>8.0} {:>8.1}x",
                row.workload,
                row.instructions,
                row.interp_ms,
                row.jit_ms,
                row.tiered_ms,
                row.interp_mips,
                row.tiered_mips,
                row.speedup
            );
        }
        rows.push(row);
    }
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&rows).map_err(Failure::internal)?
        );
    } else {
        let product: f64 = rows.iter().map(|r| r.speedup.ln()).sum();
        let mean = (product / rows.len() as f64).exp();
        println!(
            "Every engine gave the same checksums. Geometric mean of the speed-ups: {mean:.1}x"
        );
    }
    Ok(exit::OK)
}

/// Writes each workload as a program for Linux.
fn write_elf(dir: &Path, scale: f64) -> Result<i32, Failure> {
    let failed = |path: &Path, error: std::io::Error| Failure {
        code: exit::USAGE,
        message: format!("cannot write {}: {error}", path.display()),
        hint: None,
    };
    std::fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
    for workload in guest::ALL {
        let repeat = ((workload.repeat as f64 * scale) as u64).max(1);
        let code = guest::image(workload, repeat).map_err(Failure::internal)?;
        let path = dir.join(workload.name);
        std::fs::write(&path, guest::elf::file(&code)).map_err(|e| failed(&path, e))?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o755))
            .map_err(|e| failed(&path, e))?;
        println!("{}", path.display());
    }
    Ok(exit::OK)
}

/// The median of some times.
fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
