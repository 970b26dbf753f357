//! The system flags of RFLAGS, in place (SDM volume 1, 3.4.3.3), and which of them POPF changes.

/// RFLAGS.TF, single step.
pub const TF: u64 = 1 << 8;
/// RFLAGS.IF, interrupts enabled.
pub const IF: u64 = 1 << 9;
/// RFLAGS.IOPL, the I/O privilege level.
pub const IOPL: u64 = 3 << 12;
/// RFLAGS.NT, nested task.
pub const NT: u64 = 1 << 14;
/// RFLAGS.RF, resume.
pub const RF: u64 = 1 << 16;
/// RFLAGS.VM, virtual-8086 mode.
pub const VM: u64 = 1 << 17;
/// RFLAGS.AC, alignment check.
pub const AC: u64 = 1 << 18;
/// RFLAGS.VIF, the virtual interrupt flag.
pub const VIF: u64 = 1 << 19;
/// RFLAGS.VIP, a virtual interrupt is pending.
pub const VIP: u64 = 1 << 20;
/// RFLAGS.ID, CPUID can be used.
pub const ID: u64 = 1 << 21;

/// The system flags that POPF with an operand of that many bytes takes from its operand at CPL 3
/// with IOPL 0. The 16-bit form leaves the upper half alone.
pub const fn popf_user(bytes: u32) -> u64 {
    if bytes == 2 {
        TF | NT
    } else {
        TF | NT | AC | ID
    }
}
