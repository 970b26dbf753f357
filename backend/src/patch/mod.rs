//! Rewriting the target of a direct jump in host code, and making the host see new code.
//!
//! Only the thread that runs the guest patches, and only while it is outside compiled code: so a
//! field may straddle a cache line without anyone seeing half of a change.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::{MAX_SPAN, is_jump_reloc, patch_jump, sync_code};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{MAX_SPAN, is_jump_reloc, patch_jump, sync_code};

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the backend knows how to patch jumps on x86_64 and aarch64 only");
