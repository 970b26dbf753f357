//! The stack: pushes and pops at the stack's width, for the families that need them.

use super::Lift;
use iced_x86::Register;
use metaphrase_ir::{AccessKind, Reg, Type, Value};

impl Lift<'_> {
    /// The stack pointer plus `delta` bytes, as an i64 zero-extended from the stack's width.
    pub fn stack_offset(&mut self, delta: i64) -> Value {
        let rsp = self.ir.getreg(Reg::Rsp);
        self.offset_from(rsp, delta)
    }

    /// `base` plus `delta` wrapped to the stack's width, zero-extended to i64.
    pub fn offset_from(&mut self, base: Value, delta: i64) -> Value {
        let ty = self.mode.stack_type();
        let cut = self.ir.trunc(ty, base);
        let moved = if delta == 0 {
            cut
        } else {
            let d = self.iconst(ty, delta as u64);
            self.ir.add(cut, d)
        };
        self.ir.zext(Type::I64, moved)
    }

    /// Sets the stack pointer from an i64 at the stack's width: a 16-bit stack keeps the upper
    /// bits of ESP.
    pub fn set_stack_pointer(&mut self, v: Value) {
        let ty = self.mode.stack_type();
        let v = if ty == Type::I16 {
            let low = self.ir.trunc(Type::I16, v);
            let old = self.ir.getreg(Reg::Rsp);
            self.ir.insert(old, low, 0)
        } else {
            v
        };
        self.ir.setreg(Reg::Rsp, v);
    }

    /// The linear address of `size` bytes at a stack offset.
    pub fn stack_linear(&mut self, offset: Value, size: u32, write: bool) -> Value {
        self.access(Register::SS, offset, size, write)
    }

    /// Pushes `v`: the store comes first, so that a fault leaves the stack pointer alone.
    pub fn push(&mut self, v: Value) {
        let size = i64::from(self.ir.ty(v).bytes());
        let top = self.stack_offset(-size);
        let addr = self.stack_linear(top, size as u32, true);
        self.ir.store(addr, v, AccessKind::Stack);
        self.set_stack_pointer(top);
    }

    /// Loads the value of type `ty` at the stack's top plus `delta`; moves nothing.
    pub fn peek(&mut self, ty: Type, delta: i64) -> Value {
        let at = self.stack_offset(delta);
        let addr = self.stack_linear(at, ty.bytes(), false);
        self.ir.load(ty, addr, AccessKind::Stack)
    }

    /// Moves the stack pointer by `delta` bytes.
    pub fn move_stack(&mut self, delta: i64) {
        let v = self.stack_offset(delta);
        self.set_stack_pointer(v);
    }

    /// Pops a value of type `ty`.
    pub fn pop(&mut self, ty: Type) -> Value {
        let v = self.peek(ty, 0);
        self.move_stack(i64::from(ty.bytes()));
        v
    }
}
