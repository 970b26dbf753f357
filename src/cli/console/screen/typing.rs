//! Keys as a terminal reports them, for the guest's keyboard and for the monitor.

use super::super::escape::PREFIX;
use super::super::keys;
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use metaphrase_devices::keyboard::keys::Key;

/// The keys of the guest's keyboard that are pressed together; none if it has no such key.
pub fn keys_of(event: &KeyEvent) -> Vec<Key> {
    const FUNCTION: [Key; 12] = [
        Key::F1,
        Key::F2,
        Key::F3,
        Key::F4,
        Key::F5,
        Key::F6,
        Key::F7,
        Key::F8,
        Key::F9,
        Key::F10,
        Key::F11,
        Key::F12,
    ];
    let mut modifiers = event.modifiers;
    let struck = match event.code {
        _ if event.kind == KeyEventKind::Release => return Vec::new(),
        KeyCode::Char(c) => {
            // Shift is in the character.
            modifiers -= KeyModifiers::SHIFT;
            match keys::for_char(in_control(c, modifiers)) {
                Some(keys) => keys,
                None => return Vec::new(),
            }
        }
        KeyCode::BackTab => {
            modifiers -= KeyModifiers::SHIFT;
            vec![Key::ShiftLeft, Key::Tab]
        }
        KeyCode::F(n) => match FUNCTION.get(usize::from(n).wrapping_sub(1)) {
            Some(key) => vec![*key],
            None => return Vec::new(),
        },
        code => match named(code) {
            Some(key) => vec![key],
            None => return Vec::new(),
        },
    };
    let held = [
        (KeyModifiers::CONTROL, Key::ControlLeft),
        (KeyModifiers::ALT, Key::AltLeft),
        (KeyModifiers::SHIFT, Key::ShiftLeft),
    ];
    let held = held.iter().filter(|(bit, _)| modifiers.contains(*bit));
    held.map(|(_, key)| *key).chain(struck).collect()
}

fn named(code: KeyCode) -> Option<Key> {
    Some(match code {
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Enter => Key::Enter,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Tab => Key::Tab,
        KeyCode::Delete => Key::Delete,
        KeyCode::Insert => Key::Insert,
        KeyCode::Esc => Key::Escape,
        KeyCode::CapsLock => Key::CapsLock,
        KeyCode::ScrollLock => Key::ScrollLock,
        KeyCode::NumLock => Key::NumLock,
        KeyCode::PrintScreen => Key::PrintScreen,
        KeyCode::Pause => Key::Pause,
        KeyCode::Menu => Key::Menu,
        _ => return None,
    })
}

/// A terminal sends the same byte for Ctrl-4 and Ctrl-\, and so on; the second is what is meant.
fn in_control(c: char, modifiers: KeyModifiers) -> char {
    match c {
        '4' if modifiers.contains(KeyModifiers::CONTROL) => '\\',
        '5' if modifiers.contains(KeyModifiers::CONTROL) => ']',
        '6' if modifiers.contains(KeyModifiers::CONTROL) => '^',
        '7' if modifiers.contains(KeyModifiers::CONTROL) => '_',
        c => c,
    }
}

/// The byte that a key is for whoever reads bytes; 0 if it is none.
pub fn byte_of(event: &KeyEvent) -> u8 {
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    match event.code {
        KeyCode::Char('a' | 'A') if control => PREFIX,
        KeyCode::Char('c' | 'C') if control => 0x03,
        KeyCode::Char('u' | 'U') if control => 0x15,
        KeyCode::Char(c) if c.is_ascii() && !control => c as u8,
        KeyCode::Enter => b'\r',
        KeyCode::Backspace => 0x7f,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_what_is_held() {
        use Key::*;
        for (code, modifiers, expected) in [
            (KeyCode::Char('a'), KeyModifiers::NONE, vec![A]),
            (KeyCode::Char('A'), KeyModifiers::SHIFT, vec![ShiftLeft, A]),
            (
                KeyCode::Char('c'),
                KeyModifiers::CONTROL,
                vec![ControlLeft, C],
            ),
            (
                KeyCode::Char('4'),
                KeyModifiers::CONTROL,
                vec![ControlLeft, Backslash],
            ),
            (KeyCode::Char('x'), KeyModifiers::ALT, vec![AltLeft, X]),
            (KeyCode::F(12), KeyModifiers::ALT, vec![AltLeft, F12]),
            (KeyCode::F(0), KeyModifiers::NONE, vec![]),
            (KeyCode::Left, KeyModifiers::SHIFT, vec![ShiftLeft, Left]),
            (KeyCode::BackTab, KeyModifiers::SHIFT, vec![ShiftLeft, Tab]),
            (KeyCode::Char('é'), KeyModifiers::NONE, vec![]),
        ] {
            let event = KeyEvent::new(code, modifiers);
            assert_eq!(keys_of(&event), expected, "{event:?}");
        }
    }
}
