//! The portable operations against the host's FPU: results and status words, bit for bit; the
//! transcendental functions within a unit in the last place.
//!
//! Random operations (see `values`) on values of every class, and every pair of a list of telling values, with
//! every precision and rounding control, and overflow and underflow masked or not.

mod values;

use super::super::{fast, ops::*, stack::*};
use crate::state::X87Reg;
use values::{Rng, controls, corners};

/// An operation of the interface with its operands.
#[derive(Clone, Copy, Debug)]
enum Call {
    Arith(Arith, X87Reg, Source),
    Compare(X87Reg, Source, bool),
    Test(X87Reg),
    Load(Source),
    LoadBcd([u8; 10]),
    StoreF32(X87Reg),
    StoreF64(X87Reg),
    StoreInt(X87Reg, u32),
    StoreBcd(X87Reg),
    Unary(Unary, X87Reg),
    Binary(Binary, X87Reg, X87Reg),
    Pair(Pair, X87Reg),
    Constant(u8),
}

/// What an operation gives: up to two values, and the status word.
#[derive(Clone, Copy, PartialEq)]
struct Answer {
    values: [X87Reg; 2],
    status: u16,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b] = self.values;
        write!(f, "{:04x}:{:016x}", a.exponent, a.mantissa)?;
        write!(f, " {:04x}:{:016x}", b.exponent, b.mantissa)?;
        write!(f, " status {:04x}", self.status)
    }
}

const CONDITIONS: u16 = C0 | C1 | C2 | C3;

/// Calls the same function of the host's module and of ours.
macro_rules! both {
    ($run:ident, $module:ident) => {
        fn $run(call: Call, control: u16) -> Answer {
            use super::super::$module as fpu;
            let bits = |mantissa: u64, exponent: u64| X87Reg { mantissa, exponent };
            let (first, second, status) = match call {
                Call::Arith(op, a, b) => {
                    let (v, sw) = fpu::arith(op, control, a, b);
                    (v, X87Reg::ZERO, sw)
                }
                Call::Compare(a, b, quiet) => (
                    X87Reg::ZERO,
                    X87Reg::ZERO,
                    fpu::compare(control, a, b, quiet),
                ),
                Call::Test(a) => (X87Reg::ZERO, X87Reg::ZERO, fpu::test(control, a)),
                Call::Load(s) => {
                    let (v, sw) = fpu::load(control, s);
                    (v, X87Reg::ZERO, sw)
                }
                Call::LoadBcd(b) => {
                    let (v, sw) = fpu::load_bcd(control, b);
                    (v, X87Reg::ZERO, sw)
                }
                Call::StoreF32(a) => {
                    let (v, sw) = fpu::store_f32(control, a);
                    (bits(v.into(), 0), X87Reg::ZERO, sw)
                }
                Call::StoreF64(a) => {
                    let (v, sw) = fpu::store_f64(control, a);
                    (bits(v, 0), X87Reg::ZERO, sw)
                }
                Call::StoreInt(a, bytes) => {
                    let (v, sw) = fpu::store_int(control, a, bytes);
                    (bits(v, 0), X87Reg::ZERO, sw)
                }
                Call::StoreBcd(a) => {
                    let (v, sw) = fpu::store_bcd(control, a);
                    let low = u64::from_le_bytes(v[..8].try_into().unwrap());
                    let high = u64::from(v[8]) | u64::from(v[9]) << 8;
                    (bits(low, high), X87Reg::ZERO, sw)
                }
                Call::Unary(op, a) => {
                    let (v, sw) = fpu::unary(op, control, a);
                    (v, X87Reg::ZERO, sw)
                }
                Call::Binary(op, a, b) => {
                    let (v, sw) = fpu::binary(op, control, a, b);
                    (v, X87Reg::ZERO, sw)
                }
                Call::Pair(op, a) => {
                    let (v, w, sw) = fpu::pair(op, control, a);
                    (v, w, sw)
                }
                Call::Constant(n) => (fpu::constant(n, control), X87Reg::ZERO, 0),
            };
            Answer {
                values: [first, second],
                status: status & (EXCEPTIONS | CONDITIONS),
            }
        }
    };
}
both!(on_host, host_x86_64);
both!(ours, portable);

