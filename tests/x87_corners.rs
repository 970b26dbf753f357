//! Corner values in the 80-bit format through the x87's arithmetic, comparisons, conversions and
//! rounding: all pairs, every rounding and precision control, exceptions masked and not, in each
//! engine and with both cores. The operation runs in a guest loop, so that compiled regions are
//! tested as well; the host runs the very same code, and everything it stores must be the same.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod fpu;
mod host;

use fpu::Native;
use host::case::{DATA, Mode};
use host::engine::{Engine, Kind, Stop};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use metaphrase_runtime::Options;
use metaphrase_runtime::options::X87Core;

/// What stands beside ST(0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Other {
    /// Nothing: one operand.
    None,
    /// ST(1).
    Register,
    /// Memory, with values of that kind.
    Memory(Stored),
}

/// Values in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stored {
    F32,
    F64,
    Integer,
    Decimal,
}

/// The instructions, their operand in memory at RSI.
const OPERATIONS: &[(&str, &[u8], Other)] = &[
    ("fadd st0, st1", &[0xd8, 0xc1], Other::Register),
    ("fmul st0, st1", &[0xd8, 0xc9], Other::Register),
    ("fsub st0, st1", &[0xd8, 0xe1], Other::Register),
    ("fsubr st0, st1", &[0xd8, 0xe9], Other::Register),
    ("fdiv st0, st1", &[0xd8, 0xf1], Other::Register),
    ("fdivr st0, st1", &[0xd8, 0xf9], Other::Register),
    ("faddp", &[0xde, 0xc1], Other::Register),
    ("fdivrp", &[0xde, 0xf1], Other::Register),
    ("fcom st1", &[0xd8, 0xd1], Other::Register),
    ("fucompp", &[0xda, 0xe9], Other::Register),
    ("fcomi st0, st1", &[0xdb, 0xf1], Other::Register),
    ("fucomip st0, st1", &[0xdf, 0xe9], Other::Register),
    ("fprem", &[0xd9, 0xf8], Other::Register),
    ("fprem1", &[0xd9, 0xf5], Other::Register),
    ("fscale", &[0xd9, 0xfd], Other::Register),
    ("fxch st1", &[0xd9, 0xc9], Other::Register),
    ("fst st1", &[0xdd, 0xd1], Other::Register),
    ("fld st1", &[0xd9, 0xc1], Other::Register),
    ("fsqrt", &[0xd9, 0xfa], Other::None),
    ("frndint", &[0xd9, 0xfc], Other::None),
    ("fxtract", &[0xd9, 0xf4], Other::None),
    ("fabs", &[0xd9, 0xe1], Other::None),
    ("fchs", &[0xd9, 0xe0], Other::None),
    ("ftst", &[0xd9, 0xe4], Other::None),
    ("fxam", &[0xd9, 0xe5], Other::None),
    ("fst m32", &[0xd9, 0x16], Other::None),
    ("fst m64", &[0xdd, 0x16], Other::None),
    ("fstp m80", &[0xdb, 0x3e], Other::None),
    ("fist m16", &[0xdf, 0x16], Other::None),
    ("fist m32", &[0xdb, 0x16], Other::None),
    ("fistp m64", &[0xdf, 0x3e], Other::None),
    ("fisttp m16", &[0xdf, 0x0e], Other::None),
    ("fisttp m32", &[0xdb, 0x0e], Other::None),
    ("fisttp m64", &[0xdd, 0x0e], Other::None),
    ("fbstp m80", &[0xdf, 0x36], Other::None),
    ("fld m32", &[0xd9, 0x06], Other::Memory(Stored::F32)),
    ("fadd m32", &[0xd8, 0x06], Other::Memory(Stored::F32)),
    ("fdivr m32", &[0xd8, 0x3e], Other::Memory(Stored::F32)),
    ("fcom m32", &[0xd8, 0x16], Other::Memory(Stored::F32)),
    ("fld m64", &[0xdd, 0x06], Other::Memory(Stored::F64)),
    ("fsub m64", &[0xdc, 0x26], Other::Memory(Stored::F64)),
    ("fmul m64", &[0xdc, 0x0e], Other::Memory(Stored::F64)),
    ("fcom m64", &[0xdc, 0x16], Other::Memory(Stored::F64)),
    ("fild m16", &[0xdf, 0x06], Other::Memory(Stored::Integer)),
    ("fild m32", &[0xdb, 0x06], Other::Memory(Stored::Integer)),
    ("fild m64", &[0xdf, 0x2e], Other::Memory(Stored::Integer)),
    ("fiadd m16", &[0xde, 0x06], Other::Memory(Stored::Integer)),
    ("fimul m32", &[0xda, 0x0e], Other::Memory(Stored::Integer)),
    ("ficom m32", &[0xda, 0x16], Other::Memory(Stored::Integer)),
    ("fbld m80", &[0xdf, 0x26], Other::Memory(Stored::Decimal)),
];

