//! Rules for extensions, truncations, parts and bit casts.

use super::{Did, Emit};
use crate::ops::Op;
use crate::region::Value;
use crate::types::Type;

impl Emit<'_> {
    pub(super) fn width(&mut self, v: Value) -> Did {
        let inst = *self.region.inst(v);
        let a = self.arg(v, 0);
        match inst.op {
            Op::Zext => self.zext(v, a, inst.ty),
            Op::Sext => self.sext(v, a, inst.ty),
            Op::Trunc => self.trunc(v, a, inst.ty),
            Op::Ext => self.ext(v, a, inst.ty, inst.imm),
            Op::Ins => self.ins(v, a, inst.ty, inst.imm),
            _ => self.bitcast(v, a, inst.ty),
        }
    }

    fn zext(&mut self, v: Value, a: Value, ty: Type) -> Did {
        if let Some(c) = self.const_of(a) {
            return self.turn_const(v, c);
        }
        match self.op_of(a) {
            Op::Zext => self.turn_op(v, Op::Zext, ty, &[self.arg(a, 0)], 0),
            // Not an `and`: hosts have zero extensions, but few have a 32-bit mask at hand.
            Op::Trunc if self.region.ty(self.arg(a, 0)) == ty => {
                let x = self.arg(a, 0);
                match self.possible(x) & !self.region.ty(a).mask() {
                    0 => self.turn_copy(v, x),
                    _ => Did::Nothing,
                }
            }
            _ => Did::Nothing,
        }
    }

    fn sext(&mut self, v: Value, a: Value, ty: Type) -> Did {
        let from = self.region.ty(a);
        if let Some(c) = self.const_of(a) {
            let shift = 64 - from.bits();
            return self.turn_const(v, (((c << shift) as i64) >> shift) as u64);
        }
        if self.is_positive(a) {
            return self.turn_op(v, Op::Zext, ty, &[a], 0);
        }
        match self.op_of(a) {
            Op::Sext => self.turn_op(v, Op::Sext, ty, &[self.arg(a, 0)], 0),
            _ => Did::Nothing,
        }
    }

    fn trunc(&mut self, v: Value, a: Value, ty: Type) -> Did {
        if let Some(c) = self.const_of(a) {
            return self.turn_const(v, c);
        }
        let x = match self.region.args(a).first() {
            Some(&x) => x,
            None => return Did::Nothing,
        };
        match self.op_of(a) {
            op @ (Op::Zext | Op::Sext) => {
                let from = self.region.ty(x);
                if from == ty {
                    self.turn_copy(v, x)
                } else if from > ty {
                    self.turn_op(v, Op::Trunc, ty, &[x], 0)
                } else {
                    self.turn_op(v, op, ty, &[x], 0)
                }
            }
            Op::Trunc => self.turn_op(v, Op::Trunc, ty, &[x], 0),
            Op::Ext => {
                let offset = self.region.inst(a).imm;
                self.turn_op(v, Op::Ext, ty, &[x], offset)
            }
            Op::Ins => self.part_of_ins(v, a, ty, 0),
            Op::And => match self.const_of(self.arg(a, 1)) {
                Some(c) if c & ty.mask() == ty.mask() => self.turn_op(v, Op::Trunc, ty, &[x], 0),
                _ => Did::Nothing,
            },
            _ => Did::Nothing,
        }
    }

    fn ext(&mut self, v: Value, a: Value, ty: Type, offset: u64) -> Did {
        if offset == 0 {
            return match ty {
                Type::I64 => self.turn_copy(v, a),
                _ => self.turn_op(v, Op::Trunc, ty, &[a], 0),
            };
        }
        if let Some(c) = self.const_of(a) {
            return self.turn_const(v, c >> offset);
        }
        if self.possible(a) >> offset & ty.mask() == 0 {
            return self.turn_const(v, 0);
        }
        match self.op_of(a) {
            Op::Ins => self.part_of_ins(v, a, ty, offset),
            _ => Did::Nothing,
        }
    }

    /// The bits from `offset` on of `whole`, which is an `ins`.
    fn part_of_ins(&mut self, v: Value, whole: Value, ty: Type, offset: u64) -> Did {
        let ins = *self.region.inst(whole);
        let (old, new) = (self.arg(whole, 0), self.arg(whole, 1));
        let (start, end) = (ins.imm, ins.imm + u64::from(ins.ty.bits()));
        if end <= offset || offset + u64::from(ty.bits()) <= start {
            return self.turn_op(v, Op::Ext, ty, &[old], offset);
        }
        if start == offset && ins.ty == ty {
            return self.turn_copy(v, new);
        }
        if start == offset && ins.ty > ty {
            return self.turn_op(v, Op::Trunc, ty, &[new], 0);
        }
        Did::Nothing
    }

    fn ins(&mut self, v: Value, a: Value, ty: Type, offset: u64) -> Did {
        let b = self.arg(v, 1);
        if ty == Type::I64 {
            return self.turn_copy(v, b);
        }
        let hole = ty.mask() << offset;
        if let (Some(x), Some(y)) = (self.const_of(a), self.const_of(b)) {
            return self.turn_const(v, (x & !hole) | y << offset);
        }
        // What is put back where it came from.
        let from = *self.region.inst(b);
        let back = match from.op {
            Op::Ext => from.imm == offset,
            Op::Trunc => offset == 0,
            _ => false,
        };
        if back && self.arg(b, 0) == a {
            return self.turn_copy(v, a);
        }
        if self.op_of(a) == Op::Ins {
            let under = *self.region.inst(a);
            if under.ty.mask() << under.imm & !hole == 0 {
                let args = [self.arg(a, 0), b];
                return self.turn_op(v, Op::Ins, ty, &args, offset);
            }
        }
        // Into zeros: an extension.
        if offset == 0 && self.possible(a) & !hole == 0 {
            return self.turn_op(v, Op::Zext, Type::I64, &[b], 0);
        }
        Did::Nothing
    }

    fn bitcast(&mut self, v: Value, a: Value, ty: Type) -> Did {
        if self.region.ty(a) == ty {
            return self.turn_copy(v, a);
        }
        if let Some(c) = self.const_of(a) {
            return self.turn_const(v, c);
        }
        match self.op_of(a) {
            Op::Bitcast => self.turn_op(v, Op::Bitcast, ty, &[self.arg(a, 0)], 0),
            _ => Did::Nothing,
        }
    }
}
