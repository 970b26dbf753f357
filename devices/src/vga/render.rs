//! What is on the screen: the characters of a text mode, and the picture of any mode.

use super::Vga;
use super::registers::{Registers, attr, crtc, gc, seq};

/// A character on the screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cell {
    /// Its number in the character set.
    pub character: u8,
    /// Foreground in the lower half, background (or blinking) in the upper.
    pub attribute: u8,
}

/// A screen in text mode.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TextScreen {
    /// Characters in a row.
    pub columns: usize,
    /// Number of rows.
    pub rows: usize,
    /// All rows, one after the other.
    pub cells: Vec<Cell>,
    /// Column and row of the cursor, if it can be seen.
    pub cursor: Option<(usize, usize)>,
    /// The colours of the attributes' 16 numbers.
    pub colours: [[u8; 3]; 16],
    /// The top bit of an attribute means blinking, not a bright background.
    pub blinks: bool,
}

impl TextScreen {
    /// A row as text, with characters of the original character set that are not ASCII as `?`.
    pub fn row(&self, row: usize) -> String {
        let start = row.saturating_mul(self.columns).min(self.cells.len());
        let end = start.saturating_add(self.columns).min(self.cells.len());
        let printable = |cell: &Cell| match cell.character {
            0 => ' ',
            c @ 0x20..0x7f => char::from(c),
            _ => '?',
        };
        self.cells[start..end].iter().map(printable).collect()
    }

    /// All rows, without the spaces at their ends.
    pub fn text(&self) -> String {
        let rows: Vec<String> = (0..self.rows).map(|row| self.row(row)).collect();
        let rows: Vec<&str> = rows.iter().map(|row| row.trim_end()).collect();
        rows.join("\n")
    }
}

/// A picture.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Picture {
    /// Pixels in a line.
    pub width: usize,
    /// Number of lines.
    pub height: usize,
    /// Red, green and blue of each pixel.
    pub rgb: Vec<u8>,
}

impl Picture {
    fn new(width: usize, height: usize) -> Picture {
        Picture {
            width,
            height,
            rgb: vec![0; width * height * 3],
        }
    }

    fn put(&mut self, x: usize, y: usize, rgb: [u8; 3]) {
        if x < self.width && y < self.height {
            let at = (y * self.width + x) * 3;
            self.rgb[at..at + 3].copy_from_slice(&rgb);
        }
    }

    /// A pixel.
    pub fn pixel(&self, x: usize, y: usize) -> Option<[u8; 3]> {
        let at = y.checked_mul(self.width)?.checked_add(x)?.checked_mul(3)?;
        let bytes = self.rgb.get(at..at.checked_add(3)?)?;
        (x < self.width).then(|| [bytes[0], bytes[1], bytes[2]])
    }
}

/// Where a scan line comes from: the address counter at its start, and the scan line in its row.
fn source(registers: &Registers, line: u32) -> (u32, u32) {
    let split = registers.line_compare();
    let (line, start, preset) = if line > split {
        (line - split - 1, 0, 0)
    } else {
        let preset = u32::from(registers.crtc[crtc::PRESET_ROW] & 0x1f);
        (line, u32::from(registers.pair(crtc::START_HIGH)), preset)
    };
    let line = (line >> u32::from(registers.doubles())) + preset;
    let height = registers.row_height();
    (start + line / height * registers.pitch(), line % height)
}

/// The four planes at an address.
fn planes(memory: &[u8], address: u16) -> [u8; 4] {
    let at = usize::from(address) * 4;
    std::array::from_fn(|plane| memory[at + plane])
}

impl Vga {
    /// The characters on the screen; `None` in a graphics mode.
    pub fn text(&self) -> Option<TextScreen> {
        let r = &self.registers;
        if self.dispi.is_enabled() || r.gc[gc::MISC] & gc::GRAPHICS != 0 {
            return None;
        }
        let scans = r.row_height() << u32::from(r.doubles());
        let (columns, rows) = (r.columns(), (r.lines() / scans).max(1));
        let mut screen = TextScreen {
            columns: columns as usize,
            rows: rows as usize,
            colours: std::array::from_fn(|n| r.rgb(r.colour(n as u8))),
            blinks: r.attr[attr::MODE] & 8 != 0,
            ..TextScreen::default()
        };
        let cursor = self.cursor().map(u32::from);
        for row in 0..rows {
            let (start, _) = source(r, row * scans);
            for column in 0..columns {
                let counter = start + column;
                let [character, attribute, ..] = planes(&self.memory, r.address(counter, 0));
                screen.cells.push(Cell {
                    character,
                    attribute,
                });
                if cursor == Some(counter & 0xffff) {
                    screen.cursor = Some((column as usize, row as usize));
                }
            }
        }
        Some(screen)
    }

    /// The address of the cursor, unless it is off.
    fn cursor(&self) -> Option<u16> {
        let r = &self.registers;
        let (start, end) = (r.crtc[crtc::CURSOR_START], r.crtc[crtc::CURSOR_END]);
        let visible = start & 0x20 == 0 && start & 0x1f <= end & 0x1f;
        visible.then(|| r.pair(crtc::CURSOR_HIGH))
    }

