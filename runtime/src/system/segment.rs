//! Segment registers: loads with all their checks, and the check of an access (SDM volume 3,
//! chapters 3 and 5; volume 2, MOV, POP, LDS, LLDT, LTR, SWAPGS).

use super::descriptor::{self, Descriptor, code, is_canonical, is_ia32e, is_null, kind, rpl};
use super::{Cx, Fault, Outcome, Shadow, SystemSegment, attr, cr0, mode};
use metaphrase_frontend::Level;
use metaphrase_ir::{SegmentAccess, SystemOp};

pub(super) const ES: usize = 0;
pub(super) const CS: usize = 1;
pub(super) const SS: usize = 2;
pub(super) const DS: usize = 3;
pub(super) const FS: usize = 4;
pub(super) const GS: usize = 5;

/// RSP among the general registers.
pub(super) const RSP: usize = 4;

/// Attributes of every segment in virtual-8086 mode: present, writable, DPL 3.
const V86_ATTR: u32 = attr::P | attr::S | attr::RW | attr::ACCESSED | 3 << attr::DPL_SHIFT;

/// A segment register with its cached descriptor.
pub(super) fn get(cx: &Cx, n: usize) -> SystemSegment {
    let s = cx.state();
    SystemSegment {
        base: s.seg_base[n],
        limit: s.sys.seg_limit[n],
        attr: s.sys.seg_attr[n],
        selector: s.seg_sel[n],
    }
}

/// Sets a segment register with its cached descriptor.
pub(super) fn set(cx: &Cx, n: usize, segment: SystemSegment) {
    let s = cx.state();
    s.seg_base[n] = segment.base;
    s.seg_sel[n] = segment.selector;
    s.sys.seg_limit[n] = segment.limit;
    s.sys.seg_attr[n] = segment.attr;
}

/// Whether a segment can be accessed at all.
pub(super) fn is_usable(segment: &SystemSegment) -> bool {
    segment.attr & attr::P != 0
}

/// What a segment register holds after a null selector was loaded: unusable, with base 0. The
/// limit survives, for a return to real mode.
pub(super) fn null(cx: &Cx, n: usize, selector: u16) -> SystemSegment {
    SystemSegment {
        base: 0,
        limit: cx.sys().seg_limit[n],
        attr: 0,
        selector,
    }
}

/// What a segment register holds after a load in real mode. Limit and attributes survive ("unreal
/// mode"), but the segment becomes usable, and CS code that is not conforming.
pub(super) fn real(cx: &Cx, n: usize, selector: u16) -> SystemSegment {
    let old = get(cx, n);
    let usable = attr::P | attr::S | attr::RW | attr::ACCESSED;
    let attr = if n == CS {
        old.attr & (attr::G | attr::DB) | usable | attr::CODE
    } else if old.attr & attr::P == 0 {
        old.attr & (attr::G | attr::DB) | usable
    } else {
        old.attr
    };
    SystemSegment {
        base: u64::from(selector) << 4,
        attr,
        selector,
        ..old
    }
}

/// What a segment register holds after a load in virtual-8086 mode.
pub(super) fn v86(selector: u16) -> SystemSegment {
    SystemSegment {
        base: u64::from(selector) << 4,
        limit: 0xffff,
        attr: V86_ATTR,
        selector,
    }
}

/// SS as a load at privilege level `cpl` would make it, with all checks (SDM volume 2, MOV).
/// `fault` makes the fault of a bad descriptor: #GP, or #TS for a stack out of a TSS. A null
/// selector is fine for the levels 0 to 2 of 64-bit code: `long`.
pub(super) fn stack_segment(
    cx: &Cx,
    selector: u16,
    cpl: u8,
    fault: fn(u32) -> Fault,
    long: bool,
) -> Result<SystemSegment, Fault> {
    if is_null(selector) {
        if !long || cpl == 3 || rpl(selector) != cpl {
            return Err(fault(0));
        }
        return Ok(null_stack(cx, cpl));
    }
    let mut d = Descriptor::get(cx, selector, fault)?;
    if rpl(selector) != cpl || !d.is_writable() || d.dpl() != cpl {
        return Err(fault(code(selector)));
    }
    if !d.is_present() {
        return Err(Fault::ss(code(selector)));
    }
    d.mark_accessed(cx)?;
    Ok(d.segment())
}

