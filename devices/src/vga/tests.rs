use super::*;
use crate::testing::{Random, TestClock, round_trip};
use crate::{Bus, Width};

/// The registers of a BIOS mode: misc, sequencer, CRT controller, graphics, attributes from 10h.
struct Mode(u8, [u8; 5], [u8; 25], [u8; 9], [u8; 5]);

const TEXT: Mode = Mode(
    0x67,
    [0x03, 0x00, 0x03, 0x00, 0x02],
    [
        0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0, 0, 0, 0, 0x9c,
        0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
    ],
    [0, 0, 0, 0, 0, 0x10, 0x0e, 0x00, 0xff],
    [0x0c, 0x00, 0x0f, 0x08, 0x00],
);

const PLANAR: Mode = Mode(
    0xe3,
    [0x03, 0x01, 0x0f, 0x00, 0x06],
    [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0x00, 0x40, 0, 0, 0, 0, 0, 0, 0xea, 0x8c,
        0xdf, 0x28, 0x00, 0xe7, 0x04, 0xe3, 0xff,
    ],
    [0, 0, 0, 0, 0, 0x00, 0x05, 0x0f, 0xff],
    [0x01, 0x00, 0x0f, 0x00, 0x00],
);

const CHAINED: Mode = Mode(
    0x63,
    [0x03, 0x01, 0x0f, 0x00, 0x0e],
    [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0x41, 0, 0, 0, 0, 0, 0, 0x9c, 0x8e,
        0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff,
    ],
    [0, 0, 0, 0, 0, 0x40, 0x05, 0x0f, 0xff],
    [0x41, 0x00, 0x0f, 0x00, 0x00],
);

const FRAME_BUFFER: u64 = 0xe000_0000;

struct Rig {
    vga: Shared<Vga>,
    io: Bus,
    memory: Bus,
    clock: Arc<TestClock>,
}

fn rig() -> Rig {
    let clock = TestClock::new();
    let vga = Shared::new(Vga::new(clock.clone(), 4 << 20, vec![0x55, 0xaa, 4]));
    let (mut io, mut memory) = (Bus::new(), Bus::new());
    io.attach(BASE.into(), PORTS, "vga", vga.port(BASE))
        .unwrap();
    io.attach(DISPI_PORT.into(), DISPI_PORTS, "dispi", vga.dispi())
        .unwrap();
    memory
        .attach(WINDOW, WINDOW_LEN, "window", vga.window())
        .unwrap();
    memory
        .attach(FRAME_BUFFER, 4 << 20, "frame", vga.frame_buffer())
        .unwrap();
    Rig {
        vga,
        io,
        memory,
        clock,
    }
}

impl Rig {
    fn set(&mut self, port: u64, value: u8) {
        self.io.write(port, Width::Byte, value.into());
    }

    fn get(&mut self, port: u64) -> u8 {
        self.io.read(port, Width::Byte) as u8
    }

    /// An index and a datum in one access, as drivers do it.
    fn pair(&mut self, port: u64, index: usize, value: u8) {
        self.io
            .write(port, Width::Word, index as u64 | u64::from(value) << 8);
    }

    fn mode(&mut self, mode: &Mode) {
        self.set(0x3c2, mode.0);
        for (index, value) in mode.1.into_iter().enumerate() {
            self.pair(0x3c4, index, value);
        }
        self.pair(0x3d4, 0x11, 0);
        for (index, value) in mode.2.into_iter().enumerate() {
            self.pair(0x3d4, index, value);
        }
        for (index, value) in mode.3.into_iter().enumerate() {
            self.pair(0x3ce, index, value);
        }
        self.get(0x3da);
        let palette = 0..16u8;
        for (index, value) in (0..).zip(palette.chain(mode.4)) {
            self.set(0x3c0, index);
            self.set(0x3c0, value);
        }
        self.set(0x3c0, 0x20);
        self.set(0x3c8, 0);
        for n in 0..=255u8 {
            for part in [n & 0x3f, n >> 6, 0x3f] {
                self.set(0x3c9, part);
            }
        }
    }

