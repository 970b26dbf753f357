//! Runs the commands that fetching needs. No shell is between.

use super::Error;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A command that reads nothing and answers in plain English.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(name);
    command.stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
    command
}

/// That `name` could not be started.
pub fn cannot_start(name: &str, error: &std::io::Error) -> Error {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    if missing && name.starts_with("apt") {
        return Error::NoApt;
    }
    Error::Command {
        name: name.into(),
        message: match missing {
            true => "there is no such command here".into(),
            false => error.to_string(),
        },
    }
}

/// The failure of a command that ran.
pub fn failed(name: &str, stderr: &[u8]) -> Error {
    let text = String::from_utf8_lossy(stderr);
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    // apt repeats itself; its last errors are what counts.
    let errors: Vec<&str> = lines
        .clone()
        .filter(|line| line.starts_with("E: "))
        .collect();
    let message = match errors.last() {
        Some(line) => line.trim_start_matches("E: "),
        None => lines.next_back().unwrap_or("it failed"),
    };
    Error::Command {
        name: name.into(),
        message: message.into(),
    }
}

/// Runs a command to its end.
pub fn output(name: &str, command: &mut Command) -> Result<Output, Error> {
    command.output().map_err(|error| cannot_start(name, &error))
}

/// What a command prints.
pub fn stdout(name: &str, arguments: &[&OsStr]) -> Result<Vec<u8>, Error> {
    let out = output(name, command(name).args(arguments))?;
    match out.status.success() {
        true => Ok(out.stdout),
        false => Err(failed(name, &out.stderr)),
    }
}

/// A file without its gzip or xz wrapping, told by its name.
pub fn unpacked(path: &Path, wrapping: &str) -> Result<Vec<u8>, Error> {
    stdout(wrapping, &["-dc".as_ref(), path.as_os_str()])
}

/// The SHA-256 of a file.
pub fn sha256(path: &Path) -> Result<String, Error> {
    let text = stdout("sha256sum", &["--".as_ref(), path.as_os_str()])?;
    let text = String::from_utf8_lossy(&text).into_owned();
    // A backslash in front tells that the file's name is quoted.
    let digest = text.trim_start_matches('\\').split(' ').next();
    Ok(digest.unwrap_or_default().into())
}
