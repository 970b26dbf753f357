//! The mouse behind the controller: a PS/2 mouse with three buttons that becomes one with a wheel
//! (identity 3), and with five buttons (identity 4), when the guest knocks with the sample rates
//! that drivers use for that.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::device::{ACK, RESEND, SELF_TEST_PASSED};

/// Bytes that may wait.
const BUFFER: usize = 16;

/// A mouse.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Mouse {
    identity: u8,
    rate: u8,
    /// The last three rates that were set.
    knock: [u8; 3],
    resolution: u8,
    double: bool,
    reporting: bool,
    /// Reports only when asked.
    remote: bool,
    /// Echoes what it is sent.
    wrap: bool,
    /// The command whose parameter comes next.
    awaiting: Option<u8>,
    buttons: u8,
    /// Movement since the last report: right, up, wheel towards the user.
    moved: [i32; 3],
    /// Something has happened since the last report.
    changed: bool,
    queue: VecDeque<u8>,
    last: u8,
}

impl Mouse {
    pub(super) fn new() -> Mouse {
        Mouse {
            identity: 0,
            rate: 100,
            knock: [0; 3],
            resolution: 2,
            double: false,
            reporting: false,
            remote: false,
            wrap: false,
            awaiting: None,
            buttons: 0,
            moved: [0; 3],
            changed: false,
            queue: VecDeque::new(),
            last: 0,
        }
    }

    /// Brings a saved state into range.
    pub(super) fn sanitise(&mut self) {
        self.queue.truncate(BUFFER);
    }

    /// Moves, and sets the buttons: left, right, middle and two more in bits 0 to 4.
    pub(super) fn input(&mut self, right: i32, down: i32, wheel: i32, buttons: u8) {
        for (sum, by) in self
            .moved
            .iter_mut()
            .zip([right, down.saturating_neg(), wheel])
        {
            *sum = sum.saturating_add(by).clamp(-10_000, 10_000);
        }
        self.changed |= buttons != self.buttons || self.moved != [0; 3];
        self.buttons = buttons & 0x1f;
        self.report();
    }

    /// Whether it has something to send.
    pub(super) fn waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next byte that it sends.
    pub(super) fn pop(&mut self) -> Option<u8> {
        let byte = self.queue.pop_front()?;
        self.last = byte;
        self.report();
        Some(byte)
    }

    /// Queues a packet if there is something to report and nothing waits: movement adds up while
    /// the guest is slow.
    fn report(&mut self) {
        if self.reporting && !self.remote && !self.wrap && self.changed && self.queue.is_empty() {
            self.packet(self.double);
            self.changed = self.moved != [0; 3];
        }
    }

    fn packet(&mut self, double: bool) {
        let [x, y] = [0, 1].map(|axis| {
            let part = self.moved[axis].clamp(-255, 255);
            self.moved[axis] -= part;
            if double { doubled(part) } else { part }
        });
        let mut first = 0x08 | self.buttons & 7;
        for (delta, sign, overflow) in [(x, 0x10, 0x40), (y, 0x20, 0x80)] {
            first |= if delta < 0 { sign } else { 0 };
            first |= if delta.abs() > 255 { overflow } else { 0 };
        }
        self.queue.extend([first, x as u8, y as u8]);
        if self.identity >= 3 {
            let z = self.moved[2].clamp(-8, 7);
            self.moved[2] -= z;
            self.queue.push_back(match self.identity {
                3 => z as u8,
                _ => z as u8 & 0x0f | (self.buttons & 0x18) << 1,
            });
        } else {
            self.moved[2] = 0;
        }
    }

    /// A byte from the guest.
    pub(super) fn write(&mut self, value: u8) {
        if self.wrap && !matches!(value, 0xec | 0xff) {
            return self.answer(&[value]);
        }
        match self.awaiting.take() {
            Some(command) => self.parameter(command, value),
            None => self.command(value),
        }
    }

    fn answer(&mut self, bytes: &[u8]) {
        if self.queue.len() + bytes.len() <= BUFFER {
            self.queue.extend(bytes);
        }
    }

    fn command(&mut self, command: u8) {
        // Movement that was not fetched gives way to answers.
        self.queue.clear();
        match command {
            0xe6 | 0xe7 => self.double = command == 0xe7,
            0xe8 | 0xf3 => self.awaiting = Some(command),
            0xe9 => {
                let status = u8::from(self.remote) << 6
                    | u8::from(self.reporting) << 5
                    | u8::from(self.double) << 4
                    | self.buttons.reverse_bits() >> 5 & 4
                    | self.buttons >> 1 & 2
                    | self.buttons >> 1 & 1;
                return self.answer(&[ACK, status, self.resolution, self.rate]);
            }
            0xea => self.remote = false,
            0xeb => {
                self.answer(&[ACK]);
                self.packet(false);
                self.changed = false;
                return;
            }
            0xec => self.wrap = false,
            0xee => self.wrap = true,
            0xf0 => self.remote = true,
            0xf2 => return self.answer(&[ACK, self.identity]),
            0xf4 => self.reporting = true,
            0xf5 => self.reporting = false,
            0xf6 => {
                *self = Mouse {
                    identity: self.identity,
                    buttons: self.buttons,
                    ..Mouse::new()
                }
            }
            RESEND => return self.answer(&[self.last]),
            0xff => {
                *self = Mouse::new();
                return self.answer(&[ACK, SELF_TEST_PASSED, 0]);
            }
            _ => return self.answer(&[RESEND]),
        }
        self.answer(&[ACK]);
    }

