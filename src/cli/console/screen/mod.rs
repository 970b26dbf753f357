//! `-display term`: the guest's screen in the terminal, whose keys are the guest's keyboard.
//!
//! One thread reads keys and draws. It looks 30 times a second whether the adapter has changed
//! something, and writes what differs from what is shown. Drawing takes at most a quarter of the
//! time, so that a guest that draws all the time is not held up.

mod characters;
mod frame;
mod typing;

use super::control::Ending;
use super::escape::{Escape, HELP, Typed};
use super::keys::KeyQueue;
use super::monitor::{Handles, Monitor};
use super::terminal;
use crossterm::event::{self, Event, KeyEvent};
use frame::{Depth, Frame};
use metaphrase_devices::Shared;
use metaphrase_devices::keyboard::keys::Key;
use metaphrase_devices::vga::Vga;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks at the screen.
const PERIOD: Duration = Duration::from_millis(33);
/// Between two attempts to give the keyboard what it had no room for.
const KEY_PERIOD: Duration = Duration::from_millis(3);
/// How long the note about the terminal's size is there.
const NOTE_TIME: Duration = Duration::from_secs(5);

/// The screen in the terminal.
pub struct Screen {
    handles: Handles,
    vga: Shared<Vga>,
    ended: Arc<AtomicBool>,
    monitor: Monitor,
    at_monitor: bool,
    escape: Escape,
    keys: KeyQueue,
    depth: Depth,
    shown: Option<Frame>,
    /// The adapter's changes and the terminal's state when it was drawn.
    drawn_at: Option<(u64, u64)>,
    size: (u16, u16),
    /// The note is shown until then.
    note_until: Instant,
}

impl Screen {
    /// Starts the thread, which ends after `ended` is set.
    pub fn start(handles: Handles, vga: Shared<Vga>, ended: Arc<AtomicBool>) -> JoinHandle<()> {
        let true_colour =
            std::env::var("COLORTERM").is_ok_and(|v| v == "truecolor" || v == "24bit");
        let mut screen = Screen {
            monitor: Monitor::new(handles.clone()),
            handles,
            vga,
            ended,
            at_monitor: false,
            escape: Escape::new(true),
            keys: KeyQueue::default(),
            depth: if true_colour {
                Depth::True
            } else {
                Depth::Indexed
            },
            shown: None,
            drawn_at: None,
            size: (0, 0),
            note_until: Instant::now(),
        };
        std::thread::spawn(move || screen.run())
    }

    fn run(&mut self) {
        let mut next = Instant::now();
        while !self.ended.load(Ordering::Relaxed) {
            if self.keys.feed(&self.handles.board.keyboard) {
                self.handles.control.touch();
            }
            let now = Instant::now();
            if now >= next {
                self.draw();
                next = Instant::now() + PERIOD.max(3 * now.elapsed());
            }
            let mut time = next.saturating_duration_since(Instant::now()).min(PERIOD);
            if !self.keys.is_empty() {
                time = time.min(KEY_PERIOD);
            }
            if !terminal::may_read() {
                std::thread::sleep(time);
                continue;
            }
            match event::poll(time) {
                Ok(true) => match event::read() {
                    Ok(Event::Key(key)) => self.typed(&key),
                    Ok(_) => {}
                    Err(_) => std::thread::sleep(PERIOD),
                },
                Ok(false) => {}
                Err(_) => std::thread::sleep(PERIOD),
            }
        }
        // What is there at the end is seen, if only for a moment, and then in the scroll-back.
        self.draw();
    }

    fn typed(&mut self, event: &KeyEvent) {
        let byte = typing::byte_of(event);
        match self.escape.feed(byte) {
            None => {}
            Some(Typed::Byte(_)) if self.at_monitor => {
                let text = self.monitor.feed(byte);
                write(text.as_bytes());
            }
            Some(Typed::Byte(_)) => self.keys.strike(&typing::keys_of(event)),
            // What Ctrl-Break sends is what a keyboard has for it.
            Some(Typed::Break) => self.keys.strike(&[Key::ControlLeft, Key::Pause]),
            Some(Typed::Quit) => self.handles.control.end(Ending::Quit),
            Some(Typed::Switch) => self.switch(""),
            Some(Typed::Help) if self.at_monitor => write(HELP.as_bytes()),
            Some(Typed::Help) => self.switch(HELP),
        }
    }

    /// Shows the monitor instead of the screen, or the screen again.
    fn switch(&mut self, text: &str) {
        self.at_monitor = !self.at_monitor;
        terminal::show_screen(!self.at_monitor);
        if self.at_monitor {
            let greeting = self.monitor.greeting();
            write(format!("{text}{greeting}").as_bytes());
        }
    }

    /// Brings the terminal up to date.
    fn draw(&mut self) {
        if self.at_monitor || !terminal::may_read() {
            return;
        }
        let size = crossterm::terminal::size().unwrap_or((80, 24));
        let changes = (self.vga.lock().changes(), terminal::entered());
        if self
            .drawn_at
            .is_some_and(|(_, entered)| entered != changes.1)
            || size != self.size
        {
            self.shown = None;
            self.size = size;
            self.note_until = Instant::now() + NOTE_TIME;
        }
        let noting = Instant::now() < self.note_until;
        if self.shown.is_some() && self.drawn_at == Some(changes) && !noting {
            return;
        }
        let (columns, rows) = (usize::from(size.0), usize::from(size.1));
        let text = self.vga.lock().text();
        let (mut frame, fits) = match &text {
            Some(text) => {
                let frame = Frame::of_text(text, columns, rows);
                let fits = text.columns <= columns && text.rows <= rows;
                (frame, fits.then_some(()).ok_or((text.columns, text.rows)))
            }
            None => {
                let picture = self.vga.lock().picture();
                (Frame::of_picture(&picture, columns, rows), Ok(()))
            }
        };
        if noting && let Err((wide, high)) = fits {
            frame.note(&format!(" {wide}x{high} here, terminal {columns}x{rows} "));
        }
        let bytes = frame.changes(self.shown.as_ref(), self.depth);
        write(&bytes);
        self.shown = Some(frame);
        // As long as the note is there, the next look must see that its time is over.
        self.drawn_at = (!noting).then_some(changes);
        if noting {
            self.drawn_at = Some((changes.0.wrapping_sub(1), changes.1));
        }
    }
}

/// Writes to the terminal. One that is gone ends nothing.
fn write(bytes: &[u8]) {
    if !bytes.is_empty() {
        let mut out = std::io::stdout();
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    }
}
