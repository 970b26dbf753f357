//! Segment checks, alignment checks and checked branch targets: which accesses have them, of what
//! size and direction, and that nothing is written before them.

mod common;

use common::{KERNEL32, KERNEL64, REAL, USER64, calls, insts, lift, with};
use metaphrase_frontend::{Mode, Policy};
use metaphrase_ir::{AccessKind, Helper, Op, Region, SegmentAccess, StringOp};

const ES: u8 = 0;
const CS: u8 = 1;
const SS: u8 = 2;
const DS: u8 = 3;
const FS: u8 = 4;

fn read(segment: u8, size: u16) -> SegmentAccess {
    SegmentAccess {
        segment,
        size,
        write: false,
        fetch: false,
    }
}

fn write(segment: u8, size: u16) -> SegmentAccess {
    SegmentAccess {
        write: true,
        ..read(segment, size)
    }
}

/// 32-bit code whose segments are all checked.
fn checked() -> Mode {
    with(KERNEL32, |s| s.unchecked = 0)
}

fn checks(region: &Region) -> Vec<SegmentAccess> {
    let calls = calls(region, Helper::SegmentCheck);
    calls.into_iter().map(SegmentAccess::unpack).collect()
}

fn checks_of(bytes: &[u8], mode: Mode) -> Vec<SegmentAccess> {
    checks(&lift(bytes, mode, Policy::Callout))
}

