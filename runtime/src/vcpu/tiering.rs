//! Making translations and publishing compiled code.

use super::{Jit, Vcpu, VcpuError};
use crate::activity::Doing;
use crate::cache::{Code, Key, Progress, TransId};
use crate::memory::MapError;
use crate::options::Engine;
use crate::tier::{Done, Job};
use crate::translate::{TranslateError, limits, to_ir, to_program};
use metaphrase_backend::sse;
use metaphrase_backend::{CodeRef, CompiledRegion, count_links};
use metaphrase_frontend::{CodeSource, Lifted, Limits};
use metaphrase_ir::GuestInsn;
use metaphrase_ir::passes::PassSet;
use metaphrase_ir::{Helper, Op, Region};
use std::time::Instant;

impl Vcpu {
    /// Makes a translation for the interpreter at `pc`.
    pub(super) fn translate(&mut self, pc: u64) -> Result<TransId, VcpuError> {
        if self.cache.len() >= self.options.max_translations {
            self.flush()?;
        }
        self.env.doing.set(Doing::Translating);
        let begun = Instant::now();
        let failed = |source| VcpuError::Translate { pc, source };
        let mut lifted = self.lift(pc, 0).map_err(failed)?;
        let second = self.settle(&mut lifted);
        let program = match to_program(&lifted.region) {
            Ok(program) => Some(program),
            Err(TranslateError::Program(_)) => None,
            Err(source) => return Err(failed(source)),
        };
        self.stats.tier0_translations += 1;
        self.stats.translate_ns += begun.elapsed().as_nanos() as u64;
        self.env.doing.set(Doing::Dispatching);
        self.protect(&lifted.pages)?;
        let address = self.code_address(pc).unwrap_or(pc);
        let key = Key {
            address,
            pc,
            mode: self.mode,
        };
        let id = self.cache.insert(key, pc, program, &lifted);
        if self.is_checked(pc) {
            let mut bytes = vec![0; lifted.bytes as usize];
            let n = self.code(pc).fetch(pc, &mut bytes);
            bytes.truncate(n);
            self.cache.get_mut(id).checked = Some(bytes.into());
        }
        self.cache.get_mut(id).second = second;
        Ok(id)
    }

    pub(super) fn lift(&mut self, pc: u64, tier: u8) -> Result<Lifted, TranslateError> {
        let all = self.options.passes;
        let passes = match tier {
            0 if self.options.reference => PassSet {
                count: all.count,
                ..PassSet::NONE
            },
            0 if self.quick() => PassSet {
                verify: all.verify,
                count: all.count,
                ..PassSet::NONE
            },
            1.. if self.passes_later() => PassSet::NONE,
            _ => all,
        };
        let lifted = to_ir(
            &self.code(pc),
            pc,
            self.mode,
            if self.is_checked(pc) {
                Limits::SINGLE
            } else {
                limits(&self.options, tier)
            },
            &self.options.policy,
            &passes,
        )?;
        self.stats.translated_instructions[tier as usize] += lifted.region.guest.len() as u64;
        self.stats.translated_bytes[tier as usize] += u64::from(lifted.bytes);
        let (inline, calls) = float_operations(&lifted.region);
        self.stats.float_inline[tier as usize] += inline;
        self.stats.float_calls[tier as usize] += calls;
        if let Some(observer) = &mut self.observer {
            observer.translated(&self.env.memory, tier, &lifted);
        }
        Ok(lifted)
    }

    /// Whether the interpreter gets code that is quick to make rather than quick to run.
    fn quick(&self) -> bool {
        self.options.quick && self.options.engine == Engine::Tiered && self.jit.is_some()
    }

    /// Whether the background thread runs the passes of what it compiles. An observer wants to see
    /// what they made, at once.
    fn passes_later(&self) -> bool {
        self.options.compiles_in_background() && self.observer.is_none()
    }

