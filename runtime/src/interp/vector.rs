//! Handlers of vector ops on integers and bits.
//!
//! Most are closures without captures over whole values, put into one of a few generic handlers.

use super::code::{Context, Handler, Ins, Int, put, rd};
use super::int::{holds, with_cc, with_type};
use metaphrase_ir::{Inst, IntCc, Op, Shape, Type};
use std::ptr::NonNull;

/// A value of a type that has only one: a closure without captures.
fn only<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0) };
    // SAFETY: the type has size 0, and a value of it existed when the handler was made, so reading
    // no bytes gives one.
    unsafe { NonNull::<F>::dangling().read() }
}

unsafe fn vector2<F: Fn(u128, u128) -> u128 + Copy>(
    ip: *const Ins,
    st: *mut u8,
    _: *mut Context<'_>,
) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        put::<u128>(st, i.d, only::<F>()(rd(st, i.a), rd(st, i.b)));
        ip.add(1)
    }
}

/// A vector and an i64 scalar.
unsafe fn vector_scalar<F: Fn(u128, u64) -> u128 + Copy>(
    ip: *const Ins,
    st: *mut u8,
    _: *mut Context<'_>,
) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        put::<u128>(st, i.d, only::<F>()(rd(st, i.a), rd(st, i.b)));
        ip.add(1)
    }
}

/// A scalar from a vector.
unsafe fn from_vector<F: Fn(u128) -> u64 + Copy>(
    ip: *const Ins,
    st: *mut u8,
    _: *mut Context<'_>,
) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        put::<u64>(st, i.d, only::<F>()(rd(st, i.a)));
        ip.add(1)
    }
}

/// A vector from a scalar of type `T`.
unsafe fn to_vector<T: Int, F: Fn(T) -> u128 + Copy>(
    ip: *const Ins,
    st: *mut u8,
    _: *mut Context<'_>,
) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        put::<u128>(st, i.d, only::<F>()(rd(st, i.a)));
        ip.add(1)
    }
}

/// Bitwise: where `a` has ones `b`, else slot `imm`.
unsafe fn vselect(ip: *const Ins, st: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let (a, b, c) = (
            rd::<u128>(st, i.a),
            rd::<u128>(st, i.b),
            rd::<u128>(st, i.imm as u16),
        );
        put::<u128>(st, i.d, a & b | !a & c);
        ip.add(1)
    }
}

/// Bytes of `a` and `b` as constant number `imm` of the region says.
unsafe fn vshuffle(ip: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let program = (*cx).program;
        let mask = program.vconsts.get(i.imm as usize);
        let mask: [u8; 16] = mask.copied().unwrap_or(0).to_le_bytes();
        let a = rd::<u128>(st, i.a).to_le_bytes();
        let b = rd::<u128>(st, i.b).to_le_bytes();
        let out = mask.map(|m| match m {
            0..16 => a[usize::from(m & 15)],
            16..32 => b[usize::from(m & 15)],
            _ => 0,
        });
        put::<u128>(st, i.d, u128::from_le_bytes(out));
        ip.add(1)
    }
}

/// `d = a` with lane `imm` replaced by `b`.
unsafe fn vset<T: Int>(ip: *const Ins, st: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let at = (i.imm as u32 * T::BITS) & 127;
        let (a, b) = (rd::<u128>(st, i.a), rd::<T>(st, i.b).wide());
        let mask = u128::from(T::TY.mask()) << at;
        put::<u128>(st, i.d, a & !mask | u128::from(b) << at);
        ip.add(1)
    }
}

unsafe fn vicmp<T: Int, const N: usize, const CC: u8>(
    ip: *const Ins,
    st: *mut u8,
    _: *mut Context<'_>,
) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let out = zip::<T, N>(rd(st, i.a), rd(st, i.b), |a, b| {
            T::cut(u64::from(holds::<T, CC>(a.wide(), b.wide())).wrapping_neg())
        });
        put::<u128>(st, i.d, out);
        ip.add(1)
    }
}

