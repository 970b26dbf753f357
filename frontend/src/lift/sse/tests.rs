use crate::{Limits, Mode, SensitivePolicy, lift_region};
use iced_x86::{
    Code, CpuidFeature, Encoder, Instruction, MemoryOperand, OpCodeOperandKind, OpKind, Register,
};
use metaphrase_ir::{Op, Region, Type, verify};

/// The region of one instruction.
fn lift(mode: Mode, bytes: &[u8]) -> Region {
    let policy = SensitivePolicy::default();
    lift_region(0, mode, &bytes, Limits::SINGLE, &policy)
        .expect("the bytes can be fetched")
        .region
}

/// The ops of a region but the fuel in front and the jump behind.
fn ops(region: &Region) -> Vec<Op> {
    let insts = &region.blocks[0].insts;
    insts[1..insts.len() - 1]
        .iter()
        .map(|&v| region.inst(v).op)
        .collect()
}

/// The vector if the region does nothing but raise one.
fn raises(region: &Region) -> Option<u64> {
    let insts = &region.blocks[0].insts;
    let last = region.inst(*insts.last()?);
    (insts.len() == 2 && last.op == Op::Raise).then_some(last.imm)
}

/// An encoding of `code` with its ModRM operand in memory or in a register, if it has one.
fn encode(code: Code, bits: u32, memory: bool) -> Option<Vec<u8>> {
    use OpCodeOperandKind::{
        imm8, mem, mm_or_mem, mm_reg, mm_rm, r32_or_mem, r32_reg, r32_rm, r64_or_mem, r64_reg,
        r64_rm, seg_rDI, xmm_or_mem, xmm_reg, xmm_rm,
    };
    let mut insn = Instruction::default();
    insn.set_code(code);
    let base = if bits == 64 {
        Register::RBX
    } else {
        Register::EBX
    };
    for (n, &kind) in code.op_code().op_kinds().iter().enumerate() {
        let n = n as u32;
        let register = match kind {
            xmm_reg => Register::XMM3,
            xmm_rm => Register::XMM5,
            xmm_or_mem if !memory => Register::XMM5,
            mm_reg => Register::MM3,
            mm_rm => Register::MM5,
            mm_or_mem if !memory => Register::MM5,
            r32_reg | r32_rm => Register::ECX,
            r32_or_mem if !memory => Register::ECX,
            r64_reg | r64_rm => Register::RCX,
            r64_or_mem if !memory => Register::RCX,
            xmm_or_mem | mm_or_mem | r32_or_mem | r64_or_mem | mem => {
                if !memory {
                    return None;
                }
                insn.set_op_kind(n, OpKind::Memory);
                let at = MemoryOperand::with_base_displ(base, 0x40);
                insn.set_memory_base(at.base);
                insn.set_memory_displacement64(at.displacement as u64);
                insn.set_memory_displ_size(1);
                continue;
            }
            imm8 => {
                insn.set_op_kind(n, OpKind::Immediate8);
                insn.set_immediate8(0x9c);
                continue;
            }
            seg_rDI => {
                insn.set_op_kind(
                    n,
                    if bits == 64 {
                        OpKind::MemorySegRDI
                    } else {
                        OpKind::MemorySegEDI
                    },
                );
                continue;
            }
            _ => panic!("{code:?} has an operand of kind {kind:?}"),
        };
        insn.set_op_register(n, register);
    }
    let mut encoder = Encoder::new(bits);
    encoder.encode(&insn, 0).ok()?;
    Some(encoder.take_buffer())
}

/// Every form of SSE and SSE2.
fn forms() -> impl Iterator<Item = Code> {
    Code::values().filter(|code| {
        let features = code.cpuid_features();
        features.contains(&CpuidFeature::SSE) || features.contains(&CpuidFeature::SSE2)
    })
}

#[test]
fn every_form_lifts_to_valid_ir() {
    let mut lifted = 0;
    for (mode, bits) in [(Mode::FLAT32, 32), (Mode::LONG, 64)] {
        for code in forms() {
            for memory in [false, true] {
                let Some(bytes) = encode(code, bits, memory) else {
                    continue;
                };
                let region = lift(mode, &bytes);
                verify(&region).unwrap_or_else(|e| panic!("{code:?}: {e}\n{region}"));
                assert_eq!(raises(&region), None, "{code:?} {bytes:02x?}");
                lifted += 1;
            }
        }
    }
    assert!(lifted > 700, "only {lifted} forms");
}

