//! Which guest state something can still observe: backward over the control-flow graph.
//!
//! The state is a [`RegMask`], whose top bit stands for the flags. Memory holds
//! the state, and it must be complete at every observer: ops that access guest memory (they may
//! fault), that may leave or leave the region, and helpers as they declare.

use crate::cfg::Cfg;
use crate::guest::{Reg, RegClass, RegMask};
use crate::helpers::{Effects, Helper};
use crate::ops::{Effect, Op};
use crate::region::{Block, Region, Value};

/// All guest registers.
pub const REGS: RegMask = (1 << Reg::COUNT) - 1;
/// The arithmetic flags.
pub const FLAGS: RegMask = 1 << (RegMask::BITS - 1);
/// The registers of the flag record.
pub const RECORD: RegMask = bit(Reg::CcOp) | bit(Reg::CcA) | bit(Reg::CcB) | bit(Reg::CcC);

/// A register's bit.
pub const fn bit(r: Reg) -> RegMask {
    r.bit()
}

/// The registers of the classes that go with an effect that `e` has.
fn classes(e: Effects, effects: &[(RegClass, Effects)]) -> RegMask {
    effects.iter().fold(0, |mask, &(class, effect)| {
        mask | if e.has(effect) {
            Reg::of_class(class)
        } else {
            0
        }
    })
}

/// The state that a helper reads, as a mask.
pub fn helper_reads(e: Effects) -> RegMask {
    if e.has(Effects::MAY_EXIT) {
        return RegMask::MAX;
    }
    // State that no IR op names may depend on time, so on the fuel.
    const READS: &[(RegClass, Effects)] = &[
        (RegClass::Gpr, Effects::READ_GPR),
        (RegClass::Segment, Effects::READ_SEGMENT),
        (RegClass::Control, Effects::READ_CONTROL),
        (RegClass::Sse, Effects::READ_SSE),
        (RegClass::Mmx, Effects::OPAQUE),
        (RegClass::Fuel, Effects::OPAQUE),
        (RegClass::Flags, Effects::READ_FLAGS),
    ];
    let regs = classes(e, READS);
    regs | if e.has(Effects::READ_FLAGS) { FLAGS } else { 0 }
}

/// The state that a helper may write, as a mask.
pub fn helper_writes(e: Effects) -> RegMask {
    const WRITES: &[(RegClass, Effects)] = &[
        (RegClass::Gpr, Effects::WRITE_GPR),
        (RegClass::Segment, Effects::WRITE_SEGMENT),
        (RegClass::Control, Effects::WRITE_CONTROL),
        (RegClass::Sse, Effects::WRITE_SSE),
        (RegClass::Mmx, Effects::OPAQUE),
        (RegClass::Flags, Effects::WRITE_FLAGS),
    ];
    let regs = classes(e, WRITES);
    regs | if e.has(Effects::WRITE_FLAGS) {
        FLAGS
    } else {
        0
    }
}

/// The registers that an instruction other than `setreg` may write.
pub fn side_writes(region: &Region, v: Value) -> RegMask {
    let inst = region.inst(v);
    match inst.op {
        Op::SetFlags => RECORD,
        Op::Fuel | Op::Spend => bit(Reg::Fuel),
        Op::Call => helper_writes(Helper::from_imm(inst.imm).effects()) & REGS,
        _ => 0,
    }
}

/// The state that an op's state map holds: it is not looked for in memory.
fn mapped(region: &Region, v: Value) -> RegMask {
    match region.mapped(v) {
        mask if mask & RECORD == RECORD => mask | FLAGS,
        mask => mask,
    }
}

/// What an instruction observes, and what it certainly overwrites.
pub fn transfer(region: &Region, v: Value) -> (RegMask, RegMask) {
    let inst = region.inst(v);
    match inst.op.info().effect {
        Effect::Pure | Effect::Float | Effect::Branch => (0, 0),
        Effect::Load | Effect::Store => (!mapped(region, v), 0),
        Effect::MayExit | Effect::Exit => (RegMask::MAX, 0),
        Effect::Helper => (helper_reads(Helper::from_imm(inst.imm).effects()), 0),
        Effect::ReadState if inst.op == Op::GetReg => {
            let r = 1 << inst.imm;
            (if r & RECORD != 0 { r | FLAGS } else { r }, 0)
        }
        Effect::ReadState => (FLAGS | RECORD, 0),
        Effect::WriteState if inst.op == Op::SetReg => (0, 1 << inst.imm),
        Effect::WriteState if inst.op == Op::Spend => (bit(Reg::Fuel), 0),
        Effect::WriteState => (0, FLAGS),
    }
}

/// Drops the `setreg`s and `setflags`s of the state in `which` that are overwritten on every path
/// before anything observes them.
///
/// What only computed a dropped write goes with it in the same backward walk: a rotate reads the
/// flags that it keeps, and that read must not hold the definition before it once the rotate's own
/// is dead.
pub fn drop_dead_writes(region: &mut Region, cfg: &Cfg, which: RegMask) {
    let live_out = if region.blocks.len() == 1 {
        vec![0]
    } else {
        live_out(region, cfg)
    };
    let mut uses = vec![0u32; region.insts.len()];
    for data in &region.blocks {
        for &v in &data.insts {
            region.args(v).iter().for_each(|a| uses[a.0 as usize] += 1);
        }
    }
    // A value whose last use was dropped.
    let mut orphan = vec![false; region.insts.len()];
    for &b in &cfg.rpo {
        let mut live = live_out[b.0 as usize];
        let mut insts = std::mem::take(&mut region.blocks[b.0 as usize].insts);
        // Kept instructions gather at the end, then move to the front.
        let mut keep = insts.len();
        for i in (0..insts.len()).rev() {
            let v = insts[i];
            let (seen, over) = transfer(region, v);
            let dead_write = over & which != 0 && live & over == 0;
            if dead_write || orphan[v.0 as usize] && region.is_removable(v) {
                for a in region.args(v) {
                    let left = &mut uses[a.0 as usize];
                    *left -= 1;
                    orphan[a.0 as usize] = *left == 0;
                }
                continue;
            }
            live = (live & !over) | seen;
            keep -= 1;
            insts[keep] = v;
        }
        insts.drain(..keep);
        region.blocks[b.0 as usize].insts = insts;
    }
}

/// By block: the state observed after it.
fn live_out(region: &Region, cfg: &Cfg) -> Vec<RegMask> {
    let n = region.blocks.len();
    let (mut seen, mut over) = (vec![0 as RegMask; n], vec![0 as RegMask; n]);
    for &b in &cfg.rpo {
        let b = b.0 as usize;
        for &v in region.blocks[b].insts.iter().rev() {
            let (s, o) = transfer(region, v);
            seen[b] = (seen[b] & !o) | s;
            over[b] = (over[b] | o) & !s;
        }
    }
    let mut out = vec![0 as RegMask; n];
    let mut changed = true;
    while changed {
        changed = false;
        for &b in cfg.rpo.iter().rev() {
            let mut live = 0;
            for (Block(to), _) in region.successors(region.terminator(b)) {
                let to = to as usize;
                live |= seen[to] | (out[to] & !over[to]);
            }
            changed |= std::mem::replace(&mut out[b.0 as usize], live) != live;
        }
    }
    out
}
