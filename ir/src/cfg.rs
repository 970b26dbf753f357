//! The control-flow graph of a region: predecessors, an order, dominators.

use crate::ops::Imm;
use crate::region::{Block, Region};

/// Edges and orders, computed from the terminators. Valid until a terminator changes.
#[derive(Clone, Debug, Default)]
pub struct Cfg {
    /// Reachable blocks in reverse post-order: a block comes after those that dominate it.
    pub rpo: Vec<Block>,
    /// By block: its place in `rpo`, or [`Cfg::UNREACHABLE`].
    pub order: Vec<u32>,
    /// The predecessors of each block that are reachable, one entry an edge, block after block.
    preds: Vec<Block>,
    /// By block: where its predecessors start; one more entry at the end.
    first_pred: Vec<u32>,
}

impl Cfg {
    /// The `order` of a block that the entry does not reach.
    pub const UNREACHABLE: u32 = u32::MAX;

    /// Computes the graph. Every block must have a terminator with targets in range.
    pub fn new(region: &Region) -> Cfg {
        let n = region.blocks.len();
        let mut cfg = Cfg::default();
        if n == 1 {
            // Most regions: no edge, whatever the terminator is (nothing may go to the entry).
            cfg.rpo.push(Region::ENTRY);
            cfg.order.push(0);
            cfg.first_pred.extend([0, 0]);
            return cfg;
        }
        let next = |b: Block, k: usize| {
            let edge = region.successors(region.terminator(b)).nth(k);
            edge.map(|(to, _)| to)
        };
        let mut seen = vec![false; n];
        let mut stack = vec![(Region::ENTRY, 0)];
        seen[0] = true;
        while let Some((b, k)) = stack.last_mut() {
            match next(*b, *k) {
                Some(to) => {
                    *k += 1;
                    if !std::mem::replace(&mut seen[to.0 as usize], true) {
                        stack.push((to, 0));
                    }
                }
                None => {
                    cfg.rpo.push(*b);
                    stack.pop();
                }
            }
        }
        cfg.rpo.reverse();
        cfg.order = vec![Cfg::UNREACHABLE; n];
        for (i, b) in cfg.rpo.iter().enumerate() {
            cfg.order[b.0 as usize] = i as u32;
        }
        cfg.first_pred = vec![0; n + 1];
        let edges = || {
            let from = cfg.rpo.iter();
            from.flat_map(|&b| {
                let to = region.successors(region.terminator(b));
                to.map(move |(to, _)| (b, to))
            })
        };
        for (_, to) in edges() {
            cfg.first_pred[to.0 as usize + 1] += 1;
        }
        for i in 0..n {
            cfg.first_pred[i + 1] += cfg.first_pred[i];
        }
        let mut preds = vec![Region::ENTRY; cfg.first_pred[n] as usize];
        let mut at = cfg.first_pred.clone();
        for (from, to) in edges() {
            let slot = &mut at[to.0 as usize];
            preds[*slot as usize] = from;
            *slot += 1;
        }
        cfg.preds = preds;
        cfg
    }

    /// The reachable predecessors of `b`, one for each edge.
    pub fn preds(&self, b: Block) -> &[Block] {
        let b = b.0 as usize;
        &self.preds[self.first_pred[b] as usize..self.first_pred[b + 1] as usize]
    }

    /// True if the entry reaches `b`.
    pub fn is_reachable(&self, b: Block) -> bool {
        self.order[b.0 as usize] != Cfg::UNREACHABLE
    }

    /// The backward edges, as places in `rpo`: each loop's first block and the end of an edge that
    /// goes back to it. The blocks of the loop lie between them.
    pub fn loops(&self) -> impl Iterator<Item = (u32, u32)> {
        self.rpo.iter().flat_map(|&b| {
            let at = self.order[b.0 as usize];
            let from = self.preds(b).iter().map(|p| self.order[p.0 as usize]);
            from.filter(move |&p| p >= at).map(move |p| (at, p))
        })
    }

    /// By block: its immediate dominator; the entry and unreachable blocks have themselves.
    /// (Cooper, Harvey, Kennedy: "A Simple, Fast Dominance Algorithm".)
    pub fn dominators(&self) -> Vec<Block> {
        const NONE: u32 = u32::MAX;
        // By place in `rpo`: the dominator's place.
        let mut idom = vec![NONE; self.rpo.len()];
        idom[0] = 0;
        let mut changed = true;
        while changed {
            changed = false;
            for (i, &b) in self.rpo.iter().enumerate().skip(1) {
                let mut new = NONE;
                for p in self.preds(b) {
                    let p = self.order[p.0 as usize];
                    if idom[p as usize] == NONE {
                        continue;
                    }
                    new = if new == NONE { p } else { meet(&idom, p, new) };
                }
                changed |= std::mem::replace(&mut idom[i], new) != new;
            }
        }
        let mut result: Vec<Block> = (0..self.order.len() as u32).map(Block).collect();
        for (i, &b) in self.rpo.iter().enumerate() {
            result[b.0 as usize] = self.rpo[idom[i] as usize];
        }
        result
    }
}

/// The nearest common dominator of two places.
fn meet(idom: &[u32], mut a: u32, mut b: u32) -> u32 {
    while a != b {
        while a > b {
            a = idom[a as usize];
        }
        while b > a {
            b = idom[b as usize];
        }
    }
    a
}

/// Drops the blocks that the entry does not reach, renumbers the rest, and gives the graph.
pub fn prune_unreachable(region: &mut Region) -> Cfg {
    let cfg = Cfg::new(region);
    if cfg.rpo.len() == region.blocks.len() {
        return cfg;
    }
    let mut new = vec![0u32; region.blocks.len()];
    let mut kept = 0;
    for b in region.block_ids() {
        if cfg.is_reachable(b) {
            new[b.0 as usize] = kept;
            region.blocks.swap(kept as usize, b.0 as usize);
            kept += 1;
        }
    }
    region.blocks.truncate(kept as usize);
    retarget(region, &new);
    Cfg::new(region)
}

/// Puts the blocks into another order: `order` names each block once, the entry first.
pub fn reorder(region: &mut Region, order: &[Block]) {
    let mut new = vec![0u32; region.blocks.len()];
    let mut blocks = Vec::with_capacity(order.len());
    for (n, b) in order.iter().enumerate() {
        new[b.0 as usize] = n as u32;
        blocks.push(std::mem::take(&mut region.blocks[b.0 as usize]));
    }
    region.blocks = blocks;
    retarget(region, &new);
}

/// Gives branches the new numbers of their targets.
fn retarget(region: &mut Region, new: &[u32]) {
    for b in region.block_ids() {
        let t = region.terminator(b);
        let inst = region.inst_mut(t);
        let low = || u64::from(new[inst.imm as u32 as usize]);
        match inst.op.info().imm {
            Imm::Target => inst.imm = low(),
            Imm::Targets => {
                let high = u64::from(new[(inst.imm >> 32) as usize]);
                inst.imm = low() | high << 32;
            }
            _ => {}
        }
    }
}
