//! What the command line prints: statistics, dumps, lock step, the demo, logs.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod command;

use command::*;
use iced_x86::code_asm::*;
use metaphrase::guest::CODE;
use std::process::Command;

/// A guest with a loop, an indirect call, CPUID, and a store into its own page.
fn varied(scratch: &Scratch) -> String {
    scratch.guest(|a| {
        let (mut again, mut f) = (a.create_label(), a.create_label());
        a.mov(r12d, 3000)?;
        a.lea(r13, ptr(f))?;
        a.set_label(&mut again)?;
        a.call(r13)?;
        a.dec(r12d)?;
        a.jne(again)?;
        a.xor(eax, eax)?;
        a.cpuid()?;
        exit(a, 5)?;
        a.set_label(&mut f)?;
        a.add(rbx, r12)?;
        a.ret()
    })
}

#[test]
fn statistics_as_json_hold_the_counters() {
    let scratch = Scratch::new();
    let path = varied(&scratch);
    for engine in ENGINES {
        let mut args = vec!["user", "--stats", "--json", "--sync-compile"];
        args.extend(engine);
        args.push(&path);
        let out = metaphrase(&args);
        assert_eq!(out.status.code(), Some(5), "{}", stderr(&out));
        let stats: serde_json::Value = serde_json::from_slice(&out.stderr).unwrap();
        let number = |name: &str| {
            let value = stats[name].as_u64();
            value.unwrap_or_else(|| panic!("{name} is missing: {stats}"))
        };
        // Blocks and instructions by tier, translations and their bytes.
        assert_eq!(number("instructions"), 3000 * 5 + 7, "{stats}");
        let parts = number("instructions_interpreted")
            + number("instructions_compiled")
            + number("instructions_emulated");
        assert_eq!(parts, number("instructions"), "{stats}");
        for name in ["tier0_translations", "tier1_translations"] {
            number(name);
        }
        assert!(number("tier0_translations") > 0 && number("translate_ns") > 0);
        for name in ["translated_instructions", "translated_bytes"] {
            let tiers: Vec<u64> = serde_json::from_value(stats[name].clone()).unwrap();
            assert_eq!(tiers.len(), 3, "{stats}");
            assert!(tiers[0] > 0, "{stats}");
        }
        assert!(stats["float_ran_inline"].is_null(), "{stats}");
        assert_eq!(number("float_ran_calls"), 0);
        for name in ["float_inline", "float_calls"] {
            let tiers: Vec<u64> = serde_json::from_value(stats[name].clone()).unwrap();
            assert_eq!(tiers.len(), 3, "{stats}");
        }
        // Exits, callouts and traps, invalidations, time.
        for name in [
            "blocks_interpreted",
            "compiled_entries",
            "tier2_translations",
            "failed_compilations",
            "links",
            "unlinked_exits",
            "jump_cache_misses",
            "interp_chain_hits",
            "interp_indirect_exits",
            "invalidated_pages",
            "invalidated_translations",
            "smc_writes",
            "false_invalidations",
            "evictions",
            "flushes",
            "compile_ns",
            "compile_wait_ns",
            "run_ns",
            "slices",
        ] {
            number(name);
        }
        assert_eq!(number("syscalls"), 1);
        assert_eq!(stats["callouts"]["cpuid"], 1, "{stats}");
        assert!(stats["traps"].as_object().unwrap().is_empty());
        let compiled = engine[1] != "interp";
        assert_eq!(number("code_bytes") > 0, compiled, "{stats}");
        assert_eq!(number("compile_ns") > 0, compiled, "{stats}");
        assert_eq!(number("instructions_compiled") > 0, compiled, "{stats}");
    }
    let out = metaphrase(&["user", "--stats", "--policy", "cpuid=trap", &path]);
    let text = stderr(&out);
    assert!(text.contains("traps          cpuid 1"), "{text}");
}

/// What ran inline and in helpers, as `--count-float` has it.
fn float_counts(engine: &[&str], path: &str) -> (u64, u64) {
    let mut args = vec!["user", "--cpu", "max", "--stats", "--json"];
    args.extend(["--sync-compile", "--count-float"]);
    args.extend(engine);
    args.push(path);
    let out = metaphrase(&args);
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    let stats: serde_json::Value = serde_json::from_slice(&out.stderr).unwrap();
    let number = |name: &str| stats[name].as_u64().unwrap();
    (number("float_ran_inline"), number("float_ran_calls"))
}

