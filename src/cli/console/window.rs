//! `-display window`: the guest's screen in a window of the host's desktop, with its keyboard and
//! mouse. Closing the window ends the run.

use super::control::Ending;
use super::keys::KeyQueue;
use super::monitor::Handles;
use crate::cli::messages::say;
use metaphrase_devices::Shared;
use metaphrase_devices::keyboard::keys::Key;
use metaphrase_devices::vga::{Picture, Vga};
use minifb::{
    InputCallback, Key as Pressed, MouseButton, MouseMode, ScaleMode, Window, WindowOptions,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Looks a second.
const RATE: usize = 60;

/// Starts the thread, which ends after `ended` is set.
pub fn start(handles: Handles, vga: Shared<Vga>, ended: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let options = WindowOptions {
            resize: true,
            scale_mode: ScaleMode::AspectRatioStretch,
            ..WindowOptions::default()
        };
        match Window::new("metaphrase", 720, 400, options) {
            Ok(window) => run(window, &handles, &vga, &ended),
            Err(error) => {
                say!("metaphrase: no window: {error}");
                handles.control.end(Ending::Quit);
            }
        }
    })
}

fn run(mut window: Window, handles: &Handles, vga: &Shared<Vga>, ended: &AtomicBool) {
    window.set_target_fps(RATE);
    let mut keys = KeyQueue::default();
    let pressed = Pressings::default();
    window.set_input_callback(Box::new(pressed.clone()));
    let mut mouse = Mouse::default();
    let mut drawn = None;
    let mut pixels = Vec::new();
    let mut size = (0, 0);
    while !ended.load(Ordering::Relaxed) {
        if !window.is_open() {
            handles.control.end(Ending::Quit);
            return;
        }
        let changes = vga.lock().changes();
        if drawn != Some(changes) {
            drawn = Some(changes);
            let picture = vga.lock().picture();
            size = (picture.width, picture.height);
            pixels = packed(&picture);
        }
        let shown = match pixels.is_empty() {
            true => {
                window.update();
                Ok(())
            }
            false => window.update_with_buffer(&pixels, size.0, size.1),
        };
        if shown.is_err() {
            handles.control.end(Ending::Quit);
            return;
        }
        for (key, down) in pressed.take() {
            if let Some(key) = key_of(key) {
                keys.change(key, down);
            }
        }
        let fed = keys.feed(&handles.board.keyboard);
        if mouse.follow(&window, handles) || fed {
            handles.control.touch();
        }
    }
}

/// 0RGB words.
fn packed(picture: &Picture) -> Vec<u32> {
    let word = |p: &[u8]| u32::from_be_bytes([0, p[0], p[1], p[2]]);
    picture.rgb.chunks_exact(3).map(word).collect()
}

/// Keys that went down or up since the last look, in their order.
#[derive(Clone, Default)]
struct Pressings(Arc<Mutex<Vec<(Pressed, bool)>>>);

