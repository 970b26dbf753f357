//! Operands: reading and writing registers, memory and immediates by operand number.

use super::Lift;
use iced_x86::{OpKind, Register};
use metaphrase_ir::{AccessKind, Reg, Type, Value};

/// Where an operand lives, with its address computed once.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// A general register or a part of one.
    Reg(Register),
    /// Memory at a linear address.
    Mem(Value, Type),
}

/// The guest register that holds `r`, with the part's type and bit offset.
pub fn gpr_part(r: Register) -> (Reg, Type, u32) {
    let (ty, offset) = match r.size() {
        1 => (
            Type::I8,
            if matches!(r, Register::AH | Register::BH | Register::CH | Register::DH) {
                8
            } else {
                0
            },
        ),
        2 => (Type::I16, 0),
        4 => (Type::I32, 0),
        _ => (Type::I64, 0),
    };
    (Reg::gpr(r.full_register().number()), ty, offset)
}

impl Lift<'_> {
    /// The value of a general register or a part of one.
    pub fn read_gpr(&mut self, r: Register) -> Value {
        let (reg, ty, offset) = gpr_part(r);
        let whole = self.ir.getreg(reg);
        if ty == Type::I64 {
            whole
        } else {
            self.ir.ext(ty, whole, offset)
        }
    }

    /// Writes a general register or a part of one: 32-bit writes clear the upper half, 8 and
    /// 16-bit writes keep the rest (SDM volume 1, 3.4.1.1).
    pub fn write_gpr(&mut self, r: Register, v: Value) {
        let (reg, ty, offset) = gpr_part(r);
        debug_assert_eq!(self.ir.ty(v), ty);
        let whole = match ty {
            Type::I64 => v,
            Type::I32 => self.ir.zext(Type::I64, v),
            _ => {
                let old = self.ir.getreg(reg);
                self.ir.insert(old, v, offset)
            }
        };
        self.ir.setreg(reg, whole);
    }

    /// The integer type of operand `n`, from its register, memory size or immediate width.
    pub fn op_type(&self, n: u32) -> Type {
        match self.insn.op_kind(n) {
            OpKind::Register => Type::int(self.insn.op_register(n).size().clamp(1, 8) as u32),
            OpKind::Immediate8 | OpKind::Immediate8_2nd => Type::I8,
            OpKind::Immediate16 | OpKind::Immediate8to16 => Type::I16,
            OpKind::Immediate32 | OpKind::Immediate8to32 => Type::I32,
            OpKind::Immediate64 | OpKind::Immediate8to64 | OpKind::Immediate32to64 => Type::I64,
            _ => match self.insn.memory_size().size() {
                1 => Type::I8,
                2 => Type::I16,
                4 => Type::I32,
                _ => Type::I64,
            },
        }
    }

    /// True if operand `n` is in memory.
    pub fn is_mem(&self, n: u32) -> bool {
        matches!(self.insn.op_kind(n), OpKind::Memory)
    }

    /// Where operand `n` (a register or memory) lives, to be written or read and written; computes
    /// its address.
    pub fn place(&mut self, n: u32) -> Place {
        self.place_for(n, true)
    }

    fn place_for(&mut self, n: u32, write: bool) -> Place {
        if self.is_mem(n) {
            let ty = self.op_type(n);
            Place::Mem(self.linear_of(ty.bytes(), write), ty)
        } else {
            Place::Reg(self.insn.op_register(n))
        }
    }

    /// The value at a place that the instruction writes afterwards.
    pub fn load(&mut self, place: Place) -> Value {
        match place {
            Place::Reg(r) => self.read_gpr(r),
            Place::Mem(addr, ty) => self.ir.load(ty, addr, AccessKind::Update),
        }
    }

    /// The value at a place that is only read.
    pub fn load_only(&mut self, place: Place) -> Value {
        match place {
            Place::Reg(r) => self.read_gpr(r),
            Place::Mem(addr, ty) => {
                let kind = self.operand_kind();
                self.ir.load(ty, addr, kind)
            }
        }
    }

    /// Writes a place.
    pub fn store(&mut self, place: Place, v: Value) {
        match place {
            Place::Reg(r) => self.write_gpr(r, v),
            Place::Mem(addr, _) => {
                let kind = self.operand_kind();
                self.ir.store(addr, v, kind);
            }
        }
    }

    /// The value of operand `n`: register, memory or immediate, of its own type.
    pub fn read(&mut self, n: u32) -> Value {
        match self.insn.op_kind(n) {
            OpKind::Register | OpKind::Memory => {
                let place = self.place_for(n, false);
                self.load_only(place)
            }
            _ => {
                let ty = self.op_type(n);
                self.iconst(ty, self.insn.immediate(n))
            }
        }
    }

    /// Writes operand `n`, a register or memory. For read-modify-write use [`Lift::place`], which
    /// computes the address once.
    pub fn write(&mut self, n: u32, v: Value) {
        let place = self.place(n);
        self.store(place, v);
    }
}
