//! The PVH entry of ELF kernels (Xen documentation, "x86/HVM direct boot ABI"): Linux and Xen have one.

use super::Kernel;
use super::bytes::{u32_at, u64_at};
use super::cpu::Entry;
use super::elf::Elf;
use super::error::BootError;
use super::map;
use super::plan::{HIGH_START, Plan};

/// The note with the 32-bit entry.
const PHYS32_ENTRY: u32 = 18;
/// The beginning of the start information.
const MAGIC: u32 = 0x336e_c578;
/// With the memory map.
const VERSION: u32 = 1;

/// The entry that the note gives: a physical address.
pub fn entry_note(elf: &Elf<'_>) -> Option<u64> {
    let note = elf.note(b"Xen", PHYS32_ENTRY)?;
    match note.len() {
        4 => u32_at(note, 0).map(u64::from),
        8 => u64_at(note, 0),
        _ => None,
    }
}

/// Plans the start.
pub fn plan<'a>(
    plan: &mut Plan<'a>,
    kernel: &Kernel<'a>,
    file: &'a [u8],
) -> Result<Entry, BootError> {
    kernel.entry.only_protected()?;
    let elf = Elf::parse(file)?;
    let note = entry_note(&elf).ok_or(BootError::NoEntry("PVH"))?;
    let end = elf.load(plan)?;
    let inside = |at: &u32| elf.holds(u64::from(*at));
    let entry = u32::try_from(note).ok().filter(inside);
    let entry = entry.ok_or(BootError::Damaged("its PVH entry lies in no segment"))?;

    let mut list = Vec::new();
    for module in kernel.modules {
        let from = end.max(HIGH_START);
        let at = plan.place("a module", from, 0x1000, &module.content[..])?;
        let text = map::place_text(plan, &module.command_line)?;
        for field in [at, module.content.len() as u64, text, 0] {
            list.extend(field.to_le_bytes());
        }
    }
    let list = match list.is_empty() {
        true => 0,
        false => plan.place_anywhere("the list of modules", 8, list)?,
    };
    let mut ranges = Vec::new();
    for (start, len, kind) in map::ranges(plan.ram()) {
        ranges.extend(start.to_le_bytes());
        ranges.extend(len.to_le_bytes());
        ranges.extend(kind.to_le_bytes());
        ranges.extend([0; 4]);
    }
    let count = ranges.len() as u32 / 24;
    let ranges = plan.place_anywhere("the memory map", 8, ranges)?;
    let text = map::place_text(plan, kernel.command_line)?;

    let mut info = Vec::new();
    for field in [MAGIC, VERSION, 0, kernel.modules.len() as u32] {
        info.extend(field.to_le_bytes());
    }
    for field in [list, text, map::RSDP, ranges] {
        info.extend(field.to_le_bytes());
    }
    info.extend(count.to_le_bytes());
    info.extend([0; 4]);
    let info = plan.place_anywhere("the start information", 8, info)?;
    Entry::protected(plan, entry, [0, info as u32, 0])
}
