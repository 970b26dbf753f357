//! FMA3 and F16C.

use super::{Lift, each_half};
use iced_x86::{CpuidFeature, Mnemonic};
use metaphrase_ir::Shape::{F32x4, F64x2};
use metaphrase_ir::{FmaOp, HalfOp, Helper, RmwOp, Shape, Type, Value};

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    match mnemonic {
        Mnemonic::Vcvtph2ps => each_half(cx, mnemonic, |cx| {
            let v = cx.xmm_low(1, 8);
            let deferred = cx.vex.is_some_and(|vex| vex.wide && vex.half == 0);
            let r = half(cx, v, false, 0, deferred);
            cx.set_xmm(0, r);
            true
        }),
        Mnemonic::Vcvtps2ph => to_half(cx),
        _ => fused(cx, mnemonic),
    }
}

/// A fused instruction taken apart: `V`, the operation, the order of operands, the lanes' type.
fn parse(mnemonic: Mnemonic) -> Option<(FmaOp, [usize; 3], Shape, bool)> {
    let name = format!("{mnemonic:?}").to_ascii_lowercase();
    let (operation, rest) = name.strip_prefix('v')?.split_at_checked(name.len() - 6)?;
    let (order, kind) = rest.split_at_checked(3)?;
    let (negate, even, odd) = match operation {
        "fmadd" => (false, false, false),
        "fmsub" => (false, true, true),
        "fnmadd" => (true, false, false),
        "fnmsub" => (true, true, true),
        "fmaddsub" => (false, true, false),
        "fmsubadd" => (false, false, true),
        _ => return None,
    };
    // Which operands are multiplied, and which is added.
    let operands = match order {
        "132" => [0, 2, 1],
        "213" => [1, 0, 2],
        "231" => [1, 2, 0],
        _ => return None,
    };
    let double = kind.ends_with('d');
    let op = FmaOp {
        double,
        negate,
        even,
        odd,
        deferred: false,
    };
    let shape = if double { F64x2 } else { F32x4 };
    Some((op, operands, shape, kind.starts_with('s')))
}

/// VFMADD132PS and its kin.
fn fused(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    if !cx.insn.cpuid_features().contains(&CpuidFeature::FMA) {
        return false;
    }
    let Some((op, [x, y, z], shape, scalar)) = parse(mnemonic) else {
        return false;
    };
    if scalar {
        let v = [0, 1, 2].map(|n| {
            let v = cx.scalar(n, shape);
            cx.ir.vfromint(v)
        });
        let r = multiply_add(cx, op, v[x], v[y], v[z]);
        let low = cx.ir.vget(shape, r, 0);
        let old = cx.xmm(0);
        let new = cx.ir.vset(shape, old, 0, low);
        cx.set_xmm_zero_upper(0, new);
        return true;
    }
    let last = cx.ymm(2);
    let v = [cx.ymm(0), cx.ymm(1), last];
    if !super::is_wide(cx) {
        let r = multiply_add(cx, op, v[x][0], v[y][0], v[z][0]);
        cx.set_xmm_zero_upper(0, r);
        return true;
    }
    let lower = FmaOp {
        deferred: true,
        ..op
    };
    let low = multiply_add(cx, lower, v[x][0], v[y][0], v[z][0]);
    let high = multiply_add(cx, op, v[x][1], v[y][1], v[z][1]);
    cx.set_ymm(0, [low, high]);
    true
}

fn multiply_add(cx: &mut Lift<'_>, op: FmaOp, x: Value, y: Value, z: Value) -> Value {
    let helper = if cx.mode.unmasked {
        Helper::FmaChecked
    } else {
        Helper::Fma
    };
    cx.ir.call(helper, op.pack(), &[x, y, z])
}

/// A conversion of four elements.
fn half(cx: &mut Lift<'_>, v: Value, to_half: bool, rounding: u8, deferred: bool) -> Value {
    let op = HalfOp {
        to_half,
        rounding,
        deferred,
    };
    let helper = if cx.mode.unmasked {
        Helper::HalfFloatChecked
    } else {
        Helper::HalfFloat
    };
    cx.ir.call(helper, op.pack(), &[v])
}

/// VCVTPS2PH: to a register, or to as much memory as there are results.
fn to_half(cx: &mut Lift<'_>) -> bool {
    let wide = super::is_wide(cx);
    let address = cx.is_mem(0).then(|| {
        let addr = cx.linear_write();
        // A store that faults leaves no flags in MXCSR.
        let size: u64 = if wide { 16 } else { 8 };
        let last = cx.iconst(Type::I64, size - 1);
        let last = cx.ir.add(addr, last);
        // Where a second page would start, if it crosses into one.
        let tiles = cx.iconst(Type::I64, !(size - 1));
        let last = cx.ir.and(last, tiles);
        let none = cx.iconst(Type::I8, 0);
        cx.ir.rmw(RmwOp::Or, addr, none);
        cx.ir.rmw(RmwOp::Or, last, none);
        addr
    });
    let rounding = cx.imm8(2) as u8 & 7;
    let source = cx.ymm(1);
    let low = half(cx, source[0], true, rounding, wide);
    let result = if wide {
        let high = half(cx, source[1], true, rounding, false);
        let quads = crate::lift::sse::shuffle::interleave(8, 0);
        cx.ir.vshuffle(low, high, u128::from_le_bytes(quads))
    } else {
        low
    };
    match address {
        None => cx.set_xmm_zero_upper(0, result),
        Some(addr) if wide => cx.ir.store(addr, result, cx.operand_kind()),
        Some(addr) => {
            let low = cx.ir.vget(Shape::I64x2, result, 0);
            cx.ir.store(addr, low, cx.operand_kind());
        }
    }
    true
}
