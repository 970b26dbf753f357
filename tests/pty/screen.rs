//! What a terminal shows after it has received some bytes: as much of one as our output needs.

/// The rows of a terminal of that size, without blanks at their ends.
pub fn shown(bytes: &str, columns: usize, rows: usize) -> Vec<String> {
    let mut cells = vec![vec![' '; columns]; rows];
    let (mut row, mut column) = (0, 0);
    let mut rest = bytes.chars();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' => {
                if rest.next() != Some('[') {
                    continue;
                }
                let mut arguments = String::new();
                let last = loop {
                    match rest.next() {
                        Some(c @ '@'..='~') => break c,
                        Some(c) => arguments.push(c),
                        None => break '\0',
                    }
                };
                let mut numbers = arguments.split(';').map(|n| n.parse().unwrap_or(1));
                match (last, arguments.as_str()) {
                    ('H', _) => {
                        row = numbers.next().unwrap_or(1) - 1;
                        column = numbers.next().unwrap_or(1) - 1;
                    }
                    ('J', "2") | ('h' | 'l', "?1049") => {
                        cells.iter_mut().for_each(|row| row.fill(' '));
                    }
                    _ => {}
                }
            }
            '\r' => column = 0,
            '\n' => row += 1,
            _ => {
                if let Some(cell) = cells.get_mut(row).and_then(|row| row.get_mut(column)) {
                    *cell = c;
                }
                column += 1;
            }
        }
    }
    let text = |row: Vec<char>| row.iter().collect::<String>().trim_end().to_string();
    cells.into_iter().map(text).collect()
}
