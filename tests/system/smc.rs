//! Code that is written to: within its block, across pages, through an alias, by DMA, beside data,
//! and all the time.

use crate::harness::{BUDGET, CODE, Guest, assemble, engines, word};
use crate::tables::PAGES;
use iced_x86::code_asm::*;
use metaphrase_runtime::MachineStop;

const OUT: u64 = 0x500;

#[test]
fn the_next_instruction_is_changed() {
    for bits in [16, 32, 64] {
        // MOV AL, 1 behind the store becomes MOV AL, 2.
        let store = |at: u64| assemble(bits, CODE, |a| a.mov(byte_ptr(at), 2).unwrap());
        let next = CODE + store(CODE).len() as u64;
        let mut code = store(next + 1);
        code.extend(assemble(bits, next, |a| {
            a.mov(al, 1).unwrap();
            a.mov(byte_ptr(OUT), al).unwrap();
            a.hlt().unwrap();
        }));
        of(bits, code).run(|m| assert_eq!(word(m, OUT), 2, "{bits}"));
    }
}

/// A guest of level 0 in code of that size.
fn of(bits: u32, code: Vec<u8>) -> Guest {
    match bits {
        16 => Guest::real(code).setup(|s| s.gpr[4] = 0x7000),
        32 => Guest::protected(code),
        _ => Guest::long(code),
    }
}

/// Code that adds what MOV EAX, imm32 at `target` gives, `rounds` times, each time one more.
fn counting(a: &mut CodeAssembler, target: u64, rounds: u32) {
    let mut again = a.create_label();
    a.xor(ebx, ebx).unwrap();
    a.mov(ecx, rounds).unwrap();
    a.mov(edi, target as u32).unwrap();
    a.set_label(&mut again).unwrap();
    match a.bitness() {
        16 => {
            a.mov(dword_ptr(di + 2), ecx).unwrap();
            a.call(target).unwrap();
        }
        32 => {
            a.mov(dword_ptr(edi + 1), ecx).unwrap();
            a.call(target).unwrap();
        }
        _ => {
            a.mov(dword_ptr(rdi + 1), ecx).unwrap();
            a.call(target).unwrap();
        }
    }
    a.add(ebx, eax).unwrap();
    a.dec(ecx).unwrap();
    a.jnz(again).unwrap();
    a.mov(dword_ptr(OUT), ebx).unwrap();
    a.hlt().unwrap();
}

/// What it changes.
fn changing(bits: u32, target: u64) -> Vec<u8> {
    assemble(bits, target, |a| {
        a.mov(eax, 0x1234_5678).unwrap();
        a.ret().unwrap();
    })
}

#[test]
fn a_page_that_changes_all_the_time() {
    for bits in [16, 32, 64] {
        // On its own page; beside the code that changes it, a piece away and in the same piece;
        // and with the changed bytes on two pages.
        for target in [0x9000, CODE + 0x80, CODE + 0x30, 0x8ffd] {
            for rounds in [1, 70] {
                let code = assemble(bits, CODE, |a| counting(a, target, rounds));
                assert!(code.len() < 0x30 || target != CODE + 0x30, "no overlap");
                let guest = of(bits, code).with(target, changing(bits, target));
                let sum = rounds * (rounds + 1) / 2;
                guest.run(|m| assert_eq!(word(m, OUT), sum, "{bits} {target:x} {rounds}"));
            }
        }
    }
}

#[test]
fn a_page_that_keeps_changing_is_not_translated_for_ever() {
    for (name, options) in engines() {
        let target = 0x9000;
        let code = assemble(64, CODE, |a| counting(a, target, 5000));
        let guest = of(64, code).with(target, changing(64, target));
        let mut machine = guest.machine(options);
        assert_eq!(machine.run(BUDGET).expect("it runs"), MachineStop::Halted);
        assert_eq!(word(&machine, OUT), 5000 * 5001 / 2);
        let report = machine.report();
        let compiled = report.tier1_translations + report.tier2_translations;
        assert!(compiled < 200, "{name}: {compiled} compilations");
        assert!(
            report.smc_writes < 200,
            "{name}: {} hits",
            report.smc_writes
        );
    }
}