    fn poke(&mut self, at: u64, value: u8) {
        self.memory.write(at, Width::Byte, value.into());
    }

    fn peek(&mut self, at: u64) -> u8 {
        self.memory.read(at, Width::Byte) as u8
    }

    fn dispi(&mut self, index: u16, value: u16) {
        self.io.write(0x1ce, Width::Word, index.into());
        self.io.write(0x1cf, Width::Word, value.into());
    }

    fn dispi_get(&mut self, index: u16) -> u16 {
        self.io.write(0x1ce, Width::Word, index.into());
        self.io.read(0x1cf, Width::Word) as u16
    }

    fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        self.vga.lock().picture().pixel(x, y).unwrap()
    }
}

/// The colour that [`Rig::mode`] gives a number of the DAC.
fn colour(n: u8) -> [u8; 3] {
    let wide = |v: u8| v << 2 | v >> 4;
    [wide(n & 0x3f), wide(n >> 6), 0xff]
}

#[test]
fn text_on_the_screen() {
    let mut rig = rig();
    rig.mode(&TEXT);
    for (n, byte) in (0..).zip(*b"H\x1fi\x2f") {
        rig.poke(0xb_8000 + 160 + n, byte);
    }
    rig.pair(0x3d4, 0x0f, 82);
    let text = rig.vga.lock().text().unwrap();
    assert_eq!(
        (text.columns, text.rows, text.cursor),
        (80, 25, Some((2, 1)))
    );
    assert_eq!(text.row(1).trim_end(), "Hi");
    assert_eq!(text.cells[81].attribute, 0x2f);
    assert_eq!(text.text().trim_matches('\n'), "Hi");
    rig.pair(0x3d4, 0x0d, 80);
    rig.pair(0x3d4, 0x0a, 0x2d);
    let text = rig.vga.lock().text().unwrap();
    assert_eq!((text.row(0).trim_end(), text.cursor), ("Hi", None));
    assert_eq!(rig.peek(0xa_0000), 0xff, "not in this window");
    assert_eq!(rig.peek(0xb_80a2), b'i');
}

#[test]
fn characters_as_pixels() {
    let mut rig = rig();
    rig.mode(&TEXT);
    // The character set is written as BIOSes do it: plane 2 alone, in order.
    for (port, index, value) in [(0x3c4, 2, 4), (0x3c4, 4, 7), (0x3ce, 5, 0), (0x3ce, 6, 4)] {
        rig.pair(port, index, value);
    }
    rig.poke(0xa_0000 + 0xc4 * 32 + 3, 0x81);
    for (port, index, value) in [
        (0x3c4, 2, 3),
        (0x3c4, 4, 2),
        (0x3ce, 5, 0x10),
        (0x3ce, 6, 0xe),
    ] {
        rig.pair(port, index, value);
    }
    rig.poke(0xb_8002, 0xc4);
    rig.poke(0xb_8003, 0x92);
    let row: Vec<_> = (9..18).map(|x| rig.pixel(x, 3)).collect();
    let (on, off) = (colour(2), colour(1));
    assert_eq!(
        row,
        [on, off, off, off, off, off, off, on, on],
        "blinking, so not 9"
    );
    assert_eq!(rig.pixel(9, 4), off);
    let picture = rig.vga.lock().picture();
    assert_eq!((picture.width, picture.height), (720, 400));
}

