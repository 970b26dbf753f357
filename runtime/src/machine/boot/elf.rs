//! As much of ELF as a boot loader reads: segments with physical addresses, notes and section headers,
//! in both classes. Nothing in the file is trusted.

use super::bytes::{self, slice};
use super::error::BootError;
use super::plan::Plan;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
/// Program headers of a kernel; more are damage.
const MOST_SEGMENTS: usize = 128;

/// A program header.
#[derive(Clone, Copy, Debug)]
struct Segment {
    kind: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    filesz: u64,
    memsz: u64,
    align: u64,
}

/// The section headers as they are in the file.
#[derive(Debug)]
pub struct Sections<'a> {
    /// All of them.
    pub table: &'a [u8],
    /// How many.
    pub count: u32,
    /// Bytes of each.
    pub size: u32,
    /// Which one has the names.
    pub names: u32,
}

/// A file.
#[derive(Debug)]
pub struct Elf<'a> {
    file: &'a [u8],
    wide: bool,
    entry: u64,
    segments: Vec<Segment>,
}

impl<'a> Elf<'a> {
    /// Whether it begins as an ELF file does.
    pub fn is(file: &[u8]) -> bool {
        file.starts_with(b"\x7fELF")
    }

    /// Reads the headers. The file must be little-endian and for an x86 processor.
    pub fn parse(file: &'a [u8]) -> Result<Elf<'a>, BootError> {
        let wide = match file.get(4..6) {
            Some([1, 1]) => false,
            Some([2, 1]) => true,
            _ => return Err(BootError::Damaged("its ELF header is of no x86 processor")),
        };
        if !matches!(bytes::u16_at(file, 18), Some(EM_386 | EM_X86_64)) {
            return Err(BootError::Damaged("its ELF header is of no x86 processor"));
        }
        let truncated = || BootError::Truncated("the ELF header");
        let u16_at = |at| bytes::u16_at(file, at).ok_or_else(truncated);
        let word_at = |at32, at64| bytes::word_at(file, wide, at32, at64).ok_or_else(truncated);
        let (entry, offset) = (word_at(24, 24)?, word_at(28, 32)?);
        let size = usize::from(u16_at(if wide { 54 } else { 42 })?);
        let count = usize::from(u16_at(if wide { 56 } else { 44 })?);
        if count > MOST_SEGMENTS || size < if wide { 56 } else { 32 } {
            return Err(BootError::Damaged("its program headers make no sense"));
        }
        let table = slice(file, offset, (size * count) as u64)
            .ok_or(BootError::Truncated("the program header table"))?;
        let segments = table.chunks_exact(size).map(|h| Segment {
            kind: bytes::u32_at(h, 0).unwrap_or(0),
            offset: bytes::word_at(h, wide, 4, 8).unwrap_or(0),
            vaddr: bytes::word_at(h, wide, 8, 16).unwrap_or(0),
            paddr: bytes::word_at(h, wide, 12, 24).unwrap_or(0),
            filesz: bytes::word_at(h, wide, 16, 32).unwrap_or(0),
            memsz: bytes::word_at(h, wide, 20, 40).unwrap_or(0),
            align: bytes::word_at(h, wide, 28, 48).unwrap_or(0),
        });
        Ok(Elf {
            file,
            wide,
            entry,
            segments: segments.collect(),
        })
    }

    fn loaded(&self) -> impl Iterator<Item = &Segment> {
        let loads = self.segments.iter();
        loads.filter(|s| s.kind == PT_LOAD && s.memsz > 0)
    }

    /// Puts every segment at its physical address; the end of the highest.
    pub fn load(&self, plan: &mut Plan<'a>) -> Result<u64, BootError> {
        let mut end = 0;
        for s in self.loaded() {
            if s.filesz > s.memsz {
                return Err(BootError::Damaged(
                    "a segment is larger in the file than in memory",
                ));
            }
            let content =
                slice(self.file, s.offset, s.filesz).ok_or(BootError::Truncated("a segment"))?;
            plan.put("a segment of the kernel", s.paddr, content, s.memsz)?;
            end = end.max(s.paddr.saturating_add(s.memsz));
        }
        if end == 0 {
            return Err(BootError::Damaged("it has nothing to load"));
        }
        Ok(end)
    }

    /// Where the entry lies in physical memory. It is a virtual address where it lies in a segment
    /// as linked, else a physical one.
    pub fn physical_entry(&self) -> Result<u32, BootError> {
        let inside = |start: u64, len: u64| self.entry.checked_sub(start).is_some_and(|o| o < len);
        let linked = self.loaded().find(|s| inside(s.vaddr, s.memsz));
        let physical = self.loaded().find(|s| inside(s.paddr, s.memsz));
        let entry = match (linked, physical) {
            (Some(s), _) => s.paddr.wrapping_add(self.entry - s.vaddr),
            (None, Some(_)) => self.entry,
            (None, None) => return Err(BootError::Damaged("its entry lies in no segment")),
        };
        u32::try_from(entry).map_err(|_| BootError::Damaged("its entry lies above 4 GiB"))
    }

    /// Whether that physical address is in a segment.
    pub fn holds(&self, at: u64) -> bool {
        self.loaded()
            .any(|s| at.checked_sub(s.paddr).is_some_and(|o| o < s.memsz))
    }

    /// The content of the note of that name and type.
    pub fn note(&self, name: &[u8], kind: u32) -> Option<&'a [u8]> {
        let notes = self.segments.iter().filter(|s| s.kind == PT_NOTE);
        notes
            .filter_map(|s| {
                let all = slice(self.file, s.offset, s.filesz)?;
                // Notes are padded to 4 bytes, unless the segment says 8.
                let align = if s.align == 8 { 8 } else { 4 };
                find_note(all, name, kind, align)
            })
            .next()
    }

