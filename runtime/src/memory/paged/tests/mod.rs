//! Tests of paged memory.

mod identity;
