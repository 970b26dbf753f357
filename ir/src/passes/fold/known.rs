//! Which bits of a value can be 1.

use super::Emit;
use crate::flags::ARITH;
use crate::ops::Op;
use crate::region::Value;
use crate::types::Type;

/// How deep operands are looked at; deeper ones count as unknown.
const DEPTH: u32 = 5;

impl Emit<'_> {
    /// A mask that holds every bit of the integer `v` that can be 1.
    pub(in crate::passes) fn possible(&self, v: Value) -> u64 {
        self.possible_to(v, DEPTH)
    }

    fn possible_to(&self, v: Value, depth: u32) -> u64 {
        let inst = *self.region.inst(v);
        let Some(ty) = self.region.result_type(v) else {
            return u64::MAX;
        };
        let mask = ty.mask();
        if depth == 0 {
            return mask;
        }
        let of = |n: usize| self.possible_to(self.region.args(v)[n], depth - 1);
        let shift = || {
            let count = self.region.as_const(self.region.args(v)[1])?;
            Some((count % u64::from(ty.bits())) as u32)
        };
        // All bits up to the highest one.
        let below = |bits: u64| match bits {
            0 => 0,
            _ => u64::MAX >> bits.leading_zeros(),
        };
        match inst.op {
            Op::Const => inst.imm,
            Op::ICmp | Op::FCmp | Op::GetCond => 1,
            Op::GetFlags => ARITH,
            Op::Copy | Op::Zext => of(0),
            Op::Trunc => of(0) & mask,
            Op::And => of(0) & of(1),
            Op::Or | Op::Xor => of(0) | of(1),
            Op::Add => {
                let (a, b) = (below(of(0)), below(of(1)));
                below(a.saturating_add(b)) & mask
            }
            Op::Select => of(1) | of(2),
            Op::Shl => shift().map_or(mask, |n| of(0) << n & mask),
            Op::LShr => shift().map_or_else(|| below(of(0)), |n| of(0) >> n),
            Op::Ext => of(0) >> inst.imm & mask,
            Op::Ins => {
                let hole = inst.ty.mask() << inst.imm;
                (of(0) & !hole) | of(1) << inst.imm
            }
            Op::Popcnt | Op::Clz | Op::Ctz => below(u64::from(ty.bits())),
            _ => mask,
        }
    }

    /// True if `v` is 0 or 1.
    pub(super) fn is_bool(&self, v: Value) -> bool {
        self.region.result_type(v) == Some(Type::I8) && self.possible(v) & !1 == 0
    }

    /// True if the top bit of `v` is 0.
    pub(super) fn is_positive(&self, v: Value) -> bool {
        let bits = self.region.ty(v).bits();
        self.possible(v) >> (bits - 1) & 1 == 0
    }
}
