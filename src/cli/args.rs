//! The arguments. Names are QEMU's where QEMU has one; its single-dash words are accepted too.

use super::Failure;
use super::console::ConsoleArgs;
use super::drives::DriveArgs;
use super::guest::{BootArgs, GuestCommand};
use super::kernel::KernelArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use metaphrase_backend::{OptLevel, Regalloc};
use metaphrase_frontend::{Policy, Sensitive};
use metaphrase_ir::passes::PassSet;
use metaphrase_runtime::options::X87Core;
use metaphrase_runtime::{CpuModel, Engine, Options};
use std::ffi::OsString;
use std::path::PathBuf;

const AFTER: &str = "\
Exit codes: the guest's own status; else 0 success, 1 a difference or a wrong checksum, 2 bad usage, \
3 the guest's processor has shut down, 4 a guest cannot be fetched, 125 metaphrase failed, 126 the program cannot be run, 127 there is no such program. A guest that \
dies by a signal ends metaphrase by that signal.";

/// A dynamic binary translator for x86.
#[derive(Debug, Parser)]
#[command(name = "metaphrase", version, about, after_help = AFTER)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a Linux program (x86-64 or i386).
    User(UserArgs),
    /// Run a whole system: firmware or a kernel on a PC.
    #[command(args_override_self = true)]
    System(Box<SystemArgs>),
    /// Boot a guest by its name, with further options of `system`; it is fetched first.
    Boot(BootArgs),
    /// List, fetch and find guests: whole systems from Debian packages.
    #[command(subcommand)]
    Guest(GuestCommand),
    /// Show what code becomes: disassembly, IR, CLIF, host code.
    Dump(DumpArgs),
    /// Run a Linux program in lock step, interpreter against compiled code.
    Verify(VerifyArgs),
    /// Run the embedded workloads under each engine and compare their speed.
    Demo(DemoArgs),
}

/// Which engine.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum EngineArg {
    /// The interpreter only.
    Interp,
    /// Compile everything before it runs.
    Jit,
    /// Interpret first, compile what is warm, form regions of what is hot.
    Tiered,
}

/// How Cranelift optimises.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OptArg {
    /// Not at all.
    None,
    /// Everything.
    Speed,
}

/// Which register allocator Cranelift uses.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RegallocArg {
    /// Better code.
    Backtracking,
    /// Quicker compilation.
    SinglePass,
}

/// Where RDTSC gets its value from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TscArg {
    /// The host's clock.
    Host,
    /// The number of guest instructions: the same in every run.
    Instructions,
}

/// What does x87 arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum X87Arg {
    /// The host's own x87 (x86-64 hosts).
    Host,
    /// Integer arithmetic of our own: the same results.
    Portable,
}

