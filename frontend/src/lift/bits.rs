//! Bit instructions: BT and its kin, BSF, BSR, LZCNT, TZCNT, POPCNT, BSWAP, MOVBE, CRC32.

use super::Lift;
use super::operand::{Place, gpr_part};
use iced_x86::{Mnemonic, OpKind};
use metaphrase_ir::flags::{ARITH, CF, OF, PF, ZF};
use metaphrase_ir::{Helper, IntCc, RmwOp, Type, Value};

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    match mnemonic {
        Mnemonic::Bt => bit_test(cx, None),
        Mnemonic::Bts => bit_test(cx, Some(RmwOp::Or)),
        Mnemonic::Btr => bit_test(cx, Some(RmwOp::And)),
        Mnemonic::Btc => bit_test(cx, Some(RmwOp::Xor)),
        Mnemonic::Bsf => bit_scan(cx, true),
        Mnemonic::Bsr => bit_scan(cx, false),
        Mnemonic::Tzcnt => zero_count(cx, true),
        Mnemonic::Lzcnt => zero_count(cx, false),
        Mnemonic::Popcnt => popcnt(cx),
        Mnemonic::Bswap => bswap(cx),
        Mnemonic::Movbe => movbe(cx),
        Mnemonic::Crc32 => crc32(cx),
        _ => return false,
    }
    true
}

/// LZCNT and TZCNT on a CPU without them: the prefix means nothing, and they are BSR and BSF.
pub fn lift_as_older(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    match mnemonic {
        Mnemonic::Lzcnt => bit_scan(cx, false),
        Mnemonic::Tzcnt => bit_scan(cx, true),
        _ => return false,
    }
    true
}

/// The place of a bit operand. A bit offset in a register reaches beyond a memory operand: it
/// selects the element of a bit string first (SDM volume 2, 3.1.1.9, "Bit(BitBase, BitOffset)").
fn bit_place(cx: &mut Lift<'_>, offset: Value, write: bool) -> Place {
    if !cx.is_mem(0) {
        return cx.place(0);
    }
    let ty = cx.op_type(0);
    if cx.insn.op1_kind() != OpKind::Register {
        return Place::Mem(cx.linear_of(ty.bytes(), write), ty);
    }
    let base = cx.effective_address();
    let offset = cx.ir.sext(Type::I64, offset);
    let to_element = cx.iconst(Type::I64, u64::from(ty.bits().trailing_zeros()));
    let element = cx.ir.ashr(offset, to_element);
    let to_bytes = cx.iconst(Type::I64, u64::from(ty.bytes().trailing_zeros()));
    let distance = cx.ir.shl(element, to_bytes);
    let address = cx.ir.add(base, distance);
    let address = cx.wrap_address(address, cx.address_type());
    let segment = cx.insn.memory_segment();
    Place::Mem(cx.access(segment, address, ty.bytes(), write), ty)
}

/// BT, BTS, BTR, BTC: CF := the bit; then it is left, set, cleared or inverted.
fn bit_test(cx: &mut Lift<'_>, change: Option<RmwOp>) {
    let ty = cx.op_type(0);
    let offset = match cx.insn.op1_kind() {
        OpKind::Register => cx.read(1),
        _ => cx.iconst(ty, cx.insn.immediate(1) & (u64::from(ty.bits()) - 1)),
    };
    let place = bit_place(cx, offset, change.is_some());
    let mask = change.map(|op| {
        let one = cx.iconst(ty, 1);
        let mask = cx.ir.shl(one, offset);
        match op {
            RmwOp::And => cx.ir.not(mask),
            _ => mask,
        }
    });
    let old = match (place, change, mask) {
        (Place::Mem(addr, _), Some(op), Some(mask)) if cx.insn.has_lock_prefix() => {
            cx.ir.rmw(op, addr, mask)
        }
        (_, Some(op), Some(mask)) => {
            let old = cx.load(place);
            let new = match op {
                RmwOp::And => cx.ir.and(old, mask),
                RmwOp::Or => cx.ir.or(old, mask),
                _ => cx.ir.xor(old, mask),
            };
            // The offset may be in the register that changes: it was read before.
            cx.store(place, new);
            old
        }
        _ => cx.load_only(place),
    };
    let bit = cx.ir.lshr(old, offset);
    cx.set_some_flags(ARITH & !CF, &[(CF, bit)]);
}

