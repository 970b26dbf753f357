//! The arena: bounded, reusable, never writable and executable at once.

mod machine;

use machine::{Machine, Random, layout, region};
use metaphrase_backend::{Arena, ArenaFull, BackendError, CompiledRegion};
use metaphrase_ir::{ExitReason, Reg, Type};

fn blob(len: usize) -> CompiledRegion {
    CompiledRegion {
        code: vec![0xcc; len],
        ..CompiledRegion::default()
    }
}

#[test]
fn fills_up_frees_and_serves_again() {
    let mut arena = Arena::new(64 << 10, &layout()).expect("an arena");
    let empty = arena.used();
    let mut codes = Vec::new();
    let full = loop {
        match arena.publish(&blob(1000)) {
            Ok(code) => codes.push(code),
            Err(full) => break full,
        }
    };
    assert_eq!(full, ArenaFull { wanted: 1024 });
    assert!(codes.len() > 50 && arena.used() <= arena.limit());
    assert_eq!(arena.live(), codes.len());
    // Two neighbours make room for one of twice the size.
    arena.free(codes.swap_remove(10));
    assert!(arena.publish(&blob(2000)).is_err());
    let next = codes
        .iter()
        .position(|c| c.entry() == codes[10].entry())
        .expect("there");
    arena.free(codes.swap_remove(next));
    for code in codes.drain(..) {
        arena.free(code);
    }
    assert_eq!(arena.used(), empty);
    let rest = arena.limit() - empty;
    let all = arena.publish(&blob(rest)).expect("one free piece again");
    arena.free(all);
    arena.publish(&blob(1)).expect("room");
    arena.reset();
    assert_eq!((arena.used(), arena.live()), (empty, 0));
}

#[test]
fn ten_thousand_cycles_stay_inside_the_limit_and_apart() {
    let mut arena = Arena::new(256 << 10, &layout()).expect("an arena");
    let mut random = Random(1);
    let mut live: Vec<(metaphrase_backend::CodeRef, u8)> = Vec::new();
    for n in 0..10_000u32 {
        let len = 16 + (random.next() % 3000) as usize;
        let compiled = CompiledRegion {
            code: vec![n as u8; len],
            ..CompiledRegion::default()
        };
        while let Err(ArenaFull { .. }) = arena.publish(&compiled).map(|code| {
            live.push((code, n as u8));
        }) {
            let victim = (random.next() % live.len() as u64) as usize;
            let (code, byte) = live.swap_remove(victim);
            assert_eq!(arena.bytes(code)[..16], [byte; 16]);
            arena.free(code);
        }
        assert!(arena.used() <= arena.limit());
    }
    let mut ranges: Vec<_> = live
        .iter()
        .map(|(c, _)| c.entry()..c.entry() + c.size())
        .collect();
    ranges.sort_by_key(|r| r.start);
    assert!(ranges.windows(2).all(|w| w[0].end <= w[1].start));
    assert!(
        ranges
            .iter()
            .all(|r| arena.contains(r.start) && arena.contains(r.end - 1))
    );
}

#[test]
fn compiled_code_survives_ten_thousand_replacements() {
    let mut m = Machine::with(Default::default(), 64 << 10);
    let compiled: Vec<CompiledRegion> = (0..20u64)
        .map(|n| {
            let r = region(1, |b| {
                let v = b.iconst(Type::I64, n);
                b.setreg(Reg::Rax, v);
                b.exit_jump(4);
            });
            m.compile(&r)
        })
        .collect();
    for n in 0..10_000usize {
        let code = m.arena.publish(&compiled[n % 20]).expect("room");
        assert_eq!(m.enter(code).0, ExitReason::Jump);
        assert_eq!(m.state.gpr[0], (n % 20) as u64);
        m.arena.free(code);
    }
    assert_eq!(m.arena.live(), 0);
}

#[test]
fn no_page_is_writable_and_executable() {
    let mut m = Machine::new();
    let r = region(1, |b| b.exit_jump(4));
    let (code, _) = m.publish(&r);
    m.enter(code);
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
    let access: Vec<&str> = maps
        .lines()
        .filter(|l| l.contains("metaphrase-code"))
        .filter_map(|l| l.split_whitespace().nth(1))
        .collect();
    assert!(
        access.contains(&"r-xs") && access.contains(&"rw-s"),
        "{maps}"
    );
    for line in maps.lines() {
        let access = line.split_whitespace().nth(1).unwrap_or_default();
        assert!(!(access.contains('w') && access.contains('x')), "{line}");
    }
}

#[test]
fn senseless_sizes_are_refused() {
    for size in [0, 4096, usize::MAX] {
        let result = Arena::new(size, &layout());
        assert!(
            matches!(result, Err(BackendError::ArenaSize { .. })),
            "{size}"
        );
    }
}
