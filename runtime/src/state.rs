//! The guest state of one virtual CPU, as the interpreter, compiled code and helpers share it.
//!
//! Compiled code addresses it through [`CpuState::layout`]; nothing else may know an offset. The
//! hot fields come first, so that displacements from the state pointer fit in a byte where that
//! matters.

use crate::system::SystemState;
use metaphrase_backend::{StateLayout, X87Layout};
use metaphrase_ir::{CcOp, Cond, Reg, flags};
use std::mem::offset_of;

/// Number of 64-bit interpreter slots for SSA values.
pub const TEMPS: usize = 4096;

/// The registers of the x87 FPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct X87State {
    /// The physical registers R0 to R7: 64-bit significand, then sign and exponent.
    pub regs: [X87Reg; 8],
    /// Control word. (Neighbours are such that no two are read at once: a read of two fields right
    /// after a write of one would wait for the write to reach the cache.)
    pub control: u16,
    /// The last instruction's CS selector.
    pub cs: u16,
    /// Status word without TOP.
    pub status: u16,
    /// The last memory operand's segment selector.
    pub ds: u16,
    /// TOP, 0 to 7.
    pub top: u16,
    /// The last instruction's opcode (11 bits).
    pub opcode: u16,
    /// One bit a physical register: 1 = in use (the abridged tag word of FXSAVE).
    pub tags: u8,
    /// Not the guest's: 1 = the portable core does the arithmetic even where the host's FPU could.
    pub portable: u8,
    /// Not the guest's: where registers, TOP, tags and status are while compiled code runs; see
    /// [`X87Layout::live`]. Everywhere else it is 0, and they are here.
    pub live: u8,
    /// Padding.
    pub reserved: u8,
    /// The last non-control instruction's RIP.
    pub ip: u64,
    /// The last memory operand's address.
    pub dp: u64,
}

/// An 80-bit x87 register.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct X87Reg {
    /// Significand with the explicit integer bit.
    pub mantissa: u64,
    /// Sign in bit 15, biased exponent in bits 0 to 14; the rest is padding and 0.
    pub exponent: u64,
}

/// An entry of the jump cache, by which indirect exits find compiled code.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct JumpEntry {
    /// The guest PC.
    pub pc: u64,
    /// The host code for it.
    pub code: u64,
}

impl JumpEntry {
    /// An entry for no block: whatever PC happens to match its tag, `miss_stub` (host code that
    /// reports a miss to the dispatcher) is what it leads to.
    pub const fn empty(miss_stub: u64) -> JumpEntry {
        JumpEntry {
            pc: 0x8000_0000_0000_dead,
            code: miss_stub,
        }
    }
}

/// Number of jump-cache entries; a power of two.
pub const JUMP_ENTRIES: usize = 4096;

