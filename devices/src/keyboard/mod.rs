//! The keyboard controller of a PC: Intel 8042 with the program of the PS/2 (IBM technical
//! reference, keyboard and auxiliary device controller), a keyboard and a mouse.
//!
//! Ports: 60h data, 64h status and commands. The other outputs are A20 and the processor's reset.
//!
//! A byte takes 0.4 ms from a device to the output buffer, and the buffer holds its value when it
//! has been read: interrupt handlers that read port 60h a second time see the same key, as they
//! expect. The controller itself answers at once; its input buffer is always empty. After power-on
//! it is as firmware leaves it: keyboard on, its interrupt and the translation too, mouse off.
//!
//! Left out: scan code set 3, key repeat (the host's keyboard repeats), passwords, the test inputs.

mod device;
pub mod keys;
mod mouse;

use std::collections::VecDeque;
use std::sync::Arc;

use device::KeyboardDevice;
use keys::{Key, Translator};
use mouse::Mouse;
use serde::{Deserialize, Serialize};

use crate::{Clock, InterruptLine, PortDevice, Timed};

/// Data port.
pub const DATA: u16 = 0x60;
/// Status when read, command when written.
pub const COMMAND: u16 = 0x64;

const STATUS_FULL: u8 = 0x01;
const STATUS_SYSTEM: u8 = 0x04;
const STATUS_COMMAND: u8 = 0x08;
const STATUS_UNLOCKED: u8 = 0x10;
const STATUS_MOUSE: u8 = 0x20;

const MODE_KEYBOARD_IRQ: u8 = 0x01;
const MODE_MOUSE_IRQ: u8 = 0x02;
const MODE_SYSTEM: u8 = 0x04;
const MODE_NO_KEYBOARD: u8 = 0x10;
const MODE_NO_MOUSE: u8 = 0x20;
const MODE_TRANSLATE: u8 = 0x40;

/// Low resets the processor.
const PORT_RESET: u8 = 0x01;
const PORT_A20: u8 = 0x02;
const PORT_KEYBOARD_IRQ: u8 = 0x10;
const PORT_MOUSE_IRQ: u8 = 0x20;

const WRITE_OUTPUT_PORT: u8 = 0xd1;
const WRITE_KEYBOARD_BUFFER: u8 = 0xd2;
const WRITE_MOUSE_BUFFER: u8 = 0xd3;
const WRITE_MOUSE: u8 = 0xd4;

/// From one byte of a device to the next: eleven bits at the fastest clock, about.
const TRANSFER: u64 = 400_000;
/// Answers of the controller that may wait.
const ANSWERS: usize = 16;

/// Where the controller's outputs lead.
pub struct KeyboardLines {
    /// Keyboard interrupt, 1.
    pub keyboard_irq: Box<dyn InterruptLine>,
    /// Mouse interrupt, 12.
    pub mouse_irq: Box<dyn InterruptLine>,
    /// High lets address bit 20 through.
    pub a20: Box<dyn InterruptLine>,
    /// A pulse resets the processor.
    pub reset: Box<dyn InterruptLine>,
}

/// The state of the controller, the keyboard and the mouse.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyboardState {
    /// Command byte and the 31 bytes of RAM after it.
    ram: [u8; 32],
    /// The command whose data byte comes next.
    awaiting: Option<u8>,
    last_was_command: bool,
    a20: bool,
    /// Output buffer: the byte, whether it is new, whether from the mouse.
    output: u8,
    full: bool,
    from_mouse: bool,
    /// What the controller itself has to say, and whether it comes as from the mouse.
    answers: VecDeque<(u8, bool)>,
    /// When a device may next put a byte into the output buffer.
    ready: u64,
    translator: Translator,
    keyboard: KeyboardDevice,
    mouse: Mouse,
}

/// The controller with its keyboard and mouse.
pub struct Keyboard {
    state: KeyboardState,
    clock: Arc<dyn Clock>,
    lines: KeyboardLines,
}

