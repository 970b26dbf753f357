//! Guests that change their own code. Every engine must do what the interpreter does, to the
//! instruction.

mod bare;

use bare::{CODE, DATA, End, STACK, agree, assemble};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use metaphrase_runtime::Stop;

/// Ends the guest.
fn exit(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(eax, 60)?;
    a.syscall()
}

/// A system call with its first three arguments in place.
fn call_system(a: &mut CodeAssembler, number: i32) -> Result<(), IcedError> {
    a.mov(eax, number)?;
    a.syscall()
}

/// Runs a guest in every engine; RBX holds what it found out.
fn check(expected: u64, emit: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> End {
    check_pieces(expected, &[(CODE, assemble(CODE, emit))])
}

fn check_pieces(expected: u64, pieces: &[(u64, Vec<u8>)]) -> End {
    let (end, _) = agree(pieces);
    assert!(matches!(end.stop, Stop::Syscall(_)), "{end:?}");
    assert_eq!(end.gpr[3], expected, "{end:?}");
    end
}

/// `mov eax, value; ret`.
fn function(at: u64, value: u32) -> (u64, Vec<u8>) {
    let code = assemble(at, |a| {
        a.mov(eax, value)?;
        a.ret()
    });
    (at, code)
}

/// Calls `at` twenty times (so that it is hot), adding what it returns to RBX.
fn call_often(a: &mut CodeAssembler, at: u64) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.mov(r15d, 20)?;
    a.mov(r14, at)?;
    a.set_label(&mut again)?;
    a.call(r14)?;
    a.add(rbx, rax)?;
    a.dec(r15d)?;
    a.jne(again)
}

#[test]
fn a_function_is_rewritten_and_called() {
    let f = CODE + 0x1000;
    let main = assemble(CODE, |a| {
        call_often(a, f)?;
        a.mov(rdi, f)?;
        a.mov(dword_ptr(rdi + 1), 100)?;
        call_often(a, f)?;
        a.mov(byte_ptr(rdi + 2), 1)?;
        call_often(a, f)?;
        exit(a)
    });
    check_pieces(20 * (7 + 100 + 356), &[(CODE, main), function(f, 7)]);
}

#[test]
fn the_very_next_instruction_is_rewritten() {
    check(7 + 8 + 9, |a| {
        for value in 7..10 {
            let mut next = a.create_label();
            a.lea(rdi, ptr(next))?;
            a.mov(byte_ptr(rdi + 1), value)?;
            a.set_label(&mut next)?;
            a.mov(eax, 0x55)?;
            a.add(rbx, rax)?;
        }
        exit(a)
    });
}

#[test]
fn code_behind_and_ahead_in_the_running_block_is_rewritten() {
    // Each turn adds the number that the last one left behind, and the one written ahead.
    let expected: u64 = 1000 + (1..50).sum::<u64>() + (0..50).map(|n| n + 3).sum::<u64>();
    check(expected, |a| {
        let (mut behind, mut ahead) = (a.create_label(), a.create_label());
        a.xor(ecx, ecx)?;
        a.lea(rsi, ptr(behind))?;
        a.lea(rdi, ptr(ahead))?;
        a.set_label(&mut behind)?;
        a.mov(eax, 1000)?;
        a.add(rbx, rax)?;
        a.lea(edx, dword_ptr(rcx + 1))?;
        a.mov(dword_ptr(rsi + 1), edx)?;
        a.lea(edx, dword_ptr(rcx + 3))?;
        a.mov(dword_ptr(rdi + 1), edx)?;
        a.add(rcx, 1)?;
        a.nop()?;
        a.set_label(&mut ahead)?;
        a.mov(eax, 0x5555)?;
        a.add(rbx, rax)?;
        a.cmp(ecx, 50)?;
        a.jne(behind)?;
        exit(a)
    });
}

