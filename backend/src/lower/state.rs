//! Loads and stores of the guest state, and conversions between CLIF types.

use super::Lower;
use cranelift_codegen::ir::{self as clif, InstBuilder, MemFlags, MemFlagsData, Opcode, types};
use metaphrase_ir::Reg;

impl Lower<'_, '_> {
    pub(super) fn load_with(
        &mut self,
        ty: clif::Type,
        flags: MemFlags,
        at: clif::Value,
        offset: i32,
    ) -> clif::Value {
        let (inst, dfg) = self
            .b
            .ins()
            .Load(Opcode::Load, ty, flags, offset.into(), at);
        dfg.first_result(inst)
    }

    pub(super) fn store_with(
        &mut self,
        flags: MemFlags,
        value: clif::Value,
        at: clif::Value,
        offset: i32,
    ) {
        let ty = self.b.func.dfg.value_type(value);
        self.b
            .ins()
            .Store(Opcode::Store, ty, flags, offset.into(), value, at);
    }

    /// How a guest register is accessed.
    pub(super) fn state_flags(&self, reg: Reg) -> MemFlags {
        match reg {
            Reg::Fuel => self.in_fuel,
            _ => self.in_state,
        }
    }

    pub(super) fn load_state(&mut self, ty: clif::Type, offset: u32) -> clif::Value {
        self.load_with(ty, self.in_state, self.state, offset as i32)
    }

    pub(super) fn store_state(&mut self, value: clif::Value, offset: u32) {
        self.store_with(self.in_state, value, self.state, offset as i32);
    }

    pub(super) fn store_state_const(&mut self, ty: clif::Type, bits: u64, offset: u32) {
        let value = self.iconst(ty, bits);
        self.store_state(value, offset);
    }

    /// Zero-extends an integer to 64 bits; floats give their bits.
    pub(super) fn widen(&mut self, value: clif::Value) -> clif::Value {
        let ty = self.b.func.dfg.value_type(value);
        let value = match ty {
            types::F32 => self.bitcast(types::I32, value),
            types::F64 => self.bitcast(types::I64, value),
            _ => value,
        };
        if self.b.func.dfg.value_type(value) == types::I64 {
            value
        } else {
            self.b.ins().uextend(types::I64, value)
        }
    }

    /// The same bits as another type of the same size.
    pub(super) fn bitcast(&mut self, ty: clif::Type, value: clif::Value) -> clif::Value {
        if self.b.func.dfg.value_type(value) == ty {
            return value;
        }
        let flags = MemFlagsData::new().with_endianness(clif::Endianness::Little);
        self.b.ins().bitcast(ty, flags, value)
    }
}
