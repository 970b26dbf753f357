//! Every x87 encoding against the host's FPU, in both engines, in code of every size, and with the
//! portable core as well as with the host's FPU for the arithmetic.
//!
//! A small program loads a random state with FRSTOR, runs the instruction, and stores the state
//! with FNSAVE. It runs natively in 64-bit code, and in the engines; all of both states must agree,
//! bit for bit, but for the last bit and C1 of what the portable core computes of transcendental
//! functions. Condition codes that the manual leaves undefined are those of the CPU that the x87
//! helper was written on (AMD Zen).
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod host;

use host::case::*;
use host::engine::{Engine, Kind, Stop};
use host::rng::Rng;
use iced_x86::{Decoder, DecoderOptions};
use metaphrase_runtime::Options;
use metaphrase_runtime::options::X87Core;

/// Random states for each encoding with a memory operand, and for each with a register: those are
/// eight to a form.
const CASES: (u32, u32) = (1000, 150);

/// Size of a memory operand: an FSAVE image and room around it.
const OPERAND_LEN: usize = 128;
/// An FSAVE image.
type Image = [u8; 108];

// Places in the data area.
const BEFORE: u64 = DATA;
const OPERAND: u64 = DATA + 0x200;
const AFTER: u64 = DATA + 0x400;
const WORDS: u64 = DATA + 0x600;
const STACK: u64 = DATA + 0x1000;

/// An 80-bit value of any class: significand, then sign and exponent.
fn extended(rng: &mut Rng) -> (u64, u16) {
    let sign = (rng.below(2) << 15) as u16;
    let top = 1u64 << 63;
    let (mantissa, exponent) = match rng.below(16) {
        0 => (0, 0),
        1 => (top, 0x3fff),
        2 => (top, 0x7fff),
        3 => (0xc0 << 56 | rng.u64() >> 3, 0x7fff),
        4 => (top | rng.u64() >> 2 | 1, 0x7fff),
        5 => (rng.u64() >> 1, 0),
        6 => (rng.u64() >> 1, rng.below(0x8000)),
        7 => (top | rng.u64(), rng.below(0x8000)),
        8 => (top | rng.below(64) << 56, 0x3fff + rng.below(8)),
        9 => (top | rng.u64(), 0x3fff - 0x3ff + rng.below(0x7ff)),
        10 => (top | rng.u64() << 11, 0x3fff - 20 + rng.below(40)),
        11 => (top | rng.u64() << 40, 0x3fff - 0x80 + rng.below(0x100)),
        12 => (top | rng.u64(), rng.pick(&[0, 1, 0x7ffe, 0x3bff, 0x43ff])),
        _ => (top | rng.u64(), 0x3fff - 4 + rng.below(70)),
    };
    (mantissa, exponent as u16 | sign)
}

/// Bytes for a memory operand: often a float or integer of a telling value.
fn operand(rng: &mut Rng) -> [u8; OPERAND_LEN] {
    let mut out = [0; OPERAND_LEN];
    for chunk in out.chunks_mut(8) {
        chunk.copy_from_slice(&rng.u64().to_le_bytes());
    }
    let telling: u64 = match rng.below(12) {
        0 => 0,
        1 => 1.0f64.to_bits(),
        2 => f64::INFINITY.to_bits(),
        3 => 0x7ff8 << 48 | rng.u64() >> 16,
        4 => 0x7ff0 << 48 | rng.u64() >> 16,
        5 => rng.u64() >> 13,
        6 => f64::from(rng.u64() as i32).to_bits(),
        7 => f32::from(rng.u64() as i16).to_bits().into(),
        8 => rng.pick(&[0x7f80_0000, 0x7fc0_1234, 0xff80_0001, 0x8000_0001, 0x1234]),
        9 => rng.below(1000),
        _ => return out,
    };
    out[..8].copy_from_slice(&telling.to_le_bytes());
    out
}

/// Ten bytes of packed decimal.
fn decimal(rng: &mut Rng) -> [u8; 10] {
    let mut out = [0; 10];
    for b in &mut out[..9] {
        *b = (rng.below(10) << 4 | rng.below(10)) as u8;
    }
    out[9] = (rng.below(2) << 7) as u8;
    out
}

