//! A literal evaluator of regions: values in a map, one step an instruction, nothing folded.

use super::*;
use crate::memory::MemFault;
use metaphrase_ir::exit::{exception_info, has_error_code};
use metaphrase_ir::flags::evaluate;
use metaphrase_ir::{Block, CcOp, Cond, FlagKind, IntCc, Op, Reg, RmwOp, Shape, Type, Value};
use std::collections::HashMap;

/// Runs a region on `guest` and answers the reason.
pub fn evaluate_region(region: &Region, guest: &mut Guest) -> ExitReason {
    let mut m = Model {
        region,
        guest,
        values: HashMap::new(),
    };
    let mut block = Region::ENTRY;
    loop {
        match m.block(block) {
            Ok(next) => block = next,
            Err(reason) => return reason,
        }
    }
}

struct Model<'a> {
    region: &'a Region,
    guest: &'a mut Guest,
    values: HashMap<Value, u128>,
}

/// The result of an integer op of type `ty`, by the op's row.
pub fn integer(op: Op, ty: Type, a: u64, b: u64) -> u64 {
    let bits = ty.bits();
    let (mask, n) = (ty.mask(), (b % u64::from(bits)) as u32);
    let sign = |v: u64| ((v << (64 - bits)) as i64 >> (64 - bits)) as i128;
    let (wa, wb) = (u128::from(a & mask), u128::from(b & mask));
    let r: u128 = match op {
        Op::Add => wa + wb,
        Op::Sub => wa.wrapping_sub(wb),
        Op::Mul => wa * wb,
        Op::UMulHi => (wa * wb) >> bits,
        Op::SMulHi => (sign(a) * sign(b)) as u128 >> bits,
        Op::UDiv => wa / wb,
        Op::URem => wa % wb,
        Op::SDiv => (sign(a) / sign(b)) as u128,
        Op::SRem => (sign(a) % sign(b)) as u128,
        Op::And => wa & wb,
        Op::Or => wa | wb,
        Op::Xor => wa ^ wb,
        Op::Shl => wa << n,
        Op::LShr => wa >> n,
        Op::AShr => (sign(a) >> n) as u128,
        Op::RotL => wa << n | wa >> (bits - n),
        Op::RotR => wa >> n | wa << (bits - n),
        Op::Neg => 0u128.wrapping_sub(wa),
        Op::Not => !wa,
        Op::Bswap => (0..bits / 8).fold(0, |r, i| r << 8 | (wa >> (8 * i) & 0xff)),
        Op::Clz => (0..bits)
            .take_while(|i| wa >> (bits - 1 - i) & 1 == 0)
            .count() as u128,
        Op::Ctz => (0..bits).take_while(|i| wa >> i & 1 == 0).count() as u128,
        Op::Popcnt => (0..bits).filter(|i| wa >> i & 1 == 1).count() as u128,
        _ => unreachable!("{op} is not in the model"),
    };
    r as u64 & mask
}

