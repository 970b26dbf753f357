//! The command on a pseudo-terminal, as a user has it.
#![allow(dead_code)] // Each test file uses its part.

pub mod screen;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// A program on a terminal of its own, of which it is the session leader.
pub struct Session {
    pub child: Child,
    master: File,
    /// Kept open, so that the terminal and its modes outlive the program.
    slave: File,
    output: Arc<Mutex<Vec<u8>>>,
    /// The modes before the program started.
    before: Modes,
}

/// What a terminal's modes come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Modes {
    input: u32,
    output: u32,
    control: u32,
    local: u32,
    characters: [u8; 32],
}

impl Modes {
    /// No echo, no lines, and Ctrl-C is a character.
    pub fn is_raw(&self) -> bool {
        self.local & (libc::ICANON | libc::ECHO | libc::ISIG) == 0
    }
}

fn modes(terminal: &File) -> Modes {
    // SAFETY: all zeros are valid for this structure.
    let mut t: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is ours.
    let got = unsafe { libc::tcgetattr(terminal.as_raw_fd(), &mut t) };
    assert_eq!(got, 0);
    Modes {
        input: t.c_iflag,
        output: t.c_oflag,
        control: t.c_cflag,
        local: t.c_lflag,
        characters: t.c_cc,
    }
}

impl Session {
    /// Starts a command on a terminal of 80 columns and 25 rows.
    pub fn start(command: &mut Command) -> Session {
        Session::with_size(command, 80, 25)
    }

    pub fn with_size(command: &mut Command, columns: u16, rows: u16) -> Session {
        let (mut master, mut slave) = (-1, -1);
        let size = libc::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let null = std::ptr::null_mut();
        // SAFETY: the descriptors are ours to be written, the size is only read.
        let got = unsafe { libc::openpty(&mut master, &mut slave, null, std::ptr::null(), &size) };
        assert_eq!(got, 0);
        for fd in [master, slave] {
            // SAFETY: plain values.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        // SAFETY: the descriptors are new and nobody else's.
        let (master, slave) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
        let end = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: only system calls between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                // As a login would have them, whatever the tests were started by ignores.
                for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
                    libc::signal(signal, libc::SIG_DFL);
                }
                // A signal that dumps core leaves none behind.
                let none = libc::rlimit {
                    rlim_cur: 0,
                    rlim_max: 0,
                };
                libc::setrlimit(libc::RLIMIT_CORE, &none);
                Ok(())
            });
        }
        let before = modes(&slave);
        let child = command.spawn().unwrap();
        let output = Arc::new(Mutex::new(Vec::new()));
        let (all, mut from) = (output.clone(), master.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                all.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        Session {
            child,
            master,
            slave,
            output,
            before,
        }
    }

    /// Everything that was shown.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }

    /// Types.
    pub fn send(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).unwrap();
    }

    /// Waits until a condition holds.
    pub fn wait_until(&mut self, what: &str, mut holds: impl FnMut(&mut Session) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < PATIENCE, "{what}: {}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for text after what was there before.
    pub fn expect(&mut self, text: &str) {
        self.wait_until(text, |s| s.text().contains(text));
    }

    /// The terminal's modes now.
    pub fn modes(&self) -> Modes {
        modes(&self.slave)
    }

    /// Whether the terminal is as it was before.
    pub fn is_restored(&self) -> bool {
        self.modes() == self.before
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: plain values; the child has not been waited for.
        let got = unsafe { libc::kill(self.child.id() as i32, signal) };
        assert_eq!(got, 0);
    }

    /// Waits for the end.
    pub fn end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "no end: {}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the program is stopped.
    pub fn stopped(&mut self) {
        self.wait_until("stopped", |s| s.state() == 'T');
    }

    /// The state of the process, as in /proc.
    pub fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        stat.rsplit(") ").next().unwrap().chars().next().unwrap()
    }

    /// Processor time that the program has used, in seconds.
    pub fn cpu_time(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11..13]
            .iter()
            .map(|t| t.parse::<u64>().unwrap())
            .sum();
        ticks as f64 / 100.0
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The signal that ended a program.
pub fn signal_of(status: ExitStatus) -> Option<i32> {
    status.signal()
}
