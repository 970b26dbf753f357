//! Starting a Linux bzImage without firmware: the 32-bit boot protocol (Linux documentation,
//! x86/boot). memtest86+ comes in the same format.

use super::{Machine, acpi};
use crate::system::attr;
use crate::system::state::cr0;

/// Where the boot parameters ("zero page") go.
const PARAMS: u64 = 0x1_0000;
/// Where the command line goes.
const COMMAND_LINE: u64 = 0x2_0000;
/// Where the GDT goes.
const GDT: u64 = 0x1_8000;
/// Where the ACPI tables go, below the extended BIOS data area.
const TABLES: u64 = 0x9_f000;
/// The extended BIOS data area, where the pointer to them is, and the word that names its segment.
const EBDA: u64 = 0x9_fc00;
const EBDA_SEGMENT: u64 = 0x40e;
/// Memory of PCI functions, and above it chips and firmware.
const PCI_SPACE: std::ops::Range<u64> = 0xc000_0000..0x1_0000_0000;
/// Bytes of the boot parameters.
const PARAMS_LEN: usize = 4096;
/// Bytes of a sector.
const SECTOR: usize = 512;

/// Offsets in the setup header, which are the same in the file and in the boot parameters.
mod header {
    /// Sectors of the real-mode part, without the first.
    pub const SETUP_SECTS: usize = 0x1f1;
    /// `0xaa55`.
    pub const BOOT_FLAG: usize = 0x1fe;
    /// Length of the header's tail.
    pub const JUMP: usize = 0x201;
    /// `HdrS`.
    pub const MAGIC: usize = 0x202;
    /// Protocol version.
    pub const VERSION: usize = 0x206;
    /// Who loads.
    pub const TYPE_OF_LOADER: usize = 0x210;
    /// Bit 0: the protected-mode part goes to 1 MiB.
    pub const LOADFLAGS: usize = 0x211;
    /// The 32-bit entry.
    pub const CODE32_START: usize = 0x214;
    /// Address of the initial RAM disk.
    pub const RAMDISK_IMAGE: usize = 0x218;
    /// Its length.
    pub const RAMDISK_SIZE: usize = 0x21c;
    /// Address of the command line.
    pub const CMD_LINE_PTR: usize = 0x228;
    /// The highest address that the RAM disk may take.
    pub const INITRD_ADDR_MAX: usize = 0x22c;
    /// Number of entries in the memory map, in the boot parameters.
    pub const E820_ENTRIES: usize = 0x1e8;
    /// The memory map, in the boot parameters.
    pub const E820_TABLE: usize = 0x2d0;
}

/// Why an image cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// It has no setup header.
    #[error("not a Linux bzImage: no setup header")]
    NoHeader,
    /// It is older than what is needed, or not loaded high.
    #[error(
        "the bzImage follows boot protocol {major}.{minor}; 2.03 or later and a high load address are needed"
    )]
    TooOld {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// RAM does not hold everything.
    #[error("{needed} MiB of RAM are needed to load this")]
    TooLarge {
        /// In MiB.
        needed: u64,
    },
    /// The command line is too long.
    #[error("the kernel's command line may have at most 2047 bytes")]
    CommandLine,
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(found) = bytes.get(at..at + N) {
        out.copy_from_slice(found);
    }
    out
}

