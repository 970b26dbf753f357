//! The terminal that we run in: raw while the guest has it, and always given back as it was.
//!
//! One process has one terminal, so what has to be undone is kept in one place, where the panic
//! hook and the signal thread find it too. In the background nothing is touched, since changing a
//! terminal from there stops the process; SIGCONT is when the shell may have given it back.

use rustix::fd::BorrowedFd;
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr,
    tcgetpgrp, tcsetattr,
};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError, TryLockError};

/// To the alternate screen, with the cursor hidden and automatic wrapping off.
const ENTER_SCREEN: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
/// Back.
const LEAVE_SCREEN: &[u8] = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

/// What is to be undone.
struct Held {
    before: Termios,
    raw: Termios,
    /// The alternate screen is wanted.
    screen: bool,
    /// The terminal is raw now.
    active: bool,
}

static HELD: Mutex<Option<Held>> = Mutex::new(None);

static ENTERED: AtomicU64 = AtomicU64::new(0);

/// What the guest may do with the terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keys {
    /// All keys are the guest's.
    Raw,
    /// Those that send signals (Ctrl-C, Ctrl-Z, …) keep doing that.
    Signals,
}

/// The terminal, until this is dropped.
#[derive(Debug)]
pub struct Terminal(());

impl Terminal {
    /// Takes the terminal that standard input is, if it is one.
    pub fn take(keys: Keys, screen: bool) -> Option<Terminal> {
        let stdin = rustix::stdio::stdin();
        if !isatty(stdin) {
            return None;
        }
        let before = tcgetattr(stdin).ok()?;
        let raw = raw(&before, keys);
        *lock() = Some(Held {
            before,
            raw,
            screen,
            active: false,
        });
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                give_back();
                previous(info);
            }));
        });
        take_again();
        Some(Terminal(()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
        *lock() = None;
    }
}

/// Makes the terminal as it was; [`take_again`] undoes that. Does nothing if it is not ours.
pub fn give_back() {
    // The thread that panics may be the one that holds the lock.
    let mut held = match HELD.try_lock() {
        Ok(held) => held,
        Err(TryLockError::Poisoned(held)) => held.into_inner(),
        Err(TryLockError::WouldBlock) => return,
    };
    let Some(held) = held.as_mut().filter(|held| held.active) else {
        return;
    };
    held.active = false;
    if !is_foreground() {
        return;
    }
    if held.screen {
        write(LEAVE_SCREEN);
    }
    // Not after output has drained: a terminal that is stopped would keep us.
    let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &held.before);
}

/// Makes the terminal raw, if it is ours to do so.
pub fn take_again() {
    let mut held = lock();
    let Some(held) = held.as_mut() else { return };
    if !is_foreground() {
        return;
    }
    ENTERED.fetch_add(1, Ordering::Relaxed);
    let set = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &held.raw);
    held.active = set.is_ok();
    if held.screen {
        write(ENTER_SCREEN);
    }
}

/// Leaves the alternate screen for a while, or comes back to it.
pub fn show_screen(screen: bool) {
    if let Some(held) = lock().as_mut()
        && held.screen != screen
    {
        held.screen = screen;
        ENTERED.fetch_add(1, Ordering::Relaxed);
        if held.active {
            write(if screen { ENTER_SCREEN } else { LEAVE_SCREEN });
        }
    }
}

/// Whether standard input may be read: it is no terminal, or one that is ours now.
pub fn may_read() -> bool {
    lock().as_ref().is_none_or(|held| held.active)
}

/// A number that changes whenever what was drawn is gone.
pub fn entered() -> u64 {
    ENTERED.load(Ordering::Relaxed)
}

/// Whether this process has the terminal. One that does not control us is ours.
fn is_foreground() -> bool {
    tcgetpgrp(rustix::stdio::stdin()).map_or(true, |group| group == rustix::process::getpgrp())
}

/// No echo, no lines, no flow control, nothing translated; output stays as it is.
pub fn raw(before: &Termios, keys: Keys) -> Termios {
    let mut raw = before.clone();
    raw.input_modes -= InputModes::IGNBRK
        | InputModes::BRKINT
        | InputModes::PARMRK
        | InputModes::ISTRIP
        | InputModes::INLCR
        | InputModes::IGNCR
        | InputModes::ICRNL
        | InputModes::IXON;
    raw.local_modes -=
        LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::IEXTEN;
    if keys == Keys::Raw {
        raw.local_modes -= LocalModes::ISIG;
    }
    raw.special_codes[SpecialCodeIndex::VMIN] = 1;
    raw.special_codes[SpecialCodeIndex::VTIME] = 0;
    raw
}

fn lock() -> MutexGuard<'static, Option<Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(bytes: &[u8]) {
    let mut out = std::io::stdout();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// Whether a descriptor is a terminal.
pub fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    isatty(fd)
}