/// SS as a transfer to a more privileged level makes it in IA-32e mode.
pub(super) fn null_stack(cx: &Cx, cpl: u8) -> SystemSegment {
    SystemSegment {
        attr: u32::from(cpl) << attr::DPL_SHIFT,
        ..null(cx, SS, u16::from(cpl))
    }
}

/// DS, ES, FS or GS as a load would make it, with all checks. `fault` makes the fault of a bad
/// descriptor: #GP, or #TS for a selector out of a TSS.
pub(super) fn data_segment(
    cx: &Cx,
    n: usize,
    selector: u16,
    fault: fn(u32) -> Fault,
) -> Result<SystemSegment, Fault> {
    if is_null(selector) {
        return Ok(null(cx, n, selector));
    }
    let mut d = Descriptor::get(cx, selector, fault)?;
    let allowed = d.is_conforming() || d.dpl() >= rpl(selector).max(cx.sys().cpl);
    if !d.is_readable() || !allowed {
        return Err(fault(code(selector)));
    }
    if !d.is_present() {
        return Err(Fault::np(code(selector)));
    }
    d.mark_accessed(cx)?;
    Ok(d.segment())
}

/// Any segment register but CS as a load would make it.
fn loaded(cx: &Cx, n: usize, selector: u16) -> Result<SystemSegment, Fault> {
    let s = cx.state();
    match mode::level(s) {
        Level::Real => Ok(real(cx, n, selector)),
        Level::V86 => Ok(v86(selector)),
        Level::Protected(_) | Level::Long(_) if n == SS => {
            let long = mode::is_long_code(s);
            stack_segment(cx, selector, s.sys.cpl, Fault::gp, long)
        }
        Level::Protected(_) | Level::Long(_) => data_segment(cx, n, selector, Fault::gp),
    }
}

/// The number of a segment register that can be loaded.
fn loadable(n: u8) -> Result<usize, Fault> {
    match usize::from(n) {
        CS => Err(Fault::UD),
        n if n < 6 => Ok(n),
        _ => Err(Fault::UD),
    }
}

/// Loads; SS holds off interrupts and debug traps until after the next instruction (SDM volume 3,
/// 6.8.3).
fn load_with_shadow(cx: &Cx, n: usize, segment: SystemSegment) {
    set(cx, n, segment);
    if n == SS {
        cx.sys().shadow = Shadow::MovSs;
        cx.sys().shadow_from = cx.env().instructions(cx.state());
        cx.sys().look = true;
    }
    cx.changed();
}

/// MOV to a segment register.
pub(super) fn load_segment(cx: &Cx, op: SystemOp, a: u64, _b: u64, _next: u64) -> Outcome {
    let n = loadable(op.n)?;
    let segment = loaded(cx, n, a as u16)?;
    load_with_shadow(cx, n, segment);
    Ok(0)
}

/// LDS, LES, LSS, LFS, LGS.
pub(super) fn load_far(cx: &Cx, op: SystemOp, a: u64, b: u64, _next: u64) -> Outcome {
    let n = loadable(op.n)?;
    let segment = loaded(cx, n, a as u16)?;
    set(cx, n, segment);
    let register = &mut cx.state().gpr[usize::from(op.m & 15)];
    *register = merged(*register, b, u32::from(op.size));
    cx.changed();
    Ok(0)
}

/// A register after a write of that many bytes: 16-bit writes leave the rest alone, 32-bit ones
/// clear it.
pub(super) const fn merged(old: u64, new: u64, bytes: u32) -> u64 {
    match bytes {
        2 => old & !0xffff | new & 0xffff,
        4 => new & 0xffff_ffff,
        _ => new,
    }
}

