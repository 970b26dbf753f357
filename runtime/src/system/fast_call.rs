//! SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM volume 3, 5.8.7 and 5.8.8; volume 2).
//!
//! Where Intel and AMD differ, the vendor that CPUID names decides: on Intel SYSCALL and SYSRET
//! are for 64-bit code alone; on AMD they are for all protected code, and SYSENTER and SYSEXIT do
//! not exist in IA-32e mode (AMD64 manual, volume 3).

use super::descriptor::{is_canonical, is_ia32e};
use super::segment::{self, CS, RSP, SS};
use super::{Cx, Fault, Outcome, SystemSegment, attr, cr0, efer, mode};
use metaphrase_ir::{Reg, SystemOp, sysflags};

/// Whether the CPU model is one of AMD's.
fn is_amd(cx: &Cx) -> bool {
    const AUTH: u32 = u32::from_le_bytes(*b"Auth");
    cx.env().cpu.cpuid(0, 0)[1] == AUTH
}

/// What code is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Bits32,
    Bits64,
}

/// A flat segment with a fixed descriptor; `selector`'s RPL is its level.
fn flat(selector: u16, attributes: u32) -> SystemSegment {
    let dpl = u32::from(selector & 3) << attr::DPL_SHIFT;
    let usable = attr::P | attr::S | attr::RW | attr::ACCESSED;
    SystemSegment {
        base: 0,
        limit: u32::MAX,
        attr: attributes | dpl | usable | attr::G,
        selector,
    }
}

/// Goes to flat code of level `cpl`, without looking at a table.
fn enter(cx: &Cx, cpl: u8, (cs, ss): (u16, u16), width: Width, rip: u64) {
    let level = |selector: u16| selector & !3 | u16::from(cpl);
    let size = match width {
        Width::Bits32 => attr::DB,
        Width::Bits64 => attr::L,
    };
    segment::set(cx, CS, flat(level(cs), attr::CODE | size));
    segment::set(cx, SS, flat(level(ss), attr::DB));
    let s = cx.state();
    s.rip = rip;
    s.sys.cpl = cpl;
    cx.changed();
}

/// SYSCALL.
pub(super) fn syscall(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, next: u64) -> Outcome {
    let long = mode::is_long_code(cx.state());
    let ia32e = is_ia32e(cx);
    let protected = mode::level(cx.state()).is_protected();
    let exists = long || protected && is_amd(cx);
    if cx.sys().efer & efer::SCE == 0 || !exists {
        return Err(Fault::UD);
    }
    let msr = cx.sys().msr;
    let cs = (msr.star >> 32) as u16;
    let selectors = (cs, cs.wrapping_add(8));
    let s = cx.state();
    let flags = s.rflags() & !sysflags::RF;
    if !ia32e {
        s.gpr[Reg::Rcx as usize] = next & 0xffff_ffff;
        s.set_rflags(flags & !(sysflags::IF | sysflags::VM));
        enter(cx, 0, selectors, Width::Bits32, msr.star & 0xffff_ffff);
        return Ok(0);
    }
    s.gpr[Reg::Rcx as usize] = next;
    s.gpr[Reg::R11 as usize] = flags;
    s.set_rflags(flags & !msr.fmask);
    let target = if long { msr.lstar } else { msr.cstar };
    enter(cx, 0, selectors, Width::Bits64, target);
    Ok(0)
}

/// SYSRET.
pub(super) fn sysret(cx: &Cx, op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    let long = mode::is_long_code(cx.state());
    let ia32e = is_ia32e(cx);
    if cx.sys().efer & efer::SCE == 0 || !long && !is_amd(cx) {
        return Err(Fault::UD);
    }
    if cx.sys().cpl != 0 || !mode::level(cx.state()).is_protected() {
        return Err(Fault::gp(0));
    }
    let to_long = long && op.size == 8;
    let rcx = cx.state().gpr[Reg::Rcx as usize];
    if to_long && !is_canonical(rcx) {
        return Err(Fault::gp(0));
    }
    let base = (cx.sys().msr.star >> 48) as u16;
    let s = cx.state();
    if ia32e {
        // All but RF and VM.
        const TAKEN: u64 = 0x3c_7fd7;
        s.set_rflags(s.gpr[Reg::R11 as usize] & TAKEN);
    } else {
        s.set_rflags(s.rflags() & !sysflags::RF | sysflags::IF);
    }
    let ss = base.wrapping_add(8);
    if to_long {
        enter(cx, 3, (base.wrapping_add(16), ss), Width::Bits64, rcx);
    } else {
        enter(cx, 3, (base, ss), Width::Bits32, rcx & 0xffff_ffff);
    }
    Ok(0)
}

/// The selector that SYSENTER and SYSEXIT count from, and what both check.
fn sysenter_base(cx: &Cx) -> Result<u16, Fault> {
    if is_ia32e(cx) && is_amd(cx) {
        return Err(Fault::UD);
    }
    let base = cx.sys().msr.sysenter_cs as u16 & !3;
    if cx.sys().cr0 & cr0::PE == 0 || base == 0 {
        return Err(Fault::gp(0));
    }
    Ok(base)
}

/// SYSENTER.
pub(super) fn sysenter(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    let base = sysenter_base(cx)?;
    let (width, mask) = if is_ia32e(cx) {
        (Width::Bits64, u64::MAX)
    } else {
        (Width::Bits32, 0xffff_ffff)
    };
    let s = cx.state();
    let msr = s.sys.msr;
    s.sysflags &= !(sysflags::VM | sysflags::IF | sysflags::RF);
    s.gpr[RSP] = msr.sysenter_esp & mask;
    let selectors = (base, base.wrapping_add(8));
    enter(cx, 0, selectors, width, msr.sysenter_eip & mask);
    Ok(0)
}

/// SYSEXIT.
pub(super) fn sysexit(cx: &Cx, op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    let base = sysenter_base(cx)?;
    if cx.sys().cpl != 0 {
        return Err(Fault::gp(0));
    }
    let (rcx, rdx) = {
        let gpr = &cx.state().gpr;
        (gpr[Reg::Rcx as usize], gpr[Reg::Rdx as usize])
    };
    if op.size == 8 && mode::is_long_code(cx.state()) {
        if !is_canonical(rcx) || !is_canonical(rdx) {
            return Err(Fault::gp(0));
        }
        let selectors = (base.wrapping_add(32), base.wrapping_add(40));
        cx.state().gpr[RSP] = rcx;
        enter(cx, 3, selectors, Width::Bits64, rdx);
    } else {
        let selectors = (base.wrapping_add(16), base.wrapping_add(24));
        cx.state().gpr[RSP] = rcx & 0xffff_ffff;
        enter(cx, 3, selectors, Width::Bits32, rdx & 0xffff_ffff);
    }
    Ok(0)
}