/// An op whose shape its row does not allow: the verifier excludes it.
unsafe fn invalid(ip: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe { (*cx).raise(ip, st, 6) }
}

/// The lanes, lowest first.
#[inline(always)]
fn split<T: Int, const N: usize>(v: u128) -> [T; N] {
    std::array::from_fn(|n| T::cut((v >> (n as u32 * T::BITS)) as u64))
}

/// The vector of these lanes.
#[inline(always)]
fn join<T: Int, const N: usize>(lanes: [T; N]) -> u128 {
    let mut v = 0;
    for (n, lane) in lanes.into_iter().enumerate() {
        v |= u128::from(lane.wide()) << (n as u32 * T::BITS);
    }
    v
}

#[inline(always)]
fn zip<T: Int, const N: usize>(a: u128, b: u128, f: impl Fn(T, T) -> T) -> u128 {
    let (a, b) = (split::<T, N>(a), split::<T, N>(b));
    join::<T, N>(std::array::from_fn(|n| f(a[n], b[n])))
}

#[inline(always)]
fn map<T: Int, const N: usize>(a: u128, f: impl Fn(T) -> T) -> u128 {
    join::<T, N>(split::<T, N>(a).map(f))
}

fn two<F: Fn(u128, u128) -> u128 + Copy>(_: F) -> Handler {
    vector2::<F>
}

fn shifted<F: Fn(u128, u64) -> u128 + Copy>(_: F) -> Handler {
    vector_scalar::<F>
}

fn reduce<F: Fn(u128) -> u64 + Copy>(_: F) -> Handler {
    from_vector::<F>
}

fn spread<T: Int, F: Fn(T) -> u128 + Copy>(_: F) -> Handler {
    to_vector::<T, F>
}

/// An op on integer lanes in the given shapes.
macro_rules! lanes {
    ($shape:expr, [$($name:ident $t:ident $n:literal),*], |$a:ident, $b:ident| $e:expr
) => {
        match $shape {
            $(Shape::$name => two(|a, b| zip::<$t, $n>(a, b, |$a: $t, $b: $t| $e)),)*
            #[allow(unreachable_patterns)]
            _ => invalid,
        }
    };
}

/// A shift of integer lanes; `$big` is the result's lane for counts from the width on.
macro_rules! shifts {
    ($shape:expr, |$a:ident, $n:ident| $e:expr, |$b:ident| $big:expr) => {
        shifts!(@ $shape, [I8x16 i8 u8 16, I16x8 i16 u16 8, I32x4 i32 u32 4, I64x2 i64 u64 2],
            |$a, $n| $e, |$b| $big)
    };
    (@ $shape:expr, [$($name:ident $s:ident $t:ident $lanes:literal),*],
        |$a:ident, $n:ident| $e:expr, |$b:ident| $big:expr) => {
        match $shape {
            $(Shape::$name => shifted(|v, n| map::<$t, $lanes>(v, |x| {
                if n < u64::from($t::BITS) {
                    let ($a, $n) = (Signed::<$t, $s>::new(x), n as u32);
                    $e
                } else {
                    let $b = Signed::<$t, $s>::new(x);
                    $big
                }
            })),)*
            _ => invalid,
        }
    };
}

/// A lane in both signednesses.
struct Signed<U, S> {
    u: U,
    s: S,
}

macro_rules! signed {
    ($($u:ident $s:ident;)*) => {$(
        impl Signed<$u, $s> {
            #[inline(always)]
            fn new(x: $u) -> Self {
                Signed { u: x, s: x as $s }
            }
        }
    )*};
}

signed! {
    u8 i8;
    u16 i16;
    u32 i32;
    u64 i64;
}