    /// The section headers, if the file has any.
    pub fn sections(&self) -> Option<Sections<'a>> {
        let offset = bytes::word_at(self.file, self.wide, 32, 40)?;
        let at = if self.wide { 58 } else { 46 };
        let size = bytes::u16_at(self.file, at)?;
        let count = bytes::u16_at(self.file, at + 2)?;
        let names = bytes::u16_at(self.file, at + 4)?;
        if count == 0 || size < if self.wide { 64 } else { 40 } {
            return None;
        }
        Some(Sections {
            table: slice(self.file, offset, u64::from(size) * u64::from(count))?,
            count: count.into(),
            size: size.into(),
            names: names.into(),
        })
    }

    /// The section headers with symbols and strings in memory, as Multiboot hands them over: those
    /// sections are put somewhere and their headers say where.
    pub fn place_sections(
        &self,
        plan: &mut Plan<'a>,
        from: u64,
    ) -> Result<Option<(u64, Sections<'a>)>, BootError> {
        const SYMBOLS: u32 = 2;
        const STRINGS: u32 = 3;
        let Some(sections) = self.sections() else {
            return Ok(None);
        };
        let mut table = sections.table.to_vec();
        let (addr, word) = if self.wide { (16, 8) } else { (12, 4) };
        for header in table.chunks_exact_mut(sections.size as usize) {
            let kind = bytes::u32_at(header, 4).unwrap_or(0);
            let at = bytes::word_at(header, self.wide, 12, 16).unwrap_or(0);
            if at != 0 || !matches!(kind, SYMBOLS | STRINGS) {
                continue;
            }
            let offset = bytes::word_at(header, self.wide, 16, 24).unwrap_or(0);
            let len = bytes::word_at(header, self.wide, 20, 32).unwrap_or(0);
            // What is not in the file stays without an address.
            let Some(content) = slice(self.file, offset, len).filter(|c| !c.is_empty()) else {
                continue;
            };
            let at = plan.place("the kernel's symbols", from, 16, content)?;
            header[addr..addr + word].copy_from_slice(&at.to_le_bytes()[..word]);
        }
        let at = plan.place("the kernel's section headers", from, 16, table)?;
        Ok(Some((at, sections)))
    }
}

/// A note in a segment or section of them.
fn find_note<'a>(all: &'a [u8], name: &[u8], kind: u32, align: u64) -> Option<&'a [u8]> {
    let mut at = 0u64;
    loop {
        let header = slice(all, at, 12)?;
        let name_len = u64::from(bytes::u32_at(header, 0)?);
        let len = u64::from(bytes::u32_at(header, 4)?);
        let content = (at + 12 + name_len).next_multiple_of(align);
        if bytes::u32_at(header, 8)? == kind
            && slice(all, at + 12, name_len)?.strip_suffix(b"\0") == Some(name)
        {
            return slice(all, content, len);
        }
        at = (content + len).next_multiple_of(align);
    }
}
