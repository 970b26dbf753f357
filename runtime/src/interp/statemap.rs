//! State maps: what is written to the guest state when an access faults.

use super::Program;
use super::code::Ins;
use super::emit::Emitter;
use crate::state::CpuState;
use metaphrase_ir::{Op, Reg, Value};

/// A register and the value that it gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapped {
    reg: Reg,
    value: Source,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Slot(u16),
    Const(u128),
}

impl Emitter<'_> {
    /// The state map of an op, if it has one.
    pub(super) fn state_map(&self, v: Value) -> Option<Box<[Mapped]>> {
        let entries = self.region().state_map(v).map(|(reg, x)| Mapped {
            reg,
            value: self.mapped_source(self.a.root(x)),
        });
        let entries: Box<[Mapped]> = entries.collect();
        (!entries.is_empty()).then_some(entries)
    }

    fn mapped_source(&self, x: Value) -> Source {
        if let Some(bits) = self.a.constant(x) {
            return Source::Const(bits.into());
        }
        let inst = self.region().inst(x);
        match inst.op {
            Op::VConst => Source::Const(self.vconst(inst.imm)),
            _ => Source::Slot(self.slot(x)),
        }
    }
}

impl Program {
    /// Does what the state map of the instruction says, if it has one.
    ///
    /// # Safety
    /// `ip` is an instruction of the program, `st` the guest state.
    pub(super) unsafe fn write_mapped(&self, ip: *const Ins, st: *mut u8) {
        let at = (ip.addr() - self.code.as_ptr().addr()) / size_of::<Ins>();
        let Ok(n) = self.maps.binary_search_by_key(&at, |(at, _)| *at as usize) else {
            return;
        };
        let entries: &[Mapped] = &self.maps[n].1;
        let bytes = |reg: Reg| reg.ty().bytes() as usize;
        // A value may lie in the place of a register that another entry writes: first all are read.
        let mut values = [0u128; Reg::COUNT];
        for (value, entry) in values.iter_mut().zip(entries) {
            *value = match entry.value {
                Source::Const(bits) => bits,
                Source::Slot(slot) => {
                    let mut value = [0; 16];
                    let n = bytes(entry.reg);
                    // SAFETY: `Program::new` makes only slots that lie in the state, and they
                    // are as large as their values.
                    unsafe {
                        st.add(slot.into())
                            .copy_to_nonoverlapping(value.as_mut_ptr(), n);
                    }
                    u128::from_le_bytes(value)
                }
            };
        }
        for (value, entry) in values.iter().zip(entries) {
            let value = value.to_le_bytes();
            // SAFETY: every register lies in the state.
            unsafe {
                st.add(CpuState::reg_offset(entry.reg) as usize)
                    .copy_from_nonoverlapping(value.as_ptr(), bytes(entry.reg));
            }
        }
    }
}