#[test]
fn sixteen_byte_operands_are_checked_before_the_access() {
    // paddb xmm0, [rax]
    let region = lift(Mode::LONG, &[0x66, 0x0f, 0xfc, 0x00]);
    let ops = ops(&region);
    let at = |op| ops.iter().position(|&o| o == op).expect("is there");
    assert!(at(Op::TrapIf) < at(Op::Load));
    assert!(at(Op::Load) < at(Op::SetReg));
    // movdqu xmm0, [rax]
    let region = lift(Mode::LONG, &[0xf3, 0x0f, 0x6f, 0x00]);
    assert!(!self::ops(&region).contains(&Op::TrapIf));
}

#[test]
fn scalars_access_only_their_own_bytes() {
    for (bytes, op, ty) in [
        (&[0xf3, 0x0f, 0x58, 0x00][..], Op::Load, Type::F32), // addss xmm0, [rax]
        (&[0xf2, 0x0f, 0x51, 0x00], Op::Load, Type::F64),     // sqrtsd xmm0, [rax]
        (&[0xf3, 0x0f, 0x11, 0x00], Op::Store, Type::F32),    // movss [rax], xmm0
        (&[0x66, 0x0f, 0xd6, 0x00], Op::Store, Type::I64),    // movq [rax], xmm0
        (&[0x0f, 0x5a, 0x00], Op::Load, Type::I64),           // cvtps2pd xmm0, [rax]
        (&[0x66, 0x0f, 0xc4, 0x00, 1], Op::Load, Type::I16),  // pinsrw xmm0, [rax], 1
        (&[0x0f, 0x17, 0x00], Op::Store, Type::I64),          // movhps [rax], xmm0
    ] {
        let region = lift(Mode::LONG, bytes);
        let access = region.blocks[0]
            .insts
            .iter()
            .map(|&v| region.inst(v))
            .find(|i| i.op == op)
            .unwrap_or_else(|| panic!("{bytes:02x?} has no {op}"));
        assert_eq!(access.ty, ty, "{bytes:02x?}");
    }
}

#[test]
fn a_register_move_of_a_scalar_merges_and_a_load_does_not() {
    // movss xmm0, xmm1; movss xmm0, [rax]
    assert!(ops(&lift(Mode::LONG, &[0xf3, 0x0f, 0x10, 0xc1])).contains(&Op::VSet));
    let load = ops(&lift(Mode::LONG, &[0xf3, 0x0f, 0x10, 0x00]));
    assert!(load.contains(&Op::VFromInt) && !load.contains(&Op::VSet));
}

/// The mask of a lone shuffle.
fn mask(bytes: &[u8]) -> [u8; 16] {
    let region = lift(Mode::LONG, bytes);
    let shuffle = region.blocks[0]
        .insts
        .iter()
        .map(|&v| region.inst(v))
        .find(|i| i.op == Op::VShuffle)
        .expect("a shuffle");
    region.vconsts[shuffle.imm as usize].to_le_bytes()
}

#[test]
fn shuffle_masks() {
    // pshufd xmm0, xmm1, 0x1b
    assert_eq!(
        mask(&[0x66, 0x0f, 0x70, 0xc1, 0x1b]),
        [12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3]
    );
    // pshufhw xmm0, xmm1, 0x03
    assert_eq!(
        mask(&[0xf3, 0x0f, 0x70, 0xc1, 0x03]),
        [0, 1, 2, 3, 4, 5, 6, 7, 14, 15, 8, 9, 8, 9, 8, 9]
    );
    // punpckhwd xmm0, xmm1
    assert_eq!(
        mask(&[0x66, 0x0f, 0x69, 0xc1]),
        [8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31]
    );
    // shufps xmm0, xmm1, 0x4e
    assert_eq!(
        mask(&[0x0f, 0xc6, 0xc1, 0x4e]),
        [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]
    );
    // shufpd xmm0, xmm1, 1
    assert_eq!(
        mask(&[0x66, 0x0f, 0xc6, 0xc1, 0x01]),
        [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]
    );
    // pslldq xmm1, 14; psrldq xmm1, 200
    assert_eq!(
        mask(&[0x66, 0x0f, 0x73, 0xf9, 14]),
        [
            0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0,
            1
        ]
    );
    assert_eq!(mask(&[0x66, 0x0f, 0x73, 0xd9, 200]), [0x80; 16]);
}

#[test]
fn sets_that_are_off_are_undefined() {
    // haddps, pshufb, pminsd, pcmpgtq
    for bytes in [
        &[0xf2, 0x0f, 0x7c, 0xc1][..],
        &[0x66, 0x0f, 0x38, 0x00, 0xc1],
        &[0x66, 0x0f, 0x38, 0x39, 0xc1],
        &[0x66, 0x0f, 0x38, 0x37, 0xc1],
    ] {
        let mode = Mode::LONG.with_features(crate::Features::SSE.and(crate::Features::SSE2));
        assert_eq!(raises(&lift(mode, bytes)), Some(6), "{bytes:02x?}");
    }
}
