//! State maps: what guest memory accesses would have to write to the guest state if they fault.
//!
//! The state must be complete where an access may fault, but hardly any does. So an op that accesses
//! guest memory may have a *state map*: registers with the values that they hold there. As long as
//! the access succeeds nothing is written; if it faults, or leaves the region for whatever reason,
//! whoever runs the region writes those values first. The other registers are right in memory.
//!
//! The registers of a map are a set in [`Region::state_maps`], which the op's `aux` names (plus 1;
//! 0: no map). The values are further operands behind the op's own, by ascending register, so that
//! whatever counts, follows or replaces operands need not know of maps. In the text form they stand
//! behind the own operands:
//!
//! ```text
//! v7 = load.i64 data v3 [rax: v1, fuel: v6] ; @4
//! ```
//!
//! The pass `writeback` makes them; [`crate::passes::unmap`] turns them into `setreg`s.

use crate::guest::{Reg, RegMask};
use crate::ops::{Op, Operands};
use crate::region::{Region, Value};

impl Op {
    /// True for ops that may have a state map.
    pub const fn takes_state_map(self) -> bool {
        matches!(self, Op::Load | Op::Store | Op::Rmw | Op::Cas)
    }
}

impl Region {
    /// The registers in the op's state map; none if it has no map.
    pub fn mapped(&self, v: Value) -> RegMask {
        let inst = self.inst(v);
        if inst.aux == 0 || !inst.op.takes_state_map() {
            return 0;
        }
        let map = self.state_maps.get(inst.aux as usize - 1);
        map.copied().unwrap_or(0)
    }

    /// How many operands the op has besides its state map.
    pub fn own_args(&self, v: Value) -> usize {
        match self.inst(v).op.info().operands {
            Operands::Fixed(classes) => classes.len(),
            _ => self.args(v).len(),
        }
    }

    /// The op's state map: registers, ascending, with their values.
    pub fn state_map(&self, v: Value) -> impl Iterator<Item = (Reg, Value)> {
        let values = self.args(v).iter().skip(self.own_args(v));
        registers(self.mapped(v)).zip(values.copied())
    }

    /// Gives the op another state map; of a register that is in it twice the first value counts.
    ///
    /// # Panics
    /// If the op takes none.
    pub fn set_state_map(&mut self, v: Value, entries: &[(Reg, Value)]) {
        assert!(self.inst(v).op.takes_state_map());
        let own = self.own_args(v);
        let mut args = self.args(v)[..own].to_vec();
        let mask = entries.iter().fold(0, |mask, (r, _)| mask | r.bit());
        for r in registers(mask) {
            args.extend(entries.iter().find(|(reg, _)| *reg == r).map(|e| e.1));
        }
        self.set_args(v, &args);
        self.inst_mut(v).aux = if mask == 0 {
            0
        } else {
            // Neighbours often have the same.
            let known = self.state_maps.iter().rposition(|&m| m == mask);
            known.unwrap_or_else(|| {
                self.state_maps.push(mask);
                self.state_maps.len() - 1
            }) as u32
                + 1
        };
    }
}

/// The registers of a set, ascending.
pub fn registers(mut mask: RegMask) -> impl Iterator<Item = Reg> {
    std::iter::from_fn(move || {
        let r = Reg::ALL.get(mask.trailing_zeros() as usize).copied()?;
        mask &= mask - 1;
        Some(r)
    })
}
