//! The signal frame of x86-64: built on delivery, read by `rt_sigreturn`.

use super::host::Mask;
use super::siginfo::SigInfo;
use super::{AltStack, FIX_FLAGS, GuestAction, Trap, fxsave};
use crate::env::Env;
use crate::memory::MemFault;
use crate::state::CpuState;
use crate::user::abi::{Abi, Errno, Pack, Unpack};

/// Bytes below the stack pointer that a function may use without moving it.
const RED_ZONE: u64 = 128;

/// Return address, `ucontext`, `siginfo`.
const FRAME: u64 = 8 + UCONTEXT + 128;
const UCONTEXT: u64 = 304;

/// `uc_flags`: SS is saved and is to be restored as it is.
const UC_FLAGS: u64 = 2 | 4;
/// `uc_flags`: an extended image follows the FXSAVE image.
const UC_FP_XSTATE: u64 = 1;

/// General registers in the order of `sigcontext`.
const ORDER: [usize; 16] = [8, 9, 10, 11, 12, 13, 14, 15, 7, 6, 5, 3, 2, 0, 1, 4];

/// Pushes a frame and makes the registers enter the handler. `top` is where the frame goes: the
/// current stack pointer, or the end of the alternate stack.
#[allow(clippy::too_many_arguments)]
pub fn push(
    cpu: &mut CpuState,
    env: &Env,
    info: &SigInfo,
    action: &GuestAction,
    mask: Mask,
    alt: &AltStack,
    trap: &Trap,
    top: Option<u64>,
) -> Result<(), MemFault> {
    let top = top.unwrap_or(cpu.gpr[4].wrapping_sub(RED_ZONE));
    let (memory, model) = (&env.memory, &env.cpu);
    let fp = top.wrapping_sub(fxsave::size(model)) & !63;
    let frame = (fp.wrapping_sub(FRAME) & !15).wrapping_sub(8);
    memory.write_bytes(fp, &fxsave::whole(cpu, model, true, 0))?;
    let xstate = if fxsave::is_extended(model) {
        UC_FP_XSTATE
    } else {
        0
    };
    let mut p = Pack::new(Abi::X86_64);
    p.u64(action.restorer);
    p.u64(UC_FLAGS | xstate).u64(0);
    p.u64(alt.sp)
        .u32(alt.flags_at(cpu.gpr[4]))
        .u32(0)
        .u64(alt.size);
    for n in ORDER {
        p.u64(cpu.gpr[n]);
    }
    p.u64(cpu.rip).u64(cpu.rflags());
    p.u16(0x33).u16(0).u16(0).u16(0x2b);
    p.u64(trap.error).u64(trap.number).u64(mask).u64(trap.cr2);
    p.u64(fp).pad_to(8 + 296);
    p.u64(mask);
    p.raw(&info.pack(Abi::X86_64));
    debug_assert_eq!(p.bytes.len() as u64, FRAME);
    memory.write_bytes(frame, &p.bytes)?;

    cpu.gpr[7] = info.signal() as u64;
    cpu.gpr[6] = frame + 8 + UCONTEXT;
    cpu.gpr[2] = frame + 8;
    cpu.gpr[0] = 0;
    cpu.gpr[4] = frame;
    cpu.rip = action.handler;
    Ok(())
}

/// What a frame says besides the registers.
#[derive(Clone, Copy, Debug)]
pub struct Returned {
    /// The mask to go back to.
    pub mask: Mask,
    /// The alternate stack to go back to.
    pub alt: AltStack,
}

/// `rt_sigreturn`: loads the registers from the frame below the stack pointer.
pub fn pop(cpu: &mut CpuState, env: &Env) -> Result<Returned, Errno> {
    let memory = &env.memory;
    let context = cpu.gpr[4];
    let mut u = Unpack::new(Abi::X86_64, memory, context.wrapping_add(16));
    let alt = AltStack {
        sp: u.u64()?,
        flags: u.u32()?,
        size: u.skip(4).u64()?,
    };
    let mut gpr = [0; 16];
    for n in ORDER {
        gpr[n] = u.u64()?;
    }
    let rip = u.u64()?;
    let flags = u.u64()?;
    u.skip(8 + 32);
    let fp = u.u64()?;
    let mask = memory.read::<u64>(context.wrapping_add(296))?;
    if fp != 0 {
        fxsave::load(cpu, &env.cpu, memory, fp, true)?;
    }
    cpu.gpr = gpr;
    cpu.rip = rip;
    cpu.set_rflags(cpu.rflags() & !FIX_FLAGS | flags & FIX_FLAGS);
    Ok(Returned { mask, alt })
}
