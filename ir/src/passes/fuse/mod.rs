//! Compare-branch fusion: a `getcond` that exactly one `setflags` reaches becomes a comparison or
//! logic on that `setflags`' operands, and so do the single bits of a `getflags`. Where several
//! arrive, each of the ways there evaluates the condition, see [`joins`].
//!
//! After it most `setflags` have no reader left, and the flags pass drops those that are
//! overwritten before an observer.

mod conditions;
mod joins;

use super::emit::Emit;
use crate::cfg::{Cfg, prune_unreachable};
use crate::flags::{ARITH, Cond, FlagKind};
use crate::helpers::{Effects, Helper};
use crate::ops::{Effect, Op};
use crate::region::{Block, Region, Value};
use crate::types::Type;
use joins::{Reaching, join};

/// Runs the pass.
pub fn fuse(region: &mut Region) {
    let cfg = prune_unreachable(region);
    let reads =
        |region: &Region, v: &Value| matches!(region.inst(*v).op, Op::GetCond | Op::GetFlags);
    let mut all = region.blocks.iter().flat_map(|b| &b.insts);
    if !all.any(|v| reads(region, v)) {
        return;
    }
    let reaching = reaching(region, &cfg);
    // Each `getflags` with known definitions.
    let mut images: Vec<Image> = Vec::new();
    // Each `getcond` of several definitions.
    let mut wanted: Vec<(Block, Value, Cond)> = Vec::new();
    let mut old = Vec::new();
    for &b in &cfg.rpo {
        let mut known = reaching.start[b.0 as usize];
        // Several definitions arrive, and none has followed yet.
        let mut several = known.is_none() && reaching.complete[b.0 as usize];
        std::mem::swap(&mut old, &mut region.blocks[b.0 as usize].insts);
        let mut e = Emit {
            out: Vec::with_capacity(old.len() + 8),
            region,
            insn: 0,
        };
        for v in old.drain(..) {
            let inst = *e.region.inst(v);
            e.insn = inst.insn;
            match (inst.op, known) {
                (Op::GetCond, Some(def)) => {
                    let cond = Cond::ALL[inst.imm as usize];
                    let test = e.condition(def, cond);
                    e.become_test(v, test);
                }
                (Op::GetFlags, Some(def)) if kind(e.region, def) == FlagKind::Raw => {
                    let a = e.region.args(def)[0];
                    let mask = e.konst(Type::I64, ARITH);
                    e.become_op(v, Op::And, Type::I64, &[a, mask], 0);
                }
                (Op::GetCond, None) if several => {
                    wanted.push((b, v, Cond::ALL[inst.imm as usize]));
                }
                (Op::GetFlags, None) if several => images.push(Image { v, of: Err(b) }),
                (Op::GetFlags, Some(def)) => images.push(Image { v, of: Ok(def) }),
                (Op::And, _) if !images.is_empty() => {
                    wanted.extend(e.flag_of_image(v, &images));
                }
                _ => {}
            }
            if let Some(now) = after(e.region, v) {
                known = now;
                several = false;
            }
            e.out.push(v);
        }
        let out = std::mem::take(&mut e.out);
        region.blocks[b.0 as usize].insts = out;
    }
    join(region, &cfg, &reaching, &wanted);
    drop_unused(region, &images);
}

/// A `getflags`.
struct Image {
    v: Value,
    /// Its only definition, or the block at whose start several arrive.
    of: Result<Value, Block>,
}

/// What an instruction does to the known definition: `None` if nothing.
fn after(region: &Region, v: Value) -> Option<Option<Value>> {
    let inst = region.inst(v);
    if inst.op == Op::SetFlags {
        return Some(Some(v));
    }
    let writes = inst.op.info().effect == Effect::Helper
        && Helper::from_imm(inst.imm)
            .effects()
            .has(Effects::WRITE_FLAGS);
    writes.then_some(None)
}

/// Which definitions reach which blocks.
fn reaching(region: &Region, cfg: &Cfg) -> Reaching {
    let n = region.blocks.len();
    if n == 1 {
        return Reaching {
            exit: vec![None],
            start: vec![None],
            complete: vec![false],
        };
    }
    let exit: Vec<Option<Option<Value>>> = region
        .blocks
        .iter()
        .map(|b| b.insts.iter().rev().find_map(|&v| after(region, v)))
        .collect();
    // The outer `None` means not known yet.
    let mut start: Vec<Option<Option<Value>>> = vec![None; n];
    start[0] = Some(None);
    let mut complete = vec![true; n];
    complete[0] = false;
    let mut changed = true;
    while changed {
        changed = false;
        for &b in cfg.rpo.iter().skip(1) {
            let mut met: Option<Option<Value>> = None;
            let mut all = true;
            for p in cfg.preds(b) {
                let p = p.0 as usize;
                if let Some(def) = exit[p].or(start[p]) {
                    met = Some(match met {
                        Some(other) if other != def => None,
                        _ => def,
                    });
                }
                all &= exit[p].map_or(complete[p], |def| def.is_some());
            }
            let b = b.0 as usize;
            changed |= start[b] != met || complete[b] != all;
            (start[b], complete[b]) = (met, all);
        }
    }
    Reaching {
        exit,
        start: start.into_iter().map(Option::flatten).collect(),
        complete,
    }
}

fn kind(region: &Region, def: Value) -> FlagKind {
    FlagKind::ALL[region.inst(def).imm as usize]
}

/// Drops the `getflags` that nothing uses any more, so that they keep no `setflags` alive.
fn drop_unused(region: &mut Region, images: &[Image]) {
    if images.is_empty() {
        return;
    }
    let mut used = vec![false; images.len()];
    for data in &region.blocks {
        for &v in &data.insts {
            for a in region.args(v) {
                if let Some(n) = images.iter().position(|i| i.v == *a) {
                    used[n] = true;
                }
            }
        }
    }
    for data in &mut region.blocks {
        data.insts.retain(|v| {
            let image = images.iter().position(|i| i.v == *v);
            image.is_none_or(|n| used[n])
        });
    }
}
