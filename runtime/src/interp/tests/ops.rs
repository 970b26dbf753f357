//! Each op alone, on random operands: integers against the literal model, floats and vectors
//! against the host's SSE where there is one.

use super::model::integer;
use super::random::Rng;
use super::*;
use metaphrase_ir::{FloatCc, IntCc, Op, Reg, Round, Shape, Type, Value};

const INTS: [Type; 4] = [Type::I8, Type::I16, Type::I32, Type::I64];

/// Runs one op on constants or on registers; the result's low half.
fn scalar(op: Op, ty: Type, args: &[u64], constants: bool) -> u64 {
    let (guest, exit) = run_built(
        1,
        |g| {
            for (n, &a) in args.iter().enumerate() {
                g.state.gpr[n] = a;
            }
        },
        |b| {
            let values: Vec<Value> = (0..args.len())
                .map(|n| {
                    if constants && n > 0 {
                        return b.iconst(ty, args[n]);
                    }
                    let r = b.getreg(Reg::gpr(n));
                    b.trunc(ty, r)
                })
                .collect();
            let r = b.ins(op, ty, &values, 0, 0);
            let r = b.zext(Type::I64, r);
            b.setreg(Reg::R9, r);
            b.exit_jump(0);
        },
    );
    assert_eq!(exit.reason, ExitReason::Jump);
    guest.state.gpr[9]
}

#[test]
fn integer_ops() {
    use Op::*;
    let binary = [
        Add, Sub, Mul, UMulHi, SMulHi, UDiv, SDiv, URem, SRem, And, Or, Xor, Shl, LShr, AShr, RotL,
        RotR,
    ];
    let unary = [Neg, Not, Bswap, Clz, Ctz, Popcnt];
    let mut rng = Rng::new(1);
    for ty in INTS {
        for op in binary.into_iter().chain(unary) {
            for round in 0..24 {
                let (a, mut b) = (rng.edge(), rng.edge());
                if matches!(op, UDiv | SDiv | URem | SRem) {
                    // Neither 0 nor -1.
                    b = b & (ty.mask() >> 1) | 2;
                }
                let args = if unary.contains(&op) {
                    vec![a]
                } else {
                    vec![a, b]
                };
                let got = scalar(op, ty, &args, round % 2 == 0);
                assert_eq!(got, integer(op, ty, a, b), "{op}.{ty} {a:#x} {b:#x}");
            }
        }
    }
}

#[test]
fn division_that_must_not_happen_does_not_panic() {
    for ty in INTS {
        for op in [Op::UDiv, Op::SDiv, Op::URem, Op::SRem] {
            scalar(op, ty, &[1 << (ty.bits() - 1), 0], false);
            scalar(op, ty, &[1 << (ty.bits() - 1), u64::MAX], false);
        }
    }
}

#[test]
fn comparisons() {
    let mut rng = Rng::new(2);
    for ty in INTS {
        for &cc in IntCc::ALL {
            for round in 0..20 {
                let (x, y) = (rng.edge(), if round % 4 == 0 { 5 } else { rng.edge() });
                let (guest, _) = run_built(
                    1,
                    |g| (g.state.gpr[0], g.state.gpr[1]) = (x, y),
                    |b| {
                        let (a, c) = (b.getreg(Reg::Rax), b.getreg(Reg::Rcx));
                        let (a, c) = (b.trunc(ty, a), b.trunc(ty, c));
                        let k = b.iconst(ty, y);
                        let by_value = b.icmp(cc, a, c);
                        let by_const = b.icmp(cc, a, k);
                        let swapped = b.icmp(cc.swap(), k, a);
                        for (reg, v) in [
                            (Reg::R8, by_value),
                            (Reg::R9, by_const),
                            (Reg::R10, swapped),
                        ] {
                            let v = b.zext(Type::I64, v);
                            b.setreg(reg, v);
                        }
                        b.exit_jumpif(by_const, 1, 2);
                    },
                );
                let holds = u64::from(cc.holds(ty, x, y));
                assert_eq!(
                    guest.state.gpr[8..11],
                    [holds; 3],
                    "{cc} {ty} {x:#x} {y:#x}"
                );
                assert_eq!(guest.state.rip, 0x40_0002 - holds);
            }
        }
    }
}

