//! Every x87 encoding against the host's FPU, in both engines, in code of every size, and with the
//! portable core as well as with the host's FPU for the arithmetic.
//!
//! A small program loads a random state with FRSTOR, runs the instruction, and stores the state
//! with FNSAVE. It runs natively in 64-bit code, and in the engines; all of both states must agree,
//! bit for bit, but for the last bit and C1 of what the portable core computes of transcendental
//! functions. Condition codes that the manual leaves undefined are those of the CPU that the x87
//! helper was written on (AMD Zen).
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod fpu;
mod host;

use fpu::*;
use host::case::*;
use host::engine::{Engine, Kind, Stop};
use host::rng::Rng;
use iced_x86::{Decoder, DecoderOptions};
use metaphrase_runtime::Options;
use metaphrase_runtime::options::X87Core;

/// Random states for each encoding with a memory operand, and for each with a register: those are
/// eight to a form.
const CASES: (u32, u32) = (1000, 150);

/// What a program starts from and ends with.
#[derive(Clone, PartialEq)]
struct World {
    image: Image,
    operand: [u8; OPERAND_LEN],
    /// RFLAGS, then the low half of RAX.
    words: [u64; 2],
}

/// FRSTOR [RDI]; PUSH [RCX]; POPF; the instruction; PUSHF; POP [RCX]; MOV [RCX+8], EAX;
/// FNSAVE [RDX]. The same bytes do in 32 and in 64-bit code.
fn program(insn: &[u8], end: u8) -> Vec<u8> {
    let mut code = vec![0xdd, 0x27, 0xff, 0x31, 0x9d];
    code.extend_from_slice(insn);
    code.extend_from_slice(&[0x9c, 0x8f, 0x01, 0x89, 0x41, 0x08, 0xdd, 0x32, end]);
    code
}

/// The same for 16-bit code, with prefixes for 32-bit addresses and, where it matters, operands.
fn program16(encoding: &Encoding) -> Vec<u8> {
    let mut code = vec![0x66, 0x67, 0xdd, 0x27, 0x66, 0x67, 0xff, 0x31, 0x66, 0x9d];
    let (short, insn) = match encoding.bytes.strip_prefix(&[0x66]) {
        Some(insn) => (true, insn),
        None => (false, &encoding.bytes[..]),
    };
    if encoding.memory.is_some() {
        code.push(0x67);
    }
    if matches!(encoding.memory, Some((1 | 5, 4 | 6))) && !short {
        code.push(0x66);
    }
    code.extend_from_slice(insn);
    code.extend_from_slice(&[0x66, 0x9c, 0x66, 0x67, 0x8f, 0x01]);
    code.extend_from_slice(&[0x66, 0x67, 0x89, 0x41, 0x08, 0x66, 0x67, 0xdd, 0x32, 0xcc]);
    code
}

/// How much further into [`program16`] the instruction is than into [`program`].
const LATER16: u64 = 5;

/// Runs the program natively.
fn run_natively(page: &Native, insn: &[u8], before: &World) -> (World, Place) {
    let code = program(insn, 0xc3);
    let mut after = before.clone();
    after.words[1] = 0;
    // SAFETY: the page is writable and executable; the code uses only the four pointers and
    // what the ABI lets it clobber, and FNSAVE leaves the FPU initialised.
    unsafe {
        std::ptr::copy_nonoverlapping(code.as_ptr(), page.0, code.len());
        let f: extern "sysv64" fn(*const u8, *mut u8, *mut u8, *mut u64) =
            std::mem::transmute(page.0);
        f(
            before.image.as_ptr(),
            after.operand.as_mut_ptr(),
            after.image.as_mut_ptr(),
            after.words.as_mut_ptr(),
        );
    }
    let (cs, ds): (u16, u16);
    // SAFETY: reads two selectors.
    unsafe {
        std::arch::asm!("mov {0:x}, cs", "mov {1:x}, ds", out(reg) cs, out(reg) ds);
    }
    let place = Place {
        code: page.0 as u64,
        operand: after.operand.as_ptr() as u64,
        cs,
        ds,
    };
    (after, place)
}

/// Runs the program that `engine` has loaded.
fn emulate(engine: &mut Engine, before: &World, mode: Mode) -> World {
    let mut words = [0u8; 16];
    words[..8].copy_from_slice(&before.words[0].to_le_bytes());
    let memory = &engine.vcpu.env.memory;
    memory.write_bytes(BEFORE, &before.image).expect("data");
    memory.write_bytes(OPERAND, &before.operand).expect("data");
    memory.write_bytes(WORDS, &words).expect("data");
    let state = &mut engine.vcpu.state;
    state.gpr = [0; 16];
    let registers = [
        (7, BEFORE),
        (6, OPERAND),
        (2, AFTER),
        (1, WORDS),
        (4, STACK),
    ];
    let (data, stack) = match mode {
        Mode::M16 => (DS16_BASE, SS16_BASE),
        _ => (0, 0),
    };
    for (n, v) in registers {
        state.gpr[n] = v - if n == 4 { stack } else { data };
    }
    state.set_rflags(0x202);
    state.rip = mode.ip(CODE_AT);
    let stop = engine.go(100);
    let Stop::Exception(e) = stop else {
        panic!("stopped by {stop:?}");
    };
    assert_eq!(e.vector, 3, "stopped by {e:?}");
    let mut after = before.clone();
    let memory = &engine.vcpu.env.memory;
    memory.read_bytes(AFTER, &mut after.image).expect("data");
    memory
        .read_bytes(OPERAND, &mut after.operand)
        .expect("data");
    memory.read_bytes(WORDS, &mut words).expect("data");
    for (word, bytes) in after.words.iter_mut().zip(words.chunks(8)) {
        *word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    }
    after
}

