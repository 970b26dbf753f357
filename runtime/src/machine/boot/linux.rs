//! The Linux boot protocol (Linux documentation, x86/boot): bzImages, with their 16-bit, 32-bit and
//! 64-bit entries. memtest86+ and iPXE come in the same format.
//!
//! The 16-bit entry is the real-mode code at the beginning of the file, which asks firmware about the
//! machine; the others are told by the boot parameters ("zero page").

use super::bytes::{slice, u16_at, u32_at, u64_at};
use super::cpu::Entry;
use super::error::BootError;
use super::map;
use super::plan::{HIGH_START, Plan};
use super::{Kernel, KernelEntry};

/// Offsets in the setup header, which are the same in the file and in the boot parameters.
mod header {
    /// Sectors of the real-mode part, without the first.
    pub const SETUP_SECTS: usize = 0x1f1;
    /// The second byte of a jump: the length of the header's tail.
    pub const JUMP: usize = 0x201;
    /// `HdrS`.
    pub const MAGIC: usize = 0x202;
    /// Protocol version.
    pub const VERSION: usize = 0x206;
    /// Who loads.
    pub const TYPE_OF_LOADER: usize = 0x210;
    /// See the constants beginning with LOAD.
    pub const LOADFLAGS: usize = 0x211;
    /// The 32-bit entry, where the protected-mode part is to be loaded.
    pub const CODE32_START: usize = 0x214;
    /// Address of the initial RAM disk.
    pub const RAMDISK_IMAGE: usize = 0x218;
    /// Its length.
    pub const RAMDISK_SIZE: usize = 0x21c;
    /// The end of the real-mode part's heap, from its beginning, less 200h.
    pub const HEAP_END: usize = 0x224;
    /// Address of the command line.
    pub const CMD_LINE_PTR: usize = 0x228;
    /// The highest address that the RAM disk may take (2.03).
    pub const INITRD_ADDR_MAX: usize = 0x22c;
    /// Bytes of the command line without the zero (2.06).
    pub const CMDLINE_SIZE: usize = 0x238;
    /// Which entries there are (2.12).
    pub const XLOADFLAGS: usize = 0x236;
    /// A list of things that the loader adds (2.09).
    pub const SETUP_DATA: usize = 0x250;
    /// Where it would like to be (2.10).
    pub const PREF_ADDRESS: usize = 0x258;
    /// How much memory it needs from there on before it looks at the memory map (2.10).
    pub const INIT_SIZE: usize = 0x260;
    /// The end of all that.
    pub const END: usize = 0x290;
    /// ACPI root pointer, in the boot parameters.
    pub const ACPI_RSDP: usize = 0x070;
    /// Number of entries in the memory map, in the boot parameters.
    pub const E820_ENTRIES: usize = 0x1e8;
    /// The memory map, in the boot parameters.
    pub const E820_TABLE: usize = 0x2d0;
}

/// The protected-mode part is to be loaded at 1 MiB.
const LOADED_HIGH: u8 = 1;
/// The heap's end is given.
const CAN_USE_HEAP: u8 = 0x80;
/// There is a 64-bit entry 200h behind the 32-bit one.
const KERNEL_64: u16 = 1;
/// No loader that has a number.
const UNDEFINED_LOADER: u8 = 0xff;

/// Where the boot parameters, or the real-mode part, go.
pub const PARAMS: u64 = 0x1_0000;
/// The stack and the heap of the real-mode part end there, from its beginning.
pub const REAL_END: u16 = 0xe000;
/// Where the command line goes.
const COMMAND_LINE: u64 = 0x2_0000;
/// Bytes that are left for it.
const MOST_COMMAND_LINE: usize = 0xffff;
const PARAMS_LEN: usize = 4096;
const SECTOR: u64 = 512;
/// The identity of a random seed in the list of things added.
const SETUP_RNG_SEED: u32 = 9;

/// What the setup header says.
#[derive(Debug)]
struct Setup {
    version: u16,
    /// Bytes of the real-mode part.
    real_len: u64,
    load: u32,
    initrd_max: u64,
    command_line: usize,
    wide: bool,
    /// Where the kernel ends before it knows how much memory there is.
    end: u64,
}

