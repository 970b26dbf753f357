//! A serial port: National PC16550D (datasheet TL/C/8652), with both FIFOs.
//!
//! Registers are numbered 0 to 7; attach `port(0)` where the port is to be (3F8h, 2F8h). The
//! interrupt leaves through the gate that OUT2 opens, as on every PC.
//!
//! Time does not pass here. A byte that is sent is gone at once, so the transmitter is always
//! empty and its FIFO holds nothing. Bytes that arrive are there at once, and the character timeout
//! counts as expired: below the trigger level, data that waits in the FIFO asks with "timeout",
//! where the chip would first wait for four characters. Parity and framing errors do not occur, a
//! break sent in loopback is not received, and DMA signalling has no pins here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::{InterruptLine, PortDevice};

const IER_RECEIVED: u8 = 0x01;
const IER_TRANSMIT_EMPTY: u8 = 0x02;
const IER_LINE: u8 = 0x04;
const IER_MODEM: u8 = 0x08;
const IER_WRITABLE: u8 = 0x0f;

const IIR_NONE: u8 = 0x01;
const IIR_MODEM: u8 = 0x00;
const IIR_TRANSMIT_EMPTY: u8 = 0x02;
const IIR_RECEIVED: u8 = 0x04;
const IIR_LINE: u8 = 0x06;
const IIR_TIMEOUT: u8 = 0x0c;
const IIR_FIFOS: u8 = 0xc0;

const FCR_ENABLE: u8 = 0x01;
const FCR_CLEAR_RECEIVER: u8 = 0x02;

const LCR_DIVISOR: u8 = 0x80;

const MCR_DTR: u8 = 0x01;
const MCR_RTS: u8 = 0x02;
const MCR_OUT1: u8 = 0x04;
const MCR_OUT2: u8 = 0x08;
const MCR_LOOP: u8 = 0x10;
const MCR_WRITABLE: u8 = 0x1f;

const LSR_DATA: u8 = 0x01;
const LSR_OVERRUN: u8 = 0x02;
const LSR_BREAK: u8 = 0x10;
const LSR_EMPTY: u8 = 0x60;
const LSR_FIFO_ERROR: u8 = 0x80;

/// Clear to send, as in the modem status.
pub const CTS: u8 = 0x10;
/// Data set ready.
pub const DSR: u8 = 0x20;
/// Ring indicator.
pub const RI: u8 = 0x40;
/// Carrier detect.
pub const DCD: u8 = 0x80;

/// What the receiver holds with FIFOs on.
const FIFO: usize = 16;

/// Looks at the line status, without data and with nothing else between them, after which the guest
/// counts as one that waits for data. Who only sends needs one for a byte.
const POLLS: u8 = 16;

/// Where the bytes go that the guest sends. Called with the port locked: it must not call back.
pub trait SerialSink: Send {
    /// Bytes were sent.
    fn write(&mut self, bytes: &[u8]);

    /// The guest has taken the last received byte, so there is room for more.
    fn drained(&mut self) {}
}

/// Bytes sent are appended; somebody else looks at them.
impl SerialSink for Arc<Mutex<Vec<u8>>> {
    fn write(&mut self, bytes: &[u8]) {
        let mut all = self.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
    }
}

/// Bytes sent go nowhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSink;

impl SerialSink for NoSink {
    fn write(&mut self, _bytes: &[u8]) {}
}

/// A received byte, with the line status bits that came with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Received {
    byte: u8,
    errors: u8,
}

/// The state of a serial port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SerialState {
    divisor: u16,
    ier: u8,
    lcr: u8,
    mcr: u8,
    scratch: u8,
    fifos: bool,
    /// Bytes at which received data asks for an interrupt.
    trigger: u8,
    received: VecDeque<Received>,
    /// The last byte, which reads again once the receiver is empty.
    last: u8,
    overrun: bool,
    /// The transmitter has become empty since the guest last looked.
    transmit_empty: bool,
    /// Levels of the modem inputs, as in the modem status.
    modem: u8,
    /// Their changes since it was read.
    changes: u8,
    /// Looks at the line status in a row, up to [`POLLS`], which stays.
    polls: u8,
}

/// A serial port.
pub struct Serial {
    state: SerialState,
    sink: Box<dyn SerialSink>,
    irq: Box<dyn InterruptLine>,
    driven: bool,
}

