use super::*;
use crate::testing::{Probe, TestClock, round_trip, storm};

/// 2026-11-21 23:59:58, a Saturday.
const START: u64 = 1_795_305_598;

fn rtc() -> (Rtc, Arc<TestClock>, Probe) {
    let (clock, probe) = (TestClock::new(), Probe::default());
    (Rtc::new(clock.clone(), probe.line(), START), clock, probe)
}

fn get(rtc: &mut Rtc, register: usize) -> u8 {
    rtc.write_port(0x70, register as u8);
    rtc.read_port(0x71)
}

fn set(rtc: &mut Rtc, register: usize, value: u8) {
    rtc.write_port(0x70, register as u8);
    rtc.write_port(0x71, value);
}

fn time(rtc: &mut Rtc) -> [u8; 8] {
    [
        CENTURY,
        YEAR,
        MONTH,
        DAY_OF_MONTH,
        WEEKDAY,
        HOURS,
        MINUTES,
        SECONDS,
    ]
    .map(|register| get(rtc, register))
}

#[test]
fn time_passes() {
    let (mut rtc, clock, _) = rtc();
    assert_eq!(
        time(&mut rtc),
        [0x20, 0x26, 0x11, 0x21, 0x07, 0x23, 0x59, 0x58]
    );
    clock.step(2 * SECOND - 1);
    assert_eq!(get(&mut rtc, SECONDS), 0x59);
    clock.step(1);
    assert_eq!(
        time(&mut rtc),
        [0x20, 0x26, 0x11, 0x22, 0x01, 0x00, 0x00, 0x00]
    );
    clock.step(40 * DAY * SECOND);
    assert_eq!(
        time(&mut rtc),
        [0x20, 0x27, 0x01, 0x01, 0x06, 0x00, 0x00, 0x00]
    );
}

#[test]
fn binary_and_twelve_hours() {
    let (mut rtc, clock, _) = rtc();
    set(&mut rtc, B, B_BINARY | B_SET);
    for (register, value) in [(HOURS, 0x8b), (MINUTES, 59), (SECONDS, 59)] {
        set(&mut rtc, register, value);
    }
    set(&mut rtc, DAY_OF_MONTH, 31);
    set(&mut rtc, MONTH, 12);
    set(&mut rtc, YEAR, 99);
    set(&mut rtc, CENTURY, 20);
    clock.step(10 * SECOND);
    assert_eq!(get(&mut rtc, SECONDS), 59, "stopped");
    set(&mut rtc, B, B_BINARY);
    clock.step(SECOND);
    assert_eq!(time(&mut rtc), [21, 0, 1, 1, 1, 12, 0, 0]);
    clock.step(12 * 3_600 * SECOND);
    assert_eq!(get(&mut rtc, HOURS), 0x8c, "noon is 12 PM");
    clock.step(3_600 * SECOND);
    assert_eq!(get(&mut rtc, HOURS), 0x81);
}

#[test]
fn update_ended_interrupts_come_with_the_second() {
    let (mut rtc, clock, probe) = rtc();
    set(&mut rtc, B, B_24_HOURS | B_UPDATE);
    clock.step(300_000_000);
    rtc.advance(clock.now());
    assert_eq!(rtc.next_event(clock.now()), Some(SECOND));
    assert!(!probe.level());
    clock.set(SECOND);
    rtc.advance(SECOND);
    assert!(probe.level());
    assert_eq!(rtc.next_event(SECOND), None, "up until C is read");
    assert_eq!(get(&mut rtc, C), 0xd0);
    assert!(!probe.level());
    assert_eq!(get(&mut rtc, C), 0);
    assert_eq!(rtc.next_event(SECOND), Some(2 * SECOND));
    set(&mut rtc, B, B_SET | B_24_HOURS | B_UPDATE);
    assert_eq!(get(&mut rtc, B), B_SET | B_24_HOURS);
}

#[test]
fn periodic_interrupts_keep_their_rate() {
    for (rate, hertz) in [(6, 1024), (15, 2), (3, 8192), (1, 256), (2, 128)] {
        let (mut rtc, clock, probe) = rtc();
        set(&mut rtc, A, A_DIVIDER_ON | rate);
        set(&mut rtc, B, B_24_HOURS | B_PERIODIC);
        while let Some(at) = rtc.next_event(clock.now()).filter(|at| *at <= 3 * SECOND) {
            assert!(at > clock.now());
            clock.set(at);
            rtc.advance(at);
            assert_eq!(get(&mut rtc, C) & 0xc0, 0xc0);
        }
        assert_eq!(probe.rises(), 3 * hertz, "rate {rate}");
    }
    let (mut rtc, _, _) = rtc();
    set(&mut rtc, A, A_DIVIDER_ON);
    set(&mut rtc, B, B_PERIODIC);
    assert_eq!(rtc.next_event(0), None, "rate 0 is off");
}

