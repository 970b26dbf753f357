//! What CR0, CR4 and XCR0 make of floating-point and vector instructions.

mod common;

use common::{KERNEL32, KERNEL64, REAL, V86, lift, raised, with};
use metaphrase_frontend::{Mode, Policy, SystemMode};

const UD: Option<u8> = Some(6);
const NM: Option<u8> = Some(7);

/// What the instruction raises in the mode changed so.
fn under(bytes: &[u8], mode: Mode, change: impl Fn(&mut SystemMode)) -> Option<u8> {
    raised(&lift(bytes, with(mode, change), Policy::Callout))
}

const X87: &[&[u8]] = &[
    &[0xd9, 0xe8],             // FLD1
    &[0xdd, 0x03],             // FLD QWORD PTR [RBX]
    &[0xdb, 0xe3],             // FNINIT
    &[0xdf, 0xe0],             // FNSTSW AX
    &[0xda, 0xc1],             // FCMOVB
    &[0xdd, 0x0b],             // FISTTP
    &[0x0f, 0xae, 0x03],       // FXSAVE
    &[0x48, 0x0f, 0xae, 0x0b], // FXRSTOR64
];
const MMX: &[&[u8]] = &[
    &[0x0f, 0xfc, 0xc1], // PADDB MM0, MM1
    &[0x0f, 0x6e, 0xc0], // MOVD MM0, EAX
    &[0x0f, 0xe7, 0x03], // MOVNTQ [RBX], MM0
    &[0x0f, 0x77],       // EMMS
];
const SSE: &[&[u8]] = &[
    &[0x0f, 0x58, 0xc1],                   // ADDPS
    &[0xf2, 0x0f, 0x10, 0x03],             // MOVSD XMM0, [RBX]
    &[0x66, 0x0f, 0x6f, 0x03],             // MOVDQA
    &[0x0f, 0xae, 0x13],                   // LDMXCSR
    &[0x0f, 0xae, 0x1b],                   // STMXCSR
    &[0x0f, 0x2a, 0xc1],                   // CVTPI2PS XMM0, MM1
    &[0x66, 0x0f, 0x38, 0xdc, 0xc1],       // AESENC
    &[0x66, 0x0f, 0x3a, 0x16, 0xc0, 0x01], // PEXTRD EAX, XMM0, 1
];
const AVX: &[&[u8]] = &[
    &[0xc5, 0xf8, 0x58, 0xc1],       // VADDPS
    &[0xc5, 0xf8, 0x77],             // VZEROUPPER
    &[0xc5, 0xf8, 0xae, 0x1b],       // VSTMXCSR
    &[0xc4, 0xe2, 0x7d, 0x18, 0x03], // VBROADCASTSS
];
const XSAVE: &[&[u8]] = &[
    &[0x0f, 0xae, 0x23], // XSAVE
    &[0x0f, 0xae, 0x2b], // XRSTOR
    &[0x0f, 0xc7, 0x23], // XSAVEC
];
/// Neither turned off nor made unavailable by any bit.
const FREE: &[&[u8]] = &[
    &[0x0f, 0x18, 0x03],             // PREFETCHNTA
    &[0x0f, 0xae, 0xf0],             // MFENCE
    &[0x0f, 0xae, 0x3b],             // CLFLUSH
    &[0x0f, 0xc3, 0x03],             // MOVNTI
    &[0xf2, 0x0f, 0x38, 0xf1, 0xc1], // CRC32
    &[0xf3, 0x0f, 0xb8, 0xc1],       // POPCNT
    &[0xc4, 0xe2, 0x70, 0xf2, 0xc0], // ANDN
    &[0xf3, 0x90],                   // PAUSE
];

#[test]
fn with_everything_on_nothing_is_refused() {
    for bytes in [X87, MMX, SSE, AVX, XSAVE, FREE].concat() {
        assert_eq!(under(bytes, KERNEL64, |_| {}), None, "{bytes:02x?}");
    }
}

#[test]
fn task_switched_makes_all_of_them_unavailable() {
    for bytes in [X87, MMX, SSE, AVX, XSAVE].concat() {
        assert_eq!(under(bytes, KERNEL64, |s| s.ts = true), NM, "{bytes:02x?}");
    }
    for bytes in FREE {
        assert_eq!(
            under(bytes, KERNEL64, |s| s.ts = true),
            None,
            "{bytes:02x?}"
        );
    }
}

#[test]
fn emulation_undefines_all_but_x87_and_avx() {
    let em = |bytes| under(bytes, KERNEL64, |s| s.em = true);
    let both = |bytes| under(bytes, KERNEL64, |s| (s.em, s.ts) = (true, true));
    for bytes in X87 {
        assert_eq!((em(bytes), both(bytes)), (NM, NM), "{bytes:02x?}");
    }
    for bytes in [MMX, SSE].concat() {
        assert_eq!((em(bytes), both(bytes)), (UD, UD), "{bytes:02x?}");
    }
    for bytes in [AVX, XSAVE, FREE].concat() {
        assert_eq!(em(bytes), None, "{bytes:02x?}");
    }
}

#[test]
fn the_operating_system_turns_sets_on() {
    for bytes in SSE {
        assert_eq!(
            under(bytes, KERNEL64, |s| s.osfxsr = false),
            UD,
            "{bytes:02x?}"
        );
    }
    for bytes in [X87, MMX, AVX, XSAVE, FREE].concat() {
        assert_eq!(
            under(bytes, KERNEL64, |s| s.osfxsr = false),
            None,
            "{bytes:02x?}"
        );
    }
    for bytes in AVX {
        let off = |s: &mut SystemMode| (s.avx, s.ts) = (false, true);
        assert_eq!(under(bytes, KERNEL64, off), UD, "{bytes:02x?}");
    }
    let xgetbv: &[u8] = &[0x0f, 0x01, 0xd0];
    for bytes in XSAVE.iter().copied().chain([xgetbv]) {
        let off = |s: &mut SystemMode| (s.osxsave, s.ts) = (false, true);
        assert_eq!(under(bytes, KERNEL64, off), UD, "{bytes:02x?}");
    }
    assert_eq!(under(xgetbv, KERNEL64, |s| s.ts = true), None);
    // RDFSBASE, WRGSBASE.
    for bytes in [[0xf3, 0x0f, 0xae, 0xc0], [0xf3, 0x0f, 0xae, 0xd8]] {
        assert_eq!(under(&bytes, KERNEL64, |s| s.fsgsbase = false), UD);
        assert_eq!(under(&bytes, KERNEL64, |_| {}), None);
    }
}

#[test]
fn wait_minds_two_bits_together() {
    let wait: &[u8] = &[0x9b];
    assert_eq!(under(wait, KERNEL32, |s| s.ts = true), None);
    assert_eq!(under(wait, KERNEL32, |s| s.mp = true), None);
    assert_eq!(under(wait, KERNEL32, |s| s.em = true), None);
    assert_eq!(under(wait, KERNEL32, |s| (s.mp, s.ts) = (true, true)), NM);
}

#[test]
fn vex_needs_protected_mode() {
    // VADDPS and ANDN, in encodings that 16-bit code decodes as these.
    for bytes in [
        &[0xc5, 0xf8, 0x58, 0xc1][..],
        &[0xc4, 0xe2, 0x70, 0xf2, 0xc0],
    ] {
        for mode in [REAL, V86] {
            assert_eq!(under(bytes, mode, |_| {}), UD, "{bytes:02x?}");
        }
        assert_eq!(under(bytes, KERNEL32, |_| {}), None, "{bytes:02x?}");
    }
}
