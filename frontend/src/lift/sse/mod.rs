//! SSE: the instructions on the XMM registers.
//!
//! Forms that name an MMX register are MMX's. Memory operands of 16 bytes
//! must be aligned, save for the few instructions that say otherwise (SDM volume 1, 11.3); the
//! check comes before the access. Scalar forms touch only the bytes they name.

pub mod checked;
pub mod compare;
pub mod convert;
pub mod float;
pub mod int;
pub mod masked;
pub mod moves;
pub mod shuffle;
pub mod sse3;
pub mod sse4;
pub mod state;
#[cfg(test)]
mod tests;

use super::Lift;
use crate::features::names_mmx;
use iced_x86::{Mnemonic, Register};
use metaphrase_ir::{Helper, Reg, Shape, SseForm, SseOp, Type, Value};

/// The groups of the family.
const GROUPS: &[fn(&mut Lift<'_>, Mnemonic) -> bool] = &[
    checked::lift,
    moves::lift,
    int::lift,
    shuffle::lift,
    float::lift,
    compare::lift,
    convert::lift,
    masked::lift,
    sse3::lift,
    sse4::lift,
    state::lift,
];

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    // MOVSD and CMPSD are also string instructions.
    if cx.insn.is_string_instruction() || names_mmx(&cx.insn) {
        return false;
    }
    GROUPS.iter().any(|g| g(cx, mnemonic))
}

/// A floating-point instruction that is one call: the destination's old value and the source to
/// the destination.
fn call(cx: &mut Lift<'_>, op: SseOp, imm: u32) {
    let b = source(cx, op);
    let a = cx.xmm(0);
    let r = cx.ir.call(Helper::SseFloat, op.pack(imm as u8), &[a, b]);
    cx.set_xmm(0, r);
}

/// Operand 1 of a floating-point instruction as a vector: a register, or as much memory as the
/// instruction reads; 16 bytes of it must be aligned.
fn source(cx: &mut Lift<'_>, op: SseOp) -> Value {
    if !cx.is_mem(1) {
        return match op.form() {
            SseForm::FromI32 | SseForm::FromI64 => {
                let v = cx.read(1);
                cx.ir.vfromint(v)
            }
            _ => cx.xmm(1),
        };
    }
    let ty = match cx.insn.memory_size().size() {
        4 => Type::F32,
        8 => Type::F64,
        _ => return cx.xmm_m128(1),
    };
    let v = cx.load_scalar(ty);
    cx.ir.vfromint(v)
}

/// The guest register of an XMM register.
fn xmm_reg(r: Register) -> Reg {
    Reg::xmm(r.number() & 15)
}

impl Lift<'_> {
    /// Operand `n`, an XMM register; for a VEX instruction the half that [`Lift::vex`] says.
    pub fn xmm(&mut self, n: u32) -> Value {
        let r = self.insn.op_register(n);
        match self.vex {
            Some(vex) if vex.half == 1 && r.is_ymm() => {
                self.ir.getreg(Reg::ymm_hi(r.number() & 15))
            }
            Some(vex) if vex.half == 1 && vex.widening != 0 => {
                let v = self.ir.getreg(xmm_reg(r));
                let from = shuffle::lanes(1, |i| (i + vex.widening) & 15);
                self.ir.vshuffle(v, v, u128::from_le_bytes(from))
            }
            _ => self.ir.getreg(xmm_reg(r)),
        }
    }

    /// Writes operand `n`, an XMM register; of a VEX instruction it is the destination.
    pub fn set_xmm(&mut self, n: u32, v: Value) {
        match &mut self.vex {
            Some(vex) => vex.result = Some(v),
            None => self.ir.setreg(xmm_reg(self.insn.op_register(n)), v),
        }
    }

    /// The linear address of the memory operand, checked for alignment if `aligned`; with VEX
    /// only if its name says so.
    pub fn vector_address(&mut self, aligned: bool, write: bool) -> Value {
        let addr = self.linear_of(self.operand_size(), write);
        if self.vex.map_or(aligned, |vex| vex.aligned) {
            self.check_aligned(addr, 16);
        }
        addr
    }

    /// The memory operand, 16 bytes; a half of it for VEX.256.
    pub fn load_vector(&mut self, aligned: bool) -> Value {
        if let Some(v) = self.loaded_half() {
            return v;
        }
        let addr = self.vector_address(aligned, false);
        self.ir.load(Type::V128, addr, self.operand_kind())
    }

    /// The half of a VEX.256 memory operand that it is about.
    fn loaded_half(&self) -> Option<Value> {
        let vex = self.vex?;
        Some(vex.loaded?[vex.half as usize])
    }

    /// Operand `n`: an XMM register or 16 aligned bytes of memory.
    pub fn xmm_m128(&mut self, n: u32) -> Value {
        if self.is_mem(n) {
            self.load_vector(true)
        } else {
            self.xmm(n)
        }
    }

    /// Operand `n`: an XMM register or 8 bytes of memory with zeros above.
    pub fn xmm_m64(&mut self, n: u32) -> Value {
        self.xmm_low(n, 8)
    }

    /// Operand `n`: an XMM register or that many bytes of memory with zeros above.
    pub fn xmm_low(&mut self, n: u32, bytes: u32) -> Value {
        if !self.is_mem(n) {
            return self.xmm(n);
        }
        if let Some(v) = self.loaded_half() {
            return v;
        }
        let addr = self.linear_of(bytes, false);
        self.load_low(addr, bytes)
    }

    /// Operand `n` as a scalar of a lane type: the low lane of an XMM register, or memory of just
    /// that size.
    pub fn scalar(&mut self, n: u32, shape: Shape) -> Value {
        if self.is_mem(n) {
            self.load_scalar(shape.lane())
        } else {
            let v = self.xmm(n);
            self.ir.vget(shape, v, 0)
        }
    }

    /// The memory operand as a value of type `ty`.
    pub fn load_scalar(&mut self, ty: Type) -> Value {
        let addr = self.linear_of(ty.bytes(), false);
        self.ir.load(ty, addr, self.operand_kind())
    }

    /// Replaces the low lane of operand `n`, an XMM register.
    pub fn set_scalar(&mut self, n: u32, shape: Shape, v: Value) {
        let old = self.xmm(n);
        let new = self.ir.vset(shape, old, 0, v);
        self.set_xmm(n, new);
    }

    /// Writes an integer to operand `n`, a general register, cut or zero-extended to its size.
    pub fn set_gpr_zext(&mut self, n: u32, v: Value) {
        let ty = self.op_type(n);
        let v = if self.ir.ty(v).bits() > ty.bits() {
            self.ir.trunc(ty, v)
        } else {
            self.ir.zext(ty, v)
        };
        self.write_gpr(self.insn.op_register(n), v);
    }

    /// The 8-bit immediate in operand `n`, or the upper half's part of it.
    pub fn imm8(&self, n: u32) -> u32 {
        let imm = u32::from(self.insn.immediate(n) as u8);
        match self.vex {
            Some(vex) if vex.half == 1 => imm >> vex.step,
            _ => imm,
        }
    }
}
