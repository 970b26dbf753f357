//! Better sequences on x86-64 hosts.

use super::Lower;
use cranelift_codegen::ir::{self as clif, InstBuilder, types};

impl Lower<'_, '_> {
    /// CVTTPS2DQ, which has the guest's result for every input.
    pub(super) fn host_float_lanes_to_int(&mut self, a: clif::Value) -> Option<clif::Value> {
        (self.unit.isa.name() == "x64").then(|| self.b.ins().x86_cvtt2dq(types::I32X4, a))
    }

    /// Whether lanes can be compared for "unordered or greater" in one instruction; Cranelift has
    /// no code for it on other hosts.
    pub(super) fn host_compares_lanes_unordered(&self) -> bool {
        self.unit.isa.name() == "x64"
    }
}
