//! The command line: arguments in, exit code out. Only here does anything print, read the
//! environment, or open log files.

mod args;
mod cards;
mod console;
mod demo;
mod disasm;
mod drives;
mod dump;
mod guest;
mod kernel;
mod logs;
mod messages;
mod network;
mod report;
mod start;
mod system;
mod user;
mod verify;
mod words;

use args::{Cli, Command};
use clap::Parser;
use messages::say;
use std::ffi::OsString;

/// Exit codes of metaphrase itself. A guest that ends passes on its own status.
pub mod exit {
    /// Everything went well.
    pub const OK: i32 = 0;
    /// `verify` found a difference, or `demo` a wrong checksum.
    pub const DIFFERENT: i32 = 1;
    /// The command line makes no sense.
    pub const USAGE: i32 = 2;
    /// The processor of a whole system has shut down: a triple fault.
    pub const SHUTDOWN: i32 = 3;
    /// A guest cannot be fetched: no apt, no network, no such package, ….
    pub const UNAVAILABLE: i32 = 4;
    /// metaphrase itself failed: this host cannot run it, or it has a defect.
    pub const FAILED: i32 = 125;
    /// The program is there but cannot be run: no access, a directory, not an x86 ELF file, ….
    pub const CANNOT_RUN: i32 = 126;
    /// There is no such program.
    pub const NOT_FOUND: i32 = 127;
}

/// An error for the user: one clear line, perhaps a hint, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: i32,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure of metaphrase itself.
    pub fn internal(error: impl std::fmt::Display) -> Failure {
        Failure {
            code: exit::FAILED,
            message: error.to_string(),
            hint: None,
        }
    }

    /// A command line that makes no sense.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure {
            code: exit::USAGE,
            message: message.into(),
            hint: Some("metaphrase --help lists the options".into()),
        }
    }
}

/// Runs the command line; the exit code.
pub fn main(args: Vec<OsString>) -> i32 {
    let cli = match Cli::try_parse_from(words::with_long_names(args)) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && !asks_for_help(&error) => {
            return report(&Failure::usage(one_line(&error)));
        }
        Err(error) => {
            let _ = error.print();
            return error.exit_code();
        }
    };
    let Some(command) = cli.command else {
        start::print();
        return exit::OK;
    };
    run(command)
}

/// Runs a command; the exit code.
fn run(command: Command) -> i32 {
    let result = match command {
        Command::Boot(args) => guest::boot(args),
        Command::Guest(command) => guest::run(command),
        Command::Dump(args) => dump::run(args),
        Command::System(args) => system::run(*args),
        Command::User(args) => user::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Demo(args) => demo::run(args),
    };
    match result {
        Ok(code) => code,
        Err(failure) => report(&failure),
    }
}

/// Prints a failure; its exit code.
fn report(failure: &Failure) -> i32 {
    say!("metaphrase: {}", failure.message);
    if let Some(hint) = &failure.hint {
        say!("  hint: {hint}");
    }
    failure.code
}

/// Whether the command line said too little to be called wrong: the help says more then.
fn asks_for_help(error: &clap::Error) -> bool {
    error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}

/// The parser's message, which takes several lines, in one.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.is_empty());
    let words: Vec<&str> = lines.map(str::trim).collect();
    let joined = words.join(" ");
    joined.strip_prefix("error: ").unwrap_or(&joined).into()
}
