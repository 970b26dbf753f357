//! What is connected to the guest's serial ports and screen.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Serial ports, screen and monitor.
#[derive(Debug, Args)]
#[command(next_help_heading = "Console")]
pub struct ConsoleArgs {
    /// What a serial port is connected to, the first, then the second (`-serial`): `stdio`,
    /// `mon:stdio` (with the keys of Ctrl-A and the monitor), `file:NAME`, `pty`,
    /// `tcp:HOST:PORT[,server[,nowait]]`, `null` or `none`.
    #[arg(long, value_name = "TO", value_parser = Destination::parse)]
    pub serial: Vec<Destination>,
    /// Where the screen is shown (`-display`).
    #[arg(long, value_enum)]
    pub display: Option<DisplayArg>,
    /// No screen; the first serial port and the monitor are on the terminal (`-nographic`).
    #[arg(long, overrides_with = "display")]
    pub nographic: bool,
    /// Where the monitor is, besides `mon:stdio`: `stdio` or `none` (`-monitor`).
    #[arg(long, value_enum, value_name = "TO")]
    pub monitor: Option<MonitorArg>,
    /// Write a picture of the screen to this PNG file at the end, and at every SIGUSR1.
    #[arg(long, value_name = "FILE")]
    pub screenshot: Option<PathBuf>,
}

/// Where the screen is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum DisplayArg {
    /// Nowhere.
    None,
    /// In the terminal, whose keys are then the guest's keyboard.
    #[value(alias = "curses")]
    Term,
    /// In a window (if built with the feature `window`).
    #[value(aliases = ["gtk", "sdl"])]
    Window,
}

/// Where the monitor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum MonitorArg {
    /// Nowhere.
    None,
    /// On the terminal.
    Stdio,
}

/// What a serial port is connected to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// Nothing: what it sends is lost.
    Null,
    /// Standard input and output; perhaps with the monitor.
    Stdio {
        /// Ctrl-A is ours, and all other keys are the guest's.
        monitor: bool,
    },
    /// A file, which is written.
    File(PathBuf),
    /// A new pseudo-terminal.
    Pty,
    /// A TCP connection.
    Tcp {
        /// Host and port.
        address: String,
        /// We listen there.
        server: bool,
        /// The guest does not start before somebody has connected.
        wait: bool,
    },
}

impl Destination {
    /// Whether it is standard input and output.
    pub fn is_stdio(&self) -> bool {
        matches!(self, Destination::Stdio { .. })
    }

    fn parse(text: &str) -> Result<Destination, String> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match (kind, rest) {
            ("none" | "null", "") => Ok(Destination::Null),
            ("stdio", "") => Ok(Destination::Stdio { monitor: false }),
            ("mon", "stdio") => Ok(Destination::Stdio { monitor: true }),
            ("file", name) if !name.is_empty() => Ok(Destination::File(name.into())),
            ("pty", "") => Ok(Destination::Pty),
            ("tcp", rest) => Destination::parse_tcp(rest),
            _ => Err(
                "possible are stdio, mon:stdio, file:NAME, pty, tcp:HOST:PORT[,server[,nowait]], \
                 null, none"
                    .into(),
            ),
        }
    }

    fn parse_tcp(text: &str) -> Result<Destination, String> {
        let mut words = text.split(',');
        let address = words.next().unwrap_or_default();
        let port = address.rsplit_once(':').map(|(_, port)| port);
        if port.is_none_or(|port| port.parse::<u16>().is_err()) {
            return Err("tcp: is followed by a host and a port, such as tcp:127.0.0.1:4555".into());
        }
        // Without a host it is this one.
        let address = match address.strip_prefix(':') {
            Some(port) => format!("127.0.0.1:{port}"),
            None => address.to_string(),
        };
        let (mut server, mut wait) = (false, true);
        for word in words {
            match word {
                "server" | "server=on" => server = true,
                "server=off" => server = false,
                "wait" | "wait=on" => wait = true,
                "nowait" | "wait=off" => wait = false,
                _ => return Err(format!("{word} is unknown: server and nowait are possible")),
            }
        }
        Ok(Destination::Tcp {
            address,
            server,
            wait,
        })
    }
}

/// What the command line and the terminal come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The serial ports, one or two.
    pub serial: Vec<Destination>,
    /// Where the screen is.
    pub display: DisplayArg,
    /// The monitor is on standard input and output.
    pub monitor: bool,
}

/// What a machine is started with, as far as it decides what is shown where.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// The machine has a screen and firmware that uses it.
    pub boots_on_screen: bool,
    /// Standard input and output are terminals.
    pub on_terminal: bool,
}

