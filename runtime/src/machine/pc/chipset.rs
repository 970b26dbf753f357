//! The part of a PC's board that decides what answers where: the host bridge with shadowing and
//! SMRAM, and the functions whose ports move.

use super::Pins;
use crate::memory::PhysMemory;
use metaphrase_devices::acpi_pm::AcpiPm;
use metaphrase_devices::fw_cfg::FwCfg;
use metaphrase_devices::i440fx::I440fx;
use metaphrase_devices::ide::Ide;
use metaphrase_devices::pci::{MappingChange, PciAddress, PciHost};
use metaphrase_devices::{Bus, BusDevice, Shared, Width};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The host bridge.
pub(super) const HOST_BRIDGE: PciAddress = PciAddress::new(0, 0);
/// The ISA bridge.
pub(super) const ISA_BRIDGE: PciAddress = PciAddress::new(1, 0);
/// The IDE controller.
pub(super) const IDE: PciAddress = PciAddress::new(1, 1);
/// Power management.
pub(super) const POWER: PciAddress = PciAddress::new(1, 3);

/// The video memory, behind which SMRAM is.
const VIDEO: (u64, u64) = (0xa_0000, 0x2_0000);

/// What makes memory and ports follow what the guest has set.
pub trait Chipset: Send {
    /// Maps everything as it is set; `smm` is whether the processor is in system-management mode.
    fn follow(&mut self, ports: &mut Bus, memory: &PhysMemory, smm: bool);

    /// The machine is reset.
    fn reset(&mut self);
}

/// The chipset of a PC.
pub(super) struct PcChipset {
    pub(super) host: Shared<PciHost>,
    pub(super) bridge: Shared<I440fx>,
    pub(super) ide: Shared<Ide>,
    pub(super) pm: Shared<AcpiPm>,
    pub(super) fw_cfg: Shared<FwCfg>,
}

impl PcChipset {
    fn device(&self, change: &MappingChange) -> Option<Box<dyn BusDevice>> {
        match change.function {
            IDE => Some(self.ide.bus_master()),
            POWER => Some(Box::new(self.pm.clone())),
            _ => None,
        }
    }
}

impl Chipset for PcChipset {
    fn follow(&mut self, ports: &mut Bus, memory: &PhysMemory, smm: bool) {
        let changes = self.host.lock().take_changes();
        for change in &changes {
            if let Some(old) = change.old.filter(|old| old.io) {
                ports.detach(old.start);
            }
        }
        for change in &changes {
            if let Some(new) = change.new.filter(|new| new.io)
                && let Some(device) = self.device(change)
            {
                let name = format!("PCI {:?}", change.function);
                // A guest that maps one device over another sees the one that was there.
                let _ = ports.attach(new.start, new.len, &name, device);
            }
        }
        let mut bridge = self.bridge.lock();
        bridge.take_changed();
        for s in bridge.shadows() {
            memory.set_shadow(s.start, s.len, s.read_ram, s.write_ram);
        }
        let smram = bridge.smram();
        // That code is fetched from SMRAM while data accesses go to the video memory (closed) is
        // not told apart: all of it is SMRAM.
        let shown = smram.enabled && (smram.open || smm);
        memory.set_shadow(VIDEO.0, VIDEO.1, shown, shown);
    }

    fn reset(&mut self) {
        self.bridge.lock().reset();
        self.ide.lock().reset();
        self.fw_cfg.lock().reset();
        self.host.lock().refresh();
    }
}

/// The configuration ports, which tell when something may have moved.
pub(super) struct ConfigPorts {
    pub(super) host: Shared<PciHost>,
    pub(super) pins: Arc<Pins>,
}

impl BusDevice for ConfigPorts {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        self.host.lock().read(offset, width)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.host.lock().write(offset, width, value);
        if offset >= 4 {
            self.pins.remap.store(true, Ordering::Relaxed);
        }
    }
}
