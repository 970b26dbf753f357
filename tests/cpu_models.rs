//! CPU models: for each, which instructions it knows (the others raise #UD), what CPUID and XCR0
//! say, and what the command line makes of unknown names. The expectations are written out here
//! from the manuals and the psABI's levels, not taken from the tables that they test.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod command;

use command::{Scratch, metaphrase, stderr};
use metaphrase_frontend::Mode;
use metaphrase_runtime::memory::{PAGE, Window, page};
use metaphrase_runtime::{CpuModel, Engine, Env, GuestMemory, Options, Stop, Vcpu};

/// The models, each with all of the one before.
const MODELS: [&str; 7] = [
    "486",
    "pentium",
    "pentium3",
    "x86-64-v1",
    "x86-64-v2",
    "x86-64-v3",
    "max",
];

/// Instructions that mean the same in 32 and in 64-bit code (with an address in RDX), and the first
/// model that knows them.
const INSTRUCTIONS: &[(&str, &[u8], &str)] = &[
    ("fadd st0, st0", &[0xd8, 0xc0], "486"),
    ("cpuid", &[0x0f, 0xa2], "486"),
    ("cmpxchg [rdx], ecx", &[0x0f, 0xb1, 0x0a], "486"),
    ("rdtsc", &[0x0f, 0x31], "pentium"),
    ("cmpxchg8b [rdx]", &[0x0f, 0xc7, 0x0a], "pentium"),
    ("cmovz eax, ecx", &[0x0f, 0x44, 0xc1], "pentium3"),
    ("fcomi st0, st1", &[0xdb, 0xf1], "pentium3"),
    ("paddb mm0, mm1", &[0x0f, 0xfc, 0xc1], "pentium3"),
    ("fxsave [rdx]", &[0x0f, 0xae, 0x02], "pentium3"),
    ("addps xmm0, xmm1", &[0x0f, 0x58, 0xc1], "pentium3"),
    ("addpd xmm0, xmm1", &[0x66, 0x0f, 0x58, 0xc1], "x86-64-v1"),
    (
        "pshufd xmm0, xmm1, 0",
        &[0x66, 0x0f, 0x70, 0xc1, 0],
        "x86-64-v1",
    ),
    ("haddps xmm0, xmm1", &[0xf2, 0x0f, 0x7c, 0xc1], "x86-64-v2"),
    (
        "pshufb xmm0, xmm1",
        &[0x66, 0x0f, 0x38, 0x00, 0xc1],
        "x86-64-v2",
    ),
    (
        "pmulld xmm0, xmm1",
        &[0x66, 0x0f, 0x38, 0x40, 0xc1],
        "x86-64-v2",
    ),
    (
        "crc32 eax, ecx",
        &[0xf2, 0x0f, 0x38, 0xf1, 0xc1],
        "x86-64-v2",
    ),
    ("popcnt eax, ecx", &[0xf3, 0x0f, 0xb8, 0xc1], "x86-64-v2"),
    ("xgetbv", &[0x0f, 0x01, 0xd0], "x86-64-v3"),
    (
        "vaddps xmm0, xmm0, xmm1",
        &[0xc5, 0xf8, 0x58, 0xc1],
        "x86-64-v3",
    ),
    (
        "vpaddd ymm0, ymm0, ymm1",
        &[0xc5, 0xfd, 0xfe, 0xc1],
        "x86-64-v3",
    ),
    (
        "vfmadd132ps xmm0, xmm0, xmm1",
        &[0xc4, 0xe2, 0x79, 0x98, 0xc1],
        "x86-64-v3",
    ),
    (
        "vcvtph2ps xmm0, xmm1",
        &[0xc4, 0xe2, 0x79, 0x13, 0xc1],
        "x86-64-v3",
    ),
    (
        "andn eax, ecx, edx",
        &[0xc4, 0xe2, 0x70, 0xf2, 0xc2],
        "x86-64-v3",
    ),
    (
        "rorx eax, ecx, 3",
        &[0xc4, 0xe3, 0x7b, 0xf0, 0xc1, 3],
        "x86-64-v3",
    ),
    ("movbe eax, [rdx]", &[0x0f, 0x38, 0xf0, 0x02], "x86-64-v3"),
    ("aesenc xmm0, xmm1", &[0x66, 0x0f, 0x38, 0xdc, 0xc1], "max"),
    (
        "pclmulqdq xmm0, xmm1, 0",
        &[0x66, 0x0f, 0x3a, 0x44, 0xc1, 0],
        "max",
    ),
    ("sha1nexte xmm0, xmm1", &[0x0f, 0x38, 0xc8, 0xc1], "max"),
    ("adcx eax, ecx", &[0x66, 0x0f, 0x38, 0xf6, 0xc1], "max"),
];

