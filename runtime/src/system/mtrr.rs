//! Memory-type range registers and the page attribute table (SDM volume 3, 12.11 and 12.12): kept
//! and checked, with no effect, since there are no caches.

use super::Cx;
use super::features::SystemFeatures;
use super::msr::Refused;
use super::rights::offers;

/// IA32_MTRRCAP: 8 variable ranges, fixed ranges, write combining.
const CAPABILITIES: u64 = 0x508;

const CAP: u32 = 0xfe;
const DEF_TYPE: u32 = 0x2ff;
const PAT: u32 = 0x277;

/// The fixed-range registers, in the order of the state.
const FIXED: [u32; 11] = [
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
];

/// Where a register is kept.
fn place(cx: &Cx, number: u32) -> Option<&mut u64> {
    let msr = &mut cx.sys().msr;
    if number == PAT {
        return offers(cx, SystemFeatures::PAT).then_some(&mut msr.pat);
    }
    if !offers(cx, SystemFeatures::MTRR) {
        return None;
    }
    match number {
        DEF_TYPE => Some(&mut msr.mtrr_def_type),
        0x200..=0x20f => {
            let n = (number - 0x200) as usize;
            Some(&mut msr.mtrr_variable[n / 2][n % 2])
        }
        _ => {
            let n = FIXED.iter().position(|&f| f == number)?;
            Some(&mut msr.mtrr_fixed[n])
        }
    }
}

/// UC, WC, WT, WP, WB.
fn is_type(byte: u64) -> bool {
    matches!(byte & 0xff, 0 | 1 | 4 | 5 | 6)
}

fn all_bytes(value: u64, fine: fn(u64) -> bool) -> bool {
    value.to_le_bytes().iter().all(|&b| fine(b.into()))
}

/// Reads a register; `None` if it is none of these.
pub(super) fn read(cx: &Cx, number: u32) -> Option<u64> {
    if number == CAP {
        return offers(cx, SystemFeatures::MTRR).then_some(CAPABILITIES);
    }
    place(cx, number).map(|p| *p)
}

/// Writes a register.
pub(super) fn write(cx: &Cx, number: u32, value: u64) -> Result<(), Refused> {
    let beyond = u64::MAX << cx.env().cpu.physical_bits();
    if number == CAP && offers(cx, SystemFeatures::MTRR) {
        return Err(Refused::Value);
    }
    let place = place(cx, number).ok_or(Refused::Missing)?;
    let fine = match number {
        // UC- besides.
        PAT => all_bytes(value, |b| is_type(b) || b == 7),
        DEF_TYPE => is_type(value) && value & !0xcff == 0,
        0x200..=0x20f if number.is_multiple_of(2) => {
            is_type(value) && value & (beyond | 0xf00) == 0
        }
        0x200..=0x20f => value & (beyond | 0x7ff) == 0,
        _ => all_bytes(value, is_type),
    };
    if !fine {
        return Err(Refused::Value);
    }
    *place = value;
    Ok(())
}