/// An encoding: with RSI as base, registers, or the short images.
#[derive(Clone, Debug)]
struct Encoding {
    bytes: Vec<u8>,
    /// The low bits of the opcode and the reg field of a memory form.
    memory: Option<(u8, u8)>,
}

/// Those that exist.
fn encodings() -> Vec<Encoding> {
    let mut all = Vec::new();
    for escape in 0..8u8 {
        let memory = (0..8u8).map(|reg| reg << 3 | 6);
        for modrm in memory.chain(0xc0..=0xff) {
            for short in [false, true] {
                let mut bytes = vec![0x66; usize::from(short)];
                bytes.extend([0xd8 | escape, modrm]);
                let memory = (modrm < 0xc0).then_some((escape, modrm >> 3));
                let image = matches!(memory, Some((1 | 5, 4 | 6)));
                let mut decoder = Decoder::new(64, &bytes, DecoderOptions::NONE);
                if !decoder.decode().is_invalid() && (!short || image) {
                    all.push(Encoding { bytes, memory });
                }
            }
        }
    }
    // Displacements, which FOP and FDP tell of: FADD dword [RSI+8], twice.
    for bytes in [&[0xd8, 0x46, 8][..], &[0xd8, 0x86, 8, 0, 0, 0]] {
        all.push(Encoding {
            bytes: bytes.to_vec(),
            memory: Some((0, 0)),
        });
    }
    all
}

/// Where a program and its operand lie, and with which selectors.
#[derive(Clone, Copy)]
struct Place {
    code: u64,
    operand: u64,
    cs: u16,
    ds: u16,
}

/// Makes what depends on the place comparable: instruction and operand pointers become distances
/// and the selectors beside them 1. What FRSTOR loaded stays, so it shows if nothing replaced it.
fn normalise(world: &mut World, place: Place, pointers: bool) {
    let mut part = |at: usize, start: u64, len: u32, selector: u16| {
        let bytes = &mut world.image[at..at + 6];
        let distance = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"))
            .wrapping_sub(start as u32);
        if distance < len {
            bytes[..4].copy_from_slice(&distance.to_le_bytes());
            if bytes[4..] == selector.to_le_bytes() {
                bytes[4..].copy_from_slice(&[1, 0]);
            }
        }
    };
    part(12, place.code, 64, place.cs);
    part(20, place.operand, OPERAND_LEN as u32, place.ds);
    if !pointers {
        world.image[12..28].fill(0);
    }
    world.words[0] &= ARITH;
    world.words[1] &= 0xffff_ffff;
}

/// The transcendental functions, whose last bit is the implementation's.
fn transcendental(encoding: &Encoding) -> bool {
    matches!(
        encoding.bytes[..],
        [0xd9, 0xf0..=0xf3 | 0xf9 | 0xfb | 0xfe | 0xff]
    )
}

/// Where ST(0) and ST(1) of `got` are neighbours of those of `want`, makes them the same, and C1.
fn allow_last_bit(want: &World, got: &mut World) {
    got.image[5] = got.image[5] & !2 | want.image[5] & 2;
    // As integers, values of one sign are in order.
    let place = |image: &Image, at: usize| {
        let mantissa = u64::from_le_bytes(image[at..at + 8].try_into().expect("eight bytes"));
        let exponent = u16::from_le_bytes([image[at + 8], image[at + 9]]);
        u128::from(exponent) << 63 | u128::from(mantissa & !(1 << 63))
    };
    for at in [28, 38] {
        if place(&want.image, at).abs_diff(place(&got.image, at)) <= 1 {
            got.image[at..at + 10].copy_from_slice(&want.image[at..at + 10]);
        }
    }
}

/// For people: control, status and tag word, the registers from ST(0), flags and operand.
fn show(world: &World) -> String {
    let word = |at: usize| u16::from_le_bytes([world.image[at], world.image[at + 1]]);
    let mut out = format!(
        "cw {:04x} sw {:04x} tags {:04x} pointers",
        word(0),
        word(4),
        word(8)
    );
    for pointer in world.image[12..28].chunks(4) {
        let word = u32::from_le_bytes(pointer.try_into().expect("four bytes"));
        out += &format!(" {word:08x}");
    }
    for r in world.image[28..].chunks(10) {
        let digits: String = r.iter().rev().map(|b| format!("{b:02x}")).collect();
        out += &format!(" {}:{}", &digits[..4], &digits[4..]);
    }
    format!(
        "{out} flags {:x} operand {:02x?}",
        world.words[0],
        &world.operand[..16]
    )
}

