//! Random regions mean the same before and after each pass alone, and all together.

mod common;

use common::eval::Machine;
use common::{Rng, generate};
use metaphrase_ir::{PassSet, Region, parse, passes, verify};

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
    for (was, is) in meaning(before).iter().zip(&meaning(&after)) {
        let same = was.events == is.events && was.memory == is.memory && was.fuel == is.fuel;
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
