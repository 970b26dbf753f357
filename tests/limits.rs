//! Bounds: memory, translations, fuel, time to attention. Whatever a guest does for however long,
//! the engine stays within them and the guest sees no difference.

mod bare;

use bare::{CODE, DATA, agree, assemble, engines, machine, run};
use iced_x86::code_asm::*;
use metaphrase_frontend::Policy;
use metaphrase_runtime::memory::page;
use metaphrase_runtime::{Engine, Options, Stop, Vcpu};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Tests that look at the whole process's memory must be alone.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Where the guest of [`generator`] puts its functions.
const FUNCTIONS: u64 = 0x1000_0000;
/// Functions on a page.
const PER_PAGE: u64 = 256;

/// A guest that fills a page with new functions, calls each, and goes on with the next of `pages`
/// pages, round and round, `turns` pages in all. RBX is its checksum.
fn generator(options: Options, turns: u64, pages: u64) -> Vcpu {
    assert!(pages.is_power_of_two());
    let code = assemble(CODE, |a| {
        let (mut turn, mut fill, mut call) = (a.create_label(), a.create_label(), a.create_label());
        a.xor(r12d, r12d)?; // turn
        a.xor(r8d, r8d)?; // function
        a.set_label(&mut turn)?;
        a.mov(r13, r12)?;
        a.and(r13, pages as i32 - 1)?;
        a.shl(r13, 12)?;
        a.add(r13, FUNCTIONS as i32)?;
        // mov eax, n; ret
        a.xor(ecx, ecx)?;
        a.mov(rdi, r13)?;
        a.set_label(&mut fill)?;
        a.inc(r8d)?;
        a.mov(byte_ptr(rdi), 0xb8)?;
        a.mov(dword_ptr(rdi + 1), r8d)?;
        a.mov(byte_ptr(rdi + 5), 0xc3)?;
        a.add(rdi, 16)?;
        a.inc(ecx)?;
        a.cmp(ecx, PER_PAGE as i32)?;
        a.jne(fill)?;
        a.xor(ecx, ecx)?;
        a.mov(rdi, r13)?;
        a.set_label(&mut call)?;
        a.call(rdi)?;
        a.rol(rbx, 1)?;
        a.add(rbx, rax)?;
        a.add(rdi, 16)?;
        a.inc(ecx)?;
        a.cmp(ecx, PER_PAGE as i32)?;
        a.jne(call)?;
        a.inc(r12d)?;
        a.cmp(r12d, turns as i32)?;
        a.jne(turn)?;
        a.mov(eax, 60)?;
        a.syscall()
    });
    let vcpu = machine(&[(CODE, code)], options);
    let rwx = page::READ | page::WRITE | page::EXEC;
    let memory = &vcpu.env.memory;
    memory.map_anon(FUNCTIONS, pages << 12, rwx).unwrap();
    for n in 0..pages {
        // Touched now, so that the guest's own memory does not count as growth.
        memory.write_bytes(FUNCTIONS + (n << 12), &[0xcc]).unwrap();
    }
    vcpu
}

fn checksum(functions: u64) -> u64 {
    (1..=functions).fold(0, |sum: u64, n| sum.rotate_left(1).wrapping_add(n))
}

/// Bytes that the process holds in memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Runs a generator to its end in an arena of 1 MiB, and looks at what it needs.
fn bounded(name: &str, options: Options, turns: u64, pages: u64) -> metaphrase_runtime::Stats {
    let mut vcpu = generator(options, turns, pages);
    let (mut third, mut instructions) = (0, 0);
    // A function costs 8 instructions to write and 8 to call.
    let step = turns * PER_PAGE;
    let stop = loop {
        let stop = vcpu.run(step).unwrap();
        instructions += step;
        if third == 0 && instructions > turns * PER_PAGE * 16 / 3 {
            third = resident();
        }
        let stats = vcpu.report();
        let limit = vcpu.options().arena_bytes as u64;
        assert!(stats.arena_used <= limit, "{name}: {stats:?}");
        if stop != Stop::Budget {
            break stop;
        }
    };
    let grown = resident().saturating_sub(third);
    assert!(matches!(stop, Stop::Syscall(_)), "{name}: {stop:?}");
    assert_eq!(vcpu.state.gpr[3], checksum(turns * PER_PAGE), "{name}");
    assert!(
        grown < 6 << 20,
        "{name}: {grown} bytes more at the end than after a third"
    );
    vcpu.report()
}