impl Keyboard {
    /// As firmware leaves it, see above. Opens A20.
    pub fn new(clock: Arc<dyn Clock>, lines: KeyboardLines) -> Keyboard {
        let mut ram = [0; 32];
        ram[0] = MODE_TRANSLATE | MODE_NO_MOUSE | MODE_SYSTEM | MODE_KEYBOARD_IRQ;
        lines.a20.set_level(true);
        Keyboard {
            state: KeyboardState {
                ram,
                awaiting: None,
                last_was_command: false,
                a20: true,
                output: 0,
                full: false,
                from_mouse: false,
                answers: VecDeque::new(),
                ready: clock.now(),
                translator: Translator::default(),
                keyboard: KeyboardDevice::new(),
                mouse: Mouse::new(),
            },
            clock,
            lines,
        }
    }

    /// A key goes down or up. False if the keyboard's buffer is full: try again later.
    pub fn key(&mut self, key: Key, pressed: bool) -> bool {
        let taken = self.state.keyboard.key(key, pressed);
        self.fill(self.clock.now());
        taken
    }

    /// The mouse moves (right, down and wheel towards the user count positive), and its buttons
    /// are now these: left, right, middle and two more in bits 0 to 4.
    pub fn mouse(&mut self, right: i32, down: i32, wheel: i32, buttons: u8) {
        self.state.mouse.input(right, down, wheel, buttons);
        self.fill(self.clock.now());
    }

    /// Scroll, Num and Caps Lock lights, in bits 0 to 2.
    pub fn leds(&self) -> u8 {
        self.state.keyboard.leds()
    }

    /// The state.
    pub fn save(&self) -> KeyboardState {
        self.state.clone()
    }

    /// Takes over a state.
    pub fn restore(&mut self, state: KeyboardState) {
        self.state = state;
        self.state.keyboard.sanitise();
        self.state.mouse.sanitise();
        self.lines.a20.set_level(self.state.a20);
        self.drive();
    }

    fn mode(&self) -> u8 {
        self.state.ram[0]
    }

    fn set_mode(&mut self, bit: u8, on: bool) {
        self.state.ram[0] = self.mode() & !bit | if on { bit } else { 0 };
    }

    fn keyboard_waits(&self) -> bool {
        self.mode() & MODE_NO_KEYBOARD == 0 && self.state.keyboard.waiting()
    }

    fn mouse_waits(&self) -> bool {
        self.mode() & MODE_NO_MOUSE == 0 && self.state.mouse.waiting()
    }

    /// Fills the output buffer if it is empty and something may go there.
    fn fill(&mut self, now: u64) {
        if !self.state.full {
            if let Some((byte, from_mouse)) = self.state.answers.pop_front() {
                self.put(byte, from_mouse);
            } else if now >= self.state.ready {
                if let Some(byte) = self.next_of_keyboard() {
                    self.put(byte, false);
                } else if self.mouse_waits()
                    && let Some(byte) = self.state.mouse.pop()
                {
                    self.put(byte, true);
                }
            }
        }
        self.drive();
    }

    fn next_of_keyboard(&mut self) -> Option<u8> {
        while self.keyboard_waits() {
            let byte = self.state.keyboard.pop()?;
            if self.mode() & MODE_TRANSLATE == 0 {
                return Some(byte);
            }
            if let Some(byte) = self.state.translator.translate(byte) {
                return Some(byte);
            }
        }
        None
    }

    fn put(&mut self, byte: u8, from_mouse: bool) {
        self.state.output = byte;
        self.state.full = true;
        self.state.from_mouse = from_mouse;
    }

    /// The levels of the two interrupts.
    fn interrupts(&self) -> (bool, bool) {
        let (full, mouse, mode) = (self.state.full, self.state.from_mouse, self.mode());
        (
            full && !mouse && mode & MODE_KEYBOARD_IRQ != 0,
            full && mouse && mode & MODE_MOUSE_IRQ != 0,
        )
    }

    fn drive(&self) {
        let (keyboard, mouse) = self.interrupts();
        self.lines.keyboard_irq.set_level(keyboard);
        self.lines.mouse_irq.set_level(mouse);
    }

    fn answer(&mut self, byte: u8, from_mouse: bool) {
        if self.state.answers.len() < ANSWERS {
            self.state.answers.push_back((byte, from_mouse));
        }
    }

    fn set_a20(&mut self, on: bool) {
        self.state.a20 = on;
        self.lines.a20.set_level(on);
    }

