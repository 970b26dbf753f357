//! Effective and linear addresses.
//!
//! An effective address wraps at the address size; then a segment base is added where it is not
//! known to be 0, modulo 2^32 outside 64-bit code (SDM volume 1, 3.7.5; volume 3, 3.4.2). In a
//! full system an access through a segment that is not known to allow everything is checked first.

use super::{AC, GP, Lift, SS};
use iced_x86::Register;
use metaphrase_ir::{AccessKind, Helper, IntCc, Op, Reg, SegmentAccess, Type, Value};

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

    /// The memory operand's linear address, for reading all of it.
    pub fn linear(&mut self) -> Value {
        self.linear_of(self.operand_size(), false)
    }

    /// The memory operand's linear address, for writing it, or for reading and writing it.
    pub fn linear_write(&mut self) -> Value {
        self.linear_of(self.operand_size(), true)
    }

    /// The memory operand's linear address, for an access of `size` bytes.
    pub fn linear_of(&mut self, size: u32, write: bool) -> Value {
        let ea = self.effective_address();
        self.access(self.insn.memory_segment(), ea, size, write)
    }

    /// The memory operand's size in bytes; 1 where the decoder does not know it.
    pub fn operand_size(&self) -> u32 {
        (self.insn.memory_size().size() as u32).max(1)
    }

    /// Whether a segment's base must be added: it is not known to be 0.
    pub fn has_base(&self, segment: Register) -> bool {
        if matches!(segment, Register::FS | Register::GS) {
            return true;
        }
        let zero = match self.mode.system {
            Some(system) => system.based_at_zero >> segment.number() & 1 != 0,
            None => self.mode.flat,
        };
        !(zero || self.mode.is_64())
    }

    /// Adds a segment's base to an effective address (i64), without a check.
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

    /// The linear address of an access of `size` bytes at an effective address (i64), once the
    /// segment allows it and alignment is what RFLAGS.AC asks for.
    pub fn access(&mut self, segment: Register, ea: Value, size: u32, write: bool) -> Value {
        // SDM volume 3, table 6-7: pseudo-descriptors and the long real go with their larger part.
        let align = match size {
            2 | 4 | 8 => size,
            6 => 4,
            10 => 8,
            _ => 1,
        };
        self.access_aligned(segment, ea, size, write, align)
    }

    /// The same for an access that [`SystemMode::align`] wants to be a multiple of `align`.
    ///
    /// [`SystemMode::align`]: crate::SystemMode::align
    pub fn access_aligned(
        &mut self,
        segment: Register,
        ea: Value,
        size: u32,
        write: bool,
        align: u32,
    ) -> Value {
        self.check_segment(segment, ea, size, write);
        let addr = self.add_segment(segment, ea);
        self.check_alignment(addr, align);
        addr
    }

    /// Raises #GP or #SS unless the segment allows an access of `size` bytes at `ea` (SDM volume 3,
    /// 5.3 and 5.5). Costs nothing where it is known to.
    pub fn check_segment(&mut self, segment: Register, ea: Value, size: u32, write: bool) {
        if !self.is_checked(segment, write) {
            return;
        }
        if self.is_short(segment) && !(write && segment == Register::CS) {
            return self.check_short(segment, ea, size);
        }
        let access = SegmentAccess {
            segment: segment.number() as u8,
            size: size.clamp(1, 512) as u16,
            write,
            fetch: false,
        };
        self.ir.call(Helper::SegmentCheck, access.pack(), &[ea]);
    }

    /// Whether a segment has 64 KiB, and nothing else must be checked.
    pub fn is_short(&self, segment: Register) -> bool {
        let bit = 1 << segment.number();
        self.mode.system.is_some_and(|s| s.short & bit != 0)
    }

    /// The check of a segment of 64 KiB.
    fn check_short(&mut self, segment: Register, ea: Value, size: u32) {
        let def = *self.ir.region.inst(ea);
        let word = def.op == Op::Zext && self.ir.ty(self.ir.region.args(ea)[0]) == Type::I16;
        let last = 0x10000 - u64::from(size.clamp(1, 512));
        if size == 1 && word || self.ir.region.as_const(ea).is_some_and(|ea| ea <= last) {
            return;
        }
        let beyond = self.ir.icmp_imm(IntCc::Ugt, ea, last);
        let vector = if segment == Register::SS { SS } else { GP };
        self.ir.trapif(beyond, vector);
    }

    /// Whether an access through a segment must be checked. No code segment can be written to.
    pub fn is_checked(&self, segment: Register, write: bool) -> bool {
        let Some(system) = self.mode.system else {
            return false;
        };
        let known = system.unchecked >> segment.number() & 1 != 0;
        !self.mode.is_64() && (!known || write && segment == Register::CS)
    }

    /// Raises #AC if alignment is checked and the address is not a multiple of `align`, a power
    /// of two.
    pub fn check_alignment(&mut self, addr: Value, align: u32) {
        if align < 2 || !self.mode.system.is_some_and(|system| system.align) {
            return;
        }
        let mask = self.iconst(Type::I64, u64::from(align) - 1);
        let low = self.ir.and(addr, mask);
        let misaligned = self.ir.icmp_imm(IntCc::Ne, low, 0);
        self.ir.trapif(misaligned, AC);
    }

    /// What an access through a segment is: a system tells the stack segment from the others,
    /// since a non-canonical address in it is #SS rather than #GP.
    pub fn kind_of(&self, segment: Register) -> AccessKind {
        if self.mode.system.is_some() && segment == Register::SS {
            AccessKind::Stack
        } else {
            AccessKind::Data
        }
    }

    /// What an access to the memory operand is.
    pub fn operand_kind(&self) -> AccessKind {
        self.kind_of(self.insn.memory_segment())
    }
}