/// The bytes of the stack pointer: 8 in 64-bit code, else by the stack segment.
pub(super) const fn stack_bytes(long: bool, ss_attr: u32) -> u32 {
    if long {
        8
    } else if ss_attr & attr::DB != 0 {
        4
    } else {
        2
    }
}

/// POP to a segment register.
pub(super) fn pop_segment(cx: &Cx, op: SystemOp, a: u64, b: u64, _next: u64) -> Outcome {
    let n = loadable(op.n)?;
    let segment = loaded(cx, n, a as u16)?;
    let s = cx.state();
    let bytes = stack_bytes(mode::is_long_code(s), s.sys.seg_attr[SS]);
    s.gpr[RSP] = merged(s.gpr[RSP], b, bytes);
    load_with_shadow(cx, n, segment);
    Ok(0)
}

/// #UD where selectors do not name descriptors, #GP below level 0.
fn privileged_protected(cx: &Cx) -> Result<(), Fault> {
    let level = mode::level(cx.state());
    if !level.is_protected() {
        return Err(Fault::UD);
    }
    if level.cpl() != 0 {
        return Err(Fault::gp(0));
    }
    Ok(())
}

/// The LDT or TSS that a selector names as LLDT and LTR load it. Its base has 64 bits in IA-32e
/// mode.
pub(super) fn system_segment(cx: &Cx, d: &Descriptor) -> Result<SystemSegment, Fault> {
    let mut segment = d.segment();
    if is_ia32e(cx) {
        segment.base |= d.upper(cx)? << 32;
        if !is_canonical(segment.base) {
            return Err(Fault::gp(code(d.selector)));
        }
    }
    Ok(segment)
}

/// LLDT.
pub(super) fn lldt(cx: &Cx, _op: SystemOp, a: u64, _b: u64, _next: u64) -> Outcome {
    privileged_protected(cx)?;
    let selector = a as u16;
    if is_null(selector) {
        cx.sys().ldtr = SystemSegment {
            selector,
            ..SystemSegment::default()
        };
        return Ok(0);
    }
    if selector & 4 != 0 {
        return Err(Fault::gp(code(selector)));
    }
    let d = Descriptor::get(cx, selector, Fault::gp)?;
    if d.system() != Some(kind::LDT) {
        return Err(Fault::gp(code(selector)));
    }
    if !d.is_present() {
        return Err(Fault::np(code(selector)));
    }
    cx.sys().ldtr = system_segment(cx, &d)?;
    Ok(0)
}

/// LTR.
pub(super) fn ltr(cx: &Cx, _op: SystemOp, a: u64, _b: u64, _next: u64) -> Outcome {
    privileged_protected(cx)?;
    let selector = a as u16;
    if is_null(selector) {
        return Err(Fault::gp(0));
    }
    if selector & 4 != 0 {
        return Err(Fault::gp(code(selector)));
    }
    let mut d = Descriptor::get(cx, selector, Fault::gp)?;
    match d.system() {
        Some(kind::TSS32) => {}
        Some(kind::TSS16) if !is_ia32e(cx) => {}
        _ => return Err(Fault::gp(code(selector))),
    }
    if !d.is_present() {
        return Err(Fault::np(code(selector)));
    }
    let segment = system_segment(cx, &d)?;
    d.set_type_bits(cx, kind::BUSY, 0)?;
    cx.sys().tr = SystemSegment {
        attr: d.attr(),
        ..segment
    };
    Ok(0)
}

/// SWAPGS.
pub(super) fn swapgs(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    let s = cx.state();
    if !mode::is_long_code(s) {
        return Err(Fault::UD);
    }
    if s.sys.cpl != 0 {
        return Err(Fault::gp(0));
    }
    std::mem::swap(&mut s.seg_base[GS], &mut s.sys.msr.kernel_gs_base);
    cx.changed();
    Ok(0)
}