/// The guest state of one virtual CPU.
#[repr(C, align(64))]
pub struct CpuState {
    /// RAX to R15.
    pub gpr: [u64; 16],
    /// RIP; current only outside regions.
    pub rip: u64,
    /// Guest instructions that may still run before the dispatcher must be asked.
    pub fuel: i64,
    /// Lazy flags: kind and size, see [`CcOp`].
    pub cc_op: u32,
    /// Why a helper or an exit leaves the region: an [`metaphrase_ir::ExitReason`].
    pub exit_reason: u32,
    /// Lazy flags: first operand.
    pub cc_a: u64,
    /// Lazy flags: second operand.
    pub cc_b: u64,
    /// Lazy flags: third operand.
    pub cc_c: u64,
    /// Details of the exit reason.
    pub exit_info: u64,
    /// Linear address of a memory fault.
    pub fault_addr: u64,
    /// The soft TLB for the current privilege level; null in a Linux program.
    pub tlb: *mut std::ffi::c_void,
    /// Host address of guest linear address 0.
    pub mem_base: u64,
    /// Size of the guest's window in bytes: accesses at or above it leave the fast path.
    pub mem_limit: u64,
    /// [`JUMP_ENTRIES`] entries, indexed as the backend's `jump_hash` says.
    pub jump_cache: *mut JumpEntry,
    /// What helpers need besides the state: a `*mut crate::env::Env`.
    pub env: *mut std::ffi::c_void,
    /// Stack pointer of the entry trampoline's frame, for the fault handler.
    pub host_sp: u64,
    /// Frame pointer of the entry trampoline's frame.
    pub host_fp: u64,
    /// Where the fault handler resumes.
    pub host_resume: u64,
    /// The code that does memory accesses which the soft TLB does not have.
    pub slow_access: u64,
    /// Segment bases, in encoding order: ES, CS, SS, DS, FS, GS.
    pub seg_base: [u64; 6],
    /// +1, or -1 where RFLAGS.DF is set.
    pub df: i64,
    /// RFLAGS without DF and the arithmetic flags.
    pub sysflags: u64,
    /// Selectors, in encoding order.
    pub seg_sel: [u16; 6],
    /// SSE control and status.
    pub mxcsr: u32,
    /// XMM0 to XMM15.
    pub xmm: [u128; 16],
    /// Bits 128 to 255 of YMM0 to YMM15.
    pub ymm_hi: [u128; 16],
    /// Vector arguments of helpers; the vector result comes back in the first.
    pub helper_v: [u128; 4],
    /// The x87 FPU.
    pub x87: X87State,
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    /// What the lower half of a 256-bit operation has left for the upper half's check: MXCSR flags,
    /// bit 62 if it raises #XM, bit 63 if there is anything.
    pub sse_pending: u64,
    /// Floating-point operations that have run, if they are counted: see the pass `count`.
    pub float_ops: u64,
    /// Padding.
    pub reserved: u64,
    /// System registers; a Linux program's CPU leaves them alone.
    pub sys: SystemState,
    /// The interpreter's slots.
    pub temps: [u64; TEMPS],
}

impl CpuState {
    /// A CPU after reset as user mode wants it: everything zero but the constants that the
    /// architecture defines.
    pub fn new() -> Box<CpuState> {
        // SAFETY: every field is an integer, a bool, an enum with a variant 0, an array or struct
        // of such, or a raw pointer, for all of which the all-zero pattern is valid.
        let mut state: Box<CpuState> = unsafe { Box::new_zeroed().assume_init() };
        state.sys = SystemState::power_up();
        state.df = 1;
        state.sysflags = 0x202;
        state.mxcsr = 0x1f80;
        state.x87.control = 0x37f;
        state
    }

    /// The six arithmetic flags.
    pub fn arith_flags(&self) -> u64 {
        flags::evaluate(CcOp(self.cc_op), self.cc_a, self.cc_b, self.cc_c)
    }

    /// Whether a condition holds.
    pub fn cond(&self, cond: Cond) -> bool {
        cond.holds(self.arith_flags())
    }

    /// RFLAGS, whole.
    pub fn rflags(&self) -> u64 {
        let df = if self.df < 0 { flags::DF } else { 0 };
        self.sysflags | df | self.arith_flags() | 2
    }

    /// Sets RFLAGS, whole, without any check of rights.
    pub fn set_rflags(&mut self, value: u64) {
        self.cc_op = CcOp::new(metaphrase_ir::FlagKind::Raw, metaphrase_ir::Type::I64).0;
        self.cc_a = value & flags::ARITH;
        self.df = if value & flags::DF != 0 { -1 } else { 1 };
        self.sysflags = value & !(flags::ARITH | flags::DF) | 2;
    }

    /// The byte offset of a register in the state.
    pub const fn reg_offset(reg: Reg) -> u32 {
        let n = reg as usize;
        let offset = if n <= Reg::R15 as usize {
            offset_of!(CpuState, gpr) + n * 8
        } else if n <= Reg::GsBase as usize {
            offset_of!(CpuState, seg_base) + (n - Reg::EsBase as usize) * 8
        } else if n <= Reg::Gs as usize {
            offset_of!(CpuState, seg_sel) + (n - Reg::Es as usize) * 2
        } else {
            match reg {
                Reg::Df => offset_of!(CpuState, df),
                Reg::SysFlags => offset_of!(CpuState, sysflags),
                Reg::Mxcsr => offset_of!(CpuState, mxcsr),
                Reg::Fuel => offset_of!(CpuState, fuel),
                Reg::CcOp => offset_of!(CpuState, cc_op),
                Reg::CcA => offset_of!(CpuState, cc_a),
                Reg::CcB => offset_of!(CpuState, cc_b),
                Reg::CcC => offset_of!(CpuState, cc_c),
                Reg::FloatOps => offset_of!(CpuState, float_ops),
                _ if n >= Reg::Mm0 as usize && n <= Reg::Mm7 as usize => {
                    offset_of!(CpuState, x87) + (n - Reg::Mm0 as usize) * size_of::<X87Reg>()
                }
                _ if n >= Reg::YmmHi0 as usize => {
                    offset_of!(CpuState, ymm_hi) + (n - Reg::YmmHi0 as usize) * 16
                }
                _ => offset_of!(CpuState, xmm) + (n - Reg::Xmm0 as usize) * 16,
            }
        };
        offset as u32
    }

