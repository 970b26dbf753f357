//! What a terminal shows: a frame made of the guest's screen, and what has to be written to get from
//! one frame to the next.

use super::characters::UNICODE;
use metaphrase_devices::vga::{Picture, TextScreen};
use std::io::Write;

/// How many colours the terminal has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// 24 bits.
    True,
    /// 256, of which 216 are a cube.
    Indexed,
}

/// A colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colour {
    /// One of the terminal's own 16.
    Ansi(u8),
    /// Red, green and blue.
    Rgb([u8; 3]),
}

/// A character cell of the terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Glyph {
    /// The character.
    pub character: char,
    /// Its colour.
    pub fore: Colour,
    /// The colour behind it.
    pub back: Colour,
    /// It blinks.
    pub blinks: bool,
}

const BLANK: Glyph = Glyph {
    character: ' ',
    fore: Colour::Ansi(7),
    back: Colour::Ansi(0),
    blinks: false,
};

/// What a terminal shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Columns of the terminal.
    pub columns: usize,
    /// Its rows.
    pub rows: usize,
    cells: Vec<Glyph>,
    cursor: Option<(usize, usize)>,
}

/// The palette that the VGA's BIOS sets.
const USUAL: [[u8; 3]; 16] = [
    [0, 0, 0],
    [0, 0, 170],
    [0, 170, 0],
    [0, 170, 170],
    [170, 0, 0],
    [170, 0, 170],
    [170, 85, 0],
    [170, 170, 170],
    [85, 85, 85],
    [85, 85, 255],
    [85, 255, 85],
    [85, 255, 255],
    [255, 85, 85],
    [255, 85, 255],
    [255, 255, 85],
    [255, 255, 255],
];

impl Frame {
    /// An empty one.
    pub fn new(columns: usize, rows: usize) -> Frame {
        Frame {
            columns,
            rows,
            cells: vec![BLANK; columns * rows],
            cursor: None,
        }
    }

    /// A text screen, from its left edge, and from such a row that its cursor can be seen.
    pub fn of_text(screen: &TextScreen, columns: usize, rows: usize) -> Frame {
        let mut frame = Frame::new(columns, rows);
        let first = match screen.cursor {
            Some((_, row)) => (row + 1).saturating_sub(rows),
            None => 0,
        };
        for row in first..screen.rows.min(first + rows) {
            for column in 0..screen.columns.min(columns) {
                let Some(cell) = screen.cells.get(row * screen.columns + column) else {
                    continue;
                };
                let blinks = screen.blinks && cell.attribute & 0x80 != 0;
                let back = cell.attribute >> 4 & if screen.blinks { 7 } else { 15 };
                frame.cells[(row - first) * columns + column] = Glyph {
                    character: UNICODE[usize::from(cell.character)],
                    fore: colour(screen, cell.attribute & 15),
                    back: colour(screen, back),
                    blinks,
                };
            }
        }
        let seen = |(column, row): (usize, usize)| {
            let row = row.checked_sub(first)?;
            (column < columns && row < rows).then_some((column, row))
        };
        frame.cursor = screen.cursor.and_then(seen);
        frame
    }

    /// A picture, made smaller if it does not fit; a character is two pixels, one above the other.
    pub fn of_picture(picture: &Picture, columns: usize, rows: usize) -> Frame {
        let mut frame = Frame::new(columns, rows);
        let (width, height) = (picture.width, picture.height);
        if width == 0 || height == 0 || columns == 0 || rows == 0 {
            return frame;
        }
        // The number of pixels of the picture that one of ours stands for, at least 1, in 1/256.
        let scale = (width * 256).div_ceil(columns);
        let scale = scale.max((height * 256).div_ceil(rows * 2)).max(256);
        let pixel = |x: usize, y: usize| picture.pixel(x * scale / 256, y * scale / 256);
        for row in 0..rows {
            for column in 0..columns {
                if let Some(upper) = pixel(column, row * 2) {
                    let lower = pixel(column, row * 2 + 1).unwrap_or_default();
                    frame.cells[row * columns + column] = Glyph {
                        character: '▀',
                        fore: Colour::Rgb(upper),
                        back: Colour::Rgb(lower),
                        blinks: false,
                    };
                }
            }
        }
        frame
    }

