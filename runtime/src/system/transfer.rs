//! Far transfers: JMP, CALL, RET through code segments and call gates (SDM volume 3, 5.8;
//! volume 2, JMP, CALL, RET).

use super::descriptor::{Descriptor, Gate, code, is_ia32e, is_null, kind, rpl};
use super::segment::{self, CS, RSP, SS};
use super::stack::{self, Stack};
use super::{Cx, Fault, Outcome, SystemSegment, attr, mode, task};
use metaphrase_frontend::Level;
use metaphrase_ir::SystemOp;

/// CS as a transfer in real or virtual-8086 mode makes it.
pub(super) fn unprotected_code(cx: &Cx, selector: u16) -> SystemSegment {
    match mode::level(cx.state()) {
        Level::V86 => segment::v86(selector),
        _ => segment::real(cx, CS, selector),
    }
}

/// An offset of an operand of that many bytes.
fn offset(value: u64, size: u8) -> u64 {
    segment::merged(0, value, size.into())
}

/// JMP far.
pub(super) fn jmp_far(cx: &Cx, op: SystemOp, a: u64, b: u64, _next: u64) -> Outcome {
    far(cx, op.size, a as u16, offset(b, op.size), false)
}

/// CALL far.
pub(super) fn call_far(cx: &Cx, op: SystemOp, a: u64, b: u64, _next: u64) -> Outcome {
    far(cx, op.size, a as u16, offset(b, op.size), true)
}

/// JMP or CALL far.
fn far(cx: &Cx, size: u8, selector: u16, ip: u64, call: bool) -> Outcome {
    if !mode::level(cx.state()).is_protected() {
        let target = unprotected_code(cx, selector);
        return direct(cx, target, ip, size, call);
    }
    if is_null(selector) {
        return Err(Fault::gp(0));
    }
    let mut d = Descriptor::get(cx, selector, Fault::gp)?;
    let refused = Fault::gp(code(selector));
    let cpl = cx.sys().cpl;
    let ia32e = is_ia32e(cx);
    let Some(kind) = d.system() else {
        let level = if d.is_conforming() {
            d.dpl() <= cpl
        } else {
            d.dpl() == cpl && rpl(selector) <= cpl
        };
        if !d.is_code() || !level || is_ambiguous(cx, &d) {
            return Err(refused);
        }
        if !d.is_present() {
            return Err(Fault::np(code(selector)));
        }
        segment::check_target(cx, &d.segment(), ip)?;
        let target = segment::code_segment(cx, &mut d, cpl)?;
        return direct(cx, target, ip, size, call);
    };
    let known = match kind {
        kind::CALL32 => true,
        kind::CALL16 | kind::TASK | kind::TSS16 | kind::TSS32 => !ia32e,
        _ => false,
    };
    // A sixteen-byte gate must be one before anything else of it counts.
    let upper = match kind {
        kind::CALL32 if ia32e => d.upper(cx)?,
        _ => 0,
    };
    if !known || d.dpl() < cpl.max(rpl(selector)) {
        return Err(refused);
    }
    // A TSS's own presence is checked with the rest of it.
    let is_gate = matches!(kind, kind::CALL16 | kind::CALL32 | kind::TASK);
    if is_gate && !d.is_present() {
        return Err(Fault::np(code(selector)));
    }
    match kind {
        kind::CALL16 | kind::CALL32 => through_gate(cx, Gate::new(d.raw, upper), call),
        _ => {
            let tss = match kind {
                kind::TASK => Gate::new(d.raw, 0).selector,
                _ => selector,
            };
            let late = task::by_transfer(cx, tss, call)?;
            task::begin(cx, late);
            Ok(0)
        }
    }
}

/// Whether a code segment claims to be both 64-bit and 32-bit.
fn is_ambiguous(cx: &Cx, d: &Descriptor) -> bool {
    is_ia32e(cx) && d.has(attr::L | attr::DB)
}

/// To a code segment of the same level; a CALL pushes registers of `width` bytes.
fn direct(cx: &Cx, target: SystemSegment, ip: u64, width: u8, call: bool) -> Outcome {
    let mut stack = Stack::current(cx);
    if call {
        stack.reserve(cx, 2, width)?;
    }
    segment::check_target(cx, &target, ip)?;
    if call {
        stack.push(cx, width, cx.state().seg_sel[CS].into())?;
        stack.push(cx, width, cx.state().rip)?;
        stack.commit(cx);
    }
    segment::set(cx, CS, target);
    cx.state().rip = ip;
    cx.changed();
    Ok(0)
}

