//! `system`: runs a whole system.

use super::args::{SystemArgs, TscArg};
use super::logs::{self, Logger};
use super::{Failure, exit, report};
use metaphrase_devices::serial::SerialSink;
use metaphrase_runtime::machine::pc::{PcConfig, pc};
use metaphrase_runtime::machine::{TimeMode, linux_boot};
use metaphrase_runtime::{Machine, MachineStop};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The first serial port's other end: our standard output.
struct Stdout;

impl SerialSink for Stdout {
    fn write(&mut self, bytes: &[u8]) {
        // A closed pipe must not end the guest.
        let mut out = std::io::stdout();
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    }
}

/// Runs the command.
pub fn run(args: SystemArgs) -> Result<i32, Failure> {
    let options = args.engine.options()?;
    let _log = logs::start(&args.engine.log, args.engine.log_file.as_deref())?;
    let image = read(&args.kernel)?;
    let initrd = match &args.initrd {
        Some(path) => read(path)?,
        None => Vec::new(),
    };
    let time = match (args.icount, args.engine.tsc) {
        (Some(shift), _) => TimeMode::Deterministic { shift },
        (None, TscArg::Instructions) => TimeMode::COUNTED,
        (None, TscArg::Host) => TimeMode::RealTime,
    };
    let ram = args.memory << 20;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let (mut parts, _board) = pc(PcConfig {
        ram,
        time,
        unix_seconds: match time {
            // The same date in every run: 2025-01-01.
            TimeMode::Deterministic { .. } => 1_735_689_600,
            TimeMode::RealTime => now.map_or(0, |t| t.as_secs()),
        },
        serial: Box::new(Stdout),
        cpu: args.engine.model()?,
        options,
    })
    .map_err(|error| Failure::usage(error.to_string()))?;
    parts.ignore_msrs = args.ignore_msrs;
    let mut machine = Machine::new(parts).map_err(Failure::internal)?;
    Logger::attach(machine.vcpu(), &args.engine.log);
    linux_boot::load(&mut machine, ram, &image, &initrd, &args.append).map_err(|error| {
        Failure {
            code: exit::CANNOT_RUN,
            message: format!("{}: {error}", args.kernel.display()),
            hint: None,
        }
    })?;
    let stop = machine
        .run(args.budget.unwrap_or(u64::MAX))
        .map_err(Failure::internal)?;
    if args.engine.stats {
        report::print(&machine.report(), args.engine.json);
    }
    let digest = args.digest.then(|| machine.digest());
    if let Some(digest) = digest {
        super::messages::say!(
            "{} instructions, digest {digest:#018x}",
            machine.instructions()
        );
    }
    Ok(match stop {
        MachineStop::Budget => exit::OK,
        MachineStop::Halted => {
            super::messages::say!(
                "metaphrase: the processor has halted and no interrupt can wake it"
            );
            exit::OK
        }
        MachineStop::Shutdown => {
            super::messages::say!("metaphrase: the processor has shut down (triple fault)");
            exit::SHUTDOWN
        }
        MachineStop::Stuck => {
            super::messages::say!(
                "metaphrase: the processor raises exceptions and does nothing else"
            );
            exit::SHUTDOWN
        }
        MachineStop::Requested(status) => status as i32 & 0xff,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure {
        code: if error.kind() == std::io::ErrorKind::NotFound {
            exit::NOT_FOUND
        } else {
            exit::CANNOT_RUN
        },
        message: format!("{}: {error}", path.display()),
        hint: None,
    })
}
