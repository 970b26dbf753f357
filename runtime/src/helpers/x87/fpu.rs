//! Which module does an operation: the host's FPU, or the portable core.
//!
//! Comparisons and conversions between integers and registers are always the portable core's: that
//! takes less time than to exchange the state with the host's FPU.

use super::fast;
#[cfg(target_arch = "x86_64")]
use super::host_x86_64;
use super::ops::{Arith, Binary, Pair, Source, Unary};
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::stack::PE;
use crate::state::{X87Reg, X87State};

pub use super::portable::{compare, load_bcd, store_bcd, store_int, test};

macro_rules! dispatch {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),*) -> $result:ty;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(f: &X87State, $($arg: $ty),*) -> $result {
            #[cfg(target_arch = "x86_64")]
            if f.portable == 0 {
                if f.status & PE == 0 {
                    host_x86_64::forget_inexact();
                }
                return host_x86_64::$name($($arg),*);
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = f;
            portable::$name($($arg),*)
        }
    )*};
}

/// Arithmetic: the result and the status word.
#[inline(always)]
pub fn arith(f: &X87State, op: Arith, control: u16, a: X87Reg, b: Source) -> (X87Reg, u16) {
    match fast::arith(op, control, a, b) {
        Some(outcome) => outcome,
        None => arith_any(f, op, control, a, b),
    }
}

/// [`arith`] where the quick way does not lead anywhere.
#[inline(never)]
fn arith_any(f: &X87State, op: Arith, control: u16, a: X87Reg, b: Source) -> (X87Reg, u16) {
    #[cfg(target_arch = "x86_64")]
    if f.portable == 0 {
        if f.status & PE == 0 {
            host_x86_64::forget_inexact();
        }
        return host_x86_64::arith(op, control, a, b);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = f;
    portable::arith(op, control, a, b)
}

dispatch! {
    /// Loads a binary32 or binary64.
    fn load(control: u16, source: Source) -> (X87Reg, u16);
    /// Stores as binary32; nothing meaningful with an unmasked overflow or underflow.
    fn store_f32(control: u16, a: X87Reg) -> (u32, u16);
    /// Stores as binary64, likewise.
    fn store_f64(control: u16, a: X87Reg) -> (u64, u16);
    /// An operation on ST(0) alone: the result and the status word.
    fn unary(op: Unary, control: u16, a: X87Reg) -> (X87Reg, u16);
    /// An operation on ST(0) and ST(1): the one result and the status word.
    fn binary(op: Binary, control: u16, st0: X87Reg, st1: X87Reg) -> (X87Reg, u16);
    /// An operation that pushes: what ST(0) becomes, what is pushed, and the status word. If its C2
    /// is set (for the trigonometric ones), ST(0) stays and nothing is pushed.
    fn pair(op: Pair, control: u16, a: X87Reg) -> (X87Reg, X87Reg, u16);
    /// A constant of D9 E8 to D9 ED by the low three bits of its opcode, rounded as the control
    /// word says.
    fn constant(n: u8, control: u16) -> X87Reg;
}
