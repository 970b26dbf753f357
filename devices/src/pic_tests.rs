use super::*;
use crate::testing::{Probe, Random, round_trip};

/// Set up as a PC does: vectors 08h and 70h, nothing masked.
fn pic() -> Pic {
    let mut pic = Pic::new();
    init(&mut pic, 0x01, 0x01);
    pic
}

fn init(pic: &mut Pic, master_icw4: u8, slave_icw4: u8) {
    for (port, values) in [
        (MASTER, [0x11, 0x08, 0x04, master_icw4]),
        (SLAVE, [0x11, 0x70, 0x02, slave_icw4]),
    ] {
        pic.write_port(port, values[0]);
        for value in &values[1..] {
            pic.write_port(port + 1, *value);
        }
    }
}

fn isr(pic: &mut Pic, port: u16) -> u8 {
    pic.write_port(port, 0x0b);
    pic.read_port(port)
}

fn irr(pic: &mut Pic, port: u16) -> u8 {
    pic.write_port(port, 0x0a);
    pic.read_port(port)
}

#[test]
fn priorities_nest_and_end_of_interrupt_lets_the_next_in() {
    let mut pic = pic();
    pic.set_irq(4, true);
    assert_eq!(pic.acknowledge(), 0x0c);
    pic.set_irq(5, true);
    assert!(!pic.pending(), "5 waits for 4");
    pic.set_irq(1, true);
    assert!(pic.pending());
    assert_eq!(pic.acknowledge(), 0x09);
    assert_eq!(isr(&mut pic, MASTER), 0x12);
    assert_eq!(irr(&mut pic, MASTER), 0x20);
    pic.write_port(MASTER, 0x20);
    assert_eq!(isr(&mut pic, MASTER), 0x10, "the highest ended");
    assert!(!pic.pending());
    pic.write_port(MASTER, 0x64);
    assert_eq!(pic.acknowledge(), 0x0d);
}

#[test]
fn an_edge_asks_once_and_a_level_as_long_as_it_lasts() {
    let mut pic = pic();
    pic.set_irq(5, true);
    pic.acknowledge();
    pic.write_port(MASTER, 0x20);
    pic.set_irq(5, true);
    assert!(!pic.pending(), "no second edge");
    pic.set_irq(5, false);
    pic.set_irq(5, true);
    assert!(pic.pending());

    pic.write_port(ELCR, 0xff);
    pic.write_port(0x4d1, 0xff);
    assert_eq!((pic.read_port(ELCR), pic.read_port(0x4d1)), (0xf8, 0xde));
    for _ in 0..3 {
        assert_eq!(pic.acknowledge(), 0x0d);
        assert!(!pic.pending(), "blocked while in service");
        pic.write_port(MASTER, 0x20);
    }
    pic.set_irq(5, false);
    assert!(!pic.pending());
}

#[test]
fn the_second_chip_asks_through_the_first() {
    let mut pic = pic();
    pic.set_irq(14, true);
    pic.set_irq(3, true);
    assert_eq!(irr(&mut pic, MASTER), 0x0c);
    assert_eq!(pic.acknowledge(), 0x76, "before 3");
    assert_eq!((isr(&mut pic, MASTER), isr(&mut pic, SLAVE)), (0x04, 0x40));
    pic.set_irq(8, true);
    assert!(!pic.pending(), "the cascade input is in service");
    pic.write_port(MASTER, 0x62);
    assert_eq!(pic.acknowledge(), 0x70, "8 before 14 on the second chip");
    pic.write_port(SLAVE, 0x20);
    pic.write_port(SLAVE, 0x20);
    pic.write_port(MASTER, 0x20);
    assert_eq!(pic.acknowledge(), 0x0b);
    pic.set_irq(2, true);
    assert_eq!(irr(&mut pic, MASTER), 0, "the cascade input is not a line");
}

#[test]
fn fully_nested_lets_the_second_chip_interrupt_itself() {
    let mut pic = pic();
    init(&mut pic, 0x11, 0x01);
    pic.set_irq(12, true);
    assert_eq!(pic.acknowledge(), 0x74);
    pic.set_irq(13, true);
    assert!(!pic.pending(), "lower than 12");
    pic.set_irq(9, true);
    assert_eq!(pic.acknowledge(), 0x71);
}

#[test]
fn masks_hold_requests_back() {
    let mut pic = pic();
    pic.write_port(0x21, 0x02);
    assert_eq!(pic.read_port(0x21), 0x02);
    pic.set_irq(1, true);
    assert!(!pic.pending());
    assert_eq!(irr(&mut pic, MASTER), 0x02, "still requested");
    pic.write_port(0x21, 0);
    assert!(pic.pending());
    pic.write_port(0x21, 0x02);
    assert_eq!(pic.acknowledge(), 0x0f, "withdrawn: spurious");
    assert_eq!(isr(&mut pic, MASTER), 0);
}

#[test]
fn withdrawn_levels_are_spurious() {
    let mut pic = pic();
    pic.write_port(ELCR + 1, 0x08);
    pic.set_irq(11, true);
    assert!(pic.pending());
    pic.set_irq(11, false);
    assert!(!pic.pending());
    assert_eq!(pic.acknowledge(), 0x0f);

    pic.write_port(SLAVE, 0x0c);
    assert_eq!(pic.read_port(SLAVE), 0, "nothing to poll");
}