    fn output_port(&self) -> u8 {
        let (keyboard, mouse) = self.interrupts();
        [
            (PORT_A20, self.state.a20),
            (PORT_KEYBOARD_IRQ, keyboard),
            (PORT_MOUSE_IRQ, mouse),
        ]
        .iter()
        .filter(|(_, on)| *on)
        .fold(PORT_RESET, |port, (bit, _)| port | bit)
    }

    fn status(&self) -> u8 {
        let state = &self.state;
        let system = self.mode() & MODE_SYSTEM != 0;
        [
            (STATUS_FULL, state.full),
            (STATUS_SYSTEM, system),
            (STATUS_COMMAND, state.last_was_command),
            (STATUS_MOUSE, state.full && state.from_mouse),
        ]
        .iter()
        .filter(|(_, on)| *on)
        .fold(STATUS_UNLOCKED, |status, (bit, _)| status | bit)
    }

    fn command(&mut self, command: u8) {
        self.state.awaiting = None;
        match command {
            0x20..0x40 => self.answer(self.state.ram[usize::from(command & 0x1f)], false),
            0x60..0x80 | WRITE_OUTPUT_PORT..=WRITE_MOUSE => self.state.awaiting = Some(command),
            // No password.
            0xa4 => self.answer(0xf1, false),
            0xa7 | 0xa8 => self.set_mode(MODE_NO_MOUSE, command == 0xa7),
            // The two ports pass their tests, and the controller its own.
            0xa9 | 0xab => self.answer(0x00, false),
            0xaa => {
                self.set_mode(MODE_SYSTEM, true);
                self.answer(0x55, false);
            }
            0xad | 0xae => self.set_mode(MODE_NO_KEYBOARD, command == 0xad),
            0xc0 => self.answer(0x80, false),
            0xd0 => self.answer(self.output_port(), false),
            0xdd | 0xdf => self.set_a20(command == 0xdf),
            0xe0 => self.answer(0x00, false),
            // Pulses those outputs whose bits are clear.
            0xf0.. if command & PORT_RESET == 0 => self.lines.reset.pulse(),
            _ => {}
        }
    }

    fn data(&mut self, value: u8, now: u64) {
        match self.state.awaiting.take() {
            Some(command @ 0x60..0x80) => {
                self.state.ram[usize::from(command & 0x1f)] = value;
            }
            Some(WRITE_OUTPUT_PORT) => {
                self.set_a20(value & PORT_A20 != 0);
                if value & PORT_RESET == 0 {
                    self.lines.reset.pulse();
                }
            }
            Some(WRITE_KEYBOARD_BUFFER) => self.answer(value, false),
            Some(WRITE_MOUSE_BUFFER) => self.answer(value, true),
            // Talking to a device switches it on.
            Some(WRITE_MOUSE) => {
                self.set_mode(MODE_NO_MOUSE, false);
                self.state.mouse.write(value);
                self.state.ready = now.saturating_add(TRANSFER);
            }
            _ => {
                self.set_mode(MODE_NO_KEYBOARD, false);
                self.state.keyboard.write(value);
                self.state.ready = now.saturating_add(TRANSFER);
            }
        }
    }

    fn read_data(&mut self, now: u64) -> u8 {
        if std::mem::take(&mut self.state.full) {
            self.state.ready = now.saturating_add(TRANSFER);
            // The line falls before the next byte raises it.
            self.drive();
        }
        self.state.output
    }
}

impl PortDevice for Keyboard {
    fn read_port(&mut self, port: u16) -> u8 {
        let now = self.clock.now();
        self.fill(now);
        match port {
            DATA => {
                let value = self.read_data(now);
                self.fill(now);
                value
            }
            COMMAND => self.status(),
            _ => 0xff,
        }
    }

    fn write_port(&mut self, port: u16, value: u8) {
        let now = self.clock.now();
        self.fill(now);
        match port {
            DATA => self.data(value, now),
            COMMAND => self.command(value),
            _ => return,
        }
        self.state.last_was_command = port == COMMAND;
        self.fill(now);
    }
}

impl Timed for Keyboard {
    fn next_event(&self, _now: u64) -> Option<u64> {
        let waits = !self.state.full && (self.keyboard_waits() || self.mouse_waits());
        waits.then_some(self.state.ready)
    }

    fn advance(&mut self, now: u64) {
        self.fill(now);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
