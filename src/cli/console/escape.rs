//! The keys of ours among those that go to the guest: Ctrl-A and one more.

/// Ctrl-A.
pub const PREFIX: u8 = 0x01;

/// What is shown for Ctrl-A h.
pub const HELP: &str = "\
Ctrl-A h    this help\n\
Ctrl-A x    quit\n\
Ctrl-A c    switch between the guest and the monitor\n\
Ctrl-A b    send a break\n\
Ctrl-A Ctrl-A    send Ctrl-A\n";

/// What was typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Typed {
    /// A byte for whoever has the input.
    Byte(u8),
    /// A break.
    Break,
    /// The end of the run.
    Quit,
    /// The other one shall have the input: the guest or the monitor.
    Switch,
    /// The keys.
    Help,
}

/// Finds the keys.
#[derive(Clone, Copy, Debug)]
pub struct Escape {
    /// All bytes pass as they are.
    off: bool,
    prefixed: bool,
}

impl Escape {
    /// Finds them if `on`.
    pub fn new(on: bool) -> Escape {
        Escape {
            off: !on,
            prefixed: false,
        }
    }

    /// Takes a byte. None if it is part of a key of ours that is not complete, or of none.
    pub fn feed(&mut self, byte: u8) -> Option<Typed> {
        if self.off {
            return Some(Typed::Byte(byte));
        }
        if !std::mem::take(&mut self.prefixed) {
            self.prefixed = byte == PREFIX;
            return (!self.prefixed).then_some(Typed::Byte(byte));
        }
        match byte {
            PREFIX => Some(Typed::Byte(PREFIX)),
            b'x' | b'X' => Some(Typed::Quit),
            b'c' | b'C' => Some(Typed::Switch),
            b'b' | b'B' => Some(Typed::Break),
            b'h' | b'H' | b'?' => Some(Typed::Help),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_among_bytes() {
        let mut escape = Escape::new(true);
        let typed: Vec<Typed> = b"a\x01\x01x\x01b\x01?\x01zc\x01c\x01xq"
            .iter()
            .filter_map(|byte| escape.feed(*byte))
            .collect();
        let byte = Typed::Byte;
        let expected = [
            byte(b'a'),
            byte(PREFIX),
            byte(b'x'),
            Typed::Break,
            Typed::Help,
            byte(b'c'),
            Typed::Switch,
            Typed::Quit,
            byte(b'q'),
        ];
        assert_eq!(typed, expected);
    }

    #[test]
    fn without_keys_all_bytes_pass() {
        let mut escape = Escape::new(false);
        assert_eq!(escape.feed(PREFIX), Some(Typed::Byte(PREFIX)));
        assert_eq!(escape.feed(b'x'), Some(Typed::Byte(b'x')));
    }
}