#[test]
fn data_beside_code_loses_no_translations() {
    for (name, options) in engines() {
        // The counter is on the page of the loop, behind it.
        let data = CODE + 0x400;
        let code = assemble(64, CODE, |a| {
            let mut again = a.create_label();
            a.mov(ecx, 10_000u32).unwrap();
            a.set_label(&mut again).unwrap();
            a.inc(dword_ptr(data)).unwrap();
            a.dec(ecx).unwrap();
            a.jnz(again).unwrap();
            a.hlt().unwrap();
        });
        let mut machine = of(64, code).machine(options);
        assert_eq!(machine.run(BUDGET).expect("it runs"), MachineStop::Halted);
        assert_eq!(word(&machine, data), 10_000);
        let report = machine.report();
        assert_eq!(report.smc_writes, 0, "{name}");
        assert_eq!(report.invalidated_translations, 0, "{name}");
        let beside = report.tlb.expect("a soft TLB").writes_beside_code;
        assert!(beside > 0, "{name}: false hits are counted");
    }
}

/// Maps linear 0x60_0000 to physical `at` in a page of 4 KiB.
fn alias(guest: Guest, at: u64) -> Guest {
    let table = PAGES + 0x8000;
    guest
        .with(PAGES + 0x2000 + 3 * 8, (table | 7).to_le_bytes())
        .with(table, (at | 7).to_le_bytes())
}

const ALIAS: u64 = 0x60_0000;

#[test]
fn code_is_changed_through_an_alias() {
    // MOV EAX, 1; RET at 0x9000, changed through another linear address.
    let code = assemble(64, CODE, |a| {
        let mut again = a.create_label();
        a.xor(ebx, ebx).unwrap();
        a.mov(ecx, 40u32).unwrap();
        a.set_label(&mut again).unwrap();
        a.mov(dword_ptr(ALIAS + 1), ecx).unwrap();
        a.call(0x9000).unwrap();
        a.add(ebx, eax).unwrap();
        // And called through the alias.
        a.mov(edi, ALIAS as u32).unwrap();
        a.call(rdi).unwrap();
        a.add(ebx, eax).unwrap();
        a.dec(ecx).unwrap();
        a.jnz(again).unwrap();
        a.mov(dword_ptr(OUT), ebx).unwrap();
        a.hlt().unwrap();
    });
    alias(of(64, code), 0x9000)
        .with(0x9000, changing(64, 0x9000))
        .run(|m| assert_eq!(word(m, OUT), 40 * 41));
}

#[test]
fn the_same_address_becomes_another_page() {
    // Two functions on two physical pages, called at one linear address, which is remapped.
    let table = PAGES + 0x8000;
    for flush in [0, 1] {
        let code = assemble(64, CODE, |a| {
            let mut again = a.create_label();
            a.xor(ebx, ebx).unwrap();
            a.mov(ecx, 100u32).unwrap();
            a.mov(esi, 0x9007u32).unwrap();
            a.set_label(&mut again).unwrap();
            a.mov(edi, ALIAS as u32).unwrap();
            a.call(rdi).unwrap();
            a.add(ebx, eax).unwrap();
            // 0x9000 and 0xa000 in turn.
            a.xor(esi, 0x3000).unwrap();
            a.mov(dword_ptr(table), esi).unwrap();
            if flush == 0 {
                a.invlpg(byte_ptr(rdi)).unwrap();
            } else {
                a.mov(rax, cr3).unwrap();
                a.mov(cr3, rax).unwrap();
            }
            a.dec(ecx).unwrap();
            a.jnz(again).unwrap();
            a.mov(dword_ptr(OUT), ebx).unwrap();
            a.hlt().unwrap();
        });
        let function = |value: u32| {
            assemble(64, ALIAS, |a| {
                a.mov(eax, value).unwrap();
                a.ret().unwrap();
            })
        };
        let guest = alias(of(64, code), 0x9000)
            .with(0x9000, function(1))
            .with(0xa000, function(1000));
        guest.run(|m| assert_eq!(word(m, OUT), 50 * 1001));
    }
}