fn small(engine: Engine) -> Options {
    Options {
        engine,
        background: false,
        warm_up: 0,
        tier1_threshold: 1,
        arena_bytes: 1 << 20,
        ..Options::default()
    }
}

#[test]
fn new_code_at_the_same_addresses_for_ever() {
    let _alone = alone();
    let stats = bounded("interp", small(Engine::Interp), 200, 4);
    assert!(stats.tier0_translations >= 50_000, "{stats:?}");
    for engine in [Engine::Jit, Engine::Tiered] {
        let stats = bounded(engine.name(), small(engine), 40, 4);
        assert!(stats.tier1_translations >= 10_000, "{stats:?}");
        assert!(stats.invalidated_translations >= 9_000, "{stats:?}");
        assert!(stats.arena_used <= 1 << 20, "{stats:?}");
    }
}

#[test]
fn new_code_at_new_addresses_for_ever() {
    let _alone = alone();
    for engine in [Engine::Jit, Engine::Tiered] {
        let options = Options {
            max_translations: 4000,
            ..small(engine)
        };
        let stats = bounded(engine.name(), options, 40, 64);
        assert!(stats.flushes >= 2, "{stats:?}");
    }
    // With fewer translations than the cache may hold, the arena is what is full first.
    let options = Options {
        arena_bytes: 256 << 10,
        max_translations: 4000,
        ..small(Engine::Jit)
    };
    let stats = bounded("evictions", options, 40, 64);
    assert!(stats.evictions > 0, "{stats:?}");
    let options = Options {
        max_translations: 3000,
        ..small(Engine::Interp)
    };
    let stats = bounded("interp", options, 200, 256);
    assert!(stats.flushes >= 10, "{stats:?}");
}

#[test]
fn a_cache_of_a_few_translations_is_flushed_all_the_time() {
    for engine in [Engine::Interp, Engine::Jit, Engine::Tiered] {
        for limit in [1, 3] {
            let mut options = small(engine);
            options.max_translations = limit;
            let mut vcpu = generator(options, 1, 1);
            let end = run(&mut vcpu, 10_000_000);
            assert_eq!(end.gpr[3], checksum(PER_PAGE), "{engine:?} {limit}");
            assert!(vcpu.report().flushes > 100, "{:?}", vcpu.report());
        }
    }
}

/// A loop of several blocks with calls, stores and, of the sensitive instructions, CPUID.
fn busy() -> Vec<u8> {
    assemble(CODE, |a| {
        let (mut again, mut skip, mut f) = (a.create_label(), a.create_label(), a.create_label());
        a.mov(rbp, DATA)?;
        a.set_label(&mut again)?;
        a.call(f)?;
        a.test(ecx, 3)?;
        a.jne(skip)?;
        a.push(rcx)?;
        a.xor(eax, eax)?;
        a.cpuid()?;
        a.pop(rcx)?;
        a.set_label(&mut skip)?;
        a.inc(rcx)?;
        a.mov(qword_ptr(rbp + 8), rcx)?;
        a.jmp(again)?;
        a.set_label(&mut f)?;
        for n in 0..20 {
            a.imul_3(rsi, rsi, 31 + n)?;
            a.add(rsi, rcx)?;
        }
        a.mov(qword_ptr(rbp), rsi)?;
        a.ret()
    })
}

