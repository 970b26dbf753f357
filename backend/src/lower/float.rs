//! Scalar floating point, and what floating-point ops have in common.
//!
//! On x86-64 arithmetic is the host's under the guest's MXCSR (see [`crate::sse`]), so that results
//! and exception flags come out right by themselves, if each op becomes exactly its instruction,
//! in the guest's order of operands (the first NaN wins), where the guest has it. Cranelift thinks
//! of floating point as without effect, so three things must be kept from it:
//!
//! - its mid-end would hoist, merge, fold and sink: regions with floating point are compiled
//!   without it (`compiler.rs`);
//! - it drops what is not used: such a result is stored ([`Lower::anchor`]);
//! - it exchanges the operands of sums and products to fold a load: [`Lower::first_operand`].
//!
//! What Cranelift has no instruction for calls a stub of one instruction. Other hosts call the
//! helper for everything.

use super::{Lower, clif_type};
use crate::error::CompileError;
use crate::sse;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{self as clif, AbiParam, InstBuilder, Opcode, Signature, types};
use cranelift_codegen::isa::CallConv;
use metaphrase_ir::{FloatCc, FmaOp, Helper, Inst, Op, Region, Round, SseOp, Type, Value};

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

/// Whether a region has ops that set MXCSR's flags, or helpers that do.
pub(crate) fn has_float(region: &Region) -> bool {
    let mut all = region.blocks.iter().flat_map(|b| &b.insts);
    all.any(|&v| sets_flags(region.inst(v)))
}

/// Whether what the op becomes sets MXCSR's flags and could be dropped by Cranelift.
pub(super) fn sets_flags(inst: &Inst) -> bool {
    inst.sets_mxcsr() || inst.op == Op::Call && Helper::from_imm(inst.imm) == Helper::Fma
}

/// Whether the host has FMA3, and Cranelift uses it.
fn host_has_fma() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx") && std::arch::is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Whether an op's code reads each of its operands whatever they are. (A shift by more than the
/// width does not.)
fn reads_operands(inst: &Inst) -> bool {
    use Op::*;
    inst.sets_mxcsr()
        || inst.op.info().effect != metaphrase_ir::Effect::Pure
        || matches!(
            inst.op,
            Copy | Bitcast
                | Zext
                | Sext
                | Trunc
                | VGet
                | VSet
                | VFromInt
                | VAnd
                | VOr
                | VXor
                | VAndNot
                | VSelect
        )
}

/// Marks the values that are surely computed because something with an effect needs them. Cranelift
/// drops the others.
pub(super) fn mark_used(region: &Region, used: &mut Vec<bool>) {
    used.clear();
    used.resize(region.insts.len(), false);
    let mut work: Vec<Value> = Vec::new();
    for data in &region.blocks {
        for &v in &data.insts {
            let dropped = region.is_removable(v) || sets_flags(region.inst(v));
            if !dropped && region.inst(v).op != Op::Param {
                used[v.0 as usize] = true;
                work.push(v);
            }
        }
    }
    while let Some(v) = work.pop() {
        let mut need = |a: Value| {
            if !std::mem::replace(&mut used[a.0 as usize], true) {
                work.push(a);
            }
        };
        match region.inst(v).op {
            // An argument is needed if its parameter is.
            Op::Br => {}
            Op::BrIf => need(region.args(v)[0]),
            Op::Param => {
                for block in region.block_ids() {
                    for (to, args) in region.successors(region.terminator(block)) {
                        let params = &region.blocks[to.0 as usize].params;
                        if let Some(n) = params.iter().position(|&p| p == v) {
                            need(args[n]);
                        }
                    }
                }
            }
            _ if reads_operands(region.inst(v)) => region.args(v).iter().for_each(|&a| need(a)),
            _ => {}
        }
    }
}

