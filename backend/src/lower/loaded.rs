//! Which addresses a region loads from.
//!
//! Cranelift drops a store of the very value that an earlier load found there: it changes nothing.
//! But the guest may lack the right to write, and then the store is a fault (ORing 0 into the stack
//! is how compilers probe it). Cranelift takes two accesses for the same only if their flags name
//! the same byte order; accesses to guest memory name it, so stores to addresses that the region
//! also loads from do not. What they lose is the forwarding of their value to later loads. (On a
//! big-endian host, which has to name it, such a store may still be dropped.)

use metaphrase_ir::{Effect, Op, Region, Value};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How deep an address expression is compared.
const DEPTH: u32 = 8;

/// The addresses, by hashes of their expressions: the same computation has the same hash wherever
/// it stands.
#[derive(Default)]
pub(super) struct Loaded(HashSet<u64>);

impl Loaded {
    /// The addresses that the region loads from, if it stores at all.
    pub(super) fn of(region: &Region) -> Loaded {
        let insts = || region.blocks.iter().flat_map(|b| &b.insts);
        let is = |op: Op| move |&&v: &&Value| region.inst(v).op == op;
        if insts().find(is(Op::Store)).is_none() {
            return Loaded::default();
        }
        let address = |&v: &Value| shape(region, region.args(v)[0], DEPTH);
        Loaded(insts().filter(is(Op::Load)).map(address).collect())
    }

    /// Whether the region loads from that address.
    pub(super) fn holds(&self, region: &Region, address: Value) -> bool {
        !self.0.is_empty() && self.0.contains(&shape(region, address, DEPTH))
    }
}

/// A hash of how a value is computed.
fn shape(region: &Region, v: Value, depth: u32) -> u64 {
    let inst = region.inst(v);
    if inst.op == Op::Copy {
        return shape(region, region.args(v)[0], depth);
    }
    let mut hasher = DefaultHasher::new();
    let leaf = depth == 0 || inst.op == Op::Param || inst.op.info().effect != Effect::Pure;
    if leaf {
        v.0.hash(&mut hasher);
    } else {
        (inst.op, inst.ty, inst.imm, inst.aux).hash(&mut hasher);
        for &arg in region.args(v) {
            shape(region, arg, depth - 1).hash(&mut hasher);
        }
    }
    hasher.finish()
}