#[test]
fn accesses_are_checked_with_size_and_direction() {
    let table: &[(&[u8], Vec<SegmentAccess>)] = &[
        (&[0x8b, 0x03], vec![read(DS, 4)]),               // MOV EAX, [EBX]
        (&[0x66, 0x89, 0x45, 0], vec![write(SS, 2)]),     // MOV [EBP], AX
        (&[0xa0, 0, 0, 0, 0], vec![read(DS, 1)]),         // MOV AL, [0]
        (&[0x64, 0x01, 0x03], vec![write(FS, 4)]),        // ADD FS:[EBX], EAX
        (&[0x39, 0x03], vec![read(DS, 4)]),               // CMP [EBX], EAX
        (&[0x2e, 0x89, 0x03], vec![write(CS, 4)]),        // MOV CS:[EBX], EAX
        (&[0xf7, 0x33], vec![read(DS, 4)]),               // DIV [EBX]
        (&[0x0f, 0xa3, 0x03], vec![read(DS, 4)]),         // BT [EBX], EAX
        (&[0x0f, 0xab, 0x03], vec![write(DS, 4)]),        // BTS [EBX], EAX
        (&[0x0f, 0xba, 0x23, 1], vec![read(DS, 4)]),      // BT [EBX], 1
        (&[0xf0, 0x0f, 0xc7, 0x0b], vec![write(DS, 8)]),  // CMPXCHG8B
        (&[0x0f, 0x95, 0x03], vec![write(DS, 1)]),        // SETNE [EBX]
        (&[0xd7], vec![read(DS, 1)]),                     // XLAT
        (&[0x8d, 0x03], vec![]),                          // LEA
        (&[0x0f, 0x18, 0x03], vec![]),                    // PREFETCHNTA
        (&[0x0f, 0x01, 0x3b], vec![]),                    // INVLPG
        (&[0x62, 0x03], vec![read(DS, 8)]),               // BOUND
        (&[0x50], vec![write(SS, 4)]),                    // PUSH EAX
        (&[0x66, 0x58], vec![read(SS, 2)]),               // POP AX
        (&[0xff, 0x33], vec![read(DS, 4), write(SS, 4)]), // PUSH [EBX]
        (&[0x8f, 0x03], vec![read(SS, 4), write(DS, 4)]), // POP [EBX]
        (&[0x60], vec![write(SS, 4); 8]),                 // PUSHAD
        (&[0x61], vec![read(SS, 4); 7]),                  // POPAD
        (&[0xc9], vec![read(SS, 4)]),                     // LEAVE
        (&[0xc8, 8, 0, 0], vec![write(SS, 4), write(SS, 4)]), // ENTER 8, 0
        (&[0xa5], vec![read(DS, 4), write(ES, 4)]),       // MOVSD
        (&[0x64, 0xac], vec![read(FS, 1)]),               // LODSB FS:
        (&[0xaf], vec![read(ES, 4)]),                     // SCASD
        (&[0xc4, 0x03], vec![read(DS, 6)]),               // LES
        (&[0x66, 0xff, 0x2b], vec![read(DS, 4)]),         // JMP FAR WORD PTR
        (&[0x0f, 0x01, 0x03], vec![write(DS, 6)]),        // SGDT
        (&[0x0f, 0x01, 0x13], vec![read(DS, 6)]),         // LGDT
        (&[0xdd, 0x03], vec![read(DS, 8)]),               // FLD QWORD
        (&[0xdb, 0x3b], vec![write(DS, 10)]),             // FSTP TBYTE
        (&[0xdd, 0x33], vec![write(DS, 108)]),            // FNSAVE
        (&[0xd9, 0x2b], vec![read(DS, 2)]),               // FLDCW
        (&[0x0f, 0xae, 0x03], vec![write(DS, 512)]),      // FXSAVE
        (&[0x0f, 0xae, 0x0b], vec![read(DS, 512)]),       // FXRSTOR
        (&[0x0f, 0xae, 0x23], vec![write(DS, 64), write(DS, 512)]), // XSAVE
        (&[0x0f, 0x28, 0x03], vec![read(DS, 16)]),        // MOVAPS XMM0, [EBX]
        (&[0x0f, 0x29, 0x03], vec![write(DS, 16)]),       // MOVAPS [EBX], XMM0
        (&[0xf3, 0x0f, 0x58, 0x03], vec![read(DS, 4)]),   // ADDSS
        (&[0x66, 0x0f, 0xf7, 0xc1], vec![write(DS, 16)]), // MASKMOVDQU
        (&[0xc5, 0xfc, 0x11, 0x03], vec![write(DS, 32)]), // VMOVUPS [EBX], YMM0
        (&[0xc5, 0xfc, 0x58, 0x03], vec![read(DS, 32)]),  // VADDPS YMM0, YMM0, [EBX]
    ];
    for (bytes, want) in table {
        assert_eq!(checks_of(bytes, checked()), *want, "{bytes:02x?}");
        // Nothing of it where segments are flat, but for writes into code.
        let flat = checks_of(bytes, KERNEL32);
        let into_code: Vec<_> = want.iter().copied().filter(|a| a.segment == CS).collect();
        assert_eq!(flat, into_code, "{bytes:02x?}");
        assert_eq!(checks_of(bytes, KERNEL64), [], "{bytes:02x?}");
    }
}

#[test]
fn only_the_segments_that_need_it_are_checked() {
    let mode = with(KERNEL32, |s| s.unchecked = 0x3f & !(1 << ES));
    assert_eq!(checks_of(&[0xa5], mode), [write(ES, 4)]);
    assert_eq!(checks_of(&[0x8b, 0x03], mode), []);
    // A real-mode access through DS: its base too. The limit needs no call, and bytes no check.
    let region = lift(&[0x8b, 0x07], REAL, Policy::Callout);
    assert_eq!(checks(&region), []);
    assert!(
        insts(&region).any(|i| i.op == Op::GetReg && i.imm == metaphrase_ir::Reg::DsBase as u64)
    );
}

