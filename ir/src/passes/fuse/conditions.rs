//! Conditions and single flags as expressions of a `setflags`' operands.

use super::{Image, kind};
use crate::flags::{AF, ARITH, CF, Cond, FlagKind, OF, PF, SF, ZF};
use crate::ops::{IntCc, Op};
use crate::passes::emit::Emit;
use crate::region::{Block, Value};
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

    /// The test's outcome as an i8.
    pub(super) fn test_value(&mut self, test: Test) -> Value {
        match test {
            Test::Is(b) => self.konst(Type::I8, b.into()),
            Test::Cmp(cc, a, b) => self.icmp(cc, a, b),
            Test::Bool(v) => v,
        }
    }

    /// `and` of a `getflags` and one flag's constant: the flag from the definition's operands. If
    /// several arrive, the flag is read alone: gives the `getcond` that stands for it, and where.
    pub(super) fn flag_of_image(
        &mut self,
        v: Value,
        images: &[Image],
    ) -> Option<(Block, Value, Cond)> {
        let (a, b) = (self.region.args(v)[0], self.region.args(v)[1]);
        let (a, b) = (self.region.uncopied(a), self.region.uncopied(b));
        let (image, mask) = match (self.region.as_const(a), self.region.as_const(b)) {
            (None, Some(mask)) => (a, mask),
            (Some(mask), None) => (b, mask),
            _ => return None,
        };
        let of = images.iter().find(|i| i.v == image)?.of;
        let mut read = None;
        let test = match (mask & ARITH, of) {
            (0, _) => Test::Is(false),
            (AF, Ok(def)) => self.adjust(def),
            (flag, of) => {
                let cond = match flag {
                    CF => Cond::B,
                    PF => Cond::P,
                    ZF => Cond::Z,
                    SF => Cond::S,
                    OF => Cond::O,
                    _ => return None,
                };
                match of {
                    Ok(def) => self.condition(def, cond),
                    Err(b) => {
                        let bit = self.op(Op::GetCond, Type::I8, &[], cond as u64);
                        read = Some((b, bit, cond));
                        Test::Bool(bit)
                    }
                }
            }
        };
        if let Test::Is(b) = test {
            let bits = if b { mask & ARITH } else { 0 };
            self.region.replace_with_const(v, bits);
            return None;
        }
        let bit = self.test_value(test);
        let wide = self.op(Op::Zext, Type::I64, &[bit], 0);
        let shift = self.konst(Type::I64, u64::from((mask & ARITH).trailing_zeros()));
        self.become_op(v, Op::Shl, Type::I64, &[wide, shift], 0);
        read
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
        let r = self.find(op, a, b);
        if self.possible(c) <= 1 {
            return self.find(op, r, c);
        }
        let one = self.konst(ty, 1);
        let c = self.op(Op::And, ty, &[c, one], 0);
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
    /// The condition; those of odd number are the opposites of the even ones.
    fn test(&self, e: &mut Emit<'_>, cond: Cond) -> Test {
        use FlagKind::{Add, Dec, Inc, Logic, Raw, Sub};
        use IntCc::{Eq, Sle, Slt, Ule};
        let [a, b, _] = self.operands;
        let ty = self.ty;
        match (cond, self.kind) {
            (Cond::B, _) => self.carry(e),
            (Cond::O, _) => self.overflow(e),
            (_, Raw) => self.raw(e, cond),

            (Cond::Z, Sub) => Test::Cmp(Eq, a, b),
            (Cond::Z | Cond::S, _) => {
                let (r, zero) = (self.result(e), e.konst(ty, 0));
                let cc = if cond == Cond::Z { Eq } else { Slt };
                Test::Cmp(cc, r, zero)
            }

            (Cond::P, _) => {
                let r = self.result(e);
                parity(e, r)
            }

            (Cond::Be, Sub) => Test::Cmp(Ule, a, b),
            (Cond::Be, Logic) => self.test(e, Cond::Z),
            (Cond::Be, _) => self.either(e, Op::Or, Cond::B, Cond::Z),

            (Cond::L, Sub) => Test::Cmp(Slt, a, b),
            (Cond::Le, Sub) => Test::Cmp(Sle, a, b),
            (Cond::L, Logic) => self.test(e, Cond::S),
            (Cond::Le, Logic) => {
                let zero = e.konst(ty, 0);
                Test::Cmp(Sle, a, zero)
            }
            // The operand was a - 1: the sum is less than 0 if that is less than -1.
            (Cond::L | Cond::Le, Inc) => {
                let (minus_one, zero) = (e.konst(ty, u64::MAX), e.konst(ty, 0));
                let x = e.op(Op::Add, ty, &[a, minus_one], 0);
                let limit = if cond == Cond::L { minus_one } else { zero };
                Test::Cmp(Slt, x, limit)
            }
            // The operand was a + 1: the difference is less than 0 if that is less than 1.
            (Cond::L | Cond::Le, Dec) => {
                let one = e.konst(ty, 1);
                let x = e.op(Op::Add, ty, &[a, one], 0);
                let cc = if cond == Cond::L { Slt } else { Sle };
                Test::Cmp(cc, x, one)
            }
            (Cond::L, Add | FlagKind::Adc | FlagKind::Sbb) => {
                let (r, overflow) = self.overflow_bits(e);
                let x = e.op(Op::Xor, ty, &[overflow, r], 0);
                let zero = e.konst(ty, 0);
                Test::Cmp(Slt, x, zero)
            }
            (Cond::L, _) => self.either(e, Op::Xor, Cond::S, Cond::O),
            (Cond::Le, _) => self.either(e, Op::Or, Cond::L, Cond::Z),

            (Cond::No | Cond::Nb | Cond::Nz | Cond::Nbe, _)
            | (Cond::Ns | Cond::Np | Cond::Nl | Cond::Nle, _) => {
                let test = self.test(e, cond.invert());
                test.invert(e)
            }
        }
    }

    /// CF.
    fn carry(&self, e: &mut Emit<'_>) -> Test {
        use IntCc::{Ule, Ult};
        let [a, b, _] = self.operands;
        let (x, y) = match self.kind {
            FlagKind::Raw => return any_of(e, a, CF),
            FlagKind::Logic => return Test::Is(false),
            FlagKind::Inc | FlagKind::Dec | FlagKind::Result | FlagKind::Shift => {
                return Test::Bool(self.low_bit(e, 1));
            }
            FlagKind::Sub => return Test::Cmp(Ult, a, b),
            FlagKind::Add => {
                let r = self.result(e);
                return Test::Cmp(Ult, r, a);
            }
            FlagKind::Adc => (self.result(e), a),
            FlagKind::Sbb => (a, b),
        };
        // With a carry in, equality carries too.
        let carry = self.low_bit(e, 2);
        let (at_most, less) = (e.icmp(Ule, x, y), e.icmp(Ult, x, y));
        Test::Bool(e.op(Op::Select, Type::I8, &[carry, at_most, less], 0))
    }

    /// OF.
    fn overflow(&self, e: &mut Emit<'_>) -> Test {
        let ty = self.ty;
        let top = 1 << (ty.bits() - 1);
        match self.kind {
            FlagKind::Raw => any_of(e, self.operands[0], OF),
            FlagKind::Logic => Test::Is(false),
            FlagKind::Result | FlagKind::Shift => Test::Bool(self.low_bit(e, 2)),
            FlagKind::Inc | FlagKind::Dec => {
                let first = if self.kind == FlagKind::Inc {
                    top
                } else {
                    top - 1
                };
                let first = e.konst(ty, first);
                Test::Cmp(IntCc::Eq, self.operands[0], first)
            }
            FlagKind::Add | FlagKind::Adc | FlagKind::Sub | FlagKind::Sbb => {
                let (_, bits) = self.overflow_bits(e);
                let zero = e.konst(ty, 0);
                Test::Cmp(IntCc::Slt, bits, zero)
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
    fn overflow_bits(&self, e: &mut Emit<'_>) -> (Value, Value) {
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
