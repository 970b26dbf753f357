//! Scalar floating point.
//!
//! Arithmetic is the host's; rounding is to nearest whatever MXCSR says, and MXCSR's flags are not
//! maintained.

use super::{Lower, clif_type};
use crate::error::CompileError;
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{self as clif, InstBuilder, types};
use metaphrase_ir::{FloatCc, Inst, Op, Round, Type, Value};

/// Cranelift's name of a comparison.
pub(super) fn float_cc(cc: FloatCc) -> FloatCC {
    match cc {
        FloatCc::Eq => FloatCC::Equal,
        FloatCc::Lt => FloatCC::LessThan,
        FloatCc::Le => FloatCC::LessThanOrEqual,
        FloatCc::Uno => FloatCC::Unordered,
        FloatCc::Ne => FloatCC::NotEqual,
        FloatCc::Nlt => FloatCC::UnorderedOrGreaterThanOrEqual,
        FloatCc::Nle => FloatCC::UnorderedOrGreaterThan,
        FloatCc::Ord => FloatCC::Ordered,
    }
}

impl Lower<'_, '_> {
    pub(super) fn float_op(
        &mut self,
        inst: &Inst,
        args: &[Value],
    ) -> Result<clif::Value, CompileError> {
        let a = self.value(args[0]);
        let b = args.get(1).map_or(a, |&b| self.value(b));
        Ok(match inst.op {
            Op::FAdd => self.b.ins().fadd(a, b),
            Op::FSub => self.b.ins().fsub(a, b),
            Op::FMul => self.b.ins().fmul(a, b),
            Op::FDiv => self.b.ins().fdiv(a, b),
            Op::FSqrt => self.b.ins().sqrt(a),
            // Exactly MINSD and MAXSD: the second operand for NaNs and for two zeros.
            Op::FMin => {
                let less = self.b.ins().fcmp(FloatCC::LessThan, a, b);
                self.b.ins().select(less, a, b)
            }
            Op::FMax => {
                let greater = self.b.ins().fcmp(FloatCC::GreaterThan, a, b);
                self.b.ins().select(greater, a, b)
            }
            Op::FCmp => {
                let cc = float_cc(FloatCc::from_imm(inst.imm));
                self.b.ins().fcmp(cc, a, b)
            }
            Op::FCvt => match (self.region.ty(args[0]), inst.ty) {
                (Type::F32, Type::F64) => self.b.ins().fpromote(types::F64, a),
                (Type::F64, Type::F32) => self.b.ins().fdemote(types::F32, a),
                (from, to) if from == to => a,
                (from, to) => {
                    return Err(CompileError::Unsupported(format!("fcvt {from} to {to}")));
                }
            },
            Op::IToF => match self.region.ty(args[0]) {
                Type::I32 | Type::I64 => self.b.ins().fcvt_from_sint(clif_type(inst.ty), a),
                from => return Err(CompileError::Unsupported(format!("itof from {from}"))),
            },
            Op::FToI => {
                let a = match Round::from_imm(inst.imm) {
                    Round::Trunc => a,
                    Round::Mxcsr => self.b.ins().nearest(a),
                };
                self.float_to_int(clif_type(inst.ty), a)
            }
            op => unreachable!("{op} is not a float op"),
        })
    }

    /// Truncation to a signed integer, integer indefinite where that is not possible.
    ///
    /// Cranelift's conversion saturates and turns NaN to 0. Saturation downwards is the integer
    /// indefinite value already; for the rest one comparison decides.
    pub(super) fn float_to_int(&mut self, ty: clif::Type, a: clif::Value) -> clif::Value {
        let converted = self.b.ins().fcvt_to_sint_sat(ty, a);
        // 2 to the power of the width less one is exact in both formats.
        let limit = (1u64 << (ty.bits() - 1)) as f64;
        let limit = if self.b.func.dfg.value_type(a) == types::F32 {
            self.b.ins().f32const(limit as f32)
        } else {
            self.b.ins().f64const(limit)
        };
        let fits = self.b.ins().fcmp(FloatCC::LessThan, a, limit);
        let indefinite = self.iconst(ty, 1 << (ty.bits() - 1));
        self.b.ins().select(fits, converted, indefinite)
    }
}
