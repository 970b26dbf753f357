//! Every instruction form against the host CPU, in every code size, in each engine.
//!
//! `METAPHRASE_CASES` sets the random cases a form (1,000 unless set; the long run has 10,000),
//! `METAPHRASE_FORM` restricts the run to forms whose iced name contains it, `METAPHRASE_SEED`
//! changes the cases, `METAPHRASE_BLESS=1` rewrites `docs/coverage.md`.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod host;

use host::case::*;
use host::compare;
use host::coverage::{Coverage, Status};
use host::engine::{Engine, Kind};
use host::forms::{self, Class};
use host::native::Oracle;
use host::rng::Rng;
use host::states::Steering;
use iced_x86::{Code, FlowControl, Instruction, Mnemonic};
use metaphrase_frontend::Features;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// States tried with each encoding.
const STATES: usize = 20;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

/// A worker's oracle and engines.
struct Bench {
    oracle: Oracle,
    engines: BTreeMap<(Mode, Kind), Engine>,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            oracle: Oracle::new().expect("the oracle starts"),
            engines: BTreeMap::new(),
        }
    }

    fn engine(&mut self, mode: Mode, kind: Kind) -> &mut Engine {
        self.engines
            .entry((mode, kind))
            .or_insert_with(|| Engine::new(kind, mode))
    }

    /// Whether our engines raise #UD for a form, as they should for what is not implemented.
    fn undefined(&mut self, mode: Mode, code: Code, seed: u64) -> Status {
        let mut rng = Rng::new(seed ^ code as u64);
        for _ in 0..3 {
            let Some(encoding) = forms::encode(&mut rng, mode, code) else {
                return Status::NotYet;
            };
            let Some(case) = Steering::new(mode, &encoding).case(&mut rng) else {
                continue;
            };
            if self.engine(mode, Kind::Interp).run(&case).trap != 6 {
                return Status::Elsewhere;
            }
        }
        Status::NotYet
    }

    /// Tests one form; how many cases ran, and what came of it.
    fn form(&mut self, mode: Mode, code: Code, wanted: usize, seed: u64) -> (usize, Status) {
        let class = forms::class(code);
        if let Class::System(why) = class {
            return (0, Status::System(why));
        }
        if class == Class::NotYet {
            return (0, self.undefined(mode, code, seed));
        }
        if !self.oracle.supports(mode) {
            return (0, Status::NoHost);
        }
        let mut rng = Rng::new(seed ^ (code as u64) << 8 ^ u64::from(mode.bits()));
        let (mut cases, mut instrs) = (Vec::new(), Vec::new());
        // Operands that cannot be steered cost a case now and then: a few more encodings.
        for _ in 0..wanted.div_ceil(STATES) * 2 {
            let Some(encoding) = forms::encode(&mut rng, mode, code) else {
                return (0, Status::NoEncoding);
            };
            let steering = Steering::new(mode, &encoding);
            for _ in 0..STATES {
                if let Some(case) = steering.case(&mut rng) {
                    cases.push(case);
                    instrs.push(encoding.instr);
                }
            }
            if cases.len() >= wanted {
                break;
            }
        }
        assert!(
            cases.len() * 2 >= wanted,
            "{code:?} in {}-bit code: only {} of {wanted} cases can be made",
            mode.bits(),
            cases.len()
        );
        let host = self.oracle.run(&cases).expect("the oracle runs");
        if let Some(i) = host.iter().position(|o| o.trap == HANG) {
            panic!("the host hangs on {}", compare::text(&instrs[i]));
        }
        if class == Class::Sse && host.iter().all(|o| o.trap == 6) {
            return (cases.len(), Status::NoHost);
        }
        let mut failures: Vec<String> = Vec::new();
        let (mut failed, mut undefined) = (0, 0);
        for kind in Kind::SINGLE {
            let engine = self.engine(mode, kind);
            for ((case, instr), host) in cases.iter().zip(&instrs).zip(&host) {
                let ours = engine.run(case);
                let found = judge(class, case, instr, host, &ours);
                if found.is_empty() {
                    continue;
                }
                failed += 1;
                undefined += usize::from(ours.trap == 6 && host.trap != 6);
                if failures.len() < 3 {
                    failures.push(format!(
                        "  {}: {}\n{}",
                        kind.name(),
                        found.join("; "),
                        compare::case_text(case, instr, host, &ours)
                    ));
                }
            }
        }
        let status = if failed == 0 {
            Status::Ok
        } else if undefined == failed && !Features::MAX.allow(&instrs[0]) {
            Status::NotYet
        } else {
            Status::Failing(format!(
                "{code:?} in {}-bit code: {failed} of {} differ ({undefined} of them #UD)\n{}",
                mode.bits(),
                2 * cases.len(),
                failures.join("\n")
            ))
        };
        (cases.len(), status)
    }
}

