//! The ISA bridge of a PC, Intel PIIX3 (82371SB, datasheet 290550), with the router of the PCI
//! interrupt pins; and the power management function of the PIIX4 (82371AB, 290562), which says
//! where the registers of [`crate::acpi_pm`] are.
//!
//! The bridge's other functions are devices of their own: its 8259A, 8254 and 8237A. Its
//! configuration of chip selects and timings is stored and means nothing.

use serde::{Deserialize, Serialize};

use crate::acpi_pm;
use crate::pci::{COMMAND, ConfigSpace, ConfigState, FIXED_INDEX, Mapping, PciFunction, STATUS};

const ROUTES: u8 = 0x60;
const ROUTE_OFF: u8 = 0x80;
/// Interrupt requests that PCI pins may be routed to: all that no device of the board owns.
const ROUTABLE: u16 = 0xdef8;

/// The state of the ISA bridge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IsaBridgeState {
    config: ConfigState,
    /// For each PCI device, the pins that it drives, INTA in bit 0.
    pins: [u8; 32],
}

/// The ISA bridge.
pub struct IsaBridge {
    config: ConfigSpace,
    pins: [u8; 32],
    irq: Box<dyn Fn(u8, bool) + Send>,
    /// The requests that it drives high.
    driven: u16,
}

impl IsaBridge {
    /// After reset: no pin is routed. `irq` is called with a number and a level when the level of
    /// an interrupt request changes; as ISA devices may drive the same, join them with
    /// [`crate::WiredOr`].
    pub fn new(irq: Box<dyn Fn(u8, bool) + Send>) -> IsaBridge {
        let mut config = ConfigSpace::new(0x8086, 0x7000, 0x06_0100, 0);
        config.set_multi_function();
        // It always answers, and masters the bus for the DMA controllers; special cycles are a choice.
        config.set(COMMAND, &[0x07]);
        config.set_writable(COMMAND, &[0x08]);
        config.set(STATUS, &[0x00, 0x02]);
        // I/O recovery, chip selects; routes; top of memory; motherboard devices; APIC base; SMI.
        config.set_writable(0x4c, &[0xff; 4]);
        config.set_writable(ROUTES, &[0x8f; 4]);
        config.set_writable(0x69, &[0xfe, 0xff]);
        config.set_writable(0x70, &[0xff; 2]);
        config.set_writable(0x76, &[0xff; 2]);
        config.set_writable(0x80, &[0x7f]);
        config.set_writable(0xa0, &[0xff; 16]);
        config.set(0x4c, &[0x4d, 0x00, 0x03, 0x00]);
        config.set(ROUTES, &[ROUTE_OFF; 4]);
        IsaBridge {
            config,
            pins: [0; 32],
            irq,
            driven: 0,
        }
    }

    /// Drives an interrupt pin of a PCI device: 0 for INTA to 3 for INTD.
    pub fn set_pin(&mut self, device: u8, pin: u8, high: bool) {
        let pins = &mut self.pins[usize::from(device & 31)];
        let bit = 1 << (pin & 3);
        *pins = *pins & !bit | if high { bit } else { 0 };
        self.drive();
    }

    /// The interrupt request that a pin of a device leads to, if it is routed.
    pub fn route(&self, device: u8, pin: u8) -> Option<u8> {
        let route = self.config.byte(ROUTES + router_input(device, pin));
        let irq = route & 0x0f;
        (route & ROUTE_OFF == 0 && ROUTABLE & 1 << irq != 0).then_some(irq)
    }

    /// The state.
    pub fn save(&self) -> IsaBridgeState {
        IsaBridgeState {
            config: self.config.save(),
            pins: self.pins,
        }
    }

    /// Takes over a state.
    pub fn restore(&mut self, state: &IsaBridgeState) {
        self.config.restore(&state.config);
        self.pins = state.pins;
        self.drive();
    }

    fn drive(&mut self) {
        let mut now = 0;
        for (device, pins) in (0..).zip(self.pins) {
            for pin in (0..4).filter(|pin| pins & 1 << pin != 0) {
                now |= self.route(device, pin).map_or(0, |irq| 1u16 << irq);
            }
        }
        let changed = now ^ self.driven;
        self.driven = now;
        for irq in (0..16).filter(|irq| changed & 1 << irq != 0) {
            (self.irq)(irq, now & 1 << irq != 0);
        }
    }
}

/// Which of the four inputs of the router a pin is wired to: on the board, the pins of each device
/// are shifted by one against those of the device before. Device 1 is straight.
fn router_input(device: u8, pin: u8) -> u8 {
    device.wrapping_sub(1).wrapping_add(pin) & 3
}

impl PciFunction for IsaBridge {
    fn read_config(&mut self, register: u8) -> u32 {
        self.config.read(register)
    }

    fn write_config(&mut self, register: u8, value: u32, mask: u32) {
        self.config.write(register, value, mask);
        if register == ROUTES {
            self.drive();
        }
    }

    fn mappings(&self) -> Vec<Mapping> {
        Vec::new()
    }
}

const POWER_BASE: u8 = 0x40;
const POWER_CONTROL: u8 = 0x80;

/// The power management function. Its mapping is where [`acpi_pm::AcpiPm`] goes.
#[derive(Clone, Debug)]
pub struct PowerFunction {
    config: ConfigSpace,
}

impl Default for PowerFunction {
    fn default() -> PowerFunction {
        PowerFunction::new()
    }
}

