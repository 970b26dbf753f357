//! x87 operations on an x86-64 host: its own FPU does them.
//!
//! Each function loads the operands and the guest's control word, does one operation, reads the
//! status word, and leaves the host's FPU as it was: stack empty, no flags but perhaps PE, control
//! word [`HOST_CONTROL`]. Clearing flags costs as much as several operations, and almost every
//! operation is inexact: so PE stays set, and is cleared only before an operation of a guest whose
//! own PE is clear. The caller passes a control word in which invalid operation, denormal operand
//! and division by zero are masked, so that an operation always gives its results; the others may
//! be unmasked, and then the results are those of the unmasked response. An unmasked exception is
//! cleared before the next instruction that would wait, so that nothing traps here.
//!
//! What `fpu` does not call is here for the tests of the portable core.

use super::ops::{Arith, Binary, Pair, Source, Unary};
use super::stack::{ES, EXCEPTIONS, PE};
use crate::state::X87Reg;
use std::arch::asm;
use std::cell::Cell;

/// The control word that a thread starts with, and that every function here leaves.
const HOST_CONTROL: u16 = 0x37f;
static HOST: u16 = HOST_CONTROL;

thread_local! {
    /// PE is set in this thread's FPU.
    static STALE: Cell<bool> = const { Cell::new(false) };
}

/// Called before operations of a guest whose PE is clear: makes the host's so.
#[inline(always)]
pub fn forget_inexact() {
    STALE.with(|stale| {
        if stale.get() {
            stale.set(false);
            clear();
        }
    });
}

/// Clears the flags.
#[cold]
#[inline(never)]
fn clear() {
    // SAFETY: no flag of the host's FPU is anybody's but ours.
    unsafe { asm!("fnclex", options(nostack, nomem)) };
}

/// Takes note of the flags that an operation leaves: none may stay but PE.
#[inline(always)]
fn leave(sw: u16) {
    if sw & EXCEPTIONS == 0 {
        return;
    }
    let inexact = sw & (EXCEPTIONS | ES) == PE;
    if !inexact {
        clear();
    }
    STALE.with(|stale| stale.set(inexact));
}

/// Runs instructions on the FPU; gives the status word after those before the `;`.
macro_rules! fpu {
    ($control:expr; [$($op:expr),+] then [$($after:expr),*] $($operand:ident = $place:expr),*) => {{
        let control: u16 = $control;
        let mut sw: u16;
        // SAFETY: the operands point to values of the size that the instructions access; the
        // register stack is empty before and after, and the control word is the host's again.
        unsafe {
            asm!(
                "cmp word ptr [{control}], 0x37f",
                "je 2f",
                "fldcw word ptr [{control}]",
                "2:",
                $($op,)+
                "fnstsw ax",
                // ES.
                "test al, al",
                "jns 3f",
                "fnclex",
                "3:",
                $($after,)*
                "cmp word ptr [{control}], 0x37f",
                "je 4f",
                "fldcw word ptr [{host}]",
                "4:",
                control = in(reg) &raw const control,
                host = in(reg) &raw const HOST,
                $($operand = in(reg) $place,)*
                out("ax") sw,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                options(nostack),
            );
        }
        leave(sw);
        sw
    }};
}

/// One arithmetic instruction with each kind of source.
macro_rules! with_source {
    ($control:ident, $a:ident, $b:ident, $real:literal, $int:literal) => {
        match $b {
            Source::Reg(b) => fpu!($control;
                ["fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]", concat!($real, " st(0), st(1)")]
                then ["fstp tbyte ptr [{a}]", "fstp st(0)"]
                a = &raw mut $a, b = &raw const b),
            Source::F32(b) => fpu!($control;
                ["fld tbyte ptr [{a}]", concat!($real, " dword ptr [{b}]")]
                then ["fstp tbyte ptr [{a}]"] a = &raw mut $a, b = &raw const b),
            Source::F64(b) => fpu!($control;
                ["fld tbyte ptr [{a}]", concat!($real, " qword ptr [{b}]")]
                then ["fstp tbyte ptr [{a}]"] a = &raw mut $a, b = &raw const b),
            Source::I16(b) => fpu!($control;
                ["fld tbyte ptr [{a}]", concat!($int, " word ptr [{b}]")]
                then ["fstp tbyte ptr [{a}]"] a = &raw mut $a, b = &raw const b),
            Source::I32(b) => fpu!($control;
                ["fld tbyte ptr [{a}]", concat!($int, " dword ptr [{b}]")]
                then ["fstp tbyte ptr [{a}]"] a = &raw mut $a, b = &raw const b),
        }
    };
}

