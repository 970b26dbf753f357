//! Random strings of instructions, tables and registers.

use crate::contexts::Context;
use crate::harness::{CODE, assemble};
use crate::tables::{GDT, IDT, PAGES, STUB, STUBS, descriptor, gate32, gate64, has_code, sel};
use iced_x86::code_asm::*;
use metaphrase_runtime::CpuState;

/// Bytes of a string.
pub const LENGTH: usize = 48;
/// Page tables of legacy paging: a directory with 4 KiB pages for the first 4 MiB.
const LEGACY: u64 = PAGES + 0x5000;
/// Of PAE paging.
const PAE: u64 = PAGES + 0x7000;

/// Numbers that look random (xorshift64*).
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    /// Always the same ones for a seed.
    pub fn new(seed: u64) -> Rng {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            rng.next();
        }
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// The beginnings of instructions that reach the system CPU, and of some that carry others along.
const OPCODES: &[&[u8]] = &[
    b"\x0f\x00",
    b"\x0f\x01",
    b"\x0f\x01",
    b"\x0f\x02",
    b"\x0f\x03",
    b"\x0f\x05",
    b"\x0f\x06",
    b"\x0f\x07",
    b"\x0f\x08",
    b"\x0f\x09",
    b"\x0f\x0b",
    b"\x0f\x20",
    b"\x0f\x21",
    b"\x0f\x22",
    b"\x0f\x23",
    b"\x0f\x30",
    b"\x0f\x31",
    b"\x0f\x32",
    b"\x0f\x33",
    b"\x0f\x34",
    b"\x0f\x35",
    b"\x0f\xa0",
    b"\x0f\xa1",
    b"\x0f\xa2",
    b"\x0f\xa8",
    b"\x0f\xa9",
    b"\x0f\xaa",
    b"\x0f\xae",
    b"\x0f\xb2",
    b"\x0f\xb4",
    b"\x0f\xb5",
    b"\x0f\xc7",
    b"\x06",
    b"\x07",
    b"\x0e",
    b"\x16",
    b"\x17",
    b"\x1e",
    b"\x1f",
    b"\x50",
    b"\x58",
    b"\x60",
    b"\x61",
    b"\x62",
    b"\x63",
    b"\x6c",
    b"\x6d",
    b"\x6e",
    b"\x6f",
    b"\x75",
    b"\x8c",
    b"\x8e",
    b"\x8f",
    b"\x9a",
    b"\x9b",
    b"\x9c",
    b"\x9d",
    b"\xa4",
    b"\xa5",
    b"\xa7",
    b"\xab",
    b"\xad",
    b"\xaf",
    b"\xc2",
    b"\xc3",
    b"\xc4",
    b"\xc5",
    b"\xc8",
    b"\xc9",
    b"\xca",
    b"\xcb",
    b"\xcc",
    b"\xcd",
    b"\xce",
    b"\xcf",
    b"\xd9",
    b"\xdf",
    b"\xe2",
    b"\xe4",
    b"\xe5",
    b"\xe6",
    b"\xe7",
    b"\xe8",
    b"\xea",
    b"\xeb",
    b"\xec",
    b"\xed",
    b"\xee",
    b"\xef",
    b"\xf1",
    b"\xf4",
    b"\xf7",
    b"\xfa",
    b"\xfb",
    b"\xff",
    b"\xff",
];

const PREFIXES: &[u8] = &[
    0x66, 0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x48, 0x41,
];

/// A string of instructions.
pub fn code(rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    while out.len() < LENGTH {
        if rng.one_in(3) {
            for _ in 0..1 + rng.below(8) {
                out.push(rng.next() as u8);
            }
            continue;
        }
        while rng.one_in(3) {
            out.push(rng.pick(PREFIXES));
        }
        out.extend(rng.pick(OPCODES));
        // What may be a ModRM byte, a displacement, a selector, or another instruction.
        match rng.below(3) {
            0 => out.push(0xc0 | rng.next() as u8),
            1 => out.push(rng.next() as u8),
            _ => {
                let offset = (CODE + rng.below(64)) as u16;
                out.extend(offset.to_le_bytes());
                out.extend(selector(rng).to_le_bytes());
            }
        }
    }
    out.truncate(LENGTH);
    out
}

fn selector(rng: &mut Rng) -> u16 {
    match rng.below(8) {
        0 => rng.next() as u16,
        1 => rng.below(8) as u16,
        _ => (rng.below(0x40) * 8 + rng.below(4)) as u16,
    }
}

