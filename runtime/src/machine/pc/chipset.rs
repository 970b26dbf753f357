//! The part of a PC's board that decides what answers where: the host bridge with shadowing and
//! SMRAM, and the functions whose ranges move.

use super::Pins;
use crate::memory::PhysMemory;
use metaphrase_devices::apic::{self, Apics};
use metaphrase_devices::i440fx::I440fx;
use metaphrase_devices::pci::{Mapping, MappingChange, PciAddress, PciHost};
use metaphrase_devices::{Bus, BusDevice, Shared, Width};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The video memory, behind which SMRAM is.
pub(super) const VIDEO: (u64, u64) = (0xa_0000, 0x2_0000);

/// What makes memory and ports follow what the guest has set.
pub trait Chipset: Send {
    /// Maps everything as it is set; `smm` is whether the processor is in system-management mode.
    fn follow(&mut self, ports: &mut Bus, memory: &PhysMemory, smm: bool);

    /// The machine is reset.
    fn reset(&mut self);
}

/// Gives what answers at a range of a function, by the number of its base address register.
pub(super) type Ranges = Box<dyn Fn(u8) -> Option<Box<dyn BusDevice>> + Send>;

/// The chipset of a PC.
pub(super) struct PcChipset {
    pub(super) host: Shared<PciHost>,
    pub(super) bridge: Shared<I440fx>,
    pub(super) apics: Shared<Apics>,
    /// Where the local APIC is attached.
    pub(super) apic_at: Option<u64>,
    /// What answers at the ranges of functions.
    pub(super) ranges: BTreeMap<PciAddress, Ranges>,
    /// What has to be done to devices at a reset.
    pub(super) resets: Vec<Box<dyn FnMut() + Send>>,
}

impl PcChipset {
    fn device(&self, change: &MappingChange) -> Option<Box<dyn BusDevice>> {
        self.ranges.get(&change.function)?(change.bar)
    }

    /// Moves the local APIC to where IA32_APIC_BASE says. It does not show where RAM is.
    fn move_apic(&mut self, mmio: &mut Bus) {
        const ENABLED: u64 = 1 << 11;
        let base = self.apics.lock().base(0);
        let wanted = (base & ENABLED != 0).then_some(base & !(apic::LEN - 1));
        if wanted == self.apic_at {
            return;
        }
        if let Some(old) = self.apic_at.take() {
            mmio.detach(old);
        }
        if let Some(new) = wanted {
            let range = mmio.attach(new, apic::LEN, "local APIC", self.apics.local(0));
            self.apic_at = range.is_ok().then_some(new);
        }
    }

    fn move_ranges(&self, changes: &[MappingChange], io: bool, bus: &mut Bus) {
        let of = |mapping: Option<Mapping>| mapping.filter(|m| m.io == io);
        for old in changes.iter().filter_map(|change| of(change.old)) {
            bus.detach(old.start);
        }
        for change in changes {
            if let Some(new) = of(change.new)
                && let Some(device) = self.device(change)
            {
                let name = format!("PCI {:?}", change.function);
                // A guest that maps one device over another sees the one that was there.
                let _ = bus.attach(new.start, new.len, &name, device);
            }
        }
    }
}

impl Chipset for PcChipset {
    fn follow(&mut self, ports: &mut Bus, memory: &PhysMemory, smm: bool) {
        let changes = self.host.lock().take_changes();
        if !changes.is_empty() {
            self.move_ranges(&changes, true, ports);
            self.move_ranges(&changes, false, &mut memory.mmio());
        }
        self.move_apic(&mut memory.mmio());
        let mut bridge = self.bridge.lock();
        if bridge.take_changed() {
            for s in bridge.shadows() {
                memory.set_shadow(s.start, s.len, s.read_ram, s.write_ram);
            }
        }
        let smram = bridge.smram();
        // That code is fetched from SMRAM while data accesses go to the video memory (closed) is
        // not told apart: all of it is SMRAM.
        let shown = smram.enabled && (smram.open || smm);
        memory.set_shadow(VIDEO.0, VIDEO.1, shown, shown);
    }

    fn reset(&mut self) {
        self.bridge.lock().reset();
        for reset in &mut self.resets {
            reset();
        }
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
