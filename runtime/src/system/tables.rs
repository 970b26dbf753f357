//! Descriptor-table registers: SGDT, SIDT, SLDT, STR, LGDT, LIDT.

use super::control::umip;
use super::descriptor::is_canonical;
use super::rights::privileged;
use super::state::TableRegister;
use super::{Cx, Fault, Outcome, mode};
use metaphrase_ir::SystemOp;

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn gdt_base(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    umip(cx)?;
    Ok(cx.sys().gdtr.base)
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn gdt_limit(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    umip(cx)?;
    Ok(cx.sys().gdtr.limit.into())
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn idt_base(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    umip(cx)?;
    Ok(cx.sys().idtr.base)
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn idt_limit(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    umip(cx)?;
    Ok(cx.sys().idtr.limit.into())
}

/// #UD where selectors name no descriptors, then the check of CR4.UMIP.
fn may_store(cx: &Cx) -> Result<(), Fault> {
    if !mode::level(cx.state()).is_protected() {
        return Err(Fault::UD);
    }
    umip(cx)
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn sldt(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    may_store(cx)?;
    Ok(cx.sys().ldtr.selector.into())
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn str(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    may_store(cx)?;
    Ok(cx.sys().tr.selector.into())
}

/// The register that LGDT and LIDT load: 24 bits of base with an operand of 16 bits.
fn table(cx: &Cx, op: SystemOp, limit: u64, base: u64) -> Result<TableRegister, Fault> {
    privileged(cx)?;
    let base = if mode::is_long_code(cx.state()) {
        if !is_canonical(base) {
            return Err(Fault::gp(0));
        }
        base
    } else if op.size == 2 {
        base & 0xff_ffff
    } else {
        base & 0xffff_ffff
    };
    Ok(TableRegister {
        base,
        limit: limit as u16,
    })
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn lgdt(cx: &Cx, op: SystemOp, a: u64, b: u64, _next: u64) -> Outcome {
    cx.sys().gdtr = table(cx, op, a, b)?;
    Ok(0)
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn lidt(cx: &Cx, op: SystemOp, a: u64, b: u64, _next: u64) -> Outcome {
    cx.sys().idtr = table(cx, op, a, b)?;
    Ok(0)
}
