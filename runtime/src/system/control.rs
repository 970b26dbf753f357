//! Control registers (SDM volume 3, 2.5): MOV to and from CRn, CLTS, LMSW, SMSW, XSETBV.

use super::features::SystemFeatures;
use super::rights::{knows, offers, privileged};
use super::state::{attr, cr0, cr4, efer};
use super::{Cx, Fault, Outcome, mode};
use crate::helpers::xsave;
use metaphrase_frontend::Features;
use metaphrase_ir::{Reg, SystemOp};

/// The bits of CR0 that there are; writes to the others below bit 32 have no effect.
const CR0_BITS: u64 = cr0::PE
    | cr0::MP
    | cr0::EM
    | cr0::TS
    | cr0::ET
    | cr0::NE
    | cr0::WP
    | cr0::AM
    | cr0::NW
    | cr0::CD
    | cr0::PG;

/// Bit 63 of a value for CR3: keep the translations of that process context.
const CR3_NO_FLUSH: u64 = 1 << 63;

/// CS in the encoding order.
const CS: usize = 1;

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn read_cr(cx: &Cx, op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    let exists = matches!(op.n, 0 | 2 | 3 | 4 | 8);
    if !exists {
        return Err(Fault::UD);
    }
    privileged(cx)?;
    let sys = cx.sys();
    let value = match op.n {
        0 => sys.cr0,
        2 => sys.cr2,
        3 => sys.cr3,
        4 => sys.cr4,
        _ => {
            if let Some(apic) = cx.apic() {
                sys.cr8 = apic.priority().into();
            }
            sys.cr8
        }
    };
    Ok(cut(cx, value))
}

/// A value as wide as a control register is now.
fn cut(cx: &Cx, value: u64) -> u64 {
    if mode::is_long_code(cx.state()) {
        value
    } else {
        value & 0xffff_ffff
    }
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn write_cr(cx: &Cx, op: SystemOp, a: u64, _b: u64, _next: u64) -> Outcome {
    let write = match op.n {
        0 => write_cr0,
        2 => write_cr2,
        3 => write_cr3,
        4 => write_cr4,
        8 => write_cr8,
        _ => return Err(Fault::UD),
    };
    privileged(cx)?;
    write(cx, cut(cx, a))?;
    Ok(0)
}

fn write_cr0(cx: &Cx, value: u64) -> Result<(), Fault> {
    let sys = cx.sys();
    if value >> 32 != 0 {
        return Err(Fault::gp(0));
    }
    let (old, new) = (sys.cr0, value & CR0_BITS | cr0::ET);
    let has = |bit| new & bit != 0;
    if has(cr0::PG) && !has(cr0::PE) || has(cr0::NW) && !has(cr0::CD) {
        return Err(Fault::gp(0));
    }
    let changed = old ^ new;
    let mut new_efer = sys.efer;
    if changed & cr0::PG != 0 {
        if has(cr0::PG) {
            if sys.efer & efer::LME != 0 {
                may_enter_long_mode(cx)?;
                new_efer |= efer::LMA;
            }
        } else {
            // SDM volume 3, 4.10.1, and MOV to CR in volume 2.
            let refused = sys.cr4 & cr4::PCIDE != 0 || mode::is_long_code(cx.state());
            if refused {
                return Err(Fault::gp(0));
            }
            new_efer &= !efer::LMA;
        }
    }
    let reload = changed & (cr0::CD | cr0::NW | cr0::PG) != 0;
    if reload && uses_pae(new, sys.cr4, new_efer) {
        sys.pdpte = load_pdptes(cx, sys.cr3)?;
    }
    sys.cr0 = new;
    sys.efer = new_efer;
    if changed & cr0::PG != 0 {
        cx.paged().flush(true);
    }
    cx.changed();
    Ok(())
}

/// The consistency checks of turning paging on with IA32_EFER.LME (SDM volume 3, 10.8.5).
fn may_enter_long_mode(cx: &Cx) -> Result<(), Fault> {
    const BIG_TSS: u32 = 1 << 3;
    let sys = cx.sys();
    let fine =
        sys.cr4 & cr4::PAE != 0 && sys.seg_attr[CS] & attr::L == 0 && sys.tr.attr & BIG_TSS != 0;
    if fine { Ok(()) } else { Err(Fault::gp(0)) }
}

/// Whether those registers select PAE paging, which keeps its four top entries in the CPU.
pub(super) fn uses_pae(cr0: u64, cr4: u64, efer: u64) -> bool {
    cr0 & cr0::PG != 0 && cr4 & cr4::PAE != 0 && efer & efer::LMA == 0
}

/// The four page-directory-pointer-table entries that CR3 points to (SDM volume 3, 4.4.1); #GP(0)
/// if one is present and has a reserved bit.
pub(super) fn load_pdptes(cx: &Cx, cr3: u64) -> Result<[u64; 4], Fault> {
    let reserved = 0x1e6 | u64::MAX << cx.env().cpu.physical_bits();
    let mut table = cr3 & 0xffff_ffe0;
    if !cx.sys().a20 {
        table &= !(1 << 20);
    }
    let mut bytes = [0; 32];
    cx.paged().phys().read_bytes(table, &mut bytes);
    let mut entries = [0; 4];
    for (entry, bytes) in entries.iter_mut().zip(bytes.chunks_exact(8)) {
        *entry = bytes.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b));
        if *entry & 1 != 0 && *entry & reserved != 0 {
            return Err(Fault::gp(0));
        }
    }
    Ok(entries)
}

