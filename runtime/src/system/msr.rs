//! Model-specific registers, the time-stamp counter, performance counters (SDM volume 4): those
//! that the CPU model's features bring, and that Linux, SeaBIOS, memtest86+ and Xen touch.

use super::descriptor::is_canonical;
use super::features::SystemFeatures;
use super::flags::ENABLE_MONITOR;
use super::rights::{knows, offers, privileged};
use super::state::{cr0, cr4, efer};
use super::{Cx, Fault, Outcome, mtrr};
use metaphrase_frontend::Features;
use metaphrase_ir::{Reg, SystemOp};

/// Why WRMSR is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// There is no such register.
    Missing,
    /// It cannot have the value.
    Value,
}

/// Register numbers, by the SDM's names.
mod number {
    pub const P5_MC_ADDR: u32 = 0;
    pub const P5_MC_TYPE: u32 = 1;
    pub const TIME_STAMP_COUNTER: u32 = 0x10;
    pub const PLATFORM_ID: u32 = 0x17;
    pub const APIC_BASE: u32 = 0x1b;
    pub const EBL_CR_POWERON: u32 = 0x2a;
    pub const FEATURE_CONTROL: u32 = 0x3a;
    pub const TSC_ADJUST: u32 = 0x3b;
    pub const SPEC_CTRL: u32 = 0x48;
    pub const PRED_CMD: u32 = 0x49;
    pub const BIOS_UPDT_TRIG: u32 = 0x79;
    pub const BIOS_SIGN_ID: u32 = 0x8b;
    pub const SMBASE: u32 = 0x9e;
    pub const PLATFORM_INFO: u32 = 0xce;
    pub const ARCH_CAPABILITIES: u32 = 0x10a;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const DEBUGCTL: u32 = 0x1d9;
    /// The last branch and the last branch before an interrupt: none was recorded.
    pub const LAST_BRANCH: std::ops::RangeInclusive<u32> = 0x1db..=0x1de;
    pub const MC_BANKS: std::ops::RangeInclusive<u32> = 0x400..=0x40f;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const FMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
}

/// FS and GS in the encoding order.
const FS: usize = 4;
const GS: usize = 5;

/// The microcode revision, in the upper half of IA32_BIOS_SIGN_ID.
const MICROCODE: u64 = 1 << 32;

/// IA32_ARCH_CAPABILITIES: nothing is speculated here, so none of what it lists (RDCL, L1D, SSB,
/// MDS, page-size machine checks, TAA, SBDR, FBSDP, PSDP, BHI, PBRSB, GDS, RFDS) leaks.
const NOT_VULNERABLE: u64 = 1 | 0b1111 << 3 | 1 << 8 | 0b111 << 13 | 1 << 20 | 1 << 24 | 0b11 << 26;

/// IA32_ARCH_CAPABILITIES: IA32_SPEC_CTRL.IBRS need only be set once.
const IBRS_ALL: u64 = 1 << 1;

/// IA32_MISC_ENABLE: limit CPUID's leaves to 2.
pub(super) const LIMIT_CPUID: u64 = 1 << 22;
/// IA32_MISC_ENABLE: execute-disable is not offered.
pub(super) const XD_DISABLE: u64 = 1 << 34;
/// What of it can be written: fast strings, thermal control, and the above, xTPR.
const MISC_WRITABLE: u64 = 1 | 1 << 3 | LIMIT_CPUID | 1 << 23;
/// What of it is read-only: performance monitoring, branch trace and event sampling.
const MISC_FIXED: u64 = 1 << 7 | 1 << 11 | 1 << 12;

/// What a register depends on; what the Pentium Pro brought comes with global pages.
fn is_p6(cx: &Cx) -> bool {
    offers(cx, SystemFeatures::PGE)
}

fn is_64_bit(cx: &Cx) -> bool {
    knows(cx, Features::LM)
}

