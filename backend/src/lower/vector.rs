//! 128-bit vectors.
//!
//! A vector value has whatever lane type its definition gave it; each op casts its operands to
//! the type that it wants, which costs no instruction.

use super::float::float_cc;
use super::int::int_cc;
use super::{Lower, clif_type};
use crate::error::CompileError;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{self as clif, InstBuilder, types};
use metaphrase_ir::{FloatCc, Inst, IntCc, Op, Shape, SseOp, Value};

fn vector_type(shape: Shape) -> clif::Type {
    match shape {
        Shape::I8x16 => types::I8X16,
        Shape::I16x8 => types::I16X8,
        Shape::I32x4 => types::I32X4,
        Shape::I64x2 => types::I64X2,
        Shape::F32x4 => types::F32X4,
        Shape::F64x2 => types::F64X2,
    }
}

/// The integer lanes of the same width.
fn int_type(shape: Shape) -> clif::Type {
    vector_type(shape).as_int()
}

fn is_float(shape: Shape) -> bool {
    shape.lane().is_float()
}

/// The signed comparison of an unsigned one; others stay.
fn signed_version(cc: IntCC) -> IntCC {
    match cc {
        IntCC::UnsignedLessThan => IntCC::SignedLessThan,
        IntCC::UnsignedLessThanOrEqual => IntCC::SignedLessThanOrEqual,
        IntCC::UnsignedGreaterThan => IntCC::SignedGreaterThan,
        IntCC::UnsignedGreaterThanOrEqual => IntCC::SignedGreaterThanOrEqual,
        other => other,
    }
}

impl Lower<'_, '_> {
    fn vector(&mut self, v: Value, ty: clif::Type) -> clif::Value {
        let value = self.value(v);
        self.bitcast(ty, value)
    }

    pub(super) fn vconst(&mut self, ty: clif::Type, bits: u128) -> clif::Value {
        let constant = self
            .b
            .func
            .dfg
            .constants
            .insert(bits.to_le_bytes().as_slice().into());
        self.b.ins().vconst(ty, constant)
    }

    fn splat_const(&mut self, ty: clif::Type, lane: u64) -> clif::Value {
        let width = ty.lane_bits();
        let bits = (0..128 / width).fold(0u128, |v, n| v | u128::from(lane) << (n * width));
        self.vconst(ty, bits)
    }

