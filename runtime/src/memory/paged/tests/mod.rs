//! Tests of paged memory.

mod code;
mod identity;
mod model;
mod shadow;
mod walks;