/// What is wrong with our outcome.
fn judge(
    class: Class,
    case: &Case,
    instr: &Instruction,
    host: &Outcome,
    ours: &Outcome,
) -> Vec<String> {
    if class == Class::Varying && host.trap == COMPLETED {
        return match compare::shape_is_right(case, instr, ours) {
            true => Vec::new(),
            false => vec!["the shape is wrong".into()],
        };
    }
    // A branch to a non-canonical address: the host refuses the branch, we the fetch behind it.
    let indirect = matches!(
        instr.flow_control(),
        FlowControl::Return | FlowControl::IndirectBranch | FlowControl::IndirectCall
    );
    if indirect && host.trap == 13 && ours.trap == 13 {
        return Vec::new();
    }
    // AMD reads four bytes for the 16-bit form of MOVSXD, Intel two, and so do we.
    if instr.code() == Code::Movsxd_r16_rm16 && host.trap == 14 && ours.trap == COMPLETED {
        return Vec::new();
    }
    // Intel's CPUs want SHA's memory operands aligned, AMD's do not, nor do we.
    let sha = instr.mnemonic() as usize >= Mnemonic::Sha1msg1 as usize
        && instr.mnemonic() as usize <= Mnemonic::Sha256rnds2 as usize;
    if sha && host.trap == 13 && ours.trap == COMPLETED {
        return Vec::new();
    }
    // Whether an ARPL that changes nothing asks for the right to write differs by vendor.
    if instr.mnemonic() == Mnemonic::Arpl && host.trap == COMPLETED && ours.trap == 14 {
        return Vec::new();
    }
    compare::differences(case, instr, host, ours)
}

/// Runs every form on all CPUs.
fn run(cases: usize) -> Coverage {
    let filter = std::env::var("METAPHRASE_FORM").unwrap_or_default();
    let seed = setting("METAPHRASE_SEED", 1);
    let mut tasks: Vec<(Mode, Code)> = Mode::ALL
        .iter()
        .flat_map(|&mode| forms::forms(mode).map(move |code| (mode, code)))
        .filter(|(_, code)| format!("{code:?}").contains(&filter))
        .collect();
    // The order in which forms come up must not favour one worker.
    tasks.sort_by_key(|(mode, code)| (*code, *mode));
    let next = AtomicUsize::new(0);
    let coverage = Mutex::new((Coverage::default(), 0));
    let workers = std::thread::available_parallelism()
        .map_or(2, |n| n.get())
        .min(8);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut bench = Bench::new();
                while let Some(&(mode, code)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (n, status) = bench.form(mode, code, cases, seed);
                    let mut all = coverage.lock().unwrap();
                    all.0.0.insert((code, mode), status);
                    all.1 += n;
                }
            });
        }
    });
    let (coverage, total) = coverage.into_inner().unwrap();
    println!("{total} cases\n{}", coverage.summary());
    for feature in coverage.missing_on_host() {
        println!("NOT COMPARED: this host has no {feature}");
    }
    coverage
}

fn check(coverage: &Coverage) {
    let failing: Vec<&str> = coverage
        .0
        .values()
        .filter_map(|s| match s {
            Status::Failing(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    let shown = setting("METAPHRASE_SHOW", 40) as usize;
    for text in failing.iter().take(shown) {
        println!("{text}");
    }
    if !failing.is_empty() {
        let names: Vec<&str> = failing.iter().filter_map(|t| t.lines().next()).collect();
        panic!("{} forms differ:\n{}", failing.len(), names.join("\n"));
    }
}

#[test]
fn every_form_agrees_with_the_host() {
    let coverage = run(setting("METAPHRASE_CASES", 1000) as usize);
    let partial = std::env::var_os("METAPHRASE_FORM").is_some();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/coverage.md");
    if std::env::var_os("METAPHRASE_BLESS").is_some() && !partial {
        std::fs::write(path, coverage.page()).expect("the page is writable");
    }
    check(&coverage);
    // A host that lacks a feature or the LDT cannot confirm the whole table.
    let complete = !coverage.0.values().any(|s| *s == Status::NoHost);
    if complete && !partial {
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == coverage.page(),
            "docs/coverage.md is out of date: METAPHRASE_BLESS=1 cargo test --test differential"
        );
    }
}

#[test]
#[ignore = "ten thousand cases a form, ten minutes: see docs/testing.md"]
fn every_form_agrees_with_the_host_in_the_long_run() {
    check(&run(setting("METAPHRASE_CASES", 10_000) as usize));
}
