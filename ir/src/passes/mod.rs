//! The passes: each rewrites a region so that it does the same in less.
//!
//! | switch | what it does |
//! |---|---|
//! | `pool` | in regions of several blocks, one look at the fuel serves for all blocks up to the next loop |
//! | `forward` | guest registers become SSA values across the region; overwritten `setreg`s go |
//! | `fuse` | conditions are computed from the operands of the `setflags` that reaches them |
//! | `fold` | constants, algebra, width chains, branches on constants |
//! | `flags` | `setflags` that nobody can observe go |
//! | `writeback` | in regions of several blocks, registers and flags are written where they are observed |
//! | `maps` | what `writeback` would write before a memory access goes into its state map |
//! | `lanes` | scalar floats that loops carry in vectors become values of their own |
//! | `dce` | unused values, copies, unused parameters and unreachable blocks go |
//! | `count` | floating-point operations are counted as they run (off unless asked for) |
//!
//! They run in that order, each once, and each can be switched off by itself, so that a
//! miscompile can be bisected. What they must keep is the guest state wherever something can
//! observe it; [`liveness`] says where that is.

mod count;
mod dce;
mod emit;
mod expand;
mod flags;
mod fold;
mod forward;
mod fuse;
mod lanes;
mod liveness;
mod params;
mod pool;
mod unmap;
mod writeback;

use crate::ops::Op;
use crate::region::Region;
use crate::verify::{VerifyErrors, verify};
use thiserror::Error;

pub use count::count;
pub use dce::dce;
pub use flags::flags;
pub use fold::fold;
pub use forward::forward;
pub use fuse::fuse;
pub use lanes::lanes;
pub use pool::pool;
pub use unmap::unmap;
pub use writeback::writeback;

macro_rules! pass_set {
    ($($field:ident $name:literal $default:expr, $doc:literal;)*) => {
        /// Which passes run.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct PassSet { $(#[doc = $doc] pub $field: bool,)* }

        impl Default for PassSet {
            fn default() -> PassSet {
                PassSet { $($field: $default,)* }
            }
        }

        impl PassSet {
            /// The names of all switches.
            pub const NAMES: &'static [&'static str] = &[$($name,)*];

            /// No pass, no verifier.
            pub const NONE: PassSet = PassSet { $($field: false,)* };

            /// Switches one on or off by its name.
            ///
            /// # Errors
            /// If there is no such switch.
            pub fn set(&mut self, name: &str, on: bool) -> Result<(), UnknownPass> {
                match name {
                    $($name => self.$field = on,)*
                    _ => return Err(UnknownPass(name.to_string())),
                }
                Ok(())
            }
        }
    };
}

pass_set! {
    pool "pool" true, "In regions of several blocks, loops and the entry look at the fuel for all blocks up to the next look.";
    forward "forward" true, "Guest registers become SSA values; overwritten writes go.";
    fuse "fuse" true, "Conditions are computed from the operands of the `setflags` that reaches them.";
    fold "fold" true, "Constants and algebra.";
    flags "flags" true, "Flag definitions that nobody can observe go.";
    writeback "writeback" true, "In regions of several blocks, registers, flags and fuel are written where they are observed.";
    maps "maps" true, "What `writeback` would write before a memory access goes into its state map.";
    lanes "lanes" true, "Scalar floats that loops carry in vectors become values of their own.";
    dce "dce" true, "Unused values, copies, parameters and blocks go.";
    count "count" false, "Floating-point operations are counted as they run.";
    verify "verify" cfg!(debug_assertions), "The verifier runs before, between and after the passes.";
    break_add "break" false, "Test only: makes the region wrong on purpose (its first `add` becomes a `sub`), to show that checks notice a miscompile.";
}

/// There is no pass of that name.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("no pass is named {0}; there are: {names}", names = PassSet::NAMES.join(", "))]
pub struct UnknownPass(pub String);

/// What each pass is.
type Pass = fn(&mut Region);

/// Runs the passes that are switched on.
///
/// # Errors
/// If the verifier is on and finds the region invalid, before or after a pass.
pub fn run(region: &mut Region, passes: &PassSet) -> Result<(), VerifyErrors> {
    // Without the switch what `writeback` has put into maps is spelled out again.
    let spell_out = passes.writeback && !passes.maps;
    let steps: [(&str, bool, Pass); 11] = [
        ("pool", passes.pool, pool),
        ("forward", passes.forward, forward),
        ("fuse", passes.fuse, fuse),
        ("fold", passes.fold, fold),
        ("flags", passes.flags, flags),
        ("writeback", passes.writeback, writeback),
        ("unmap", spell_out, |region| unmap(region, |_| true)),
        ("lanes", passes.lanes, lanes),
        ("dce", passes.dce, dce),
        ("count", passes.count, count),
        ("break", passes.break_add, break_first_add),
    ];
    if passes.verify {
        verify(region)?;
    }
    for (name, on, pass) in steps {
        if on {
            pass(region);
            if passes.verify {
                verify(region).map_err(|e| e.after(name))?;
            }
        }
    }
    Ok(())
}

/// The broken pass: see [`PassSet::break_add`].
fn break_first_add(region: &mut Region) {
    let mut all = region.blocks.iter().flat_map(|b| &b.insts);
    let add = all.find(|&&v| region.inst(v).op == Op::Add).copied();
    if let Some(v) = add {
        region.inst_mut(v).op = Op::Sub;
    }
}
