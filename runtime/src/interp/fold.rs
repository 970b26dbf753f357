//! What loads, stores and branches take into themselves: address arithmetic and comparisons.
//!
//! The answers depend on the region only, so that analysis and emission always agree.

use super::analyze::{Analysis, Operand};
use super::mem::Mode;
use metaphrase_ir::{Block, Cond, IntCc, Op, Type, Value};

/// The address of a load or store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    pub mode: Mode,
    pub base: Option<Value>,
    pub index: Option<Value>,
    /// As the handler wants it.
    pub imm: u64,
}

/// What a conditional branch tests.
#[derive(Clone, Copy, Debug)]
pub(super) enum Test {
    /// A comparison of values of that type.
    Compare(IntCc, Type, Value, Operand),
    /// A condition on the lazy flags.
    Flags(Cond),
    /// Whether a value is not 0.
    Value(Value),
}

impl Analysis<'_> {
    /// Whether an address computed by `v` can be folded into accesses of `block`.
    fn is_address_op(&self, v: Value, block: Block) -> bool {
        let inst = self.region.inst(v);
        if self.def[v.0 as usize].0 != block.0 {
            return false;
        }
        match inst.op {
            Op::Add => inst.ty == Type::I64,
            Op::Sub => inst.ty == Type::I64 && self.constant(self.arg(v, 1)).is_some(),
            Op::Zext => {
                let of = self.arg(v, 0);
                inst.ty == Type::I64
                    && self.region.ty(of) == Type::I32
                    && self.def[of.0 as usize].0 == block.0
                    && matches!(self.region.inst(of).op, Op::Add | Op::Sub)
            }
            _ => false,
        }
    }

    /// The address that operand 0 of a load or store in `block` gives.
    pub fn address(&self, access: Value, block: Block) -> Address {
        let addr = self.arg(access, 0);
        if let Some(imm) = self.constant(addr) {
            return Address {
                mode: Mode::Absolute,
                base: None,
                index: None,
                imm,
            };
        }
        if self.is_address_op(addr, block) {
            let (sum, wrap) = match self.region.inst(addr).op {
                Op::Zext => (self.arg(addr, 0), true),
                _ => (addr, false),
            };
            if let Some(found) = self.sum_address(sum, wrap, block) {
                return found;
            }
        }
        Address {
            mode: Mode::Base,
            base: Some(addr),
            index: None,
            imm: 0,
        }
    }

    /// Base, index and displacement of a sum.
    fn sum_address(&self, sum: Value, wrap: bool, block: Block) -> Option<Address> {
        let ty = if wrap { Type::I32 } else { Type::I64 };
        let mut disp = 0u64;
        // At most four in both together, and two more before that is noticed.
        let (mut terms, mut count) = ([sum; 6], 0);
        let (mut work, mut open_ends) = ([sum; 6], 1);
        while open_ends > 0 {
            open_ends -= 1;
            let v = work[open_ends];
            if let Some(bits) = self.constant(v) {
                disp = disp.wrapping_add(bits);
                continue;
            }
            let inst = self.region.inst(v);
            let local = self.def[v.0 as usize].0 == block.0 && inst.ty == ty;
            // An inner sum is only taken apart if nobody else needs it.
            let open = v == sum || self.uses[v.0 as usize] == 1;
            match inst.op {
                Op::Add if local && open => {
                    (work[open_ends], work[open_ends + 1]) = (self.arg(v, 1), self.arg(v, 0));
                    open_ends += 2;
                }
                Op::Sub if local && open && self.constant(self.arg(v, 1)).is_some() => {
                    disp = disp.wrapping_sub(self.constant(self.arg(v, 1))?);
                    work[open_ends] = self.arg(v, 0);
                    open_ends += 1;
                }
                _ => {
                    terms[count] = v;
                    count += 1;
                }
            }
            if count + open_ends > 4 {
                return None;
            }
        }
        let scaled = |v: Value| {
            let inst = self.region.inst(v);
            let local = self.def[v.0 as usize].0 == block.0 && inst.ty == ty;
            let count = match inst.op {
                Op::Shl if local => self.constant(self.arg(v, 1))?,
                _ => return None,
            };
            (count <= 3).then(|| (self.arg(v, 0), count))
        };
        let small = disp as i32 as i64 as u64 == disp || wrap;
        let index = |base, index, scale: u64| {
            small.then_some(Address {
                mode: if wrap { Mode::Index32 } else { Mode::Index },
                base: Some(base),
                index: Some(index),
                imm: scale << 32 | (disp & 0xffff_ffff),
            })
        };
        match terms[..count] {
            [base] => Some(Address {
                mode: if wrap { Mode::Base32 } else { Mode::Base },
                base: Some(base),
                index: None,
                imm: disp,
            }),
            [a, b] => match (scaled(a), scaled(b)) {
                (_, Some((i, s))) if self.constant(i).is_none() => index(a, i, s),
                (Some((i, s)), _) if self.constant(i).is_none() => index(b, i, s),
                _ => index(a, b, 0),
            },
            _ => None,
        }
    }

    /// What a branch on `c` in `block` tests.
    pub fn test(&self, c: Value, block: Block) -> Test {
        let c = self.root(c);
        let inst = self.region.inst(c);
        let (in_block, pos) = self.def[c.0 as usize];
        if in_block != block.0 {
            return Test::Value(c);
        }
        match inst.op {
            Op::ICmp => {
                let (a, b) = (self.arg(c, 0), self.arg(c, 1));
                let cc = IntCc::from_imm(inst.imm);
                match (self.constant(a), self.constant(b)) {
                    (None, Some(bits)) => Test::Compare(cc, inst.ty, a, Operand::Const(bits)),
                    (Some(bits), None) => {
                        Test::Compare(cc.swap(), inst.ty, b, Operand::Const(bits))
                    }
                    (None, None) => Test::Compare(cc, inst.ty, a, Operand::Value(b)),
                    _ => Test::Value(c),
                }
            }
            Op::GetCond => {
                let later = &self.insts(block)[pos as usize + 1..];
                if later.iter().any(|&v| self.writes_flags(v)) {
                    return Test::Value(c);
                }
                Test::Flags(Cond::ALL[(inst.imm & 15) as usize])
            }
            _ => Test::Value(c),
        }
    }
}
