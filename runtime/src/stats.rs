//! What a virtual CPU counts about itself. The counters belong to their CPU, and are cheap enough
//! to be always on.

use crate::memory::paged::TlbStats;
use metaphrase_backend::sse;
use metaphrase_ir::Helper;
use serde::Serialize;
use std::collections::BTreeMap;

impl Stats {
    /// Fills in how many floating-point operations ran, from the calls of helpers and, if it was
    /// kept, the count of the operations that the host has instructions for.
    pub(crate) fn set_float(&mut self, calls: &[u64; Helper::ALL.len()], counted: Option<u64>) {
        let sum = |which: fn(Helper) -> bool| -> u64 {
            let all = Helper::ALL.iter().zip(calls);
            all.filter(|(h, _)| which(**h)).map(|(_, &n)| n).sum()
        };
        let helpers = sum(Helper::is_float);
        // Of the operations counted, those that a helper did after all.
        let inline = counted.map(|n| n.saturating_sub(sum(Helper::has_host_form)));
        (self.float_ran_inline, self.float_ran_calls) = if sse::NATIVE {
            (inline, helpers)
        } else {
            (inline.map(|_| 0), helpers + inline.unwrap_or(0))
        };
    }
}

/// Counters of one virtual CPU. Times are in nanoseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// Guest instructions executed, all engines.
    pub instructions: u64,
    /// Of these, by the interpreter.
    pub instructions_interpreted: u64,
    /// Of these, by compiled code.
    pub instructions_compiled: u64,
    /// Of these, alone and uncached (trap policy, stores into translated pages).
    pub instructions_emulated: u64,
    /// Blocks that the dispatcher had the interpreter run.
    pub blocks_interpreted: u64,
    /// Entries from the dispatcher into compiled code.
    pub compiled_entries: u64,
    /// Blocks translated for the interpreter.
    pub tier0_translations: u64,
    /// Blocks compiled.
    pub tier1_translations: u64,
    /// Regions compiled.
    pub tier2_translations: u64,
    /// Compilations that failed; their blocks stay interpreted.
    pub failed_compilations: u64,
    /// Compiled code that came too late: its block was gone.
    pub stale_compilations: u64,
    /// Guest instructions translated, by tier.
    pub translated_instructions: [u64; 3],
    /// Guest bytes translated, by tier.
    pub translated_bytes: [u64; 3],
    /// Floating-point operations translated, by tier, that run as the host's instructions.
    pub float_inline: [u64; 3],
    /// Floating-point operations translated, by tier, that are calls in IR: x87, half precision, SSE
    /// while an exception is unmasked, and what compiled code has a stub or an instruction of the
    /// host for.
    pub float_calls: [u64; 3],
    /// Floating-point operations that ran as instructions of the host, in either engine; an
    /// operation on 256 bits is two. Only counted with the pass `count`, which makes translations
    /// slower.
    pub float_ran_inline: Option<u64>,
    /// Floating-point operations that ran in helpers: always counted, by helper in `callouts`. (On
    /// hosts without floating point as x86 has it everything runs so; then what has no helper of
    /// its own is only counted with the pass `count`.)
    pub float_ran_calls: u64,
    /// Host code bytes published, all time.
    pub code_bytes: u64,
    /// Host code bytes in the arena now.
    pub arena_used: u64,
    /// Size of the arena.
    pub arena_limit: u64,
    /// Translations dropped to make room in the arena.
    pub evictions: u64,
    /// Times that every translation was dropped at once.
    pub flushes: u64,
    /// Direct exits patched to jump to other compiled code.
    pub links: u64,
    /// Direct exits that came back to the dispatcher from compiled code. Those that are linked, and
    /// indirect ones that hit the jump cache, stay in compiled code and are not counted: counting
    /// would cost more than the jump.
    pub unlinked_exits: u64,
    /// Indirect exits that missed the jump cache.
    pub jump_cache_misses: u64,
    /// Interpreted direct exits that found the next block without hashing.
    pub interp_chain_hits: u64,
    /// Indirect exits of interpreted blocks.
    pub interp_indirect_exits: u64,
    /// Guest pages whose translations were dropped because of a write.
    pub invalidated_pages: u64,
    /// Translations so dropped.
    pub invalidated_translations: u64,
    /// Writes of guest instructions to pages with translations.
    pub smc_writes: u64,
    /// Those of them that hit no byte that a translation was made from, and so were no reason to
    /// drop any: data beside code. REP string instructions and others whose length is in registers
    /// are not told apart: they drop the page's translations, as do system calls.
    pub false_invalidations: u64,
    /// Exceptions raised to the guest.
    pub exceptions: u64,
    /// System calls.
    pub syscalls: u64,
    /// Interrupts delivered to a whole system's processor.
    pub interrupts: u64,
    /// Fuel slices.
    pub slices: u64,
    /// System instructions carried out, by name.
    pub system: BTreeMap<String, u64>,
    /// The soft TLB of a whole system.
    pub tlb: Option<TlbStats>,
    /// Guest time that passed in HLT, in deterministic mode; host time asleep in real-time mode.
    pub idle_ns: u64,
    /// Traps by mnemonic: sensitive instructions emulated alone.
    pub traps: BTreeMap<String, u64>,
    /// Callouts by helper.
    pub callouts: BTreeMap<String, u64>,
    /// Time spent translating to IR and predecoding.
    pub translate_ns: u64,
    /// Time spent compiling, on whichever thread.
    pub compile_ns: u64,
    /// Part of it that the guest waited for.
    pub compile_wait_ns: u64,
    /// Time by activity, as sampled; empty unless the machine was asked to sample.
    pub activity_ns: BTreeMap<String, u64>,
    /// Time in the dispatcher, engines included.
    pub run_ns: u64,
}