/// Engines, tiers, passes, policies: each can be switched, and none changes what the guest sees.
#[derive(Clone, Debug, Args)]
pub struct EngineArgs {
    /// Which engine executes guest code.
    #[arg(long, value_enum, default_value = "tiered", help_heading = "Engine")]
    pub engine: EngineArg,
    /// CPU model (`-cpu`).
    #[arg(
        long,
        value_name = "MODEL",
        default_value = "x86-64-v2",
        help_heading = "Engine"
    )]
    pub cpu: String,
    /// Where RDTSC gets its value from.
    #[arg(long, value_enum, default_value = "host", help_heading = "Engine")]
    pub tsc: TscArg,
    /// What does x87 arithmetic; by default the host's x87 if it has one.
    #[arg(long, value_enum, help_heading = "Engine")]
    pub x87: Option<X87Arg>,
    /// Compile while the guest waits, not on a background thread.
    #[arg(long, help_heading = "Tiers")]
    pub sync_compile: bool,
    /// Interpreted executions after which a block is compiled.
    #[arg(long, value_name = "N", help_heading = "Tiers")]
    pub tier1_threshold: Option<u32>,
    /// Guest instructions before which nothing is compiled.
    #[arg(long, value_name = "N", help_heading = "Tiers")]
    pub warm_up: Option<u64>,
    /// Compile jobs that may wait at once.
    #[arg(long, value_name = "N", help_heading = "Tiers")]
    pub queue_limit: Option<usize>,
    /// Give the interpreter fully optimised code in the tiered engine too.
    #[arg(long, help_heading = "Tiers")]
    pub no_quick: bool,
    /// Guest instructions between two looks at finished compilations, timers and signals.
    #[arg(long, value_name = "N", help_heading = "Tiers")]
    pub slice: Option<u64>,
    /// Samples after which a hot block becomes the head of a region.
    #[arg(long, value_name = "N", help_heading = "Tiers")]
    pub tier2_samples: Option<u32>,
    /// Form no regions.
    #[arg(long, help_heading = "Tiers")]
    pub no_regions: bool,
    /// With `--engine jit`: compile regions, not blocks, at first execution.
    #[arg(long, help_heading = "Tiers")]
    pub eager_regions: bool,
    /// Largest number of guest blocks in a region.
    #[arg(long, value_name = "N", help_heading = "Tiers")]
    pub region_blocks: Option<usize>,
    /// Do not link direct exits to one another.
    #[arg(long, alias = "one-insn-per-tb", help_heading = "Optimisations")]
    pub no_chain: bool,
    /// Let indirect exits return to the dispatcher.
    #[arg(long, help_heading = "Optimisations")]
    pub no_jump_cache: bool,
    /// Let every x87 instruction of compiled code call a helper.
    #[arg(long, help_heading = "Optimisations")]
    pub no_inline_x87: bool,
    #[arg(long, value_name = "PASS", help_heading = "Optimisations", help = pass_help())]
    pub disable_pass: Vec<String>,
    /// Switch an IR pass on (`verify`, or `break` to see a miscompile caught).
    #[arg(long, value_name = "PASS", help_heading = "Optimisations")]
    pub enable_pass: Vec<String>,
    /// Cranelift's optimisation level for regions.
    #[arg(
        long,
        value_enum,
        default_value = "speed",
        help_heading = "Optimisations"
    )]
    pub region_opt: OptArg,
    /// Cranelift's register allocator for blocks.
    #[arg(
        long,
        value_enum,
        default_value = "backtracking",
        help_heading = "Optimisations"
    )]
    pub block_regalloc: RegallocArg,
    /// Size of the code arena in MiB.
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = 64,
        help_heading = "Optimisations"
    )]
    pub arena: usize,
    /// How sensitive instructions are emulated: `trap`, `callout`, `inline`, or one of them for one
    /// instruction or site, as in `cpuid=trap` or `0x401000=trap`; may be repeated.
    #[arg(
        long,
        value_name = "[WHAT=]POLICY",
        help_heading = "Sensitive instructions"
    )]
    pub policy: Vec<String>,
    /// Logs to write: in_asm, ir, ir_opt, clif, out_asm, exec, int, syscall (`-d`).
    #[arg(
        short = 'd',
        long = "log",
        value_name = "ITEMS",
        value_delimiter = ',',
        help_heading = "Reports"
    )]
    pub log: Vec<String>,
    /// Write logs to this file instead of standard error (`-D`).
    #[arg(
        short = 'D',
        long = "log-file",
        value_name = "FILE",
        help_heading = "Reports"
    )]
    pub log_file: Option<PathBuf>,
    /// Print the engine's counters to standard error at the end.
    #[arg(long, help_heading = "Reports")]
    pub stats: bool,
    /// Count floating-point operations as they run, for the counters: slower.
    #[arg(long, help_heading = "Reports")]
    pub count_float: bool,
    /// Reports as JSON.
    #[arg(long, help_heading = "Reports")]
    pub json: bool,
}

