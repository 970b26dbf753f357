//! Handlers of integer ops, moves and lazy flags.

use super::code::{Context, Handler, Ins, Int, put, rd, state, wr};
use metaphrase_ir::{CcOp, Cond, FlagKind, IntCc, Op, Type};

/// Evaluates to `$e` with `$t` standing for the Rust type of the IR type.
macro_rules! with_type {
    ($ty:expr, $t:ident => $e:expr) => {
        match $ty {
            Type::I8 => {
                type $t = u8;
                $e
            }
            Type::I16 => {
                type $t = u16;
                $e
            }
            Type::I32 | Type::F32 => {
                type $t = u32;
                $e
            }
            Type::I64 | Type::F64 | Type::V128 => {
                type $t = u64;
                $e
            }
        }
    };
}
pub(super) use with_type;

/// Evaluates to `$e` with the constant `$c` holding the comparison's number.
macro_rules! with_cc {
    ($cc:expr, $c:ident => $e:expr) => {
        with_cc!(@ $cc, $c => $e; Eq Ne Ult Uge Ule Ugt Slt Sge Sle Sgt)
    };
    (@ $cc:expr, $c:ident => $e:expr; $($name:ident)*) => {
        match $cc {
            $(IntCc::$name => { const $c: u8 = IntCc::$name as u8; $e })*
        }
    };
}
pub(super) use with_cc;

/// A two-operand integer op on zero-extended operands; bits above the type are ignored.
trait Binary {
    fn apply<T: Int>(a: u64, b: u64) -> u64;
}

/// A one-operand integer op, likewise.
trait Unary {
    fn apply<T: Int>(a: u64) -> u64;
}

macro_rules! binary {
    ($($name:ident: |$a:ident, $b:ident| $e:expr;)*) => {$(
        struct $name;
        impl Binary for $name {
            #[inline(always)]
            fn apply<T: Int>($a: u64, $b: u64) -> u64 {
                $e
            }
        }
    )*};
}

macro_rules! unary {
    ($($name:ident: |$a:ident| $e:expr;)*) => {$(
        struct $name;
        impl Unary for $name {
            #[inline(always)]
            fn apply<T: Int>($a: u64) -> u64 {
                $e
            }
        }
    )*};
}

binary! {
    Add: |a, b| a.wrapping_add(b);
    Sub: |a, b| a.wrapping_sub(b);
    Mul: |a, b| a.wrapping_mul(b);
    UMulHi: |a, b| ((u128::from(a) * u128::from(b)) >> T::BITS) as u64;
    SMulHi: |a, b| ((i128::from(T::sext(a)) * i128::from(T::sext(b))) >> T::BITS) as u64;
    // The frontend excludes zero divisors and overflow; the results here only must not panic.
    UDiv: |a, b| a.checked_div(b).unwrap_or(0);
    URem: |a, b| a.checked_rem(b).unwrap_or(0);
    SDiv: |a, b| T::sext(a).checked_div(T::sext(b)).unwrap_or(0) as u64;
    SRem: |a, b| T::sext(a).checked_rem(T::sext(b)).unwrap_or(0) as u64;
    And: |a, b| a & b;
    Or: |a, b| a | b;
    Xor: |a, b| a ^ b;
    Shl: |a, b| a << (b & u64::from(T::BITS - 1));
    LShr: |a, b| a >> (b & u64::from(T::BITS - 1));
    AShr: |a, b| (T::sext(a) >> (b & u64::from(T::BITS - 1))) as u64;
    RotL: |a, b| rotate_left::<T>(a, b);
    RotR: |a, b| rotate_left::<T>(a, b.wrapping_neg());
}

unary! {
    Neg: |a| a.wrapping_neg();
    Not: |a| !a;
    Bswap: |a| a.swap_bytes() >> (64 - T::BITS);
    Clz: |a| u64::from(a.leading_zeros()).wrapping_sub(u64::from(64 - T::BITS));
    Ctz: |a| u64::from(a.trailing_zeros().min(T::BITS));
    Popcnt: |a| u64::from(a.count_ones());
}

#[inline(always)]
fn rotate_left<T: Int>(a: u64, by: u64) -> u64 {
    let n = by & u64::from(T::BITS - 1);
    let back = u64::from(T::BITS).wrapping_sub(n) & u64::from(T::BITS - 1);
    a << n | a >> back
}

/// `d = a op b`; `b` is `imm` if `IMM`.
unsafe fn bin<T: Int, O: Binary, const IMM: bool>(
    ip: *const Ins,
    st: *mut u8,
    _: *mut Context<'_>,
) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let a = rd::<T>(st, i.a).wide();
        let b = if IMM { i.imm } else { rd::<T>(st, i.b).wide() };
        wr::<T>(st, i.d, O::apply::<T>(a, b));
        ip.add(1)
    }
}