/// Runs one op whose operands are the low parts of XMM0 to XMM2; its result as a vector.
fn vector(op: Op, ty: Type, shape: u64, aux: u32, from: &[Type], args: &[u128]) -> u128 {
    let (guest, exit) = run_built(
        1,
        |g| g.state.xmm[..args.len()].copy_from_slice(args),
        |b| {
            let values: Vec<Value> = from
                .iter()
                .enumerate()
                .map(|(n, &ty)| {
                    let x = b.getreg(Reg::xmm(n));
                    let lane = |b: &mut Builder<'_>, shape| b.vget(shape, x, 0);
                    match ty {
                        Type::V128 => x,
                        Type::I8 => lane(b, Shape::I8x16),
                        Type::I16 => lane(b, Shape::I16x8),
                        Type::I32 => lane(b, Shape::I32x4),
                        Type::I64 => lane(b, Shape::I64x2),
                        Type::F32 => lane(b, Shape::F32x4),
                        Type::F64 => lane(b, Shape::F64x2),
                    }
                })
                .collect();
            let r = b.ins(op, ty, &values, shape, aux);
            let out = match b.ty(r) {
                Type::V128 => r,
                Type::I8 | Type::I16 => {
                    let wide = b.zext(Type::I32, r);
                    b.ins(Op::VFromInt, Type::I32, &[wide], 0, 0)
                }
                of => b.ins(Op::VFromInt, of, &[r], 0, 0),
            };
            b.setreg(Reg::Xmm9, out);
            b.exit_jump(0);
        },
    );
    assert_eq!(exit.reason, ExitReason::Jump, "{op}");
    guest.state.xmm[9]
}

fn pair(op: Op, shape: Shape, a: u128, b: u128) -> u128 {
    vector(op, Type::V128, shape as u64, 0, &[Type::V128; 2], &[a, b])
}

/// A vector whose lanes are often edge cases, of integers and of floats.
fn lanes(rng: &mut Rng) -> u128 {
    const F32: [u32; 12] = [
        0,
        0x8000_0000,
        0x3f80_0000,
        0xbfc0_0000,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_1234,
        0xff81_2345,
        0x4f00_0000,
        0xcf00_0000,
        0x4eff_ffff,
        1,
    ];
    const F64: [u64; 10] = [
        0,
        1 << 63,
        0x3ff8_0000_0000_0000,
        0xc004_0000_0000_0000,
        0x7ff0_0000_0000_0000,
        0x7ff8_0000_0000_1234,
        0xfff0_0000_2000_0001,
        0x41e0_0000_0000_0000,
        0xc1e0_0000_0000_0000,
        0x47ef_ffff_e000_0000,
    ];
    let mut half = || match rng.below(4) {
        0 => u64::from(rng.pick(&F32)) << 32 | u64::from(rng.pick(&F32)),
        1 => rng.pick(&F64),
        2 => (rng.below(4000) as f64 / 8.0 - 250.0).to_bits(),
        _ => {
            let f = |rng: &mut Rng| (rng.below(4000) as f32 / 8.0 - 250.0).to_bits();
            u64::from(f(rng)) << 32 | u64::from(f(rng))
        }
    };
    let low = half();
    u128::from(half()) << 64 | u128::from(low)
}

#[test]
fn bitwise_vector_ops() {
    let mut rng = Rng::new(3);
    for _ in 0..50 {
        let (a, b, c) = (lanes(&mut rng), lanes(&mut rng), lanes(&mut rng));
        assert_eq!(pair(Op::VAnd, Shape::I8x16, a, b), a & b);
        assert_eq!(pair(Op::VOr, Shape::I8x16, a, b), a | b);
        assert_eq!(pair(Op::VXor, Shape::I8x16, a, b), a ^ b);
        assert_eq!(pair(Op::VAndNot, Shape::I8x16, a, b), !a & b);
        let select = vector(Op::VSelect, Type::V128, 0, 0, &[Type::V128; 3], &[a, b, c]);
        assert_eq!(select, a & b | !a & c);
    }
}

