//! SSE floating point with integers only, for hosts without it (SDM volume 1, 4.8, 4.9 and 11.5).
//! [`super::soft`] has the arithmetic of one lane; here are vectors and the order of exceptions.

use super::soft::{F32, F64, Format, Soft};
use super::{FLAGS, MASKS};
use metaphrase_ir::SseOp;

/// MXCSR stays in the guest state: nothing changes when guest code begins or ends.
#[cfg_attr(
    all(target_arch = "x86_64", not(feature = "portable-float")),
    allow(dead_code)
)]
mod state {
    use super::super::FLAGS;
    use metaphrase_ir::SseOp;

    /// Stands for the host's MXCSR, which does not exist.
    #[derive(Debug)]
    pub struct Control;

    impl Control {
        /// Begins guest code.
        pub fn enter(_mxcsr: u32) -> Control {
            Control
        }

        /// Ends guest code.
        pub fn leave(self, _mxcsr: &mut u32) {}
    }

    /// The exception flags, which are those of the state.
    pub fn flags_now(mxcsr: u32) -> u32 {
        mxcsr & FLAGS
    }

    /// Nothing to do: the state has been changed.
    pub fn set_now(_mxcsr: u32) {}

    /// An operation made ready to run: its descriptor.
    #[derive(Clone, Copy, Debug)]
    pub struct Prepared(u64);

    impl Prepared {
        /// Makes an operation ready.
        pub fn new(op: SseOp, imm: u8) -> Prepared {
            Prepared(op.pack(imm).into())
        }

        /// The word that it is.
        pub fn to_word(self) -> u64 {
            self.0
        }

        /// What [`Prepared::to_word`] gave.
        ///
        /// # Safety
        /// None is needed on this host.
        pub unsafe fn from_word(word: u64) -> Prepared {
            Prepared(word)
        }

        /// Computes the operation.
        pub fn run(self, a: u128, b: u128, mxcsr: &mut u32) -> u128 {
            match SseOp::unpack(self.0 as u32) {
                Some((op, imm)) => super::operate(op, imm, a, b, mxcsr),
                None => a,
            }
        }
    }
}

#[cfg_attr(
    all(target_arch = "x86_64", not(feature = "portable-float")),
    allow(unused_imports)
)]
pub use state::{Control, Prepared, flags_now, set_now};

/// Computes an operation with every exception masked.
pub fn operate(op: SseOp, imm: u8, a: u128, b: u128, mxcsr: &mut u32) -> u128 {
    let mut fp = Soft::new(*mxcsr | MASKS);
    let r = compute(&mut fp, op, imm, a, b);
    *mxcsr |= (fp.pre | fp.post) & FLAGS;
    r
}

/// Computes an operation; `None` if it raises #XM, with the flags in `mxcsr`. What is found in the
/// operands of any lane comes before what comes of the results.
pub fn operate_checked(op: SseOp, imm: u8, a: u128, b: u128, mxcsr: &mut u32) -> Option<u128> {
    let mut fp = Soft::new(*mxcsr);
    let unmasked = !(*mxcsr >> 7) & FLAGS;
    let r = compute(&mut fp, op, imm, a, b);
    *mxcsr |= fp.pre;
    if fp.pre & unmasked != 0 {
        return None;
    }
    *mxcsr |= fp.post;
    (fp.post & unmasked == 0).then_some(r)
}

fn lane(f: Format, v: u128, n: u32) -> u64 {
    (v >> (n * f.width())) as u64 & f.all()
}

/// `v` with its low lane replaced.
fn low(f: Format, v: u128, lane: u64) -> u128 {
    v & !u128::from(f.all()) | u128::from(lane)
}

/// A vector of lanes.
fn lanes(f: Format, g: impl FnMut(u32) -> u64) -> u128 {
    let values = (0..128 / f.width()).map(g).enumerate();
    values.fold(0, |v, (n, x)| v | u128::from(x) << (n as u32 * f.width()))
}

type Binary = fn(&mut Soft, Format, u64, u64) -> u64;

