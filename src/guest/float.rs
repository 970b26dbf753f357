//! Workloads in SSE2, written as compilers write it: scalar doubles, packed doubles and singles,
//! packed integers.

use super::DATA;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Order of the matrices.
const N: i32 = 72;
/// Bytes of a row.
const ROW: i32 = 8 * N;
/// Bytes of a matrix.
const MATRIX: i32 = ROW * N;

/// Loads a double constant through RAX.
fn constant(a: &mut CodeAssembler, to: AsmRegisterXmm, value: f64) -> Result<(), IcedError> {
    a.mov(rax, value.to_bits())?;
    a.movq(to, rax)
}

/// Fills two matrices from RBP on with small multiples of a half.
fn fill(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut next = a.create_label();
    constant(a, xmm1, 0.5)?;
    a.xor(ecx, ecx)?;
    a.set_label(&mut next)?;
    a.imul_3(eax, ecx, 7)?;
    a.and(eax, 15)?;
    a.inc(eax)?;
    a.cvtsi2sd(xmm0, eax)?;
    a.mulsd(xmm0, xmm1)?;
    a.movsd_2(qword_ptr(rbp + rcx * 8), xmm0)?;
    a.inc(rcx)?;
    a.cmp(rcx, 2 * N * N)?;
    a.jb(next)
}

/// Adds the doubles of the third matrix in XMM0 and gives the bits.
fn sum(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut next = a.create_label();
    a.pxor(xmm0, xmm0)?;
    a.xor(ecx, ecx)?;
    a.set_label(&mut next)?;
    a.addsd(xmm0, qword_ptr(rbp + rcx * 8 + 2 * MATRIX))?;
    a.inc(rcx)?;
    a.cmp(rcx, N * N)?;
    a.jb(next)?;
    a.movq(rax, xmm0)?;
    a.ret()
}

/// The product of two matrices of doubles, scalar: the innermost loop is a dot product.
pub(super) fn matmul(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut row, mut column, mut inner) = (a.create_label(), a.create_label(), a.create_label());
    a.mov(rbp, DATA)?;
    fill(a)?;
    a.mov(rbx, rbp)?;
    a.lea(r12, qword_ptr(rbp + MATRIX))?;
    a.lea(r13, qword_ptr(rbp + 2 * MATRIX))?;
    // rbx: the row of A; r13: the next element of C; r12: the end of A.
    a.set_label(&mut row)?;
    a.lea(r11, qword_ptr(rbx + ROW))?;
    a.xor(r10d, r10d)?;
    a.set_label(&mut column)?;
    a.lea(rdx, qword_ptr(rbp + r10 * 8 + MATRIX))?;
    a.mov(rcx, rbx)?;
    a.pxor(xmm1, xmm1)?;
    a.set_label(&mut inner)?;
    a.movsd_2(xmm0, qword_ptr(rcx))?;
    a.mulsd(xmm0, qword_ptr(rdx))?;
    a.add(rcx, 8)?;
    a.add(rdx, ROW)?;
    a.addsd(xmm1, xmm0)?;
    a.cmp(rcx, r11)?;
    a.jne(inner)?;
    a.movsd_2(qword_ptr(r13), xmm1)?;
    a.add(r13, 8)?;
    a.inc(r10)?;
    a.cmp(r10, N)?;
    a.jne(column)?;
    a.mov(rbx, r11)?;
    a.cmp(rbx, r12)?;
    a.jne(row)?;
    sum(a)
}

