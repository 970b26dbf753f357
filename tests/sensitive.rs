//! Sensitive instructions: the three policies show the guest the same, and what they show is what
//! the host shows where the host can be asked.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod host;

use host::case::*;
use host::engine::{Engine, Kind, Stop};
use host::native::Oracle;
use host::rng::Rng;
use metaphrase_frontend::Policy;

/// Programs that end with the INT3 behind them or with an exception; both modes unless noted.
const PROGRAMS: &[(&str, &[u8])] = &[
    ("cpuid", &[0x31, 0xc0, 0x0f, 0xa2]),
    ("rdtsc", &[0x0f, 0x31]),
    ("rdtscp", &[0x0f, 0x01, 0xf9]),
    ("pushf, pop", &[0xf9, 0x9c, 0x58]),
    ("pushfw, popw", &[0x66, 0x9c, 0x66, 0x58]),
    ("push, popf, pushf", &[0x50, 0x9d, 0x9c, 0x5b]),
    ("pushw, popfw, pushf", &[0x66, 0x50, 0x66, 0x9d, 0x9c, 0x5b]),
    ("std, pushf, pop, cld", &[0xfd, 0x9c, 0x58, 0xfc]),
    ("sgdt", &[0x0f, 0x01, 0x06]),
    ("sidt", &[0x0f, 0x01, 0x0e]),
    ("sldt", &[0x0f, 0x00, 0x06]),
    ("str", &[0x0f, 0x00, 0xc8]),
    ("str16", &[0x66, 0x0f, 0x00, 0xc8]),
    ("smsw", &[0x0f, 0x01, 0xe0]),
    ("smsw m", &[0x0f, 0x01, 0x26]),
    ("lar", &[0x0f, 0x02, 0xc1]),
    ("lsl", &[0x0f, 0x03, 0xc1]),
    ("verr", &[0x0f, 0x00, 0xe1]),
    ("verw", &[0x0f, 0x00, 0xe9]),
    ("mov es, ecx", &[0x8e, 0xc1]),
    ("mov ss, ecx", &[0x8e, 0xd1]),
    ("push, pop fs", &[0x51, 0x0f, 0xa1]),
    ("mov eax, fs", &[0x8c, 0xe0]),
    ("push gs, pop", &[0x0f, 0xa8, 0x58]),
    ("int 0x20", &[0xcd, 0x20]),
    ("int 4", &[0xcd, 0x04]),
    ("int1", &[0xf1]),
    ("in", &[0xe4, 0x10]),
    ("out", &[0xee]),
    ("rep insb", &[0xf3, 0x6c]),
    ("outsd", &[0x6f]),
    ("cli", &[0xfa]),
    ("sti", &[0xfb]),
    ("hlt", &[0xf4]),
    ("lgdt", &[0x0f, 0x01, 0x16]),
    ("mov eax, cr0", &[0x0f, 0x20, 0xc0]),
    ("wrmsr", &[0x0f, 0x30]),
    ("clts", &[0x0f, 0x06]),
];

/// Selectors in RCX: the user segments, the null selector, kernel ones, an LDT one.
const SELECTORS: &[u64] = &[0x23, 0x2b, 0x33, 0, 3, 0x10, 0x18, 0x08, 0x47, 0xf8];

fn registers(rng: &mut Rng, selector: u64) -> [u64; 16] {
    let mut gpr: [u64; 16] = std::array::from_fn(|_| rng.u64());
    // Neither TF nor AC: they would make the host trap.
    gpr[0] &= !0x4_0100;
    gpr[1] = gpr[1] & !0xffff | selector;
    gpr[4] = DATA + 0x800;
    gpr[6] = DATA + 0x200;
    gpr[7] = DATA + 0x300;
    gpr
}

