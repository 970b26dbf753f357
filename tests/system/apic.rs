//! The local APIC and the event timers on the board of a PC, in every engine: task priority, the
//! base register, deadlines of the time-stamp counter, and counters read at exact times.

use crate::harness::{BUDGET, CODE, Guest, RAM, assemble, engines, word};
use crate::tables::{IDT, bytes, gate64, sel};
use iced_x86::code_asm::*;
use metaphrase_runtime::machine::TimeMode;
use metaphrase_runtime::machine::pc::{PcConfig, pc};
use metaphrase_runtime::{CpuModel, Machine, MachineStop};

/// The registers of the local APIC.
const APIC: u32 = 0xfee0_0000;
/// The event timers.
const HPET: u32 = 0xfed0_0000;
/// Where guests put what they find.
const RESULT: u64 = 0x500;
/// Where the handlers lie, one for each vector from [`FIRST`] on, [`HANDLER_LEN`] bytes each.
const HANDLERS: u64 = 0x5c00;
const HANDLER_LEN: u64 = 0x40;
/// The vectors of the tests, each of which writes its number behind the others' at [`LOG`].
const VECTORS: [u8; 4] = [0x30, 0x51, 0x52, 0xff];
/// The number of interrupts, and then their vectors with the guest time as the counter tells it.
const LOG: u64 = 0x700;

const IF: u64 = 0x200;

/// A guest in 64-bit mode with the first GiB and the chips' GiB mapped, that ends with CLI and HLT.
fn guest(write: impl FnOnce(&mut CodeAssembler)) -> Guest {
    let code = assemble(64, CODE, |a| {
        write(a);
        a.cli().unwrap();
        a.hlt().unwrap();
    });
    let mut guest = Guest::long(code)
        // The fourth GiB, in pages of 2 MiB.
        .with(crate::tables::PAGES + 0x1018, 0x20_0003u64.to_le_bytes())
        .with(
            0x20_0000,
            bytes(
                &(0..512)
                    .map(|n| 0xc000_0083 + (n << 21))
                    .collect::<Vec<u64>>(),
            ),
        );
    for (n, vector) in VECTORS.into_iter().enumerate() {
        let at = HANDLERS + HANDLER_LEN * n as u64;
        let handler = assemble(64, at, |a| {
            a.push(rax).unwrap();
            a.push(rbx).unwrap();
            a.push(rdx).unwrap();
            a.mov(ebx, dword_ptr(LOG)).unwrap();
            a.rdtsc().unwrap();
            a.mov(dword_ptr(rbx * 8 + LOG as i32 + 8), u32::from(vector))
                .unwrap();
            a.mov(dword_ptr(rbx * 8 + LOG as i32 + 12), eax).unwrap();
            a.inc(dword_ptr(LOG)).unwrap();
            if vector != 0xff {
                a.mov(ebx, APIC + 0xb0).unwrap();
                a.mov(dword_ptr(rbx), 0).unwrap();
            }
            a.pop(rdx).unwrap();
            a.pop(rbx).unwrap();
            a.pop(rax).unwrap();
            a.iretq().unwrap();
        });
        assert!(handler.len() as u64 <= HANDLER_LEN);
        let gate = bytes(&gate64(sel::CODE64, at, 0x8e, 0));
        guest = guest
            .with(at, handler)
            .with(IDT + 16 * u64::from(vector), gate);
    }
    guest.setup(|s| {
        s.sys.idtr.limit = 0xfff;
        s.set_rflags(s.rflags() | IF);
    })
}

/// Runs on the board in every engine, which must agree.
fn run(guest: &Guest, check: impl Fn(&Machine)) {
    let mut first = None;
    for (name, options) in engines() {
        let mut config = PcConfig::new(RAM, CpuModel::max(), options);
        config.time = TimeMode::COUNTED;
        let (parts, _board) = pc(config).expect("a PC");
        let mut machine = Machine::new(parts).expect("a machine");
        for (at, bytes) in &guest.pieces {
            machine.memory().write_bytes(*at, bytes);
        }
        guest.registers(&mut machine);
        let stop = machine.run(BUDGET).expect("the engine goes on");
        let s = machine.state();
        assert_eq!(stop, MachineStop::Halted, "{name}: at {:x}", s.rip);
        check(&machine);
        let outcome = (machine.instructions(), machine.digest());
        let expected = *first.get_or_insert(outcome);
        assert_eq!(outcome, expected, "{name} differs from the interpreter");
    }
}

/// The vectors that came, and when.
fn log(m: &Machine) -> Vec<(u32, u32)> {
    let count = u64::from(word(m, LOG)).min(30);
    let entry = |n: u64| (word(m, LOG + 8 + 8 * n), word(m, LOG + 12 + 8 * n));
    (0..count).map(entry).collect()
}

