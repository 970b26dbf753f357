//! Tests of paged memory.

mod identity;
mod model;
mod walks;
