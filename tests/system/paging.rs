//! Paging in running code: accesses across pages, accessed and dirty bits, stale entries, faults,
//! and code that is written through another mapping.

use crate::harness::{BUDGET, CODE, Guest, assemble, engines, word};
use crate::tables::{PAGES, Record, bytes};
use iced_x86::code_asm::*;
use metaphrase_devices::{BusDevice, Width};
use metaphrase_runtime::MachineStop;
use metaphrase_runtime::system::cr0;

/// A page table of 512 pages from [`LINEAR`] on.
const TABLE: u64 = PAGES + 0x1_1000;
/// Where its first page is.
const LINEAR: u64 = 0x4000_0000;
/// Two pages of RAM, not next to each other.
const ONE: u64 = 0x80_0000;
const TWO: u64 = 0xa0_0000;
const RESULT: u64 = 0x500;

/// Present, writable, for everybody.
const ALL: u64 = 7;
const ACCESSED: u64 = 0x20;
const DIRTY: u64 = 0x40;

/// 64-bit code with these first entries in the table.
fn paged(entries: &[u64], write: impl FnOnce(&mut CodeAssembler)) -> Guest {
    let code = assemble(64, CODE, |a| {
        write(a);
        a.hlt().unwrap();
    });
    Guest::long(code)
        .with(PAGES + 0x1008, bytes(&[(PAGES + 0x1_0000) | ALL]))
        .with(PAGES + 0x1_0000, bytes(&[TABLE | ALL]))
        .with(TABLE, bytes(entries))
}

fn quad(m: &metaphrase_runtime::Machine, at: u64) -> u64 {
    u64::from(word(m, at)) | u64::from(word(m, at + 4)) << 32
}

/// The address of an entry.
fn entry(n: u64) -> u64 {
    TABLE + 8 * n
}

#[test]
fn accesses_run_from_one_page_into_another() {
    // In the order of linear addresses: the higher physical page first.
    let guest = paged(&[TWO | ALL, ONE | ALL], |a| {
        a.mov(rbx, LINEAR + 0xfff).unwrap();
        a.mov(rsi, RESULT).unwrap();
        // Several times, so that entries are there and translations are warm.
        a.mov(ecx, 20).unwrap();
        let mut again = a.create_label();
        a.set_label(&mut again).unwrap();
        a.mov(word_ptr(rbx), 0x2211).unwrap();
        a.mov(dword_ptr(rbx + 1), 0x6655_4433).unwrap();
        a.mov(rax, qword_ptr(rbx - 2)).unwrap();
        a.mov(qword_ptr(rsi), rax).unwrap();
        a.movups(xmm0, xmmword_ptr(rbx - 7)).unwrap();
        a.movups(xmmword_ptr(rbx - 9), xmm0).unwrap();
        a.lock().add(dword_ptr(rbx - 2), 0x0100_0000).unwrap();
        a.mov(eax, 0x0102_0304).unwrap();
        a.xchg(dword_ptr(rbx - 1), eax).unwrap();
        a.mov(dword_ptr(rsi + 8), eax).unwrap();
        a.inc(qword_ptr(rbx - 6)).unwrap();
        a.dec(ecx).unwrap();
        a.jnz(again).unwrap();
    });
    guest.run(|m| {
        // What the same instructions do to 32 bytes in a row, from 16 before the boundary.
        let mut b = [0u8; 32];
        let at = 15; // RBX
        let mut results = (0, 0);
        for _ in 0..20 {
            b[at..at + 2].copy_from_slice(&0x2211u16.to_le_bytes());
            b[at + 1..at + 5].copy_from_slice(&0x6655_4433u32.to_le_bytes());
            results.0 = u64::from_le_bytes(b[at - 2..at + 6].try_into().unwrap());
            b.copy_within(at - 7..at + 9, at - 9);
            let add = &mut b[at - 2..at + 2];
            let sum = u32::from_le_bytes((&*add).try_into().unwrap()).wrapping_add(0x0100_0000);
            add.copy_from_slice(&sum.to_le_bytes());
            let swap = &mut b[at - 1..at + 3];
            results.1 = u32::from_le_bytes((&*swap).try_into().unwrap());
            swap.copy_from_slice(&0x0102_0304u32.to_le_bytes());
            let inc = &mut b[at - 6..at + 2];
            let sum = u64::from_le_bytes((&*inc).try_into().unwrap()).wrapping_add(1);
            inc.copy_from_slice(&sum.to_le_bytes());
        }
        assert_eq!((quad(m, RESULT), word(m, RESULT + 8)), results);
        let (mut low, mut high) = ([0; 16], [0; 16]);
        m.memory().read_bytes(TWO + 0xff0, &mut low);
        m.memory().read_bytes(ONE, &mut high);
        assert_eq!([low, high].concat(), b);
    });
}

