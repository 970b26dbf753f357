//! The pair of interrupt controllers of a PC: two Intel 8259A (datasheet 231468), the second behind
//! input 2 of the first, with the edge/level registers of the PIIX3 (ELCR).
//!
//! Ports: 20h, 21h (first), A0h, A1h (second), 4D0h, 4D1h (ELCR).
//!
//! Different from the chip: the 8080 mode (ICW4 bit 0 clear) and buffered mode do nothing; there is
//! always a second chip, whatever ICW3 and the "single" bit of ICW1 say; ICW1's level bit is
//! ignored in favour of the ELCR, as the PIIX3 does. An edge-triggered request that is withdrawn
//! before it is acknowledged stays; the chip would forget it. So a pulse of any length counts, and
//! a timer whose edges are driven late loses no tick.

use serde::{Deserialize, Serialize};

use crate::{InterruptLine, NotConnected, PortDevice, Shared};

/// Command port of the first chip; the data port follows.
pub const MASTER: u16 = 0x20;
/// Command port of the second chip; the data port follows.
pub const SLAVE: u16 = 0xa0;
/// First of the two edge/level registers.
pub const ELCR: u16 = 0x4d0;

/// The input of the first chip that the second drives.
const CASCADE: u8 = 2;
/// Inputs that may be made level-triggered: all but timer, keyboard and cascade, RTC and FPU.
const ELCR_WRITABLE: [u8; 2] = [0xf8, 0xde];

const ICW1: u8 = 0x10;
const ICW1_NEEDS_ICW4: u8 = 0x01;
const ICW4_AUTO_EOI: u8 = 0x02;
const ICW4_FULLY_NESTED: u8 = 0x10;
const OCW3: u8 = 0x08;
const OCW3_READ_ISR: u8 = 0x01;
const OCW3_READ: u8 = 0x02;
const OCW3_POLL: u8 = 0x04;
const OCW3_SPECIAL_MASK: u8 = 0x20;
const OCW3_SET_SPECIAL_MASK: u8 = 0x40;

/// Which initialisation word a write to the data port is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
enum Init {
    /// None: it is OCW1.
    #[default]
    Done,
    Icw2,
    Icw3,
    Icw4,
}

/// One 8259A.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Chip {
    /// Levels of the inputs.
    lines: u8,
    /// Edges seen and not yet acknowledged.
    edges: u8,
    /// Inputs that are level-triggered.
    level: u8,
    in_service: u8,
    mask: u8,
    /// Vector of input 0.
    vector: u8,
    /// Input with the highest priority.
    first: u8,
    init: Init,
    needs_icw4: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    fully_nested: bool,
    special_mask: bool,
    read_in_service: bool,
    poll: bool,
}

impl Chip {
    /// IRR.
    fn requests(&self) -> u8 {
        (self.edges & !self.level) | (self.lines & self.level)
    }

    fn set_line(&mut self, input: u8, high: bool) {
        let bit = 1 << input;
        if high {
            self.edges |= bit & !self.lines;
            self.lines |= bit;
        } else {
            self.lines &= !bit;
        }
    }

    /// Of these inputs, the one with the highest priority.
    fn highest(&self, inputs: u8) -> Option<u8> {
        let ahead = inputs.rotate_right(u32::from(self.first)).trailing_zeros() as u8;
        (inputs != 0).then(|| (ahead + self.first) & 7)
    }

    /// The input to serve next, given what the cascade input adds to the requests.
    fn next(&self, cascade: u8) -> Option<u8> {
        let input = self.highest((self.requests() | cascade) & !self.mask)?;
        let mut blocking = self.in_service;
        if self.special_mask {
            blocking &= !self.mask;
        }
        if self.fully_nested && input == CASCADE {
            // A further request from the same second chip, which has decided on its priority.
            blocking &= !(1 << CASCADE);
        }
        match self.highest(blocking) {
            Some(busy) if self.rank(busy) <= self.rank(input) => None,
            _ => Some(input),
        }
    }

    /// 0 for the highest priority, 7 for the lowest.
    fn rank(&self, input: u8) -> u8 {
        input.wrapping_sub(self.first) & 7
    }

