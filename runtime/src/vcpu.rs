//! The virtual CPU: the dispatcher that runs blocks in either engine, links them, and turns their
//! exits into what the layer above must handle.

use crate::cache::{Cache, Code, Key, Progress, TransId};
use crate::env::Env;
use crate::interp::{self, NO_SLOT};
use crate::memory::{MapError, PAGE, page};
use crate::options::{Engine, Options};
use crate::state::{CpuState, JUMP_ENTRIES, JumpEntry};
use crate::stats::Stats;
use crate::tier::{CompileService, Done, Job};
use crate::translate::{TranslateError, direct_exits, limits, to_ir, to_program};
use metaphrase_backend::{Arena, BackendError, host_fault, jump_hash};
use metaphrase_frontend::{LiftError, Lifted, Limits, Mode, SensitivePolicy};
use metaphrase_ir::{ExitReason, SyscallKind};
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
}

/// Page-fault error code: the page is there, the right is missing (SDM volume 3, 4.7).
pub const PF_PRESENT: u32 = 1;
/// Page-fault error code: a write.
pub const PF_WRITE: u32 = 2;
/// Page-fault error code: in user mode.
pub const PF_USER: u32 = 4;
/// Page-fault error code: an instruction fetch.
pub const PF_FETCH: u32 = 16;

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
}

/// What compiled code needs; absent with [`Engine::Interp`].
#[derive(Debug)]
pub(crate) struct Jit {
    pub(crate) arena: Arena,
    pub(crate) service: CompileService,
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
        write!(f, "Vcpu(rip {:#x}, {} translations)", self.state.rip, self.cache.len())
    }
}

