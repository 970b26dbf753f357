//! What MMX instructions do to the x87 state besides their MMX registers (SDM volume 1, 9.5).

use super::Cx;

/// The #MF vector.
const MF: u8 = 16;
/// The exception-summary bit of the x87 status word.
const ES: u16 = 1 << 7;
/// In the descriptor: only the check for a pending exception.
const CHECK: u32 = 1 << 8;

/// Raises #MF if an x87 exception is pending, and says so.
fn is_pending(cx: &Cx) -> bool {
    let pending = cx.state_with_x87().x87.status & ES != 0;
    if pending {
        cx.raise(MF, None);
    }
    pending
}

/// See [`metaphrase_ir::Helper::EnterMmx`].
pub(super) fn enter_mmx(cx: &Cx, descriptor: u32, _args: [u64; 3]) -> u64 {
    if is_pending(cx) || descriptor & CHECK != 0 {
        return 0;
    }
    let f = &mut cx.state().x87;
    f.top = 0;
    f.tags = 0xff;
    for (n, reg) in f.regs.iter_mut().enumerate() {
        if descriptor >> n & 1 != 0 {
            reg.exponent = 0xffff;
        }
    }
    0
}

/// EMMS.
pub(super) fn emms(cx: &Cx, _descriptor: u32, _args: [u64; 3]) -> u64 {
    if !is_pending(cx) {
        let f = &mut cx.state().x87;
        f.top = 0;
        f.tags = 0;
    }
    0
}
