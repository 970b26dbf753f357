//! The options that say what a machine starts with: firmware, a kernel, or both.

use super::Failure;
use super::system::{read, unusable};
use clap::{Args, ValueEnum};
use metaphrase_runtime::Machine;
use metaphrase_runtime::machine::boot::{self, Format, Kernel, KernelEntry, Module};
use metaphrase_runtime::machine::pc::PcConfig;
use std::path::{Path, PathBuf};

/// Which of its entries a kernel is started by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EntryArg {
    /// With firmware the 16-bit one, else the 32-bit one.
    #[default]
    Auto,
    /// Real mode, through firmware.
    #[value(name = "16")]
    Real,
    /// 32-bit protected mode.
    #[value(name = "32")]
    Protected,
    /// 64-bit mode.
    #[value(name = "64")]
    Long,
}

/// What the machine starts with.
#[derive(Clone, Debug, Default, Args)]
pub struct KernelArgs {
    /// The kernel: a bzImage, a Multiboot kernel or an ELF file with a PVH entry; gzip is undone
    /// (`-kernel`).
    #[arg(long, value_name = "FILE", help_heading = "Boot")]
    pub kernel: Option<PathBuf>,
    /// Linux: the initial RAM disk. Else modules, `FILE ARGUMENTS,FILE ARGUMENTS`; a comma within
    /// is written twice (`-initrd`).
    #[arg(long, value_name = "FILES", requires = "kernel", help_heading = "Boot")]
    pub initrd: Option<String>,
    /// The kernel's command line (`-append`).
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        allow_hyphen_values = true,
        help_heading = "Boot"
    )]
    pub append: String,
    /// Which entry of the kernel is used.
    #[arg(
        long,
        value_enum,
        default_value = "auto",
        value_name = "BITS",
        help_heading = "Boot"
    )]
    pub kernel_entry: EntryArg,
    /// Give Linux a seed for its random numbers, made of this number. Without it runs in
    /// deterministic time are the same.
    #[arg(long, value_name = "N", requires = "kernel", help_heading = "Boot")]
    pub kernel_seed: Option<u64>,
    /// Firmware, which ends at 4 GiB, such as SeaBIOS; with `-kernel` it starts that. Without either,
    /// the SeaBIOS that is installed (`-bios`).
    #[arg(long, value_name = "FILE", help_heading = "Boot")]
    pub bios: Option<PathBuf>,
}

/// A kernel that has been read.
pub struct Loaded<'a> {
    args: &'a KernelArgs,
    path: &'a Path,
    name: String,
    image: Vec<u8>,
    modules: Vec<Module>,
    ram: u64,
}

impl KernelArgs {
    /// Reads the kernel and what it is given.
    pub fn open(&self, ram: u64) -> Result<Option<Loaded<'_>>, Failure> {
        let Some(path) = &self.kernel else {
            return Ok(None);
        };
        let image = read(path)?;
        let format = boot::format(&image, ram).map_err(|error| unusable(path, &error))?;
        let modules = match &self.initrd {
            None => Vec::new(),
            Some(file) if format == Format::Linux => vec![Module {
                content: read(Path::new(file))?,
                command_line: String::new(),
            }],
            Some(list) => modules(list)?,
        };
        Ok(Some(Loaded {
            args: self,
            path,
            name: path.display().to_string(),
            image,
            modules,
            ram,
        }))
    }
}

impl Loaded<'_> {
    fn kernel(&self) -> Kernel<'_> {
        Kernel {
            image: &self.image,
            name: &self.name,
            command_line: &self.args.append,
            modules: &self.modules,
            entry: match self.args.kernel_entry {
                EntryArg::Auto => KernelEntry::Auto,
                EntryArg::Real => KernelEntry::Real,
                EntryArg::Protected => KernelEntry::Protected,
                EntryArg::Long => KernelEntry::Long,
            },
            random_seed: self.args.kernel_seed.map(seed),
        }
    }

    /// With firmware: gives it the kernel to start.
    pub fn offer(&self, config: &mut PcConfig) -> Result<(), Failure> {
        if config.firmware.is_some() {
            let kernel = boot::FirmwareKernel::new(self.ram, &self.kernel());
            config.firmware_kernel = Some(kernel.map_err(|e| unusable(self.path, &e))?);
        }
        Ok(())
    }

    /// Without firmware: makes the kernel's entry the next instruction.
    pub fn start(&self, machine: &mut Machine) -> Result<(), Failure> {
        if self.args.bios.is_none() {
            boot::load(machine, self.ram, &self.kernel())
                .map_err(|error| unusable(self.path, &error))?;
        }
        Ok(())
    }
}

/// The modules of a list: commas separate them, two commas are one. The first word of each is the
/// file, the whole is the module's command line.
fn modules(list: &str) -> Result<Vec<Module>, Failure> {
    let words = list.replace(",,", "\0");
    let read = |text: &str| {
        let text = text.replace('\0', ",");
        let file = text.split(' ').next().unwrap_or("");
        Ok(Module {
            content: read(Path::new(file))?,
            command_line: text,
        })
    };
    words.split(',').map(read).collect()
}

/// 32 bytes made of a number (the steps of SplitMix64).
fn seed(number: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (n, part) in (1..).zip(bytes.chunks_exact_mut(8)) {
        let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(n));
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        part.copy_from_slice(&(z ^ z >> 31).to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_separated_by_commas() {
        let dir = std::env::temp_dir().join(format!("metaphrase-modules-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let [a, b] = ["a", "b,c"].map(|name| dir.join(name));
        std::fs::write(&a, "first").expect("a file");
        std::fs::write(&b, "second").expect("a file");
        let list = format!("{} x y,{}/b,,c", a.display(), dir.display());
        let found = modules(&list).map_err(|failure| failure.message);
        let found = found.expect("two modules");
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].content, b"first");
        assert_eq!(found[0].command_line, format!("{} x y", a.display()));
        assert_eq!(found[1].content, b"second");
        assert_eq!(found[1].command_line, b.display().to_string());
        assert!(modules("/nowhere/at/all").is_err());
        std::fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn seeds_differ() {
        assert_ne!(seed(1), seed(2));
        assert_eq!(seed(3), seed(3));
    }
}
