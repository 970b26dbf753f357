//! The dispatcher: which block runs next, in which engine, and what its exit means.

use super::{BUS, Exception, Next, Stop, Vcpu, VcpuError};
use crate::activity::Doing;
use crate::cache::{Key, Progress, TransId};
use crate::interp::{self, NO_SLOT};
use crate::options::Engine;
use crate::state::CpuState;
use crate::translate::{to_ir, to_program};
use metaphrase_frontend::{Limits, SensitivePolicy};
use metaphrase_ir::{ExitReason, SyscallKind};

impl Vcpu {
    /// Runs until the fuel does not cover the next block. `left` is how many instructions the
    /// caller may still run in all: a block that is longer is run singly, to stop exactly.
    pub(super) fn slice(&mut self, left: u64) -> Result<Option<Stop>, VcpuError> {
        // The next block may be longer than a whole slice.
        let short = self.options.slice < u64::from(u16::MAX);
        let mut next = self.lookup_or_fault()?;
        loop {
            next = match next {
                Next::Go(_) if self.is_careful() => self.careful_step()?,
                Next::Go(id) => self.dispatch(id)?,
                Next::Slice if self.state.fuel > 0 && (short || left <= self.options.slice) => {
                    self.last_block()?
                }
                Next::Slice => return Ok(None),
                Next::Stop(stop) => return Ok(Some(stop)),
            };
        }
    }

    /// Runs the next block although a region does not want to run any more: a region asks for fuel
    /// for several blocks at once. If there is too little for the block too, one instruction.
    fn last_block(&mut self) -> Result<Next, VcpuError> {
        let id = match self.lookup_or_fault()? {
            Next::Go(id) => id,
            next => return Ok(next),
        };
        let fuel = self.state.fuel;
        match self.run_interpreted(id)? {
            Next::Slice if self.state.fuel == fuel => self.single_step(),
            next => Ok(next),
        }
    }

