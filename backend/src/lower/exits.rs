//! Leaving the region: fuel, exceptions, exits, and the jump cache.
//!
//! Cold blocks end in a few common tails that take what differs as block parameters.

use super::Lower;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self as clif, BlockArg, ExtFuncData, InstBuilder, types};
use metaphrase_ir::exit::{exception_info, has_error_code};
use metaphrase_ir::{ExitReason, GuestInsn, Inst, Op, Value};

/// The common tails that have been asked for.
#[derive(Default)]
pub(super) struct Tails {
    /// (rip, reason)
    leave: Option<clif::Block>,
    /// (rip, fuel to give back, exit_info)
    raise: Option<clif::Block>,
    /// (rip, fuel to give back, exit_info, fault_addr)
    memory: Option<clif::Block>,
    /// (rip, fuel to give back, reason: i32)
    helper: Option<clif::Block>,
}

impl Lower<'_, '_> {
    fn guest(&self) -> GuestInsn {
        self.region.guest[usize::from(self.insn)]
    }

    /// The PC of the current guest instruction.
    fn pc(&mut self) -> clif::Value {
        let pc = self.region.pc_at(self.guest().offset);
        self.iconst(types::I64, pc)
    }

    /// The PC of the next one.
    fn next_pc(&self) -> u64 {
        let guest = self.guest();
        self.region.pc_at(guest.offset + i64::from(guest.len))
    }

    fn fuel_left(&mut self) -> clif::Value {
        let left = u64::from(self.guest().fuel_left);
        self.iconst(types::I64, left)
    }

    /// Jumps to a common tail, made when it is first asked for.
    fn end_in_tail(
        &mut self,
        tail: fn(&mut Tails) -> &mut Option<clif::Block>,
        args: &[clif::Value],
    ) {
        let block = match *tail(&mut self.tails) {
            Some(block) => block,
            None => {
                let block = self.b.create_block();
                self.b.set_cold_block(block);
                for &arg in args {
                    let ty = self.b.func.dfg.value_type(arg);
                    self.b.append_block_param(block, ty);
                }
                *tail(&mut self.tails) = Some(block);
                block
            }
        };
        let args: [BlockArg; 4] = std::array::from_fn(|n| {
            BlockArg::Value(args.get(n).or(args.last()).copied().expect("an argument"))
        });
        let count = self.b.block_params(block).len();
        self.b.ins().jump(block, &args[..count]);
    }

    fn give_fuel(&mut self, amount: clif::Value) {
        let offset = self.unit.layout.fuel as i32;
        let fuel = self.load_with(types::I64, self.in_fuel, self.state, offset);
        let fuel = self.b.ins().iadd(fuel, amount);
        self.store_with(self.in_fuel, fuel, self.state, offset);
    }

    fn return_reason(&mut self, reason: ExitReason) {
        let reason = self.iconst(types::I64, reason as u64);
        self.b.ins().return_(&[reason]);
    }

    /// Fills the tails that were used.
    pub(super) fn finish_tails(&mut self) {
        let layout = self.unit.layout;
        self.b.set_srcloc(Default::default());
        if let Some(block) = self.tails.leave {
            self.b.switch_to_block(block);
            let [rip, reason] = self.params(block);
            self.store_state(rip, layout.rip);
            self.b.ins().return_(&[reason]);
        }
        if let Some(block) = self.tails.raise {
            self.b.switch_to_block(block);
            let [rip, fuel, info] = self.params(block);
            self.store_state(rip, layout.rip);
            self.store_state(info, layout.exit_info);
            self.give_fuel(fuel);
            self.return_reason(ExitReason::Exception);
        }
        if let Some(block) = self.tails.memory {
            self.b.switch_to_block(block);
            let [rip, fuel, info, linear] = self.params(block);
            self.store_state(rip, layout.rip);
            self.store_state(info, layout.exit_info);
            self.store_state(linear, layout.fault_addr);
            self.give_fuel(fuel);
            self.return_reason(ExitReason::Memory);
        }
        if let Some(block) = self.tails.helper {
            self.b.switch_to_block(block);
            let [rip, fuel, reason] = self.params(block);
            self.store_state(rip, layout.rip);
            self.give_fuel(fuel);
            self.return_helper_reason(reason);
        }
    }

    fn params<const N: usize>(&self, block: clif::Block) -> [clif::Value; N] {
        let params = self.b.block_params(block);
        std::array::from_fn(|n| params[n])
    }