    /// Writes over the right end of the first row.
    pub fn note(&mut self, text: &str) {
        let length = text.chars().count().min(self.columns);
        let start = self.columns - length;
        for (cell, character) in self.cells[start..].iter_mut().zip(text.chars()) {
            *cell = Glyph {
                character,
                fore: Colour::Ansi(0),
                back: Colour::Ansi(7),
                blinks: false,
            };
        }
    }

    /// What makes a terminal that shows `before` (or anything) show this; empty if it does.
    pub fn changes(&self, before: Option<&Frame>, depth: Depth) -> Vec<u8> {
        let mut out = Vec::new();
        let before = before.filter(|f| (f.columns, f.rows) == (self.columns, self.rows));
        let mut at = None;
        let mut style: Option<Glyph> = None;
        for (n, glyph) in self.cells.iter().enumerate() {
            if before.is_some_and(|f| f.cells[n] == *glyph) {
                continue;
            }
            if at != Some(n) {
                let (row, column) = (n / self.columns + 1, n % self.columns + 1);
                let _ = write!(out, "\x1b[{row};{column}H");
            }
            let same =
                |g: Glyph| (g.fore, g.back, g.blinks) == (glyph.fore, glyph.back, glyph.blinks);
            if !style.is_some_and(same) {
                let _ = write!(out, "\x1b[0{}", if glyph.blinks { ";5" } else { "" });
                select(&mut out, 38, glyph.fore, depth);
                select(&mut out, 48, glyph.back, depth);
                out.push(b'm');
                style = Some(*glyph);
            }
            let _ = write!(out, "{}", glyph.character);
            // After the last column the terminal's cursor is where it likes.
            at = (!(n + 1).is_multiple_of(self.columns)).then_some(n + 1);
        }
        if !out.is_empty() || before.is_none_or(|f| f.cursor != self.cursor) {
            match self.cursor {
                Some((column, row)) => {
                    let _ = write!(out, "\x1b[{};{}H\x1b[?25h", row + 1, column + 1);
                }
                None => out.extend(b"\x1b[?25l"),
            }
        }
        out
    }
}

/// The colour of an attribute's number: the terminal's own, if the guest has the usual palette.
fn colour(screen: &TextScreen, number: u8) -> Colour {
    let number = usize::from(number & 15);
    let rgb = screen.colours[number];
    let near = |(a, b): (&u8, &u8)| a.abs_diff(*b) <= 5;
    if !rgb.iter().zip(&USUAL[number]).all(near) {
        return Colour::Rgb(rgb);
    }
    // The terminal has red and blue the other way round.
    let number = number as u8;
    Colour::Ansi(number & 0x0a | number >> 2 & 1 | (number & 1) << 2)
}