#[test]
fn accessed_and_dirty_bits_follow_the_accesses() {
    let guest = paged(&[ONE | ALL, TWO | ALL], |a| {
        a.mov(rbx, LINEAR).unwrap();
        a.mov(rsi, RESULT).unwrap();
        let note = |a: &mut CodeAssembler, n: u64| {
            a.mov(rax, qword_ptr(entry(0))).unwrap();
            a.mov(qword_ptr(rsi + 8 * n as i32), rax).unwrap();
        };
        note(a, 0);
        a.mov(eax, dword_ptr(rbx)).unwrap();
        note(a, 1);
        a.mov(dword_ptr(rbx), eax).unwrap();
        note(a, 2);
        // Without a flush the processor may go on with what it knows; with one it may not.
        a.and(qword_ptr(entry(0)), !(ACCESSED | DIRTY) as i32)
            .unwrap();
        a.invlpg(byte_ptr(rbx)).unwrap();
        a.mov(eax, dword_ptr(rbx + 4)).unwrap();
        note(a, 3);
        a.mov(dword_ptr(rbx + 4), eax).unwrap();
        note(a, 4);
        a.and(qword_ptr(entry(0)), !(ACCESSED | DIRTY) as i32)
            .unwrap();
        a.mov(rax, cr3).unwrap();
        a.mov(cr3, rax).unwrap();
        // The read of a read-modify-write needs the right to write.
        a.add(dword_ptr(rbx + 8), 1).unwrap();
        note(a, 5);
    });
    guest.run(|m| {
        let page = ONE | ALL;
        let read = page | ACCESSED;
        let written = read | DIRTY;
        let seen: Vec<u64> = (0..6).map(|n| quad(m, RESULT + 8 * n)).collect();
        assert_eq!(seen, [page, read, written, read, written, written]);
        assert_eq!(quad(m, entry(1)), TWO | ALL, "not accessed");
    });
}

#[test]
fn another_page_appears_after_the_flush() {
    let guest = paged(&[ONE | ALL, TWO | ALL], |a| {
        a.mov(rbx, LINEAR).unwrap();
        a.mov(rsi, RESULT).unwrap();
        let mut n = 0;
        let mut note = |a: &mut CodeAssembler| {
            a.mov(eax, dword_ptr(rbx)).unwrap();
            a.mov(dword_ptr(rsi + n), eax).unwrap();
            n += 4;
        };
        note(a);
        a.mov(rax, TWO | ALL).unwrap();
        a.mov(qword_ptr(entry(0)), rax).unwrap();
        a.invlpg(byte_ptr(rbx + 0xabc)).unwrap();
        note(a);
        a.mov(rax, ONE | ALL).unwrap();
        a.mov(qword_ptr(entry(0)), rax).unwrap();
        a.mov(rax, cr3).unwrap();
        a.mov(cr3, rax).unwrap();
        note(a);
        // A large page over it, then another: INVLPG of any address in it drops all of it.
        for physical in [TWO, ONE] {
            a.mov(rax, physical | ALL | 0x80).unwrap();
            a.mov(qword_ptr(PAGES + 0x1_0000), rax).unwrap();
            a.invlpg(byte_ptr(rbx + 0x12_3456)).unwrap();
            if physical == TWO {
                a.mov(rax, cr3).unwrap();
                a.mov(cr3, rax).unwrap();
            }
            note(a);
        }
    });
    let guest = guest.with(ONE, vec![1; 4]).with(TWO, vec![2; 4]);
    guest.run(|m| {
        let seen: Vec<u32> = (0..5).map(|n| word(m, RESULT + 4 * n)).collect();
        let [one, two] = [0x0101_0101, 0x0202_0202];
        assert_eq!(seen, [one, two, one, two, one]);
    });
}

