//! Where to go on after a host fault: the cold block of the access.
//!
//! An access with a state map has a cold block that writes the map and leaves, and right before the
//! access a branch to it (see `lower/window.rs`). When the access faults, the fault handler goes on
//! in that block. That is right if all that the block reads is, at the access, what it was at the
//! branch. Cranelift does not promise that, so it is checked on the finished machine code: between
//! branch and access no register is written, and no stack slot, that the way from the cold block to
//! the return reads before it writes it. There is a decoder for that on x86-64 hosts only.
//!
//! An access that fails the check gets its state written before it, as on other hosts.

#[cfg(target_arch = "x86_64")]
mod x86_64;

use cranelift_codegen::CompiledCode;
use metaphrase_ir::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{PoisonError, RwLock};

/// Whether compiled code can be checked on this host.
pub(crate) const CAN_CHECK: bool = cfg!(target_arch = "x86_64");

/// A host instruction at which a fault continues in a cold block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resume {
    /// The offset of the instruction that accesses guest memory.
    pub at: u32,
    /// The offset at which to go on.
    pub to: u32,
}

/// Where the faults of an arena's code go on, by host address. The fault handler reads it while
/// compiled code runs, which is when nobody else uses it.
#[derive(Debug, Default)]
pub(crate) struct Resumes(RwLock<BTreeMap<usize, usize>>);

impl Resumes {
    /// Adds those of a function at `entry`.
    pub(crate) fn add(&self, entry: usize, resumes: &[Resume]) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let place = |r: &Resume| (entry + r.at as usize, entry + r.to as usize);
        all.extend(resumes.iter().map(place));
    }

    /// Forgets those in a range of addresses.
    pub(crate) fn remove(&self, range: Range<usize>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut tail = all.split_off(&range.start);
        all.append(&mut tail.split_off(&range.end));
    }

    /// Where a fault at that address goes on. It neither waits nor allocates.
    pub(crate) fn find(&self, at: usize) -> Option<usize> {
        self.0.try_read().ok()?.get(&at).copied()
    }
}

/// An access with a state map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapped {
    /// The op.
    pub(crate) op: Value,
    /// Its guest instruction.
    pub(crate) insn: u16,
}

/// What the check of a function has found.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// By ascending offset of the access.
    pub(crate) resumes: Vec<Resume>,
    /// The accesses that cannot go on in their cold blocks.
    pub(crate) failed: Vec<Value>,
}

/// Checks a function whose accesses with state maps are these, by their number in source locations.
#[cfg(target_arch = "x86_64")]
pub(crate) fn check(compiled: &CompiledCode, mapped: &[Mapped]) -> Checked {
    x86_64::check(compiled, mapped)
}

/// Nothing can be checked here.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn check(_: &CompiledCode, mapped: &[Mapped]) -> Checked {
    Checked {
        resumes: Vec::new(),
        failed: mapped.iter().map(|m| m.op).collect(),
    }
}