impl EngineArgs {
    /// The options that the switches ask for.
    pub fn options(&self) -> Result<Options, Failure> {
        let defaults = Options::default();
        let mut o = Options {
            engine: match self.engine {
                EngineArg::Interp => Engine::Interp,
                EngineArg::Jit => Engine::Jit,
                EngineArg::Tiered => Engine::Tiered,
            },
            background: !self.sync_compile,
            tier1_threshold: self
                .tier1_threshold
                .unwrap_or(defaults.tier1_threshold)
                .max(1),
            warm_up: self.warm_up.unwrap_or(defaults.warm_up),
            queue_limit: self.queue_limit.unwrap_or(defaults.queue_limit).max(1),
            quick: !self.no_quick,
            slice: self.slice.unwrap_or(defaults.slice).max(1),
            tier2_samples: self.tier2_samples.unwrap_or(defaults.tier2_samples).max(1),
            regions: !self.no_regions,
            eager_regions: self.eager_regions,
            chain: !self.no_chain,
            jump_cache: !self.no_jump_cache,
            x87_inline: !self.no_inline_x87,
            arena_bytes: self.arena.clamp(1, 1 << 10) << 20,
            sample_activity: self.stats,
            keep_clif: self.log.iter().any(|l| l == "clif"),
            passes: passes(&self.disable_pass, &self.enable_pass)?,
            ..defaults
        };
        o.passes.count |= self.count_float;
        o.x87 = match self.x87 {
            None => o.x87,
            Some(X87Arg::Portable) => X87Core::Portable,
            Some(X87Arg::Host) if cfg!(target_arch = "x86_64") => X87Core::Host,
            Some(X87Arg::Host) => {
                return Err(Failure::usage(
                    "this host has no x87 FPU; use --x87 portable",
                ));
            }
        };
        o.tier2.opt = match self.region_opt {
            OptArg::None => OptLevel::None,
            OptArg::Speed => OptLevel::Speed,
        };
        o.tier1.regalloc = match self.block_regalloc {
            RegallocArg::Backtracking => Regalloc::Backtracking,
            RegallocArg::SinglePass => Regalloc::SinglePass,
        };
        if let Some(n) = self.region_blocks {
            o.region_limits.blocks = n.clamp(2, 64);
        }
        for text in &self.policy {
            set_policy(&mut o, text)?;
        }
        Ok(o)
    }

    /// The CPU model.
    pub fn model(&self) -> Result<CpuModel, Failure> {
        CpuModel::from_name(&self.cpu).map_err(|error| {
            let names: Vec<&str> = CpuModel::names().collect();
            let hint = Some(format!("the models are: {}", names.join(", ")));
            Failure {
                code: super::exit::USAGE,
                message: error.to_string(),
                hint,
            }
        })
    }
}

/// The pass set with switches applied.
pub fn passes(off: &[String], on: &[String]) -> Result<PassSet, Failure> {
    let mut passes = PassSet::default();
    for (names, value) in [(off, false), (on, true)] {
        for name in names {
            passes
                .set(name, value)
                .map_err(|e| Failure::usage(e.to_string()))?;
        }
    }
    Ok(passes)
}

/// Applies one `[WHAT=]POLICY`.
fn set_policy(options: &mut Options, text: &str) -> Result<(), Failure> {
    let (what, name) = text
        .split_once('=')
        .map_or((None, text), |(w, n)| (Some(w), n));
    let policy = Policy::from_name(name).ok_or_else(|| {
        Failure::usage(format!(
            "no policy is named {name}; there are trap, callout and inline"
        ))
    })?;
    let table = &mut options.policy;
    match what {
        None => table.default = policy,
        Some(what) => {
            let site = what
                .strip_prefix("0x")
                .map(|hex| u64::from_str_radix(hex, 16));
            match (site, Sensitive::from_name(what)) {
                (Some(Ok(site)), _) => {
                    table.by_site.insert(site, policy);
                }
                (_, Some(kind)) => {
                    table.by_kind.insert(kind, policy);
                }
                _ => {
                    let names: Vec<&str> = Sensitive::ALL.iter().map(|s| s.name()).collect();
                    return Err(Failure::usage(format!(
                        "{what} is neither a sensitive instruction nor a site like 0x401000; \
                         the instructions are: {}",
                        names.join(", ")
                    )));
                }
            }
        }
    }
    Ok(())
}

/// Arguments of `user`.
#[derive(Debug, Args)]
pub struct UserArgs {
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Look for the dynamic linker and for absolute paths here first (`-L`).
    #[arg(short = 'L', long, value_name = "DIR")]
    pub sysroot: Option<PathBuf>,
    /// The program's argument 0, if not its path.
    #[arg(long, value_name = "NAME")]
    pub argv0: Option<OsString>,
    /// Set an environment variable of the guest (`NAME=VALUE`); may be repeated.
    #[arg(short = 'E', long = "set-env", value_name = "NAME=VALUE")]
    pub env: Vec<OsString>,
    /// Log every system call to standard error, as strace does.
    #[arg(long)]
    pub strace: bool,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<OsString>,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Which tier to compare with the interpreter: 1 (blocks) or 2 (regions).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub tier: u8,
    #[command(flatten)]
    pub user: UserArgs,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Multiply the work by this.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    pub scale: f64,
    /// Runs of each workload and engine; the median counts.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub repeats: usize,
    /// The table as JSON.
    #[arg(long)]
    pub json: bool,
    /// Write the workloads as static ELF programs into this directory instead of running them.
    #[arg(long, value_name = "DIR")]
    pub elf: Option<PathBuf>,
}

