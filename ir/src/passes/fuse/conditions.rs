//! Conditions and single flags as expressions of a `setflags`' operands.

use super::kind;
use crate::flags::{AF, ARITH, CF, Cond, FlagKind, OF, PF, SF, ZF};
use crate::ops::{IntCc, Op};
use crate::passes::emit::Emit;
use crate::region::Value;
use crate::types::Type;

/// A condition as an expression.
#[derive(Clone, Copy)]
pub(super) enum Test {
    Is(bool),
    Cmp(IntCc, Value, Value),
    /// An i8 that is 0 or 1.
    Bool(Value),
}

impl Test {
    fn invert(self, e: &mut Emit<'_>) -> Test {
        match self {
            Test::Is(b) => Test::Is(!b),
            Test::Cmp(cc, a, b) => Test::Cmp(cc.invert(), a, b),
            Test::Bool(v) => {
                let one = e.konst(Type::I8, 1);
                Test::Bool(e.op(Op::Xor, Type::I8, &[v, one], 0))
            }
        }
    }
}

impl Emit<'_> {
    /// Turns the i8 `v` into the test's outcome.
    pub(super) fn become_test(&mut self, v: Value, test: Test) {
        match test {
            Test::Is(b) => self.region.replace_with_const(v, b.into()),
            Test::Cmp(cc, a, b) => {
                let ty = self.region.ty(a);
                self.become_op(v, Op::ICmp, ty, &[a, b], cc as u64);
            }
            Test::Bool(b) => self.region.replace_with_copy(v, b),
        }
    }

    fn test_value(&mut self, test: Test) -> Value {
        match test {
            Test::Is(b) => self.konst(Type::I8, b.into()),
            Test::Cmp(cc, a, b) => self.icmp(cc, a, b),
            Test::Bool(v) => v,
        }
    }

    /// `and` of a `getflags` and one flag's constant: the flag from the definition's operands.
    pub(super) fn flag_of_image(&mut self, v: Value, images: &[(Value, Value)]) {
        let (a, b) = (self.region.args(v)[0], self.region.args(v)[1]);
        let (a, b) = (self.region.uncopied(a), self.region.uncopied(b));
        let (image, mask) = match (self.region.as_const(a), self.region.as_const(b)) {
            (None, Some(mask)) => (a, mask),
            (Some(mask), None) => (b, mask),
            _ => return,
        };
        let Some(&(_, def)) = images.iter().find(|(g, _)| *g == image) else {
            return;
        };
        let test = match mask & ARITH {
            0 => Test::Is(false),
            AF => self.adjust(def),
            flag => {
                let cond = match flag {
                    CF => Cond::B,
                    PF => Cond::P,
                    ZF => Cond::Z,
                    SF => Cond::S,
                    OF => Cond::O,
                    _ => return,
                };
                self.condition(def, cond)
            }
        };
        if let Test::Is(b) = test {
            let bits = if b { mask & ARITH } else { 0 };
            return self.region.replace_with_const(v, bits);
        }
        let bit = self.test_value(test);
        let wide = self.op(Op::Zext, Type::I64, &[bit], 0);
        let shift = self.konst(Type::I64, u64::from((mask & ARITH).trailing_zeros()));
        self.become_op(v, Op::Shl, Type::I64, &[wide, shift], 0);
    }

    /// The condition for the flags that `def` defines.
    pub(super) fn condition(&mut self, def: Value, cond: Cond) -> Test {
        let base = Cond::ALL[cond as usize & !1];
        let mut operands = [def; 3];
        for (to, &from) in operands.iter_mut().zip(self.region.args(def)) {
            *to = self.region.uncopied(from);
        }
        let f = Def {
            kind: kind(self.region, def),
            ty: self.region.inst(def).ty,
            operands,
        };
        let test = f.test(self, base);
        if cond == base {
            test
        } else {
            test.invert(self)
        }
    }

    /// AF, for the kinds that take it from bit 3 of their operands.
    fn adjust(&mut self, def: Value) -> Test {
        let ty = self.region.inst(def).ty;
        let args: Vec<Value> = self.region.args(def).to_vec();
        let low = |e: &mut Self, v: Value| {
            let mask = e.konst(ty, 15);
            e.op(Op::And, ty, &[v, mask], 0)
        };
        match kind(self.region, def) {
            FlagKind::Logic | FlagKind::Result => Test::Is(false),
            FlagKind::Shift => Test::Is(true),
            FlagKind::Sub => {
                let (a, b) = (low(self, args[0]), low(self, args[1]));
                Test::Cmp(IntCc::Ult, a, b)
            }
            FlagKind::Add => {
                let sum = self.find(Op::Add, args[0], args[1]);
                let (r, a) = (low(self, sum), low(self, args[0]));
                Test::Cmp(IntCc::Ult, r, a)
            }
            FlagKind::Inc | FlagKind::Dec => {
                let after = match kind(self.region, def) {
                    FlagKind::Inc => 0,
                    _ => 15,
                };
                let r = low(self, args[0]);
                let after = self.konst(ty, after);
                Test::Cmp(IntCc::Eq, r, after)
            }
            FlagKind::Adc | FlagKind::Sbb | FlagKind::Raw => {
                // Bit 4 of a ^ b ^ r is the carry out of bit 3; a raw image has it in place.
                let image = match kind(self.region, def) {
                    FlagKind::Raw => args[0],
                    k => {
                        let op = if k == FlagKind::Adc { Op::Add } else { Op::Sub };
                        let r = self.with_carry(op, ty, args[0], args[1], args[2]);
                        let x = self.op(Op::Xor, ty, &[args[0], args[1]], 0);
                        self.op(Op::Xor, ty, &[x, r], 0)
                    }
                };
                let mask = self.konst(ty, AF);
                let bit = self.op(Op::And, ty, &[image, mask], 0);
                let zero = self.konst(ty, 0);
                Test::Cmp(IntCc::Ne, bit, zero)
            }
        }
    }

    /// `a op b op c`, `op` being `add` or `sub`, `c` a carry in bit 0.
    fn with_carry(&mut self, op: Op, ty: Type, a: Value, b: Value, c: Value) -> Value {
        let one = self.konst(ty, 1);
        let c = self.op(Op::And, ty, &[c, one], 0);
        let r = self.find(op, a, b);
        self.op(op, ty, &[r, c], 0)
    }
}

