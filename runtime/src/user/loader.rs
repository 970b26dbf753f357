//! Reading ELF files: which program is this, and what goes where in memory.
//!
//! Everything in the file is untrusted. Header fields are only combined with checked arithmetic,
//! and each way in which a file can be unusable has an error that says so in one line.

use super::abi::{Abi, Errno};
use crate::memory::{MapError, PAGE, ReserveError};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Why a program cannot be started.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum LoadError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: is a directory, not a program", path.display())]
    Directory { path: PathBuf },
    #[error("{}: not a regular file", path.display())]
    NotRegular { path: PathBuf },
    #[error("{}: not an ELF program", path.display())]
    NotElf { path: PathBuf },
    #[error("{}: truncated: {what} ends at byte {end}, the file at byte {size}", path.display())]
    Truncated {
        path: PathBuf,
        what: &'static str,
        end: u64,
        size: u64,
    },
    #[error("{}: a program for {found}; only x86-64 and i386 programs can run", path.display())]
    Architecture { path: PathBuf, found: String },
    #[error("{}: damaged ELF file: {what}", path.display())]
    Damaged { path: PathBuf, what: &'static str },
    #[error("{}: {what} cannot be run", path.display())]
    NotProgram { path: PathBuf, what: &'static str },
    #[error("{}: the program has nothing to load (no PT_LOAD segment)", path.display())]
    NothingToLoad { path: PathBuf },
    #[error("{}: segment {start:#x}..{end:#x} lies outside the guest's memory", path.display())]
    OutsideWindow { path: PathBuf, start: u64, end: u64 },
    #[error("{}: its dynamic linker cannot be loaded: {source}", path.display())]
    Interpreter {
        path: PathBuf,
        source: Box<LoadError>,
    },
    #[error("{}: too many levels of script interpreters", path.display())]
    TooManyInterpreters { path: PathBuf },
    #[error("the arguments and the environment do not fit on the stack")]
    ArgumentsTooLong,
    #[error("no memory for the program: {0}")]
    Map(#[from] MapError),
    #[error(transparent)]
    Reserve(#[from] ReserveError),
}

impl LoadError {
    /// What `execve` answers.
    pub fn errno(&self) -> Errno {
        Errno(match self {
            LoadError::Io { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
            LoadError::Directory { .. } | LoadError::NotRegular { .. } => libc::EACCES,
            LoadError::Interpreter { source, .. } => return source.errno(),
            LoadError::TooManyInterpreters { .. } => libc::ELOOP,
            LoadError::ArgumentsTooLong => libc::E2BIG,
            LoadError::OutsideWindow { .. } | LoadError::Map(_) | LoadError::Reserve(_) => {
                libc::ENOMEM
            }
            _ => libc::ENOEXEC,
        })
    }
}

/// A PT_LOAD segment. All sums of its fields are known not to overflow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Linear address, without the load bias.
    pub addr: u64,
    /// Size in memory.
    pub mem_size: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Size in the file; at most `mem_size`.
    pub file_size: u64,
    /// Rights, as a set of `page::READ`, `WRITE`, `EXEC`.
    pub prot: u8,
}

/// What the headers of an ELF program say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Elf {
    /// 64-bit or 32-bit.
    pub abi: Abi,
    /// It may be loaded anywhere (ET_DYN).
    pub relocatable: bool,
    /// Entry point, without the load bias.
    pub entry: u64,
    /// The segments, in the file's order; at least one.
    pub segments: Vec<Segment>,
    /// Address of the program headers in memory, without the load bias, if they are loaded.
    pub phdr: Option<u64>,
    /// Number of program headers.
    pub phnum: u64,
    /// Path of the dynamic linker.
    pub interpreter: Option<Vec<u8>>,
    /// PT_GNU_STACK: whether the stack is executable; `None` if there is no such header.
    pub exec_stack: Option<bool>,
}

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;
const PT_GNU_STACK: u32 = 0x6474_e551;

/// Opens a file that is to be run, with the checks that make for clear errors.
pub fn open_program(path: &Path) -> Result<File, LoadError> {
    let io = |source| LoadError::Io {
        path: path.into(),
        source,
    };
    // Before opening: that would wait for the other end of a FIFO.
    let meta = std::fs::metadata(path).map_err(io)?;
    if meta.is_dir() {
        return Err(LoadError::Directory { path: path.into() });
    }
    if !meta.is_file() {
        return Err(LoadError::NotRegular { path: path.into() });
    }
    File::open(path).map_err(io)
}

/// A file being read, with its name for errors.
struct Source<'a> {
    path: &'a Path,
    file: &'a File,
    size: u64,
}

impl Source<'_> {
    fn read(&self, offset: u64, len: u64, what: &'static str) -> Result<Vec<u8>, LoadError> {
        let end = offset.checked_add(len);
        let Some(end) = end else {
            return Err(self.damaged("an offset is out of range"));
        };
        if end > self.size {
            return Err(LoadError::Truncated {
                path: self.path.into(),
                what,
                end,
                size: self.size,
            });
        }
        let mut bytes = vec![0; len as usize];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|source| LoadError::Io {
                path: self.path.into(),
                source,
            })?;
        Ok(bytes)
    }

    fn damaged(&self, what: &'static str) -> LoadError {
        LoadError::Damaged {
            path: self.path.into(),
            what,
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Reads and checks the headers.
pub fn parse(path: &Path, file: &File) -> Result<Elf, LoadError> {
    let size = file
        .metadata()
        .map_err(|source| LoadError::Io {
            path: path.into(),
            source,
        })?
        .len();
    let src = Source { path, file, size };
    let magic = src.read(0, size.min(4), "the ELF header")?;
    if magic != b"\x7fELF" {
        return Err(LoadError::NotElf { path: path.into() });
    }
    let ident = src.read(0, 20, "the ELF header")?;
    let (class, data, machine) = (ident[4], ident[5], u16_at(&ident, 18));
    let machine = if data == 2 {
        machine.swap_bytes()
    } else {
        machine
    };
    let abi = match (class, data, machine) {
        (2, 1, 62) => Abi::X86_64,
        (1, 1, 3) => Abi::I386,
        _ => {
            return Err(LoadError::Architecture {
                path: path.into(),
                found: machine_name(class, data, machine),
            });
        }
    };
    let w = abi.is_64();
    let head = src.read(0, if w { 64 } else { 52 }, "the ELF header")?;
    let word = |bytes: &[u8], at64: usize, at32: usize| {
        if w {
            u64_at(bytes, at64)
        } else {
            u64::from(u32_at(bytes, at32))
        }
    };
    let relocatable = match u16_at(&head, 16) {
        2 => false,
        3 => true,
        kind => {
            let what = match kind {
                1 => "an object file that is not linked",
                4 => "a core dump",
                _ => "an ELF file of unknown type",
            };
            let path = path.into();
            return Err(LoadError::NotProgram { path, what });
        }
    };
    let entry = word(&head, 24, 24);
    let phoff = word(&head, 32, 28);
    let (phentsize, phnum) = if w {
        (u16_at(&head, 54), u16_at(&head, 56))
    } else {
        (u16_at(&head, 42), u16_at(&head, 44))
    };
    let entry_size = phdr_size(abi);
    if phnum == 0 {
        return Err(LoadError::NothingToLoad { path: path.into() });
    }
    if u64::from(phentsize) != entry_size {
        return Err(src.damaged("program headers of a wrong size"));
    }
    let table_len = u64::from(phnum) * entry_size;
    let table = src.read(phoff, table_len, "the program header table")?;

    let mut elf = Elf {
        abi,
        relocatable,
        entry,
        segments: Vec::new(),
        phdr: None,
        phnum: u64::from(phnum),
        interpreter: None,
        exec_stack: None,
    };
    for ph in table.chunks_exact(entry_size as usize) {
        let flags = u32_at(ph, if w { 4 } else { 24 });
        let offset = word(ph, 8, 4);
        let addr = word(ph, 16, 8);
        let file_size = word(ph, 32, 16);
        let mem_size = word(ph, 40, 20);
        match u32_at(ph, 0) {
            PT_LOAD => {
                let segment = Segment {
                    addr,
                    mem_size,
                    offset,
                    file_size,
                    prot: prot(flags),
                };
                if mem_size != 0 {
                    check_segment(&src, &segment)?;
                    elf.segments.push(segment);
                }
            }
            PT_INTERP => {
                if !(2..=4096).contains(&file_size) {
                    return Err(src.damaged("the dynamic linker's path has a bad length"));
                }
                let mut name = src.read(offset, file_size, "the dynamic linker's path")?;
                if name.pop() != Some(0) || name.contains(&0) {
                    return Err(src.damaged("the dynamic linker's path is not a string"));
                }
                elf.interpreter = Some(name);
            }
            PT_PHDR => elf.phdr = Some(addr),
            PT_GNU_STACK => elf.exec_stack = Some(flags & 1 != 0),
            _ => {}
        }
    }
    if elf.segments.is_empty() {
        return Err(LoadError::NothingToLoad { path: path.into() });
    }
    if elf.phdr.is_none() {
        // Without PT_PHDR the table may still be inside a segment.
        elf.phdr = elf
            .segments
            .iter()
            .find(|s| s.offset <= phoff && phoff + table_len <= s.offset + s.file_size)
            .map(|s| s.addr + (phoff - s.offset));
    }
    Ok(elf)
}

/// Size of a program header.
pub const fn phdr_size(abi: Abi) -> u64 {
    if abi.is_64() { 56 } else { 32 }
}

fn check_segment(src: &Source<'_>, s: &Segment) -> Result<(), LoadError> {
    if s.file_size > s.mem_size {
        return Err(src.damaged("a segment is larger in the file than in memory"));
    }
    let Some(file_end) = s.offset.checked_add(s.file_size) else {
        return Err(src.damaged("a segment's file range is out of range"));
    };
    if file_end > src.size {
        return Err(LoadError::Truncated {
            path: src.path.into(),
            what: "a segment",
            end: file_end,
            size: src.size,
        });
    }
    // Half of the address space is more than any window, and leaves room for the bias and for
    // rounding to pages.
    let end = s.addr.checked_add(s.mem_size);
    if end.is_none_or(|end| end > 1 << 62) {
        return Err(LoadError::OutsideWindow {
            path: src.path.into(),
            start: s.addr,
            end: s.addr.wrapping_add(s.mem_size),
        });
    }
    Ok(())
}

/// ELF's rights (X = 1, W = 2, R = 4) as page flags.
fn prot(flags: u32) -> u8 {
    use crate::memory::page;
    let mut prot = 0;
    if flags & 4 != 0 {
        prot |= page::READ;
    }
    if flags & 2 != 0 {
        prot |= page::WRITE;
    }
    if flags & 1 != 0 {
        prot |= page::EXEC;
    }
    prot
}

impl Elf {
    /// First and last byte plus one of the whole image, rounded to pages.
    pub fn extent(&self) -> (u64, u64) {
        let low = self.segments.iter().map(|s| s.addr).min().unwrap_or(0);
        let high = self.segments.iter().map(|s| s.addr + s.mem_size).max();
        let high = high.unwrap_or(0);
        (low & !(PAGE - 1), (high + PAGE - 1) & !(PAGE - 1))
    }
}

/// The name of what an ELF file is for.
fn machine_name(class: u8, data: u8, machine: u16) -> String {
    let name = match machine {
        2 => "SPARC",
        3 => "i386 with the wrong ELF class",
        8 => "MIPS",
        20 => "PowerPC",
        21 => "64-bit PowerPC",
        22 => "S/390",
        40 => "ARM",
        43 => "64-bit SPARC",
        50 => "Itanium",
        62 if class == 1 => "x86-64 with 32-bit pointers (x32)",
        183 => "AArch64",
        243 => "RISC-V",
        258 => "LoongArch",
        _ => {
            let order = if data == 2 { "big-endian " } else { "" };
            return format!("an unknown {order}machine (ELF machine {machine})");
        }
    };
    name.to_owned()
}
