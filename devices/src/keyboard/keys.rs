//! The keys of a PC keyboard: their scan codes in set 2, the controller's translation to set 1,
//! and the characters on a US layout.

/// One row a key: name, code in set 2 (E0xx with the prefix), and its characters, if any.
macro_rules! keys {
    ($($name:ident $code:literal $(($plain:literal $shifted:literal))?;)*) => {
        /// A key, named by what a US keyboard shows on it.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(missing_docs)]
        pub enum Key { $($name),* }

        impl Key {
            /// All of them.
            pub const ALL: &[Key] = &[$(Key::$name),*];

            fn code(self) -> u16 {
                match self { $(Key::$name => $code),* }
            }

            /// The characters that it gives alone and with Shift.
            fn characters(self) -> Option<(char, char)> {
                match self { $($(Key::$name => Some(($plain, $shifted)),)?)* _ => None }
            }
        }
    };
}

keys! {
    A 0x1c ('a' 'A'); B 0x32 ('b' 'B'); C 0x21 ('c' 'C'); D 0x23 ('d' 'D'); E 0x24 ('e' 'E');
    F 0x2b ('f' 'F'); G 0x34 ('g' 'G'); H 0x33 ('h' 'H'); I 0x43 ('i' 'I'); J 0x3b ('j' 'J');
    K 0x42 ('k' 'K'); L 0x4b ('l' 'L'); M 0x3a ('m' 'M'); N 0x31 ('n' 'N'); O 0x44 ('o' 'O');
    P 0x4d ('p' 'P'); Q 0x15 ('q' 'Q'); R 0x2d ('r' 'R'); S 0x1b ('s' 'S'); T 0x2c ('t' 'T');
    U 0x3c ('u' 'U'); V 0x2a ('v' 'V'); W 0x1d ('w' 'W'); X 0x22 ('x' 'X'); Y 0x35 ('y' 'Y');
    Z 0x1a ('z' 'Z');
    Digit1 0x16 ('1' '!'); Digit2 0x1e ('2' '@'); Digit3 0x26 ('3' '#'); Digit4 0x25 ('4' '$');
    Digit5 0x2e ('5' '%'); Digit6 0x36 ('6' '^'); Digit7 0x3d ('7' '&'); Digit8 0x3e ('8' '*');
    Digit9 0x46 ('9' '('); Digit0 0x45 ('0' ')');
    Backquote 0x0e ('`' '~'); Minus 0x4e ('-' '_'); Equal 0x55 ('=' '+');
    BracketLeft 0x54 ('[' '{'); BracketRight 0x5b (']' '}'); Backslash 0x5d ('\\' '|');
    Semicolon 0x4c (';' ':'); Quote 0x52 ('\'' '"'); Comma 0x41 (',' '<');
    Period 0x49 ('.' '>'); Slash 0x4a ('/' '?'); IntlBackslash 0x61;
    Space 0x29 (' ' ' '); Tab 0x0d ('\t' '\t'); Enter 0x5a ('\n' '\n');
    Backspace 0x66 ('\u{8}' '\u{8}'); Escape 0x76 ('\u{1b}' '\u{1b}');
    CapsLock 0x58; ShiftLeft 0x12; ShiftRight 0x59;
    ControlLeft 0x14; ControlRight 0xe014; AltLeft 0x11; AltRight 0xe011;
    MetaLeft 0xe01f; MetaRight 0xe027; Menu 0xe02f;
    F1 0x05; F2 0x06; F3 0x04; F4 0x0c; F5 0x03; F6 0x0b; F7 0x83; F8 0x0a; F9 0x01; F10 0x09;
    F11 0x78; F12 0x07;
    Insert 0xe070; Delete 0xe071; Home 0xe06c; End 0xe069; PageUp 0xe07d; PageDown 0xe07a;
    Up 0xe075; Down 0xe072; Left 0xe06b; Right 0xe074;
    NumLock 0x77; KeypadDivide 0xe04a; KeypadMultiply 0x7c; KeypadSubtract 0x7b;
    KeypadAdd 0x79; KeypadEnter 0xe05a; KeypadDecimal 0x71; Keypad0 0x70; Keypad1 0x69;
    Keypad2 0x72; Keypad3 0x7a; Keypad4 0x6b; Keypad5 0x73; Keypad6 0x74; Keypad7 0x6c;
    Keypad8 0x75; Keypad9 0x7d;
    // These two have sequences of their own.
    ScrollLock 0x7e; PrintScreen 0xe07c; Pause 0xe177;
}

/// Precedes the code of a key that is released, in set 2.
pub const RELEASE: u8 = 0xf0;

impl Key {
    /// The key that gives a character, and whether with Shift.
    pub fn for_char(c: char) -> Option<(Key, bool)> {
        let c = if c == '\r' { '\n' } else { c };
        Key::ALL.iter().find_map(|key| match key.characters() {
            Some((plain, _)) if plain == c => Some((*key, false)),
            Some((_, shifted)) if shifted == c => Some((*key, true)),
            _ => None,
        })
    }

