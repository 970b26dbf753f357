//! x87 instructions on x86-64 hosts: the host's own, on the host's own registers.
//!
//! While [`X87Layout::live`] is not 0, the guest's x87 registers, tags, TOP and flags are those of
//! the host's FPU, and what the state has of them is old. Every exception is masked then, none is
//! pending, and the host has the guest's control word. So an instruction is a look at that byte
//! and a call of a stub; the helper is called where the byte is 0, and for what has no stub. It
//! brings the registers back into the state, and leaves them in the FPU again if it can. Whatever
//! else needs the x87 state calls [`StateLayout::x87_leave`], as the trampoline does at the end.
//!
//! What the guest loads is loaded before anything changes. A store changes the FPU first: its value
//! goes to scratch space, and on to guest memory with `live` at 2. If that access faults,
//! `x87_leave` finds the 2 and takes the instruction back.
//!
//! The pointers to the last instruction are always in the state. As long as nothing can look at
//! them they are not written but remembered.
//!
//! [`X87Layout::live`]: crate::layout::X87Layout::live
//! [`StateLayout::x87_leave`]: crate::layout::StateLayout::x87_leave

use super::{Lower, clif_type};
use crate::error::CompileError;
use crate::options::MemoryModel;
use crate::x87;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self as clif, AbiParam, BlockArg, InstBuilder, Signature, types};
use cranelift_codegen::isa::CallConv;
use metaphrase_ir::{AccessKind, Effect, Helper, Inst, Op, Reg, Region, Type, Value, X87Op, flags};
use std::collections::HashMap;

/// How an instruction is done inline.
enum Plan {
    /// WAIT: nothing is pending.
    Nothing,
    /// A stub, without operands.
    Plain,
    /// A stub that reads a value of that type.
    Load(Type),
    /// FLD m80.
    LoadExtended,
    /// A stub that writes a value of that type.
    Store(Type),
    /// FSTP m80.
    StoreExtended,
    /// FLDCW.
    LoadControl,
    /// FNSTCW.
    StoreControl,
    /// FNSTSW m16.
    StoreStatus,
    /// FNSTSW AX.
    Status,
    /// FCOMI and its kin.
    Flags,
    /// FCMOVcc.
    Select,
    /// FNCLEX.
    Clear,
}

impl Plan {
    /// By opcode and reg field: `0o14` is D9 /4. `None`: only the helper does it.
    fn of(op: X87Op) -> Option<Plan> {
        use Plan::*;
        if op.wait {
            return Some(Nothing);
        }
        let code = op.escape << 3 | op.modrm >> 3 & 7;
        Some(if op.is_memory() {
            match code {
                0o00..=0o07 | 0o10 | 0o20..=0o27 | 0o30 => Load(Type::I32),
                0o40..=0o47 | 0o50 | 0o75 => Load(Type::I64),
                0o60..=0o70 => Load(Type::I16),
                0o35 => LoadExtended,
                0o12 | 0o13 | 0o31..=0o33 => Store(Type::I32),
                0o51..=0o53 | 0o77 => Store(Type::I64),
                0o71..=0o73 => Store(Type::I16),
                0o37 => StoreExtended,
                0o15 => LoadControl,
                0o17 => StoreControl,
                0o57 => StoreStatus,
                _ => return None,
            }
        } else {
            match code {
                0o34 if op.modrm == 0xe2 => Clear,
                0o34 | 0o37 | 0o77 => return None,
                0o74 if op.modrm == 0xe0 => Status,
                0o74 => return None,
                0o35 | 0o36 | 0o75 | 0o76 => Flags,
                0o20..=0o23 | 0o30..=0o33 => Select,
                _ => Plain,
            }
        })
    }

    /// It counts as the last instruction.
    fn sets_pointers(&self) -> bool {
        use Plan::*;
        !matches!(
            self,
            Nothing | LoadControl | StoreControl | StoreStatus | Status | Clear
        )
    }
}

/// For each x87 instruction that accesses guest memory inline: the ops that do it, each with the
/// value that it stores, if it does. They lie in no block.
pub(crate) type Accesses = HashMap<Value, Vec<(Value, Option<Value>)>>;