fn compute(fp: &mut Soft, op: SseOp, imm: u8, a: u128, b: u128) -> u128 {
    use SseOp::*;
    let scalar = |fp: &mut Soft, f: Format, g: Binary| {
        let r = g(fp, f, lane(f, a, 0), lane(f, b, 0));
        low(f, a, r)
    };
    let packed =
        |fp: &mut Soft, f: Format, g: Binary| lanes(f, |n| g(fp, f, lane(f, a, n), lane(f, b, n)));
    let sqrt: Binary = |fp, f, _, b| fp.sqrt(f, b);
    match op {
        Addss => scalar(fp, F32, Soft::add),
        Addsd => scalar(fp, F64, Soft::add),
        Addps => packed(fp, F32, Soft::add),
        Addpd => packed(fp, F64, Soft::add),
        Subss => scalar(fp, F32, Soft::sub),
        Subsd => scalar(fp, F64, Soft::sub),
        Subps => packed(fp, F32, Soft::sub),
        Subpd => packed(fp, F64, Soft::sub),
        Mulss => scalar(fp, F32, Soft::mul),
        Mulsd => scalar(fp, F64, Soft::mul),
        Mulps => packed(fp, F32, Soft::mul),
        Mulpd => packed(fp, F64, Soft::mul),
        Divss => scalar(fp, F32, Soft::div),
        Divsd => scalar(fp, F64, Soft::div),
        Divps => packed(fp, F32, Soft::div),
        Divpd => packed(fp, F64, Soft::div),
        Minss => scalar(fp, F32, Soft::min),
        Minsd => scalar(fp, F64, Soft::min),
        Minps => packed(fp, F32, Soft::min),
        Minpd => packed(fp, F64, Soft::min),
        Maxss => scalar(fp, F32, Soft::max),
        Maxsd => scalar(fp, F64, Soft::max),
        Maxps => packed(fp, F32, Soft::max),
        Maxpd => packed(fp, F64, Soft::max),
        Sqrtss => scalar(fp, F32, sqrt),
        Sqrtsd => scalar(fp, F64, sqrt),
        Sqrtps => packed(fp, F32, sqrt),
        Sqrtpd => packed(fp, F64, sqrt),
        Rcpss => scalar(fp, F32, |_, _, _, b| Soft::reciprocal(b)),
        Rcpps => packed(fp, F32, |_, _, _, b| Soft::reciprocal(b)),
        Rsqrtss => scalar(fp, F32, |_, _, _, b| Soft::reciprocal_sqrt(b)),
        Rsqrtps => packed(fp, F32, |_, _, _, b| Soft::reciprocal_sqrt(b)),
        Haddps => across(fp, F32, a, b, Soft::add),
        Haddpd => across(fp, F64, a, b, Soft::add),
        Hsubps => across(fp, F32, a, b, Soft::sub),
        Hsubpd => across(fp, F64, a, b, Soft::sub),
        Addsubps => alternate(fp, F32, a, b),
        Addsubpd => alternate(fp, F64, a, b),
        Cmpss => low(F32, a, fp.mask(F32, imm, lane(F32, a, 0), lane(F32, b, 0))),
        Cmpsd => low(F64, a, fp.mask(F64, imm, lane(F64, a, 0), lane(F64, b, 0))),
        Cmpps => lanes(F32, |n| fp.mask(F32, imm, lane(F32, a, n), lane(F32, b, n))),
        Cmppd => lanes(F64, |n| fp.mask(F64, imm, lane(F64, a, n), lane(F64, b, n))),
        Roundss => low(F32, a, fp.round_to_integer(F32, lane(F32, b, 0), imm)),
        Roundsd => low(F64, a, fp.round_to_integer(F64, lane(F64, b, 0), imm)),
        Roundps => lanes(F32, |n| fp.round_to_integer(F32, lane(F32, b, n), imm)),
        Roundpd => lanes(F64, |n| fp.round_to_integer(F64, lane(F64, b, n), imm)),
        Dpps => dot(fp, F32, a, b, imm),
        Dppd => dot(fp, F64, a, b, imm),
        Comiss => fp.order(F32, a as u64, b as u64, true).into(),
        Comisd => fp.order(F64, a as u64, b as u64, true).into(),
        Ucomiss => fp.order(F32, a as u64, b as u64, false).into(),
        Ucomisd => fp.order(F64, a as u64, b as u64, false).into(),
        Cvtss2sd => low(F64, a, fp.convert(F32, F64, lane(F32, b, 0))),
        Cvtsd2ss => low(F32, a, fp.convert(F64, F32, lane(F64, b, 0))),
        Cvtps2pd => lanes(F64, |n| fp.convert(F32, F64, lane(F32, b, n))),
        Cvtpd2ps => lanes(F32, |n| match n {
            0 | 1 => fp.convert(F64, F32, lane(F64, b, n)),
            _ => 0,
        }),
        Cvtdq2ps => lanes(F32, |n| fp.of_int(F32, lane(F32, b, n) as i32 as i64)),
        Cvtdq2pd => lanes(F64, |n| fp.of_int(F64, lane(F32, b, n) as i32 as i64)),
        Cvtps2dq => lanes(F32, |n| fp.integer(F32, lane(F32, b, n), 32, false)),
        Cvttps2dq => lanes(F32, |n| fp.integer(F32, lane(F32, b, n), 32, true)),
        Cvtpd2dq | Cvttpd2dq => lanes(F32, |n| match n {
            0 | 1 => fp.integer(F64, lane(F64, b, n), 32, op == Cvttpd2dq),
            _ => 0,
        }),
        Cvtsi2ss => low(F32, a, fp.of_int(F32, b as i32 as i64)),
        Cvtsi2ssq => low(F32, a, fp.of_int(F32, b as i64)),
        Cvtsi2sd => low(F64, a, fp.of_int(F64, b as i32 as i64)),
        Cvtsi2sdq => low(F64, a, fp.of_int(F64, b as i64)),
        Cvtss2si => fp.integer(F32, lane(F32, b, 0), 32, false).into(),
        Cvtss2siq => fp.integer(F32, lane(F32, b, 0), 64, false).into(),
        Cvtsd2si => fp.integer(F64, b as u64, 32, false).into(),
        Cvtsd2siq => fp.integer(F64, b as u64, 64, false).into(),
        Cvttss2si => fp.integer(F32, lane(F32, b, 0), 32, true).into(),
        Cvttss2siq => fp.integer(F32, lane(F32, b, 0), 64, true).into(),
        Cvttsd2si => fp.integer(F64, b as u64, 32, true).into(),
        Cvttsd2siq => fp.integer(F64, b as u64, 64, true).into(),
    }
}

