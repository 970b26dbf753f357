//! Identification, time and segments.

use super::Cx;
use metaphrase_ir::{Reg, flags, sysflags};

const GP: u8 = 13;

/// CPUID.
pub(super) fn cpuid(cx: &Cx, _descriptor: u32, _args: [u64; 3]) -> u64 {
    let (leaf, sub) = {
        let gpr = &cx.state().gpr;
        (gpr[Reg::Rax as usize] as u32, gpr[Reg::Rcx as usize] as u32)
    };
    let env = cx.env();
    let words = if env.memory.paged().is_some() {
        crate::system::cpuid(cx, leaf, sub)
    } else {
        env.cpu.cpuid(leaf, sub)
    };
    let order = [Reg::Rax, Reg::Rbx, Reg::Rcx, Reg::Rdx];
    for (reg, word) in order.into_iter().zip(words) {
        cx.state().gpr[reg as usize] = u64::from(word);
    }
    0
}

/// The time-stamp counter.
pub(super) fn rdtsc(cx: &Cx, _descriptor: u32, _args: [u64; 3]) -> u64 {
    cx.env().read_tsc(cx.state())
}

/// IA32_TSC_AUX.
pub(super) fn tsc_aux(cx: &Cx, _descriptor: u32, _args: [u64; 3]) -> u64 {
    cx.state().tsc_aux
}

/// Loads a data segment register (SDM volume 2, MOV; at CPL 3).
pub(super) fn load_segment(cx: &Cx, descriptor: u32, args: [u64; 3]) -> u64 {
    const SS: u32 = 2;
    let number = descriptor.min(5) as usize;
    let selector = args[0] as u16;
    let refused = u32::from(selector & !3);
    let null = selector & !3 == 0;
    if null && descriptor == SS {
        cx.raise(GP, Some(0));
        return 0;
    }
    let segment = if null {
        None
    } else {
        // Bit 2: the LDT, which is empty.
        let gdt = (selector & 4 == 0).then(|| usize::from(selector >> 3));
        match gdt.and_then(|n| cx.env().gdt.get(n).copied().flatten()) {
            Some(segment) => Some(segment),
            None => {
                cx.raise(GP, Some(refused));
                return 0;
            }
        }
    };
    if descriptor == SS && (selector & 3 != 3 || !segment.is_some_and(|s| s.data)) {
        cx.raise(GP, Some(refused));
        return 0;
    }
    let s = cx.state();
    s.seg_sel[number] = selector;
    s.seg_base[number] = segment.map_or(0, |s| s.base);
    0
}

/// LAR, LSL, VERR, VERW (descriptor 0 to 3): bit 32 and the value, or 0 if the selector is not
/// valid for the instruction. What the descriptors hold besides bases is what Linux puts there.
pub(super) fn segment_info(cx: &Cx, descriptor: u32, args: [u64; 3]) -> u64 {
    const VALID: u64 = 1 << 32;
    const CODE64: usize = 6;
    let selector = args[0] as u16;
    let n = usize::from(selector >> 3);
    let segment = cx.env().gdt.get(n).copied().flatten();
    let Some(segment) = segment.filter(|_| selector & 4 == 0 && n != 0) else {
        return 0;
    };
    // Present, DPL 3, accessed; page granularity; data (writable) or code (readable), 32 or 64-bit.
    let rights: u64 = match (segment.data, n) {
        (true, _) => 0x00cf_f300,
        (false, CODE64) => 0x00af_fb00,
        (false, _) => 0x00cf_fb00,
    };
    match descriptor {
        0 => VALID | rights,
        1 => VALID | 0xffff_ffff,
        2 => VALID,
        _ if segment.data => VALID,
        _ => 0,
    }
}

/// RFLAGS as PUSHF stores it: without VM and RF.
pub(super) fn pushf_image(cx: &Cx, _descriptor: u32, _args: [u64; 3]) -> u64 {
    cx.state().rflags() & !(sysflags::VM | sysflags::RF)
}

/// POPF at CPL 3.
pub(super) fn popf(cx: &Cx, descriptor: u32, [image, _, _]: [u64; 3]) -> u64 {
    let s = cx.state();
    let writable = sysflags::popf_user(descriptor);
    let kept = s.sysflags & !(writable | sysflags::RF);
    s.set_rflags(kept | image & (writable | flags::ARITH | flags::DF));
    0
}

/// Leaves for the dispatcher, to go on at the PC: `exit_resume`, which follows, has no other
/// meaning when no reason is set.
pub(super) fn leave_at(cx: &Cx, _descriptor: u32, [pc, _, _]: [u64; 3]) -> u64 {
    cx.state().rip = pc;
    0
}

/// Raises exception `descriptor` with error code a.
pub(super) fn raise_error(cx: &Cx, descriptor: u32, [code, _, _]: [u64; 3]) -> u64 {
    cx.raise(descriptor as u8, Some(code as u32));
    0
}
