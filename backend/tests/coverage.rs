//! Every row of the op table compiles, for every type and shape that it can have.

mod machine;

use machine::{Machine, region};
use metaphrase_backend::{CompileError, OptLevel, Options};
use metaphrase_ir::ops::{Control, Operands};
use metaphrase_ir::{
    AccessKind, Builder, Class, Cond, FlagKind, FloatCc, Helper, Imm, IntCc, Op, Reg, RmwOp, Round,
    Shape, Type, Value,
};

/// An operand of that type.
fn any(b: &mut Builder<'_>, ty: Type, n: usize) -> Value {
    match ty {
        Type::V128 => b.getreg(Reg::xmm(n)),
        Type::F32 | Type::F64 => {
            let v = any(b, Type::int(ty.bytes()), n);
            b.bitcast(ty, v)
        }
        _ => {
            let v = b.getreg(Reg::gpr(n));
            b.trunc(ty, v)
        }
    }
}

fn controls(control: Control) -> Vec<Type> {
    match control {
        Control::Only(ty) => vec![ty],
        Control::AnyInt => Type::ALL[..4].to_vec(),
        Control::WideInt => vec![Type::I32, Type::I64],
        Control::AnyFloat => vec![Type::F32, Type::F64],
        Control::AnyType => Type::ALL.to_vec(),
    }
}

/// The values of the immediate that make a difference: `imm` and `aux`.
fn immediates(op: Op, ty: Type) -> Vec<(u64, u32)> {
    let each = |n: usize| (0..n as u64).map(|n| (n, 0)).collect();
    let shapes = |aux: usize, float: bool| {
        Shape::ALL
            .iter()
            .filter(|s| s.lane().is_float() == float)
            .flat_map(|&s| (0..aux as u32).map(move |a| (s as u64, a)))
            .collect()
    };
    match op.info().imm {
        Imm::Reg => Reg::ALL
            .iter()
            .filter(|r| r.ty() == ty)
            .map(|&r| (r as u64, 0))
            .collect(),
        Imm::Cond => each(Cond::ALL.len()),
        Imm::IntCc => each(IntCc::ALL.len()),
        Imm::FloatCc => each(FloatCc::ALL.len()),
        Imm::Flags => each(FlagKind::ALL.len()),
        Imm::Helper => Helper::ALL
            .iter()
            .filter(|h| h.result() == ty)
            .map(|&h| (h as u64, 1))
            .collect(),
        Imm::Access => vec![(AccessKind::Data as u64, 0), (AccessKind::Stack as u64, 0)],
        Imm::Rmw => each(RmwOp::ALL.len()),
        Imm::Round => each(Round::ALL.len()),
        Imm::Shape => Shape::ALL
            .iter()
            .filter(|&&s| shape_fits(op, ty, s))
            .map(|&s| (s as u64, 0))
            .collect(),
        Imm::Lane => Shape::ALL
            .iter()
            .filter(|s| s.lane() == ty)
            .flat_map(|&s| (0..s.lanes()).map(move |n| (s as u64, n)))
            .collect(),
        Imm::ShapeIntCc => shapes(IntCc::ALL.len(), false),
        Imm::ShapeFloatCc => shapes(FloatCc::ALL.len(), true),
        Imm::BitOffset => vec![(0, 0), (8, 0)],
        _ => vec![(0, 0)],
    }
}

/// Which shapes the op's row in the table allows.
fn shape_fits(op: Op, ty: Type, s: Shape) -> bool {
    use Op::*;
    let float = s.lane().is_float();
    match op {
        VAdd | VSub | VMinS | VMaxS | VMask => true,
        VMul => float || matches!(s, Shape::I16x8 | Shape::I32x4),
        VDiv | VSqrt | VIToF | VFToI | VFCvt => float,
        VMinU | VMaxU | VShl | VLShr | VAShr => !float,
        VAvgU | VAddSatS | VAddSatU | VSubSatS | VSubSatU => {
            matches!(s, Shape::I8x16 | Shape::I16x8)
        }
        VMulHiS | VMulHiU => s == Shape::I16x8,
        VPackSS | VPackUS => matches!(s, Shape::I16x8 | Shape::I32x4),
        VSplat => s.lane() == ty,
        _ => unreachable!("{op} has no shape"),
    }
}

