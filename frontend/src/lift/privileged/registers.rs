//! Control, debug and model-specific registers, and the counters.

use super::op;
use crate::lift::Lift;
use crate::policy::Sensitive;
use iced_x86::Register;
use metaphrase_ir::{SystemKind, Type, Value};

/// The policy's name for a MOV to or from `r`, if such a register exists. Others are #UD at every
/// privilege level (SDM volume 2, "MOV—Move to/from Control Registers"); what CR4.DE makes of DR4
/// and DR5 is the helper's.
fn sensitive(r: Register) -> Option<Sensitive> {
    match r {
        Register::CR0 | Register::CR2 | Register::CR3 | Register::CR4 | Register::CR8 => {
            Some(Sensitive::MovCr)
        }
        r if r.is_dr() && r.number() < 8 => Some(Sensitive::MovDr),
        _ => None,
    }
}

/// MOV CRn, MOV DRn from a general register.
pub(super) fn mov_to(cx: &mut Lift<'_>) {
    let r = cx.insn.op0_register();
    let Some(kind) = sensitive(r) else {
        return cx.ud();
    };
    if !cx.privileged(kind) {
        return;
    }
    let v = cx.read(1);
    let size = cx.ir.ty(v).bytes();
    let kind = if r.is_cr() {
        SystemKind::WriteCr
    } else {
        SystemKind::WriteDr
    };
    cx.system(op(kind, size, r.number() as u8), Some(v), None);
}

/// MOV of CRn, DRn to a general register.
pub(super) fn mov_from(cx: &mut Lift<'_>) {
    let r = cx.insn.op1_register();
    let Some(kind) = sensitive(r) else {
        return cx.ud();
    };
    if !cx.privileged(kind) {
        return;
    }
    let ty = cx.op_type(0);
    let kind = if r.is_cr() {
        SystemKind::ReadCr
    } else {
        SystemKind::ReadDr
    };
    let v = cx.system(op(kind, ty.bytes(), r.number() as u8), None, None);
    let v = cx.ir.trunc(ty, v);
    cx.write(0, v);
}

/// CLTS.
pub(super) fn clts(cx: &mut Lift<'_>) {
    if cx.privileged(Sensitive::Clts) {
        cx.plain(SystemKind::Clts, 0);
    }
}

/// LMSW: the low 16 bits of r/m.
pub(super) fn lmsw(cx: &mut Lift<'_>) {
    if cx.privileged(Sensitive::Lmsw) {
        let v = word(cx, 0);
        cx.system(op(SystemKind::Lmsw, 2, 0), Some(v), None);
    }
}

/// The low 16 bits of operand `n`.
pub(super) fn word(cx: &mut Lift<'_>, n: u32) -> Value {
    let v = cx.read(n);
    cx.ir.trunc(Type::I16, v)
}

/// SMSW: 16 bits to memory, the operand size to a register.
pub(super) fn smsw(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::Smsw).is_some() {
        let v = cx.system(op(SystemKind::Smsw, 0, 0), None, None);
        store_word(cx, v);
    }
}

/// Writes operand 0: 16 bits to memory, as much as the operand size to a register.
pub(super) fn store_word(cx: &mut Lift<'_>, v: Value) {
    if cx.is_mem(0) {
        let addr = cx.linear_of(2, true);
        let v = cx.ir.trunc(Type::I16, v);
        cx.ir.store(addr, v, cx.operand_kind());
    } else {
        let v = cx.ir.trunc(cx.op_type(0), v);
        cx.write(0, v);
    }
}

/// RDMSR: the helper reads and writes the registers.
pub(super) fn rdmsr(cx: &mut Lift<'_>) {
    if cx.privileged(Sensitive::Rdmsr) {
        cx.plain(SystemKind::Rdmsr, 0);
    }
}

/// WRMSR.
pub(super) fn wrmsr(cx: &mut Lift<'_>) {
    if cx.privileged(Sensitive::Wrmsr) {
        cx.plain(SystemKind::Wrmsr, 0);
    }
}

/// RDTSC: EDX:EAX := the counter.
pub(super) fn rdtsc(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::Rdtsc).is_some() {
        let v = cx.system(op(SystemKind::Rdtsc, 0, 0), None, None);
        cx.write_pair(v);
    }
}

/// RDTSCP: also ECX := IA32_TSC_AUX.
pub(super) fn rdtscp(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::Rdtscp).is_some() {
        let v = cx.system(op(SystemKind::Rdtsc, 0, 0), None, None);
        let aux = cx.system(op(SystemKind::Rdtscp, 0, 1), None, None);
        cx.write_pair(v);
        let aux = cx.ir.trunc(Type::I32, aux);
        cx.write_gpr(Register::ECX, aux);
    }
}

/// RDPID: the register := IA32_TSC_AUX.
pub(super) fn rdpid(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::Rdtscp).is_some() {
        let aux = cx.system(op(SystemKind::Rdtscp, 0, 0), None, None);
        let aux = cx.ir.trunc(cx.op_type(0), aux);
        cx.write(0, aux);
    }
}

/// RDPMC: EDX:EAX := the counter. CR4.PCE is the helper's to check.
pub(super) fn rdpmc(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::Rdpmc).is_some() {
        let v = cx.system(op(SystemKind::Rdpmc, 0, 0), None, None);
        cx.write_pair(v);
    }
}

/// XSETBV: #UD without CR4.OSXSAVE, before the privilege is looked at.
pub(super) fn xsetbv(cx: &mut Lift<'_>) {
    if !cx.mode.system.is_some_and(|system| system.osxsave) {
        return cx.ud();
    }
    if cx.privileged(Sensitive::Xsetbv) {
        cx.plain(SystemKind::Xsetbv, 0);
    }
}
