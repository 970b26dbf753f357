//! Mode 3 without firmware: 80 by 25 characters in 16 colours, as a BIOS sets it up.

use super::Vga;
use crate::PortDevice;

/// The values of mode 3 (IBM PS/2 Hardware Interface Technical Reference, Video Subsystem).
const MISC: u8 = 0x67;
const SEQUENCER: [u8; 5] = [0x03, 0x00, 0x03, 0x00, 0x02];
const CRTC: [u8; 25] = [
    0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00,
    0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
];
const GRAPHICS: [u8; 9] = [0, 0, 0, 0, 0, 0x10, 0x0e, 0, 0xff];
const ATTRIBUTES: [u8; 21] = [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f,
    0x0c, 0x00, 0x0f, 0x08, 0x00,
];

/// Bytes of the 80 by 25 characters, each with its attribute; the memory has two planes for them
/// between two others.
const CELLS: usize = 80 * 25;

impl Vga {
    /// Shows an empty text screen, grey on black. There is no font: only firmware or a guest can
    /// load one, and until then a picture shows no characters.
    pub fn show_text(&mut self) {
        let put = |vga: &mut Vga, port: u16, index: usize, value: u8| {
            vga.write_port(port, index as u8);
            vga.write_port(port + 1, value);
        };
        self.write_port(0x3c2, MISC);
        for (index, value) in SEQUENCER.into_iter().enumerate() {
            put(self, 0x3c4, index, value);
        }
        // The first registers are locked by a bit of another.
        put(self, 0x3d4, 0x11, 0);
        for (index, value) in CRTC.into_iter().enumerate() {
            put(self, 0x3d4, index, value);
        }
        for (index, value) in GRAPHICS.into_iter().enumerate() {
            put(self, 0x3ce, index, value);
        }
        // Reading input status 1 makes the next write one of an index.
        let _ = self.read_port(0x3da);
        for (index, value) in ATTRIBUTES.into_iter().enumerate() {
            self.write_port(0x3c0, index as u8);
            self.write_port(0x3c0, value);
        }
        self.write_port(0x3c0, 0x20);
        // The colours of an EGA: two bits for each of red, green and blue.
        self.write_port(0x3c8, 0);
        for colour in 0..64u8 {
            for shift in [2, 1, 0] {
                let (strong, weak) = (colour >> shift & 1, colour >> (shift + 3) & 1);
                self.write_port(0x3c9, strong * 42 + weak * 21);
            }
        }
        for cell in 0..CELLS as u64 {
            self.write_window(0x1_8000 + 2 * cell, b' ');
            self.write_window(0x1_8000 + 2 * cell + 1, 0x07);
        }
        self.touch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestClock;

    #[test]
    fn an_empty_screen_takes_text() {
        let mut vga = Vga::new(TestClock::new(), 1 << 18, Vec::new());
        vga.show_text();
        let screen = vga.text().expect("a text screen");
        assert_eq!(screen.text().trim(), "");
        vga.write_window(0x1_8000, b'A');
        vga.write_window(0x1_8001, 0x1e);
        let screen = vga.text().expect("a text screen");
        assert_eq!(screen.row(0).trim_end(), "A");
        assert_eq!(screen.colours[1], [0, 0, 170]);
    }
}
