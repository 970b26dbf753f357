//! Dead-code elimination: drops unused values whose computation has no effect, parameters that
//! nothing needs with their arguments, copies (every use goes to the original) and blocks that the
//! entry does not reach.
//!
//! Loads stay: they may fault.

use crate::cfg::prune_unreachable;
use crate::ops::Op;
use crate::region::{Region, Value};

/// Runs the pass.
pub fn dce(region: &mut Region) {
    let cfg = prune_unreachable(region);
    let mut live = vec![false; region.insts.len()];
    let mut work: Vec<Value> = Vec::new();
    // Where a parameter stands: its block and index, to find its arguments.
    let mut place = Vec::new();
    if region.blocks.iter().any(|b| !b.params.is_empty()) {
        place.resize(region.insts.len(), (0, 0));
        for (b, data) in region.blocks.iter().enumerate() {
            for (n, p) in data.params.iter().enumerate() {
                place[p.0 as usize] = (b as u32, n);
            }
        }
    }
    for &b in &cfg.rpo {
        for i in 0..region.blocks[b.0 as usize].insts.len() {
            let v = region.blocks[b.0 as usize].insts[i];
            let inst = *region.inst(v);
            for n in 0..inst.nargs as usize {
                let a = region.args(v)[n];
                if region.inst(a).op == Op::Copy {
                    region.args_mut(v)[n] = region.uncopied(a);
                }
            }
            if !region.is_removable(v) {
                live[v.0 as usize] = true;
                work.push(v);
            }
        }
    }
    while let Some(v) = work.pop() {
        let mut need = |a: Value| {
            if !std::mem::replace(&mut live[a.0 as usize], true) {
                work.push(a);
            }
        };
        match region.inst(v).op {
            // Arguments are needed when their parameter is.
            Op::Br => {}
            Op::BrIf => need(region.args(v)[0]),
            Op::Param => {
                let (b, n) = place[v.0 as usize];
                let b = crate::region::Block(b);
                for &p in cfg.preds(b) {
                    for (to, args) in region.successors(region.terminator(p)) {
                        if to == b {
                            need(args[n]);
                        }
                    }
                }
            }
            _ => region.args(v).iter().for_each(|&a| need(a)),
        }
    }
    let dead_param = |p: &Value| !live[p.0 as usize];
    if region
        .blocks
        .iter()
        .any(|b| b.params.iter().any(dead_param))
    {
        drop_args(region, &live);
    }
    for data in &mut region.blocks {
        data.params.retain(|p| live[p.0 as usize]);
        data.insts.retain(|v| live[v.0 as usize]);
    }
}

/// Drops the arguments of parameters that are not live.
pub(super) fn drop_args(region: &mut Region, live: &[bool]) {
    for b in region.block_ids() {
        let t = region.terminator(b);
        if region.inst(t).op.is_exit() {
            continue;
        }
        let two = region.inst(t).op == Op::BrIf;
        let mut args: Vec<Value> = Vec::new();
        if two {
            args.push(region.args(t)[0]);
        }
        let mut first = None;
        for (to, old) in region.successors(t) {
            let params = &region.blocks[to.0 as usize].params;
            let kept = old.iter().zip(params).filter(|(_, p)| live[p.0 as usize]);
            args.extend(kept.map(|(&a, _)| a));
            first.get_or_insert(args.len() - usize::from(two));
        }
        if args.len() < region.args(t).len() {
            region.set_args(t, &args);
            if two {
                region.inst_mut(t).aux = first.unwrap_or(0) as u32;
            }
        }
    }
}
