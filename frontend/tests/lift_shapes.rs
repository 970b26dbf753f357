//! What telling instructions become: the interpreter runs this IR, so its length matters.

use metaphrase_frontend::{Lifted, Limits, Mode, SensitivePolicy, lift_region};
use metaphrase_ir::Op::{self, *};
use metaphrase_ir::{FlagKind, Region};

fn lifted(bytes: &[u8], mode: Mode, limits: Limits) -> Lifted {
    lift_region(0, mode, &bytes, limits, &SensitivePolicy::default()).expect("bytes are there")
}

/// The ops of the instruction at the start of `bytes`, without `fuel` and the exit.
fn ops(bytes: &[u8], mode: Mode) -> Vec<Op> {
    let region = lifted(bytes, mode, Limits::SINGLE).region;
    let all: Vec<Op> = region
        .blocks
        .iter()
        .flat_map(|b| b.insts.iter().map(|&v| region.inst(v).op))
        .collect();
    assert_eq!(all[0], Fuel);
    all[1..all.len() - 1].to_vec()
}

/// The kind of the first `setflags`.
fn flag_kind(region: &Region) -> Option<FlagKind> {
    let insts = region.blocks.iter().flat_map(|b| &b.insts);
    insts
        .map(|&v| region.inst(v))
        .find(|i| i.op == SetFlags)
        .map(|i| FlagKind::ALL[i.imm as usize])
}

#[test]
fn moves() {
    // MOV EAX, [RBX+8]
    let load = [GetReg, Const, Add, Load, Zext, SetReg];
    assert_eq!(ops(&[0x8b, 0x43, 0x08], Mode::LONG), load);
    // MOV RAX, RBX
    assert_eq!(ops(&[0x48, 0x89, 0xd8], Mode::LONG), [GetReg, SetReg]);
    // MOVZX EAX, BYTE PTR [RDI]
    let extend = [GetReg, Load, Zext, SetReg];
    assert_eq!(ops(&[0x0f, 0xb6, 0x07], Mode::LONG), extend);
    // MOV EAX, [0x12345678], an absolute address.
    let absolute = [Const, Load, Zext, SetReg];
    let code = [0xa1, 0x78, 0x56, 0x34, 0x12];
    assert_eq!(ops(&code, Mode::FLAT32), absolute);
    // MOV [EBX], AH: one address, the byte at bit 8.
    let high = [GetReg, Ext, GetReg, Ext, Zext, Store];
    assert_eq!(ops(&[0x88, 0x23], Mode::FLAT32), high);
}

#[test]
fn segment_bases_are_added_where_they_may_not_be_zero() {
    let code: &[u8] = &[0x8b, 0x03]; // MOV EAX, [EBX]
    let plain = ops(code, Mode::FLAT32);
    assert_eq!(plain, [GetReg, Ext, Zext, Load, Zext, SetReg]);
    let based = ops(
        code,
        Mode {
            flat: false,
            ..Mode::FLAT32
        },
    );
    let expected = [
        GetReg, Ext, Zext, GetReg, Add, Trunc, Zext, Load, Zext, SetReg,
    ];
    assert_eq!(based, expected);
    // MOV EAX, FS:[EBX] has the base in any case.
    assert_eq!(ops(&[0x64, 0x8b, 0x03], Mode::FLAT32), expected);
}

#[test]
fn clearing_a_register_reads_nothing() {
    for code in [[0x31, 0xc0], [0x29, 0xc0]] {
        assert_eq!(ops(&code, Mode::LONG), [Const, Zext, SetReg, SetFlags]);
    }
    // XOR AL, AH is not of that kind.
    assert!(ops(&[0x30, 0xe0], Mode::LONG).contains(&Xor));
}

#[test]
fn memory_is_written_before_the_flags() {
    // ADD [RAX], ECX and its LOCK form.
    let add = [GetReg, Ext, GetReg, Load, Add, Store, SetFlags];
    assert_eq!(ops(&[0x01, 0x08], Mode::LONG), add);
    let locked = [GetReg, Ext, GetReg, Rmw, Add, SetFlags];
    assert_eq!(ops(&[0xf0, 0x01, 0x08], Mode::LONG), locked);
    // XCHG is atomic without the prefix, NEG through a loop.
    assert!(ops(&[0x87, 0x08], Mode::LONG).contains(&Rmw));
    assert!(ops(&[0xf0, 0xf7, 0x18], Mode::LONG).contains(&Cas));
}