/// Whether a register of those that depend on the model exists.
fn exists(cx: &Cx, n: u32) -> bool {
    use number::*;
    let system = cx.env().system.as_ref();
    match n {
        P5_MC_ADDR | P5_MC_TYPE => offers(cx, SystemFeatures::MCE),
        TIME_STAMP_COUNTER => knows(cx, Features::TSC),
        PLATFORM_ID | EBL_CR_POWERON | BIOS_SIGN_ID | BIOS_UPDT_TRIG | DEBUGCTL => is_p6(cx),
        _ if LAST_BRANCH.contains(&n) => is_p6(cx),
        APIC_BASE => is_p6(cx) && system.is_some_and(|s| s.apic_id.is_some()),
        FEATURE_CONTROL | MISC_ENABLE => is_64_bit(cx),
        TSC_ADJUST => offers(cx, SystemFeatures::TSC_ADJUST),
        TSC_DEADLINE => offers(cx, SystemFeatures::TSC_DEADLINE) && cx.apic().is_some(),
        SMBASE => cx.sys().smm,
        PLATFORM_INFO => is_64_bit(cx) && system.is_some_and(|s| s.rates.is_some()),
        ARCH_CAPABILITIES => offers(cx, SystemFeatures::ARCH_CAPABILITIES),
        SPEC_CTRL | PRED_CMD => offers(cx, SystemFeatures::SPEC_CTRL),
        SYSENTER_CS | SYSENTER_ESP | SYSENTER_EIP => knows(cx, Features::SEP),
        MCG_CAP | MCG_STATUS => offers(cx, SystemFeatures::MCA),
        _ if MC_BANKS.contains(&n) => offers(cx, SystemFeatures::MCA),
        EFER => efer_bits(cx) != 0,
        STAR | LSTAR | CSTAR | FMASK => knows(cx, Features::SYSCALL),
        FS_BASE | GS_BASE | KERNEL_GS_BASE => is_64_bit(cx),
        TSC_AUX => knows(cx, Features::RDTSCP) || knows(cx, Features::RDPID),
        _ => false,
    }
}

/// The bits of IA32_EFER that can be set.
fn efer_bits(cx: &Cx) -> u64 {
    let nx_off = cx.sys().msr.misc_enable & XD_DISABLE != 0;
    let bit = |feature, bit| if knows(cx, feature) { bit } else { 0 };
    bit(Features::SYSCALL, efer::SCE)
        | bit(Features::LM, efer::LME)
        | if nx_off {
            0
        } else {
            bit(Features::NX, efer::NXE)
        }
}

/// IA32_MISC_ENABLE as it reads.
fn misc_enable(cx: &Cx) -> u64 {
    let value = cx.sys().msr.misc_enable;
    if offers(cx, SystemFeatures::MONITOR) {
        value
    } else {
        value & !ENABLE_MONITOR
    }
}

fn bank(cx: &Cx, n: u32) -> &mut u64 {
    let n = (n - number::MC_BANKS.start()) as usize % 16;
    &mut cx.sys().msr.mc_banks[n / 4][n % 4]
}

/// The value of a register, if it exists.
fn read(cx: &Cx, n: u32) -> Option<u64> {
    use number::*;
    if !exists(cx, n) {
        return mtrr::read(cx, n);
    }
    let s = cx.state();
    let msr = &s.sys.msr;
    Some(match n {
        TIME_STAMP_COUNTER => counter(cx),
        TSC_ADJUST => msr.tsc_offset,
        APIC_BASE => msr.apic_base,
        TSC_DEADLINE => deadline(cx).unwrap_or(0),
        FEATURE_CONTROL => msr.feature_control,
        BIOS_SIGN_ID => MICROCODE,
        BIOS_UPDT_TRIG | PRED_CMD => return None,
        SPEC_CTRL => msr.spec_ctrl,
        SMBASE => s.sys.smbase.into(),
        PLATFORM_INFO => {
            let rates = cx.env().system.as_ref().and_then(|s| s.rates)?;
            ((rates.tsc_hz() / 100_000_000) & 0xff) << 8
        }
        ARCH_CAPABILITIES if offers(cx, SystemFeatures::SPEC_CTRL) => NOT_VULNERABLE | IBRS_ALL,
        ARCH_CAPABILITIES => NOT_VULNERABLE,
        SYSENTER_CS => msr.sysenter_cs,
        SYSENTER_ESP => msr.sysenter_esp,
        SYSENTER_EIP => msr.sysenter_eip,
        MCG_CAP => msr.mc_banks.len() as u64,
        MCG_STATUS => msr.mcg_status,
        MISC_ENABLE => misc_enable(cx),
        DEBUGCTL => msr.debugctl,
        _ if MC_BANKS.contains(&n) => *bank(cx, n),
        EFER => s.sys.efer,
        STAR => msr.star,
        LSTAR => msr.lstar,
        CSTAR => msr.cstar,
        FMASK => msr.fmask,
        FS_BASE => s.seg_base[FS],
        GS_BASE => s.seg_base[GS],
        KERNEL_GS_BASE => msr.kernel_gs_base,
        TSC_AUX => s.tsc_aux,
        _ => 0,
    })
}