/// A value for a register or a field.
fn value(rng: &mut Rng) -> u64 {
    match rng.below(8) {
        0 => rng.next(),
        1 => rng.next() as u32 as u64,
        2 => rng.pick(&[
            0,
            1,
            u64::MAX,
            0x7fff_ffff_ffff,
            0x8000_0000_0000,
            0xffff_ffff,
        ]),
        3 => u64::from(selector(rng)),
        4 => 1 << rng.below(64),
        5 => rng.pick(&[0xc000_0080, 0xc000_0081, 0x10, 0x1b, 0x174, 0x1d9]),
        _ => rng.below(0x1_0000),
    }
}

/// A descriptor of any type.
fn random_descriptor(rng: &mut Rng) -> u64 {
    let base = if rng.one_in(2) {
        0
    } else {
        rng.below(0x1_0000) as u32
    };
    let limit = match rng.below(4) {
        0 => rng.next() as u32 & 0xf_ffff,
        1 => 0x67 + rng.below(4) as u32,
        2 => rng.below(0x1_0000) as u32,
        _ => 0xf_ffff,
    };
    let access = rng.next() as u8 | if rng.one_in(8) { 0 } else { 0x80 };
    if access & 0x14 == 4 {
        return gate32(selector(rng), (CODE + rng.below(64)) as u32, access) | rng.below(32) << 32;
    }
    descriptor(base, limit, access, rng.next() as u8 & 0xf)
}

/// Handlers that skip a byte and go on, so that a string is run to its end.
pub fn handlers(context: Context) -> Vec<(u64, Vec<u8>)> {
    let bits = match context {
        Context::Real => 16,
        _ if context.is_ia32e() => 64,
        _ => 32,
    };
    let handler = |at, error: bool| {
        assemble(bits, at, |a| match bits {
            16 => {
                a.push(bp).unwrap();
                a.mov(bp, sp).unwrap();
                a.inc(word_ptr(bp + 2)).unwrap();
                a.pop(bp).unwrap();
                a.iret().unwrap();
            }
            32 => {
                if error {
                    a.add(esp, 4).unwrap();
                }
                a.inc(dword_ptr(esp)).unwrap();
                a.iretd().unwrap();
            }
            _ => {
                if error {
                    a.add(rsp, 8).unwrap();
                }
                a.inc(qword_ptr(rsp)).unwrap();
                a.iretq().unwrap();
            }
        })
    };
    (0..64)
        .map(|v| {
            (
                STUBS + STUB * v,
                handler(STUBS + STUB * v, has_code(v as u8)),
            )
        })
        .collect()
}

/// Changes to the tables, as pieces of memory.
pub fn tables(rng: &mut Rng, context: Context) -> Vec<(u64, Vec<u8>)> {
    let mut out = Vec::new();
    for n in sel::FREE / 8..0x40 {
        let raw = random_descriptor(rng);
        out.push((GDT + u64::from(n) * 8, raw.to_le_bytes().to_vec()));
    }
    if rng.one_in(4) {
        let raw = random_descriptor(rng);
        out.push((GDT + rng.below(0x20) * 8, raw.to_le_bytes().to_vec()));
    }
    while rng.one_in(2) {
        let vector = rng.below(64);
        let access = rng.pick(&[
            0x8e, 0xee, 0x8f, 0xef, 0x85, 0xe5, 0x86, 0x87, 0x0e, 0x8c, 0x00,
        ]);
        let selector = selector(rng);
        let offset = if rng.one_in(2) { STUBS } else { value(rng) };
        if context.is_ia32e() {
            let [low, high] = gate64(selector, offset, access, rng.below(8) as u8);
            out.push((IDT + vector * 16, low.to_le_bytes().to_vec()));
            out.push((IDT + vector * 16 + 8, high.to_le_bytes().to_vec()));
        } else if context != Context::Real {
            let gate = gate32(selector, offset as u32, access);
            out.push((IDT + vector * 8, gate.to_le_bytes().to_vec()));
        }
    }
    // A TSS with more stacks, and an I/O bitmap.
    if rng.one_in(2) {
        let at = crate::tables::TSS + 4 * rng.below(26);
        out.push((at, (value(rng) as u32).to_le_bytes().to_vec()));
    }
    out.extend(paging(rng));
    out
}

