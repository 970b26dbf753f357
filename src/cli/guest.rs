//! `guest` and `boot`: whole systems by name.

use super::args::{Cli, Command, DemoArgs};
use super::messages::say;
use super::{Failure, demo, exit, system, words};
use crate::guests::catalogue::{ALL, Guest};
use crate::guests::{self, Cache, Check, Damage, Error, Progress, State};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

/// The commands of `guest`.
#[derive(Debug, Subcommand)]
pub enum GuestCommand {
    /// Show the guests, and which are at hand.
    List,
    /// Fetch guests by apt, or check those that are at hand.
    Fetch {
        /// Their names.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Print the directory with a guest's files.
    Path {
        /// Its name.
        name: String,
    },
}

/// Arguments of `boot`.
#[derive(Debug, Args)]
pub struct BootArgs {
    /// The guest, as `guest list` names it.
    pub name: String,
    /// Further options of `system`, which override the guest's.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTION"
    )]
    pub options: Vec<OsString>,
}

/// Runs a command of `guest`.
pub fn run(command: GuestCommand) -> Result<i32, Failure> {
    let cache = cache()?;
    match command {
        GuestCommand::List => list(&cache),
        GuestCommand::Fetch { names } => {
            // A wrong name is found before anything is fetched.
            let wanted: Result<Vec<_>, _> = names.iter().map(|name| named(name)).collect();
            for guest in wanted? {
                let directory = fetch(&cache, guest, Check::Contents).map_err(unavailable)?;
                print(&directory.display().to_string());
            }
        }
        GuestCommand::Path { name } => {
            let guest = named(&name)?;
            if cache.state(guest, Check::Sizes) != State::Ready {
                return Err(Failure {
                    code: exit::UNAVAILABLE,
                    message: format!("the guest {name} is not at hand"),
                    hint: Some(format!("metaphrase guest fetch {name}")),
                });
            }
            print(&cache.directory(guest).display().to_string());
        }
    }
    Ok(exit::OK)
}

/// Runs `boot`.
pub fn boot(args: BootArgs) -> Result<i32, Failure> {
    let guest = named(&args.name)?;
    let directory = match fetch(&cache()?, guest, Check::Sizes) {
        Ok(directory) => directory,
        Err(error @ Error::NoApt) if guest.name == "linux" => {
            say!("metaphrase: {error}; {}", error.hint().unwrap_or_default());
            say!("metaphrase: here is the embedded demo instead");
            return demo::run(DemoArgs {
                scale: 1.0,
                repeats: 1,
                json: false,
                elf: None,
            });
        }
        Err(error) => return Err(unavailable(error)),
    };
    let mut line: Vec<OsString> = vec!["metaphrase".into(), "system".into()];
    line.extend(guest.options(&directory, terminal_size()));
    line.extend(args.options);
    let quoted: Vec<String> = line.iter().map(|word| quote(word)).collect();
    say!("{}", quoted.join(" "));
    let cli = Cli::try_parse_from(words::with_long_names(line));
    match cli.map(|cli| cli.command) {
        Ok(Some(Command::System(args))) => system::run(*args),
        Ok(_) => Err(Failure::usage("these are no options of metaphrase system")),
        Err(error) => Err(Failure::usage(super::one_line(&error))),
    }
}

/// The columns and rows of the terminal, if the guest will be on one that tells them.
fn terminal_size() -> Option<(u16, u16)> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return None;
    }
    let size = crossterm::terminal::size().ok();
    size.filter(|&(columns, rows)| columns > 0 && rows > 0)
}

/// The guest of that name, or a failure that tells the names.
fn named(name: &str) -> Result<&'static Guest, Failure> {
    Guest::named(name).ok_or_else(|| Failure {
        code: exit::USAGE,
        message: format!("there is no guest {name}"),
        hint: Some("metaphrase guest list shows the guests".into()),
    })
}

/// The user's cache directory.
fn cache() -> Result<Cache, Failure> {
    let absolute = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    match base {
        Some(base) => Ok(Cache::new(base.join("metaphrase"))),
        None => Err(Failure {
            code: exit::UNAVAILABLE,
            message: "there is no cache directory: neither XDG_CACHE_HOME nor HOME is set".into(),
            hint: None,
        }),
    }
}

