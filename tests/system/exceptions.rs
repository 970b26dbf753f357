//! Every exception, in 32-bit and in 64-bit code.

use crate::harness::{CODE, Guest, assemble};
use crate::tables::{Record, sel};
use iced_x86::code_asm::*;

/// Writes code that raises an exception at its last instruction but one, HLT.
type Raise = fn(&mut CodeAssembler);

/// Runs `raise` at level 0 in both modes; the vector, error code and distance of the faulting
/// instruction from the start must be as expected.
fn raises(raise: Raise, vector: u32, error: u32, offset: u32) {
    for bits in [32, 64] {
        let code = assemble(bits, CODE, |a| {
            raise(a);
            a.hlt().unwrap();
        });
        let guest = if bits == 32 {
            Guest::protected(code)
        } else {
            Guest::long(code)
        };
        eprintln!("{bits} bits");
        guest.run(|m| {
            let record = Record::of(m);
            assert_eq!(
                (record.vector, record.error),
                (vector, error),
                "{record:x?}"
            );
            assert_eq!(record.ip, CODE as u32 + offset);
            let selector = if bits == 32 { sel::CODE32 } else { sel::CODE64 };
            assert_eq!(record.cs, u32::from(selector));
        });
    }
}

const NONE: u32 = u32::MAX;

#[test]
fn divide_error() {
    raises(
        |a| {
            a.xor(ecx, ecx).unwrap();
            a.div(ecx).unwrap();
        },
        0,
        NONE,
        2,
    );
}

#[test]
fn breakpoint() {
    raises(|a| a.int3().unwrap(), 3, NONE, 1);
}

#[test]
fn invalid_opcode() {
    raises(|a| a.ud2().unwrap(), 6, NONE, 0);
}

#[test]
fn software_interrupt() {
    raises(|a| a.int(0x21).unwrap(), 0x21, NONE, 2);
}