/// The even parity of the low byte of `v`.
pub fn even_parity(cx: &mut Lift<'_>, v: Value) -> Value {
    let low = cx.ir.trunc(Type::I8, v);
    let ones = cx.ir.popcnt(low);
    cx.ir.not(ones)
}

/// BSF, BSR: dst := the index of the first or last one bit. For a source of 0 only ZF is defined;
/// hosts keep the whole destination register. They set PF from the index (or set it), and clear
/// the other flags.
fn bit_scan(cx: &mut Lift<'_>, forward: bool) {
    let src = cx.read(1);
    let ty = cx.ir.ty(src);
    let zero = cx.ir.icmp_imm(IntCc::Eq, src, 0);
    let index = if forward {
        cx.ir.ctz(src)
    } else {
        let leading = cx.ir.clz(src);
        let top = cx.iconst(ty, u64::from(ty.bits()) - 1);
        cx.ir.sub(top, leading)
    };
    let (reg, _, _) = gpr_part(cx.insn.op0_register());
    let whole = cx.ir.getreg(reg);
    let new = match ty {
        Type::I16 => cx.ir.insert(whole, index, 0),
        _ => cx.ir.zext(Type::I64, index),
    };
    let new = cx.ir.select(zero, whole, new);
    cx.ir.setreg(reg, new);
    let parity = even_parity(cx, index);
    let parity = cx.ir.or(parity, zero);
    cx.set_some_flags(0, &[(ZF, zero), (PF, parity)]);
}

/// TZCNT, LZCNT: the number of zero bits below or above; the width for 0. Hosts keep OF and clear
/// the other undefined flags.
fn zero_count(cx: &mut Lift<'_>, trailing: bool) {
    let src = cx.read(1);
    let n = if trailing {
        cx.ir.ctz(src)
    } else {
        cx.ir.clz(src)
    };
    cx.write(0, n);
    let none = cx.ir.icmp_imm(IntCc::Eq, src, 0);
    let zero = cx.ir.icmp_imm(IntCc::Eq, n, 0);
    cx.set_some_flags(OF, &[(CF, none), (ZF, zero)]);
}

/// POPCNT: the number of one bits; ZF says if there is none.
fn popcnt(cx: &mut Lift<'_>) {
    let src = cx.read(1);
    let n = cx.ir.popcnt(src);
    cx.write(0, n);
    let zero = cx.ir.icmp_imm(IntCc::Eq, src, 0);
    cx.set_some_flags(0, &[(ZF, zero)]);
}

/// BSWAP: dst := its bytes in reverse order. With 16 bits it is undefined, and hosts give 0.
fn bswap(cx: &mut Lift<'_>) {
    let v = cx.read(0);
    let swapped = match cx.ir.ty(v) {
        Type::I16 => cx.iconst(Type::I16, 0),
        _ => cx.ir.bswap(v),
    };
    cx.write(0, swapped);
}

/// MOVBE: a load or store in big-endian order.
fn movbe(cx: &mut Lift<'_>) {
    let v = cx.read(1);
    let swapped = cx.ir.bswap(v);
    cx.write(0, swapped);
}

/// CRC32: dst := the CRC of dst continued over the source; the upper half is 0.
fn crc32(cx: &mut Lift<'_>) {
    let src = cx.read(1);
    let bytes = cx.ir.ty(src).bytes();
    let (reg, _, _) = gpr_part(cx.insn.op0_register());
    let crc = cx.ir.getreg(reg);
    let crc = cx.ir.ext(Type::I32, crc, 0);
    let crc = cx.ir.zext(Type::I64, crc);
    let src = cx.ir.zext(Type::I64, src);
    let new = cx.ir.call(Helper::Crc32, bytes, &[crc, src]);
    let new = cx.ir.trunc(Type::I32, new);
    let new = cx.ir.zext(Type::I64, new);
    cx.ir.setreg(reg, new);
}