/// 4-level, legacy and PAE structures, mostly the identity, with a few entries changed.
fn paging(rng: &mut Rng) -> Vec<(u64, Vec<u8>)> {
    let spoil = |rng: &mut Rng, entry: u64| match rng.below(40) {
        0 => entry ^ 1 << rng.below(64),
        1 => entry & !7 | rng.below(8),
        2 => entry ^ rng.below(0x100) << 12,
        _ => entry,
    };
    let words = |list: Vec<u64>| list.iter().flat_map(|w| w.to_le_bytes()).collect();
    let halves = |list: Vec<u64>| {
        list.iter()
            .flat_map(|&w| (w as u32).to_le_bytes())
            .collect()
    };
    let mut identity = |n: u64| (0..n).map(|p| spoil(rng, p << 12 | 7)).collect::<Vec<_>>();
    let (small, legacy) = (identity(512), identity(1024));
    let top = |rng: &mut Rng, at: u64| if rng.one_in(30) { value(rng) } else { at | 7 };
    let large = if rng.one_in(4) {
        spoil(rng, 0x87)
    } else {
        (PAGES + 0x3000) | 7
    };
    vec![
        (PAGES, words(vec![top(rng, PAGES + 0x1000)])),
        (PAGES + 0x1000, words(vec![top(rng, PAGES + 0x2000)])),
        (PAGES + 0x2000, words(vec![large])),
        (PAGES + 0x3000, words(small)),
        (LEGACY, halves(vec![top(rng, LEGACY + 0x1000)])),
        (LEGACY + 0x1000, halves(legacy)),
        (PAE, words(vec![(PAE + 0x1000) | 1])),
        (PAE + 0x1000, words(vec![large])),
    ]
}

/// Sets registers; the same for the same numbers.
pub fn registers(rng: &mut Rng, context: Context, s: &mut CpuState) {
    let fresh = CpuState::new();
    (s.xmm, s.ymm_hi, s.x87, s.mxcsr) = (fresh.xmm, fresh.ymm_hi, fresh.x87, 0x1f80);
    for n in 0..16 {
        if n != 4 {
            s.gpr[n] = value(rng);
        }
    }
    if context.bits() != 64 {
        for gpr in &mut s.gpr {
            *gpr &= 0xffff_ffff;
        }
        s.gpr[8..].fill(0);
    }
    // TF, IF, IOPL, NT, AC, ID, and the arithmetic flags.
    let mut flags = s.rflags() & 1 << 17 | 2 | rng.next() & 0x8d5;
    for bit in [8, 9, 12, 13, 14, 18, 19, 20, 21] {
        if rng.one_in(4) {
            flags |= 1 << bit;
        }
    }
    if context.is_ia32e() && rng.one_in(2) {
        flags &= !(1 << 14);
    }
    s.set_rflags(flags);
    let sys = &mut s.sys;
    // MP, EM, TS, NE, WP, AM.
    for bit in [1, 2, 3, 5, 16, 18] {
        if rng.one_in(4) {
            sys.cr0 ^= 1 << bit;
        }
    }
    // VME, PVI, TSD, DE, PSE, MCE, PGE, PCE, OSFXSR, OSXMMEXCPT, UMIP, FSGSBASE, OSXSAVE, SMEP,
    // SMAP.
    for bit in [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 16, 18, 20, 21] {
        if rng.one_in(3) {
            sys.cr4 ^= 1 << bit;
        }
    }
    if context.is_protected() && !context.is_ia32e() || context == Context::V86 {
        match rng.below(3) {
            0 => {}
            1 => {
                sys.cr0 |= 1 << 31;
                sys.cr3 = LEGACY;
            }
            _ => {
                sys.cr0 |= 1 << 31;
                sys.cr4 |= 1 << 5;
                sys.cr3 = PAE;
                sys.pdpte[0] = (PAE + 0x1000) | 1;
            }
        }
    }
    if rng.one_in(3) {
        for n in [0, 1, 2, 3] {
            sys.dr[n] = CODE + rng.below(64);
        }
        sys.dr[7] = 0x400 | rng.next() & 0xffff_23ff;
    }
    if rng.one_in(16) {
        sys.gdtr.limit = rng.below(0x200) as u16;
    }
    if rng.one_in(16) {
        sys.idtr.limit = rng.below(0x400) as u16;
    }
    if rng.one_in(3) {
        sys.ldtr.attr = 0x82;
        (sys.ldtr.base, sys.ldtr.limit) = (GDT, rng.below(0x400) as u32);
    }
    if rng.one_in(16) {
        s.gpr[4] = value(rng);
        if context.bits() != 64 {
            s.gpr[4] &= 0xffff_ffff;
        }
    }
    if rng.one_in(8) {
        let n = rng.pick(&[0, 2, 3, 4, 5]);
        s.sys.seg_limit[n] = rng.below(0x1_0000) as u32;
    }
    s.sys.msr.lstar = CODE;
    s.sys.msr.star = rng.next() & 0x00f8_00f8_0000_0000;
    s.sys.msr.sysenter_cs = u64::from(sel::CODE32);
    s.sys.msr.sysenter_eip = CODE;
    s.sys.msr.sysenter_esp = crate::tables::STACK;
}