#[test]
fn immediate_shifts_have_no_condition() {
    let kind = |bytes: &[u8]| flag_kind(&lifted(bytes, Mode::LONG, Limits::SINGLE).region);
    // SHL EAX, 3; SHL EAX, 32 (a count of 0); SHL EAX, CL.
    assert_eq!(kind(&[0xc1, 0xe0, 3]), Some(FlagKind::Shift));
    assert!(!ops(&[0xc1, 0xe0, 3], Mode::LONG).contains(&Select));
    assert_eq!(kind(&[0xc1, 0xe0, 32]), None);
    assert!(ops(&[0xd3, 0xe0], Mode::LONG).contains(&Select));
    // SHLX has no flags at all.
    assert_eq!(kind(&[0xc4, 0xe2, 0x71, 0xf7, 0xc3]), None);
}

#[test]
fn a_division_divides_once() {
    for code in [&[0xf7, 0xf1][..], &[0xf7, 0xf9], &[0x48, 0xf7, 0xf1]] {
        let ops = ops(code, Mode::LONG);
        let count = |op| ops.iter().filter(|&&o| o == op).count();
        assert_eq!(count(UDiv) + count(SDiv), 1, "{code:02x?}");
        assert_eq!(count(URem) + count(SRem), 0, "{code:02x?}");
        assert!(count(TrapIf) > 0, "{code:02x?}");
    }
}

#[test]
fn calls_push_and_returns_pop() {
    // CALL +5: the return address is stored, then RSP moves.
    let call = [Pc, GetReg, Const, Add, Store, SetReg];
    assert_eq!(ops(&[0xe8, 5, 0, 0, 0], Mode::LONG), call);
    let ret = [GetReg, Load, GetReg, Const, Add, SetReg];
    assert_eq!(ops(&[0xc3], Mode::LONG), ret);
    // 66 cuts the instruction pointer in 32-bit code, and means nothing in 64-bit code.
    let target = |bytes: &[u8], mode| {
        let region = lifted(bytes, mode, Limits::SINGLE).region;
        let exit = *region.inst(region.terminator(Region::ENTRY));
        (exit.op, region.pc_at(exit.imm as i64))
    };
    let code = [0x66, 0xe9, 0xf0, 0xff, 0, 0];
    assert_eq!(target(&code, Mode::FLAT32), (Jump, 0xfff4));
    assert_eq!(target(&code, Mode::LONG), (Jump, 0xfff6));
}

#[test]
fn an_instruction_that_ends_the_block_early_is_the_last_one_paid_for() {
    // UD2 in the place of an instruction that no one knows: GETSEC, then NOPs.
    let region = lifted(&[0x90, 0x0f, 0x37, 0x90, 0x90], Mode::LONG, Limits::BLOCK).region;
    let fuel = region.inst(region.blocks[0].insts[0]);
    assert_eq!((fuel.op, fuel.imm), (Fuel, 2));
    assert_eq!(region.guest[1].fuel_left, 1);
}

#[test]
fn a_region_holds_both_sides_of_a_loop() {
    // L: DEC ECX; JNZ L; RET
    let region = lifted(&[0xff, 0xc9, 0x75, 0xfc, 0xc3], Mode::LONG, Limits::REGION).region;
    let ops: Vec<Op> = region
        .block_ids()
        .map(|b| region.inst(region.terminator(b)).op)
        .collect();
    assert_eq!(ops, [Br, BrIf, Ret]);
}

#[test]
fn a_far_jump_has_no_near_target() {
    // JMP FAR 0x23:0x10 in 32-bit code: address 0x10 must not become a block of the region.
    let mut code = vec![0xea, 0x10, 0, 0, 0, 0x23, 0];
    code.resize(32, 0x90);
    let region = lifted(&code, Mode::FLAT32, Limits::REGION).region;
    assert_eq!(region.guest.len(), 1);
}
