//! Seeing and typing: what is connected to the serial ports and the screen of a whole system.
//!
//! - `args.rs`: the options, and what they come to. `lines.rs`: files, pseudo-terminals, sockets.
//! - `terminal.rs`: raw mode, and giving the terminal back. `signals.rs`: ending in order.
//! - `stdin.rs`, `escape.rs`, `feeder.rs`: from the keys to a serial port. `output.rs`: from there.
//! - `screen/`: the screen in the terminal. `keys.rs`: the guest's keyboard.
//! - `monitor.rs`, `control.rs`, `registers.rs`: commands, and how they reach the machine.
//!
//! `docs/console.md` tells users about it.

mod args;
mod control;
mod escape;
mod feeder;
mod keys;
mod lines;
mod monitor;
mod output;
mod registers;
mod screen;
mod screenshot;
mod signals;
mod stdin;
mod terminal;
#[cfg(feature = "window")]
mod window;

pub use args::ConsoleArgs;
use args::{DisplayArg, Plan, Surroundings};
use control::Control;
pub use control::Ending;
use escape::Escape;
use feeder::{Bell, Feeder};
use lines::{Line, Source};
use metaphrase_devices::Shared;
use metaphrase_devices::serial::{Serial, SerialSink};
use metaphrase_devices::vga::Vga;
use metaphrase_runtime::machine::Pins;
use metaphrase_runtime::machine::pc::Board;
use metaphrase_runtime::{Machine, MachineStop};
use monitor::{Handles, Monitor};
use output::{Output, WhenFull};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use stdin::Stdin;
use terminal::{Keys, Terminal};

use super::messages::say;
use super::{Failure, exit};

/// How long output may take when the user wants to be gone.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The console of a machine: first it has places for the machine's output, then it runs the machine.
pub struct Console {
    plan: Plan,
    screenshot: Option<PathBuf>,
    /// Standard output.
    stdout: Output,
    lines: Vec<Line>,
    /// The threads shall end.
    ended: Arc<AtomicBool>,
    /// The guest may still get input from so many sources.
    sources: Arc<AtomicUsize>,
    control: Option<Control>,
    /// A network may wake the guest at any time.
    networked: bool,
    vga: Option<Shared<Vga>>,
    display: Option<JoinHandle<()>>,
    terminal: Option<Terminal>,
}

impl Console {
    /// Opens what the arguments name. `boots_on_screen` says that the guest uses its screen from
    /// the start.
    ///
    /// # Errors
    /// If the arguments contradict each other, or something cannot be opened.
    pub fn open(args: &ConsoleArgs, boots_on_screen: bool) -> Result<Console, Failure> {
        let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
        let around = Surroundings {
            boots_on_screen,
            on_terminal: terminal::is_terminal(stdin) && terminal::is_terminal(stdout),
        };
        let plan = args.plan(around).map_err(Failure::usage)?;
        if plan.display == DisplayArg::Term && !around.on_terminal {
            return Err(Failure::usage(
                "-display term needs a terminal as standard input and output",
            ));
        }
        if plan.display == DisplayArg::Window && !cfg!(feature = "window") {
            return Err(Failure::usage(
                "-display window is not built in: build with --features window",
            ));
        }
        let cannot = |what: &str, error: std::io::Error| Failure {
            code: exit::CANNOT_RUN,
            message: format!("{what}: {error}"),
            hint: None,
        };
        let writer = stdout.try_clone_to_owned();
        let writer = writer.map_err(|error| cannot("standard output", error))?;
        let stdout = Output::new(Box::new(File::from(writer)), WhenFull::Wait);
        let open = |n: usize| {
            let what = format!("serial port {}", n + 1);
            Line::new(&plan.serial[n], n + 1, &stdout).map_err(|error| cannot(&what, error))
        };
        let lines = (0..plan.serial.len()).map(open).collect::<Result<_, _>>()?;
        Ok(Console {
            screenshot: args.screenshot.clone(),
            plan,
            stdout,
            lines,
            ended: Arc::default(),
            sources: Arc::default(),
            control: None,
            networked: false,
            vga: None,
            display: None,
            terminal: None,
        })
    }

    /// Where serial port 0 or 1 sends; none if there is no such port.
    pub fn sink(&self, port: usize) -> Option<Box<dyn SerialSink>> {
        self.lines.get(port).map(Line::sink)
    }

    /// The screen is shown somewhere.
    pub fn shows_screen(&self) -> bool {
        self.plan.display != DisplayArg::None
    }

    /// Standard output, for another device.
    pub fn stdout(&self) -> Box<dyn SerialSink> {
        Box::new(self.stdout.clone())
    }

