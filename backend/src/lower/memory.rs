//! Guest memory: what the ops are, once a host address is known. How one gets there is the memory
//! model's: [`super::window`], [`super::tlb`].

use super::{Lower, clif_type};
use crate::error::CompileError;
use crate::options::MemoryModel;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self as clif, InstBuilder, MemFlags, types};
use metaphrase_ir::{AccessKind, Inst, Op, RmwOp, Type, Value};

impl Lower<'_, '_> {
    /// A load, store, atomic op or fence.
    ///
    /// A memory model finds the host address, calls [`Lower::host_access`] where the access may be
    /// tried, and leaves by cold blocks, which begin with [`Lower::write_state_map`].
    pub(super) fn memory_op(&mut self, v: Value) -> Result<Option<clif::Value>, CompileError> {
        let inst = self.region.inst(v);
        if inst.op == Op::Fence {
            self.b.ins().fence();
            return Ok(None);
        }
        if matches!(inst.op, Op::Load | Op::Store)
            && AccessKind::from_imm(inst.imm) == AccessKind::System
        {
            return Err(CompileError::Unsupported("system accesses".to_string()));
        }
        match self.unit.options.memory {
            MemoryModel::Window => self.window_op(v),
            MemoryModel::SoftTlb => self.tlb_op(v),
        }
    }

    /// The access itself, at a host address; its result if it has one.
    pub(super) fn host_access(
        &mut self,
        v: Value,
        flags: MemFlags,
        (at, offset): (clif::Value, i32),
    ) -> Option<clif::Value> {
        let region = self.region;
        let (inst, args) = (region.inst(v), region.args(v));
        match inst.op {
            Op::Load => Some(self.load_with(clif_type(inst.ty), flags, at, offset)),
            Op::Store => {
                let value = self.value(args[1]);
                self.store_with(flags, value, at, offset);
                None
            }
            _ => {
                let at = if offset == 0 {
                    at
                } else {
                    self.b.ins().iadd_imm_s(at, i64::from(offset))
                };
                Some(if inst.op == Op::Rmw {
                    self.rmw(inst, flags, at, args[1])
                } else {
                    self.cas(inst, flags, at, args[1], args[2])
                })
            }
        }
    }

    fn rmw(&mut self, inst: &Inst, flags: MemFlags, at: clif::Value, arg: Value) -> clif::Value {
        let op = match RmwOp::from_imm(inst.imm) {
            RmwOp::Add => clif::AtomicRmwOp::Add,
            RmwOp::Sub => clif::AtomicRmwOp::Sub,
            RmwOp::And => clif::AtomicRmwOp::And,
            RmwOp::Or => clif::AtomicRmwOp::Or,
            RmwOp::Xor => clif::AtomicRmwOp::Xor,
            RmwOp::Xchg => clif::AtomicRmwOp::Xchg,
        };
        let value = self.value(arg);
        let ty = clif_type(inst.ty);
        let (inst, dfg) = self
            .b
            .ins()
            .AtomicRmw(clif::Opcode::AtomicRmw, ty, flags, op, at, value);
        dfg.first_result(inst)
    }

    /// The 16-byte form is not atomic towards other host threads: there is one virtual CPU.
    fn cas(
        &mut self,
        inst: &Inst,
        flags: MemFlags,
        at: clif::Value,
        expected: Value,
        new: Value,
    ) -> clif::Value {
        let (expected, new) = (self.value(expected), self.value(new));
        if inst.ty != Type::V128 {
            let ty = clif_type(inst.ty);
            let (inst, dfg) =
                self.b
                    .ins()
                    .AtomicCas(clif::Opcode::AtomicCas, ty, flags, at, expected, new);
            return dfg.first_result(inst);
        }
        let old = self.load_with(types::I64X2, flags, at, 0);
        let expected = self.bitcast(types::I64X2, expected);
        let new = self.bitcast(types::I64X2, new);
        let differ = self.b.ins().bxor(old, expected);
        let low = self.b.ins().extractlane(differ, 0);
        let high = self.b.ins().extractlane(differ, 1);
        let any = self.b.ins().bor(low, high);
        let differ = self.b.ins().icmp_imm_u(IntCC::NotEqual, any, 0);
        let written = self.b.ins().select(differ, old, new);
        self.store_with(flags, written, at, 0);
        old
    }
}
