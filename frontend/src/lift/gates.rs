//! What the control registers make of floating-point and vector instructions, and of a few others,
//! before anything else about them matters: #UD or #NM (SDM volume 3, 2.5, tables 2-2, 12-1 and
//! 13-1; volume 2, 2.4 to 2.7).
//!
//! Where both are due, #UD comes first.

use super::{Lift, NM, UD};
use crate::features::names_mmx;
use crate::mode::SystemMode;
use iced_x86::{EncodingKind, Instruction, Mnemonic, OpCodeTableKind, OpKind, Register};

/// Raises what the mode says; true if it did, and there is nothing more to lift.
pub fn lift(cx: &mut Lift<'_>) -> bool {
    let vector = cx.mode.system.and_then(|system| refusal(system, &cx.insn));
    if let Some(vector) = vector {
        cx.ir.exit_raise(vector);
    }
    vector.is_some()
}

/// The exception that the mode makes of an instruction.
fn refusal(system: SystemMode, insn: &Instruction) -> Option<u8> {
    use Mnemonic::*;
    // #UD if the first holds, else #NM if the second does.
    let (undefined, unavailable) = match insn.mnemonic() {
        Rdfsbase | Rdgsbase | Wrfsbase | Wrgsbase => (!system.fsgsbase, false),
        Wait => (false, system.mp && system.ts),
        Fxsave | Fxsave64 | Fxrstor | Fxrstor64 => (false, system.em || system.ts),
        Xgetbv => (!system.osxsave, false),
        Xsave | Xsave64 | Xsaveopt | Xsaveopt64 | Xsavec | Xsavec64 | Xrstor | Xrstor64 => {
            (!system.osxsave, system.ts)
        }
        Ldmxcsr | Stmxcsr => (system.em || !system.osfxsr, system.ts),
        Emms => (system.em, system.ts),
        _ if insn.code().encoding() == EncodingKind::VEX => {
            // Among them the ones on general registers, which need nothing to be turned on.
            let general = !names_vector(insn) && !is_vector_without_operand(insn.mnemonic());
            let off = !general && !system.avx;
            (off || !system.level.is_protected(), !general && system.ts)
        }
        _ if names_vector(insn) => (system.em || !system.osfxsr, system.ts),
        _ if names_mmx(insn) => (system.em, system.ts),
        _ if (system.em || system.ts) && is_x87(insn) => (false, true),
        _ => return None,
    };
    match (undefined, unavailable) {
        (true, _) => Some(UD),
        (false, true) => Some(NM),
        _ => None,
    }
}

/// An operand is an XMM or YMM register.
fn names_vector(insn: &Instruction) -> bool {
    let vector = |r: Register| r.is_xmm() || r.is_ymm();
    (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Register && vector(insn.op_register(n)))
        || vector(insn.memory_index())
}

/// Instructions on vector registers or MXCSR that name none.
const fn is_vector_without_operand(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(mnemonic, Vzeroupper | Vzeroall | Vldmxcsr | Vstmxcsr)
}

/// The opcodes D8 to DF.
fn is_x87(insn: &Instruction) -> bool {
    let info = insn.code().op_code();
    let first = info.op_code() >> (8 * (info.op_code_len().max(1) - 1));
    info.encoding() == EncodingKind::Legacy
        && info.table() == OpCodeTableKind::Normal
        && first & 0xf8 == 0xd8
}
