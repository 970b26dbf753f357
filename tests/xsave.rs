//! XRSTOR, XSAVE, XSAVEOPT, XSAVEC and XGETBV against the host: what goes in by one comes out by
//! another, in both engines, for every choice of components.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod fpu;
mod host;

use fpu::*;
use host::case::*;
use host::engine::{Engine, Kind, Stop};
use host::rng::Rng;

/// Random images for each form.
const CASES: u32 = 1000;
/// Bytes of an image with the three components.
const SIZE: usize = 832;
/// Where the header is.
const HEADER: usize = 512;
/// Where the upper halves of the YMM registers are.
const UPPER: usize = 576;

/// An image at the alignment that it needs.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Image([u8; SIZE]);

impl Image {
    fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }

    fn set_word(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

/// A random image to load from: standard, or compacted.
fn random_image(rng: &mut Rng, compacted: bool) -> Image {
    let mut image = Image([0; SIZE]);
    for at in (0..SIZE).step_by(8) {
        image.set_word(at, rng.u64());
    }
    // MXCSR without the reserved bits.
    image.0[24..28].copy_from_slice(&(rng.u64() as u32 & 0xffff).to_le_bytes());
    if rng.one_in(4) {
        image.0[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    }
    // No pointers: CPUs differ about when they save them. No pending exception.
    image.0[6..24].fill(0);
    image.set_word(0, 0x37f | image.word(0) & 0xff_0000_0000);
    for register in image.0[32..160].chunks_mut(16) {
        let (mantissa, exponent) = extended(rng);
        register[..8].copy_from_slice(&mantissa.to_le_bytes());
        register[8..10].copy_from_slice(&exponent.to_le_bytes());
    }
    for (from, to) in [(160, 416), (UPPER, SIZE)] {
        if rng.one_in(4) {
            image.0[from..to].fill(0);
        }
    }
    image.0[HEADER..UPPER].fill(0);
    let present = rng.below(8);
    image.set_word(HEADER, present);
    if compacted {
        image.set_word(HEADER + 8, present | rng.below(8) | 1 << 63);
    }
    image
}

/// The component of a byte of an image, if it belongs to one; MXCSR is nobody's.
fn component(at: usize) -> Option<u64> {
    match at {
        // Pointers and opcode, whose saving CPUs differ about.
        0..6 | 32..160 if at % 16 < 10 || at < 32 => Some(1),
        160..416 => Some(2),
        UPPER.. => Some(4),
        _ => None,
    }
}

/// What the image says about a component's byte: its own, or what it is after reset where the
/// component is not present.
fn meaning(image: &Image, at: usize) -> Option<u8> {
    let part = component(at)?;
    if image.word(HEADER) & part != 0 {
        return Some(image.0[at]);
    }
    Some(match at {
        0 => 0x7f,
        1 => 3,
        _ => 0,
    })
}

/// The forms: the opcode's second byte and the group's number in ModRM.
const SAVES: [(&str, u8, u8); 3] = [
    ("xsave", 0xae, 4),
    ("xsaveopt", 0xae, 6),
    ("xsavec", 0xc7, 4),
];

/// MOV EAX, `load`; XOR EDX, EDX; XRSTOR [RDI]; MOV EAX, `save`; the save to [RSI].
fn code(wide: bool, load: u32, save: u32, form: (u8, u8), end: &[u8]) -> Vec<u8> {
    let mut code = vec![0xb8];
    code.extend(load.to_le_bytes());
    code.extend([0x31, 0xd2]);
    code.extend(wide.then_some(0x48));
    code.extend([0x0f, 0xae, 5 << 3 | 7, 0xb8]);
    code.extend(save.to_le_bytes());
    code.extend(wide.then_some(0x48));
    code.extend([0x0f, form.0, form.1 << 3 | 6]);
    code.extend(end);
    code
}

#[test]
fn images_come_back_as_from_the_host() {
    let host_has = std::arch::is_x86_feature_detected!("avx")
        && std::arch::is_x86_feature_detected!("xsaveopt")
        && std::arch::is_x86_feature_detected!("xsavec");
    assert!(
        host_has,
        "the host lacks AVX, XSAVEOPT or XSAVEC: nothing to compare with"
    );
    let native = Native::new();
    let mut rng = Rng::new(832);
    for (name, opcode, group) in SAVES {
        for (mode, wide) in [(Mode::M64, false), (Mode::M64, true), (Mode::M32, false)] {
            let mut engines = Kind::SINGLE.map(|kind| (kind, Engine::new(kind, mode)));
            for _ in 0..CASES / 10 {
                let (load, save) = (rng.below(8) as u32, rng.below(8) as u32);
                // XRSTOR of everything first, so that nothing of the host is left.
                let clean = {
                    let mut image = random_image(&mut rng, false);
                    image.set_word(HEADER, 0);
                    image.0[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
                    image
                };
                // LDMXCSR [RCX]; FNINIT; VZEROUPPER.
                let end = [0x0f, 0xae, 0x11, 0xdb, 0xe3, 0xc5, 0xf8, 0x77];
                let guest = code(wide, load, save, (opcode, group), &[0xcc]);
                for (_, engine) in &mut engines {
                    engine.load(CODE_AT, &guest);
                }
                // MOV EAX, 7; XOR EDX, EDX; XRSTOR [R8], then what the guest does.
                let mut whole = vec![0xb8, 7, 0, 0, 0, 0x31, 0xd2, 0x41, 0x0f, 0xae, 0x28];
                whole.extend(code(wide, load, save, (opcode, group), &end));
                whole.push(0xc3);
                for _ in 0..10 {
                    let compacted = rng.one_in(3);
                    let from = random_image(&mut rng, compacted);
                    let mut filler = random_image(&mut rng, false);
                    filler.set_word(HEADER, rng.below(8));
                    let mut want = filler;
                    let mxcsr = 0x1f80u32;
                    // SAFETY: the page is writable and executable; the code accesses the images and
                    // the word, and leaves the FPU and MXCSR as a function may.
                    unsafe {
                        std::ptr::copy_nonoverlapping(whole.as_ptr(), native.0, whole.len());
                        let f: extern "sysv64" fn(
                            *const Image,
                            *mut Image,
                            u64,
                            *const u32,
                            *const Image,
                        ) = std::mem::transmute(native.0);
                        f(&from, &mut want, 0, &mxcsr, &clean);
                    }
                    for (kind, engine) in &mut engines {
                        let memory = &engine.vcpu.env.memory;
                        memory.write_bytes(DATA, &from.0).expect("data");
                        memory.write_bytes(DATA + 0x400, &filler.0).expect("data");
                        let state = &mut engine.vcpu.state;
                        state.xmm = [0; 16];
                        state.ymm_hi = [0; 16];
                        state.mxcsr = 0x1f80;
                        state.x87.control = 0x37f;
                        (state.x87.status, state.x87.top, state.x87.tags) = (0, 0, 0);
                        state.x87.regs = Default::default();
                        (state.gpr[7], state.gpr[6]) = (DATA, DATA + 0x400);
                        state.rip = mode.ip(CODE_AT);
                        let stop = engine.go(100);
                        assert!(
                            matches!(stop, Stop::Exception(e) if e.vector == 3),
                            "{name}: {stop:?}"
                        );
                        let mut got = Image([0; SIZE]);
                        let memory = &engine.vcpu.env.memory;
                        memory.read_bytes(DATA + 0x400, &mut got.0).expect("data");
                        compare(name, kind, mode, [load, save], &from, &filler, &want, &got);
                    }
                }
            }
        }
    }
}

/// Whether the two images mean the same, for what was asked to be saved; everything else must be
/// as it was.
#[allow(clippy::too_many_arguments)]
fn compare(
    name: &str,
    kind: &Kind,
    mode: Mode,
    [load, save]: [u32; 2],
    from: &Image,
    filler: &Image,
    want: &Image,
    got: &Image,
) {
    let saved = u64::from(save);
    let differ: Vec<usize> = (0..SIZE)
        .filter(|&at| {
            let beyond = mode == Mode::M32 && matches!(at, 288..416 | 704.. );
            match component(at) {
                // XMM8 and so on, which 32-bit code does not have.
                _ if beyond => got.0[at] != filler.0[at],
                Some(part) if saved & part != 0 => meaning(got, at) != meaning(want, at),
                Some(_) => got.0[at] != filler.0[at],
                None if (24..28).contains(&at) => {
                    let kept = name == "xsavec" && want.word(HEADER) & 2 == 0;
                    !kept && got.0[at] != want.0[at]
                }
                None => (HEADER + 8..UPPER).contains(&at) && got.0[at] != want.0[at],
            }
        })
        .collect();
    // What the host does not call in use is as after reset, so we may not either; the other way
    // round CPUs have a choice.
    let header = got.word(HEADER) & !want.word(HEADER) & !saved;
    assert!(
        differ.is_empty() && header == 0,
        "{name} {mode:?} {}: load {load}, save {save}: bytes {differ:?}, header {:#x}, host {:#x}\n\
         from {:02x?}\n header {:02x?}\nhost {:02x?}\nours {:02x?}",
        kind.name(),
        got.word(HEADER),
        want.word(HEADER),
        &from.0[..32],
        &from.0[HEADER..HEADER + 16],
        &want.0[..32],
        &got.0[..32]
    );
}

/// Runs code with EAX, EDX and RDI set; how it stops and what EDX:EAX is then.
fn run(engine: &mut Engine, code: &[u8], rcx: u64) -> (Stop, u64) {
    engine.load(CODE_AT, code);
    let state = &mut engine.vcpu.state;
    (state.gpr[0], state.gpr[2], state.gpr[1]) = (7, 0, rcx);
    state.gpr[7] = DATA;
    state.rip = Mode::M64.ip(CODE_AT);
    let stop = engine.go(100);
    let state = &engine.vcpu.state;
    (stop, state.gpr[0] | state.gpr[2] << 32)
}

fn vector(stop: &Stop) -> Option<u8> {
    match stop {
        Stop::Exception(e) => Some(e.vector),
        _ => None,
    }
}

#[test]
fn xgetbv_names_the_components() {
    for kind in Kind::SINGLE {
        let mut engine = Engine::new(kind, Mode::M64);
        let code = [0x0f, 0x01, 0xd0, 0xcc];
        let (stop, xcr0) = run(&mut engine, &code, 0);
        assert_eq!((vector(&stop), xcr0), (Some(3), 7));
        engine.vcpu.state.ymm_hi[3] = 1;
        let (stop, in_use) = run(&mut engine, &code, 1);
        assert_eq!((vector(&stop), in_use), (Some(3), 4));
        let (stop, _) = run(&mut engine, &code, 2);
        assert_eq!(vector(&stop), Some(13), "no such register");
        // XSETBV is the operating system's.
        let (stop, _) = run(&mut engine, &[0x0f, 0x01, 0xd1, 0xcc], 0);
        assert_eq!(vector(&stop), Some(13));
    }
}

#[test]
fn bad_images_are_refused_and_change_nothing() {
    for kind in Kind::SINGLE {
        let mut engine = Engine::new(kind, Mode::M64);
        let good = Image([0; SIZE]);
        let bad = |at: usize, value: u64| {
            let mut image = good;
            image.set_word(at, value);
            image
        };
        let mut beyond = bad(HEADER, 5);
        beyond.set_word(HEADER + 8, 1 << 63 | 1);
        let images = [
            ("a component that XCR0 lacks", bad(HEADER, 8)),
            ("a reserved word", bad(HEADER + 16, 1)),
            ("a layout that is not compacted", bad(HEADER + 8, 1)),
            (
                "a layout with what XCR0 lacks",
                bad(HEADER + 8, 1 << 63 | 8),
            ),
            ("a component that the layout lacks", beyond),
            ("reserved bits of MXCSR", bad(24, 1 << 20)),
        ];
        for (what, image) in images {
            engine.vcpu.state.xmm[1] = 77;
            engine
                .vcpu
                .env
                .memory
                .write_bytes(DATA, &image.0)
                .expect("data");
            let (stop, _) = run(&mut engine, &[0x0f, 0xae, 0x2f, 0xcc], 0);
            assert_eq!(vector(&stop), Some(13), "{what}");
            assert_eq!(engine.vcpu.state.xmm[1], 77, "{what}");
        }
        // Not a multiple of 64.
        let (stop, _) = run(&mut engine, &[0x0f, 0xae, 0x6f, 0x20, 0xcc], 0);
        assert_eq!(vector(&stop), Some(13));
    }
}
