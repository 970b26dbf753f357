//! Compiles the metaphrase IR to host code with Cranelift, in a code arena of its own.
//!
//! A [`Compiler`] turns a region into a [`CompiledRegion`]: bytes, and tables of what is to be
//! linked and what may fault. An [`Arena`] gives it an address and links it to others; its
//! [`Trampoline`] runs it. [`host_fault`] ends a run when the host MMU refuses an access.
//!
//! - [`layout`]: what the runtime tells us about its state and helpers.
//! - [`options`], [`error`], [`code`]: plain data.
//! - `lower`: IR to CLIF, one file for each group of ops.
//! - [`resume`]: where the code goes on after a host fault, and the check that it may.
//! - `common`: the trampoline and the stubs; `patch`: rewriting jumps on each host.

pub mod arena;
pub mod code;
mod common;
pub mod compiler;
pub mod error;
pub mod host_fault;
mod isa;
pub mod layout;
mod lower;
pub mod options;
mod patch;
pub mod resume;
pub mod sse;
#[cfg(target_arch = "x86_64")]
mod x87;

pub use arena::{Arena, CodeRef};
pub use code::{CompiledRegion, Fault, LinkSite, fault_at};
pub use common::Trampoline;
pub use compiler::{Compiler, count_links};
pub use error::{ArenaFull, BackendError, CompileError};
pub use host_fault::{FaultInfo, Watch};
pub use layout::{
    HelperFn, HelperTable, StateLayout, TLB_ENTRIES, TlbAccess, TlbEntry, X87Layout, jump_hash,
};
pub use options::{MemoryModel, OptLevel, Options, Regalloc};
pub use resume::Resume;
