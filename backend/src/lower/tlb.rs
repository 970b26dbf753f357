//! The memory model of a whole system: a soft TLB.
//!
//! The state points to a table of [`TLB_ENTRIES`] entries (see [`TlbEntry`]), indexed by the linear
//! page number. A probe compares the page of the access's *last* byte with the tag in the entry for
//! its first, so that an access that runs into the next page misses. An atomic access keeps the low
//! bits of its address in the comparison instead, so that one that is not aligned misses.
//!
//! Whatever misses is done whole by a helper, in a cold block that first writes the state map: it
//! gives the value, or the reason to leave for. The host never faults. The table stays the same within a region, only its entries
//! change: whatever changes privileges leaves.

use super::{Lower, clif_type};
use crate::common::{SLOW_VALUE, slow_access_signature};
use crate::error::CompileError;
use crate::layout::{TLB_ENTRIES, TlbAccess, TlbEntry};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self as clif, BlockArg, InstBuilder, types};
use metaphrase_ir::{AccessKind, Inst, Op, Reg, RmwOp, Type, Value};
use std::mem::offset_of;

const PAGE: u64 = 4096;

/// An entry as base and displacement, and what to compare its tag with.
struct Probe {
    entry: clif::Value,
    offset: i32,
    last: clif::Value,
    /// The bits that must be equal.
    mask: u64,
}

impl Lower<'_, '_> {
    /// A load, store or atomic op.
    pub(super) fn tlb_op(&mut self, v: Value) -> Result<Option<clif::Value>, CompileError> {
        let (region, inst) = (self.region, self.region.inst(v));
        let addr = region.args(v)[0];
        let linear = self.value(addr);
        // Guests mostly go on with a narrow value zero-extended, as the host can load it.
        let narrow = matches!(inst.ty, Type::I8 | Type::I16 | Type::I32);
        let ty = match inst.op {
            Op::Store => None,
            _ if narrow => Some(types::I64),
            _ => Some(clif_type(inst.ty)),
        };
        let join = self.b.create_block();
        if let Some(ty) = ty {
            self.b.append_block_param(join, ty);
        }
        let end = |lower: &mut Self, value: Option<clif::Value>| {
            let arg = value.zip(ty).map(|(v, ty)| match narrow {
                true => lower.widen(v),
                // Block parameters hold vectors as bytes.
                false => lower.bitcast(ty, v),
            });
            let args = arg.map(BlockArg::Value);
            lower.b.ins().jump(join, args.as_slice());
        };

        if let Some(probe) = self.probe(inst, addr, linear) {
            let part = match needs_write(inst) {
                true => offset_of!(TlbEntry, write),
                false => offset_of!(TlbEntry, read),
            };
            let tag = self.load_tlb(&probe, part);
            let differ = self.b.ins().bxor(probe.last, tag);
            let miss = self.b.ins().band_imm_s(differ, probe.mask as i64);
            let cold = self.b.create_block();
            let hot = self.b.create_block();
            self.b.set_cold_block(cold);
            self.b.ins().brif(miss, cold, &[], hot, &[]);
            self.b.switch_to_block(hot);
            let addend = self.load_tlb(&probe, offset_of!(TlbEntry, addend));
            let host = self.b.ins().iadd(linear, addend);
            let data = self.guest.with_trap_code(None);
            let flags = self.b.func.dfg.mem_flags.insert_unchecked(data);
            let value = self.host_access(v, flags, (host, 0));
            end(self, value);
            self.b.switch_to_block(cold);
        }
        // A device that the access reaches may look at the state, at the fuel above all.
        self.write_state_map(v)?;
        let value = self.slow_access(v, linear)?;
        end(self, value);
        self.end_cold();
        if region.mapped(v) & Reg::CcOp.bit() != 0 {
            self.cc_op = None;
        }
        self.b.switch_to_block(join);
        Ok(ty.map(|_| {
            let value = self.b.block_params(join)[0];
            if narrow {
                self.wide.insert(v, value);
                return self.b.ins().ireduce(clif_type(inst.ty), value);
            }
            value
        }))
    }

    fn load_tlb(&mut self, probe: &Probe, part: usize) -> clif::Value {
        let (flags, offset) = (self.in_tlb, probe.offset + part as i32);
        self.load_with(types::I64, flags, probe.entry, offset)
    }

