//! PCI: configuration mechanism 1 (PCI Local Bus Specification 3.0, section 3.2.2.3.2) and the
//! functions behind it, with the reset control register of the PIIX3 among its ports.
//!
//! Attach [`PciHost`] at CF8h for 8 ports. A 32-bit write to CF8h chooses a function and register;
//! CFCh to CFFh are that register. Where there is no function, reads give ones. CF9h, accessed as a
//! byte, is the reset control.
//!
//! When a write moves a base address register, the host cannot change the bus that it sits on. It
//! notes the [`MappingChange`], and the machine takes the changes after the access.

mod config;

use std::collections::BTreeMap;

pub use config::{
    BARS, Bar, COMMAND, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, COMMAND_NO_INTX, ConfigSpace,
    ConfigState, FIXED_INDEX, INTERRUPT_LINE, Mapping, ROM, ROM_INDEX, STATUS,
};
use serde::{Deserialize, Serialize};

use crate::{BusDevice, InterruptLine, Shared, Width};

/// First port.
pub const ADDRESS: u16 = 0xcf8;
/// Number of ports.
pub const PORTS: u64 = 8;

const RESET_CONTROL: u64 = 1;
const DATA: u64 = 4;
const ENABLE: u32 = 0x8000_0000;
const ADDRESS_WRITABLE: u32 = 0x80ff_fffc;
/// Bits of the reset control: full reset, and do it.
const RESET_WRITABLE: u8 = 0x06;
const RESET_NOW: u8 = 0x04;

/// Where a function is: bus, device and function number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PciAddress {
    /// Bus.
    pub bus: u8,
    /// Device, below 32.
    pub device: u8,
    /// Function, below 8.
    pub function: u8,
}

impl PciAddress {
    /// On the first bus.
    pub const fn new(device: u8, function: u8) -> PciAddress {
        PciAddress {
            bus: 0,
            device,
            function,
        }
    }
}

/// A function of a PCI device, as configuration accesses see it.
pub trait PciFunction: Send {
    /// Reads the register at a multiple of 4.
    fn read_config(&mut self, register: u8) -> u32;

    /// Writes the bits in `mask` of the register at a multiple of 4.
    fn write_config(&mut self, register: u8, value: u32, mask: u32);

    /// Where it answers now.
    fn mappings(&self) -> Vec<Mapping>;
}

/// A function that is nothing but its registers.
impl PciFunction for ConfigSpace {
    fn read_config(&mut self, register: u8) -> u32 {
        self.read(register)
    }

    fn write_config(&mut self, register: u8, value: u32, mask: u32) {
        self.write(register, value, mask);
    }

    fn mappings(&self) -> Vec<Mapping> {
        ConfigSpace::mappings(self)
    }
}

impl<T: PciFunction> PciFunction for Shared<T> {
    fn read_config(&mut self, register: u8) -> u32 {
        self.lock().read_config(register)
    }

    fn write_config(&mut self, register: u8, value: u32, mask: u32) {
        self.lock().write_config(register, value, mask);
    }

    fn mappings(&self) -> Vec<Mapping> {
        self.lock().mappings()
    }
}

/// A function answers at other addresses than before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MappingChange {
    /// Which function.
    pub function: PciAddress,
    /// Which of its registers.
    pub bar: u8,
    /// Where it answered before.
    pub old: Option<Mapping>,
    /// Where it answers now.
    pub new: Option<Mapping>,
}

struct Slot {
    function: Box<dyn PciFunction>,
    /// The mappings that the machine knows about.
    known: Vec<Mapping>,
}

/// The registers of the mechanism itself; each function saves its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PciHostState {
    address: u32,
    reset_control: u8,
}

/// The way to the configuration spaces.
pub struct PciHost {
    state: PciHostState,
    slots: BTreeMap<PciAddress, Slot>,
    changes: Vec<MappingChange>,
    reset: Box<dyn InterruptLine>,
}

impl PciHost {
    /// No functions yet. A pulse on `reset` resets the machine.
    pub fn new(reset: Box<dyn InterruptLine>) -> PciHost {
        PciHost {
            state: PciHostState::default(),
            slots: BTreeMap::new(),
            changes: Vec::new(),
            reset,
        }
    }

