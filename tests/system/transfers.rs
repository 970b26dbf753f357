//! Transfers of control as systems make them: call gates, tasks, virtual-8086 mode under a
//! monitor, stacks that cannot be used, and segments that outlive their mode.

use crate::harness::{CODE, Guest, assemble, word};
use crate::tables::{GDT, IDT, Record, TSS, bytes, descriptor, gate32, sel};
use iced_x86::code_asm::*;
use metaphrase_runtime::MachineStop;

/// Code and stack of level 3, and of another task.
const USER: u64 = 0xb000;
const USER_STACK: u64 = 0xf000;
const OTHER: u64 = 0xc000;
/// Another task state.
const OTHER_TSS: u64 = 0x3800;
const OTHER_STACK: u64 = 0xe000;
const RESULT: u64 = 0x500;

/// The selectors that the tests define.
const FIRST: u16 = sel::FREE;
const GATE: u16 = sel::FREE + 8;

/// Code of level 0 that goes to level 3, at `USER`, with those flags.
fn to_user(flags: i32) -> Vec<u8> {
    assemble(32, CODE, |a| {
        a.push(i32::from(sel::USER_DATA)).unwrap();
        a.push(USER_STACK as i32).unwrap();
        a.push(flags).unwrap();
        a.push(i32::from(sel::USER_CODE32)).unwrap();
        a.push(USER as i32).unwrap();
        a.iretd().unwrap();
    })
}

/// CALL or JMP to `selector`:0.
fn far(a: &mut CodeAssembler, opcode: u8, selector: u16) {
    let [low, high] = selector.to_le_bytes();
    a.db(&[opcode, 0, 0, 0, 0, low, high]).unwrap();
}

const CALL: u8 = 0x9a;
const JMP: u8 = 0xea;