#[test]
fn floating_point_operations_that_ran_are_counted_exactly() {
    const ROUNDS: u64 = 3000;
    let scratch = Scratch::new();
    // Additions alone; now and then, blocks end in their middle: at a store into their own page.
    let path = scratch.guest(|a| {
        let (mut again, mut skip) = (a.create_label(), a.create_label());
        a.mov(eax, 10)?; // mprotect
        a.mov(rdi, CODE)?;
        a.mov(esi, 0x1000)?;
        a.mov(edx, 7)?;
        a.syscall()?;
        a.mov(rbx, CODE + 0x800)?;
        a.mov(r12d, ROUNDS as i32)?;
        a.set_label(&mut again)?;
        a.addsd(xmm0, qword_ptr(rbx))?;
        a.addsd(xmm0, xmm1)?;
        a.mov(rax, qword_ptr(rbx))?;
        a.addps(xmm2, xmm3)?;
        a.addpd(xmm3, xmmword_ptr(rbx))?;
        a.mov(eax, r12d)?;
        a.xor(edx, edx)?;
        a.mov(ecx, 500)?;
        a.div(ecx)?;
        a.test(edx, edx)?;
        a.jne(skip)?;
        a.addsd(xmm4, xmm1)?;
        a.mov(qword_ptr(rbx), r12)?;
        a.addsd(xmm4, xmm1)?;
        a.set_label(&mut skip)?;
        a.dec(r12d)?;
        a.jne(again)?;
        exit(a, 0)
    });
    for engine in ENGINES {
        let want = (ROUNDS * 4 + ROUNDS / 500 * 2, 0);
        assert_eq!(float_counts(engine, &path), want, "{engine:?}");
    }
    // Of everything else it depends on the engine where it runs, but not how often.
    let path = scratch.guest(|a| {
        let mut again = a.create_label();
        a.mov(r12d, ROUNDS as i32)?;
        a.fldz()?;
        a.fld1()?;
        a.set_label(&mut again)?;
        a.cvtsi2sd(xmm0, r12d)?;
        a.comisd(xmm0, xmm1)?;
        a.roundsd(xmm2, xmm0, 1)?;
        a.cvtsd2si(eax, xmm2)?;
        a.vaddpd(ymm4, ymm5, ymm6)?;
        a.vfmadd213sd(xmm4, xmm5, xmm6)?;
        a.vcvtph2ps(xmm7, xmm4)?;
        a.fadd_2(st0, st1)?;
        a.fmul_2(st1, st0)?;
        a.dec(r12d)?;
        a.jne(again)?;
        exit(a, 0)
    });
    for engine in ENGINES {
        let (inline, calls) = float_counts(engine, &path);
        // FLDZ and FLD1 are calls, too.
        assert_eq!(inline + calls, ROUNDS * 10 + 2, "{engine:?}");
        // VCVTPH2PS, and in the interpreter the x87.
        assert!(calls >= ROUNDS, "{engine:?}: {calls}");
        let interpreter = engine[1] == "interp";
        assert_eq!(calls >= ROUNDS * 3 + 2, interpreter, "{engine:?}: {calls}");
        assert!(inline >= ROUNDS * 4, "{engine:?}: {inline}");
    }
}

#[test]
fn a_guest_that_closes_its_standard_error_does_not_close_ours() {
    let scratch = Scratch::new();
    let path = scratch.guest(|a| {
        a.mov(edi, 2)?;
        a.mov(eax, 3)?; // close
        a.syscall()?;
        exit(a, 0)
    });
    let out = metaphrase(&["user", "--stats", "-d", "syscall", &path]);
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    let text = stderr(&out);
    assert!(
        text.contains("exit") && text.contains("system calls"),
        "{text}"
    );
    let out = metaphrase(&["verify", &path]);
    assert!(stderr(&out).contains("blocks agree"), "{}", stderr(&out));
}

