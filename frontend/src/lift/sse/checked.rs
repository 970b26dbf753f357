//! Floating point while an exception is unmasked in MXCSR (a mode of its own, since a translation
//! either minds or does not): every instruction that can raise #XM is a call that raises it before
//! anything is written.

use super::{Lift, source};
use iced_x86::Mnemonic;
use metaphrase_ir::Shape::{I32x4, I64x2};
use metaphrase_ir::{FlagKind, Helper, SseForm, SseOp, Type, Value, flags};

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    if !cx.mode.unmasked {
        return false;
    }
    let Some(op) = operation(cx, mnemonic) else {
        return false;
    };
    let imm = match op.form() {
        SseForm::Imm(_) => cx.imm8(2) as u8,
        _ => 0,
    };
    let b = source(cx, op);
    match op.form() {
        SseForm::ToI32 | SseForm::ToI64 => {
            let r = call(cx, op, imm, b, b);
            let shape = if op.form() == SseForm::ToI32 {
                I32x4
            } else {
                I64x2
            };
            let n = cx.ir.vget(shape, r, 0);
            cx.write(0, n);
        }
        SseForm::Flags => {
            let a = cx.xmm(0);
            let r = call(cx, op, imm, a, b);
            let image = cx.ir.vget(I64x2, r, 0);
            let mask = cx.iconst(Type::I64, flags::CF | flags::PF | flags::ZF);
            let image = cx.ir.and(image, mask);
            cx.ir.setflags(FlagKind::Raw, &[image]);
        }
        _ => {
            let a = cx.xmm(0);
            let r = call(cx, op, imm, a, b);
            cx.set_xmm(0, r);
        }
    }
    true
}

/// A call that may raise #XM.
pub fn call(cx: &mut Lift<'_>, op: SseOp, imm: u8, a: Value, b: Value) -> Value {
    // Both halves of a VEX.256 instruction are looked at before it raises one #XM for both.
    let helper = match cx.vex {
        Some(vex) if vex.wide && vex.half == 0 => Helper::SseDeferred,
        _ => Helper::SseChecked,
    };
    cx.ir.call(helper, op.pack(imm), &[a, b])
}

/// The operation of an instruction.
fn operation(cx: &Lift<'_>, mnemonic: Mnemonic) -> Option<SseOp> {
    let mut name = format!("{mnemonic:?}").to_ascii_lowercase();
    let op = SseOp::from_name(&name)?;
    let wide = match op.form() {
        SseForm::FromI32 => cx.op_type(1) == Type::I64,
        SseForm::ToI32 => cx.op_type(0) == Type::I64,
        _ => false,
    };
    if !wide {
        return Some(op);
    }
    name.push('q');
    SseOp::from_name(&name)
}