#[test]
fn alarms_ring_at_their_time() {
    let (mut rtc, clock, probe) = rtc();
    set(&mut rtc, HOURS_ALARM, 0x06);
    set(&mut rtc, MINUTES_ALARM, 0x30);
    set(&mut rtc, SECONDS_ALARM, 0xff);
    set(&mut rtc, B, B_24_HOURS | B_ALARM);
    let at = (2 + 6 * 3_600 + 30 * 60) * SECOND;
    assert_eq!(rtc.next_event(0), Some(at));
    rtc.advance(at - 1);
    assert!(!probe.level());
    clock.set(at);
    rtc.advance(at);
    assert!(probe.level());
    assert_eq!(get(&mut rtc, C), 0xf0);
    assert_eq!(rtc.next_event(at), Some(at + SECOND), "each second of 6:30");
    set(&mut rtc, MINUTES_ALARM, 0x77);
    assert_eq!(rtc.next_event(at), None, "no such minute");
    clock.step(DAY * SECOND);
    assert_eq!(get(&mut rtc, C), 0x50, "nor did it ring");
}

#[test]
fn flags_are_set_without_being_enabled() {
    let (mut rtc, clock, probe) = rtc();
    set(&mut rtc, SECONDS_ALARM, 0xc0);
    set(&mut rtc, MINUTES_ALARM, 0xc0);
    set(&mut rtc, HOURS_ALARM, 0xc0);
    clock.step(SECOND);
    assert_eq!(get(&mut rtc, C), 0x70);
    clock.step(SECOND);
    rtc.advance(clock.now());
    assert!(!probe.level());
    set(&mut rtc, B, B_24_HOURS | B_UPDATE);
    assert!(probe.level(), "a flag that waits asks at once");
}

#[test]
fn an_update_announces_itself() {
    let (mut rtc, clock, _) = rtc();
    clock.set(SECOND - UPDATE - 1);
    assert_eq!(get(&mut rtc, A), 0x26);
    clock.step(1);
    assert_eq!(get(&mut rtc, A), 0xa6);
    clock.set(SECOND);
    assert_eq!(get(&mut rtc, A), 0x26);
    clock.set(2 * SECOND - 1);
    set(&mut rtc, B, B_SET);
    assert_eq!(get(&mut rtc, A), 0x26, "not while the time is being set");
}

#[test]
fn the_divider_starts_half_a_second_before_an_update() {
    let (mut rtc, clock, _) = rtc();
    set(&mut rtc, A, 0x76);
    clock.step(10 * SECOND + 123);
    assert_eq!(get(&mut rtc, SECONDS), 0x58);
    set(&mut rtc, A, 0x26);
    clock.step(SECOND / 2 - 1);
    assert_eq!(get(&mut rtc, SECONDS), 0x58);
    clock.step(1);
    assert_eq!(get(&mut rtc, SECONDS), 0x59);
}

#[test]
fn ram_and_fixed_registers() {
    let (mut rtc, _, _) = rtc();
    for register in 0x0e..0x80 {
        set(&mut rtc, register, register as u8 ^ 0xa5);
    }
    for register in 0x0e..0x80 {
        assert_eq!(get(&mut rtc, register), register as u8 ^ 0xa5);
    }
    set(&mut rtc, D, 0);
    assert_eq!(get(&mut rtc, D), 0x80);
    set(&mut rtc, C, 0xff);
    assert_eq!(get(&mut rtc, C), 0);
    assert_eq!(rtc.read_port(0x70), 0xff);
    rtc.write_port(0x70, 0x8d);
    assert!(rtc.nmi_masked());
    assert_eq!(rtc.read_port(0x71), 0x80, "the same register");
    rtc.set_ram(0x3d, 0x21);
    assert_eq!((rtc.ram(0x3d), get(&mut rtc, 0x3d)), (0x21, 0x21));
}

#[test]
fn state_round_trip() {
    let (mut one, clock, _) = rtc();
    set(&mut one, B, B_24_HOURS | B_PERIODIC | B_UPDATE);
    clock.step(1_500_000_000);
    let probe = Probe::default();
    let mut two = Rtc::new(clock.clone(), probe.line(), 0);
    one.advance(clock.now());
    two.restore(round_trip(&one.save()));
    assert!(probe.level());
    assert_eq!(get(&mut two, C), get(&mut one, C));
    clock.step(SECOND);
    assert_eq!(two.next_event(0), one.next_event(0));
    assert_eq!(time(&mut two), time(&mut one));
}

#[test]
fn survives_a_storm() {
    let (mut rtc, clock, _) = rtc();
    storm(&mut rtc, &clock, &[0x70, 0x71, 0x71, 0x71]);
}