impl Call {
    /// The functions whose last bit is the implementation's.
    fn transcendental(self) -> bool {
        match self {
            Call::Unary(op, _) => matches!(op, Unary::F2xm1 | Unary::Sin | Unary::Cos),
            Call::Binary(op, ..) => matches!(op, Binary::Yl2x | Binary::Yl2xp1 | Binary::Patan),
            Call::Pair(op, _) => op != Pair::Xtract,
            _ => false,
        }
    }

    /// The condition codes that the operation defines, if it ends so.
    fn defined(self, Answer { values, status }: Answer) -> u16 {
        let none = values[0].exponent & 0x7fff == 0x7fff;
        match self {
            Call::Compare(..) | Call::Test(_) => CONDITIONS,
            Call::Load(_) | Call::LoadBcd(_) | Call::Constant(_) => 0,
            // Without a remainder the caller sets them.
            Call::Binary(Binary::Prem | Binary::Prem1, ..) if none => 0,
            Call::Binary(Binary::Prem | Binary::Prem1, ..) if status & C2 != 0 => C2,
            Call::Binary(Binary::Prem | Binary::Prem1, ..) => CONDITIONS,
            Call::Unary(Unary::Sin | Unary::Cos, _) => C2,
            Call::Pair(Pair::SinCos | Pair::Ptan, _) => C2,
            _ if self.transcendental() => 0,
            _ => C1,
        }
    }

    /// A name to count failures by.
    fn name(self) -> String {
        match self {
            Call::Arith(op, _, s) => format!("{op:?} {}", kind(s)),
            Call::Compare(_, s, quiet) => format!("compare {} quiet {quiet}", kind(s)),
            Call::Load(s) => format!("load {}", kind(s)),
            Call::StoreInt(_, n) => format!("store_int {n}"),
            Call::Unary(op, _) => format!("{op:?}"),
            Call::Binary(op, ..) => format!("{op:?}"),
            Call::Pair(op, _) => format!("{op:?}"),
            other => format!("{other:?}")
                .split('(')
                .next()
                .unwrap_or("")
                .to_owned(),
        }
    }
}

fn kind(s: Source) -> &'static str {
    match s {
        Source::Reg(_) => "st",
        Source::F32(_) => "m32",
        Source::F64(_) => "m64",
        Source::I16(_) => "m16int",
        Source::I32(_) => "m32int",
    }
}

/// The distance of two results in units in the last place; `None` if they are not neighbours of
/// one kind.
fn distance(a: X87Reg, b: X87Reg) -> Option<u64> {
    if a == b {
        return Some(0);
    }
    let place =
        |r: X87Reg| u128::from(r.exponent & 0x7fff) << 63 | u128::from(r.mantissa & !(1 << 63));
    let special = |r: X87Reg| r.exponent & 0x7fff == 0x7fff;
    if a.exponent & 0x8000 != b.exponent & 0x8000 || special(a) || special(b) {
        return None;
    }
    u64::try_from(place(a).abs_diff(place(b))).ok()
}

/// Whether the answers agree as they must.
fn agrees(call: Call, control: u16, want: Answer, got: Answer) -> bool {
    let defined = call.defined(want) | EXCEPTIONS;
    if (want.status ^ got.status) & defined != 0 {
        return false;
    }
    // Of a store that does not happen, only the flags mean something.
    let stores = matches!(call, Call::StoreF32(_) | Call::StoreF64(_));
    if stores && want.status & !control & (OE | UE) != 0 {
        return true;
    }
    if call.transcendental() {
        let near = |n: usize| distance(want.values[n], got.values[n]).is_some_and(|d| d <= 1);
        let pushes = matches!(call, Call::Pair(..)) && want.status & C2 == 0;
        near(0) && (!pushes || near(1))
    } else {
        want.values == got.values
    }
}