    /// What the backend needs to know about this struct.
    pub fn layout() -> StateLayout {
        let mut reg_offsets = [0; Reg::COUNT];
        for &reg in Reg::ALL {
            reg_offsets[reg as usize] = Self::reg_offset(reg);
        }
        StateLayout {
            reg_offsets,
            rip: offset_of!(CpuState, rip) as u32,
            fuel: offset_of!(CpuState, fuel) as u32,
            cc_op: offset_of!(CpuState, cc_op) as u32,
            cc_a: offset_of!(CpuState, cc_a) as u32,
            cc_b: offset_of!(CpuState, cc_b) as u32,
            cc_c: offset_of!(CpuState, cc_c) as u32,
            exit_reason: offset_of!(CpuState, exit_reason) as u32,
            exit_info: offset_of!(CpuState, exit_info) as u32,
            fault_addr: offset_of!(CpuState, fault_addr) as u32,
            mem_base: offset_of!(CpuState, mem_base) as u32,
            mem_limit: offset_of!(CpuState, mem_limit) as u32,
            jump_cache: offset_of!(CpuState, jump_cache) as u32,
            jump_entries: JUMP_ENTRIES as u32,
            host_sp: offset_of!(CpuState, host_sp) as u32,
            host_fp: offset_of!(CpuState, host_fp) as u32,
            host_resume: offset_of!(CpuState, host_resume) as u32,
            helper_v: offset_of!(CpuState, helper_v) as u32,
            tlb: offset_of!(CpuState, tlb) as u32,
            slow_access: offset_of!(CpuState, slow_access) as u32,
            x87: X87Layout {
                live: offset_of!(CpuState, x87.live) as u32,
                control: offset_of!(CpuState, x87.control) as u32,
                opcode: offset_of!(CpuState, x87.opcode) as u32,
                ip: offset_of!(CpuState, x87.ip) as u32,
                cs: offset_of!(CpuState, x87.cs) as u32,
                dp: offset_of!(CpuState, x87.dp) as u32,
                ds: offset_of!(CpuState, x87.ds) as u32,
            },
            x87_leave: crate::helpers::X87_LEAVE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hot_fields_come_first() {
        assert_eq!(offset_of!(CpuState, gpr), 0);
        assert_eq!(offset_of!(CpuState, rip), 128);
        assert_eq!(offset_of!(CpuState, fuel), 136);
        assert_eq!(offset_of!(CpuState, cc_op), 144);
        assert_eq!(offset_of!(CpuState, cc_a), 152);
        assert!(offset_of!(CpuState, temps) % 16 == 0);
    }

    #[test]
    fn every_register_has_its_own_place() {
        let mut places: Vec<(u32, u32)> = Reg::ALL
            .iter()
            .map(|&r| {
                (
                    CpuState::reg_offset(r),
                    CpuState::reg_offset(r) + r.ty().bytes(),
                )
            })
            .collect();
        places.sort();
        for pair in places.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{pair:?} overlap");
        }
        for &r in Reg::ALL {
            assert_eq!(
                CpuState::reg_offset(r) % r.ty().bytes(),
                0,
                "{r} is not aligned"
            );
        }
    }

    #[test]
    fn rflags_round_trip() {
        let mut s = CpuState::new();
        s.set_rflags(0x2_4cd7);
        assert_eq!(s.rflags(), 0x2_4cd7);
        assert_eq!(s.df, -1);
    }
}
