//! Every vector op on random operands.

mod machine;

use machine::Random;
use machine::cases::{
    INT_SHAPES, build_lanes, f32s, f64s, float_holds, lane, map2, sign, to_int, umap2, vector,
};
use metaphrase_ir::{Builder, FloatCc, IntCc, Op, Round, Shape, Type, Value};

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
        |x, _| map2(s, x, |a, b| (a * b) >> 16),
    );
    vector(
        "vmulhiu",
        s,
        |b, v, _| b.vmulhiu(s, v[0], v[1]),
        |x, _| umap2(s, x, |a, b| (a * b) >> 16),
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
                2 if r.is_multiple_of(3) => 0x80 | r as u8,
                3 if r.is_multiple_of(3) => 0xff,
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