/// Failures by operation: how many, and the first few.
#[derive(Default)]
struct Report(std::collections::BTreeMap<String, (u64, Vec<String>)>);

impl Report {
    fn check(&mut self, call: Call, control: u16) {
        super::super::host_x86_64::forget_inexact();
        let (want, got) = (on_host(call, control), ours(call, control));
        if let Call::Arith(op, a, b) = call
            && let Some((v, sw)) = fast::arith(op, control, a, b)
        {
            assert_eq!(
                (v, sw),
                (want.values[0], want.status & (EXCEPTIONS | C1)),
                "{call:x?}"
            );
        }
        if !agrees(call, control, want, got) {
            let (count, texts) = self.0.entry(call.name()).or_default();
            *count += 1;
            if texts.len() < 4 {
                texts.push(format!(
                    "{call:x?} control {control:04x}\n    host {want:?}\n    ours {got:?}"
                ));
            }
        }
    }

    fn finish(self) {
        let mut out = String::new();
        for (name, (count, texts)) in &self.0 {
            out += &format!("{name}: {count} differ\n  {}\n", texts.join("\n  "));
        }
        assert!(self.0.is_empty(), "{out}");
    }
}

fn random(seed: u64, count: u64, next: impl Fn(&mut Rng) -> Call) {
    let mut rng = Rng(seed);
    let mut report = Report::default();
    for _ in 0..count {
        let call = next(&mut rng);
        let control = rng.control();
        report.check(call, control);
    }
    report.finish();
}

#[test]
fn random_operations() {
    random(0x9e37_79b9_7f4a_7c15, 100_000, Rng::call);
}

#[test]
fn random_transcendentals() {
    random(0x5851_f42d_4c95_7f2d, 20_000, Rng::transcendental);
}

/// The long run: `cargo test --release -p metaphrase-runtime x87 -- --ignored`.
#[test]
#[ignore = "the long run of docs/testing.md"]
fn ten_million_random_operations() {
    random(0x0123_4567_89ab_cdef, 10_000_000, Rng::call);
    random(0xfedc_ba98_7654_3210, 2_000_000, Rng::transcendental);
}

#[test]
fn every_pair_of_corners() {
    let corners = corners();
    let mut report = Report::default();
    for control in controls() {
        for &a in &corners {
            for &b in &corners {
                for op in [Arith::Add, Arith::Mul, Arith::Sub, Arith::Div] {
                    report.check(Call::Arith(op, a, Source::Reg(b)), control);
                }
                for op in [
                    Binary::Scale,
                    Binary::Prem,
                    Binary::Prem1,
                    Binary::Yl2x,
                    Binary::Yl2xp1,
                    Binary::Patan,
                ] {
                    report.check(Call::Binary(op, a, b), control);
                }
                if control == 0x37f {
                    report.check(Call::Arith(Arith::SubR, a, Source::Reg(b)), control);
                    report.check(Call::Arith(Arith::DivR, a, Source::Reg(b)), control);
                    report.check(Call::Compare(a, Source::Reg(b), false), control);
                    report.check(Call::Compare(a, Source::Reg(b), true), control);
                }
            }
        }
    }
    report.finish();
}

#[test]
fn every_corner() {
    let mut report = Report::default();
    for control in controls() {
        for a in corners() {
            for bytes in [2, 4, 8] {
                report.check(Call::StoreInt(a, bytes), control);
            }
            for op in [
                Unary::Sqrt,
                Unary::RndInt,
                Unary::Sin,
                Unary::Cos,
                Unary::F2xm1,
            ] {
                report.check(Call::Unary(op, a), control);
            }
            for op in [Pair::Xtract, Pair::Ptan, Pair::SinCos] {
                report.check(Call::Pair(op, a), control);
            }
            for call in [
                Call::StoreF32(a),
                Call::StoreF64(a),
                Call::StoreBcd(a),
                Call::Test(a),
            ] {
                report.check(call, control);
            }
        }
        for n in 0..6 {
            report.check(Call::Constant(n), control);
        }
    }
    report.finish();
}
