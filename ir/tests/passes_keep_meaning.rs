//! Random regions mean the same before and after each pass alone, and all together.

mod common;

use common::eval::Machine;
use common::{Rng, generate};
use metaphrase_ir::{
    Builder, CodeSize, Cond, FlagKind, GuestInsn, Op, PassSet, Reg, Region, Type, Value, parse,
    passes, verify,
};

/// Everything that happens on some starting states.
fn meaning(region: &Region) -> Vec<Machine> {
    let run = |seed| {
        let mut m = Machine::new(seed);
        m.run(region);
        m
    };
    (0..6).map(run).collect()
}

fn check(before: &Region, set: &PassSet, what: &str, seed: u64) {
    let mut after = before.clone();
    if let Err(e) = passes::run(&mut after, set) {
        panic!("{what}, seed {seed}: {e}\nbefore:\n{before}");
    }
    let mut ops = before.blocks.iter().flat_map(|b| &b.insts);
    let pools = set.pool && ops.any(|&v| before.inst(v).op == Op::Fuel);
    for (seed, is) in (0..).zip(&meaning(&after)) {
        // With fuel pooled, the region may leave early for want of it: at a place where it would
        // leave too with less fuel.
        let unused = match is.events.last() {
            Some(last) if pools && last.what.starts_with("out of fuel") => last.fuel(),
            _ => 0,
        };
        let mut was = Machine::new(seed);
        was.regs[Reg::Fuel as usize] -= unused;
        was.run(before);
        for event in &mut was.events {
            event.regs[Reg::Fuel as usize] += unused;
        }
        let same = was.events == is.events && was.memory == is.memory;
        if !same {
            let at = was.events.iter().zip(&is.events);
            let at = at.take_while(|(a, b)| a == b).count();
            panic!(
                "{what}, seed {seed}: event {at}\n{:x?}\nbecame\n{:x?}\nbefore:\n{before}\nafter:\n{after}",
                was.events.get(at),
                is.events.get(at)
            );
        }
    }
}

fn single_passes() -> Vec<(&'static str, PassSet)> {
    let names = PassSet::NAMES.iter().copied();
    let passes = names.filter(|name| !matches!(*name, "verify" | "break"));
    let alone = passes.map(|name| {
        let mut set = PassSet {
            verify: true,
            ..PassSet::NONE
        };
        set.set(name, true).expect("a switch of that name");
        (name, set)
    });
    alone.collect()
}

#[test]
fn each_pass_alone_and_all_together() {
    let all = PassSet {
        verify: true,
        ..PassSet::default()
    };
    let spelled_out = PassSet { maps: false, ..all };
    let single = single_passes();
    for seed in 0..6000 {
        let mut rng = Rng::new(seed);
        let size = 4 + rng.below(28);
        let region = generate::region(&mut rng, size);
        verify(&region).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        for (name, set) in &single {
            check(&region, set, name, seed);
        }
        check(&region, &all, "all", seed);
        check(&region, &spelled_out, "all without maps", seed);
    }
}

/// A region that defines the flags from RAX, RCX and RDX and jumps on a condition.
fn condition_region(kind: FlagKind, ty: Type, cond: Cond) -> Region {
    let mut region = Region::new(0x1000, CodeSize::Code64);
    region.guest.push(GuestInsn {
        offset: 0,
        len: 2,
        fuel_left: 1,
    });
    let mut b = Builder::new(&mut region);
    let operand = |b: &mut Builder<'_>, n: usize| {
        let whole = b.getreg(Reg::gpr(n));
        b.trunc(ty, whole)
    };
    let args: Vec<Value> = (0..kind.arity()).map(|n| operand(&mut b, n)).collect();
    b.setflags(kind, &args);
    let c = b.getcond(cond);
    b.exit_jumpif(c, 1, 2);
    region
}

