//! The keyboard behind the controller: its commands, and what it sends.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::keys::Key;

pub(super) const ACK: u8 = 0xfa;
pub(super) const RESEND: u8 = 0xfe;
pub(super) const SELF_TEST_PASSED: u8 = 0xaa;
/// Bytes that wait to be sent, before keys are refused.
const BUFFER: usize = 16;
/// Bytes at or above this are commands, even where a parameter is awaited.
const FIRST_COMMAND: u8 = 0xed;

/// A keyboard with scan code sets 1 and 2.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct KeyboardDevice {
    /// Scan code set.
    set: u8,
    /// Keys are reported.
    scanning: bool,
    leds: u8,
    typematic: u8,
    /// The command whose parameter comes next.
    awaiting: Option<u8>,
    queue: VecDeque<u8>,
    last: u8,
}

impl KeyboardDevice {
    pub(super) fn new() -> KeyboardDevice {
        KeyboardDevice {
            set: 2,
            scanning: true,
            leds: 0,
            typematic: 0x2b,
            awaiting: None,
            queue: VecDeque::new(),
            last: 0,
        }
    }

    /// Brings a saved state into range.
    pub(super) fn sanitise(&mut self) {
        self.queue.truncate(2 * BUFFER);
    }

    /// Scroll, Num and Caps Lock lights, in bits 0 to 2.
    pub(super) fn leds(&self) -> u8 {
        self.leds
    }

    /// A key changes. Whether there was room; the host tries again later if not.
    pub(super) fn key(&mut self, key: Key, pressed: bool) -> bool {
        if !self.scanning {
            return true;
        }
        let codes = match self.set {
            1 => key.set1(pressed),
            _ => key.set2(pressed),
        };
        let room = self.queue.len() + codes.len() <= BUFFER;
        if room {
            self.queue.extend(codes);
        }
        room
    }

    /// Whether it has something to send.
    pub(super) fn waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next byte that it sends.
    pub(super) fn pop(&mut self) -> Option<u8> {
        let byte = self.queue.pop_front()?;
        if byte != RESEND {
            self.last = byte;
        }
        Some(byte)
    }

    /// A byte from the guest.
    pub(super) fn write(&mut self, value: u8) {
        match self.awaiting.take() {
            Some(command) if value < FIRST_COMMAND => self.parameter(command, value),
            _ => self.command(value),
        }
    }

    fn answer(&mut self, bytes: &[u8]) {
        // A guest that sends without ever reading loses answers.
        if self.queue.len() + bytes.len() <= 2 * BUFFER {
            self.queue.extend(bytes);
        }
    }

    fn defaults(&mut self) {
        *self = KeyboardDevice {
            leds: self.leds,
            last: self.last,
            ..KeyboardDevice::new()
        };
    }

    fn command(&mut self, command: u8) {
        match command {
            0xed | 0xf0 | 0xf3 => {
                self.awaiting = Some(command);
                self.answer(&[ACK]);
            }
            0xee => self.answer(&[0xee]),
            0xf2 => self.answer(&[ACK, 0xab, 0x83]),
            0xf4 => {
                self.queue.clear();
                self.scanning = true;
                self.answer(&[ACK]);
            }
            0xf5 | 0xf6 => {
                self.defaults();
                self.scanning = command == 0xf6;
                self.answer(&[ACK]);
            }
            // What concerns set 3 only.
            0xf7..=0xfa => self.answer(&[ACK]),
            RESEND => self.answer(&[self.last]),
            0xff => {
                self.defaults();
                self.leds = 0;
                self.answer(&[ACK, SELF_TEST_PASSED]);
            }
            _ => self.answer(&[RESEND]),
        }
    }

    fn parameter(&mut self, command: u8, value: u8) {
        match (command, value) {
            (0xed, _) => self.leds = value & 7,
            (0xf3, _) => self.typematic = value & 0x7f,
            (0xf0, 0) => return self.answer(&[ACK, self.set]),
            (0xf0, 1 | 2) => {
                self.queue.clear();
                self.set = value;
            }
            // Set 3, among others.
            _ => return self.answer(&[RESEND]),
        }
        self.answer(&[ACK]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(keyboard: &mut KeyboardDevice, bytes: &[u8]) -> Vec<u8> {
        for byte in bytes {
            keyboard.write(*byte);
        }
        std::iter::from_fn(|| keyboard.pop()).collect()
    }

    #[test]
    fn commands_and_their_answers() {
        let mut k = KeyboardDevice::new();
        for (sent, answered) in [
            (&[0xff][..], &[0xfa, 0xaa][..]),
            (&[0xf2], &[0xfa, 0xab, 0x83]),
            (&[0xee], &[0xee]),
            (&[0xed, 0x05], &[0xfa, 0xfa]),
            (&[0xf3, 0x20], &[0xfa, 0xfa]),
            (&[0xf0, 0x00], &[0xfa, 0xfa, 0x02]),
            (&[0xf0, 0x03], &[0xfa, 0xfe]),
            (&[0xed, 0xf4], &[0xfa]),
            (&[0xfe], &[0xfa]),
            (&[0x12], &[0xfe]),
        ] {
            assert_eq!(talk(&mut k, sent), answered, "{sent:x?}");
        }
        assert_eq!(k.leds(), 5);
    }

    #[test]
    fn keys_come_in_the_chosen_set_while_scanning() {
        let mut k = KeyboardDevice::new();
        k.key(Key::A, false);
        assert_eq!(talk(&mut k, &[]), [0xf0, 0x1c]);
        talk(&mut k, &[0xf0, 1]);
        k.key(Key::A, false);
        assert_eq!(talk(&mut k, &[]), [0x9e]);
        talk(&mut k, &[0xf5]);
        assert!(k.key(Key::A, true));
        assert_eq!(talk(&mut k, &[]), [0; 0]);
        talk(&mut k, &[0xf4]);
        for _ in 0..16 {
            assert!(k.key(Key::A, true));
        }
        assert!(!k.key(Key::A, true), "full");
    }
}
