//! Every op on random operands, against a literal evaluation in Rust.
//!
//! A case is one op between registers: operands come from the guest state, the result goes back to
//! it. Random operands are mixed with the values at which ops go wrong.

mod machine;

use machine::{Machine, Random, region};
use metaphrase_backend::{OptLevel, Options};
use metaphrase_ir::{Builder, FloatCc, IntCc, Op, Reg, Round, Shape, Type, Value};

const ROUNDS: usize = 200;

const SPECIAL: [u64; 14] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

const FLOATS: [f64; 17] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1.5,
    2.5,
    -2.5,
    2_147_483_647.0,
    2_147_483_648.0,
    -2_147_483_648.0,
    -2_147_483_649.0,
    9.223_372_036_854_775e18,
    1e30,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];

impl Random {
    fn int(&mut self) -> u64 {
        let n = self.next();
        if n % 3 == 0 {
            SPECIAL[(n >> 8) as usize % SPECIAL.len()]
        } else {
            self.next() >> (n >> 16 & 63)
        }
    }

    fn f64(&mut self) -> f64 {
        let n = self.next();
        if n % 2 == 0 {
            FLOATS[(n >> 8) as usize % FLOATS.len()]
        } else {
            (self.next() as i64 as f64) / (1u64 << (n >> 16 & 63)) as f64
        }
    }

    /// Lanes that suit a shape.
    fn vector(&mut self, shape: Shape) -> u128 {
        match shape {
            Shape::F32x4 => (0..4).fold(0, |v, n| {
                v | u128::from((self.f64() as f32).to_bits()) << (32 * n)
            }),
            Shape::F64x2 => (0..2).fold(0, |v, n| v | u128::from(self.f64().to_bits()) << (64 * n)),
            _ => {
                let bits = shape.lane().bits();
                (0..128 / bits).fold(0, |v, n| {
                    v | u128::from(self.int() & shape.lane().mask()) << (bits * n)
                })
            }
        }
    }
}

fn machines() -> Vec<Machine> {
    [OptLevel::None, OptLevel::Speed]
        .into_iter()
        .map(|opt| {
            let options = Options {
                opt,
                ..Options::default()
            };
            Machine::with(options, 1 << 20)
        })
        .collect()
}

/// Reads operand `n`: integers and floats from RAX…, vectors from XMM0….
fn operand(b: &mut Builder<'_>, ty: Type, n: usize) -> Value {
    match ty {
        Type::V128 => b.getreg(Reg::xmm(n)),
        Type::F32 => {
            let v = b.getreg(Reg::gpr(n));
            let v = b.trunc(Type::I32, v);
            b.bitcast(ty, v)
        }
        Type::F64 => {
            let v = b.getreg(Reg::gpr(n));
            b.bitcast(ty, v)
        }
        _ => {
            let v = b.getreg(Reg::gpr(n));
            b.trunc(ty, v)
        }
    }
}

/// Writes the result to R15 or XMM15.
fn result(b: &mut Builder<'_>, v: Value) {
    match b.ty(v) {
        Type::V128 => b.setreg(Reg::Xmm15, v),
        Type::F32 => {
            let v = b.bitcast(Type::I32, v);
            let v = b.zext(Type::I64, v);
            b.setreg(Reg::R15, v);
        }
        Type::F64 => {
            let v = b.bitcast(Type::I64, v);
            b.setreg(Reg::R15, v);
        }
        _ => {
            let v = b.zext(Type::I64, v);
            b.setreg(Reg::R15, v);
        }
    }
}

