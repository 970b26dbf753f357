//! SSE3: horizontal and alternating arithmetic. (Its moves are with the other moves and shuffles.)

use super::{Lift, call};
use iced_x86::Mnemonic;
use metaphrase_ir::SseOp;

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    let op = match mnemonic {
        Haddps => SseOp::Haddps,
        Haddpd => SseOp::Haddpd,
        Hsubps => SseOp::Hsubps,
        Hsubpd => SseOp::Hsubpd,
        Addsubps => SseOp::Addsubps,
        Addsubpd => SseOp::Addsubpd,
        _ => return false,
    };
    call(cx, op, 0);
    true
}
