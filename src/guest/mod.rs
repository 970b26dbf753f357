//! Guest programs written with the code assembler: they need no assembler on the machine and no
//! binary in the repository.
//!
//! A [`Workload`] is a function of the guest that leaves a checksum in RAX. [`image`] wraps it into
//! a whole program (repeat it, write the checksum to standard output, exit), which runs bare under
//! [`run`], or as an ELF file ([`elf`]) on Linux, natively or under any emulator.

pub mod elf;
mod float;
mod run;
mod workloads;
mod worst;

pub use run::{Outcome, run};
pub use workloads::{ALL, Workload};

use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Where the program's code is.
pub const CODE: u64 = 0x40_0000;
/// Where its zeroed data is.
pub const DATA: u64 = 0x80_0000;
/// How many bytes of data there are.
pub const DATA_BYTES: u64 = 8 << 20;

/// The code of a whole program: runs the workload `repeat` times, adds up its checksums, writes
/// the sum's 8 bytes to standard output and exits with status 0.
pub fn image(workload: &Workload, repeat: u64) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let (mut again, mut function) = (a.create_label(), a.create_label());
    a.mov(r15, repeat)?;
    a.xor(r14d, r14d)?;
    a.set_label(&mut again)?;
    a.call(function)?;
    a.add(r14, rax)?;
    a.dec(r15)?;
    a.jne(again)?;
    a.push(r14)?;
    a.mov(eax, 1)?;
    a.mov(edi, 1)?;
    a.mov(rsi, rsp)?;
    a.mov(edx, 8)?;
    a.syscall()?;
    a.mov(eax, 231)?;
    a.xor(edi, edi)?;
    a.syscall()?;
    a.set_label(&mut function)?;
    (workload.emit)(&mut a)?;
    a.assemble(CODE)
}
