//! Signals: the run ends in order and the terminal is given back, also while we are stopped.

use super::control::{Control, Ending};
use super::terminal;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long the run may take to end before it is ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts the thread that takes signals. `picture` is what SIGUSR1 is for.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn start(
    control: Control,
    finished: Arc<AtomicBool>,
    picture: Option<Box<dyn Fn() + Send>>,
) -> std::io::Result<()> {
    // Whoever started us may want some ignored, as nohup does.
    let endings = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];
    let mut wanted: Vec<i32> = endings.into_iter().filter(|n| !is_ignored(*n)).collect();
    wanted.extend([SIGTSTP, SIGCONT]);
    if picture.is_some() {
        wanted.push(SIGUSR1);
    }
    let mut signals = Signals::new(wanted)?;
    std::thread::spawn(move || {
        let mut asked = false;
        for signal in signals.forever() {
            match signal {
                SIGTSTP => {
                    terminal::give_back();
                    let _ = emulate_default_handler(signal);
                    terminal::take_again();
                }
                SIGCONT => terminal::take_again(),
                SIGUSR1 => {
                    if let Some(picture) = &picture {
                        picture();
                    }
                }
                _ if asked || finished.load(Ordering::Relaxed) => die(signal),
                _ => {
                    asked = true;
                    control.end(Ending::Signal(signal));
                    std::thread::spawn(move || {
                        std::thread::sleep(PATIENCE);
                        die(signal);
                    });
                }
            }
        }
    });
    Ok(())
}

/// Ends the process as that signal does.
pub fn die(signal: i32) {
    terminal::give_back();
    let _ = emulate_default_handler(signal);
}

/// Whether a signal is ignored now.
fn is_ignored(signal: i32) -> bool {
    // SAFETY: all zeros are valid for this structure of the C library.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only asks; the structure is ours.
    let got = unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
    got == 0 && action.sa_sigaction == libc::SIG_IGN
}