    pub(super) fn vector_op(
        &mut self,
        inst: &Inst,
        args: &[Value],
    ) -> Result<clif::Value, CompileError> {
        use types::{I8X16, I16X8, I32X4, I64X2};
        let shape = || Shape::ALL[inst.imm as usize];
        let unsupported = || {
            let shape = Shape::ALL.get(inst.imm as usize).map_or("?", |s| s.name());
            CompileError::Unsupported(format!("{} {shape}", inst.op))
        };
        Ok(match inst.op {
            Op::VConst => self.vconst(I8X16, self.region.vconsts[inst.imm as usize]),
            Op::VAnd | Op::VOr | Op::VXor | Op::VAndNot => {
                // Cranelift knows bit operations on floats too, but one type is enough.
                let (a, b) = (self.vector(args[0], I64X2), self.vector(args[1], I64X2));
                match inst.op {
                    Op::VAnd => self.b.ins().band(a, b),
                    Op::VOr => self.b.ins().bor(a, b),
                    Op::VXor => self.b.ins().bxor(a, b),
                    _ => self.b.ins().band_not(b, a),
                }
            }
            Op::VSelect => {
                let [m, a, b] = [0, 1, 2].map(|n| self.vector(args[n], I64X2));
                self.b.ins().bitselect(m, a, b)
            }
            Op::VAdd | Op::VSub | Op::VMul | Op::VDiv => {
                let ty = vector_type(shape());
                let (a, b) = (self.vector(args[0], ty), self.vector(args[1], ty));
                match (inst.op, is_float(shape())) {
                    (Op::VAdd, false) => self.b.ins().iadd(a, b),
                    (Op::VSub, false) => self.b.ins().isub(a, b),
                    (Op::VMul, false) if matches!(ty, I16X8 | I32X4) => self.b.ins().imul(a, b),
                    (Op::VAdd, true) => self.b.ins().fadd(a, b),
                    (Op::VSub, true) => self.b.ins().fsub(a, b),
                    (Op::VMul, true) => self.b.ins().fmul(a, b),
                    (Op::VDiv, true) => self.b.ins().fdiv(a, b),
                    _ => return Err(unsupported()),
                }
            }
            Op::VSqrt if is_float(shape()) => {
                let a = self.vector(args[0], vector_type(shape()));
                self.b.ins().sqrt(a)
            }
            Op::VMinS | Op::VMaxS | Op::VMinU | Op::VMaxU => self.min_max(inst.op, shape(), args),
            Op::VAvgU | Op::VAddSatS | Op::VAddSatU | Op::VSubSatS | Op::VSubSatU
                if matches!(shape(), Shape::I8x16 | Shape::I16x8) =>
            {
                let ty = vector_type(shape());
                let (a, b) = (self.vector(args[0], ty), self.vector(args[1], ty));
                match inst.op {
                    Op::VAvgU => self.b.ins().avg_round(a, b),
                    Op::VAddSatS => self.b.ins().sadd_sat(a, b),
                    Op::VAddSatU => self.b.ins().uadd_sat(a, b),
                    Op::VSubSatS => self.b.ins().ssub_sat(a, b),
                    _ => self.b.ins().usub_sat(a, b),
                }
            }
            Op::VMulHiS if shape() == Shape::I16x8 => self.mul_high_lanes(args, true),
            Op::VMulHiU if shape() == Shape::I16x8 => self.mul_high_lanes(args, false),
            Op::VMulWideU => {
                // The even lanes moved together, then widened: one multiplication on x86-64.
                let [a, b] = [0, 1].map(|n| {
                    let v = self.vector(args[n], I8X16);
                    let even = [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15];
                    let v = self.shuffle(v, v, even);
                    let v = self.bitcast(I32X4, v);
                    self.b.ins().uwiden_low(v)
                });
                self.b.ins().imul(a, b)
            }
            Op::VMAddWD => {
                let (a, b) = (self.vector(args[0], I16X8), self.vector(args[1], I16X8));
                let (al, bl) = (self.b.ins().swiden_low(a), self.b.ins().swiden_low(b));
                let low = self.b.ins().imul(al, bl);
                let (ah, bh) = (self.b.ins().swiden_high(a), self.b.ins().swiden_high(b));
                let high = self.b.ins().imul(ah, bh);
                self.b.ins().iadd_pairwise(low, high)
            }
            Op::VSad => self.sum_of_differences(args),
            Op::VICmp if !is_float(shape()) => {
                let cc = IntCc::from_imm(u64::from(inst.aux));
                self.compare_lanes(cc, shape(), args)
            }
            Op::VFCmp if is_float(shape()) => {
                let ty = vector_type(shape());
                let cc = FloatCc::from_imm(u64::from(inst.aux));
                let (a, b) = (self.vector(args[0], ty), self.vector(args[1], ty));
                self.b.ins().fcmp(float_cc(cc), a, b)
            }
            Op::VShl | Op::VLShr | Op::VAShr if !is_float(shape()) => {
                self.shift_lanes(inst.op, shape(), args)
            }
            Op::VShuffle => self.shuffle_by(args, self.region.vconsts[inst.imm as usize]),
            Op::VPackSS | Op::VPackUS if matches!(shape(), Shape::I16x8 | Shape::I32x4) => {
                let ty = vector_type(shape());
                let (a, b) = (self.vector(args[0], ty), self.vector(args[1], ty));
                if inst.op == Op::VPackSS {
                    self.b.ins().snarrow(a, b)
                } else {
                    self.b.ins().unarrow(a, b)
                }
            }
            Op::VMask => {
                let a = self.vector(args[0], int_type(shape()));
                let mask = self.b.ins().vhigh_bits(types::I32, a);
                self.b.ins().uextend(types::I64, mask)
            }
            Op::VSplat => {
                let a = self.value(args[0]);
                self.b.ins().splat(vector_type(shape()), a)
            }
            Op::VGet => {
                let a = self.vector(args[0], vector_type(shape()));
                self.b.ins().extractlane(a, inst.aux as u8)
            }
            Op::VSet => {
                let a = self.vector(args[0], vector_type(shape()));
                let b = self.value(args[1]);
                self.b.ins().insertlane(a, b, inst.aux as u8)
            }
            Op::VFromInt => {
                let a = self.value(args[0]);
                let lanes = match inst.ty.bits() {
                    32 => clif_type(inst.ty).by(4),
                    64 => clif_type(inst.ty).by(2),
                    _ => None,
                };
                let ty = lanes.ok_or_else(unsupported)?;
                self.b.ins().scalar_to_vector(ty, a)
            }
            Op::VIToF => {
                let a = self.vector(args[0], I32X4);
                match shape() {
                    Shape::F32x4 => self.b.ins().fcvt_from_sint(types::F32X4, a),
                    Shape::F64x2 => {
                        let a = self.b.ins().swiden_low(a);
                        self.b.ins().fcvt_from_sint(types::F64X2, a)
                    }
                    _ => return Err(unsupported()),
                }
            }
            Op::VFToI => match shape() {
                Shape::F32x4 => {
                    let a = self.vector(args[0], types::F32X4);
                    self.b.ins().x86_cvtt2dq(I32X4, a)
                }
                Shape::F64x2 => {
                    let a = self.vector(args[0], I8X16);
                    self.call_stub(SseOp::Cvttpd2dq, 0, a, a, I8X16)
                }
                _ => return Err(unsupported()),
            },
            Op::VFCvt => match shape() {
                Shape::F64x2 => {
                    let a = self.vector(args[0], types::F32X4);
                    self.b.ins().fvpromote_low(a)
                }
                Shape::F32x4 => {
                    let a = self.vector(args[0], types::F64X2);
                    self.b.ins().fvdemote(a)
                }
                _ => return Err(unsupported()),
            },
            _ => return Err(unsupported()),
        })
    }