#[test]
fn segments_of_64_kilobytes_are_checked_in_place() {
    let traps = |bytes: &[u8]| -> Vec<u64> {
        let region = lift(bytes, REAL, Policy::Callout);
        assert_eq!(checks(&region), [], "{bytes:02x?}");
        let traps = insts(&region).filter(|i| i.op == Op::TrapIf);
        traps.map(|i| i.imm).collect()
    };
    assert_eq!(traps(&[0x8b, 0x07]), [13]); // MOV AX, [BX]
    assert_eq!(traps(&[0x8a, 0x07]), []); // MOV AL, [BX]
    assert_eq!(traps(&[0x67, 0x8a, 0x03]), [13]); // MOV AL, [EBX]
    assert_eq!(traps(&[0x8b, 0x46, 0]), [12]); // MOV AX, [BP]
    assert_eq!(traps(&[0xa1, 0x34, 0x12]), []); // MOV AX, [0x1234]
    assert_eq!(traps(&[0xa1, 0xff, 0xff]), [13]); // MOV AX, [0xffff]
    assert_eq!(traps(&[0x50]), [12]); // PUSH AX
    assert_eq!(traps(&[0x66, 0xe9, 0, 0, 1, 0]), [13]); // JMP, beyond
    assert_eq!(traps(&[0x66, 0xe9, 0, 1, 0, 0]), []); // JMP, inside
    assert_eq!(traps(&[0x66, 0xff, 0xe0]), [13]); // JMP EAX
    // Writes through CS are the helper's.
    assert_eq!(checks_of(&[0x2e, 0x89, 0x07], REAL), [write(CS, 2)]);
}

#[test]
fn bases_are_added_one_by_one() {
    let adds = |mode: Mode, bytes: &[u8]| {
        let region = lift(bytes, mode, Policy::Callout);
        let base = metaphrase_ir::Reg::DsBase as u64;
        insts(&region).any(|i| i.op == Op::GetReg && i.imm == base)
    };
    let code: &[u8] = &[0x8b, 0x03];
    assert!(!adds(with(KERNEL32, |s| s.based_at_zero = 1 << DS), code));
    assert!(adds(
        with(KERNEL32, |s| s.based_at_zero = 0xf & !(1 << DS)),
        code
    ));
}

#[test]
fn repeated_string_instructions_leave_the_checks_to_the_helper() {
    let op = |bytes: &[u8], mode| {
        let region = lift(bytes, mode, Policy::Callout);
        assert_eq!(checks(&region), []);
        StringOp::unpack(calls(&region, Helper::RepString)[0])
    };
    // REP MOVSD FS:.
    let code: &[u8] = &[0x64, 0xf3, 0xa5];
    assert!(!op(code, KERNEL32).checked);
    let found = op(code, checked());
    assert!(found.checked && found.segment == u32::from(FS) && !found.aligned);
    assert!(op(code, with(KERNEL32, |s| s.align = true)).aligned);
    // REP STOSD looks at ES only.
    let other = with(KERNEL32, |s| s.unchecked = 1 << ES);
    assert!(!op(&[0xf3, 0xab], other).checked);
    assert!(op(&[0xf3, 0xa5], other).checked);
}

/// The kinds of the loads and stores.
fn kinds(bytes: &[u8], mode: Mode) -> Vec<AccessKind> {
    let region = lift(bytes, mode, Policy::Callout);
    insts(&region)
        .filter(|i| matches!(i.op, Op::Load | Op::Store))
        .map(|i| AccessKind::from_imm(i.imm))
        .collect()
}

#[test]
fn the_stack_segment_is_told_from_the_others() {
    use AccessKind::{Data, Stack, Update};
    assert_eq!(kinds(&[0x48, 0x8b, 0x03], USER64), [Data]); // MOV RAX, [RBX]
    assert_eq!(kinds(&[0x48, 0x8b, 0x45, 0], USER64), [Stack]); // MOV RAX, [RBP]
    assert_eq!(kinds(&[0x48, 0x89, 0x04, 0x24], USER64), [Stack]); // MOV [RSP], RAX
    assert_eq!(kinds(&[0x0f, 0x28, 0x45, 0], USER64), [Stack]); // MOVAPS XMM0, [RBP]
    assert_eq!(kinds(&[0x50], USER64), [Stack]); // PUSH RAX
    assert_eq!(kinds(&[0x48, 0x01, 0x03], USER64), [Update, Data]); // ADD [RBX], RAX
    assert_eq!(kinds(&[0x48, 0x01, 0x03], Mode::LONG), [Update, Data]);
    assert_eq!(kinds(&[0x48, 0x39, 0x03], USER64), [Data]); // CMP [RBX], RAX
    // A Linux program does not tell them apart.
    assert_eq!(kinds(&[0x48, 0x8b, 0x45, 0], Mode::LONG), [Data]);
}

