//! What a serial port can be connected to besides standard input and output.

use super::args::Destination;
use super::control::Control;
use super::feeder::{Bell, Feeder, PortSink};
use super::output::{Output, WhenFull};
use crate::cli::messages::say;
use metaphrase_devices::Shared;
use metaphrase_devices::serial::{NoSink, Serial, SerialSink};
use rustix::fd::{AsFd, OwnedFd};
use std::fs::File;
use std::io::{Error, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How much may wait in a [`Feeder`] before its descriptor is read again.
const AHEAD: usize = 4096;

/// Where input comes from.
pub enum Source {
    /// Nowhere.
    Nothing,
    /// Standard input, which its own thread reads.
    Stdin,
    /// A descriptor, and one more that is kept open.
    Descriptor(OwnedFd, Option<OwnedFd>),
    /// Connections to a port, one after the other.
    Listener(TcpListener, Peer),
}

/// One end of a serial line: what the port sends to, and what is fed to it.
pub struct Line {
    /// Where the port sends.
    pub output: Option<Output>,
    /// Where its input comes from.
    pub source: Source,
    /// Rung when the port has room.
    pub bell: Arc<Bell>,
}

/// The connection that is there now.
#[derive(Clone, Default)]
pub struct Peer(Arc<Mutex<Option<TcpStream>>>);

impl Peer {
    fn set(&self, stream: Option<TcpStream>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }

    fn get(&self) -> Option<TcpStream> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.as_ref().and_then(|s| s.try_clone().ok())
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // What is sent while nobody is there is lost, as on a cable that ends nowhere.
        if let Some(mut stream) = self.get() {
            match stream.write(bytes) {
                Ok(n) if n > 0 => return Ok(n),
                Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                _ => self.set(None),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Line {
    /// Connects a port; `n` is its number, from 1 on.
    ///
    /// # Errors
    /// If that cannot be opened.
    pub fn new(to: &Destination, n: usize, stdout: &Output) -> std::io::Result<Line> {
        let wait = |to| Output::new(to, WhenFull::Wait);
        let (output, source) = match to {
            Destination::Null => (None, Source::Nothing),
            Destination::Stdio { .. } => (Some(stdout.clone()), Source::Stdin),
            Destination::File(path) => (Some(wait(Box::new(File::create(path)?))), Source::Nothing),
            Destination::Pty => pty(n)?,
            Destination::Tcp {
                address,
                server: false,
                ..
            } => {
                let stream = TcpStream::connect(address)?;
                let _ = stream.set_nodelay(true);
                let input = OwnedFd::from(stream.try_clone()?);
                (
                    Some(wait(Box::new(stream))),
                    Source::Descriptor(input, None),
                )
            }
            Destination::Tcp { address, wait, .. } => {
                let listener = TcpListener::bind(address)?;
                let peer = Peer::default();
                if let Ok(at) = listener.local_addr() {
                    say!("metaphrase: serial port {n} waits for a connection to {at}");
                }
                if *wait {
                    let (stream, _) = listener.accept()?;
                    let _ = stream.set_nodelay(true);
                    peer.set(Some(stream));
                }
                let output = Output::new(Box::new(peer.clone()), WhenFull::Drop);
                (Some(output), Source::Listener(listener, peer))
            }
        };
        let bell = Bell::new()?;
        Ok(Line {
            output,
            source,
            bell,
        })
    }

    /// What the port is given to send to.
    pub fn sink(&self) -> Box<dyn SerialSink> {
        let bell = self.bell.clone();
        match &self.output {
            Some(to) => Box::new(PortSink {
                to: to.clone(),
                bell,
            }),
            None => Box::new(NoSink),
        }
    }

    /// Starts feeding the port, other than from standard input. Whether there is a source.
    pub fn start(&mut self, port: &Shared<Serial>, control: &Control) -> bool {
        let mut feeder = Feeder::new(port.clone(), self.bell.clone(), control.clone());
        match std::mem::replace(&mut self.source, Source::Nothing) {
            Source::Nothing => return false,
            Source::Stdin => self.source = Source::Stdin,
            Source::Descriptor(fd, kept) => {
                std::thread::spawn(move || {
                    carry(&fd, &mut feeder);
                    drop(kept);
                });
            }
            Source::Listener(listener, peer) => {
                std::thread::spawn(move || {
                    loop {
                        if let Some(stream) = peer.get() {
                            carry(&OwnedFd::from(stream), &mut feeder);
                            peer.set(None);
                        }
                        match listener.accept() {
                            Ok((stream, _)) => {
                                let _ = stream.set_nodelay(true);
                                peer.set(Some(stream));
                            }
                            // Too many descriptors, or a connection that was gone at once.
                            Err(_) => std::thread::sleep(Duration::from_millis(100)),
                        }
                    }
                });
            }
        }
        true
    }
}

/// Carries bytes from a descriptor to a port until the descriptor ends.
fn carry(from: &OwnedFd, feeder: &mut Feeder) {
    let mut open = true;
    while open || feeder.waiting() > 0 {
        let time = feeder.feed();
        let fd = (open && feeder.waiting() < AHEAD).then_some(from.as_fd());
        if !feeder.bell().wait(fd, time) {
            continue;
        }
        let mut buffer = [0; 1024];
        match rustix::io::read(from, &mut buffer) {
            Ok(0) => open = false,
            Ok(n) => buffer[..n].iter().for_each(|byte| feeder.push(*byte)),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => open = false,
        }
    }
}

/// A new pseudo-terminal. Our side of the other end stays open, so that programs may come and go.
fn pty(n: usize) -> std::io::Result<(Option<Output>, Source)> {
    let (master, slave, name) = open_pty()?;
    let slave_modes = rustix::termios::tcgetattr(&slave)?;
    let mut modes = super::terminal::raw(&slave_modes, super::terminal::Keys::Raw);
    modes.output_modes -= rustix::termios::OutputModes::OPOST;
    rustix::termios::tcsetattr(&slave, rustix::termios::OptionalActions::Now, &modes)?;
    say!("metaphrase: serial port {n} is {name}");
    let writer = File::from(master.try_clone()?);
    let output = Output::new(Box::new(writer), WhenFull::Drop);
    Ok((Some(output), Source::Descriptor(master, Some(slave))))
}

/// Both ends of a new pseudo-terminal, and the name of the second.
fn open_pty() -> std::io::Result<(OwnedFd, OwnedFd, String)> {
    use rustix::fd::FromRawFd;
    let (mut master, mut slave) = (-1, -1);
    // SAFETY: the two descriptors are ours to be written; the rest is not wanted.
    let got = unsafe {
        libc::openpty(
            &mut master,
            &mut slave,
            std::ptr::null_mut(),
            std::ptr::null(),
            std::ptr::null(),
        )
    };
    if got != 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the descriptors are new and nobody else's.
    let ends = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    let name = rustix::termios::ttyname(&ends.1, Vec::new())?;
    Ok((ends.0, ends.1, name.to_string_lossy().into_owned()))
}
