//! Page faults in the middle of a hot loop that keeps many registers busy: a SIGSEGV handler
//! writes the registers of its frame, moves the pointer and goes on. Native code and every engine
//! must say the same, and go on alike.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod command;

use command::*;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use metaphrase::guest::{DATA, DATA_BYTES};
use std::process::Command;

/// Offsets in the frame that Linux gives a handler.
const UC_GREGS: i32 = 40;
const UC_RBP: i32 = UC_GREGS + 10 * 8;
const UC_RIP: i32 = UC_GREGS + 16 * 8;
const UC_EFLAGS: i32 = UC_GREGS + 17 * 8;
const UC_ERR: i32 = UC_GREGS + 19 * 8;
const UC_CR2: i32 = UC_GREGS + 22 * 8;
const UC_FPREGS: i32 = UC_GREGS + 23 * 8;
const FP_XMM: i32 = 160;
/// Where the handler collects what it writes; below it the `sigaction`.
const BUFFER: i32 = 128;
const BUFFER_BYTES: i32 = 15 * 8 + 4 * 8 + 5 * 16;
const FAULTS: i32 = 4;

type Access = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// What accesses memory at RBP first in each round.
const ACCESSES: [Access; 6] = [
    |a| a.mov(rax, qword_ptr(rbp)),
    |a| a.mov(qword_ptr(rbp), rbx),
    |a| a.add(qword_ptr(rbp), r10),
    |a| a.adc(r9, qword_ptr(rbp)),
    |a| a.addsd(xmm2, qword_ptr(rbp)),
    |a| a.movups(xmmword_ptr(rbp + 4), xmm1),
];

/// The handler and its installation; execution goes on behind.
fn prepare(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut handler, mut restorer, mut start, mut more) = (
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
    );
    a.jmp(start)?;
    a.set_label(&mut handler)?;
    a.mov(r8, rdx)?;
    a.mov(r9d, DATA as u32)?;
    // R8 to R15, RDI, RSI, RBP, RBX, RDX, RAX, RCX; the stack is elsewhere in every run.
    for n in 0..15 {
        a.mov(rax, qword_ptr(r8 + UC_GREGS + n * 8))?;
        a.mov(qword_ptr(r9 + BUFFER + n * 8), rax)?;
    }
    let mut at = BUFFER + 15 * 8;
    for from in [UC_RIP, UC_EFLAGS, UC_ERR, UC_CR2] {
        a.mov(rax, qword_ptr(r8 + from))?;
        if from == UC_EFLAGS {
            // The arithmetic flags and DF; RF is a matter of how the fault was taken.
            a.and(eax, 0xcd5)?;
        }
        if from == UC_ERR {
            // In user mode an operand that is read and then written faults as a read.
            a.and(eax, 5)?;
        }
        a.mov(qword_ptr(r9 + at), rax)?;
        at += 8;
    }
    a.mov(r10, qword_ptr(r8 + UC_FPREGS))?;
    for n in 0..5 {
        a.movups(xmm8, xmmword_ptr(r10 + FP_XMM + n * 16))?;
        a.movups(xmmword_ptr(r9 + at), xmm8)?;
        at += 16;
    }
    assert_eq!(at, BUFFER + BUFFER_BYTES);
    // The walk goes on some pages back.
    a.mov(rax, DATA + DATA_BYTES - 0x3000)?;
    a.mov(qword_ptr(r8 + UC_RBP), rax)?;
    a.mov(eax, 1)?;
    a.mov(edi, 1)?;
    a.lea(rsi, qword_ptr(r9 + BUFFER))?;
    a.mov(edx, BUFFER_BYTES)?;
    a.syscall()?;
    a.dec(dword_ptr(r9 + 64))?;
    a.jne(more)?;
    exit(a, 0)?;
    a.set_label(&mut more)?;
    a.ret()?;
    a.set_label(&mut restorer)?;
    a.mov(eax, 15)?; // rt_sigreturn
    a.syscall()?;
    a.set_label(&mut start)?;
    install_handler(a, DATA, 11, handler, restorer)?; // SIGSEGV
    a.mov(dword_ptr(rbx + 64), FAULTS)
}

fn walk(a: &mut CodeAssembler, access: Access) -> Result<(), IcedError> {
    prepare(a)?;
    let mut again = a.create_label();
    for (n, r) in [
        rax, rbx, rcx, rdx, rsi, rdi, r8, r9, r10, r11, r12, r14, r15,
    ]
    .into_iter()
    .enumerate()
    {
        a.mov(r, 0x1234_5678_9abc_def1u64.wrapping_mul(2 * n as u64 + 1))?;
    }
    a.movq(xmm1, rax)?;
    a.movq(xmm2, rbx)?;
    a.xorps(xmm3, xmm3)?;
    a.cvtsi2sd(xmm3, r12d)?;
    a.cvtsi2sd(xmm2, r11d)?;
    // Laps over the same pages, often enough to be compiled, then beyond the end.
    a.mov(r15d, 60)?;
    let (mut lap, mut beyond) = (a.create_label(), a.create_label());
    a.set_label(&mut lap)?;
    a.mov(rbp, DATA + DATA_BYTES - 0x8000)?;
    a.mov(r13, DATA + DATA_BYTES)?;
    a.dec(r15d)?;
    a.jne(again)?;
    a.set_label(&mut beyond)?;
    a.mov(r13, -1i64)?;
    a.set_label(&mut again)?;
    access(a)?;
    a.add(rbx, rax)?;
    a.lea(rcx, qword_ptr(rcx + rbx * 2 + 7))?;
    a.xor(r8, rcx)?;
    a.adc(r9, r8)?;
    a.movq(xmm0, r9)?;
    a.paddq(xmm1, xmm0)?;
    a.sub(r10, r9)?;
    a.mov(qword_ptr(rbp + 8), r10)?;
    a.addsd(xmm2, xmm3)?;
    a.movss(xmm4, xmm2)?;
    a.ror(r11, 5)?;
    a.inc(r12)?;
    a.add(r14b, r12b)?;
    a.add(rbp, 16)?;
    a.cmp(rbp, r13)?;
    a.jb(again)?;
    a.jmp(lap)
}

#[test]
fn handlers_see_the_registers_of_hot_loops() {
    for (n, access) in ACCESSES.into_iter().enumerate() {
        let scratch = Scratch::new();
        let path = scratch.guest(|a| walk(a, access));
        let native = Command::new(&path).output().expect("the program starts");
        assert!(native.status.success(), "access {n}: {:?}", native.status);
        assert_eq!(native.stdout.len(), (FAULTS * BUFFER_BYTES) as usize);
        for engine in ENGINES {
            let mut args = vec!["user"];
            args.extend(engine);
            args.push(&path);
            let out = metaphrase(&args);
            assert!(out.status.success(), "{n}, {engine:?}: {}", stderr(&out));
            let words = |bytes: &[u8]| -> Vec<String> {
                let words = bytes.chunks(8).map(|w| w.try_into().expect("8 bytes"));
                words
                    .map(|w| format!("{:x}", u64::from_le_bytes(w)))
                    .collect()
            };
            let (is, was) = (words(&out.stdout), words(&native.stdout));
            assert_eq!(is, was, "access {n}, {engine:?}");
        }
    }
}
