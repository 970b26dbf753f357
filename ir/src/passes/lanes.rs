//! The lowest lanes of vectors that a loop carries: where a way back replaces the lowest float lane
//! of an XMM register and nothing else of it (scalar SSE arithmetic does), the lane becomes a
//! parameter of its own, and the vector's parameter stays as it is on that way.
//!
//! The register is then put together where it is needed as a whole, which is often only in state
//! maps, and a chain of scalar operations goes from one round to the next without the merging
//! in between.

use crate::cfg::Cfg;
use crate::ops::Op;
use crate::passes::emit::append_params;
use crate::region::{Block, Region, Value};
use crate::types::Type;

/// Runs the pass.
pub fn lanes(region: &mut Region) {
    if region.blocks.len() == 1 || !replaces_lanes(region) {
        return;
    }
    zero_extended(region);
    let cfg = Cfg::new(region);
    for &b in &cfg.rpo {
        for n in 0..region.blocks[b.0 as usize].params.len() {
            if let Some(found) = Carried::find(region, &cfg, b, n) {
                found.split(region, &cfg, b, n);
            }
        }
    }
}

/// A `vset` of the lowest lane, of a float: the vector and the lane.
fn lowest(region: &Region, v: Value) -> Option<(Value, Value)> {
    let inst = region.inst(v);
    let args = region.args(v);
    (inst.op == Op::VSet && inst.aux == 0 && inst.ty.is_float())
        .then(|| (region.uncopied(args[0]), region.uncopied(args[1])))
}

fn replaces_lanes(region: &Region) -> bool {
    let mut all = region.blocks.iter().flat_map(|b| &b.insts);
    all.any(|&v| lowest(region, v).is_some())
}

/// The lowest lane of a vector that is zero above it: the new one zero-extended.
fn zero_extended(region: &mut Region) {
    for b in region.block_ids() {
        for n in 0..region.blocks[b.0 as usize].insts.len() {
            let v = region.blocks[b.0 as usize].insts[n];
            let Some((vector, lane)) = lowest(region, v) else {
                continue;
            };
            let from = region.inst(vector);
            if from.op == Op::VFromInt && from.ty == region.inst(v).ty {
                region.set_args(v, &[lane]);
                let inst = region.inst_mut(v);
                (inst.op, inst.imm, inst.aux) = (Op::VFromInt, 0, 0);
            }
        }
    }
}

/// A vector of which some ways back to its block replace the lowest lane only.
struct Carried {
    /// The lane's type and the shape.
    ty: Type,
    shape: u64,
    /// The block's predecessors.
    edges: Vec<(Block, Given)>,
}

/// What an edge gives for the vector.
#[derive(Clone, Copy)]
enum Given {
    /// The vector as it is, with that lowest lane.
    Lane(Value),
    /// The vector as it is.
    Same,
    /// Another one.
    Other(Value),
}

impl Carried {
    /// Whether parameter `n` of `b` is one.
    fn find(region: &Region, cfg: &Cfg, b: Block, n: usize) -> Option<Carried> {
        let param = region.blocks[b.0 as usize].params[n];
        if region.ty(param) != Type::V128 {
            return None;
        }
        let mut kind = None;
        let mut edges = Vec::new();
        for &p in cfg.preds(b) {
            // A block with both edges to `b` is not worth the trouble.
            let mut to_b = region
                .successors(region.terminator(p))
                .filter(|(to, _)| *to == b);
            let (Some((_, args)), None) = (to_b.next(), to_b.next()) else {
                return None;
            };
            let arg = region.uncopied(args[n]);
            let given = match replaced(region, arg, param) {
                _ if arg == param => Given::Same,
                None => Given::Other(arg),
                Some((lane, this)) => {
                    if *kind.get_or_insert(this) != this {
                        return None;
                    }
                    Given::Lane(lane)
                }
            };
            edges.push((p, given));
        }
        let (ty, shape) = kind?;
        Some(Carried { ty, shape, edges })
    }

    /// Adds a parameter for the lane.
    fn split(self, region: &mut Region, cfg: &Cfg, b: Block, n: usize) {
        let Carried { ty, shape, edges } = self;
        let whole = region.blocks[b.0 as usize].params[n];
        let vector = region.make(Op::Param, Type::V128, 0, &[], 0, 0);
        let lane = region.make(Op::Param, ty, 0, &[], 0, 0);
        region.blocks[b.0 as usize].params[n] = vector;
        let mut lanes = Vec::with_capacity(edges.len());
        for (from, given) in edges {
            let value = match given {
                Given::Lane(value) => value,
                Given::Same => lane,
                Given::Other(of) => {
                    let insn = region.inst(region.terminator(from)).insn;
                    let get = region.make(Op::VGet, ty, insn, &[of], shape, 0);
                    let insts = &mut region.blocks[from.0 as usize].insts;
                    insts.insert(insts.len() - 1, get);
                    get
                }
            };
            if !matches!(given, Given::Other(_)) {
                set_argument(region, from, b, n, vector);
            }
            lanes.push((from, value));
        }
        append_params(region, cfg, &[(b, lane, ())], |from, ()| {
            let of = lanes.iter().find(|(b, _)| *b == from);
            of.map_or(lane, |(_, value)| *value)
        });
        // Whoever wants the vector as a whole gets it put together.
        let first = region.blocks[b.0 as usize].insts[0];
        let insn = region.inst(first).insn;
        region.set_args(whole, &[vector, lane]);
        let inst = region.inst_mut(whole);
        (inst.op, inst.ty, inst.imm, inst.aux, inst.insn) = (Op::VSet, ty, shape, 0, insn);
        region.blocks[b.0 as usize].insts.insert(0, whole);
        for block in region.block_ids() {
            for k in 0..region.blocks[block.0 as usize].insts.len() {
                let v = region.blocks[block.0 as usize].insts[k];
                let inst = *region.inst(v);
                let this = (inst.ty, inst.imm, inst.aux) == (ty, shape, 0);
                if v == whole || !this || !matches!(inst.op, Op::VGet | Op::VSet) {
                    continue;
                }
                if region.uncopied(region.args(v)[0]) != whole {
                    continue;
                }
                if inst.op == Op::VGet {
                    region.replace_with_copy(v, lane);
                } else {
                    region.args_mut(v)[0] = vector;
                }
            }
        }
    }
}

/// If `v` is `vector` but for the lowest lane: that lane, its type and the shape.
fn replaced(region: &Region, v: Value, vector: Value) -> Option<(Value, (Type, u64))> {
    let kind = |v: Value| (region.inst(v).ty, region.inst(v).imm);
    let (mut of, lane) = lowest(region, v)?;
    while of != vector {
        if kind(of) != kind(v) {
            return None;
        }
        of = lowest(region, of)?.0;
    }
    Some((lane, kind(v)))
}

/// Changes argument `n` of the edge between two blocks.
fn set_argument(region: &mut Region, from: Block, to: Block, n: usize, value: Value) {
    let t = region.terminator(from);
    let inst = *region.inst(t);
    let start = match inst.op {
        Op::BrIf if inst.imm as u32 == to.0 => 1,
        Op::BrIf => 1 + inst.aux as usize,
        _ => 0,
    };
    region.args_mut(t)[start + n] = value;
}
