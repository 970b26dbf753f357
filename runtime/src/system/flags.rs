//! RFLAGS and interrupts: PUSHF, POPF, CLI, STI, CLAC, STAC, HLT, MONITOR, MWAIT.

use super::features::SystemFeatures;
use super::rights::{offers, privileged};
use super::state::{Activity, Shadow, cr4};
use super::{Cx, Fault, Outcome, mode};
use crate::memory::paged::Rights;
use crate::state::CpuState;
use metaphrase_frontend::Level;
use metaphrase_ir::sysflags::{AC, ID, IF, IOPL, NT, RF, TF, VIF, VIP, VM};
use metaphrase_ir::{Reg, SystemOp, flags};

/// Where the two bits of IOPL start.
const IOPL_SHIFT: u32 = 12;

/// IA32_MISC_ENABLE: MONITOR and MWAIT are on.
pub(super) const ENABLE_MONITOR: u64 = 1 << 18;

fn iopl(s: &CpuState) -> u8 {
    (s.sysflags >> IOPL_SHIFT) as u8 & 3
}

/// Which interrupt flag CLI and STI change (SDM volume 2, CLI): IF, or VIF where extensions give
/// one to code that IOPL keeps from IF.
fn interrupt_flag(cx: &Cx) -> Result<u64, Fault> {
    let s = cx.state();
    let level = mode::level(s);
    let extended = match level {
        Level::Real => return Ok(IF),
        Level::V86 => cr4::VME,
        _ => cr4::PVI,
    };
    if iopl(s) >= level.cpl() {
        Ok(IF)
    } else if level.cpl() == 3 && s.sys.cr4 & extended != 0 {
        Ok(VIF)
    } else {
        Err(Fault::gp(0))
    }
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn cli(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    let flag = interrupt_flag(cx)?;
    cx.state().sysflags &= !flag;
    Ok(0)
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn sti(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    let flag = interrupt_flag(cx)?;
    let s = cx.state();
    if flag == VIF && s.sysflags & VIP != 0 {
        return Err(Fault::gp(0));
    }
    if flag == IF && s.sysflags & IF == 0 {
        s.sys.shadow = Shadow::Sti;
        s.sys.shadow_from = cx.env().instructions(s);
    }
    s.sysflags |= flag;
    Ok(0)
}

/// Whether virtual-8086 code uses VIF in the place of IF, if IOPL keeps it from IF: `Some(false)`
/// if it may use IF; #GP if it may use neither.
fn virtual_flag(cx: &Cx, size: u8) -> Result<bool, Fault> {
    let s = cx.state();
    if mode::level(s) != Level::V86 || iopl(s) == 3 {
        Ok(false)
    } else if size == 2 && s.sys.cr4 & cr4::VME != 0 {
        Ok(true)
    } else {
        Err(Fault::gp(0))
    }
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn pushf(cx: &Cx, op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    let virtualized = virtual_flag(cx, op.size)?;
    let s = cx.state();
    let image = s.rflags() & !(VM | RF);
    Ok(if virtualized {
        let interrupts = if s.sysflags & VIF != 0 { IF } else { 0 };
        image & !IF | interrupts | IOPL
    } else {
        image
    })
}

/// POPF (SDM volume 2, table 4-15): what it may not change it silently keeps; RF becomes 0.
pub(super) fn popf(cx: &Cx, op: SystemOp, a: u64, b: u64, _next: u64) -> Outcome {
    let virtualized = virtual_flag(cx, op.size)?;
    let s = cx.state();
    let level = mode::level(s);
    let mut writable = flags::ARITH | flags::DF | TF | NT;
    if op.size != 2 {
        writable |= AC | ID;
    }
    if level.cpl() == 0 {
        writable |= IOPL;
    }
    if level.cpl() <= iopl(s) {
        writable |= IF;
    }
    let mut image = a & writable;
    if virtualized {
        if a & TF != 0 || a & IF != 0 && s.sysflags & VIP != 0 {
            return Err(Fault::gp(0));
        }
        writable |= VIF;
        if a & IF != 0 {
            image |= VIF;
        }
    }
    let old = s.rflags();
    s.set_rflags(old & !(writable | RF) | image);
    set_stack_pointer(cx, b);
    if (old ^ s.sysflags) & AC != 0 {
        cx.changed();
    }
    Ok(0)
}

/// RSP := `value` at the stack size.
fn set_stack_pointer(cx: &Cx, value: u64) {
    let s = cx.state();
    let big = s.sys.seg_attr[SS] & super::attr::DB != 0;
    let long = mode::is_long_code(s);
    let rsp = &mut s.gpr[Reg::Rsp as usize];
    *rsp = if long {
        value
    } else if big {
        value & 0xffff_ffff
    } else {
        *rsp & !0xffff | value & 0xffff
    };
}

/// SS in the encoding order.
const SS: usize = 2;

/// CLAC, STAC.
pub(super) fn clac(cx: &Cx, op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    if !offers(cx, SystemFeatures::SMAP) || privileged(cx).is_err() {
        return Err(Fault::UD);
    }
    let s = cx.state();
    if op.n == 0 {
        s.sysflags &= !AC;
    } else {
        s.sysflags |= AC;
    }
    cx.changed();
    Ok(0)
}

/// #UD without MONITOR and MWAIT, and above privilege level 0.
fn may_wait(cx: &Cx) -> Result<(), Fault> {
    let on = cx.sys().msr.misc_enable & ENABLE_MONITOR != 0;
    if on && offers(cx, SystemFeatures::MONITOR) && privileged(cx).is_ok() {
        Ok(())
    } else {
        Err(Fault::UD)
    }
}

/// The extensions or hints in ECX.
fn extensions(cx: &Cx) -> u32 {
    cx.state().gpr[Reg::Rcx as usize] as u32
}

/// MONITOR: the address is accessed as a byte load does; there are no extensions.
pub(super) fn monitor(cx: &Cx, _op: SystemOp, a: u64, _b: u64, _next: u64) -> Outcome {
    may_wait(cx)?;
    if extensions(cx) != 0 {
        return Err(Fault::gp(0));
    }
    cx.paged().read_as::<u8>(Rights::Current, a)?;
    cx.sys().monitor_armed = true;
    Ok(0)
}

/// HLT and MWAIT.
pub(super) fn hlt(cx: &Cx, op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    if op.n == 0 {
        privileged(cx)?;
        rest(cx, Activity::Halted);
        return Ok(0);
    }
    may_wait(cx)?;
    // Bit 0: masked interrupts end the wait too.
    if extensions(cx) & !1 != 0 {
        return Err(Fault::gp(0));
    }
    if std::mem::take(&mut cx.sys().monitor_armed) {
        rest(cx, Activity::Waiting);
    }
    Ok(0)
}

/// Executes nothing until something happens.
fn rest(cx: &Cx, activity: Activity) {
    let sys = cx.sys();
    sys.activity = activity;
    sys.look = true;
}