#[test]
fn sixteen_colours_and_write_modes() {
    let mut rig = rig();
    rig.mode(&PLANAR);
    let picture = rig.vga.lock().picture();
    assert_eq!((picture.width, picture.height), (640, 480));
    // Set/reset in all planes, two bits of the byte.
    for (index, value) in [(0, 0x5), (1, 0xf), (8, 0x41)] {
        rig.pair(0x3ce, index, value);
    }
    rig.poke(0xa_0000 + 80 * 7, 0xff);
    assert_eq!(
        [1, 2, 7].map(|x| rig.pixel(x, 7)),
        [colour(5), colour(0), colour(5)]
    );
    // Mode 2 with latches and XOR.
    for (index, value) in [(5, 2), (3, 0x18), (8, 0xc0)] {
        rig.pair(0x3ce, index, value);
    }
    assert_eq!(rig.peek(0xa_0000 + 80 * 7), 0x41);
    rig.poke(0xa_0000 + 80 * 7, 0x6);
    assert_eq!(
        [0, 1, 7].map(|x| rig.pixel(x, 7)),
        [colour(6), colour(3), colour(5)]
    );
    // Mode 3: the rotated byte and the mask; mode 1: the latches.
    for (index, value) in [(5, 3), (3, 0x01), (0, 0xf), (8, 0x0f)] {
        rig.pair(0x3ce, index, value);
    }
    rig.poke(0xa_0001 + 80 * 7, 0x12);
    assert_eq!(
        [8, 12, 15].map(|x| rig.pixel(x, 7)),
        [0, 15, 15].map(colour)
    );
    rig.pair(0x3ce, 5, 1);
    rig.poke(0xa_0000, 0);
    assert_eq!([0, 1, 7].map(|x| rig.pixel(x, 0)), [0, 5, 5].map(colour));
    // Read mode 1 compares colours; planes that are not cared about match.
    rig.pair(0x3ce, 5, 8);
    rig.pair(0x3ce, 2, 5);
    assert_eq!(rig.peek(0xa_0000), 0x41);
    rig.pair(0x3ce, 2, 4);
    assert_eq!(rig.peek(0xa_0000), 0x00);
    rig.pair(0x3ce, 7, 0xc);
    assert_eq!(rig.peek(0xa_0000), 0x41);
    rig.pair(0x3ce, 7, 0);
    assert_eq!(rig.peek(0xa_0000), 0xff);
    // Only the planes of the map mask are written.
    rig.pair(0x3ce, 5, 0);
    for (index, value) in [(0, 0), (1, 0), (3, 0), (8, 0xff)] {
        rig.pair(0x3ce, index, value);
    }
    rig.pair(0x3c4, 2, 0x8);
    rig.poke(0xa_0002, 0x80);
    assert_eq!(rig.pixel(16, 0), colour(8));
}

#[test]
fn two_hundred_and_fifty_six_colours() {
    let mut rig = rig();
    rig.mode(&CHAINED);
    for n in 0..5 {
        rig.poke(0xa_0000 + 320 * 3 + n, 0xa0 + n as u8);
    }
    let picture = rig.vga.lock().picture();
    assert_eq!((picture.width, picture.height), (320, 200));
    for x in 0..5 {
        assert_eq!(rig.pixel(x, 3), colour(0xa0 + x as u8));
        assert_eq!(rig.peek(0xa_0000 + 320 * 3 + x as u64), 0xa0 + x as u8);
    }
    rig.poke(0xa_f9ff, 0x11);
    assert_eq!(rig.pixel(319, 199), colour(0x11));
    // Without the chain, one write fills four pixels: the planes of an address.
    rig.pair(0x3c4, 4, 0x06);
    rig.pair(0x3d4, 0x14, 0);
    rig.pair(0x3d4, 0x17, 0xe3);
    rig.poke(0xa_0000 + 80 * 5 + 1, 0x42);
    assert_eq!(
        [3, 4, 7, 8].map(|x| rig.pixel(x, 5)),
        [0, 0x42, 0x42, 0].map(colour)
    );
    // Below the line compare, memory starts again.
    rig.pair(0x3d4, 0x07, 0x0f);
    rig.pair(0x3d4, 0x09, 0x01);
    rig.pair(0x3d4, 0x18, 99);
    rig.poke(0xa_0000, 0x77);
    assert_eq!(
        (rig.pixel(0, 49), rig.pixel(0, 50)),
        (colour(0), colour(0x77))
    );
    rig.get(0x3da);
    rig.set(0x3c0, 0x00);
    assert_eq!(rig.pixel(0, 50), [0; 3], "blank");
}

