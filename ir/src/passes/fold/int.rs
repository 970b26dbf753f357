//! Rules for integer arithmetic, logic, shifts and comparisons.

use super::{Did, Emit};
use crate::ops::{IntCc, Op};
use crate::region::Value;
use crate::types::Type;

/// The value of an op on constants; `None` where the op requires something that does not hold.
fn evaluate(op: Op, ty: Type, a: u64, b: u64) -> Option<u64> {
    let bits = ty.bits();
    let count = (b % u64::from(bits)) as u32;
    let signed = |x: u64| ((x << (64 - bits)) as i64) >> (64 - bits);
    let (sa, sb) = (signed(a), signed(b));
    // Of a narrow type the division cannot overflow i64, but its result may need cutting: then it
    // is not representable, and the op's requirement does not hold.
    let fits = |q: i64| (signed(q as u64 & ty.mask()) == q).then_some(q as u64);
    Some(match op {
        Op::Add => a.wrapping_add(b),
        Op::Sub => a.wrapping_sub(b),
        Op::Mul => a.wrapping_mul(b),
        Op::UMulHi => ((u128::from(a) * u128::from(b)) >> bits) as u64,
        Op::SMulHi => ((i128::from(sa) * i128::from(sb)) >> bits) as u64,
        Op::UDiv => a.checked_div(b)?,
        Op::URem => a.checked_rem(b)?,
        Op::SDiv => fits(sa.checked_div(sb)?)?,
        Op::SRem => {
            fits(sa.checked_div(sb)?)?;
            sa.checked_rem(sb)? as u64
        }
        Op::And => a & b,
        Op::Or => a | b,
        Op::Xor => a ^ b,
        Op::Shl => a << count,
        Op::LShr => a >> count,
        Op::AShr => (sa >> count) as u64,
        Op::RotL => a << count | a.checked_shr(bits - count).unwrap_or(0),
        Op::RotR => a >> count | a.checked_shl(bits - count).unwrap_or(0),
        Op::Neg => a.wrapping_neg(),
        Op::Not => !a,
        Op::Bswap => a.swap_bytes() >> (64 - bits),
        Op::Clz => u64::from((a << (64 - bits)).leading_zeros().min(bits)),
        Op::Ctz => u64::from(a.trailing_zeros().min(bits)),
        Op::Popcnt => u64::from(a.count_ones()),
        _ => return None,
    })
}

fn commutes(op: Op) -> bool {
    matches!(
        op,
        Op::Add | Op::Mul | Op::UMulHi | Op::SMulHi | Op::And | Op::Or | Op::Xor
    )
}