#[test]
fn every_encoding_does_what_the_host_does() {
    let native = Native::new();
    let mut engines: Vec<(Mode, Kind, X87Core, Engine)> = Vec::new();
    for mode in Mode::ALL {
        for kind in Kind::SINGLE {
            for core in [X87Core::Host, X87Core::Portable] {
                let options = Options {
                    x87: core,
                    ..kind.options()
                };
                engines.push((mode, kind, core, Engine::with_options(options, mode)));
            }
        }
    }
    let pointers = host_keeps_pointers();
    let mut rng = Rng::new(87);
    let mut failures = Vec::new();
    let encodings = encodings();
    // A guard for the generator.
    assert!(encodings.len() > 380, "{}", encodings.len());
    for encoding in encodings {
        for (mode, .., engine) in &mut engines {
            let code = match mode {
                Mode::M16 => program16(&encoding),
                _ => program(&encoding.bytes, 0xcc),
            };
            engine.load(CODE_AT, &code);
        }
        let mut failed = 0;
        let cases = if encoding.memory.is_some() {
            CASES.0
        } else {
            CASES.1
        };
        for _ in 0..cases {
            let mut before = World {
                image: random_image(&mut rng),
                operand: operand(&mut rng),
                words: [rng.u64() & ARITH | 2, 0],
            };
            match encoding.memory {
                Some((7, 4)) => before.operand[..10].copy_from_slice(&decimal(&mut rng)),
                // FLDENV, FRSTOR.
                Some((1 | 5, 4)) => before.operand[..108].copy_from_slice(&random_image(&mut rng)),
                _ => {}
            }
            let run = || {
                let (mut world, place) = run_natively(&native, &encoding.bytes, &before);
                normalise(&mut world, place, pointers);
                world
            };
            // A context switch of the host may lose the pointers: believe what comes twice.
            let (mut previous, mut expected) = (run(), run());
            while previous != expected {
                previous = std::mem::replace(&mut expected, run());
            }
            for (mode, kind, core, engine) in &mut engines {
                let mut got = emulate(engine, &before, *mode);
                let selectors = engine.vcpu.state.seg_sel;
                let (later, data) = match mode {
                    Mode::M16 => (LATER16, DS16_BASE),
                    _ => (0, 0),
                };
                let place = Place {
                    code: mode.ip(CODE_AT) + later,
                    operand: OPERAND - data,
                    cs: selectors[1],
                    ds: selectors[3],
                };
                normalise(&mut got, place, pointers);
                // AX is the program's only where the instruction writes it.
                if encoding.bytes != [0xdf, 0xe0] {
                    got.words[1] = expected.words[1];
                } else {
                    expected.words[1] &= 0xffff;
                    got.words[1] &= 0xffff;
                }
                if *core == X87Core::Portable && transcendental(&encoding) {
                    allow_last_bit(&expected, &mut got);
                }
                if got != expected {
                    failed += 1;
                    if failed <= 2 {
                        failures.push(format!(
                            "{:02x?} in {mode:?} by {} ({core:?} core)\n  from {}\n  host {}\n  ours {}",
                            encoding.bytes,
                            kind.name(),
                            show(&before),
                            show(&expected),
                            show(&got),
                        ));
                    }
                }
            }
        }
        if failed > 0 {
            failures.push(format!("{:02x?}: {failed} differ", encoding.bytes));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn an_unmasked_exception_comes_with_the_next_waiting_instruction() {
    for mode in [Mode::M64, Mode::M32] {
        for kind in Kind::SINGLE {
            let mut engine = Engine::new(kind, mode);
            // FLDCW [RSI]; FLD1; FLDZ; FDIVP; FNSTSW AX; FNOP
            let code = [
                0xd9, 0x2e, 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0xdf, 0xe0, 0xd9, 0xd0, 0xcc,
            ];
            engine.load(CODE_AT, &code);
            let control = 0x37bu16.to_le_bytes();
            engine
                .vcpu
                .env
                .memory
                .write_bytes(OPERAND, &control)
                .expect("data");
            engine.vcpu.state.gpr[6] = OPERAND;
            engine.vcpu.state.rip = mode.ip(CODE_AT);
            let Stop::Exception(e) = engine.go(100) else {
                panic!("no exception");
            };
            assert_eq!(e.vector, 16);
            let state = &engine.vcpu.state;
            assert_eq!(state.rip, mode.ip(CODE_AT) + 10, "at FNOP");
            assert_eq!(state.gpr[0] & 0x80ff, 0x8084, "B, ES and ZE");
        }
    }
}