    /// Leaves if the fuel is less than that.
    pub(super) fn need(&mut self, count: u64) {
        // An atomic read (on x86-64 an ordinary load), so that Cranelift does not make it and that
        // of `spend` one: then the host subtracts in memory, and an event that empties the counter
        // from a signal handler is not overwritten.
        let offset = self.unit.layout.fuel as i32;
        let at = self.b.ins().iadd_imm_s(self.state, i64::from(offset));
        let (load, dfg) =
            self.b
                .ins()
                .LoadNoOffset(clif::Opcode::AtomicLoad, types::I64, self.in_fuel, at);
        let fuel = dfg.first_result(load);
        let wanted = self.iconst(types::I64, count);
        let short = self.b.ins().icmp(IntCC::SignedLessThan, fuel, wanted);
        let hot = self.branch_cold(short);
        self.out_of_fuel();
        self.b.switch_to_block(hot);
    }

    /// Takes that much from the fuel.
    pub(super) fn spend(&mut self, count: u64) {
        let offset = self.unit.layout.fuel as i32;
        let fuel = self.load_with(types::I64, self.in_fuel, self.state, offset);
        let count = self.iconst(types::I64, (count as i64).wrapping_neg() as u64);
        let rest = self.b.ins().iadd(fuel, count);
        self.store_with(self.in_fuel, rest, self.state, offset);
    }

    fn out_of_fuel(&mut self) {
        let rip = self.pc();
        let reason = self.iconst(types::I64, ExitReason::Fuel as u64);
        self.end_in_tail(|t| &mut t.leave, &[rip, reason]);
    }

    /// Leaves with `Memory` for the current guest instruction.
    pub(super) fn leave_memory(&mut self, linear: clif::Value, write: bool) {
        let (rip, fuel) = (self.pc(), self.fuel_left());
        let info = self.iconst(types::I64, u64::from(write));
        self.end_in_tail(|t| &mut t.memory, &[rip, fuel, info, linear]);
    }

    fn raise(&mut self, vector: u8) {
        let code = has_error_code(vector).then_some(0);
        let (rip, fuel) = (self.pc(), self.fuel_left());
        let info = self.iconst(types::I64, exception_info(vector, code));
        self.end_in_tail(|t| &mut t.raise, &[rip, fuel, info]);
    }

    pub(super) fn trap_if(&mut self, inst: &Inst, cond: Value) {
        let cond = self.value(cond);
        let hot = self.branch_cold(cond);
        self.raise(inst.imm as u8);
        self.b.switch_to_block(hot);
    }

    /// After a helper: leaves if it has set an exit reason. The instruction has not happened then:
    /// RIP is its PC, and its fuel is given back.
    pub(super) fn check_helper_exit(&mut self) {
        let reason = self.load_state(types::I32, self.unit.layout.exit_reason);
        let set = self.b.ins().icmp_imm_u(IntCC::NotEqual, reason, 0);
        let hot = self.branch_cold(set);
        self.leave_helper(reason);
        self.b.switch_to_block(hot);
    }

    /// Leaves before the current guest instruction, for the reason that a helper has given.
    pub(super) fn leave_helper(&mut self, reason: clif::Value) {
        let (rip, fuel) = (self.pc(), self.fuel_left());
        self.end_in_tail(|t| &mut t.helper, &[rip, fuel, reason]);
    }

    /// Takes the reason back from the state and returns it.
    fn return_helper_reason(&mut self, reason: clif::Value) {
        self.store_state_const(types::I32, 0, self.unit.layout.exit_reason);
        let reason = self.b.ins().uextend(types::I64, reason);
        self.b.ins().return_(&[reason]);
    }

