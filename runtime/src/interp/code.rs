//! The predecoded instruction and what its handlers share.

use super::{Exit, NO_SLOT, Program};
use crate::memory::{GuestMemory, MemFault};
use crate::state::CpuState;
use metaphrase_ir::exit::{exception_info, has_error_code};
use metaphrase_ir::{ExitReason, Type};

/// Executes one instruction and answers the next one, or null to leave the program.
///
/// The arguments are the instruction, the guest state and the run's context. A handler may assume
/// what `Program::new` guarantees: slots lie in the state, branch distances in the program.
///
/// # Safety
/// The instruction is one of a live program whose handler this is, the state a valid guest state
/// attached to its environment, the context that of the run; nobody else uses state or context
/// during the call. Every `unsafe fn` of the interpreter with these arguments is a handler, or a
/// part of one, under this contract.
pub(super) type Handler = unsafe fn(*const Ins, *mut u8, *mut Context<'_>) -> *const Ins;

/// A predecoded instruction. Slots are byte offsets from the start of the guest state.
#[derive(Clone, Copy)]
pub(super) struct Ins {
    /// What to do.
    pub run: Handler,
    /// Result slot (stores: the value's slot).
    pub d: u16,
    /// First operand's slot.
    pub a: u16,
    /// Second operand's slot.
    pub b: u16,
    /// Constant, third slot or branch distance in bytes.
    pub imm: u64,
}

impl std::fmt::Debug for Ins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:#x} <- {:#x}, {:#x}, {:#x}",
            self.d, self.a, self.b, self.imm
        )
    }
}

/// What handlers need besides the guest state.
pub(super) struct Context<'p> {
    pub memory: &'p GuestMemory,
    pub program: &'p Program,
    /// RIP at the entry.
    pub pc: u64,
    /// How the run ends.
    pub exit: Exit,
}

/// An integer type as handlers see it.
pub(super) trait Int: crate::memory::Word + PartialEq {
    const TY: Type;
    const BITS: u32 = Self::TY.bits();
    fn wide(self) -> u64;
    fn cut(v: u64) -> Self;
    /// Sign-extends the low bits.
    fn sext(v: u64) -> i64;
}

macro_rules! ints {
    ($($ty:ident $signed:ident $ir:ident;)*) => {$(
        impl Int for $ty {
            const TY: Type = Type::$ir;
            #[inline(always)]
            fn wide(self) -> u64 {
                u64::from(self)
            }
            #[inline(always)]
            fn cut(v: u64) -> $ty {
                v as $ty
            }
            #[inline(always)]
            fn sext(v: u64) -> i64 {
                i64::from(v as $signed)
            }
        }
    )*};
}

ints! {
    u8 i8 I8;
    u16 i16 I16;
    u32 i32 I32;
    u64 i64 I64;
}

/// Reads a slot.
///
/// # Safety
/// `st` is the guest state and `slot` an offset in it.
#[inline(always)]
pub(super) unsafe fn rd<T: Copy>(st: *mut u8, slot: u16) -> T {
    // SAFETY: `Program::new` makes only slots that lie in the state.
    unsafe { st.add(slot as usize).cast::<T>().read_unaligned() }
}

/// Writes a slot, exactly as wide as the value.
///
/// # Safety
/// As for [`rd`].
#[inline(always)]
pub(super) unsafe fn put<T: Copy>(st: *mut u8, slot: u16, value: T) {
    // SAFETY: `Program::new` makes only slots that lie in the state.
    unsafe { st.add(slot as usize).cast::<T>().write_unaligned(value) }
}

/// Writes a result: cut to `T`, zero-extended to the slot's 64 bits.
///
/// # Safety
/// As for [`rd`].
#[inline(always)]
pub(super) unsafe fn wr<T: Int>(st: *mut u8, slot: u16, value: u64) {
    // SAFETY: as for `put`.
    unsafe { put::<u64>(st, slot, T::cut(value).wide()) }
}

/// The guest state, as handlers get it.
#[inline(always)]
pub(super) fn state(st: *mut u8) -> *mut CpuState {
    st.cast()
}

impl Context<'_> {
    /// The guest PC at an offset from the entry.
    #[inline(always)]
    pub fn pc_at(&self, offset: i64) -> u64 {
        self.pc.wrapping_add(offset as u64) & self.program.pc_mask
    }

    /// Leaves at guest instruction `Inst::insn`: RIP there, the fuel from there on given back.
    ///
    /// # Safety
    /// `ip` is an instruction of the program, `st` the guest state.
    #[cold]
    #[inline(never)]
    pub unsafe fn leave_at(
        &mut self,
        ip: *const Ins,
        st: *mut u8,
        reason: ExitReason,
    ) -> *const Ins {
        let insn = self.program.guest_insn(ip);
        // SAFETY: handed on.
        let s = unsafe { &mut *state(st) };
        s.rip = self.pc_at(insn.offset);
        s.fuel = s.fuel.wrapping_add(i64::from(insn.fuel_left));
        self.leave(reason)
    }

    /// Leaves after guest instruction `Inst::insn`: RIP behind it, the fuel from there on given
    /// back.
    ///
    /// # Safety
    /// As for [`Context::leave_at`].
    #[cold]
    #[inline(never)]
    pub unsafe fn leave_after(
        &mut self,
        ip: *const Ins,
        st: *mut u8,
        reason: ExitReason,
    ) -> *const Ins {
        let insn = self.program.guest_insn(ip);
        // SAFETY: handed on.
        let s = unsafe { &mut *state(st) };
        s.rip = self.pc_at(insn.offset.wrapping_add(i64::from(insn.len)));
        s.fuel = s
            .fuel
            .wrapping_add(i64::from(insn.fuel_left.saturating_sub(1)));
        self.leave(reason)
    }

    /// Leaves with RIP and fuel as they are.
    #[cold]
    #[inline(never)]
    pub fn leave(&mut self, reason: ExitReason) -> *const Ins {
        self.exit = Exit {
            reason,
            slot: NO_SLOT,
        };
        std::ptr::null()
    }

    /// Leaves with an exception of the instruction, error code 0 where the vector has one.
    ///
    /// # Safety
    /// As for [`Context::leave_at`].
    #[cold]
    #[inline(never)]
    pub unsafe fn raise(&mut self, ip: *const Ins, st: *mut u8, vector: u8) -> *const Ins {
        let code = has_error_code(vector).then_some(0);
        // SAFETY: handed on.
        unsafe {
            (*state(st)).exit_info = exception_info(vector, code);
            self.leave_at(ip, st, ExitReason::Exception)
        }
    }

    /// Leaves because of a memory access that was refused.
    ///
    /// # Safety
    /// As for [`Context::leave_at`].
    #[cold]
    #[inline(never)]
    pub unsafe fn fault(&mut self, ip: *const Ins, st: *mut u8, fault: MemFault) -> *const Ins {
        // SAFETY: handed on.
        unsafe {
            let s = state(st);
            (*s).fault_addr = fault.addr;
            (*s).exit_info = u64::from(fault.write);
            self.program.write_mapped(ip, st);
            self.leave_at(ip, st, ExitReason::Memory)
        }
    }
}
