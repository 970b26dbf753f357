//! Switches change how the engine works, never what the guest sees: policies of sensitive
//! instructions, passes, chaining, regions, and what else can be switched.

mod bare;

use bare::{CODE, DATA, End, STACK, assemble, engines, machine, run};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use metaphrase::guest;
use metaphrase_backend::{OptLevel, Regalloc};
use metaphrase_frontend::{Policy, Sensitive};
use metaphrase_ir::passes::PassSet;
use metaphrase_runtime::{Engine, Options, Stop};

const POLICIES: [Policy; 3] = [Policy::Trap, Policy::Callout, Policy::Inline];

type Emit = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// What user mode can execute without a fault, with the kind's name.
const QUIET: [(Sensitive, Emit); 16] = [
    (Sensitive::Cpuid, |a| {
        a.mov(eax, 7)?;
        a.xor(ecx, ecx)?;
        a.cpuid()
    }),
    (Sensitive::Rdtsc, |a| a.rdtsc()),
    (Sensitive::Rdtscp, |a| a.rdtscp()),
    (Sensitive::Pushf, |a| {
        a.cmp(ebx, 1)?;
        a.pushfq()?;
        a.pop(rax)
    }),
    (Sensitive::Popf, |a| {
        // Flags that user mode may change, and IF and IOPL, which it may not.
        a.push(0x3ed5)?;
        a.popfq()?;
        a.setc(al)
    }),
    (Sensitive::Sgdt, |a| a.sgdt(fword_ptr(rbp + 64))),
    (Sensitive::Sidt, |a| a.sidt(fword_ptr(rbp + 80))),
    (Sensitive::Sldt, |a| a.sldt(eax)),
    (Sensitive::Str, |a| a.str(eax)),
    (Sensitive::Smsw, |a| a.smsw(eax)),
    (Sensitive::Lar, |a| {
        a.mov(ecx, 0x33)?;
        a.lar(eax, ecx)
    }),
    (Sensitive::Lsl, |a| {
        a.mov(ecx, 0x2b)?;
        a.lsl(eax, ecx)
    }),
    (Sensitive::Verr, |a| {
        a.mov(ecx, 0x2b)?;
        a.verr(cx)?;
        a.setz(al)
    }),
    (Sensitive::Verw, |a| {
        a.mov(ecx, 0x33)?;
        a.verw(cx)?;
        a.setz(al)
    }),
    (Sensitive::LoadSeg, |a| {
        a.mov(ecx, 0x2b)?;
        a.mov(fs, ecx)
    }),
    (Sensitive::StoreSeg, |a| {
        a.mov(eax, cs)?;
        a.mov(word_ptr(rbp + 96), ss)
    }),
];

/// What faults or traps in user mode, with the vector.
const LOUD: [(Sensitive, u8, Emit); 7] = [
    (Sensitive::Int, 13, |a| a.int(0x55)),
    (Sensitive::Int, 3, |a| a.int3()),
    (Sensitive::Io, 13, |a| a.in_(al, dx)),
    (Sensitive::Io, 13, |a| a.out(dx, al)),
    (Sensitive::Cli, 13, |a| a.cli()),
    (Sensitive::Sti, 13, |a| a.sti()),
    (Sensitive::Hlt, 13, |a| a.hlt()),
];

/// A loop that executes the instruction 40 times and folds the registers and flags into RBX.
fn quiet_guest(emit: Emit) -> Vec<u8> {
    assemble(CODE, |a| {
        let mut again = a.create_label();
        a.mov(rbp, DATA)?;
        a.mov(r12d, 40)?;
        a.xor(ecx, ecx)?;
        a.set_label(&mut again)?;
        a.xor(eax, eax)?;
        a.xor(edx, edx)?;
        emit(a)?;
        for r in [rax, rcx, rdx] {
            a.rol(rbx, 7)?;
            a.xor(rbx, r)?;
        }
        a.mov(qword_ptr(rbp), rbx)?;
        a.dec(r12d)?;
        a.jne(again)?;
        a.mov(eax, 60)?;
        a.syscall()
    })
}

fn run_with(code: &[u8], options: Options) -> (End, metaphrase_runtime::Stats) {
    let mut vcpu = machine(&[(CODE, code.to_vec())], options);
    vcpu.state.gpr[4] = STACK;
    let end = run(&mut vcpu, 1_000_000);
    (end, vcpu.report())
}

#[test]
fn every_policy_gives_the_same_guest() {
    for (kind, emit) in QUIET {
        let code = quiet_guest(emit);
        let mut reference = None;
        for policy in POLICIES {
            for (name, mut options) in engines() {
                options.policy.by_kind.insert(kind, policy);
                let (end, stats) = run_with(&code, options);
                assert!(matches!(end.stop, Stop::Syscall(_)), "{kind}: {end:?}");
                let expected = reference.get_or_insert_with(|| end.clone());
                assert_eq!(&end, expected, "{kind} as {policy:?} in {name}");
                let traps: u64 = stats.traps.values().sum();
                // STR and the like take 40 turns; `store_seg` has two such instructions.
                let per_turn = if kind == Sensitive::StoreSeg { 2 } else { 1 };
                let wanted = if policy == Policy::Trap {
                    40 * per_turn
                } else {
                    0
                };
                assert_eq!(traps, wanted, "{kind} as {policy:?} in {name}: {stats:?}");
            }
        }
    }
}

