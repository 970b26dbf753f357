//! The literal model's stacks: where they are, what fits, pushes and pops.

use super::model::{Fields, Refusal};
use super::world::{World, canonical};

/// The #SS vector.
const SS: u8 = 12;

/// A stack while something is pushed or popped.
pub(super) struct Stack {
    pub(super) base: u64,
    pub(super) limit: u64,
    pub(super) expand_down: bool,
    /// The width of the stack pointer in bits.
    pub(super) width: u32,
    pub(super) pointer: u64,
    /// The error code of #SS.
    pub(super) code: u32,
}

impl World {
    /// The stack that SS:RSP is: flat, of 32 bits, or 64-bit code's.
    pub(super) fn current(&self) -> Stack {
        let width = if self.model.bits64 { 64 } else { 32 };
        Stack {
            base: 0,
            limit: 0xffff_ffff,
            expand_down: false,
            width,
            pointer: self.registers.rsp,
            code: 0,
        }
    }

    pub(super) fn stack(&self, d: &Fields, pointer: u64, code: u32) -> Stack {
        let width = if d.db { 32 } else { 16 };
        Stack {
            base: d.base,
            limit: d.limit,
            expand_down: d.kind & 4 != 0,
            width,
            pointer: pointer % (1 << width),
            code,
        }
    }

    pub(super) fn long_stack(&self, pointer: u64) -> Stack {
        Stack {
            base: 0,
            limit: 0,
            expand_down: false,
            width: 64,
            pointer,
            code: 0,
        }
    }

    pub(super) fn within(&self, stack: &Stack, pointer: u64, bytes: u64) -> Result<u64, Refusal> {
        let fine = (0..bytes).all(|n| {
            if stack.width == 64 {
                return canonical(pointer.wrapping_add(n));
            }
            let at = pointer + n;
            let top = if stack.width == 32 {
                0xffff_ffff
            } else {
                0xffff
            };
            if stack.expand_down {
                at > stack.limit && at <= top
            } else {
                // A segment of 4 GiB has no end.
                at <= stack.limit || stack.limit == 0xffff_ffff
            }
        });
        if !fine {
            return Err((SS, stack.code));
        }
        let address = stack.base.wrapping_add(pointer);
        let wide = self.model.ia32e;
        Ok(if wide { address } else { address % (1 << 32) })
    }

    pub(super) fn down(stack: &Stack, bytes: u64) -> u64 {
        let moved = stack.pointer.wrapping_sub(bytes);
        if stack.width == 64 {
            moved
        } else {
            moved % (1 << stack.width)
        }
    }

    /// "IF stack not large enough for …"
    pub(super) fn room(&self, stack: &Stack, values: usize, bytes: u64) -> Result<(), Refusal> {
        for n in 1..=values as u64 {
            self.within(stack, World::down(stack, n * bytes), bytes)?;
        }
        Ok(())
    }

    pub(super) fn push(&mut self, stack: &mut Stack, bytes: u64, value: u64) {
        stack.pointer = World::down(stack, bytes);
        let at = self.within(stack, stack.pointer, bytes).unwrap();
        self.write(at, bytes, value);
    }

    pub(super) fn pop(&self, stack: &mut Stack, bytes: u64) -> Result<u64, Refusal> {
        let at = self.within(stack, stack.pointer, bytes)?;
        stack.pointer = World::down(stack, bytes.wrapping_neg());
        Ok(self.read(at, bytes))
    }
}