#[test]
fn shuffles_take_bytes_of_both() {
    let (a, b) = (0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100u128, u128::MAX);
    let (guest, _) = run_built(
        1,
        |g| (g.state.xmm[0], g.state.xmm[1]) = (a, b),
        |x| {
            let (v, w) = (x.getreg(Reg::Xmm0), x.getreg(Reg::Xmm1));
            let r = x.vshuffle(v, w, 0x80ff_1f10_0f00_0102_0304_0506_0708_090a);
            x.setreg(Reg::Xmm9, r);
            x.exit_jump(0);
        },
    );
    assert_eq!(
        guest.state.xmm[9],
        0x0000_ffff_0f00_0102_0304_0506_0708_090a
    );
}

/// Ops that are one SSE2 instruction, against that instruction.
#[cfg(target_arch = "x86_64")]
mod host {
    use super::*;
    use std::arch::asm;

    macro_rules! sse {
        ($text:literal, $a:expr, $b:expr) => {{
            let (a, b): (u128, u128) = ($a, $b);
            let mut out = [a, b];
            // SAFETY: the instruction only works on the two registers.
            unsafe {
                asm!(
                    "movdqu xmm0, [{p}]",
                    "movdqu xmm1, [{p} + 16]",
                    concat!($text, " xmm0, xmm1"),
                    "movdqu [{p}], xmm0",
                    p = in(reg) out.as_mut_ptr(),
                    out("xmm0") _, out("xmm1") _,
                );
            }
            out[0]
        }};
    }

    macro_rules! rows {
        ($rng:ident, $($op:ident $shape:ident $text:literal;)*) => {$(
            for _ in 0..200 {
                let (a, b) = (lanes(&mut $rng), lanes(&mut $rng));
                let got = pair(Op::$op, Shape::$shape, a, b);
                assert_eq!(got, sse!($text, a, b), "{} {a:#034x} {b:#034x}", $text);
            }
        )*};
    }

    #[test]
    fn lane_ops() {
        let mut rng = Rng::new(4);
        rows! { rng,
            VAdd I8x16 "paddb"; VAdd I16x8 "paddw"; VAdd I32x4 "paddd"; VAdd I64x2 "paddq";
            VSub I8x16 "psubb"; VSub I16x8 "psubw"; VSub I32x4 "psubd"; VSub I64x2 "psubq";
            VAdd F32x4 "addps"; VAdd F64x2 "addpd"; VSub F32x4 "subps"; VSub F64x2 "subpd";
            VMul I16x8 "pmullw"; VMul F32x4 "mulps"; VMul F64x2 "mulpd";
            VDiv F32x4 "divps"; VDiv F64x2 "divpd";
            VMinS I16x8 "pminsw"; VMaxS I16x8 "pmaxsw"; VMinU I8x16 "pminub";
            VMaxU I8x16 "pmaxub"; VMinS F32x4 "minps"; VMinS F64x2 "minpd";
            VMaxS F32x4 "maxps"; VMaxS F64x2 "maxpd"; VAvgU I8x16 "pavgb"; VAvgU I16x8 "pavgw";
            VAddSatS I8x16 "paddsb"; VAddSatS I16x8 "paddsw"; VAddSatU I8x16 "paddusb";
            VAddSatU I16x8 "paddusw"; VSubSatS I8x16 "psubsb"; VSubSatS I16x8 "psubsw";
            VSubSatU I8x16 "psubusb"; VSubSatU I16x8 "psubusw";
            VMulHiS I16x8 "pmulhw"; VMulHiU I16x8 "pmulhuw"; VMulWideU I64x2 "pmuludq";
            VMAddWD I16x8 "pmaddwd"; VSad I8x16 "psadbw";
            VPackSS I16x8 "packsswb"; VPackSS I32x4 "packssdw"; VPackUS I16x8 "packuswb";
        }
    }

    #[test]
    fn one_operand_ops() {
        let mut rng = Rng::new(5);
        macro_rules! one {
            ($($op:ident $shape:ident $text:literal;)*) => {$(
                for _ in 0..200 {
                    let a = lanes(&mut rng);
                    let shape = Shape::$shape as u64;
                    let got = vector(Op::$op, Type::V128, shape, 0, &[Type::V128], &[a]);
                    assert_eq!(got, sse!($text, 0, a), "{} {a:#034x}", $text);
                }
            )*};
        }
        one! {
            VSqrt F32x4 "sqrtps"; VSqrt F64x2 "sqrtpd";
            VIToF F32x4 "cvtdq2ps"; VIToF F64x2 "cvtdq2pd";
            VFToI F32x4 "cvttps2dq"; VFToI F64x2 "cvttpd2dq";
            VFCvt F64x2 "cvtps2pd"; VFCvt F32x4 "cvtpd2ps";
        }
    }