#[test]
fn four_colours_in_two_banks() {
    let mut rig = rig();
    let mut mode = CHAINED;
    (mode.1[1], mode.1[2], mode.1[4]) = (0x09, 0x03, 0x02);
    (mode.2[0x09], mode.2[0x13], mode.2[0x14], mode.2[0x17]) = (0xc1, 0x14, 0x00, 0xa2);
    mode.2[1] = 0x27;
    (mode.3[5], mode.3[6], mode.4[0]) = (0x30, 0x0f, 0x01);
    rig.mode(&mode);
    rig.poke(0xb_8000, 0x1b);
    rig.poke(0xb_8001, 0xc0);
    rig.poke(0xb_a000, 0xe4);
    let picture = rig.vga.lock().picture();
    assert_eq!((picture.width, picture.height), (320, 200));
    assert_eq!(
        [0, 1, 2, 3, 4].map(|x| rig.pixel(x, 0)),
        [0, 1, 2, 3, 3].map(colour)
    );
    assert_eq!(
        [0, 1, 2, 3, 4].map(|x| rig.pixel(x, 1)),
        [3, 2, 1, 0, 0].map(colour)
    );
}

#[test]
fn registers_read_back() {
    let mut rig = rig();
    rig.mode(&TEXT);
    rig.pair(0x3d4, 0x00, 0x11);
    assert_eq!(rig.io.read(0x3d4, Width::Word), 0x5f00, "protected");
    rig.pair(0x3d4, 0x07, 0xff);
    assert_eq!(rig.get(0x3d5), 0x1f);
    assert_eq!((rig.get(0x3b4), rig.get(0x3cc)), (0xff, 0x67));
    rig.set(0x3c7, 0x45);
    assert_eq!([0; 3].map(|_| rig.get(0x3c9)), [0x05, 0x01, 0x3f]);
    assert_eq!((rig.get(0x3c8), rig.get(0x3c7)), (0x46, 3));
    // The palette is locked while it is in use.
    rig.get(0x3da);
    rig.set(0x3c0, 0x21);
    rig.set(0x3c0, 0x3f);
    assert_eq!((rig.get(0x3c0), rig.get(0x3c1)), (0x21, 1));
    rig.set(0x3c2, 0x66);
    assert_eq!((rig.get(0x3d4), rig.get(0x3b4)), (0xff, 0x07));
}

#[test]
fn the_beam_moves() {
    let mut rig = rig();
    rig.mode(&TEXT);
    // 449 lines of 100 characters with 9 dots at 28.322 MHz: 70 Hz.
    let line = 100 * 9 * 35_308 / 1000;
    let mut at = |line_number: u64, x: u64| {
        rig.clock.set(1000 * 449 * line + line_number * line + x);
        rig.get(0x3da)
    };
    assert_eq!((at(10, 100), at(10, line - 100)), (0, 1));
    assert_eq!((at(399, 100), at(400, 100)), (0, 1));
    assert_eq!(
        (at(411, 0), at(412, 0), at(413, 0), at(414, 0)),
        (1, 9, 9, 1)
    );
}

