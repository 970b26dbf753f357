use super::*;
use crate::testing::{Probe, Random, round_trip};

const DATA: u16 = 0;
const IER: u16 = 1;
const IIR: u16 = 2;
const LCR: u16 = 3;
const MCR: u16 = 4;
const LSR: u16 = 5;
const MSR: u16 = 6;

type Sent = Arc<Mutex<Vec<u8>>>;

/// 8 bits, interrupts let out, FIFOs off.
fn serial() -> (Serial, Sent, Probe) {
    let (sent, probe) = (Sent::default(), Probe::default());
    let mut serial = Serial::new(Box::new(sent.clone()), probe.line());
    serial.write_port(LCR, 0x03);
    serial.write_port(MCR, 0x08);
    (serial, sent, probe)
}

#[test]
fn what_is_written_comes_out() {
    let (mut serial, sent, _) = serial();
    for byte in b"hello" {
        assert_eq!(serial.read_port(LSR), 0x60);
        serial.write_port(DATA, *byte);
    }
    serial.write_port(LCR, 0x00);
    serial.write_port(DATA, 0xff);
    assert_eq!(*sent.lock().unwrap(), b"hello\x1f", "the last with 5 bits");
}

#[test]
fn the_divisor_hides_two_registers() {
    let (mut serial, sent, _) = serial();
    serial.write_port(IER, 0xff);
    serial.write_port(LCR, 0x83);
    serial.write_port(DATA, 0x03);
    serial.write_port(IER, 0x01);
    assert_eq!((serial.read_port(DATA), serial.read_port(IER)), (3, 1));
    assert_eq!(serial.baud(), 444);
    serial.write_port(LCR, 0x03);
    assert_eq!(serial.read_port(IER), 0x0f, "the upper bits are 0");
    assert!(sent.lock().unwrap().is_empty());
    serial.write_port(7, 0x5a);
    assert_eq!(serial.read_port(7), 0x5a);
}

#[test]
fn without_fifos_there_is_room_for_one() {
    let (mut serial, _, probe) = serial();
    serial.write_port(IER, 0x01);
    assert_eq!(serial.receive(b"ab"), 1);
    assert_eq!(serial.room(), 0);
    assert!(probe.level());
    assert_eq!(serial.read_port(IIR), 0x04);
    assert_eq!(serial.read_port(LSR), 0x61);
    assert_eq!(serial.read_port(DATA), b'a');
    assert!(!probe.level());
    assert_eq!(serial.read_port(LSR), 0x60);
    assert_eq!(serial.read_port(IIR), 0x01);
}

#[test]
fn fifo_trigger_and_timeout() {
    let (mut serial, _, _) = serial();
    serial.write_port(IER, 0x01);
    serial.write_port(IIR, 0x81);
    assert_eq!(serial.read_port(IIR), 0xc1);
    assert_eq!(serial.receive(&[7; 40]), 16);
    for left in (0..16).rev() {
        let cause = if left >= 7 { 0xc4 } else { 0xcc };
        assert_eq!(serial.read_port(IIR), cause, "{left}");
        assert_eq!(serial.read_port(DATA), 7);
    }
    assert_eq!(serial.read_port(IIR), 0xc1);
    serial.receive(b"xyz");
    serial.write_port(IIR, 0x83);
    assert_eq!(serial.read_port(LSR), 0x60, "cleared");
    serial.receive(b"xyz");
    serial.write_port(IIR, 0x00);
    assert_eq!(serial.read_port(LSR), 0x60, "and by switching it off");
}

#[test]
fn transmitter_empty_is_told_once() {
    let (mut serial, _, probe) = serial();
    serial.write_port(IER, 0x02);
    assert!(probe.level(), "as soon as it is asked for");
    assert_eq!(serial.read_port(IIR), 0x02);
    assert!(!probe.level());
    assert_eq!(serial.read_port(IIR), 0x01);
    serial.write_port(IER, 0x02);
    assert!(!probe.level(), "already asked for");
    serial.write_port(DATA, b'x');
    assert!(probe.level());
    serial.write_port(MCR, 0x00);
    assert!(!probe.level(), "OUT2 closes the gate");
    assert_eq!(serial.read_port(IIR), 0x02, "not the register");
}

#[test]
fn causes_come_by_priority() {
    let (mut serial, _, _) = serial();
    serial.write_port(IER, 0x0f);
    serial.set_modem(CTS | DSR);
    serial.receive_break();
    assert_eq!(serial.read_port(IIR), 0x06);
    assert_eq!(serial.read_port(LSR), 0x71);
    assert_eq!(serial.read_port(LSR), 0x61, "reading it ends it");
    assert_eq!(serial.read_port(IIR), 0x04);
    assert_eq!(serial.read_port(DATA), 0);
    assert_eq!(serial.read_port(IIR), 0x02);
    assert_eq!(serial.read_port(IIR), 0x00);
    assert_eq!(serial.read_port(MSR), 0x38, "DCD changed");
    assert_eq!(serial.read_port(IIR), 0x01);
    assert_eq!(serial.read_port(MSR), 0x30);
}

