//! The corpus: readable cases, one a line, that every engine runs and that the host confirms.
//!
//! ```text
//! name | code size | bytes in hex | inputs ⇒ outputs
//! ```
//!
//! - `rax=…`, `eax=…`, `ah=…`: a register or a part of one, in hex. What is not given is 0.
//! - `fl=cpazso`: the arithmetic flags that are set; `fl?=…`: flags that do not matter; `df=1`.
//! - `[1000a000]8=…`: that many bytes at a linear address. The world is that of
//!   `tests/host/case.rs`: data at 10008000, a read-only page at 1000c000, nothing at 1000d000.
//!   In 16-bit code DS is based at 10000000, ES at 10000240, SS at 10000130.
//! - `at=…`: where in the code pages the instruction lies (800 unless given).
//! - outputs only: `#DE` and the like, `#PF(address)` or `#PF(address,w)`; `rip=+…`, `rip=-…`
//!   relative to the instruction, or `rip=…`.
//!
//! What an output does not name must be as it was; RIP is behind the instruction, or at it after
//! a fault.

mod host;

use host::case::*;

/// A line of the corpus.
struct Line {
    name: String,
    case: Case,
    expected: Outcome,
    /// Flags that count.
    flags: u64,
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap_or_else(|_| panic!("not hexadecimal: {text:?}"))
}

/// Register number, shift and bits of a register's name.
fn register(name: &str) -> Option<(usize, u32, u32)> {
    const OLD: [&str; 8] = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"];
    const LOW: [&str; 8] = ["al", "cl", "dl", "bl", "ah", "ch", "dh", "bh"];
    let find = |set: &[&str; 8], name: &str| set.iter().position(|r| *r == name);
    if let Some(n) = find(&LOW, name) {
        return Some((n % 4, if n < 4 { 0 } else { 8 }, 8));
    }
    if let Some(n) = find(&OLD, name) {
        return Some((n, 0, 16));
    }
    let (first, rest) = name.split_at_checked(1)?;
    match (first, find(&OLD, rest)) {
        ("r", Some(n)) => Some((n, 0, 64)),
        ("e", Some(n)) => Some((n, 0, 32)),
        ("r", None) => rest
            .parse()
            .ok()
            .filter(|n| (8..16).contains(n))
            .map(|n| (n, 0, 64)),
        _ => None,
    }
}

fn put(gpr: &mut [u64; 16], (n, shift, bits): (usize, u32, u32), value: u64) {
    let mask = (u64::MAX >> (64 - bits)) << shift;
    assert!(value <= mask >> shift, "{value:#x} is too large");
    gpr[n] = gpr[n] & !mask | value << shift;
}

fn flag_letters(text: &str) -> u64 {
    text.chars()
        .map(|c| match c {
            'c' => 1,
            'p' => 4,
            'a' => 0x10,
            'z' => 0x40,
            's' => 0x80,
            'o' => 0x800,
            _ => panic!("no flag {c:?}"),
        })
        .sum()
}

/// `[address]bytes`.
fn memory(key: &str) -> Option<(usize, usize)> {
    let (address, len) = key.strip_prefix('[')?.split_once(']')?;
    Some(((hex(address) - DATA) as usize, hex(len) as usize))
}

fn trap(text: &str) -> Option<u32> {
    (0..20).find(|n| trap_name(*n) == text)
}