impl Lower<'_, '_> {
    /// A scalar or vector op that sets MXCSR's flags, or a comparison.
    pub(super) fn float_op(
        &mut self,
        inst: &Inst,
        args: &[Value],
    ) -> Result<Option<clif::Value>, CompileError> {
        if !sse::NATIVE {
            return self.float_by_helper(inst, args);
        }
        if inst.op == Op::FSignal {
            self.signal(inst, args);
            return Ok(None);
        }
        // A load of an earlier guest instruction must fault, if it does, before this one sets
        // flags, so it is not folded into it.
        let earlier = |v: &Value| {
            let from = self.region.inst(*v);
            from.op == Op::Load && from.insn != inst.insn
        };
        if args.iter().any(earlier) {
            self.b.ins().sequence_point();
        }
        let a = self.value(args[0]);
        let b = args.get(1).map_or(a, |&b| self.value(b));
        Ok(Some(match inst.op {
            Op::FAdd => {
                let a = self.first_operand(a);
                self.b.ins().fadd(a, b)
            }
            Op::FSub => self.b.ins().fsub(a, b),
            Op::FMul => {
                let a = self.first_operand(a);
                self.b.ins().fmul(a, b)
            }
            Op::FDiv => self.b.ins().fdiv(a, b),
            Op::FSqrt => self.b.ins().sqrt(a),
            // Exactly MINSD and MAXSD: the second operand for NaNs and for two zeros.
            Op::FMin => {
                let less = self.b.ins().fcmp(FloatCC::LessThan, a, b);
                self.b.ins().select(less, a, b)
            }
            Op::FMax => {
                let greater = self.b.ins().fcmp(FloatCC::LessThan, b, a);
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
            Op::FToI if inst.imm == Round::Trunc as u64 => self.float_to_int(clif_type(inst.ty), a),
            Op::FToI => {
                let from = self.region.ty(args[0]);
                let (op, imm) = SseOp::of(inst, from).expect("a float op");
                let r = self.call_stub(op, imm, a, a, types::I64X2);
                let r = self.b.ins().extractlane(r, 0);
                if inst.ty == Type::I32 {
                    self.b.ins().ireduce(types::I32, r)
                } else {
                    r
                }
            }
            op => unreachable!("{op} is not a float op"),
        }))
    }

    /// A fused multiplication and addition as the host's instruction, if it has that one.
    ///
    /// Cranelift multiplies its first two operands, of which a NaN in the second comes first
    /// (VFMADD213), unless it folds a load of that one.
    pub(super) fn fused(&mut self, inst: &Inst, args: &[Value]) -> Option<clif::Value> {
        let op = FmaOp::unpack(inst.aux);
        if op.even != op.odd || !host_has_fma() {
            return None;
        }
        if args.iter().any(|&v| self.region.inst(v).op == Op::Load) {
            self.b.ins().sequence_point();
        }
        let ty = if op.double {
            types::F64X2
        } else {
            types::F32X4
        };
        let [x, mut y, mut z] = [0, 1, 2].map(|n| {
            let v = self.value(args[n]);
            self.bitcast(ty, v)
        });
        if op.negate {
            y = self.b.ins().fneg(y);
        }
        if op.even {
            z = self.b.ins().fneg(z);
        }
        let r = self.b.ins().fma(y, x, z);
        Some(self.bitcast(types::I8X16, r))
    }

    /// Keeps Cranelift from folding a load that is the first operand of a sum or product into the
    /// instruction, for which it would exchange the operands: a load is not folded past a marker.
    fn first_operand(&mut self, a: clif::Value) -> clif::Value {
        let dfg = &self.b.func.dfg;
        let load = dfg.value_def(a).inst();
        if load.is_some_and(|i| dfg.insts[i].opcode() == Opcode::Load) {
            self.b.ins().sequence_point();
        }
        a
    }

    /// Keeps Cranelift from dropping a result that nobody uses.
    pub(super) fn anchor(&mut self, value: clif::Value) {
        self.store_state(value, self.unit.layout.helper_v + 48);
    }

    /// COMIS and UCOMIS, for the flags: the comparison itself sets them, but that of a quiet NaN
    /// for COMIS, which is done again by the stub.
    fn signal(&mut self, inst: &Inst, args: &[Value]) {
        let (a, b) = (self.value(args[0]), self.value(args[1]));
        let unordered = self.b.ins().fcmp(FloatCC::Unordered, a, b);
        let go_on = self.branch_cold(unordered);
        let (op, imm) = SseOp::of(inst, inst.ty).expect("a float op");
        self.call_stub(op, imm, a, b, types::I64X2);
        self.b.ins().jump(go_on, &[]);
        self.b.switch_to_block(go_on);
    }

    /// Truncation to a signed integer, integer indefinite where that is not possible.
    ///
    /// Cranelift's conversion is CVTT, and more for results out of range: it saturates and turns
    /// NaN to 0. A comparison of the bits (which sets no flags) tells those apart; saturation
    /// downwards is the integer indefinite value already.
    fn float_to_int(&mut self, ty: clif::Type, a: clif::Value) -> clif::Value {
        let converted = self.b.ins().fcvt_to_sint_sat(ty, a);
        // 2 to the power of the width less one is exact in both formats.
        let limit = (1u64 << (ty.bits() - 1)) as f64;
        let (bits, limit) = if self.b.func.dfg.value_type(a) == types::F32 {
            (types::I32, u64::from((limit as f32).to_bits()))
        } else {
            (types::I64, limit.to_bits())
        };
        let a = self.bitcast(bits, a);
        let magnitude = self.b.ins().iadd(a, a);
        let limit = self.iconst(bits, limit << 1);
        let fits = self.b.ins().icmp(IntCC::UnsignedLessThan, magnitude, limit);
        let indefinite = self.iconst(ty, 1 << (ty.bits() - 1));
        self.b.ins().select(fits, converted, indefinite)
    }

    /// Calls the stub of an operation with two XMM registers, which changes none.
    pub(super) fn call_stub(
        &mut self,
        op: SseOp,
        imm: u8,
        a: clif::Value,
        b: clif::Value,
        result: clif::Type,
    ) -> clif::Value {
        let ty = self.b.func.dfg.value_type(a);
        let known = self.stub_sigs.iter().find(|s| s.0 == ty);
        let sig = match known {
            Some(&(_, sig)) => sig,
            None => {
                let mut sig = Signature::new(CallConv::PreserveAll);
                sig.params.extend([ty, ty, types::I64].map(AbiParam::new));
                let sig = self.b.import_signature(sig);
                self.stub_sigs.push((ty, sig));
                sig
            }
        };
        let callee = self.iconst(types::I64, stub_address(op, imm) as u64);
        let slots = self.unit.layout.helper_v;
        let room = self.b.ins().iadd_imm_s(self.state, i64::from(slots));
        self.b.ins().call_indirect(sig, callee, &[a, b, room]);
        self.load_state(result, slots + 16)
    }

    /// Calls the helper for an operation on two vectors.
    pub(super) fn call_sse_helper(
        &mut self,
        op: SseOp,
        imm: u8,
        a: clif::Value,
        b: clif::Value,
    ) -> clif::Value {
        let slots = self.unit.layout.helper_v;
        self.store_state(a, slots);
        self.store_state(b, slots + 16);
        let zero = self.iconst(types::I64, 0);
        let descriptor = self.iconst(types::I64, u64::from(op.pack(imm)));
        let address = self.unit.helpers.address(Helper::SseFloat);
        self.call_host(address, &[self.state, descriptor, zero, zero, zero]);
        self.load_state(types::I8X16, slots)
    }

    /// Any floating-point op on a host without MXCSR.
    pub(super) fn float_by_helper(
        &mut self,
        inst: &Inst,
        args: &[Value],
    ) -> Result<Option<clif::Value>, CompileError> {
        let from = self.region.ty(args[0]);
        let Some((op, imm)) = SseOp::of(inst, from) else {
            return Ok(Some(self.value(args[0])));
        };
        let mut operands = [0, 1].map(|n| args.get(n).copied().map(|v| self.as_vector(v)));
        if operands[1].is_none() {
            operands.swap(0, 1);
        }
        let zero = self.vconst(types::I8X16, 0);
        let [a, b] = operands.map(|v| v.unwrap_or(zero));
        let r = self.call_sse_helper(op, imm, a, b);
        Ok(match inst.op {
            Op::FSignal => None,
            Op::FCmp => {
                let image = self.bitcast(types::I64X2, r);
                let image = self.b.ins().extractlane(image, 0);
                Some(self.condition(FloatCc::from_imm(inst.imm), image))
            }
            _ => {
                let ty = clif_type(inst.ty);
                if ty.is_vector() {
                    return Ok(Some(r));
                }
                let lanes = ty.by(16 / ty.bytes()).expect("a vector type");
                let r = self.bitcast(lanes, r);
                Some(self.b.ins().extractlane(r, 0))
            }
        })
    }

    /// A scalar in the low lane of a vector, or a vector.
    fn as_vector(&mut self, v: Value) -> clif::Value {
        let value = self.value(v);
        let ty = self.b.func.dfg.value_type(value);
        if ty.is_vector() {
            return self.bitcast(types::I8X16, value);
        }
        let lanes = ty.by(16 / ty.bytes()).expect("a vector type");
        let value = self.b.ins().scalar_to_vector(lanes, value);
        self.bitcast(types::I8X16, value)
    }

    /// A comparison's result from the image of ZF, PF and CF.
    fn condition(&mut self, cc: FloatCc, image: clif::Value) -> clif::Value {
        // Bits to look at, and what they must be: ZF 0x40, PF 4, CF 1; unordered sets all.
        let (mask, equal, invert) = match cc {
            FloatCc::Eq => (0x44, 0x40, false),
            FloatCc::Ne => (0x44, 0x40, true),
            FloatCc::Lt => (0x05, 0x01, false),
            FloatCc::Nlt => (0x05, 0x01, true),
            FloatCc::Le | FloatCc::Nle => (0, 0, cc == FloatCc::Nle),
            FloatCc::Uno => (0x04, 0x04, false),
            FloatCc::Ord => (0x04, 0x04, true),
        };
        if mask == 0 {
            // ZF or CF, but not PF.
            let some = self.b.ins().band_imm_u(image, 0x41);
            let some = self.b.ins().icmp_imm_u(IntCC::NotEqual, some, 0);
            let uno = self.b.ins().band_imm_u(image, 4);
            let ord = self.b.ins().icmp_imm_u(IntCC::Equal, uno, 0);
            let holds = self.b.ins().band(some, ord);
            return if invert {
                self.b.ins().bxor_imm_u(holds, 1)
            } else {
                holds
            };
        }
        let cond = if invert {
            IntCC::NotEqual
        } else {
            IntCC::Equal
        };
        let bits = self.b.ins().band_imm_u(image, mask);
        self.b.ins().icmp_imm_u(cond, bits, equal)
    }
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable-float")))]
fn stub_address(op: SseOp, imm: u8) -> usize {
    sse::stub(op, imm)
}

#[cfg(any(not(target_arch = "x86_64"), feature = "portable-float"))]
fn stub_address(op: SseOp, _: u8) -> usize {
    unreachable!("{} has no stub on this host", op.name())
}

/// Whether an operation has a stub on this host.
pub(super) fn has_stub(op: SseOp) -> bool {
    #[cfg(all(target_arch = "x86_64", not(feature = "portable-float")))]
    return sse::has(op);
    #[cfg(any(not(target_arch = "x86_64"), feature = "portable-float"))]
    return {
        let _ = op;
        false
    };
}