#[test]
fn an_instruction_whose_second_page_changes() {
    // MOV EAX, imm32 with the immediate on the second page, which is remapped each round.
    let table = PAGES + 0x8000;
    let second = ALIAS + 0x1000;
    let code = assemble(64, CODE, |a| {
        let mut again = a.create_label();
        a.xor(ebx, ebx).unwrap();
        a.mov(ecx, 100u32).unwrap();
        a.mov(esi, 0xa007u32).unwrap();
        a.mov(ebp, second as u32).unwrap();
        a.set_label(&mut again).unwrap();
        a.mov(edi, second as u32 - 1).unwrap();
        a.call(rdi).unwrap();
        a.add(ebx, eax).unwrap();
        // 0xa000 and 0xb000 in turn.
        a.xor(esi, 0x1000).unwrap();
        a.mov(dword_ptr(table + 8), esi).unwrap();
        a.invlpg(byte_ptr(rbp)).unwrap();
        a.dec(ecx).unwrap();
        a.jnz(again).unwrap();
        a.mov(dword_ptr(OUT), ebx).unwrap();
        a.hlt().unwrap();
    });
    let guest = alias(of(64, code), 0x9000)
        .with(table + 8, 0xa007u64.to_le_bytes())
        .with(0x9fff, [0xb8])
        .with(0xa000, [1, 0, 0, 0, 0xc3])
        .with(0xb000, [0, 1, 0, 0, 0xc3]);
    guest.run(|m| assert_eq!(word(m, OUT), 50 * 0x101));
}

#[test]
fn an_instruction_whose_second_page_goes_away() {
    let table = PAGES + 0x8000;
    let second = ALIAS + 0x1000;
    let code = assemble(64, CODE, |a| {
        let mut again = a.create_label();
        a.mov(edi, second as u32 - 1).unwrap();
        a.mov(ebp, second as u32).unwrap();
        a.mov(ecx, 20u32).unwrap();
        a.set_label(&mut again).unwrap();
        a.call(rdi).unwrap();
        a.dec(ecx).unwrap();
        a.jnz(again).unwrap();
        a.mov(dword_ptr(table + 8), 0).unwrap();
        a.invlpg(byte_ptr(rbp)).unwrap();
        a.call(rdi).unwrap();
        a.hlt().unwrap();
    });
    let guest = alias(of(64, code), 0x9000)
        .with(table + 8, 0xa007u64.to_le_bytes())
        .with(0x9fff, [0xb8])
        .with(0xa000, [1, 0, 0, 0, 0xc3]);
    guest.run(|m| {
        // A fetch by the supervisor, at the second page, of the instruction on the first.
        let r = crate::tables::Record::of(m);
        assert_eq!((r.vector, r.error), (14, 0x10));
        assert_eq!((r.ip, r.cr2), (second as u32 - 1, second as u32));
    });
}

#[test]
fn devices_write_to_code() {
    for bits in [16, 32, 64] {
        for (name, options) in engines() {
            let code = assemble(bits, CODE, |a| {
                let mut again = a.create_label();
                a.set_label(&mut again).unwrap();
                a.call(0x9000).unwrap();
                a.add(ebx, eax).unwrap();
                a.jmp(again).unwrap();
            });
            let function = |value: u32| {
                assemble(bits, 0x9000, |a| {
                    a.mov(eax, value).unwrap();
                    a.ret().unwrap();
                })
            };
            let guest = of(bits, code).with(0x9000, function(1));
            let mut machine = guest.machine(options);
            // Five instructions a round.
            let mut expected = 0;
            for value in [1, 100, 10_000, 3] {
                machine.memory().write_bytes(0x9000, &function(value));
                assert_eq!(machine.run(5 * 50).expect("it runs"), MachineStop::Budget);
                expected += u64::from(value) * 50;
                assert_eq!(machine.state().gpr[3], expected, "{name} {bits} {value}");
            }
        }
    }
}

#[test]
fn a_guest_loads_a_program_over_its_own_code() {
    // A loader copies each of two programs to the same place with REP MOVSB, over the code that
    // ran there before.
    let target = 0x9000u64;
    let program = |value: u32| {
        let mut bytes = assemble(64, target, |a| {
            a.add(dword_ptr(OUT), value).unwrap();
            a.ret().unwrap();
        });
        bytes.resize(0x1200, 0x90);
        bytes
    };
    let code = assemble(64, CODE, |a| {
        let mut again = a.create_label();
        a.mov(edx, 30u32).unwrap();
        a.set_label(&mut again).unwrap();
        for source in [0x2_0000u32, 0x3_0000] {
            a.mov(esi, source).unwrap();
            a.mov(edi, target as u32).unwrap();
            a.mov(ecx, 0x1200u32).unwrap();
            a.rep().movsb().unwrap();
            a.call(target).unwrap();
        }
        a.dec(edx).unwrap();
        a.jnz(again).unwrap();
        a.hlt().unwrap();
    });
    let guest = of(64, code)
        .with(0x2_0000, program(1))
        .with(0x3_0000, program(0x100));
    let end = MachineStop::Halted;
    let instructions = guest.run_in_turn(end, |m| assert_eq!(word(m, OUT), 30 * 0x101));
    assert!(instructions > 30);
}
