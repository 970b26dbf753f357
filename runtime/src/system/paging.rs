//! Memory management and caches: INVLPG, INVPCID, INVD, WBINVD.

use super::descriptor::is_canonical;
use super::features::SystemFeatures;
use super::rights::{offers, privileged};
use super::state::cr4;
use super::{Cx, Fault, Outcome, mode};
use crate::memory::paged::Rights;
use metaphrase_ir::SystemOp;

/// The bits of a process-context identifier.
const PCID: u64 = 0xfff;

/// INVLPG of a non-canonical address does nothing (SDM volume 2).
pub(super) fn invlpg(cx: &Cx, _op: SystemOp, a: u64, _b: u64, _next: u64) -> Outcome {
    privileged(cx)?;
    if mode::is_long_code(cx.state()) {
        if is_canonical(a) {
            cx.paged().flush_page(a);
        }
    } else {
        cx.paged().flush_page(a & 0xffff_ffff);
    }
    Ok(0)
}

/// INVPCID. What it drops may be more than asked for.
pub(super) fn invpcid(cx: &Cx, _op: SystemOp, a: u64, b: u64, _next: u64) -> Outcome {
    if !offers(cx, SystemFeatures::INVPCID) {
        return Err(Fault::UD);
    }
    privileged(cx)?;
    let refused = Err(Fault::gp(0));
    if a > 3 {
        return refused;
    }
    let paged = cx.paged();
    let long = mode::is_long_code(cx.state());
    let second = if long {
        b.wrapping_add(8)
    } else {
        b.wrapping_add(8) & 0xffff_ffff
    };
    let context: u64 = paged.read_as(Rights::Current, b)?;
    let linear: u64 = paged.read_as(Rights::Current, second)?;
    let sys = cx.sys();
    let pcide = sys.cr4 & cr4::PCIDE != 0;
    if context & !PCID != 0 || a < 2 && !pcide && context != 0 || a == 0 && !is_canonical(linear) {
        return refused;
    }
    let current = if pcide { sys.cr3 & PCID } else { 0 };
    match a {
        // One address in one context, without global translations.
        0 if context == current => paged.flush_page(linear),
        // All of one context, or of all contexts, without global translations.
        2 => paged.flush(true),
        _ => paged.flush(false),
    }
    Ok(0)
}

/// INVD, WBINVD, WBNOINVD: there are no caches.
pub(super) fn wbinvd(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    privileged(cx)?;
    Ok(0)
}
