//! x87: every instruction is one helper call; what it means is in the runtime's x87 helper.
//!
//! The lifter does what concerns other state: the operand's address, AX for FNSTSW, the flags that
//! FCOMI sets and FCMOV reads.

use super::Lift;
use iced_x86::{EncodingKind, Mnemonic, OpCodeTableKind, OpKind, Register};
use metaphrase_ir::{Cond, FlagKind, Helper, IntCc, Type, X87Op};

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    let Some(op) = descriptor(cx, mnemonic) else {
        return false;
    };
    let a = if op.is_memory() && !op.wait {
        cx.linear()
    } else if let Some(cond) = move_condition(mnemonic) {
        let c = cx.ir.getcond(cond);
        let one = cx.ir.icmp_imm(IntCc::Ne, c, 0);
        cx.ir.zext(Type::I64, one)
    } else {
        cx.iconst(Type::I64, 0)
    };
    let pc = cx.offset(cx.insn.ip());
    let pc = cx.ir.pc(pc);
    let result = cx.ir.call(Helper::X87, op.pack(), &[a, pc]);
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

/// What the helper must know of the instruction, if it is an x87 one.
fn descriptor(cx: &Lift<'_>, mnemonic: Mnemonic) -> Option<X87Op> {
    if mnemonic == Mnemonic::Wait {
        return Some(X87Op {
            escape: 0,
            modrm: 0,
            short: false,
            wait: true,
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
        (opcode as u8, group << 3)
    };
    if escape & 0xf8 != 0xd8 {
        return None;
    }
    Some(X87Op {
        escape: escape & 7,
        modrm,
        short: info.operand_size() == 16,
        wait: false,
    })
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