/// What to do after an exit.
enum Next {
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
    pub fn new(mut env: Box<Env>, mode: Mode, options: Options) -> Result<Vcpu, VcpuError> {
        let mut state = CpuState::new();
        env.attach(&mut state);
        let jit = match options.engine {
            Engine::Interp => None,
            Engine::Jit | Engine::Tiered => Some(Jit::new(&options)?),
        };
        let mut vcpu = Vcpu {
            state,
            env,
            mode,
            stats: Stats::default(),
            options,
            cache: Cache::default(),
            jit,
            jump_cache: vec![JumpEntry::empty(0); JUMP_ENTRIES].into_boxed_slice(),
            attention: Arc::new(AtomicBool::new(false)),
            observer: None,
        };
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
        let end = self.instructions().saturating_add(budget);
        let stop = loop {
            self.install_finished()?;
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

    /// Makes the fuel exactly `amount`.
    fn refuel(&mut self, amount: u64) {
        let missing = amount.wrapping_sub(self.state.fuel as u64);
        self.env.add_fuel(&mut self.state, missing);
    }

    /// Runs until the fuel does not cover the next block. `left` is how many instructions the
    /// caller may still run in all: a block that is longer is run singly, to stop exactly.
    fn slice(&mut self, left: u64) -> Result<Option<Stop>, VcpuError> {
        let mut next = self.lookup_or_fault()?;
        loop {
            next = match next {
                Next::Go(id) => self.dispatch(id)?,
                Next::Slice if self.state.fuel > 0 && left <= self.options.slice => {
                    self.single_step()?
                }
                Next::Slice => return Ok(None),
                Next::Stop(stop) => return Ok(Some(stop)),
            };
        }
    }

    /// Runs one translation, and whatever compiled code chains to it.
    #[inline]
    fn dispatch(&mut self, id: TransId) -> Result<Next, VcpuError> {
        if self.jit.is_some() {
            if let Some(code) = &self.cache.get(id).code {
                let entry = code.code.entry();
                return self.run_compiled(entry);
            }
            if self.options.engine == Engine::Jit {
                let tier = if self.options.eager_regions { 2 } else { 1 };
                self.request(id, tier)?;
                // A block that cannot be compiled falls through to the interpreter.
                if let Some(code) = &self.cache.get(id).code {
                    let entry = code.code.entry();
                    return self.run_compiled(entry);
                }
            }
        }
        self.run_interpreted(id)
    }

    fn run_compiled(&mut self, entry: usize) -> Result<Next, VcpuError> {
        if let Some(observer) = &mut self.observer {
            observer.executed(&self.state, true);
        }
        let jit = self.jit.as_ref().expect("compiled code has an arena");
        let trampoline = jit.arena.trampoline();
        let fuel = self.state.fuel;
        let state = std::ptr::from_mut::<CpuState>(&mut self.state);
        let answer = host_fault::guard(jit.arena.range(), state.cast(), || {
            // SAFETY: the state is ours, of the layout the arena was made for, and attached to our
            // environment and jump cache, which live as long as `self`; `entry` is the entry of a
            // translation that the cache holds. Helpers reach the environment through the state's
            // pointer only, and nothing borrows it here.
            unsafe { trampoline.enter(state.cast(), entry) }
        });
        self.stats.compiled_entries += 1;
        self.stats.instructions_compiled += fuel.wrapping_sub(self.state.fuel) as u64;
        let reason = ExitReason::from_u32(answer as u32);
        let slot = (answer >> 32) as u32;
        match reason {
            ExitReason::Jump if slot != 0 => self.follow_slot(slot - 1),
            ExitReason::Jump => {
                self.stats.jump_cache_misses += 1;
                let next = self.lookup_or_fault()?;
                if let Next::Go(id) = next {
                    self.fill_jump_cache(id);
                }
                Ok(next)
            }
            reason => self.leave(reason),
        }
    }

    /// Goes on behind an unlinked direct exit of compiled code, and links it if there is code to
    /// link to.
    fn follow_slot(&mut self, slot: u32) -> Result<Next, VcpuError> {
        self.stats.unlinked_exits += 1;
        let Some(from) = self.cache.slots[slot as usize] else {
            debug_assert!(false, "exit through a dead slot");
            return self.lookup_or_fault();
        };
        self.state.rip = from.target;
        let next = self.lookup_or_fault()?;
        if let Next::Go(id) = next
            && self.options.chain
            && let Some(to) = &self.cache.get(id).code
            && let Some(source) = &self.cache.get(from.from).code
        {
            let (site, target) = (source.sites[from.index as usize], to.code.entry());
            if let Some(jit) = &mut self.jit {
                jit.arena.link(site, target);
                self.cache.set_link(slot, id);
                self.stats.links += 1;
            }
        }
        Ok(next)
    }

    fn run_interpreted(&mut self, id: TransId) -> Result<Next, VcpuError> {
        if let Some(observer) = &mut self.observer {
            observer.executed(&self.state, false);
        }
        let t = self.cache.get_mut(id);
        t.runs = t.runs.saturating_add(1);
        let warm = t.runs >= self.options.tier1_threshold;
        if warm && self.jit.is_some() && t.progress == Progress::Idle {
            self.request(id, 1)?;
        }
        let t = self.cache.get(id);
        let Some(program) = &t.program else {
            // Only a block too large for the interpreter has no program: run it singly.
            return self.single_step();
        };
        let fuel = self.state.fuel;
        let state = std::ptr::from_mut::<CpuState>(&mut self.state);
        // SAFETY: the state is ours and attached to our environment; nothing borrows it while the
        // program runs, which only touches the state and, through it, the environment.
        let exit = unsafe { interp::run(program, state) };
        self.stats.blocks_interpreted += 1;
        self.stats.instructions_interpreted += fuel.wrapping_sub(self.state.fuel) as u64;
        if exit.reason != ExitReason::Jump {
            return self.leave(exit.reason);
        }
        if exit.slot == NO_SLOT {
            return self.lookup_or_fault();
        }
        let generation = self.cache.generation;
        let (seen, to) = self.cache.get(id).next[exit.slot as usize];
        if seen == generation {
            self.stats.interp_chain_hits += 1;
            return Ok(Next::Go(to));
        }
        let next = self.lookup_or_fault()?;
        if let Next::Go(to) = next {
            let generation = self.cache.generation;
            if let Some(t) = self.cache.try_get_mut(id) {
                t.next[exit.slot as usize] = (generation, to);
            }
        }
        Ok(next)
    }

    /// Turns an exit other than a jump into what comes next.
    fn leave(&mut self, reason: ExitReason) -> Result<Next, VcpuError> {
        Ok(match reason {
            ExitReason::None | ExitReason::Jump => self.lookup_or_fault()?,
            ExitReason::Fuel => {
                self.sample()?;
                Next::Slice
            }
            ExitReason::Exception => {
                let info = self.state.exit_info;
                let vector = info as u8;
                Next::Stop(Stop::Exception(Exception {
                    vector,
                    error: (info & 1 << 8 != 0).then_some((info >> 32) as u32),
                    addr: if vector == 14 { self.state.fault_addr } else { 0 },
                }))
            }
            ExitReason::Syscall => {
                Next::Stop(Stop::Syscall(SyscallKind::from_imm(self.state.exit_info)))
            }
            ExitReason::Halt => Next::Stop(Stop::Halt),
            ExitReason::Memory => {
                let write = self.state.exit_info & 1 != 0;
                self.memory_fault(self.state.fault_addr, write)?
            }
            ExitReason::HostFault => self.host_fault()?,
            ExitReason::Emulate => {
                self.count_trap();
                self.single_step()?
            }
        })
    }

    /// A host fault in compiled code: finds the guest instruction, gives its fuel back, and goes
    /// on as for any refused access.
    fn host_fault(&mut self) -> Result<Next, VcpuError> {
        let fault = host_fault::Fault::from_info(self.state.exit_info);
        let found = self.cache.by_host_pc(fault.host_pc).and_then(|(id, offset)| {
            let t = self.cache.get(id);
            let code = t.code.as_ref()?;
            let insn = metaphrase_backend::fault_insn(&code.faults, offset)?;
            Some((t.pc, *code.guest.get(insn as usize)?))
        });
        // The fault handler only redirects faults inside the arena, at instructions that access
        // guest memory; anything else is a defect that must not go on.
        let (pc, guest) = found.unwrap_or_else(|| {
            panic!("host fault at {:#x}, which accesses no guest memory", fault.host_pc)
        });
        self.state.rip = pc.wrapping_add(guest.offset as u64) & self.mode.code.pc_mask();
        self.state.fuel = self.state.fuel.wrapping_add(i64::from(guest.fuel_left));
        self.stats.instructions_compiled =
            self.stats.instructions_compiled.wrapping_sub(u64::from(guest.fuel_left));
        self.memory_fault(self.state.fault_addr, fault.write)
    }

    /// An access at `rip` was refused: a write to translated code, or the guest's own fault.
    fn memory_fault(&mut self, addr: u64, write: bool) -> Result<Next, VcpuError> {
        // The address may be the first byte of an access that runs into the next page.
        let pages = [addr / PAGE, addr.wrapping_add(15) / PAGE];
        let holds_code = |n: &u64| self.env.memory.flags(n.wrapping_mul(PAGE)) & page::CODE != 0;
        if write && pages.iter().any(holds_code) {
            self.stats.smc_writes += 1;
            for n in pages {
                self.invalidate_page(n)?;
            }
            return self.single_step();
        }
        Ok(Next::Stop(Stop::Exception(self.page_fault(addr, if write { PF_WRITE } else { 0 }))))
    }

    /// The exception for an address that the guest may not access.
    fn page_fault(&mut self, addr: u64, code: u32) -> Exception {
        let canonical = (addr as i64) << 16 >> 16 == addr as i64;
        if self.mode.is_64() && !canonical {
            return Exception { vector: 13, error: Some(0), addr: 0 };
        }
        self.state.fault_addr = addr;
        let mapped = self.env.memory.flags(addr) & page::MAPPED != 0;
        let present = if mapped { PF_PRESENT } else { 0 };
        Exception { vector: 14, error: Some(code | present | PF_USER), addr }
    }

    /// Runs the one instruction at `rip` in the interpreter, without a trace in the cache.
    fn single_step(&mut self) -> Result<Next, VcpuError> {
        let pc = self.state.rip;
        let lifted = to_ir(
            &self.env.memory,
            pc,
            self.mode,
            Limits::SINGLE,
            &SensitivePolicy::default(),
            &self.options.passes,
        );
        let lifted = match lifted {
            Ok(lifted) => lifted,
            Err(error) => return self.translate_failed(pc, error),
        };
        let program =
            to_program(&lifted.region).map_err(|source| VcpuError::Translate { pc, source })?;
        if self.state.fuel < 1 {
            self.refuel(1);
        }
        let fuel = self.state.fuel;
        let state = std::ptr::from_mut::<CpuState>(&mut self.state);
        // SAFETY: as in `run_interpreted`.
        let exit = unsafe { interp::run(&program, state) };
        self.stats.instructions_emulated += fuel.wrapping_sub(self.state.fuel) as u64;
        match exit.reason {
            ExitReason::Jump if self.state.fuel <= 0 => Ok(Next::Slice),
            reason => self.leave(reason),
        }
    }

    /// A block could not be translated: the guest's fault, or a defect of ours.
    fn translate_failed(&mut self, pc: u64, error: TranslateError) -> Result<Next, VcpuError> {
        match error {
            TranslateError::Lift(LiftError::Fetch { addr }) => {
                Ok(Next::Stop(Stop::Exception(self.page_fault(addr, PF_FETCH))))
            }
            source => Err(VcpuError::Translate { pc, source }),
        }
    }

    /// The translation at `rip`, made now if there is none; or the fault of fetching there.
    #[inline]
    fn lookup_or_fault(&mut self) -> Result<Next, VcpuError> {
        let pc = self.state.rip;
        let key = Key { address: pc, mode: self.mode };
        if let Some(id) = self.cache.find(key) {
            return Ok(Next::Go(id));
        }
        match self.translate(pc) {
            Ok(id) => Ok(Next::Go(id)),
            Err(VcpuError::Translate { pc, source }) => self.translate_failed(pc, source),
            Err(error) => Err(error),
        }
    }

    /// Makes a translation for the interpreter at `pc`.
    fn translate(&mut self, pc: u64) -> Result<TransId, VcpuError> {
        if self.cache.len() >= self.options.max_translations {
            self.flush()?;
        }
        let begun = Instant::now();
        let failed = |source| VcpuError::Translate { pc, source };
        let lifted = self.lift(pc, 0).map_err(failed)?;
        let program = match to_program(&lifted.region) {
            Ok(program) => Some(program),
            Err(TranslateError::Program(_)) => None,
            Err(source) => return Err(failed(source)),
        };
        self.stats.tier0_translations += 1;
        self.stats.translate_ns += begun.elapsed().as_nanos() as u64;
        self.protect(&lifted.pages)?;
        let key = Key { address: pc, mode: self.mode };
        Ok(self.cache.insert(key, pc, program, lifted.pages))
    }

    fn lift(&mut self, pc: u64, tier: u8) -> Result<Lifted, TranslateError> {
        let lifted = to_ir(
            &self.env.memory,
            pc,
            self.mode,
            limits(&self.options, tier),
            &self.options.policy,
            &self.options.passes,
        )?;
        self.stats.translated_instructions[tier as usize] += lifted.region.guest.len() as u64;
        self.stats.translated_bytes[tier as usize] += u64::from(lifted.bytes);
        if let Some(observer) = &mut self.observer {
            observer.translated(&self.env.memory, tier, &lifted);
        }
        Ok(lifted)
    }

    fn protect(&mut self, pages: &[u64]) -> Result<(), VcpuError> {
        for &n in pages {
            match self.env.memory.protect_code(n) {
                // An instruction that cannot be decoded may claim a byte of an unmapped page.
                Ok(()) | Err(MapError::NotMapped | MapError::BadRange) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Has the translation compiled at that tier, now or in the background.
    fn request(&mut self, id: TransId, tier: u8) -> Result<(), VcpuError> {
        let t = self.cache.get(id);
        let (pc, version) = (t.pc, t.version);
        let begun = Instant::now();
        let lifted = match self.lift(pc, tier) {
            Ok(lifted) => lifted,
            Err(source @ TranslateError::Verify(_)) => {
                return Err(VcpuError::Translate { pc, source });
            }
            Err(_) => {
                self.cache.get_mut(id).progress = Progress::Failed;
                return Ok(());
            }
        };
        self.stats.translate_ns += begun.elapsed().as_nanos() as u64;
        self.protect(&lifted.pages)?;
        self.cache.add_pages(id, &lifted.pages);
        self.cache.get_mut(id).progress = Progress::Requested;
        let slots = direct_exits(&lifted.region);
        let slot_base = self.cache.reserve_slots(slots);
        let (region, pages) = (lifted.region, lifted.pages);
        let job = Job { id, version, tier, slot_base, slots, region, pages };
        let Some(jit) = &mut self.jit else { return Ok(()) };
        let background = self.options.background && self.options.engine == Engine::Tiered;
        let job = if background {
            match jit.service.submit(job) {
                Ok(()) => return Ok(()),
                Err(job) => *job,
            }
        } else {
            job
        };
        let done = jit.service.compile(job);
        self.stats.compile_wait_ns += done.nanos;
        self.install(done)
    }

    /// Publishes what the background thread has finished.
    fn install_finished(&mut self) -> Result<(), VcpuError> {
        while let Some(done) = self.jit.as_mut().and_then(|jit| jit.service.poll()) {
            self.install(done)?;
        }
        Ok(())
    }

    /// Publishes compiled code, unless its translation is gone.
    fn install(&mut self, done: Done) -> Result<(), VcpuError> {
        let Done { job, result, nanos } = done;
        self.stats.compile_ns += nanos;
        let Some(t) = self.cache.get_version(job.id, job.version) else {
            self.stats.stale_compilations += 1;
            self.cache.release_slots(job.slot_base, job.slots);
            return Ok(());
        };
        let compiled = match result {
            Ok(compiled) => compiled,
            Err(error) => {
                tracing::debug!(pc = t.pc, %error, "compilation failed");
                t.progress = Progress::Failed;
                self.stats.failed_compilations += 1;
                self.cache.release_slots(job.slot_base, job.slots);
                return Ok(());
            }
        };
        t.progress = Progress::Idle;
        let pc = t.pc;
        self.drop_code(job.id);
        let Some(placed) = self.place(&compiled) else {
            self.cache.get_mut(job.id).progress = Progress::Failed;
            self.stats.failed_compilations += 1;
            self.cache.release_slots(job.slot_base, job.slots);
            return Ok(());
        };
        if job.tier == 2 {
            self.stats.tier2_translations += 1;
        } else {
            self.stats.tier1_translations += 1;
        }
        self.stats.code_bytes += compiled.code.len() as u64;
        if let Some(observer) = &mut self.observer {
            let clif = compiled.clif.as_deref();
            observer.compiled(job.tier, pc, placed.entry(), &compiled.code, clif);
        }
        // Not every reserved slot need be used: dead exits are dropped. Give the rest back.
        let used = compiled.links.len() as u32;
        self.cache.release_slots(job.slot_base + used, job.slots - used);
        let code = Code {
            code: placed,
            tier: job.tier,
            slot_base: job.slot_base,
            sites: compiled.links.iter().map(|l| placed.entry() + l.offset as usize).collect(),
            faults: compiled.faults,
            guest: job.region.guest.into_boxed_slice(),
        };
        let targets: Vec<u64> = compiled
            .links
            .iter()
            .map(|l| pc.wrapping_add(l.target as u64) & self.mode.code.pc_mask())
            .collect();
        self.cache.attach(job.id, code, &targets);
        Ok(())
    }

    /// Finds room in the arena, dropping the oldest code while there is none.
    fn place(&mut self, compiled: &metaphrase_backend::CompiledRegion) -> Option<metaphrase_backend::CodeRef> {
        loop {
            let jit = self.jit.as_mut()?;
            match jit.arena.publish(compiled) {
                Ok(placed) => {
                    self.stats.arena_used = jit.arena.used() as u64;
                    self.stats.arena_limit = jit.arena.limit() as u64;
                    return Some(placed);
                }
                Err(_) => {
                    let victim = self.cache.oldest()?;
                    self.drop_code(victim);
                    self.stats.evictions += 1;
                }
            }
        }
    }

    /// Takes a translation's compiled code away; the interpreter keeps the block.
    fn drop_code(&mut self, id: TransId) {
        let Some(jit) = &mut self.jit else { return };
        let Some((code, incoming)) = self.cache.detach(id) else { return };
        for slot in incoming {
            if let Some(s) = self.cache.slots[slot as usize]
                && let Some(source) = &self.cache.get(s.from).code
            {
                jit.arena.unlink(source.sites[s.index as usize]);
            }
        }
        let t = self.cache.get_mut(id);
        let entry = &mut self.jump_cache[jump_hash(t.pc, JUMP_ENTRIES as u32) as usize];
        if entry.code == code.code.entry() as u64 {
            *entry = JumpEntry::empty(jit.arena.miss_stub() as u64);
        }
        (t.runs, t.samples) = (0, 0);
        jit.arena.free(code.code);
    }

    fn fill_jump_cache(&mut self, id: TransId) {
        let t = self.cache.get(id);
        if let Some(code) = &t.code
            && self.options.jump_cache
        {
            let n = jump_hash(t.pc, JUMP_ENTRIES as u32) as usize;
            self.jump_cache[n] = JumpEntry { pc: t.pc, code: code.code.entry() as u64 };
        }
    }

    fn clear_jump_cache(&mut self) {
        let miss = self.jit.as_ref().map_or(0, |jit| jit.arena.miss_stub() as u64);
        self.jump_cache.fill(JumpEntry::empty(miss));
    }

    /// Counts the block that the fuel ran out at; a hot one becomes the head of a region.
    fn sample(&mut self) -> Result<(), VcpuError> {
        if !self.options.regions || self.jit.is_none() {
            return Ok(());
        }
        let key = Key { address: self.state.rip, mode: self.mode };
        let Some(id) = self.cache.find(key) else { return Ok(()) };
        let t = self.cache.get_mut(id);
        let Some(code) = &t.code else { return Ok(()) };
        if code.tier == 2 || t.progress != Progress::Idle {
            return Ok(());
        }
        t.samples += 1;
        if t.samples < self.options.tier2_samples {
            return Ok(());
        }
        self.request(id, 2)
    }

    /// Drops every translation made from a page and lets the guest write to it again.
    pub fn invalidate_page(&mut self, n: u64) -> Result<(), VcpuError> {
        let ids = self.cache.on_page(n);
        if !ids.is_empty() {
            self.stats.invalidated_pages += 1;
            self.stats.invalidated_translations += ids.len() as u64;
        }
        for id in ids {
            self.drop_code(id);
            self.cache.remove(id);
        }
        match self.env.memory.release_code(n) {
            Ok(()) | Err(MapError::NotMapped | MapError::BadRange) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Drops the translations of pages that a system call has written to or mapped anew. To be
    /// called after each system call.
    pub fn drop_stale(&mut self) -> Result<(), VcpuError> {
        for n in self.env.memory.take_dirty_code() {
            self.invalidate_page(n)?;
        }
        Ok(())
    }

    /// Drops every translation.
    pub fn flush(&mut self) -> Result<(), VcpuError> {
        self.stats.flushes += 1;
        for n in self.cache.pages() {
            self.invalidate_page(n)?;
        }
        for id in self.cache.ids() {
            self.drop_code(id);
            self.cache.remove(id);
        }
        self.clear_jump_cache();
        Ok(())
    }

    /// To be called before the process forks: ends the background thread.
    pub fn before_fork(&mut self) -> Result<(), VcpuError> {
        let finished = self.jit.as_mut().map(|jit| jit.service.stop()).unwrap_or_default();
        for done in finished {
            self.install(done)?;
        }
        Ok(())
    }

    /// To be called in the child of a fork: the arena is shared with the parent, so the child
    /// drops every translation and takes an arena of its own.
    pub fn after_fork_in_child(&mut self) -> Result<(), VcpuError> {
        if self.jit.is_none() {
            return Ok(());
        }
        let fresh = Jit::new(&self.options)?;
        for n in self.cache.pages() {
            self.env.memory.release_code(n).or_else(|e| match e {
                MapError::NotMapped | MapError::BadRange => Ok(()),
                e => Err(e),
            })?;
        }
        self.cache = Cache::default();
        self.jit = Some(fresh);
        self.clear_jump_cache();
        Ok(())
    }

    fn count_trap(&mut self) {
        let mut bytes = [0; 15];
        let n = self.env.memory.fetch(self.state.rip, &mut bytes);
        let mut decoder = iced_x86::Decoder::new(self.mode.code.bits(), &bytes[..n], 0);
        let name = format!("{:?}", decoder.decode().mnemonic()).to_lowercase();
        *self.stats.traps.entry(name).or_default() += 1;
    }

    /// The counters, with those that are kept elsewhere filled in.
    pub fn report(&mut self) -> Stats {
        self.stats.instructions = self.instructions();
        for (helper, &calls) in metaphrase_ir::Helper::ALL.iter().zip(&self.env.helper_calls) {
            if calls > 0 {
                self.stats.callouts.insert(helper.name().to_string(), calls);
            }
        }
        if let Some(jit) = &self.jit {
            self.stats.arena_used = jit.arena.used() as u64;
            self.stats.arena_limit = jit.arena.limit() as u64;
        }
        self.stats.clone()
    }
}

impl Jit {
    fn new(options: &Options) -> Result<Jit, BackendError> {
        host_fault::install()?;
        let arena = Arena::new(options.arena_bytes, &CpuState::layout())?;
        Ok(Jit { arena, service: CompileService::new(options)? })
    }
}