#[test]
fn packed_pixel_modes() {
    let mut rig = rig();
    assert_eq!(rig.dispi_get(0), 0xb0c5);
    assert_eq!(rig.dispi_get(10), 64);
    rig.memory.write(FRAME_BUFFER, Width::Dword, 0xffff_ffff);
    for (index, value) in [(4, 0), (1, 640), (2, 400), (3, 32), (4, 0x41)] {
        rig.dispi(index, value);
    }
    assert_eq!(rig.memory.read(FRAME_BUFFER, Width::Dword), 0, "cleared");
    let at = FRAME_BUFFER + (640 * 5 + 3) * 4;
    rig.memory.write(at, Width::Dword, 0x0012_3456);
    assert_eq!(rig.pixel(3, 5), [0x12, 0x34, 0x56]);
    assert!(rig.vga.lock().text().is_none());
    rig.dispi(1, 800);
    assert_eq!((rig.dispi_get(1), rig.dispi_get(7)), (640, 1638));
    rig.dispi(6, 1000);
    rig.dispi(9, 2);
    let at = FRAME_BUFFER + (1000 * 3 + 1) * 4;
    rig.memory.write(at, Width::Qword, 0x0000_00ff_00ff_0000);
    assert_eq!(
        [rig.pixel(1, 1), rig.pixel(2, 1)],
        [[0xff, 0, 0], [0, 0, 0xff]]
    );
    // The window shows a bank of the same memory.
    rig.dispi(5, 1);
    rig.poke(0xa_0010, 0x99);
    assert_eq!(rig.memory.read(FRAME_BUFFER + 0x1_0010, Width::Byte), 0x99);
    rig.dispi(4, 3);
    assert_eq!((rig.dispi_get(1), rig.dispi_get(3)), (2560, 32));
    rig.dispi(4, 0);
    for (index, value) in [(1, 320), (2, 200), (3, 16), (4, 0xc1)] {
        rig.dispi(index, value);
    }
    rig.memory.write(FRAME_BUFFER, Width::Word, 0xf81f);
    assert_eq!(rig.pixel(0, 0), [255, 0, 255]);
    rig.dispi(4, 0);
    for (index, value) in [(1, 2560), (2, 1600), (3, 32), (4, 0x41)] {
        rig.dispi(index, value);
    }
    assert_eq!(rig.dispi_get(4) & 1, 0, "does not fit");
}

#[test]
fn a_function_with_rom() {
    let mut rig = rig();
    assert_eq!(rig.vga.read_config(0), 0x1111_1234);
    rig.vga.write_config(0x10, u32::MAX, u32::MAX);
    assert_eq!(rig.vga.read_config(0x10), 0xffc0_0008);
    rig.vga.write_config(0x30, 0xc000_0001, u32::MAX);
    rig.vga.write_config(0x04, 2, 0xff);
    let rom = rig.vga.mappings().into_iter().find(|m| m.bar == ROM_INDEX);
    assert_eq!(rom.map(|m| (m.start, m.len)), Some((0xc000_0000, 0x800)));
    let mut rom = rig.vga.rom();
    assert_eq!(rom.read(0, Width::Dword) as u32, 0xff04_aa55);
    assert_eq!(rom.read(0x7fe, Width::Word) as u16, 0xffff);
}

#[test]
fn survives_a_storm_and_a_round_trip() {
    let mut rig = rig();
    rig.mode(&TEXT);
    let mut random = Random::new(41);
    let widths = [Width::Byte, Width::Word, Width::Dword, Width::Qword];
    for n in 0..100_000u32 {
        let width = widths[random.below(3) as usize];
        let value = random.next() & width.ones();
        match random.below(10) {
            0..4 => {
                rig.io.write(0x3b0 + random.below(48), width, value);
            }
            4 => {
                rig.io.read(0x3b0 + random.below(48), width);
            }
            5 => {
                rig.clock.step(random.time());
            }
            6 => rig.dispi(random.below(12) as u16, value as u16 >> random.below(16)),
            7 => {
                let width = widths[random.below(4) as usize];
                let at = [WINDOW, FRAME_BUFFER][random.below(2) as usize];
                rig.memory.write(at + random.below(0x2_0010), width, value);
            }
            8 => {
                let width = widths[random.below(4) as usize];
                rig.memory.read(WINDOW + random.below(0x2_0000), width);
            }
            _ => {
                rig.io.read(0x1ce + random.below(3), width);
            }
        }
        if n % 1000 == 0 {
            rig.vga.lock().picture();
        }
    }
    let saved = rig.vga.lock().save();
    let other = super::tests::rig();
    other.vga.lock().restore(round_trip(&saved));
    assert!(other.vga.lock().save() == saved);
    assert!(other.vga.lock().picture() == rig.vga.lock().picture());
}
