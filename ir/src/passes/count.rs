//! Counts of floating-point operations as they run, in the pseudo-register `float_ops`.
//!
//! What ran since the last count is added before every op at which the region may be left, so that
//! the count is exact even if a block is left in its middle and begun again. The pass runs after
//! all others: none of them knows of the register, and what they have made of the code is what is
//! counted.

use crate::guest::Reg;
use crate::helpers::{Effects, Helper};
use crate::ops::{Effect, Op};
use crate::region::{Inst, Region, Value};
use crate::types::Type;

/// Runs the pass.
pub fn count(region: &mut Region) {
    for b in 0..region.blocks.len() {
        let counted = |&v: &Value| counts(region.inst(v));
        if !region.blocks[b].insts.iter().any(counted) {
            continue;
        }
        let insts = std::mem::take(&mut region.blocks[b].insts);
        let mut out = Vec::with_capacity(insts.len() + 8);
        let mut ran = 0;
        for v in insts {
            let inst = *region.inst(v);
            if ran > 0 && may_leave(&inst) {
                let mut make = |op, args: &[Value], imm| {
                    let v = region.make(op, Type::I64, inst.insn, args, imm, 0);
                    out.push(v);
                    v
                };
                let old = make(Op::GetReg, &[], Reg::FloatOps as u64);
                let more = make(Op::Const, &[], ran);
                let new = make(Op::Add, &[old, more], 0);
                make(Op::SetReg, &[new], Reg::FloatOps as u64);
                ran = 0;
            }
            ran += u64::from(counts(&inst));
            out.push(v);
        }
        region.blocks[b].insts = out;
    }
}

/// Whether the op is a floating-point operation that the host has an instruction for. Other
/// helpers' calls are counted by the helpers themselves.
fn counts(inst: &Inst) -> bool {
    inst.sets_mxcsr() || inst.op == Op::Call && Helper::from_imm(inst.imm).has_host_form()
}

/// Whether the op ends its block or may leave the region.
fn may_leave(inst: &Inst) -> bool {
    match inst.op.info().effect {
        Effect::Load | Effect::Store | Effect::MayExit | Effect::Branch | Effect::Exit => true,
        Effect::Helper => Helper::from_imm(inst.imm).effects().has(Effects::MAY_EXIT),
        _ => false,
    }
}