/// The accesses of the x87 instructions of a region, and the region with them, if there are any.
pub(crate) fn accesses(region: &Region) -> (Option<Region>, Accesses) {
    let all = region.blocks.iter().flat_map(|b| &b.insts);
    let calls: Vec<Value> = all
        .filter(|&&v| is_x87(region.inst(v)) && X87Op::unpack(region.inst(v).aux).is_memory())
        .copied()
        .collect();
    let mut found = Accesses::new();
    if calls.is_empty() {
        return (None, found);
    }
    let mut with = region.clone();
    for call in calls {
        let inst = *region.inst(call);
        let Some(plan) = Plan::of(X87Op::unpack(inst.aux)) else {
            continue;
        };
        let [addr, end] = [0, 2].map(|n| region.args(call)[n]);
        let data = AccessKind::Data as u64;
        let mut load = |ty, addr| (with.make(Op::Load, ty, inst.insn, &[addr], data, 0), None);
        let list = match plan {
            Plan::Load(ty) => vec![load(ty, addr)],
            Plan::LoadControl => vec![load(Type::I16, addr)],
            Plan::LoadExtended => vec![load(Type::I64, addr), load(Type::I16, end)],
            _ => {
                let mut store = |ty, addr| {
                    let value = with.make(Op::Param, ty, inst.insn, &[], 0, 0);
                    let args = [addr, value];
                    let store = with.make(Op::Store, ty, inst.insn, &args, data, 0);
                    (store, Some(value))
                };
                match plan {
                    Plan::Store(ty) => vec![store(ty, addr)],
                    Plan::StoreControl | Plan::StoreStatus => vec![store(Type::I16, addr)],
                    Plan::StoreExtended => vec![store(Type::I64, addr), store(Type::I16, end)],
                    _ => continue,
                }
            }
        };
        found.insert(call, list);
    }
    (Some(with), found)
}

fn is_x87(inst: &Inst) -> bool {
    inst.op == Op::Call && Helper::from_imm(inst.imm) == Helper::X87
}

/// The pointers to the last instruction, still to be written.
#[derive(Clone, Copy)]
pub(super) struct Pointers {
    opcode: u16,
    pc: Value,
}

impl Lower<'_, '_> {
    /// Loads the window's base in the entry block, if only x87 instructions access memory.
    pub(super) fn prepare_x87(&mut self) {
        let window = self.unit.options.memory == MemoryModel::Window;
        if self.mem_base.is_none() && window && !self.unit.x87.is_empty() {
            let offset = self.unit.layout.mem_base as i32;
            self.mem_base = Some(self.load_with(types::I64, self.fixed, self.state, offset));
        }
    }

    /// Writes the pointers to the last x87 instruction if `inst` might look at them or leave.
    pub(super) fn settle_pointers(&mut self, inst: &Inst) {
        let unseen = matches!(
            inst.op.info().effect,
            Effect::Pure | Effect::Float | Effect::ReadState | Effect::WriteState
        );
        if self.pointers.is_some() && !unseen && !is_x87(inst) {
            self.write_pointers();
            self.pointers = None;
        }
    }

    fn write_pointers(&mut self) {
        let Some(Pointers { opcode, pc }) = self.pointers else {
            return;
        };
        let layout = self.unit.layout;
        self.store_state_const(types::I16, opcode.into(), layout.x87.opcode);
        let pc = self.value(pc);
        self.store_state(pc, layout.x87.ip);
        let cs = self.load_state(types::I16, layout.reg(Reg::Cs));
        self.store_state(cs, layout.x87.cs);
    }

    /// Brings the x87 registers into the state before an MMX register is read there.
    pub(super) fn leave_x87(&mut self) {
        let Some(leave) = self.unit.layout.x87_leave else {
            return;
        };
        let live = self.load_state(types::I8, self.unit.layout.x87.live);
        let go_on = self.branch_cold(live);
        let zero = self.iconst(types::I64, 0);
        self.call_host(leave as usize, &[self.state, zero, zero, zero, zero]);
        self.b.ins().jump(go_on, &[]);
        self.b.switch_to_block(go_on);
    }