    /// The probe for an access; `None` if it cannot hit.
    fn probe(&mut self, inst: &Inst, addr: Value, linear: clif::Value) -> Option<Probe> {
        const SCALE: u32 = size_of::<TlbEntry>().trailing_zeros();
        const MASK: u64 = (TLB_ENTRIES as u64 - 1) << SCALE;
        let bytes = u64::from(inst.ty.bytes());
        let atomic = matches!(inst.op, Op::Rmw | Op::Cas);
        let slot = self.unit.layout.tlb as i32;
        let table = self.load_with(types::I64, self.constant, self.state, slot);
        if let Some(at) = self.constant_address(addr) {
            let last = at.wrapping_add(bytes - 1);
            if at / PAGE != last / PAGE || atomic && at % bytes != 0 {
                return None;
            }
            return Some(Probe {
                entry: table,
                offset: (((at / PAGE) << SCALE) & MASK) as i32,
                last: self.iconst(types::I64, at),
                mask: !(PAGE - 1),
            });
        }
        let (mut last, mut mask) = (linear, !(PAGE - 1));
        if atomic {
            mask |= bytes - 1;
        } else if bytes > 1 {
            last = self.b.ins().iadd_imm_s(linear, bytes as i64 - 1);
        }
        let shift = PAGE.trailing_zeros() - SCALE;
        let index = self.b.ins().ushr_imm_u(linear, i64::from(shift));
        let index = self.b.ins().band_imm_u(index, MASK as i64);
        Some(Probe {
            entry: self.b.ins().iadd(index, table),
            offset: 0,
            last,
            mask,
        })
    }

    /// The address, if it is known now.
    fn constant_address(&self, addr: Value) -> Option<u64> {
        let inst = self.region.inst(self.region.uncopied(addr));
        match inst.op {
            Op::Const => Some(inst.imm),
            Op::Pc => Some(self.region.pc_at(inst.imm as i64)),
            _ => None,
        }
    }

    /// Has a helper do the access, in a cold block; its result if it has one. The region is left
    /// if the access faults.
    fn slow_access(
        &mut self,
        v: Value,
        linear: clif::Value,
    ) -> Result<Option<clif::Value>, CompileError> {
        let (region, inst) = (self.region, self.region.inst(v));
        let ty = inst.ty;
        let mut access = TlbAccess {
            bytes: ty.bytes() as u8,
            ..TlbAccess::default()
        };
        let helpers = self.unit.helpers;
        let helper = match inst.op {
            Op::Load => {
                access.update = needs_write(inst);
                helpers.load
            }
            Op::Store => helpers.store,
            Op::Rmw => {
                access.op = RmwOp::from_imm(inst.imm) as u8;
                helpers.rmw
            }
            _ => helpers.cas,
        };
        let zero = self.iconst(types::I64, 0);
        let descriptor = self.iconst(types::I64, access.pack());
        let mut host = [self.state, descriptor, linear, zero, zero];
        let data = &region.args(v)[1..region.own_args(v)];
        for (n, &arg) in data.iter().enumerate() {
            let value = self.value(arg);
            if region.ty(arg) == Type::V128 {
                self.store_state(value, self.unit.layout.helper_v + 16 * n as u32);
            } else {
                host[3 + n] = self.widen(value);
            }
        }
        self.call_slow(helper as usize, host);
        let reason = self.load_state(types::I32, self.unit.layout.exit_reason);
        let set = self.b.ins().icmp_imm_u(IntCC::NotEqual, reason, 0);
        let fine = self.branch_cold(set);
        self.leave_helper(reason);
        self.b.switch_to_block(fine);
        self.b.set_cold_block(fine);
        Ok((inst.op != Op::Store).then(|| {
            let slots = self.unit.layout.helper_v;
            let slot = match ty {
                Type::V128 => slots,
                _ => slots + SLOW_VALUE,
            };
            // The low bytes are the value of any type, as helpers extend it.
            self.load_state(clif_type(ty), slot)
        }))
    }

    /// Calls the helper in a way that leaves all registers alone.
    fn call_slow(&mut self, helper: usize, args: [clif::Value; 5]) {
        let sig = *self
            .slow_sig
            .get_or_insert_with(|| self.b.import_signature(slow_access_signature()));
        let stub = self.load_state(types::I64, self.unit.layout.slow_access);
        let helper = self.iconst(types::I64, helper as u64);
        let [state, access, addr, b, c] = args;
        let args = [state, access, addr, b, c, helper];
        self.b.ins().call_indirect(sig, stub, &args);
    }
}

/// Whether the access needs the right to write.
fn needs_write(inst: &Inst) -> bool {
    inst.op != Op::Load || AccessKind::from_imm(inst.imm) == AccessKind::Update
}