const CODE: u64 = 0x1_0000;
const DATA: u64 = 0x2_0000;
const UD: u8 = 6;
const BP: u8 = 3;

/// What stops the instruction on that CPU: 3 (the INT3 behind it) or an exception of its own.
fn run(model: &str, engine: Engine, long: bool, insn: &[u8]) -> u8 {
    let cpu = CpuModel::from_name(model).unwrap_or_else(|e| panic!("{e}"));
    let (window, mode) = if long {
        (Window::Bits64, Mode::LONG)
    } else {
        (Window::Bits32, Mode::FLAT32)
    };
    let memory = GuestMemory::new(window).unwrap();
    let rw = page::READ | page::WRITE;
    memory.map_anon(CODE, PAGE, rw | page::EXEC).unwrap();
    memory.map_anon(DATA, PAGE, rw).unwrap();
    memory.write_bytes(CODE, insn).unwrap();
    let end = CODE + insn.len() as u64;
    memory.write_bytes(end, &[0xcc]).unwrap();
    let options = Options {
        engine,
        background: false,
        arena_bytes: 1 << 20,
        ..Options::default()
    };
    let mode = mode.with_features(cpu.features());
    let mut vcpu = Vcpu::new(Env::new(memory, cpu), mode, options).unwrap();
    vcpu.state.rip = CODE;
    vcpu.state.gpr[2] = DATA;
    match vcpu.run(100).unwrap() {
        Stop::Exception(e) => e.vector,
        other => panic!("{model}: {insn:02x?} stopped by {other:?}"),
    }
}

#[test]
fn instructions_beyond_the_model_are_undefined() {
    for (n, model) in MODELS.iter().enumerate() {
        // The models of before x86-64 have no 64-bit code.
        for long in [false, true] {
            if long && n < 3 {
                continue;
            }
            for engine in [Engine::Interp, Engine::Jit] {
                for (name, insn, first) in INSTRUCTIONS {
                    let known = MODELS[..=n].contains(first);
                    let want = if known { BP } else { UD };
                    let got = run(model, engine, long, insn);
                    assert_eq!(got, want, "{name} on {model}, {engine:?}, 64-bit: {long}");
                }
            }
        }
    }
    // What a 64-bit CPU alone has, and what a model takes or leaves.
    let rex_add = &[0x48, 0x01, 0xc8];
    assert_eq!(run("x86-64-v1", Engine::Jit, true, rex_add), BP);
    assert_eq!(run("486", Engine::Jit, true, rex_add), UD);
    let aesenc = &[0x66, 0x0f, 0x38, 0xdc, 0xc1];
    let popcnt = &[0xf3, 0x0f, 0xb8, 0xc1];
    assert_eq!(run("x86-64-v2,+aes", Engine::Interp, true, aesenc), BP);
    assert_eq!(run("x86-64-v2,-popcnt", Engine::Interp, true, popcnt), UD);
    assert_eq!(run("x86-64-v2,-popcnt,+aes", Engine::Jit, true, popcnt), UD);
}