/// A flag definition.
struct Def {
    kind: FlagKind,
    ty: Type,
    operands: [Value; 3],
}

impl Def {
    /// One of the eight conditions of even number.
    fn test(&self, e: &mut Emit<'_>, cond: Cond) -> Test {
        use FlagKind::*;
        use IntCc::*;
        let [a, b, _] = self.operands;
        let ty = self.ty;
        match (self.kind, cond) {
            (Raw, _) => self.raw(e, cond),

            (Sub, Cond::B) => Test::Cmp(Ult, a, b),
            (Sub, Cond::Z) => Test::Cmp(Eq, a, b),
            (Sub, Cond::Be) => Test::Cmp(Ule, a, b),
            (Sub, Cond::L) => Test::Cmp(Slt, a, b),
            (Sub, Cond::Le) => Test::Cmp(Sle, a, b),

            (Add, Cond::B) => {
                let r = self.result(e);
                Test::Cmp(Ult, r, a)
            }
            (Sbb, Cond::B) => {
                let borrow = self.low_bit(e, 2);
                let (at_most, less) = (e.icmp(Ule, a, b), e.icmp(Ult, a, b));
                Test::Bool(e.op(Op::Select, Type::I8, &[borrow, at_most, less], 0))
            }
            (Adc, Cond::B) => {
                let r = self.result(e);
                let carry = self.low_bit(e, 2);
                let (at_most, less) = (e.icmp(Ule, r, a), e.icmp(Ult, r, a));
                Test::Bool(e.op(Op::Select, Type::I8, &[carry, at_most, less], 0))
            }

            (Logic, Cond::B | Cond::O) => Test::Is(false),
            (Logic, Cond::Be) => self.test(e, Cond::Z),
            (Logic, Cond::L) => self.test(e, Cond::S),
            (Logic, Cond::Le) => {
                let zero = e.konst(ty, 0);
                Test::Cmp(Sle, a, zero)
            }

            // The operand was a - 1: the sum is less than 0 if that is less than -1.
            (Inc, Cond::L | Cond::Le) => {
                let (minus_one, zero) = (e.konst(ty, u64::MAX), e.konst(ty, 0));
                let x = e.op(Op::Add, ty, &[a, minus_one], 0);
                match cond {
                    Cond::L => Test::Cmp(Slt, x, minus_one),
                    _ => Test::Cmp(Slt, x, zero),
                }
            }
            // The operand was a + 1: the difference is less than 0 if that is less than 1.
            (Dec, Cond::L | Cond::Le) => {
                let one = e.konst(ty, 1);
                let x = e.op(Op::Add, ty, &[a, one], 0);
                let cc = if cond == Cond::L { Slt } else { Sle };
                Test::Cmp(cc, x, one)
            }
            (Inc, Cond::O) => {
                let top = e.konst(ty, 1 << (ty.bits() - 1));
                Test::Cmp(Eq, a, top)
            }
            (Dec, Cond::O) => {
                let top = e.konst(ty, (1 << (ty.bits() - 1)) - 1);
                Test::Cmp(Eq, a, top)
            }
            (Inc | Dec | Result | Shift, Cond::B) => Test::Bool(self.low_bit(e, 1)),
            (Result | Shift, Cond::O) => Test::Bool(self.low_bit(e, 2)),

            (Add | Adc | Sub | Sbb, Cond::O | Cond::L) => {
                let (r, overflow) = self.overflow(e);
                let x = match cond {
                    Cond::O => overflow,
                    _ => e.op(Op::Xor, ty, &[overflow, r], 0),
                };
                let zero = e.konst(ty, 0);
                Test::Cmp(Slt, x, zero)
            }
            (_, Cond::Z | Cond::S) => {
                let (r, zero) = (self.result(e), e.konst(ty, 0));
                let cc = if cond == Cond::Z { Eq } else { Slt };
                Test::Cmp(cc, r, zero)
            }
            (_, Cond::P) => {
                let r = self.result(e);
                parity(e, r)
            }
            (_, Cond::Be) => self.either(e, Op::Or, Cond::B, Cond::Z),
            (_, Cond::Le) => self.either(e, Op::Or, Cond::L, Cond::Z),
            (_, Cond::L) => self.either(e, Op::Xor, Cond::S, Cond::O),
            // Only conditions of even number come here, and all eight are above.
            (_, odd) => {
                let test = self.test(e, odd.invert());
                test.invert(e)
            }
        }
    }