impl Setup {
    fn parse(image: &[u8]) -> Result<Setup, BootError> {
        let missing = BootError::Truncated("the setup header");
        let version = u16_at(image, header::VERSION);
        let flags = image.get(header::LOADFLAGS);
        let (Some(version), Some(flags)) = (version, flags) else {
            return Err(missing);
        };
        let [minor, major] = version.to_le_bytes();
        if version < 0x202 || flags & LOADED_HIGH == 0 {
            return Err(BootError::TooOld { major, minor });
        }
        let sectors = match image[header::SETUP_SECTS] {
            0 => 4,
            n => u64::from(n),
        };
        let real_len = (sectors + 1) * SECTOR;
        let body = (image.len() as u64)
            .checked_sub(real_len)
            .filter(|len| *len > 0)
            .ok_or(BootError::Truncated("the protected-mode part"))?;
        // Fields that came later are there only if the version says so.
        let since = |version_of: u16, at: usize| match version >= version_of {
            true => u32_at(image, at),
            false => None,
        };
        let load = u32_at(image, header::CODE32_START).unwrap_or(0);
        let at = u64::from(load);
        let end = match since(0x20a, header::INIT_SIZE) {
            Some(size) => {
                let preferred = u64_at(image, header::PREF_ADDRESS).unwrap_or(at);
                at.max(preferred).saturating_add(size.into())
            }
            // How much it needs is not said; four times its length has been enough for all.
            None => at + 4 * body,
        };
        let command_line = since(0x206, header::CMDLINE_SIZE).map_or(255, |n| n as usize);
        Ok(Setup {
            version,
            real_len,
            load,
            initrd_max: since(0x203, header::INITRD_ADDR_MAX)
                .unwrap_or(0)
                .max(0x37ff_ffff)
                .into(),
            command_line: command_line.min(MOST_COMMAND_LINE),
            wide: version >= 0x20c
                && u16_at(image, header::XLOADFLAGS).is_some_and(|flags| flags & KERNEL_64 != 0),
            end: end.max(at + body),
        })
    }
}

/// Sets fields of a header.
fn put(header: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = header.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}

/// Puts everything but the real-mode part into memory: command line, kernel and initial RAM disk,
/// which the header is told.
fn place<'a>(
    plan: &mut Plan<'a>,
    setup: &Setup,
    kernel: &Kernel<'a>,
    image: &'a [u8],
    top: u64,
    header: &mut [u8],
) -> Result<(), BootError> {
    let text = map::terminated(kernel.command_line)?;
    if text.len() > setup.command_line + 1 {
        return Err(BootError::CommandLine(setup.command_line));
    }
    let initrd = match kernel.modules {
        [] => &[][..],
        [one] => &one.content,
        more => return Err(BootError::Modules(more.len())),
    };
    let body = slice(image, setup.real_len, image.len() as u64 - setup.real_len).unwrap_or(&[]);
    plan.put("the command line", COMMAND_LINE, text, 0)?;
    // An iPXE image, which has no 32-bit entry, leaves the address to its loader.
    let at = if setup.load == 0 {
        HIGH_START
    } else {
        setup.load.into()
    };
    let needed = setup.end.saturating_sub(at);
    if setup.end > top {
        return Err(BootError::NoRoom {
            what: "the kernel",
            len: needed,
            needed: (setup.end >> 20) + 1,
        });
    }
    plan.put("the kernel", at, body, needed)?;
    put(header, header::TYPE_OF_LOADER, &[UNDEFINED_LOADER]);
    put(
        header,
        header::CMD_LINE_PTR,
        &(COMMAND_LINE as u32).to_le_bytes(),
    );
    if !initrd.is_empty() {
        let limit = top.min(setup.initrd_max + 1);
        let at = plan.place_high("the initial RAM disk", setup.end, limit, initrd)?;
        put(header, header::RAMDISK_IMAGE, &(at as u32).to_le_bytes());
        put(
            header,
            header::RAMDISK_SIZE,
            &(initrd.len() as u32).to_le_bytes(),
        );
    }
    Ok(())
}

