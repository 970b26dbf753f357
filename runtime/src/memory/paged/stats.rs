//! What the soft TLB counts.

use serde::Serialize;

/// Counters of one virtual CPU's address space. Hits are not counted: they happen in compiled code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TlbStats {
    /// Data accesses that found no entry.
    pub misses: u64,
    /// Code fetches that found no entry.
    pub code_misses: u64,
    /// Walks through the guest's tables (paging off: none).
    pub walks: u64,
    /// Walks that ended in a fault.
    pub faults: u64,
    /// Flushes of everything.
    pub flushes: u64,
    /// Flushes of all that is not global.
    pub flushes_non_global: u64,
    /// Flushes of one page.
    pub flushes_page: u64,
    /// Those of them that had to look for parts of a larger page.
    pub flushes_large: u64,
    /// Accesses to what is not memory.
    pub device_accesses: u64,
    /// Writes to pages that hold translated code, but not where it is: false hits.
    pub writes_beside_code: u64,
    /// Time in data misses, extrapolated from every 64th.
    pub miss_ns: u64,
}
