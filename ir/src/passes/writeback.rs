//! Delayed write-back, for regions of several blocks: guest registers, the fuel and the flag record
//! are written to memory where something observes them, and not where they change. A hot loop whose
//! only observers are cold exits then writes nothing.
//!
//! A register is *dirty* where memory may not hold its value. Forward over the graph: a `setreg`
//! makes it dirty; before an observer (see [`super::liveness`]) every dirty register that it
//! observes is written. An access to guest memory observes only if it faults: it gets the dirty
//! registers as its state map (see [`crate::statemap`]), and they stay dirty. Where blocks join, what is dirty on one side is dirty. At a loop's first
//! block only what the loop itself leaves dirty is; the rest is written before the loop. Of nested
//! loops that share their first block that is the inner one, if it observes anything.
//!
//! Each write is put in as a `getreg` and a `setreg` of its value, each entry of a map as a
//! `getreg`; [`super::forward`] finds the value.

use super::expand::{is_cold, lower_flags, split_cold_exits};
use super::forward::{Role, forward_with};
use super::liveness::{FLAGS, RECORD, REGS, drop_dead_writes, helper_writes, transfer};
use super::params::merge_params;
use crate::cfg::{Cfg, prune_unreachable, reorder};
use crate::guest::{Reg, RegMask};
use crate::helpers::Helper;
use crate::ops::{Effect, Op};
use crate::region::{Block, BlockData, Region, Value};
use crate::statemap::registers;
use crate::types::Type;

/// Runs the pass.
pub fn writeback(region: &mut Region) {
    if region.blocks.len() == 1 {
        return;
    }
    prune_unreachable(region);
    if region.blocks.len() == 1 {
        return;
    }
    split_cold_exits(region);
    let mut ignored = Vec::new();
    lower_flags(region, &mut ignored);
    let mut w = WriteBack {
        defines: Vec::new(),
        roles: Vec::new(),
        region,
    };
    let written = w.note_defines(&ignored);
    let cfg = Cfg::new(w.region);
    let starts = w.dirty_at_starts(&cfg);
    w.insert(&cfg, &starts);
    let roles = w.roles;
    let cfg = Cfg::new(region);
    forward_with(region, &cfg, &roles, REGS & !written);
    drop_dead_writes(region, &cfg, REGS);
    merge_params(region, &cfg);
    let (cold, hot): (Vec<Block>, Vec<Block>) = cfg.rpo.iter().partition(|&&b| is_cold(region, b));
    if hot.first() == Some(&Region::ENTRY) {
        let order: Vec<Block> = hot.into_iter().chain(cold).collect();
        reorder(region, &order);
    }
}

/// What a `setreg` of the old region does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Define {
    None,
    /// Memory is behind from here on.
    Dirty,
    /// The value does not matter until the next write.
    Ignored,
}

struct WriteBack<'r> {
    region: &'r mut Region,
    /// By value.
    defines: Vec<Define>,
    /// By value.
    roles: Vec<Role>,
}

