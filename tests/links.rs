//! Direct exits of regions: each must lead where it says, whatever the optimisers made of its
//! neighbours.

mod bare;

use bare::{CODE, DATA, agree, assemble};
use iced_x86::code_asm::*;
use metaphrase_runtime::Stop;

/// Only Cranelift finds out that the two copies are equal, and drops the exit for when they differ.
#[test]
fn exits_beside_a_dead_one_keep_their_targets() {
    let main = assemble(CODE, |a| {
        let mut case: [CodeLabel; 4] = std::array::from_fn(|_| a.create_label());
        let mut function: [CodeLabel; 4] = std::array::from_fn(|_| a.create_label());
        let (mut again, mut next) = (a.create_label(), a.create_label());
        a.mov(r12, DATA)?;
        a.xor(r13d, r13d)?;
        a.xor(ebx, ebx)?;
        a.set_label(&mut again)?;
        a.mov(ecx, r13d)?;
        a.and(ecx, 3)?;
        a.cmp(ecx, 1)?;
        a.je(case[0])?;
        a.mov(esi, r12d)?;
        a.mov(edi, r12d)?;
        a.cmp(esi, edi)?;
        a.jne(case[1])?;
        a.cmp(ecx, 2)?;
        a.je(case[2])?;
        a.jmp(case[3])?;
        for n in 0..4 {
            a.set_label(&mut case[n])?;
            a.call(function[n])?;
            a.jmp(next)?;
        }
        a.set_label(&mut next)?;
        a.inc(r13d)?;
        a.cmp(r13d, 400)?;
        a.jne(again)?;
        a.mov(eax, 60)?;
        a.syscall()?;
        for (n, f) in function.iter_mut().enumerate() {
            a.set_label(f)?;
            a.imul_3(rbx, rbx, 7)?;
            a.add(rbx, n as i32 + 1)?;
            a.ret()?;
        }
        Ok(())
    });
    let (end, machines) = agree(&[(CODE, main)]);
    assert!(matches!(end.stop, Stop::Syscall(_)), "{end:?}");
    let expected = (0..400u64).fold(0u64, |sum, n| {
        let called = match n & 3 {
            1 => 1,
            2 => 3,
            _ => 4,
        };
        sum.wrapping_mul(7).wrapping_add(called)
    });
    assert_eq!(end.gpr[3], expected);
    // The engines took the exits in compiled regions.
    assert!(machines[2].stats.links > 0, "{:?}", machines[2].stats);
}
