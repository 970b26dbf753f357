//! AArch64: `b imm26`; the field is the instruction itself, its immediate counts words.

use cranelift_codegen::binemit::Reloc;
use std::arch::asm;

/// The largest distance that a jump can span.
pub(crate) const MAX_SPAN: usize = 127 << 20;

/// Whether Cranelift's relocation is the field of a direct jump.
pub(crate) fn is_jump_reloc(kind: Reloc) -> bool {
    matches!(kind, Reloc::Arm64Call)
}

/// Makes the jump `field` (at address `site`) go to `target`.
pub(crate) fn patch_jump(field: &mut [u8; 4], site: usize, target: usize) {
    let words = (target as isize).wrapping_sub(site as isize) >> 2;
    debug_assert!((-(1 << 25)..1 << 25).contains(&words));
    let insn = u32::from_le_bytes(*field) & 0xfc00_0000 | words as u32 & 0x03ff_ffff;
    *field = insn.to_le_bytes();
}

/// Cleans the data cache for what was written and invalidates the instruction cache for where it
/// is executed (Arm ARM, B2.4.4).
pub(crate) fn sync_code(written: *const u8, executed: *const u8, len: usize) {
    let ctr: u64;
    // SAFETY: reading CTR_EL0 has no effect; Linux lets user space read it.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack)) };
    let dline = 4usize << (ctr >> 16 & 15);
    let iline = 4usize << (ctr & 15);
    let mut p = written as usize & !(dline - 1);
    while p < written as usize + len {
        // SAFETY: cleaning a cache line of a mapped page changes no contents.
        unsafe { asm!("dc cvau, {}", in(reg) p, options(nostack)) };
        p += dline;
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb ish", options(nostack)) };
    let mut p = executed as usize & !(iline - 1);
    while p < executed as usize + len {
        // SAFETY: invalidating an instruction cache line of a mapped page changes no contents.
        unsafe { asm!("ic ivau, {}", in(reg) p, options(nostack)) };
        p += iline;
    }
    // SAFETY: barriers.
    unsafe { asm!("dsb ish", "isb", options(nostack)) };
}
