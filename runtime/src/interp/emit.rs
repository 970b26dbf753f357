//! Predecoding: from an analysed region to the flat program.

use super::analyze::{Analysis, Operand, Place, Write};
use super::branches::{Fixup, Target};
use super::code::{Handler, Ins};
use super::slots::{Slots, scratch};
use super::statemap::Mapped;
use super::{Program, ProgramError, float, flow, int, mem, vector};
use crate::state::CpuState;
use metaphrase_backend::sse::Prepared;
use metaphrase_ir::{
    AccessKind, Block, CcOp, Effects, FlagKind, GuestInsn, Helper, IntCc, Op, Reg, Region, SseOp,
    Type, Value,
};

/// Predecodes a region.
pub(super) fn predecode(region: &Region) -> Result<Program, ProgramError> {
    let analysis = Analysis::new(region);
    let mut slots = Slots::new(region.insts.len());
    for block in region.block_ids() {
        for &v in &region.blocks[block.0 as usize].params {
            slots.allocate(v, region.ty(v), None)?;
        }
        for &v in &region.blocks[block.0 as usize].insts {
            if analysis.escapes[v.0 as usize] && has_temp(&analysis, v) {
                slots.allocate(v, region.ty(v), None)?;
            }
        }
    }
    let mut e = Emitter {
        a: analysis,
        slots,
        code: Vec::with_capacity(region.insts.len()),
        insns: Vec::with_capacity(region.insts.len()),
        maps: Vec::new(),
        starts: vec![0; region.blocks.len()],
        fixups: Vec::new(),
        exits: Vec::new(),
        insn: 0,
    };
    for block in region.block_ids() {
        e.block(block)?;
    }
    e.resolve();
    Ok(Program {
        code: e.code.into_boxed_slice(),
        insns: e.insns.into_boxed_slice(),
        guest: region.guest.clone().into_boxed_slice(),
        vconsts: region.vconsts.clone().into_boxed_slice(),
        maps: e.maps.into_boxed_slice(),
        exits: e.exits,
        pc_mask: region.code_size.pc_mask(),
        uses_mxcsr: float::uses_mxcsr(region),
    })
}

pub(super) struct Emitter<'r> {
    pub(super) a: Analysis<'r>,
    pub(super) slots: Slots,
    pub(super) code: Vec<Ins>,
    insns: Vec<u16>,
    maps: Vec<(u32, Box<[Mapped]>)>,
    pub(super) starts: Vec<usize>,
    pub(super) fixups: Vec<Fixup>,
    pub(super) exits: Vec<i64>,
    /// The guest instruction of what is emitted now.
    insn: u16,
}