#[test]
fn a_loop_patches_its_own_immediate() {
    let expected: u64 = (0..300).map(|n| 0x1122_3344 + 3 * n).sum();
    check(expected, |a| {
        let mut again = a.create_label();
        a.mov(ecx, 300)?;
        a.lea(rdi, ptr(again))?;
        a.set_label(&mut again)?;
        a.add(rbx, 0x1122_3344)?;
        a.add(dword_ptr(rdi + 3), 3)?;
        a.dec(ecx)?;
        a.jne(again)?;
        a.nop()?;
        exit(a)
    });
}

#[test]
fn a_block_over_two_pages_loses_either_page() {
    let f = CODE + 0x1000 - 7;
    // add edx, 1 (83 c2 01) eight times over the page's end.
    let body = assemble(f, |a| {
        a.xor(edx, edx)?;
        for _ in 0..8 {
            a.add(edx, 1)?;
        }
        a.mov(eax, edx)?;
        a.ret()
    });
    let main = assemble(CODE, |a| {
        call_often(a, f)?;
        a.mov(rdi, f + 4)?;
        a.mov(byte_ptr(rdi), 11)?; // the first addend, on the first page
        call_often(a, f)?;
        a.mov(byte_ptr(rdi + 3), 21)?; // the second, on the second page
        call_often(a, f)?;
        a.mov(byte_ptr(rdi + 21), 31)?; // the last
        call_often(a, f)?;
        exit(a)
    });
    check_pieces(20 * (8 + 18 + 38 + 68), &[(CODE, main), (f, body)]);
}

#[test]
fn one_of_two_pages_is_rewritten_all_the_time() {
    let (steady, changing) = (CODE + 0x1000, CODE + 0x2000);
    let main = assemble(CODE, |a| {
        let mut again = a.create_label();
        a.mov(rsi, steady)?;
        a.mov(rdi, changing)?;
        a.mov(ecx, 200)?;
        a.set_label(&mut again)?;
        a.call(rsi)?;
        a.add(rbx, rax)?;
        a.mov(dword_ptr(rdi + 1), ecx)?;
        a.call(rdi)?;
        a.add(rbx, rax)?;
        a.dec(ecx)?;
        a.jne(again)?;
        exit(a)
    });
    let expected = 200 * 3 + (1..=200).sum::<u64>();
    let pieces = [(CODE, main), function(steady, 3), function(changing, 0)];
    check_pieces(expected, &pieces);
}

#[test]
fn data_beside_the_code_that_writes_it() {
    let cell = CODE + 0xf00;
    let main = assemble(CODE, |a| {
        let mut again = a.create_label();
        a.mov(rdi, cell)?;
        a.mov(ecx, 400)?;
        a.set_label(&mut again)?;
        a.add(qword_ptr(rdi), rcx)?;
        a.push(rcx)?;
        a.pop(qword_ptr(rdi + 8))?;
        a.dec(ecx)?;
        a.jne(again)?;
        a.mov(rbx, qword_ptr(rdi))?;
        exit(a)
    });
    let pieces = [(CODE, main)];
    let (end, machines) = agree(&pieces);
    assert_eq!(end.gpr[3], (1..=400).sum::<u64>(), "{end:?}");
    for mut vcpu in machines {
        let stats = vcpu.report();
        assert!(stats.smc_writes > 0, "{stats:?}");
        assert_eq!(stats.smc_writes, stats.false_invalidations, "{stats:?}");
    }
}

#[test]
fn writes_that_hit_code_are_no_false_invalidations() {
    let f = CODE + 0x1000;
    let main = assemble(CODE, |a| {
        let mut again = a.create_label();
        a.mov(rdi, f)?;
        a.mov(ecx, 50)?;
        a.set_label(&mut again)?;
        a.call(rdi)?;
        a.add(rbx, rax)?;
        a.mov(byte_ptr(rdi + 1), cl)?; // hits
        a.call(rdi)?;
        a.mov(byte_ptr(rdi + 0x100), cl)?; // misses
        a.dec(ecx)?;
        a.jne(again)?;
        exit(a)
    });
    let (_, machines) = agree(&[(CODE, main), function(f, 9)]);
    for mut vcpu in machines {
        let stats = vcpu.report();
        assert_eq!(
            (stats.smc_writes, stats.false_invalidations),
            (100, 50),
            "{stats:?}"
        );
    }
}

