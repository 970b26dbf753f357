//! Integer arithmetic, comparisons, widths and parts.

use super::{Lower, clif_type};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self as clif, InstBuilder, types};
use metaphrase_ir::{Inst, IntCc, Op, Type, Value};

/// Cranelift's name of a comparison.
pub(super) fn int_cc(cc: IntCc) -> IntCC {
    match cc {
        IntCc::Eq => IntCC::Equal,
        IntCc::Ne => IntCC::NotEqual,
        IntCc::Ult => IntCC::UnsignedLessThan,
        IntCc::Uge => IntCC::UnsignedGreaterThanOrEqual,
        IntCc::Ule => IntCC::UnsignedLessThanOrEqual,
        IntCc::Ugt => IntCC::UnsignedGreaterThan,
        IntCc::Slt => IntCC::SignedLessThan,
        IntCc::Sge => IntCC::SignedGreaterThanOrEqual,
        IntCc::Sle => IntCC::SignedLessThanOrEqual,
        IntCc::Sgt => IntCC::SignedGreaterThan,
    }
}

impl Lower<'_, '_> {
    pub(super) fn int_op(&mut self, inst: &Inst, args: &[Value]) -> clif::Value {
        let ty = clif_type(inst.ty);
        let arg = |lower: &Self, n: usize| lower.value(args[n]);
        match inst.op {
            Op::Const => return self.constant(inst.ty, inst.imm),
            Op::Pc => {
                let pc = self.region.pc_at(inst.imm as i64);
                return self.iconst(types::I64, pc);
            }
            _ => {}
        }
        let a = arg(self, 0);
        let b = if args.len() > 1 { arg(self, 1) } else { a };
        match inst.op {
            Op::Add => self.b.ins().iadd(a, b),
            Op::Sub => self.b.ins().isub(a, b),
            Op::Mul => self.b.ins().imul(a, b),
            Op::UMulHi => self.mul_high(inst.ty, a, b, false),
            Op::SMulHi => self.mul_high(inst.ty, a, b, true),
            Op::UDiv => self.b.ins().udiv(a, b),
            Op::SDiv => self.b.ins().sdiv(a, b),
            Op::URem => self.b.ins().urem(a, b),
            Op::SRem => self.b.ins().srem(a, b),
            Op::And => self.b.ins().band(a, b),
            Op::Or => self.b.ins().bor(a, b),
            Op::Xor => self.b.ins().bxor(a, b),
            Op::Shl => self.b.ins().ishl(a, b),
            Op::LShr => self.b.ins().ushr(a, b),
            Op::AShr => self.b.ins().sshr(a, b),
            Op::RotL => self.b.ins().rotl(a, b),
            Op::RotR => self.b.ins().rotr(a, b),
            Op::Neg => self.b.ins().ineg(a),
            Op::Not => self.b.ins().bnot(a),
            Op::Bswap if inst.ty == Type::I8 => a,
            Op::Bswap => self.b.ins().bswap(a),
            Op::Clz | Op::Ctz | Op::Popcnt => self.count_bits(inst, a),
            Op::ICmp => {
                let cc = int_cc(IntCc::from_imm(inst.imm));
                self.b.ins().icmp(cc, a, b)
            }
            Op::Select => {
                let c = arg(self, 2);
                let (b, c) = if inst.ty == Type::V128 {
                    (self.bitcast(types::I8X16, b), self.bitcast(types::I8X16, c))
                } else {
                    (b, c)
                };
                self.b.ins().select(a, b, c)
            }
            Op::Zext => self.extend(ty, a, false),
            Op::Sext => self.extend(ty, a, true),
            Op::Trunc => self.reduce(ty, a),
            Op::Ext => {
                let a = if inst.imm == 0 {
                    a
                } else {
                    self.b.ins().ushr_imm_u(a, inst.imm as i64)
                };
                self.reduce(ty, a)
            }
            Op::Ins => self.insert(inst, a, b),
            Op::Bitcast => self.bitcast(ty, a),
            op => unreachable!("{op} is not an integer op"),
        }
    }

    fn constant(&mut self, ty: Type, bits: u64) -> clif::Value {
        match ty {
            Type::F32 => {
                let f = clif::immediates::Ieee32::with_bits(bits as u32);
                self.b.ins().f32const(f)
            }
            Type::F64 => {
                let f = clif::immediates::Ieee64::with_bits(bits);
                self.b.ins().f64const(f)
            }
            _ => self.iconst(clif_type(ty), bits),
        }
    }

    fn extend(&mut self, ty: clif::Type, a: clif::Value, signed: bool) -> clif::Value {
        if self.b.func.dfg.value_type(a) == ty {
            a
        } else if signed {
            self.b.ins().sextend(ty, a)
        } else {
            self.b.ins().uextend(ty, a)
        }
    }

    fn reduce(&mut self, ty: clif::Type, a: clif::Value) -> clif::Value {
        if self.b.func.dfg.value_type(a) == ty {
            a
        } else {
            self.b.ins().ireduce(ty, a)
        }
    }

    /// The high half of a product: of a 64-bit product for the narrower types.
    fn mul_high(&mut self, ty: Type, a: clif::Value, b: clif::Value, signed: bool) -> clif::Value {
        if ty == Type::I64 {
            return if signed {
                self.b.ins().smulhi(a, b)
            } else {
                self.b.ins().umulhi(a, b)
            };
        }
        let a = self.extend(types::I64, a, signed);
        let b = self.extend(types::I64, b, signed);
        let product = self.b.ins().imul(a, b);
        let high = self.b.ins().ushr_imm_u(product, i64::from(ty.bits()));
        self.reduce(clif_type(ty), high)
    }

    /// CLZ, CTZ and POPCNT; the narrow types go through i32.
    fn count_bits(&mut self, inst: &Inst, a: clif::Value) -> clif::Value {
        let ty = clif_type(inst.ty);
        let narrow = ty.bits() < 32;
        let wide = if narrow {
            self.b.ins().uextend(types::I32, a)
        } else {
            a
        };
        let count = match inst.op {
            Op::Clz => {
                let n = self.b.ins().clz(wide);
                if narrow {
                    let above = i64::from(32 - ty.bits());
                    self.b.ins().iadd_imm_s(n, -above)
                } else {
                    n
                }
            }
            Op::Ctz => {
                // A one just above the value bounds the count.
                let wide = if narrow {
                    self.b.ins().bor_imm_u(wide, 1i64 << ty.bits())
                } else {
                    wide
                };
                self.b.ins().ctz(wide)
            }
            _ => self.b.ins().popcnt(wide),
        };
        self.reduce(ty, count)
    }

    fn insert(&mut self, inst: &Inst, a: clif::Value, b: clif::Value) -> clif::Value {
        if inst.ty == Type::I64 {
            return b;
        }
        let offset = inst.imm & 63;
        let hole = self.iconst(types::I64, !(inst.ty.mask() << offset));
        let rest = self.b.ins().band(a, hole);
        let part = self.extend(types::I64, b, false);
        let part = if offset == 0 {
            part
        } else {
            self.b.ins().ishl_imm_u(part, offset as i64)
        };
        self.b.ins().bor(rest, part)
    }
}
