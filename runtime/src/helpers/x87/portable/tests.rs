//! The portable operations against the host's FPU: results and status words, bit for bit; the
//! transcendental functions within a unit in the last place.
//!
//! Random operations on values of every class, and every pair of a list of telling values, with
//! every precision and rounding control, and overflow and underflow masked or not.

use super::super::{fast, ops::*, stack::*};
use crate::state::X87Reg;

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

/// xorshift64*.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 32) % n
    }

    /// A significand: any bits, few ones, long runs, or halfway between two shorter ones.
    fn significand(&mut self) -> u64 {
        let top = 1 << 63;
        match self.below(8) {
            0 => top,
            1 => top | 1 << self.below(63),
            2 => !0 << self.below(64) | top,
            3 => top | (1u64 << self.below(63)).wrapping_sub(1),
            4 => top | self.next() << 40 | 1 << 39,
            5 => top | self.next() << 11 | 1 << 10,
            _ => top | self.next(),
        }
    }

    /// A register of any class.
    fn register(&mut self) -> X87Reg {
        let top = 1u64 << 63;
        let (mantissa, exponent) = match self.below(24) {
            0 => (0, 0),
            1 => (top, 0x7fff),
            // Quiet and signaling NaNs, pseudo-NaNs and pseudo-infinity, unnormals.
            2 => (0xc0 << 56 | self.next() >> 2, 0x7fff),
            3 => (top | self.next() >> 2 | 1, 0x7fff),
            4 => (self.next() >> (1 + self.below(64)).min(63), 0x7fff),
            5 => (self.next() >> 1, 1 + self.below(0x7ffe)),
            // Denormals and pseudo-denormals.
            6 => (self.next() >> (1 + self.below(63)), 0),
            7 => (top | self.next(), 0),
            // Anywhere.
            8 | 9 => (self.significand(), self.below(0x7fff)),
            // Near overflow, near underflow, near the ends of the narrower formats.
            10 => (self.significand(), 0x7ffe - self.below(70)),
            11 => (self.significand(), 1 + self.below(70)),
            12 => (self.significand(), 0x3fff - 0x3ff - 60 + self.below(64)),
            13 => (self.significand(), 0x3fff + 0x3fe + self.below(4)),
            14 => (self.significand(), 0x3fff - 0x7f - 30 + self.below(34)),
            15 => (self.significand(), 0x3fff + 0x7e + self.below(4)),
            // Around the limits of integers, and of packed decimal.
            16 => {
                let n =
                    [1u64 << 15, 1 << 31, 1 << 63, 999_999_999_999_999_999][self.below(4) as usize];
                let n = n.wrapping_add(self.below(5)).wrapping_sub(2);
                let shift = n.leading_zeros();
                (n << shift, 0x3fff + 63 - u64::from(shift))
            }
            // Small halves.
            17 => {
                let n = 1 + self.below(64);
                let shift = n.leading_zeros();
                (n << shift, 0x3fff + 62 - u64::from(shift))
            }
            // Around 1, and of middling size.
            18 => (self.significand(), 0x3ffe + self.below(3)),
            _ => (self.significand(), 0x3fff - 40 + self.below(110)),
        };
        X87Reg {
            mantissa,
            exponent: exponent | self.below(2) << 15,
        }
    }

    /// A register for the function: mostly in its domain.
    fn argument(&mut self, low: u64, span: u64) -> X87Reg {
        if self.below(4) == 0 {
            return self.register();
        }
        X87Reg {
            mantissa: self.significand(),
            exponent: (low + self.below(span)) | (self.below(2) << 15),
        }
    }

    fn source(&mut self) -> Source {
        let real = match self.below(8) {
            0 => 0,
            1 => 1.0f64.to_bits(),
            2 => 0x7ff0 << 48,
            3 => 0x7ff0 << 48 | self.next() >> 12,
            4 => self.next() >> (12 + self.below(52)),
            5 => (self.below(1000) as f64 / 2.0).to_bits(),
            _ => self.next(),
        };
        let sign = self.below(2);
        match self.below(6) {
            0 => Source::F64(real ^ sign << 63),
            1 => {
                let narrow = match self.below(3) {
                    0 => (f64::from_bits(real) as f32).to_bits(),
                    1 => self.next() as u32 >> (9 + self.below(23)),
                    _ => (real >> 32) as u32,
                };
                Source::F32(narrow ^ (sign as u32) << 31)
            }
            2 => Source::I16((self.next() >> self.below(64)) as i16),
            3 => Source::I32((self.next() >> self.below(64)) as i32),
            _ => Source::Reg(self.register()),
        }
    }

    /// A control word that masks what the callers mask.
    fn control(&mut self) -> u16 {
        let precision = [0, 0x200, 0x300, 0x300][self.below(4) as usize];
        let masks = if self.below(3) == 0 {
            self.next() as u16 & 0x38
        } else {
            0x38
        };
        0x47 | masks | precision | (self.below(4) as u16) << 10
    }

    fn call(&mut self) -> Call {
        match self.below(20) {
            0..=5 => {
                let op = ARITH[self.below(6) as usize];
                let a = self.register();
                let b = match self.source() {
                    // Often near the other operand.
                    Source::Reg(b) if self.below(2) == 0 => Source::Reg(X87Reg {
                        exponent: a.exponent.wrapping_add(self.below(140)).wrapping_sub(70)
                            & 0x7fff
                            | b.exponent & 0x8000,
                        mantissa: if self.below(4) == 0 {
                            a.mantissa
                        } else {
                            b.mantissa
                        },
                    }),
                    b => b,
                };
                Call::Arith(op, a, b)
            }
            6 => {
                let a = self.register();
                let b = if self.below(4) == 0 {
                    Source::Reg(a)
                } else {
                    self.source()
                };
                Call::Compare(a, b, matches!(b, Source::Reg(_)) && self.below(2) == 0)
            }
            7 => match self.below(4) {
                0 => Call::Test(self.register()),
                1 => Call::Constant(self.below(6) as u8),
                _ => loop {
                    let s = self.source();
                    if matches!(s, Source::F32(_) | Source::F64(_)) {
                        return Call::Load(s);
                    }
                },
            },
            8 => {
                let mut bytes = [0; 10];
                let digits = self.below(10) as usize;
                for b in &mut bytes[..digits] {
                    *b = (self.below(10) << 4 | self.below(10)) as u8;
                }
                bytes[9] = (self.below(2) << 7) as u8;
                Call::LoadBcd(bytes)
            }
            9 => Call::StoreF32(self.register()),
            10 => Call::StoreF64(self.register()),
            11 => Call::StoreInt(self.register(), [2, 4, 8][self.below(3) as usize]),
            12 => Call::StoreBcd(self.register()),
            13 => Call::Unary(Unary::Sqrt, self.register()),
            14 => Call::Unary(Unary::RndInt, self.register()),
            15 => {
                let by = self.argument(0x3ffe, 18);
                Call::Binary(Binary::Scale, self.register(), by)
            }
            16 | 17 => {
                let op = [Binary::Prem, Binary::Prem1][self.below(2) as usize];
                let (a, mut b) = (self.register(), self.register());
                if self.below(4) != 0 {
                    let e = a.exponent.wrapping_sub(self.below(80)).wrapping_add(4);
                    b.exponent = b.exponent & 0x8000 | e & 0x7fff;
                }
                Call::Binary(op, a, b)
            }
            18 => Call::Pair(Pair::Xtract, self.register()),
            _ => self.transcendental(),
        }
    }

    fn transcendental(&mut self) -> Call {
        let angle = (0x3fff - 70, 135);
        match self.below(8) {
            0 => Call::Unary(Unary::F2xm1, self.argument(0x3fff - 70, 71)),
            1 => Call::Unary(Unary::Sin, self.argument(angle.0, angle.1)),
            2 => Call::Unary(Unary::Cos, self.argument(angle.0, angle.1)),
            3 => Call::Pair(Pair::SinCos, self.argument(angle.0, angle.1)),
            4 => Call::Pair(Pair::Ptan, self.argument(angle.0, angle.1)),
            5 => {
                let x = self.register();
                Call::Binary(Binary::Yl2x, x, self.register())
            }
            6 => {
                let x = self.argument(0x3fff - 70, 72);
                Call::Binary(Binary::Yl2xp1, x, self.register())
            }
            _ => {
                let (x, mut y) = (self.register(), self.register());
                if self.below(2) == 0 {
                    let e = x.exponent.wrapping_add(self.below(12)).wrapping_sub(6);
                    y.exponent = y.exponent & 0x8000 | e & 0x7fff;
                }
                Call::Binary(Binary::Patan, x, y)
            }
        }
    }
}