/// A random FSAVE image without a pending exception.
fn random_image(rng: &mut Rng) -> Image {
    let mut image = [0u8; 108];
    let masks = match rng.below(3) {
        0 => rng.u64() as u16 & 0x3f,
        _ => 0x3f,
    };
    let mut control = rng.u64() as u16 & 0xf00 | masks | 0x40;
    if control & 0x300 == 0x100 {
        // A reserved precision has no meaning.
        control ^= 0x200;
    }
    let status = rng.u64() as u16 & (0x7f40 | masks);
    let empty = match rng.below(4) {
        0 => rng.u64() as u8,
        1 => 0,
        // Free room above the stack, whatever TOP is.
        n => (if n == 2 { 0x80u8 } else { 0xe0 }).rotate_left(u32::from(status >> 11 & 7)),
    };
    let tags = (0..8)
        .filter(|n| empty >> n & 1 != 0)
        .fold(0u16, |w, n| w | 3 << (2 * n));
    image[0..2].copy_from_slice(&control.to_le_bytes());
    image[4..6].copy_from_slice(&status.to_le_bytes());
    image[8..10].copy_from_slice(&tags.to_le_bytes());
    let pointers = [0x7654_3210, 0x0123_1234, 0x0fed_cba9, 0x5678u32];
    for (bytes, word) in image[12..28].chunks_mut(4).zip(pointers) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    for register in image[28..].chunks_mut(10) {
        let (mantissa, exponent) = extended(rng);
        register[..8].copy_from_slice(&mantissa.to_le_bytes());
        register[8..].copy_from_slice(&exponent.to_le_bytes());
    }
    image
}

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

/// A page of native code.
struct Native(*mut u8);

impl Native {
    fn new() -> Native {
        // SAFETY: a new anonymous mapping goes where nothing else is.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(p, libc::MAP_FAILED);
        Native(p.cast())
    }