impl Emit<'_> {
    pub(super) fn unary(&mut self, v: Value) -> Did {
        let (inst, a) = (*self.region.inst(v), self.arg(v, 0));
        if let Some(c) = self.const_of(a) {
            return match evaluate(inst.op, inst.ty, c, 0) {
                Some(bits) => self.turn_const(v, bits),
                None => Did::Nothing,
            };
        }
        // Twice is not at all.
        let involution = matches!(inst.op, Op::Neg | Op::Not | Op::Bswap);
        if involution && self.op_of(a) == inst.op {
            return self.turn_copy(v, self.arg(a, 0));
        }
        Did::Nothing
    }

    pub(super) fn binary(&mut self, v: Value) -> Did {
        let inst = *self.region.inst(v);
        let (op, ty) = (inst.op, inst.ty);
        let (a, b) = (self.arg(v, 0), self.arg(v, 1));
        match (self.const_of(a), self.const_of(b)) {
            (Some(x), Some(y)) => match evaluate(op, ty, x, y) {
                Some(bits) => self.turn_const(v, bits),
                None => Did::Nothing,
            },
            (Some(_), None) if commutes(op) => {
                self.region.args_mut(v).swap(0, 1);
                Did::Changed
            }
            (Some(0), None) if op == Op::Sub => self.turn_op(v, Op::Neg, ty, &[b], 0),
            (Some(0), None) if shifts(op) => self.turn_const(v, 0),
            (None, Some(c)) => self.with_const(v, a, c),
            _ if a == b => match op {
                Op::Sub | Op::Xor => self.turn_const(v, 0),
                Op::And | Op::Or => self.turn_copy(v, a),
                _ => Did::Nothing,
            },
            _ => Did::Nothing,
        }
    }

    /// `a op c`, `a` not being a constant.
    fn with_const(&mut self, v: Value, a: Value, c: u64) -> Did {
        let inst = *self.region.inst(v);
        let (op, ty) = (inst.op, inst.ty);
        let mask = ty.mask();
        // The constant operand of `a`, if `a` is the same op: both become one.
        let inner = |e: &Self| match e.op_of(a) == op {
            true => e.const_of(e.arg(a, 1)),
            false => None,
        };
        match op {
            Op::Add => {
                if c == 0 {
                    return self.turn_copy(v, a);
                }
                if let Some(c1) = inner(self) {
                    return self.turn_op_const(v, op, self.arg(a, 0), c1.wrapping_add(c));
                }
            }
            Op::Sub => return self.turn_op_const(v, Op::Add, a, c.wrapping_neg()),
            Op::Mul => {
                return match c {
                    0 => self.turn_const(v, 0),
                    1 => self.turn_copy(v, a),
                    c if c.is_power_of_two() => {
                        self.turn_op_const(v, Op::Shl, a, u64::from(c.trailing_zeros()))
                    }
                    _ => Did::Nothing,
                };
            }
            Op::UDiv if c.is_power_of_two() => {
                return self.turn_op_const(v, Op::LShr, a, u64::from(c.trailing_zeros()));
            }
            Op::URem if c.is_power_of_two() => return self.turn_op_const(v, Op::And, a, c - 1),
            Op::SDiv if c == 1 => return self.turn_copy(v, a),
            Op::And => return self.and_const(v, a, c),
            Op::Or | Op::Xor => {
                if c == 0 {
                    return self.turn_copy(v, a);
                }
                if c == mask {
                    return match op {
                        Op::Or => self.turn_const(v, mask),
                        _ => self.turn_op(v, Op::Not, ty, &[a], 0),
                    };
                }
                if let Some(c1) = inner(self) {
                    let c = if op == Op::Or { c | c1 } else { c ^ c1 };
                    return self.turn_op_const(v, op, self.arg(a, 0), c);
                }
                if op == Op::Xor && c == 1 && self.op_of(a) == Op::ICmp {
                    let cmp = *self.region.inst(a);
                    let cc = IntCc::ALL[cmp.imm as usize].invert();
                    let args = [self.arg(a, 0), self.arg(a, 1)];
                    return self.turn_op(v, Op::ICmp, cmp.ty, &args, cc as u64);
                }
            }
            Op::Shl | Op::LShr | Op::AShr | Op::RotL | Op::RotR => {
                let bits = u64::from(ty.bits());
                let n = c % bits;
                if n == 0 {
                    return self.turn_copy(v, a);
                }
                if n != c {
                    return self.turn_op_const(v, op, a, n);
                }
                if op == Op::LShr && self.possible(a) >> n == 0 {
                    return self.turn_const(v, 0);
                }
                if op == Op::AShr && self.is_positive(a) {
                    return self.turn_op(v, Op::LShr, ty, &[a, self.arg(v, 1)], 0);
                }
                if let Some(c1) = inner(self) {
                    let sum = c1 % bits + n;
                    let a = self.arg(a, 0);
                    return match op {
                        Op::RotL | Op::RotR => self.turn_op_const(v, op, a, sum % bits),
                        Op::AShr => self.turn_op_const(v, op, a, sum.min(bits - 1)),
                        _ if sum >= bits => self.turn_const(v, 0),
                        _ => self.turn_op_const(v, op, a, sum),
                    };
                }
            }
            _ => {}
        }
        Did::Nothing
    }

    fn and_const(&mut self, v: Value, a: Value, c: u64) -> Did {
        let possible = self.possible(a);
        if possible & c == 0 {
            return self.turn_const(v, 0);
        }
        if possible & !c == 0 {
            return self.turn_copy(v, a);
        }
        // The form of a 32-bit register write.
        if c == Type::I32.mask() && self.region.ty(a) == Type::I64 {
            let low = self.op(Op::Trunc, Type::I32, &[a], 0);
            return self.turn_op(v, Op::Zext, Type::I64, &[low], 0);
        }
        match self.op_of(a) {
            Op::And => {
                if let Some(c1) = self.const_of(self.arg(a, 1)) {
                    return self.turn_op_const(v, Op::And, self.arg(a, 0), c & c1);
                }
            }
            Op::Or if self.const_of(self.arg(a, 1)).is_some_and(|k| c & !k == 0) => {
                return self.turn_const(v, c);
            }
            // A part that contributes none of the bits.
            Op::Or | Op::Xor => {
                let (p, q) = (self.arg(a, 0), self.arg(a, 1));
                for (gone, kept) in [(p, q), (q, p)] {
                    if self.possible(gone) & c == 0 {
                        let k = self.arg(v, 1);
                        return self.turn_op(v, Op::And, self.region.ty(kept), &[kept, k], 0);
                    }
                }
            }
            _ => {}
        }
        Did::Nothing
    }

    pub(super) fn compare(&mut self, v: Value) -> Did {
        let inst = *self.region.inst(v);
        let (a, b, ty) = (self.arg(v, 0), self.arg(v, 1), inst.ty);
        let cc = IntCc::ALL[inst.imm as usize];
        if a == b {
            return self.turn_const(v, cc.holds(ty, 0, 0).into());
        }
        match (self.const_of(a), self.const_of(b)) {
            (Some(x), Some(y)) => self.turn_const(v, cc.holds(ty, x, y).into()),
            (Some(_), None) => self.turn_op(v, Op::ICmp, ty, &[b, a], cc.swap() as u64),
            (None, Some(c)) => self.compare_const(v, cc, a, c),
            _ => Did::Nothing,
        }
    }

    fn compare_const(&mut self, v: Value, cc: IntCc, a: Value, c: u64) -> Did {
        use IntCc::{Eq, Ne, Sge, Sgt, Sle, Slt, Uge, Ugt, Ule, Ult};
        let ty = self.region.ty(a);
        let equality = matches!(cc, Eq | Ne);
        match (cc, c) {
            (Ult, 0) => return self.turn_const(v, 0),
            (Uge, 0) => return self.turn_const(v, 1),
            (Ule, 0) | (Ult, 1) => return self.compare_with(v, Eq, a, 0),
            (Ugt, 0) | (Uge, 1) => return self.compare_with(v, Ne, a, 0),
            _ => {}
        }
        let possible = self.possible(a);
        // Above everything that `a` can be.
        if c > possible {
            match cc {
                Eq | Ugt | Uge => return self.turn_const(v, 0),
                Ne | Ult | Ule => return self.turn_const(v, 1),
                _ => {}
            }
        }
        if equality && c & !possible != 0 {
            return self.turn_const(v, (cc == Ne).into());
        }
        if equality && possible == 1 && self.is_bool(a) {
            // Equal to 1, or not equal to 0: the bit itself.
            return if (cc == Eq) == (c == 1) {
                self.turn_copy(v, a)
            } else {
                self.turn_op_const(v, Op::Xor, a, 1)
            };
        }
        // Both signs clear: signed is unsigned.
        if self.is_positive(a) && c >> (ty.bits() - 1) == 0 {
            let unsigned = match cc {
                Slt => Some(Ult),
                Sge => Some(Uge),
                Sle => Some(Ule),
                Sgt => Some(Ugt),
                _ => None,
            };
            if let Some(cc) = unsigned {
                return self.compare_with(v, cc, a, c);
            }
        }
        // `a` is computed anyway where its flags are tested, so a comparison of `x + 1` with 0 is
        // not turned into one of `x`: that would only keep `x` alive.
        if self.op_of(a) == Op::Zext {
            let x = self.arg(a, 0);
            let signed = matches!(cc, Slt | Sge | Sle | Sgt);
            if !signed && c <= self.region.ty(x).mask() {
                return self.compare_with(v, cc, x, c);
            }
        }
        Did::Nothing
    }

    fn compare_with(&mut self, v: Value, cc: IntCc, a: Value, c: u64) -> Did {
        self.turn_op_const(v, Op::ICmp, a, c);
        self.region.inst_mut(v).imm = cc as u64;
        Did::Changed
    }
}

fn shifts(op: Op) -> bool {
    matches!(op, Op::Shl | Op::LShr | Op::AShr | Op::RotL | Op::RotR)
}