    /// An x87 instruction; its result is 0 but for those that have one.
    pub(super) fn x87(
        &mut self,
        v: Value,
        inst: &Inst,
        args: &[Value],
    ) -> Result<clif::Value, CompileError> {
        let op = X87Op::unpack(inst.aux);
        let Some(plan) = Plan::of(op) else {
            self.write_pointers();
            self.pointers = None;
            return Ok(self.x87_helper(inst, args));
        };
        let live = self.load_state(types::I8, self.unit.layout.x87.live);
        let [cold, hot, join] = std::array::from_fn(|_| self.b.create_block());
        self.b.set_cold_block(cold);
        self.b.append_block_param(join, types::I64);
        self.b.ins().brif(live, hot, &[], cold, &[]);
        self.b.switch_to_block(cold);
        self.write_pointers();
        let result = self.x87_helper(inst, args);
        self.b.ins().jump(join, &[BlockArg::Value(result)]);
        self.b.switch_to_block(hot);
        let result = self.x87_inline(v, &plan, args, cold)?;
        self.b.ins().jump(join, &[BlockArg::Value(result)]);
        self.b.switch_to_block(join);
        if plan.sets_pointers() {
            self.pointers = Some(Pointers {
                opcode: inst.aux as u16 & 0x7ff,
                pc: args[1],
            });
        } else if op.is_memory() && !op.wait {
            self.pointers = None;
        }
        Ok(self.b.block_params(join)[0])
    }

    /// The helper, which leaves the registers in the FPU if it can.
    fn x87_helper(&mut self, inst: &Inst, args: &[Value]) -> clif::Value {
        let descriptor = self.iconst(types::I64, u64::from(inst.aux));
        let [a, b, c] = [0, 1, 2].map(|n| self.value(args[n]));
        let address = self.unit.helpers.x87 as usize;
        let result = self.call_host(address, &[self.state, descriptor, a, b, c]);
        self.check_helper_exit();
        result
    }

    /// The instruction while the registers are in the FPU. It may still go to `cold`, as long as
    /// nothing has happened.
    fn x87_inline(
        &mut self,
        v: Value,
        plan: &Plan,
        args: &[Value],
        cold: clif::Block,
    ) -> Result<clif::Value, CompileError> {
        let op = X87Op::unpack(self.region.inst(v).aux);
        let (escape, reg) = (op.escape, op.modrm >> 3 & 7);
        let room = self.unit.layout.helper_v;
        if op.is_memory() && !op.wait {
            // The access may fault.
            self.write_pointers();
        }
        match *plan {
            Plan::Nothing => {}
            Plan::Plain | Plan::Clear => self.x87_stub(x87::register(escape, op.modrm), None),
            Plan::Load(_) => {
                let value = self.x87_load(v, 0)?;
                self.store_state(value, room);
                self.x87_stub_on_scratch(x87::memory(escape, reg));
            }
            Plan::LoadExtended => {
                let low = self.x87_load(v, 0)?;
                let high = self.x87_load(v, 1)?;
                self.store_state(low, room);
                self.store_state(high, room + 8);
                self.x87_stub_on_scratch(x87::memory(escape, reg));
            }
            Plan::Store(ty) => {
                self.x87_stub_on_scratch(x87::store(escape, reg));
                self.set_live(2);
                let value = self.load_state(clif_type(ty), room);
                self.x87_store(v, 0, value)?;
                self.set_live(1);
            }
            Plan::StoreExtended => {
                // On one page all of it can be written or nothing.
                let addr = self.value(args[0]);
                let offset = self.b.ins().band_imm_u(addr, 0xfff);
                let last = 0x1000 - 10;
                let inside = self
                    .b
                    .ins()
                    .icmp_imm_u(IntCC::UnsignedLessThanOrEqual, offset, last);
                self.go_on_if(inside, cold);
                self.x87_stub_on_scratch(x87::store(escape, reg));
                self.set_live(2);
                let low = self.load_state(types::I64, room);
                let high = self.load_state(types::I16, room + 8);
                self.x87_store(v, 0, low)?;
                self.x87_store(v, 1, high)?;
                self.set_live(1);
            }
            Plan::LoadControl => {
                let word = self.x87_load(v, 0)?;
                let masks = self.b.ins().band_imm_u(word, 0x3f);
                let all = self.b.ins().icmp_imm_u(IntCC::Equal, masks, 0x3f);
                self.go_on_if(all, cold);
                // As the register has it: bit 6 is 1, reserved bits are 0.
                let word = self.b.ins().band_imm_u(word, 0x1f3f);
                let word = self.b.ins().bor_imm_u(word, 0x40);
                self.store_state(word, self.unit.layout.x87.control);
                self.store_state(word, room);
                self.x87_stub_on_scratch(x87::memory(escape, reg));
            }
            Plan::StoreControl => {
                let word = self.load_state(types::I16, self.unit.layout.x87.control);
                self.x87_store(v, 0, word)?;
            }
            Plan::StoreStatus => {
                self.x87_stub_on_scratch(x87::memory(5, 7));
                let word = self.load_state(types::I16, room);
                self.x87_store(v, 0, word)?;
            }
            Plan::Status => {
                self.x87_stub_on_scratch(x87::memory(5, 7));
                let word = self.load_state(types::I16, room);
                return Ok(self.b.ins().uextend(types::I64, word));
            }
            Plan::Flags => {
                self.x87_stub_on_scratch(x87::flags(escape, op.modrm));
                let image = self.load_state(types::I64, room);
                let mask = flags::CF | flags::PF | flags::ZF;
                return Ok(self.b.ins().band_imm_u(image, mask as i64));
            }
            Plan::Select => {
                let condition = self.value(args[0]);
                self.x87_stub(x87::select(op.modrm & 7), Some(condition));
            }
        }
        if op.is_memory() && plan.sets_pointers() {
            self.write_operand_pointer(op, args[0]);
        }
        Ok(self.iconst(types::I64, 0))
    }