/// Checks scalar cases: `build` makes the op from operands of types `types`.
fn scalar(
    name: &str,
    types: &[Type],
    build: impl Fn(&mut Builder<'_>, &[Value]) -> Value,
    mut inputs: impl FnMut(&mut Random) -> [u64; 3],
    expect: impl Fn([u64; 3]) -> Option<u64>,
) {
    for mut m in machines() {
        let r = region(1, |b| {
            let args: Vec<Value> = types
                .iter()
                .enumerate()
                .map(|(n, &ty)| operand(b, ty, n))
                .collect();
            let v = build(b, &args);
            result(b, v);
            b.exit_jump(4);
        });
        let (code, _) = m.publish(&r);
        let mut random = Random(7);
        for _ in 0..ROUNDS {
            let x = inputs(&mut random);
            let Some(expected) = expect(x) else {
                continue;
            };
            m.state.gpr[..3].copy_from_slice(&x);
            m.enter(code);
            let opt = m.compiler.options().opt;
            assert_eq!(
                m.state.gpr[15], expected,
                "{name} {x:x?} {opt:?}: {:#x} instead of {expected:#x}",
                m.state.gpr[15]
            );
        }
    }
}

fn ints(random: &mut Random) -> [u64; 3] {
    std::array::from_fn(|_| random.int())
}

fn sign(ty: Type, x: u64) -> i64 {
    let shift = 64 - ty.bits();
    ((x << shift) as i64) >> shift
}

fn int_reference(op: Op, ty: Type, a: u64, b: u64) -> Option<u64> {
    let m = ty.mask();
    let (a, b) = (a & m, b & m);
    let (sa, sb) = (sign(ty, a), sign(ty, b));
    let bits = ty.bits();
    let count = (b % u64::from(bits)) as u32;
    Some(
        m & match op {
            Op::Add => a.wrapping_add(b),
            Op::Sub => a.wrapping_sub(b),
            Op::Mul => a.wrapping_mul(b),
            Op::UMulHi => (u128::from(a) * u128::from(b) >> bits) as u64,
            Op::SMulHi => (i128::from(sa) * i128::from(sb) >> bits) as u64,
            Op::UDiv => a.checked_div(b)?,
            Op::URem => a.checked_rem(b)?,
            Op::SDiv | Op::SRem => {
                let q = sa.checked_div(sb)?;
                if sign(ty, q as u64) != q {
                    return None;
                }
                if op == Op::SDiv {
                    q as u64
                } else {
                    sa.wrapping_rem(sb) as u64
                }
            }
            Op::And => a & b,
            Op::Or => a | b,
            Op::Xor => a ^ b,
            Op::Shl => a << count,
            Op::LShr => a >> count,
            Op::AShr => (sa >> count) as u64,
            Op::RotL | Op::RotR => {
                let left = if op == Op::RotL {
                    count
                } else {
                    (bits - count) % bits
                };
                if left == 0 {
                    a
                } else {
                    a << left | a >> (bits - left)
                }
            }
            Op::Neg => a.wrapping_neg(),
            Op::Not => !a,
            Op::Bswap => a.swap_bytes() >> (64 - bits),
            Op::Clz => u64::from(a.leading_zeros() - (64 - bits)),
            Op::Ctz => u64::from(a.trailing_zeros().min(bits)),
            Op::Popcnt => u64::from(a.count_ones()),
            _ => unreachable!(),
        },
    )
}

const INTS: [Type; 4] = [Type::I8, Type::I16, Type::I32, Type::I64];

#[test]
fn integer_arithmetic() {
    use Op::*;
    for ty in INTS {
        for op in [
            Add, Sub, Mul, UMulHi, SMulHi, UDiv, SDiv, URem, SRem, And, Or, Xor, Shl, LShr, AShr,
            RotL, RotR,
        ] {
            scalar(
                &format!("{op}.{ty}"),
                &[ty, ty],
                |b, v| b.ins(op, ty, v, 0, 0),
                ints,
                |[a, b, _]| int_reference(op, ty, a, b),
            );
        }
        for op in [Neg, Not, Bswap, Clz, Ctz, Popcnt] {
            scalar(
                &format!("{op}.{ty}"),
                &[ty],
                |b, v| b.ins(op, ty, v, 0, 0),
                ints,
                |[a, ..]| int_reference(op, ty, a, 0),
            );
        }
    }
}

#[test]
fn comparisons_and_selects() {
    for ty in INTS {
        for &cc in IntCc::ALL {
            scalar(
                &format!("icmp.{ty} {cc}"),
                &[ty, ty],
                |b, v| b.icmp(cc, v[0], v[1]),
                |r| {
                    let [a, b, c] = ints(r);
                    if c % 4 == 0 { [a, a, c] } else { [a, b, c] }
                },
                |[a, b, _]| Some(u64::from(cc.holds(ty, a, b))),
            );
        }
        scalar(
            &format!("select.{ty}"),
            &[Type::I8, ty, ty],
            |b, v| b.select(v[0], v[1], v[2]),
            |r| {
                let [a, b, c] = ints(r);
                [a & 0x181, b, c]
            },
            |[a, b, c]| Some(ty.mask() & if a & 0xff != 0 { b } else { c }),
        );
    }
}

#[test]
fn widths_and_parts() {
    for from in INTS {
        for to in INTS {
            if from.bits() < to.bits() {
                scalar(
                    &format!("zext.{to} {from}"),
                    &[from],
                    |b, v| b.zext(to, v[0]),
                    ints,
                    |[a, ..]| Some(a & from.mask()),
                );
                scalar(
                    &format!("sext.{to} {from}"),
                    &[from],
                    |b, v| b.sext(to, v[0]),
                    ints,
                    |[a, ..]| Some(sign(from, a) as u64 & to.mask()),
                );
                scalar(
                    &format!("trunc.{from} {to}"),
                    &[to],
                    |b, v| b.trunc(from, v[0]),
                    ints,
                    |[a, ..]| Some(a & from.mask()),
                );
            }
        }
        for offset in [0, 8, 16, 31, 32, 48, 56] {
            if offset + from.bits() > 64 {
                continue;
            }
            scalar(
                &format!("ext.{from} {offset}"),
                &[Type::I64],
                |b, v| b.ext(from, v[0], offset),
                ints,
                |[a, ..]| Some(a >> offset & from.mask()),
            );
            scalar(
                &format!("ins.{from} {offset}"),
                &[Type::I64, from],
                |b, v| b.insert(v[0], v[1], offset),
                ints,
                |[a, b, _]| Some(a & !(from.mask() << offset) | (b & from.mask()) << offset),
            );
        }
    }
}

fn f32s(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

fn f64s(x: u64) -> f64 {
    f64::from_bits(x)
}

/// NaNs may differ in payload: any quiet NaN is as good as another here.
fn quiet32(x: f32) -> u64 {
    u64::from(if x.is_nan() { f32::NAN } else { x }.to_bits())
}

#[test]
fn floats() {
    use Op::*;
    let canonical = |b: &mut Builder<'_>, v: Value| {
        // Replaces NaNs by one NaN, so that results can be compared as bits.
        let ty = b.ty(v);
        let nan = if ty == Type::F32 {
            u64::from(f32::NAN.to_bits())
        } else {
            f64::NAN.to_bits()
        };
        let is_nan = b.fcmp(FloatCc::Uno, v, v);
        let nan = b.iconst(ty, nan);
        b.select(is_nan, nan, v)
    };
    fn reference<F: PartialOrd>(op: Op, a: F, b: F, calc: [F; 5]) -> F {
        let [add, sub, mul, div, sqrt] = calc;
        match op {
            FAdd => add,
            FSub => sub,
            FMul => mul,
            FDiv => div,
            FSqrt => sqrt,
            FMin if a < b => a,
            FMax if a > b => a,
            _ => b,
        }
    }
    for op in [FAdd, FSub, FMul, FDiv, FSqrt, FMin, FMax] {
        let build = |b: &mut Builder<'_>, v: &[Value]| {
            let args = if op == FSqrt { &v[..1] } else { v };
            let ty = b.ty(v[0]);
            let x = b.ins(op, ty, args, 0, 0);
            canonical(b, x)
        };
        scalar(
            &format!("{op}.f32"),
            &[Type::F32; 2],
            build,
            |r| [0; 3].map(|_| u64::from((r.f64() as f32).to_bits())),
            |[a, b, _]| {
                let (a, b) = (f32s(a), f32s(b));
                let calc = [a + b, a - b, a * b, a / b, a.sqrt()];
                Some(quiet32(reference(op, a, b, calc)))
            },
        );
        scalar(
            &format!("{op}.f64"),
            &[Type::F64; 2],
            build,
            |r| [0; 3].map(|_| r.f64().to_bits()),
            |[a, b, _]| {
                let (a, b) = (f64s(a), f64s(b));
                let calc = [a + b, a - b, a * b, a / b, a.sqrt()];
                let x = reference(op, a, b, calc);
                Some(if x.is_nan() { f64::NAN } else { x }.to_bits())
            },
        );
    }
}

