//! Starting a kernel: Linux bzImages, Multiboot kernels, ELF files with a PVH entry; each of them
//! may be compressed by gzip.
//!
//! - `format.rs` tells by the content what a file is.
//! - `linux.rs`, `multiboot.rs` and `pvh.rs` each know a boot protocol, and plan what goes where and how
//!   the kernel is entered; `elf.rs` and `bytes.rs` read files, `map.rs` has the memory map.
//! - `plan.rs` keeps the parts in RAM and apart, and writes them; `cpu.rs` sets the registers.
//! - `rom.rs` has firmware start a bzImage by its 16-bit entry.
//!
//! ```ignore
//! let kernel = Kernel { image: &file, name: "vmlinuz", command_line: "quiet", ..Kernel::default() };
//! boot::load(&mut machine, ram, &kernel)?;
//! machine.run(budget)?;
//! ```

mod bytes;
mod cpu;
mod elf;
mod error;
mod format;
mod linux;
mod map;
mod multiboot;
mod plan;
mod pvh;
mod rom;
#[cfg(test)]
mod tests;

use super::Machine;
pub use error::BootError;
pub use format::{Format, Unknown};
use plan::Plan;
pub use rom::FirmwareKernel;
use std::borrow::Cow;
use std::io::Read;

/// Which of its entries a kernel is started by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum KernelEntry {
    /// With firmware the 16-bit one, else the 32-bit one.
    #[default]
    Auto,
    /// Real mode: the code of a bzImage that asks firmware.
    Real,
    /// 32-bit protected mode.
    Protected,
    /// 64-bit mode, which a bzImage may have.
    Long,
}

impl KernelEntry {
    /// For a format that has the 32-bit entry only.
    fn only_protected(self) -> Result<(), BootError> {
        match self {
            KernelEntry::Auto | KernelEntry::Protected => Ok(()),
            KernelEntry::Real => Err(BootError::NoEntry("16-bit")),
            KernelEntry::Long => Err(BootError::NoEntry("64-bit")),
        }
    }
}

/// A file that a kernel finds in memory.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// What it holds.
    pub content: Vec<u8>,
    /// Text that comes with it.
    pub command_line: String,
}

/// A kernel with what it is given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel<'a> {
    /// The file.
    pub image: &'a [u8],
    /// Its name, the first word of the command line of Multiboot kernels.
    pub name: &'a str,
    /// The command line.
    pub command_line: &'a str,
    /// The initial RAM disk, or modules.
    pub modules: &'a [Module],
    /// How it is entered.
    pub entry: KernelEntry,
    /// What Linux stirs into its random numbers, if it is given anything.
    pub random_seed: Option<[u8; 32]>,
}

/// Loads a kernel and makes its entry the next instruction. `ram` is the number of bytes of RAM from
/// address 0 on, the hole included. Nothing is written if it cannot be started.
///
/// # Errors
/// If it is damaged, does not fit, or is none.
pub fn load(machine: &mut Machine, ram: u64, kernel: &Kernel<'_>) -> Result<Format, BootError> {
    let file = decompress(kernel.image, ram)?;
    let mut plan = Plan::new(ram);
    let (format, entry) = plan_start(&mut plan, kernel, &file)?;
    plan.commit(machine.memory());
    map::leave_as_firmware(machine, ram);
    entry.enter(machine);
    Ok(format)
}

/// What a file is, if it can be started; it may be compressed.
///
/// # Errors
/// If it cannot.
pub fn format(image: &[u8], ram: u64) -> Result<Format, BootError> {
    Format::of(&decompress(image, ram)?).map_err(BootError::Unknown)
}

fn plan_start<'a>(
    plan: &mut Plan<'a>,
    kernel: &Kernel<'a>,
    file: &'a [u8],
) -> Result<(Format, cpu::Entry), BootError> {
    let format = Format::of(file).map_err(BootError::Unknown)?;
    let entry = match format {
        Format::Linux => linux::plan(plan, kernel, file),
        Format::Multiboot => multiboot::plan(plan, kernel, file),
        Format::Pvh => pvh::plan(plan, kernel, file),
    };
    Ok((format, entry?))
}

/// The file itself, or what it holds if it is compressed; that must be smaller than RAM.
fn decompress(image: &[u8], ram: u64) -> Result<Cow<'_, [u8]>, BootError> {
    if !format::is_gzip(image) {
        return Ok(Cow::Borrowed(image));
    }
    let mut out = Vec::new();
    let stream = flate2::read::GzDecoder::new(image);
    let len = stream
        .take(ram.saturating_add(1))
        .read_to_end(&mut out)
        .map_err(BootError::Gzip)?;
    if len as u64 > ram {
        return Err(BootError::GzipTooLarge(ram >> 20));
    }
    Ok(Cow::Owned(out))
}