impl PowerFunction {
    /// After reset: the registers are nowhere.
    pub fn new() -> PowerFunction {
        let mut config = ConfigSpace::new(0x8086, 0x7113, 0x06_8000, 3);
        config.set_writable(POWER_BASE, &[0xc0, 0xff]);
        config.set(POWER_BASE, &[0x01]);
        // Counters, device activity and resources; control; SMBus base and configuration.
        config.set_writable(0x44, &[0xff; 0x3c]);
        config.set_writable(POWER_CONTROL, &[0x01]);
        config.set_writable(0x90, &[0xf0, 0xff]);
        config.set(0x90, &[0x01]);
        config.set_writable(0xd2, &[0x0f]);
        config.set_interrupt_pin(1);
        PowerFunction { config }
    }

    /// The state.
    pub fn save(&self) -> ConfigState {
        self.config.save()
    }

    /// Takes over a state.
    pub fn restore(&mut self, state: &ConfigState) {
        self.config.restore(state);
    }
}

impl PciFunction for PowerFunction {
    fn read_config(&mut self, register: u8) -> u32 {
        self.config.read(register)
    }

    fn write_config(&mut self, register: u8, value: u32, mask: u32) {
        self.config.write(register, value, mask);
    }

    fn mappings(&self) -> Vec<Mapping> {
        let start = u64::from(self.config.word(POWER_BASE) & 0xffc0);
        let on = self.config.byte(POWER_CONTROL) & 1 != 0 && start != 0;
        let mapping = Mapping {
            bar: FIXED_INDEX,
            io: true,
            start,
            len: acpi_pm::LEN,
        };
        on.then_some(mapping).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::NotConnected;
    use crate::pci::{PciAddress, PciHost};
    use crate::testing::{Random, round_trip};

    type Log = Arc<Mutex<Vec<(u8, bool)>>>;

    fn bridge() -> (IsaBridge, Log) {
        let log = Log::default();
        let seen = log.clone();
        let irq = Box::new(move |irq, high| seen.lock().unwrap().push((irq, high)));
        (IsaBridge::new(irq), log)
    }

    fn take(log: &Log) -> Vec<(u8, bool)> {
        std::mem::take(&mut log.lock().unwrap())
    }

    #[test]
    fn the_bridge_always_answers() {
        let (mut bridge, _) = bridge();
        assert_eq!(bridge.read_config(COMMAND), 0x0200_0007);
        bridge.write_config(COMMAND, 0, u32::MAX);
        assert_eq!(bridge.read_config(COMMAND), 0x0200_0007);
        bridge.write_config(COMMAND, 0xff, 0xff);
        assert_eq!(bridge.read_config(COMMAND), 0x0200_000f);
    }

    #[test]
    fn pins_are_routed_and_share() {
        let (mut bridge, log) = bridge();
        bridge.set_pin(3, 0, true);
        assert_eq!(take(&log), []);
        bridge.write_config(ROUTES, 0x0b0a_0b0a, u32::MAX);
        assert_eq!(take(&log), [(10, true)], "input 2");
        assert_eq!(
            (bridge.route(1, 0), bridge.route(2, 0)),
            (Some(10), Some(11))
        );
        bridge.set_pin(1, 0, true);
        bridge.set_pin(3, 0, false);
        assert_eq!(take(&log), [], "still asked for by device 1");
        bridge.set_pin(2, 1, true);
        bridge.set_pin(1, 0, false);
        bridge.set_pin(2, 1, false);
        assert_eq!(take(&log), [(10, false)]);
        bridge.set_pin(4, 0, true);
        bridge.write_config(ROUTES, 0x8000_0000, 0xff00_0000);
        assert_eq!(take(&log), [(11, true), (11, false)], "switched off");
        bridge.write_config(ROUTES, 0x0800_0000, 0xff00_0000);
        assert_eq!(
            (take(&log), bridge.route(4, 0)),
            (vec![], None),
            "8 is the clock's"
        );
    }

    #[test]
    fn the_power_function_moves_its_block() {
        let mut host = PciHost::new(Box::new(NotConnected));
        let mut function = PowerFunction::new();
        function.write_config(POWER_BASE, 0xb001, u32::MAX);
        assert_eq!(function.read_config(POWER_BASE), 0xb001);
        assert_eq!(function.mappings(), []);
        function.write_config(POWER_CONTROL, 1, u32::MAX);
        let mapping = function.mappings()[0];
        assert_eq!((mapping.io, mapping.start, mapping.len), (true, 0xb000, 64));
        assert!(host.add(PciAddress::new(1, 3), Box::new(function)));
        assert_eq!(host.take_changes()[0].new, Some(mapping));
    }

    #[test]
    fn survives_a_storm_and_a_round_trip() {
        let (mut bridge, log) = bridge();
        let mut power = PowerFunction::new();
        let mut random = Random::new(15);
        for _ in 0..100_000 {
            let (register, value) = (random.next() as u8 & 0xfc, random.next() as u32);
            bridge.write_config(register, value, random.next() as u32);
            power.write_config(register, value, random.next() as u32);
            bridge.set_pin(random.next() as u8, random.next() as u8, value & 1 != 0);
            power.mappings();
            log.lock().unwrap().clear();
        }
        let (mut other, _) = super::tests::bridge();
        other.restore(&round_trip(&bridge.save()));
        assert_eq!(other.driven, bridge.driven);
        let mut again = PowerFunction::new();
        again.restore(&round_trip(&power.save()));
        assert_eq!(again.mappings(), power.mappings());
    }
}
