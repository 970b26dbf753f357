use super::*;
use crate::testing::{Probe, Random, TestClock, round_trip, storm};

struct Rig {
    keyboard: Keyboard,
    clock: Arc<TestClock>,
    irq1: Probe,
    irq12: Probe,
    a20: Probe,
    reset: Probe,
}

fn rig() -> Rig {
    let clock = TestClock::new();
    let [irq1, irq12, a20, reset] = [(); 4].map(|()| Probe::default());
    let lines = KeyboardLines {
        keyboard_irq: irq1.line(),
        mouse_irq: irq12.line(),
        a20: a20.line(),
        reset: reset.line(),
    };
    Rig {
        keyboard: Keyboard::new(clock.clone(), lines),
        clock,
        irq1,
        irq12,
        a20,
        reset,
    }
}

impl Rig {
    fn write(&mut self, port: u16, value: u8) {
        self.keyboard.write_port(port, value);
    }

    fn status(&mut self) -> u8 {
        self.keyboard.read_port(COMMAND)
    }

    /// Reads bytes as they come, until none has come for a while.
    fn read_all(&mut self) -> Vec<u8> {
        let mut bytes = vec![];
        loop {
            self.clock.step(TRANSFER);
            if self.status() & STATUS_FULL == 0 {
                return bytes;
            }
            bytes.push(self.keyboard.read_port(DATA));
        }
    }

    /// Sends a command and its data.
    fn command(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.write(COMMAND, bytes[0]);
        for byte in &bytes[1..] {
            self.write(DATA, *byte);
        }
        self.read_all()
    }
}

#[test]
fn a_key_raises_the_interrupt_and_reads_translated() {
    let mut rig = rig();
    assert_eq!(rig.status(), 0x14);
    assert!(rig.keyboard.key(Key::A, true));
    assert!(rig.keyboard.key(Key::A, false));
    assert!(rig.irq1.level());
    assert_eq!(rig.status(), 0x15);
    assert_eq!(rig.keyboard.read_port(DATA), 0x1e);
    assert!(!rig.irq1.level());
    assert_eq!(rig.status(), 0x14);
    assert_eq!(rig.keyboard.read_port(DATA), 0x1e, "a second look");
    let at = rig.keyboard.next_event(0).unwrap();
    assert_eq!(at, TRANSFER);
    rig.keyboard.advance(at);
    assert!(rig.irq1.level());
    assert_eq!(rig.irq1.rises(), 2);
    assert_eq!(rig.keyboard.read_port(DATA), 0x9e);
    assert_eq!(rig.keyboard.next_event(at), None);
}

#[test]
fn without_translation_keys_are_set_2() {
    let mut rig = rig();
    rig.command(&[0x60, 0x25]);
    assert_eq!(rig.command(&[0x20]), [0x25]);
    rig.keyboard.key(Key::Delete, false);
    assert_eq!(rig.read_all(), [0xe0, 0xf0, 0x71]);
    rig.command(&[0x60, 0x24]);
    rig.keyboard.key(Key::A, true);
    assert!(!rig.irq1.level(), "interrupt off");
    assert_eq!(rig.status() & 1, 1);
}

#[test]
fn controller_commands() {
    let mut rig = rig();
    for (sent, answered) in [
        (&[0xaa][..], &[0x55][..]),
        (&[0xab], &[0x00]),
        (&[0xa9], &[0x00]),
        (&[0xd0], &[0x03]),
        (&[0xd2, 0x42], &[0x42]),
        (&[0xa4], &[0xf1]),
        (&[0x65, 0x77], &[]),
        (&[0x25], &[0x77]),
    ] {
        assert_eq!(rig.command(sent), answered, "{sent:x?}");
    }
    let before = rig.irq1.rises();
    rig.write(COMMAND, 0xaa);
    rig.write(COMMAND, 0xab);
    assert_eq!(rig.keyboard.read_port(DATA), 0x55);
    assert_eq!(rig.irq1.rises(), before + 2, "an edge for each byte");
    assert_eq!(rig.keyboard.read_port(DATA), 0x00);
    rig.write(COMMAND, 0xff);
    assert_eq!(rig.status() & STATUS_COMMAND, STATUS_COMMAND);
}