/// The same in packed doubles: a row of C is a sum of multiples of B's rows.
pub(super) fn matmul2(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut row, mut term, mut inner, mut clear) = (
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
    );
    a.mov(rbp, DATA)?;
    fill(a)?;
    a.mov(rbx, rbp)?;
    a.lea(r12, qword_ptr(rbp + MATRIX))?;
    a.lea(r13, qword_ptr(rbp + 2 * MATRIX))?;
    a.set_label(&mut row)?;
    a.lea(r11, qword_ptr(rbx + ROW))?;
    a.mov(rdx, r12)?;
    a.pxor(xmm0, xmm0)?;
    a.xor(eax, eax)?;
    a.set_label(&mut clear)?;
    a.movaps(xmmword_ptr(r13 + rax), xmm0)?;
    a.add(rax, 16)?;
    a.cmp(rax, ROW)?;
    a.jne(clear)?;
    // rbx: the factor; rdx: the row of B.
    a.set_label(&mut term)?;
    a.movsd_2(xmm1, qword_ptr(rbx))?;
    a.unpcklpd(xmm1, xmm1)?;
    a.xor(eax, eax)?;
    a.set_label(&mut inner)?;
    a.movapd(xmm0, xmmword_ptr(rdx + rax))?;
    a.mulpd(xmm0, xmm1)?;
    a.addpd(xmm0, xmmword_ptr(r13 + rax))?;
    a.movaps(xmmword_ptr(r13 + rax), xmm0)?;
    a.add(rax, 16)?;
    a.cmp(rax, ROW)?;
    a.jne(inner)?;
    a.add(rbx, 8)?;
    a.add(rdx, ROW)?;
    a.cmp(rbx, r11)?;
    a.jne(term)?;
    a.add(r13, ROW)?;
    a.cmp(rbx, r12)?;
    a.jne(row)?;
    sum(a)
}

/// Bytes of a body: position, velocity, mass.
const BODY: i32 = 56;
/// How many bodies.
const BODIES: i32 = 5;
/// Steps in a call.
const STEPS: i32 = 2000;

/// Bodies that attract each other: differences, a square root and a division for each pair, and
/// stores.
pub(super) fn nbody(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut step, mut outer, mut inner, mut last, mut moving, mut first) = (
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
    );
    a.mov(rbp, DATA)?;
    // Places and masses from a counter.
    constant(a, xmm1, 0.37)?;
    a.xor(ecx, ecx)?;
    a.set_label(&mut first)?;
    a.imul_3(eax, ecx, 29)?;
    a.and(eax, 31)?;
    a.inc(eax)?;
    a.cvtsi2sd(xmm0, eax)?;
    a.mulsd(xmm0, xmm1)?;
    a.movsd_2(qword_ptr(rbp + rcx * 8), xmm0)?;
    a.inc(rcx)?;
    a.cmp(rcx, 7 * BODIES)?;
    a.jb(first)?;
    constant(a, xmm15, 0.001)?;
    a.mov(r8d, STEPS)?;
    a.lea(r9, qword_ptr(rbp + BODY * BODIES))?;
    a.set_label(&mut step)?;
    a.mov(rsi, rbp)?;
    a.set_label(&mut outer)?;
    a.lea(rdi, qword_ptr(rsi + BODY))?;
    a.cmp(rdi, r9)?;
    a.je(last)?;
    a.set_label(&mut inner)?;
    a.movsd_2(xmm0, qword_ptr(rsi))?;
    a.subsd(xmm0, qword_ptr(rdi))?;
    a.movsd_2(xmm1, qword_ptr(rsi + 8))?;
    a.subsd(xmm1, qword_ptr(rdi + 8))?;
    a.movsd_2(xmm2, qword_ptr(rsi + 16))?;
    a.subsd(xmm2, qword_ptr(rdi + 16))?;
    a.movapd(xmm3, xmm0)?;
    a.mulsd(xmm3, xmm0)?;
    a.movapd(xmm4, xmm1)?;
    a.mulsd(xmm4, xmm1)?;
    a.addsd(xmm3, xmm4)?;
    a.movapd(xmm4, xmm2)?;
    a.mulsd(xmm4, xmm2)?;
    a.addsd(xmm3, xmm4)?;
    a.sqrtsd(xmm4, xmm3)?;
    a.mulsd(xmm3, xmm4)?;
    a.movapd(xmm5, xmm15)?;
    a.divsd(xmm5, xmm3)?;
    a.movsd_2(xmm6, qword_ptr(rdi + 48))?;
    a.mulsd(xmm6, xmm5)?;
    a.mulsd(xmm5, qword_ptr(rsi + 48))?;
    for (n, d) in [xmm0, xmm1, xmm2].into_iter().enumerate() {
        let at = 24 + 8 * n as i32;
        a.movapd(xmm7, d)?;
        a.mulsd(xmm7, xmm6)?;
        a.movsd_2(xmm8, qword_ptr(rsi + at))?;
        a.subsd(xmm8, xmm7)?;
        a.movsd_2(qword_ptr(rsi + at), xmm8)?;
        a.mulsd(d, xmm5)?;
        a.addsd(d, qword_ptr(rdi + at))?;
        a.movsd_2(qword_ptr(rdi + at), d)?;
    }
    a.add(rdi, BODY)?;
    a.cmp(rdi, r9)?;
    a.jne(inner)?;
    a.add(rsi, BODY)?;
    a.jmp(outer)?;
    a.set_label(&mut last)?;
    a.mov(rsi, rbp)?;
    a.set_label(&mut moving)?;
    for at in [0, 8, 16] {
        a.movsd_2(xmm0, qword_ptr(rsi + at + 24))?;
        a.mulsd(xmm0, xmm15)?;
        a.addsd(xmm0, qword_ptr(rsi + at))?;
        a.movsd_2(qword_ptr(rsi + at), xmm0)?;
    }
    a.add(rsi, BODY)?;
    a.cmp(rsi, r9)?;
    a.jne(moving)?;
    a.dec(r8d)?;
    a.jne(step)?;
    a.movsd_2(xmm0, qword_ptr(rbp))?;
    a.addsd(xmm0, qword_ptr(rbp + BODY + 8))?;
    a.movq(rax, xmm0)?;
    a.ret()
}

