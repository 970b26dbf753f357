//! Appends instructions to a region. The regular ops' methods come from the op table.

use crate::flags::{Cond, FlagKind};
use crate::guest::Reg;
use crate::helpers::Helper;
use crate::ops::{AccessKind, FloatCc, IntCc, Op, RmwOp, Round, SyscallKind};
use crate::region::{Block, Region, Value};
use crate::types::{Shape, Type};

/// A cursor at the end of one block of a region.
#[derive(Debug)]
pub struct Builder<'r> {
    /// The region under construction.
    pub region: &'r mut Region,
    block: Block,
    insn: u16,
}

impl<'r> Builder<'r> {
    /// Starts at the end of the entry block.
    pub fn new(region: &'r mut Region) -> Builder<'r> {
        Builder {
            region,
            block: Region::ENTRY,
            insn: 0,
        }
    }

    /// The block that instructions go to.
    pub fn block(&self) -> Block {
        self.block
    }

    /// Goes on at the end of `block`.
    pub fn switch_to(&mut self, block: Block) {
        self.block = block;
    }

    /// Makes an empty block.
    pub fn new_block(&mut self) -> Block {
        self.region.blocks.push(Default::default());
        Block(self.region.blocks.len() as u32 - 1)
    }

    /// Adds a parameter to `block`.
    pub fn param(&mut self, block: Block, ty: Type) -> Value {
        let v = self.region.make(Op::Param, ty, self.insn, &[], 0, 0);
        self.region.blocks[block.0 as usize].params.push(v);
        v
    }

    /// Sets the guest instruction that the next instructions belong to.
    pub fn set_insn(&mut self, index: u16) {
        self.insn = index;
    }

    /// The guest instruction that instructions belong to now.
    pub fn insn(&self) -> u16 {
        self.insn
    }

    /// True if the current block has its terminator.
    pub fn is_terminated(&self) -> bool {
        let block = &self.region.blocks[self.block.0 as usize];
        block
            .insts
            .last()
            .is_some_and(|&v| self.region.inst(v).op.is_terminator())
    }

    /// The type of a value.
    pub fn ty(&self, v: Value) -> Type {
        self.region.ty(v)
    }

    /// Appends any instruction.
    pub fn ins(&mut self, op: Op, ty: Type, args: &[Value], imm: u64, aux: u32) -> Value {
        debug_assert!(
            !self.is_terminated(),
            "{op} after the end of {}",
            self.block
        );
        let v = self.region.make(op, ty, self.insn, args, imm, aux);
        self.region.blocks[self.block.0 as usize].insts.push(v);
        v
    }

    /// An integer (cut to its width) or float (as bits) constant.
    pub fn iconst(&mut self, ty: Type, bits: u64) -> Value {
        self.ins(Op::Const, ty, &[], bits & ty.mask(), 0)
    }

    /// A 128-bit constant.
    pub fn vconst(&mut self, bits: u128) -> Value {
        let n = self.region.vconsts.len() as u64;
        self.region.vconsts.push(bits);
        self.ins(Op::VConst, Type::V128, &[], n, 0)
    }

    /// The guest PC at an offset from the entry.
    pub fn pc(&mut self, offset: i64) -> Value {
        self.ins(Op::Pc, Type::I64, &[], offset as u64, 0)
    }

    /// Compares two integers.
    pub fn icmp(&mut self, cc: IntCc, a: Value, b: Value) -> Value {
        self.ins(Op::ICmp, self.ty(a), &[a, b], cc as u64, 0)
    }

    /// Compares an integer with a constant.
    pub fn icmp_imm(&mut self, cc: IntCc, a: Value, b: u64) -> Value {
        let b = self.iconst(self.ty(a), b);
        self.icmp(cc, a, b)
    }

    /// Compares two floats.
    pub fn fcmp(&mut self, cc: FloatCc, a: Value, b: Value) -> Value {
        self.ins(Op::FCmp, self.ty(a), &[a, b], cc as u64, 0)
    }

    /// `a` if `c` is not 0, else `b`.
    pub fn select(&mut self, c: Value, a: Value, b: Value) -> Value {
        self.ins(Op::Select, self.ty(a), &[c, a, b], 0, 0)
    }

    /// Zero-extends to `ty`; `a` itself if it has that type already.
    pub fn zext(&mut self, ty: Type, a: Value) -> Value {
        if self.ty(a) == ty {
            a
        } else {
            self.ins(Op::Zext, ty, &[a], 0, 0)
        }
    }

    /// Sign-extends to `ty`; `a` itself if it has that type already.
    pub fn sext(&mut self, ty: Type, a: Value) -> Value {
        if self.ty(a) == ty {
            a
        } else {
            self.ins(Op::Sext, ty, &[a], 0, 0)
        }
    }

    /// Cuts to `ty`; `a` itself if it has that type already.
    pub fn trunc(&mut self, ty: Type, a: Value) -> Value {
        if self.ty(a) == ty {
            a
        } else {
            self.ins(Op::Trunc, ty, &[a], 0, 0)
        }
    }

    /// The bits of `a` (i64) from `offset` on.
    pub fn ext(&mut self, ty: Type, a: Value, offset: u32) -> Value {
        self.ins(Op::Ext, ty, &[a], u64::from(offset), 0)
    }

    /// `a` (i64) with `b` inserted at bit `offset`.
    pub fn insert(&mut self, a: Value, b: Value, offset: u32) -> Value {
        self.ins(Op::Ins, self.ty(b), &[a, b], u64::from(offset), 0)
    }

    /// The same bits as another type.
    pub fn bitcast(&mut self, ty: Type, a: Value) -> Value {
        self.ins(Op::Bitcast, ty, &[a], 0, 0)
    }

    /// Reads a guest register.
    pub fn getreg(&mut self, reg: Reg) -> Value {
        self.ins(Op::GetReg, reg.ty(), &[], reg as u64, 0)
    }

    /// Writes a guest register.
    pub fn setreg(&mut self, reg: Reg, v: Value) {
        self.ins(Op::SetReg, reg.ty(), &[v], reg as u64, 0);
    }

    /// Defines the arithmetic flags.
    pub fn setflags(&mut self, kind: FlagKind, args: &[Value]) {
        self.ins(Op::SetFlags, self.ty(args[0]), args, kind as u64, 0);
    }

    /// Reads a condition.
    pub fn getcond(&mut self, cond: Cond) -> Value {
        self.ins(Op::GetCond, Type::I8, &[], cond as u64, 0)
    }

    /// Reads the six flags.
    pub fn getflags(&mut self) -> Value {
        self.ins(Op::GetFlags, Type::I64, &[], 0, 0)
    }

    /// Loads from guest memory.
    pub fn load(&mut self, ty: Type, addr: Value, kind: AccessKind) -> Value {
        self.ins(Op::Load, ty, &[addr], kind as u64, 0)
    }

    /// Stores to guest memory.
    pub fn store(&mut self, addr: Value, v: Value, kind: AccessKind) {
        self.ins(Op::Store, self.ty(v), &[addr, v], kind as u64, 0);
    }

    /// Atomic read-modify-write; the old value.
    pub fn rmw(&mut self, op: RmwOp, addr: Value, v: Value) -> Value {
        self.ins(Op::Rmw, self.ty(v), &[addr, v], op as u64, 0)
    }

    /// Atomic compare and swap; the old value.
    pub fn cas(&mut self, addr: Value, expected: Value, new: Value) -> Value {
        self.ins(Op::Cas, self.ty(new), &[addr, expected, new], 0, 0)
    }

    /// A full barrier.
    pub fn fence(&mut self) {
        self.ins(Op::Fence, Type::I8, &[], 0, 0);
    }

    /// Sets MXCSR's flags as COMIS (`signaling`) or UCOMIS does.
    pub fn fsignal(&mut self, signaling: bool, a: Value, b: Value) {
        self.ins(Op::FSignal, self.ty(a), &[a, b], u64::from(signaling), 0);
    }

    /// Signed integer to float.
    pub fn itof(&mut self, ty: Type, a: Value) -> Value {
        self.ins(Op::IToF, ty, &[a], 0, 0)
    }

    /// Float to signed integer.
    pub fn ftoi(&mut self, ty: Type, a: Value, round: Round) -> Value {
        self.ins(Op::FToI, ty, &[a], round as u64, 0)
    }

    /// Float to the other float type.
    pub fn fcvt(&mut self, ty: Type, a: Value) -> Value {
        self.ins(Op::FCvt, ty, &[a], 0, 0)
    }

    /// Integer lane comparison.
    pub fn vicmp(&mut self, shape: Shape, cc: IntCc, a: Value, b: Value) -> Value {
        self.ins(Op::VICmp, Type::V128, &[a, b], shape as u64, cc as u32)
    }

    /// Float lane comparison.
    pub fn vfcmp(&mut self, shape: Shape, cc: FloatCc, a: Value, b: Value) -> Value {
        self.ins(Op::VFCmp, Type::V128, &[a, b], shape as u64, cc as u32)
    }

    /// Lanes shifted by an i64 scalar: `op` is `VShl`, `VLShr` or `VAShr`.
    pub fn vshift(&mut self, op: Op, shape: Shape, a: Value, count: Value) -> Value {
        self.ins(op, Type::V128, &[a, count], shape as u64, 0)
    }

    /// A byte shuffle of two vectors by a constant mask (byte 0 in the low bits).
    pub fn vshuffle(&mut self, a: Value, b: Value, mask: u128) -> Value {
        let n = self.region.vconsts.len() as u64;
        self.region.vconsts.push(mask);
        self.ins(Op::VShuffle, Type::V128, &[a, b], n, 0)
    }

    /// A lane of a vector.
    pub fn vget(&mut self, shape: Shape, a: Value, lane: u32) -> Value {
        self.ins(Op::VGet, shape.lane(), &[a], shape as u64, lane)
    }

    /// A vector with one lane replaced.
    pub fn vset(&mut self, shape: Shape, a: Value, lane: u32, b: Value) -> Value {
        self.ins(Op::VSet, shape.lane(), &[a, b], shape as u64, lane)
    }

    /// Charges fuel for `n` guest instructions.
    pub fn fuel(&mut self, n: u64) -> Value {
        self.ins(Op::Fuel, Type::I64, &[], n, 0)
    }

    /// Raises exception `vector` if `c` is not 0.
    pub fn trapif(&mut self, c: Value, vector: u8) {
        self.ins(Op::TrapIf, Type::I8, &[c], u64::from(vector), 0);
    }

    /// Calls a helper.
    pub fn call(&mut self, helper: Helper, descriptor: u32, args: &[Value]) -> Value {
        self.ins(Op::Call, helper.result(), args, helper as u64, descriptor)
    }

    /// Goes to `target`.
    pub fn br(&mut self, target: Block, args: &[Value]) {
        self.ins(Op::Br, Type::I8, args, u64::from(target.0), 0);
    }

    /// Goes to `then` if `c` is not 0, else to `other`.
    pub fn brif(&mut self, c: Value, then: (Block, &[Value]), other: (Block, &[Value])) {
        let mut args = vec![c];
        args.extend_from_slice(then.1);
        args.extend_from_slice(other.1);
        let imm = u64::from(then.0.0) | u64::from(other.0.0) << 32;
        self.ins(Op::BrIf, Type::I8, &args, imm, then.1.len() as u32);
    }

    /// Leaves by a direct jump.
    pub fn exit_jump(&mut self, target: i64) {
        self.ins(Op::Jump, Type::I64, &[], target as u64, 0);
    }

    /// Leaves by a conditional direct jump.
    pub fn exit_jumpif(&mut self, c: Value, taken: i64, fall: i64) {
        self.ins(Op::JumpIf, Type::I8, &[c], taken as u64, fall as i32 as u32);
    }

    /// Leaves by a direct call.
    pub fn exit_call(&mut self, target: i64, ret: i64) {
        self.ins(Op::CallTo, Type::I64, &[], target as u64, ret as i32 as u32);
    }

    /// Leaves by an indirect call.
    pub fn exit_icall(&mut self, target: Value, ret: i64) {
        self.ins(Op::ICall, Type::I64, &[target], 0, ret as i32 as u32);
    }

    /// Leaves for a system call; `next` is the PC offset of the next instruction.
    pub fn exit_syscall(&mut self, kind: SyscallKind, next: i64) {
        self.ins(Op::Syscall, Type::I64, &[], kind as u64, next as i32 as u32);
    }

    /// Leaves with a fault of the current guest instruction.
    pub fn exit_raise(&mut self, vector: u8) {
        self.ins(Op::Raise, Type::I64, &[], u64::from(vector), 0);
    }

    /// Leaves because the fuel does not cover the block.
    pub fn exit_fuel(&mut self) {
        self.ins(Op::OutOfFuel, Type::I64, &[], 0, 0);
    }

    /// Leaves with a trap: RIP is the next instruction.
    pub fn exit_trap(&mut self, vector: u8) {
        self.ins(Op::Trap, Type::I64, &[], u64::from(vector), 0);
    }

    /// Leaves for HLT.
    pub fn exit_halt(&mut self) {
        self.ins(Op::Halt, Type::I64, &[], 0, 0);
    }

    /// Leaves before the current guest instruction, for the runtime to emulate it alone.
    pub fn exit_emulate(&mut self) {
        self.ins(Op::Emulate, Type::I64, &[], 0, 0);
    }

    /// Leaves after a helper that set RIP or an exit reason.
    pub fn exit_resume(&mut self) {
        self.ins(Op::Resume, Type::I64, &[], 0, 0);
    }
}