/// The fault of an access at [`LINEAR`] plus `offset`.
fn fault(
    entries: &[u64],
    wp: bool,
    offset: u64,
    access: impl Fn(&mut CodeAssembler),
) -> Option<u32> {
    let guest = paged(entries, |a| {
        a.mov(rbx, LINEAR + offset).unwrap();
        a.mov(eax, 0x1234).unwrap();
        access(a);
    });
    let guest = guest.setup(move |s| {
        if wp {
            s.sys.cr0 |= cr0::WP;
        }
    });
    let seen = std::cell::Cell::new(None);
    guest.run(|m| {
        let r = Record::of(m);
        seen.set((r.vector == 14).then_some(r.error));
        if r.vector == 14 {
            let first = LINEAR + offset;
            let second = (first | 0xfff) + 1;
            let at = m.state().sys.cr2;
            assert!(at == first || at == second, "{at:#x}");
        }
    });
    seen.get()
}

#[test]
fn faults_say_what_was_wrong() {
    let read = |a: &mut CodeAssembler| a.mov(eax, dword_ptr(rbx)).unwrap();
    let write = |a: &mut CodeAssembler| a.mov(dword_ptr(rbx), eax).unwrap();
    let modify = |a: &mut CodeAssembler| a.add(dword_ptr(rbx), eax).unwrap();
    let locked = |a: &mut CodeAssembler| a.lock().add(dword_ptr(rbx), eax).unwrap();
    let jump = |a: &mut CodeAssembler| a.jmp(rbx).unwrap();
    let present = ONE | ALL;
    let read_only = ONE | 5;
    assert_eq!(fault(&[0], true, 0, read), Some(0));
    assert_eq!(fault(&[0], true, 0, write), Some(2));
    assert_eq!(fault(&[0], true, 0, modify), Some(2));
    assert_eq!(fault(&[0], true, 0, locked), Some(2));
    assert_eq!(fault(&[0], true, 0, jump), Some(16));
    assert_eq!(fault(&[read_only], true, 0, read), None);
    assert_eq!(fault(&[read_only], true, 0, write), Some(3));
    assert_eq!(fault(&[read_only], true, 0, modify), Some(3));
    assert_eq!(fault(&[read_only], true, 0, locked), Some(3));
    assert_eq!(fault(&[read_only], false, 0, write), None);
    assert_eq!(fault(&[read_only], false, 0, locked), None);
    assert_eq!(fault(&[present | 1 << 63], true, 0, read), None);
    assert_eq!(fault(&[present | 1 << 63], true, 0, jump), Some(17));
    assert_eq!(fault(&[present | 1 << 45], true, 0, write), Some(11));
    // The first page is fine; nothing of it is written.
    assert_eq!(fault(&[present, 0], true, 0xffe, read), Some(0));
    assert_eq!(fault(&[present, 0], true, 0xffe, write), Some(2));
    assert_eq!(fault(&[present, read_only], true, 0xffe, modify), Some(3));
}

#[test]
fn code_is_written_through_another_mapping() {
    const FUNCTION: u64 = 0xd000;
    let function = assemble(64, FUNCTION, |a| {
        a.mov(eax, 1).unwrap();
        a.ret().unwrap();
    });
    let guest = paged(&[FUNCTION | ALL], |a| {
        a.mov(rbx, LINEAR).unwrap();
        a.xor(edi, edi).unwrap();
        a.mov(ecx, 30).unwrap();
        let mut again = a.create_label();
        a.set_label(&mut again).unwrap();
        a.mov(rax, FUNCTION).unwrap();
        a.call(rax).unwrap();
        a.add(edi, eax).unwrap();
        // The immediate of MOV.
        a.inc(dword_ptr(rbx + 1)).unwrap();
        // Data beside the code.
        a.inc(dword_ptr(rbx + 0x800)).unwrap();
        a.dec(ecx).unwrap();
        a.jnz(again).unwrap();
        a.mov(dword_ptr(RESULT), edi).unwrap();
    });
    guest.with(FUNCTION, function).run(|m| {
        assert_eq!(word(m, RESULT), 30 * 31 / 2);
        assert_eq!(word(m, FUNCTION + 1), 31);
        assert_eq!(word(m, FUNCTION + 0x800), 30);
    });
}

