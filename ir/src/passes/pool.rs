//! One look at the fuel for several blocks.
//!
//! Every path through a region looks at the fuel at the entry and at each block that a backward
//! edge goes to. Such a look asks for what the dearest path up to the next one takes, so the blocks
//! between take their share without asking (`fuel n` becomes `need m` and `spend n`, or `spend n`
//! alone). Fewer places then observe the guest state, and fewer flags and registers are written.
//!
//! The region may now leave for want of fuel although the fuel would cover the next block: whoever
//! runs regions goes on with the blocks alone (see `docs/architecture.md`).

use crate::cfg::Cfg;
use crate::ops::Op;
use crate::region::{Block, Region};

/// The most that a look may ask for. Beyond it the region stays as it is: fuel comes in slices, and
/// a region that asks for more than one would never run.
const MOST: u64 = 0x2000;

/// Runs the pass.
pub fn pool(region: &mut Region) {
    if region.blocks.len() == 1 {
        return;
    }
    let cfg = Cfg::new(region);
    let cost: Vec<u64> = region.block_ids().map(|b| cost(region, b)).collect();
    let Some(needs) = needs(region, &cfg, &cost) else {
        return;
    };
    for &b in &cfg.rpo {
        let insts = std::mem::take(&mut region.blocks[b.0 as usize].insts);
        let mut out = Vec::with_capacity(insts.len() + 1);
        for v in insts {
            let inst = *region.inst(v);
            if inst.op == Op::Fuel {
                if out.is_empty() && needs[b.0 as usize].looks {
                    let need = needs[b.0 as usize].instructions;
                    out.push(region.make(Op::Need, inst.ty, inst.insn, &[], need, 0));
                }
                region.inst_mut(v).op = Op::Spend;
            }
            out.push(v);
        }
        region.blocks[b.0 as usize].insts = out;
    }
}

/// What a block takes itself.
fn cost(region: &Region, b: Block) -> u64 {
    let insts = region.blocks[b.0 as usize].insts.iter();
    let fuel = insts.filter(|&&v| region.inst(v).op == Op::Fuel);
    fuel.map(|&v| region.inst(v).imm).sum()
}

#[derive(Clone, Copy, Default)]
struct Need {
    /// The block looks at the fuel.
    looks: bool,
    /// What the dearest path from its start to the next look takes.
    instructions: u64,
}

/// What each block needs; `None` if there is a loop without a place to look, or a need is too
/// large.
fn needs(region: &Region, cfg: &Cfg, cost: &[u64]) -> Option<Vec<Need>> {
    let mut needs = vec![Need::default(); region.blocks.len()];
    let can_look = |b: Block| {
        let first = region.blocks[b.0 as usize].insts.first();
        first.is_some_and(|&v| region.inst(v).op == Op::Fuel)
    };
    // Nothing goes back to the entry: where a region starts with a loop, the entry only goes there.
    if can_look(Region::ENTRY) {
        needs[0].looks = true;
    } else {
        for (to, _) in region.successors(region.terminator(Region::ENTRY)) {
            needs[to.0 as usize].looks = can_look(to);
        }
    }
    for (head, end) in cfg.loops() {
        let b = cfg.rpo[head as usize];
        let mut body = cfg.rpo[head as usize..=end as usize].iter();
        if can_look(b) {
            needs[b.0 as usize].looks = true;
        } else if body.any(|b| cost[b.0 as usize] > 0) {
            return None;
        }
    }
    for &b in cfg.rpo.iter().rev() {
        let mut dearest = 0;
        for (to, _) in region.successors(region.terminator(b)) {
            // Going back to a block that does not look costs nothing.
            let need = needs[to.0 as usize];
            if !need.looks && cfg.order[to.0 as usize] > cfg.order[b.0 as usize] {
                dearest = dearest.max(need.instructions);
            }
        }
        let need = &mut needs[b.0 as usize];
        need.instructions = cost[b.0 as usize] + dearest;
        if need.instructions > MOST {
            return None;
        }
    }
    (needs[0].looks || needs[0].instructions == 0).then_some(needs)
}
