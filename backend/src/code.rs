//! A compiled region before it has an address.

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

/// The result of compiling a region.
#[derive(Clone, Debug, Default)]
pub struct CompiledRegion {
    /// Host code, position-independent but for `links`.
    pub code: Vec<u8>,
    /// The direct exits, in the order of their slots: `slot_base`, `slot_base + 1`, …
    pub links: Vec<LinkSite>,
    /// Host instructions that access guest memory: code offset and guest instruction, ascending.
    pub faults: Vec<(u32, u16)>,
    /// The CLIF text, with `keep_clif`.
    pub clif: Option<String>,
    /// Cranelift's machine code text, with `keep_vcode`.
    pub vcode: Option<String>,
}

impl CompiledRegion {
    /// The guest instruction that the host instruction at `offset` accesses memory for.
    pub fn fault_insn(&self, offset: u32) -> Option<u16> {
        fault_insn(&self.faults, offset)
    }
}

/// The guest instruction that the host instruction at `offset` accesses memory for; `faults` is
/// [`CompiledRegion::faults`].
pub fn fault_insn(faults: &[(u32, u16)], offset: u32) -> Option<u16> {
    let n = faults.binary_search_by_key(&offset, |f| f.0).ok()?;
    Some(faults[n].1)
}