/// HADDPS and the like: neighbours combined, those of the destination first.
fn across(fp: &mut Soft, f: Format, a: u128, b: u128, g: Binary) -> u128 {
    let half = 64 / f.width();
    lanes(f, |n| {
        let (v, n) = if n < half { (a, n) } else { (b, n - half) };
        g(fp, f, lane(f, v, 2 * n), lane(f, v, 2 * n + 1))
    })
}

/// ADDSUBPS, ADDSUBPD: differences in even lanes, sums in odd ones.
fn alternate(fp: &mut Soft, f: Format, a: u128, b: u128) -> u128 {
    lanes(f, |n| {
        let (x, y) = (lane(f, a, n), lane(f, b, n));
        if n % 2 == 0 {
            fp.sub(f, x, y)
        } else {
            fp.add(f, x, y)
        }
    })
}

/// DPPS, DPPD: products of the lanes that the high half of the immediate names, summed in pairs,
/// to the lanes that the low half names.
fn dot(fp: &mut Soft, f: Format, a: u128, b: u128, imm: u8) -> u128 {
    let product = |fp: &mut Soft, n: u32| {
        if imm >> (4 + n) & 1 != 0 {
            fp.mul(f, lane(f, a, n), lane(f, b, n))
        } else {
            0
        }
    };
    let pair = |fp: &mut Soft, n: u32| {
        let (x, y) = (product(fp, n), product(fp, n + 1));
        fp.add(f, x, y)
    };
    let mut sum = pair(fp, 0);
    if f.width() == 32 {
        let high = pair(fp, 2);
        sum = fp.add(f, sum, high);
    }
    lanes(f, |n| if imm >> n & 1 != 0 { sum } else { 0 })
}
