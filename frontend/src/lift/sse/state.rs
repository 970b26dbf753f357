//! MXCSR, and the images of FXSAVE and XSAVE.

use super::Lift;
use crate::features::Features;
use iced_x86::{Mnemonic, Register};
use metaphrase_ir::{Helper, Type, Value, XsaveOp};

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    match mnemonic {
        Ldmxcsr => {
            let v = cx.load_scalar(Type::I32);
            cx.ir.call(Helper::Ldmxcsr, 0, &[v]);
        }
        Stmxcsr => {
            let addr = cx.linear_write();
            let v = cx.ir.call(Helper::Stmxcsr, 0, &[]);
            cx.ir.store(addr, v, cx.operand_kind());
        }
        Fxsave => image(cx, Helper::Fxsave, 0),
        Fxsave64 => image(cx, Helper::Fxsave, 1),
        Fxrstor => image(cx, Helper::Fxrstor, 0),
        Fxrstor64 => image(cx, Helper::Fxrstor, 1),
        Xsave => extended(cx, Helper::Xsave, |_| {}),
        Xsave64 => extended(cx, Helper::Xsave, |op| op.rex_w = true),
        Xsaveopt => extended(cx, Helper::Xsave, |op| op.optimized = true),
        Xsaveopt64 => extended(cx, Helper::Xsave, |op| {
            (op.rex_w, op.optimized) = (true, true);
        }),
        Xsavec => extended(cx, Helper::Xsave, |op| op.compacted = true),
        Xsavec64 => extended(cx, Helper::Xsave, |op| {
            (op.rex_w, op.compacted) = (true, true);
        }),
        Xrstor => extended(cx, Helper::Xrstor, |_| {}),
        Xrstor64 => extended(cx, Helper::Xrstor, |op| op.rex_w = true),
        Xgetbv => xgetbv(cx),
        _ => return false,
    }
    true
}

/// FXSAVE, FXRSTOR: the image is aligned to 16 bytes; `rex_w` is 1 for the form with REX.W.
fn image(cx: &mut Lift<'_>, helper: Helper, rex_w: u32) {
    let addr = cx.vector_address(true, helper == Helper::Fxsave);
    let descriptor = rex_w | u32::from(cx.mode.is_64()) << 1;
    cx.ir.call(helper, descriptor, &[addr]);
}

/// XSAVE and its kin: the components that EDX:EAX names.
fn extended(cx: &mut Lift<'_>, helper: Helper, change: impl Fn(&mut XsaveOp)) {
    let mut op = XsaveOp {
        rex_w: false,
        long: cx.mode.is_64(),
        optimized: false,
        compacted: false,
        offers_compaction: cx.mode.features.has(Features::XSAVEC),
    };
    change(&mut op);
    let addr = extended_address(cx, helper == Helper::Xsave);
    let low = cx.read_gpr(Register::EAX);
    let low = cx.ir.zext(Type::I64, low);
    let high = cx.read_gpr(Register::EDX);
    let high = cx.ir.zext(Type::I64, high);
    let shift = cx.iconst(Type::I64, 32);
    let high = cx.ir.shl(high, shift);
    let mask = cx.ir.or(low, high);
    cx.ir.call(helper, op.pack(), &[addr, mask]);
}

/// The image's linear address. Segments are asked for the legacy region and the header, which every
/// image has; extended regions behind them are taken to lie in the segment too.
fn extended_address(cx: &mut Lift<'_>, write: bool) -> Value {
    let ea = cx.effective_address();
    let segment = cx.insn.memory_segment();
    if cx.is_checked(segment, write) {
        let legacy = cx.iconst(Type::I64, 512);
        let header = cx.ir.add(ea, legacy);
        cx.check_segment(segment, header, 64, write);
    }
    cx.access(segment, ea, 512, write)
}

/// XGETBV: register ECX to EDX:EAX.
fn xgetbv(cx: &mut Lift<'_>) {
    let number = cx.read_gpr(Register::ECX);
    let more = u32::from(cx.mode.features.has(Features::XGETBV1));
    let v = cx.ir.call(Helper::Xgetbv, more, &[number]);
    for (register, at) in [(Register::EAX, 0), (Register::EDX, 32)] {
        let half = cx.ir.ext(Type::I32, v, at);
        cx.write_gpr(register, half);
    }
}