#[test]
fn dump_shows_every_stage() {
    let out = metaphrase(&["dump", "--bytes", "48 01 d8 c3"]);
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    let text = stdout(&out);
    for part in [
        "; guest code",
        "add rax,rbx",
        "; IR\n",
        "; IR after the passes",
        "; CLIF",
        "; host code",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    let only = stdout(&metaphrase(&[
        "dump",
        "--bytes",
        "0x90,0xc3",
        "--show",
        "in_asm",
    ]));
    assert!(only.contains("nop") && !only.contains("; IR"), "{only}");
    let small = stdout(&metaphrase(&[
        "dump", "--bytes", "40", "--bits", "32", "--show", "in_asm",
    ]));
    assert!(small.contains("inc eax"), "{small}");
    // Bytes that are no instruction are shown as what they do.
    let out = metaphrase(&["dump", "--bytes", "0f 0b 06"]);
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    let region = stdout(&metaphrase(&[
        "dump",
        "--bytes",
        "75 fe 90 c3",
        "--region",
        "--show",
        "ir,ir_opt",
    ]));
    assert!(region.contains("; IR"), "{region}");
}

#[test]
fn dump_starts_at_a_symbol_of_an_elf_file() {
    let scratch = Scratch::new();
    let path = scratch.guest(|a| exit(a, 77));
    let text = stdout(&metaphrase(&["dump", &path, "--show", "in_asm"]));
    assert!(
        text.contains("mov edi,4Dh") && text.contains("syscall"),
        "{text}"
    );
    // Our own executable has symbols.
    let own = env!("CARGO_BIN_EXE_metaphrase");
    let out = metaphrase(&["dump", own, "--symbol", "main", "--show", "in_asm,ir"]);
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    assert!(stdout(&out).contains("; IR"), "{}", stdout(&out));
}

#[test]
fn verify_finds_a_miscompile_and_names_the_block() {
    let scratch = Scratch::new();
    let path = scratch.guest(|a| {
        let (mut first, mut second) = (a.create_label(), a.create_label());
        a.mov(rcx, qword_ptr(rsp))?; // CODE: nothing to add; argc is 1
        a.jmp(first)?;
        a.set_label(&mut first)?; // CODE + 6
        a.mov(edx, 1)?;
        a.jmp(second)?;
        a.set_label(&mut second)?; // CODE + 13
        a.lea(ebx, dword_ptr(rcx + rdx * 2))?;
        a.add(ecx, ebx)?;
        exit(a, 0)
    });
    let out = metaphrase(&["verify", &path]);
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    assert!(stderr(&out).contains("blocks agree"), "{}", stderr(&out));
    for tier in ["1", "2"] {
        let out = metaphrase(&["verify", "--tier", tier, "--enable-pass", "break", &path]);
        let text = stderr(&out);
        assert_eq!(out.status.code(), Some(1), "tier {tier}: {text}");
        if tier == "1" {
            let name = format!("block at {:#x}", CODE + 13);
            assert!(text.contains(&name), "not {name}: {text}");
        }
        for part in [
            "state before",
            "guest code",
            "IR before",
            "IR after",
            "host code",
        ] {
            assert!(text.contains(part), "{part} is missing: {text}");
        }
    }
}

#[test]
fn demo_runs_and_its_json_parses() {
    let args = ["demo", "--scale", "0.001", "--repeats", "1", "--json"];
    let out = metaphrase(&args);
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(rows.len(), metaphrase::guest::ALL.len());
    for row in rows {
        assert!(row["instructions"].as_u64().unwrap() > 1000, "{row}");
        assert!(row["interp_ms"].as_f64().unwrap() > 0.0, "{row}");
    }
    // The same programs as files.
    let scratch = Scratch::new();
    let dir = scratch.0.join("elf");
    let out = metaphrase(&["demo", "--scale", "0.001", "--elf", dir.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    for workload in metaphrase::guest::ALL {
        let path = dir.join(workload.name);
        let native = Command::new(&path).output().unwrap();
        let out = metaphrase(&["user", path.to_str().unwrap()]);
        assert_eq!(out.stdout, native.stdout, "{}", workload.name);
        assert_eq!(out.stdout.len(), 8);
    }
}

#[test]
fn each_log_item_logs_something_where_it_should() {
    let scratch = Scratch::new();
    let path = varied(&scratch);
    for (item, word) in [
        ("in_asm", "cpuid"),
        ("ir", "fuel"),
        ("ir_opt", "fuel"),
        ("clif", "function"),
        ("out_asm", "ret"),
        ("exec", "compiled"),
        ("int", "Syscall"),
        ("syscall", "exit"),
    ] {
        let out = metaphrase(&["user", "--engine", "jit", "-d", item, &path]);
        assert_eq!(out.status.code(), Some(5), "{item}");
        let direct = stderr(&out);
        assert!(
            direct.contains(word),
            "{item} does not say {word}: {direct}"
        );
        let log = scratch.0.join(item);
        let name = log.to_str().unwrap();
        let out = metaphrase(&["user", "--engine", "jit", "-d", item, "-D", name, &path]);
        assert!(out.stderr.is_empty(), "{item}: {}", stderr(&out));
        let written = std::fs::read_to_string(&log).unwrap();
        assert!(written.contains(word), "{item} in the file: {written}");
    }
    let out = metaphrase(&["user", "--strace", &path]);
    assert!(stderr(&out).contains("exit"), "{}", stderr(&out));
    let out = metaphrase(&["user", "-d", "in_asm,int", &path]);
    let text = stderr(&out);
    assert!(text.contains("cpuid") && text.contains("Syscall"), "{text}");
    let quiet = metaphrase(&["user", &path]);
    assert!(quiet.stderr.is_empty());
}

#[test]
fn the_guests_own_options_are_not_ours() {
    let scratch = Scratch::new();
    // argc is the status.
    let path = scratch.guest(|a| {
        a.mov(edi, dword_ptr(rsp))?;
        a.mov(eax, 60)?;
        a.syscall()
    });
    let out = metaphrase(&["user", "-cpu", "max", &path, "-cpu", "--engine", "-d", "x"]);
    assert_eq!(out.status.code(), Some(5), "{}", stderr(&out));
}