/// Refuses a value unless it is fine.
fn only_if(fine: bool) -> Result<(), Refused> {
    if fine { Ok(()) } else { Err(Refused::Value) }
}

fn write(cx: &Cx, n: u32, value: u64) -> Result<(), Refused> {
    use number::*;
    if !exists(cx, n) {
        return mtrr::write(cx, n, value);
    }
    let s = cx.state();
    let msr = &mut s.sys.msr;
    let beyond = u64::MAX << cx.env().cpu.physical_bits();
    match n {
        P5_MC_ADDR | P5_MC_TYPE | EBL_CR_POWERON | BIOS_SIGN_ID | BIOS_UPDT_TRIG => {}
        TIME_STAMP_COUNTER => {
            let now = counter(cx);
            set_offset(cx, msr.tsc_offset.wrapping_add(value.wrapping_sub(now)));
        }
        TSC_ADJUST => set_offset(cx, value),
        TSC_DEADLINE => set_deadline(cx, (value != 0).then_some(value)),
        APIC_BASE => {
            // BSP, enabled, and the base; there is no x2APIC.
            only_if(value & (beyond | 0x6ff) == 0)?;
            msr.apic_base = value;
            if let Some(apic) = cx.apic() {
                cx.follow_time();
                apic.set_base(value);
                s.sys.look = true;
            }
        }
        FEATURE_CONTROL => {
            // Nothing to turn on; once locked it cannot be written.
            only_if(value & !1 == 0 && msr.feature_control & 1 == 0)?;
            msr.feature_control = value;
        }
        SYSENTER_CS => msr.sysenter_cs = value & 0xffff_ffff,
        SYSENTER_ESP | SYSENTER_EIP => {
            let value = if is_64_bit(cx) {
                only_if(is_canonical(value))?;
                value
            } else {
                value & 0xffff_ffff
            };
            if n == SYSENTER_ESP {
                msr.sysenter_esp = value;
            } else {
                msr.sysenter_eip = value;
            }
        }
        MCG_STATUS => {
            only_if(value & !7 == 0)?;
            msr.mcg_status = value;
        }
        MISC_ENABLE => {
            let monitor = if offers(cx, SystemFeatures::MONITOR) {
                ENABLE_MONITOR
            } else {
                0
            };
            let xd = if knows(cx, Features::NX) {
                XD_DISABLE
            } else {
                0
            };
            let writable = MISC_WRITABLE | monitor | xd;
            only_if(value & !(writable | MISC_FIXED) == 0)?;
            msr.misc_enable = msr.misc_enable & !writable | value & writable;
        }
        DEBUGCTL => {
            // LBR and BTF.
            only_if(value & !3 == 0)?;
            msr.debugctl = value;
        }
        SPEC_CTRL => {
            // IBRS and STIBP, and BHI_DIS_S: kernels that may set it need not overwrite the
            // branch history by hand at every system call.
            let bhi = if offers(cx, SystemFeatures::BHI_CTRL) {
                1 << 10
            } else {
                0
            };
            only_if(value & !(3 | bhi) == 0)?;
            msr.spec_ctrl = value;
        }
        // IBPB.
        PRED_CMD => only_if(value & !1 == 0)?,
        // CTL takes anything, STATUS, ADDR and MISC only take 0.
        _ if MC_BANKS.contains(&n) => {
            only_if(n.is_multiple_of(4) || value == 0)?;
            *bank(cx, n) = value;
        }
        EFER => write_efer(cx, value)?,
        STAR => msr.star = value,
        LSTAR | CSTAR => {
            only_if(is_canonical(value))?;
            if n == LSTAR {
                msr.lstar = value;
            } else {
                msr.cstar = value;
            }
        }
        FMASK => {
            only_if(value >> 32 == 0)?;
            msr.fmask = value;
        }
        FS_BASE | GS_BASE => {
            only_if(is_canonical(value))?;
            s.seg_base[if n == FS_BASE { FS } else { GS }] = value;
            cx.changed();
        }
        KERNEL_GS_BASE => {
            only_if(is_canonical(value))?;
            msr.kernel_gs_base = value;
        }
        TSC_AUX => {
            only_if(value >> 32 == 0)?;
            s.tsc_aux = value;
        }
        // The others are read-only.
        _ => return Err(Refused::Value),
    }
    Ok(())
}

