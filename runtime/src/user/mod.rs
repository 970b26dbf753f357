//! Linux user mode: runs one Linux program, x86-64 or i386, over any [`Engine`].
//!
//! - `loader.rs`, `image.rs`, `stack.rs`, `exec.rs`: from a file to a program in memory.
//! - `layout.rs`, `space.rs`: its address space.
//! - `syscall/`: system calls, by area. `signal/`: signals.
//! - `engine.rs`: what this needs from below.
//!
//! Guest pointers are only used after [`crate::GuestMemory`] has checked them.

pub mod abi;
pub mod engine;
pub mod exec;
mod faults;
pub mod image;
pub mod layout;
pub mod loader;
#[cfg(test)]
mod loader_tests;
pub mod paths;
pub mod segments;
pub mod signal;
pub mod space;
pub mod stack;
pub mod syscall;
mod vfork;

pub use abi::{Abi, Errno};
pub use engine::Engine;
pub use loader::LoadError;
pub use signal::host::die_by;

use crate::cpu_model::CpuModel;
use crate::env::Env;
use crate::vcpu::{Stop, VcpuError};
use exec::Request;
use image::Image;
use metaphrase_frontend::Mode;
use signal::{Signals, host};
use space::Space;
use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use syscall::Flow;

/// What to run and how.
#[derive(Clone, Debug)]
pub struct ProcessOptions {
    /// The program, a path on the host.
    pub program: PathBuf,
    /// Its arguments without its name.
    pub args: Vec<OsString>,
    /// Its name, if not the path.
    pub argv0: Option<OsString>,
    /// Its environment, as `NAME=value`.
    pub env: Vec<OsString>,
    /// Where absolute guest paths are looked for first.
    pub sysroot: Option<PathBuf>,
    /// The CPU model.
    pub cpu: CpuModel,
    /// Descriptors of ours that the guest must not see: to it they are not open.
    pub reserved_fds: Vec<i32>,
}

/// How a guest ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProcessEnd {
    /// It exited with this status, 0 to 255.
    Exited(i32),
    /// A signal killed it. [`die_by`] makes that our end too.
    Signaled(i32),
}

/// A guest process.
#[derive(Debug)]
pub struct Process {
    /// Its ABI.
    abi: Abi,
    space: Space,
    signals: Signals,
    exe: PathBuf,
    args: Vec<Vec<u8>>,
    sysroot: Option<PathBuf>,
    reserved_fds: Vec<i32>,
    cpu: CpuModel,
    clear_child_tid: u64,
    robust_list: (u64, u64),
    /// Calls that the log has already mentioned as missing.
    reported: HashSet<(Abi, u64)>,
    /// In a child of `vfork`: the way back to the parent.
    vfork_parent: Option<vfork::Parent>,
    /// The program that is to be started: image and stack pointer.
    entry: Option<(Image, u64)>,
    /// The surroundings that the virtual CPU is to have.
    env: Option<Box<Env>>,
}

impl Process {
    /// Loads a program. Signals are not touched before [`Process::start`].
    ///
    /// # Errors
    /// Whatever keeps the file from being run.
    pub fn new(options: ProcessOptions) -> Result<Process, LoadError> {
        let exec_path = exec::path_bytes(&options.program);
        let argv0 = options
            .argv0
            .map_or_else(|| exec_path.clone(), OsStringExt::into_vec);
        let mut args = vec![argv0];
        args.extend(options.args.into_iter().map(OsStringExt::into_vec));
        let (memory, loaded) = exec::load(Request {
            path: options.program,
            exec_path,
            args,
            env: options.env.into_iter().map(OsStringExt::into_vec).collect(),
            sysroot: options.sysroot.as_deref(),
            cpu: options.cpu,
        })?;
        let mut env = Env::new(memory, options.cpu);
        env.tsc = crate::env::TscSource::Host(std::time::Instant::now());
        Ok(Process {
            abi: loaded.image.abi,
            space: loaded.space,
            signals: Signals::fresh(),
            exe: loaded.exe,
            args: loaded.args,
            sysroot: options.sysroot,
            reserved_fds: options.reserved_fds,
            cpu: options.cpu,
            clear_child_tid: 0,
            robust_list: (0, 0),
            reported: HashSet::new(),
            vfork_parent: None,
            entry: Some((loaded.image, loaded.sp)),
            env: Some(env),
        })
    }

    /// The surroundings for the virtual CPU that is to run the program, and its mode. `None` if
    /// they have been taken already.
    pub fn take_env(&mut self) -> Option<(Box<Env>, Mode)> {
        Some((self.env.take()?, engine::mode(self.abi)))
    }

    /// Its ABI.
    pub fn abi(&self) -> Abi {
        self.abi
    }

    /// Sets the first registers, and takes over the host's signals. [`Process::run`] does it by
    /// itself.
    pub fn start<E: Engine>(&mut self, engine: &mut E) {
        if let Some((image, sp)) = self.entry.take() {
            let (cpu, env) = engine.parts();
            exec::set_registers(cpu, env, &image, sp);
            self.signals = Signals::adopt();
            host::set_attention(engine.attention());
        }
    }

    /// Runs the program to its end.
    ///
    /// # Errors
    /// If the engine cannot go on.
    pub fn run<E: Engine>(&mut self, engine: &mut E) -> Result<ProcessEnd, VcpuError> {
        self.start(engine);
        loop {
            let stop = engine.run()?;
            if let Some(end) = self.handle(engine, stop)? {
                return Ok(end);
            }
        }
    }

    /// Does what a stop of the engine asks for, and delivers signals that are due. Answers how
    /// the guest ended, if it did.
    ///
    /// # Errors
    /// If the engine cannot go on.
    pub fn handle<E: Engine>(
        &mut self,
        engine: &mut E,
        stop: Stop,
    ) -> Result<Option<ProcessEnd>, VcpuError> {
        let mut restart = None;
        match stop {
            Stop::Syscall(kind) => match self.system_call(engine, kind)? {
                Flow::Done(r) => restart = r,
                Flow::Exit(status) => return Ok(Some(ProcessEnd::Exited(status & 0xff))),
                Flow::Killed(signal) => return Ok(Some(ProcessEnd::Signaled(signal))),
            },
            Stop::Exception(exception) => {
                let (cpu, env) = engine.parts();
                if let Some(signal) = self.exception(cpu, env, &exception) {
                    return Ok(Some(ProcessEnd::Signaled(signal)));
                }
            }
            // HLT is privileged.
            Stop::Halt => {
                let (cpu, env) = engine.parts();
                cpu.rip = cpu.rip.wrapping_sub(1);
                if let Some(signal) = self.exception(cpu, env, &faults::general_protection()) {
                    return Ok(Some(ProcessEnd::Signaled(signal)));
                }
            }
            Stop::Budget | Stop::Attention => {}
        }
        if self.signals.is_due() || restart.is_some() {
            let (cpu, env) = engine.parts();
            let trampoline = self.space.layout.trampoline;
            let killed = self
                .signals
                .deliver(cpu, env, self.abi, trampoline, restart);
            if let Some(signal) = killed {
                return Ok(Some(ProcessEnd::Signaled(signal)));
            }
        }
        engine.drop_stale()?;
        Ok(None)
    }
}
