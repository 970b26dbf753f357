//! The monitor: a line that is typed, and what the commands do.

use super::control::{Control, Ending, Order};
use super::keys::{self, KeyQueue};
use super::screenshot;
use metaphrase_devices::Shared;
use metaphrase_devices::vga::Vga;
use metaphrase_runtime::machine::Pins;
use metaphrase_runtime::machine::pc::Board;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What stands before what is typed.
const PROMPT: &str = "(metaphrase) ";

const HELP: &str = "\
help                 this help\n\
info registers       the processor's registers\n\
info status          whether the guest runs, and how far it came\n\
stop, cont           stop and go on\n\
system_reset         the reset line\n\
system_powerdown     the power button\n\
sendkey KEYS         press keys, such as ctrl-alt-delete or shift-a\n\
nmi                  a non-maskable interrupt\n\
screendump FILE      a picture of the screen as PNG\n\
quit                 end metaphrase\n";

/// How long keys may wait for the guest to take them.
const KEY_TIME: Duration = Duration::from_secs(2);

/// What the commands work on.
#[derive(Clone)]
pub struct Handles {
    /// The run.
    pub control: Control,
    /// The devices.
    pub board: Board,
    /// The screen, if there is one.
    pub vga: Option<Shared<Vga>>,
    /// The reset line.
    pub pins: Arc<Pins>,
}

/// The line.
pub struct Monitor {
    handles: Handles,
    line: String,
}

impl Monitor {
    /// An empty line.
    pub fn new(handles: Handles) -> Monitor {
        Monitor {
            handles,
            line: String::new(),
        }
    }

    /// What is shown when the monitor gets the input.
    pub fn greeting(&self) -> String {
        format!("\nmetaphrase monitor: help lists the commands\n{PROMPT}")
    }

    /// Takes a byte that was typed; what is shown.
    pub fn feed(&mut self, byte: u8) -> String {
        match byte {
            b'\r' | b'\n' => {
                let line = std::mem::take(&mut self.line);
                format!("\n{}{PROMPT}", self.execute(line.trim()))
            }
            0x08 | 0x7f if self.line.pop().is_some() => "\x08 \x08".into(),
            // Ctrl-C and Ctrl-U.
            0x03 | 0x15 => {
                self.line.clear();
                format!("\n{PROMPT}")
            }
            b' '..=b'~' => {
                self.line.push(char::from(byte));
                char::from(byte).to_string()
            }
            _ => String::new(),
        }
    }

    /// Does a command; what it says.
    pub fn execute(&self, line: &str) -> String {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let control = &self.handles.control;
        match (command, rest.trim()) {
            ("", _) => String::new(),
            ("help" | "?" | "h", _) => HELP.into(),
            ("info" | "i", "registers") => control.ask(Order::Registers),
            ("info" | "i", "status") => control.ask(Order::Status),
            ("info" | "i", _) => "info registers, info status\n".into(),
            ("stop" | "s", "") => control.ask(Order::Stop),
            ("cont" | "c", "") => control.ask(Order::Continue),
            ("nmi", "") => control.ask(Order::Nmi),
            ("quit" | "q", "") => {
                control.end(Ending::Quit);
                String::new()
            }
            ("system_reset", "") => {
                self.handles.pins.reset.store(true, Ordering::Relaxed);
                control.poke();
                String::new()
            }
            ("system_powerdown", "") => {
                self.handles.board.pm.lock().press_power_button();
                control.poke();
                String::new()
            }
            ("sendkey", keys) if !keys.is_empty() => self.send_keys(keys),
            ("screendump", file) if !file.is_empty() => match &self.handles.vga {
                Some(vga) => screenshot::write(vga, Path::new(file))
                    .err()
                    .unwrap_or_default(),
                None => "the machine has no screen\n".into(),
            },
            _ => format!("{line}: help lists the commands\n"),
        }
    }

    fn send_keys(&self, text: &str) -> String {
        let keys = match keys::combination(text) {
            Ok(keys) => keys,
            Err(error) => return format!("{error}\n"),
        };
        let mut queue = KeyQueue::default();
        queue.strike(&keys);
        let end = Instant::now() + KEY_TIME;
        while !queue.is_empty() {
            if queue.feed(&self.handles.board.keyboard) {
                self.handles.control.poke();
            } else if Instant::now() > end {
                return "the guest does not take the keys\n".into();
            } else {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        String::new()
    }
}