impl Serial {
    /// After reset, with a modem that is ready: CTS, DSR and DCD are on.
    pub fn new(sink: Box<dyn SerialSink>, irq: Box<dyn InterruptLine>) -> Serial {
        Serial {
            state: SerialState {
                divisor: 12,
                ier: 0,
                lcr: 0,
                mcr: 0,
                scratch: 0,
                fifos: false,
                trigger: 1,
                received: VecDeque::new(),
                last: 0,
                overrun: false,
                transmit_empty: false,
                modem: CTS | DSR | DCD,
                changes: 0,
                polls: 0,
            },
            sink,
            irq,
            driven: false,
        }
    }

    /// How many bytes [`Serial::receive`] would take now. None in loopback, which disconnects the
    /// input.
    pub fn room(&self) -> usize {
        if self.state.mcr & MCR_LOOP != 0 {
            return 0;
        }
        let all = if self.state.fifos { FIFO } else { 1 };
        all.saturating_sub(self.state.received.len())
    }

    /// Whether the guest waits for data: it has enabled the interrupt, or looks again and again. What
    /// arrives before may be lost, as drivers empty the receiver while they set the port up.
    pub fn listens(&self) -> bool {
        self.state.ier & IER_RECEIVED != 0 || self.state.polls == POLLS
    }

    /// How many received bytes the guest has not read yet.
    pub fn unread(&self) -> usize {
        self.state.received.len()
    }

    /// Bytes arrive. Takes as many as there is room for and says how many; the rest is for later,
    /// as a sender with flow control would do it.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        for byte in &bytes[..taken] {
            self.push(*byte, 0);
        }
        self.drive();
        taken
    }

    /// The other side sends a break.
    pub fn receive_break(&mut self) {
        if self.room() > 0 {
            self.push(0, LSR_BREAK);
            self.drive();
        }
    }

    /// Drives the modem inputs: a combination of [`CTS`], [`DSR`], [`RI`] and [`DCD`].
    pub fn set_modem(&mut self, inputs: u8) {
        let before = self.modem_status();
        self.state.modem = inputs & 0xf0;
        self.note_changes(before);
        self.drive();
    }

    /// The DTR and RTS outputs.
    pub fn outputs(&self) -> (bool, bool) {
        let on = |bit| self.state.mcr & (bit | MCR_LOOP) == bit;
        (on(MCR_DTR), on(MCR_RTS))
    }

    /// The line speed in bits a second, from the divisor and the usual crystal of 1.8432 MHz.
    pub fn baud(&self) -> u32 {
        115_200 / u32::from(self.state.divisor).max(1)
    }

    /// The state.
    pub fn save(&self) -> SerialState {
        self.state.clone()
    }

    /// Takes over a state.
    pub fn restore(&mut self, state: SerialState) {
        self.state = state;
        self.state.received.truncate(FIFO);
        self.state.polls = self.state.polls.min(POLLS);
        self.drive();
    }

    fn push(&mut self, byte: u8, errors: u8) {
        let all = if self.state.fifos { FIFO } else { 1 };
        if self.state.received.len() >= all {
            self.state.overrun = true;
            if self.state.fifos {
                return;
            }
            // Without a FIFO the new byte replaces the old one.
            self.state.received.clear();
        }
        self.state.received.push_back(Received { byte, errors });
    }

    fn pop(&mut self) -> u8 {
        if let Some(received) = self.state.received.pop_front() {
            self.state.last = received.byte;
            if self.state.received.is_empty() {
                self.sink.drained();
            }
        }
        self.state.last
    }

    fn send(&mut self, byte: u8) {
        let bits = 5 + (self.state.lcr & 3);
        let byte = byte & (0xff >> (8 - bits));
        if self.state.mcr & MCR_LOOP != 0 {
            self.push(byte, 0);
        } else {
            self.sink.write(&[byte]);
        }
        self.state.transmit_empty = true;
    }

    fn line_status(&self) -> u8 {
        let errors = self.state.received.front().map_or(0, |r| r.errors);
        let mut status = LSR_EMPTY | errors;
        if !self.state.received.is_empty() {
            status |= LSR_DATA;
        }
        if self.state.overrun {
            status |= LSR_OVERRUN;
        }
        if self.state.fifos && self.state.received.iter().any(|r| r.errors != 0) {
            status |= LSR_FIFO_ERROR;
        }
        status
    }

    /// Something else than a look at line or modem status.
    fn break_polls(&mut self) {
        if self.state.polls < POLLS {
            self.state.polls = 0;
        }
    }

    fn read_line_status(&mut self) -> u8 {
        let status = self.line_status();
        if status & LSR_DATA == 0 {
            self.state.polls = (self.state.polls + 1).min(POLLS);
        }
        self.state.overrun = false;
        if let Some(first) = self.state.received.front_mut() {
            first.errors = 0;
        }
        status
    }

    /// The modem inputs. In loopback they are the four outputs.
    fn modem_status(&self) -> u8 {
        let mcr = self.state.mcr;
        if mcr & MCR_LOOP == 0 {
            return self.state.modem;
        }
        [
            (MCR_RTS, CTS),
            (MCR_DTR, DSR),
            (MCR_OUT1, RI),
            (MCR_OUT2, DCD),
        ]
        .iter()
        .filter(|(output, _)| mcr & output != 0)
        .fold(0, |inputs, (_, input)| inputs | input)
    }

    /// The ring indicator counts when it ends, the others count whenever they change.
    fn note_changes(&mut self, before: u8) {
        let now = self.modem_status();
        self.state.changes |= ((before ^ now) & !RI | before & !now & RI) >> 4;
    }

    /// The interrupt with the highest priority.
    fn cause(&self) -> u8 {
        let (state, waiting) = (&self.state, self.state.received.len());
        let on = |bit| state.ier & bit != 0;
        let error = state.overrun || state.received.front().is_some_and(|r| r.errors != 0);
        if on(IER_LINE) && error {
            IIR_LINE
        } else if on(IER_RECEIVED) && waiting >= usize::from(state.trigger) {
            IIR_RECEIVED
        } else if on(IER_RECEIVED) && waiting > 0 {
            IIR_TIMEOUT
        } else if on(IER_TRANSMIT_EMPTY) && state.transmit_empty {
            IIR_TRANSMIT_EMPTY
        } else if on(IER_MODEM) && state.changes != 0 {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }

    fn drive(&mut self) {
        let level = self.cause() != IIR_NONE && self.state.mcr & MCR_OUT2 != 0;
        if level != self.driven {
            self.driven = level;
            self.irq.set_level(level);
        }
    }

    /// Reading the cause ends a "transmitter empty" interrupt, if that is what it shows.
    fn read_cause(&mut self) -> u8 {
        let cause = self.cause();
        if cause == IIR_TRANSMIT_EMPTY {
            self.state.transmit_empty = false;
        }
        cause | if self.state.fifos { IIR_FIFOS } else { 0 }
    }

    fn write_interrupts(&mut self, value: u8) {
        let value = value & IER_WRITABLE;
        if value & !self.state.ier & IER_TRANSMIT_EMPTY != 0 {
            // The transmitter is empty, and says so to whoever starts listening.
            self.state.transmit_empty = true;
        }
        self.state.ier = value;
    }

    fn write_fifo_control(&mut self, value: u8) {
        let enable = value & FCR_ENABLE != 0;
        if enable != self.state.fifos || value & FCR_CLEAR_RECEIVER != 0 {
            self.state.received.clear();
            self.state.polls = 0;
        }
        self.state.fifos = enable;
        self.state.trigger = match value >> 6 {
            _ if !enable => 1,
            0 => 1,
            1 => 4,
            2 => 8,
            _ => 14,
        };
    }

    fn write_modem_control(&mut self, value: u8) {
        let before = self.modem_status();
        self.state.mcr = value & MCR_WRITABLE;
        self.note_changes(before);
    }
}

