//! The host-CPU oracle and what feeds it: cases, the form table, random states, comparison.
#![allow(dead_code)]

pub mod case;
pub mod compare;
pub mod coverage;
pub mod engine;
pub mod forms;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod native;
pub mod rng;
pub mod states;