    /// What the keyboard sends in set 2.
    pub fn set2(self, pressed: bool) -> Vec<u8> {
        match (self, pressed) {
            (Key::Pause, true) => vec![0xe1, 0x14, 0x77, 0xe1, RELEASE, 0x14, RELEASE, 0x77],
            (Key::Pause, false) => vec![],
            (Key::PrintScreen, true) => vec![0xe0, 0x12, 0xe0, 0x7c],
            (Key::PrintScreen, false) => vec![0xe0, RELEASE, 0x7c, 0xe0, RELEASE, 0x12],
            _ => {
                let [prefix, code] = self.code().to_be_bytes();
                [prefix, if pressed { 0 } else { RELEASE }, code]
                    .into_iter()
                    .filter(|byte| *byte != 0)
                    .collect()
            }
        }
    }

    /// What the keyboard sends in set 1: what the controller would make of set 2.
    pub fn set1(self, pressed: bool) -> Vec<u8> {
        let mut translator = Translator::default();
        self.set2(pressed)
            .into_iter()
            .filter_map(|byte| translator.translate(byte))
            .collect()
    }
}

/// The controller's translation from set 2 to set 1.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Translator {
    releasing: bool,
}

impl Translator {
    /// Takes a byte from the keyboard; gives what the guest sees, unless more has to come first.
    pub fn translate(&mut self, byte: u8) -> Option<u8> {
        if byte == RELEASE {
            self.releasing = true;
            return None;
        }
        let release = if std::mem::take(&mut self.releasing) {
            0x80
        } else {
            0
        };
        Some(match byte {
            0x83 => 0x41 | release,
            0x84 => 0x54 | release,
            0x80.. => byte,
            _ => TO_SET_1[usize::from(byte)] | release,
        })
    }
}

/// Codes below 80h, as the ROM of the controller has them; also those that no key sends.
#[rustfmt::skip]
const TO_SET_1: [u8; 128] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_keys_are_rows_of_codes_in_set_1() {
        use Key::*;
        // Set 1 numbers the keys of the first PC in the order in which they lie.
        let rows: [(u8, &[Key]); 5] = [
            (
                0x01,
                &[
                    Escape, Digit1, Digit2, Digit3, Digit4, Digit5, Digit6, Digit7, Digit8,
                ],
            ),
            (
                0x0a,
                &[
                    Digit9, Digit0, Minus, Equal, Backspace, Tab, Q, W, E, R, T, Y, U, I, O, P,
                ],
            ),
            (
                0x1a,
                &[
                    BracketLeft,
                    BracketRight,
                    Enter,
                    ControlLeft,
                    A,
                    S,
                    D,
                    F,
                    G,
                    H,
                    J,
                    K,
                    L,
                ],
            ),
            (
                0x27,
                &[
                    Semicolon, Quote, Backquote, ShiftLeft, Backslash, Z, X, C, V, B, N, M, Comma,
                ],
            ),
            (
                0x34,
                &[
                    Period,
                    Slash,
                    ShiftRight,
                    KeypadMultiply,
                    AltLeft,
                    Space,
                    CapsLock,
                    F1,
                    F2,
                    F3,
                    F4,
                    F5,
                    F6,
                    F7,
                    F8,
                    F9,
                    F10,
                    NumLock,
                    ScrollLock,
                    Keypad7,
                    Keypad8,
                    Keypad9,
                    KeypadSubtract,
                    Keypad4,
                    Keypad5,
                    Keypad6,
                    KeypadAdd,
                    Keypad1,
                    Keypad2,
                    Keypad3,
                    Keypad0,
                    KeypadDecimal,
                ],
            ),
        ];
        for (first, keys) in rows {
            for (code, key) in (first..).zip(keys) {
                assert_eq!(key.set1(true), [code], "{key:?}");
                assert_eq!(key.set1(false), [code | 0x80], "{key:?}");
            }
        }
        assert_eq!((F11.set1(true), F12.set1(true)), (vec![0x57], vec![0x58]));
    }

    #[test]
    fn the_translation_loses_nothing() {
        let mut codes = TO_SET_1[1..].to_vec();
        codes.sort_unstable();
        assert_eq!(codes, (1..0x80).collect::<Vec<u8>>());
    }

    #[test]
    fn keys_with_prefixes() {
        assert_eq!(Key::Up.set2(true), [0xe0, 0x75]);
        assert_eq!(Key::Up.set2(false), [0xe0, 0xf0, 0x75]);
        assert_eq!(Key::Up.set1(false), [0xe0, 0xc8]);
        assert_eq!(Key::Pause.set1(true), [0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]);
        assert_eq!(Key::PrintScreen.set1(true), [0xe0, 0x2a, 0xe0, 0x37]);
        assert_eq!(Key::PrintScreen.set1(false), [0xe0, 0xb7, 0xe0, 0xaa]);
    }

    #[test]
    fn every_printable_character_has_a_key() {
        for c in ' '..='~' {
            let (key, shift) = Key::for_char(c).unwrap_or_else(|| panic!("{c:?}"));
            let (plain, shifted) = key.characters().unwrap();
            assert_eq!(if shift { shifted } else { plain }, c);
        }
        assert_eq!(Key::for_char('\r'), Some((Key::Enter, false)));
        assert_eq!(Key::for_char('é'), None);
    }
}
