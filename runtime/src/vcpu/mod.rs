//! The virtual CPU: runs blocks in either engine, links them, and turns their exits into what the
//! layer above must handle.
//!
//! - `dispatch.rs`: which block runs next and what its exit means.
//! - `faults.rs`: refused memory accesses. `tiering.rs`: making translations. `retire.rs`: taking
//!   them away.

mod churn;
mod debug;
mod dispatch;
mod faults;
mod retire;
mod system;
mod tiering;

use crate::activity::Sampler;
use crate::cache::{Cache, TransId};
use crate::env::Env;
use crate::memory::MapError;
use crate::options::{Engine, Options, X87Core};
use crate::state::{CpuState, JUMP_ENTRIES, JumpEntry};
use crate::stats::Stats;
use crate::tier::CompileService;
use crate::translate::TranslateError;
use metaphrase_backend::{Arena, BackendError, MemoryModel, Watch, host_fault};
use metaphrase_frontend::{Lifted, Mode};
use metaphrase_ir::{SyscallKind, SystemKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Why [`Vcpu::run`] returned. `rip` is where to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The instruction budget is used up, exactly.
    Budget,
    /// Someone asked for attention through [`Vcpu::attention`].
    Attention,
    /// The guest asks for a system call.
    Syscall(SyscallKind),
    /// The guest has raised an exception.
    Exception(Exception),
    /// HLT.
    Halt,
}

/// An exception of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    /// The vector.
    pub vector: u8,
    /// The error code, for vectors that have one.
    pub error: Option<u32>,
    /// The linear address, for #PF; else 0.
    pub addr: u64,
    /// The page is mapped, but the file behind it ends before: SIGBUS rather than SIGSEGV.
    pub bus: bool,
}

/// Page-fault error code: the page is there, the right is missing (SDM volume 3, 4.7).
pub const PF_PRESENT: u32 = 1;
/// Page-fault error code: a write.
pub const PF_WRITE: u32 = 2;
/// Page-fault error code: in user mode.
pub const PF_USER: u32 = 4;
/// Page-fault error code: an instruction fetch.
pub const PF_FETCH: u32 = 16;

/// In `exit_info` of a page fault: the host's fault was SIGBUS.
const BUS: u64 = 1 << 9;

/// Why no virtual CPU could be made or go on.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// Compiled code cannot run on this host.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A defect of ours that left a block without translation.
    #[error("no translation at {pc:#x}: {source}")]
    Translate {
        /// The guest PC.
        pc: u64,
        /// Why.
        source: TranslateError,
    },
    /// The host refuses a protection change.
    #[error("guest memory: {0}")]
    Memory(#[from] MapError),
}

/// A virtual CPU with everything it owns.
pub struct Vcpu {
    /// The guest state.
    pub state: Box<CpuState>,
    /// Memory, CPU model, time.
    pub env: Box<Env>,
    /// The mode that code is decoded in.
    pub mode: Mode,
    /// Counters.
    pub stats: Stats,
    pub(crate) options: Options,
    pub(crate) cache: Cache,
    pub(crate) jit: Option<Jit>,
    jump_cache: Box<[JumpEntry]>,
    attention: Arc<AtomicBool>,
    observer: Option<Box<dyn Observer>>,
    /// Finds out what the time is spent on.
    sampler: Option<Sampler>,
    /// No block is compiled before that many guest instructions were executed.
    pub(crate) compile_from: u64,
    /// Jump caches of other modes of a whole system.
    parked: Vec<(Mode, Box<[JumpEntry]>)>,
    /// The remapping that the jump caches follow, see [`crate::memory::Paged::generation`].
    mapping: u64,
    /// Pages whose code is written to.
    churn: churn::Churn,
}

/// What compiled code needs; absent with [`Engine::Interp`].
#[derive(Debug)]
pub(crate) struct Jit {
    /// With a background thread: made when its first result is there, so that a program that ends
    /// before pays nothing.
    pub(crate) arena: Option<Arena>,
    pub(crate) service: CompileService,
    /// The background thread could not be had: compile while the guest waits.
    pub(crate) inline: bool,
}

/// Watches translations as they are made, for logs.
pub trait Observer {
    /// A region was lifted and optimised.
    fn translated(&mut self, memory: &crate::memory::GuestMemory, tier: u8, lifted: &Lifted);
    /// Host code was placed at `host`.
    fn compiled(&mut self, tier: u8, pc: u64, host: usize, code: &[u8], clif: Option<&str>);
    /// A block is about to be run by the dispatcher.
    fn executed(&mut self, state: &CpuState, compiled: bool);
    /// An exception, a system call, a trap.
    fn event(&mut self, rip: u64, stop: &Stop);
}

impl std::fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Vcpu(rip {:#x}, {} translations)",
            self.state.rip,
            self.cache.len()
        )
    }
}

/// What to do after an exit.
pub(crate) enum Next {
    /// Run the translation.
    Go(TransId),
    /// Look at the outside world, then go on at `rip`.
    Slice,
    /// Return to the layer above.
    Stop(Stop),
}

