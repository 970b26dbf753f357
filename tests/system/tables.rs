//! Descriptor tables, task states, page tables and exception handlers for guests.

use crate::harness::{Guest, assemble};
use iced_x86::code_asm::*;
use metaphrase_runtime::system::{SystemSegment, TableRegister, attr, cr0, cr4, efer};

/// Where the GDT lies.
pub const GDT: u64 = 0x1000;
/// Where the IDT lies.
pub const IDT: u64 = 0x2000;
/// Where the task state segment lies.
pub const TSS: u64 = 0x3000;
/// Where the stubs of the exception handlers lie, [`STUB`] bytes each.
pub const STUBS: u64 = 0x4000;
/// Bytes of a stub.
pub const STUB: u64 = 16;
/// Where the handlers' common part lies.
pub const HANDLER: u64 = 0x5800;
/// What the handler records: see [`Record`].
pub const RECORD: u64 = 0x600;
/// The top of the stack of the levels above 0.
pub const USER_STACK: u64 = 0x6800;
/// The top of the stack of level 0.
pub const STACK: u64 = 0x7000;
/// The top of the stack that level 0 has after a change of level.
pub const INNER_STACK: u64 = 0x7800;
/// Where the page tables start.
pub const PAGES: u64 = 0x10_0000;

/// Selectors of [`gdt`].
pub mod sel {
    /// 32-bit code of level 0.
    pub const CODE32: u16 = 0x08;
    /// Data of level 0.
    pub const DATA: u16 = 0x10;
    /// 64-bit code of level 0.
    pub const CODE64: u16 = 0x18;
    /// 32-bit code of level 3.
    pub const USER_CODE32: u16 = 0x23;
    /// Data of level 3.
    pub const USER_DATA: u16 = 0x2b;
    /// 64-bit code of level 3.
    pub const USER_CODE64: u16 = 0x33;
    /// The task state segment (two entries in long mode).
    pub const TSS: u16 = 0x38;
    /// 16-bit code of level 0.
    pub const CODE16: u16 = 0x48;
    /// 16-bit data of level 0.
    pub const DATA16: u16 = 0x50;
    /// The first of four entries for each level: 16-bit code, 32-bit code, 64-bit code, data.
    const LEVELS: u16 = 0x58;
    /// The first that tests may fill in.
    pub const FREE: u16 = 0xd8;

    /// 16-bit code of a level.
    pub const fn code16(cpl: u8) -> u16 {
        LEVELS + cpl as u16 * 0x21
    }

    /// 32-bit code of a level.
    pub const fn code32(cpl: u8) -> u16 {
        code16(cpl) + 8
    }

    /// 64-bit code of a level.
    pub const fn code64(cpl: u8) -> u16 {
        code16(cpl) + 0x10
    }

    /// Data of a level.
    pub const fn data(cpl: u8) -> u16 {
        code16(cpl) + 0x18
    }
}

/// A segment descriptor; `access` is its byte 5, `flags` the high half of byte 6.
pub fn descriptor(base: u32, limit: u32, access: u8, flags: u8) -> u64 {
    let (base, limit) = (u64::from(base), u64::from(limit));
    (limit & 0xffff)
        | (base & 0xff_ffff) << 16
        | u64::from(access) << 40
        | (limit >> 16 & 0xf) << 48
        | u64::from(flags) << 52
        | (base >> 24) << 56
}

/// The GDT that all guests share.
pub fn gdt() -> Vec<u64> {
    let mut table = vec![
        0,
        descriptor(0, 0xfffff, 0x9b, 0xc),
        descriptor(0, 0xfffff, 0x93, 0xc),
        descriptor(0, 0xfffff, 0x9b, 0xa),
        descriptor(0, 0xfffff, 0xfb, 0xc),
        descriptor(0, 0xfffff, 0xf3, 0xc),
        descriptor(0, 0xfffff, 0xfb, 0xa),
        descriptor(TSS as u32, 0x67, 0x89, 0),
        0,
        descriptor(0, 0xffff, 0x9b, 0),
        descriptor(0, 0xffff, 0x93, 0),
    ];
    for level in 0..4 {
        let code = 0x9b | level << 5;
        table.push(descriptor(0, 0xffff, code, 0));
        table.push(descriptor(0, 0xfffff, code, 0xc));
        table.push(descriptor(0, 0xfffff, code, 0xa));
        table.push(descriptor(0, 0xfffff, 0x93 | level << 5, 0xc));
    }
    table
}

/// One more entry of the GDT, as a piece of memory.
pub fn entry(selector: u16, raw: u64) -> (u64, Vec<u8>) {
    (GDT + u64::from(selector & !7), raw.to_le_bytes().to_vec())
}

