//! Constant folding and algebraic simplification, one walk over the blocks in reverse post-order.
//!
//! Each instruction is simplified until nothing changes; as its operands were simplified before
//! it, one walk is enough but for values that come around a loop. Constants go to the right, and
//! `sub` of a constant is `add` of its negative, so that addresses have one form.
//!
//! Floating-point ops are left alone: the guest's rounding mode and exception flags rule them.

mod control;
mod int;
mod known;
mod width;

use super::emit::Emit;
use crate::cfg::Cfg;
use crate::ops::{Class, Effect, Op};
use crate::region::{Region, Value};
use crate::types::{Shape, Type};

/// Runs the pass.
pub fn fold(region: &mut Region) {
    let cfg = Cfg::new(region);
    let mut old = Vec::new();
    for &b in &cfg.rpo {
        std::mem::swap(&mut old, &mut region.blocks[b.0 as usize].insts);
        let mut f = Emit {
            out: Vec::with_capacity(old.len() + 8),
            region,
            insn: 0,
        };
        for v in old.drain(..) {
            f.visit(v);
        }
        let out = std::mem::take(&mut f.out);
        region.blocks[b.0 as usize].insts = out;
    }
}

/// What a rule did with the instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Did {
    /// Nothing.
    Nothing,
    /// It is another instruction now, which may have rules of its own.
    Changed,
    /// It is as simple as it gets.
    Done,
    /// It must go.
    Drop,
}

/// More rounds than any chain of rules needs; a limit so that rules that undo each other end.
const ROUNDS: usize = 12;

impl Emit<'_> {
    /// Simplifies one instruction and appends it.
    fn visit(&mut self, v: Value) {
        self.insn = self.region.inst(v).insn;
        for n in 0..self.region.inst(v).nargs as usize {
            let a = self.region.args(v)[n];
            if self.region.inst(a).op == Op::Copy {
                self.region.args_mut(v)[n] = self.region.uncopied(a);
            }
        }
        let mut did = Did::Changed;
        for _ in 0..ROUNDS {
            if did != Did::Changed {
                break;
            }
            did = self.simplify(v);
        }
        if did != Did::Drop {
            self.out.push(v);
        }
    }

    fn simplify(&mut self, v: Value) -> Did {
        let inst = *self.region.inst(v);
        let info = inst.op.info();
        match info.effect {
            Effect::Pure => {}
            Effect::Float if !inst.sets_mxcsr() => {}
            Effect::Branch | Effect::Exit | Effect::MayExit => return self.control(v),
            _ => return Did::Nothing,
        }
        match inst.op {
            Op::Const | Op::VConst | Op::Pc | Op::Param | Op::Copy => Did::Done,
            Op::Zext | Op::Sext | Op::Trunc | Op::Ext | Op::Ins | Op::Bitcast => self.width(v),
            Op::Select => self.select(v),
            Op::ICmp => self.compare(v),
            Op::VGet => self.vector_lane(v),
            _ if info.result == Some(Class::Ctl) && inst.ty.is_int() => match inst.nargs {
                1 => self.unary(v),
                2 => self.binary(v),
                _ => Did::Nothing,
            },
            _ => self.same_vectors(v),
        }
    }

    /// Operand `n`.
    fn arg(&self, v: Value, n: usize) -> Value {
        self.region.args(v)[n]
    }

    /// The op that defines a value.
    fn op_of(&self, v: Value) -> Op {
        self.region.inst(v).op
    }

    /// The constant that a value is.
    fn const_of(&self, v: Value) -> Option<u64> {
        self.region.as_const(v)
    }

    fn turn_const(&mut self, v: Value, bits: u64) -> Did {
        self.region.replace_with_const(v, bits);
        Did::Done
    }

    fn turn_copy(&mut self, v: Value, of: Value) -> Did {
        let of = self.region.uncopied(of);
        self.region.replace_with_copy(v, of);
        Did::Done
    }

    fn turn_op(&mut self, v: Value, op: Op, ty: Type, args: &[Value], imm: u64) -> Did {
        self.become_op(v, op, ty, args, imm);
        Did::Changed
    }

    /// `v` as an op of `a` and a new constant, of `a`'s type.
    fn turn_op_const(&mut self, v: Value, op: Op, a: Value, bits: u64) -> Did {
        let ty = self.region.ty(a);
        let k = self.konst(ty, bits);
        self.turn_op(v, op, ty, &[a, k], 0)
    }

    /// Vector ops on two equal operands: `pxor x, x` is how guests make zero.
    fn same_vectors(&mut self, v: Value) -> Did {
        let inst = *self.region.inst(v);
        if inst.nargs != 2 || self.arg(v, 0) != self.arg(v, 1) {
            return Did::Nothing;
        }
        match inst.op {
            Op::VAnd | Op::VOr => self.turn_copy(v, self.arg(v, 0)),
            Op::VXor | Op::VAndNot => self.turn_zero_vector(v),
            Op::VSub if Shape::ALL[inst.imm as usize].lane().is_int() => self.turn_zero_vector(v),
            _ => Did::Nothing,
        }
    }

    fn turn_zero_vector(&mut self, v: Value) -> Did {
        let n = self.region.vconsts.len() as u64;
        self.region.vconsts.push(0);
        self.become_op(v, Op::VConst, Type::V128, &[], n);
        Did::Done
    }

    /// A lane that was just put there.
    fn vector_lane(&mut self, v: Value) -> Did {
        let (inst, a) = (*self.region.inst(v), self.arg(v, 0));
        let from = *self.region.inst(a);
        let same_lane = from.imm == inst.imm && from.aux == inst.aux;
        match from.op {
            Op::VSet if same_lane => self.turn_copy(v, self.arg(a, 1)),
            Op::VFromInt if inst.aux == 0 && from.ty == inst.ty => {
                self.turn_copy(v, self.arg(a, 0))
            }
            _ => Did::Nothing,
        }
    }
}
