//! Dead-flag elimination: drops each `setflags` that is overwritten on every path before anything
//! reads or observes the flags.

use super::liveness::{FLAGS, drop_dead_writes};
use crate::cfg::prune_unreachable;
use crate::region::Region;

/// Runs the pass.
pub fn flags(region: &mut Region) {
    let cfg = prune_unreachable(region);
    drop_dead_writes(region, &cfg, FLAGS);
}