    /// Connects the machine, and takes the terminal.
    ///
    /// # Errors
    /// If the machine has no screen and one is wanted, or the host refuses something.
    pub fn start(
        &mut self,
        machine: &Machine,
        board: &Board,
        pins: Arc<Pins>,
    ) -> Result<(), Failure> {
        let vga = board.vga.clone();
        let wants = self.plan.display != DisplayArg::None || self.screenshot.is_some();
        if wants && vga.is_none() {
            return Err(Failure::usage("the machine has no screen"));
        }
        let waker = machine.waker();
        let control = Control::new(machine.stop_flag(), Arc::new(move || waker.wake()));
        self.control = Some(control.clone());
        self.networked = !board.nics.is_empty();
        self.vga = vga.clone();
        let handles = Handles {
            control: control.clone(),
            board: board.clone(),
            vga: vga.clone(),
            pins,
        };
        let on_terminal = self.plan.display == DisplayArg::Term;
        let plain = !self.plan.monitor && !on_terminal;
        if self.uses_stdin() || on_terminal {
            let keys = if plain { Keys::Signals } else { Keys::Raw };
            self.terminal = Terminal::take(keys, on_terminal);
        }
        let picture = match (&vga, &self.screenshot) {
            (Some(vga), Some(path)) => {
                let (vga, path) = (vga.clone(), path.clone());
                let take: Box<dyn Fn() + Send> = Box::new(move || picture(&vga, &path));
                Some(take)
            }
            _ => None,
        };
        signals::start(control.clone(), self.ended.clone(), picture).map_err(Failure::internal)?;
        let ports = [Some(&board.serial), board.second_serial.as_ref()];
        self.start_serial(&ports, &handles)?;
        match (self.plan.display, vga) {
            (DisplayArg::Term, Some(vga)) => {
                self.sources.fetch_add(1, Ordering::Relaxed);
                let ended = self.ended.clone();
                self.display = Some(screen::Screen::start(handles, vga, ended));
            }
            #[cfg(feature = "window")]
            (DisplayArg::Window, Some(vga)) => {
                self.sources.fetch_add(1, Ordering::Relaxed);
                let ended = self.ended.clone();
                self.display = Some(window::start(handles, vga, ended));
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether standard input is read as bytes.
    fn uses_stdin(&self) -> bool {
        self.plan.monitor || self.plan.serial.iter().any(|to| to.is_stdio())
    }

    fn start_serial(
        &mut self,
        ports: &[Option<&Shared<Serial>>; 2],
        handles: &Handles,
    ) -> Result<(), Failure> {
        let mut typed = None;
        for (line, port) in self.lines.iter_mut().zip(ports) {
            let Some(port) = port else { continue };
            if line.start(port, &handles.control) {
                self.sources.fetch_add(1, Ordering::Relaxed);
            }
            if matches!(line.source, Source::Stdin) {
                let (port, control) = (Shared::clone(port), handles.control.clone());
                typed = Some(Feeder::new(port, line.bell.clone(), control));
            }
        }
        if !self.uses_stdin() {
            return Ok(());
        }
        let bell = match self.stdin_line() {
            Some(line) => line.bell.clone(),
            None => {
                self.sources.fetch_add(1, Ordering::Relaxed);
                Bell::new().map_err(Failure::internal)?
            }
        };
        let stdin = Stdin {
            feeder: typed,
            monitor: self.plan.monitor.then(|| Monitor::new(handles.clone())),
            escape: Escape::new(self.plan.monitor),
            output: self.stdout.clone(),
            control: handles.control.clone(),
            bell,
            ended: self.ended.clone(),
            sources: self.sources.clone(),
        };
        stdin.start();
        Ok(())
    }

    fn stdin_line(&self) -> Option<&Line> {
        let is_stdin = |line: &&Line| matches!(line.source, Source::Stdin);
        self.lines.iter().find(is_stdin)
    }

    /// Runs the machine for so many instructions, until the guest or the user ends it.
    ///
    /// # Errors
    /// If the engine cannot go on.
    pub fn run(
        &self,
        machine: &mut Machine,
        budget: u64,
    ) -> Result<Result<MachineStop, Ending>, Failure> {
        let Some(control) = &self.control else {
            return Err(Failure::internal("the console has not been started"));
        };
        let waits = || self.networked || self.sources.load(Ordering::Relaxed) > 0;
        control
            .run(machine, budget, waits)
            .map_err(Failure::internal)
    }

    /// Takes the last picture, writes what waits to be written, and gives the terminal back.
    pub fn finish(&mut self, ending: Option<Ending>) {
        self.ended.store(true, Ordering::Relaxed);
        for line in &self.lines {
            line.bell.ring_loudly();
        }
        if let (Some(vga), Some(path)) = (&self.vga, &self.screenshot) {
            picture(vga, path);
        }
        if let Some(display) = self.display.take() {
            let _ = display.join();
        }
        let limit = ending.map(|_| LAST_WORDS);
        for line in &self.lines {
            if let Some(output) = &line.output {
                output.finish(limit);
            }
        }
        self.stdout.finish(limit);
        self.terminal = None;
    }

    /// Ends the process as a signal does, if one has ended the run.
    pub fn follow(ending: Ending) {
        if let Ending::Signal(signal) = ending {
            signals::die(signal);
        }
    }
}

/// Takes a picture; a failure is told.
fn picture(vga: &Shared<Vga>, path: &Path) {
    if let Err(error) = screenshot::write(vga, path) {
        say!("metaphrase: {}", error.trim_end());
    }
}