/// Whether `size` bytes at `offset` lie in a segment. What runs over the end of a segment of 4 GiB
/// is allowed, as unchecked accesses have it (SDM volume 3, 5.3 leaves it to the processor).
pub(super) fn in_limit(segment: &SystemSegment, offset: u64, size: u64) -> bool {
    let limit = u64::from(segment.limit);
    let last = offset.wrapping_add(size.wrapping_sub(1));
    let expand_down = segment.attr & (attr::CODE | attr::DC) == attr::DC;
    if expand_down {
        let top = if segment.attr & attr::DB != 0 {
            0xffff_ffff
        } else {
            0xffff
        };
        offset > limit && last <= top && last >= offset
    } else {
        last <= limit && last >= offset || limit == 0xffff_ffff
    }
}

/// Whether the segment allows the access (SDM volume 3, 5.3 and 5.5).
pub(super) fn check(cx: &Cx, access: SegmentAccess, offset: u64) -> Result<(), Fault> {
    let n = usize::from(access.segment).min(GS);
    let refused = if n == SS { Fault::ss(0) } else { Fault::gp(0) };
    // Null segments and limits are no obstacle in 64-bit code, but addresses may be.
    if mode::is_long_code(cx.state()) {
        let base = if n < FS { 0 } else { cx.state().seg_base[n] };
        let first = base.wrapping_add(offset);
        let last = first.wrapping_add(u64::from(access.size).saturating_sub(1));
        let fine = is_canonical(first) && is_canonical(last);
        return if fine { Ok(()) } else { Err(refused) };
    }
    let segment = get(cx, n);
    let is_code = segment.attr & attr::CODE != 0;
    let rw = segment.attr & attr::RW != 0;
    // CS is writable in real mode: what it caches after reset is data (SDM volume 3, table 9-1).
    let real = cx.sys().cr0 & cr0::PE == 0;
    let allowed = match (access.write, is_code) {
        (false, false) => true,
        (false, true) => rw,
        (true, false) => rw,
        (true, true) => real,
    };
    if is_usable(&segment) && allowed && in_limit(&segment, offset, u64::from(access.size)) {
        return Ok(());
    }
    Err(refused)
}

/// Makes what the data segment registers hold unusable where a return to the outer level `cpl`
/// must not leave it to it (SDM volume 2, RET and IRET).
pub(super) fn drop_privileged(cx: &Cx, cpl: u8) {
    for n in [ES, DS, FS, GS] {
        let segment = get(cx, n);
        let dpl = (segment.attr >> attr::DPL_SHIFT) as u8 & 3;
        let conforming = segment.attr & (attr::CODE | attr::DC) == attr::CODE | attr::DC;
        if segment.attr & attr::P != 0 && !conforming && dpl < cpl {
            set(cx, n, null(cx, n, 0));
        }
    }
}

/// A code segment register for privilege level `cpl` from its descriptor, which is marked as
/// accessed.
pub(super) fn code_segment(cx: &Cx, d: &mut Descriptor, cpl: u8) -> Result<SystemSegment, Fault> {
    d.mark_accessed(cx)?;
    Ok(SystemSegment {
        selector: d.selector & !3 | u16::from(cpl),
        ..d.segment()
    })
}

/// Whether code in that segment is 64-bit.
pub(super) fn is_long(cx: &Cx, cs_attr: u32) -> bool {
    is_ia32e(cx) && cs_attr & attr::L != 0
}

/// #GP(0) unless `ip` can be an instruction pointer there.
pub(super) fn check_target(cx: &Cx, cs: &SystemSegment, ip: u64) -> Result<(), Fault> {
    let fine = if is_long(cx, cs.attr) {
        descriptor::is_canonical(ip)
    } else {
        ip <= u64::from(cs.limit)
    };
    if fine { Ok(()) } else { Err(Fault::gp(0)) }
}