    fn run(&self, insn: &[u8], before: &World) -> (World, Place) {
        let code = program(insn, 0xc3);
        let mut after = before.clone();
        after.words[1] = 0;
        // SAFETY: the page is writable and executable; the code uses only the four pointers and
        // what the ABI lets it clobber, and FNSAVE leaves the FPU initialised.
        unsafe {
            std::ptr::copy_nonoverlapping(code.as_ptr(), self.0, code.len());
            let f: extern "sysv64" fn(*const u8, *mut u8, *mut u8, *mut u64) =
                std::mem::transmute(self.0);
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
            code: self.0 as u64,
            operand: after.operand.as_ptr() as u64,
            cs,
            ds,
        };
        (after, place)
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nobody runs in it.
        unsafe { libc::munmap(self.0.cast(), 4096) };
    }
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

/// Whether the host keeps selectors, opcode and operand pointer whatever happens (CPUID leaf 7:
/// neither FDP_EXCPTN_ONLY nor deprecated FCS and FDS).
fn host_keeps_pointers() -> bool {
    std::arch::x86_64::__cpuid_count(7, 0).ebx & (1 << 6 | 1 << 13) == 0
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
                let (mut world, place) = native.run(&encoding.bytes, &before);
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

/// An FXSAVE image at the alignment that it needs.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct FxImage([u8; 512]);

/// A random image; also of a pending exception.
fn random_fx_image(rng: &mut Rng) -> FxImage {
    let mut image = [0; 512];
    for word in image.chunks_mut(8) {
        word.copy_from_slice(&rng.u64().to_le_bytes());
    }
    // MXCSR without the reserved bits.
    image[26..28].fill(0);
    // Pointers of 47 bits, which are canonical in every CPU: one that is not does not come back.
    for high in [13, 21] {
        image[high] &= 0x7f;
        image[high + 1..high + 3].fill(0);
    }
    for register in image[32..160].chunks_mut(16) {
        let (mantissa, exponent) = extended(rng);
        register[..8].copy_from_slice(&mantissa.to_le_bytes());
        register[8..10].copy_from_slice(&exponent.to_le_bytes());
    }
    FxImage(image)
}

/// Blanks what a host may keep otherwise: the mask of MXCSR, and the pointers unless an exception
/// is pending (AMD's CPUs store them only then).
fn blank_fx(image: &mut FxImage, pointers: bool) {
    image.0[28..32].fill(0);
    let pending = image.0[2] & 0x80 != 0;
    if !(pointers && pending) {
        image.0[6..24].fill(0);
    }
}

#[test]
fn fxsave_and_fxrstor_do_what_the_host_does() {
    let native = Native::new();
    let pointers = host_keeps_pointers();
    let mut rng = Rng::new(512);
    // FXRSTOR [RDI]; FXSAVE [RSI], or the forms with REX.W; LDMXCSR [RCX]; FNINIT.
    let code = |wide: bool, end: u8| {
        let mut code = Vec::new();
        for insn in [[0x0f, 0xae, 0x0f], [0x0f, 0xae, 0x06]] {
            code.extend(wide.then_some(0x48));
            code.extend(insn);
        }
        code.extend([0x0f, 0xae, 0x11, 0xdb, 0xe3, end]);
        code
    };
    for (mode, wide) in [(Mode::M64, false), (Mode::M64, true), (Mode::M32, false)] {
        let mut engines = Kind::SINGLE.map(|kind| (kind, Engine::new(kind, mode)));
        for (_, engine) in &mut engines {
            engine.load(CODE_AT, &code(wide, 0xcc));
        }
        for _ in 0..CASES.0 {
            let (from, filler) = (random_fx_image(&mut rng), random_fx_image(&mut rng));
            let run = || {
                let mut out = filler;
                let mxcsr = 0x1f80u32;
                let code = code(wide, 0xc3);
                // SAFETY: the page is writable and executable; the code accesses the images and the
                // word, and leaves the FPU and MXCSR as a function may.
                unsafe {
                    std::ptr::copy_nonoverlapping(code.as_ptr(), native.0, code.len());
                    let f: extern "sysv64" fn(*const FxImage, *mut FxImage, u64, *const u32) =
                        std::mem::transmute(native.0);
                    f(&from, &mut out, 0, &mxcsr);
                }
                if mode == Mode::M32 {
                    // XMM8 to XMM15 are not there.
                    out.0[288..416].copy_from_slice(&filler.0[288..416]);
                }
                blank_fx(&mut out, pointers);
                out
            };
            let (mut previous, mut want) = (run(), run());
            while previous.0 != want.0 {
                previous = std::mem::replace(&mut want, run());
            }
            for (kind, engine) in &mut engines {
                let memory = &engine.vcpu.env.memory;
                memory.write_bytes(BEFORE, &from.0).expect("data");
                memory.write_bytes(OPERAND, &filler.0).expect("data");
                let mxcsr = 0x1f80u32.to_le_bytes();
                memory.write_bytes(WORDS, &mxcsr).expect("data");
                let state = &mut engine.vcpu.state;
                (state.gpr[7], state.gpr[6], state.gpr[1]) = (BEFORE, OPERAND, WORDS);
                state.rip = mode.ip(CODE_AT);
                let stop = engine.go(100);
                assert!(
                    matches!(stop, Stop::Exception(e) if e.vector == 3),
                    "{stop:?}"
                );
                let mut got = FxImage([0; 512]);
                let memory = &engine.vcpu.env.memory;
                memory.read_bytes(OPERAND, &mut got.0).expect("data");
                blank_fx(&mut got, pointers);
                let differ: Vec<usize> = (0..512).filter(|&n| got.0[n] != want.0[n]).collect();
                assert!(
                    differ.is_empty(),
                    "{mode:?} {} wide {wide}: bytes {differ:?}\nfrom {:02x?}\nhost {:02x?}\nours {:02x?}",
                    kind.name(),
                    &from.0[..32],
                    &want.0[..32],
                    &got.0[..32]
                );
            }
        }
    }
}
