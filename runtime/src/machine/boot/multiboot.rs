//! Multiboot, version 0.6.96: kernels in ELF or at addresses that their header gives, with modules.

use super::Kernel;
use super::bytes::{dwords, slice, u32_at};
use super::cpu::Entry;
use super::elf::{Elf, Sections};
use super::error::BootError;
use super::map;
use super::plan::{HIGH_START, Plan};

const HEADER_MAGIC: u32 = 0x1bad_b002;
/// What a kernel finds in EAX.
const LOADER_MAGIC: u32 = 0x2bad_b002;
/// The header lies in so many bytes from the beginning of the file.
const SEARCHED: usize = 8192;

/// Header: what a loader must understand.
const REQUIRED: u32 = 0xffff;
/// Header: modules at page boundaries (they always are here), memory information (always given), a
/// video mode.
const KNOWN: u32 = 0b111;
/// Header: which video mode would be liked.
const WANTS_VIDEO: u32 = 1 << 2;
/// Header: load addresses instead of ELF.
const HAS_ADDRESSES: u32 = 1 << 16;

/// Bits of the information's flags, each with its offsets.
mod info {
    pub const MEMORY: u32 = 1;
    pub const COMMAND_LINE: u32 = 1 << 2;
    pub const MODULES: u32 = 1 << 3;
    pub const SECTIONS: u32 = 1 << 5;
    pub const MAP: u32 = 1 << 6;
    pub const LOADER: u32 = 1 << 9;
    pub const FRAME_BUFFER: u32 = 1 << 12;
    /// Its length in dwords.
    pub const DWORDS: usize = 29;
}

/// The offset of the header in the file: its sum is zero.
pub fn find(file: &[u8]) -> Option<usize> {
    let end = file.len().min(SEARCHED);
    (0..end.saturating_sub(11)).step_by(4).find(|&at| {
        let field = |n: usize| u32_at(file, at + 4 * n).unwrap_or(0);
        let sum = field(0).wrapping_add(field(1)).wrapping_add(field(2));
        field(0) == HEADER_MAGIC && sum == 0
    })
}

/// What loading the kernel itself gives.
struct Loaded<'a> {
    entry: u32,
    end: u64,
    sections: Option<(u64, Sections<'a>)>,
}

/// Loads by the addresses of the header ("a.out kludge").
fn load_by_header<'a>(
    plan: &mut Plan<'a>,
    file: &'a [u8],
    header: usize,
) -> Result<Loaded<'a>, BootError> {
    let field = |n: usize| {
        let truncated = BootError::Truncated("the Multiboot header");
        u32_at(file, header + 12 + 4 * n)
            .map(u64::from)
            .ok_or(truncated)
    };
    let (at, load, load_end, bss_end) = (field(0)?, field(1)?, field(2)?, field(3)?);
    let before = at.checked_sub(load).ok_or(BootError::Damaged(
        "its header lies before its load address",
    ))?;
    let offset = (header as u64)
        .checked_sub(before)
        .ok_or(BootError::Damaged("its load address lies before the file"))?;
    let len = match load_end {
        0 => file.len() as u64 - offset,
        end => end
            .checked_sub(load)
            .ok_or(BootError::Damaged("its load end lies before its start"))?,
    };
    let content =
        slice(file, offset, len).ok_or(BootError::Truncated("what its header has loaded"))?;
    let end = load + len;
    let whole = bss_end.max(end) - load;
    plan.put("the kernel", load, content, whole)?;
    let entry = field(4)?;
    if !(load..load + whole).contains(&entry) {
        return Err(BootError::Damaged("its entry lies outside of it"));
    }
    Ok(Loaded {
        entry: entry as u32,
        end: load + whole,
        sections: None,
    })
}

fn load_elf<'a>(plan: &mut Plan<'a>, file: &'a [u8]) -> Result<Loaded<'a>, BootError> {
    if !Elf::is(file) {
        return Err(BootError::Damaged(
            "its Multiboot header gives no addresses, and it is no ELF file",
        ));
    }
    let elf = Elf::parse(file)?;
    let end = elf.load(plan)?;
    let entry = elf.physical_entry()?;
    let sections = elf.place_sections(plan, end.max(HIGH_START))?;
    Ok(Loaded {
        entry,
        end,
        sections,
    })
}

/// Plans the start.
pub fn plan<'a>(
    plan: &mut Plan<'a>,
    kernel: &Kernel<'a>,
    file: &'a [u8],
) -> Result<Entry, BootError> {
    kernel.entry.only_protected()?;
    let header = find(file).ok_or(BootError::Truncated("the Multiboot header"))?;
    let flags = u32_at(file, header + 4).unwrap_or(0);
    if flags & REQUIRED & !KNOWN != 0 {
        return Err(BootError::Features(flags & REQUIRED & !KNOWN));
    }
    let loaded = if flags & HAS_ADDRESSES != 0 {
        load_by_header(plan, file, header)?
    } else {
        load_elf(plan, file)?
    };

    let mut i = [0u32; info::DWORDS];
    i[0] = info::MEMORY | info::COMMAND_LINE | info::MAP | info::LOADER;
    i[1] = map::LOW_KIB;
    i[2] = (plan.ram().saturating_sub(HIGH_START) >> 10) as u32;
    // The name of the file comes first, as kernels expect it.
    let text = [kernel.name, kernel.command_line].join(" ");
    i[4] = map::place_text(plan, text.trim_end())? as u32;
    if !kernel.modules.is_empty() {
        let list = place_modules(plan, kernel, loaded.end)?;
        i[0] |= info::MODULES;
        i[5] = kernel.modules.len() as u32;
        i[6] = list;
    }
    if let Some((at, sections)) = loaded.sections {
        i[0] |= info::SECTIONS;
        i[7..11].copy_from_slice(&[sections.count, sections.size, at as u32, sections.names]);
    }
    let map = memory_map(plan.ram());
    i[11] = map.len() as u32;
    i[12] = plan.place_anywhere("the memory map", 8, map)? as u32;
    i[16] = map::place_text(plan, "metaphrase")? as u32;
    if flags & WANTS_VIDEO != 0 {
        // What it would like is a wish: there is colour text, 80 by 25.
        i[0] |= info::FRAME_BUFFER;
        i[22] = 0xb_8000;
        i[24..27].copy_from_slice(&[160, 80, 25]);
        i[27] = 16 | 2 << 8;
    }
    let info = plan.place_anywhere("the Multiboot information", 8, dwords(&i))?;
    Entry::protected(plan, loaded.entry, [LOADER_MAGIC, info as u32, 0])
}

/// Puts modules behind the kernel, each at a page boundary; the address of their list.
fn place_modules<'a>(plan: &mut Plan<'a>, kernel: &Kernel<'a>, end: u64) -> Result<u32, BootError> {
    let mut list = Vec::new();
    for module in kernel.modules {
        let len = module.content.len() as u64;
        let at = plan.place("a module", end.max(HIGH_START), 0x1000, &module.content[..])?;
        let text = map::place_text(plan, &module.command_line)?;
        list.extend([at as u32, (at + len) as u32, text as u32, 0]);
    }
    Ok(plan.place_anywhere("the list of modules", 8, dwords(&list))? as u32)
}

/// The memory map: each entry has its own size, without that field, in front.
fn memory_map(ram: u64) -> Vec<u8> {
    let mut map = Vec::new();
    for (start, len, kind) in map::ranges(ram) {
        map.extend(20u32.to_le_bytes());
        map.extend(start.to_le_bytes());
        map.extend(len.to_le_bytes());
        map.extend(kind.to_le_bytes());
    }
    map
}