const ARITH: [Arith; 6] = [
    Arith::Add,
    Arith::Mul,
    Arith::Sub,
    Arith::SubR,
    Arith::Div,
    Arith::DivR,
];

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

/// Telling values, positive.
fn corners() -> Vec<X87Reg> {
    const T: u64 = 1 << 63;
    let list: [(u64, u64); 32] = [
        (0, 0),
        (0, 1),
        (0, T >> 1),
        (0, T - 1),
        (0, T),
        (0, !0),
        (1, T),
        (1, !0),
        (2, T),
        (65, T | 1),
        (0x1fff, T | 3),
        (0x3f80, !0),
        (0x3fbf, T),
        (0x3ffe, T),
        (0x3ffe, !0),
        (0x3fff, T),
        (0x3fff, T | 1),
        (0x3fff, T | T >> 1),
        (0x3fff, T | 0x400),
        (0x3fff, T | 1 << 39),
        (0x4000, 0xc90f_daa2_2168_c235),
        (0x401d, 0xffff_ffff << 32),
        (0x403e, T),
        (0x407f, T),
        (0x6000, T | 5),
        (0x7ffe, T),
        (0x7ffe, !0),
        (0x7fff, T),
        (0x7fff, T | 1),
        (0x7fff, T | T >> 1),
        (0x7fff, !0),
        (0x5000, T >> 1),
    ];
    let sign = |s: u64| {
        list.map(|(e, mantissa)| X87Reg {
            mantissa,
            exponent: e | s,
        })
    };
    [sign(0), sign(0x8000)].concat()
}

/// Every precision and rounding control, masked and not.
fn controls() -> Vec<u16> {
    let mut all = Vec::new();
    for precision in [0, 0x200, 0x300] {
        for rounding in 0..4 {
            for masks in [0x38, 0] {
                all.push(0x47 | masks | precision | rounding << 10);
            }
        }
    }
    all
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