fn float_holds(cc: FloatCc, a: f64, b: f64) -> bool {
    let uno = a.is_nan() || b.is_nan();
    match cc {
        FloatCc::Eq => a == b,
        FloatCc::Lt => a < b,
        FloatCc::Le => a <= b,
        FloatCc::Uno => uno,
        FloatCc::Ne => a != b,
        FloatCc::Nlt => uno || a >= b,
        FloatCc::Nle => uno || a > b,
        FloatCc::Ord => !uno,
    }
}

/// Truncation or rounding to nearest even, with the integer indefinite value.
fn to_int(ty: Type, round: Round, x: f64) -> u64 {
    let x = match round {
        Round::Trunc => x.trunc(),
        Round::Mxcsr => x.round_ties_even(),
    };
    let half = 2f64.powi(ty.bits() as i32 - 1);
    if x >= -half && x < half {
        x as i64 as u64 & ty.mask()
    } else {
        1 << (ty.bits() - 1)
    }
}

#[test]
fn float_comparisons_and_conversions() {
    let f32_inputs = |r: &mut Random| [0; 3].map(|_| u64::from((r.f64() as f32).to_bits()));
    let f64_inputs = |r: &mut Random| [0; 3].map(|_| r.f64().to_bits());
    for &cc in FloatCc::ALL {
        scalar(
            &format!("fcmp.f32 {cc}"),
            &[Type::F32; 2],
            |b, v| b.fcmp(cc, v[0], v[1]),
            f32_inputs,
            |[a, b, _]| {
                let (a, b) = (f64::from(f32s(a)), f64::from(f32s(b)));
                Some(u64::from(float_holds(cc, a, b)))
            },
        );
        scalar(
            &format!("fcmp.f64 {cc}"),
            &[Type::F64; 2],
            |b, v| b.fcmp(cc, v[0], v[1]),
            f64_inputs,
            |[a, b, _]| Some(u64::from(float_holds(cc, f64s(a), f64s(b)))),
        );
    }
    for ty in [Type::I32, Type::I64] {
        for &round in Round::ALL {
            scalar(
                &format!("ftoi.{ty} f32 {round}"),
                &[Type::F32],
                |b, v| b.ftoi(ty, v[0], round),
                f32_inputs,
                |[a, ..]| Some(to_int(ty, round, f64::from(f32s(a)))),
            );
            scalar(
                &format!("ftoi.{ty} f64 {round}"),
                &[Type::F64],
                |b, v| b.ftoi(ty, v[0], round),
                f64_inputs,
                |[a, ..]| Some(to_int(ty, round, f64s(a))),
            );
        }
        scalar(
            &format!("itof.f32 {ty}"),
            &[ty],
            |b, v| b.itof(Type::F32, v[0]),
            ints,
            |[a, ..]| Some(u64::from((sign(ty, a) as f32).to_bits())),
        );
        scalar(
            &format!("itof.f64 {ty}"),
            &[ty],
            |b, v| b.itof(Type::F64, v[0]),
            ints,
            |[a, ..]| Some((sign(ty, a) as f64).to_bits()),
        );
    }
    let known = |x: f64| (!x.is_nan()).then_some(x);
    scalar(
        "fcvt.f64",
        &[Type::F32],
        |b, v| b.fcvt(Type::F64, v[0]),
        f32_inputs,
        |[a, ..]| known(f64::from(f32s(a))).map(f64::to_bits),
    );
    scalar(
        "fcvt.f32",
        &[Type::F64],
        |b, v| b.fcvt(Type::F32, v[0]),
        f64_inputs,
        |[a, ..]| known(f64s(a)).map(|x| u64::from((x as f32).to_bits())),
    );
}

