//! The worst cases of floating point for a translator: the x87, whose registers no host has under
//! these names, and code that looks at MXCSR's exception flags after every few operations.

use super::DATA;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Points on a side of the grid.
const SIDE: i32 = 48;
/// Rounds that a point gets.
const LIMIT: i32 = 100;

/// The Mandelbrot set again, on the x87's stack: loads, exchanges, arithmetic, a comparison that
/// branches, pops.
pub(super) fn x87(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut row, mut column, mut again, mut out, mut inside) = (
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
    );
    a.mov(rbp, DATA)?;
    // A place for an integer, then constants.
    for (n, value) in [4.0, 3.0 / f64::from(SIDE), -2.0, -1.5].iter().enumerate() {
        a.mov(rax, value.to_bits())?;
        a.mov(qword_ptr(rbp + 8 * (n as i32 + 1)), rax)?;
    }
    let [number, four, scale, left, bottom] = [0, 8, 16, 24, 32].map(|at| qword_ptr(rbp + at));
    a.fninit()?;
    a.xor(esi, esi)?;
    a.xor(r8d, r8d)?;
    a.set_label(&mut row)?;
    a.xor(r9d, r9d)?;
    a.set_label(&mut column)?;
    for (index, origin) in [(r8, bottom), (r9, left)] {
        a.mov(number, index)?;
        a.fild(number)?;
        a.fmul(scale)?;
        a.fadd(origin)?;
    }
    a.fldz()?;
    a.fldz()?;
    a.mov(ecx, LIMIT)?;
    // ST: x, y, left, bottom.
    a.set_label(&mut again)?;
    a.fld(st0)?;
    a.fmul_2(st0, st0)?;
    a.fld(st2)?;
    a.fmul_2(st0, st0)?;
    a.fld(st1)?;
    a.fadd_2(st0, st1)?;
    a.fld(four)?;
    a.fcomip(st0, st1)?;
    a.fstp(st0)?;
    a.jb(out)?;
    a.fsubp(st1, st0)?;
    a.fadd_2(st0, st3)?;
    a.fxch(st0, st1)?;
    a.fadd_2(st0, st0)?;
    a.fmulp(st2, st0)?;
    a.fxch(st0, st1)?;
    a.fadd_2(st0, st3)?;
    a.fxch(st0, st1)?;
    a.dec(ecx)?;
    a.jne(again)?;
    a.inc(esi)?;
    a.jmp(inside)?;
    a.set_label(&mut out)?;
    a.add(esi, ecx)?;
    a.fstp(st0)?;
    a.fstp(st0)?;
    a.set_label(&mut inside)?;
    for _ in 0..4 {
        a.fstp(st0)?;
    }
    a.inc(r9d)?;
    a.cmp(r9d, SIDE)?;
    a.jne(column)?;
    a.inc(r8d)?;
    a.cmp(r8d, SIDE)?;
    a.jne(row)?;
    a.mov(eax, esi)?;
    a.ret()
}

/// Clears MXCSR's flags, multiplies, adds and converts, and counts the flags that this has set, for
/// each of 20,000 numbers.
pub(super) fn mxcsr(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.mov(rbp, DATA)?;
    a.mov(dword_ptr(rbp), 0x1f80)?;
    for (to, value) in [(xmm2, 1.0 / 3.0), (xmm3, 0.5)] {
        a.mov(rax, f64::to_bits(value))?;
        a.movq(to, rax)?;
    }
    a.xor(esi, esi)?;
    a.mov(ecx, 20_000)?;
    a.set_label(&mut again)?;
    a.ldmxcsr(dword_ptr(rbp))?;
    a.cvtsi2sd(xmm0, ecx)?;
    a.mulsd(xmm0, xmm3)?;
    a.movapd(xmm1, xmm0)?;
    a.mulsd(xmm1, xmm2)?;
    a.addsd(xmm1, xmm0)?;
    a.cvttsd2si(edx, xmm0)?;
    a.stmxcsr(dword_ptr(rbp + 4))?;
    a.mov(eax, dword_ptr(rbp + 4))?;
    a.and(eax, 0x3f)?;
    a.add(esi, eax)?;
    a.add(esi, edx)?;
    a.dec(ecx)?;
    a.jne(again)?;
    a.mov(eax, esi)?;
    a.ret()
}