    /// Adds a function. False if the place is taken or does not exist.
    pub fn add(&mut self, at: PciAddress, function: Box<dyn PciFunction>) -> bool {
        let free = at.device < 32 && at.function < 8 && !self.slots.contains_key(&at);
        if free {
            let known = Vec::new();
            self.slots.insert(at, Slot { function, known });
            self.note(at);
        }
        free
    }

    /// What has changed since the last call: first to be taken off the bus, then to be put on.
    pub fn take_changes(&mut self) -> Vec<MappingChange> {
        std::mem::take(&mut self.changes)
    }

    /// Looks at all functions again, after their states have been restored or a device has been
    /// reset.
    pub fn refresh(&mut self) {
        let all: Vec<PciAddress> = self.slots.keys().copied().collect();
        for at in all {
            self.note(at);
        }
    }

    /// The state.
    pub fn save(&self) -> PciHostState {
        self.state
    }

    /// Takes over a state. Restore the functions before, and [`PciHost::refresh`] after.
    pub fn restore(&mut self, state: PciHostState) {
        self.state = state;
    }

    /// The chosen function and register.
    fn chosen(&self) -> Option<(PciAddress, u8)> {
        let [register, place, bus, _] = self.state.address.to_le_bytes();
        let at = PciAddress {
            bus,
            device: place >> 3,
            function: place & 7,
        };
        (self.state.address & ENABLE != 0).then_some((at, register & 0xfc))
    }

    fn read_data(&mut self) -> u32 {
        self.chosen()
            .and_then(|(at, register)| {
                let slot = self.slots.get_mut(&at)?;
                Some(slot.function.read_config(register))
            })
            .unwrap_or(u32::MAX)
    }

    fn write_data(&mut self, value: u32, mask: u32) {
        if let Some((at, register)) = self.chosen()
            && let Some(slot) = self.slots.get_mut(&at)
        {
            slot.function.write_config(register, value, mask);
            self.note(at);
        }
    }

    /// Notes how the mappings of a function differ from what is known.
    fn note(&mut self, at: PciAddress) {
        let Some(slot) = self.slots.get_mut(&at) else {
            return;
        };
        let now = slot.function.mappings();
        if now == slot.known {
            return;
        }
        let find = |all: &[Mapping], bar| all.iter().find(|m| m.bar == bar).copied();
        for bar in 0..=FIXED_INDEX {
            let (old, new) = (find(&slot.known, bar), find(&now, bar));
            if old != new {
                self.changes.push(MappingChange {
                    function: at,
                    bar,
                    old,
                    new,
                });
            }
        }
        slot.known = now;
    }

    fn write_reset_control(&mut self, value: u8) {
        let before = self.state.reset_control;
        self.state.reset_control = value & RESET_WRITABLE;
        if value & !before & RESET_NOW != 0 {
            self.reset.pulse();
        }
    }
}

