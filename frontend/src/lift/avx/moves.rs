//! Moves of 256 bits to memory, and what looks at a whole vector at once: sign masks and tests.

use super::Lift;
use iced_x86::{Mnemonic, OpKind};
use metaphrase_ir::{FlagKind, IntCc, Reg, RmwOp, Shape, Type, Value, flags};

/// Lifts the instruction if it is one of this group.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    match mnemonic {
        Vmovaps | Vmovapd | Vmovdqa | Vmovntps | Vmovntpd | Vmovntdq
            if cx.is_mem(0) && super::is_wide(cx) =>
        {
            store(cx, true);
        }
        Vmovups | Vmovupd | Vmovdqu if cx.is_mem(0) && super::is_wide(cx) => store(cx, false),
        Vmovmskps => mask(cx, Shape::I32x4),
        Vmovmskpd => mask(cx, Shape::I64x2),
        Vpmovmskb => mask(cx, Shape::I8x16),
        Vptest => test(cx, None),
        Vtestps => test(cx, Some(Shape::I32x4)),
        Vtestpd => test(cx, Some(Shape::I64x2)),
        Vzeroupper => zero(cx, false),
        Vzeroall => zero(cx, true),
        _ => return false,
    }
    true
}

/// VMOVUPS and the like: 32 bytes to memory, all of them or none.
fn store(cx: &mut Lift<'_>, aligned: bool) {
    let addr = cx.linear_write();
    if aligned {
        cx.check_aligned(addr, 32);
    } else {
        touch_two_pages(cx, addr);
    }
    let [low, high] = cx.ymm(1);
    let sixteen = cx.iconst(Type::I64, 16);
    let above = cx.ir.add(addr, sixteen);
    cx.ir.store(addr, low, cx.operand_kind());
    cx.ir.store(above, high, cx.operand_kind());
}

/// Faults if 32 bytes lie on two pages of which one cannot be written.
fn touch_two_pages(cx: &mut Lift<'_>, addr: Value) {
    debug_assert!(cx.insn.op_kind(0) == OpKind::Memory);
    let offset = cx.iconst(Type::I64, 0xfff);
    let offset = cx.ir.and(addr, offset);
    let crosses = cx.ir.icmp_imm(IntCc::Ugt, offset, 0xfe0);
    let (touch, done) = (cx.ir.new_block(), cx.ir.new_block());
    cx.ir.brif(crosses, (touch, &[]), (done, &[]));
    cx.ir.switch_to(touch);
    let none = cx.iconst(Type::I8, 0);
    cx.ir.rmw(RmwOp::Or, addr, none);
    let page = cx.iconst(Type::I64, !0xfff);
    let next = cx.iconst(Type::I64, 31);
    let last = cx.ir.add(addr, next);
    let second = cx.ir.and(last, page);
    let none = cx.iconst(Type::I8, 0);
    cx.ir.rmw(RmwOp::Or, second, none);
    cx.ir.br(done, &[]);
    cx.ir.switch_to(done);
}

/// The sign bits of all lanes of a vector.
fn signs(cx: &mut Lift<'_>, shape: Shape, v: [Value; 2], wide: bool) -> Value {
    let low = cx.ir.vmask(shape, v[0]);
    if !wide {
        return low;
    }
    let high = cx.ir.vmask(shape, v[1]);
    let lanes = cx.iconst(Type::I64, shape.lanes().into());
    let high = cx.ir.shl(high, lanes);
    cx.ir.or(low, high)
}

/// VPMOVMSKB, VMOVMSKPS, VMOVMSKPD.
fn mask(cx: &mut Lift<'_>, shape: Shape) {
    let wide = super::is_wide(cx);
    let v = cx.ymm(1);
    let bits = signs(cx, shape, v, wide);
    cx.set_gpr_zext(0, bits);
}

/// VPTEST, and VTESTPS and VTESTPD, which look at sign bits only: ZF for a and b without common
/// ones, CF for b without ones beyond a.
fn test(cx: &mut Lift<'_>, shape: Option<Shape>) {
    let wide = super::is_wide(cx);
    let (b, a) = (cx.ymm(1), cx.ymm(0));
    let common = [0, 1].map(|n| cx.ir.vand(a[n], b[n]));
    let beyond = [0, 1].map(|n| cx.ir.vandnot(a[n], b[n]));
    let mut image = cx.iconst(Type::I64, 0);
    for (v, flag) in [(common, flags::ZF), (beyond, flags::CF)] {
        let any = match shape {
            Some(shape) => signs(cx, shape, v, wide),
            None => {
                let all = if wide { cx.ir.vor(v[0], v[1]) } else { v[0] };
                let low = cx.ir.vget(Shape::I64x2, all, 0);
                let high = cx.ir.vget(Shape::I64x2, all, 1);
                cx.ir.or(low, high)
            }
        };
        let none = cx.ir.icmp_imm(IntCc::Eq, any, 0);
        let wide = cx.ir.zext(Type::I64, none);
        let place = cx.iconst(Type::I64, u64::from(flag.trailing_zeros()));
        let placed = cx.ir.shl(wide, place);
        image = cx.ir.or(image, placed);
    }
    cx.ir.setflags(FlagKind::Raw, &[image]);
}

/// VZEROUPPER, VZEROALL: the registers that the code size has.
fn zero(cx: &mut Lift<'_>, all: bool) {
    let zero = cx.ir.vconst(0);
    for n in 0..if cx.mode.is_64() { 16 } else { 8 } {
        if all {
            cx.ir.setreg(Reg::xmm(n), zero);
        }
        cx.ir.setreg(Reg::ymm_hi(n), zero);
    }
}
