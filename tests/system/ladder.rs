//! From the reset's real mode up to a user program in 64-bit mode and back into the kernel: every
//! step as a boot loader and a kernel do it.

use crate::harness::{BUDGET, CODE, Guest, assemble, engines, word};
use crate::tables::{GDT, IDT, PAGES, STACK, TSS, bytes, gate64, gdt, sel};
use iced_x86::code_asm::*;
use metaphrase_frontend::Policy;
use metaphrase_runtime::MachineStop;

const PROTECTED: u64 = 0x9000;
const LONG: u64 = 0xa000;
const USER: u64 = 0xb000;
const SYSCALL: u64 = 0xc000;
const PAGE_FAULT: u64 = 0xc100;
const PROTECTION: u64 = 0xc200;
const POINTERS: u64 = 0x700;
const PAE: u64 = 0x14_0000;
const RESULT: u64 = 0x500;
/// An address that nothing is mapped at.
const NOWHERE: u64 = 0x80_0000_1234;

fn real() -> Vec<u8> {
    assemble(16, CODE, |a| {
        a.cli().unwrap();
        a.lgdt(fword_ptr(POINTERS)).unwrap();
        a.mov(eax, cr0).unwrap();
        a.or(al, 1).unwrap();
        a.mov(cr0, eax).unwrap();
        // JMP 08h:PROTECTED, still 16-bit code.
        a.db(&[0xea, PROTECTED as u8, (PROTECTED >> 8) as u8, 8, 0])
            .unwrap();
    })
}

fn protected() -> Vec<u8> {
    assemble(32, PROTECTED, |a| {
        a.mov(eax, u32::from(sel::DATA)).unwrap();
        for segment in [ds, es, fs, gs, ss] {
            a.mov(segment, eax).unwrap();
        }
        a.mov(esp, STACK as u32).unwrap();
        a.add(dword_ptr(RESULT), 1).unwrap();
        // PAE paging, which maps the second 2 MiB to the first.
        a.mov(eax, cr4).unwrap();
        a.or(eax, 0x220).unwrap();
        a.mov(cr4, eax).unwrap();
        a.mov(eax, PAE as u32).unwrap();
        a.mov(cr3, eax).unwrap();
        a.mov(eax, cr0).unwrap();
        a.or(eax, 0x8000_0000u32 as i32).unwrap();
        a.mov(cr0, eax).unwrap();
        a.add(dword_ptr(0x20_0000 + RESULT), 2).unwrap();
        // Paging off again, and on as long mode.
        a.and(eax, 0x7fff_ffff).unwrap();
        a.mov(cr0, eax).unwrap();
        a.mov(eax, PAGES as u32).unwrap();
        a.mov(cr3, eax).unwrap();
        a.mov(ecx, 0xc000_0080u32).unwrap();
        a.rdmsr().unwrap();
        a.or(eax, 0x901).unwrap();
        a.wrmsr().unwrap();
        a.mov(eax, cr0).unwrap();
        a.or(eax, 0x8000_0000u32 as i32).unwrap();
        a.mov(cr0, eax).unwrap();
        // Compatibility mode until here.
        a.add(dword_ptr(RESULT), 4).unwrap();
        let target = LONG.to_le_bytes();
        a.db(&[0xea, target[0], target[1], 0, 0, sel::CODE64 as u8, 0])
            .unwrap();
    })
}

fn long() -> Vec<u8> {
    assemble(64, LONG, |a| {
        a.lidt(qword_ptr(POINTERS + 16)).unwrap();
        a.mov(eax, u32::from(sel::TSS)).unwrap();
        a.ltr(ax).unwrap();
        let mut wrmsr = |register: u32, value: u64| {
            a.mov(ecx, register).unwrap();
            a.mov(eax, value as u32).unwrap();
            a.mov(edx, (value >> 32) as u32).unwrap();
            a.wrmsr().unwrap();
        };
        // STAR: kernel CS 18h with SS 20h; user CS 33h (+16), SS 2bh (+8).
        wrmsr(0xc000_0081, 0x23 << 48 | 0x18 << 32);
        wrmsr(0xc000_0082, SYSCALL);
        wrmsr(0xc000_0084, 0x200);
        a.add(dword_ptr(RESULT), 8).unwrap();
        a.push(i32::from(sel::USER_DATA)).unwrap();
        a.push(0x6f00).unwrap();
        a.push(0x202).unwrap();
        a.push(i32::from(sel::USER_CODE64)).unwrap();
        a.push(USER as i32).unwrap();
        a.iretq().unwrap();
    })
}

fn user() -> Vec<u8> {
    assemble(64, USER, |a| {
        a.mov(ebx, 1000u32).unwrap();
        let mut again = a.create_label();
        a.set_label(&mut again).unwrap();
        a.mov(eax, ebx).unwrap();
        a.syscall().unwrap();
        a.dec(ebx).unwrap();
        a.jnz(again).unwrap();
        a.mov(rcx, NOWHERE).unwrap();
        a.mov(rax, qword_ptr(rcx)).unwrap();
        a.add(dword_ptr(RESULT), 0x100).unwrap();
        a.hlt().unwrap();
    })
}

