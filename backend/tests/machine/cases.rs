//! Running one op on random operands and comparing with a literal evaluation in Rust.
//!
//! A case is one op between registers: operands come from the guest state, the result goes back to
//! it. Random operands are mixed with the values at which ops go wrong.

use super::{Machine, Random, region};
use metaphrase_backend::{OptLevel, Options};
use metaphrase_ir::{Builder, FloatCc, Reg, Round, Shape, Type, Value};

pub const ROUNDS: usize = 200;

pub const SPECIAL: [u64; 14] = [
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

pub const FLOATS: [f64; 17] = [
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
    pub fn int(&mut self) -> u64 {
        let n = self.next();
        if n.is_multiple_of(3) {
            SPECIAL[(n >> 8) as usize % SPECIAL.len()]
        } else {
            self.next() >> (n >> 16 & 63)
        }
    }

    pub fn f64(&mut self) -> f64 {
        let n = self.next();
        if n.is_multiple_of(2) {
            FLOATS[(n >> 8) as usize % FLOATS.len()]
        } else {
            (self.next() as i64 as f64) / (1u64 << (n >> 16 & 63)) as f64
        }
    }

    /// Lanes that suit a shape.
    pub fn vector(&mut self, shape: Shape) -> u128 {
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

pub fn machines() -> Vec<Machine> {
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
pub fn operand(b: &mut Builder<'_>, ty: Type, n: usize) -> Value {
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
pub fn result(b: &mut Builder<'_>, v: Value) {
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
pub fn scalar(
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

pub fn ints(random: &mut Random) -> [u64; 3] {
    std::array::from_fn(|_| random.int())
}

pub fn sign(ty: Type, x: u64) -> i64 {
    let shift = 64 - ty.bits();
    ((x << shift) as i64) >> shift
}

pub fn f32s(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

pub fn f64s(x: u64) -> f64 {
    f64::from_bits(x)
}

pub fn float_holds(cc: FloatCc, a: f64, b: f64) -> bool {
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
pub fn to_int(ty: Type, round: Round, x: f64) -> u64 {
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

/// Checks vector cases: two or three vectors and a scalar in R8.
pub fn vector(
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

pub fn lane(shape: Shape, v: u128, n: u32) -> u64 {
    (v >> (n * shape.lane().bits())) as u64 & shape.lane().mask()
}

pub fn build_lanes(shape: Shape, f: impl Fn(u32) -> u64) -> u128 {
    let bits = shape.lane().bits();
    (0..shape.lanes()).fold(0, |v, n| {
        v | u128::from(f(n) & shape.lane().mask()) << (n * bits)
    })
}

/// Applies a function of signed lanes.
pub fn map2(shape: Shape, x: [u128; 3], f: impl Fn(i64, i64) -> i64) -> u128 {
    let ty = shape.lane();
    build_lanes(shape, |n| {
        f(
            sign(ty, lane(shape, x[0], n)),
            sign(ty, lane(shape, x[1], n)),
        ) as u64
    })
}

/// Applies a function of unsigned lanes.
pub fn umap2(shape: Shape, x: [u128; 3], f: impl Fn(u64, u64) -> u64) -> u128 {
    build_lanes(shape, |n| f(lane(shape, x[0], n), lane(shape, x[1], n)))
}

pub const INT_SHAPES: [Shape; 4] = [Shape::I8x16, Shape::I16x8, Shape::I32x4, Shape::I64x2];
