//! Handlers of loads, stores and atomics.

use super::code::{Context, Handler, Ins, Int, put, rd};
use super::int::with_type;
use crate::memory::Scalar;
use metaphrase_ir::{RmwOp, Type};
use std::sync::atomic::{Ordering, fence};

/// How a load or store forms its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// `a + imm`.
    Base,
    /// `a + (b << scale) + disp`, with the scale in the high and disp (signed) in the low half of
    /// `imm`.
    Index,
    /// `Base`, modulo 2^32.
    Base32,
    /// `Index`, modulo 2^32.
    Index32,
    /// `imm`.
    Absolute,
}

const BASE: u8 = Mode::Base as u8;
const INDEX: u8 = Mode::Index as u8;
const BASE32: u8 = Mode::Base32 as u8;
const INDEX32: u8 = Mode::Index32 as u8;
const ABSOLUTE: u8 = Mode::Absolute as u8;

/// The linear address.
#[inline(always)]
unsafe fn address<const M: u8>(i: &Ins, st: *mut u8) -> u64 {
    let disp = i.imm as i32 as u32;
    let scale = (i.imm >> 32) as u32 & 3;
    // SAFETY: see `Handler`.
    unsafe {
        match M {
            BASE => rd::<u64>(st, i.a).wrapping_add(i.imm),
            INDEX => rd::<u64>(st, i.a)
                .wrapping_add(rd::<u64>(st, i.b) << scale)
                .wrapping_add(disp as i32 as u64),
            BASE32 => u64::from(rd::<u32>(st, i.a).wrapping_add(disp)),
            INDEX32 => u64::from(
                rd::<u32>(st, i.a)
                    .wrapping_add(rd::<u32>(st, i.b) << scale)
                    .wrapping_add(disp),
            ),
            _ => i.imm,
        }
    }
}

/// With `U` it needs the right to write.
unsafe fn load<T: Int, const M: u8, const U: bool>(
    ip: *const Ins,
    st: *mut u8,
    cx: *mut Context<'_>,
) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let (memory, at) = (&(*cx).memory, address::<M>(i, st));
        let value = if U {
            memory.read_update::<T>(at)
        } else {
            memory.read::<T>(at)
        };
        match value {
            Ok(v) => put::<u64>(st, i.d, v.wide()),
            Err(fault) => return (*cx).fault(ip, st, fault),
        }
        ip.add(1)
    }
}

unsafe fn load128<const M: u8, const U: bool>(
    ip: *const Ins,
    st: *mut u8,
    cx: *mut Context<'_>,
) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let (memory, at) = (&(*cx).memory, address::<M>(i, st));
        let value = if U {
            memory.read_update::<u128>(at)
        } else {
            memory.read::<u128>(at)
        };
        match value {
            Ok(v) => put::<u128>(st, i.d, v),
            Err(fault) => return (*cx).fault(ip, st, fault),
        }
        ip.add(1)
    }
}

unsafe fn store<T: Scalar, const M: u8>(
    ip: *const Ins,
    st: *mut u8,
    cx: *mut Context<'_>,
) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        match (*cx)
            .memory
            .write::<T>(address::<M>(i, st), rd::<T>(st, i.d))
        {
            Ok(()) => ip.add(1),
            Err(fault) => (*cx).fault(ip, st, fault),
        }
    }
}

/// Evaluates to `$e` with the constant `$m` holding the mode's number.
macro_rules! with_mode {
    ($mode:expr, $m:ident => $e:expr) => {
        match $mode {
            Mode::Base => {
                const $m: u8 = BASE;
                $e
            }
            Mode::Index => {
                const $m: u8 = INDEX;
                $e
            }
            Mode::Base32 => {
                const $m: u8 = BASE32;
                $e
            }
            Mode::Index32 => {
                const $m: u8 = INDEX32;
                $e
            }
            Mode::Absolute => {
                const $m: u8 = ABSOLUTE;
                $e
            }
        }
    };
}

/// The handler of a load; `update`: one that needs the right to write.
pub(super) fn loading(ty: Type, mode: Mode, update: bool) -> Handler {
    match (ty == Type::V128, update) {
        (true, false) => with_mode!(mode, M => load128::<M, false> as Handler),
        (true, true) => with_mode!(mode, M => load128::<M, true> as Handler),
        (false, false) => {
            with_mode!(mode, M => with_type!(ty, T => load::<T, M, false> as Handler))
        }
        (false, true) => with_mode!(mode, M => with_type!(ty, T => load::<T, M, true> as Handler)),
    }
}

/// The handler of a store.
pub(super) fn storing(ty: Type, mode: Mode) -> Handler {
    if ty == Type::V128 {
        return with_mode!(mode, M => store::<u128, M> as Handler);
    }
    with_mode!(mode, M => with_type!(ty, T => store::<T, M> as Handler))
}

/// `d = ` old memory at `a`, combined with `b` by [`RmwOp`] `imm`.
unsafe fn rmw<T: Int>(ip: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let (at, value) = (rd::<u64>(st, i.a), rd::<T>(st, i.b));
        match (*cx).memory.rmw::<T>(RmwOp::from_imm(i.imm), at, value) {
            Ok(v) => put::<u64>(st, i.d, v.wide()),
            Err(fault) => return (*cx).fault(ip, st, fault),
        }
        ip.add(1)
    }
}

/// The handler of `rmw`.
pub(super) fn modifying(ty: Type) -> Handler {
    with_type!(ty, T => rmw::<T> as Handler)
}

/// `d = ` old memory at `a`, replaced by slot `imm` if equal to `b`.
unsafe fn cas<T: Int>(ip: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let (at, old, new) = (
            rd::<u64>(st, i.a),
            rd::<T>(st, i.b),
            rd::<T>(st, i.imm as u16),
        );
        match (*cx).memory.cas::<T>(at, old, new) {
            Ok(v) => put::<u64>(st, i.d, v.wide()),
            Err(fault) => return (*cx).fault(ip, st, fault),
        }
        ip.add(1)
    }
}

unsafe fn cas128(ip: *const Ins, st: *mut u8, cx: *mut Context<'_>) -> *const Ins {
    // SAFETY: see `Handler`.
    unsafe {
        let i = &*ip;
        let (at, old, new) = (
            rd::<u64>(st, i.a),
            rd::<u128>(st, i.b),
            rd::<u128>(st, i.imm as u16),
        );
        match (*cx).memory.cas128(at, old, new) {
            Ok(v) => put::<u128>(st, i.d, v),
            Err(fault) => return (*cx).fault(ip, st, fault),
        }
        ip.add(1)
    }
}

/// The handler of `cas`.
pub(super) fn swapping(ty: Type) -> Handler {
    if ty == Type::V128 {
        return cas128;
    }
    with_type!(ty, T => cas::<T> as Handler)
}

/// A full barrier.
pub(super) unsafe fn barrier(ip: *const Ins, _: *mut u8, _: *mut Context<'_>) -> *const Ins {
    fence(Ordering::SeqCst);
    // SAFETY: see `Handler`.
    unsafe { ip.add(1) }
}