/// `d = a op b` and the flags of that op, whose kind is `KIND`.
unsafe fn bin_flags<T: Int, O: Binary, const KIND: u8, const IMM: bool>(
    ip: *const Ins,
    st: *mut u8,
    _: *mut Context<'_>,
) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let a = rd::<T>(st, i.a).wide();
        let b = if IMM { i.imm } else { rd::<T>(st, i.b).wide() };
        let r = T::cut(O::apply::<T>(a, b)).wide();
        put::<u64>(st, i.d, r);
        let s = state(st);
        (*s).cc_op = u32::from(KIND) << 2 | T::TY as u32;
        if KIND == FlagKind::Logic as u8 {
            (*s).cc_a = r;
        } else {
            (*s).cc_a = a;
            (*s).cc_b = b;
        }
        ip.add(1)
    }
}

/// `d = op a`.
unsafe fn un<T: Int, O: Unary>(ip: *const Ins, st: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        wr::<T>(st, i.d, O::apply::<T>(rd::<T>(st, i.a).wide()));
        ip.add(1)
    }
}

/// The handler of a two-operand integer op.
pub(super) fn binary(op: Op, ty: Type, imm: bool) -> Option<Handler> {
    macro_rules! table {
        ($($name:ident)*) => {
            match op {
                $(Op::$name => with_type!(ty, T => if imm {
                    bin::<T, $name, true> as Handler
                } else {
                    bin::<T, $name, false>
                }),)*
                _ => return None,
            }
        };
    }
    Some(table!(Add Sub Mul UMulHi SMulHi UDiv URem SDiv SRem And Or Xor Shl LShr AShr RotL RotR))
}

/// The handler of an op that also defines the flags, where there is one.
pub(super) fn binary_flags(op: Op, kind: FlagKind, ty: Type, imm: bool) -> Option<Handler> {
    macro_rules! table {
        ($($name:ident $kind:ident;)*) => {
            match (op, kind) {
                $((Op::$name, FlagKind::$kind) => with_type!(ty, T => if imm {
                    bin_flags::<T, $name, { FlagKind::$kind as u8 }, true> as Handler
                } else {
                    bin_flags::<T, $name, { FlagKind::$kind as u8 }, false>
                }),)*
                _ => return None,
            }
        };
    }
    Some(table! {
        Add Add;
        Sub Sub;
        And Logic;
        Or Logic;
        Xor Logic;
    })
}

/// The handler of a one-operand integer op.
pub(super) fn unary(op: Op, ty: Type) -> Option<Handler> {
    macro_rules! table {
        ($($name:ident)*) => {
            match op {
                $(Op::$name => with_type!(ty, T => un::<T, $name> as Handler),)*
                _ => return None,
            }
        };
    }
    Some(table!(Neg Not Bswap Clz Ctz Popcnt))
}

/// Whether comparison number `CC` holds for operands of type `T`, given zero-extended.
#[inline(always)]
pub(super) fn holds<T: Int, const CC: u8>(a: u64, b: u64) -> bool {
    let (sa, sb) = (T::sext(a), T::sext(b));
    match IntCc::ALL[CC as usize] {
        IntCc::Eq => a == b,
        IntCc::Ne => a != b,
        IntCc::Ult => a < b,
        IntCc::Uge => a >= b,
        IntCc::Ule => a <= b,
        IntCc::Ugt => a > b,
        IntCc::Slt => sa < sb,
        IntCc::Sge => sa >= sb,
        IntCc::Sle => sa <= sb,
        IntCc::Sgt => sa > sb,
    }
}

unsafe fn icmp<T: Int, const CC: u8, const IMM: bool>(
    ip: *const Ins,
    st: *mut u8,
    _: *mut Context<'_>,
) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let a = rd::<T>(st, i.a).wide();
        let b = if IMM { i.imm } else { rd::<T>(st, i.b).wide() };
        put::<u64>(st, i.d, u64::from(holds::<T, CC>(a, b)));
        ip.add(1)
    }
}

/// The handler of `icmp`.
pub(super) fn compare(cc: IntCc, ty: Type, imm: bool) -> Handler {
    with_type!(ty, T => with_cc!(cc, C => if imm {
        icmp::<T, C, true> as Handler
    } else {
        icmp::<T, C, false>
    }))
}

/// `d = imm`.
pub(super) unsafe fn constant(ip: *const Ins, st: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        put::<u64>(st, (*ip).d, (*ip).imm);
        ip.add(1)
    }
}

/// `d = ` the guest PC at offset `imm`.
pub(super) unsafe fn pc(ip: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        put::<u64>(st, (*ip).d, (*cx).pc_at((*ip).imm as i64));
        ip.add(1)
    }
}

/// `d = a`, zero-extended.
pub(super) unsafe fn mov<T: Int>(ip: *const Ins, st: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        put::<u64>(st, (*ip).d, rd::<T>(st, (*ip).a).wide());
        ip.add(1)
    }
}

