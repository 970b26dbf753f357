//! What translated code depends on: the mode key, and the paging context, from the registers.

use super::features::SystemFeatures;
use super::state::{attr, cr0, cr4, efer};
use crate::cpu_model::CpuModel;
use crate::memory::paged::{MAXPHYADDR, PagingContext};
use crate::state::CpuState;
use metaphrase_frontend::{Features, Level, Mode, SystemMode};
use metaphrase_ir::{CodeSize, sysflags};

/// CS in the encoding order.
const CS: usize = 1;
/// SS in the encoding order.
const SS: usize = 2;

/// XCR0 bits that AVX needs: SSE and AVX state.
const XCR0_AVX: u64 = 6;

/// How addresses and privileges work now.
pub fn level(s: &CpuState) -> Level {
    let sys = &s.sys;
    if sys.cr0 & cr0::PE == 0 {
        Level::Real
    } else if sys.efer & efer::LMA != 0 {
        Level::Long(sys.cpl)
    } else if s.sysflags & sysflags::VM != 0 {
        Level::V86
    } else {
        Level::Protected(sys.cpl)
    }
}

/// Whether code is 64-bit.
pub fn is_long_code(s: &CpuState) -> bool {
    s.sys.efer & efer::LMA != 0 && s.sys.seg_attr[CS] & attr::L != 0
}

/// The mode key.
pub fn mode(s: &CpuState, features: Features) -> Mode {
    let sys = &s.sys;
    let level = level(s);
    let long = is_long_code(s);
    let code = if long {
        CodeSize::Code64
    } else if sys.seg_attr[CS] & attr::DB != 0 {
        CodeSize::Code32
    } else {
        CodeSize::Code16
    };
    let (mut unchecked, mut short, mut based_at_zero) = (0, 0, 0);
    for n in 0..6 {
        let open = is_open(sys.seg_attr[n], n == CS);
        if long || open && sys.seg_limit[n] == u32::MAX {
            unchecked |= 1 << n;
        } else if open && sys.seg_limit[n] == 0xffff {
            short |= 1 << n;
        }
        if s.seg_base[n] == 0 {
            based_at_zero |= 1 << n;
        }
    }
    let osxsave = sys.cr4 & cr4::OSXSAVE != 0;
    let user_alignment = sys.cr0 & cr0::AM != 0 && s.sysflags & sysflags::AC != 0;
    Mode {
        code,
        big_stack: long || sys.seg_attr[SS] & attr::DB != 0,
        flat: long || based_at_zero & 0xf == 0xf,
        features,
        unmasked: s.mxcsr & metaphrase_backend::sse::MASKS != metaphrase_backend::sse::MASKS,
        system: Some(SystemMode {
            level,
            unchecked,
            short,
            based_at_zero: if long { 0xf } else { based_at_zero & 0xf },
            em: sys.cr0 & cr0::EM != 0,
            ts: sys.cr0 & cr0::TS != 0,
            mp: sys.cr0 & cr0::MP != 0,
            osfxsr: sys.cr4 & cr4::OSFXSR != 0,
            avx: osxsave && sys.xcr0 & XCR0_AVX == XCR0_AVX,
            osxsave,
            fsgsbase: sys.cr4 & cr4::FSGSBASE != 0,
            align: user_alignment && level.cpl() == 3,
        }),
    }
}

/// Whether every access through a segment is fine as far as its limit goes. CS need not be
/// writable for that: nothing writes through it without an override, which is checked.
fn is_open(attributes: u32, code: bool) -> bool {
    let wanted = attr::P | attr::S | attr::RW;
    let kind = attributes & (attr::CODE | attr::DC);
    attributes & wanted == wanted && (code || kind == 0)
}

/// What paging depends on.
pub fn paging_context(s: &CpuState, cpu: &CpuModel) -> PagingContext {
    PagingContext {
        cr0: s.sys.cr0,
        cr3: s.sys.cr3,
        cr4: s.sys.cr4,
        efer: s.sys.efer,
        cpl: s.sys.cpl,
        ac: s.sysflags & sysflags::AC != 0,
        a20: s.sys.a20,
        missing_bits: MAXPHYADDR.saturating_sub(cpu.physical_bits()) as u8,
        no_gib_pages: !cpu.system_features().has(SystemFeatures::PDPE1GB),
        pdpte: s.sys.pdpte,
    }
}
