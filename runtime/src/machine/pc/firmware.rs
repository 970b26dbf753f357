//! The firmware's ROM, what it is told about the machine, and what is set up in its place.

use super::PcError;
use crate::memory::PhysMemory;
use metaphrase_devices::PortDevice;
use metaphrase_devices::Shared;
use metaphrase_devices::acpi_pm::{self, AcpiPm};
use metaphrase_devices::fw_cfg::{self, FwCfg};
use metaphrase_devices::pci::PciFunction;
use metaphrase_devices::piix::PowerFunction;
use metaphrase_devices::rtc::Rtc;

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
/// of 64 KiB from 16 MiB on, and what to boot from.
pub(super) fn fill_nvram(rtc: &mut Rtc, ram: u64) {
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
    // Disk, then CD-ROM, then floppy; the last in the upper half of the other byte.
    rtc.set_ram(0x3d, 0x32);
    rtc.set_ram(0x38, 0x10);
}

/// What firmware finds in the configuration device.
pub(super) fn fill_settings(settings: &mut FwCfg, ram: u64) {
    settings.set(fw_cfg::RAM_SIZE, ram.to_le_bytes());
    settings.set(fw_cfg::CPUS, 1u16.to_le_bytes());
    settings.set(fw_cfg::MAX_CPUS, 1u16.to_le_bytes());
    settings.set(fw_cfg::NO_GRAPHIC, 1u16.to_le_bytes());
    settings.set(fw_cfg::BOOT_MENU, 0u16.to_le_bytes());
    let mut map = Vec::new();
    map.extend(0u64.to_le_bytes());
    map.extend(ram.to_le_bytes());
    map.extend(1u32.to_le_bytes());
    settings.add_file("etc/e820", map);
}

/// Sets power management up as firmware would: its ports mapped, ACPI mode on.
pub(super) fn enable_power(power: &Shared<PowerFunction>, pm: &Shared<AcpiPm>) {
    let mut power = power.lock();
    power.write_config(0x40, u32::from(PM_BASE) | 1, u32::MAX);
    power.write_config(0x80, 1, 0xff);
    // Nothing handles the SMI of it: none is asked for, as the function does not allow it.
    drop(power);
    pm.lock()
        .write_port(acpi_pm::APM_CONTROL, acpi_pm::ACPI_ENABLE);
}