impl BusDevice for PciHost {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        match (offset, width) {
            (0, Width::Dword) => u64::from(self.state.address),
            (RESET_CONTROL, Width::Byte) => u64::from(self.state.reset_control),
            (DATA.., _) => u64::from(self.read_data()) >> (8 * (offset & 3)),
            _ => width.ones(),
        }
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        match (offset, width) {
            (0, Width::Dword) => self.state.address = value as u32 & ADDRESS_WRITABLE,
            (RESET_CONTROL, Width::Byte) => self.write_reset_control(value as u8),
            (DATA.., _) => {
                let shift = 8 * (offset & 3);
                self.write_data((value << shift) as u32, (width.ones() << shift) as u32);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Probe, Random, round_trip};

    fn host() -> (PciHost, Probe) {
        let reset = Probe::default();
        let mut host = PciHost::new(reset.line());
        let mut bridge = ConfigSpace::new(0x8086, 0x1237, 0x06_0000, 2);
        bridge.set_writable(0x59, &[0xff]);
        assert!(host.add(PciAddress::new(0, 0), Box::new(bridge)));
        let mut card = ConfigSpace::new(0x1234, 0x1111, 0x03_0000, 0);
        let memory = Bar::Memory32 {
            size: 0x100_0000,
            prefetchable: true,
        };
        card.set_bar(0, memory);
        card.set_bar(2, Bar::Io { size: 16 });
        assert!(host.add(PciAddress::new(2, 0), Box::new(Shared::new(card))));
        (host, reset)
    }

    fn choose(host: &mut PciHost, device: u32, register: u32) {
        let address = 0x8000_0000 | device << 11 | register;
        host.write(0, Width::Dword, u64::from(address));
    }

    #[test]
    fn registers_in_any_width() {
        let (mut host, _) = host();
        choose(&mut host, 0, 0);
        assert_eq!(host.read(0, Width::Dword), 0x8000_0000);
        assert_eq!(host.read(4, Width::Dword), 0x1237_8086);
        assert_eq!(host.read(6, Width::Word) & 0xffff, 0x1237);
        assert_eq!(host.read(5, Width::Byte) & 0xff, 0x80);
        choose(&mut host, 0, 0x58);
        host.write(5, Width::Byte, 0x42);
        assert_eq!(host.read(4, Width::Dword), 0x4200);
    }

    #[test]
    fn nobody_there_reads_ones() {
        let (mut host, _) = host();
        choose(&mut host, 5, 0);
        assert_eq!(host.read(4, Width::Dword), 0xffff_ffff);
        host.write(0, Width::Dword, 0);
        assert_eq!(host.read(4, Width::Dword), 0xffff_ffff, "not enabled");
        host.write(0, Width::Byte, 0x80);
        assert_eq!(host.read(0, Width::Dword), 0, "a byte is another port");
        assert!(!host.add(
            PciAddress::new(0, 0),
            Box::new(ConfigSpace::new(1, 1, 0, 0))
        ));
        assert!(!host.add(
            PciAddress::new(32, 0),
            Box::new(ConfigSpace::new(1, 1, 0, 0))
        ));
    }

    #[test]
    fn the_machine_hears_of_moved_ranges() {
        let (mut host, _) = host();
        choose(&mut host, 2, 0x18);
        host.write(4, Width::Dword, 0xc040);
        assert!(host.take_changes().is_empty(), "nothing enabled");
        choose(&mut host, 2, 0x04);
        host.write(4, Width::Word, 0x3);
        let at = |start| {
            Some(Mapping {
                bar: 2,
                io: true,
                start,
                len: 16,
            })
        };
        let change = |old, new| MappingChange {
            function: PciAddress::new(2, 0),
            bar: 2,
            old,
            new,
        };
        assert_eq!(host.take_changes(), [change(None, at(0xc040))]);
        choose(&mut host, 2, 0x18);
        host.write(4, Width::Dword, 0xc080);
        assert_eq!(host.take_changes(), [change(at(0xc040), at(0xc080))]);
        host.write(4, Width::Dword, 0xffff_ffff);
        assert_eq!(host.read(4, Width::Dword), 0xffff_fff1);
        host.write(4, Width::Dword, 0xc080);
        let changes = host.take_changes();
        assert_eq!(
            changes,
            [change(at(0xc080), None), change(None, at(0xc080))]
        );
    }

    #[test]
    fn the_reset_control_resets_on_a_rise() {
        let (mut host, reset) = host();
        host.write(1, Width::Byte, 0x02);
        assert_eq!(reset.rises(), 0);
        host.write(1, Width::Byte, 0x06);
        host.write(1, Width::Byte, 0x06);
        assert_eq!(reset.rises(), 1);
        assert_eq!(host.read(1, Width::Byte), 0x06);
    }

    #[test]
    fn survives_a_storm_and_a_round_trip() {
        let (mut host, _) = host();
        let mut random = Random::new(12);
        for _ in 0..100_000 {
            let width = [Width::Byte, Width::Word, Width::Dword][random.below(3) as usize];
            let offset = random.below(8 - width.bytes() + 1);
            match random.below(4) {
                0 => choose(
                    &mut host,
                    random.below(4) as u32,
                    random.next() as u32 & 0xff,
                ),
                1 => {
                    host.read(offset, width);
                }
                2 => {
                    host.take_changes();
                }
                _ => host.write(offset, width, random.next() & width.ones()),
            }
        }
        let (mut other, _) = super::tests::host();
        other.restore(round_trip(&host.save()));
        other.refresh();
        assert_eq!(other.read(0, Width::Dword), host.read(0, Width::Dword));
    }
}