/// A value and its memory form, as the program reads it: 10 bytes, then up to 10.
type Entry = [u8; 32];

/// The corner values, each with both signs.
fn registers() -> Vec<[u8; 10]> {
    const TOP: u64 = 1 << 63;
    let list: &[(u64, u16)] = &[
        // 0, denormals, pseudo-denormals, the least normal numbers.
        (0, 0),
        (1, 0),
        (TOP - 1, 0),
        (TOP, 0),
        (!0, 0),
        (TOP, 1),
        (TOP | 1, 1),
        (!0, 1),
        // The largest, infinity, pseudo-infinity, pseudo-NaNs, NaNs of both kinds.
        (TOP, 0x7ffe),
        (!0, 0x7ffe),
        (TOP, 0x7fff),
        (0, 0x7fff),
        (1, 0x7fff),
        (TOP >> 1, 0x7fff),
        (TOP | 1, 0x7fff),
        (0xa000_0000_0000_0000, 0x7fff),
        (0xc000_0000_0000_0000, 0x7fff),
        (0xc000_0000_0000_0123, 0x7fff),
        (!0, 0x7fff),
        // Unnormals.
        (TOP >> 1, 0x3fff),
        (0, 0x3fff),
        (TOP - 1, 1),
        (1, 0x7ffe),
        // 1 and its neighbours, halves.
        (TOP, 0x3fff),
        (TOP | 1, 0x3fff),
        (!0, 0x3ffe),
        (TOP, 0x3ffe),
        (0xc000_0000_0000_0000, 0x3fff),
        (0xa000_0000_0000_0000, 0x4000),
        (0xe000_0000_0000_0000, 0x4000),
        (0xc90f_daa2_2168_c235, 0x4000),
        // The limits of integers: below by a half, at, above.
        (0xffff_0000_0000_0000, 0x400d),
        (TOP, 0x400e),
        (TOP | 1 << 47, 0x400e),
        (0xffff_ffff_0000_0000, 0x401d),
        (TOP, 0x401e),
        (TOP | 1 << 31, 0x401e),
        (!0, 0x403d),
        (TOP, 0x403e),
        (TOP, 0x403f),
        // Those of packed decimal.
        (0xde0b_6b3a_763f_fff0, 0x403a),
        (0xde0b_6b3a_763f_fff8, 0x403a),
        (0xde0b_6b3a_7640_0000, 0x403a),
        // Halfway between two numbers of 53 and of 24 bits.
        (TOP | 0x400, 0x3fff),
        (TOP | 0xc00, 0x3fff),
        (TOP | 0x401, 0x3fff),
        (TOP | 1 << 39, 0x3fff),
        (TOP | 3 << 39, 0x3fff),
        // The limits of binary64: the largest, what rounds beyond it, the least, half of it.
        (!0 << 11, 0x43fe),
        (!0 << 10, 0x43fe),
        (TOP, 0x3c01),
        (!0, 0x3c00),
        (TOP, 0x3bcd),
        (TOP, 0x3bcc),
        (TOP | 1, 0x3bcc),
        // Those of binary32.
        (!0 << 40, 0x407e),
        (!0 << 39, 0x407e),
        (TOP, 0x3f81),
        (!0, 0x3f80),
        (TOP, 0x3f6a),
        (TOP, 0x3f69),
        (TOP | 1, 0x3f69),
    ];
    let both = list.iter().flat_map(|&(m, e)| [(m, e), (m, e | 0x8000)]);
    both.map(|(mantissa, exponent)| {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&mantissa.to_le_bytes());
        bytes[8..].copy_from_slice(&exponent.to_le_bytes());
        bytes
    })
    .collect()
}