fn vectors(m: &Machine) -> Vec<u32> {
    log(m).into_iter().map(|(vector, _)| vector).collect()
}

fn poke(a: &mut CodeAssembler, at: u32, value: u32) {
    a.mov(ebx, at).unwrap();
    a.mov(dword_ptr(rbx), value as i32).unwrap();
}

fn keep(a: &mut CodeAssembler, at: u32, to: u64) {
    a.mov(ebx, at).unwrap();
    a.mov(eax, dword_ptr(rbx)).unwrap();
    a.mov(dword_ptr(to), eax).unwrap();
}

fn wrmsr(a: &mut CodeAssembler, n: u32, value: u64) {
    a.mov(ecx, n).unwrap();
    a.mov(eax, value as u32).unwrap();
    a.mov(edx, (value >> 32) as u32).unwrap();
    a.wrmsr().unwrap();
}

/// Switches the local APIC on, with the spurious vector FFh.
fn enable(a: &mut CodeAssembler) {
    poke(a, APIC + 0xf0, 0x1ff);
}

/// Sends an interrupt to itself.
fn send(a: &mut CodeAssembler, vector: u32) {
    poke(a, APIC + 0x300, 0x4_4000 | vector);
}

#[test]
fn cr8_is_the_task_priority_and_holds_interrupts_back() {
    let guest = guest(|a| {
        enable(a);
        a.mov(eax, 5).unwrap();
        a.mov(cr8, rax).unwrap();
        keep(a, APIC + 0x80, RESULT);
        send(a, 0x51);
        send(a, 0x52);
        // Nothing until the priority falls, and then at once.
        a.mov(ecx, dword_ptr(LOG)).unwrap();
        a.mov(dword_ptr(RESULT + 4), ecx).unwrap();
        a.mov(eax, 4).unwrap();
        a.mov(cr8, rax).unwrap();
        a.mov(ecx, dword_ptr(LOG)).unwrap();
        a.mov(dword_ptr(RESULT + 8), ecx).unwrap();
        // And through memory.
        poke(a, APIC + 0x80, 0x37);
        a.mov(rax, cr8).unwrap();
        a.mov(dword_ptr(RESULT + 12), eax).unwrap();
        send(a, 0x30);
        a.nop().unwrap();
        poke(a, APIC + 0x80, 0);
        a.nop().unwrap();
    });
    run(&guest, |m| {
        assert_eq!(word(m, RESULT), 0x50);
        assert_eq!((word(m, RESULT + 4), word(m, RESULT + 8)), (0, 2));
        assert_eq!(word(m, RESULT + 12), 3);
        assert_eq!(vectors(m), [0x52, 0x51, 0x30]);
    });
}

#[test]
fn the_registers_move_and_vanish_with_the_base() {
    const MSR: u32 = 0x1b;
    let guest = guest(|a| {
        a.cli().unwrap();
        let apic_bit = |a: &mut CodeAssembler, to: u64| {
            a.mov(eax, 1).unwrap();
            a.cpuid().unwrap();
            a.shr(edx, 9).unwrap();
            a.and(edx, 1).unwrap();
            a.mov(dword_ptr(to), edx).unwrap();
        };
        apic_bit(a, RESULT);
        keep(a, APIC + 0x30, RESULT + 4);
        wrmsr(a, MSR, 0xd000_0900);
        keep(a, APIC + 0x30, RESULT + 8);
        keep(a, 0xd000_0030, RESULT + 12);
        wrmsr(a, MSR, 0xd000_0100);
        apic_bit(a, RESULT + 16);
        keep(a, 0xd000_0030, RESULT + 20);
        wrmsr(a, MSR, 0xfee0_0900);
        apic_bit(a, RESULT + 24);
        keep(a, APIC + 0x30, RESULT + 28);
    });
    run(&guest, |m| {
        let got: Vec<u32> = (0..8).map(|n| word(m, RESULT + 4 * n)).collect();
        let (version, none) = (0x5_0014, u32::MAX);
        assert_eq!(got, [1, version, none, version, 0, none, 1, version]);
    });
}

