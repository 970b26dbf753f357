//! The workloads: small programs that stress different parts of a translator.
//!
//! Each is a function that may use every register but RSP, R14 and R15, and data from
//! [`super::DATA`] on; it returns a checksum in RAX.

use super::{DATA, float, worst};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// A guest function with its name and how often the benches repeat it.
#[derive(Clone, Copy)]
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// What it stresses.
    pub about: &'static str,
    /// Repetitions that make about a quarter of a second of native work.
    pub repeat: u64,
    /// Emits the function.
    pub emit: fn(&mut CodeAssembler) -> Result<(), IcedError>,
}

impl std::fmt::Debug for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every workload.
pub const ALL: &[Workload] = &[
    Workload {
        name: "sieve",
        about: "byte stores in a short loop",
        repeat: 60,
        emit: sieve,
    },
    Workload {
        name: "crc",
        about: "shifts and branches in registers",
        repeat: 300,
        emit: crc,
    },
    Workload {
        name: "fib",
        about: "calls and returns",
        repeat: 240,
        emit: fib,
    },
    Workload {
        name: "sort",
        about: "loads, stores and callbacks",
        repeat: 40,
        emit: sort,
    },
    Workload {
        name: "icall",
        about: "indirect calls with changing targets",
        repeat: 1000,
        emit: icall,
    },
    Workload {
        name: "matmul",
        about: "scalar doubles, a dot product",
        repeat: 600,
        emit: float::matmul,
    },
    Workload {
        name: "matmul2",
        about: "packed doubles",
        repeat: 900,
        emit: float::matmul2,
    },
    Workload {
        name: "nbody",
        about: "square roots and divisions of doubles",
        repeat: 1000,
        emit: float::nbody,
    },
    Workload {
        name: "mandel",
        about: "comparisons of doubles that branch",
        repeat: 500,
        emit: float::mandelbrot,
    },
    Workload {
        name: "saxpy",
        about: "packed singles",
        repeat: 3000,
        emit: float::saxpy,
    },
    Workload {
        name: "pixels",
        about: "packed integers",
        repeat: 3000,
        emit: float::pixels,
    },
    Workload {
        name: "x87",
        about: "the x87's register stack",
        repeat: 300,
        emit: worst::x87,
    },
    Workload {
        name: "mxcsr",
        about: "exception flags of SSE, read after every few operations",
        repeat: 500,
        emit: worst::mxcsr,
    },
];

/// Counts the primes below 2^20.
fn sieve(a: &mut CodeAssembler) -> Result<(), IcedError> {
    const N: i32 = 1 << 20;
    let (mut outer, mut inner, mut next, mut clear, mut done) = (
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
    );
    a.mov(rdi, DATA)?;
    a.xor(ecx, ecx)?;
    a.set_label(&mut clear)?;
    a.mov(qword_ptr(rdi + rcx), 0)?;
    a.add(rcx, 8)?;
    a.cmp(rcx, N)?;
    a.jb(clear)?;
    a.xor(eax, eax)?;
    a.mov(ecx, 2)?;
    a.set_label(&mut outer)?;
    a.cmp(byte_ptr(rdi + rcx), 0)?;
    a.jne(next)?;
    a.inc(rax)?;
    a.lea(rdx, qword_ptr(rcx + rcx))?;
    a.cmp(rdx, N)?;
    a.jae(next)?;
    a.set_label(&mut inner)?;
    a.mov(byte_ptr(rdi + rdx), 1)?;
    a.add(rdx, rcx)?;
    a.cmp(rdx, N)?;
    a.jb(inner)?;
    a.set_label(&mut next)?;
    a.inc(rcx)?;
    a.cmp(rcx, N)?;
    a.jb(outer)?;
    a.set_label(&mut done)?;
    a.ret()
}

/// CRC-32 (reflected, bit by bit) of 32 KiB of a counter.
fn crc(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut byte, mut bit, mut even) = (a.create_label(), a.create_label(), a.create_label());
    a.mov(eax, -1)?;
    a.xor(ecx, ecx)?;
    a.set_label(&mut byte)?;
    a.movzx(edx, cl)?;
    a.xor(eax, edx)?;
    a.mov(esi, 8)?;
    a.set_label(&mut bit)?;
    a.shr(eax, 1)?;
    a.jae(even)?;
    a.xor(eax, 0xedb8_8320u32 as i32)?;
    a.set_label(&mut even)?;
    a.dec(esi)?;
    a.jne(bit)?;
    a.inc(ecx)?;
    a.cmp(ecx, 32 << 10)?;
    a.jb(byte)?;
    a.not(eax)?;
    a.ret()
}