/// The handler of an integer vector op.
pub(super) fn handler(inst: &Inst) -> Handler {
    let shape = Shape::ALL[(inst.imm as usize).min(Shape::ALL.len() - 1)];
    match inst.op {
        Op::VAnd => two(|a, b| a & b),
        Op::VOr => two(|a, b| a | b),
        Op::VXor => two(|a, b| a ^ b),
        Op::VAndNot => two(|a, b| !a & b),
        Op::VSelect => vselect,
        Op::VAdd => lanes!(shape, [I8x16 u8 16, I16x8 u16 8, I32x4 u32 4, I64x2 u64 2],
            |a, b| a.wrapping_add(b)),
        Op::VSub => lanes!(shape, [I8x16 u8 16, I16x8 u16 8, I32x4 u32 4, I64x2 u64 2],
            |a, b| a.wrapping_sub(b)),
        Op::VMul => lanes!(shape, [I8x16 u8 16, I16x8 u16 8, I32x4 u32 4, I64x2 u64 2],
            |a, b| a.wrapping_mul(b)),
        Op::VMinS => lanes!(shape, [I8x16 u8 16, I16x8 u16 8, I32x4 u32 4, I64x2 u64 2],
            |a, b| if less(a, b) { a } else { b }),
        Op::VMaxS => lanes!(shape, [I8x16 u8 16, I16x8 u16 8, I32x4 u32 4, I64x2 u64 2],
            |a, b| if less(b, a) { a } else { b }),
        Op::VMinU => lanes!(shape, [I8x16 u8 16, I16x8 u16 8, I32x4 u32 4, I64x2 u64 2],
            |a, b| a.min(b)),
        Op::VMaxU => lanes!(shape, [I8x16 u8 16, I16x8 u16 8, I32x4 u32 4, I64x2 u64 2],
            |a, b| a.max(b)),
        Op::VAvgU => lanes!(shape, [I8x16 u8 16, I16x8 u16 8],
            |a, b| ((u32::from(a) + u32::from(b) + 1) >> 1) as _),
        Op::VAddSatS => match shape {
            Shape::I8x16 => {
                two(|a, b| zip::<u8, 16>(a, b, |x, y| (x as i8).saturating_add(y as i8) as u8))
            }
            Shape::I16x8 => {
                two(|a, b| zip::<u16, 8>(a, b, |x, y| (x as i16).saturating_add(y as i16) as u16))
            }
            _ => invalid,
        },
        Op::VSubSatS => match shape {
            Shape::I8x16 => {
                two(|a, b| zip::<u8, 16>(a, b, |x, y| (x as i8).saturating_sub(y as i8) as u8))
            }
            Shape::I16x8 => {
                two(|a, b| zip::<u16, 8>(a, b, |x, y| (x as i16).saturating_sub(y as i16) as u16))
            }
            _ => invalid,
        },
        Op::VAddSatU => lanes!(shape, [I8x16 u8 16, I16x8 u16 8], |a, b| a.saturating_add(b)),
        Op::VSubSatU => lanes!(shape, [I8x16 u8 16, I16x8 u16 8], |a, b| a.saturating_sub(b)),
        Op::VMulHiS => two(|a, b| {
            zip::<u16, 8>(a, b, |x, y| {
                ((i32::from(x as i16) * i32::from(y as i16)) >> 16) as u16
            })
        }),
        Op::VMulHiU => {
            two(|a, b| zip::<u16, 8>(a, b, |x, y| ((u32::from(x) * u32::from(y)) >> 16) as u16))
        }
        Op::VMulWideU => {
            two(|a, b| zip::<u64, 2>(a, b, |x, y| u64::from(x as u32) * u64::from(y as u32)))
        }
        Op::VMAddWD => two(|a, b| zip::<u32, 4>(a, b, multiply_add)),
        Op::VSad => two(|a, b| zip::<u64, 2>(a, b, sum_of_differences)),
        Op::VICmp => {
            let cc = IntCc::from_imm(u64::from(inst.aux).min(IntCc::ALL.len() as u64 - 1));
            with_cc!(cc, C => match shape {
                Shape::I8x16 => vicmp::<u8, 16, C> as Handler,
                Shape::I16x8 => vicmp::<u16, 8, C>,
                Shape::I32x4 => vicmp::<u32, 4, C>,
                Shape::I64x2 => vicmp::<u64, 2, C>,
                _ => invalid,
            })
        }
        Op::VShl => shifts!(shape, |a, n| a.u << n, |_a| 0),
        Op::VLShr => shifts!(shape, |a, n| a.u >> n, |_a| 0),
        Op::VAShr => shifts!(shape, |a, n| (a.s >> n) as _, |a| if a.s < 0 {
            !0
        } else {
            0
        }),
        Op::VShuffle => vshuffle,
        Op::VPackSS => match shape {
            Shape::I16x8 => two(|a, b| pack16(a, b, i8::MIN.into(), i8::MAX.into())),
            Shape::I32x4 => two(|a, b| pack32(a, b, i16::MIN.into(), i16::MAX.into())),
            _ => invalid,
        },
        Op::VPackUS => match shape {
            Shape::I16x8 => two(|a, b| pack16(a, b, 0, u8::MAX.into())),
            Shape::I32x4 => two(|a, b| pack32(a, b, 0, u16::MAX.into())),
            _ => invalid,
        },
        Op::VMask => match shape.lane().bits() {
            8 => reduce(signs::<u8, 16>),
            16 => reduce(signs::<u16, 8>),
            32 => reduce(signs::<u32, 4>),
            _ => reduce(signs::<u64, 2>),
        },
        Op::VSplat => match shape.lane().bits() {
            8 => spread(|x: u8| join::<u8, 16>([x; 16])),
            16 => spread(|x: u16| join::<u16, 8>([x; 8])),
            32 => spread(|x: u32| join::<u32, 4>([x; 4])),
            _ => spread(|x: u64| join::<u64, 2>([x; 2])),
        },
        Op::VSet => with_type!(inst.ty, T => vset::<T>),
        Op::VFromInt => with_type!(inst.ty, T => spread(|x: T| u128::from(x))),
        _ => invalid,
    }
}