/// The points of the Mandelbrot set on a grid: comparisons that branch.
pub(super) fn mandelbrot(a: &mut CodeAssembler) -> Result<(), IcedError> {
    const SIDE: i32 = 64;
    const LIMIT: i32 = 100;
    let (mut row, mut column, mut again, mut out, mut inside) = (
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
    );
    constant(a, xmm8, 4.0)?;
    constant(a, xmm9, 3.0 / f64::from(SIDE))?;
    constant(a, xmm10, -2.0)?;
    constant(a, xmm11, -1.5)?;
    a.xor(esi, esi)?;
    a.xor(r8d, r8d)?;
    a.set_label(&mut row)?;
    a.cvtsi2sd(xmm1, r8d)?;
    a.mulsd(xmm1, xmm9)?;
    a.addsd(xmm1, xmm11)?;
    a.xor(r9d, r9d)?;
    a.set_label(&mut column)?;
    a.cvtsi2sd(xmm0, r9d)?;
    a.mulsd(xmm0, xmm9)?;
    a.addsd(xmm0, xmm10)?;
    a.pxor(xmm2, xmm2)?;
    a.pxor(xmm3, xmm3)?;
    a.mov(ecx, LIMIT)?;
    a.set_label(&mut again)?;
    a.movapd(xmm4, xmm2)?;
    a.mulsd(xmm4, xmm2)?;
    a.movapd(xmm5, xmm3)?;
    a.mulsd(xmm5, xmm3)?;
    a.movapd(xmm6, xmm4)?;
    a.addsd(xmm6, xmm5)?;
    a.comisd(xmm6, xmm8)?;
    a.ja(out)?;
    a.addsd(xmm2, xmm2)?;
    a.mulsd(xmm3, xmm2)?;
    a.addsd(xmm3, xmm1)?;
    a.subsd(xmm4, xmm5)?;
    a.addsd(xmm4, xmm0)?;
    a.movapd(xmm2, xmm4)?;
    a.dec(ecx)?;
    a.jne(again)?;
    a.inc(esi)?;
    a.jmp(inside)?;
    a.set_label(&mut out)?;
    a.add(esi, ecx)?;
    a.set_label(&mut inside)?;
    a.inc(r9d)?;
    a.cmp(r9d, SIDE)?;
    a.jne(column)?;
    a.inc(r8d)?;
    a.cmp(r8d, SIDE)?;
    a.jne(row)?;
    a.mov(eax, esi)?;
    a.ret()
}

/// Bytes of the arrays of the packed kernels.
const ARRAY: i32 = 32 << 10;