    pub(super) fn protect(&mut self, pages: &[u64]) -> Result<(), VcpuError> {
        if self.is_system() {
            // `settle` has done it.
            return Ok(());
        }
        for &n in pages {
            match self.env.memory.protect_code(n) {
                // An instruction that cannot be decoded may claim a byte of an unmapped page.
                Ok(()) | Err(MapError::NotMapped | MapError::BadRange) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Asks for a warm block to be compiled, if it is the time for that and there is room in the
    /// queue; if there is none, the block has to get warm again.
    pub(super) fn warm(&mut self, id: TransId) -> Result<(), VcpuError> {
        if self.compile_from > 0 {
            if self.instructions() < self.compile_from {
                return Ok(());
            }
            self.compile_from = 0;
        }
        let waiting = self.jit.as_ref().map_or(0, |jit| jit.service.pending());
        if waiting >= self.options.queue_limit {
            self.cache.get_mut(id).runs = 0;
            return Ok(());
        }
        self.request(id, 1)
    }

    /// Has the translation compiled at that tier, now or in the background.
    pub(crate) fn request(&mut self, id: TransId, tier: u8) -> Result<(), VcpuError> {
        let t = self.cache.get(id);
        let (key, pc, version) = (t.key, t.pc, t.version);
        self.env.doing.set(Doing::Translating);
        let begun = Instant::now();
        let lifted = match self.lift(pc, tier) {
            Ok(mut lifted) => {
                self.settle(&mut lifted);
                lifted
            }
            Err(source @ TranslateError::Verify(_)) => {
                self.env.doing.set(Doing::Dispatching);
                return Err(VcpuError::Translate { pc, source });
            }
            Err(_) => {
                self.cache.get_mut(id).progress = Progress::Failed;
                return Ok(());
            }
        };
        self.stats.translate_ns += begun.elapsed().as_nanos() as u64;
        self.env.doing.set(Doing::Dispatching);
        self.protect(&lifted.pages)?;
        self.cache.add_source(id, &lifted);
        self.cache.get_mut(id).progress = Progress::Requested;
        let slots = count_links(&lifted.region);
        let slot_base = self.cache.reserve_slots(slots);
        let (region, pages) = (lifted.region, lifted.pages);
        let passes = self.passes_later().then_some(self.options.passes);
        if tier == 2 {
            self.cover(key, &region.guest, |covered| *covered += 1);
        }
        let job = Job {
            passes,
            key,
            id,
            version,
            tier,
            slot_base,
            slots,
            region,
            pages,
        };
        let Some(jit) = &mut self.jit else {
            return Ok(());
        };
        let job = if self.options.compiles_in_background() && !jit.inline {
            match jit.service.submit(job) {
                Ok(()) => return Ok(()),
                Err(job) => *job,
            }
        } else {
            job
        };
        if jit.arena.is_none() {
            // There is no thread, and code may only be placed where faults in it are watched for.
            jit.inline = true;
            return self.install(Done::cancelled(job));
        }
        self.env.doing.set(Doing::Compiling);
        let done = jit.service.compile(job);
        self.env.doing.set(Doing::Dispatching);
        self.stats.compile_wait_ns += done.nanos;
        self.install(done)
    }

    /// Notes at the blocks of a region with that head that its compilation begins or ends. Until it ends,
    /// its loop would be sampled in other blocks too, and compiled again from each.
    fn cover(&mut self, head: Key, guest: &[GuestInsn], note: impl Fn(&mut u32)) {
        let mask = head.mode.code.pc_mask();
        for insn in guest {
            let at = head.pc.wrapping_add(insn.offset as u64) & mask;
            if let Some(id) = self.cache.find(head.beside(at)) {
                let t = self.cache.get_mut(id);
                note(&mut t.covered);
                t.samples = 0;
            }
        }
    }

    /// Publishes what the background thread has finished.
    pub(super) fn install_finished(&mut self) -> Result<(), VcpuError> {
        while let Some(done) = self.jit.as_mut().and_then(|jit| jit.service.poll()) {
            self.need_arena();
            self.install(done)?;
        }
        if self.jit.as_ref().is_some_and(|jit| jit.inline) {
            self.need_arena();
        }
        Ok(())
    }

    /// Makes the arena, if it was put off. Without one everything stays interpreted.
    fn need_arena(&mut self) {
        let Some(jit) = &mut self.jit else { return };
        if jit.arena.is_some() {
            return;
        }
        match Jit::make_arena(&self.options) {
            Ok(arena) => {
                jit.arena = Some(arena);
                self.clear_jump_cache();
            }
            Err(error) => {
                tracing::warn!(%error, "no compiled code on this host: interpreting");
                self.jit = None;
            }
        }
    }

    /// Publishes compiled code, unless its translation is gone.
    pub(super) fn install(&mut self, done: Done) -> Result<(), VcpuError> {
        let Done { job, result, nanos } = done;
        self.stats.compile_ns += nanos;
        if job.tier == 2 {
            self.cover(job.key, &job.region.guest, |covered| {
                *covered = covered.saturating_sub(1);
            });
        }
        let Some(t) = self.cache.get_version(job.id, job.version) else {
            self.stats.stale_compilations += 1;
            self.cache.release_slots(job.slot_base, job.slots);
            return Ok(());
        };
        let no_arena = self.jit.as_ref().is_none_or(|jit| jit.arena.is_none());
        let compiled = match result {
            Ok(_) if no_arena => {
                (t.progress, t.runs) = (Progress::Idle, 0);
                self.cache.release_slots(job.slot_base, job.slots);
                return Ok(());
            }
            Ok(compiled) => compiled,
            Err(source @ TranslateError::Verify(_)) => {
                self.env.doing.set(Doing::Dispatching);
                return Err(VcpuError::Translate { pc: t.pc, source });
            }
            Err(TranslateError::Cancelled) => {
                (t.progress, t.runs) = (Progress::Idle, 0);
                self.cache.release_slots(job.slot_base, job.slots);
                return Ok(());
            }
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
        let code = Code {
            code: placed,
            tier: job.tier,
            slot_base: job.slot_base,
            slots: job.slots,
            sites: compiled
                .links
                .iter()
                .map(|l| placed.entry() + l.offset as usize)
                .collect(),
            faults: compiled.faults,
            guest: job.region.guest.into_boxed_slice(),
        };
        let mask = self.cache.get(job.id).key.mode.code.pc_mask();
        let target = |offset: i64| pc.wrapping_add(offset as u64) & mask;
        let exits = compiled.links.iter().map(|l| (l.slot, target(l.target)));
        self.cache.attach(job.id, code, exits);
        Ok(())
    }

    /// Finds room in the arena, dropping the oldest code while there is none.
    pub(super) fn place(&mut self, compiled: &CompiledRegion) -> Option<CodeRef> {
        loop {
            let arena = self.jit.as_mut()?.arena.as_mut()?;
            match arena.publish(compiled) {
                Ok(placed) => {
                    self.stats.arena_used = arena.used() as u64;
                    self.stats.arena_limit = arena.limit() as u64;
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

    /// Counts the block that the fuel ran out at; a hot one becomes the head of a region.
    pub(super) fn sample(&mut self) -> Result<(), VcpuError> {
        if !self.options.regions || self.jit.is_none() {
            return Ok(());
        }
        let pc = self.state.rip;
        let Ok(address) = self.code_address(pc) else {
            return Ok(());
        };
        let key = Key {
            address,
            pc,
            mode: self.mode,
        };
        let Some(id) = self.cache.find(key) else {
            return Ok(());
        };
        let t = self.cache.get_mut(id);
        let Some(code) = &t.code else { return Ok(()) };
        if code.tier == 2 || t.progress != Progress::Idle || t.covered > 0 {
            return Ok(());
        }
        t.samples += 1;
        if t.samples < self.options.tier2_samples {
            return Ok(());
        }
        self.request(id, 2)
    }
}

/// How many floating-point operations a region has: inline, and as calls.
fn float_operations(region: &Region) -> (u64, u64) {
    let (mut inline, mut calls) = (0, 0);
    for &v in region.blocks.iter().flat_map(|b| &b.insts) {
        let inst = region.inst(v);
        if inst.sets_mxcsr() {
            inline += 1;
        } else if inst.op == Op::Call {
            calls += u64::from(Helper::from_imm(inst.imm).is_float());
        }
    }
    if sse::NATIVE {
        (inline, calls)
    } else {
        (0, inline + calls)
    }
}
