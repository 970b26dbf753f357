//! `ioctl`: terminals and a few that every descriptor has. Requests whose argument's structure
//! differs between the ABIs are not passed on.

use super::{Call, Errno, Process, SysResult, check, host};

/// What an `ioctl` request does with its argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Arg {
    /// Takes none, or a plain number.
    Value,
    /// Reads that many bytes from the guest.
    In(u64),
    /// Writes that many bytes to the guest.
    Out(u64),
}

/// Size of the kernel's `termios`.
const TERMIOS: u64 = 36;
/// Size of the kernel's `termios2`.
const TERMIOS2: u64 = 44;

/// Name, number (the same in both ABIs), argument.
const TABLE: &[(&str, u32, Arg)] = &[
    ("TCGETS", 0x5401, Arg::Out(TERMIOS)),
    ("TCSETS", 0x5402, Arg::In(TERMIOS)),
    ("TCSETSW", 0x5403, Arg::In(TERMIOS)),
    ("TCSETSF", 0x5404, Arg::In(TERMIOS)),
    ("TCGETA", 0x5405, Arg::Out(18)),
    ("TCSETA", 0x5406, Arg::In(18)),
    ("TCSETAW", 0x5407, Arg::In(18)),
    ("TCSETAF", 0x5408, Arg::In(18)),
    ("TCSBRK", 0x5409, Arg::Value),
    ("TCXONC", 0x540a, Arg::Value),
    ("TCFLSH", 0x540b, Arg::Value),
    ("TIOCEXCL", 0x540c, Arg::Value),
    ("TIOCNXCL", 0x540d, Arg::Value),
    ("TIOCSCTTY", 0x540e, Arg::Value),
    ("TIOCGPGRP", 0x540f, Arg::Out(4)),
    ("TIOCSPGRP", 0x5410, Arg::In(4)),
    ("TIOCOUTQ", 0x5411, Arg::Out(4)),
    ("TIOCGWINSZ", 0x5413, Arg::Out(8)),
    ("TIOCSWINSZ", 0x5414, Arg::In(8)),
    ("TIOCMGET", 0x5415, Arg::Out(4)),
    ("FIONREAD", 0x541b, Arg::Out(4)),
    ("FIONBIO", 0x5421, Arg::In(4)),
    ("TIOCNOTTY", 0x5422, Arg::Value),
    ("TIOCGETD", 0x5424, Arg::Out(4)),
    ("TCSBRKP", 0x5425, Arg::Value),
    ("TIOCGSID", 0x5429, Arg::Out(4)),
    ("TCGETS2", 0x802c_542a, Arg::Out(TERMIOS2)),
    ("TCSETS2", 0x402c_542b, Arg::In(TERMIOS2)),
    ("TCSETSW2", 0x402c_542c, Arg::In(TERMIOS2)),
    ("TCSETSF2", 0x402c_542d, Arg::In(TERMIOS2)),
    ("TIOCGPTN", 0x8004_5430, Arg::Out(4)),
    ("TIOCSPTLCK", 0x4004_5431, Arg::In(4)),
    ("TIOCGPTPEER", 0x5441, Arg::Value),
    ("FIONCLEX", 0x5450, Arg::Value),
    ("FIOCLEX", 0x5451, Arg::Value),
    ("FIOASYNC", 0x5452, Arg::In(4)),
    ("FICLONE", 0x4004_9409, Arg::Value),
];

impl Process {
    /// `ioctl`.
    pub(super) fn ioctl(&mut self, c: &Call<'_>) -> SysResult {
        let fd = self.fd(c.int(0))?;
        let request = c.args[1] as u32;
        let Some(&(_, _, arg)) = TABLE.iter().find(|row| row.1 == request) else {
            tracing::debug!(target: "syscall", "ioctl request {request:#x} is not known");
            // SAFETY: plain values.
            check(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
            return Err(Errno(libc::ENOTTY));
        };
        let value = match arg {
            Arg::Value => c.args[2],
            Arg::In(size) => c.exact(c.args[2], size, false)? as u64,
            Arg::Out(size) => c.exact(c.args[2], size, true)? as u64,
        };
        let args = [fd as u64, u64::from(request), value, 0, 0, 0];
        // SAFETY: the argument is a number, or points to as many bytes as the request transfers.
        unsafe { host::blocking(libc::SYS_ioctl, args) }
    }
}
