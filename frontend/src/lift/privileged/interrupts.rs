//! RFLAGS, interrupts and waiting: CLI, STI, PUSHF, POPF, CLAC, STAC, HLT, MONITOR, MWAIT; and the
//! caches: INVLPG, INVPCID, INVD, WBINVD.

use super::op;
use crate::lift::Lift;
use crate::lift::stack_ops::rflags_image;
use crate::mode::Level;
use crate::policy::{Policy, Sensitive};
use iced_x86::{Mnemonic, Register};
use metaphrase_ir::{Reg, SystemKind, Type, Value, sysflags};

/// CLI: IOPL and the virtual interrupt flag are the helper's, but at level 0 they do not matter.
pub(super) fn cli(cx: &mut Lift<'_>) {
    match cx.policy(Sensitive::Cli) {
        Some(Policy::Inline) if cx.level().cpl() == 0 => {
            let old = cx.ir.getreg(Reg::SysFlags);
            let others = cx.iconst(Type::I64, !sysflags::IF);
            let new = cx.ir.and(old, others);
            cx.ir.setreg(Reg::SysFlags, new);
        }
        Some(_) => cx.plain(SystemKind::Cli, 0),
        None => {}
    }
}

/// STI.
pub(super) fn sti(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::Sti).is_some() {
        cx.plain(SystemKind::Sti, 0);
    }
}

/// The operand size of PUSHF and POPF.
fn image_type(cx: &Lift<'_>) -> Type {
    match cx.insn.mnemonic() {
        Mnemonic::Pushf | Mnemonic::Popf => Type::I16,
        Mnemonic::Pushfd | Mnemonic::Popfd => Type::I32,
        _ => Type::I64,
    }
}

/// PUSHF, PUSHFD, PUSHFQ: sensitive to IOPL in virtual-8086 mode only.
pub(super) fn pushf(cx: &mut Lift<'_>) {
    let Some(policy) = cx.policy(Sensitive::Pushf) else {
        return;
    };
    let ty = image_type(cx);
    let image = if policy == Policy::Inline && cx.level() != Level::V86 {
        rflags_image(cx)
    } else {
        cx.system(op(SystemKind::Pushf, ty.bytes(), 0), None, None)
    };
    let v = cx.ir.trunc(ty, image);
    cx.push(v);
}

/// POPF, POPFD, POPFQ: the helper writes the flags and moves the stack pointer.
pub(super) fn popf(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::Popf).is_none() {
        return;
    }
    let ty = image_type(cx);
    let image = cx.peek(ty, 0);
    let top = cx.stack_offset(i64::from(ty.bytes()));
    let op = op(SystemKind::Popf, ty.bytes(), 0);
    cx.system(op, Some(image), Some(top));
}

/// CLAC, STAC: #UD where they may not be used.
pub(super) fn clac(cx: &mut Lift<'_>, set: bool) {
    if cx.level().cpl() != 0 {
        return cx.ud();
    }
    if cx.policy(Sensitive::Clac).is_some() {
        cx.plain(SystemKind::Clac, u8::from(set));
    }
}

/// MONITOR, MWAIT: #UD where they may not be used (SDM volume 2; IA32_MISC_ENABLE cannot open them
/// to other levels). The helper reads ECX, and the monitored byte.
pub(super) fn monitor(cx: &mut Lift<'_>, wait: bool) {
    if cx.level().cpl() != 0 {
        return cx.ud();
    }
    if cx.policy(Sensitive::Monitor).is_none() {
        return;
    }
    if wait {
        cx.plain(SystemKind::Hlt, 1);
    } else {
        let addr = monitored(cx);
        cx.system(op(SystemKind::Monitor, 0, 0), Some(addr), None);
    }
}

/// The linear address in rAX of the address size.
fn monitored(cx: &mut Lift<'_>) -> Value {
    let r = match cx.insn.op0_register() {
        Register::None => Register::RAX,
        r => r,
    };
    let v = cx.read_gpr(r);
    let ea = cx.ir.zext(Type::I64, v);
    let segment = match cx.insn.segment_prefix() {
        Register::None => Register::DS,
        r => r,
    };
    cx.access(segment, ea, 1, false)
}

/// HLT.
pub(super) fn hlt(cx: &mut Lift<'_>) {
    if cx.privileged(Sensitive::Hlt) {
        cx.plain(SystemKind::Hlt, 0);
    }
}

/// INVLPG of an address, which is not accessed; INVPCID of a type and a descriptor in memory.
pub(super) fn invalidate(cx: &mut Lift<'_>, page: bool) {
    if page {
        if cx.privileged(Sensitive::Invlpg) {
            let ea = cx.effective_address();
            let addr = cx.add_segment(cx.insn.memory_segment(), ea);
            cx.system(op(SystemKind::Invlpg, 0, 0), Some(addr), None);
        }
        return;
    }
    // A CPU without it raises #UD at every level, and only the helper knows.
    if cx.policy(Sensitive::Invpcid).is_none() {
        return;
    }
    let reg = Reg::gpr(cx.insn.op0_register().full_register().number());
    let kind = if cx.mode.is_64() {
        cx.ir.getreg(reg)
    } else {
        cx.read(0)
    };
    let addr = if cx.level().cpl() == 0 {
        cx.linear_of(16, false)
    } else {
        cx.iconst(Type::I64, 0)
    };
    cx.system(op(SystemKind::Invpcid, 0, 0), Some(kind), Some(addr));
}

/// INVD, WBINVD, WBNOINVD.
pub(super) fn flush_caches(cx: &mut Lift<'_>) {
    if cx.privileged(Sensitive::Invd) {
        cx.plain(SystemKind::Wbinvd, 0);
    }
}