impl Vcpu {
    /// A CPU in reset state over the given surroundings.
    ///
    /// # Errors
    /// If compiled code is asked for and cannot run on this host.
    pub fn new(mut env: Box<Env>, mode: Mode, mut options: Options) -> Result<Vcpu, VcpuError> {
        if env.memory.paged().is_some() {
            options.tier1.memory = MemoryModel::SoftTlb;
            options.tier2.memory = MemoryModel::SoftTlb;
        }
        let sampler = options.sample_activity.then(|| Sampler::start(&env.doing));
        let mut state = CpuState::new();
        env.attach(&mut state);
        state.x87.portable = u8::from(options.x87 == X87Core::Portable);
        let jit = match options.engine {
            Engine::Interp => None,
            Engine::Jit | Engine::Tiered => Some(Jit::new(&options)?),
        };
        let mut vcpu = Vcpu {
            mode: mode.with_features(env.cpu.features()),
            state,
            env,
            stats: Stats::default(),
            options,
            cache: Cache::default(),
            jit,
            jump_cache: vec![JumpEntry::empty(0); JUMP_ENTRIES].into_boxed_slice(),
            attention: Arc::new(AtomicBool::new(false)),
            observer: None,
            sampler: sampler.flatten(),
            compile_from: 0,
            parked: Vec::new(),
            mapping: 0,
            churn: churn::Churn::default(),
        };
        vcpu.warm_up();
        vcpu.clear_jump_cache();
        vcpu.state.jump_cache = vcpu.jump_cache.as_mut_ptr();
        Ok(vcpu)
    }

    /// The options it was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Setting the flag makes [`Vcpu::run`] return soon (within one fuel slice).
    pub fn attention(&self) -> Arc<AtomicBool> {
        self.attention.clone()
    }

    /// Has every translation reported to `observer`.
    pub fn observe(&mut self, observer: Box<dyn Observer>) {
        self.observer = Some(observer);
    }

    /// Guest instructions executed so far.
    pub fn instructions(&self) -> u64 {
        self.env.instructions(&self.state)
    }

    /// Runs until something needs the layer above, or `budget` guest instructions were executed.
    pub fn run(&mut self, budget: u64) -> Result<Stop, VcpuError> {
        let begun = Instant::now();
        let mut watch = self.watch()?;
        let end = self.instructions().saturating_add(budget);
        let stop = loop {
            self.install_finished()?;
            if watch.is_none() {
                watch = self.watch()?;
            }
            if self.attention.swap(false, Ordering::Relaxed) {
                break Stop::Attention;
            }
            let left = end.saturating_sub(self.instructions());
            if left == 0 {
                break Stop::Budget;
            }
            self.stats.slices += 1;
            self.refuel(left.min(self.options.slice));
            if let Some(stop) = self.slice(left)? {
                break stop;
            }
        };
        self.stats.instructions = self.instructions();
        self.stats.run_ns += begun.elapsed().as_nanos() as u64;
        if let Some(observer) = &mut self.observer {
            observer.event(self.state.rip, &stop);
        }
        match stop {
            Stop::Exception(_) => self.stats.exceptions += 1,
            Stop::Syscall(_) => self.stats.syscalls += 1,
            _ => {}
        }
        Ok(stop)
    }

    /// Has host faults of this thread end the run of our state, if there is compiled code.
    pub(crate) fn watch(&mut self) -> Result<Option<Watch>, VcpuError> {
        let Some(arena) = self.jit.as_ref().and_then(|jit| jit.arena.as_ref()) else {
            return Ok(None);
        };
        host_fault::enter_thread()?;
        let state = std::ptr::from_mut::<CpuState>(&mut self.state);
        // SAFETY: the state has that layout and lives in its box for as long as `self`, which the
        // caller borrows until the watch is dropped.
        Ok(Some(unsafe {
            Watch::new(arena, &CpuState::layout(), state.cast())
        }))
    }

    /// A program starts: compilation waits for [`Options::warm_up`].
    pub(crate) fn warm_up(&mut self) {
        self.compile_from = match self.options.engine {
            Engine::Tiered => self.instructions().saturating_add(self.options.warm_up),
            Engine::Interp | Engine::Jit => 0,
        };
    }

    /// Makes the fuel exactly `amount`.
    pub(crate) fn refuel(&mut self, amount: u64) {
        let missing = amount.wrapping_sub(self.state.fuel as u64);
        self.env.add_fuel(&mut self.state, missing);
    }

    /// The counters, with those that are kept elsewhere filled in.
    pub fn report(&mut self) -> Stats {
        self.stats.instructions = self.instructions();
        for (helper, &calls) in metaphrase_ir::Helper::ALL
            .iter()
            .zip(&self.env.helper_calls)
        {
            if calls > 0 {
                self.stats.callouts.insert(helper.name().to_string(), calls);
            }
        }
        let counted = self.options.passes.count.then_some(self.state.float_ops);
        self.stats.set_float(&self.env.helper_calls, counted);
        if let Some(arena) = self.jit.as_ref().and_then(|jit| jit.arena.as_ref()) {
            self.stats.arena_used = arena.used() as u64;
            self.stats.arena_limit = arena.limit() as u64;
        }
        if let Some(sampler) = &self.sampler {
            let shares = sampler.shares().filter(|(_, ns)| *ns > 0);
            self.stats.activity_ns = shares.map(|(d, ns)| (d.name().to_string(), ns)).collect();
        }
        self.stats.tlb = self.env.memory.paged().map(|p| p.stats());
        for (kind, &count) in SystemKind::ALL.iter().zip(&self.env.system_calls) {
            if count > 0 {
                self.stats.system.insert(kind.name().to_string(), count);
            }
        }
        self.stats.clone()
    }
}

impl Jit {
    fn new(options: &Options) -> Result<Jit, BackendError> {
        let arena = if options.compiles_in_background() {
            None
        } else {
            Some(Jit::make_arena(options)?)
        };
        Ok(Jit {
            arena,
            service: CompileService::new(options),
            inline: false,
        })
    }

    pub(crate) fn make_arena(options: &Options) -> Result<Arena, BackendError> {
        host_fault::install()?;
        Arena::new(options.arena_bytes, &CpuState::layout())
    }

    /// Where the jump cache's empty entries lead.
    pub(crate) fn miss_stub(&self) -> u64 {
        self.arena.as_ref().map_or(0, |a| a.miss_stub() as u64)
    }
}
