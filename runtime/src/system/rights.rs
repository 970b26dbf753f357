//! What many system instructions check first.

use super::features::SystemFeatures;
use super::{Cx, Fault, mode};
use metaphrase_frontend::Features;

/// #GP(0) above privilege level 0, virtual-8086 mode included.
pub(super) fn privileged(cx: &Cx) -> Result<(), Fault> {
    if mode::level(cx.state()).cpl() == 0 {
        Ok(())
    } else {
        Err(Fault::gp(0))
    }
}

/// Whether the CPU model offers all of that to the system.
pub(super) fn offers(cx: &Cx, features: SystemFeatures) -> bool {
    cx.env().cpu.system_features().has(features)
}

/// Whether the CPU model offers all of that to everybody.
pub(super) fn knows(cx: &Cx, features: Features) -> bool {
    cx.env().cpu.features().has(features)
}