/// `d = a`, exactly `T` wide.
pub(super) unsafe fn part<T: Copy>(ip: *const Ins, st: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        put::<T>(st, (*ip).d, rd::<T>(st, (*ip).a));
        ip.add(1)
    }
}

/// `d = a` as `T`, sign-extended to `U`.
unsafe fn sext<T: Int, U: Int>(ip: *const Ins, st: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        wr::<U>(st, (*ip).d, T::sext(rd::<T>(st, (*ip).a).wide()) as u64);
        ip.add(1)
    }
}

/// The handler of `sext`.
pub(super) fn sign_extend(from: Type, to: Type) -> Handler {
    with_type!(from, T => with_type!(to, U => sext::<T, U> as Handler))
}

/// `d = ` the bits of `a` from `imm` on.
pub(super) unsafe fn ext<T: Int>(ip: *const Ins, st: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        wr::<T>(st, i.d, rd::<u64>(st, i.a) >> (i.imm & 63));
        ip.add(1)
    }
}

/// `d = a` with `b` inserted at bit `imm`.
pub(super) unsafe fn ins<T: Int>(ip: *const Ins, st: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let at = i.imm & 63;
        let (a, b) = (rd::<u64>(st, i.a), rd::<T>(st, i.b).wide());
        put::<u64>(st, i.d, a & !(T::TY.mask() << at) | b << at);
        ip.add(1)
    }
}

/// `d = a != 0 ? b : slot imm`.
pub(super) unsafe fn select<T: Int>(
    ip: *const Ins,
    st: *mut u8,
    _: *mut Context<'_>,
) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let c = rd::<u8>(st, i.a) != 0;
        let (x, y) = (rd::<T>(st, i.b), rd::<T>(st, i.imm as u16));
        put::<u64>(st, i.d, if c { x } else { y }.wide());
        ip.add(1)
    }
}

/// `select` of vectors.
pub(super) unsafe fn select128(ip: *const Ins, st: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let from = if rd::<u8>(st, i.a) != 0 {
            i.b
        } else {
            i.imm as u16
        };
        put::<u128>(st, i.d, rd::<u128>(st, from));
        ip.add(1)
    }
}

/// Defines the flags: `d` is the [`CcOp`]; operands `a`, `b` and slot `imm`, or `imm` for `b`.
pub(super) unsafe fn setflags<T: Int, const ARITY: u8, const IMM: bool>(
    ip: *const Ins,
    st: *mut u8,
    _: *mut Context<'_>,
) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let s = state(st);
        (*s).cc_a = rd::<T>(st, i.a).wide();
        if ARITY >= 2 {
            (*s).cc_b = if IMM { i.imm } else { rd::<T>(st, i.b).wide() };
        }
        if ARITY == 3 {
            (*s).cc_c = rd::<T>(st, i.imm as u16).wide();
        }
        (*s).cc_op = u32::from(i.d);
        ip.add(1)
    }
}

/// The handler of `setflags`; `imm` says that the second of two operands is constant.
pub(super) fn set_flags(ty: Type, arity: usize, imm: bool) -> Handler {
    with_type!(ty, T => match (arity, imm) {
        (1, _) => setflags::<T, 1, false> as Handler,
        (2, false) => setflags::<T, 2, false>,
        (2, true) => setflags::<T, 2, true>,
        _ => setflags::<T, 3, false>,
    })
}

/// Whether a condition holds for the lazy flags. Subtractions, which most conditions follow, are
/// compared directly.
#[inline]
pub(super) fn condition(s: &crate::CpuState, cond: Cond) -> bool {
    let op = CcOp(s.cc_op);
    if op.kind() == FlagKind::Sub {
        let (ty, a, b) = (op.ty(), s.cc_a, s.cc_b);
        let cc = match cond {
            Cond::B => Some(IntCc::Ult),
            Cond::Nb => Some(IntCc::Uge),
            Cond::Z => Some(IntCc::Eq),
            Cond::Nz => Some(IntCc::Ne),
            Cond::Be => Some(IntCc::Ule),
            Cond::Nbe => Some(IntCc::Ugt),
            Cond::L => Some(IntCc::Slt),
            Cond::Nl => Some(IntCc::Sge),
            Cond::Le => Some(IntCc::Sle),
            Cond::Nle => Some(IntCc::Sgt),
            _ => None,
        };
        if let Some(cc) = cc {
            return cc.holds(ty, a, b);
        }
    }
    s.cond(cond)
}

/// `d = ` whether condition `imm` holds.
pub(super) unsafe fn getcond(ip: *const Ins, st: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let holds = condition(&*state(st), Cond::ALL[(i.imm & 15) as usize]);
        put::<u64>(st, i.d, u64::from(holds));
        ip.add(1)
    }
}

/// `d = ` the six flags.
pub(super) unsafe fn getflags(ip: *const Ins, st: *mut u8, _: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        put::<u64>(st, (*ip).d, (*state(st)).arith_flags());
        ip.add(1)
    }
}
