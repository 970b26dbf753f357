//! x87: every instruction is one helper call; what it means is in the runtime's x87 helper.
//!
//! The lifter does what concerns other state: the operand's address, AX for FNSTSW, the flags that
//! FCOMI sets and FCMOV reads.

use super::Lift;
use iced_x86::{CodeSize, EncodingKind, Instruction, Mnemonic, OpCodeTableKind, OpKind, Register};
use metaphrase_ir::{Cond, FlagKind, Helper, IntCc, Type, Value, X87Op};

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    let Some(op) = descriptor(cx, mnemonic) else {
        return false;
    };
    let a = if op.is_memory() && !op.wait {
        operand_address(cx, op)
    } else if let Some(cond) = move_condition(mnemonic) {
        let c = cx.ir.getcond(cond);
        let one = cx.ir.icmp_imm(IntCc::Ne, c, 0);
        cx.ir.zext(Type::I64, one)
    } else {
        cx.iconst(Type::I64, 0)
    };
    let pc = cx.offset(cx.insn.ip());
    let pc = cx.ir.pc(pc);
    let end = if op.is_memory() && !op.wait && cx.insn.memory_size().size() == 10 {
        let eight = cx.iconst(Type::I64, 8);
        cx.ir.add(a, eight)
    } else {
        cx.iconst(Type::I64, 0)
    };
    let result = cx.ir.call(Helper::X87, op.pack(), &[a, pc, end]);
    match mnemonic {
        Mnemonic::Fcomi | Mnemonic::Fcomip | Mnemonic::Fucomi | Mnemonic::Fucomip => {
            // ZF, PF and CF; SF, OF and AF are clear.
            cx.ir.setflags(FlagKind::Raw, &[result]);
        }
        Mnemonic::Fnstsw if cx.insn.op0_kind() == OpKind::Register => {
            let status = cx.ir.trunc(Type::I16, result);
            cx.write_gpr(Register::AX, status);
        }
        _ => {}
    }
    true
}

/// The linear address of the operand in memory.
fn operand_address(cx: &mut Lift<'_>, op: X87Op) -> Value {
    // FST and FSTP, FIST and FISTP, FNSTENV, FNSTCW, FNSAVE, FNSTSW, FBSTP.
    let write = match (op.escape, op.modrm >> 3 & 7) {
        (0 | 2 | 4 | 6, _) => false,
        (1, reg) => matches!(reg, 2 | 3 | 6 | 7),
        (3, reg) => matches!(reg, 1..=3 | 7),
        (_, reg) => matches!(reg, 1..=3 | 6 | 7),
    };
    let size = cx.operand_size();
    let align = match size {
        2 | 4 | 8 => size,
        10 => 8,
        // Environments, by the operand size.
        14 | 94 => 2,
        _ => 4,
    };
    let ea = cx.effective_address();
    cx.access_aligned(cx.insn.memory_segment(), ea, size, write, align)
}

/// What the helper must know of the instruction, if it is an x87 one.
fn descriptor(cx: &Lift<'_>, mnemonic: Mnemonic) -> Option<X87Op> {
    if mnemonic == Mnemonic::Wait {
        return Some(X87Op {
            wait: true,
            ..X87Op::default()
        });
    }
    let info = cx.insn.code().op_code();
    if info.encoding() != EncodingKind::Legacy
        || info.table() != OpCodeTableKind::Normal
        || info.fwait()
    {
        return None;
    }
    let opcode = info.op_code();
    let (escape, modrm) = if info.op_code_len() == 2 {
        // The second byte is a ModRM byte that names ST(i), or stands for itself.
        let i = (0..cx.insn.op_count())
            .filter(|&n| cx.insn.op_kind(n) == OpKind::Register)
            .map(|n| cx.insn.op_register(n))
            .filter(|r| r.is_st())
            .map(|r| r.number() as u8)
            // ST(0) is the implied operand beside ST(i).
            .max()
            .unwrap_or(0);
        let named = (0..info.op_count())
            .any(|n| info.op_kind(n) == iced_x86::OpCodeOperandKind::sti_opcode);
        let second = opcode as u8;
        (
            (opcode >> 8) as u8,
            if named { second & 0xf8 | i } else { second },
        )
    } else {
        let group = u8::try_from(info.group_index()).ok()?;
        (opcode as u8, memory_modrm(cx.insn, group))
    };
    let memory = modrm < 0xc0;
    let segment = cx.insn.memory_segment();
    if escape & 0xf8 != 0xd8 {
        return None;
    }
    Some(X87Op {
        escape: escape & 7,
        modrm,
        short: info.operand_size() == 16,
        wait: false,
        segment: if memory { segment.number() as u8 } else { 0 },
        based: memory && cx.has_base(segment),
    })
}

/// The ModRM byte of a memory form, which FOP tells of. The decoder does not keep it; this is what
/// an assembler would have chosen. (A SIB byte without need makes a difference.)
fn memory_modrm(insn: Instruction, reg: u8) -> u8 {
    let (base, index) = (insn.memory_base(), insn.memory_index());
    let narrow = |r: Register| r.size() == 2;
    let displacement = insn.memory_displ_size();
    let absolute = base == Register::None && index == Register::None;
    let rip = matches!(base, Register::RIP | Register::EIP);
    let word = narrow(base) || narrow(index) || absolute && displacement == 2;
    let rm = if word {
        match (base, index) {
            (Register::BX, Register::SI) => 0,
            (Register::BX, Register::DI) => 1,
            (Register::BP, Register::SI) => 2,
            (Register::BP, Register::DI) => 3,
            (Register::SI, _) => 4,
            (Register::DI, _) => 5,
            (Register::BX, _) => 7,
            _ => 6,
        }
    } else if rip || absolute && insn.code_size() != CodeSize::Code64 {
        5
    } else if index != Register::None || base == Register::None {
        4
    } else {
        base.number() as u8 & 7
    };
    // Without a base there is always a full displacement, and the mode is 0.
    let mode = match displacement {
        _ if rip || base == Register::None => 0,
        0 => 0,
        1 => 1,
        _ => 2,
    };
    mode << 6 | reg << 3 | rm
}

/// The condition of FCMOVcc.
fn move_condition(mnemonic: Mnemonic) -> Option<Cond> {
    Some(match mnemonic {
        Mnemonic::Fcmovb => Cond::B,
        Mnemonic::Fcmove => Cond::Z,
        Mnemonic::Fcmovbe => Cond::Be,
        Mnemonic::Fcmovu => Cond::P,
        Mnemonic::Fcmovnb => Cond::Nb,
        Mnemonic::Fcmovne => Cond::Nz,
        Mnemonic::Fcmovnbe => Cond::Nbe,
        Mnemonic::Fcmovnu => Cond::Np,
        _ => return None,
    })
}