#[test]
fn alignment_is_checked_where_it_is_asked_for() {
    let traps = |bytes: &[u8]| {
        let mode = with(USER64, |s| s.align = true);
        let region = lift(bytes, mode, Policy::Callout);
        insts(&region)
            .filter(|i| i.op == Op::TrapIf && i.imm == 17)
            .count()
    };
    assert_eq!(traps(&[0x8b, 0x03]), 1); // MOV EAX, [RBX]
    assert_eq!(traps(&[0x8a, 0x03]), 0); // MOV AL, [RBX]
    assert_eq!(traps(&[0x50]), 1); // PUSH RAX
    assert_eq!(traps(&[0x48, 0xa5]), 2); // MOVSQ
    assert_eq!(traps(&[0xdd, 0x03]), 1); // FLD QWORD
    assert_eq!(traps(&[0x0f, 0x10, 0x03]), 0); // MOVUPS
    let plain = lift(&[0x8b, 0x03], USER64, Policy::Callout);
    assert!(insts(&plain).all(|i| i.op != Op::TrapIf));
}

/// Whether the region checks a target against CS's limit.
fn checks_target(bytes: &[u8], mode: Mode) -> bool {
    checks_of(bytes, mode).iter().any(|a| a.fetch)
}

#[test]
fn branches_are_checked_where_code_is_limited() {
    let branches: &[&[u8]] = &[
        &[0xeb, 5],          // JMP
        &[0x75, 5],          // JNZ
        &[0xe2, 5],          // LOOP
        &[0xe3, 5],          // JECXZ
        &[0xe8, 5, 0, 0, 0], // CALL
        &[0xff, 0xe0],       // JMP EAX
        &[0xff, 0xd0],       // CALL EAX
        &[0xc3],             // RET
        &[0xc2, 4, 0],       // RET 4
    ];
    let limited = with(KERNEL32, |s| s.unchecked = 0x3f & !(1 << CS));
    for bytes in branches {
        assert!(checks_target(bytes, limited), "{bytes:02x?}");
        assert!(!checks_target(bytes, KERNEL32), "{bytes:02x?}");
        assert!(!checks_target(bytes, REAL), "{bytes:02x?}");
    }
    // The counter and the stack pointer do not move before.
    for bytes in branches {
        let region = lift(bytes, limited, Policy::Callout);
        let first = |f: &dyn Fn(&metaphrase_ir::Inst) -> bool| insts(&region).position(f);
        let check = first(&|i| {
            i.op == Op::Call
                && Helper::from_imm(i.imm) == Helper::SegmentCheck
                && SegmentAccess::unpack(i.aux).fetch
        });
        let written = first(&|i| matches!(i.op, Op::SetReg | Op::Store));
        assert!(written.is_none_or(|w| check < Some(w)), "{bytes:02x?}");
    }
}

#[test]
fn long_code_branches_to_canonical_addresses() {
    let traps = |bytes: &[u8], mode| {
        let region = lift(bytes, mode, Policy::Callout);
        insts(&region).any(|i| i.op == Op::TrapIf && i.imm == 13)
    };
    for bytes in [&[0xff, 0xe0][..], &[0xff, 0xd0], &[0xc3]] {
        assert!(traps(bytes, USER64), "{bytes:02x?}");
        assert!(!traps(bytes, Mode::LONG), "{bytes:02x?}");
    }
    // Direct ones are known to be so when they are translated.
    assert!(!traps(&[0xe8, 5, 0, 0, 0], USER64));
    assert!(!traps(&[0x75, 5], USER64));
}