fn parse(text: &str) -> Line {
    let fields: Vec<&str> = text.split('|').map(str::trim).collect();
    let [name, size, bytes, effect] = fields[..] else {
        panic!("four fields: {text}");
    };
    let mode = Mode::ALL
        .into_iter()
        .find(|m| m.bits().to_string() == size)
        .unwrap_or_else(|| panic!("code size: {text}"));
    let bytes: Vec<u8> = bytes.split_whitespace().map(|b| hex(b) as u8).collect();
    let (inputs, outputs) = effect
        .split_once('⇒')
        .unwrap_or_else(|| panic!("inputs ⇒ outputs: {text}"));
    let mut case = Case::new(mode, &bytes);
    let mut pokes = case.pokes.iter_mut();
    for token in inputs.split_whitespace() {
        let (key, value) = token.split_once('=').unwrap_or_else(|| panic!("{token}"));
        if let Some(reg) = register(key) {
            put(&mut case.gpr, reg, hex(value));
        } else if let Some((offset, len)) = memory(key) {
            *pokes.next().expect("at most four memory inputs") = Poke {
                offset: offset as u32,
                len: len as u32,
                value: hex(value),
            };
        } else {
            match key {
                "fl" => case.rflags |= flag_letters(value),
                "df" => case.rflags |= DF * hex(value),
                "at" => case.at = hex(value),
                _ => panic!("unknown input {token} in {text}"),
            }
        }
    }
    let mut before: Vec<u8> = pristine().iter().flat_map(|w| w.to_le_bytes()).collect();
    case.poke(&mut before);
    let mut after = before.clone();
    let mut expected = Outcome {
        gpr: case.gpr,
        rflags: case.rflags,
        xmm: case.xmm,
        mxcsr: case.mxcsr,
        trap: COMPLETED,
        ..Outcome::EMPTY
    };
    let (mut rip, mut flags) = (None, FLAGS);
    for token in outputs.split_whitespace() {
        if let Some(fault) = token.strip_prefix("#PF(").and_then(|t| t.strip_suffix(')')) {
            let address = fault.strip_suffix(",w");
            expected.trap = 14;
            expected.error = if address.is_some() { 2 } else { 0 };
            expected.address = hex(address.unwrap_or(fault));
            continue;
        }
        if let Some(vector) = trap(token) {
            expected.trap = vector;
            continue;
        }
        let (key, value) = token.split_once('=').unwrap_or_else(|| panic!("{token}"));
        if let Some(reg) = register(key) {
            put(&mut expected.gpr, reg, hex(value));
        } else if let Some((offset, len)) = memory(key) {
            after[offset..offset + len].copy_from_slice(&hex(value).to_le_bytes()[..len]);
        } else {
            match key {
                "fl" => expected.rflags = expected.rflags & !ARITH | flag_letters(value),
                "fl?" => flags &= !flag_letters(value),
                "df" => expected.rflags = expected.rflags & !DF | (DF * hex(value)),
                "rip" => {
                    rip = Some(match (value.strip_prefix('+'), value.strip_prefix('-')) {
                        (Some(n), _) => case.ip() + hex(n),
                        (_, Some(n)) => case.ip() - hex(n),
                        _ => hex(value),
                    });
                }
                _ => panic!("unknown output {token} in {text}"),
            }
        }
    }
    expected.rip = rip.unwrap_or(match expected.trap {
        COMPLETED => case.ip() + case.len,
        _ => case.ip(),
    });
    let words = |bytes: &[u8]| -> Vec<u64> {
        bytes[..DATA_RW]
            .chunks_exact(8)
            .map(|b| u64::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    expected.record_writes(&words(&before), &words(&after));
    Line {
        name: name.into(),
        case,
        expected,
        flags,
    }
}

fn corpus() -> Vec<Line> {
    [
        include_str!("corpus/alu.ins"),
        include_str!("corpus/bits.ins"),
        include_str!("corpus/control.ins"),
    ]
    .iter()
    .flat_map(|file| file.lines())
    .map(str::trim)
    .filter(|line| !line.is_empty() && !line.starts_with('#'))
    .map(parse)
    .collect()
}

impl Line {
    /// What is wrong with an outcome.
    fn faults(&self, got: &Outcome) -> Vec<String> {
        let want = &self.expected;
        let mut out = Vec::new();
        if want.trap != got.trap {
            let (want, got) = (trap_name(want.trap), trap_name(got.trap));
            return vec![format!("expected {want}, got {got}")];
        }
        let mut same = |what: String, want: u64, got: u64| {
            if want != got {
                out.push(format!("{what}: expected {want:#x}, got {got:#x}"));
            }
        };
        same("rip".into(), want.rip, got.rip);
        same("fault address".into(), want.address, got.address);
        if want.trap == 14 {
            same("write bit".into(), want.error, got.error & 2);
        }
        same(
            "flags".into(),
            want.rflags & self.flags,
            got.rflags & self.flags,
        );
        let mask = self.case.mode.gpr_mask();
        for n in 0..16 {
            same(host::compare::GPR[n].into(), want.gpr[n], got.gpr[n] & mask);
        }
        same("changed words".into(), want.changed, got.changed);
        for (want, got) in want.writes().iter().zip(got.writes()) {
            same(
                format!("[{:#x}]", DATA + want.offset),
                want.value,
                got.value,
            );
            same("written at".into(), want.offset, got.offset);
        }
        if (want.xmm, want.mxcsr) != (got.xmm, got.mxcsr) {
            out.push("SSE state changed".into());
        }
        out
    }
}

fn check(engine: &str, mut run: impl FnMut(&Case) -> Option<Outcome>) {
    let mut wrong = Vec::new();
    for line in corpus() {
        let Some(got) = run(&line.case) else { continue };
        let faults = line.faults(&got);
        if !faults.is_empty() {
            wrong.push(format!("{engine}: {}: {}", line.name, faults.join("; ")));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} lines fail\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn the_host_confirms_the_corpus() {
    let mut oracle = host::native::Oracle::new().expect("the oracle starts");
    check("host", |case| {
        if !oracle.supports(case.mode) {
            println!("not compared on this host: {}-bit code", case.mode.bits());
            return None;
        }
        Some(oracle.run_one(case).expect("the oracle runs"))
    });
}

#[test]
fn the_corpus_is_large_and_its_names_are_unique() {
    let lines = corpus();
    let names: std::collections::BTreeSet<&str> = lines.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names.len(), lines.len(), "two lines have the same name");
    assert!(lines.len() >= 150, "{}", lines.len());
}

#[test]
fn every_engine_runs_the_corpus() {
    use host::engine::{Engine, Kind};
    for kind in Kind::ALL {
        let mut engines = Mode::ALL.map(|mode| Engine::new(kind, mode));
        check(kind.name(), |case| {
            let at = Mode::ALL.iter().position(|m| *m == case.mode)?;
            Some(engines[at].run(case))
        });
    }
}