impl PortDevice for Serial {
    fn read_port(&mut self, port: u16) -> u8 {
        let divisor = self.state.lcr & LCR_DIVISOR != 0;
        let [low, high] = self.state.divisor.to_le_bytes();
        if !matches!(port & 7, 5 | 6) {
            self.break_polls();
        }
        let value = match port & 7 {
            0 if divisor => low,
            0 => self.pop(),
            1 if divisor => high,
            1 => self.state.ier,
            2 => self.read_cause(),
            3 => self.state.lcr,
            4 => self.state.mcr,
            5 => self.read_line_status(),
            6 => self.modem_status() | std::mem::take(&mut self.state.changes),
            _ => self.state.scratch,
        };
        self.drive();
        value
    }

    fn write_port(&mut self, port: u16, value: u8) {
        let divisor = self.state.lcr & LCR_DIVISOR != 0;
        let [low, high] = self.state.divisor.to_le_bytes();
        self.break_polls();
        match port & 7 {
            0 if divisor => self.state.divisor = u16::from_le_bytes([value, high]),
            0 => self.send(value),
            1 if divisor => self.state.divisor = u16::from_le_bytes([low, value]),
            1 => self.write_interrupts(value),
            2 => self.write_fifo_control(value),
            3 => self.state.lcr = value,
            4 => self.write_modem_control(value),
            // The status registers are not for writing.
            5 | 6 => {}
            _ => self.state.scratch = value,
        }
        self.drive();
    }
}

#[cfg(test)]
#[path = "serial_tests.rs"]
mod tests;
