//! Rules for choices: `select`, branches, exits and traps on known or inverted conditions.

use super::{Did, Emit};
use crate::ops::{IntCc, Op};
use crate::region::Value;
use crate::types::Type;

impl Emit<'_> {
    /// What `c` is the negation of, `c` and the result both only counting as zero or not.
    fn negated(&self, c: Value) -> Option<Value> {
        let inst = *self.region.inst(c);
        match inst.op {
            Op::Xor if self.const_of(self.arg(c, 1)) == Some(1) => {
                let x = self.arg(c, 0);
                self.is_bool(x).then_some(x)
            }
            Op::ICmp if inst.imm == IntCc::Eq as u64 && inst.ty == Type::I8 => {
                (self.const_of(self.arg(c, 1)) == Some(0)).then(|| self.arg(c, 0))
            }
            _ => None,
        }
    }

    /// A simpler value that is zero exactly when `c` is.
    fn nonzero(&self, c: Value) -> Option<Value> {
        let inst = *self.region.inst(c);
        let compares = inst.op == Op::ICmp && inst.imm == IntCc::Ne as u64 && inst.ty == Type::I8;
        if compares && self.const_of(self.arg(c, 1)) == Some(0) {
            return Some(self.arg(c, 0));
        }
        None
    }

    pub(super) fn select(&mut self, v: Value) -> Did {
        let ty = self.region.inst(v).ty;
        let (c, a, b) = (self.arg(v, 0), self.arg(v, 1), self.arg(v, 2));
        if let Some(c) = self.const_of(c) {
            return self.turn_copy(v, if c != 0 { a } else { b });
        }
        if a == b {
            return self.turn_copy(v, a);
        }
        if let Some(c) = self.negated(c) {
            return self.turn_op(v, Op::Select, ty, &[c, b, a], 0);
        }
        if let Some(c) = self.nonzero(c) {
            return self.turn_op(v, Op::Select, ty, &[c, a, b], 0);
        }
        if ty.is_int() && self.is_bool(c) {
            match (self.const_of(a), self.const_of(b)) {
                (Some(x), Some(y)) if x == y => return self.turn_const(v, x),
                (Some(1), Some(0)) => {
                    return match ty {
                        Type::I8 => self.turn_copy(v, c),
                        _ => self.turn_op(v, Op::Zext, ty, &[c], 0),
                    };
                }
                (Some(0), Some(1)) if ty == Type::I8 => {
                    return self.turn_op_const(v, Op::Xor, c, 1);
                }
                _ => {}
            }
        }
        Did::Nothing
    }

    /// Branches, exits and checks.
    pub(super) fn control(&mut self, v: Value) -> Did {
        let inst = *self.region.inst(v);
        match inst.op {
            Op::BrIf => self.brif(v),
            Op::TrapIf => {
                let c = self.arg(v, 0);
                if self.const_of(c) == Some(0) {
                    return Did::Drop;
                }
                self.simpler_condition(v)
            }
            Op::JumpIf => {
                let (c, taken, fall) = (self.arg(v, 0), inst.imm, i64::from(inst.aux as i32));
                if let Some(c) = self.const_of(c) {
                    let target = if c != 0 { taken } else { fall as u64 };
                    return self.turn_op(v, Op::Jump, Type::I64, &[], target);
                }
                if let (Some(c), Ok(short)) = (self.negated(c), i32::try_from(taken as i64)) {
                    self.region.args_mut(v)[0] = c;
                    let inst = self.region.inst_mut(v);
                    (inst.imm, inst.aux) = (fall as u64, short as u32);
                    return Did::Changed;
                }
                self.simpler_condition(v)
            }
            _ => Did::Nothing,
        }
    }

    fn simpler_condition(&mut self, v: Value) -> Did {
        match self.nonzero(self.arg(v, 0)) {
            Some(c) => {
                self.region.args_mut(v)[0] = c;
                Did::Changed
            }
            None => Did::Nothing,
        }
    }

    fn brif(&mut self, v: Value) -> Did {
        let inst = *self.region.inst(v);
        let (c, split) = (self.arg(v, 0), 1 + inst.aux as usize);
        let (then, other) = (inst.imm & 0xffff_ffff, inst.imm >> 32);
        let args = self.region.args(v);
        let (then_args, other_args) = (args[1..split].to_vec(), args[split..].to_vec());
        if let Some(c) = self.const_of(c) {
            return if c != 0 {
                self.turn_op(v, Op::Br, Type::I8, &then_args, then)
            } else {
                self.turn_op(v, Op::Br, Type::I8, &other_args, other)
            };
        }
        if then == other && then_args == other_args {
            return self.turn_op(v, Op::Br, Type::I8, &then_args, then);
        }
        if let Some(c) = self.negated(c) {
            let mut args = vec![c];
            args.extend(&other_args);
            args.extend(&then_args);
            self.become_op(v, Op::BrIf, Type::I8, &args, other | then << 32);
            self.region.inst_mut(v).aux = other_args.len() as u32;
            return Did::Changed;
        }
        self.simpler_condition(v)
    }
}