impl ConsoleArgs {
    /// What is connected to what.
    ///
    /// # Errors
    /// If two things want the terminal.
    pub fn plan(&self, around: Surroundings) -> Result<Plan, String> {
        let display = match self.display {
            Some(display) => display,
            None if self.nographic || !self.serial.is_empty() || self.monitor.is_some() => {
                DisplayArg::None
            }
            None if around.boots_on_screen && around.on_terminal => DisplayArg::Term,
            None => DisplayArg::None,
        };
        let terminal_free = display != DisplayArg::Term && self.monitor != Some(MonitorArg::Stdio);
        let mut serial = self.serial.iter().cloned();
        let first = serial.next().unwrap_or(if terminal_free {
            let monitor = self.monitor != Some(MonitorArg::None);
            Destination::Stdio { monitor }
        } else {
            Destination::Null
        });
        let serial: Vec<Destination> = std::iter::once(first).chain(serial).collect();
        if serial.len() > 2 {
            return Err("there are two serial ports".into());
        }
        let mux = serial.contains(&Destination::Stdio { monitor: true });
        let users = serial.iter().filter(|to| to.is_stdio()).count()
            + usize::from(display == DisplayArg::Term)
            + usize::from(self.monitor == Some(MonitorArg::Stdio));
        if users > 1 {
            return Err(
                "two of serial port, monitor and screen want the terminal: only \
                        mon:stdio shares it, between a serial port and the monitor"
                    .into(),
            );
        }
        Ok(Plan {
            serial,
            display,
            monitor: mux || self.monitor == Some(MonitorArg::Stdio),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        console: ConsoleArgs,
    }

    fn plan(line: &str, screen: bool, terminal: bool) -> Result<Plan, String> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|e| e.to_string())?;
        line.console.plan(Surroundings {
            boots_on_screen: screen,
            on_terminal: terminal,
        })
    }

    const MUX: Destination = Destination::Stdio { monitor: true };
    const PLAIN: Destination = Destination::Stdio { monitor: false };

    #[test]
    fn what_is_where() {
        let null = Destination::Null;
        let file = Destination::File("f".into());
        for (line, screen, terminal, serial, display, monitor) in [
            ("", false, true, vec![MUX], DisplayArg::None, true),
            ("", true, false, vec![MUX], DisplayArg::None, true),
            ("", true, true, vec![null.clone()], DisplayArg::Term, false),
            ("--nographic", true, true, vec![MUX], DisplayArg::None, true),
            (
                "--display term --nographic",
                false,
                true,
                vec![MUX],
                DisplayArg::None,
                true,
            ),
            (
                "--serial stdio",
                true,
                true,
                vec![PLAIN],
                DisplayArg::None,
                false,
            ),
            (
                "--serial file:f --serial mon:stdio",
                false,
                true,
                vec![file.clone(), MUX],
                DisplayArg::None,
                true,
            ),
            (
                "--monitor stdio",
                true,
                true,
                vec![null],
                DisplayArg::None,
                true,
            ),
            (
                "--monitor none",
                false,
                true,
                vec![PLAIN],
                DisplayArg::None,
                false,
            ),
            (
                "--display term --serial file:f",
                true,
                true,
                vec![file],
                DisplayArg::Term,
                false,
            ),
            (
                "--display window",
                true,
                true,
                vec![MUX],
                DisplayArg::Window,
                true,
            ),
        ] {
            let got = plan(line, screen, terminal).unwrap();
            let expected = Plan {
                serial,
                display,
                monitor,
            };
            assert_eq!(got, expected, "{line}");
        }
    }

    #[test]
    fn one_terminal_is_for_one() {
        for line in [
            "--serial stdio --serial mon:stdio",
            "--serial stdio --monitor stdio",
            "--display term --serial stdio",
            "--display term --monitor stdio",
            "--serial null --serial null --serial null",
            "--serial nosuch",
            "--serial file:",
            "--serial tcp:4555",
            "--serial tcp:a:b",
            "--serial tcp:a:1,nosuch",
        ] {
            assert!(plan(line, true, true).is_err(), "{line}");
        }
    }

    #[test]
    fn connections() {
        let tcp = |address: &str, server, wait| Destination::Tcp {
            address: address.into(),
            server,
            wait,
        };
        for (text, expected) in [
            ("tcp:localhost:1", tcp("localhost:1", false, true)),
            ("tcp::1,server", tcp("127.0.0.1:1", true, true)),
            ("tcp:[::1]:1,server,nowait", tcp("[::1]:1", true, false)),
            ("tcp:h:1,server=on,wait=off", tcp("h:1", true, false)),
        ] {
            assert_eq!(Destination::parse(text), Ok(expected));
        }
    }
}