impl Model<'_> {
    fn arg(&self, v: Value, n: usize) -> u128 {
        self.values[&self.region.args(v)[n]]
    }

    fn int(&self, v: Value, n: usize) -> u64 {
        self.arg(v, n) as u64
    }

    fn leave(&mut self, v: Value, reason: ExitReason, after: bool) -> ExitReason {
        let insn = self.region.guest[usize::from(self.region.inst(v).insn)];
        let s = &mut self.guest.state;
        let done = i64::from(after);
        s.rip = (self.region.pc as i64 + insn.offset + done * i64::from(insn.len)) as u64;
        s.fuel += i64::from(insn.fuel_left) - done;
        reason
    }

    fn fault(&mut self, v: Value, fault: MemFault) -> ExitReason {
        self.guest.state.fault_addr = fault.addr;
        self.guest.state.exit_info = u64::from(fault.write);
        for (r, x) in self.region.state_map(v).collect::<Vec<_>>() {
            let x = self.values[&x];
            self.set(r, x);
        }
        self.leave(v, ExitReason::Memory, false)
    }

    fn block(&mut self, block: Block) -> Result<Block, ExitReason> {
        let insts = &self.region.blocks[block.0 as usize].insts;
        for &v in &insts[..insts.len() - 1] {
            let result = self.inst(v)?;
            if self.region.result_type(v).is_some() {
                self.values.insert(v, result);
            }
        }
        self.terminator(insts[insts.len() - 1])
    }

    fn terminator(&mut self, v: Value) -> Result<Block, ExitReason> {
        let inst = *self.region.inst(v);
        let pc = self.region.pc;
        match inst.op {
            Op::Br | Op::BrIf => {
                let edges: Vec<(Block, &[Value])> = self.region.successors(v).collect();
                let first = inst.op == Op::Br || self.int(v, 0) as u8 != 0;
                let (to, args) = edges[if first { 0 } else { 1 }];
                let args: Vec<u128> = args.iter().map(|a| self.values[a]).collect();
                let params = &self.region.blocks[to.0 as usize].params;
                for (&param, arg) in params.iter().zip(args) {
                    self.values.insert(param, arg);
                }
                return Ok(to);
            }
            Op::Jump => self.guest.state.rip = pc.wrapping_add(inst.imm),
            Op::JumpIf => {
                let fall = inst.aux as i32 as u64;
                let by = if self.int(v, 0) as u8 != 0 {
                    inst.imm
                } else {
                    fall
                };
                self.guest.state.rip = pc.wrapping_add(by);
            }
            Op::IJump => self.guest.state.rip = self.int(v, 0),
            _ => unreachable!("{} is not in the model", inst.op),
        }
        Err(ExitReason::Jump)
    }

    fn inst(&mut self, v: Value) -> Result<u128, ExitReason> {
        let inst = *self.region.inst(v);
        let ty = inst.ty;
        let at = if ty == Type::V128 {
            0
        } else {
            inst.imm as u32 & 127
        };
        Ok(match inst.op {
            Op::Const => inst.imm.into(),
            Op::VConst => self.region.vconsts[inst.imm as usize],
            Op::Copy => self.arg(v, 0),
            Op::ICmp => IntCc::from_imm(inst.imm)
                .holds(ty, self.int(v, 0), self.int(v, 1))
                .into(),
            Op::Select if self.int(v, 0) as u8 != 0 => self.arg(v, 1),
            Op::Select => self.arg(v, 2),
            Op::Zext => self.arg(v, 0),
            Op::Trunc => (self.int(v, 0) & ty.mask()).into(),
            Op::Sext => {
                let from = 64 - self.region.ty(self.region.args(v)[0]).bits();
                (((self.int(v, 0) << from) as i64 >> from) as u64 & ty.mask()).into()
            }
            Op::Ext => (self.int(v, 0) >> at & ty.mask()).into(),
            Op::Ins => {
                let mask = ty.mask() << at;
                (self.int(v, 0) & !mask | self.int(v, 1) << at & mask).into()
            }
            Op::GetReg => self.get(Reg::ALL[inst.imm as usize]),
            Op::SetReg => {
                let value = self.arg(v, 0);
                self.set(Reg::ALL[inst.imm as usize], value);
                0
            }
            Op::SetFlags => {
                let kind = FlagKind::ALL[inst.imm as usize];
                let arg = |n| {
                    if n < kind.arity() { self.int(v, n) } else { 0 }
                };
                let (a, b, c) = (arg(0), arg(1), arg(2));
                let s = &mut self.guest.state;
                let image = evaluate(CcOp::new(kind, ty), a, b, c);
                s.cc_op = CcOp::new(FlagKind::Raw, Type::I64).0;
                s.cc_a = image;
                0
            }
            Op::GetCond => {
                let cond = Cond::ALL[inst.imm as usize];
                u128::from(cond.holds(self.guest.state.arith_flags()))
            }
            Op::GetFlags => self.guest.state.arith_flags().into(),
            Op::Load => {
                let mut bytes = [0; 16];
                let n = ty.bytes() as usize;
                let read = self
                    .guest
                    .env
                    .memory
                    .read_bytes(self.int(v, 0), &mut bytes[..n]);
                read.map_err(|f| self.fault(v, f))?;
                u128::from_le_bytes(bytes)
            }
            Op::Store => {
                let (at, n) = (self.int(v, 0), ty.bytes() as usize);
                let bytes = self.arg(v, 1).to_le_bytes();
                let written = self.guest.env.memory.write_bytes(at, &bytes[..n]);
                written.map_err(|f| self.fault(v, f))?;
                0
            }
            Op::Rmw => {
                let (at, b, n) = (self.int(v, 0), self.int(v, 1), ty.bytes() as usize);
                let checked = self.guest.env.memory.check(at, n as u64, true);
                checked.map_err(|f| self.fault(v, f))?;
                let mut bytes = [0; 8];
                self.guest
                    .env
                    .memory
                    .read_bytes(at, &mut bytes[..n])
                    .unwrap();
                let old = u64::from_le_bytes(bytes);
                let new = match RmwOp::from_imm(inst.imm) {
                    RmwOp::Add => old.wrapping_add(b),
                    RmwOp::Sub => old.wrapping_sub(b),
                    RmwOp::And => old & b,
                    RmwOp::Or => old | b,
                    RmwOp::Xor => old ^ b,
                    RmwOp::Xchg => b,
                };
                self.guest
                    .env
                    .memory
                    .write_bytes(at, &new.to_le_bytes()[..n])
                    .unwrap();
                old.into()
            }
            Op::Cas => {
                let (at, n) = (self.int(v, 0), ty.bytes() as usize);
                let checked = self.guest.env.memory.check(at, n as u64, true);
                checked.map_err(|f| self.fault(v, f))?;
                let mut bytes = [0; 16];
                self.guest
                    .env
                    .memory
                    .read_bytes(at, &mut bytes[..n])
                    .unwrap();
                let old = u128::from_le_bytes(bytes);
                if old == self.arg(v, 1) {
                    let new = self.arg(v, 2).to_le_bytes();
                    self.guest.env.memory.write_bytes(at, &new[..n]).unwrap();
                }
                old
            }
            Op::Spend => {
                self.guest.state.fuel -= inst.imm as i64;
                0
            }
            Op::Fuel | Op::Need => {
                let n = inst.imm as i64;
                if self.guest.state.fuel < n {
                    let insn = self.region.guest[usize::from(inst.insn)];
                    self.guest.state.rip = self.region.pc.wrapping_add(insn.offset as u64);
                    return Err(ExitReason::Fuel);
                }
                if inst.op == Op::Fuel {
                    self.guest.state.fuel -= n;
                }
                0
            }
            Op::TrapIf => {
                if self.int(v, 0) as u8 != 0 {
                    let vector = inst.imm as u8;
                    let code = has_error_code(vector).then_some(0);
                    self.guest.state.exit_info = exception_info(vector, code);
                    return Err(self.leave(v, ExitReason::Exception, false));
                }
                0
            }
            Op::VXor => self.arg(v, 0) ^ self.arg(v, 1),
            Op::VAnd => self.arg(v, 0) & self.arg(v, 1),
            Op::VAdd => {
                let (a, b) = (self.arg(v, 0), self.arg(v, 1));
                let bits = Shape::ALL[inst.imm as usize].lane().bits();
                (0..128 / bits).fold(0, |r, n| {
                    let lane = |x: u128| (x >> (n * bits)) as u64;
                    let sum = lane(a).wrapping_add(lane(b)) & (u64::MAX >> (64 - bits));
                    r | u128::from(sum) << (n * bits)
                })
            }
            Op::VGet => self.arg(v, 0) >> (inst.aux * ty.bits()) & u128::from(ty.mask()),
            Op::VSet => {
                let mask = u128::from(ty.mask()) << (inst.aux * ty.bits());
                self.arg(v, 0) & !mask | self.arg(v, 1) << (inst.aux * ty.bits()) & mask
            }
            Op::VFromInt => self.arg(v, 0),
            Op::Bitcast => self.arg(v, 0),
            op => {
                let b = if self.region.args(v).len() > 1 {
                    self.int(v, 1)
                } else {
                    0
                };
                integer(op, ty, self.int(v, 0), b).into()
            }
        })
    }

    fn get(&self, reg: Reg) -> u128 {
        let n = reg as usize;
        let s = &self.guest.state;
        match reg {
            Reg::Mxcsr => s.mxcsr.into(),
            Reg::Fuel => (s.fuel as u64).into(),
            Reg::CcOp => s.cc_op.into(),
            Reg::CcA => s.cc_a.into(),
            Reg::CcB => s.cc_b.into(),
            Reg::CcC => s.cc_c.into(),
            _ if n < 16 => s.gpr[n].into(),
            _ if n >= Reg::YmmHi0 as usize && reg.ty() == Type::V128 => {
                s.ymm_hi[n - Reg::YmmHi0 as usize]
            }
            _ if reg.ty() == Type::V128 => s.xmm[n - Reg::Xmm0 as usize],
            _ if reg.ty() == Type::I16 => s.seg_sel[n - Reg::Es as usize].into(),
            _ => s.seg_base[n - Reg::EsBase as usize].into(),
        }
    }

    fn set(&mut self, reg: Reg, value: u128) {
        let n = reg as usize;
        let s = &mut self.guest.state;
        match reg {
            Reg::Mxcsr => s.mxcsr = value as u32,
            Reg::Fuel => s.fuel = value as i64,
            Reg::CcOp => s.cc_op = value as u32,
            Reg::CcA => s.cc_a = value as u64,
            Reg::CcB => s.cc_b = value as u64,
            Reg::CcC => s.cc_c = value as u64,
            _ if n < 16 => s.gpr[n] = value as u64,
            _ if n >= Reg::YmmHi0 as usize && reg.ty() == Type::V128 => {
                s.ymm_hi[n - Reg::YmmHi0 as usize] = value;
            }
            _ if reg.ty() == Type::V128 => s.xmm[n - Reg::Xmm0 as usize] = value,
            _ if reg.ty() == Type::I16 => s.seg_sel[n - Reg::Es as usize] = value as u16,
            _ => s.seg_base[n - Reg::EsBase as usize] = value as u64,
        }
    }
}
