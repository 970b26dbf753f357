//! What can be switched about compilation. No switch changes what the guest sees.

/// How much Cranelift optimises before it selects instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OptLevel {
    /// Not at all: for single blocks, where our own passes have done what there is to do.
    None,
    /// Everything: for hot regions.
    Speed,
}

/// Which register allocator Cranelift uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Regalloc {
    /// Better code.
    Backtracking,
    /// Quicker compilation, poor code for regions of several blocks.
    SinglePass,
}

/// How compiled code gets at guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MemoryModel {
    /// A window of host address space, whose faults the host MMU reports.
    #[default]
    Window,
    /// A soft TLB, and helpers for what it does not have.
    SoftTlb,
}

/// The switches of a [`crate::Compiler`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Cranelift's optimisation level.
    pub opt: OptLevel,
    /// The register allocator.
    pub regalloc: Regalloc,
    /// Direct exits are patchable jumps. Without it each returns to the dispatcher.
    pub chain: bool,
    /// Indirect exits look into the jump cache first. Without it each returns to the dispatcher.
    pub jump_cache: bool,
    /// Run Cranelift's verifier on every function.
    pub verify_clif: bool,
    /// Keep the CLIF text in the result.
    pub keep_clif: bool,
    /// Keep the text of Cranelift's machine code in the result.
    pub keep_vcode: bool,
    /// Do x87 instructions with the host's, on its registers (x86-64 hosts only).
    pub x87: bool,
    /// What the runtime guarantees that `mem_limit` is at least: accesses at constant addresses
    /// below it need no test.
    pub min_limit: u64,
    /// How guest memory is accessed.
    pub memory: MemoryModel,
    /// State maps are written where an access has faulted. Without it (and on hosts whose code
    /// cannot be checked, see [`crate::resume`]) they are written before the access.
    pub cold_maps: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            opt: OptLevel::None,
            regalloc: Regalloc::Backtracking,
            chain: true,
            jump_cache: true,
            verify_clif: cfg!(debug_assertions),
            keep_clif: false,
            keep_vcode: false,
            x87: false,
            min_limit: 1 << 32,
            memory: MemoryModel::Window,
            cold_maps: true,
        }
    }
}