#[test]
fn fuel_stops_exactly_after_any_number_of_instructions() {
    let code = busy();
    for policy in [Policy::Callout, Policy::Trap] {
        let mut ends = Vec::new();
        for (name, mut options) in engines() {
            options.policy.default = policy;
            let mut vcpu = machine(&[(CODE, code.clone())], options);
            let (mut total, mut seen) = (0, Vec::new());
            for n in [
                1, 1, 2, 3, 5, 7, 40, 63, 64, 65, 100, 999, 1000, 1001, 12_345, 100_000, 1,
            ] {
                let stop = vcpu.run(n).unwrap();
                total += n;
                assert_eq!((stop, vcpu.instructions()), (Stop::Budget, total), "{name}");
                let end = bare::end(&vcpu, stop);
                seen.push((end.rip, end.gpr, end.flags, end.data));
            }
            ends.push((name, seen));
        }
        for (name, seen) in &ends {
            assert!(*seen == ends[0].1, "{name} stops elsewhere, {policy:?}");
        }
    }
}

#[test]
fn a_slice_shorter_than_a_block_makes_progress() {
    let code = busy();
    for (name, options) in engines() {
        let options = Options {
            slice: 7,
            ..options
        };
        let mut vcpu = machine(&[(CODE, code.clone())], options);
        assert_eq!(vcpu.run(5000).unwrap(), Stop::Budget, "{name}");
        assert_eq!(vcpu.instructions(), 5000, "{name}");
    }
}

#[test]
fn attention_ends_an_endless_loop() {
    let code = assemble(CODE, |a| {
        let mut here = a.create_label();
        let mut there = a.create_label();
        a.set_label(&mut here)?;
        a.inc(rbx)?;
        a.jmp(there)?;
        a.set_label(&mut there)?;
        a.jmp(here)
    });
    for (name, options) in engines() {
        let slice = options.slice;
        let mut vcpu = machine(&[(CODE, code.clone())], options);
        let flag = vcpu.attention();
        let setter = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            flag.store(true, Ordering::Relaxed);
        });
        // Without the flag this would never end.
        assert_eq!(vcpu.run(u64::MAX).unwrap(), Stop::Attention, "{name}");
        setter.join().unwrap();
        let stats = vcpu.report();
        assert!(stats.instructions <= stats.slices * slice, "{stats:?}");
        // A flag that is set already is seen before anything runs; a second time it is not set.
        let before = vcpu.instructions();
        vcpu.attention().store(true, Ordering::Relaxed);
        assert_eq!(vcpu.run(1000).unwrap(), Stop::Attention, "{name}");
        assert_eq!(vcpu.instructions(), before);
        assert_eq!(vcpu.run(1000).unwrap(), Stop::Budget, "{name}");
    }
}

#[test]
fn the_smallest_arena_will_do() {
    let code = busy();
    let mut options = small(Engine::Jit);
    options.eager_regions = true;
    options.arena_bytes = 64 << 10;
    let mut reference = machine(&[(CODE, code.clone())], small(Engine::Interp));
    let expected = run(&mut reference, 20_000);
    let mut vcpu = machine(&[(CODE, code)], options);
    assert_eq!(run(&mut vcpu, 20_000), expected);
}

#[test]
fn every_engine_counts_the_same_instructions() {
    let (end, _) = agree(&[(
        CODE,
        assemble(CODE, |a| {
            let (mut again, mut f) = (a.create_label(), a.create_label());
            a.mov(ecx, 5000)?;
            a.set_label(&mut again)?;
            a.call(f)?;
            a.rdtsc()?;
            a.xor(rbx, rax)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.mov(eax, 60)?;
            a.syscall()?;
            a.set_label(&mut f)?;
            a.mov(rdi, DATA)?;
            a.push(rcx)?;
            a.mov(ecx, 100)?;
            a.mov(eax, ebx)?;
            a.rep().stosb()?;
            a.pop(rcx)?;
            a.ret()
        }),
    )]);
    assert!(matches!(end.stop, Stop::Syscall(_)), "{end:?}");
}