impl Pressings {
    fn take(&self) -> Vec<(Pressed, bool)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl InputCallback for Pressings {
    fn add_char(&mut self, _character: u32) {}

    fn set_key_state(&mut self, key: Pressed, down: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((key, down));
    }
}

/// Where the mouse was.
#[derive(Default)]
struct Mouse {
    at: Option<(f32, f32)>,
    buttons: u8,
}

impl Mouse {
    /// Tells the guest's mouse what the host's has done. Whether it did anything.
    fn follow(&mut self, window: &Window, handles: &Handles) -> bool {
        let at = window.get_mouse_pos(MouseMode::Discard);
        let (right, down) = match (self.at, at) {
            (Some(before), Some(now)) => ((now.0 - before.0) as i32, (now.1 - before.1) as i32),
            _ => (0, 0),
        };
        self.at = at;
        let wheel = window
            .get_scroll_wheel()
            .map_or(0, |(_, y)| -y.signum() as i32);
        let all = [MouseButton::Left, MouseButton::Right, MouseButton::Middle];
        let mut buttons = 0;
        for (bit, button) in all.into_iter().enumerate() {
            buttons |= u8::from(window.get_mouse_down(button)) << bit;
        }
        let changed = (right, down, wheel) != (0, 0, 0) || buttons != self.buttons;
        if changed {
            let mut keyboard = handles.board.keyboard.lock();
            keyboard.mouse(right, down, wheel, buttons);
        }
        self.buttons = buttons;
        changed
    }
}

/// The guest's key for a key of the host.
#[rustfmt::skip]
fn key_of(key: Pressed) -> Option<Key> {
    use Pressed as P;
    Some(match key {
        P::Key0 => Key::Digit0, P::Key1 => Key::Digit1, P::Key2 => Key::Digit2,
        P::Key3 => Key::Digit3, P::Key4 => Key::Digit4, P::Key5 => Key::Digit5,
        P::Key6 => Key::Digit6, P::Key7 => Key::Digit7, P::Key8 => Key::Digit8,
        P::Key9 => Key::Digit9,
        P::A => Key::A, P::B => Key::B, P::C => Key::C, P::D => Key::D, P::E => Key::E,
        P::F => Key::F, P::G => Key::G, P::H => Key::H, P::I => Key::I, P::J => Key::J,
        P::K => Key::K, P::L => Key::L, P::M => Key::M, P::N => Key::N, P::O => Key::O,
        P::P => Key::P, P::Q => Key::Q, P::R => Key::R, P::S => Key::S, P::T => Key::T,
        P::U => Key::U, P::V => Key::V, P::W => Key::W, P::X => Key::X, P::Y => Key::Y,
        P::Z => Key::Z,
        P::F1 => Key::F1, P::F2 => Key::F2, P::F3 => Key::F3, P::F4 => Key::F4, P::F5 => Key::F5,
        P::F6 => Key::F6, P::F7 => Key::F7, P::F8 => Key::F8, P::F9 => Key::F9,
        P::F10 => Key::F10, P::F11 => Key::F11, P::F12 => Key::F12,
        P::Down => Key::Down, P::Left => Key::Left, P::Right => Key::Right, P::Up => Key::Up,
        P::Apostrophe => Key::Quote, P::Backquote => Key::Backquote,
        P::Backslash => Key::Backslash, P::Comma => Key::Comma, P::Equal => Key::Equal,
        P::LeftBracket => Key::BracketLeft, P::Minus => Key::Minus, P::Period => Key::Period,
        P::RightBracket => Key::BracketRight, P::Semicolon => Key::Semicolon,
        P::Slash => Key::Slash, P::Backspace => Key::Backspace, P::Delete => Key::Delete,
        P::End => Key::End, P::Enter => Key::Enter, P::Escape => Key::Escape,
        P::Home => Key::Home, P::Insert => Key::Insert, P::Menu => Key::Menu,
        P::PageDown => Key::PageDown, P::PageUp => Key::PageUp, P::Pause => Key::Pause,
        P::Space => Key::Space, P::Tab => Key::Tab, P::NumLock => Key::NumLock,
        P::CapsLock => Key::CapsLock, P::ScrollLock => Key::ScrollLock,
        P::LeftShift => Key::ShiftLeft, P::RightShift => Key::ShiftRight,
        P::LeftCtrl => Key::ControlLeft, P::RightCtrl => Key::ControlRight,
        P::LeftAlt => Key::AltLeft, P::RightAlt => Key::AltRight,
        P::LeftSuper => Key::MetaLeft, P::RightSuper => Key::MetaRight,
        P::NumPad0 => Key::Keypad0, P::NumPad1 => Key::Keypad1, P::NumPad2 => Key::Keypad2,
        P::NumPad3 => Key::Keypad3, P::NumPad4 => Key::Keypad4, P::NumPad5 => Key::Keypad5,
        P::NumPad6 => Key::Keypad6, P::NumPad7 => Key::Keypad7, P::NumPad8 => Key::Keypad8,
        P::NumPad9 => Key::Keypad9, P::NumPadDot => Key::KeypadDecimal,
        P::NumPadSlash => Key::KeypadDivide, P::NumPadAsterisk => Key::KeypadMultiply,
        P::NumPadMinus => Key::KeypadSubtract, P::NumPadPlus => Key::KeypadAdd,
        P::NumPadEnter => Key::KeypadEnter,
        _ => return None,
    })
}