    fn parameter(&mut self, command: u8, value: u8) {
        if command == 0xe8 {
            self.resolution = value & 3;
        } else {
            self.rate = value;
            self.knock = [self.knock[1], self.knock[2], value];
            self.identity = match (self.knock, self.identity) {
                ([200, 100, 80], 0) => 3,
                ([200, 200, 80], 3) => 4,
                (_, identity) => identity,
            };
        }
        self.answer(&[ACK]);
    }
}

/// Scaling 2:1 of the data sheet: small movements are damped, large ones doubled.
fn doubled(delta: i32) -> i32 {
    let size = match delta.abs() {
        n @ 0..=1 => n,
        2 => 1,
        3 => 3,
        4 => 6,
        5 => 9,
        n => 2 * n,
    };
    size * delta.signum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(mouse: &mut Mouse, bytes: &[u8]) -> Vec<u8> {
        for byte in bytes {
            mouse.write(*byte);
        }
        std::iter::from_fn(|| mouse.pop()).collect()
    }

    fn knock(mouse: &mut Mouse, rates: [u8; 3]) -> u8 {
        for rate in rates {
            talk(mouse, &[0xf3]);
            talk(mouse, &[rate]);
        }
        talk(mouse, &[0xf2])[1]
    }

    #[test]
    fn reset_and_status() {
        let mut m = Mouse::new();
        assert_eq!(talk(&mut m, &[0xff]), [0xfa, 0xaa, 0x00]);
        assert_eq!(talk(&mut m, &[0xe9]), [0xfa, 0x00, 0x02, 100]);
        assert_eq!(talk(&mut m, &[0xe8]), [0xfa]);
        assert_eq!(talk(&mut m, &[3]), [0xfa]);
        talk(&mut m, &[0xe7]);
        talk(&mut m, &[0xf4]);
        m.input(0, 0, 0, 1);
        assert_eq!(talk(&mut m, &[0xe9]), [0xfa, 0x34, 0x03, 100]);
        m.input(0, 0, 0, 2);
        assert_eq!(talk(&mut m, &[0xe9])[1], 0x31);
        m.input(0, 0, 0, 4);
        assert_eq!(talk(&mut m, &[0xe9])[1], 0x32);
        assert_eq!(talk(&mut m, &[0x10]), [0xfe]);
    }

    #[test]
    fn movement_adds_up_and_comes_in_parts() {
        let mut m = Mouse::new();
        m.input(5, 5, 0, 0);
        assert!(!m.waiting(), "not reporting");
        talk(&mut m, &[0xf5]);
        m.moved = [0; 3];
        talk(&mut m, &[0xf4]);
        m.input(10, 3, 0, 1);
        m.input(300, 0, 0, 1);
        m.input(1, 0, 0, 1);
        assert_eq!(
            talk(&mut m, &[]),
            [0x29, 10, 0xfd, 0x09, 255, 0, 0x09, 46, 0],
            "up counts positive"
        );
        m.input(0, 0, 0, 1);
        assert!(!m.waiting(), "nothing new");
    }

    #[test]
    fn a_wheel_for_those_who_knock() {
        let mut m = Mouse::new();
        assert_eq!(knock(&mut m, [200, 200, 80]), 0, "one step at a time");
        assert_eq!(knock(&mut m, [200, 100, 80]), 3);
        talk(&mut m, &[0xf4]);
        m.input(0, 0, -1, 0);
        assert_eq!(talk(&mut m, &[]), [0x08, 0, 0, 0xff]);
        assert_eq!(knock(&mut m, [200, 200, 80]), 4);
        m.input(0, 0, 2, 0x10);
        assert_eq!(talk(&mut m, &[]), [0x08, 0, 0, 0x22]);
    }

    #[test]
    fn remote_and_wrap_modes() {
        let mut m = Mouse::new();
        talk(&mut m, &[0xf4]);
        talk(&mut m, &[0xf0]);
        m.input(-2, 0, 0, 0);
        assert!(!m.waiting());
        assert_eq!(talk(&mut m, &[0xeb]), [0xfa, 0x18, 0xfe, 0]);
        talk(&mut m, &[0xee]);
        assert_eq!(talk(&mut m, &[0xe9, 0x42]), [0xe9, 0x42]);
        assert_eq!(talk(&mut m, &[0xec]), [0xfa]);
    }

    #[test]
    fn scaling() {
        let scaled: Vec<i32> = (-7..8).map(doubled).collect();
        assert_eq!(
            scaled,
            [-14, -12, -9, -6, -3, -1, -1, 0, 1, 1, 3, 6, 9, 12, 14]
        );
    }
}
