//! The intermediate representation: typed SSA over regions of one or more guest blocks.
//!
//! The frontend builds a [`Region`] with a [`Builder`]; passes rewrite it; the interpreter and the
//! backend execute it. Guest state is explicit: `getreg`, `setreg`, `setflags`, `getcond` work on
//! the guest state *in memory*, in program order, and that is always a correct reading. Passes make
//! it fast by forwarding values and dropping what nobody can observe.
//!
//! - [`types`], [`guest`], [`flags`], [`ops`], [`helpers`]: the vocabulary, each one table.
//! - [`sysflags`], [`system`]: the names of the system flags and of system instructions.
//! - [`exit`]: why execution left a region; the engines' common answer.
//! - [`region`], [`builder`]: the data and how it is made; [`print`], [`parse`]: its text form.
//! - [`statemap`]: what a faulting memory access writes to the guest state.
//! - [`cfg`], [`verify`], [`passes`]: what a region must be, and how it gets better.

#![forbid(unsafe_code)]

pub mod builder;
pub mod cfg;
pub mod exit;
pub mod flags;
pub mod guest;
pub mod helpers;
pub mod ops;
pub mod parse;
pub mod passes;
pub mod print;
pub mod region;
pub mod sse;
pub mod statemap;
pub mod sysflags;
pub mod system;
pub mod types;
pub mod vecop;
pub mod verify;

pub use builder::Builder;
pub use exit::ExitReason;
pub use flags::{CcOp, Cond, FlagKind};
pub use guest::{Reg, RegClass, RegMask};
pub use helpers::{Effects, Helper, SegmentAccess, StringKind, StringOp, X87Op};
pub use ops::{
    AccessKind, Class, Effect, FloatCc, Imm, IntCc, Op, OpInfo, RmwOp, Round, SyscallKind,
};
pub use parse::{ParseError, parse};
pub use passes::PassSet;
pub use print::InstText;
pub use region::{Block, BlockData, CodeSize, GuestInsn, Inst, Region, Value};
pub use sse::{SseForm, SseOp};
pub use system::{SystemKind, SystemOp};
pub use types::{Shape, Type};
pub use verify::{VerifyError, VerifyErrors, verify};

pub use vecop::{FmaOp, GatherOp, HalfOp, MaskOp, VecOp, XsaveOp};
