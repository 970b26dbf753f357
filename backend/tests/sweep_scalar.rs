//! Every scalar op on random operands.

mod machine;

use machine::Random;
use machine::cases::{f32s, f64s, float_holds, ints, scalar, sign, to_int};
use metaphrase_ir::{Builder, FloatCc, IntCc, Op, Round, Type, Value};

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
            Op::UMulHi => ((u128::from(a) * u128::from(b)) >> bits) as u64,
            Op::SMulHi => ((i128::from(sa) * i128::from(sb)) >> bits) as u64,
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