/// A 32-bit gate: type and level in `access` (0x8e: interrupt, 0x8f: trap, 0x85: task).
pub fn gate32(selector: u16, offset: u32, access: u8) -> u64 {
    let offset = u64::from(offset);
    (offset & 0xffff) | u64::from(selector) << 16 | u64::from(access) << 40 | (offset >> 16) << 48
}

/// A 64-bit gate.
pub fn gate64(selector: u16, offset: u64, access: u8, ist: u8) -> [u64; 2] {
    [
        gate32(selector, offset as u32, access) | u64::from(ist) << 32,
        offset >> 32,
    ]
}

/// Whether an exception pushes an error code.
pub fn has_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17)
}

/// Words as bytes.
pub fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// Handlers for all vectors below 64 in 32-bit code: each records what it was given, and halts.
fn handlers32() -> Vec<(u64, Vec<u8>)> {
    let mut out = Vec::new();
    for vector in 0..64u8 {
        let at = STUBS + STUB * u64::from(vector);
        let stub = assemble(32, at, |a| {
            if !has_code(vector) {
                a.push(-1i32).unwrap();
            }
            a.push(i32::from(vector)).unwrap();
            a.jmp(HANDLER).unwrap();
        });
        out.push((at, stub));
    }
    // Through SS: from virtual-8086 mode the other segments come empty.
    let common = assemble(32, HANDLER, |a| {
        // Out of virtual-8086 mode DS comes null.
        a.push(eax).unwrap();
        a.mov(eax, u32::from(sel::DATA)).unwrap();
        a.mov(ds, eax).unwrap();
        a.pop(eax).unwrap();
        for n in 0..5 {
            a.pop(dword_ptr(RECORD + 4 * n).ss()).unwrap();
        }
        a.mov(eax, cr2).unwrap();
        a.mov(dword_ptr(RECORD + 20).ss(), eax).unwrap();
        a.mov(dword_ptr(RECORD + 24).ss(), esp).unwrap();
        a.hlt().unwrap();
    });
    out.push((HANDLER, common));
    out
}

/// The same in real mode.
fn handlers16() -> Vec<(u64, Vec<u8>)> {
    let mut out = Vec::new();
    for vector in 0..64u8 {
        let at = STUBS + STUB * u64::from(vector);
        let stub = assemble(16, at, |a| {
            a.push(-1i32).unwrap();
            a.push(i32::from(vector)).unwrap();
            a.jmp(HANDLER).unwrap();
        });
        out.push((at, stub));
        let pointer = (at as u32).to_le_bytes();
        out.push((4 * u64::from(vector), pointer.to_vec()));
    }
    let common = assemble(16, HANDLER, |a| {
        a.xor(ax, ax).unwrap();
        a.mov(ds, ax).unwrap();
        for n in 0..5 {
            a.pop(ax).unwrap();
            if n < 2 {
                a.movsx(eax, ax).unwrap();
            } else {
                a.movzx(eax, ax).unwrap();
            }
            a.mov(dword_ptr(RECORD + 4 * n), eax).unwrap();
        }
        a.mov(dword_ptr(RECORD + 24), esp).unwrap();
        a.hlt().unwrap();
    });
    out.push((HANDLER, common));
    out
}

/// The same in 64-bit code.
fn handlers64() -> Vec<(u64, Vec<u8>)> {
    let mut out = Vec::new();
    for vector in 0..64u8 {
        let at = STUBS + STUB * u64::from(vector);
        let stub = assemble(64, at, |a| {
            if !has_code(vector) {
                a.push(-1i32).unwrap();
            }
            a.push(i32::from(vector)).unwrap();
            a.jmp(HANDLER).unwrap();
        });
        out.push((at, stub));
    }
    let common = assemble(64, HANDLER, |a| {
        for n in 0..5 {
            a.pop(rax).unwrap();
            a.mov(dword_ptr(RECORD + 4 * n), eax).unwrap();
        }
        a.mov(rax, cr2).unwrap();
        a.mov(dword_ptr(RECORD + 20), eax).unwrap();
        a.mov(dword_ptr(RECORD + 24), esp).unwrap();
        a.hlt().unwrap();
    });
    out.push((HANDLER, common));
    out
}

/// What a handler has recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// The vector.
    pub vector: u32,
    /// The error code; all ones where there is none.
    pub error: u32,
    /// The low half of RIP.
    pub ip: u32,
    /// CS.
    pub cs: u32,
    /// The low half of RFLAGS.
    pub flags: u32,
    /// The low half of CR2.
    pub cr2: u32,
    /// The handler's ESP behind the frame's first five words.
    pub esp: u32,
}