#[test]
fn auto_eoi_leaves_nothing_in_service_and_rotates() {
    let mut pic = pic();
    init(&mut pic, 0x03, 0x01);
    pic.write_port(MASTER, 0x80);
    for line in [0, 1, 3] {
        pic.set_irq(line, true);
    }
    assert_eq!(pic.acknowledge(), 0x08);
    assert_eq!(isr(&mut pic, MASTER), 0);
    pic.set_irq(0, false);
    pic.set_irq(0, true);
    assert_eq!(pic.acknowledge(), 0x09, "0 is last now");
    assert_eq!(pic.acknowledge(), 0x0b);
    assert_eq!(pic.acknowledge(), 0x08);
    pic.write_port(MASTER, 0x00);
    pic.write_port(MASTER, 0xc7);
    for line in [0, 3] {
        pic.set_irq(line, false);
        pic.set_irq(line, true);
    }
    assert_eq!(pic.acknowledge(), 0x08, "set by command; no rotation after");
    assert_eq!(pic.acknowledge(), 0x0b);
}

#[test]
fn rotation_by_command() {
    let mut pic = pic();
    pic.set_irq(4, true);
    pic.acknowledge();
    pic.write_port(MASTER, 0xa0);
    pic.set_irq(4, false);
    for line in [3, 4, 5] {
        pic.set_irq(line, true);
    }
    assert_eq!(pic.acknowledge(), 0x0d, "5 follows 4");
    pic.write_port(MASTER, 0xe5);
    assert_eq!(isr(&mut pic, MASTER), 0);
    assert_eq!(pic.acknowledge(), 0x0b, "6 is first, so 3 comes before 4");
}

#[test]
fn special_mask_mode_lets_lower_priorities_in() {
    let mut pic = pic();
    pic.set_irq(3, true);
    pic.acknowledge();
    pic.set_irq(6, true);
    pic.write_port(0x21, 0x08);
    assert!(!pic.pending());
    pic.write_port(MASTER, 0x68);
    assert_eq!(pic.acknowledge(), 0x0e);
    pic.write_port(MASTER, 0x20);
    assert_eq!(isr(&mut pic, MASTER), 0x08, "the masked one stays");
    pic.write_port(MASTER, 0x48);
    pic.write_port(MASTER, 0x20);
    assert_eq!(isr(&mut pic, MASTER), 0);
}

#[test]
fn a_poll_acknowledges() {
    let mut pic = pic();
    pic.set_irq(6, true);
    pic.write_port(MASTER, 0x0c);
    assert_eq!(pic.read_port(0x21), 0x86);
    assert_eq!(isr(&mut pic, MASTER), 0x40);
    assert_eq!(pic.read_port(0x21), 0, "the mask again");
}

#[test]
fn initialisation_forgets_edges_and_keeps_levels() {
    let mut pic = pic();
    pic.write_port(ELCR, 0x20);
    pic.set_irq(4, true);
    pic.set_irq(5, true);
    pic.write_port(0x21, 0xff);
    pic.write_port(MASTER, 0x10);
    assert_eq!(pic.read_port(0x21), 0, "the mask is forgotten too");
    pic.write_port(0x21, 0x4f);
    pic.write_port(0x21, 0x04);
    pic.write_port(0x21, 0x00);
    assert_eq!(pic.read_port(0x21), 0, "no ICW4: that was a mask");
    assert_eq!(irr(&mut pic, MASTER), 0x20);
    assert_eq!(pic.acknowledge(), 0x4d);
}

#[test]
fn the_output_line_follows() {
    let probe = Probe::default();
    let mut pic = Pic::with_output(probe.line());
    init(&mut pic, 1, 1);
    let pic = Shared::new(pic);
    let irq = pic.irq(12);
    irq.set_level(true);
    assert!(probe.level());
    pic.lock().acknowledge();
    assert!(!probe.level());
    irq.set_level(false);
    irq.pulse();
    pic.lock().write_port(SLAVE, 0x20);
    assert!(!probe.level());
    pic.lock().write_port(MASTER, 0x20);
    assert!(probe.level());
    assert_eq!(probe.rises(), 2);
}

#[test]
fn state_round_trip() {
    let mut one = pic();
    one.set_irq(9, true);
    one.set_irq(3, true);
    one.acknowledge();
    let mut two = Pic::new();
    two.restore(round_trip(&one.save()));
    one.write_port(MASTER, 0x62);
    two.write_port(MASTER, 0x62);
    assert_eq!(two.save(), one.save());
    assert_eq!(two.acknowledge(), one.acknowledge());
}

#[test]
fn survives_a_storm() {
    let mut random = Random::new(1);
    let mut pic = Pic::new();
    for _ in 0..100_000 {
        let port = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x22][random.below(7) as usize];
        match random.below(4) {
            0 => pic.set_irq(random.next() as u8 & 0x1f, random.next() & 1 != 0),
            1 => {
                pic.read_port(port);
            }
            2 => pic.write_port(port, random.next() as u8),
            _ => {
                let asked = pic.pending();
                let before = pic.save();
                let vector = pic.acknowledge();
                assert!(asked || before == pic.save(), "a spurious {vector:#x}");
            }
        }
    }
}
