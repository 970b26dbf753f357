//! The signal frames of i386: the old one, and the one with `siginfo` (`SA_SIGINFO`).

use super::frame64::Returned;
use super::host::Mask;
use super::siginfo::SigInfo;
use super::{AltStack, FIX_FLAGS, GuestAction, SA_RESTORER, SA_SIGINFO, Trap, fxsave};
use crate::cpu_model::CpuModel;
use crate::env::Env;
use crate::memory::MemFault;
use crate::state::CpuState;
use crate::user::abi::{Abi, Errno, Pack, Unpack};
use crate::user::segments;

/// Size of the FPU state that comes before the FXSAVE image.
const FSAVE: u64 = 112;
/// Size of `sigcontext`.
const CONTEXT: u64 = 88;
/// Return address, signal, `sigcontext`, unused FPU area, upper half of the mask, return code.
const FRAME: u64 = 4 + 4 + CONTEXT + 624 + 4 + 8;
/// Return address, signal, two pointers, `siginfo`, `ucontext`, return code.
const RT_FRAME: u64 = 16 + 128 + UCONTEXT + 8;
const UCONTEXT: u64 = 8 + 12 + CONTEXT + 8;

/// `pop eax; mov eax, 119; int 0x80` and `mov eax, 173; int 0x80`: what debuggers look for on the
/// stack. What runs is the copy in the trampoline page.
const RETURN: [u8; 8] = [0x58, 0xb8, 119, 0, 0, 0, 0xcd, 0x80];
const RT_RETURN: [u8; 8] = [0xb8, 173, 0, 0, 0, 0xcd, 0x80, 0];

/// Offsets in the trampoline page.
const AT_RETURN: u64 = 0;
const AT_RT_RETURN: u64 = 16;
/// Where SYSENTER returns to, and from where it starts again.
pub const AT_SYSENTER_RETURN: u64 = 32;

/// The trampoline page's code.
pub fn trampoline() -> Vec<u8> {
    let mut code = vec![0xcc; 64];
    code[..8].copy_from_slice(&RETURN);
    code[16..24].copy_from_slice(&RT_RETURN);
    // int 0x80; pop ebp; pop edx; pop ecx; ret
    code[30..36].copy_from_slice(&[0xcd, 0x80, 0x5d, 0x5a, 0x59, 0xc3]);
    code
}

fn pack_context(cpu: &CpuState, p: &mut Pack, fp: u64, mask: Mask, trap: &Trap) {
    // GS, FS, ES, DS.
    for n in [5, 4, 0, 3] {
        p.u32(u32::from(cpu.seg_sel[n]));
    }
    for n in [7, 6, 5, 4, 3, 2, 1, 0] {
        p.u32(cpu.gpr[n] as u32);
    }
    p.u32(trap.number as u32).u32(trap.error as u32);
    p.u32(cpu.rip as u32).u32(u32::from(cpu.seg_sel[1]));
    p.u32(cpu.rflags() as u32).u32(cpu.gpr[4] as u32);
    p.u32(u32::from(cpu.seg_sel[2]));
    p.u32(fp as u32).u32(mask as u32).u32(trap.cr2 as u32);
}

/// The FPU state of i386 frames: the old environment and registers, then the FXSAVE image.
fn pack_fpu(cpu: &CpuState, model: &CpuModel) -> Vec<u8> {
    let x = &cpu.x87;
    let mut p = Pack::new(Abi::I386);
    p.u32(u32::from(x.control) | 0xffff_0000);
    p.u32(u32::from(fxsave::status(cpu)) | 0xffff_0000);
    p.u32(u32::from(fxsave::full_tags(cpu)) | 0xffff_0000);
    p.u32(x.ip as u32);
    p.u32(u32::from(x.cs) | u32::from(x.opcode) << 16);
    p.u32(x.dp as u32).u32(u32::from(x.ds) | 0xffff_0000);
    for n in 0..8 {
        let reg = fxsave::st(cpu, n);
        p.u64(reg.mantissa).u16(reg.exponent as u16);
    }
    // The second word 0 says that the FXSAVE image follows.
    p.u16(fxsave::status(cpu)).u16(0);
    p.raw(&fxsave::whole(cpu, model, false, FSAVE));
    p.bytes
}