impl<'r> Emitter<'r> {
    pub(super) fn region(&self) -> &'r Region {
        self.a.region
    }

    pub(super) fn push(&mut self, run: Handler, d: u16, a: u16, b: u16, imm: u64) {
        self.code.push(Ins { run, d, a, b, imm });
        self.insns.push(self.insn);
    }

    /// The slot of a value that has one.
    pub(super) fn slot(&self, v: Value) -> u16 {
        match self.a.place[v.0 as usize] {
            Place::Temp => self.slots.of(v),
            Place::Part(of, offset) => self.slot(of) + offset,
            Place::Reg(reg) => CpuState::reg_offset(reg) as u16,
        }
    }

    /// The slot of operand number `k`; constants are made on the spot.
    pub(super) fn source(&mut self, v: Value, k: u16) -> u16 {
        let v = self.a.root(v);
        let at = scratch(k);
        if let Some(bits) = self.a.constant(v) {
            self.push(int::constant, at, 0, 0, bits);
            return at;
        }
        let inst = self.region().inst(v);
        if inst.op == Op::VConst {
            let bits = self.vconst(inst.imm);
            self.push(int::constant, at, 0, 0, bits as u64);
            self.push(int::constant, at + 8, 0, 0, (bits >> 64) as u64);
            return at;
        }
        self.slot(v)
    }

    pub(super) fn vconst(&self, n: u64) -> u128 {
        self.region().vconsts.get(n as usize).copied().unwrap_or(0)
    }

    /// The same, with the whole 64 bits valid.
    fn clean_source(&mut self, v: Value, k: u16) -> u16 {
        let from = self.source(v, k);
        let v = self.a.root(v);
        if self.a.constant(v).is_some() || self.a.is_clean(v) {
            return from;
        }
        let ty = self.region().ty(v);
        self.push(move_as(ty), scratch(k), from, 0, 0);
        scratch(k)
    }

    fn block(&mut self, block: Block) -> Result<(), ProgramError> {
        self.starts[block.0 as usize] = self.code.len();
        self.slots.start_block();
        let insts = &self.region().blocks[block.0 as usize].insts;
        for (pos, &v) in insts.iter().enumerate() {
            let i = v.0 as usize;
            self.slots.release_until(pos as u32);
            self.insn = self.region().inst(v).insn;
            if !self.a.needed[i] || self.a.sunk[i] {
                continue;
            }
            let op = self.region().inst(v).op;
            if matches!(self.a.place[i], Place::Part(..)) || matches!(op, Op::Const | Op::VConst) {
                continue;
            }
            if has_temp(&self.a, v) && !self.a.escapes[i] {
                let until = Some(self.a.last_use[i]);
                self.slots.allocate(v, self.region().ty(v), until)?;
            }
            let d = match self.region().result_type(v) {
                Some(_) => self.slot(v),
                None => 0,
            };
            self.op(v, d, block)?;
            if let Some(map) = self.state_map(v) {
                // The access is the last instruction of its op.
                self.maps.push((self.code.len() as u32 - 1, map));
            }
        }
        Ok(())
    }

    /// Emits one op with its result at `d`.
    fn op(&mut self, v: Value, d: u16, block: Block) -> Result<(), ProgramError> {
        let inst = *self.region().inst(v);
        let ty = inst.ty;
        if let Some(run) = self.fused_flags(v, true) {
            let (a, b) = self.ordered(v);
            return self.two_operands(run, d, a, b, |e| e.fused_flags(v, false));
        }
        if int::binary(inst.op, ty, false).is_some() {
            let (a, b) = self.ordered(v);
            let Some(imm_run) = int::binary(inst.op, ty, true) else {
                return Ok(());
            };
            return self.two_operands(imm_run, d, a, b, |_| int::binary(inst.op, ty, false));
        }
        if let Some(run) = int::unary(inst.op, ty) {
            let a = self.source(self.a.arg(v, 0), 0);
            self.push(run, d, a, 0, 0);
            return Ok(());
        }
        match inst.op {
            Op::Const | Op::VConst | Op::Copy | Op::Param => {}
            Op::Pc => self.push(int::pc, d, 0, 0, inst.imm),
            Op::ICmp => {
                let cc = IntCc::from_imm(inst.imm);
                let (mut cc, mut a, mut b) = (cc, self.a.arg(v, 0), self.a.arg(v, 1));
                if self.a.constant(a).is_some() {
                    (cc, a, b) = (cc.swap(), b, a);
                }
                self.two_operands(int::compare(cc, ty, true), d, a, b, |_| {
                    Some(int::compare(cc, ty, false))
                })?;
            }
            Op::Select => {
                let c = self.source(self.a.arg(v, 0), 0);
                let x = self.source(self.a.arg(v, 1), 1);
                let y = self.source(self.a.arg(v, 2), 2);
                let run: Handler = match ty {
                    Type::V128 => int::select128,
                    _ => int::with_type!(ty, T => int::select::<T>),
                };
                self.push(run, d, c, x, u64::from(y));
            }
            Op::Zext | Op::Trunc | Op::Bitcast => {
                let from = self.a.arg(v, 0);
                let a = self.source(from, 0);
                let narrow = if inst.op == Op::Zext {
                    self.region().ty(from)
                } else {
                    ty
                };
                self.push(move_as(narrow), d, a, 0, 0);
            }
            Op::Sext => {
                let from = self.a.arg(v, 0);
                let a = self.source(from, 0);
                self.push(int::sign_extend(self.region().ty(from), ty), d, a, 0, 0);
            }
            Op::Ext => {
                let a = self.source(self.a.arg(v, 0), 0);
                let run: Handler = int::with_type!(ty, T => int::ext::<T>);
                self.push(run, d, a, 0, inst.imm);
            }
            Op::Ins => {
                let a = self.source(self.a.arg(v, 0), 0);
                let b = self.source(self.a.arg(v, 1), 1);
                if a == d && inst.imm.is_multiple_of(8) && inst.imm as u32 + ty.bits() <= 64 {
                    self.push(part_as(ty), d + (inst.imm / 8) as u16, b, 0, 0);
                } else {
                    let run: Handler = int::with_type!(ty, T => int::ins::<T>);
                    self.push(run, d, a, b, inst.imm);
                }
            }
            Op::GetReg => {
                let a = CpuState::reg_offset(Reg::ALL[inst.imm as usize]) as u16;
                if a != d {
                    self.push(move_as(ty), d, a, 0, 0);
                }
            }
            Op::SetReg => return self.set_reg(v, block),
            Op::SetFlags => self.set_flags(v),
            Op::GetCond => self.push(int::getcond, d, 0, 0, inst.imm),
            Op::GetFlags => self.push(int::getflags, d, 0, 0, 0),
            Op::Load | Op::Store => {
                let address = self.a.address(v, block);
                let a = address.base.map_or(0, |base| self.source(base, 0));
                let b = address.index.map_or(0, |index| self.source(index, 1));
                if inst.op == Op::Load {
                    let kind = AccessKind::from_imm(inst.imm);
                    let update = kind == AccessKind::Update && self.a.region.page.is_some();
                    let handler = mem::loading(ty, address.mode, update);
                    self.push(handler, d, a, b, address.imm);
                } else {
                    let value = self.source(self.a.arg(v, 1), 2);
                    self.push(mem::storing(ty, address.mode), value, a, b, address.imm);
                }
            }
            Op::Rmw => {
                let a = self.source(self.a.arg(v, 0), 0);
                let b = self.source(self.a.arg(v, 1), 1);
                self.push(mem::modifying(ty), d, a, b, inst.imm);
            }
            Op::Cas => {
                let a = self.source(self.a.arg(v, 0), 0);
                let b = self.source(self.a.arg(v, 1), 1);
                let c = self.source(self.a.arg(v, 2), 2);
                self.push(mem::swapping(ty), d, a, b, u64::from(c));
            }
            Op::Fence => self.push(mem::barrier, 0, 0, 0, 0),
            Op::Fuel => self.push(flow::fuel, 0, 0, 0, inst.imm),
            Op::Need => self.push(flow::need, 0, 0, 0, inst.imm),
            Op::Spend => self.push(flow::spend, 0, 0, 0, inst.imm),
            Op::TrapIf => {
                let a = self.source(self.a.arg(v, 0), 0);
                self.push(flow::trap_if, 0, a, 0, inst.imm);
            }
            Op::Call => self.call(v, d),
            Op::Br => {
                let to = Block(inst.imm as u32);
                let args = self.region().args(v);
                self.copies(to, args);
                self.go(block, to);
            }
            Op::BrIf => self.branch(v, block),
            Op::Jump | Op::CallTo => self.jump(inst.imm as i64)?,
            Op::JumpIf => {
                let at = self.test(v, block);
                self.jump(i64::from(inst.aux as i32))?;
                // Exits are numbered taken first.
                let fall = self.code.len() - 1;
                self.fixups[at].to = Target::Ins(self.code.len());
                self.jump(inst.imm as i64)?;
                let n = self.exits.len();
                self.exits.swap(n - 1, n - 2);
                let taken = self.code.len() - 1;
                (self.code[fall].a, self.code[taken].a) = (self.code[taken].a, self.code[fall].a);
            }
            Op::IJump | Op::ICall | Op::Ret => {
                let a = self.clean_source(self.a.arg(v, 0), 0);
                self.push(flow::jump_indirect, 0, a, 0, 0);
            }
            Op::Syscall => {
                let imm = inst.imm & 0xffff_ffff | u64::from(inst.aux) << 32;
                self.push(flow::syscall, 0, 0, 0, imm);
            }
            Op::Raise => self.push(flow::raise, 0, 0, 0, inst.imm),
            Op::OutOfFuel => self.push(flow::out_of_fuel, 0, 0, 0, 0),
            Op::Trap => self.push(flow::trap, 0, 0, 0, inst.imm),
            Op::Halt => self.push(flow::halt, 0, 0, 0, 0),
            Op::Emulate => self.push(flow::emulate, 0, 0, 0, 0),
            Op::Resume => self.push(flow::resume, 0, 0, 0, 0),
            _ => self.vector(v, d)?,
        }
        Ok(())
    }

    /// The handler that does the op and its `setflags`.
    fn fused_flags(&self, v: Value, imm: bool) -> Option<Handler> {
        let inst = self.region().inst(v);
        if inst.op == Op::SetFlags {
            return None;
        }
        let flags = self.a.flags_of[v.0 as usize]?;
        let kind = FlagKind::ALL[self.region().inst(flags).imm as usize];
        int::binary_flags(inst.op, kind, inst.ty, imm)
    }

    /// The operands of a two-operand op, a constant second if the order does not matter.
    fn ordered(&self, v: Value) -> (Value, Value) {
        let (a, b) = (self.a.arg(v, 0), self.a.arg(v, 1));
        let commutes = matches!(
            self.region().inst(v).op,
            Op::Add | Op::Mul | Op::And | Op::Or | Op::Xor | Op::UMulHi | Op::SMulHi
        );
        if commutes && self.a.flags_of[v.0 as usize].is_none() && self.a.constant(a).is_some() {
            (b, a)
        } else {
            (a, b)
        }
    }

    /// Emits an op with the second operand in the immediate if it is constant.
    fn two_operands(
        &mut self,
        imm_run: Handler,
        d: u16,
        a: Value,
        b: Value,
        run: impl Fn(&Self) -> Option<Handler>,
    ) -> Result<(), ProgramError> {
        let a = self.source(a, 0);
        match self.a.operand(b) {
            Operand::Const(bits) => self.push(imm_run, d, a, 0, bits),
            Operand::Value(b) => {
                let b = self.source(b, 1);
                if let Some(run) = run(self) {
                    self.push(run, d, a, b, 0);
                }
            }
        }
        Ok(())
    }

    fn set_reg(&mut self, v: Value, block: Block) -> Result<(), ProgramError> {
        let inst = *self.region().inst(v);
        let reg = Reg::ALL[inst.imm as usize];
        let d = CpuState::reg_offset(reg) as u16;
        match self.a.writes[v.0 as usize] {
            Write::Done => {}
            Write::Compute(op) => return self.op(op, d, block),
            Write::Move => {
                let value = self.a.arg(v, 0);
                if let (Some(bits), Type::I64) = (self.a.constant(value), reg.ty()) {
                    self.push(int::constant, d, 0, 0, bits);
                    return Ok(());
                }
                let from = self.source(value, 0);
                if from != d {
                    self.push(part_as(reg.ty()), d, from, 0, 0);
                }
            }
        }
        Ok(())
    }

    fn set_flags(&mut self, v: Value) {
        if self.a.flags_of[v.0 as usize].is_some() {
            return;
        }
        let inst = *self.region().inst(v);
        let kind = FlagKind::ALL[inst.imm as usize];
        let cc = CcOp::new(kind, inst.ty).0 as u16;
        let arity = kind.arity();
        let a = self.source(self.a.arg(v, 0), 0);
        let (mut b, mut imm) = (0, 0);
        let mut constant = false;
        if arity == 2 {
            match self.a.operand(self.a.arg(v, 1)) {
                Operand::Const(bits) => (constant, imm) = (true, bits),
                Operand::Value(value) => b = self.source(value, 1),
            }
        } else if arity == 3 {
            b = self.source(self.a.arg(v, 1), 1);
            imm = u64::from(self.source(self.a.arg(v, 2), 2));
        }
        self.push(int::set_flags(inst.ty, arity, constant), cc, a, b, imm);
    }

    fn call(&mut self, v: Value, d: u16) {
        let inst = *self.region().inst(v);
        let helper = Helper::from_imm(inst.imm);
        let mut slots = [scratch(0); 3];
        for (n, &arg) in self.region().args(v).iter().take(3).enumerate() {
            if self.region().ty(arg) == Type::V128 {
                let from = self.source(arg, n as u16);
                self.push(move_as(Type::V128), helper_slot(n), from, 0, 0);
            } else {
                slots[n] = self.clean_source(arg, n as u16);
            }
        }
        let imm = inst.imm & 0xffff | u64::from(slots[2]) << 16 | u64::from(inst.aux) << 32;
        let run: Handler = if helper.effects().has(Effects::MAY_EXIT) {
            flow::call::<true>
        } else {
            flow::call::<false>
        };
        if helper.result() == Type::V128 {
            self.push(run, scratch(0), slots[0], slots[1], imm);
            self.push(move_as(Type::V128), d, helper_slot(0), 0, 0);
        } else {
            self.push(run, d, slots[0], slots[1], imm);
        }
    }

    /// An op of `vector.rs`: up to three operands, the third one's slot in the immediate.
    fn vector(&mut self, v: Value, d: u16) -> Result<(), ProgramError> {
        let inst = *self.region().inst(v);
        let from = self
            .region()
            .args(v)
            .first()
            .map_or(inst.ty, |&a| self.region().ty(a));
        if let Some((op, imm)) = SseOp::of(&inst, from) {
            // A lone operand is the source.
            let a = self.source(self.a.arg(v, 0), 0);
            let b = match inst.nargs {
                1 => a,
                _ => self.source(self.a.arg(v, 1), 1),
            };
            let word = Prepared::new(op, imm).to_word();
            self.push(float::handler(&inst, from), d, a, b, word);
            return Ok(());
        }
        if inst.op == Op::FCvt {
            let a = self.source(self.a.arg(v, 0), 0);
            self.push(move_as(inst.ty), d, a, 0, 0);
            return Ok(());
        }
        let run = vector::handler(&inst);
        let imm = match inst.op {
            Op::VICmp | Op::VSet => Some(u64::from(inst.aux)),
            Op::VShuffle => Some(inst.imm),
            _ => None,
        };
        let mut slots = [0; 3];
        for (n, &arg) in self.region().args(v).iter().take(3).enumerate() {
            slots[n] = self.source(arg, n as u16);
        }
        let bytes = inst.ty.bytes() as u16;
        match inst.op {
            Op::VSet if slots[0] == d => {
                let at = d + inst.aux as u16 * bytes;
                self.push(part_as(inst.ty), at, slots[1], 0, 0);
            }
            Op::VGet => {
                let at = slots[0] + inst.aux as u16 * bytes;
                self.push(move_as(inst.ty), d, at, 0, 0);
            }
            _ => {
                let imm = imm.unwrap_or(u64::from(slots[2]));
                self.push(run, d, slots[0], slots[1], imm);
            }
        }
        Ok(())
    }
}

