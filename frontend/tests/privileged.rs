//! System instructions by mode: which are undefined, which are refused, which call the helper for
//! what, and how their blocks end.

mod common;

use common::{
    COMPAT, KERNEL32, KERNEL64, REAL, USER32, USER64, V86, calls, insts, lift, raised, with,
};
use metaphrase_frontend::{Limits, Mode, Policy, Sensitive, SensitivePolicy, lift_region};
use metaphrase_ir::{Helper, Op, SystemKind, SystemOp};

/// What an instruction becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Becomes {
    /// A call (or more) of the helper, the first of this kind.
    Call(SystemKind),
    /// #UD.
    Ud,
    /// #GP.
    Gp,
    /// The encoding is another instruction in 64-bit code.
    Other,
}

use Becomes::{Call, Gp, Other, Ud};
use SystemKind::*;

fn becomes(bytes: &[u8], mode: Mode) -> Becomes {
    let region = lift(bytes, mode, Policy::Callout);
    match raised(&region) {
        Some(6) => return Ud,
        Some(13) => return Gp,
        _ => {}
    }
    let calls = calls(&region, Helper::System);
    let ops: Vec<SystemOp> = calls.into_iter().filter_map(SystemOp::unpack).collect();
    let Some(first) = ops.first() else {
        return Other;
    };
    let leaves = ops.iter().any(|op| op.kind.leaves());
    let resumes = insts(&region).any(|i| i.op == Op::Resume);
    assert_eq!(leaves, resumes, "{bytes:02x?} in {mode:?}");
    Call(first.kind)
}

