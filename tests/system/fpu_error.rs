//! x87 exceptions: #MF with CR0.NE, an external interrupt without.

use crate::harness::{CODE, Guest, assemble};
use crate::tables::Record;
use iced_x86::code_asm::*;
use metaphrase_devices::InterruptLine;
use metaphrase_runtime::system::{InterruptController, cr0};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The vector that the controller gives.
const VECTOR: u8 = 0x2d;

/// FERR#, and the controller that it leads to.
#[derive(Clone, Default)]
struct Line(Arc<AtomicBool>);

impl InterruptLine for Line {
    fn set_level(&self, high: bool) {
        self.0.store(high, Ordering::SeqCst);
    }
}

impl InterruptController for Line {
    fn pending(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn acknowledge(&mut self) -> u8 {
        self.0.store(false, Ordering::SeqCst);
        VECTOR
    }
}

/// Divides by zero unmasked; the exception waits for FWAIT, whose offset comes back.
fn guest(numeric: bool) -> (Guest, u32) {
    let mut offset = 0;
    let code = assemble(32, CODE, |a| {
        a.fninit().unwrap();
        a.fldcw(word_ptr(0x500)).unwrap();
        a.sti().unwrap();
        a.fld1().unwrap();
        a.fldz().unwrap();
        a.fdivp(st1, st0).unwrap();
        a.mov(ebx, 1u32).unwrap();
        a.wait().unwrap();
        a.hlt().unwrap();
        // FNINIT, FLDCW, STI, FLD1, FLDZ, FDIVP, MOV.
        offset = 2 + 6 + 1 + 2 + 2 + 2 + 5;
    });
    let guest = Guest::protected(code)
        .with(0x500, 0x37bu16.to_le_bytes().to_vec())
        .setup(move |s| {
            s.sys.cr0 &= !cr0::NE;
            if numeric {
                s.sys.cr0 |= cr0::NE;
            }
        })
        .wire(|parts| {
            let line = Line::default();
            parts.fpu_error = Some(Box::new(line.clone()));
            parts.interrupts = Some(Box::new(line));
        });
    (guest, offset)
}

#[test]
fn an_exception_of_its_own() {
    let (guest, offset) = guest(true);
    guest.run(|m| {
        let record = Record::of(m);
        assert_eq!((record.vector, record.ip), (16, CODE as u32 + offset));
    });
}

#[test]
fn an_external_interrupt_before_the_waiting_instruction() {
    let (guest, offset) = guest(false);
    guest.run(|m| {
        let record = Record::of(m);
        assert_eq!(
            (record.vector, record.ip),
            (u32::from(VECTOR), CODE as u32 + offset)
        );
        assert_eq!(m.state().gpr[3] as u32, 1, "what came between has run");
    });
}
