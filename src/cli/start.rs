//! What `metaphrase` without arguments prints.

const PAGE: &str = "\
metaphrase translates x86 code while it runs: Linux programs, and whole systems on a PC made of
software. Hot code is compiled for this machine's processor, the rest is interpreted.

Try
  metaphrase boot linux         a Debian kernel to a shell (fetched by apt; exit switches it off)
  metaphrase user /bin/ls -l    a program of this system
  metaphrase demo               the engines compared, with nothing to fetch

More
  metaphrase guest list         other systems to boot
  metaphrase --help             all commands
  metaphrase system --help      every option of a machine
";

/// Prints the page.
pub fn print() {
    use std::io::Write;
    // A closed pipe is nobody who reads.
    let _ = std::io::stdout().write_all(PAGE.as_bytes());
}
