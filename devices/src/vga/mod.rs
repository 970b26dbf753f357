//! The display adapter: a VGA (IBM Personal System/2 Hardware Interface Technical Reference) with
//! the Bochs display interface for packed-pixel modes, as a PCI function.
//!
//! Ports: `port(0x3b0)` from [`crate::Shared`] at 3B0h for 48 ports, [`Vga::dispi`] at 1CEh for 3.
//! Memory: [`Vga::window`] at A0000h for 128 KiB, [`Vga::frame_buffer`] where base address register
//! 0 says, and [`Vga::rom`] where the expansion ROM's says. [`Vga::text`] and [`Vga::picture`] tell
//! what can be seen.
//!
//! Left out: the interrupt at vertical retrace, light pen, display skew, the underline of
//! monochrome text, panning of text, and what a monitor would make of strange timings.

mod dispi;
mod memory;
mod registers;
mod render;
#[cfg(test)]
mod tests;
mod text_mode;

use std::sync::Arc;

use dispi::{Dispi, Effect};
pub use dispi::{PORT as DISPI_PORT, PORTS as DISPI_PORTS};
pub use memory::{WINDOW, WINDOW_LEN};
use registers::Registers;
pub use render::{Cell, Picture, TextScreen};
use serde::{Deserialize, Serialize};

use crate::pci::{Bar, ConfigSpace, ConfigState, Mapping, PciFunction, ROM_INDEX};
use crate::{BusDevice, Clock, PortDevice, Shared, Width};

/// First of the VGA's ports.
pub const BASE: u16 = 0x3b0;
/// Number of them.
pub const PORTS: u64 = 48;
/// The base address register of the frame buffer.
pub const FRAME_BUFFER_BAR: u8 = 0;

/// What a VGA has.
const LEAST_MEMORY: u32 = 0x4_0000;

/// The state, with the memory up to its last byte that is not 0.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VgaState {
    config: ConfigState,
    registers: Registers,
    dispi: Dispi,
    latches: [u8; 4],
    memory: Vec<u8>,
}

/// The adapter.
pub struct Vga {
    config: ConfigSpace,
    registers: Registers,
    dispi: Dispi,
    latches: [u8; 4],
    memory: Vec<u8>,
    rom: Vec<u8>,
    clock: Arc<dyn Clock>,
    changes: u64,
}

impl Vga {
    /// An adapter with so many bytes of memory, which become a power of two of at least 256 KiB
    /// and at most 256 MiB, and an option ROM, which may be empty.
    pub fn new(clock: Arc<dyn Clock>, memory: u32, rom: Vec<u8>) -> Vga {
        let size = memory.clamp(LEAST_MEMORY, 1 << 28).next_power_of_two();
        let mut config = ConfigSpace::new(0x1234, 0x1111, 0x03_0000, 2);
        config.set_bar(
            FRAME_BUFFER_BAR,
            Bar::Memory32 {
                size,
                prefetchable: true,
            },
        );
        if !rom.is_empty() {
            let size = (rom.len() as u32).max(0x800).next_power_of_two();
            config.set_bar(ROM_INDEX, Bar::Rom { size });
        }
        // The legacy addresses are enabled by the same bits.
        config.set_writable(crate::pci::COMMAND, &[0x07]);
        Vga {
            config,
            registers: Registers::new(),
            dispi: Dispi::new(),
            latches: [0; 4],
            memory: vec![0; size as usize],
            rom,
            clock,
            changes: 0,
        }
    }

    /// A number that changes whenever the screen may have changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// After a reset of the machine.
    pub fn reset(&mut self) {
        self.registers = Registers::new();
        self.dispi = Dispi::new();
        self.config.set(crate::pci::COMMAND, &[0, 0]);
        self.touch();
    }

    /// The state.
    pub fn save(&self) -> VgaState {
        let used = self.memory.iter().rposition(|byte| *byte != 0);
        VgaState {
            config: self.config.save(),
            registers: self.registers.clone(),
            dispi: self.dispi.clone(),
            latches: self.latches,
            memory: self.memory[..used.map_or(0, |last| last + 1)].to_vec(),
        }
    }

    /// Takes over the state of an adapter with as much memory.
    pub fn restore(&mut self, state: VgaState) {
        self.config.restore(&state.config);
        self.registers = state.registers;
        self.registers.sanitize();
        self.dispi = state.dispi;
        self.dispi.sanitize();
        self.latches = state.latches;
        let len = self.memory.len();
        self.memory = state.memory;
        self.memory.resize(len, 0);
        self.touch();
    }

    fn touch(&mut self) {
        self.changes = self.changes.wrapping_add(1);
    }

    /// Whether the window is a piece of the frame buffer, not of planes.
    fn is_packed(&self) -> bool {
        self.dispi.is_enabled() && self.dispi.bits() != 4
    }