/// Loads the image, the initial RAM disk and the command line, and makes the 32-bit entry the next
/// instruction. `ram` is the number of bytes of RAM from address 0 on, the hole included.
///
/// # Errors
/// If it is no bzImage or does not fit.
pub fn load(
    machine: &mut Machine,
    ram: u64,
    image: &[u8],
    initrd: &[u8],
    command_line: &str,
) -> Result<(), BootError> {
    let flag = u16::from_le_bytes(word(image, header::BOOT_FLAG));
    if flag != 0xaa55 || word::<4>(image, header::MAGIC) != *b"HdrS" {
        return Err(BootError::NoHeader);
    }
    let [minor, major] = word(image, header::VERSION);
    let [loadflags] = word(image, header::LOADFLAGS);
    if (major, minor) < (2, 3) || loadflags & 1 == 0 {
        return Err(BootError::TooOld { major, minor });
    }
    if command_line.len() > 2047 {
        return Err(BootError::CommandLine);
    }
    let sectors = match word(image, header::SETUP_SECTS) {
        [0] => 4,
        [n] => usize::from(n),
    };
    let body = image.get((sectors + 1) * SECTOR..).unwrap_or(&[]);
    let entry = u64::from(u32::from_le_bytes(word(image, header::CODE32_START)));
    let highest = u64::from(u32::from_le_bytes(word(image, header::INITRD_ADDR_MAX)));
    let top = ram.min(highest.max(0x37ff_ffff) + 1);
    let disk = top.saturating_sub(initrd.len() as u64) & !0xfff;
    if disk < entry.saturating_add(4 * body.len() as u64) {
        let needed = (entry + 4 * body.len() as u64 + initrd.len() as u64) >> 20;
        return Err(BootError::TooLarge { needed: needed + 1 });
    }

    let mut params = vec![0; PARAMS_LEN];
    let end = (header::MAGIC + usize::from(word::<1>(image, header::JUMP)[0])).min(image.len());
    let end = end.min(header::E820_TABLE);
    params[header::SETUP_SECTS..end].copy_from_slice(&image[header::SETUP_SECTS..end]);
    let mut put = |at: usize, bytes: &[u8]| params[at..at + bytes.len()].copy_from_slice(bytes);
    put(header::TYPE_OF_LOADER, &[0xff]);
    put(header::CMD_LINE_PTR, &(COMMAND_LINE as u32).to_le_bytes());
    if !initrd.is_empty() {
        put(header::RAMDISK_IMAGE, &(disk as u32).to_le_bytes());
        put(header::RAMDISK_SIZE, &(initrd.len() as u32).to_le_bytes());
    }
    let map = [
        (0, TABLES, 1u32),
        (TABLES, 0xa_0000 - TABLES, 2),
        (0xf_0000, 0x1_0000, 2),
    ];
    let map = map.into_iter().chain([(0x10_0000, ram - 0x10_0000, 1)]);
    for (n, (start, len, kind)) in map.enumerate() {
        let at = header::E820_TABLE + 20 * n;
        put(at, &u64::to_le_bytes(start));
        put(at + 8, &u64::to_le_bytes(len));
        put(at + 16, &kind.to_le_bytes());
        put(header::E820_ENTRIES, &[n as u8 + 1]);
    }

    let memory = machine.memory();
    let acpi = acpi::image(TABLES);
    memory.write_bytes(acpi.base, &acpi.tables);
    memory.write_bytes(EBDA, &acpi.rsdp);
    memory.write_bytes(EBDA_SEGMENT, &((EBDA >> 4) as u16).to_le_bytes());
    memory.write_bytes(entry, body);
    memory.write_bytes(disk, initrd);
    memory.write_bytes(PARAMS, &params);
    memory.write_bytes(COMMAND_LINE, command_line.as_bytes());
    memory.write_bytes(COMMAND_LINE + command_line.len() as u64, &[0]);
    let gdt: [u64; 4] = [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
    let bytes: Vec<u8> = gdt.iter().flat_map(|d| d.to_le_bytes()).collect();
    memory.write_bytes(GDT, &bytes);
    enter(machine, entry);
    Ok(())
}

/// Flat protected mode, paging off: CS 10h, the others 18h, ESI at the boot parameters.
fn enter(machine: &mut Machine, entry: u64) {
    const FLAT: u32 = attr::P | attr::S | attr::RW | attr::ACCESSED | attr::DB | attr::G;
    let s = machine.state_mut();
    s.gpr = [0; 16];
    s.gpr[metaphrase_ir::Reg::Rsi as usize] = PARAMS;
    s.set_rflags(2);
    s.rip = entry;
    s.seg_base = [0; 6];
    s.seg_sel = [0x18; 6];
    s.seg_sel[1] = 0x10;
    s.sys.seg_limit = [u32::MAX; 6];
    s.sys.seg_attr = [FLAT; 6];
    s.sys.seg_attr[1] = FLAT | attr::CODE;
    s.sys.cr0 = cr0::PE | cr0::ET;
    s.sys.gdtr.base = GDT;
    s.sys.gdtr.limit = 31;
    set_memory_types(machine);
    machine.touch();
}

/// The memory types that firmware leaves: write-back but for the adapters' memory, their ROMs and
/// the space of PCI. A kernel that finds the registers off takes its page attributes as unusable.
fn set_memory_types(machine: &mut Machine) {
    const WRITE_BACK: u64 = 0x0606_0606_0606_0606;
    const WRITE_PROTECTED: u64 = 0x0505_0505_0505_0505;
    /// Both kinds of ranges are on; elsewhere memory is write-back.
    const ENABLED: u64 = 0xc00 | 6;
    let bits = machine.vcpu.env.cpu.physical_bits();
    let msr = &mut machine.state_mut().sys.msr;
    msr.mtrr_fixed = [WRITE_PROTECTED; 11];
    msr.mtrr_fixed[..2].fill(WRITE_BACK);
    msr.mtrr_fixed[2] = 0;
    let mask = (1 << bits) - PCI_SPACE.end + PCI_SPACE.start;
    msr.mtrr_variable[0] = [PCI_SPACE.start, mask | 1 << 11];
    msr.mtrr_def_type = ENABLED;
}