    fn min_max(&mut self, op: Op, shape: Shape, args: &[Value]) -> clif::Value {
        let ty = vector_type(shape);
        let (a, b) = (self.vector(args[0], ty), self.vector(args[1], ty));
        if is_float(shape) {
            // MINPS and MAXPS, in the form that Cranelift knows them by.
            let mask = match op {
                Op::VMinS | Op::VMinU => self.b.ins().fcmp(FloatCC::LessThan, a, b),
                _ => self.b.ins().fcmp(FloatCC::LessThan, b, a),
            };
            let mask = self.bitcast(ty, mask);
            return self.b.ins().bitselect(mask, a, b);
        }
        if shape == Shape::I64x2 {
            let cc = match op {
                Op::VMinS => IntCc::Slt,
                Op::VMaxS => IntCc::Sgt,
                Op::VMinU => IntCc::Ult,
                _ => IntCc::Ugt,
            };
            let mask = self.compare_lanes(cc, shape, args);
            return self.b.ins().bitselect(mask, a, b);
        }
        match op {
            Op::VMinS => self.b.ins().smin(a, b),
            Op::VMaxS => self.b.ins().smax(a, b),
            Op::VMinU => self.b.ins().umin(a, b),
            _ => self.b.ins().umax(a, b),
        }
    }

    fn compare_lanes(&mut self, cc: IntCc, shape: Shape, args: &[Value]) -> clif::Value {
        let ty = vector_type(shape);
        let (mut a, mut b) = (self.vector(args[0], ty), self.vector(args[1], ty));
        let mut cc = int_cc(cc);
        if shape == Shape::I64x2 && cc != signed_version(cc) {
            // x86-64 has no unsigned comparison of 64-bit lanes: flip the signs.
            let flip = self.splat_const(ty, 1 << 63);
            a = self.b.ins().bxor(a, flip);
            b = self.b.ins().bxor(b, flip);
            cc = signed_version(cc);
        }
        self.b.ins().icmp(cc, a, b)
    }

    fn mul_high_lanes(&mut self, args: &[Value], signed: bool) -> clif::Value {
        let (a, b) = (
            self.vector(args[0], types::I16X8),
            self.vector(args[1], types::I16X8),
        );
        let mut half = |high: bool| {
            let mut widen = |v| match (signed, high) {
                (true, false) => self.b.ins().swiden_low(v),
                (true, true) => self.b.ins().swiden_high(v),
                (false, false) => self.b.ins().uwiden_low(v),
                (false, true) => self.b.ins().uwiden_high(v),
            };
            let (a, b) = (widen(a), widen(b));
            let product = self.b.ins().imul(a, b);
            self.bitcast(types::I8X16, product)
        };
        let (low, high) = (half(false), half(true));
        let upper = [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31];
        self.shuffle(low, high, upper)
    }