/// Signed comparison of lanes.
#[inline(always)]
fn less<T: Int>(a: T, b: T) -> bool {
    T::sext(a.wide()) < T::sext(b.wide())
}

/// The sum of the products of two pairs of signed words.
#[inline(always)]
fn multiply_add(a: u32, b: u32) -> u32 {
    let product = |shift: u32| {
        let (x, y) = ((a >> shift) as i16, (b >> shift) as i16);
        i32::from(x) * i32::from(y)
    };
    product(0).wrapping_add(product(16)) as u32
}

/// The sum of the absolute differences of eight bytes.
#[inline(always)]
fn sum_of_differences(a: u64, b: u64) -> u64 {
    let pairs = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
    pairs.map(|(x, y)| u64::from(x.abs_diff(y))).sum()
}

/// Words of `a`, then of `b`, clamped and cut to bytes.
#[inline(always)]
fn pack16(a: u128, b: u128, low: i16, high: i16) -> u128 {
    let half = |v: u128| join(split::<u16, 8>(v).map(|x| (x as i16).clamp(low, high) as u8));
    half(a) | half(b) << 64
}

/// Doublewords of `a`, then of `b`, clamped and cut to words.
#[inline(always)]
fn pack32(a: u128, b: u128, low: i32, high: i32) -> u128 {
    let half = |v: u128| join(split::<u32, 4>(v).map(|x| (x as i32).clamp(low, high) as u16));
    half(a) | half(b) << 64
}

/// The sign bits of the lanes.
#[inline(always)]
fn signs<T: Int, const N: usize>(v: u128) -> u64 {
    let mut out = 0;
    for (n, lane) in split::<T, N>(v).into_iter().enumerate() {
        out |= (lane.wide() >> (T::BITS - 1)) << n;
    }
    out
}