    /// The pointer to the memory operand: its offset and its segment's selector.
    fn write_operand_pointer(&mut self, op: X87Op, addr: Value) {
        let layout = self.unit.layout;
        let segment = usize::from(op.segment.min(5));
        let mut offset = self.value(addr);
        if op.based {
            let base = Reg::ALL[Reg::EsBase as usize + segment];
            let base = self.load_state(types::I64, layout.reg(base));
            offset = self.b.ins().isub(offset, base);
        }
        self.store_state(offset, layout.x87.dp);
        let selector = Reg::ALL[Reg::Es as usize + segment];
        let selector = self.load_state(types::I16, layout.reg(selector));
        self.store_state(selector, layout.x87.ds);
    }

    /// Goes to `cold` unless `cond` is 1.
    fn go_on_if(&mut self, cond: clif::Value, cold: clif::Block) {
        let hot = self.b.create_block();
        self.b.ins().brif(cond, hot, &[], cold, &[]);
        self.b.switch_to_block(hot);
    }

    fn set_live(&mut self, live: u64) {
        self.store_state_const(types::I8, live, self.unit.layout.x87.live);
    }

    /// The instruction's access `n`, a load.
    fn x87_load(&mut self, v: Value, n: usize) -> Result<clif::Value, CompileError> {
        let (load, _) = self.unit.x87[&v][n];
        Ok(self.memory_op(load)?.expect("a load has a result"))
    }

    /// The instruction's access `n`, a store.
    fn x87_store(&mut self, v: Value, n: usize, value: clif::Value) -> Result<(), CompileError> {
        let (store, name) = self.unit.x87[&v][n];
        if let Some(name) = name {
            self.s.values[name.0 as usize] = Some(value);
        }
        self.memory_op(store)?;
        Ok(())
    }

    /// Calls a stub with the address of the scratch space.
    fn x87_stub_on_scratch(&mut self, stub: usize) {
        self.x87_stub(stub, None);
    }

    /// Calls a stub, which may want a value.
    fn x87_stub(&mut self, stub: usize, value: Option<clif::Value>) {
        let sig = match self.x87_sig {
            Some(sig) => sig,
            None => {
                let mut sig = Signature::new(CallConv::PreserveAll);
                sig.params.extend([AbiParam::new(types::I64); 2]);
                *self.x87_sig.insert(self.b.import_signature(sig))
            }
        };
        let callee = self.iconst(types::I64, stub as u64);
        let room = i64::from(self.unit.layout.helper_v);
        let room = self.b.ins().iadd_imm_s(self.state, room);
        let value = value.unwrap_or(room);
        self.b.ins().call_indirect(sig, callee, &[room, value]);
    }
}
