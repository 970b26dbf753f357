//! Guest memory.
//!
//! Linear address `a` lies at host address `mem_base + a`. Accesses at or above `mem_limit` leave
//! the region with `Memory`; everything below is left to the host MMU. The window has guard zones
//! of 2 GiB on both sides, so an address near one that was tested needs no test of its own: it
//! faults in a guard at worst, and the fault handler reports it all the same.

use super::{Lower, clif_type, trap_code};
use crate::error::CompileError;
use crate::options::MemoryModel;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self as clif, InstBuilder, MemFlags, types};
use metaphrase_ir::{AccessKind, Inst, Op, Region, RmwOp, Type, Value};

/// How far from a tested address an access may be without a test.
const NEAR: i64 = 1 << 30;

/// The addresses that the current IR block has tested: base value and displacement.
#[derive(Default)]
pub(super) struct Checked(Vec<(Value, i64)>);

impl Checked {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn covers(&self, base: Value, disp: i64) -> bool {
        self.0
            .iter()
            .any(|&(b, d)| b == base && (disp - d).abs() < NEAR)
    }
}

/// An address as base and displacement.
enum Address {
    /// A value plus a displacement smaller than [`NEAR`].
    Based(Value, i64),
    /// A constant.
    Constant(u64),
}

/// Takes constants off an address.
fn split(region: &Region, addr: Value) -> Address {
    let mut base = addr;
    let mut disp = 0i64;
    loop {
        let inst = region.inst(base);
        let args = region.args(base);
        let (rest, step) = match inst.op {
            Op::Copy => (args[0], 0),
            Op::Const => return Address::Constant(inst.imm.wrapping_add(disp as u64)),
            Op::Pc => {
                let pc = region.pc_at(inst.imm as i64);
                return Address::Constant(pc.wrapping_add(disp as u64));
            }
            Op::Add if inst.ty == Type::I64 => {
                if let Some(c) = region.as_const(args[1]) {
                    (args[0], c as i64)
                } else if let Some(c) = region.as_const(args[0]) {
                    (args[1], c as i64)
                } else {
                    return Address::Based(base, disp);
                }
            }
            Op::Sub if inst.ty == Type::I64 => match region.as_const(args[1]) {
                Some(c) => (args[0], (c as i64).wrapping_neg()),
                None => return Address::Based(base, disp),
            },
            _ => return Address::Based(base, disp),
        };
        match disp.checked_add(step) {
            // A constant base may be any distance away, as RIP-relative addresses are.
            Some(sum) if sum.abs() < NEAR || is_constant(region, rest) => {
                (base, disp) = (rest, sum);
            }
            _ => return Address::Based(base, disp),
        }
    }
}

fn is_constant(region: &Region, v: Value) -> bool {
    matches!(region.inst(v).op, Op::Const | Op::Pc)
}

/// True if the value cannot exceed 32 bits.
fn is_narrow(region: &Region, v: Value) -> bool {
    let inst = region.inst(v);
    inst.op == Op::Zext && region.ty(region.args(v)[0]) != Type::I64
}

impl Lower<'_, '_> {
    /// Loads the window's base and limit in the entry block, if anything needs them.
    pub(super) fn prepare_memory(&mut self) {
        if self.unit.options.memory != MemoryModel::Window {
            return;
        }
        let needs = |v: &Value| {
            matches!(
                self.region.inst(*v).op,
                Op::Load | Op::Store | Op::Rmw | Op::Cas
            )
        };
        if self.region.blocks.iter().any(|b| b.insts.iter().any(needs)) {
            let offset = self.unit.layout.mem_base as i32;
            self.mem_base = Some(self.load_with(types::I64, self.constant, self.state, offset));
        }
        // In a loop the limit is worth a register; elsewhere whoever needs it loads it.
        if self.region.blocks.len() > 1 {
            let offset = self.unit.layout.mem_limit as i32;
            self.mem_limit = Some(self.load_with(types::I64, self.constant, self.state, offset));
        }
    }

    /// A load, store, atomic op or fence.
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
            MemoryModel::Window => Ok(self.window_op(v)),
            MemoryModel::SoftTlb => self.tlb_op(v),
        }
    }

    /// An access through the window.
    fn window_op(&mut self, v: Value) -> Option<clif::Value> {
        let region = self.region;
        let inst = region.inst(v);
        let write = inst.op != Op::Load;
        let code = trap_code(inst.insn, write);
        let data = self.guest.with_trap_code(Some(code));
        let flags = self.b.func.dfg.mem_flags.insert_unchecked(data);
        let at = self.host_address(region.args(v)[0], write);
        self.host_access(v, flags, at)
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

    /// The host address of a linear address, as a value and an offset; tested if need be.
    fn host_address(&mut self, addr: Value, write: bool) -> (clif::Value, i32) {
        let window = self.mem_base.expect("the entry block has loaded it");
        match split(self.region, addr) {
            Address::Constant(linear) => {
                if linear >= self.unit.options.min_limit.saturating_sub(64) {
                    let linear = self.iconst(types::I64, linear);
                    self.check(linear, write);
                }
                match i32::try_from(linear) {
                    Ok(offset) => (window, offset),
                    Err(_) => {
                        let linear = self.iconst(types::I64, linear);
                        (self.b.ins().iadd(window, linear), 0)
                    }
                }
            }
            Address::Based(base, disp) => {
                let inside = self.unit.options.min_limit >= 1 << 32 && is_narrow(self.region, base);
                if !inside && !self.checked.covers(base, disp) {
                    let linear = self.value(addr);
                    self.check(linear, write);
                    self.checked.0.push((base, disp));
                }
                let base = self.value(base);
                // `split` keeps displacements well inside 32 bits.
                (self.b.ins().iadd(window, base), disp as i32)
            }
        }
    }

    /// Leaves the region if the linear address is not below the limit.
    fn check(&mut self, linear: clif::Value, write: bool) {
        let limit = match self.mem_limit {
            Some(limit) => limit,
            None => self.load_state(types::I64, self.unit.layout.mem_limit),
        };
        let outside = self
            .b
            .ins()
            .icmp(IntCC::UnsignedGreaterThanOrEqual, linear, limit);
        let hot = self.branch_cold(outside);
        self.leave_memory(linear, write);
        self.b.switch_to_block(hot);
    }
}