/// Arithmetic: the result and the status word.
pub fn arith(op: Arith, control: u16, a: X87Reg, b: Source) -> (X87Reg, u16) {
    let mut a = a;
    let sw = match op {
        Arith::Add => with_source!(control, a, b, "fadd", "fiadd"),
        Arith::Mul => with_source!(control, a, b, "fmul", "fimul"),
        Arith::Sub => with_source!(control, a, b, "fsub", "fisub"),
        Arith::SubR => with_source!(control, a, b, "fsubr", "fisubr"),
        Arith::Div => with_source!(control, a, b, "fdiv", "fidiv"),
        Arith::DivR => with_source!(control, a, b, "fdivr", "fidivr"),
    };
    (a, sw)
}

/// Compares; the status word. `quiet`: only signaling NaNs are invalid (registers only).
#[cfg(test)]
pub fn compare(control: u16, a: X87Reg, b: Source, quiet: bool) -> u16 {
    macro_rules! memory {
        ($b:ident, $line:literal) => {
            fpu!(control; ["fld tbyte ptr [{a}]", $line] then ["fstp st(0)"]
                a = &raw const a, b = &raw const $b)
        };
    }
    match b {
        Source::Reg(b) if quiet => fpu!(control;
            ["fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]", "fucom st(1)"]
            then ["fstp st(0)", "fstp st(0)"] a = &raw const a, b = &raw const b),
        Source::Reg(b) => fpu!(control;
            ["fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]", "fcom st(1)"]
            then ["fstp st(0)", "fstp st(0)"] a = &raw const a, b = &raw const b),
        Source::F32(b) => memory!(b, "fcom dword ptr [{b}]"),
        Source::F64(b) => memory!(b, "fcom qword ptr [{b}]"),
        Source::I16(b) => memory!(b, "ficom word ptr [{b}]"),
        Source::I32(b) => memory!(b, "ficom dword ptr [{b}]"),
    }
}

/// FTST: compares with 0.
#[cfg(test)]
pub fn test(control: u16, a: X87Reg) -> u16 {
    fpu!(control; ["fld tbyte ptr [{a}]", "ftst"] then ["fstp st(0)"] a = &raw const a)
}

/// Loads a binary32 or binary64 that `convert` does not take.
pub fn load(control: u16, source: Source) -> (X87Reg, u16) {
    let mut out = X87Reg::ZERO;
    let sw = match source {
        Source::F32(b) => fpu!(control; ["fld dword ptr [{b}]"] then ["fstp tbyte ptr [{out}]"]
            b = &raw const b, out = &raw mut out),
        Source::F64(b) => fpu!(control; ["fld qword ptr [{b}]"] then ["fstp tbyte ptr [{out}]"]
            b = &raw const b, out = &raw mut out),
        Source::Reg(b) => return (b, 0),
        Source::I16(b) => return (super::convert::from_int(i64::from(b)), 0),
        Source::I32(b) => return (super::convert::from_int(i64::from(b)), 0),
    };
    (out, sw)
}

/// Loads a packed decimal.
#[cfg(test)]
pub fn load_bcd(control: u16, bytes: [u8; 10]) -> (X87Reg, u16) {
    let mut out = X87Reg::ZERO;
    let sw = fpu!(control; ["fbld tbyte ptr [{b}]"] then ["fstp tbyte ptr [{out}]"]
        b = &raw const bytes, out = &raw mut out);
    (out, sw)
}

/// Stores as binary32; nothing meaningful with an unmasked overflow or underflow.
pub fn store_f32(control: u16, a: X87Reg) -> (u32, u16) {
    let mut out = 0u32;
    let sw = fpu!(control; ["fld tbyte ptr [{a}]", "fst dword ptr [{out}]"] then ["fstp st(0)"]
        a = &raw const a, out = &raw mut out);
    (out, sw)
}

/// Stores as binary64, likewise.
pub fn store_f64(control: u16, a: X87Reg) -> (u64, u16) {
    let mut out = 0u64;
    let sw = fpu!(control; ["fld tbyte ptr [{a}]", "fst qword ptr [{out}]"] then ["fstp st(0)"]
        a = &raw const a, out = &raw mut out);
    (out, sw)
}

