//! Why execution left a region: what both engines answer and helpers report.

/// The reason, as the guest state's `exit_reason` and the low half of a compiled region's return
/// value hold it. `rip` and `exit_info` are fields of the guest state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
pub enum ExitReason {
    /// No reason: execution is inside a region, or a helper has nothing to report.
    None = 0,
    /// Go on at `rip`. From compiled code the high half of the return value may hold a link slot
    /// (plus 1); then `rip` is not written and the slot says where to go on.
    Jump = 1,
    /// The fuel does not cover the next guest block, which starts at `rip`.
    Fuel = 2,
    /// An exception. `exit_info`: vector in bits 0 to 7, bit 8 set if there is an error code, the
    /// code in bits 32 to 63. `rip` is the faulting instruction, or the next one for a trap. For
    /// #PF `fault_addr` is the address.
    Exception = 3,
    /// A system call of kind `exit_info`; `rip` is the next instruction.
    Syscall = 4,
    /// HLT; `rip` is the next instruction.
    Halt = 5,
    /// A memory access that the fast path cannot do: `fault_addr` is the linear address, bit 0 of
    /// `exit_info` is set for a write. `rip` is the instruction; nothing of it has happened. The
    /// runtime decides: page fault, or write to a page that holds translations.
    Memory = 6,
    /// A host fault inside compiled code: the fault handler recorded the host PC in `exit_info`
    /// and the linear address in `fault_addr`. The runtime finds the instruction and turns it into
    /// one of the others.
    HostFault = 7,
    /// `rip` is an instruction that the runtime must emulate alone.
    Emulate = 8,
}

impl ExitReason {
    /// The reason with that number; unknown numbers read as `Jump`.
    pub const fn from_u32(n: u32) -> ExitReason {
        match n {
            0 => ExitReason::None,
            2 => ExitReason::Fuel,
            3 => ExitReason::Exception,
            4 => ExitReason::Syscall,
            5 => ExitReason::Halt,
            6 => ExitReason::Memory,
            7 => ExitReason::HostFault,
            8 => ExitReason::Emulate,
            _ => ExitReason::Jump,
        }
    }
}

/// Packs `exit_info` for an exception.
pub const fn exception_info(vector: u8, error_code: Option<u32>) -> u64 {
    match error_code {
        Some(code) => vector as u64 | 1 << 8 | (code as u64) << 32,
        None => vector as u64,
    }
}

/// Whether the exception pushes an error code (SDM volume 3, table 6-1).
pub const fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21)
}
