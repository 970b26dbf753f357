//! Logs: what `-d` selects, through `tracing`, to standard error or the file of `-D`.

use super::{Failure, disasm, messages};
use metaphrase_backend::jump_hash;
use metaphrase_frontend::{Lifted, Limits, Mode, SensitivePolicy, lift_region};
use metaphrase_runtime::{CpuState, GuestMemory, Observer, Stop, Vcpu};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Mutex;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What can be logged.
const ITEMS: [(&str, &str); 9] = [
    ("in_asm", "guest code of every block translated"),
    ("ir", "its IR before the passes"),
    ("ir_opt", "its IR after the passes"),
    ("clif", "Cranelift's IR of compiled blocks"),
    ("out_asm", "their host code"),
    ("exec", "every block that the dispatcher runs"),
    ("int", "exceptions and system calls"),
    ("syscall", "system calls with their arguments and results"),
    (
        "msr",
        "accesses to model-specific registers that do not exist",
    ),
];

/// What logging holds open.
#[derive(Debug, Default)]
pub struct Log {
    /// Descriptors that the guest must not see.
    pub fds: Vec<i32>,
}

/// Starts logging; warnings are always shown.
pub fn start(items: &[String], file: Option<&Path>) -> Result<Log, Failure> {
    for item in items {
        if !ITEMS.iter().any(|(name, _)| name == item) {
            let list: Vec<String> = ITEMS.iter().map(|(n, d)| format!("{n} ({d})")).collect();
            return Err(Failure::usage(format!(
                "nothing to log is named {item}; there are: {}",
                list.join(", ")
            )));
        }
    }
    let mut log = Log::default();
    log.fds.extend(messages::set_aside());
    let writer = match file {
        Some(path) => {
            let file = File::create(path).map_err(|error| Failure {
                code: super::exit::USAGE,
                message: format!("cannot write the log file {}: {error}", path.display()),
                hint: None,
            })?;
            log.fds.push(file.as_raw_fd());
            BoxMakeWriter::new(Mutex::new(file))
        }
        None => BoxMakeWriter::new(|| messages::Stderr),
    };
    let mut filter = Targets::new().with_default(LevelFilter::WARN);
    for item in items {
        filter = filter.with_target(item.clone(), LevelFilter::TRACE);
    }
    let layer = tracing_subscriber::fmt::layer()
        .without_time()
        .with_level(false)
        .with_ansi(false)
        .with_writer(writer);
    // A second start in one process (tests) keeps the first one's logs.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init();
    Ok(log)
}

/// Reports translations and executions to the log.
#[derive(Debug)]
pub struct Logger {
    items: Vec<String>,
    policy: SensitivePolicy,
    limits: [Limits; 2],
    mode: Mode,
}

impl Logger {
    /// Attaches a logger to the CPU if any of the items needs one.
    pub fn attach(vcpu: &mut Vcpu, items: &[String]) {
        if items.iter().any(|i| i != "syscall") {
            let options = vcpu.options();
            let logger = Logger {
                items: items.to_vec(),
                policy: options.policy.clone(),
                limits: [options.block_limits, options.region_limits],
                mode: vcpu.mode,
            };
            vcpu.observe(Box::new(logger));
        }
    }

    fn wants(&self, item: &str) -> bool {
        self.items.iter().any(|i| i == item)
    }
}

/// A listing of the region's guest instructions.
pub fn guest_listing(memory: &GuestMemory, lifted: &Lifted) -> String {
    let region = &lifted.region;
    let mut out = String::new();
    for guest in &region.guest {
        let pc = region.pc_at(guest.offset);
        let mut bytes = vec![0; usize::from(guest.len.max(1))];
        let n = memory.fetch(pc, &mut bytes);
        out += &disasm::x86(region.code_size.bits(), pc, &bytes[..n]);
    }
    out
}

impl Observer for Logger {
    fn translated(&mut self, memory: &GuestMemory, tier: u8, lifted: &Lifted) {
        let pc = lifted.region.pc;
        if self.wants("in_asm") {
            tracing::trace!(target: "in_asm", "tier {tier} {pc:#x}\n{}", guest_listing(memory, lifted));
        }
        if self.wants("ir") {
            let limits = self.limits[usize::from(tier == 2)];
            if let Ok(raw) = lift_region(pc, self.mode, memory, limits, &self.policy) {
                tracing::trace!(target: "ir", "tier {tier}\n{}", raw.region);
            }
        }
        if self.wants("ir_opt") {
            tracing::trace!(target: "ir_opt", "tier {tier}\n{}", lifted.region);
        }
    }

    fn compiled(&mut self, tier: u8, pc: u64, host: usize, code: &[u8], clif: Option<&str>) {
        if let Some(clif) = clif
            && self.wants("clif")
        {
            tracing::trace!(target: "clif", "tier {tier} {pc:#x}\n{clif}");
        }
        if self.wants("out_asm") {
            let listing = disasm::host(host as u64, code);
            tracing::trace!(target: "out_asm", "tier {tier} {pc:#x}: {} bytes\n{listing}", code.len());
        }
    }

    fn executed(&mut self, state: &CpuState, compiled: bool) {
        if self.wants("exec") {
            let engine = if compiled { "compiled" } else { "interpreted" };
            tracing::trace!(target: "exec", "{:#x} {engine} rax {:x} rcx {:x} rdx {:x} rbx {:x} rsp {:x} \
                rbp {:x} rsi {:x} rdi {:x} rflags {:x} slot {}", state.rip, state.gpr[0], state.gpr[1],
                state.gpr[2], state.gpr[3], state.gpr[4], state.gpr[5], state.gpr[6], state.gpr[7],
                state.rflags(), jump_hash(state.rip, 4096));
        }
    }

    fn event(&mut self, rip: u64, stop: &Stop) {
        if self.wants("int") && !matches!(stop, Stop::Budget | Stop::Attention) {
            tracing::trace!(target: "int", "{rip:#x} {stop:?}");
        }
    }
}