#[test]
fn a_guest_that_compiles_functions_and_calls_them() {
    let buffer = CODE + 0x8000;
    // Each function is `mov eax, n; xor eax, ebx; ret`.
    let mut expected = 0u32;
    for n in (1..=300u32).rev() {
        expected ^= n;
        expected = expected.wrapping_add(n);
    }
    check(u64::from(expected), |a| {
        let mut again = a.create_label();
        a.mov(ecx, 300)?;
        a.set_label(&mut again)?;
        // Eight places in turn.
        a.mov(edi, ecx)?;
        a.and(edi, 7)?;
        a.shl(edi, 10)?;
        a.add(rdi, buffer as i32)?;
        a.mov(byte_ptr(rdi), 0xb8)?;
        a.mov(dword_ptr(rdi + 1), ecx)?;
        a.mov(dword_ptr(rdi + 5), 0x00c3_d831)?;
        a.call(rdi)?;
        a.mov(ebx, eax)?;
        a.add(ebx, ecx)?;
        a.dec(ecx)?;
        a.jne(again)?;
        exit(a)
    });
}

#[test]
fn mprotect_munmap_and_mmap_over_translated_code() {
    let f = CODE + 0x4000;
    let main = assemble(CODE, |a| {
        call_often(a, f)?;
        // Read-only with execution, then back: the code is the same.
        for prot in [5, 7] {
            a.mov(rdi, f)?;
            a.mov(esi, 0x1000)?;
            a.mov(edx, prot)?;
            call_system(a, 10)?;
            call_often(a, f)?;
        }
        // Another page in its place, with another function.
        a.mov(rdi, f)?;
        a.mov(esi, 0x1000)?;
        call_system(a, 11)?;
        a.mov(rdi, f)?;
        a.mov(esi, 0x1000)?;
        a.mov(edx, 7)?;
        call_system(a, 9)?;
        a.mov(rdi, f)?;
        a.mov(rax, 0x00_c300_0000_63b8u64)?;
        a.mov(qword_ptr(rdi), rax)?;
        call_often(a, f)?;
        exit(a)
    });
    check_pieces(20 * (3 * 7 + 0x63), &[(CODE, main), function(f, 7)]);
}

#[test]
fn code_that_was_unmapped_or_lost_its_rights_faults() {
    let f = CODE + 0x4000;
    for (call, prot) in [(11, 0), (10, 1), (10, 3)] {
        let main = assemble(CODE, |a| {
            call_often(a, f)?;
            a.mov(rdi, f)?;
            a.mov(esi, 0x1000)?;
            a.mov(edx, prot)?;
            call_system(a, call)?;
            call_often(a, f)?;
            exit(a)
        });
        let (end, _) = agree(&[(CODE, main), function(f, 7)]);
        let Stop::Exception(e) = end.stop else {
            panic!("{end:?}");
        };
        assert_eq!((e.vector, e.addr, end.rip), (14, f, f), "{end:?}");
        assert_eq!(end.gpr[3], 140);
    }
}

#[test]
fn a_system_call_writes_over_translated_code() {
    let f = CODE + 0x4000;
    let main = assemble(CODE, |a| {
        call_often(a, f)?;
        a.mov(rsi, f)?;
        call_system(a, 0)?;
        call_often(a, f)?;
        exit(a)
    });
    check_pieces(20 * (7 + 1234), &[(CODE, main), function(f, 7)]);
}