/// Stores as an integer of 2, 4 or 8 bytes, rounded as the control word says.
#[cfg(test)]
pub fn store_int(control: u16, a: X87Reg, bytes: u32) -> (u64, u16) {
    let mut out = 0u64;
    let sw = match bytes {
        2 => fpu!(control; ["fld tbyte ptr [{a}]", "fistp word ptr [{out}]"] then []
            a = &raw const a, out = &raw mut out),
        4 => fpu!(control; ["fld tbyte ptr [{a}]", "fistp dword ptr [{out}]"] then []
            a = &raw const a, out = &raw mut out),
        _ => fpu!(control; ["fld tbyte ptr [{a}]", "fistp qword ptr [{out}]"] then []
            a = &raw const a, out = &raw mut out),
    };
    (out, sw)
}

/// Stores as packed decimal.
#[cfg(test)]
pub fn store_bcd(control: u16, a: X87Reg) -> ([u8; 10], u16) {
    let mut out = [0u8; 10];
    let sw = fpu!(control; ["fld tbyte ptr [{a}]", "fbstp tbyte ptr [{out}]"] then []
        a = &raw const a, out = &raw mut out);
    (out, sw)
}

/// An operation on ST(0) alone: the result and the status word.
pub fn unary(op: Unary, control: u16, a: X87Reg) -> (X87Reg, u16) {
    let mut a = a;
    macro_rules! run {
        ($line:literal) => {
            fpu!(control; ["fld tbyte ptr [{a}]", $line] then ["fstp tbyte ptr [{a}]"]
                a = &raw mut a)
        };
    }
    let sw = match op {
        Unary::F2xm1 => run!("f2xm1"),
        Unary::Sqrt => run!("fsqrt"),
        Unary::RndInt => run!("frndint"),
        Unary::Sin => run!("fsin"),
        Unary::Cos => run!("fcos"),
    };
    (a, sw)
}

/// An operation on ST(0) and ST(1): the one result and the status word.
pub fn binary(op: Binary, control: u16, st0: X87Reg, st1: X87Reg) -> (X87Reg, u16) {
    let mut out = st0;
    macro_rules! run {
        ($line:literal, [$($after:literal),*]) => {
            fpu!(control; ["fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]", $line]
                then ["fstp tbyte ptr [{a}]" $(, $after)*]
                a = &raw mut out, b = &raw const st1)
        };
    }
    let sw = match op {
        Binary::Scale => run!("fscale", ["fstp st(0)"]),
        Binary::Prem => run!("fprem", ["fstp st(0)"]),
        Binary::Prem1 => run!("fprem1", ["fstp st(0)"]),
        Binary::Yl2x => run!("fyl2x", []),
        Binary::Yl2xp1 => run!("fyl2xp1", []),
        Binary::Patan => run!("fpatan", []),
    };
    (out, sw)
}

/// An operation that pushes: what ST(0) becomes, what is pushed, and the status word. If its C2 is
/// set (for the trigonometric ones), ST(0) stays and nothing is pushed.
pub fn pair(op: Pair, control: u16, a: X87Reg) -> (X87Reg, X87Reg, u16) {
    let (mut first, mut pushed) = (a, X87Reg::ZERO);
    macro_rules! run {
        ($($line:literal),+) => {
            fpu!(control; ["fld tbyte ptr [{a}]" $(, $line)+]
                then ["test ah, 4", "jnz 5f", "fstp tbyte ptr [{b}]", "5:", "fstp tbyte ptr [{a}]"]
                a = &raw mut first, b = &raw mut pushed)
        };
    }
    let sw = match op {
        Pair::Ptan => run!("fptan"),
        Pair::SinCos => run!("fsincos"),
        // FXTRACT leaves C2 as it was: an FLDZ and FTST pair clears it.
        Pair::Xtract => {
            fpu!(control; ["fld tbyte ptr [{a}]", "fxtract"]
                then ["fstp tbyte ptr [{b}]", "fstp tbyte ptr [{a}]"]
                a = &raw mut first, b = &raw mut pushed)
        }
    };
    (first, pushed, sw)
}

/// A constant of D9 E8 to D9 ED by the low three bits of its opcode: 1, log2 10, log2 e, pi,
/// log10 2, ln 2, rounded as the control word says.
pub fn constant(n: u8, control: u16) -> X87Reg {
    let mut out = X87Reg::ONE;
    macro_rules! run {
        ($line:literal) => {
            fpu!(control; [$line] then ["fstp tbyte ptr [{out}]"] out = &raw mut out)
        };
    }
    match n {
        1 => run!("fldl2t"),
        2 => run!("fldl2e"),
        3 => run!("fldpi"),
        4 => run!("fldlg2"),
        5 => run!("fldln2"),
        _ => 0,
    };
    out
}
