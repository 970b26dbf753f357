//! The firmware's ROM, what it is told about the machine, and what is set up in its place.

use super::isa::Isa;
use super::{BootFrom, PcError, Site, pci_setup};
use crate::cpu_model::CpuModel;
use crate::machine::acpi::{BoardTables, Tables, loader};
use crate::machine::smbios::{self, Processor, Smbios};
use crate::memory::PhysMemory;
use metaphrase_devices::acpi_pm;
use metaphrase_devices::floppy::Floppy;
use metaphrase_devices::fw_cfg::{self, FwCfg};
use metaphrase_devices::ide::Ide;
use metaphrase_devices::pci::{PciFunction, PciHost};
use metaphrase_devices::rtc::Rtc;
use metaphrase_devices::vga::Vga;
use metaphrase_devices::{PortDevice, Shared};

const FOUR_GIB: u64 = 1 << 32;
const MIB: u64 = 1 << 20;

/// Ports of power management, unless firmware puts them elsewhere.
pub(in crate::machine) const PM_BASE: u16 = 0x600;

/// Maps the ROM so that it ends at 4 GiB, and the end of it below 1 MiB too.
pub(super) fn map(memory: &mut PhysMemory, rom: &[u8]) -> Result<(), PcError> {
    const SEGMENT: usize = 0x1_0000;
    if rom.is_empty() || !rom.len().is_multiple_of(SEGMENT) || rom.len() > 16 << 20 {
        return Err(PcError::Firmware(rom.len()));
    }
    let len = rom.len() as u64;
    memory.add_rom(FOUR_GIB - len, rom)?;
    let low = len.min(0x2_0000);
    memory.show_rom(FOUR_GIB - low, MIB - low, low);
    Ok(())
}

/// What firmware finds in the NVRAM: the amount of RAM, in KiB from 1 MiB to 64 MiB and in units
/// of 64 KiB from 16 MiB on, and the floppy drives.
pub(super) fn fill_nvram(rtc: &mut Rtc, ram: u64, floppy: &Floppy) {
    let base = 640u16;
    let extended = ((ram >> 10) - 1024).min(0xfc00) as u16;
    let above = (ram.saturating_sub(16 << 20) >> 16).min(0xffff) as u16;
    for (index, value) in [
        (0x15, base),
        (0x17, extended),
        (0x30, extended),
        (0x34, above),
    ] {
        let [low, high] = value.to_le_bytes();
        rtc.set_ram(index, low);
        rtc.set_ram(index + 1, high);
    }
    let drives = [0, 1].map(|n| floppy.drive_type(n));
    rtc.set_ram(0x10, drives[0] << 4 | drives[1]);
    // Equipment: coprocessor, and the floppy drives in bits 6 and 7 if bit 0 is set.
    let count = drives.iter().filter(|kind| **kind != 0).count() as u8;
    let floppies = count.checked_sub(1).map_or(0, |more| 1 | more << 6);
    rtc.set_ram(0x14, 0x02 | 0x04 | floppies);
}

/// Tells firmware through the NVRAM what to boot from.
pub(super) fn set_boot_order(rtc: &mut Rtc, order: &[BootFrom]) {
    // The first and the second in one byte, the third in the upper half of the other. The lowest
    // bit there says that the signature of a floppy's boot sector need not be checked.
    let place = |n: usize| match order.get(n) {
        None => 0,
        Some(BootFrom::Floppy) => 1,
        Some(BootFrom::Disk) => 2,
        Some(BootFrom::Cd) => 3,
    };
    rtc.set_ram(0x3d, place(0) | place(1) << 4);
    rtc.set_ram(0x38, place(2) << 4 | 1);
}

/// What firmware finds in the configuration device.
pub(super) fn fill_settings(settings: &mut FwCfg, ram: u64, display: bool, boot_menu: bool) {
    settings.set(fw_cfg::RAM_SIZE, ram.to_le_bytes());
    settings.set(fw_cfg::CPUS, 1u16.to_le_bytes());
    settings.set(fw_cfg::MAX_CPUS, 1u16.to_le_bytes());
    settings.set(fw_cfg::NO_GRAPHIC, u16::from(!display).to_le_bytes());
    settings.set(fw_cfg::BOOT_MENU, u16::from(boot_menu).to_le_bytes());
    let mut map = Vec::new();
    map.extend(0u64.to_le_bytes());
    map.extend(ram.to_le_bytes());
    map.extend(1u32.to_le_bytes());
    settings.add_file("etc/e820", map);
}

/// Offers the tables that firmware is to pass on to its guest.
pub(super) fn offer_tables(settings: &mut FwCfg, board: &BoardTables, cpu: &CpuModel, ram: u64) {
    /// The 8254 is at input 2 of the I/O APIC.
    const TIMER_OVERRIDE: u16 = 0x8002;
    settings.set(TIMER_OVERRIDE, 1u32.to_le_bytes());
    let tables = Tables::new(board);
    settings.add_file(loader::SCRIPT, tables.script());
    settings.add_file(loader::TABLES, tables.bytes);
    settings.add_file(loader::RSDP, tables.rsdp);
    let smbios = Smbios::new(Processor::of(cpu), ram);
    settings.add_file(smbios::TABLES, smbios.structures());
    settings.add_file(smbios::ANCHOR, smbios.anchor(0));
}

/// Sets the board up as firmware would: PCI devices with their ranges and interrupts, IDE, ACPI
/// mode, a text screen.
pub(super) fn set_up(
    isa: &Isa,
    site: &Site,
    ide: &Shared<Ide>,
    vga: Option<&Shared<Vga>>,
    host: &Shared<PciHost>,
) {
    ide.lock().enable();
    let mut power = isa.power.lock();
    power.write_config(0x40, u32::from(PM_BASE) | 1, u32::MAX);
    power.write_config(0x80, 1, 0xff);
    // Nothing handles the SMI of it: none is asked for, as the function does not allow it.
    drop(power);
    isa.pm
        .lock()
        .write_port(acpi_pm::APM_CONTROL, acpi_pm::ACPI_ENABLE);
    pci_setup::assign(&mut host.lock());
    // RAM at F0000h, for tables that a kernel looks for there.
    pci_setup::show_low_tables(&mut host.lock());
    let mut pic = site.irqs.pic.lock();
    for irq in pci_setup::ROUTES {
        let port = 0x4d0 + u16::from(irq >> 3);
        let level = pic.read_port(port) | 1 << (irq & 7);
        pic.write_port(port, level);
    }
    drop(pic);
    if let Some(vga) = vga {
        vga.lock().show_text();
    }
}