/// The corner values of a kind of operand in memory.
fn memory(kind: Stored) -> Vec<[u8; 10]> {
    let signed = |list: &[u64], sign: u32| -> Vec<u64> {
        let both = list.iter().flat_map(|&x| [x, x | 1 << sign]);
        both.collect()
    };
    let list = match kind {
        Stored::F32 => signed(
            &[
                0,
                1,
                0x7f_ffff,
                0x80_0000,
                0x7f7f_ffff,
                0x7f80_0000,
                0x7f80_0001,
                0x7fc0_0000,
                0x7fff_ffff,
                0x3f80_0000,
                0x3f80_0001,
                0x3fc0_0000,
                0x4f00_0000,
            ],
            31,
        ),
        Stored::F64 => signed(
            &[
                0,
                1,
                (1 << 52) - 1,
                1 << 52,
                (0x7ff << 52) - 1,
                0x7ff << 52,
                (0x7ff << 52) + 1,
                0xfff << 51,
                !0 >> 1,
                0x3ff << 52,
                (0x3ff << 52) + 1,
                0x7ff << 51,
                0x43e << 52,
            ],
            63,
        ),
        Stored::Integer => {
            let mut all = vec![0, 1, 2, 3, 0xffff, !0, !0 - 1, 0x5555_5555_5555_5555];
            for bit in [15, 31, 63] {
                all.extend([(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
            }
            all
        }
        Stored::Decimal => {
            let digits = |low: u64, high: u8, sign: u8| {
                let mut bytes = [0; 10];
                bytes[..8].copy_from_slice(&low.to_le_bytes());
                (bytes[8], bytes[9]) = (high, sign);
                bytes
            };
            let each = [(0, 0), (1, 0), (0x9999_9999_9999_9999, 0x99), (0, 0x10)];
            return each
                .iter()
                .flat_map(|&(low, high)| [digits(low, high, 0), digits(low, high, 0x80)])
                .collect();
        }
    };
    let wide = |x: &u64| {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&x.to_le_bytes());
        bytes
    };
    list.iter().map(wide).collect()
}

/// Bytes that the program stores for a pair: the operand in memory, ST(0), ST(1), status word,
/// flags.
const RESULT: usize = 64;

/// RDI: ST(1). RSI: control word, and one with everything masked. RDX: entries. RCX: results.
/// R8: how many. For each entry, ST(0) and the operand in memory are loaded and the instruction run.
fn program(insn: &[u8], native: bool) -> Vec<u8> {
    let assemble = || -> Result<Vec<u8>, IcedError> {
        let mut a = CodeAssembler::new(64)?;
        let mut again = a.create_label();
        a.mov(r9, rsi)?;
        a.set_label(&mut again)?;
        a.fninit()?;
        a.fldcw(word_ptr(r9))?;
        a.fld(tbyte_ptr(rdi))?;
        a.fld(tbyte_ptr(rdx))?;
        a.mov(rax, qword_ptr(rdx + 16))?;
        a.mov(qword_ptr(rcx), rax)?;
        a.movzx(eax, word_ptr(rdx + 24))?;
        a.mov(qword_ptr(rcx + 8), rax)?;
        a.mov(rsi, rcx)?;
        a.xor(eax, eax)?;
        a.db(insn)?;
        a.lahf()?;
        a.movzx(eax, ah)?;
        // All but the auxiliary carry, which XOR leaves undefined.
        a.and(eax, 0xc5)?;
        a.mov(qword_ptr(rcx + 48), rax)?;
        a.fnstsw(word_ptr(rcx + 40))?;
        a.fnclex()?;
        a.fldcw(word_ptr(r9 + 2))?;
        a.fstp(tbyte_ptr(rcx + 16))?;
        a.fstp(tbyte_ptr(rcx + 28))?;
        a.add(rdx, 32)?;
        a.add(rcx, RESULT as i32)?;
        a.dec(r8d)?;
        a.jne(again)?;
        if native {
            a.fninit()?;
            a.ret()?;
        } else {
            a.int3()?;
        }
        a.assemble(Mode::M64.ip(AT))
    };
    assemble().expect("assembles")
}

const AT: u64 = 0x100;
const FIRST: u64 = DATA;
const CONTROL: u64 = DATA + 0x20;
const ENTRIES: u64 = DATA + 0x100;
const RESULTS: u64 = DATA + 0x1400;

/// As many entries at once as there is room for.
const CHUNK: usize = (RESULTS - ENTRIES) as usize / 32;

/// The control words: every rounding and precision, all exceptions masked; every rounding with
/// none masked, and with each one alone unmasked.
fn controls() -> Vec<u16> {
    let mut all = Vec::new();
    for rounding in 0..4u16 {
        for precision in [0, 2, 3] {
            all.push(rounding << 10 | precision << 8 | 0x7f);
        }
        all.push(rounding << 10 | 0x340);
    }
    all.extend((0..6).map(|n| 0x37f & !(1 << n)));
    all
}

fn natively(page: &Native, control: u16, first: &[u8; 10], entries: &[Entry]) -> Vec<u8> {
    let mut results = vec![0u8; entries.len() * RESULT];
    let controls = [control, 0x37f];
    // SAFETY: the page holds the program, which reads and writes what it is given and clobbers what
    // the ABI lets it; it leaves the FPU initialised.
    unsafe {
        let f: extern "sysv64" fn(*const u8, *const u16, *const Entry, *mut u8, u64) =
            std::mem::transmute(page.0);
        f(
            first.as_ptr(),
            controls.as_ptr(),
            entries.as_ptr(),
            results.as_mut_ptr(),
            entries.len() as u64,
        );
    }
    results
}

fn emulate(engine: &mut Engine, control: u16, first: &[u8; 10], entries: &[Entry]) -> Vec<u8> {
    let controls: Vec<u8> = [control, 0x37f]
        .iter()
        .flat_map(|c| c.to_le_bytes())
        .collect();
    let mut results = vec![0u8; entries.len() * RESULT];
    let memory = &engine.vcpu.env.memory;
    memory
        .write_bytes(FIRST, first)
        .and_then(|()| memory.write_bytes(CONTROL, &controls))
        .and_then(|()| memory.write_bytes(ENTRIES, entries.as_flattened()))
        .and_then(|()| memory.write_bytes(RESULTS, &results))
        .expect("data is writable");
    let state = &mut engine.vcpu.state;
    state.rip = Mode::M64.ip(AT);
    for (n, v) in [(7, FIRST), (6, CONTROL), (2, ENTRIES), (1, RESULTS)] {
        state.gpr[n] = v;
    }
    state.gpr[8] = entries.len() as u64;
    let stop = engine.go(1_000_000);
    assert!(
        matches!(stop, Stop::Exception(e) if e.vector == 3),
        "{stop:?}"
    );
    let memory = &engine.vcpu.env.memory;
    memory.read_bytes(RESULTS, &mut results).expect("data");
    results
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().rev().map(|b| format!("{b:02x}")).collect()
}

fn every_operation(kind: Kind, core: X87Core) {
    let options = Options {
        x87: core,
        ..kind.options()
    };
    let mut engine = Engine::with_options(options, Mode::M64);
    engine.start(AT, [0; 16], 0);
    let page = Native::new();
    let registers = registers();
    let mut pairs = 0;
    for &(name, insn, other) in OPERATIONS {
        let code = program(insn, true);
        // SAFETY: the page is writable and larger, and nobody runs in it now.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), page.0, code.len()) };
        engine.load(AT, &program(insn, false));
        // What changes slowly is ST(1) or the operand in memory.
        let slow = match other {
            Other::None => vec![registers[46]],
            Other::Register => registers.clone(),
            Other::Memory(kind) => memory(kind),
        };
        for control in controls() {
            for value in &slow {
                let entries: Vec<Entry> = registers
                    .iter()
                    .map(|r| {
                        let mut entry = [0; 32];
                        entry[..10].copy_from_slice(r);
                        entry[16..26].copy_from_slice(value);
                        entry
                    })
                    .collect();
                let first = if other == Other::Register {
                    value
                } else {
                    &registers[46]
                };
                for entries in entries.chunks(CHUNK) {
                    let want = natively(&page, control, first, entries);
                    let got = emulate(&mut engine, control, first, entries);
                    let each = want.chunks(RESULT).zip(got.chunks(RESULT));
                    for (entry, (want, got)) in entries.iter().zip(each) {
                        let part = |b: &[u8]| {
                            let at = [0..10, 16..26, 28..38, 40..42, 48..49];
                            at.map(|r| hex(&b[r])).join(" ")
                        };
                        assert!(
                            want == got,
                            "{name} by {} with {core:?} core and control word {control:#05x}: \
                             ST(0) {}, ST(1) {}, memory {}\n\
                             memory, ST(0), ST(1), status, flags afterwards:\nhost {}\nours {}",
                            kind.name(),
                            hex(&entry[..10]),
                            hex(first),
                            hex(&entry[16..26]),
                            part(want),
                            part(got),
                        );
                        pairs += 1;
                    }
                }
            }
        }
    }
    assert!(pairs > 5_000_000, "only {pairs} cases");
}

#[test]
fn interpreter() {
    every_operation(Kind::Interp, X87Core::Host);
}

#[test]
fn portable_core() {
    every_operation(Kind::Jit, X87Core::Portable);
}

#[test]
fn blocks() {
    every_operation(Kind::Jit, X87Core::Host);
}

#[test]
fn regions() {
    every_operation(Kind::Regions, X87Core::Host);
}
