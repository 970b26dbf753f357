//! Expansion of what hides branches and registers: `fuel`, `need` and `trapif` become branches to
//! cold blocks, `setflags` becomes writes of the flag record's registers. So the writes that a cold exit
//! needs can be made there.

use crate::flags::{CcOp, FlagKind};
use crate::guest::Reg;
use crate::ops::{IntCc, Op};
use crate::region::{Block, BlockData, Region, Value};
use crate::types::Type;

/// Splits blocks at each `fuel`, `need` and `trapif`, and spells `spend` out. New blocks come last.
pub(super) fn split_cold_exits(region: &mut Region) {
    let mut b = 0;
    // Grows: the rest of a split block is a new block.
    while b < region.blocks.len() {
        spend(region, b);
        let splits = |&v: &Value| matches!(region.inst(v).op, Op::Fuel | Op::Need | Op::TrapIf);
        if let Some(at) = region.blocks[b].insts.iter().position(splits) {
            split(region, b, at);
        }
        b += 1;
    }
}

fn split(region: &mut Region, b: usize, at: usize) {
    let mut rest = region.blocks[b].insts.split_off(at);
    let v = rest[0];
    let inst = *region.inst(v);
    let mut make = |op, ty, args: &[Value], imm| region.make(op, ty, inst.insn, args, imm, 0);
    let (cond, exit);
    let mut check = Vec::new();
    if inst.op == Op::TrapIf {
        cond = region.args(v)[0];
        exit = region.make(Op::Raise, Type::I64, inst.insn, &[], inst.imm, 0);
        rest.remove(0);
    } else {
        let fuel = Reg::Fuel as u64;
        let have = make(Op::GetReg, Type::I64, &[], fuel);
        let count = make(Op::Const, Type::I64, &[], inst.imm);
        cond = make(Op::ICmp, Type::I8, &[have, count], IntCc::Slt as u64);
        check.extend([have, count, cond]);
        exit = make(Op::OutOfFuel, Type::I64, &[], 0);
        if inst.op == Op::Fuel {
            let left = make(Op::Sub, Type::I64, &[have, count], 0);
            let write = make(Op::SetReg, Type::I64, &[left], fuel);
            rest.splice(..1, [left, write]);
        } else {
            rest.remove(0);
        }
        region.inst_mut(cond).ty = Type::I64;
    }
    let cold = region.blocks.len() as u64;
    let targets = cold | (cold + 1) << 32;
    check.push(region.make(Op::BrIf, Type::I8, inst.insn, &[cond], targets, 0));
    region.blocks[b].insts.extend(check);
    for insts in [vec![exit], rest] {
        region.blocks.push(BlockData {
            params: Vec::new(),
            insts,
        });
    }
}

/// Turns each `spend` into arithmetic on the fuel.
fn spend(region: &mut Region, b: usize) {
    let mut at = 0;
    while at < region.blocks[b].insts.len() {
        let v = region.blocks[b].insts[at];
        let inst = *region.inst(v);
        if inst.op == Op::Spend {
            let fuel = Reg::Fuel as u64;
            let mut make =
                |op, args: &[Value], imm| region.make(op, Type::I64, inst.insn, args, imm, 0);
            let have = make(Op::GetReg, &[], fuel);
            let count = make(Op::Const, &[], inst.imm);
            let left = make(Op::Sub, &[have, count], 0);
            let write = make(Op::SetReg, &[left], fuel);
            let new = [have, count, left, write];
            region.blocks[b].insts.splice(at..=at, new);
            at += new.len() - 1;
        }
        at += 1;
    }
}

/// Turns each `setflags` into writes of the record. The operands that its kind does not have are
/// of no account any more: `ignored` gets the `setreg`s that say so.
pub(super) fn lower_flags(region: &mut Region, ignored: &mut Vec<Value>) {
    const OPERANDS: [Reg; 3] = [Reg::CcA, Reg::CcB, Reg::CcC];
    for b in region.block_ids() {
        let sets = |&v: &Value| region.inst(v).op == Op::SetFlags;
        if !region.blocks[b.0 as usize].insts.iter().any(sets) {
            continue;
        }
        let old = std::mem::take(&mut region.blocks[b.0 as usize].insts);
        let mut out = Vec::with_capacity(old.len() + 8);
        for v in old {
            let inst = *region.inst(v);
            if inst.op != Op::SetFlags {
                out.push(v);
                continue;
            }
            let operands = region.args(v).to_vec();
            let mut make = |op, ty, args: &[Value], imm| {
                let v = region.make(op, ty, inst.insn, args, imm, 0);
                out.push(v);
                v
            };
            let word = CcOp::new(FlagKind::ALL[inst.imm as usize], inst.ty).0;
            let word = make(Op::Const, Type::I32, &[], word.into());
            make(Op::SetReg, Type::I32, &[word], Reg::CcOp as u64);
            for (n, r) in OPERANDS.into_iter().enumerate() {
                let value = match operands.get(n) {
                    Some(&a) if inst.ty == Type::I64 => a,
                    Some(&a) => make(Op::Zext, Type::I64, &[a], 0),
                    None => make(Op::Const, Type::I64, &[], 0),
                };
                let write = make(Op::SetReg, Type::I64, &[value], r as u64);
                if n >= operands.len() {
                    ignored.push(write);
                }
            }
        }
        region.blocks[b.0 as usize].insts = out;
    }
}

/// True for blocks that do nothing but leave in a case that is rare.
pub(super) fn is_cold(region: &Region, b: Block) -> bool {
    matches!(
        region.inst(region.terminator(b)).op,
        Op::OutOfFuel | Op::Raise
    )
}
