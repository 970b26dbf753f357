//! The guest's x87 registers in the host's FPU, where compiled code works on them (see the
//! backend's `lower/x87.rs`), and their way back into the state.
//!
//! They are there only while compiled code runs, every exception is masked, none is pending, and
//! the host's FPU is to be used at all. The pointers to the last instruction and the control word
//! stay in the state.

use super::stack::{EXCEPTIONS, SF};
use crate::helpers::TABLE;
use crate::state::{CpuState, X87Reg, X87State};
use metaphrase_ir::Helper;
use std::arch::asm;
use std::ffi::c_void;

/// An image as FNSAVE has it.
type Image = [u8; 108];

/// Where the registers are in it.
const REGISTERS: usize = 28;

/// Brings the registers into the state. Compiled code and the trampoline call it.
pub unsafe extern "C" fn leave(state: *mut c_void, _: u64, _: u64, _: u64, _: u64) -> u64 {
    // SAFETY: the caller passes its valid state, to which there is no other reference.
    bring_back(unsafe { &mut *state.cast::<CpuState>() });
    0
}

/// [`Helper::X87`] in compiled code that does x87 instructions itself.
pub unsafe extern "C" fn x87(state: *mut c_void, descriptor: u64, a: u64, b: u64, c: u64) -> u64 {
    // SAFETY: the caller passes its valid state, to which there is no other reference now.
    bring_back(unsafe { &mut *state.cast::<CpuState>() });
    // SAFETY: handed on.
    let result = unsafe { TABLE.helpers[Helper::X87 as usize](state, descriptor, a, b, c) };
    // SAFETY: as above.
    let s = unsafe { &mut *state.cast::<CpuState>() };
    let masked = s.x87.control & EXCEPTIONS == EXCEPTIONS;
    if s.exit_reason == 0 && s.x87.portable == 0 && masked && s.x87.status & super::ES == 0 {
        load(&s.x87);
        s.x87.live = 1;
    }
    result
}

/// Puts the registers into the host's FPU.
fn load(f: &X87State) {
    let mut image: Image = [0; 108];
    let tags = (0..8).fold(0u16, |word, n| {
        let empty = f.tags >> n & 1 == 0;
        word | if empty { 3 << (2 * n) } else { 0 }
    });
    let words = [f.control, f.status_word(), tags];
    for (bytes, word) in image.chunks_mut(4).zip(words) {
        bytes[..2].copy_from_slice(&word.to_le_bytes());
    }
    for (i, bytes) in image[REGISTERS..].chunks_mut(10).enumerate() {
        let reg = f.st(i as u8);
        bytes[..8].copy_from_slice(&reg.mantissa.to_le_bytes());
        bytes[8..].copy_from_slice(&(reg.exponent as u16).to_le_bytes());
    }
    // SAFETY: FRSTOR reads 108 bytes. No Rust code uses the x87, nor expects anything of it but an
    // empty stack and its control word, which `bring_back` restores before Rust code runs that is
    // not a helper; helpers that use the x87 call it first. Nothing is unmasked.
    unsafe { asm!("frstor [{}]", in(reg) &raw const image, options(nostack, readonly)) };
}

/// Takes the registers out of the host's FPU, if they are there, and leaves that as Rust wants it.
#[inline(always)]
pub fn bring_back(s: &mut CpuState) {
    if s.x87.live != 0 {
        take(s);
    }
}

#[cold]
#[inline(never)]
fn take(s: &mut CpuState) {
    let mut image: Image = [0; 108];
    // SAFETY: FNSAVE writes 108 bytes, and then resets the FPU.
    unsafe { asm!("fnsave [{}]", in(reg) &raw mut image, options(nostack)) };
    let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
    let (status, tags) = (word(4), word(8));
    let f = &mut s.x87;
    f.set_status_word(status);
    f.tags = 0;
    for n in 0..8 {
        f.tags |= u8::from(tags >> (2 * n) & 3 != 3) << n;
    }
    for (i, bytes) in image[REGISTERS..].chunks(10).enumerate() {
        let mantissa = u64::from_le_bytes(std::array::from_fn(|n| bytes[n]));
        let exponent = u64::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let n = usize::from(f.top.wrapping_add(i as u16) & 7);
        f.regs[n] = X87Reg { mantissa, exponent };
    }
    if std::mem::replace(&mut f.live, 0) == 2 {
        undo_store(s, status);
    }
}

/// Takes a store back whose memory access was refused. The status word of before is in the scratch
/// space, with the environment behind it if there had been a stack fault before. If the store popped,
/// the register is in use again, unless it was empty.
fn undo_store(s: &mut CpuState, after: u16) {
    let [_, before, environment, _] = s.helper_v;
    let before = before as u16;
    let f = &mut s.x87;
    f.set_status_word(before);
    let popped = (before ^ after) >> 11 & 7 != 0;
    let was_empty = if before & SF != 0 {
        let tags = (environment >> 64) as u16;
        tags >> (2 * f.top) & 3 == 3
    } else {
        after & SF != 0
    };
    if popped && !was_empty {
        f.set(0, f.st(0));
    }
}
