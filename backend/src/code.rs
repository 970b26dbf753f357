//! A compiled region before it has an address.

use crate::resume::Resume;

/// A direct exit: a jump that can be patched to go to another translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkSite {
    /// Offset in the code of the field that a patch rewrites.
    pub offset: u32,
    /// The link slot, as the high half of the return value names it (there plus 1).
    pub slot: u32,
    /// Where the exit goes: a guest PC as an offset from the region's entry PC.
    pub target: i64,
}

/// A host instruction that accesses guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Its offset in the code.
    pub offset: u32,
    /// The guest instruction that it accesses memory for.
    pub insn: u16,
    /// Whether the op writes. It is a write even where the host faults on the read that an `rmw`
    /// or `cas` begins with.
    pub write: bool,
}

/// The result of compiling a region.
#[derive(Clone, Debug, Default)]
pub struct CompiledRegion {
    /// Host code, position-independent but for `links`.
    pub code: Vec<u8>,
    /// The direct exits, in the order of their slots: `slot_base`, `slot_base + 1`, …
    pub links: Vec<LinkSite>,
    /// The host instructions that access guest memory without a state map, by ascending offset.
    pub faults: Vec<Fault>,
    /// Those that have one, and where a fault goes on.
    pub resumes: Vec<Resume>,
    /// How many accesses write their state maps beforehand, because the code did not pass the
    /// check; `u32::MAX` if all do.
    pub spelled_out: u32,
    /// The CLIF text, with `keep_clif`.
    pub clif: Option<String>,
    /// Cranelift's machine code text, with `keep_vcode`.
    pub vcode: Option<String>,
}

impl CompiledRegion {
    /// What the host instruction at `offset` accesses memory for.
    pub fn fault_at(&self, offset: u32) -> Option<Fault> {
        fault_at(&self.faults, offset)
    }
}

/// What the host instruction at `offset` accesses memory for; `faults` is
/// [`CompiledRegion::faults`].
pub fn fault_at(faults: &[Fault], offset: u32) -> Option<Fault> {
    let n = faults.binary_search_by_key(&offset, |f| f.offset).ok()?;
    Some(faults[n])
}