#[test]
fn a_deadline_of_the_counter_comes_on_time() {
    const MSR: u32 = 0x6e0;
    let guest = guest(|a| {
        enable(a);
        // Not in deadline mode: ignored.
        wrmsr(a, MSR, 100);
        poke(a, APIC + 0x320, 0x4_0051);
        wrmsr(a, MSR, 2_000);
        a.mov(ecx, MSR).unwrap();
        a.rdmsr().unwrap();
        a.mov(dword_ptr(RESULT), eax).unwrap();
        let mut again = a.create_label();
        a.set_label(&mut again).unwrap();
        a.cmp(dword_ptr(LOG), 0).unwrap();
        a.je(again).unwrap();
        a.mov(ecx, MSR).unwrap();
        a.rdmsr().unwrap();
        a.mov(dword_ptr(RESULT + 4), eax).unwrap();
        // While halted, and with a counter that was moved.
        wrmsr(a, 0x3b, 1_000_000);
        wrmsr(a, MSR, 1_050_000);
        a.hlt().unwrap();
        // In the past: at once.
        wrmsr(a, MSR, 5);
        a.mov(ecx, dword_ptr(LOG)).unwrap();
        a.mov(dword_ptr(RESULT + 8), ecx).unwrap();
    });
    run(&guest, |m| {
        assert_eq!((word(m, RESULT), word(m, RESULT + 4)), (2_000, 0));
        assert_eq!(word(m, RESULT + 8), 3);
        let log = log(m);
        // RDTSC is the handler's fifth instruction.
        assert_eq!(log[0], (0x51, 2_005));
        assert_eq!(log[1], (0x51, 1_050_005));
    });
}

#[test]
fn memory_mapped_counters_see_the_exact_time() {
    let guest = guest(|a| {
        enable(a);
        poke(a, APIC + 0x3e0, 0xb);
        poke(a, APIC + 0x320, 0x1_0051);
        poke(a, HPET + 0x10, 1);
        poke(a, APIC + 0x380, 1_000_000);
        for n in 0..20u64 {
            (0..n % 7).for_each(|_| a.nop().unwrap());
            keep(a, APIC + 0x390, RESULT + 8 * n);
            keep(a, HPET + 0xf0, RESULT + 8 * n + 4);
        }
    });
    run(&guest, |m| {
        // One nanosecond an instruction; the first read is the second one after the write.
        let mut apic = 1_000_000 - 2;
        let mut last = 0;
        for n in 0..20u64 {
            apic -= n as u32 % 7;
            assert_eq!(word(m, RESULT + 8 * n), apic, "read {n}");
            apic -= 6;
            let hpet = word(m, RESULT + 8 * n + 4);
            assert!(hpet >= last, "read {n}");
            last = hpet;
        }
        assert!((10..20).contains(&last), "10 ns a tick: {last}");
    });
}

#[test]
fn a_timer_that_is_set_through_memory_fires_in_the_middle_of_code() {
    let guest = guest(|a| {
        enable(a);
        poke(a, APIC + 0x3e0, 0xb);
        poke(a, APIC + 0x320, 0x52);
        poke(a, APIC + 0x380, 40);
        a.rdtsc().unwrap();
        a.mov(dword_ptr(RESULT), eax).unwrap();
        (0..200).for_each(|_| a.nop().unwrap());
    });
    run(&guest, |m| {
        let log = log(m);
        assert_eq!(log.len(), 1);
        assert_eq!((log[0].0, log[0].1 - word(m, RESULT)), (0x52, 44));
    });
}

/// With legacy replacement the first comparator is at the 8254's place: the I/O APIC's input 2.
#[test]
fn the_event_timers_replace_the_8254() {
    const IO: u32 = 0xfec0_0000;
    let guest = guest(|a| {
        enable(a);
        poke(a, IO, 0x14);
        poke(a, IO + 0x10, 0x30);
        // Nothing through the 8259A.
        a.mov(al, 0xff).unwrap();
        a.out(0x21, al).unwrap();
        // The 8254 would come every 10 us.
        a.mov(al, 0x34).unwrap();
        a.out(0x43, al).unwrap();
        a.mov(al, 12).unwrap();
        a.out(0x40, al).unwrap();
        a.xor(eax, eax).unwrap();
        a.out(0x40, al).unwrap();
        // The first comparator: interrupts, periodic, and its value is written first.
        poke(a, HPET + 0x100, 0x4c);
        poke(a, HPET + 0x108, 10_000);
        poke(a, HPET + 0x108, 10_000);
        poke(a, HPET + 0x10, 3);
        // The 8254's output rose when it was set up.
        a.mov(dword_ptr(LOG), 0).unwrap();
        a.rdtsc().unwrap();
        a.mov(dword_ptr(RESULT), eax).unwrap();
        (0..4).for_each(|_| a.hlt().unwrap());
    });
    run(&guest, |m| {
        let log = log(m);
        assert_eq!(vectors(m), [0x30; 4]);
        for pair in log.windows(2) {
            assert_eq!(pair[1].1 - pair[0].1, 100_000);
        }
        assert!(log[0].1 - word(m, RESULT) < 100_100);
    });
}
