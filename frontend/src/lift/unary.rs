//! One-operand arithmetic: INC, DEC, NEG, NOT.

use super::Lift;
use super::alu::carry_in;
use super::operand::Place;
use iced_x86::Mnemonic;
use metaphrase_ir::{AccessKind, FlagKind, IntCc, RmwOp, Type, Value};

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    match mnemonic {
        Mnemonic::Inc => step(cx, RmwOp::Add, FlagKind::Inc),
        Mnemonic::Dec => step(cx, RmwOp::Sub, FlagKind::Dec),
        Mnemonic::Neg => neg(cx),
        Mnemonic::Not => not(cx),
        _ => return false,
    }
    true
}

/// Updates memory atomically to `f(old)`, with a compare-and-swap loop; the old and the new value.
pub fn atomic_update(
    cx: &mut Lift<'_>,
    addr: Value,
    ty: Type,
    f: impl FnOnce(&mut Lift<'_>, Value) -> Value,
) -> (Value, Value) {
    let (again, done) = (cx.ir.new_block(), cx.ir.new_block());
    cx.ir.br(again, &[]);
    cx.ir.switch_to(again);
    let old = cx.ir.load(ty, addr, AccessKind::Update);
    let new = f(cx, old);
    let seen = cx.ir.cas(addr, old, new);
    let won = cx.ir.icmp(IntCc::Eq, seen, old);
    cx.ir.brif(won, (done, &[]), (again, &[]));
    cx.ir.switch_to(done);
    (old, new)
}

/// INC, DEC: dst := dst ± 1; CF stays.
fn step(cx: &mut Lift<'_>, op: RmwOp, kind: FlagKind) {
    let place = cx.place(0);
    let ty = cx.op_type(0);
    let one = cx.iconst(ty, 1);
    let locked = match place {
        Place::Mem(addr, _) if cx.insn.has_lock_prefix() => Some(cx.ir.rmw(op, addr, one)),
        _ => None,
    };
    let old = match locked {
        Some(old) => old,
        None => cx.load(place),
    };
    let new = match op {
        RmwOp::Add => cx.ir.add(old, one),
        _ => cx.ir.sub(old, one),
    };
    if locked.is_none() {
        cx.store(place, new);
    }
    let carry = carry_in(cx, new);
    cx.ir.setflags(kind, &[new, carry]);
}

/// NEG: dst := 0 - dst.
fn neg(cx: &mut Lift<'_>) {
    let old = match cx.place(0) {
        Place::Mem(addr, ty) if cx.insn.has_lock_prefix() => {
            atomic_update(cx, addr, ty, |cx, old| cx.ir.neg(old)).0
        }
        place => {
            let old = cx.load(place);
            let new = cx.ir.neg(old);
            cx.store(place, new);
            old
        }
    };
    let zero = cx.iconst(cx.ir.ty(old), 0);
    cx.ir.setflags(FlagKind::Sub, &[zero, old]);
}

/// NOT: dst := dst with every bit inverted. No flags.
fn not(cx: &mut Lift<'_>) {
    match cx.place(0) {
        Place::Mem(addr, ty) if cx.insn.has_lock_prefix() => {
            let ones = cx.iconst(ty, u64::MAX);
            cx.ir.rmw(RmwOp::Xor, addr, ones);
        }
        place => {
            let old = cx.load(place);
            let new = cx.ir.not(old);
            cx.store(place, new);
        }
    }
}
