//! Loads and stores of chosen elements, and gathers. Each is one call, which works on the registers
//! themselves: what it has done when an element faults is architectural state.

use super::Lift;
use iced_x86::{Mnemonic, Register};
use metaphrase_ir::{GatherOp, Helper, MaskOp, Type, Value};

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    match mnemonic {
        Vmaskmovps | Vpmaskmovd => mask_move(cx, false),
        Vmaskmovpd | Vpmaskmovq => mask_move(cx, true),
        Vgatherdps | Vpgatherdd => gather(cx, 4, 4),
        Vgatherdpd | Vpgatherdq => gather(cx, 4, 8),
        Vgatherqps | Vpgatherqd => gather(cx, 8, 4),
        Vgatherqpd | Vpgatherqq => gather(cx, 8, 8),
        _ => return false,
    }
    true
}

fn number(r: Register) -> u8 {
    r.number() as u8 & 15
}

/// VMASKMOVPS and the like: between a register and those elements of memory whose mask's sign is
/// set.
fn mask_move(cx: &mut Lift<'_>, quads: bool) {
    let store = cx.is_mem(0);
    let data = cx.insn.op_register(if store { 2 } else { 0 });
    let op = MaskOp {
        data: number(data),
        mask: number(cx.insn.op_register(1)),
        quads,
        wide: data.is_ymm(),
        store,
    };
    // Elements that are not chosen are not accessed, wherever they are: no check of the whole.
    let ea = cx.effective_address();
    let addr = cx.add_segment(cx.insn.memory_segment(), ea);
    cx.ir.call(Helper::MaskMove, op.pack(), &[addr]);
}

/// VPGATHERDD and the like; `index` and `element` are sizes in bytes.
fn gather(cx: &mut Lift<'_>, index: u32, element: u32) {
    let bytes = |r: Register| if r.is_ymm() { 32 } else { 16 };
    let (to, from) = (cx.insn.op_register(0), cx.insn.memory_index());
    let op = GatherOp {
        to: number(to),
        index: number(from),
        mask: number(cx.insn.op_register(2)),
        quad_index: index == 8,
        quads: element == 8,
        count: (bytes(to) / element).min(bytes(from) / index) as u8,
        scale: cx.insn.memory_index_scale().trailing_zeros() as u8,
        short: !cx.mode.is_64() || is_short(cx),
        long: cx.mode.is_64(),
    };
    let base = base(cx);
    let zero = cx.iconst(Type::I64, 0);
    let segment = cx.add_segment(cx.insn.memory_segment(), zero);
    cx.ir.call(Helper::Gather, op.pack(), &[base, segment]);
}

/// Whether addresses have 32 bits.
fn is_short(cx: &Lift<'_>) -> bool {
    match cx.insn.memory_base() {
        Register::None => cx.insn.memory_displ_size() != 8,
        base => base.size() == 4,
    }
}

/// Base and displacement of a vector of addresses.
fn base(cx: &mut Lift<'_>) -> Value {
    let displacement = cx.insn.memory_displacement64();
    let disp = cx.iconst(Type::I64, displacement);
    let base = cx.insn.memory_base();
    if base == Register::None {
        return disp;
    }
    let v = cx.read_gpr(base);
    let v = cx.ir.zext(Type::I64, v);
    cx.ir.add(v, disp)
}
