//! The verifier's rules about immediates and types.

use crate::flags::{Cond, FlagKind};
use crate::guest::Reg;
use crate::helpers::Helper;
use crate::ops::{AccessKind, FloatCc, Imm, IntCc, Op, RmwOp, Round, SyscallKind};
use crate::region::{Region, Value};
use crate::types::{Shape, Type};

/// The immediate, and that the controlling type agrees with it.
pub fn immediate(region: &Region, v: Value) -> Result<(), String> {
    let inst = region.inst(v);
    let (op, ty, imm, aux) = (inst.op, inst.ty, inst.imm, u64::from(inst.aux));
    let shape = || {
        let n = usize::try_from(imm).unwrap_or(usize::MAX);
        let shape = *Shape::ALL.get(n).ok_or("there is no such shape")?;
        if allowed(op, shape) {
            Ok(shape)
        } else {
            Err(format!("{op} is not defined for {shape}"))
        }
    };
    if op.takes_state_map() && aux != 0 {
        let map = region.state_maps.get(inst.aux as usize - 1);
        let good = map.is_some_and(|&mask| mask != 0 && mask >> Reg::COUNT == 0);
        check(good, "there is no such state map")?;
    }
    match op.info().imm {
        Imm::None | Imm::Pc | Imm::PcPair | Imm::RetPc | Imm::Count | Imm::Targets => Ok(()),
        Imm::Bits if ty == Type::V128 => Err("iconst is not of vectors".into()),
        Imm::Bits => check(imm & !ty.mask() == 0, "the constant does not fit its type"),
        Imm::V128 => below(imm, region.vconsts.len(), "128-bit constant"),
        Imm::Reg => {
            below(imm, Reg::COUNT, "register")?;
            let want = Reg::ALL[imm as usize].ty();
            check(ty == want, "the type is not the register's")
        }
        Imm::Cond => below(imm, Cond::ALL.len(), "condition"),
        Imm::IntCc => below(imm, IntCc::ALL.len(), "comparison"),
        Imm::FloatCc => below(imm, FloatCc::ALL.len(), "comparison"),
        Imm::Flags => {
            below(imm, FlagKind::ALL.len(), "flag kind")?;
            let raw = FlagKind::ALL[imm as usize] == FlagKind::Raw;
            check(!raw || ty == Type::I64, "setflags raw is i64")
        }
        Imm::Helper => {
            below(imm, Helper::ALL.len(), "helper")?;
            let want = Helper::from_imm(imm).result();
            check(ty == want, "the type is not the helper's result")
        }
        Imm::Access => below(imm, AccessKind::ALL.len(), "access kind"),
        Imm::Rmw => below(imm, RmwOp::ALL.len(), "rmw operation"),
        Imm::Shape => {
            let shape = shape()?;
            let good = op != Op::VSplat || ty == shape.lane();
            check(good, "the type is not the lane's")
        }
        Imm::Lane => {
            let shape = shape()?;
            check(ty == shape.lane(), "the type is not the lane's")?;
            below(aux, shape.lanes() as usize, "lane")
        }
        Imm::ShapeFloatCc => {
            shape()?;
            below(aux, FloatCc::ALL.len(), "comparison")
        }
        Imm::ShapeIntCc => {
            shape()?;
            below(aux, IntCc::ALL.len(), "comparison")
        }
        Imm::BitOffset => {
            let end = imm.saturating_add(u64::from(ty.bits()));
            check(end <= 64, "the part goes beyond bit 63")
        }
        Imm::Round => below(imm, Round::ALL.len(), "rounding"),
        Imm::Vector => below(imm, 32, "exception vector"),
        Imm::Syscall => below(imm, SyscallKind::ALL.len(), "system call kind"),
        Imm::Target => below(imm, region.blocks.len(), "block"),
    }
}

/// How operand types relate to the controlling type where the class does not say it.
pub fn relations(region: &Region, v: Value) -> Result<(), String> {
    let inst = region.inst(v);
    let ty = inst.ty;
    let operand = || region.ty(region.args(v)[0]);
    match inst.op {
        Op::Zext | Op::Sext => check(operand() < ty, "the operand is not narrower"),
        Op::Trunc => check(operand() > ty, "the operand is not wider"),
        Op::Bitcast => check(operand().bits() == ty.bits(), "the sizes differ"),
        Op::FCvt => {
            let other = operand().is_float() && operand() != ty;
            check(other, "the operand is not of the other float type")
        }
        Op::FToI => check(operand().is_float(), "the operand is not a float"),
        Op::IToF => {
            let wide = matches!(operand(), Type::I32 | Type::I64);
            check(wide, "the operand is not i32 or i64")
        }
        Op::Cas => check(!ty.is_float(), "cas is not of floats"),
        Op::VFromInt => {
            let good = matches!(ty, Type::I32 | Type::I64 | Type::F32 | Type::F64);
            check(good, "the operand is not i32, i64, f32 or f64")
        }
        _ => Ok(()),
    }
}

/// Whether a vector op is defined for lanes of that shape.
fn allowed(op: Op, shape: Shape) -> bool {
    use Shape::{I8x16, I16x8, I32x4};
    let float = shape.lane().is_float();
    match op {
        Op::VDiv | Op::VSqrt | Op::VFCmp | Op::VIToF | Op::VFToI | Op::VFCvt => float,
        Op::VMul => float || matches!(shape, I16x8 | I32x4),
        Op::VMinU | Op::VMaxU | Op::VICmp | Op::VShl | Op::VLShr | Op::VAShr => !float,
        Op::VAvgU | Op::VAddSatS | Op::VAddSatU | Op::VSubSatS | Op::VSubSatU => {
            matches!(shape, I8x16 | I16x8)
        }
        Op::VMulHiS | Op::VMulHiU => shape == I16x8,
        Op::VPackSS | Op::VPackUS => matches!(shape, I16x8 | I32x4),
        _ => true,
    }
}

fn check(good: bool, message: &str) -> Result<(), String> {
    if good { Ok(()) } else { Err(message.into()) }
}

fn below(n: u64, count: usize, what: &str) -> Result<(), String> {
    check(n < count as u64, &format!("there is no {what} {n}"))
}
