//! IRET in all its forms (SDM volume 2, IRET).

use super::descriptor::{is_ia32e, rpl};
use super::segment::{self, CS, DS, ES, FS, GS, SS};
use super::stack::Stack;
use super::{Cx, Fault, Outcome, cr4, mode, task, transfer};
use metaphrase_frontend::Level;
use metaphrase_ir::{SystemOp, flags, sysflags};

/// RFLAGS.VIF, the virtual interrupt flag.
const VIF: u64 = 1 << 19;
/// RFLAGS.VIP, a virtual interrupt is pending.
const VIP: u64 = 1 << 20;

/// What 16-bit forms take from the image at any level.
const LOW: u64 = flags::ARITH | flags::DF | sysflags::TF | sysflags::NT;
/// What the others take besides.
const HIGH: u64 = sysflags::RF | sysflags::AC | sysflags::ID;
/// All flags that there are.
const ALL: u64 = LOW | HIGH | sysflags::IF | sysflags::IOPL | sysflags::VM | VIF | VIP;

/// IRET.
pub(super) fn iret(cx: &Cx, op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    // Even an IRET that faults ends the handling of an NMI (SDM volume 3, 6.7.1 and 25.3).
    if std::mem::take(&mut cx.sys().nmi_blocked) {
        cx.sys().look = true;
    }
    match mode::level(cx.state()) {
        Level::Real => unprotected(cx, op.size, LOW | sysflags::IF | sysflags::IOPL)?,
        Level::V86 => virtual_8086(cx, op.size)?,
        _ if cx.state().sysflags & sysflags::NT == 0 => protected(cx, op.size)?,
        // There are no nested tasks in IA-32e mode.
        _ if is_ia32e(cx) => return Err(Fault::gp(0)),
        _ => {
            let late = task::by_return(cx)?;
            task::begin(cx, late);
        }
    }
    Ok(0)
}

/// Takes those bits of RFLAGS from the image; RF is clear where the image has none.
fn take_flags(cx: &Cx, image: u64, taken: u64) {
    let s = cx.state();
    let kept = s.rflags() & !(taken | sysflags::RF);
    s.set_rflags(kept | image & taken);
}

/// Real mode, and virtual-8086 mode where it may: `low` says what a 16-bit form takes.
fn unprotected(cx: &Cx, size: u8, low: u64) -> Result<(), Fault> {
    let mut stack = Stack::current(cx);
    let ip = stack.pop(cx, size)?;
    let selector = stack.pop(cx, size)? as u16;
    let image = stack.pop(cx, size)?;
    let target = transfer::unprotected_code(cx, selector);
    segment::check_target(cx, &target, ip)?;
    segment::set(cx, CS, target);
    stack.commit(cx);
    cx.state().rip = ip;
    take_flags(cx, image, if size == 2 { low } else { low | HIGH });
    cx.changed();
    Ok(())
}

/// Virtual-8086 mode: IOPL 3, or the extensions.
fn virtual_8086(cx: &Cx, size: u8) -> Result<(), Fault> {
    let now = cx.state().sysflags;
    if now & sysflags::IOPL == sysflags::IOPL {
        return unprotected(cx, size, LOW | sysflags::IF);
    }
    if cx.sys().cr4 & cr4::VME == 0 || size != 2 {
        return Err(Fault::gp(0));
    }
    // The image's IF becomes VIF (SDM volume 3, 20.3.3.2).
    let mut stack = Stack::current(cx);
    stack.pop(cx, size)?;
    stack.pop(cx, size)?;
    let image = stack.pop(cx, size)?;
    let enables = image & sysflags::IF != 0;
    if now & VIP != 0 && enables || image & sysflags::TF != 0 {
        return Err(Fault::gp(0));
    }
    unprotected(cx, size, LOW)?;
    take_flags(cx, if enables { VIF } else { 0 }, VIF);
    Ok(())
}

/// Protected and IA-32e mode, without a nested task.
fn protected(cx: &Cx, size: u8) -> Result<(), Fault> {
    let ia32e = is_ia32e(cx);
    let long = mode::is_long_code(cx.state());
    let cpl = cx.sys().cpl;
    let mut stack = Stack::current(cx);
    let ip = stack.pop(cx, size)?;
    let selector = stack.pop(cx, size)? as u16;
    let image = stack.pop(cx, size)?;
    if size == 4 && !ia32e && cpl == 0 && image & sysflags::VM != 0 {
        return to_virtual_8086(cx, stack, ip, selector, image);
    }
    let mut d = transfer::return_code(cx, selector)?;
    let new_cpl = rpl(selector);
    // 64-bit code has SS and RSP in every frame.
    let switches = long || new_cpl > cpl;
    if switches {
        let sp = stack.pop(cx, size)?;
        let ss = stack.pop(cx, size)? as u16;
        stack = transfer::return_stack(cx, &d, ss, sp, new_cpl)?;
    }
    let target = segment::code_segment(cx, &mut d, new_cpl)?;
    segment::check_target(cx, &target, ip)?;
    let mut taken = if size == 2 { LOW } else { LOW | HIGH };
    let iopl = (cx.state().sysflags & sysflags::IOPL) >> 12;
    if u64::from(cpl) <= iopl {
        taken |= sysflags::IF;
    }
    if cpl == 0 {
        taken |= sysflags::IOPL;
        if size != 2 {
            taken |= VIF | VIP;
        }
    }
    take_flags(cx, image, taken);
    segment::set(cx, CS, target);
    if switches {
        segment::set(cx, SS, stack.segment);
    }
    stack.commit(cx);
    cx.state().rip = ip;
    cx.sys().cpl = new_cpl;
    if new_cpl > cpl {
        segment::drop_privileged(cx, new_cpl);
    }
    cx.changed();
    Ok(())
}

/// Level 0 returns to virtual-8086 mode.
fn to_virtual_8086(cx: &Cx, mut stack: Stack, ip: u64, cs: u16, image: u64) -> Result<(), Fault> {
    let sp = stack.pop(cx, 4)?;
    let mut selectors = [(SS, 0), (ES, 0), (DS, 0), (FS, 0), (GS, 0)];
    for (_, selector) in &mut selectors {
        *selector = stack.pop(cx, 4)? as u16;
    }
    let target = segment::v86(cs);
    segment::check_target(cx, &target, ip)?;
    segment::set(cx, CS, target);
    for (n, selector) in selectors {
        segment::set(cx, n, segment::v86(selector));
    }
    take_flags(cx, image, ALL);
    let s = cx.state();
    s.gpr[segment::RSP] = sp;
    s.rip = ip;
    s.sys.cpl = 3;
    cx.changed();
    Ok(())
}
