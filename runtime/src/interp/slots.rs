//! Temporary slots for values that do not live in guest registers.

use super::ProgramError;
use crate::state::{CpuState, TEMPS};
use metaphrase_ir::{Type, Value};
use std::mem::offset_of;

/// Slots at the start of `temps` for constants and copies on their way: four of 16 bytes.
const SCRATCH: u16 = 8;

/// Scratch slot `n`, 0 to 3, 16 bytes long.
pub(super) const fn scratch(n: u16) -> u16 {
    offset_of!(CpuState, temps) as u16 + n * 16
}

const NONE: u16 = u16::MAX;

/// The allocation of `CpuState::temps`. Values used in one block only give their slots back.
pub(super) struct Slots {
    of: Vec<u16>,
    next: u16,
    free: [Vec<u16>; 2],
    /// Last use, slot and size class of this block's values.
    active: Vec<(u32, u16, usize)>,
}

impl Slots {
    pub fn new(values: usize) -> Slots {
        Slots {
            of: vec![NONE; values],
            next: SCRATCH,
            free: [Vec::new(), Vec::new()],
            active: Vec::new(),
        }
    }

    /// The slot's offset in the state.
    pub fn of(&self, v: Value) -> u16 {
        let slot = self.of[v.0 as usize];
        debug_assert_ne!(slot, NONE, "{v} has no slot");
        slot
    }

    /// Gives the value a slot, for good or until its last use in this block.
    pub fn allocate(&mut self, v: Value, ty: Type, until: Option<u32>) -> Result<(), ProgramError> {
        let wide = usize::from(ty == Type::V128);
        // A slot for good must not be one that an earlier block in the list uses for a while: that
        // block may run while the value lives.
        let recycled = until.and_then(|_| self.free[wide].pop());
        let slot = match recycled {
            Some(slot) => slot,
            None => {
                let n = self.next;
                self.next += 1 + wide as u16;
                if usize::from(self.next) > TEMPS {
                    return Err(ProgramError::TooManyValues);
                }
                offset_of!(CpuState, temps) as u16 + n * 8
            }
        };
        self.of[v.0 as usize] = slot;
        if let Some(until) = until {
            self.active.push((until, slot, wide));
        }
        Ok(())
    }

    /// Takes back the slots of the block before.
    pub fn start_block(&mut self) {
        self.release_until(u32::MAX);
    }

    /// Takes back the slots of values whose last use is at `pos` or before: ops read all their
    /// operands before they write.
    pub fn release_until(&mut self, pos: u32) {
        let free = &mut self.free;
        self.active.retain(|&(until, slot, wide)| {
            if until <= pos {
                free[wide].push(slot);
            }
            until > pos
        });
    }
}

// Every slot must fit in 16 bits.
const _: () = assert!(size_of::<CpuState>() <= u16::MAX as usize);
