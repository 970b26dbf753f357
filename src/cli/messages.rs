//! Our own messages, on a standard error of our own: the guest may close or redirect its
//! descriptor 2, and some programs do before they end.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::OnceLock;

/// Descriptors from here on are out of the way of what guests expect to get.
const FIRST: RawFd = 700;

static OWN: OnceLock<Option<File>> = OnceLock::new();

/// Sets our standard error aside, once; the descriptor that the guest must not see.
pub fn set_aside() -> Option<RawFd> {
    let own = OWN.get_or_init(|| {
        let copy = |from: RawFd| {
            // SAFETY: plain values.
            let fd = unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, from) };
            // SAFETY: the descriptor is new and nobody else's.
            (fd >= 0).then(|| unsafe { File::from_raw_fd(fd) })
        };
        // A low limit on descriptors, or a standard error that is closed.
        copy(FIRST).or_else(|| copy(3))
    });
    own.as_ref().map(AsRawFd::as_raw_fd)
}

/// Our standard error as it was when we started. Write errors are of no use to anyone.
#[derive(Clone, Copy, Debug)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match OWN.get() {
            Some(Some(file)) => (&*file).write(bytes),
            _ => std::io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Like `eprintln!`, to [`Stderr`].
macro_rules! say {
    ($($arg:tt)*) => {{
        let mut text = format!($($arg)*);
        text.push('\n');
        let _ = std::io::Write::write_all(&mut $crate::cli::messages::Stderr, text.as_bytes());
    }};
}
pub(crate) use say;