/// Plans a start without firmware.
pub fn plan<'a>(
    plan: &mut Plan<'a>,
    kernel: &Kernel<'a>,
    image: &'a [u8],
) -> Result<Entry, BootError> {
    let setup = Setup::parse(image)?;
    let wide = match kernel.entry {
        KernelEntry::Real => return Err(BootError::NeedsFirmware),
        KernelEntry::Long if !setup.wide => return Err(BootError::NoEntry("64-bit")),
        KernelEntry::Long => true,
        KernelEntry::Auto | KernelEntry::Protected => false,
    };
    if u64::from(setup.load) < HIGH_START {
        return Err(match kernel.entry {
            KernelEntry::Auto => BootError::NeedsFirmware,
            _ => BootError::NoEntry("32-bit"),
        });
    }
    let mut params = vec![0; PARAMS_LEN];
    let jump = image.get(header::JUMP).copied().unwrap_or(0);
    let end = (header::MAGIC + usize::from(jump)).min(header::END);
    let copied = image
        .get(header::SETUP_SECTS..end)
        .ok_or(BootError::Truncated("the setup header"))?;
    put(&mut params, header::SETUP_SECTS, copied);
    place(plan, &setup, kernel, image, plan.ram(), &mut params)?;
    if setup.version >= 0x20e {
        put(&mut params, header::ACPI_RSDP, &map::RSDP.to_le_bytes());
    }
    if let Some(seed) = kernel.random_seed {
        if setup.version < 0x209 {
            return Err(BootError::TooOld {
                major: 2,
                minor: setup.version as u8,
            });
        }
        let at = plan.place_anywhere("the random seed", 8, seed_node(&seed))?;
        put(&mut params, header::SETUP_DATA, &at.to_le_bytes());
    }
    for (n, (start, len, kind)) in map::ranges(plan.ram()).into_iter().enumerate() {
        let at = header::E820_TABLE + 20 * n;
        put(&mut params, at, &start.to_le_bytes());
        put(&mut params, at + 8, &len.to_le_bytes());
        put(&mut params, at + 16, &kind.to_le_bytes());
        put(&mut params, header::E820_ENTRIES, &[n as u8 + 1]);
    }
    plan.put("the boot parameters", PARAMS, params, 0)?;
    if wide {
        Entry::long(plan, u64::from(setup.load) + 0x200, PARAMS)
    } else {
        Entry::protected(plan, setup.load, [0, 0, PARAMS as u32])
    }
}

/// An element of the list of things that a loader adds: the last one, a random seed.
fn seed_node(seed: &[u8; 32]) -> Vec<u8> {
    let mut node = vec![0; 8];
    node.extend(SETUP_RNG_SEED.to_le_bytes());
    node.extend((seed.len() as u32).to_le_bytes());
    node.extend(seed);
    node
}

/// Plans a start through firmware, which the real-mode part asks; RAM from `top` on is the
/// firmware's.
pub fn plan_real<'a>(
    plan: &mut Plan<'a>,
    kernel: &Kernel<'a>,
    image: &'a [u8],
    top: u64,
) -> Result<(), BootError> {
    let setup = Setup::parse(image)?;
    if !matches!(kernel.entry, KernelEntry::Auto | KernelEntry::Real) {
        return Err(BootError::NotThroughFirmware);
    }
    let mut real = slice(image, 0, setup.real_len)
        .ok_or(BootError::Truncated("the real-mode part"))?
        .to_vec();
    if real.len() > usize::from(REAL_END) {
        return Err(BootError::Damaged("its real-mode part is too long"));
    }
    place(plan, &setup, kernel, image, top, &mut real)?;
    real[header::LOADFLAGS] |= CAN_USE_HEAP;
    put(
        &mut real,
        header::HEAP_END,
        &(REAL_END - 0x200).to_le_bytes(),
    );
    plan.put("the real-mode part", PARAMS, real, 0x1_0000)
}