    /// The input enters service.
    fn serve(&mut self, input: u8) {
        self.edges &= !(1 << input);
        if !self.auto_eoi {
            self.in_service |= 1 << input;
        } else if self.rotate_on_auto_eoi {
            self.first = (input + 1) & 7;
        }
    }

    fn start_init(&mut self, icw1: u8) {
        self.edges = 0;
        self.in_service = 0;
        self.mask = 0;
        self.first = 0;
        self.special_mask = false;
        self.read_in_service = false;
        self.poll = false;
        self.needs_icw4 = icw1 & ICW1_NEEDS_ICW4 != 0;
        if !self.needs_icw4 {
            self.auto_eoi = false;
            self.fully_nested = false;
        }
        self.init = Init::Icw2;
    }

    /// OCW2: end of interrupt and rotation.
    fn end_of_interrupt(&mut self, ocw2: u8) {
        let (rotate, specific, eoi) = (ocw2 & 0x80 != 0, ocw2 & 0x40 != 0, ocw2 & 0x20 != 0);
        let named = ocw2 & 7;
        match (specific, eoi) {
            (false, false) => self.rotate_on_auto_eoi = rotate,
            (true, false) if rotate => self.first = (named + 1) & 7,
            (true, false) => {}
            (_, true) => {
                // In special mask mode the unspecific command passes over masked inputs.
                let hidden = if self.special_mask { self.mask } else { 0 };
                let ended = match specific {
                    true => Some(named),
                    false => self.highest(self.in_service & !hidden),
                };
                if let Some(input) = ended {
                    self.in_service &= !(1 << input);
                    if rotate {
                        self.first = (input + 1) & 7;
                    }
                }
            }
        }
    }

    fn write_command(&mut self, value: u8) {
        if value & ICW1 != 0 {
            self.start_init(value);
        } else if value & OCW3 != 0 {
            if value & OCW3_POLL != 0 {
                self.poll = true;
            } else if value & OCW3_READ != 0 {
                self.read_in_service = value & OCW3_READ_ISR != 0;
            }
            if value & OCW3_SET_SPECIAL_MASK != 0 {
                self.special_mask = value & OCW3_SPECIAL_MASK != 0;
            }
        } else {
            self.end_of_interrupt(value);
        }
    }

    fn write_data(&mut self, value: u8) {
        self.init = match self.init {
            Init::Done => {
                self.mask = value;
                Init::Done
            }
            Init::Icw2 => {
                self.vector = value & 0xf8;
                Init::Icw3
            }
            Init::Icw3 if self.needs_icw4 => Init::Icw4,
            Init::Icw3 => Init::Done,
            Init::Icw4 => {
                self.auto_eoi = value & ICW4_AUTO_EOI != 0;
                self.fully_nested = value & ICW4_FULLY_NESTED != 0;
                Init::Done
            }
        };
    }
}

/// The state of the pair.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PicState {
    chips: [Chip; 2],
}

/// The pair of 8259A.
pub struct Pic {
    state: PicState,
    /// INTR, as last driven.
    output: Box<dyn InterruptLine>,
    driven: bool,
}

impl Default for Pic {
    fn default() -> Pic {
        Pic::new()
    }
}

impl Pic {
    /// After power-on, with INTR not connected: ask [`Pic::pending`].
    pub fn new() -> Pic {
        Pic::with_output(Box::new(NotConnected))
    }

    /// After power-on; drives `output` as INTR.
    pub fn with_output(output: Box<dyn InterruptLine>) -> Pic {
        Pic {
            state: PicState::default(),
            output,
            driven: false,
        }
    }

    /// Drives interrupt request 0 to 15. The cascade input, 2, is taken: driving it does nothing.
    pub fn set_irq(&mut self, line: u8, level: bool) {
        if line < 16 && line != CASCADE {
            self.state.chips[usize::from(line >> 3)].set_line(line & 7, level);
            self.drive();
        }
    }

    /// INTR: whether an interrupt waits for the processor.
    pub fn pending(&self) -> bool {
        self.state.chips[0].next(self.cascade()).is_some()
    }