/// Appends the choice of a colour.
fn select(out: &mut Vec<u8>, what: u8, colour: Colour, depth: Depth) {
    let _ = match (colour, depth) {
        (Colour::Ansi(n), _) => write!(out, ";{what};5;{n}"),
        (Colour::Rgb([r, g, b]), Depth::True) => write!(out, ";{what};2;{r};{g};{b}"),
        (Colour::Rgb(rgb), Depth::Indexed) => {
            let [r, g, b] = rgb.map(|x| (u16::from(x) * 5 + 127) / 255);
            write!(out, ";{what};5;{}", 16 + 36 * r + 6 * g + b)
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaphrase_devices::vga::Cell;

    fn screen(columns: usize, text: &[&str], cursor: Option<(usize, usize)>) -> TextScreen {
        let cells = text.iter().flat_map(|row| {
            let mut row: Vec<Cell> = row
                .bytes()
                .map(|character| Cell {
                    character,
                    attribute: 0x1e,
                })
                .collect();
            row.resize(columns, Cell::default());
            row
        });
        TextScreen {
            columns,
            rows: text.len(),
            cells: cells.collect(),
            cursor,
            colours: USUAL,
            blinks: true,
        }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn only_what_changed_is_written() {
        let first = Frame::of_text(&screen(4, &["ab", "cd"], Some((2, 1))), 6, 3);
        let all = text(first.changes(None, Depth::True));
        // Yellow on blue, in the terminal's numbers.
        assert!(all.contains("\x1b[0;38;5;11;48;5;4mab"), "{all:?}");
        assert!(all.ends_with("\x1b[2;3H\x1b[?25h"), "{all:?}");
        assert!(first.changes(Some(&first), Depth::True).is_empty());
        let second = Frame::of_text(&screen(4, &["ab", "cX"], None), 6, 3);
        let changes = text(second.changes(Some(&first), Depth::True));
        assert_eq!(changes, "\x1b[2;2H\x1b[0;38;5;11;48;5;4mX\x1b[?25l");
        let moved = Frame::of_text(&screen(4, &["ab", "cd"], Some((0, 0))), 6, 3);
        let changes = text(moved.changes(Some(&first), Depth::True));
        assert_eq!(changes, "\x1b[1;1H\x1b[?25h");
    }

    #[test]
    fn a_small_terminal_shows_where_the_cursor_is() {
        let rows = ["one", "two", "three"];
        let frame = Frame::of_text(&screen(5, &rows, Some((3, 2))), 4, 2);
        let shown = text(frame.changes(None, Depth::True));
        assert!(shown.contains("two") && shown.contains("thre"), "{shown:?}");
        assert!(!shown.contains("one"), "{shown:?}");
        assert!(shown.ends_with("\x1b[2;4H\x1b[?25h"), "{shown:?}");
        let frame = Frame::of_text(&screen(5, &rows, None), 0, 0);
        assert_eq!(text(frame.changes(None, Depth::True)), "\x1b[?25l");
    }

    #[test]
    fn blinking_and_bright_backgrounds() {
        let mut guest = screen(1, &["x"], None);
        guest.cells[0].attribute = 0xf0;
        let frame = Frame::of_text(&guest, 1, 1);
        assert!(frame.cells[0].blinks && frame.cells[0].back == Colour::Ansi(7));
        guest.blinks = false;
        let frame = Frame::of_text(&guest, 1, 1);
        assert!(!frame.cells[0].blinks && frame.cells[0].back == Colour::Ansi(15));
        guest.colours[15] = [1, 2, 3];
        let frame = Frame::of_text(&guest, 1, 1);
        assert_eq!(frame.cells[0].back, Colour::Rgb([1, 2, 3]));
    }

    #[test]
    fn pictures_are_half_blocks() {
        let picture = Picture {
            width: 2,
            height: 3,
            rgb: (1..=18).collect(),
        };
        let frame = Frame::of_picture(&picture, 4, 4);
        let glyph = |n: usize| (frame.cells[n].fore, frame.cells[n].back);
        assert_eq!(glyph(0), (Colour::Rgb([1, 2, 3]), Colour::Rgb([7, 8, 9])));
        assert_eq!(glyph(5), (Colour::Rgb([16, 17, 18]), Colour::Rgb([0; 3])));
        assert_eq!(frame.cells[2], BLANK);
        // Too large: every second pixel.
        let frame = Frame::of_picture(&picture, 1, 1);
        assert_eq!(frame.cells[0].fore, Colour::Rgb([1, 2, 3]));
        assert_eq!(frame.cells[0].back, Colour::Rgb([13, 14, 15]));
        let indexed = text(frame.changes(None, Depth::Indexed));
        assert!(indexed.contains("38;5;16;48;5;16m▀"), "{indexed:?}");
    }
}