    /// The picture on the screen. Blinking things are shown; lines that are shown several times
    /// are there once, but in text modes.
    pub fn picture(&self) -> Picture {
        let r = &self.registers;
        if self.dispi.is_enabled() {
            self.packed()
        } else if let Some(text) = self.text() {
            self.text_picture(&text)
        } else if r.gc[gc::MODE] & gc::COLOURS_256 != 0 {
            self.lines(4, |planes, x, _| planes[x & 3])
        } else if r.gc[gc::MODE] & gc::INTERLEAVE != 0 {
            self.lines(8, |planes, x, r| {
                let (half, shift) = (x >> 2 & 1, 6 - 2 * (x & 3));
                let low = planes[half] >> shift & 3;
                r.colour(low | (planes[half + 2] >> shift & 3) << 2)
            })
        } else {
            self.lines(8, |planes, x, r| {
                let bit = |plane: usize| (planes[plane] >> (7 - (x & 7)) & 1) << plane;
                r.colour(bit(0) | bit(1) | bit(2) | bit(3))
            })
        }
    }

    /// A graphics mode of the VGA, with so many pixels at an address; `pixel` makes the number of a
    /// colour of planes and a column.
    fn lines(&self, pixels: usize, pixel: impl Fn([u8; 4], usize, &Registers) -> u8) -> Picture {
        let r = &self.registers;
        // Lines of a row differ only if the scan line is part of the address.
        let banked = r.crtc[crtc::MODE] & 3 != 3;
        let mut step = 1 << u32::from(r.doubles());
        if !banked {
            step *= r.row_height();
        }
        let width = r.columns() as usize * pixels;
        let mut picture = Picture::new(width, r.lines().div_ceil(step) as usize);
        if r.is_blank() {
            return picture;
        }
        let colours: Vec<[u8; 3]> = (0..=255).map(|n| r.rgb(n)).collect();
        let panning = usize::from(r.attr[attr::PANNING] & 7) * pixels / 8;
        for y in 0..picture.height {
            let (start, scan) = source(r, y as u32 * step);
            for x in 0..width {
                let column = x + panning;
                let address = r.address(start + (column / pixels) as u32, scan);
                let colour = pixel(planes(&self.memory, address), column, r);
                picture.put(x, y, colours[usize::from(colour)]);
            }
        }
        picture
    }

    /// A text mode, with the characters in plane 2.
    fn text_picture(&self, text: &TextScreen) -> Picture {
        let r = &self.registers;
        let wide = if r.seq[seq::CLOCKING] & 1 != 0 { 8 } else { 9 };
        let tall = r.row_height() as usize;
        let mut picture = Picture::new(text.columns * wide, text.rows * tall);
        if r.is_blank() {
            return picture;
        }
        let graphic_9 = r.attr[attr::MODE] & 4 != 0;
        let (first, last) = (
            r.crtc[crtc::CURSOR_START] & 0x1f,
            r.crtc[crtc::CURSOR_END] & 0x1f,
        );
        let cells = (0..).zip(&text.cells);
        for (n, cell) in cells {
            let (column, row): (usize, usize) = (n % text.columns, n / text.columns);
            let font = self.font(cell.attribute & 8 != 0) + usize::from(cell.character) * 32;
            let back = cell.attribute >> 4 & if text.blinks { 7 } else { 15 };
            let (fore, back) = (cell.attribute & 15, back);
            for scan in 0..tall {
                let mut bits = self.memory[((font + scan) & 0xffff) * 4 + 2];
                let cursor = text.cursor == Some((column, row));
                if cursor && (usize::from(first)..=usize::from(last)).contains(&scan) {
                    bits = 0xff;
                }
                for x in 0..wide {
                    // The ninth column repeats the eighth in box drawing characters.
                    let repeats = graphic_9 && (0xc0..0xe0).contains(&cell.character);
                    let set = match x {
                        8 => repeats && bits & 1 != 0 || cursor && bits == 0xff,
                        _ => bits & 0x80 >> x != 0,
                    };
                    let colour = text.colours[usize::from(if set { fore } else { back })];
                    picture.put(column * wide + x, row * tall + scan, colour);
                }
            }
        }
        picture
    }

    /// Where in plane 2 one of the two character sets is.
    fn font(&self, first: bool) -> usize {
        let select = usize::from(self.registers.seq[seq::CHARACTER_MAP]);
        let map = if first {
            select >> 2 & 3 | select >> 3 & 4
        } else {
            select & 3 | select >> 2 & 4
        };
        // 0, 16, 32 and 48 KiB, and between them.
        (map & 3) * 0x4000 + (map >> 2) * 0x2000
    }

    /// A mode of the display interface.
    fn packed(&self) -> Picture {
        let (d, r) = (&self.dispi, &self.registers);
        let (start, pitch, bits) = (d.start(), d.pitch(), d.bits());
        let mut picture = Picture::new(d.width(), d.height());
        let byte = |at: usize| self.memory.get(at).copied().unwrap_or(0);
        let word = |at: usize| u16::from_le_bytes([byte(at), byte(at + 1)]);
        let five = |n: u16| (n << 3 | n >> 2) as u8;
        for y in 0..picture.height {
            let line = start + y * pitch;
            for x in 0..picture.width {
                let rgb = match bits {
                    4 => {
                        let bit = |p| (byte((line + x / 8) * 4 + p) >> (7 - (x & 7)) & 1) << p;
                        r.rgb(r.colour(bit(0) | bit(1) | bit(2) | bit(3)))
                    }
                    8 => r.rgb(byte(line + x)),
                    15 => {
                        let w = word(line + 2 * x);
                        [five(w >> 10 & 31), five(w >> 5 & 31), five(w & 31)]
                    }
                    16 => {
                        let w = word(line + 2 * x);
                        let green = w >> 5 & 63;
                        [five(w >> 11), (green << 2 | green >> 4) as u8, five(w & 31)]
                    }
                    bits => {
                        let at = line + x * bits / 8;
                        [byte(at + 2), byte(at + 1), byte(at)]
                    }
                };
                picture.put(x, y, rgb);
            }
        }
        picture
    }
}
