//! Keys of the guest's keyboard, by name and by character, and a queue in front of the keyboard.

use metaphrase_devices::Shared;
use metaphrase_devices::keyboard::Keyboard;
use metaphrase_devices::keyboard::keys::Key;
use std::collections::VecDeque;

/// QEMU's names of keys that are not a single character.
#[rustfmt::skip]
const NAMES: &[(&str, Key)] = &[
    ("shift", Key::ShiftLeft), ("shift_r", Key::ShiftRight), ("alt", Key::AltLeft),
    ("alt_r", Key::AltRight), ("ctrl", Key::ControlLeft), ("ctrl_r", Key::ControlRight),
    ("meta_l", Key::MetaLeft), ("meta_r", Key::MetaRight), ("menu", Key::Menu),
    ("esc", Key::Escape), ("minus", Key::Minus), ("equal", Key::Equal),
    ("backspace", Key::Backspace), ("tab", Key::Tab), ("ret", Key::Enter), ("enter", Key::Enter),
    ("bracket_left", Key::BracketLeft), ("bracket_right", Key::BracketRight),
    ("semicolon", Key::Semicolon), ("apostrophe", Key::Quote), ("grave_accent", Key::Backquote),
    ("backslash", Key::Backslash), ("comma", Key::Comma), ("dot", Key::Period),
    ("slash", Key::Slash), ("spc", Key::Space), ("less", Key::IntlBackslash),
    ("caps_lock", Key::CapsLock), ("num_lock", Key::NumLock), ("scroll_lock", Key::ScrollLock),
    ("f1", Key::F1), ("f2", Key::F2), ("f3", Key::F3), ("f4", Key::F4), ("f5", Key::F5),
    ("f6", Key::F6), ("f7", Key::F7), ("f8", Key::F8), ("f9", Key::F9), ("f10", Key::F10),
    ("f11", Key::F11), ("f12", Key::F12), ("print", Key::PrintScreen),
    ("sysrq", Key::PrintScreen), ("pause", Key::Pause), ("insert", Key::Insert),
    ("delete", Key::Delete), ("home", Key::Home), ("end", Key::End), ("pgup", Key::PageUp),
    ("pgdn", Key::PageDown), ("up", Key::Up), ("down", Key::Down), ("left", Key::Left),
    ("right", Key::Right), ("kp_divide", Key::KeypadDivide), ("kp_multiply", Key::KeypadMultiply),
    ("asterisk", Key::KeypadMultiply), ("kp_subtract", Key::KeypadSubtract),
    ("kp_add", Key::KeypadAdd), ("kp_enter", Key::KeypadEnter), ("kp_decimal", Key::KeypadDecimal),
    ("kp_0", Key::Keypad0), ("kp_1", Key::Keypad1), ("kp_2", Key::Keypad2), ("kp_3", Key::Keypad3),
    ("kp_4", Key::Keypad4), ("kp_5", Key::Keypad5), ("kp_6", Key::Keypad6), ("kp_7", Key::Keypad7),
    ("kp_8", Key::Keypad8), ("kp_9", Key::Keypad9),
];

/// The keys of a combination such as `ctrl-alt-delete`.
///
/// # Errors
/// With the name that is none.
pub fn combination(text: &str) -> Result<Vec<Key>, String> {
    text.split('-')
        .map(|name| {
            let mut characters = name.chars();
            let key = match (characters.next(), characters.next()) {
                // A key is named by what it gives alone.
                (Some(c), None) => {
                    Key::for_char(c).and_then(|(key, shift)| (!shift).then_some(key))
                }
                _ => NAMES.iter().find(|(n, _)| *n == name).map(|(_, key)| *key),
            };
            key.ok_or_else(|| format!("there is no key {name:?}"))
        })
        .collect()
}

/// The keys that give a character on a US keyboard.
pub fn for_char(c: char) -> Option<Vec<Key>> {
    let (key, shift) = Key::for_char(c)?;
    Some(if shift {
        vec![Key::ShiftLeft, key]
    } else {
        vec![key]
    })
}

/// Key presses that wait for room in the keyboard.
#[derive(Debug, Default)]
pub struct KeyQueue(VecDeque<(Key, bool)>);

impl KeyQueue {
    /// Keys that go down one after the other, and up again.
    pub fn strike(&mut self, keys: &[Key]) {
        self.0.extend(keys.iter().map(|key| (*key, true)));
        self.0.extend(keys.iter().rev().map(|key| (*key, false)));
    }

    /// One key goes down or up.
    #[cfg_attr(not(feature = "window"), allow(dead_code))]
    pub fn change(&mut self, key: Key, pressed: bool) {
        self.0.push_back((key, pressed));
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives the keyboard what it takes; whether it took something.
    pub fn feed(&mut self, keyboard: &Shared<Keyboard>) -> bool {
        let mut keyboard = keyboard.lock();
        let before = self.0.len();
        while let Some((key, pressed)) = self.0.front()
            && keyboard.key(*key, *pressed)
        {
            self.0.pop_front();
        }
        self.0.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations() {
        use Key::*;
        let found = |text| combination(text);
        assert_eq!(
            found("ctrl-alt-delete"),
            Ok(vec![ControlLeft, AltLeft, Delete])
        );
        assert_eq!(found("shift-a"), Ok(vec![ShiftLeft, A]));
        assert_eq!(found("f12"), Ok(vec![F12]));
        assert_eq!(found("1"), Ok(vec![Digit1]));
        for wrong in ["", "ctrl-", "nosuch", "A", "a--b"] {
            assert!(found(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn characters() {
        assert_eq!(for_char('a'), Some(vec![Key::A]));
        assert_eq!(for_char('A'), Some(vec![Key::ShiftLeft, Key::A]));
        assert_eq!(for_char('é'), None);
    }
}