    #[test]
    fn shifts_by_a_scalar() {
        let mut rng = Rng::new(6);
        for count in (0..70).chain([255, 256, 1 << 32, u64::MAX]) {
            macro_rules! shift {
                ($($op:ident $shape:ident $text:literal;)*) => {$(
                    let (a, shape) = (lanes(&mut rng), Shape::$shape as u64);
                    let b = u128::from(count);
                    let from = [Type::V128, Type::I64];
                    let got = vector(Op::$op, Type::V128, shape, 0, &from, &[a, b]);
                    assert_eq!(got, sse!($text, a, b), "{} {a:#034x} {count}", $text);
                )*};
            }
            shift! {
                VShl I16x8 "psllw"; VShl I32x4 "pslld"; VShl I64x2 "psllq";
                VLShr I16x8 "psrlw"; VLShr I32x4 "psrld"; VLShr I64x2 "psrlq";
                VAShr I16x8 "psraw"; VAShr I32x4 "psrad";
            }
        }
    }

    #[test]
    fn scalar_floats() {
        let mut rng = Rng::new(7);
        macro_rules! two {
            ($($op:ident $ty:ident $text:literal;)*) => {$(
                for _ in 0..200 {
                    let (a, b) = (lanes(&mut rng), lanes(&mut rng));
                    let mask = u128::from(u64::MAX >> (64 - Type::$ty.bits()));
                    let got = vector(Op::$op, Type::$ty, 0, 0, &[Type::$ty; 2], &[a, b]);
                    assert_eq!(got, sse!($text, a, b) & mask, "{} {a:#x} {b:#x}", $text);
                }
            )*};
        }
        two! {
            FAdd F32 "addss"; FAdd F64 "addsd"; FSub F32 "subss"; FSub F64 "subsd";
            FMul F32 "mulss"; FMul F64 "mulsd"; FDiv F32 "divss"; FDiv F64 "divsd";
            FMin F32 "minss"; FMin F64 "minsd"; FMax F32 "maxss"; FMax F64 "maxsd";
        }
        for _ in 0..300 {
            let a = lanes(&mut rng);
            let f = |op, ty: Type, from| vector(op, ty, Round::Trunc as u64, 0, &[from], &[a]);
            let (m32, m64) = (u128::from(u32::MAX), u128::from(u64::MAX));
            assert_eq!(
                f(Op::FSqrt, Type::F32, Type::F32),
                sse!("sqrtss", 0, a) & m32
            );
            assert_eq!(
                f(Op::FSqrt, Type::F64, Type::F64),
                sse!("sqrtsd", 0, a) & m64
            );
            assert_eq!(
                f(Op::FCvt, Type::F64, Type::F32),
                sse!("cvtss2sd", 0, a) & m64
            );
            assert_eq!(
                f(Op::FCvt, Type::F32, Type::F64),
                sse!("cvtsd2ss", 0, a) & m32
            );
            assert_eq!(
                f(Op::FToI, Type::I32, Type::F32),
                sse!("cvttps2dq", 0, a) & m32
            );
            assert_eq!(
                f(Op::FToI, Type::I32, Type::F64),
                sse!("cvttpd2dq", 0, a) & m32
            );
            assert_eq!(
                f(Op::IToF, Type::F32, Type::I32),
                sse!("cvtdq2ps", 0, a) & m32
            );
            assert_eq!(
                f(Op::IToF, Type::F64, Type::I32),
                sse!("cvtdq2pd", 0, a) & m64
            );
        }
    }