#[test]
fn the_ring_counts_when_it_ends() {
    let (mut serial, _, _) = serial();
    serial.set_modem(CTS | DSR | DCD | RI);
    assert_eq!(serial.read_port(MSR), 0xf0);
    serial.set_modem(CTS | DSR | DCD);
    assert_eq!(serial.read_port(MSR), 0xb4);
}

#[test]
fn loopback_turns_outputs_into_inputs() {
    let (mut serial, sent, _) = serial();
    serial.write_port(MCR, 0x1a);
    assert_eq!(serial.read_port(MSR) & 0xf0, 0x90, "what drivers probe for");
    assert_eq!(serial.outputs(), (false, false));
    for (mcr, msr) in [(0x11, 0x20), (0x12, 0x10), (0x14, 0x40), (0x18, 0x80)] {
        serial.write_port(MCR, mcr);
        assert_eq!(serial.read_port(MSR) & 0xf0, msr);
    }
    assert_eq!(serial.receive(b"a"), 0, "disconnected");
    serial.write_port(DATA, 0x42);
    serial.write_port(DATA, 0x43);
    assert_eq!(serial.read_port(LSR), 0x63, "overrun");
    assert_eq!(serial.read_port(LSR), 0x61, "told once");
    assert_eq!(serial.read_port(DATA), 0x43, "the later one is there");
    serial.write_port(IIR, 0x01);
    for i in 0..17 {
        serial.write_port(DATA, i);
    }
    assert_eq!(serial.read_port(LSR), 0x63);
    let back: Vec<u8> = (0..16).map(|_| serial.read_port(DATA)).collect();
    assert_eq!(back, (0..16).collect::<Vec<u8>>(), "the last one is lost");
    assert!(sent.lock().unwrap().is_empty());
}

#[test]
fn an_error_in_the_fifo_shows_at_its_byte() {
    let (mut serial, _, _) = serial();
    serial.write_port(IIR, 0x01);
    serial.receive(b"a");
    serial.receive_break();
    assert_eq!(serial.read_port(LSR), 0xe1, "somewhere in the FIFO");
    serial.read_port(DATA);
    assert_eq!(serial.read_port(LSR), 0xf1);
    assert_eq!(serial.read_port(LSR), 0x61);
}

#[test]
fn the_sink_hears_that_there_is_room() {
    struct Count(Arc<Mutex<u32>>);
    impl SerialSink for Count {
        fn write(&mut self, _bytes: &[u8]) {}
        fn drained(&mut self) {
            *self.0.lock().unwrap() += 1;
        }
    }
    let count = Arc::default();
    let sink = Box::new(Count(Arc::clone(&count)));
    let mut serial = Serial::new(sink, Probe::default().line());
    serial.write_port(IIR, 1);
    serial.receive(b"ab");
    serial.read_port(DATA);
    assert_eq!(*count.lock().unwrap(), 0);
    serial.read_port(DATA);
    serial.read_port(DATA);
    assert_eq!(*count.lock().unwrap(), 1);
}

#[test]
fn who_waits_for_data_is_known() {
    let (mut serial, _, _) = serial();
    for byte in 0..100 {
        // As drivers send: one look before, and one after.
        serial.read_port(LSR);
        serial.write_port(DATA, byte);
        serial.read_port(LSR);
    }
    assert!(!serial.listens());
    serial.write_port(IER, 1);
    assert!(serial.listens());
    serial.write_port(IER, 0);
    assert!(!serial.listens());
    for _ in 0..20 {
        serial.read_port(LSR);
        serial.read_port(MSR);
    }
    serial.write_port(DATA, 0);
    assert!(serial.listens(), "one that polls may send between");
    serial.write_port(IIR, 0x07);
    assert!(
        !serial.listens(),
        "one that empties the receiver starts anew"
    );
}

#[test]
fn state_round_trip() {
    let (mut one, _, _) = serial();
    one.write_port(IIR, 0xc1);
    one.write_port(IER, 0x05);
    one.receive(b"abc");
    let (mut two, _, probe) = serial();
    two.restore(round_trip(&one.save()));
    assert!(probe.level());
    for port in [2, 5, 0, 0, 6, 5, 0, 2] {
        assert_eq!(two.read_port(port), one.read_port(port), "{port}");
    }
}

#[test]
fn survives_a_storm() {
    let (mut serial, sent, _) = serial();
    let mut random = Random::new(2);
    for _ in 0..100_000 {
        let port = random.below(8) as u16;
        match random.below(6) {
            0 => {
                let bytes = [random.next() as u8; 9];
                serial.receive(&bytes[..random.below(10) as usize]);
            }
            1 => serial.set_modem(random.next() as u8),
            2 => serial.receive_break(),
            3 => {
                serial.read_port(port);
            }
            _ => serial.write_port(port, random.next() as u8),
        }
        assert!(serial.state.received.len() <= FIFO);
    }
    assert!(!sent.lock().unwrap().is_empty());
}