fn unavailable(error: Error) -> Failure {
    Failure {
        code: exit::UNAVAILABLE,
        message: error.to_string(),
        hint: error.hint().map(String::from),
    }
}

/// A line of what was asked for.
fn print(line: &str) {
    // A closed pipe is nobody who reads.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn list(cache: &Cache) {
    let width = ALL.iter().map(|guest| guest.name.len()).max().unwrap_or(0);
    for guest in ALL {
        let state = match cache.state(guest, Check::Sizes) {
            State::Missing => "",
            State::Ready => " (at hand)",
            State::Outdated => " (to be made again)",
            State::Damaged(_) => " (damaged)",
        };
        print(&format!("{:width$}  {}{state}", guest.name, guest.about));
    }
}

/// Fetches a guest and shows how that goes.
fn fetch(cache: &Cache, guest: &Guest, check: Check) -> Result<PathBuf, Error> {
    if let State::Damaged(damage) = cache.state(guest, check) {
        let what = match damage {
            Damage::Manifest => "its list of files".into(),
            Damage::File(name) => name,
        };
        say!(
            "metaphrase: {} is damaged ({what}): it is made again",
            guest.name
        );
    }
    let shown = Shown::default();
    let result = guests::fetch(cache, guest, check, &shown);
    shown.end();
    result
}

/// Progress on standard error: a bar on a terminal, else a line for each step.
#[derive(Default)]
struct Shown(RefCell<Option<ProgressBar>>);

impl Shown {
    fn end(&self) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Shown {
    fn step(&self, what: &str) {
        if !std::io::stderr().is_terminal() {
            say!("metaphrase: {what}");
            return;
        }
        self.end();
        let bar = ProgressBar::new_spinner();
        bar.set_message(what.to_string());
        bar.enable_steady_tick(Duration::from_millis(100));
        *self.0.borrow_mut() = Some(bar);
    }

    fn bytes(&self, done: u64, total: u64) {
        let bar = self.0.borrow();
        let Some(bar) = bar.as_ref() else {
            return;
        };
        if bar.length() != Some(total) {
            let form = "{spinner} {msg} [{bar:30}] {bytes}/{total_bytes}";
            if let Ok(style) = ProgressStyle::with_template(form) {
                bar.set_style(style);
            }
            bar.set_length(total);
        }
        bar.set_position(done);
    }
}

/// A word as a shell wants it.
fn quote(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./=,:+@%".contains(&b);
    match !text.is_empty() && text.bytes().all(plain) {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn each_guests_options_are_those_of_system() {
        for guest in ALL {
            let mut line: Vec<OsString> = vec!["metaphrase".into(), "system".into()];
            line.extend(guest.options(Path::new("/there"), Some((80, 25))));
            // Given again, each is overridden and not refused.
            line.extend(["-m", "64", "--engine", "interp"].map(OsString::from));
            let cli = Cli::try_parse_from(words::with_long_names(line));
            let args = match cli.map(|cli| cli.command) {
                Ok(Some(Command::System(args))) => args,
                other => panic!("{}: {other:?}", guest.name),
            };
            assert_eq!(args.memory, 64, "{}", guest.name);
        }
    }

    #[test]
    fn a_shell_on_the_serial_line_hears_of_the_size_of_the_terminal() {
        let guest = Guest::named("linux").expect("it is in the table");
        let line = |size| {
            let options = guest.options(Path::new("/there"), size);
            options[options.len() - 1].to_string_lossy().into_owned()
        };
        assert_eq!(line(None), "console=ttyS0 quiet panic=-1");
        assert_eq!(
            line(Some((132, 43))),
            "console=ttyS0 quiet panic=-1 COLUMNS=132 LINES=43"
        );
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quote(OsStr::new("a/b-c=d")), "a/b-c=d");
        assert_eq!(quote(OsStr::new("a b")), "'a b'");
        assert_eq!(quote(OsStr::new("it's")), "'it'\\''s'");
        assert_eq!(quote(OsStr::new("")), "''");
    }
}