/// Checks vector cases: two or three vectors and a scalar in R8.
fn vector(
    name: &str,
    shape: Shape,
    build: impl Fn(&mut Builder<'_>, [Value; 3], Value) -> Value,
    expect: impl Fn([u128; 3], u64) -> u128,
) {
    for mut m in machines() {
        let mut is_vector = true;
        let r = region(1, |b| {
            let args = std::array::from_fn(|n| b.getreg(Reg::xmm(n)));
            let scalar = b.getreg(Reg::R8);
            let v = build(b, args, scalar);
            is_vector = b.ty(v) == Type::V128;
            result(b, v);
            b.exit_jump(4);
        });
        let (code, _) = m.publish(&r);
        let mut random = Random(11);
        for round in 0..ROUNDS {
            let mut x: [u128; 3] = std::array::from_fn(|_| random.vector(shape));
            if round % 8 == 0 {
                x[1] = x[0];
            }
            let s = match round % 4 {
                0 => random.next(),
                _ => random.next() % 80,
            };
            m.state.xmm[..3].copy_from_slice(&x);
            m.state.gpr[8] = s;
            m.enter(code);
            let got = if is_vector {
                m.state.xmm[15]
            } else {
                u128::from(m.state.gpr[15])
            };
            let expected = expect(x, s);
            assert_eq!(
                got,
                expected,
                "{name} {shape:?} {x:032x?} {s:#x} {:?}: {got:#034x} instead of {expected:#034x}",
                m.compiler.options().opt
            );
        }
    }
}

fn lane(shape: Shape, v: u128, n: u32) -> u64 {
    (v >> (n * shape.lane().bits())) as u64 & shape.lane().mask()
}

fn build_lanes(shape: Shape, f: impl Fn(u32) -> u64) -> u128 {
    let bits = shape.lane().bits();
    (0..shape.lanes()).fold(0, |v, n| {
        v | u128::from(f(n) & shape.lane().mask()) << (n * bits)
    })
}

/// Applies a function of signed lanes.
fn map2(shape: Shape, x: [u128; 3], f: impl Fn(i64, i64) -> i64) -> u128 {
    let ty = shape.lane();
    build_lanes(shape, |n| {
        f(
            sign(ty, lane(shape, x[0], n)),
            sign(ty, lane(shape, x[1], n)),
        ) as u64
    })
}

/// Applies a function of unsigned lanes.
fn umap2(shape: Shape, x: [u128; 3], f: impl Fn(u64, u64) -> u64) -> u128 {
    build_lanes(shape, |n| f(lane(shape, x[0], n), lane(shape, x[1], n)))
}

const INT_SHAPES: [Shape; 4] = [Shape::I8x16, Shape::I16x8, Shape::I32x4, Shape::I64x2];

#[test]
fn vector_bits() {
    let s = Shape::I64x2;
    vector("vand", s, |b, v, _| b.vand(v[0], v[1]), |x, _| x[0] & x[1]);
    vector("vor", s, |b, v, _| b.vor(v[0], v[1]), |x, _| x[0] | x[1]);
    vector("vxor", s, |b, v, _| b.vxor(v[0], v[1]), |x, _| x[0] ^ x[1]);
    vector(
        "vandnot",
        s,
        |b, v, _| b.vandnot(v[0], v[1]),
        |x, _| !x[0] & x[1],
    );
    vector(
        "vselect",
        s,
        |b, v, _| b.vselect(v[0], v[1], v[2]),
        |x, _| x[0] & x[1] | !x[0] & x[2],
    );
    vector(
        "select.v128",
        s,
        |b, v, c| {
            let c = b.trunc(Type::I8, c);
            b.select(c, v[0], v[1])
        },
        |x, c| if c as u8 != 0 { x[0] } else { x[1] },
    );
}

#[test]
fn vector_integer_arithmetic() {
    for s in INT_SHAPES {
        let ty = s.lane();
        let (min, max) = (-1i64 << (ty.bits() - 1), (ty.mask() >> 1) as i64);
        vector(
            "vadd",
            s,
            |b, v, _| b.vadd(s, v[0], v[1]),
            |x, _| map2(s, x, i64::wrapping_add),
        );
        vector(
            "vsub",
            s,
            |b, v, _| b.vsub(s, v[0], v[1]),
            |x, _| map2(s, x, i64::wrapping_sub),
        );
        vector(
            "vmins",
            s,
            |b, v, _| b.vmins(s, v[0], v[1]),
            |x, _| map2(s, x, i64::min),
        );
        vector(
            "vmaxs",
            s,
            |b, v, _| b.vmaxs(s, v[0], v[1]),
            |x, _| map2(s, x, i64::max),
        );
        vector(
            "vminu",
            s,
            |b, v, _| b.vminu(s, v[0], v[1]),
            |x, _| umap2(s, x, u64::min),
        );
        vector(
            "vmaxu",
            s,
            |b, v, _| b.vmaxu(s, v[0], v[1]),
            |x, _| umap2(s, x, u64::max),
        );
        vector(
            "vmask",
            s,
            |b, v, _| b.vmask(s, v[0]),
            |x, _| {
                (0..s.lanes()).fold(0, |m, n| {
                    m | u128::from(lane(s, x[0], n) >> (ty.bits() - 1)) << n
                })
            },
        );
        for &cc in IntCc::ALL {
            vector(
                &format!("vicmp {cc}"),
                s,
                |b, v, _| b.vicmp(s, cc, v[0], v[1]),
                |x, _| umap2(s, x, |a, b| if cc.holds(ty, a, b) { u64::MAX } else { 0 }),
            );
        }
        if matches!(s, Shape::I16x8 | Shape::I32x4) {
            vector(
                "vmul",
                s,
                |b, v, _| b.vmul(s, v[0], v[1]),
                |x, _| map2(s, x, i64::wrapping_mul),
            );
        }
        if matches!(s, Shape::I8x16 | Shape::I16x8) {
            let top = ty.mask();
            vector(
                "vavgu",
                s,
                |b, v, _| b.vavgu(s, v[0], v[1]),
                |x, _| umap2(s, x, |a, b| (a + b + 1) >> 1),
            );
            vector(
                "vaddsats",
                s,
                |b, v, _| b.vaddsats(s, v[0], v[1]),
                |x, _| map2(s, x, |a, b| (a + b).clamp(min, max)),
            );
            vector(
                "vsubsats",
                s,
                |b, v, _| b.vsubsats(s, v[0], v[1]),
                |x, _| map2(s, x, |a, b| (a - b).clamp(min, max)),
            );
            vector(
                "vaddsatu",
                s,
                |b, v, _| b.vaddsatu(s, v[0], v[1]),
                |x, _| umap2(s, x, |a, b| (a + b).min(top)),
            );
            vector(
                "vsubsatu",
                s,
                |b, v, _| b.vsubsatu(s, v[0], v[1]),
                |x, _| umap2(s, x, u64::saturating_sub),
            );
        }
    }
    let s = Shape::I16x8;
    vector(
        "vmulhis",
        s,
        |b, v, _| b.vmulhis(s, v[0], v[1]),
        |x, _| map2(s, x, |a, b| a * b >> 16),
    );
    vector(
        "vmulhiu",
        s,
        |b, v, _| b.vmulhiu(s, v[0], v[1]),
        |x, _| umap2(s, x, |a, b| a * b >> 16),
    );
    vector(
        "vmulwideu",
        s,
        |b, v, _| b.vmulwideu(v[0], v[1]),
        |x, _| {
            umap2(Shape::I64x2, x, |a, b| {
                (a & 0xffff_ffff) * (b & 0xffff_ffff)
            })
        },
    );
    vector(
        "vmaddwd",
        s,
        |b, v, _| b.vmaddwd(v[0], v[1]),
        |x, _| {
            build_lanes(Shape::I32x4, |n| {
                let product =
                    |k| sign(Type::I16, lane(s, x[0], k)) * sign(Type::I16, lane(s, x[1], k));
                (product(2 * n) + product(2 * n + 1)) as u64
            })
        },
    );
    let s = Shape::I8x16;
    vector(
        "vsad",
        s,
        |b, v, _| b.vsad(v[0], v[1]),
        |x, _| {
            build_lanes(Shape::I64x2, |half| {
                (8 * half..8 * half + 8)
                    .map(|n| lane(s, x[0], n).abs_diff(lane(s, x[1], n)))
                    .sum()
            })
        },
    );
}

#[test]
fn vector_shifts() {
    for s in INT_SHAPES {
        let width = u64::from(s.lane().bits());
        let reference = move |op: Op, x: [u128; 3], count: u64| {
            map2(s, x, |a, _| match op {
                Op::VShl if count < width => a << count,
                Op::VLShr if count < width => ((a as u64 & s.lane().mask()) >> count) as i64,
                Op::VAShr => a >> count.min(63),
                _ => 0,
            })
        };
        for op in [Op::VShl, Op::VLShr, Op::VAShr] {
            vector(
                op.info().name,
                s,
                |b, v, c| b.vshift(op, s, v[0], c),
                |x, c| reference(op, x, c),
            );
            for count in [0, 1, 7, 8, 15, 16, 31, 32, 63, 64, u64::MAX] {
                vector(
                    &format!("{op} by {count}"),
                    s,
                    |b, v, _| {
                        let c = b.iconst(Type::I64, count);
                        b.vshift(op, s, v[0], c)
                    },
                    |x, _| reference(op, x, count),
                );
            }
        }
    }
}

#[test]
fn vector_lanes() {
    let mut random = Random(3);
    for n in 0..40 {
        let mask: [u8; 16] = std::array::from_fn(|_| {
            let r = random.next();
            match n % 4 {
                0 => (r % 16) as u8,
                1 => (r % 32) as u8,
                2 if r % 3 == 0 => 0x80 | r as u8,
                3 if r % 3 == 0 => 0xff,
                3 => 16 + (r >> 8 & 15) as u8,
                _ => (r >> 8 & 31) as u8,
            }
        });
        vector(
            &format!("vshuffle {mask:?}"),
            Shape::I8x16,
            |b, v, _| b.vshuffle(v[0], v[1], u128::from_le_bytes(mask)),
            |x, _| {
                let bytes: Vec<u8> = x[..2].iter().flat_map(|v| v.to_le_bytes()).collect();
                u128::from_le_bytes(mask.map(|m| if m < 32 { bytes[m as usize] } else { 0 }))
            },
        );
    }
    for s in [Shape::I16x8, Shape::I32x4] {
        let narrow = if s == Shape::I16x8 {
            Shape::I8x16
        } else {
            Shape::I16x8
        };
        let bits = narrow.lane().bits();
        let pack = move |x: [u128; 3], low: i64, high: i64| {
            build_lanes(narrow, |n| {
                let (v, n) = if n < s.lanes() {
                    (x[0], n)
                } else {
                    (x[1], n - s.lanes())
                };
                sign(s.lane(), lane(s, v, n)).clamp(low, high) as u64
            })
        };
        vector(
            "vpackss",
            s,
            |b, v, _| b.vpackss(s, v[0], v[1]),
            |x, _| pack(x, -1 << (bits - 1), (1 << (bits - 1)) - 1),
        );
        vector(
            "vpackus",
            s,
            |b, v, _| b.vpackus(s, v[0], v[1]),
            |x, _| pack(x, 0, (1 << bits) - 1),
        );
    }
    for s in Shape::ALL {
        let ty = s.lane();
        let scalar_of = move |b: &mut Builder<'_>, c: Value| match ty {
            Type::F32 => {
                let c = b.trunc(Type::I32, c);
                b.bitcast(ty, c)
            }
            Type::F64 => b.bitcast(ty, c),
            _ => b.trunc(ty, c),
        };
        vector(
            "vsplat",
            s,
            |b, _, c| {
                let c = scalar_of(b, c);
                b.ins(Op::VSplat, ty, &[c], s as u64, 0)
            },
            |_, c| build_lanes(s, |_| c),
        );
        for n in 0..s.lanes() {
            vector(
                "vget",
                s,
                |b, v, _| b.vget(s, v[0], n),
                |x, _| u128::from(lane(s, x[0], n)),
            );
            vector(
                "vset",
                s,
                |b, v, c| {
                    let c = scalar_of(b, c);
                    b.vset(s, v[0], n, c)
                },
                |x, c| build_lanes(s, |k| if k == n { c } else { lane(s, x[0], k) }),
            );
        }
        if ty.bits() >= 32 {
            vector(
                "vfromint",
                s,
                |b, _, c| {
                    let c = scalar_of(b, c);
                    b.ins(Op::VFromInt, ty, &[c], 0, 0)
                },
                |_, c| u128::from(c & ty.mask()),
            );
        }
    }
}

