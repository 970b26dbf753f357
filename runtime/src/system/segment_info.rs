//! LAR, LSL, VERR, VERW: what a selector names, without a load (SDM volume 2).

use super::descriptor::{Descriptor, is_ia32e, is_null, kind, rpl};
use super::{Cx, Fault, Outcome, mode};
use metaphrase_ir::SystemOp;

/// The result where the selector is valid.
const VALID: u64 = 1 << 32;

/// LAR, LSL, VERR, VERW (n = 0 to 3): [`VALID`] with the value, or 0.
pub(super) fn segment_info(cx: &Cx, op: SystemOp, a: u64, _b: u64, _next: u64) -> Outcome {
    if !mode::level(cx.state()).is_protected() {
        return Err(Fault::UD);
    }
    let selector = a as u16;
    if is_null(selector) {
        return Ok(0);
    }
    let Some(d) = Descriptor::fetch(cx, selector)? else {
        return Ok(0);
    };
    let visible = d.is_conforming() || d.dpl() >= rpl(selector).max(cx.sys().cpl);
    let ia32e = is_ia32e(cx);
    let valid = visible
        && match (op.n, d.system()) {
            (0, Some(kind)) => has_rights(kind, ia32e),
            (1, Some(kind)) => has_limit(kind, ia32e),
            (0 | 1, None) => true,
            (2, _) => d.is_readable(),
            _ => d.is_writable(),
        };
    let value = match op.n {
        0 => u64::from(d.attr()) << 8,
        1 => u64::from(d.limit()),
        _ => 0,
    };
    Ok(if valid { VALID | value } else { 0 })
}

/// Whether LAR knows the system type (SDM volume 2, table 3-55).
const fn has_rights(kind: u32, ia32e: bool) -> bool {
    match kind {
        kind::LDT | kind::TSS32 | kind::TSS32_BUSY | kind::CALL32 => true,
        kind::TSS16 | kind::TSS16_BUSY | kind::CALL16 | kind::TASK => !ia32e,
        _ => false,
    }
}

/// Whether LSL knows the system type (SDM volume 2, table 3-67).
const fn has_limit(kind: u32, ia32e: bool) -> bool {
    match kind {
        kind::LDT | kind::TSS32 | kind::TSS32_BUSY => true,
        kind::TSS16 | kind::TSS16_BUSY => !ia32e,
        _ => false,
    }
}