impl Record {
    /// Reads it from guest memory.
    pub fn of(machine: &metaphrase_runtime::Machine) -> Record {
        let word = |n: u64| crate::harness::word(machine, RECORD + 4 * n);
        Record {
            vector: word(0),
            error: word(1),
            ip: word(2),
            cs: word(3),
            flags: word(4),
            cr2: word(5),
            esp: word(6),
        }
    }

    /// Word `n` of the stack behind what was recorded, on a flat stack; they are 4 or 8 bytes wide.
    pub fn stack(&self, machine: &metaphrase_runtime::Machine, n: u64, width: u64) -> u32 {
        crate::harness::word(machine, u64::from(self.esp) + n * width)
    }
}

impl Guest {
    /// Real mode with handlers.
    pub fn real_handled(code: Vec<u8>) -> Guest {
        let mut guest = Guest::real(code).setup(|s| s.gpr[4] = STACK);
        guest.pieces.extend(handlers16());
        guest
    }

    /// An entry of the GDT.
    pub fn entry(mut self, selector: u16, raw: u64) -> Guest {
        self.pieces.push(entry(selector, raw));
        self
    }

    /// 32-bit protected mode, level 0, paging off, with tables and handlers.
    pub fn protected(code: Vec<u8>) -> Guest {
        let mut idt = Vec::new();
        for vector in 0..64 {
            idt.push(gate32(sel::CODE32, (STUBS + STUB * vector) as u32, 0x8e));
        }
        let mut tss = vec![0; 0x68];
        tss[4..8].copy_from_slice(&(INNER_STACK as u32).to_le_bytes());
        tss[8..10].copy_from_slice(&sel::DATA.to_le_bytes());
        tss[0x66..0x68].copy_from_slice(&0x68u16.to_le_bytes());
        let mut guest = Guest::real(code)
            .with(GDT, bytes(&gdt()))
            .with(IDT, bytes(&idt))
            .with(TSS, tss)
            .setup(|s| {
                const DATA: u32 =
                    attr::P | attr::S | attr::RW | attr::ACCESSED | attr::DB | attr::G;
                s.seg_base = [0; 6];
                s.seg_sel = [sel::DATA; 6];
                s.seg_sel[1] = sel::CODE32;
                s.sys.seg_limit = [u32::MAX; 6];
                s.sys.seg_attr = [DATA; 6];
                s.sys.seg_attr[1] = DATA | attr::CODE;
                s.sys.cr0 = cr0::PE | cr0::ET | cr0::NE;
                s.sys.gdtr = TableRegister {
                    base: GDT,
                    limit: 0xfff,
                };
                s.sys.idtr = TableRegister {
                    base: IDT,
                    limit: 64 * 8 - 1,
                };
                s.sys.tr = SystemSegment {
                    base: TSS,
                    limit: 0x67,
                    attr: attr::P | 11,
                    selector: sel::TSS,
                };
                s.gpr[4] = STACK;
            });
        guest.pieces.extend(handlers32());
        guest
    }

    /// 64-bit mode, level 0, the first GiB mapped to itself in 2 MiB pages for everybody, with
    /// tables and handlers.
    pub fn long(code: Vec<u8>) -> Guest {
        let mut guest = Guest::protected(code);
        guest
            .pieces
            .retain(|(at, _)| !(STUBS..=HANDLER).contains(at) && *at != TSS);
        guest.pieces.extend(handlers64());
        let idt: Vec<u64> = (0..64)
            .flat_map(|v| gate64(sel::CODE64, STUBS + STUB * v, 0x8e, 0))
            .collect();
        let mut tss = vec![0; 0x68];
        tss[4..8].copy_from_slice(&(INNER_STACK as u32).to_le_bytes());
        tss[0x66..0x68].copy_from_slice(&0x68u16.to_le_bytes());
        let directory: Vec<u64> = (0..512).map(|n| n << 21 | 0x87).collect();
        guest
            .with(IDT, bytes(&idt))
            .with(TSS, tss)
            .with(PAGES, bytes(&[(PAGES + 0x1000) | 7]))
            .with(PAGES + 0x1000, bytes(&[(PAGES + 0x2000) | 7]))
            .with(PAGES + 0x2000, bytes(&directory))
            .setup(|s| {
                s.seg_sel[1] = sel::CODE64;
                s.sys.seg_attr[1] = s.sys.seg_attr[1] & !attr::DB | attr::L;
                s.sys.idtr.limit = 64 * 16 - 1;
                s.sys.cr0 |= cr0::PG;
                s.sys.cr3 = PAGES;
                s.sys.cr4 = cr4::PAE | cr4::OSFXSR;
                s.sys.efer = efer::LME | efer::LMA | efer::SCE | efer::NXE;
            })
    }
}