#[test]
fn every_condition_of_every_kind() {
    const VALUES: [u64; 14] = [
        0,
        1,
        2,
        7,
        8,
        15,
        16,
        0x7f,
        0x80,
        0x81,
        0xff,
        0x7fff_ffff_ffff_ffff,
        0x8000_0000_0000_0000,
        u64::MAX,
    ];
    let set = PassSet {
        fuse: true,
        fold: true,
        dce: true,
        verify: true,
        ..PassSet::NONE
    };
    for &kind in FlagKind::ALL {
        for (ty, cond) in [Type::I8, Type::I64]
            .into_iter()
            .flat_map(|ty| Cond::ALL.map(|c| (ty, c)))
        {
            if kind == FlagKind::Raw && ty != Type::I64 {
                continue;
            }
            let before = condition_region(kind, ty, cond);
            let mut after = before.clone();
            passes::run(&mut after, &set).expect("valid");
            let left = after.blocks[0].insts.iter();
            let left = left.filter(|&&v| after.inst(v).op == Op::GetCond).count();
            assert_eq!(left, 0, "{kind:?} {cond}");
            for (a, b) in VALUES.iter().flat_map(|a| VALUES.map(|b| (*a, b))) {
                for c in 0..4u64 {
                    let jumps = |region: &Region| {
                        let mut m = Machine::new(0);
                        for (r, x) in m.regs.iter_mut().zip([a, b, c]) {
                            *r = x.into();
                        }
                        m.run(region);
                        m.events
                    };
                    let (was, is) = (jumps(&before), jumps(&after));
                    assert_eq!(
                        was, is,
                        "{kind:?} {ty} {cond} of {a:#x}, {b:#x}, {c}\n{after}"
                    );
                }
            }
        }
    }
}

#[test]
fn twice_is_valid_too() {
    let all = PassSet {
        verify: true,
        ..PassSet::default()
    };
    for seed in 10_000..11_000 {
        let mut region = generate::region(&mut Rng::new(seed), 20);
        passes::run(&mut region, &all).expect("valid");
        check(&region, &all, "all again", seed);
    }
}

#[test]
fn the_broken_pass_is_noticed() {
    let set = PassSet {
        break_add: true,
        ..PassSet::NONE
    };
    let noticed = (0..300).any(|seed| {
        let before = generate::region(&mut Rng::new(seed), 20);
        let mut after = before.clone();
        passes::run(&mut after, &set).expect("the verifier is off");
        let pairs = meaning(&before).into_iter().zip(meaning(&after));
        pairs.into_iter().any(|(a, b)| a.events != b.events)
    });
    assert!(noticed);
}

#[test]
fn text_round_trips() {
    for seed in 20_000..22_000 {
        let mut region = generate::region(&mut Rng::new(seed), 24);
        if seed % 2 == 0 {
            passes::run(&mut region, &PassSet::default()).expect("valid");
        }
        let text = region.to_string();
        let again = parse(&text).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{text}"));
        assert_eq!(again.to_string(), text, "seed {seed}");
        verify(&again).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let (a, b) = (meaning(&region), meaning(&again));
        assert!(
            a.iter().zip(&b).all(|(a, b)| a.events == b.events),
            "seed {seed}: the parsed region means something else\n{text}"
        );
    }
}

/// A loop that adds to the low lane of XMM1 (as integers: the evaluator has no floats) while the
/// vector as a whole is only in a state map and at the exit.
const LANES: &str = "\
region pc 0x1000 code64
guest @0 +0x0 len 4 fuel 2
guest @1 +0x4 len 4 fuel 1
block0:
    v1 = getreg.v128 xmm1 ; @0
    v2 = getreg.i64 rax ; @0
    br block1(v1, v2) ; @0
block1(v3: v128, v4: i64):
    v5 = load.i64 data v4 [xmm1: v3] ; @0
    v6 = vget.f64 f64x2 0 v3 ; @0
    v7 = bitcast.i64 v6 ; @0
    v8 = add.i64 v7, v5 ; @0
    v9 = bitcast.f64 v8 ; @0
    v10 = vset.f64 f64x2 0 v3, v9 ; @0
    v11 = iconst.i64 0x8 ; @0
    v12 = add.i64 v4, v11 ; @0
    v13 = iconst.i64 0xff8 ; @0
    v14 = and.i64 v12, v13 ; @0
    v15 = iconst.i64 0x0 ; @0
    v16 = icmp.i64 ne v14, v15 ; @0
    brif v16, block1(v10, v12), block2 ; @1
block2:
    setreg.v128 xmm1, v10 ; @1
    setreg.i64 rax, v12 ; @1
    exit_jump +0x8 ; @1
";

#[test]
fn lanes_of_loops_are_carried_alone() {
    let before = parse(LANES).expect("a region");
    let set = PassSet {
        lanes: true,
        verify: true,
        ..PassSet::NONE
    };
    check(&before, &set, "lanes", 0);
    let mut after = before.clone();
    passes::run(&mut after, &set).expect("valid");
    let types: Vec<Type> = after.blocks[1]
        .params
        .iter()
        .map(|&p| after.ty(p))
        .collect();
    assert_eq!(types, [Type::V128, Type::I64, Type::F64], "{after}");
    let chain = after.blocks[1].insts.iter();
    let gets = chain.filter(|&&v| after.inst(v).op == Op::VGet).count();
    assert_eq!(gets, 0, "the lane is at hand\n{after}");
}
