//! `user`: runs a Linux program.

use super::args::{EngineArgs, TscArg, UserArgs};
use super::logs::{self, Logger};
use super::{Failure, exit, report};
use metaphrase_runtime::env::TscSource;
use metaphrase_runtime::user::{LoadError, Process, ProcessEnd, ProcessOptions, die_by};
use metaphrase_runtime::{Options, Vcpu};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Runs the command: the guest's exit status, or its death by a signal, becomes ours.
pub fn run(args: UserArgs) -> Result<i32, Failure> {
    let options = args.engine.options()?;
    let stats = args.engine.stats.then_some(args.engine.json);
    let ours = std::process::id();
    let (mut process, mut vcpu, _log) = prepare(args, options)?;
    let end = process.run(&mut vcpu).map_err(Failure::internal)?;
    // A child that the guest forked comes here too; one report is enough.
    if let Some(json) = stats.filter(|_| std::process::id() == ours) {
        report::print(&vcpu.report(), json);
    }
    // Taking thousands of translations apart is no use to a process that ends.
    std::mem::forget(vcpu);
    Ok(finish(end))
}

/// Our own end for a guest's.
pub fn finish(end: ProcessEnd) -> i32 {
    match end {
        ProcessEnd::Exited(status) => status,
        ProcessEnd::Signaled(signal) => die_by(signal),
    }
}

/// Loads the program and makes the CPU for it.
pub fn prepare(args: UserArgs, options: Options) -> Result<(Process, Vcpu, logs::Log), Failure> {
    let UserArgs {
        engine,
        sysroot,
        argv0,
        env,
        strace,
        program,
        args,
    } = args;
    let cpu = engine.model()?;
    let log = start_log(&engine, strace)?;
    let mut process = Process::new(ProcessOptions {
        program: find(program),
        args,
        argv0,
        env: environment(env)?,
        sysroot,
        cpu,
        reserved_fds: log.fds.clone(),
    })
    .map_err(load_failure)?;
    let (mut surroundings, mode) = process
        .take_env()
        .ok_or_else(|| Failure::internal("the program's surroundings were taken twice"))?;
    if engine.tsc == TscArg::Instructions {
        surroundings.tsc = TscSource::Instructions;
    }
    let mut vcpu = Vcpu::new(surroundings, mode, options).map_err(Failure::internal)?;
    Logger::attach(&mut vcpu, &engine.log);
    Ok((process, vcpu, log))
}

fn start_log(engine: &EngineArgs, strace: bool) -> Result<logs::Log, Failure> {
    let mut items = engine.log.clone();
    if strace && !items.iter().any(|i| i == "syscall") {
        items.push("syscall".into());
    }
    logs::start(&items, engine.log_file.as_deref())
}

/// A program named without a slash is looked for on the path, as a shell does.
fn find(program: std::path::PathBuf) -> std::path::PathBuf {
    if program.as_os_str().as_encoded_bytes().contains(&b'/') || program.exists() {
        return program;
    }
    std::env::var_os("PATH")
        .and_then(|path| {
            std::env::split_paths(&path)
                .map(|dir| dir.join(&program))
                .find(|p| p.is_file())
        })
        .unwrap_or(program)
}

/// Our environment with the changes asked for.
fn environment(changes: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let mut all: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    for change in changes {
        let Some(at) = change.as_bytes().iter().position(|&b| b == b'=') else {
            return Err(Failure::usage(format!(
                "-E wants NAME=VALUE, not {}",
                change.display()
            )));
        };
        let mut name = change.into_vec();
        let value = OsString::from_vec(name.split_off(at + 1));
        name.truncate(at);
        let name = OsString::from_vec(name);
        all.retain(|(n, _)| *n != name);
        all.push((name, value));
    }
    let join = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        name
    };
    Ok(all.into_iter().map(join).collect())
}

/// The exit code and hint for a program that cannot be loaded.
fn load_failure(error: LoadError) -> Failure {
    let code = if error.errno().0 == libc::ENOENT {
        exit::NOT_FOUND
    } else {
        exit::CANNOT_RUN
    };
    Failure {
        code,
        message: error.to_string(),
        hint: None,
    }
}