/// The operand types to try for an op whose operands are not those of its controlling type.
fn operands(op: Op, ty: Type, imm: u64) -> Vec<Vec<Type>> {
    let ints = &Type::ALL[..4];
    match (op, op.info().operands) {
        (Op::Zext | Op::Sext, _) => ints
            .iter()
            .filter(|t| t.bits() < ty.bits())
            .map(|&t| vec![t])
            .collect(),
        (Op::Trunc, _) => ints
            .iter()
            .filter(|t| t.bits() > ty.bits())
            .map(|&t| vec![t])
            .collect(),
        (Op::Bitcast, _) => match ty {
            Type::F32 => vec![vec![Type::I32]],
            Type::F64 => vec![vec![Type::I64]],
            Type::I32 => vec![vec![Type::F32]],
            Type::I64 => vec![vec![Type::F64]],
            _ => vec![],
        },
        (Op::FCvt, _) => vec![vec![if ty == Type::F32 {
            Type::F64
        } else {
            Type::F32
        }]],
        (Op::IToF, _) => vec![vec![Type::I32], vec![Type::I64]],
        (Op::FToI, _) => vec![vec![Type::F32], vec![Type::F64]],
        (_, Operands::Flags) => vec![vec![ty; FlagKind::ALL[imm as usize].arity()]],
        (_, Operands::Helper) => vec![Helper::from_imm(imm).args().to_vec()],
        (_, Operands::Fixed(classes)) => vec![
            classes
                .iter()
                .map(|c| match c {
                    Class::Is(ty) => *ty,
                    _ => ty,
                })
                .collect(),
        ],
        (_, Operands::Branch) => vec![],
    }
}

#[test]
fn every_op_compiles() {
    let mut failures = Vec::new();
    let mut count = 0;
    for opt in [OptLevel::None, OptLevel::Speed] {
        let options = Options {
            opt,
            ..Options::default()
        };
        let mut m = Machine::with(options, 1 << 20);
        for &op in Op::ALL {
            // `param` and branches are in every region that loops; see `run.rs`.
            let skip = matches!(op, Op::Param | Op::Br | Op::BrIf);
            for ty in controls(op.info().control) {
                let pointless = match op {
                    Op::Const => ty == Type::V128,
                    Op::VFromInt => ty.bits() < 32 || ty == Type::V128,
                    Op::VSplat => ty == Type::V128,
                    Op::Cas => ty.is_float(),
                    _ => skip,
                };
                if pointless {
                    continue;
                }
                for (imm, aux) in immediates(op, ty) {
                    for types in operands(op, ty, imm) {
                        let r = region(2, |b| {
                            b.fuel(2);
                            let args: Vec<Value> = types
                                .iter()
                                .enumerate()
                                .map(|(n, &ty)| any(b, ty, n))
                                .collect();
                            if matches!(op, Op::VConst | Op::VShuffle) {
                                b.region
                                    .vconsts
                                    .push(0x0f0e_0d0c_0b0a_0908_8001_0203_0405_0607);
                            }
                            let v = b.ins(op, ty, &args, imm, aux);
                            match b.region.result_type(v) {
                                Some(Type::V128) => b.setreg(Reg::Xmm9, v),
                                Some(Type::F32 | Type::F64) => {
                                    let ty = Type::int(b.ty(v).bytes());
                                    let v = b.bitcast(ty, v);
                                    let v = b.zext(Type::I64, v);
                                    b.setreg(Reg::R9, v);
                                }
                                Some(_) => {
                                    let v = b.zext(Type::I64, v);
                                    b.setreg(Reg::R9, v);
                                }
                                None => {}
                            }
                            if !op.is_terminator() {
                                b.exit_jump(8);
                            }
                        });
                        count += 1;
                        if let Err(e) = m.compiler.compile(&r, 0) {
                            let e = match e {
                                CompileError::Panic(e) => format!("panic: {e}"),
                                other => other.to_string(),
                            };
                            failures.push(format!("{op}.{ty} {imm} {aux} {types:?}: {e}"));
                        }
                    }
                }
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{count} tried:\n{}",
        failures.join("\n")
    );
    assert!(count > 1400, "only {count} cases");
}
