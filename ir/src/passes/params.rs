//! Parameters that always hold the same: of those of one block that get equal values on every edge,
//! one stays. Several passes make parameters, each without regard to the others'.

use super::dce::drop_args;
use crate::cfg::Cfg;
use crate::ops::Op;
use crate::region::{Region, Value};

/// Merges equal parameters.
///
/// All parameters of a block and type count as equal at first; those that get unequal values on
/// some edge are told apart, until nothing changes. So parameters that feed each other around loops
/// are found too.
pub(super) fn merge_params(region: &mut Region, cfg: &Cfg) {
    // By value: the first that it is equal to.
    let mut class: Vec<Value> = (0..region.insts.len() as u32).map(Value).collect();
    // By block: the arguments on each incoming edge.
    let mut edges: Vec<Vec<Vec<Value>>> = vec![Vec::new(); region.blocks.len()];
    for &b in &cfg.rpo {
        for (to, args) in region.successors(region.terminator(b)) {
            let args = args.iter().map(|&a| region.uncopied(a)).collect();
            edges[to.0 as usize].push(args);
        }
        let params = &region.blocks[b.0 as usize].params;
        for (n, &p) in params.iter().enumerate() {
            let same = |q: &&Value| region.ty(**q) == region.ty(p);
            class[p.0 as usize] = *params[..n].iter().find(same).unwrap_or(&p);
        }
    }
    let mut changed = true;
    while changed {
        changed = false;
        for (data, edges) in region.blocks.iter().zip(&edges) {
            let params = &data.params;
            let mut new: Vec<Value> = Vec::with_capacity(params.len());
            for (n, p) in params.iter().enumerate() {
                let equal = |&m: &usize| {
                    class[params[m].0 as usize] == class[p.0 as usize]
                        && edges
                            .iter()
                            .all(|args| class[args[m].0 as usize] == class[args[n].0 as usize])
                };
                let first = (0..n).find(equal);
                new.push(first.map_or(*p, |m| params[m]));
            }
            for (p, c) in params.iter().zip(new) {
                changed |= std::mem::replace(&mut class[p.0 as usize], c) != c;
            }
        }
    }
    let mut live = vec![true; region.insts.len()];
    let mut merged = false;
    for b in 0..region.blocks.len() {
        for n in 0..region.blocks[b].params.len() {
            let p = region.blocks[b].params[n];
            live[p.0 as usize] = class[p.0 as usize] == p;
            merged |= !live[p.0 as usize];
        }
    }
    if !merged {
        return;
    }
    drop_args(region, &live);
    for data in &mut region.blocks {
        data.params.retain(|p| live[p.0 as usize]);
    }
    for (n, &c) in class.iter().enumerate() {
        if !live[n] {
            region.replace_with_copy(Value(n as u32), c);
        }
    }
    for b in region.block_ids() {
        for i in 0..region.blocks[b.0 as usize].insts.len() {
            let v = region.blocks[b.0 as usize].insts[i];
            for n in 0..region.args(v).len() {
                let a = region.args(v)[n];
                if region.inst(a).op == Op::Copy && !live[a.0 as usize] {
                    region.args_mut(v)[n] = region.uncopied(a);
                }
            }
        }
    }
}