#[test]
fn what_faults_in_user_mode_faults_alike() {
    for (kind, vector, emit) in LOUD {
        let code = assemble(CODE, |a| {
            let (mut again, mut site) = (a.create_label(), a.create_label());
            a.mov(ecx, 50)?;
            a.set_label(&mut again)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.set_label(&mut site)?;
            a.add(rbx, 5)?;
            emit(a)?;
            a.add(rbx, 50)?;
            a.mov(eax, 60)?;
            a.syscall()
        });
        let mut reference = None;
        for policy in POLICIES {
            for (name, mut options) in engines() {
                options.policy.by_kind.insert(kind, policy);
                let (end, _) = run_with(&code, options);
                let Stop::Exception(e) = end.stop else {
                    panic!("{kind} as {policy:?} in {name}: {end:?}");
                };
                assert_eq!((e.vector, end.gpr[3]), (vector, 5), "{kind}: {end:?}");
                let expected = reference.get_or_insert_with(|| end.clone());
                assert_eq!(&end, expected, "{kind} as {policy:?} in {name}");
            }
        }
    }
}

#[test]
fn traps_and_callouts_are_counted_by_name() {
    let code = quiet_guest(QUIET[0].1);
    for (name, mut options) in engines() {
        let (_, stats) = run_with(&code, options.clone());
        assert_eq!(stats.callouts.get("cpuid"), Some(&40), "{name}: {stats:?}");
        assert!(stats.traps.is_empty(), "{name}: {stats:?}");
        options.policy.default = Policy::Trap;
        let (_, stats) = run_with(&code, options);
        assert_eq!(stats.traps.get("cpuid"), Some(&40), "{name}: {stats:?}");
        assert_eq!(stats.instructions_emulated, 40, "{name}: {stats:?}");
    }
}

#[test]
fn one_site_can_have_a_policy_of_its_own() {
    let code = assemble(CODE, |a| {
        let mut again = a.create_label();
        a.mov(r12d, 25)?;
        a.set_label(&mut again)?;
        a.xor(eax, eax)?;
        a.cpuid()?;
        a.mov(eax, 1)?;
        a.cpuid()?;
        a.dec(r12d)?;
        a.jne(again)?;
        a.mov(eax, 60)?;
        a.syscall()
    });
    let first = CODE + code.windows(2).position(|w| w == [0x0f, 0xa2]).unwrap() as u64;
    for (name, mut options) in engines() {
        let (callouts, _) = run_with(&code, options.clone());
        options
            .policy
            .by_kind
            .insert(Sensitive::Cpuid, Policy::Callout);
        options.policy.by_site.insert(first, Policy::Trap);
        let (end, stats) = run_with(&code, options);
        assert_eq!(end, callouts, "{name}");
        assert_eq!(stats.traps.get("cpuid"), Some(&25), "{name}: {stats:?}");
        // The trap's own emulation calls the helper too.
        assert_eq!(stats.callouts.get("cpuid"), Some(&50), "{name}: {stats:?}");
    }
}

/// Every switch, thrown by itself.
fn switches() -> Vec<(String, Options)> {
    let base = Options {
        background: false,
        warm_up: 0,
        ..Options::default()
    };
    let jit = Options {
        engine: Engine::Jit,
        ..base.clone()
    };
    let mut all = Vec::new();
    for name in PassSet::NAMES {
        if *name == "break" {
            continue;
        }
        for engine in [Engine::Jit, Engine::Tiered] {
            let mut options = Options {
                engine,
                ..base.clone()
            };
            options.passes.set(name, false).unwrap();
            all.push((format!("{} without {name}", engine.name()), options));
        }
    }
    let mut add = |name: &str, from: &Options, change: fn(&mut Options)| {
        let mut options = from.clone();
        change(&mut options);
        all.push((name.to_string(), options));
    };
    add("jit, no passes", &jit, |o| o.passes = PassSet::NONE);
    add("jit, no chaining", &jit, |o| o.chain = false);
    add("tiered, no chaining", &base, |o| o.chain = false);
    add("jit, no jump cache", &jit, |o| o.jump_cache = false);
    add("tiered, no jump cache", &base, |o| o.jump_cache = false);
    add("no regions", &base, |o| o.regions = false);
    add("eager regions", &jit, |o| o.eager_regions = true);
    add("regions of two blocks", &base, |o| {
        o.region_limits.blocks = 2
    });
    add("regions not optimised", &base, |o| {
        o.tier2.opt = OptLevel::None
    });
    add("blocks optimised", &jit, |o| o.tier1.opt = OptLevel::Speed);
    add("single-pass allocator", &jit, |o| {
        o.tier1.regalloc = Regalloc::SinglePass;
    });
    add("blocks of one instruction", &jit, |o| {
        o.block_limits.insns = 1
    });
    add("background compilation", &base, |o| o.background = true);
    add("interpreter, no passes", &base, |o| {
        o.engine = Engine::Interp;
        o.passes = PassSet::NONE;
    });
    all
}

#[test]
fn no_switch_changes_a_workload() {
    for workload in guest::ALL {
        let code = guest::image(workload, 1).unwrap();
        let reference = guest::run(
            &code,
            Options {
                engine: Engine::Interp,
                ..Options::default()
            },
        )
        .unwrap();
        let expected = (reference.checksum, reference.stats.instructions);
        for (name, options) in switches() {
            let begun = std::time::Instant::now();
            let out = guest::run(&code, options).unwrap();
            let got = (out.checksum, out.stats.instructions);
            assert_eq!(got, expected, "{} with {name}", workload.name);
            println!("{} {name}: {:?}", workload.name, begun.elapsed());
        }
    }
}
