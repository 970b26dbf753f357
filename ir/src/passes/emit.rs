//! New instructions in the middle of a block: passes rebuild a block's list front to back and put
//! what they need before the instruction at hand.

use crate::cfg::Cfg;
use crate::ops::{IntCc, Op};
use crate::region::{Block, Region, Value};
use crate::types::Type;

/// How far back [`Emit::find`] looks.
const WINDOW: usize = 16;

/// The rebuilt part of a block, and the guest instruction that new instructions belong to.
pub struct Emit<'r> {
    /// The region.
    pub region: &'r mut Region,
    /// The block's new list so far.
    pub out: Vec<Value>,
    /// The guest instruction at hand.
    pub insn: u16,
}

impl Emit<'_> {
    /// Appends a pure instruction.
    pub fn op(&mut self, op: Op, ty: Type, args: &[Value], imm: u64) -> Value {
        let v = self.region.make(op, ty, self.insn, args, imm, 0);
        self.out.push(v);
        v
    }

    /// Appends a constant, cut to its width.
    pub fn konst(&mut self, ty: Type, bits: u64) -> Value {
        self.op(Op::Const, ty, &[], bits & ty.mask())
    }

    /// Appends a comparison.
    pub fn icmp(&mut self, cc: IntCc, a: Value, b: Value) -> Value {
        let ty = self.region.ty(a);
        self.op(Op::ICmp, ty, &[a, b], cc as u64)
    }

    /// Appends a binary op, or finds the same one a few instructions back.
    pub fn find(&mut self, op: Op, a: Value, b: Value) -> Value {
        let ty = self.region.ty(a);
        for &v in self.out.iter().rev().take(WINDOW) {
            let inst = self.region.inst(v);
            if inst.op == op && inst.ty == ty {
                let args = self.region.args(v);
                if self.region.uncopied(args[0]) == a && self.region.uncopied(args[1]) == b {
                    return v;
                }
            }
        }
        self.op(op, ty, &[a, b], 0)
    }

    /// Turns `v` into another op in place; its result type must stay.
    pub fn become_op(&mut self, v: Value, op: Op, ty: Type, args: &[Value], imm: u64) {
        self.region.set_args(v, args);
        let inst = self.region.inst_mut(v);
        (inst.op, inst.ty, inst.imm, inst.aux) = (op, ty, imm, 0);
    }
}

/// Puts parameters into their blocks, after those that are there, and their values into the
/// branches. `params` are sorted by block; `value` gives what a parameter gets at the end of a
/// block.
pub fn append_params<T: Copy>(
    region: &mut Region,
    cfg: &Cfg,
    params: &[(Block, Value, T)],
    mut value: impl FnMut(Block, T) -> Value,
) {
    for &(b, v, _) in params {
        region.blocks[b.0 as usize].params.push(v);
    }
    let mut args = Vec::new();
    for &b in &cfg.rpo {
        let t = region.terminator(b);
        if region.inst(t).op.is_exit() {
            continue;
        }
        let two = region.inst(t).op == Op::BrIf;
        args.clear();
        if two {
            args.push(region.args(t)[0]);
        }
        let mut split = None;
        for (to, old) in region.successors(t) {
            args.extend_from_slice(old);
            let start = params.partition_point(|&(b, ..)| b < to);
            for &(_, _, of) in params[start..].iter().take_while(|&&(b, ..)| b == to) {
                args.push(value(b, of));
            }
            split.get_or_insert(args.len() as u32 - u32::from(two));
        }
        if args.len() != region.args(t).len() {
            region.set_args(t, &args);
            if two {
                region.inst_mut(t).aux = split.unwrap_or(0);
            }
        }
    }
}
