//! From a path to a program in memory: scripts, the image, the stack, the first registers.

use super::abi::Abi;
use super::image::{self, Image};
use super::layout::Layout;
use super::loader::{self, LoadError};
use super::paths;
use super::segments;
use super::signal::frame32;
use super::space::Space;
use super::stack::{self, StackContents};
use crate::cpu_model::CpuModel;
use crate::env::Env;
use crate::memory::{GuestMemory, PAGE, Window, page};
use crate::state::{CpuState, X87State};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What to run.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The file, on the host.
    pub path: PathBuf,
    /// The path as the guest knows it.
    pub exec_path: Vec<u8>,
    /// Arguments, the program's name first.
    pub args: Vec<Vec<u8>>,
    /// Environment.
    pub env: Vec<Vec<u8>>,
    /// Where absolute guest paths are looked for first.
    pub sysroot: Option<&'a Path>,
    /// The CPU model, for `AT_HWCAP`.
    pub cpu: CpuModel,
}

/// A program in memory, ready to run.
#[derive(Debug)]
pub struct Loaded {
    /// What is mapped where.
    pub space: Space,
    /// Where it begins.
    pub image: Image,
    /// Its initial stack pointer.
    pub sp: u64,
    /// The executable on the host.
    pub exe: PathBuf,
    /// Its arguments.
    pub args: Vec<Vec<u8>>,
}

/// As many interpreters of interpreters as Linux allows.
const MAX_SCRIPT_DEPTH: usize = 4;

/// Loads a program, or the interpreter of a script.
pub fn load(mut request: Request<'_>) -> Result<(GuestMemory, Loaded), LoadError> {
    let mut depth = 0;
    let file = loop {
        let file = loader::open_program(&request.path)?;
        let Some((interpreter, argument)) = script_line(&file) else {
            break file;
        };
        depth += 1;
        if depth > MAX_SCRIPT_DEPTH {
            return Err(LoadError::TooManyInterpreters { path: request.path });
        }
        let mut args = vec![interpreter.clone()];
        args.extend(argument);
        args.push(request.exec_path);
        args.extend(request.args.into_iter().skip(1));
        request.args = args;
        request.path = paths::to_host(request.sysroot, &interpreter);
        request.exec_path = interpreter;
    };
    load_elf(request, &file)
}

fn load_elf(request: Request<'_>, file: &File) -> Result<(GuestMemory, Loaded), LoadError> {
    let elf = loader::parse(&request.path, file)?;
    let window = match elf.abi {
        Abi::X86_64 => Window::Bits64,
        Abi::I386 => Window::Bits32,
    };
    let memory = GuestMemory::new(window)?;
    let mut space = Space::new(Layout::new(elf.abi, memory.limit()));
    let exe = std::fs::canonicalize(&request.path).unwrap_or_else(|_| request.path.clone());
    let find = |name: &[u8]| paths::to_host(request.sysroot, name);
    let image = image::load(&memory, &mut space, &exe, file, &elf, find)?;
    let mut random = [0; 16];
    fill_random(&mut random);
    let contents = StackContents {
        args: &request.args,
        env: &request.env,
        exec_path: &request.exec_path,
        hwcap: request.cpu.cpuid(1, 0)[3],
        random,
    };
    let sp = stack::build(&memory, &mut space, &image, &contents)?;
    if elf.abi == Abi::I386 {
        let at = space.layout.trampoline;
        memory.map_anon(at, PAGE, page::READ | page::WRITE)?;
        memory
            .write_bytes(at, &frame32::trampoline())
            .map_err(|_| LoadError::ArgumentsTooLong)?;
        memory.protect(at, PAGE, page::READ | page::EXEC)?;
        space.note(at, PAGE, "[sigreturn]", 0, false);
    }
    let loaded = Loaded {
        space,
        image,
        sp,
        exe,
        args: request.args,
    };
    Ok((memory, loaded))
}

/// Fills a buffer with random bytes of the host.
fn fill_random(out: &mut [u8]) {
    // SAFETY: the buffer is as long as the call is told.
    unsafe { libc::getrandom(out.as_mut_ptr().cast(), out.len(), libc::GRND_NONBLOCK) };
}

/// The interpreter and its one argument, if the file is a script.
fn script_line(file: &File) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let mut head = [0; 256];
    let n = file.read_at(&mut head, 0).ok()?;
    let line = head[..n].strip_prefix(b"#!")?;
    let line = line.split(|&b| b == b'\n').next()?;
    let line = line.trim_ascii();
    let split = line.iter().position(|&b| b == b' ' || b == b'\t');
    let (name, rest) = match split {
        Some(at) => (&line[..at], line[at..].trim_ascii()),
        None => (line, &[][..]),
    };
    if name.is_empty() {
        return None;
    }
    let argument = (!rest.is_empty()).then(|| rest.to_vec());
    Some((name.to_vec(), argument))
}

/// Sets the registers with which a program begins.
pub fn set_registers(cpu: &mut CpuState, env: &mut Env, image: &Image, sp: u64) {
    let fresh = CpuState::new();
    cpu.gpr = [0; 16];
    cpu.set_rflags(0x202);
    cpu.mxcsr = fresh.mxcsr;
    cpu.x87 = X87State {
        portable: cpu.x87.portable,
        ..fresh.x87
    };
    cpu.xmm = [0; 16];
    cpu.ymm_hi = [0; 16];
    for entry in &mut env.gdt[segments::TLS_FIRST..][..segments::TLS_COUNT] {
        *entry = None;
    }
    cpu.seg_base = [0; 6];
    cpu.seg_sel = match image.abi {
        // ES, CS, SS, DS, FS, GS.
        Abi::X86_64 => [0, segments::CODE_64, segments::DATA, 0, 0, 0],
        Abi::I386 => {
            let data = segments::DATA;
            [data, segments::CODE_32, data, data, 0, 0]
        }
    };
    cpu.gpr[4] = sp;
    cpu.rip = image.start;
}

/// A path as bytes.
pub fn path_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}
