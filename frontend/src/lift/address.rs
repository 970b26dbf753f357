//! Effective and linear addresses.
//!
//! An effective address wraps at the address size; then a segment base is added where it is not
//! known to be 0, modulo 2^32 outside 64-bit code (SDM volume 1, 3.7.5; volume 3, 3.4.2).

use super::Lift;
use iced_x86::Register;
use metaphrase_ir::{Reg, Type, Value};

/// The register that holds a segment's base.
pub fn segment_base(segment: Register) -> Reg {
    Reg::ALL[Reg::EsBase as usize + segment.number()]
}

impl Lift<'_> {
    /// The address size of the memory operand as an integer type.
    pub fn address_type(&self) -> Type {
        let (base, index) = (self.insn.memory_base(), self.insn.memory_index());
        let size = |r: Register| match r {
            Register::None => None,
            Register::RIP => Some(8),
            Register::EIP => Some(4),
            r => Some(r.size() as u32),
        };
        match size(base).or(size(index)) {
            Some(bytes) => Type::int(bytes),
            // Absolute addresses: the displacement's own width tells.
            None => match self.insn.memory_displ_size() {
                2 => Type::I16,
                8 => Type::I64,
                _ => Type::I32,
            },
        }
    }

    /// The memory operand's effective address, an i64 zero-extended from the address size.
    pub fn effective_address(&mut self) -> Value {
        let ty = self.address_type();
        let (base, index) = (self.insn.memory_base(), self.insn.memory_index());
        let disp = self.insn.memory_displacement64();
        if matches!(base, Register::RIP | Register::EIP) {
            // iced has added the next PC already.
            let offset = self.offset(disp);
            let v = self.ir.pc(offset);
            return self.wrap_address(v, ty);
        }
        // 16-bit addresses are computed in 32 bits and cut.
        let compute = if ty == Type::I64 {
            Type::I64
        } else {
            Type::I32
        };
        let mut sum: Option<Value> = None;
        if base != Register::None {
            sum = Some(self.address_register(base, compute));
        }
        if index != Register::None {
            let mut v = self.address_register(index, compute);
            let scale = self.insn.memory_index_scale();
            if scale > 1 {
                let shift = self.iconst(compute, u64::from(scale.trailing_zeros()));
                v = self.ir.shl(v, shift);
            }
            sum = Some(match sum {
                Some(s) => self.ir.add(s, v),
                None => v,
            });
        }
        let v = match sum {
            None => return self.iconst(Type::I64, disp & ty.mask()),
            Some(s) if disp & compute.mask() == 0 => s,
            Some(s) => {
                let d = self.iconst(compute, disp);
                self.ir.add(s, d)
            }
        };
        self.wrap_address(v, ty)
    }

    /// A base or index register in the type that addresses are computed in.
    fn address_register(&mut self, r: Register, compute: Type) -> Value {
        let v = self.read_gpr(r);
        if self.ir.ty(v).bits() < compute.bits() {
            self.ir.zext(compute, v)
        } else {
            v
        }
    }

    /// Cuts an address to `ty` and zero-extends it to i64.
    pub fn wrap_address(&mut self, v: Value, ty: Type) -> Value {
        let cut = if self.ir.ty(v).bits() > ty.bits() {
            self.ir.trunc(ty, v)
        } else {
            v
        };
        self.ir.zext(Type::I64, cut)
    }

    /// The memory operand's linear address.
    pub fn linear(&mut self) -> Value {
        let ea = self.effective_address();
        self.add_segment(self.insn.memory_segment(), ea)
    }

    /// Whether a segment's base must be added: it is not known to be 0.
    pub fn has_base(&self, segment: Register) -> bool {
        matches!(segment, Register::FS | Register::GS) || !(self.mode.flat || self.mode.is_64())
    }

    /// Adds a segment's base to an effective address (i64).
    pub fn add_segment(&mut self, segment: Register, ea: Value) -> Value {
        if !self.has_base(segment) {
            return ea;
        }
        let base = self.ir.getreg(segment_base(segment));
        if self.mode.is_64() {
            return self.ir.add(ea, base);
        }
        let sum = self.ir.add(ea, base);
        self.wrap_address(sum, Type::I32)
    }
}