    /// The acknowledge cycle: gives the vector, and puts the interrupt in service. Without a
    /// request (it was withdrawn or masked meanwhile) the vector is that of input 7, which does
    /// not enter service: the spurious interrupt.
    pub fn acknowledge(&mut self) -> u8 {
        let cascade = self.cascade();
        let [master, slave] = &mut self.state.chips;
        let vector = match master.next(cascade) {
            None => master.vector + 7,
            Some(CASCADE) => {
                master.serve(CASCADE);
                let input = slave.next(0);
                if let Some(input) = input {
                    slave.serve(input);
                }
                slave.vector + input.unwrap_or(7)
            }
            Some(input) => {
                master.serve(input);
                master.vector + input
            }
        };
        self.drive();
        vector
    }

    /// The state.
    pub fn save(&self) -> PicState {
        self.state.clone()
    }

    /// Takes over a state.
    pub fn restore(&mut self, state: PicState) {
        self.state = state;
        for chip in &mut self.state.chips {
            chip.first &= 7;
            chip.vector &= 0xf8;
        }
        self.drive();
    }

    /// What the second chip's INT output adds to the requests of the first. It is followed as a
    /// level: the output falls at each acknowledge, so there is always a new edge. Both chips
    /// decide in the same moment, so the second has no spurious interrupt of its own (IRQ 15):
    /// that takes a request withdrawn between the two acknowledge pulses.
    fn cascade(&self) -> u8 {
        u8::from(self.state.chips[1].next(0).is_some()) << CASCADE
    }

    fn drive(&mut self) {
        let pending = self.pending();
        if pending != self.driven {
            self.driven = pending;
            self.output.set_level(pending);
        }
    }

    /// The read after a poll command, which acknowledges.
    fn poll(&mut self, chip: usize) -> u8 {
        let cascade = if chip == 0 { self.cascade() } else { 0 };
        let chip = &mut self.state.chips[chip];
        chip.poll = false;
        match chip.next(cascade) {
            Some(input) => {
                chip.serve(input);
                0x80 | input
            }
            None => 0,
        }
    }

    fn read_chip(&mut self, index: usize, data: bool) -> u8 {
        let cascade = if index == 0 { self.cascade() } else { 0 };
        let chip = &self.state.chips[index];
        match (chip.poll, data) {
            (true, _) => self.poll(index),
            (_, true) => chip.mask,
            (_, false) if chip.read_in_service => chip.in_service,
            _ => chip.requests() | cascade,
        }
    }
}

impl PortDevice for Pic {
    fn read_port(&mut self, port: u16) -> u8 {
        let value = match port {
            MASTER | 0x21 => self.read_chip(0, port & 1 != 0),
            SLAVE | 0xa1 => self.read_chip(1, port & 1 != 0),
            ELCR | 0x4d1 => self.state.chips[usize::from(port & 1)].level,
            _ => 0xff,
        };
        self.drive();
        value
    }

    fn write_port(&mut self, port: u16, value: u8) {
        let chips = &mut self.state.chips;
        match port {
            MASTER => chips[0].write_command(value),
            0x21 => chips[0].write_data(value),
            SLAVE => chips[1].write_command(value),
            0xa1 => chips[1].write_data(value),
            ELCR | 0x4d1 => {
                let index = usize::from(port & 1);
                chips[index].level = value & ELCR_WRITABLE[index];
            }
            _ => {}
        }
        self.drive();
    }
}

/// An input of a shared pair.
struct PicInput {
    pic: Shared<Pic>,
    line: u8,
}

impl InterruptLine for PicInput {
    fn set_level(&self, high: bool) {
        self.pic.lock().set_irq(self.line, high);
    }
}

impl Shared<Pic> {
    /// Interrupt request 0 to 15, for a device to drive.
    pub fn irq(&self, line: u8) -> Box<dyn InterruptLine> {
        Box::new(PicInput {
            pic: self.clone(),
            line,
        })
    }
}

#[cfg(test)]
#[path = "pic_tests.rs"]
mod tests;
