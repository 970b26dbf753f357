//! Small devices of one or two ports: fast A20 and reset (92h), the progress code of firmware
//! (80h), the coprocessor's error (F0h), a debug console (402h), and a port that ends the run with an exit code.
//!
//! Port 92h is in the PIIX3's datasheet (290550) only as what older chipsets had; PS/2 machines
//! brought it. The debug console and the exit port are conventions between virtual machines and
//! their test programs: firmware writes bytes to the console, and recognises it by reading E9h.

use serde::{Deserialize, Serialize};

use crate::serial::SerialSink;
use crate::{BusDevice, InterruptLine, PortDevice, Width};

/// Fast A20 and reset.
pub const FAST_A20: u16 = 0x92;
/// Firmware's progress codes.
pub const POST: u16 = 0x80;
/// Clears the coprocessor's error; so does the next port.
pub const FPU_ERROR: u16 = 0xf0;
/// The debug console.
pub const DEBUG_CONSOLE: u16 = 0x402;
/// The exit port.
pub const DEBUG_EXIT: u16 = 0x501;

const RESET: u8 = 0x01;
const A20: u8 = 0x02;
const FAST_A20_WRITABLE: u8 = 0xcb;
const CONSOLE_PRESENT: u8 = 0xe9;

/// System control port A: bit 1 opens A20, setting bit 0 resets the processor.
pub struct FastA20 {
    state: FastA20State,
    a20: Box<dyn InterruptLine>,
    reset: Box<dyn InterruptLine>,
}

/// The state of the port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FastA20State {
    value: u8,
}

impl FastA20 {
    /// A20 is not opened here at power-on.
    pub fn new(a20: Box<dyn InterruptLine>, reset: Box<dyn InterruptLine>) -> FastA20 {
        FastA20 {
            state: FastA20State::default(),
            a20,
            reset,
        }
    }

    /// The state.
    pub fn save(&self) -> FastA20State {
        self.state
    }

    /// Takes over a state.
    pub fn restore(&mut self, state: FastA20State) {
        self.state = state;
        self.a20.set_level(self.state.value & A20 != 0);
    }
}

impl PortDevice for FastA20 {
    fn read_port(&mut self, _port: u16) -> u8 {
        self.state.value
    }

    fn write_port(&mut self, _port: u16, value: u8) {
        let before = self.state.value;
        self.state.value = value & FAST_A20_WRITABLE;
        self.a20.set_level(value & A20 != 0);
        if value & !before & RESET != 0 {
            // The reset clears the bit.
            self.state.value &= !RESET;
            self.reset.pulse();
        }
    }
}

/// Remembers the last progress code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PostCode {
    /// The last one.
    pub last: u8,
    /// How many were written.
    pub count: u64,
}

impl PortDevice for PostCode {
    fn read_port(&mut self, _port: u16) -> u8 {
        self.last
    }

    fn write_port(&mut self, _port: u16, value: u8) {
        self.last = value;
        self.count = self.count.wrapping_add(1);
    }
}

/// Holds the coprocessor's error: FERR# sets it, any write clears it.
pub struct FpuError {
    line: Box<dyn InterruptLine>,
}

impl FpuError {
    /// Drives that line, IRQ 13 of a PC.
    pub fn new(line: Box<dyn InterruptLine>) -> FpuError {
        FpuError { line }
    }

    /// FERR# is raised.
    pub fn raise(&mut self) {
        self.line.set_level(true);
    }
}

impl PortDevice for FpuError {
    fn read_port(&mut self, _port: u16) -> u8 {
        0xff
    }

    fn write_port(&mut self, _port: u16, _value: u8) {
        self.line.set_level(false);
    }
}

/// Bytes written come out.
pub struct DebugConsole {
    sink: Box<dyn SerialSink>,
}

impl DebugConsole {
    /// Writes to `sink`.
    pub fn new(sink: Box<dyn SerialSink>) -> DebugConsole {
        DebugConsole { sink }
    }
}

impl PortDevice for DebugConsole {
    fn read_port(&mut self, _port: u16) -> u8 {
        CONSOLE_PRESENT
    }

    fn write_port(&mut self, _port: u16, value: u8) {
        self.sink.write(&[value]);
    }
}

/// A write ends the run. The guest's value `v` becomes the exit code `2 * v + 1`, so that no guest
/// can claim the success of the host's program. The value may have any width.
pub struct DebugExit {
    exit: Box<dyn FnMut(u32) + Send>,
}

impl DebugExit {
    /// Calls `exit` with the exit code. It is to note it, and stop the machine soon.
    pub fn new(exit: Box<dyn FnMut(u32) + Send>) -> DebugExit {
        DebugExit { exit }
    }
}

impl BusDevice for DebugExit {
    fn read(&mut self, _offset: u64, _width: Width) -> u64 {
        0
    }

    fn write(&mut self, _offset: u64, _width: Width, value: u64) {
        (self.exit)((value as u32).wrapping_shl(1) | 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Probe, Random, round_trip};
    use crate::{Bus, Shared};
    use std::sync::{Arc, Mutex};

    #[test]
    fn port_92_opens_a20_and_resets_once() {
        let (a20, reset) = (Probe::default(), Probe::default());
        let mut port = FastA20::new(a20.line(), reset.line());
        port.write_port(FAST_A20, 0x02);
        assert!(a20.level());
        assert_eq!(port.read_port(FAST_A20), 0x02);
        let mut other = FastA20::new(Probe::default().line(), reset.line());
        other.restore(round_trip(&port.save()));
        assert_eq!(other.read_port(FAST_A20), 0x02);
        port.write_port(FAST_A20, 0xff);
        assert_eq!(reset.rises(), 1);
        assert_eq!(port.read_port(FAST_A20), 0xca);
        port.write_port(FAST_A20, 0x00);
        assert!(!a20.level());
        assert_eq!(reset.rises(), 1);
    }

    #[test]
    fn a_write_clears_the_coprocessors_error() {
        let line = Probe::default();
        let mut error = FpuError::new(line.line());
        error.raise();
        assert!(line.level());
        error.read_port(FPU_ERROR);
        assert!(line.level(), "a read does not");
        error.write_port(FPU_ERROR, 0);
        assert!(!line.level());
    }

    #[test]
    fn console_exit_and_progress() {
        let out = Arc::new(Mutex::new(Vec::new()));
        let codes = Arc::new(Mutex::new(Vec::new()));
        let post = Shared::new(PostCode::default());
        let mut bus = Bus::new();
        let console = Shared::new(DebugConsole::new(Box::new(out.clone())));
        bus.attach(0x402, 1, "console", console.port(0)).unwrap();
        bus.attach(0x80, 1, "post", post.port(0)).unwrap();
        let seen = codes.clone();
        let exit = DebugExit::new(Box::new(move |code| seen.lock().unwrap().push(code)));
        bus.attach(0x501, 4, "exit", Box::new(exit)).unwrap();
        let mut random = Random::new(1);
        assert_eq!(bus.read(0x402, Width::Byte), 0xe9);
        for byte in *b"SeaBIOS" {
            bus.write(0x402, Width::Byte, u64::from(byte));
            bus.write(0x80, Width::Byte, random.next());
        }
        bus.write(0x80, Width::Byte, 0x55);
        assert_eq!(*out.lock().unwrap(), b"SeaBIOS");
        assert_eq!((bus.read(0x80, Width::Byte), post.lock().count), (0x55, 8));
        bus.write(0x501, Width::Byte, 0);
        bus.write(0x501, Width::Dword, 0x8000_0010);
        assert_eq!(*codes.lock().unwrap(), [1, 0x21]);
    }
}