#[test]
fn vector_floats() {
    use Op::*;
    let f32_lanes = |x: [u128; 3], f: &dyn Fn(f32, f32) -> u32| {
        build_lanes(Shape::F32x4, |n| {
            let at = |v| f32s(lane(Shape::F32x4, v, n));
            u64::from(f(at(x[0]), at(x[1])))
        })
    };
    let f64_lanes = |x: [u128; 3], f: &dyn Fn(f64, f64) -> u64| {
        build_lanes(Shape::F64x2, |n| {
            let at = |v| f64s(lane(Shape::F64x2, v, n));
            f(at(x[0]), at(x[1]))
        })
    };
    for s in [Shape::F32x4, Shape::F64x2] {
        for op in [VAdd, VSub, VMul, VDiv, VSqrt, VMinS, VMaxS] {
            vector(
                op.info().name,
                s,
                |b, v, _| {
                    let args = if op == VSqrt { &v[..1] } else { &v[..2] };
                    let x = b.ins(op, Type::V128, args, s as u64, 0);
                    // NaNs to zeros: their payloads are not compared.
                    let keep = b.vfcmp(s, FloatCc::Ord, x, x);
                    b.vand(x, keep)
                },
                |x, _| {
                    macro_rules! calc {
                        ($a:ident $b:ident) => {{
                            let r = match op {
                                VAdd => $a + $b,
                                VSub => $a - $b,
                                VMul => $a * $b,
                                VDiv => $a / $b,
                                VSqrt => $a.sqrt(),
                                VMinS if $a < $b => $a,
                                VMaxS if $a > $b => $a,
                                _ => $b,
                            };
                            if r.is_nan() { 0 } else { r.to_bits() }
                        }};
                    }
                    if s == Shape::F32x4 {
                        f32_lanes(x, &|a, b| calc!(a b))
                    } else {
                        f64_lanes(x, &|a, b| calc!(a b))
                    }
                },
            );
        }
        for &cc in FloatCc::ALL {
            vector(
                &format!("vfcmp {cc}"),
                s,
                |b, v, _| b.vfcmp(s, cc, v[0], v[1]),
                |x, _| {
                    if s == Shape::F32x4 {
                        f32_lanes(x, &|a, b| {
                            if float_holds(cc, a.into(), b.into()) {
                                u32::MAX
                            } else {
                                0
                            }
                        })
                    } else {
                        f64_lanes(x, &|a, b| if float_holds(cc, a, b) { u64::MAX } else { 0 })
                    }
                },
            );
        }
    }
}