    fn read_window(&mut self, offset: u64) -> u8 {
        if self.is_packed() {
            let at = self.dispi.bank() + offset as usize;
            return match offset {
                0..0x1_0000 => self.memory.get(at).copied().unwrap_or(0xff),
                _ => 0xff,
            };
        }
        match self.registers.window(offset) {
            Some(at) => self
                .registers
                .read_planes(at, &self.memory, &mut self.latches),
            None => 0xff,
        }
    }

    fn write_window(&mut self, offset: u64, value: u8) {
        if self.is_packed() {
            let at = self.dispi.bank() + offset as usize;
            if offset < 0x1_0000
                && let Some(byte) = self.memory.get_mut(at)
            {
                *byte = value;
            }
        } else if let Some(at) = self.registers.window(offset) {
            let (memory, latches) = (&mut self.memory, self.latches);
            self.registers.write_planes(at, value, memory, latches);
        }
    }

    fn write_dispi(&mut self, value: u16) {
        let effect = self.dispi.write(value, self.memory.len());
        if let Effect::Mode { clear } = effect {
            self.registers.dac_8_bits = self.dispi.dac_8_bits();
            if clear {
                let shown = self.dispi.pitch() * self.dispi.height();
                let bytes = if self.is_packed() { shown } else { shown * 4 };
                let len = bytes.min(self.memory.len());
                self.memory[..len].fill(0);
            }
        }
    }
}

impl PortDevice for Vga {
    fn read_port(&mut self, port: u16) -> u8 {
        let beam = self.registers.beam(self.clock.now());
        self.registers.read(port, beam)
    }

    fn write_port(&mut self, port: u16, value: u8) {
        self.registers.write(port, value);
        self.touch();
    }
}

impl PciFunction for Vga {
    fn read_config(&mut self, register: u8) -> u32 {
        self.config.read(register)
    }

    fn write_config(&mut self, register: u8, value: u32, mask: u32) {
        self.config.write(register, value, mask);
    }

    fn mappings(&self) -> Vec<Mapping> {
        self.config.mappings()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Which {
    Window,
    FrameBuffer,
    Rom,
    Dispi,
}

/// A range of the adapter's.
struct View {
    vga: Shared<Vga>,
    which: Which,
}

impl Shared<Vga> {
    /// The window on the planes, or on a bank of the frame buffer.
    pub fn window(&self) -> Box<dyn BusDevice> {
        self.view(Which::Window)
    }

    /// All memory.
    pub fn frame_buffer(&self) -> Box<dyn BusDevice> {
        self.view(Which::FrameBuffer)
    }

    /// The option ROM.
    pub fn rom(&self) -> Box<dyn BusDevice> {
        self.view(Which::Rom)
    }

    /// The display interface.
    pub fn dispi(&self) -> Box<dyn BusDevice> {
        self.view(Which::Dispi)
    }

    fn view(&self, which: Which) -> Box<dyn BusDevice> {
        Box::new(View {
            vga: self.clone(),
            which,
        })
    }
}

impl BusDevice for View {
    fn is_passive(&self) -> bool {
        true
    }

    fn read(&mut self, offset: u64, width: Width) -> u64 {
        let mut vga = self.vga.lock();
        let vga = &mut *vga;
        let mut bytes = [0xff; 8];
        let into = &mut bytes[..width.bytes() as usize];
        let copy = |into: &mut [u8], from: &[u8]| {
            for (byte, at) in into.iter_mut().zip(offset as usize..) {
                *byte = from.get(at).copied().unwrap_or(0xff);
            }
        };
        match (self.which, offset) {
            (Which::Window, _) => {
                for (byte, at) in into.iter_mut().zip(offset..) {
                    *byte = vga.read_window(at);
                }
            }
            (Which::FrameBuffer, _) => copy(into, &vga.memory),
            (Which::Rom, _) => copy(into, &vga.rom),
            (Which::Dispi, 0) if width == Width::Word => return vga.dispi.read_index().into(),
            (Which::Dispi, 1) if width == Width::Word => {
                return vga.dispi.read(vga.memory.len()).into();
            }
            (Which::Dispi, _) => {}
        }
        u64::from_le_bytes(bytes)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        let mut vga = self.vga.lock();
        vga.touch();
        let bytes = value.to_le_bytes();
        let from = &bytes[..width.bytes() as usize];
        match (self.which, offset) {
            (Which::Window, _) => {
                for (byte, at) in from.iter().zip(offset..) {
                    vga.write_window(at, *byte);
                }
            }
            (Which::FrameBuffer, _) => {
                let at = offset as usize;
                let end = at.saturating_add(from.len());
                if let Some(into) = vga.memory.get_mut(at..end) {
                    into.copy_from_slice(from);
                }
            }
            (Which::Rom, _) => {}
            (Which::Dispi, 0) if width == Width::Word => vga.dispi.write_index(value as u16),
            (Which::Dispi, 1) if width == Width::Word => vga.write_dispi(value as u16),
            (Which::Dispi, _) => {}
        }
    }
}