    /// PSADBW: absolute differences of bytes, summed in each half.
    fn sum_of_differences(&mut self, args: &[Value]) -> clif::Value {
        let (a, b) = (
            self.vector(args[0], types::I8X16),
            self.vector(args[1], types::I8X16),
        );
        let (max, min) = (self.b.ins().umax(a, b), self.b.ins().umin(a, b));
        let differences = self.b.ins().isub(max, min);
        let (low, high) = (
            self.b.ins().uwiden_low(differences),
            self.b.ins().uwiden_high(differences),
        );
        let pairs = self.b.ins().iadd_pairwise(low, high);
        let (low, high) = (
            self.b.ins().swiden_low(pairs),
            self.b.ins().swiden_high(pairs),
        );
        let fours = self.b.ins().iadd_pairwise(low, high);
        let fours = self.bitcast(types::I64X2, fours);
        let mask = self.splat_const(types::I64X2, 0xffff_ffff);
        let low = self.b.ins().band(fours, mask);
        let high = self.b.ins().ushr_imm_u(fours, 32);
        self.b.ins().iadd(low, high)
    }

    /// x86 shifts by the whole count, Cranelift by the count modulo the lane width.
    fn shift_lanes(&mut self, op: Op, shape: Shape, args: &[Value]) -> clif::Value {
        let ty = vector_type(shape);
        let a = self.vector(args[0], ty);
        let width = u64::from(shape.lane().bits());
        if let Some(count) = self.region.as_const(args[1]) {
            if count >= width && op != Op::VAShr {
                return self.vconst(ty, 0);
            }
            let count = count.min(width - 1) as i64;
            let count = self.b.ins().iconst(types::I32, count);
            return match op {
                Op::VShl => self.b.ins().ishl(a, count),
                Op::VLShr => self.b.ins().ushr(a, count),
                _ => self.b.ins().sshr(a, count),
            };
        }
        let count = self.value(args[1]);
        if op == Op::VAShr {
            let last = self.iconst(types::I64, width - 1);
            let over = self.b.ins().icmp(IntCC::UnsignedGreaterThan, count, last);
            let count = self.b.ins().select(over, last, count);
            return self.b.ins().sshr(a, count);
        }
        let shifted = if op == Op::VShl {
            self.b.ins().ishl(a, count)
        } else {
            self.b.ins().ushr(a, count)
        };
        // All ones while the count is smaller than the width.
        let limit = self.iconst(types::I64, width);
        let fits = self.b.ins().icmp(IntCC::UnsignedLessThan, count, limit);
        let zero = self.vconst(ty, 0);
        self.b.ins().select(fits, shifted, zero)
    }

    fn shuffle(&mut self, a: clif::Value, b: clif::Value, mask: [u8; 16]) -> clif::Value {
        let mask = self.b.func.dfg.immediates.push(mask.as_slice().into());
        self.b.ins().shuffle(a, b, mask)
    }

    fn shuffle_by(&mut self, args: &[Value], mask: u128) -> clif::Value {
        let (a, b) = (
            self.vector(args[0], types::I8X16),
            self.vector(args[1], types::I8X16),
        );
        let mask = mask.to_le_bytes();
        let zeroes = mask.iter().any(|&m| m >= 0x80);
        let from_a = mask.iter().any(|&m| m < 16);
        let from_b = mask.iter().any(|&m| (16..0x80).contains(&m));
        if !zeroes {
            return self.shuffle(a, b, mask.map(|m| m & 31));
        }
        if from_a && from_b {
            let both = self.shuffle(a, b, mask.map(|m| m & 31));
            let keep = mask.map(|m| if m < 0x80 { 0xff } else { 0 });
            let keep = self.vconst(types::I8X16, u128::from_le_bytes(keep));
            return self.b.ins().band(both, keep);
        }
        let source = if from_b { b } else { a };
        let zero = self.vconst(types::I8X16, 0);
        self.shuffle(
            source,
            zero,
            mask.map(|m| if m < 0x80 { m & 15 } else { 16 }),
        )
    }
}