#[test]
fn vector_conversions() {
    let convert = |op: Op, shape: Shape| {
        move |b: &mut Builder<'_>, v: [Value; 3], _: Value| {
            let x = b.ins(op, Type::V128, &v[..1], shape as u64, 0);
            if op == Op::VFCvt {
                let keep = b.vfcmp(shape, FloatCc::Ord, x, x);
                b.vand(x, keep)
            } else {
                x
            }
        }
    };
    let (i, f, d) = (Shape::I32x4, Shape::F32x4, Shape::F64x2);
    vector("vitof", i, convert(Op::VIToF, f), |x, _| {
        build_lanes(f, |n| u64::from((lane(i, x[0], n) as i32 as f32).to_bits()))
    });
    vector("vitof", i, convert(Op::VIToF, d), |x, _| {
        build_lanes(d, |n| f64::from(lane(i, x[0], n) as i32).to_bits())
    });
    vector("vftoi", f, convert(Op::VFToI, f), |x, _| {
        build_lanes(i, |n| {
            to_int(Type::I32, Round::Trunc, f64::from(f32s(lane(f, x[0], n))))
        })
    });
    vector("vftoi", d, convert(Op::VFToI, d), |x, _| {
        build_lanes(i, |n| match n {
            0 | 1 => to_int(Type::I32, Round::Trunc, f64s(lane(d, x[0], n))),
            _ => 0,
        })
    });
    let bits = |x: f64| if x.is_nan() { 0 } else { x.to_bits() };
    vector("vfcvt", f, convert(Op::VFCvt, d), |x, _| {
        build_lanes(d, |n| bits(f64::from(f32s(lane(f, x[0], n)))))
    });
    vector("vfcvt", d, convert(Op::VFCvt, f), |x, _| {
        build_lanes(f, |n| match n {
            0 | 1 => {
                let y = f64s(lane(d, x[0], n)) as f32;
                if y.is_nan() {
                    0
                } else {
                    u64::from(y.to_bits())
                }
            }
            _ => 0,
        })
    });
}
