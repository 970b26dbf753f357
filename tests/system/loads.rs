//! Loads of segment registers with every descriptor type, privilege level and RPL, against the
//! manual's rules written out.

use crate::contexts::Context;
use crate::harness::{CODE, assemble, engines, word};
use crate::tables::{GDT, Record, descriptor, sel};
use Context::*;
use iced_x86::code_asm::*;
use metaphrase_runtime::MachineStop;

/// The entry under test.
const ENTRY: u16 = sel::FREE;

const SS: usize = 2;
const DS: usize = 3;

/// What a load of a selector that is not null gives: nothing, or vector and error code (SDM volume
/// 2, MOV).
fn rules(register: usize, access: u8, rpl: u8, cpl: u8) -> Option<(u32, u32)> {
    let code = u32::from(ENTRY);
    let is_segment = access & 0x10 != 0;
    let is_code = access & 8 != 0;
    let conforming = is_code && access & 4 != 0;
    let read_or_write = access & 2 != 0;
    let dpl = access >> 5 & 3;
    let present = access & 0x80 != 0;
    if register == SS {
        if rpl != cpl || !is_segment || is_code || !read_or_write || dpl != cpl {
            return Some((13, code));
        }
        return (!present).then_some((12, code));
    }
    if !is_segment || is_code && !read_or_write {
        return Some((13, code));
    }
    if !conforming && (rpl > dpl || cpl > dpl) {
        return Some((13, code));
    }
    (!present).then_some((11, code))
}

fn check(context: Context) {
    for register in [SS, DS] {
        let code = assemble(context.bits(), CODE, |a| {
            let segment = if register == SS { ss } else { ds };
            a.mov(segment, eax).unwrap();
            // The end for every level.
            a.ud2().unwrap();
        });
        let guest = context.guest(code);
        for (name, options) in engines().into_iter().take(2) {
            let mut machine = guest.machine(options);
            for access in 0..=255u8 {
                for rpl in 0..4u8 {
                    machine.reset();
                    guest.registers(&mut machine);
                    // A stack that grows into its segment either way.
                    let expand_down = access & 0xc == 4;
                    let (limit, flags) = if expand_down { (0, 4) } else { (0xfffff, 0xc) };
                    let raw = descriptor(0, limit, access, flags).to_le_bytes();
                    let at = GDT + u64::from(ENTRY);
                    machine.memory().write_bytes(at, &raw);
                    machine.state_mut().gpr[0] = u64::from(ENTRY) | u64::from(rpl);
                    let stop = machine.run(1000).expect("it runs");
                    let what = format!("{name} {context:?} {register} {access:#x} {rpl}");
                    assert_eq!(stop, MachineStop::Halted, "{what}");
                    let record = Record::of(&machine);
                    let expected = rules(register, access, rpl, context.cpl());
                    let seen = (record.vector, record.error);
                    assert_eq!(seen, expected.unwrap_or((6, u32::MAX)), "{what}");
                    // A load marks the descriptor as accessed, a fault does not.
                    let now = word(&machine, at + 4) >> 8 & 0xff;
                    let mark = u32::from(expected.is_none());
                    assert_eq!(now, u32::from(access) | mark, "{what}");
                }
            }
        }
    }
}

#[test]
fn of_level_0() {
    check(Protected32(0));
}

#[test]
fn of_level_3() {
    check(Protected32(3));
}

#[test]
fn of_16_bit_code() {
    check(Protected16(3));
}

#[test]
fn of_compatibility_mode() {
    check(Compatibility32(3));
}

#[test]
fn of_64_bit_code() {
    check(Long(0));
}