/// IA32_EFER: LME cannot change under paging; LMA is the processor's (SDM volume 3, 2.2.1).
fn write_efer(cx: &Cx, value: u64) -> Result<(), Refused> {
    let sys = cx.sys();
    let writable = efer_bits(cx);
    only_if(value & !(writable | efer::LMA) == 0)?;
    let new = value & writable | sys.efer & efer::LMA;
    let changed = sys.efer ^ new;
    only_if(changed & efer::LME == 0 || sys.cr0 & cr0::PG == 0)?;
    sys.efer = new;
    if changed & efer::NXE != 0 {
        cx.paged().flush(true);
    }
    cx.changed();
    Ok(())
}

fn low(cx: &Cx, reg: Reg) -> u64 {
    cx.state().gpr[reg as usize] & 0xffff_ffff
}

/// What RDMSR and WRMSR check first; the register's number.
fn start(cx: &Cx) -> Result<u32, Fault> {
    if !offers(cx, SystemFeatures::MSR) {
        return Err(Fault::UD);
    }
    privileged(cx)?;
    Ok(low(cx, Reg::Rcx) as u32)
}

/// Whether accesses to registers that do not exist are ignored rather than faults.
fn ignored(cx: &Cx, n: u32, access: &str) -> bool {
    let pc = cx.state().rip;
    tracing::debug!(target: "msr", "{pc:#x}: {access} of {n:#x}, which does not exist");
    let system = cx.env().system.as_ref();
    system.is_some_and(|s| s.ignore_msrs)
}

/// RDMSR. The result is in EDX:EAX too.
pub(super) fn rdmsr(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    let n = start(cx)?;
    let value = match read(cx, n) {
        Some(value) => value,
        None if ignored(cx, n, "read") => 0,
        None => return Err(Fault::gp(0)),
    };
    let gpr = &mut cx.state().gpr;
    gpr[Reg::Rax as usize] = value & 0xffff_ffff;
    gpr[Reg::Rdx as usize] = value >> 32;
    Ok(value)
}

/// WRMSR.
pub(super) fn wrmsr(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    let n = start(cx)?;
    let value = low(cx, Reg::Rdx) << 32 | low(cx, Reg::Rax);
    match write(cx, n, value) {
        Ok(()) => Ok(0),
        Err(Refused::Missing) if ignored(cx, n, "write") => Ok(0),
        Err(_) => Err(Fault::gp(0)),
    }
}

/// The time-stamp counter.
fn counter(cx: &Cx) -> u64 {
    let s = cx.state();
    let ticks = cx.env().read_tsc(s);
    ticks.wrapping_add(s.sys.msr.tsc_offset)
}

/// The value of the counter at which the deadline timer fires, while it is armed.
fn deadline(cx: &Cx) -> Option<u64> {
    let at = cx.apic()?.deadline()?;
    Some(at.wrapping_add(cx.sys().msr.tsc_offset))
}

/// Arms or disarms the deadline timer. The counter counts nanoseconds of guest time from
/// `tsc_offset` on.
fn set_deadline(cx: &Cx, value: Option<u64>) {
    let Some(apic) = cx.apic() else { return };
    let offset = i128::from(cx.sys().msr.tsc_offset as i64);
    let time = |value: u64| (i128::from(value) - offset).clamp(0, u64::MAX.into()) as u64;
    cx.follow_time();
    apic.set_deadline(value.map(time));
    cx.sys().look = true;
}

/// Changes the counter against guest time; a deadline is one of the counter.
fn set_offset(cx: &Cx, offset: u64) {
    let armed = deadline(cx);
    cx.sys().msr.tsc_offset = offset;
    if armed.is_some() {
        set_deadline(cx, armed);
    }
}

/// #GP(0) where CR4.TSD keeps the counter from users.
fn may_tell_time(cx: &Cx) -> Result<(), Fault> {
    if cx.sys().cr4 & cr4::TSD != 0 {
        privileged(cx)
    } else {
        Ok(())
    }
}

/// RDTSC, and that half of RDTSCP.
pub(super) fn rdtsc(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    may_tell_time(cx)?;
    Ok(counter(cx))
}

/// IA32_TSC_AUX: RDPID, and that half of RDTSCP (n = 1).
pub(super) fn rdtscp(cx: &Cx, op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    if op.n == 1 {
        may_tell_time(cx)?;
    }
    Ok(cx.state().tsc_aux)
}

/// RDPMC: #GP(0) without rights, and for every counter, since no model has one.
pub(super) fn rdpmc(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    if !knows(cx, Features::MMX) {
        return Err(Fault::UD);
    }
    Err(Fault::gp(0))
}