/// fib(27), naively.
fn fib(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut f, mut small) = (a.create_label(), a.create_label());
    a.mov(edi, 27)?;
    a.set_label(&mut f)?;
    a.cmp(rdi, 2)?;
    a.jb(small)?;
    a.push(rbx)?;
    a.push(rdi)?;
    a.dec(rdi)?;
    a.call(f)?;
    a.mov(rbx, rax)?;
    a.pop(rdi)?;
    a.sub(rdi, 2)?;
    a.call(f)?;
    a.add(rax, rbx)?;
    a.pop(rbx)?;
    a.ret()?;
    a.set_label(&mut small)?;
    a.mov(rax, rdi)?;
    a.ret()
}

/// Shell sort of 16,384 pseudo-random words with a comparison callback.
fn sort(a: &mut CodeAssembler) -> Result<(), IcedError> {
    const N: i32 = 16 << 10;
    let (mut fill, mut gap, mut outer, mut inner, mut place, mut next, mut done) = (
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
    );
    let (mut compare, mut start, mut sum) = (a.create_label(), a.create_label(), a.create_label());
    a.jmp(start)?;
    // compare(rdi, rsi): al = 1 if rdi > rsi.
    a.set_label(&mut compare)?;
    a.cmp(rdi, rsi)?;
    a.seta(al)?;
    a.ret()?;
    a.set_label(&mut start)?;
    a.lea(r13, ptr(compare))?;
    a.mov(rbp, DATA)?;
    a.mov(eax, 12345)?;
    a.xor(ecx, ecx)?;
    a.set_label(&mut fill)?;
    a.imul_3(eax, eax, 1_103_515_245)?;
    a.add(eax, 12345)?;
    a.mov(edx, eax)?;
    a.shr(edx, 8)?;
    a.mov(qword_ptr(rbp + rcx * 8), rdx)?;
    a.inc(rcx)?;
    a.cmp(rcx, N)?;
    a.jb(fill)?;
    a.mov(r8d, N / 2)?;
    // r8: gap; r9: i; r10: j; r11: the word to place.
    a.set_label(&mut gap)?;
    a.mov(r9, r8)?;
    a.set_label(&mut outer)?;
    a.mov(r11, qword_ptr(rbp + r9 * 8))?;
    a.mov(r10, r9)?;
    a.set_label(&mut inner)?;
    a.cmp(r10, r8)?;
    a.jb(place)?;
    a.mov(rbx, r10)?;
    a.sub(rbx, r8)?;
    a.mov(rdi, qword_ptr(rbp + rbx * 8))?;
    a.mov(rsi, r11)?;
    a.call(r13)?;
    a.test(al, al)?;
    a.je(place)?;
    a.mov(rdi, qword_ptr(rbp + rbx * 8))?;
    a.mov(qword_ptr(rbp + r10 * 8), rdi)?;
    a.mov(r10, rbx)?;
    a.jmp(inner)?;
    a.set_label(&mut place)?;
    a.mov(qword_ptr(rbp + r10 * 8), r11)?;
    a.inc(r9)?;
    a.cmp(r9, N)?;
    a.jb(outer)?;
    a.shr(r8, 1)?;
    a.jne(gap)?;
    a.xor(eax, eax)?;
    a.xor(ecx, ecx)?;
    a.set_label(&mut sum)?;
    a.rol(rax, 1)?;
    a.xor(rax, qword_ptr(rbp + rcx * 8))?;
    a.inc(rcx)?;
    a.cmp(rcx, N)?;
    a.jb(sum)?;
    a.set_label(&mut next)?;
    a.nop()?;
    a.set_label(&mut done)?;
    a.ret()
}

/// 100,000 calls through a table of four functions.
fn icall(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut functions = [
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
    ];
    let (mut start, mut again) = (a.create_label(), a.create_label());
    a.jmp(start)?;
    for (n, label) in functions.iter_mut().enumerate() {
        a.set_label(label)?;
        match n {
            0 => a.add(rax, rcx)?,
            1 => a.xor(rax, rcx)?,
            2 => a.rol(rax, 5)?,
            _ => a.lea(rax, qword_ptr(rax + rax * 2 + 1))?,
        }
        a.ret()?;
    }
    a.set_label(&mut start)?;
    a.mov(rbp, DATA)?;
    for (n, label) in functions.iter().enumerate() {
        a.lea(rdx, ptr(*label))?;
        a.mov(qword_ptr(rbp + 8 * n as i32), rdx)?;
    }
    a.xor(eax, eax)?;
    a.xor(ecx, ecx)?;
    a.set_label(&mut again)?;
    a.mov(edx, ecx)?;
    a.shr(edx, 2)?;
    a.xor(edx, ecx)?;
    a.and(edx, 3)?;
    a.call(qword_ptr(rbp + rdx * 8))?;
    a.inc(rcx)?;
    a.cmp(rcx, 100_000)?;
    a.jb(again)?;
    a.ret()
}