    /// Runs one translation, and whatever compiled code chains to it.
    #[inline]
    pub(super) fn dispatch(&mut self, id: TransId) -> Result<Next, VcpuError> {
        if self.jit.is_some() && self.cache.get(id).checked.is_none() {
            if let Some(code) = &self.cache.get(id).code {
                let entry = code.code.entry();
                return self.run_compiled(entry);
            }
            if self.options.engine == Engine::Jit && self.cache.get(id).progress == Progress::Idle {
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

    pub(super) fn run_compiled(&mut self, entry: usize) -> Result<Next, VcpuError> {
        if let Some(observer) = &mut self.observer {
            observer.executed(&self.state, true);
        }
        let fuel = self.state.fuel;
        self.env.doing.set(Doing::Compiled);
        let (reason, slot) = self.enter(entry);
        self.env.doing.set(Doing::Dispatching);
        self.stats.compiled_entries += 1;
        self.stats.instructions_compiled += fuel.wrapping_sub(self.state.fuel) as u64;
        match (reason, slot) {
            (ExitReason::Jump, Some(slot)) => self.follow_slot(slot),
            (ExitReason::Jump, None) => {
                self.stats.jump_cache_misses += 1;
                let next = self.lookup_or_fault()?;
                if let Next::Go(id) = next {
                    self.fill_jump_cache(id);
                }
                Ok(next)
            }
            (reason, _) => self.leave(reason),
        }
    }

    /// Runs compiled code until it leaves: why, and through which link slot. RIP is current
    /// afterwards, host faults have become `Memory` or `Exception`.
    pub(crate) fn enter(&mut self, entry: usize) -> (ExitReason, Option<u32>) {
        let arena = self.jit.as_ref().and_then(|jit| jit.arena.as_ref());
        let trampoline = arena.expect("compiled code has an arena").trampoline();
        let state = std::ptr::from_mut::<CpuState>(&mut self.state);
        // SAFETY: the state is ours, of the layout the arena was made for, and attached to our
        // environment and jump cache, which live as long as `self`; `entry` is the entry of a
        // translation that the cache holds. Helpers reach the environment through the state's
        // pointer only, and nothing borrows it here.
        let answer = unsafe { trampoline.enter(state.cast(), entry) };
        let slot = ((answer >> 32) as u32).checked_sub(1);
        match (ExitReason::from_u32(answer as u32), slot) {
            (ExitReason::HostFault, _) => (self.host_fault(), None),
            (ExitReason::Memory, _) => (self.refused_access(), None),
            (reason, None) => (reason, None),
            (reason, Some(slot)) => {
                if let Some(from) = self.cache.slots[slot as usize] {
                    self.state.rip = from.target;
                }
                (reason, Some(slot))
            }
        }
    }

    /// Goes on behind an unlinked direct exit of compiled code, and links it if there is code to
    /// link to.
    pub(super) fn follow_slot(&mut self, slot: u32) -> Result<Next, VcpuError> {
        self.stats.unlinked_exits += 1;
        let Some(from) = self.cache.slots[slot as usize] else {
            debug_assert!(false, "exit through a dead slot");
            return self.lookup_or_fault();
        };
        let generation = self.cache.generation;
        let next = self.lookup_or_fault()?;
        if let Next::Go(id) = next
            // Making the translation may have dropped all others, the exit's own included.
            && generation == self.cache.generation
            && self.options.chain
            && self.cache.get(from.from).may_link(from.target, self.cache.get(id))
            && let Some(to) = &self.cache.get(id).code
            && let Some(source) = &self.cache.get(from.from).code
        {
            let (site, target) = (source.sites[from.index as usize], to.code.entry());
            if let Some(arena) = self.jit.as_mut().and_then(|jit| jit.arena.as_mut()) {
                arena.link(site, target);
                self.cache.set_link(slot, id);
                self.stats.links += 1;
            }
        }
        Ok(next)
    }

    pub(super) fn run_interpreted(&mut self, id: TransId) -> Result<Next, VcpuError> {
        if let Some(observer) = &mut self.observer {
            observer.executed(&self.state, false);
        }
        let t = self.cache.get_mut(id);
        t.runs = t.runs.saturating_add(1);
        let warm = t.runs >= self.options.tier1_threshold;
        if warm && self.jit.is_some() && t.progress == Progress::Idle && t.checked.is_none() {
            self.warm(id)?;
        }
        let t = self.cache.get(id);
        let Some(program) = &t.program else {
            // Only a block too large for the interpreter has no program: run it singly.
            return self.single_step();
        };
        let fuel = self.state.fuel;
        self.env.doing.set(Doing::Interpreting);
        let state = std::ptr::from_mut::<CpuState>(&mut self.state);
        // SAFETY: the state is ours and attached to our environment; nothing borrows it while the
        // program runs, which only touches the state and, through it, the environment.
        let exit = unsafe { interp::run(program, state) };
        self.env.doing.set(Doing::Dispatching);
        self.stats.blocks_interpreted += 1;
        self.stats.instructions_interpreted += fuel.wrapping_sub(self.state.fuel) as u64;
        if exit.reason != ExitReason::Jump {
            return self.leave(exit.reason);
        }
        if exit.slot == NO_SLOT {
            self.stats.interp_indirect_exits += 1;
            return self.lookup_or_fault();
        }
        let (seen, to) = self.cache.get(id).next[exit.slot as usize];
        if self.cache.is_version(to, seen) {
            self.stats.interp_chain_hits += 1;
            return Ok(Next::Go(to));
        }
        let generation = self.cache.generation;
        let next = self.lookup_or_fault()?;
        // Making the translation may have dropped all others, and `id` may be another's now.
        if let Next::Go(to) = next
            && generation == self.cache.generation
            && self
                .cache
                .get(id)
                .may_link(self.cache.get(to).pc, self.cache.get(to))
        {
            let version = self.cache.get(to).version;
            self.cache.get_mut(id).next[exit.slot as usize] = (version, to);
        }
        Ok(next)
    }

    /// Turns an exit other than a jump into what comes next.
    pub(crate) fn leave(&mut self, reason: ExitReason) -> Result<Next, VcpuError> {
        Ok(match reason {
            // `enter` has turned host faults into one of the others.
            ExitReason::None | ExitReason::Jump | ExitReason::HostFault => {
                self.lookup_or_fault()?
            }
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
                    addr: if vector == 14 {
                        self.state.fault_addr
                    } else {
                        0
                    },
                    bus: info & BUS != 0,
                }))
            }
            ExitReason::Syscall => {
                Next::Stop(Stop::Syscall(SyscallKind::from_imm(self.state.exit_info)))
            }
            ExitReason::Halt => Next::Stop(Stop::Halt),
            ExitReason::Memory => {
                let (addr, info) = (self.state.fault_addr, self.state.exit_info);
                if self.is_system() {
                    self.system_memory_fault(addr, info & 1 != 0, info & 2 != 0)?
                } else {
                    self.memory_fault(addr, info & 1 != 0)?
                }
            }
            ExitReason::Emulate => {
                self.count_trap();
                self.single_step()?
            }
        })
    }

    /// The translation at `rip`, made now if there is none; or the fault of fetching there.
    #[inline]
    pub(crate) fn lookup_or_fault(&mut self) -> Result<Next, VcpuError> {
        self.follow_mode();
        let pc = self.state.rip;
        if self.is_system() {
            if self.state.sys.look {
                self.state.sys.look = false;
                return Ok(Next::Stop(Stop::Attention));
            }
            if self
                .env
                .memory
                .paged()
                .is_some_and(|p| p.phys().has_dirty())
            {
                self.drop_stale()?;
            }
            match self.find_system(pc) {
                Ok(Some(id)) => return Ok(Next::Go(id)),
                Ok(None) => {}
                Err(fault) => return Ok(Next::Stop(Stop::Exception(fault.into()))),
            }
        } else {
            let key = Key {
                address: pc,
                pc,
                mode: self.mode,
            };
            if let Some(id) = self.cache.find(key) {
                return Ok(Next::Go(id));
            }
        }
        match self.translate(pc) {
            Ok(id) => Ok(Next::Go(id)),
            Err(VcpuError::Translate { pc, source }) => self.translate_failed(pc, source),
            Err(error) => Err(error),
        }
    }

    /// Makes the mode say whether MXCSR unmasks an exception, and what else it says of a whole
    /// system. The jump cache knows nothing of modes.
    #[inline]
    fn follow_mode(&mut self) {
        const MASKS: u32 = metaphrase_backend::sse::MASKS;
        let unmasked = self.state.mxcsr & MASKS != MASKS;
        if self.is_system() {
            self.follow_system(unmasked);
        } else if unmasked != self.mode.unmasked {
            self.mode.unmasked = unmasked;
            self.clear_jump_cache();
        }
    }

    /// Runs the one instruction at `rip` in the interpreter, without a trace in the cache.
    pub(super) fn single_step(&mut self) -> Result<Next, VcpuError> {
        let pc = self.state.rip;
        let lifted = to_ir(
            &self.code(pc),
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
        self.begin_alone();
        self.env.doing.set(Doing::Interpreting);
        let state = std::ptr::from_mut::<CpuState>(&mut self.state);
        // SAFETY: as in `run_interpreted`.
        let exit = unsafe { interp::run(&program, state) };
        self.env.doing.set(Doing::Dispatching);
        self.end_alone();
        self.stats.instructions_emulated += fuel.wrapping_sub(self.state.fuel) as u64;
        match exit.reason {
            ExitReason::Jump if self.state.fuel <= 0 => Ok(Next::Slice),
            reason => self.leave(reason),
        }
    }
}
