//! FXRSTOR and FXSAVE against the host: what goes in by one comes out by the other, in both engines,
//! in the three forms that there are.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod fpu;
mod host;

use fpu::*;
use host::case::*;
use host::engine::{Engine, Kind, Stop};
use host::rng::Rng;

/// Random images for each form.
const CASES: u32 = 1000;

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
        for _ in 0..CASES {
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
