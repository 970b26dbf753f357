//! MASKMOVDQU, and what it shares with MASKMOVQ: the store of chosen bytes.

use super::Lift;
use iced_x86::{Mnemonic, OpKind, Register};
use metaphrase_ir::{Block, IntCc, RmwOp, Shape, Type, Value};

/// Lifts the instruction if it is this one.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    if mnemonic != Mnemonic::Maskmovdqu {
        return false;
    }
    let (data, mask) = (cx.xmm(1), cx.xmm(2));
    let chosen = cx.ir.vmask(Shape::I8x16, mask);
    touch(cx, 16);
    store_chosen(cx, data, chosen);
    true
}

/// Faults if one of the `size` bytes cannot be written.
///
/// Nothing may be written if one of the bytes cannot be. Which bytes count is up to the CPU (SDM
/// volume 2, MASKMOVDQU); here as on real ones all do, whatever the mask. They lie on two pages at
/// most: touch the first byte, and the first one at a multiple of `size`, which is where another
/// page would start, without a change.
pub fn touch(cx: &mut Lift<'_>, size: u64) {
    let ea = offset(cx);
    let addr = cx.access_aligned(cx.insn.memory_segment(), ea, size as u32, true, 1);
    let last = cx.iconst(Type::I64, size - 1);
    let tiles = cx.iconst(Type::I64, !(size - 1));
    let end = cx.ir.add(addr, last);
    let second = cx.ir.and(end, tiles);
    let none = cx.iconst(Type::I8, 0);
    cx.ir.rmw(RmwOp::Or, addr, none);
    cx.ir.rmw(RmwOp::Or, second, none);
}

/// Stores the bytes of `data` whose bits are set in `chosen`.
pub fn store_chosen(cx: &mut Lift<'_>, data: Value, chosen: Value) {
    let ea = offset(cx);
    let addr = cx.add_segment(cx.insn.memory_segment(), ea);
    let low = cx.ir.vget(Shape::I64x2, data, 0);
    let high = cx.ir.vget(Shape::I64x2, data, 1);
    let (bytes, done) = (cx.ir.new_block(), cx.ir.new_block());
    let any = cx.ir.icmp_imm(IntCc::Ne, chosen, 0);
    cx.ir
        .brif(any, (bytes, &[chosen, addr, low, high]), (done, &[]));
    store_bytes(cx, bytes, done);
    cx.ir.switch_to(done);
}

/// The effective address in DI, EDI or RDI.
fn offset(cx: &mut Lift<'_>) -> Value {
    let r = match cx.insn.op_kind(0) {
        OpKind::MemorySegDI => Register::DI,
        OpKind::MemorySegEDI => Register::EDI,
        _ => Register::RDI,
    };
    let v = cx.read_gpr(r);
    cx.ir.zext(Type::I64, v)
}

/// Fills `head`: a loop that stores the low byte of a 16-byte value where bit 0 of a mask is set,
/// then moves value, mask and address on by one, until the mask is empty.
fn store_bytes(cx: &mut Lift<'_>, head: Block, done: Block) {
    let mask = cx.ir.param(head, Type::I64);
    let addr = cx.ir.param(head, Type::I64);
    let low = cx.ir.param(head, Type::I64);
    let high = cx.ir.param(head, Type::I64);
    let (store, next) = (cx.ir.new_block(), cx.ir.new_block());

    cx.ir.switch_to(head);
    let bit = cx.ir.trunc(Type::I8, mask);
    let one = cx.iconst(Type::I8, 1);
    let bit = cx.ir.and(bit, one);
    cx.ir.brif(bit, (store, &[]), (next, &[]));

    cx.ir.switch_to(store);
    let byte = cx.ir.trunc(Type::I8, low);
    cx.ir.store(addr, byte, cx.operand_kind());
    cx.ir.br(next, &[]);

    cx.ir.switch_to(next);
    let one = cx.iconst(Type::I64, 1);
    let eight = cx.iconst(Type::I64, 8);
    let up = cx.iconst(Type::I64, 56);
    let rest = cx.ir.lshr(mask, one);
    let addr = cx.ir.add(addr, one);
    let low = cx.ir.lshr(low, eight);
    let carried = cx.ir.shl(high, up);
    let low = cx.ir.or(low, carried);
    let high = cx.ir.lshr(high, eight);
    let more = cx.ir.icmp_imm(IntCc::Ne, rest, 0);
    cx.ir
        .brif(more, (head, &[rest, addr, low, high]), (done, &[]));
}
