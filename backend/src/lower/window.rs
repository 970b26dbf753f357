//! The memory model of user mode: a window of host address space.
//!
//! Linear address `a` lies at host address `mem_base + a`. Accesses at or above `mem_limit` leave
//! the region with `Memory`; everything below is left to the host MMU. The window has guard zones
//! of 2 GiB on both sides, so an address near one that was tested needs no test of its own: it
//! faults in a guard at worst, and the fault handler reports it all the same.
//!
//! An access with a state map has a cold block of its own, which writes the map and leaves. The
//! fault handler goes on there too when the access faults (see [`crate::resume`]). To keep it
//! alive and to have it find all it needs, a branch right before the access goes there: the test
//! against the limit, or else one that never goes.

use super::{Access, Lower, trap_code};
use crate::error::CompileError;
use crate::options::MemoryModel;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self as clif, InstBuilder, types};
use metaphrase_ir::{Op, Region, Type, Value};

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
            self.mem_base = Some(self.load_with(types::I64, self.fixed, self.state, offset));
        }
        // In a loop the limit is worth a register; elsewhere whoever needs it loads it.
        if self.region.blocks.len() > 1 {
            let offset = self.unit.layout.mem_limit as i32;
            self.mem_limit = Some(self.load_with(types::I64, self.fixed, self.state, offset));
        }
    }

    /// A load, store or atomic op.
    pub(super) fn window_op(&mut self, v: Value) -> Result<Option<clif::Value>, CompileError> {
        let inst = self.region.inst(v);
        let address = split(self.region, self.region.args(v)[0]);
        let kind = if self.region.mapped(v) != 0 {
            self.branch_to_map(v, &address)?;
            Access::Mapped
        } else {
            self.test(v, &address);
            Access::of(inst.op)
        };
        let loaded = inst.op == Op::Store && self.loaded.holds(self.region, self.region.args(v)[0]);
        let data = if loaded { self.guest_kept } else { self.guest };
        let data = data.with_trap_code(Some(trap_code(inst.insn, kind)));
        let flags = self.b.func.dfg.mem_flags.insert_unchecked(data);
        let at = self.host_address(&address);
        Ok(self.host_access(v, flags, at))
    }

    /// The host address, as a value and an offset.
    fn host_address(&mut self, address: &Address) -> (clif::Value, i32) {
        let window = self.mem_base.expect("the entry block has loaded it");
        match *address {
            Address::Constant(linear) => match i32::try_from(linear) {
                Ok(offset) => (window, offset),
                Err(_) => {
                    let linear = self.iconst(types::I64, linear);
                    (self.b.ins().iadd(window, linear), 0)
                }
            },
            Address::Based(base, disp) => {
                let base = self.value(base);
                // `split` keeps displacements well inside 32 bits.
                (self.b.ins().iadd(window, base), disp as i32)
            }
        }
    }

    /// Whether the address needs a test against the limit.
    fn needs_test(&self, address: &Address) -> bool {
        let min_limit = self.unit.options.min_limit;
        match *address {
            Address::Constant(linear) => linear >= min_limit.saturating_sub(64),
            Address::Based(base, disp) => {
                let inside = min_limit >= 1 << 32 && is_narrow(self.region, base);
                !inside && !self.checked.covers(base, disp)
            }
        }
    }

    /// 1 if the linear address is not below the limit.
    fn is_outside(&mut self, v: Value, address: &Address) -> clif::Value {
        let linear = match *address {
            Address::Constant(linear) => self.iconst(types::I64, linear),
            Address::Based(base, disp) => {
                self.checked.0.push((base, disp));
                self.value(self.region.args(v)[0])
            }
        };
        let limit = match self.mem_limit {
            Some(limit) => limit,
            None => self.load_state(types::I64, self.unit.layout.mem_limit),
        };
        self.b
            .ins()
            .icmp(IntCC::UnsignedGreaterThanOrEqual, linear, limit)
    }

    /// Leaves the region if the linear address is not below the limit.
    fn test(&mut self, v: Value, address: &Address) {
        if self.needs_test(address) {
            let outside = self.is_outside(v, address);
            let hot = self.branch_cold(outside);
            self.leave_outside(v, address);
            self.b.switch_to_block(hot);
        }
    }

    /// Makes the cold block of an access with a state map, and the branch to it.
    fn branch_to_map(&mut self, v: Value, address: &Address) -> Result<(), CompileError> {
        let cond = if self.needs_test(address) {
            self.is_outside(v, address)
        } else {
            // The window is never at host address 0.
            let window = self.mem_base.expect("the entry block has loaded it");
            self.b.ins().icmp_imm_u(IntCC::Equal, window, 0)
        };
        let hot = self.branch_mapped(v, cond);
        self.write_state_map(v)?;
        self.leave_outside(v, address);
        self.end_cold();
        self.b.switch_to_block(hot);
        Ok(())
    }

    /// Leaves with `Memory` for the access.
    fn leave_outside(&mut self, v: Value, address: &Address) {
        let linear = match *address {
            Address::Constant(linear) => self.iconst(types::I64, linear),
            Address::Based(base, disp) => {
                let base = self.value(base);
                self.b.ins().iadd_imm_s(base, disp)
            }
        };
        self.leave_memory(linear, self.region.inst(v).op != Op::Load);
    }
}