/// Pushes a frame and makes the registers enter the handler. `top` is where the frame goes if not
/// below the stack pointer; `trampoline` is the page with the return code.
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
    trampoline: u64,
) -> Result<(), MemFault> {
    let rt = action.flags & SA_SIGINFO != 0;
    let top = top.unwrap_or(cpu.gpr[4]) & 0xffff_ffff;
    let (memory, model) = (&env.memory, &env.cpu);
    let fx = top.wrapping_sub(fxsave::size(model)) & !63;
    let fp = fx.wrapping_sub(FSAVE) & 0xffff_ffff;
    let size = if rt { RT_FRAME } else { FRAME };
    // At the handler's first instruction ESP + 4 is a multiple of 16, as after a call.
    let frame = (fp.wrapping_sub(size).wrapping_add(4) & !15).wrapping_sub(4) & 0xffff_ffff;
    memory.write_bytes(fp, &pack_fpu(cpu, model))?;
    let return_to = match (action.flags & SA_RESTORER != 0, rt) {
        (true, _) => action.restorer,
        (false, true) => trampoline + AT_RT_RETURN,
        (false, false) => trampoline + AT_RETURN,
    };
    let mut p = Pack::new(Abi::I386);
    p.u32(return_to as u32).u32(info.signal() as u32);
    let (info_at, context_at) = (frame + 16, frame + 16 + 128);
    if rt {
        p.u32(info_at as u32).u32(context_at as u32);
        p.raw(&info.pack(Abi::I386));
        p.u32(u32::from(fxsave::is_extended(model))).u32(0);
        p.u32(alt.sp as u32)
            .u32(alt.flags_at(cpu.gpr[4]))
            .u32(alt.size as u32);
        pack_context(cpu, &mut p, fp, mask, trap);
        p.u64(mask);
        p.raw(&RT_RETURN);
    } else {
        pack_context(cpu, &mut p, fp, mask, trap);
        p.pad_to((8 + CONTEXT + 624) as usize);
        p.u32((mask >> 32) as u32);
        p.raw(&RETURN);
    }
    debug_assert_eq!(p.bytes.len() as u64, size);
    memory.write_bytes(frame, &p.bytes)?;

    cpu.gpr[0] = info.signal() as u64;
    cpu.gpr[2] = if rt { info_at } else { 0 };
    cpu.gpr[1] = if rt { context_at } else { 0 };
    cpu.gpr[4] = frame;
    cpu.rip = action.handler & 0xffff_ffff;
    Ok(())
}

/// `sigreturn`: the frame starts 8 bytes below the stack pointer, because the return address and
/// the signal number have been popped.
pub fn pop(cpu: &mut CpuState, env: &Env) -> Result<Mask, Errno> {
    let context = (cpu.gpr[4] & 0xffff_ffff) as u32;
    let context = u64::from(context);
    let high: u32 = env.memory.read(context + CONTEXT + 624)?;
    let low = pop_context(cpu, env, context)?;
    Ok(low | u64::from(high) << 32)
}

/// `rt_sigreturn`: the frame starts 4 bytes below the stack pointer.
pub fn pop_rt(cpu: &mut CpuState, env: &Env) -> Result<Returned, Errno> {
    let frame = u64::from((cpu.gpr[4] as u32).wrapping_sub(4));
    let context = frame + 16 + 128;
    let mut u = Unpack::new(Abi::I386, &env.memory, context + 8);
    let alt = AltStack {
        sp: u.word()?,
        flags: u.u32()?,
        size: u.word()?,
    };
    let mask = env.memory.read::<u64>(context + 20 + CONTEXT)?;
    pop_context(cpu, env, context + 20)?;
    Ok(Returned { mask, alt })
}

fn pop_context(cpu: &mut CpuState, env: &Env, at: u64) -> Result<Mask, Errno> {
    let mut u = Unpack::new(Abi::I386, &env.memory, at);
    let mut selectors = [0u16; 4];
    for s in &mut selectors {
        *s = u.u32()? as u16;
    }
    let mut gpr = [0; 8];
    for n in [7, 6, 5, 4, 3, 2, 1, 0] {
        gpr[n] = u.word()?;
    }
    u.skip(8);
    let rip = u.word()?;
    u.skip(4);
    let flags = u.word()?;
    u.skip(8);
    let fp = u.word()?;
    let mask = u.word()?;
    if fp != 0 {
        fxsave::load(cpu, &env.cpu, &env.memory, fp + FSAVE, false)?;
    }
    for (n, selector) in [5, 4, 0, 3].into_iter().zip(selectors) {
        segments::load(cpu, env, n, selector);
    }
    cpu.gpr[..8].copy_from_slice(&gpr);
    cpu.rip = rip;
    cpu.set_rflags(cpu.rflags() & !FIX_FLAGS | flags & FIX_FLAGS);
    Ok(mask)
}