#[test]
fn the_policies_show_the_guest_the_same() {
    let mut rng = Rng::new(5);
    for mode in [Mode::M64, Mode::M32] {
        for (name, program) in PROGRAMS {
            for &selector in SELECTORS {
                let gpr = registers(&mut rng, selector);
                let rflags = rng.u64() & (ARITH | DF);
                let mut seen = Vec::new();
                for kind in Kind::SINGLE {
                    for policy in [Policy::Trap, Policy::Callout, Policy::Inline] {
                        let mut options = kind.options();
                        options.policy.default = policy;
                        options.arena_bytes = 1 << 20;
                        let mut engine = Engine::with_options(options, mode);
                        engine.load(CODE_AT, program);
                        engine.start(CODE_AT, gpr, rflags);
                        let before = engine.vcpu.env.instructions(&engine.vcpu.state);
                        let stop = engine.go(100);
                        let after = engine.vcpu.env.instructions(&engine.vcpu.state);
                        assert!(matches!(stop, Stop::Exception(_)), "{name}: {stop:?}");
                        let result = (
                            format!("{stop:?}"),
                            after.wrapping_sub(before),
                            engine.snapshot(),
                            engine.memory_image(),
                        );
                        seen.push((kind, policy, result));
                    }
                }
                let (_, _, first) = &seen[0];
                for (kind, policy, other) in &seen[1..] {
                    let what = format!("{name} in {mode:?} by {kind:?}, {policy:?}");
                    assert_eq!(other.0, first.0, "{what}");
                    assert_eq!(other.1, first.1, "instructions of {what}");
                    assert_eq!(other.2, first.2, "{what}");
                    assert!(other.3 == first.3, "memory after {what}");
                }
            }
        }
    }
}

#[test]
fn single_instructions_show_what_the_host_shows() {
    let mut oracle = Oracle::new().expect("the oracle starts");
    let mut rng = Rng::new(6);
    // Left out: what depends on the machine (CPUID, the TSC), SLDT (the oracle has an LDT), ICEBP
    // (hypervisors report another RIP), and what the case's landing cannot tell apart.
    let out = [
        "cpuid",
        "rdtsc",
        "rdtscp",
        "sldt",
        "int1",
        "mov ss, ecx",
        "mov es, ecx",
        "push, pop fs",
        "mov eax, fs",
        "push gs, pop",
    ];
    for mode in [Mode::M64, Mode::M32] {
        let mut engine = Engine::new(Kind::Interp, mode);
        for (name, program) in PROGRAMS {
            let single = iced_x86::Decoder::new(mode.bits(), program, 0)
                .decode()
                .len();
            if out.contains(name) || single != program.len() {
                continue;
            }
            for &selector in SELECTORS {
                let mut case = Case::new(mode, program);
                case.gpr = registers(&mut rng, selector);
                case.rflags = rng.u64() & ARITH;
                let native = oracle.run_one(&case).expect("the oracle runs");
                let ours = engine.run(&case);
                let what = format!("{name} in {mode:?}, selector {selector:#x}");
                assert_eq!(
                    (ours.trap, ours.error),
                    (native.trap, native.error),
                    "{what}"
                );
                assert_eq!(ours.gpr.map(|r| r & mode.gpr_mask()), native.gpr, "{what}");
                assert_eq!(
                    (ours.rflags, ours.rip),
                    (native.rflags, native.rip),
                    "{what}"
                );
                assert_eq!(ours.writes(), native.writes(), "{what}");
            }
        }
    }
}

#[test]
fn popf_with_tf_traps_after_the_next_instruction() {
    for mode in [Mode::M64, Mode::M32] {
        for kind in Kind::ALL {
            for policy in [Policy::Trap, Policy::Callout, Policy::Inline] {
                let mut options = kind.options();
                options.policy.default = policy;
                let mut engine = Engine::with_options(options, mode);
                // PUSH RAX; POPF; INC ECX (two bytes in both modes); INC ECX
                engine.load(CODE_AT, &[0x50, 0x9d, 0xff, 0xc1, 0xff, 0xc1]);
                let mut gpr = [0; 16];
                (gpr[0], gpr[4]) = (0x102, DATA + 0x800);
                // Twice: the second time the translations are there.
                for _ in 0..2 {
                    engine.start(CODE_AT, gpr, 0);
                    let stop = engine.go(100);
                    let what = format!("{mode:?} by {kind:?}, {policy:?}");
                    assert!(
                        matches!(&stop, Stop::Exception(e) if e.vector == 1),
                        "{stop:?} in {what}"
                    );
                    let state = &engine.vcpu.state;
                    assert_eq!(
                        (state.gpr[1], state.rip),
                        (1, mode.ip(CODE_AT) + 4),
                        "{what}"
                    );
                    assert_eq!(
                        state.rflags() & 0x100,
                        0x100,
                        "TF stays for the handler to clear"
                    );
                }
            }
        }
    }
}