/// Arguments of `system`.
#[derive(Debug, Args)]
pub struct SystemArgs {
    /// Engines and logs.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Display adapter and other cards.
    #[command(flatten)]
    pub cards: super::cards::CardArgs,
    /// The network.
    #[command(flatten)]
    pub network: super::network::NetworkArgs,
    /// What it starts with.
    #[command(flatten)]
    pub boot: KernelArgs,
    /// Disks, discs and floppies.
    #[command(flatten)]
    pub drives: DriveArgs,
    /// Where what firmware writes to port 402h goes: `stdio` or a file (`-debugcon`).
    #[arg(long, value_name = "TO")]
    pub debugcon: Option<PathBuf>,
    /// Serial ports and screen.
    #[command(flatten)]
    pub console: ConsoleArgs,
    /// A write of V to this port ends the run with exit code 2V + 1.
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "0x501",
          require_equals = true, value_parser = port)]
    pub debug_exit: Option<u16>,
    /// A reset ends the run, where firmware would start again (`-no-reboot`).
    #[arg(long)]
    pub no_reboot: bool,
    /// RAM in MiB (`-m`).
    #[arg(short = 'm', long, value_name = "MIB", default_value_t = 128,
          value_parser = clap::value_parser!(u64).range(2..=3072))]
    pub memory: u64,
    /// Let model-specific registers that do not exist read as zero and ignore writes, instead of
    /// raising #GP.
    #[arg(long)]
    pub ignore_msrs: bool,
    /// Guest time counts instructions, each as 2 to the power of SHIFT nanoseconds: the same in
    /// every run and engine (`-icount`). `--tsc instructions` is the same with 0.
    #[arg(long, value_name = "SHIFT", value_parser = icount)]
    pub icount: Option<u32>,
    /// Stop after that many guest instructions.
    #[arg(long, value_name = "N")]
    pub budget: Option<u64>,
    /// At the end, print the number of instructions and a hash of registers and RAM.
    #[arg(long)]
    pub digest: bool,
}

/// A port number, decimal or hexadecimal.
fn port(text: &str) -> Result<u16, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| "a port from 0 to 0xffff is wanted".to_string())
}

/// The argument of `-icount`, with or without QEMU's `shift=`.
fn icount(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix("shift=").unwrap_or(text);
    match number.parse() {
        Ok(shift @ 0..=20) => Ok(shift),
        _ => Err("a shift from 0 to 20 is wanted".to_string()),
    }
}

/// Arguments of `dump`.
#[derive(Debug, Args)]
pub struct DumpArgs {
    /// Code bytes in hexadecimal (`--bytes "48 01 d8 c3"`).
    #[arg(long, value_name = "HEX", conflicts_with = "file")]
    pub bytes: Option<String>,
    /// An ELF file.
    pub file: Option<PathBuf>,
    /// The symbol to start at (default: the entry point).
    #[arg(long, value_name = "NAME", requires = "file")]
    pub symbol: Option<String>,
    /// Code size of `--bytes`: 16, 32 or 64.
    #[arg(long, default_value_t = 64)]
    pub bits: u32,
    /// The PC of `--bytes`.
    #[arg(long, value_name = "ADDR", default_value = "0x1000")]
    pub pc: String,
    /// What to show: in_asm, ir, ir_opt, clif, out_asm (default: all).
    #[arg(long, value_name = "ITEMS", value_delimiter = ',')]
    pub show: Vec<String>,
    /// Form a region instead of one block.
    #[arg(long)]
    pub region: bool,
    #[arg(long, value_name = "PASS", help = pass_help())]
    pub disable_pass: Vec<String>,
    /// Switch an IR pass on; may be repeated.
    #[arg(long, value_name = "PASS")]
    pub enable_pass: Vec<String>,
}

/// The passes by name.
fn pass_help() -> String {
    let names = PassSet::NAMES.iter().filter(|n| **n != "break");
    let names: Vec<&str> = names.copied().collect();
    format!(
        "Switch an IR pass off ({}); may be repeated",
        names.join(", ")
    )
}
