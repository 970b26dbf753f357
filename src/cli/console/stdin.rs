//! Standard input: keys of ours, and bytes for the guest or for the monitor.

use super::control::{Control, Ending};
use super::escape::{Escape, HELP, PREFIX, Typed};
use super::feeder::{Bell, Feeder};
use super::monitor::Monitor;
use super::output::Output;
use super::terminal;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes of a terminal that may wait for the guest: those after them, and so the keys of ours among
/// them, are read later.
const TERMINAL_LIMIT: usize = 1 << 20;
/// How often a guest is looked at that has not read everything yet.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How often the terminal is looked at while it is not ours.
const NOT_OURS: Duration = Duration::from_millis(200);

/// The thread that reads standard input.
pub struct Stdin {
    /// The serial port, unless the monitor is alone.
    pub feeder: Option<Feeder>,
    /// The monitor, unless the serial port is alone.
    pub monitor: Option<Monitor>,
    /// Finds the keys.
    pub escape: Escape,
    /// Where what the monitor says goes.
    pub output: Output,
    /// The run.
    pub control: Control,
    /// Rung at the end.
    pub bell: Arc<Bell>,
    /// The end has come.
    pub ended: Arc<AtomicBool>,
    /// Sources of input that the guest may still get something from.
    pub sources: Arc<AtomicUsize>,
}

impl Stdin {
    /// Starts the thread.
    pub fn start(self) {
        std::thread::spawn(move || self.run());
    }

    fn run(mut self) {
        let stdin = rustix::stdio::stdin();
        // From a terminal, keys of ours count at once; from elsewhere, when the guest has taken
        // what stands before them.
        let in_turn = !terminal::is_terminal(stdin);
        let limit = if in_turn { 0 } else { TERMINAL_LIMIT };
        let mut read: VecDeque<u8> = VecDeque::new();
        let mut open = true;
        let mut at_monitor = self.feeder.is_none();
        if at_monitor && let Some(monitor) = &self.monitor {
            self.output.push(monitor.greeting().as_bytes());
        }
        while !self.ended.load(Ordering::Relaxed) {
            let again = loop {
                let again = self.feeder.as_mut().and_then(Feeder::feed);
                match &self.feeder {
                    Some(feeder) if feeder.waiting() > limit => break again,
                    // A key of ours may come next.
                    Some(feeder)
                        if in_turn && read.front() == Some(&PREFIX) && !feeder.is_done() =>
                    {
                        break Some(LOOK_AGAIN);
                    }
                    _ => {}
                }
                let Some(byte) = read.pop_front() else {
                    break again;
                };
                self.take(byte, &mut at_monitor);
            };
            if !open && read.is_empty() && again.is_none() {
                break;
            }
            let ours = terminal::may_read();
            let readable = open && ours && read.is_empty();
            let time = match again {
                None if !ours => Some(NOT_OURS),
                again => again,
            };
            if !self.bell.wait(readable.then_some(stdin), time)
                || self.ended.load(Ordering::Relaxed)
            {
                continue;
            }
            let mut buffer = [0; 4096];
            match rustix::io::read(stdin, &mut buffer) {
                Ok(0) => open = false,
                Ok(n) => read.extend(&buffer[..n]),
                Err(error) => match error {
                    rustix::io::Errno::INTR | rustix::io::Errno::AGAIN => {}
                    _ => open = false,
                },
            }
        }
        self.sources.fetch_sub(1, Ordering::Relaxed);
        self.control.touch();
    }

    fn take(&mut self, byte: u8, at_monitor: &mut bool) {
        match self.escape.feed(byte) {
            None => {}
            Some(Typed::Byte(byte)) => match (&mut self.monitor, &mut self.feeder) {
                (Some(monitor), _) if *at_monitor => {
                    self.output.push(monitor.feed(byte).as_bytes());
                }
                (_, Some(feeder)) => feeder.push(byte),
                _ => {}
            },
            Some(Typed::Break) => {
                if let Some(feeder) = &mut self.feeder {
                    feeder.push_break();
                }
            }
            Some(Typed::Quit) => {
                self.output.close();
                self.control.end(Ending::Quit);
            }
            Some(Typed::Switch) => {
                if let (Some(monitor), Some(_)) = (&self.monitor, &self.feeder) {
                    *at_monitor = !*at_monitor;
                    let text = match *at_monitor {
                        true => monitor.greeting(),
                        false => "\n".into(),
                    };
                    self.output.push(text.as_bytes());
                }
            }
            Some(Typed::Help) => self.output.push(format!("\n{HELP}").as_bytes()),
        }
    }
}