#[test]
fn string_instructions_and_wide_stores_run_into_code() {
    let (f, g) = (CODE + 0x4000, CODE + 0x5000);
    let main = assemble(CODE, |a| {
        // A copy of g's code over f, from the page before it.
        call_often(a, f)?;
        call_often(a, g)?;
        a.mov(rsi, g - 64)?;
        a.mov(rdi, f - 64)?;
        a.mov(ecx, 64 + 6)?;
        a.rep().movsb()?;
        call_often(a, f)?;
        // FXSAVE's 512 bytes begin on the page before f and end with zeros behind it:
        // what lies at f is the XMM0 slot, which holds `mov eax, 5; ret`.
        a.mov(rax, 0x00_c300_0000_05b8u64)?;
        a.movq(xmm0, rax)?;
        a.mov(rdi, f - 160)?;
        a.fxsave(ptr(rdi))?;
        call_often(a, f)?;
        // A store of 8 bytes over the page's border.
        a.mov(rax, 0xc300_0000_06b8_9090u64)?;
        a.mov(rdi, f - 2)?;
        a.mov(qword_ptr(rdi), rax)?;
        call_often(a, f)?;
        // The stack lies on the page: CALL and PUSH write there.
        a.mov(rsp, f + 0x800)?;
        a.push(rbx)?;
        call_often(a, f)?;
        a.mov(rsp, STACK)?;
        // SSE stores.
        a.mov(rax, 0x00_c300_0000_09b8u64)?;
        a.movq(xmm0, rax)?;
        a.mov(rdi, f)?;
        a.movdqu(xmmword_ptr(rdi), xmm0)?;
        call_often(a, f)?;
        exit(a)
    });
    let pieces = [(CODE, main), function(f, 7), function(g, 8)];
    check_pieces(20 * (7 + 8 + 8 + 5 + 6 + 6 + 9), &pieces);
}

#[test]
fn atomic_instructions_write_over_code() {
    let f = CODE + 0x4000;
    let main = assemble(CODE, |a| {
        a.mov(rdi, f + 1)?;
        call_often(a, f)?;
        a.lock().add(dword_ptr(rdi), 1)?;
        call_often(a, f)?;
        a.mov(ecx, 3)?;
        a.lock().xadd(dword_ptr(rdi), ecx)?;
        call_often(a, f)?;
        a.mov(eax, 11)?;
        a.mov(ecx, 20)?;
        a.lock().cmpxchg(dword_ptr(rdi), ecx)?;
        call_often(a, f)?;
        a.mov(ecx, 30)?;
        a.xchg(dword_ptr(rdi), ecx)?;
        call_often(a, f)?;
        exit(a)
    });
    check_pieces(20 * (7 + 8 + 11 + 20 + 30), &[(CODE, main), function(f, 7)]);
}

#[test]
fn a_refused_write_leaves_read_only_code_alone() {
    let f = CODE + 0x4000;
    let main = assemble(CODE, |a| {
        a.mov(rdi, f)?;
        a.mov(esi, 0x1000)?;
        a.mov(edx, 5)?;
        call_system(a, 10)?;
        call_often(a, f)?;
        a.mov(rdi, f + 1)?;
        a.mov(byte_ptr(rdi), 1)?;
        exit(a)
    });
    let (end, _) = agree(&[(CODE, main), function(f, 7)]);
    let Stop::Exception(e) = end.stop else {
        panic!("{end:?}");
    };
    assert_eq!((e.vector, e.error, e.addr), (14, Some(7), f + 1), "{end:?}");
    assert_eq!(end.gpr[3], 140);
}

#[test]
fn data_writes_elsewhere_drop_nothing() {
    let main = assemble(CODE, |a| {
        let mut again = a.create_label();
        a.mov(rdi, DATA)?;
        a.mov(ecx, 1000)?;
        a.set_label(&mut again)?;
        a.add(qword_ptr(rdi), rcx)?;
        a.dec(ecx)?;
        a.jne(again)?;
        exit(a)
    });
    let (_, machines) = agree(&[(CODE, main)]);
    for mut vcpu in machines {
        let stats = vcpu.report();
        assert_eq!((stats.smc_writes, stats.invalidated_pages), (0, 0));
    }
}