/// A device's accesses: offset, width, value written.
type Log = std::sync::Arc<std::sync::Mutex<Vec<(u64, Width, Option<u64>)>>>;

/// Writes down what is done to it; a read gives the offset of each byte.
struct Recorder(Log);

impl BusDevice for Recorder {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        self.0.lock().unwrap().push((offset, width, None));
        let bytes: [u8; 8] = std::array::from_fn(|n| (offset as u8).wrapping_add(n as u8));
        u64::from_le_bytes(bytes) & width.ones()
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.0.lock().unwrap().push((offset, width, Some(value)));
    }
}

#[test]
fn devices_see_each_access_once() {
    use Width::{Byte, Dword, Qword, Word};
    const DEVICE: u64 = 0x200_0000;
    let guest = paged(&[DEVICE | ALL, ONE | ALL], |a| {
        a.mov(rbx, LINEAR).unwrap();
        a.mov(rsi, RESULT).unwrap();
        a.mov(al, byte_ptr(rbx + 3)).unwrap();
        a.movzx(ecx, word_ptr(rbx + 6)).unwrap();
        a.mov(dword_ptr(rsi), ecx).unwrap();
        a.mov(dword_ptr(rbx + 8), ecx).unwrap();
        a.mov(rdx, qword_ptr(rbx + 0x10)).unwrap();
        a.mov(qword_ptr(rsi + 8), rdx).unwrap();
        a.movups(xmm0, xmmword_ptr(rbx + 0x20)).unwrap();
        a.movups(xmmword_ptr(rsi + 16), xmm0).unwrap();
        a.add(word_ptr(rbx + 0x30), 1).unwrap();
        a.lock().or(byte_ptr(rbx + 0x40), 0x80u32 as i32).unwrap();
        // Unaligned, and into RAM behind it.
        a.mov(dword_ptr(rbx + 0x51), edx).unwrap();
        a.mov(dword_ptr(rbx + 0xffe), 0x4433_2211).unwrap();
        a.mov(rdi, rbx).unwrap();
        a.mov(ecx, 2).unwrap();
        a.mov(eax, 7).unwrap();
        a.rep().stosd().unwrap();
    });
    let wanted = vec![
        (3, Byte, None),
        (6, Word, None),
        (8, Dword, Some(0x0706)),
        (0x10, Qword, None),
        (0x20, Qword, None),
        (0x28, Qword, None),
        (0x30, Word, None),
        (0x30, Word, Some(0x3131)),
        (0x40, Byte, None),
        (0x40, Byte, Some(0xc0)),
        (0x51, Byte, Some(0x10)),
        (0x52, Word, Some(0x1211)),
        (0x54, Byte, Some(0x13)),
        (0xffe, Word, Some(0x2211)),
        (0, Dword, Some(7)),
        (4, Dword, Some(7)),
    ];
    for (name, options) in engines() {
        let mut machine = guest.machine(options);
        let log = Log::default();
        let device = Box::new(Recorder(log.clone()));
        let bus = machine.memory();
        bus.mmio()
            .attach(DEVICE, 0x1000, "recorder", device)
            .unwrap();
        let stop = machine.run(BUDGET).unwrap();
        assert_eq!(stop, MachineStop::Halted, "{name}");
        assert_eq!(*log.lock().unwrap(), wanted, "{name}");
        assert_eq!(word(&machine, RESULT), 0x0706, "{name}");
        assert_eq!(quad(&machine, RESULT + 8), 0x1716_1514_1312_1110, "{name}");
        assert_eq!(quad(&machine, RESULT + 24), 0x2f2e_2d2c_2b2a_2928, "{name}");
        assert_eq!(word(&machine, ONE) & 0xffff, 0x4433, "{name}");
    }
}
