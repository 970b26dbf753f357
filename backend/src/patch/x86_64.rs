//! x86-64: `jmp rel32`; the field is the four bytes after the opcode, relative to their end.

use cranelift_codegen::binemit::Reloc;

/// The largest distance that a jump can span.
pub(crate) const MAX_SPAN: usize = 1 << 30;

/// Whether Cranelift's relocation is the field of a direct jump.
pub(crate) fn is_jump_reloc(kind: Reloc) -> bool {
    matches!(kind, Reloc::X86CallPCRel4)
}

/// Makes the jump whose field is `field` (at address `site`) go to `target`.
pub(crate) fn patch_jump(field: &mut [u8; 4], site: usize, target: usize) {
    let distance = (target as isize).wrapping_sub(site as isize + 4);
    debug_assert!(i32::try_from(distance).is_ok());
    *field = (distance as i32).to_le_bytes();
}

/// x86 hosts keep instruction fetch coherent with stores of the same processor, to aliases too
/// once a jump has been taken (SDM volume 3, section 11.6).
pub(crate) fn sync_code(_written: *const u8, _executed: *const u8, _len: usize) {}