    pub(super) fn exit(&mut self, inst: &Inst, args: &[Value]) {
        let layout = self.unit.layout;
        match inst.op {
            Op::Jump | Op::CallTo => self.direct(inst.imm as i64),
            Op::JumpIf => {
                let cond = self.value(args[0]);
                let (taken, fall) = (self.b.create_block(), self.b.create_block());
                self.b.ins().brif(cond, taken, &[], fall, &[]);
                self.b.switch_to_block(taken);
                self.direct(inst.imm as i64);
                self.b.switch_to_block(fall);
                self.direct(i64::from(inst.aux as i32));
            }
            Op::IJump | Op::ICall | Op::Ret => {
                let pc = self.value(args[0]);
                self.indirect(pc);
            }
            Op::Raise => self.raise(inst.imm as u8),
            Op::OutOfFuel => self.out_of_fuel(),
            Op::Trap => {
                let code = has_error_code(inst.imm as u8).then_some(0);
                let rip = self.next_pc();
                let rip = self.iconst(types::I64, rip);
                let left = u64::from(self.guest().fuel_left.saturating_sub(1));
                let fuel = self.iconst(types::I64, left);
                let info = self.iconst(types::I64, exception_info(inst.imm as u8, code));
                self.end_in_tail(|t| &mut t.raise, &[rip, fuel, info]);
            }
            Op::Syscall => {
                self.store_state_const(types::I64, inst.imm, layout.exit_info);
                let next = self.region.pc_at(i64::from(inst.aux as i32));
                let left = self.guest().fuel_left.saturating_sub(1);
                self.leave(next, left, ExitReason::Syscall);
            }
            Op::Halt => {
                let (next, left) = (self.next_pc(), self.guest().fuel_left.saturating_sub(1));
                self.leave(next, left, ExitReason::Halt);
            }
            Op::Emulate => {
                let pc = self.region.pc_at(self.guest().offset);
                let left = self.guest().fuel_left;
                self.leave(pc, left, ExitReason::Emulate);
            }
            Op::Resume => {
                let reason = self.load_state(types::I32, layout.exit_reason);
                let jump = self.iconst(types::I32, ExitReason::Jump as u64);
                let reason = self.b.ins().select(reason, reason, jump);
                self.return_helper_reason(reason);
            }
            op => unreachable!("{op} is not an exit"),
        }
    }

    /// Leaves for good: RIP, the fuel to give back, and why.
    fn leave(&mut self, rip: u64, fuel_left: u16, reason: ExitReason) {
        self.store_state_const(types::I64, rip, self.unit.layout.rip);
        if fuel_left != 0 {
            let amount = self.iconst(types::I64, u64::from(fuel_left));
            self.give_fuel(amount);
        }
        self.return_reason(reason);
    }

    /// A direct exit: a jump that is patched when its target is known, to the exit stub until
    /// then. A target that may come to be at another place takes the way of an indirect one.
    fn direct(&mut self, target: i64) {
        let pc = self.region.pc_at(target);
        if !self.region.is_linkable(pc) {
            let pc = self.iconst(types::I64, pc);
            return self.indirect(pc);
        }
        let index = self.targets.len() as u32;
        self.targets.push(target);
        let name = clif::UserExternalName::new(0, index);
        let name = self.b.func.declare_imported_user_function(name);
        let signature = self.signature_of_regions();
        let callee = self.b.import_function(ExtFuncData {
            name: clif::ExternalName::user(name),
            signature,
            colocated: true,
            patchable: false,
        });
        let slot = self.iconst(types::I64, u64::from(self.unit.slot_base + index) + 1);
        self.b.ins().return_call(callee, &[self.state, slot]);
    }

    /// An indirect exit: looks into the jump cache. What it finds there gets the PC as argument,
    /// for the miss stub that empty entries hold.
    fn indirect(&mut self, pc: clif::Value) {
        let layout = self.unit.layout;
        if self.unit.options.jump_cache {
            // `jump_hash`, scaled to entries of 16 bytes.
            let mask = i64::from(layout.jump_entries - 1) << 4;
            let high = self.b.ins().ushr_imm_u(pc, 12);
            let hash = self.b.ins().bxor(pc, high);
            let hash = self.b.ins().ishl_imm_u(hash, 4);
            let offset = self.b.ins().band_imm_u(hash, mask);
            let flags = self.constant;
            let cache = self.load_with(types::I64, flags, self.state, layout.jump_cache as i32);
            let entry = self.b.ins().iadd(cache, offset);
            let tag = self.load_with(types::I64, self.in_cache, entry, 0);
            let miss = self.b.ins().icmp(IntCC::NotEqual, tag, pc);
            let hot = self.branch_cold(miss);
            let reason = self.iconst(types::I64, ExitReason::Jump as u64);
            self.end_in_tail(|t| &mut t.leave, &[pc, reason]);
            self.b.switch_to_block(hot);
            let code = self.load_with(types::I64, self.in_cache, entry, 8);
            let sig = self.signature_of_regions();
            self.b
                .ins()
                .return_call_indirect(sig, code, &[self.state, pc]);
        } else {
            self.store_state(pc, layout.rip);
            self.return_reason(ExitReason::Jump);
        }
    }
}
