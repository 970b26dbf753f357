//! Unmasked SSE exceptions in user mode: a program whose SIGFPE handler writes `si_code` and the
//! MXCSR of its frame says the same natively and under every engine.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod command;

use command::*;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use metaphrase::guest::DATA;
use std::process::Command;

/// Offsets in the frame that Linux gives a handler.
const SI_CODE: i32 = 8;
const UC_RIP: i32 = 40 + 16 * 8;
const UC_FPREGS: i32 = 40 + 23 * 8;
const FP_MXCSR: i32 = 24;

type Operation = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// Two operands, the exceptions to unmask, and an instruction of four bytes on XMM0 and XMM1.
const CASES: [(f64, f64, u32, Operation); 8] = [
    (1.0, 0.0, 1 << 2, |a| a.divsd(xmm0, xmm1)),
    (0.0, 0.0, 1 << 0, |a| a.divsd(xmm0, xmm1)),
    (f64::MAX, 2.0, 1 << 3, |a| a.mulsd(xmm0, xmm1)),
    // Tiny and exact, which only an unmasked underflow minds.
    (f64::MIN_POSITIVE, 0.5, 1 << 4, |a| a.mulsd(xmm0, xmm1)),
    (1.0, 3.0, 1 << 5, |a| a.divsd(xmm0, xmm1)),
    (5e-324, 1.0, 1 << 1, |a| a.addsd(xmm0, xmm1)),
    (f64::NAN, 1.0, 1 << 0, |a| a.comisd(xmm0, xmm1)),
    // Nothing to raise: the other exceptions stay masked.
    (1.0, 3.0, 1 << 0 | 1 << 2, |a| a.divsd(xmm0, xmm1)),
];

fn emit(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut handler, mut restorer, mut start) =
        (a.create_label(), a.create_label(), a.create_label());
    a.jmp(start)?;
    a.set_label(&mut handler)?;
    // si_code and MXCSR, with RIP behind the instruction and everything masked afterwards.
    a.mov(r8, rdx)?;
    a.mov(r9, qword_ptr(r8 + UC_FPREGS))?;
    a.add(qword_ptr(r8 + UC_RIP), 4)?;
    a.mov(eax, dword_ptr(rsi + SI_CODE))?;
    a.mov(rbp, DATA)?;
    a.mov(dword_ptr(rbp + 64), eax)?;
    a.mov(eax, dword_ptr(r9 + FP_MXCSR))?;
    a.mov(dword_ptr(rbp + 68), eax)?;
    a.mov(dword_ptr(r9 + FP_MXCSR), 0x1f80)?;
    a.mov(eax, 1)?;
    a.mov(edi, 1)?;
    a.lea(rsi, qword_ptr(rbp + 64))?;
    a.mov(edx, 8)?;
    a.syscall()?;
    a.ret()?;
    a.set_label(&mut restorer)?;
    a.mov(eax, 15)?; // rt_sigreturn
    a.syscall()?;
    a.set_label(&mut start)?;
    install_handler(a, DATA, 8, handler, restorer)?; // SIGFPE
    for (x, y, unmasked, operation) in CASES {
        // Often enough to be compiled.
        let mut again = a.create_label();
        a.mov(r12d, 60)?;
        a.set_label(&mut again)?;
        a.mov(rax, x.to_bits())?;
        a.movq(xmm0, rax)?;
        a.mov(rax, y.to_bits())?;
        a.movq(xmm1, rax)?;
        a.mov(dword_ptr(rbx + 128), 0x1f80 & !(unmasked << 7))?;
        a.ldmxcsr(dword_ptr(rbx + 128))?;
        operation(a)?;
        a.stmxcsr(dword_ptr(rbx + 132))?;
        a.mov(dword_ptr(rbx + 128), 0x1f80)?;
        a.ldmxcsr(dword_ptr(rbx + 128))?;
        // What the destination holds, and MXCSR behind the instruction.
        a.movq(qword_ptr(rbx + 140), xmm0)?;
        a.mov(eax, 1)?;
        a.mov(edi, 1)?;
        a.lea(rsi, qword_ptr(rbx + 132))?;
        a.mov(edx, 16)?;
        a.syscall()?;
        a.dec(r12d)?;
        a.jne(again)?;
    }
    exit(a, 0)
}

#[test]
fn handlers_see_the_code_and_the_flags() {
    let scratch = Scratch::new();
    let path = scratch.guest(emit);
    let native = Command::new(&path).output().expect("the program starts");
    assert!(native.status.success());
    // Seven cases raise their exception 60 times.
    assert_eq!(native.stdout.len(), 60 * (8 * 16 + 7 * 8));
    for engine in ENGINES {
        let mut args = vec!["user"];
        args.extend(engine);
        args.push(&path);
        let out = metaphrase(&args);
        assert!(out.status.success(), "{engine:?}: {}", stderr(&out));
        assert_eq!(out.stdout, native.stdout, "{engine:?}");
    }
}