fn write_cr2(cx: &Cx, value: u64) -> Result<(), Fault> {
    cx.sys().cr2 = value;
    Ok(())
}

fn write_cr3(cx: &Cx, value: u64) -> Result<(), Fault> {
    let pcide = cx.sys().cr4 & cr4::PCIDE != 0;
    let keep = pcide && value & CR3_NO_FLUSH != 0;
    let value = if pcide { value & !CR3_NO_FLUSH } else { value };
    if value >> cx.env().cpu.physical_bits() != 0 && mode::is_long_code(cx.state()) {
        return Err(Fault::gp(0));
    }
    let before = cx.paged().generation();
    set_cr3(cx, value)?;
    // A new value has flushed already.
    if !keep && cx.paged().generation() == before {
        cx.paged().flush(false);
    }
    Ok(())
}

/// Loads CR3, with the top entries of PAE paging, as MOV to CR3 and task switches do. It flushes
/// nothing.
pub(super) fn set_cr3(cx: &Cx, value: u64) -> Result<(), Fault> {
    let sys = cx.sys();
    if uses_pae(sys.cr0, sys.cr4, sys.efer) {
        sys.pdpte = load_pdptes(cx, value)?;
    }
    sys.cr3 = value;
    cx.changed();
    Ok(())
}

/// The bits of CR4 that the CPU model has.
pub(super) fn cr4_bits(cx: &Cx) -> u64 {
    let system = [
        (SystemFeatures::VME, cr4::VME | cr4::PVI),
        (SystemFeatures::DE, cr4::DE),
        (SystemFeatures::PSE, cr4::PSE),
        (SystemFeatures::PAE, cr4::PAE),
        (SystemFeatures::MCE, cr4::MCE),
        (SystemFeatures::PGE, cr4::PGE),
        (SystemFeatures::UMIP, cr4::UMIP),
        (SystemFeatures::PCID, cr4::PCIDE),
        (SystemFeatures::SMEP, cr4::SMEP),
        (SystemFeatures::SMAP, cr4::SMAP),
    ];
    let user = [
        (Features::TSC, cr4::TSD),
        // RDPMC came with MMX, on the Pentium and the Pentium Pro's successors.
        (Features::MMX, cr4::PCE),
        (Features::FXSR, cr4::OSFXSR),
        (Features::SSE, cr4::OSXMMEXCPT),
        (Features::FSGSBASE, cr4::FSGSBASE),
        (Features::XSAVE, cr4::OSXSAVE),
    ];
    let system = system.iter().filter(|&&(f, _)| offers(cx, f));
    let user = user.iter().filter(|&&(f, _)| knows(cx, f));
    let bits = system.map(|&(_, b)| b).chain(user.map(|&(_, b)| b));
    bits.fold(0, |all, b| all | b)
}

