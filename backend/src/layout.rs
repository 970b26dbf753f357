//! What compiled code must know about its surroundings, as plain data: the runtime owns the guest
//! state and the helpers, and hands both to the backend in these types.

use metaphrase_ir::{Helper, Reg};

/// Byte offsets into the guest state. Fields without a note are 64 bits wide.
#[derive(Clone, Debug)]
pub struct StateLayout {
    /// Offset of each guest register; its width is that of its type.
    pub reg_offsets: [u32; Reg::COUNT],
    /// RIP.
    pub rip: u32,
    /// The fuel counter (i64).
    pub fuel: u32,
    /// Lazy flags: [`metaphrase_ir::CcOp`] (u32).
    pub cc_op: u32,
    /// Lazy flags, operand a.
    pub cc_a: u32,
    /// Lazy flags, operand b.
    pub cc_b: u32,
    /// Lazy flags, operand c.
    pub cc_c: u32,
    /// [`metaphrase_ir::ExitReason`] (u32).
    pub exit_reason: u32,
    /// Exit details.
    pub exit_info: u32,
    /// Linear address of a memory fault.
    pub fault_addr: u32,
    /// Host address of linear address 0.
    pub mem_base: u32,
    /// First linear address past the window.
    pub mem_limit: u32,
    /// Pointer to the table of the soft TLB for the current privileges: [`TLB_ENTRIES`] times
    /// [`TlbEntry`].
    pub tlb: u32,
    /// Where the code is that does slow accesses; the trampoline writes it.
    pub slow_access: u32,
    /// Pointer to the jump cache: entries of (guest PC, host code), 16 bytes each.
    pub jump_cache: u32,
    /// Number of jump-cache entries, a power of two (a number, not an offset).
    pub jump_entries: u32,
    /// Saved host stack pointer of the entry trampoline.
    pub host_sp: u32,
    /// Saved host frame pointer of the entry trampoline.
    pub host_fp: u32,
    /// Host address at which a host fault resumes.
    pub host_resume: u32,
    /// Four 16-byte slots for vector arguments of helpers; the vector result is in the first.
    pub helper_v: u32,
    /// The x87 FPU.
    pub x87: X87Layout,
    /// Brings the x87 registers from the host's FPU into the state; called when compiled code is
    /// left, and in it, while [`X87Layout::live`] is not 0. Hosts without an x87 have none.
    pub x87_leave: Option<HelperFn>,
}

/// Offsets of what compiled x87 instructions need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct X87Layout {
    /// Where the guest's x87 registers are (a byte): 0 in the state, 1 in the host's FPU, 2 likewise
    /// while the result of an instruction is being stored to guest memory. Then the status word of
    /// before is in `helper_v`, 16 bytes on, and if it has SF the environment of before, 32 bytes on.
    pub live: u32,
    /// The control word (16 bits).
    pub control: u32,
    /// The last instruction's opcode (16 bits).
    pub opcode: u32,
    /// The last instruction's RIP.
    pub ip: u32,
    /// Its CS selector (16 bits).
    pub cs: u32,
    /// The last memory operand's offset.
    pub dp: u32,
    /// Its segment's selector (16 bits).
    pub ds: u32,
}

impl StateLayout {
    /// Offset of a guest register.
    pub fn reg(&self, reg: Reg) -> u32 {
        self.reg_offsets[reg as usize]
    }
}

/// The signature of every helper, `extern "C"`:
/// `fn(state, descriptor, a, b, c) -> result`.
pub type HelperFn = unsafe extern "C" fn(
    state: *mut std::ffi::c_void,
    descriptor: u64,
    a: u64,
    b: u64,
    c: u64,
) -> u64;

/// The addresses of the runtime functions that compiled code calls.
#[derive(Clone, Copy)]
pub struct HelperTable {
    /// One for each [`Helper`], in its order.
    pub helpers: &'static [HelperFn],
    /// Evaluates the lazy flags to the six flags: `fn(state) -> flags` (other arguments ignored).
    pub flags: HelperFn,
    /// The [`Helper::X87`] of code that does x87 instructions inline: afterwards the registers are in
    /// the host's FPU, if they can be.
    pub x87: HelperFn,
    /// `fn(state, access, addr) -> value`: a load that the soft TLB does not have.
    pub load: HelperFn,
    /// `fn(state, access, addr, value)`: a store.
    pub store: HelperFn,
    /// `fn(state, access, addr, value) -> old`: a read-modify-write.
    pub rmw: HelperFn,
    /// `fn(state, access, addr, expected, new) -> old`: a compare-and-swap.
    pub cas: HelperFn,
}

/// The descriptor of an access that a helper does. 16-byte values are in the vector slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TlbAccess {
    /// Its size: 1, 2, 4, 8 or 16.
    pub bytes: u8,
    /// The [`metaphrase_ir::RmwOp`] of a read-modify-write.
    pub op: u8,
    /// A load that needs the right to write.
    pub update: bool,
}

impl TlbAccess {
    /// As a descriptor.
    pub const fn pack(self) -> u64 {
        self.bytes as u64 | (self.op as u64) << 8 | (self.update as u64) << 16
    }

    /// From a descriptor.
    pub const fn unpack(bits: u64) -> TlbAccess {
        TlbAccess {
            bytes: bits as u8,
            op: (bits >> 8) as u8,
            update: bits >> 16 & 1 != 0,
        }
    }
}

/// Number of entries of a soft TLB; a power of two.
pub const TLB_ENTRIES: usize = 1024;

/// An entry of a soft TLB: the one at the linear page number modulo [`TLB_ENTRIES`].
#[repr(C, align(32))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlbEntry {
    /// The linear address of the page if it may be read without a helper, else the address of a
    /// page that is looked up elsewhere: [`TlbEntry::slow`], [`TlbEntry::none`].
    pub read: u64,
    /// The same for writes.
    pub write: u64,
    /// Host address minus linear address.
    pub addend: u64,
    /// The runtime's own.
    pub phys: u64,
}

impl TlbEntry {
    const PAGE: u64 = 4096;

    /// The tag of a page that may be accessed, but only by a helper. What is compared with it is an
    /// address with the entry's index, or (of an access that runs into the next page) the index
    /// after it; this tag has neither.
    pub const fn slow(page: u64) -> u64 {
        page ^ (Self::PAGE * (TLB_ENTRIES as u64 / 2))
    }

    /// The tag that no page has, slow or not, at that index.
    pub const fn none(index: usize) -> u64 {
        (index ^ (TLB_ENTRIES / 4)) as u64 * Self::PAGE
    }

    /// Nothing, at that index.
    pub const fn empty(index: usize) -> TlbEntry {
        TlbEntry {
            read: Self::none(index),
            write: Self::none(index),
            addend: 0,
            phys: 0,
        }
    }
}

impl HelperTable {
    /// The function's address.
    pub fn address(&self, helper: Helper) -> usize {
        self.helpers[helper as usize] as usize
    }
}

impl std::fmt::Debug for HelperTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HelperTable({} helpers)", self.helpers.len())
    }
}

/// The jump-cache index of a guest PC. Compiled code computes the same.
pub const fn jump_hash(pc: u64, entries: u32) -> u32 {
    ((pc ^ pc >> 12) as u32) & (entries - 1)
}