/// Whether the value lives in a temporary slot.
fn has_temp(a: &Analysis<'_>, v: Value) -> bool {
    let op = a.region.inst(v).op;
    a.needed[v.0 as usize]
        && a.place[v.0 as usize] == Place::Temp
        && a.region.result_type(v).is_some()
        && !matches!(op, Op::Const | Op::VConst)
}

/// The handler that moves a value into a slot of its own.
pub(super) fn move_as(ty: Type) -> Handler {
    match ty {
        Type::V128 => int::part::<u128>,
        _ => int::with_type!(ty, T => int::mov::<T>),
    }
}

/// The handler that moves a value without touching what lies above it.
fn part_as(ty: Type) -> Handler {
    match ty {
        Type::V128 => int::part::<u128>,
        _ => int::with_type!(ty, T => int::part::<T>),
    }
}

/// The guest instruction of an address in the code; for exits.
pub(super) fn guest_insn(program: &Program, ip: *const Ins) -> GuestInsn {
    let at = (ip.addr() - program.code.as_ptr().addr()) / size_of::<Ins>();
    let insn = program.insns.get(at).copied().unwrap_or(0);
    program
        .guest
        .get(usize::from(insn))
        .copied()
        .unwrap_or(GuestInsn {
            offset: 0,
            len: 0,
            fuel_left: 0,
        })
}

/// The state's slot for vector argument `n` of a helper; slot 0 is the vector result too.
fn helper_slot(n: usize) -> u16 {
    (std::mem::offset_of!(CpuState, helper_v) + 16 * n) as u16
}