/// Through a call gate.
fn through_gate(cx: &Cx, gate: Gate, call: bool) -> Outcome {
    let ia32e = is_ia32e(cx);
    let cpl = cx.sys().cpl;
    if is_null(gate.selector) {
        return Err(Fault::gp(0));
    }
    let mut d = Descriptor::get(cx, gate.selector, Fault::gp)?;
    let long_code = d.has(attr::L) && !d.has(attr::DB);
    let level = if d.is_conforming() || call {
        d.dpl() <= cpl
    } else {
        d.dpl() == cpl
    };
    if !d.is_code() || !level || ia32e && !long_code {
        return Err(Fault::gp(code(gate.selector)));
    }
    if !d.is_present() {
        return Err(Fault::np(code(gate.selector)));
    }
    let width = gate.width(ia32e);
    if d.is_conforming() || d.dpl() == cpl {
        segment::check_target(cx, &d.segment(), gate.offset)?;
        let target = segment::code_segment(cx, &mut d, cpl)?;
        return direct(cx, target, gate.offset, width, call);
    }
    inward(cx, gate, &mut d, width)
}

/// CALL through a call gate to a more privileged level, on a stack of its own.
fn inward(cx: &Cx, gate: Gate, d: &mut Descriptor, width: u8) -> Outcome {
    let ia32e = is_ia32e(cx);
    let cpl = d.dpl();
    let mut stack = if ia32e {
        stack::inner_long(cx, cpl, 0)?
    } else {
        stack::inner(cx, cpl)?
    };
    let count = if ia32e { 0 } else { gate.count };
    stack.reserve(cx, 4 + u64::from(count), width)?;
    segment::check_target(cx, &d.segment(), gate.offset)?;
    // The parameters, the last pushed first.
    let mut from = Stack::current(cx);
    let mut parameters = [0; 31];
    for parameter in parameters.iter_mut().take(count.into()) {
        *parameter = from.pop(cx, width)?;
    }
    let target = segment::code_segment(cx, d, cpl)?;
    let (ss, rsp, cs, rip) = {
        let s = cx.state();
        (s.seg_sel[SS], s.gpr[RSP], s.seg_sel[CS], s.rip)
    };
    stack.push(cx, width, ss.into())?;
    stack.push(cx, width, rsp)?;
    for parameter in parameters.iter().take(count.into()).rev() {
        stack.push(cx, width, *parameter)?;
    }
    stack.push(cx, width, cs.into())?;
    stack.push(cx, width, rip)?;
    segment::set(cx, CS, target);
    segment::set(cx, SS, stack.segment);
    stack.commit(cx);
    cx.state().rip = gate.offset;
    cx.sys().cpl = cpl;
    cx.changed();
    Ok(0)
}

/// The code segment that RET or IRET returns to.
pub(super) fn return_code(cx: &Cx, selector: u16) -> Result<Descriptor, Fault> {
    if is_null(selector) {
        return Err(Fault::gp(0));
    }
    let d = Descriptor::get(cx, selector, Fault::gp)?;
    let to = rpl(selector);
    let level = if d.is_conforming() {
        d.dpl() <= to
    } else {
        d.dpl() == to
    };
    if !d.is_code() || to < cx.sys().cpl || !level || is_ambiguous(cx, &d) {
        return Err(Fault::gp(code(selector)));
    }
    if !d.is_present() {
        return Err(Fault::np(code(selector)));
    }
    Ok(d)
}

/// The stack of level `cpl` that RET or IRET returns to, whose code is in `to`.
pub(super) fn return_stack(
    cx: &Cx,
    to: &Descriptor,
    ss: u16,
    sp: u64,
    cpl: u8,
) -> Result<Stack, Fault> {
    let long = segment::is_long(cx, to.attr());
    let segment = segment::stack_segment(cx, ss, cpl, Fault::gp, long)?;
    Ok(if long {
        Stack::long(cx, segment, sp, cpl)
    } else {
        Stack::legacy(cx, segment, sp, cpl).keeping_rsp(cx)
    })
}

/// RETF.
pub(super) fn ret_far(cx: &Cx, op: SystemOp, a: u64, _b: u64, _next: u64) -> Outcome {
    let mut stack = Stack::current(cx);
    let ip = stack.pop(cx, op.size)?;
    let selector = stack.pop(cx, op.size)? as u16;
    stack.release(a);
    if !mode::level(cx.state()).is_protected() {
        let target = unprotected_code(cx, selector);
        segment::check_target(cx, &target, ip)?;
        segment::set(cx, CS, target);
        stack.commit(cx);
        cx.state().rip = ip;
        cx.changed();
        return Ok(0);
    }
    let mut d = return_code(cx, selector)?;
    let cpl = rpl(selector);
    let outward = cpl > cx.sys().cpl;
    if outward {
        let sp = stack.pop(cx, op.size)?;
        let ss = stack.pop(cx, op.size)? as u16;
        stack = return_stack(cx, &d, ss, sp, cpl)?;
        stack.release(a);
    }
    segment::check_target(cx, &d.segment(), ip)?;
    let target = segment::code_segment(cx, &mut d, cpl)?;
    segment::set(cx, CS, target);
    if outward {
        segment::set(cx, SS, stack.segment);
    }
    stack.commit(cx);
    cx.state().rip = ip;
    cx.sys().cpl = cpl;
    if outward {
        segment::drop_privileged(cx, cpl);
    }
    cx.changed();
    Ok(0)
}
