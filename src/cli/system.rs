//! `system`: runs a whole system.

use super::args::{SystemArgs, TscArg};
use super::cards::VgaArg;
use super::console::Console;
use super::logs::{self, Logger};
use super::{Failure, exit, report};
use metaphrase_devices::serial::SerialSink;
use metaphrase_runtime::machine::TimeMode;
use metaphrase_runtime::machine::pc::{PcConfig, pc};
use metaphrase_runtime::{Machine, MachineStop};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A file that text is appended to.
struct LogFile(File);

impl SerialSink for LogFile {
    fn write(&mut self, bytes: &[u8]) {
        // A full disk must not end the guest.
        let _ = self.0.write_all(bytes);
    }
}

/// Runs the command.
pub fn run(mut args: SystemArgs) -> Result<i32, Failure> {
    let options = args.engine.options()?;
    let _log = logs::start(&args.engine.log, args.engine.log_file.as_deref())?;
    let time = match (args.icount, args.engine.tsc) {
        (Some(shift), _) => TimeMode::Deterministic { shift },
        (None, TscArg::Instructions) => TimeMode::COUNTED,
        (None, TscArg::Host) => TimeMode::RealTime,
    };
    let ram = args.memory << 20;
    if args.boot.kernel.is_none() && args.boot.bios.is_none() {
        args.boot.bios = Some(installed_firmware()?);
    }
    let kernel = args.boot.open(ram)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut config = PcConfig::new(ram, args.engine.model()?, options);
    config.time = time;
    if time == TimeMode::RealTime {
        config.unix_seconds = now.map_or(0, |t| t.as_secs());
    }
    let firmware = args.boot.bios.as_deref();
    // Two on one terminal are not to be read.
    let to_terminal = args.debugcon.as_deref() == Some(Path::new("stdio"));
    let on_serial = to_terminal || args.boot.append.contains("console=ttyS");
    let seen = firmware.is_some() && args.cards.vga == VgaArg::Std && !on_serial;
    let mut console = Console::open(&args.console, seen)?;
    if let Some(sink) = console.sink(0) {
        config.serial = sink;
    }
    config.second_serial = console.sink(1);
    config.debug_exit = args.debug_exit;
    config.firmware = firmware.map(read).transpose()?;
    if let Some(path) = &args.debugcon {
        config.debug_console = Some(debug_console(path, &console)?);
    }
    args.drives.connect(&mut config)?;
    let shown = console.shows_screen();
    args.cards.add_to(&mut config, firmware, shown)?;
    args.network.add_to(&mut config)?;
    if let Some(kernel) = &kernel {
        kernel.offer(&mut config)?;
    }
    let (mut parts, board) = pc(config).map_err(|error| Failure::usage(error.to_string()))?;
    parts.ignore_msrs = args.ignore_msrs;
    parts.restarts &= !args.no_reboot;
    let pins = parts.pins.clone();
    let mut machine = Machine::new(parts).map_err(Failure::internal)?;
    Logger::attach(machine.vcpu(), &args.engine.log);
    if let Some(kernel) = &kernel {
        kernel.start(&mut machine)?;
    }
    console.start(&machine, &board, pins)?;
    let end = console.run(&mut machine, args.budget.unwrap_or(u64::MAX));
    console.finish(end.as_ref().ok().and_then(|end| end.err()));
    let end = end?;
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
    let stop = match end {
        Ok(stop) => stop,
        Err(ending) => {
            // What the machine holds, such as disks, is closed before a signal ends us.
            drop(machine);
            Console::follow(ending);
            return Ok(exit::OK);
        }
    };
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
        MachineStop::PowerOff => exit::OK,
        MachineStop::Reset => {
            super::messages::say!("metaphrase: the guest has asked for a reset");
            exit::OK
        }
        MachineStop::Requested(status) => status as i32 & 0xff,
    })
}

/// The SeaBIOS that is installed, for a machine that is told of neither firmware nor kernel.
fn installed_firmware() -> Result<PathBuf, Failure> {
    let places = ["/usr/share/seabios", "/usr/share/qemu"];
    let found = places
        .map(|place| Path::new(place).join("bios-256k.bin"))
        .into_iter()
        .find(|path| path.exists());
    found.ok_or_else(|| Failure {
        hint: Some(
            "install the package seabios, or fetch it: metaphrase guest fetch seabios, then -bios \
             \"$(metaphrase guest path seabios)/bios-256k.bin\""
                .into(),
        ),
        ..Failure::usage("there is no firmware installed; -bios or -kernel is needed")
    })
}

/// A file that is there and cannot be used.
pub(super) fn unusable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure {
        code: exit::CANNOT_RUN,
        message: format!("{}: {error}", path.display()),
        hint: None,
    }
}

/// A file that cannot be opened or read.
fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let mut failure = unusable(path, error);
    if error.kind() == std::io::ErrorKind::NotFound {
        failure.code = exit::NOT_FOUND;
    }
    failure
}

/// Where the debug console goes.
fn debug_console(path: &Path, console: &Console) -> Result<Box<dyn SerialSink>, Failure> {
    if path == Path::new("stdio") {
        return Ok(console.stdout());
    }
    let file = File::create(path).map_err(|error| unusable(path, &error))?;
    Ok(Box::new(LogFile(file)))
}

/// The content of a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| unreadable(path, &error))
}