fn kernel() -> Vec<(u64, Vec<u8>)> {
    let syscall = assemble(64, SYSCALL, |a| {
        a.add(dword_ptr(RESULT + 4), eax).unwrap();
        a.sysretq().unwrap();
    });
    let page_fault = assemble(64, PAGE_FAULT, |a| {
        a.pop(rax).unwrap();
        a.mov(dword_ptr(RESULT + 8), eax).unwrap();
        a.mov(rax, cr2).unwrap();
        a.mov(qword_ptr(RESULT + 16), rax).unwrap();
        // Over MOV RAX, [RCX].
        a.add(qword_ptr(rsp), 3).unwrap();
        a.iretq().unwrap();
    });
    let protection = assemble(64, PROTECTION, |a| {
        a.add(dword_ptr(RESULT), 0x200).unwrap();
        a.cli().unwrap();
        a.hlt().unwrap();
    });
    vec![
        (SYSCALL, syscall),
        (PAGE_FAULT, page_fault),
        (PROTECTION, protection),
    ]
}

/// The whole way, as a guest.
pub fn ladder() -> Guest {
    let mut idt = vec![0; 64 * 2];
    for (vector, handler) in [(13, PROTECTION), (14, PAGE_FAULT)] {
        let gate = gate64(sel::CODE64, handler, 0x8e, 0);
        idt[2 * vector..2 * vector + 2].copy_from_slice(&gate);
    }
    let mut pointers = vec![0; 32];
    let gdt = gdt();
    pointers[..2].copy_from_slice(&(gdt.len() as u16 * 8 - 1).to_le_bytes());
    pointers[2..6].copy_from_slice(&(GDT as u32).to_le_bytes());
    pointers[16..18].copy_from_slice(&1023u16.to_le_bytes());
    pointers[18..26].copy_from_slice(&IDT.to_le_bytes());
    let mut tss = vec![0; 0x68];
    tss[4..8].copy_from_slice(&(STACK as u32).to_le_bytes());
    tss[0x66..].copy_from_slice(&0x68u16.to_le_bytes());
    let directory: Vec<u64> = (0..512).map(|n| n << 21 | 0x87).collect();
    let mut guest = Guest::real(real())
        .with(PROTECTED, protected())
        .with(LONG, long())
        .with(USER, user())
        .with(POINTERS, pointers)
        .with(GDT, bytes(&gdt))
        .with(IDT, bytes(&idt))
        .with(TSS, tss)
        .with(PAE, bytes(&[(PAE + 0x1000) | 1]))
        .with(PAE + 0x1000, bytes(&[0x83, 0x83]))
        .with(PAGES, bytes(&[(PAGES + 0x1000) | 7]))
        .with(PAGES + 0x1000, bytes(&[(PAGES + 0x2000) | 7]))
        .with(PAGES + 0x2000, bytes(&directory));
    guest.pieces.extend(kernel());
    guest
}

#[test]
fn from_real_mode_to_a_user_program() {
    ladder().run(|m| {
        assert_eq!(word(m, RESULT), 0x30f, "every step");
        assert_eq!(word(m, RESULT + 4), 1000 * 1001 / 2, "system calls");
        // Not present, read, user.
        assert_eq!(word(m, RESULT + 8), 4);
        let address = u64::from(word(m, RESULT + 16)) | u64::from(word(m, RESULT + 20)) << 32;
        assert_eq!(address, NOWHERE);
    });
}

#[test]
fn policies_change_nothing_that_the_guest_sees() {
    let guest = ladder();
    let mut expected = None;
    for (engine, options) in engines() {
        for policy in [Policy::Callout, Policy::Inline, Policy::Trap] {
            let mut options = options.clone();
            options.policy.default = policy;
            let mut machine = guest.machine(options);
            let stop = machine.run(BUDGET).unwrap();
            assert_eq!(stop, MachineStop::Halted, "{engine}, {policy:?}");
            let outcome = (machine.instructions(), machine.digest());
            assert_eq!(
                outcome,
                *expected.get_or_insert(outcome),
                "{engine}, {policy:?}"
            );
            let traps = machine.report().traps;
            if policy == Policy::Trap {
                assert!(traps["syscall"] >= 1000, "{engine}: {traps:?}");
            } else {
                assert!(traps.is_empty(), "{engine}: {traps:?}");
            }
        }
    }
}

#[test]
fn every_run_is_the_same() {
    let mut first = None;
    for (name, options) in engines() {
        for _ in 0..3 {
            let mut machine = ladder().machine(options.clone());
            assert_eq!(machine.run(BUDGET).expect("it runs"), MachineStop::Halted);
            let outcome = (machine.instructions(), machine.digest());
            assert_eq!(outcome, *first.get_or_insert(outcome), "{name}");
        }
    }
}
