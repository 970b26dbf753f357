//! MXCSR and the FXSAVE image.

use super::Lift;
use iced_x86::Mnemonic;
use metaphrase_ir::{AccessKind, Helper, Type};

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    match mnemonic {
        Ldmxcsr => {
            let v = cx.load_scalar(Type::I32);
            cx.ir.call(Helper::Ldmxcsr, 0, &[v]);
        }
        Stmxcsr => {
            let addr = cx.linear();
            let v = cx.ir.call(Helper::Stmxcsr, 0, &[]);
            cx.ir.store(addr, v, AccessKind::Data);
        }
        Fxsave => image(cx, Helper::Fxsave, 0),
        Fxsave64 => image(cx, Helper::Fxsave, 1),
        Fxrstor => image(cx, Helper::Fxrstor, 0),
        Fxrstor64 => image(cx, Helper::Fxrstor, 1),
        _ => return false,
    }
    true
}

/// FXSAVE, FXRSTOR: the image is aligned to 16 bytes; `rex_w` is 1 for the form with REX.W.
fn image(cx: &mut Lift<'_>, helper: Helper, rex_w: u32) {
    let addr = cx.vector_address(true);
    let descriptor = rex_w | u32::from(cx.mode.is_64()) << 1;
    cx.ir.call(helper, descriptor, &[addr]);
}
