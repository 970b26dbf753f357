//! Gives PCI devices their ranges and interrupts, as firmware does, through the configuration
//! ports that firmware uses.

use super::slots::{HOST_BRIDGE, ISA_BRIDGE};
use metaphrase_devices::pci::{
    COMMAND, COMMAND_IO, COMMAND_MEMORY, INTERRUPT_LINE, PciAddress, PciHost,
};
use metaphrase_devices::{BusDevice, Width};

/// The interrupt requests that the four inputs of the router lead to.
pub(super) const ROUTES: [u8; 4] = [10, 10, 11, 11];

/// The router's registers in the ISA bridge.
const ROUTER: u8 = 0x60;
const HEADER: u8 = 0x0c;
/// In the word of the header type: a device with several functions.
const SEVERAL: u32 = 0x80_0000;
const BARS: u8 = 0x10;
const BARS_END: u8 = 0x28;

/// Where ranges go: ports from C000h on, memory from here.
const PORTS: u64 = 0xc000;
const MEMORY: u64 = 0xe000_0000;

/// The configuration mechanism.
struct Mechanism<'a>(&'a mut PciHost);

impl Mechanism<'_> {
    fn choose(&mut self, at: PciAddress, register: u8) {
        let number = u64::from(at.device) << 11 | u64::from(at.function) << 8;
        let address = 0x8000_0000 | number | u64::from(register & !3);
        self.0.write(0, Width::Dword, address);
    }

    fn read(&mut self, at: PciAddress, register: u8) -> u32 {
        self.choose(at, register);
        self.0.read(4, Width::Dword) as u32
    }

    fn write(&mut self, at: PciAddress, register: u8, value: u32) {
        self.choose(at, register);
        self.0.write(4, Width::Dword, value.into());
    }
}

/// Where the next range of a kind goes.
struct Space(u64);

impl Space {
    fn take(&mut self, size: u64) -> u64 {
        let start = self.0.next_multiple_of(size);
        self.0 = start + size;
        start
    }
}

/// Lets the last 64 KiB below 1 MiB be RAM.
pub(super) fn show_low_tables(host: &mut PciHost) {
    /// The attribute map of the host bridge, in bits 8 to 15 there: readable and writable.
    const MAP: u8 = 0x58;
    const RAM: u32 = 0x3000;
    let mut pci = Mechanism(host);
    let old = pci.read(HOST_BRIDGE, MAP);
    pci.write(HOST_BRIDGE, MAP, old | RAM);
}

/// Assigns everything.
pub(super) fn assign(host: &mut PciHost) {
    let mut pci = Mechanism(host);
    let (mut ports, mut memory) = (Space(PORTS), Space(MEMORY));
    pci.write(ISA_BRIDGE, ROUTER, u32::from_le_bytes(ROUTES));
    for device in 0..32 {
        let several = pci.read(PciAddress::new(device, 0), HEADER) & SEVERAL != 0;
        for function in 0..if several { 8 } else { 1 } {
            let at = PciAddress::new(device, function);
            if pci.read(at, 0) != u32::MAX {
                assign_ranges(&mut pci, at, &mut ports, &mut memory);
                assign_interrupt(&mut pci, at);
            }
        }
    }
}

/// Finds out what the base address registers ask for, and gives it to them.
fn assign_ranges(pci: &mut Mechanism<'_>, at: PciAddress, ports: &mut Space, memory: &mut Space) {
    let mut command = pci.read(at, COMMAND) & 0xffff;
    let mut bars = (BARS..BARS_END).step_by(4);
    while let Some(bar) = bars.next() {
        pci.write(at, bar, u32::MAX);
        let got = pci.read(at, bar);
        if got == 0 {
            continue;
        }
        let is_port = got & 1 != 0;
        let (flags, space) = if is_port {
            (0x3, &mut *ports)
        } else {
            (0xf, &mut *memory)
        };
        let size = u64::from((!(got & !flags)).wrapping_add(1));
        let size = if is_port { size & 0xffff } else { size };
        pci.write(at, bar, space.take(size.max(4)) as u32);
        command |= u32::from(if is_port { COMMAND_IO } else { COMMAND_MEMORY });
        if !is_port && got & 4 != 0 {
            // The upper half of an address: all are below 4 GiB.
            if let Some(upper) = bars.next() {
                pci.write(at, upper, 0);
            }
        }
    }
    pci.write(at, COMMAND, command);
}

/// Tells a function which request its pin leads to.
fn assign_interrupt(pci: &mut Mechanism<'_>, at: PciAddress) {
    let pins = pci.read(at, INTERRUPT_LINE);
    if let Some(pin) = (pins >> 8 & 0xff).checked_sub(1) {
        // The pins of each device are shifted by one against those of the one before.
        let input = (u32::from(at.device) + pin + 3) & 3;
        let irq = u32::from(ROUTES[input as usize]);
        pci.write(at, INTERRUPT_LINE, pins & !0xff | irq);
    }
}
