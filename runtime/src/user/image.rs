//! Putting an ELF program into guest memory.

use super::abi::Abi;
use super::layout::Layout;
use super::loader::{self, Elf, LoadError, Segment};
use super::space::{Space, page_down};
use crate::memory::{FileMapping, GuestMemory, MapError, PAGE, page};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A program in memory, as far as the stack and the registers need to know.
#[derive(Clone, Debug)]
pub struct Image {
    /// 64-bit or 32-bit.
    pub abi: Abi,
    /// Where execution begins: the dynamic linker's entry if there is one.
    pub start: u64,
    /// The program's own entry.
    pub entry: u64,
    /// Address of the program headers; 0 if they are not in memory.
    pub phdr: u64,
    /// Number of program headers.
    pub phnum: u64,
    /// Where the dynamic linker was loaded; 0 if there is none.
    pub interpreter_base: u64,
    /// Whether the stack is executable.
    pub exec_stack: bool,
}

/// Loads a program and its dynamic linker, and sets the heap's start. `find` turns the linker's
/// path into a path on the host.
pub fn load(
    memory: &GuestMemory,
    space: &mut Space,
    path: &Path,
    file: &File,
    elf: &Elf,
    find: impl Fn(&[u8]) -> PathBuf,
) -> Result<Image, LoadError> {
    let layout = space.layout;
    // A 32-bit program that does not say how it wants its stack expects everything readable to
    // be executable; so does the kernel.
    let exec_all = elf.abi == Abi::I386 && elf.exec_stack.is_none();
    let (low, high) = elf.extent();
    let bias = if elf.relocatable {
        layout.pie_base.wrapping_sub(low)
    } else {
        0
    };
    place(memory, space, path, file, elf, bias, exec_all)?;
    space.brk_start = high.wrapping_add(bias);
    space.brk = space.brk_start;
    let entry = elf.entry.wrapping_add(bias);
    let mut image = Image {
        abi: elf.abi,
        start: entry,
        entry,
        phdr: elf.phdr.map_or(0, |at| at.wrapping_add(bias)),
        phnum: elf.phnum,
        interpreter_base: 0,
        exec_stack: elf.exec_stack.unwrap_or(exec_all),
    };
    if let Some(name) = &elf.interpreter {
        let (start, base) = load_interpreter(memory, space, elf.abi, &find(name), exec_all)
            .map_err(|source| LoadError::Interpreter {
                path: path.into(),
                source: Box::new(source),
            })?;
        image.start = start;
        image.interpreter_base = base;
    }
    Ok(image)
}

fn load_interpreter(
    memory: &GuestMemory,
    space: &mut Space,
    abi: Abi,
    path: &Path,
    exec_all: bool,
) -> Result<(u64, u64), LoadError> {
    let file = loader::open_program(path)?;
    let elf = loader::parse(path, &file)?;
    if elf.abi != abi {
        return Err(LoadError::Damaged {
            path: path.into(),
            what: "it and the program differ in pointer size",
        });
    }
    let (low, high) = elf.extent();
    let bias = if elf.relocatable {
        let at = space
            .find(memory, high - low)
            .ok_or(MapError::Host(rustix::io::Errno::NOMEM))?;
        at.wrapping_sub(low)
    } else {
        0
    };
    place(memory, space, path, &file, &elf, bias, exec_all)?;
    Ok((elf.entry.wrapping_add(bias), low.wrapping_add(bias)))
}

/// Maps all segments, `bias` above their addresses.
fn place(
    memory: &GuestMemory,
    space: &mut Space,
    path: &Path,
    file: &File,
    elf: &Elf,
    bias: u64,
    exec_all: bool,
) -> Result<(), LoadError> {
    let Layout { stack_low, .. } = space.layout;
    for segment in &elf.segments {
        let start = segment.addr.wrapping_add(bias);
        let end = start.checked_add(segment.mem_size);
        // Page 0 stays free, so that null pointers fault; the stack stays where it is.
        let fits = end.is_some_and(|end| end <= stack_low) && start >= PAGE;
        if !fits {
            return Err(LoadError::OutsideWindow {
                path: path.into(),
                start,
                end: start.wrapping_add(segment.mem_size),
            });
        }
        let mut segment = Segment {
            addr: start,
            ..*segment
        };
        if exec_all && segment.prot & page::READ != 0 {
            segment.prot |= page::EXEC;
        }
        let io = |source| LoadError::Io {
            path: path.into(),
            source,
        };
        if segment.addr % PAGE == segment.offset % PAGE {
            map_segment(memory, file, &segment)?;
        } else {
            copy_segment(memory, file, &segment).map_err(io)?;
        }
        let first = page_down(segment.addr);
        let last = page_down(segment.addr + segment.mem_size + PAGE - 1);
        let name = path.to_string_lossy();
        space.note(first, last - first, &name, page_down(segment.offset), false);
    }
    Ok(())
}

/// Maps a segment whose file offset and address agree within a page.
fn map_segment(memory: &GuestMemory, file: &File, s: &Segment) -> Result<(), MapError> {
    let first = page_down(s.addr);
    let file_end = s.addr + s.file_size;
    let file_pages_end = page_down(file_end + PAGE - 1);
    let end = page_down(s.addr + s.mem_size + PAGE - 1);
    let has_file = s.file_size != 0;
    if has_file {
        let mapping = FileMapping {
            fd: file.as_fd(),
            offset: page_down(s.offset),
            shared: false,
        };
        let len = file_pages_end - first;
        // The whole page, beyond the segment's memory size too: the dynamic linker allocates from
        // what follows its own data and counts on zeros there, as Linux gives them.
        let bss = s.mem_size > s.file_size;
        let tail = if bss { file_pages_end - file_end } else { 0 };
        if tail == 0 {
            memory.map_file(first, len, s.prot, mapping)?;
        } else {
            // What follows the file's part in its last page is zero, not what the file has there.
            memory.map_file(first, len, page::READ | page::WRITE, mapping)?;
            let zeros = vec![0; tail as usize];
            let _ = memory.write_bytes(file_end, &zeros);
            if s.prot & page::WRITE == 0 || s.prot & page::EXEC != 0 {
                memory.protect(first, len, s.prot)?;
            }
        }
    }
    let anon = if has_file { file_pages_end } else { first };
    if end > anon {
        memory.map_anon(anon, end - anon, s.prot)?;
    }
    Ok(())
}

/// Copies a segment that cannot be mapped. Pages that another segment has mapped are kept.
fn copy_segment(memory: &GuestMemory, file: &File, s: &Segment) -> std::io::Result<()> {
    let host = |e: MapError| std::io::Error::other(e);
    let first = page_down(s.addr);
    let end = page_down(s.addr + s.mem_size + PAGE - 1);
    let mut at = first;
    while at < end {
        let old = memory.flags(at);
        if old & page::MAPPED == 0 {
            memory
                .map_anon(at, PAGE, page::READ | page::WRITE)
                .map_err(host)?;
        } else {
            memory
                .protect(at, PAGE, old | page::WRITE | page::READ)
                .map_err(host)?;
        }
        at += PAGE;
    }
    let mut done = 0;
    let mut buffer = [0; PAGE as usize];
    while done < s.file_size {
        let n = (s.file_size - done).min(PAGE) as usize;
        file.read_exact_at(&mut buffer[..n], s.offset + done)?;
        memory
            .write_bytes(s.addr + done, &buffer[..n])
            .map_err(|_| std::io::Error::from_raw_os_error(libc::EFAULT))?;
        done += n as u64;
    }
    memory.protect(first, end - first, s.prot).map_err(host)
}