fn write_cr4(cx: &Cx, new: u64) -> Result<(), Fault> {
    /// What changes how linear addresses are translated.
    const PAGING: u64 = cr4::PSE | cr4::PAE | cr4::PGE | cr4::PCIDE | cr4::SMEP | cr4::SMAP;
    /// What makes PAE paging read its top entries again (SDM volume 3, 4.4.1).
    const PDPTES: u64 = cr4::PSE | cr4::PAE | cr4::PGE | cr4::SMEP;
    let sys = cx.sys();
    let (old, long) = (sys.cr4, sys.efer & efer::LMA != 0);
    let changed = old ^ new;
    let (set, cleared) = (changed & new, changed & old);
    let pcid_refused = set & cr4::PCIDE != 0 && (!long || sys.cr3 & 0xfff != 0);
    if new & !cr4_bits(cx) != 0 || long && cleared & cr4::PAE != 0 || pcid_refused {
        return Err(Fault::gp(0));
    }
    if changed & PDPTES != 0 && uses_pae(sys.cr0, new, sys.efer) {
        sys.pdpte = load_pdptes(cx, sys.cr3)?;
    }
    sys.cr4 = new;
    if changed & PAGING != 0 {
        cx.paged().flush(true);
    }
    cx.changed();
    Ok(())
}

fn write_cr8(cx: &Cx, value: u64) -> Result<(), Fault> {
    if value > 15 {
        return Err(Fault::gp(0));
    }
    let sys = cx.sys();
    sys.cr8 = value;
    if let Some(apic) = cx.apic() {
        cx.follow_time();
        apic.set_priority(value as u8);
    }
    sys.look = true;
    Ok(())
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn clts(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    privileged(cx)?;
    cx.sys().cr0 &= !cr0::TS;
    cx.changed();
    Ok(0)
}

/// LMSW changes PE, MP, EM and TS, and cannot clear PE.
pub(super) fn lmsw(cx: &Cx, _op: SystemOp, a: u64, _b: u64, _next: u64) -> Outcome {
    const BITS: u64 = cr0::PE | cr0::MP | cr0::EM | cr0::TS;
    privileged(cx)?;
    let sys = cx.sys();
    sys.cr0 = sys.cr0 & !(BITS & !cr0::PE) | a & BITS;
    cx.changed();
    Ok(0)
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn smsw(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    umip(cx)?;
    Ok(cx.sys().cr0)
}

/// #GP(0) where CR4.UMIP keeps the descriptor-table registers and CR0 from users.
pub(super) fn umip(cx: &Cx) -> Result<(), Fault> {
    if cx.sys().cr4 & cr4::UMIP != 0 {
        privileged(cx)
    } else {
        Ok(())
    }
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn xsetbv(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    if !knows(cx, Features::XSAVE) || cx.sys().cr4 & cr4::OSXSAVE == 0 {
        return Err(Fault::UD);
    }
    privileged(cx)?;
    let gpr = &cx.state().gpr;
    let part = |reg: Reg| gpr[reg as usize] & 0xffff_ffff;
    let (number, value) = (part(Reg::Rcx), part(Reg::Rdx) << 32 | part(Reg::Rax));
    let has = |component| value & component != 0;
    let fine = number == 0
        && has(xsave::X87)
        && value & !cx.env().cpu.xcr0() == 0
        && (has(xsave::SSE) || !has(xsave::AVX));
    if !fine {
        return Err(Fault::gp(0));
    }
    cx.sys().xcr0 = value;
    cx.changed();
    Ok(0)
}