impl WriteBack<'_> {
    /// Notes what each `setreg` does; the registers that there are `setreg`s of.
    fn note_defines(&mut self, ignored: &[Value]) -> RegMask {
        let n = self.region.insts.len();
        self.defines = vec![Define::None; n];
        self.roles = vec![Role::Plain; n];
        let mut written = 0;
        for data in &self.region.blocks {
            for &v in &data.insts {
                let inst = self.region.inst(v);
                if inst.op == Op::SetReg {
                    written |= 1 << inst.imm;
                    self.defines[v.0 as usize] = Define::Dirty;
                    self.roles[v.0 as usize] = Role::Define;
                }
            }
        }
        for v in ignored {
            self.defines[v.0 as usize] = Define::Ignored;
        }
        written
    }

    /// What of `dirty` must be written before `v` (or go into its state map), and what is dirty
    /// after it.
    fn step(&self, v: Value, dirty: RegMask) -> (RegMask, RegMask) {
        let inst = self.region.inst(v);
        let defined = match inst.op {
            Op::SetReg => 1 << inst.imm,
            // Gets its value from the pass.
            Op::GetReg => return (0, dirty),
            _ => 0,
        };
        match self.defines[v.0 as usize] {
            Define::Dirty => return (0, dirty | defined),
            Define::Ignored => return (0, dirty & !defined),
            Define::None => {}
        }
        let (mut seen, _) = transfer(self.region, v);
        if inst.op.info().effect == Effect::Helper {
            // It may write a part of them.
            seen |= helper_writes(Helper::from_imm(inst.imm).effects());
        }
        if seen & FLAGS != 0 {
            seen |= RECORD;
        }
        if inst.op.takes_state_map() {
            return (dirty & seen, dirty);
        }
        (dirty & seen, dirty & !seen)
    }

    fn dirty_after(&self, b: Block, dirty: RegMask) -> RegMask {
        let insts = self.region.blocks[b.0 as usize].insts.iter();
        insts.fold(dirty, |dirty, &v| self.step(v, dirty).1)
    }

    /// By block: what is dirty at its start.
    fn dirty_at_starts(&self, cfg: &Cfg) -> Vec<RegMask> {
        let n = self.region.blocks.len();
        // What a block makes dirty, and what it leaves dirty.
        let made: Vec<RegMask> = (0..n as u32)
            .map(|b| self.dirty_after(Block(b), 0))
            .collect();
        let kept: Vec<RegMask> = (0..n as u32)
            .map(|b| self.dirty_after(Block(b), REGS))
            .collect();
        let inner: Vec<Option<Block>> = (0..n as u32)
            .map(|b| self.inner_loop(cfg, Block(b)))
            .collect();
        let mut starts = vec![0; n];
        let mut changed = true;
        while changed {
            changed = false;
            for &b in cfg.rpo.iter().skip(1) {
                let place = cfg.order[b.0 as usize];
                let goes_back = |p: &&Block| cfg.order[p.0 as usize] >= place;
                let preds = cfg.preds(b);
                let is_loop = preds.iter().any(|p| goes_back(&p));
                let chosen = |p: &&Block| inner[b.0 as usize].is_none_or(|latch| latch == **p);
                let from = preds
                    .iter()
                    .filter(|p| !is_loop || goes_back(p) && chosen(p));
                let dirty = from.fold(0, |dirty, p| {
                    let p = p.0 as usize;
                    dirty | made[p] | (starts[p] & kept[p])
                });
                changed |= std::mem::replace(&mut starts[b.0 as usize], dirty) != dirty;
            }
        }
        starts
    }

    /// Where several edges go back to `b` and the loop of one, the smallest, observes the state:
    /// the block that this edge comes from. What the larger loops leave dirty is then written once
    /// on their way back, instead of in every round of the smallest.
    fn inner_loop(&self, cfg: &Cfg, b: Block) -> Option<Block> {
        let place = cfg.order[b.0 as usize];
        let back = |p: &&Block| cfg.order[p.0 as usize] >= place;
        let latches: Vec<Block> = cfg.preds(b).iter().filter(back).copied().collect();
        if latches.len() < 2 {
            return None;
        }
        let loops = latches
            .into_iter()
            .map(|latch| (natural_loop(cfg, b, latch), latch));
        let (blocks, latch) = loops.min_by_key(|(blocks, _)| blocks.len())?;
        let observes = |v: &Value| {
            let op = self.region.inst(*v).op;
            matches!(op.info().effect, Effect::Load | Effect::Store)
        };
        let observed = blocks
            .iter()
            .any(|b| self.region.blocks[b.0 as usize].insts.iter().any(observes));
        observed.then_some(latch)
    }

    /// Puts the writes into the blocks and onto the edges.
    fn insert(&mut self, cfg: &Cfg, starts: &[RegMask]) {
        for &b in &cfg.rpo {
            let mut dirty = starts[b.0 as usize];
            let old = std::mem::take(&mut self.region.blocks[b.0 as usize].insts);
            let mut out = Vec::with_capacity(old.len() + 16);
            for v in old {
                let (write, left) = self.step(v, dirty);
                let inst = *self.region.inst(v);
                if inst.op == Op::Br {
                    let to = Block(inst.imm as u32);
                    self.write(&mut out, dirty & !starts[to.0 as usize], inst.insn);
                } else if inst.op == Op::BrIf {
                    self.split_edges(v, dirty, starts);
                } else if inst.op.takes_state_map() {
                    self.map(&mut out, write, v);
                } else {
                    self.write(&mut out, write, inst.insn);
                }
                dirty = left;
                out.push(v);
            }
            self.region.blocks[b.0 as usize].insts = out;
        }
    }

    /// Adds these registers to the op's state map.
    fn map(&mut self, out: &mut Vec<Value>, which: RegMask, v: Value) {
        if which == 0 {
            return;
        }
        let insn = self.region.inst(v).insn;
        // A map that is there already knows better.
        let mut entries: Vec<(Reg, Value)> = self.region.state_map(v).collect();
        for r in registers(which) {
            let read = self.region.make(Op::GetReg, r.ty(), insn, &[], r as u64, 0);
            self.roles.push(Role::Plain);
            entries.push((r, read));
            out.push(read);
        }
        self.region.set_state_map(v, &entries);
        debug_assert_eq!(self.roles.len(), self.region.insts.len());
    }

    /// Appends the writes of these registers.
    fn write(&mut self, out: &mut Vec<Value>, which: RegMask, insn: u16) {
        for r in registers(which) {
            let read = self.region.make(Op::GetReg, r.ty(), insn, &[], r as u64, 0);
            let write = self
                .region
                .make(Op::SetReg, r.ty(), insn, &[read], r as u64, 0);
            self.roles.extend([Role::Plain, Role::Flush]);
            out.extend([read, write]);
        }
        debug_assert_eq!(self.roles.len(), self.region.insts.len());
    }

    /// Gives each edge of a `brif` that needs writes a block for them.
    fn split_edges(&mut self, v: Value, dirty: RegMask, starts: &[RegMask]) {
        let inst = *self.region.inst(v);
        let edges: Vec<(Block, Vec<Value>)> = self
            .region
            .successors(v)
            .map(|(to, args)| (to, args.to_vec()))
            .collect();
        let mut args = vec![self.region.args(v)[0]];
        let (mut targets, mut aux) = (0, 0);
        for (n, (to, given)) in edges.into_iter().enumerate() {
            let write = dirty & !starts[to.0 as usize];
            let target = if write == 0 {
                args.extend(&given);
                to
            } else {
                let mut insts = Vec::new();
                self.write(&mut insts, write, inst.insn);
                let to = u64::from(to.0);
                insts.push(self.region.make(Op::Br, Type::I8, inst.insn, &given, to, 0));
                self.roles.push(Role::Plain);
                self.region.blocks.push(BlockData {
                    params: Vec::new(),
                    insts,
                });
                Block(self.region.blocks.len() as u32 - 1)
            };
            targets |= u64::from(target.0) << (32 * n);
            if n == 0 {
                aux = args.len() as u32 - 1;
            }
        }
        self.region.set_args(v, &args);
        let inst = self.region.inst_mut(v);
        (inst.imm, inst.aux) = (targets, aux);
    }
}

/// The blocks of the loop that an edge from `latch` back to `head` closes.
fn natural_loop(cfg: &Cfg, head: Block, latch: Block) -> Vec<Block> {
    let mut blocks = vec![head];
    let mut work = vec![latch];
    while let Some(b) = work.pop() {
        if !blocks.contains(&b) {
            blocks.push(b);
            work.extend(cfg.preds(b));
        }
    }
    blocks
}