    #[test]
    fn float_comparisons() {
        let mut rng = Rng::new(8);
        for _ in 0..200 {
            let (a, b) = (lanes(&mut rng), lanes(&mut rng));
            macro_rules! compare {
                ($($cc:ident $ps:literal $pd:literal;)*) => {$(
                    let cc = FloatCc::$cc;
                    let v = |shape: Shape| {
                        let from = [Type::V128; 2];
                        vector(Op::VFCmp, Type::V128, shape as u64, cc as u32, &from, &[a, b])
                    };
                    let want = sse!($ps, a, b);
                    assert_eq!(v(Shape::F32x4), want, "{} {a:#x} {b:#x}", $ps);
                    let one = vector(Op::FCmp, Type::F32, cc as u64, 0, &[Type::F32; 2], &[a, b]);
                    assert_eq!(one, want & 1);
                    let want = sse!($pd, a, b);
                    assert_eq!(v(Shape::F64x2), want, "{} {a:#x} {b:#x}", $pd);
                    let one = vector(Op::FCmp, Type::F64, cc as u64, 0, &[Type::F64; 2], &[a, b]);
                    assert_eq!(one, want & 1);
                )*};
            }
            compare! {
                Eq "cmpeqps" "cmpeqpd"; Lt "cmpltps" "cmpltpd"; Le "cmpleps" "cmplepd";
                Uno "cmpunordps" "cmpunordpd"; Ne "cmpneqps" "cmpneqpd";
                Nlt "cmpnltps" "cmpnltpd"; Nle "cmpnleps" "cmpnlepd"; Ord "cmpordps" "cmpordpd";
            }
        }
    }
}

#[test]
fn mxcsr_rounding_governs_conversions() {
    let halves = [
        (2.5f64, [2, 2, 3, 2]),
        (-2.5, [-2, -3, -2, -2]),
        (1.75, [2, 1, 2, 1]),
    ];
    for (x, want) in halves {
        for (rc, want) in want.into_iter().enumerate() {
            let (guest, _) = run_built(
                1,
                |g| {
                    g.state.xmm[0] = x.to_bits().into();
                    g.state.mxcsr = 0x1f80 | (rc as u32) << 13;
                },
                |b| {
                    let v = b.getreg(Reg::Xmm0);
                    let v = b.vget(Shape::F64x2, v, 0);
                    let n = b.ftoi(Type::I64, v, Round::Mxcsr);
                    b.setreg(Reg::Rax, n);
                    b.exit_jump(0);
                },
            );
            assert_eq!(guest.state.gpr[0] as i64, want, "{x} with RC {rc}");
        }
    }
}

#[test]
fn lanes_in_and_out() {
    let mut rng = Rng::new(9);
    for shape in Shape::ALL {
        let (ty, bits) = (shape.lane(), shape.lane().bits());
        let a = lanes(&mut rng);
        let low = u128::from(u64::MAX >> (64 - bits));
        let all = (0..shape.lanes()).fold(0, |r, n| r | (a & low) << (n * bits));
        assert_eq!(
            vector(Op::VSplat, ty, shape as u64, 0, &[ty], &[a]),
            all,
            "{shape}"
        );
        let signs = (0..shape.lanes()).fold(0, |r, n| r | (a >> ((n + 1) * bits - 1) & 1) << n);
        let mask = vector(Op::VMask, Type::V128, shape as u64, 0, &[Type::V128], &[a]);
        assert_eq!(mask, signs, "{shape}");
        for lane in 0..shape.lanes() {
            let b = lanes(&mut rng);
            let want = a & !(low << (lane * bits)) | (b & low) << (lane * bits);
            let from = [Type::V128, ty];
            assert_eq!(
                vector(Op::VSet, ty, shape as u64, lane, &from, &[a, b]),
                want
            );
            let got = vector(Op::VGet, ty, shape as u64, lane, &[Type::V128], &[a]);
            assert_eq!(got, a >> (lane * bits) & low);
        }
    }
    for (shape, cc) in [(Shape::I16x8, IntCc::Sgt), (Shape::I8x16, IntCc::Eq)] {
        let (a, b) = (lanes(&mut rng), lanes(&mut rng));
        let bits = shape.lane().bits();
        let low = u128::from(shape.lane().mask());
        let want = (0..shape.lanes()).fold(0, |r, n| {
            let lane = |v: u128| (v >> (n * bits) & low) as u64;
            let holds = cc.holds(shape.lane(), lane(a), lane(b));
            r | if holds { low << (n * bits) } else { 0 }
        });
        let from = [Type::V128; 2];
        assert_eq!(
            vector(
                Op::VICmp,
                Type::V128,
                shape as u64,
                cc as u32,
                &from,
                &[a, b]
            ),
            want
        );
    }
}
