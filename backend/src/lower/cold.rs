//! Cold blocks: the writes of state maps, and computing there what nobody else needs.
//!
//! Many values are only needed if an access faults or the fuel runs out: old flags, the merged
//! halves of a vector register. Cranelift's mid-end would move them, but regions with floating
//! point are compiled without it; and each of them would hold a register in the hot path. So pure
//! ops whose values only cold blocks use are computed in each of those.

use super::{Lower, MAPPED};
use crate::error::CompileError;
use cranelift_codegen::ir::{self as clif, SourceLoc};
use metaphrase_ir::{Block, Effect, Op, Region, Value};

/// True for blocks that only write the state and leave, in a case that is rare.
pub(super) fn is_cold(region: &Region, block: Block) -> bool {
    let exit = region.inst(region.terminator(block)).op;
    let (_, rest) = match region.blocks[block.0 as usize].insts.split_last() {
        Some(split) => split,
        None => return false,
    };
    let simple = |&v: &Value| {
        let op = region.inst(v).op;
        can_move(op) || matches!(op, Op::GetReg | Op::SetReg)
    };
    block != Region::ENTRY && matches!(exit, Op::OutOfFuel | Op::Raise) && rest.iter().all(simple)
}

/// Finds the values that only cold blocks need.
pub(super) fn mark_cold(region: &Region, cold: &mut Vec<bool>) {
    cold.clear();
    cold.resize(region.insts.len(), false);
    if region.blocks.len() == 1 {
        return;
    }
    for data in &region.blocks {
        for &v in &data.insts {
            cold[v.0 as usize] = can_move(region.inst(v).op);
        }
    }
    let mut work: Vec<Value> = Vec::new();
    let need = |cold: &mut Vec<bool>, work: &mut Vec<Value>, args: &[Value]| {
        for &a in args {
            if std::mem::replace(&mut cold[a.0 as usize], false) {
                work.push(a);
            }
        }
    };
    for block in region.block_ids().filter(|&b| !is_cold(region, b)) {
        for &v in &region.blocks[block.0 as usize].insts {
            if !can_move(region.inst(v).op) {
                need(cold, &mut work, &region.args(v)[..region.own_args(v)]);
            }
        }
    }
    while let Some(v) = work.pop() {
        need(cold, &mut work, region.args(v));
    }
}

/// Ops that can be computed anywhere, in a few instructions.
fn can_move(op: Op) -> bool {
    op.info().effect == Effect::Pure && op != Op::Param
}

impl Lower<'_, '_> {
    /// Begins the cold block of an access with a state map, to which `cond` branches; the block to
    /// go on in.
    pub(super) fn branch_mapped(&mut self, v: Value, cond: clif::Value) -> clif::Block {
        let number = self.mapped.len() as u32;
        self.mapped.push(v);
        self.b.set_srcloc(SourceLoc::new(MAPPED | number));
        let hot = self.branch_cold(cond);
        self.b.set_srcloc(SourceLoc::new(self.loc.into()));
        hot
    }

    /// Writes an op's state map, in a cold block.
    pub(super) fn write_state_map(&mut self, v: Value) -> Result<(), CompileError> {
        let region = self.region;
        for (reg, x) in region.state_map(v) {
            self.make_cold(x)?;
            let value = self.value(x);
            let (flags, offset) = (self.state_flags(reg), self.unit.layout.reg(reg));
            self.store_with(flags, value, self.state, offset as i32);
        }
        Ok(())
    }

    /// Computes a value that only cold blocks need, in the current one.
    pub(super) fn make_cold(&mut self, v: Value) -> Result<(), CompileError> {
        if self.s.values[v.0 as usize].is_some() || !self.s.cold[v.0 as usize] {
            return Ok(());
        }
        let region = self.region;
        for &a in region.args(v) {
            self.make_cold(a)?;
        }
        let result = self.inst(v, region.inst(v))?;
        self.s.values[v.0 as usize] = result;
        self.made_cold.push(v);
        Ok(())
    }

    /// Forgets what the cold block has computed for itself.
    pub(super) fn end_cold(&mut self) {
        for v in self.made_cold.drain(..) {
            self.s.values[v.0 as usize] = None;
        }
    }
}