    fn either(&self, e: &mut Emit<'_>, op: Op, x: Cond, y: Cond) -> Test {
        let x = self.test(e, x);
        let x = e.test_value(x);
        let y = self.test(e, y);
        let y = e.test_value(y);
        Test::Bool(e.op(op, Type::I8, &[x, y], 0))
    }

    /// The result that ZF, SF and PF describe.
    fn result(&self, e: &mut Emit<'_>) -> Value {
        let [a, b, c] = self.operands;
        match self.kind {
            FlagKind::Add => e.find(Op::Add, a, b),
            FlagKind::Sub => e.find(Op::Sub, a, b),
            FlagKind::Adc => e.with_carry(Op::Add, self.ty, a, b, c),
            FlagKind::Sbb => e.with_carry(Op::Sub, self.ty, a, b, c),
            _ => a,
        }
    }

    /// The result, and a value whose top bit is OF.
    fn overflow(&self, e: &mut Emit<'_>) -> (Value, Value) {
        let [a, b, _] = self.operands;
        let r = self.result(e);
        let other = match self.kind {
            FlagKind::Add | FlagKind::Adc => r,
            _ => a,
        };
        let x = e.op(Op::Xor, self.ty, &[a, r], 0);
        let y = e.op(Op::Xor, self.ty, &[b, other], 0);
        (r, e.op(Op::And, self.ty, &[x, y], 0))
    }

    /// Bit 0 of an operand, as an i8.
    fn low_bit(&self, e: &mut Emit<'_>, operand: usize) -> Value {
        low_bit(e, self.operands[operand])
    }

    /// The condition of an RFLAGS image.
    fn raw(&self, e: &mut Emit<'_>, cond: Cond) -> Test {
        let image = self.operands[0];
        let mask = match cond {
            Cond::O => OF,
            Cond::B => CF,
            Cond::Z => ZF,
            Cond::Be => CF | ZF,
            Cond::S => SF,
            Cond::P => PF,
            Cond::L => {
                // SF is bit 7, OF bit 11.
                let four = e.konst(Type::I64, 4);
                let of = e.op(Op::LShr, Type::I64, &[image, four], 0);
                let differ = e.op(Op::Xor, Type::I64, &[of, image], 0);
                return any_of(e, differ, SF);
            }
            _ => return self.either(e, Op::Or, Cond::L, Cond::Z),
        };
        any_of(e, image, mask)
    }
}

/// Whether any bit of the mask is set in an i64.
fn any_of(e: &mut Emit<'_>, v: Value, mask: u64) -> Test {
    let mask = e.konst(Type::I64, mask);
    let bits = e.op(Op::And, Type::I64, &[v, mask], 0);
    let zero = e.konst(Type::I64, 0);
    Test::Cmp(IntCc::Ne, bits, zero)
}

/// The low byte.
fn low_byte(e: &mut Emit<'_>, v: Value) -> Value {
    match e.region.ty(v) {
        Type::I8 => v,
        _ => e.op(Op::Trunc, Type::I8, &[v], 0),
    }
}

fn low_bit(e: &mut Emit<'_>, v: Value) -> Value {
    let byte = low_byte(e, v);
    let one = e.konst(Type::I8, 1);
    e.op(Op::And, Type::I8, &[byte, one], 0)
}

/// PF: the low byte has an even number of ones.
fn parity(e: &mut Emit<'_>, r: Value) -> Test {
    let byte = low_byte(e, r);
    let ones = e.op(Op::Popcnt, Type::I8, &[byte], 0);
    let odd = low_bit(e, ones);
    let zero = e.konst(Type::I8, 0);
    Test::Cmp(IntCc::Eq, odd, zero)
}