/// Names as the psABI's table of levels has them, with CPUID's leaf, register and bit.
type Bit = (&'static str, u32, usize, u32);
const LEVEL1: &[Bit] = &[
    ("fpu", 1, 3, 0),
    ("cx8", 1, 3, 8),
    ("cmov", 1, 3, 15),
    ("mmx", 1, 3, 23),
    ("fxsr", 1, 3, 24),
    ("sse", 1, 3, 25),
    ("sse2", 1, 3, 26),
    ("syscall", 0x8000_0001, 3, 11),
    ("lm", 0x8000_0001, 3, 29),
];
const LEVEL2: &[Bit] = &[
    ("cx16", 1, 2, 13),
    ("lahf", 0x8000_0001, 2, 0),
    ("popcnt", 1, 2, 23),
    ("sse3", 1, 2, 0),
    ("ssse3", 1, 2, 9),
    ("sse4.1", 1, 2, 19),
    ("sse4.2", 1, 2, 20),
];
const LEVEL3: &[Bit] = &[
    ("avx", 1, 2, 28),
    ("avx2", 7, 1, 5),
    ("bmi1", 7, 1, 3),
    ("bmi2", 7, 1, 8),
    ("f16c", 1, 2, 29),
    ("fma", 1, 2, 12),
    ("lzcnt", 0x8000_0001, 2, 5),
    ("movbe", 1, 2, 22),
    ("osxsave", 1, 2, 27),
];

#[test]
fn the_levels_have_what_the_psabi_asks_for_and_not_what_the_next_one_adds() {
    for model in MODELS {
        let cpu = CpuModel::from_name(model).unwrap();
        let shows = |&(_, leaf, register, bit): &Bit| cpu.cpuid(leaf, 0)[register] >> bit & 1 != 0;
        let level = match model {
            "x86-64-v1" => 1,
            "x86-64-v2" => 2,
            "x86-64-v3" | "max" => 3,
            _ => 0,
        };
        for (n, bits) in [LEVEL1, LEVEL2, LEVEL3].into_iter().enumerate() {
            for bit in bits {
                // 486 to Pentium III have some of what level 1 lists.
                if level > 0 || n > 0 {
                    assert_eq!(shows(bit), level > n, "{} on {model}", bit.0);
                }
            }
        }
        assert_eq!(cpu.xcr0(), if level == 3 { 7 } else { 0 }, "{model}");
    }
    // Family and model of the old ones.
    let family = |model| CpuModel::from_name(model).unwrap().cpuid(1, 0)[0] >> 8 & 15;
    assert_eq!(["486", "pentium", "pentium3"].map(family), [4, 5, 6]);
}

#[test]
fn the_command_line_has_level_2_unless_told_otherwise_and_suggests_names() {
    let scratch = Scratch::new();
    // The exit status: AVX in bit 0, SSE4.2 in bit 1, AES in bit 2.
    let path = scratch.guest(|a| {
        use iced_x86::code_asm::*;
        a.mov(eax, 1)?;
        a.cpuid()?;
        a.xor(edi, edi)?;
        for (n, bit) in [28, 20, 25].into_iter().enumerate() {
            a.mov(eax, ecx)?;
            a.shr(eax, bit)?;
            a.and(eax, 1)?;
            a.shl(eax, n as u32)?;
            a.or(edi, eax)?;
        }
        a.mov(eax, 60)?;
        a.syscall()
    });
    for (args, status) in [
        (&[][..], 2),
        (&["-cpu", "x86-64-v1"], 0),
        (&["-cpu", "x86-64-v2"], 2),
        (&["-cpu", "x86-64-v2,+aes"], 6),
        (&["-cpu", "x86-64-v3"], 3),
        (&["-cpu", "max"], 7),
        (&["--cpu", "max,-aes,-avx"], 2),
    ] {
        let mut all = vec!["user"];
        all.extend(args);
        all.push(&path);
        let out = metaphrase(&all);
        assert_eq!(
            out.status.code(),
            Some(status),
            "{args:?}: {}",
            stderr(&out)
        );
    }
    for (name, nearest) in [
        ("x86-64-v33", "x86-64-v3"),
        ("pentium2", "pentium"),
        ("maxx", "max"),
        ("485", "486"),
        ("max,-popcn", "popcnt"),
        ("x86-64-v2,+avx22", "avx2"),
        ("x86-64-v2,+sse4", "sse"),
    ] {
        let out = metaphrase(&["user", "-cpu", name, &path]);
        let text = stderr(&out);
        assert_eq!(out.status.code(), Some(2), "{name}: {text}");
        let hint = format!("did you mean '{nearest}");
        assert!(text.contains(&hint), "{name}: {text}");
    }
}
