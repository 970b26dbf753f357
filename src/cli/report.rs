//! The engine's counters for people.

use super::messages::say;
use metaphrase_runtime::Stats;
use std::fmt::Write;

/// The counters as text, one group a line.
pub fn text(s: &Stats) -> String {
    let mut out = String::new();
    let percent = |part: u64| 100.0 * part as f64 / (s.instructions.max(1)) as f64;
    let ms = |ns: u64| ns as f64 / 1e6;
    let _ = writeln!(
        out,
        "instructions   {} ({:.1} % compiled, {:.1} % interpreted, {} emulated alone)",
        s.instructions,
        percent(s.instructions_compiled),
        percent(s.instructions_interpreted),
        s.instructions_emulated
    );
    let _ = writeln!(
        out,
        "time           {:.1} ms running, of which {:.1} ms translating and {:.1} ms waiting for the \
         compiler; {:.1} ms compiling in all",
        ms(s.run_ns),
        ms(s.translate_ns),
        ms(s.compile_wait_ns),
        ms(s.compile_ns)
    );
    if !s.activity_ns.is_empty() {
        let all = s.activity_ns.values().sum::<u64>().max(1);
        let mut list: Vec<_> = s.activity_ns.iter().collect();
        list.sort_by_key(|(_, ns)| std::cmp::Reverse(**ns));
        let parts = list
            .iter()
            .map(|(name, ns)| format!("{name} {:.1} %", 100.0 * **ns as f64 / all as f64));
        let parts: Vec<String> = parts.collect();
        let _ = writeln!(out, "spent          {} (sampled)", parts.join(", "));
    }
    let _ = writeln!(
        out,
        "translations   {} interpreted blocks, {} compiled blocks, {} compiled regions; {} failed, \
         {} too late",
        s.tier0_translations,
        s.tier1_translations,
        s.tier2_translations,
        s.failed_compilations,
        s.stale_compilations
    );
    let _ = writeln!(
        out,
        "dispatcher     {} interpreted runs ({} chained), {} entries into compiled code, {} slices",
        s.blocks_interpreted, s.interp_chain_hits, s.compiled_entries, s.slices
    );
    let _ = writeln!(
        out,
        "links          {} made, {} unlinked exits, {} jump-cache misses",
        s.links, s.unlinked_exits, s.jump_cache_misses
    );
    let _ = writeln!(
        out,
        "code           {} bytes in the arena of {}, {} published, {} evictions, {} flushes",
        s.arena_used, s.arena_limit, s.code_bytes, s.evictions, s.flushes
    );
    let _ = writeln!(
        out,
        "invalidation   {} writes to translated pages ({} beside the code), {} pages, {} translations",
        s.smc_writes, s.false_invalidations, s.invalidated_pages, s.invalidated_translations
    );
    let inline = match s.float_ran_inline {
        Some(n) => format!("{n} operations ran inline"),
        None => "operations inline not counted (--count-float)".to_string(),
    };
    let _ = writeln!(
        out,
        "floating point {inline}, {} ran in helpers; translated: {} inline, {} as calls (by tier: \
         {:?} and {:?})",
        s.float_ran_calls,
        s.float_inline.iter().sum::<u64>(),
        s.float_calls.iter().sum::<u64>(),
        s.float_inline,
        s.float_calls
    );
    let _ = writeln!(
        out,
        "guest          {} system calls, {} exceptions",
        s.syscalls, s.exceptions
    );
    if let Some(t) = &s.tlb {
        let share = 100.0 * t.miss_ns as f64 / s.run_ns.max(1) as f64;
        let _ = writeln!(
            out,
            "soft TLB       {} misses ({share:.1} % of the time), {} walks ({} faults), {} code misses; \
             {} flushes, {} of what is not global, {} of a page; {} writes beside code",
            t.misses,
            t.walks,
            t.faults,
            t.code_misses,
            t.flushes,
            t.flushes_non_global,
            t.flushes_page,
            t.writes_beside_code
        );
        let _ = writeln!(
            out,
            "outside        {} interrupts, {} device memory accesses, {:.1} ms idle",
            s.interrupts,
            t.device_accesses,
            ms(s.idle_ns)
        );
    }
    let maps = [
        ("traps", &s.traps),
        ("callouts", &s.callouts),
        ("system", &s.system),
    ];
    for (title, map) in maps {
        if !map.is_empty() {
            let list: Vec<String> = map.iter().map(|(k, v)| format!("{k} {v}")).collect();
            let _ = writeln!(out, "{title:<14} {}", list.join(", "));
        }
    }
    out
}

/// Prints the counters to standard error as asked for.
pub fn print(stats: &Stats, json: bool) {
    if json {
        match serde_json::to_string_pretty(stats) {
            Ok(text) => say!("{text}"),
            Err(error) => say!("metaphrase: cannot write the counters: {error}"),
        }
    } else {
        say!("{}", text(stats).trim_end());
    }
}
