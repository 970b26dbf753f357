//! The memory map that kernels are given, and what else firmware would have left in memory.

use super::error::BootError;
use super::plan::{HIGH_START, LOW_END, Plan};
use crate::machine::smbios::{self, Processor, Smbios};
use crate::machine::{Machine, acpi};

/// Where the ACPI tables go, below the extended BIOS data area.
const TABLES: u64 = LOW_END;
/// The extended BIOS data area, with the pointer to the tables.
const EBDA: u64 = 0x9_fc00;
/// The end of RAM below the adapters.
const ADAPTERS: u64 = 0xa_0000;
/// Where a ROM would be.
const ROM: u64 = 0xf_0000;

/// The address of the root pointer of the ACPI tables.
pub const RSDP: u64 = EBDA + 0x10;
/// The code that answers calls of BIOS services.
const SERVICES: u64 = EBDA + 0x100;
/// KiB of RAM from address 0 on.
pub const LOW_KIB: u32 = (LOW_END >> 10) as u32;

/// RAM that is free for all.
pub const RAM: u32 = 1;
/// In use.
pub const RESERVED: u32 = 2;

/// The map: start, length and kind of each range.
pub fn ranges(ram: u64) -> Vec<(u64, u64, u32)> {
    let mut map = vec![
        (0, TABLES, RAM),
        (TABLES, ADAPTERS - TABLES, RESERVED),
        (ROM, HIGH_START - ROM, RESERVED),
    ];
    if let Some(high) = ram.checked_sub(HIGH_START).filter(|len| *len > 0) {
        map.push((HIGH_START, high, RAM));
    }
    map
}

/// Memory of PCI functions, and above it chips and firmware.
const PCI_SPACE: std::ops::Range<u64> = 0xc000_0000..0x1_0000_0000;

/// What any BIOS service answers: carry, and "function not supported" in AH.
#[rustfmt::skip]
const REFUSE: [u8; 11] = [
    0x55, 0x89, 0xe5,             // push bp; mov bp, sp
    0x80, 0x4e, 0x06, 0x01,       // or byte [bp + 6], 1: carry in the flags on the stack
    0x5d,                         // pop bp
    0xb4, 0x86,                   // mov ah, 86h
    0xcf,                         // iret
];

/// Writes the ACPI and SMBIOS tables, those words of the BIOS data area that kernels look at, and services that
/// refuse: some kernels go back to real mode and ask, whatever has started them.
pub fn leave_as_firmware(machine: &mut Machine, ram: u64) {
    // Memory as the chipset was set up: RAM for the tables at F0000h.
    machine.remap(false);
    let cpu = Processor::of(&machine.vcpu.env.cpu);
    let acpi = acpi::Tables::new(&machine.tables).placed(TABLES);
    let memory = machine.memory();
    memory.write_bytes(smbios::BASE, &Smbios::new(cpu, ram).image());
    memory.write_bytes(acpi.base, &acpi.tables);
    memory.write_bytes(RSDP, &acpi.rsdp);
    memory.write_bytes(SERVICES, &REFUSE);
    let vector = (EBDA << 12 | (SERVICES - EBDA)) as u32;
    memory.write_bytes(0, &vector.to_le_bytes().repeat(256));
    let words: [(u64, u16); 6] = [
        // The size of the extended BIOS data area in KiB.
        (EBDA, 1),
        // The first serial port.
        (0x400, 0x3f8),
        // The segment of the extended BIOS data area.
        (0x40e, (EBDA >> 4) as u16),
        // KiB of RAM.
        (0x413, LOW_KIB as u16),
        // Columns of text, and the port of the CRT controller.
        (0x44a, 80),
        (0x463, 0x3d4),
    ];
    for (at, word) in words {
        memory.write_bytes(at, &word.to_le_bytes());
    }
    set_memory_types(machine);
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

/// A command line, with the zero behind it.
pub fn terminated(text: &str) -> Result<Vec<u8>, BootError> {
    if text.contains('\0') {
        return Err(BootError::ZeroByte);
    }
    Ok([text.as_bytes(), b"\0"].concat())
}

/// Puts a command line somewhere.
pub fn place_text(plan: &mut Plan<'_>, text: &str) -> Result<u64, BootError> {
    plan.place_anywhere("a command line", 16, terminated(text)?)
}