/// y := y * k + x in packed singles, with a limit from above and a sum.
pub(super) fn saxpy(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut first, mut pass, mut next) = (a.create_label(), a.create_label(), a.create_label());
    a.mov(rbp, DATA)?;
    a.xor(ecx, ecx)?;
    a.set_label(&mut first)?;
    a.mov(eax, ecx)?;
    a.and(eax, 255)?;
    a.cvtsi2ss(xmm0, eax)?;
    a.movss(dword_ptr(rbp + rcx * 4), xmm0)?;
    a.inc(rcx)?;
    a.cmp(rcx, ARRAY / 2)?;
    a.jb(first)?;
    a.mov(eax, 0.75f32.to_bits())?;
    a.movd(xmm6, eax)?;
    a.shufps(xmm6, xmm6, 0)?;
    a.mov(eax, 1000f32.to_bits())?;
    a.movd(xmm7, eax)?;
    a.shufps(xmm7, xmm7, 0)?;
    a.pxor(xmm5, xmm5)?;
    a.mov(r8d, 8)?;
    a.set_label(&mut pass)?;
    a.xor(ecx, ecx)?;
    a.set_label(&mut next)?;
    a.movaps(xmm0, xmmword_ptr(rbp + rcx))?;
    a.movaps(xmm1, xmmword_ptr(rbp + rcx + ARRAY))?;
    a.mulps(xmm1, xmm6)?;
    a.addps(xmm1, xmm0)?;
    a.minps(xmm1, xmm7)?;
    a.addps(xmm5, xmm1)?;
    a.movaps(xmmword_ptr(rbp + rcx + ARRAY), xmm1)?;
    a.add(rcx, 16)?;
    a.cmp(rcx, ARRAY)?;
    a.jne(next)?;
    a.dec(r8d)?;
    a.jne(pass)?;
    a.cvttps2dq(xmm5, xmm5)?;
    a.movq(rax, xmm5)?;
    a.ret()
}

/// Two arrays of bytes: averages, differences summed, words multiplied and added, saturation.
pub(super) fn pixels(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut first, mut pass, mut next) = (a.create_label(), a.create_label(), a.create_label());
    a.mov(rbp, DATA)?;
    a.xor(ecx, ecx)?;
    a.mov(eax, 1)?;
    a.set_label(&mut first)?;
    a.imul_3(eax, eax, 1_664_525)?;
    a.add(eax, 1_013_904_223)?;
    a.mov(dword_ptr(rbp + rcx), eax)?;
    a.add(rcx, 4)?;
    a.cmp(rcx, 2 * ARRAY)?;
    a.jb(first)?;
    a.pxor(xmm5, xmm5)?;
    a.pxor(xmm6, xmm6)?;
    a.pxor(xmm7, xmm7)?;
    a.mov(r8d, 8)?;
    a.set_label(&mut pass)?;
    a.xor(ecx, ecx)?;
    a.set_label(&mut next)?;
    a.movdqa(xmm0, xmmword_ptr(rbp + rcx))?;
    a.movdqa(xmm1, xmmword_ptr(rbp + rcx + ARRAY))?;
    a.movdqa(xmm2, xmm0)?;
    a.psadbw(xmm2, xmm1)?;
    a.paddq(xmm5, xmm2)?;
    a.pavgb(xmm0, xmm1)?;
    a.movdqa(xmm3, xmm0)?;
    a.punpcklbw(xmm0, xmm7)?;
    a.punpckhbw(xmm3, xmm7)?;
    a.pmaddwd(xmm0, xmm3)?;
    a.paddd(xmm6, xmm0)?;
    a.psrlw(xmm3, 2)?;
    a.packuswb(xmm3, xmm3)?;
    a.paddusb(xmm3, xmm1)?;
    a.movdqa(xmmword_ptr(rbp + rcx + ARRAY), xmm3)?;
    a.add(rcx, 16)?;
    a.cmp(rcx, ARRAY)?;
    a.jne(next)?;
    a.dec(r8d)?;
    a.jne(pass)?;
    a.paddq(xmm5, xmm6)?;
    a.movq(rax, xmm5)?;
    a.ret()
}