/// A 32-bit task state for level 0 that starts at [`OTHER`].
fn other_task() -> Vec<u8> {
    let mut tss = vec![0; 0x68];
    let mut put = |at: usize, value: u32| tss[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(0x20, OTHER as u32);
    put(0x24, 2);
    put(0x38, OTHER_STACK as u32);
    for n in 0..6 {
        let selector = if n == 1 { sel::CODE32 } else { sel::DATA };
        put(0x48 + 4 * n, selector.into());
    }
    put(0x64, 0x68 << 16);
    tss
}

/// With descriptors from [`FIRST`] on, and a TSS that is busy, as LTR leaves it.
fn defined(guest: Guest, words: &[u64]) -> Guest {
    guest
        .with(GDT + u64::from(FIRST), bytes(words))
        .with(GDT + u64::from(sel::TSS) + 5, vec![0x8b])
}

#[test]
fn a_user_calls_the_kernel_through_a_gate() {
    let user = assemble(32, USER, |a| {
        // What DS held was level 0's: IRET has taken it away.
        a.mov(eax, i32::from(sel::USER_DATA)).unwrap();
        a.mov(ds, eax).unwrap();
        a.mov(ecx, 300u32).unwrap();
        let mut again = a.create_label();
        a.set_label(&mut again).unwrap();
        a.push(ecx).unwrap();
        far(a, CALL, GATE | 3);
        a.loop_(again).unwrap();
        a.mov(dword_ptr(RESULT + 4), esp).unwrap();
        a.int(0x21).unwrap();
    });
    let kernel = assemble(32, OTHER, |a| {
        // The parameter lies behind the return address.
        a.mov(eax, dword_ptr(esp + 8)).unwrap();
        a.add(dword_ptr(RESULT), eax).unwrap();
        a.retf_1(4i32).unwrap();
    });
    let gate = gate32(sel::CODE32, OTHER as u32, 0xec) | 1 << 32;
    let guest = Guest::protected(to_user(0x2))
        .with(USER, user)
        .with(OTHER, kernel);
    defined(guest, &[0, gate]).run(|m| {
        assert_eq!(word(m, RESULT), 300 * 301 / 2, "{:x?}", Record::of(m));
        assert_eq!(u64::from(word(m, RESULT + 4)), USER_STACK, "balanced");
        let record = Record::of(m);
        assert_eq!((record.vector, record.error), (13, 0x21 * 8 + 2));
        assert_eq!(record.cs, sel::USER_CODE32.into());
    });
}

#[test]
fn tasks_call_each_other_and_return() {
    let first = assemble(32, CODE, |a| {
        a.mov(ecx, 200u32).unwrap();
        let mut again = a.create_label();
        a.set_label(&mut again).unwrap();
        far(a, CALL, FIRST);
        a.clts().unwrap();
        a.add(dword_ptr(RESULT), 1).unwrap();
        a.loop_(again).unwrap();
        // Away for good.
        far(a, JMP, FIRST);
    });
    let other = assemble(32, OTHER, |a| {
        let mut again = a.create_label();
        a.set_label(&mut again).unwrap();
        a.add(ebx, 1).unwrap();
        a.mov(dword_ptr(RESULT + 4), ebx).unwrap();
        a.pushfd().unwrap();
        a.pop(eax).unwrap();
        let mut last = a.create_label();
        a.test(eax, 1 << 14).unwrap();
        a.jz(last).unwrap();
        a.iretd().unwrap();
        a.jmp(again).unwrap();
        a.set_label(&mut last).unwrap();
        a.str(dword_ptr(RESULT + 8)).unwrap();
        a.hlt().unwrap();
    });
    let guest = Guest::protected(first)
        .with(OTHER, other)
        .with(OTHER_TSS, other_task());
    let tss = descriptor(OTHER_TSS as u32, 0x67, 0x89, 0);
    defined(guest, &[tss]).run(|m| {
        assert_eq!(word(m, RESULT), 200);
        assert_eq!(word(m, RESULT + 4), 201);
        assert_eq!(word(m, RESULT + 8) & 0xffff, FIRST.into());
        assert_eq!(m.state().sys.cr0 & 8, 8, "task switched");
        let access = |selector: u16| word(m, GDT + u64::from(selector) + 4) >> 8 & 0xff;
        assert_eq!((access(sel::TSS), access(FIRST)), (0x89, 0x8b));
    });
}

/// Where virtual-8086 code lies: segment and linear address.
const V86: u16 = 0x0b00;

#[test]
fn a_monitor_emulates_what_virtual_8086_code_may_not_do() {
    const MONITOR: u64 = OTHER;
    let start = assemble(32, CODE, |a| {
        for value in [0, 0, 0, 0, 0x200, 0xfff0, 0x2_0002, V86.into(), 0] {
            a.push(value).unwrap();
        }
        a.iretd().unwrap();
    });
    let guest = assemble(16, 0, |a| {
        a.mov(ax, 0x1000u32).unwrap();
        a.mov(ds, ax).unwrap();
        a.mov(cx, 50u32).unwrap();
        let mut again = a.create_label();
        a.set_label(&mut again).unwrap();
        a.int(0x10).unwrap();
        a.cli().unwrap();
        a.add(word_ptr(0x20), cx).unwrap();
        a.loop_(again).unwrap();
        a.hlt().unwrap();
    });
    let monitor = assemble(32, MONITOR, |a| {
        let mut int = a.create_label();
        let mut end = a.create_label();
        a.pushad().unwrap();
        a.mov(eax, i32::from(sel::DATA)).unwrap();
        a.mov(ds, eax).unwrap();
        // CS * 16 + IP.
        a.movzx(ebx, word_ptr(esp + 40)).unwrap();
        a.shl(ebx, 4).unwrap();
        a.add(ebx, dword_ptr(esp + 36)).unwrap();
        a.mov(al, byte_ptr(ebx)).unwrap();
        a.inc(dword_ptr(esp + 36)).unwrap();
        a.cmp(al, 0xcdu32 as i32).unwrap();
        a.je(int).unwrap();
        a.cmp(al, 0xf4u32 as i32).unwrap();
        a.je(end).unwrap();
        a.add(dword_ptr(RESULT + 4), 1).unwrap();
        a.popad().unwrap();
        a.add(esp, 4).unwrap();
        a.iretd().unwrap();
        a.set_label(&mut int).unwrap();
        a.inc(dword_ptr(esp + 36)).unwrap();
        a.add(dword_ptr(RESULT), 1).unwrap();
        a.popad().unwrap();
        a.add(esp, 4).unwrap();
        a.iretd().unwrap();
        a.set_label(&mut end).unwrap();
        a.mov(eax, dword_ptr(esp + 44)).unwrap();
        a.mov(dword_ptr(RESULT + 8), eax).unwrap();
        a.mov(dword_ptr(RESULT + 12), esp).unwrap();
        a.hlt().unwrap();
    });
    Guest::protected(start)
        .with(u64::from(V86) * 16, guest)
        .with(MONITOR, monitor)
        .with(
            IDT + 13 * 8,
            bytes(&[gate32(sel::CODE32, MONITOR as u32, 0x8e)]),
        )
        .run(|m| {
            assert_eq!((word(m, RESULT), word(m, RESULT + 4)), (50, 50));
            assert_eq!(word(m, 0x1_0020) & 0xffff, 50 * 51 / 2);
            assert_eq!(word(m, RESULT + 8) & 0x2_0000, 0x2_0000, "VM was saved");
            // Nine words, the error code and PUSHAD below the inner stack's top.
            assert_eq!(word(m, RESULT + 12), 0x7800 - 4 * 18);
        });
}

/// A user whose kernel stack is no stack, with `vectors` going elsewhere.
fn without_inner_stack() -> Guest {
    let user = assemble(32, USER, |a| a.ud2().unwrap());
    Guest::protected(to_user(0x2))
        .with(USER, user)
        .with(TSS + 8, vec![sel::CODE32 as u8])
}

#[test]
fn a_triple_fault_shuts_down() {
    without_inner_stack().run_to(MachineStop::Shutdown, |_| {});
}

#[test]
fn a_task_takes_the_double_fault() {
    let handler = assemble(32, OTHER, |a| {
        a.pop(dword_ptr(RESULT)).unwrap();
        a.mov(eax, dword_ptr(TSS + 0x20)).unwrap();
        a.mov(dword_ptr(RESULT + 4), eax).unwrap();
        a.add(dword_ptr(RESULT), 0x55).unwrap();
        a.hlt().unwrap();
    });
    let guest = without_inner_stack()
        .with(OTHER, handler)
        .with(OTHER_TSS, other_task())
        .with(IDT + 8 * 8, bytes(&[gate32(FIRST, 0, 0x85)]));
    let tss = descriptor(OTHER_TSS as u32, 0x67, 0x89, 0);
    defined(guest, &[tss]).run(|m| {
        assert_eq!(word(m, RESULT), 0x55);
        assert_eq!(u64::from(word(m, RESULT + 4)), USER);
        assert_eq!(word(m, OTHER_TSS) & 0xffff, sel::TSS.into());
    });
}

#[test]
fn segments_outlive_protected_mode() {
    const POINTER: u64 = 0x700;
    let code = assemble(16, CODE, |a| {
        a.cli().unwrap();
        a.lgdt(fword_ptr(POINTER)).unwrap();
        a.mov(eax, cr0).unwrap();
        a.or(al, 1).unwrap();
        a.mov(cr0, eax).unwrap();
        a.mov(bx, u32::from(sel::DATA)).unwrap();
        a.mov(ds, bx).unwrap();
        a.and(al, 0xfeu32 as i32).unwrap();
        a.mov(cr0, eax).unwrap();
        // Real mode again, and 4 GiB in DS even after another load.
        a.mov(bx, 0x100u32).unwrap();
        a.mov(ds, bx).unwrap();
        a.mov(ecx, 0x20_0000u32).unwrap();
        a.mov(dword_ptr(ecx), 0x1234_5678u32).unwrap();
        // ES still ends at 64 KiB.
        a.mov(dword_ptr(ecx).es(), 1u32).unwrap();
        a.hlt().unwrap();
    });
    let handler = assemble(16, OTHER, |a| {
        a.mov(word_ptr(RESULT).es(), sp).unwrap();
        a.hlt().unwrap();
    });
    let mut pointer = vec![0xff, 0];
    pointer.extend((GDT as u32).to_le_bytes());
    let words = crate::tables::gdt();
    Guest::real(code)
        .with(GDT, bytes(&words))
        .with(POINTER, pointer)
        .with(OTHER, handler)
        .with(4 * 13, (OTHER as u32).to_le_bytes().to_vec())
        .setup(|s| s.gpr[4] = 0x7000)
        .run(|m| {
            assert_eq!(word(m, 0x20_1000), 0x1234_5678);
            // A frame of three words, without an error code.
            assert_eq!(word(m, RESULT) & 0xffff, 0x6ffa);
        });
}
