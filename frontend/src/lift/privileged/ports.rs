//! Ports: IN, OUT, INS, OUTS. IOPL and the I/O bitmap are the helper's.

use super::op;
use crate::lift::{Lift, string};
use crate::policy::Sensitive;
use iced_x86::Mnemonic;
use metaphrase_ir::{SystemKind, SystemOp, Type, Value};

/// The port in operand `n`: DX or an 8-bit immediate.
fn number(cx: &mut Lift<'_>, n: u32) -> Value {
    let v = cx.read(n);
    cx.ir.zext(Type::I64, v)
}

/// IN, OUT.
pub(super) fn port(cx: &mut Lift<'_>, out: bool) {
    if cx.policy(Sensitive::Io).is_none() {
        return;
    }
    if out {
        let port = number(cx, 0);
        let v = cx.read(1);
        let size = cx.ir.ty(v).bytes();
        cx.system(op(SystemKind::Out, size, 0), Some(port), Some(v));
    } else {
        let size = cx.op_type(0).bytes();
        let port = number(cx, 1);
        cx.system(op(SystemKind::In, size, 0), Some(port), None);
    }
}

/// INS, OUTS. With REP one call does a bounded number; while more are left the helper makes RIP
/// `a`, the instruction itself.
pub(super) fn string(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::Io).is_none() {
        return;
    }
    let out = matches!(
        cx.insn.mnemonic(),
        Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd
    );
    let rep = cx.insn.has_rep_prefix() || cx.insn.has_repne_prefix();
    let segment = if out {
        cx.insn.memory_segment().number() as u8
    } else {
        0
    };
    let size = cx.insn.memory_size().size() as u32;
    let op = SystemOp {
        m: string::address_type(cx).bytes() as u8 | u8::from(rep) << 4 | segment << 5,
        ..op(SystemKind::PortString, size, u8::from(out))
    };
    let here = cx.offset(cx.insn.ip());
    let here = cx.ir.pc(here);
    cx.system(op, Some(here), None);
}
