//! State maps spelled out: before each op that has one, `setreg`s write what memory does not hold
//! yet. For engines that cannot write the state when an access has already faulted.

use crate::cfg::Cfg;
use crate::guest::Reg;
use crate::ops::Op;
use crate::passes::liveness::side_writes;
use crate::region::{Block, Region, Value};
use crate::statemap::registers;

/// What memory holds of each register, where that is known.
type Memory = Vec<Option<Value>>;

/// Replaces the state maps of the ops that `which` chooses by `setreg`s.
pub fn unmap(region: &mut Region, which: impl Fn(Value) -> bool) {
    if region.state_maps.is_empty() {
        return;
    }
    let cfg = Cfg::new(region);
    // By block: what memory holds at its end; `None` if that was not looked at yet.
    let mut ends: Vec<Option<Memory>> = vec![None; region.blocks.len()];
    let mut changed = true;
    while changed {
        changed = false;
        for &b in &cfg.rpo {
            let mut memory = at_start(&cfg, &ends, b);
            for &v in &region.blocks[b.0 as usize].insts {
                step(region, v, &which, &mut memory, |_, _| {});
            }
            let end = &mut ends[b.0 as usize];
            changed |= end.as_ref() != Some(&memory);
            *end = Some(memory);
        }
    }
    for &b in &cfg.rpo {
        let mut memory = at_start(&cfg, &ends, b);
        let old = std::mem::take(&mut region.blocks[b.0 as usize].insts);
        let mut out = Vec::with_capacity(old.len());
        for v in old {
            let mut missing = Vec::new();
            step(region, v, &which, &mut memory, |r, x| missing.push((r, x)));
            let insn = region.inst(v).insn;
            for (r, x) in missing {
                out.push(region.make(Op::SetReg, r.ty(), insn, &[x], r as u64, 0));
            }
            if region.mapped(v) != 0 && which(v) {
                region.set_state_map(v, &[]);
            }
            out.push(v);
        }
        region.blocks[b.0 as usize].insts = out;
    }
}

/// What all ways to a block agree on. It only ever gets less from one round to the next.
fn at_start(cfg: &Cfg, ends: &[Option<Memory>], b: Block) -> Memory {
    let mut known: Option<Memory> = None;
    if b != Region::ENTRY {
        for end in cfg
            .preds(b)
            .iter()
            .filter_map(|p| ends[p.0 as usize].as_ref())
        {
            match &mut known {
                None => known = Some(end.clone()),
                Some(known) => {
                    for (k, e) in known.iter_mut().zip(end) {
                        if k != e {
                            *k = None;
                        }
                    }
                }
            }
        }
    }
    known.unwrap_or_else(|| vec![None; Reg::COUNT])
}

/// Follows one instruction; `missing` gets what has to be written before it.
fn step(
    region: &Region,
    v: Value,
    which: &impl Fn(Value) -> bool,
    memory: &mut Memory,
    mut missing: impl FnMut(Reg, Value),
) {
    let inst = region.inst(v);
    match inst.op {
        Op::GetReg => memory[inst.imm as usize] = Some(v),
        Op::SetReg => memory[inst.imm as usize] = Some(region.uncopied(region.args(v)[0])),
        _ => {}
    }
    registers(side_writes(region, v)).for_each(|r| memory[r as usize] = None);
    if region.mapped(v) != 0 && which(v) {
        for (r, x) in region.state_map(v) {
            let x = region.uncopied(x);
            if memory[r as usize] != Some(x) {
                missing(r, x);
                memory[r as usize] = Some(x);
            }
        }
    }
}