#[test]
fn commands_to_the_keyboard_switch_it_on() {
    let mut rig = rig();
    rig.write(COMMAND, 0xad);
    rig.keyboard.key(Key::B, true);
    assert_eq!(rig.read_all(), [0; 0], "it waits");
    rig.write(COMMAND, 0xae);
    assert_eq!(rig.read_all(), [0x30]);
    rig.write(COMMAND, 0xad);
    rig.write(DATA, 0xff);
    assert_eq!(rig.read_all(), [0xfa, 0xaa]);
    assert_eq!(rig.command(&[0x20]), [0x65]);
    rig.write(DATA, 0xed);
    rig.write(DATA, 0x02);
    assert_eq!(rig.keyboard.leds(), 2);
}

#[test]
fn the_mouse_has_its_own_interrupt() {
    let mut rig = rig();
    rig.command(&[0x60, 0x67]);
    assert_eq!(rig.command(&[0xd4, 0xff]), [0xfa, 0xaa, 0x00]);
    assert_eq!(rig.command(&[0xd4, 0xf4]), [0xfa]);
    assert!(rig.irq12.rises() == 4 && rig.irq1.rises() == 0);
    rig.keyboard.mouse(3, 0, 0, 1);
    assert!(rig.irq12.level());
    assert_eq!(rig.status() & 0x21, 0x21);
    assert_eq!(rig.read_all(), [0x09, 3, 0]);
    assert_eq!(rig.command(&[0xd3, 0x55]), [0x55]);
    assert_eq!(rig.irq12.rises(), 8);
    rig.write(COMMAND, 0xa7);
    rig.keyboard.mouse(3, 0, 0, 0);
    assert_eq!(rig.read_all(), [0; 0]);
}

#[test]
fn a20_and_reset() {
    let mut rig = rig();
    assert!(rig.a20.level());
    rig.command(&[0xd1, 0x01]);
    assert!(!rig.a20.level());
    assert_eq!(rig.command(&[0xd0]), [0x01]);
    rig.write(COMMAND, 0xdf);
    assert!(rig.a20.level());
    rig.write(COMMAND, 0xff);
    assert_eq!(rig.reset.rises(), 0, "a pulse of nothing");
    rig.write(COMMAND, 0xfe);
    assert_eq!(rig.reset.rises(), 1);
    rig.command(&[0xd1, 0x02]);
    assert_eq!(rig.reset.rises(), 2);
}

#[test]
fn state_round_trip() {
    let mut one = rig();
    one.keyboard.key(Key::Up, false);
    one.command(&[0xd4, 0xf4]);
    one.keyboard.mouse(1, 1, 0, 0);
    one.write(COMMAND, 0xdd);
    let mut two = rig();
    two.keyboard.restore(round_trip(&one.keyboard.save()));
    two.clock.set(one.clock.now());
    assert!(!two.a20.level());
    assert_eq!(two.read_all(), one.read_all());
    assert_eq!(two.keyboard.save(), one.keyboard.save());
}

#[test]
fn survives_a_storm() {
    let mut rig = rig();
    storm(&mut rig.keyboard, &rig.clock, &[0x60, 0x64, 0x61]);
    let mut random = Random::new(9);
    for _ in 0..100_000 {
        let (a, b) = (random.next(), random.next());
        match random.below(5) {
            0 => {
                let key = Key::ALL[random.below(Key::ALL.len() as u64) as usize];
                rig.keyboard.key(key, a & 1 != 0);
            }
            1 => rig
                .keyboard
                .mouse(a as i32, b as i32, (a >> 32) as i32, b as u8),
            2 => {
                rig.write([0x60, 0x64][a as usize & 1], b as u8);
            }
            3 => {
                rig.clock.step(random.time());
            }
            _ => {
                rig.read_all();
            }
        }
    }
}