/// In the order of [`MODES`].
type Row = (&'static [u8], [Becomes; 7]);
const MODES: [Mode; 7] = [REAL, V86, KERNEL32, USER32, KERNEL64, USER64, COMPAT];

/// Allowed in every mode as far as the mode key says.
const fn always(kind: SystemKind) -> [Becomes; 7] {
    [Call(kind); 7]
}

/// #GP unless the CPL is 0.
const fn privileged(kind: SystemKind) -> [Becomes; 7] {
    let call = Call(kind);
    [call, Gp, call, Gp, call, Gp, Gp]
}

/// #UD in real-address and virtual-8086 mode.
const fn protected(kind: SystemKind) -> [Becomes; 7] {
    let call = Call(kind);
    [Ud, Ud, call, call, call, call, call]
}

/// Both.
const fn protected_privileged(kind: SystemKind) -> [Becomes; 7] {
    let call = Call(kind);
    [Ud, Ud, call, Gp, call, Gp, Gp]
}

/// #UD unless the CPL is 0.
const fn supervisor(kind: SystemKind) -> [Becomes; 7] {
    let call = Call(kind);
    [call, Ud, call, Ud, call, Ud, Ud]
}

/// Not in 64-bit code.
const fn legacy(kind: SystemKind) -> [Becomes; 7] {
    let call = Call(kind);
    [call, call, call, call, Ud, Ud, call]
}

const TABLE: &[Row] = &[
    (&[0x0f, 0x20, 0xc0], privileged(ReadCr)),  // MOV EAX, CR0
    (&[0x0f, 0x22, 0xd8], privileged(WriteCr)), // MOV CR3, EAX
    (&[0x0f, 0x20, 0xc8], [Ud; 7]),             // MOV EAX, CR1
    (&[0x0f, 0x22, 0xe8], [Ud; 7]),             // MOV CR5, EAX
    (&[0x0f, 0x21, 0xf0], privileged(ReadDr)),  // MOV EAX, DR6
    (&[0x0f, 0x23, 0xe0], privileged(WriteDr)), // MOV DR4, EAX
    (&[0x0f, 0x06], privileged(Clts)),          // CLTS
    (&[0x0f, 0x01, 0xf0], privileged(Lmsw)),    // LMSW AX
    (&[0x0f, 0x01, 0x33], privileged(Lmsw)),    // LMSW [EBX]
    (&[0x0f, 0x01, 0xe0], always(Smsw)),        // SMSW AX
    (&[0x0f, 0x32], privileged(Rdmsr)),         // RDMSR
    (&[0x0f, 0x30], privileged(Wrmsr)),         // WRMSR
    (&[0x0f, 0x31], always(Rdtsc)),             // RDTSC
    (&[0x0f, 0x01, 0xf9], always(Rdtsc)),       // RDTSCP
    (&[0x0f, 0x33], always(Rdpmc)),             // RDPMC
    (&[0x0f, 0x01, 0xd1], privileged(Xsetbv)),  // XSETBV
    (&[0x0f, 0x01, 0x03], always(GdtBase)),     // SGDT
    (&[0x0f, 0x01, 0x0b], always(IdtBase)),     // SIDT
    (&[0x0f, 0x00, 0xc0], protected(Sldt)),     // SLDT AX
    (&[0x0f, 0x00, 0x0b], protected(Str)),      // STR [EBX]
    (&[0x0f, 0x01, 0x13], privileged(Lgdt)),    // LGDT
    (&[0x0f, 0x01, 0x1b], privileged(Lidt)),    // LIDT
    (&[0x0f, 0x00, 0xd0], protected_privileged(Lldt)), // LLDT AX
    (&[0x0f, 0x00, 0xd8], protected_privileged(Ltr)), // LTR AX
    (&[0x0f, 0x02, 0xc3], protected(SegmentInfo)), // LAR
    (&[0x0f, 0x03, 0xc3], protected(SegmentInfo)), // LSL
    (&[0x0f, 0x00, 0xe0], protected(SegmentInfo)), // VERR
    (&[0x0f, 0x00, 0xe8], protected(SegmentInfo)), // VERW
    (&[0x8e, 0xd8], always(LoadSegment)),       // MOV DS, AX
    (&[0x8e, 0xc8], [Ud; 7]),                   // MOV CS, AX
    (&[0x0f, 0xa1], always(PopSegment)),        // POP FS
    (&[0x1f], legacy(PopSegment)),              // POP DS
    (&[0x0f, 0xb2, 0x03], always(LoadFar)),     // LSS
    (&[0x0f, 0x01, 0xf8], [Ud, Ud, Ud, Ud, Call(Swapgs), Gp, Ud]), // SWAPGS
    (&[0xea, 0, 0, 0, 0, 8, 0], legacy(JmpFar)), // JMP 8:0
    (&[0x9a, 0, 0, 0, 0, 8, 0], legacy(CallFar)), // CALL 8:0
    (&[0xff, 0x2b], always(JmpFar)),            // JMP FAR [EBX]
    (&[0xff, 0x1b], always(CallFar)),           // CALL FAR [EBX]
    (&[0xcb], always(RetFar)),                  // RETF
    (&[0xca, 4, 0], always(RetFar)),            // RETF 4
    (&[0xcf], always(Iret)),                    // IRET
    (&[0xcd, 0x21], always(Int)),               // INT 0x21
    (&[0xcc], always(Int)),                     // INT3
    (&[0xf1], always(Int)),                     // INT1
    (&[0xce], legacy(Int)),                     // INTO
    (&[0x0f, 0x05], always(Syscall)),           // SYSCALL
    (&[0x0f, 0x07], always(Sysret)),            // SYSRET
    (&[0x0f, 0x34], always(Sysenter)),          // SYSENTER
    (&[0x0f, 0x35], always(Sysexit)),           // SYSEXIT
    (&[0x0f, 0xaa], always(Rsm)),               // RSM
    (&[0xfa], always(Cli)),                     // CLI
    (&[0xfb], always(Sti)),                     // STI
    (&[0x9c], always(Pushf)),                   // PUSHF
    (&[0x9d], always(Popf)),                    // POPF
    (&[0xf4], privileged(Hlt)),                 // HLT
    (&[0x0f, 0x01, 0x3b], privileged(Invlpg)),  // INVLPG [EBX]
    (&[0x0f, 0x08], privileged(Wbinvd)),        // INVD
    (&[0x0f, 0x09], privileged(Wbinvd)),        // WBINVD
    (&[0x0f, 0x01, 0xca], supervisor(Clac)),    // CLAC
    (&[0x0f, 0x01, 0xcb], supervisor(Clac)),    // STAC
    (&[0x0f, 0x01, 0xc8], supervisor(Monitor)), // MONITOR
    (&[0x0f, 0x01, 0xc9], supervisor(Hlt)),     // MWAIT
    (&[0x66, 0x0f, 0x38, 0x82, 0x03], always(Invpcid)), // INVPCID EAX, [EBX]
    (&[0xf3, 0x0f, 0x09], privileged(Wbinvd)),  // WBNOINVD
    (&[0xe4, 0x60], always(In)),                // IN AL, 0x60
    (&[0xef], always(Out)),                     // OUT DX, EAX
    (&[0x6c], always(PortString)),              // INSB
    (&[0xf3, 0x6f], always(PortString)),        // REP OUTSD
    (&[0x63, 0xc8], [Ud, Ud, Other, Other, Other, Other, Other]), // ARPL; MOVSXD
];

#[test]
fn each_instruction_becomes_what_the_mode_says() {
    for (bytes, wanted) in TABLE {
        for (mode, want) in MODES.into_iter().zip(wanted) {
            let got = becomes(bytes, mode);
            assert_eq!(
                got,
                *want,
                "{bytes:02x?} in {:?}",
                mode.system.map(|s| s.level)
            );
        }
    }
}

#[test]
fn every_kind_is_reached() {
    let mut seen: Vec<SystemKind> = Vec::new();
    for (bytes, _) in TABLE {
        for mode in MODES {
            let calls = calls(&lift(bytes, mode, Policy::Callout), Helper::System);
            seen.extend(
                calls
                    .into_iter()
                    .filter_map(SystemOp::unpack)
                    .map(|op| op.kind),
            );
        }
    }
    for &kind in SystemKind::ALL {
        assert!(seen.contains(&kind), "{}", kind.name());
    }
}

/// The descriptor of the first call.
fn descriptor(bytes: &[u8], mode: Mode) -> SystemOp {
    let calls = calls(&lift(bytes, mode, Policy::Callout), Helper::System);
    SystemOp::unpack(calls[0]).expect("a system instruction")
}

#[test]
fn descriptors_say_what_the_helper_must_know() {
    let op = |kind, size, n, m| SystemOp { kind, size, n, m };
    // MOV CR8, RAX.
    assert_eq!(
        descriptor(&[0x44, 0x0f, 0x22, 0xc0], KERNEL64),
        op(WriteCr, 8, 8, 0)
    );
    assert_eq!(
        descriptor(&[0x0f, 0x23, 0xf8], KERNEL32),
        op(WriteDr, 4, 7, 0)
    );
    assert_eq!(descriptor(&[0x8e, 0xe8], REAL), op(LoadSegment, 2, 5, 0));
    // LES ECX, [EBX]; POP SS.
    assert_eq!(descriptor(&[0xc4, 0x0b], KERNEL32), op(LoadFar, 4, 0, 1));
    assert_eq!(descriptor(&[0x17], KERNEL32), op(PopSegment, 4, 2, 0));
    assert_eq!(descriptor(&[0x66, 0xcb], KERNEL32), op(RetFar, 2, 0, 0));
    assert_eq!(descriptor(&[0x48, 0xcf], KERNEL64), op(Iret, 8, 0, 0));
    assert_eq!(descriptor(&[0xcd, 0x80], USER32), op(Int, 0, 0x80, 0));
    assert_eq!(descriptor(&[0xcc], USER32), op(Int, 0, 3, 1));
    assert_eq!(descriptor(&[0xce], USER32), op(Int, 0, 4, 1));
    assert_eq!(descriptor(&[0xf1], USER32), op(Int, 0, 1, 2));
    assert_eq!(
        descriptor(&[0x48, 0x0f, 0x07], KERNEL64),
        op(Sysret, 8, 0, 0)
    );
    assert_eq!(descriptor(&[0x66, 0xed], USER32), op(In, 2, 0, 0));
    // REP OUTSW from FS with 16-bit addresses.
    let outs = [0x64, 0xf3, 0x67, 0x66, 0x6f];
    assert_eq!(
        descriptor(&outs, KERNEL32),
        op(PortString, 2, 1, 2 | 1 << 4 | 4 << 5)
    );
    assert_eq!(descriptor(&[0x6c], REAL), op(PortString, 1, 0, 2));
}

#[test]
fn the_trap_policy_leaves_every_one_to_the_runtime() {
    for (bytes, wanted) in TABLE {
        for (mode, want) in MODES.into_iter().zip(wanted) {
            let region = lift(bytes, mode, Policy::Trap);
            let emulated = insts(&region).any(|i| i.op == Op::Emulate);
            let sensitive = !matches!(want, Ud | Other);
            assert_eq!(emulated, sensitive, "{bytes:02x?} in {mode:?}");
        }
    }
}

#[test]
fn each_ends_its_block() {
    for (bytes, wanted) in TABLE {
        for (mode, want) in MODES.into_iter().zip(wanted) {
            if !matches!(want, Call(_)) {
                continue;
            }
            // NOP, the instruction, NOPs.
            let mut code = vec![0x90];
            code.extend_from_slice(bytes);
            code.resize(40, 0x90);
            let policy = SensitivePolicy::default();
            let lifted = lift_region(0, mode, &&code[..], Limits::BLOCK, &policy).unwrap();
            assert_eq!(lifted.region.guest.len(), 2, "{bytes:02x?} in {mode:?}");
        }
    }
}

#[test]
fn xsetbv_needs_osxsave_before_privilege() {
    let off = with(USER64, |s| s.osxsave = false);
    assert_eq!(becomes(&[0x0f, 0x01, 0xd1], off), Ud);
}

#[test]
fn the_page_lists_every_kind() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/sensitive-instructions.md"
    );
    let page = std::fs::read_to_string(path).unwrap();
    let (_, system) = page.split_once("## In a full system").unwrap();
    for kind in Sensitive::ALL {
        let row = system
            .lines()
            .filter(|l| l.starts_with("| `"))
            .filter_map(|l| l.split('|').nth(1))
            .any(|names| names.contains(&format!("`{kind}`")));
        assert!(row, "{kind} has no row");
    }
}
