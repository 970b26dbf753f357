//! Stores that change nothing still need the right to write: compilers touch pages so.

mod bare;

use bare::{CODE, DATA, agree, assemble};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use metaphrase_runtime::Stop;
use metaphrase_runtime::memory::{PAGE, page};

/// Runs `touch` on [R12] in a loop, first on a page that may be written and then on one that may
/// not: there it must fault in every engine.
fn faults(touch: fn(&mut CodeAssembler) -> Result<(), IcedError>) {
    let main = assemble(CODE, |a| {
        let mut again = a.create_label();
        a.mov(edi, (DATA + PAGE) as u32)?;
        a.mov(esi, PAGE as u32)?;
        a.mov(edx, i32::from(page::READ))?;
        a.mov(eax, 10)?;
        a.syscall()?;
        a.mov(r12, DATA)?;
        a.set_label(&mut again)?;
        touch(a)?;
        a.add(r12, 8)?;
        a.jmp(again)
    });
    let (end, _) = agree(&[(CODE, main)]);
    let Stop::Exception(e) = end.stop else {
        panic!("{end:?}")
    };
    assert_eq!((e.vector, e.addr), (14, DATA + PAGE), "{end:?}");
    assert_eq!(end.gpr[12], DATA + PAGE);
}

#[test]
fn or_with_zero() {
    faults(|a| a.or(dword_ptr(r12), 0));
}

#[test]
fn a_value_put_back() {
    faults(|a| {
        a.mov(rax, qword_ptr(r12))?;
        a.mov(qword_ptr(r12), rax)
    });
}

#[test]
fn a_value_put_back_by_another_way() {
    faults(|a| {
        a.lea(rbx, qword_ptr(r12 + 32))?;
        a.mov(rax, qword_ptr(rbx - 32))?;
        a.xor(rax, 5)?;
        a.xor(rax, 5)?;
        a.mov(qword_ptr(r12), rax)
    });
}
