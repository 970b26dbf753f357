//! `dump`: what code becomes, stage by stage.

use super::args::{DumpArgs, passes};
use super::{Failure, disasm, exit, logs};
use metaphrase_backend::Compiler;
use metaphrase_frontend::{Limits, Mode, SensitivePolicy, lift_region};
use metaphrase_runtime::memory::{PAGE, Window, page};
use metaphrase_runtime::{CpuState, GuestMemory, Options};
use object::{Object, ObjectSegment, ObjectSymbol};

const STAGES: [&str; 5] = ["in_asm", "ir", "ir_opt", "clif", "out_asm"];

/// Code in memory, and where to start.
struct Subject {
    memory: GuestMemory,
    mode: Mode,
    pc: u64,
}

/// Runs the command.
pub fn run(args: DumpArgs) -> Result<i32, Failure> {
    for item in &args.show {
        if !STAGES.contains(&item.as_str()) {
            let list = STAGES.join(", ");
            return Err(Failure::usage(format!(
                "nothing to show is named {item}; there are: {list}"
            )));
        }
    }
    let shown = |name: &str| args.show.is_empty() || args.show.iter().any(|s| s == name);
    let subject = match (&args.bytes, &args.file) {
        (Some(hex), _) => from_hex(hex, args.bits, &args.pc)?,
        (None, Some(file)) => from_elf(file, args.symbol.as_deref())?,
        (None, None) => return Err(Failure::usage("dump needs --bytes or an ELF file")),
    };
    let passes = passes(&args.disable_pass, &args.enable_pass)?;
    let limits = if args.region {
        Limits::REGION
    } else {
        Limits::BLOCK
    };
    let policy = SensitivePolicy::default();
    let lifted =
        lift_region(subject.pc, subject.mode, &subject.memory, limits, &policy).map_err(|e| {
            Failure {
                code: exit::CANNOT_RUN,
                message: e.to_string(),
                hint: None,
            }
        })?;
    if shown("in_asm") {
        println!(
            "; guest code\n{}",
            logs::guest_listing(&subject.memory, &lifted)
        );
    }
    if shown("ir") {
        println!("; IR\n{}", lifted.region);
    }
    let mut region = lifted.region;
    metaphrase_ir::passes::run(&mut region, &passes).map_err(Failure::internal)?;
    if shown("ir_opt") {
        println!("; IR after the passes\n{region}");
    }
    if shown("clif") || shown("out_asm") {
        let defaults = Options::default();
        let mut options = if args.region {
            defaults.tier2
        } else {
            defaults.tier1
        };
        options.keep_clif = true;
        let table = metaphrase_runtime::helpers::table();
        let mut compiler =
            Compiler::new(CpuState::layout(), table, options).map_err(Failure::internal)?;
        let compiled = compiler.compile(&region, 0).map_err(Failure::internal)?;
        if let Some(clif) = &compiled.clif
            && shown("clif")
        {
            println!("; CLIF\n{clif}");
        }
        if shown("out_asm") {
            println!("; host code, {} bytes", compiled.code.len());
            print!("{}", disasm::host(0, &compiled.code));
        }
    }
    Ok(exit::OK)
}

/// The subject for `--bytes`.
fn from_hex(hex: &str, bits: u32, pc: &str) -> Result<Subject, Failure> {
    let digits: String = hex
        .chars()
        .filter(|c| !c.is_whitespace() && *c != ',')
        .collect::<String>()
        .replace("0x", "");
    let pairs = digits.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = pairs
        .map(|p| {
            u8::from_str_radix(std::str::from_utf8(p).ok()?, 16)
                .ok()
                .filter(|_| p.len() == 2)
        })
        .collect();
    let bytes = bytes
        .filter(|b| !b.is_empty())
        .ok_or_else(|| Failure::usage(format!("--bytes wants pairs of hex digits, not {hex:?}")))?;
    let pc = u64::from_str_radix(pc.trim_start_matches("0x"), 16)
        .map_err(|_| Failure::usage(format!("--pc wants a hexadecimal address, not {pc:?}")))?;
    let (mode, window) = match bits {
        16 => (Mode::FLAT16, Window::Bits32),
        32 => (Mode::FLAT32, Window::Bits32),
        64 => (Mode::LONG, Window::Bits64),
        _ => return Err(Failure::usage("--bits must be 16, 32 or 64")),
    };
    let memory = GuestMemory::new(window).map_err(Failure::internal)?;
    put(&memory, pc, &bytes)?;
    Ok(Subject { memory, mode, pc })
}

/// The subject for an ELF file.
fn from_elf(path: &std::path::Path, symbol: Option<&str>) -> Result<Subject, Failure> {
    let cannot = |message: String| Failure {
        code: exit::CANNOT_RUN,
        message,
        hint: None,
    };
    let name = path.display();
    let unreadable = |e: std::io::Error| Failure {
        code: if e.kind() == std::io::ErrorKind::NotFound {
            exit::NOT_FOUND
        } else {
            exit::CANNOT_RUN
        },
        message: format!("{name}: {e}"),
        hint: None,
    };
    // FIFOs and devices might never come to an end.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(cannot(format!("{name}: not a regular file")));
    }
    let data = std::fs::read(path).map_err(unreadable)?;
    let file = object::File::parse(&*data).map_err(|e| cannot(format!("{name}: {e}")))?;
    let (mode, window) = match file.architecture() {
        object::Architecture::X86_64 => (Mode::LONG, Window::Bits64),
        object::Architecture::I386 => (Mode::FLAT32, Window::Bits32),
        other => return Err(cannot(format!("{name} is for {other:?}, not for x86"))),
    };
    let pc = match symbol {
        None => file.entry(),
        Some(wanted) => file
            .symbols()
            .chain(file.dynamic_symbols())
            .find(|s| s.name() == Ok(wanted))
            .map(|s| s.address())
            .ok_or_else(|| cannot(format!("{name} has no symbol {wanted}")))?,
    };
    let memory = GuestMemory::new(window).map_err(Failure::internal)?;
    for segment in file.segments() {
        let bytes = segment.data().map_err(|e| cannot(format!("{name}: {e}")))?;
        if !bytes.is_empty() {
            put(&memory, segment.address(), bytes)?;
        }
    }
    Ok(Subject { memory, mode, pc })
}

/// Maps the pages that `bytes` lies on and copies it there, executable.
fn put(memory: &GuestMemory, addr: u64, bytes: &[u8]) -> Result<(), Failure> {
    let start = addr & !(PAGE - 1);
    let end = addr
        .checked_add(bytes.len() as u64)
        .and_then(|e| e.checked_next_multiple_of(PAGE));
    let end =
        end.ok_or_else(|| Failure::usage(format!("{addr:#x} is out of the address space")))?;
    for at in (start..end).step_by(PAGE as usize) {
        if memory.flags(at) & page::MAPPED == 0 {
            memory
                .map_anon(at, PAGE, page::READ | page::WRITE | page::EXEC)
                .map_err(|e| Failure::usage(format!("{at:#x} cannot be mapped: {e}")))?;
        }
    }
    memory
        .write_bytes(addr, bytes)
        .map_err(|f| Failure::internal(format!("{f:?}")))
}
