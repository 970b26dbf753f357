//! The console of a whole system, with the real command on a pseudo-terminal and a small guest
//! that echoes what its serial port receives.

mod command;
mod pty;

use command::Scratch;
use iced_x86::code_asm::*;
use pty::{PATIENCE, Session, signal_of};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

type Emit = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;

/// Where a ROM has its interrupt handler, in segment F000h.
const HANDLER: u32 = 0x400;

/// A ROM of 64 KiB: code at F000:0000, an interrupt handler, and the jump at the reset vector.
fn rom(code: Emit, handler: Emit) -> Vec<u8> {
    let mut rom = Vec::new();
    for (at, emit) in [(0, code), (HANDLER, handler)] {
        let mut a = CodeAssembler::new(16).unwrap();
        emit(&mut a).unwrap();
        rom.resize(at as usize, 0xcc);
        rom.extend(a.assemble(at.into()).unwrap());
    }
    rom.resize(0xfff0, 0xcc);
    rom.extend([0xea, 0x00, 0x00, 0x00, 0xf0]);
    rom.resize(0x1_0000, 0xcc);
    rom
}

fn out(a: &mut CodeAssembler, port: u32, value: u32) -> Result<(), iced_x86::IcedError> {
    a.mov(dx, port)?;
    a.mov(al, value)?;
    a.out(dx, al)
}

/// Sleeps in HLT, and echoes what is received in the handler of the interrupt. `q` ends the run
/// with status 33 through the port for exit codes, `w` counts for a while, says so, and does the
/// same.
fn echo() -> Vec<u8> {
    let code: Emit = |a| {
        let mut idle = a.create_label();
        a.xor(ax, ax)?;
        a.mov(ds, ax)?;
        a.mov(ss, ax)?;
        a.mov(sp, 0x7000)?;
        // Interrupt vector 0Ch.
        a.mov(word_ptr(0x30), HANDLER)?;
        a.mov(word_ptr(0x32), 0xf000u32)?;
        for (port, value) in [(0x20, 0x11), (0x21, 8), (0x21, 4), (0x21, 1), (0x21, 0xef)] {
            out(a, port, value)?;
        }
        // 115,200 bauds, FIFOs, OUT2, and the interrupt of received data.
        for (port, value) in [(3, 0x83), (0, 1), (1, 0), (3, 3), (2, 1), (4, 0xb), (1, 1)] {
            out(a, 0x3f8 + port, value)?;
        }
        a.mov(dx, 0x3f8)?;
        for byte in b"ready\r\n" {
            a.mov(al, u32::from(*byte))?;
            a.out(dx, al)?;
        }
        a.set_label(&mut idle)?;
        a.sti()?;
        a.hlt()?;
        a.jmp(idle)
    };
    let handler: Emit = |a| {
        let (mut next, mut done, mut quit) = (a.create_label(), a.create_label(), a.create_label());
        let (mut work, mut count) = (a.create_label(), a.create_label());
        a.set_label(&mut next)?;
        a.mov(dx, 0x3fd)?;
        a.in_(al, dx)?;
        a.test(al, 1)?;
        a.jz(done)?;
        a.mov(dx, 0x3f8)?;
        a.in_(al, dx)?;
        a.out(dx, al)?;
        a.cmp(al, i32::from(b'q'))?;
        a.je(quit)?;
        a.cmp(al, i32::from(b'w'))?;
        a.je(work)?;
        a.jmp(next)?;
        a.set_label(&mut done)?;
        out(a, 0x20, 0x20)?;
        a.iret()?;

        a.set_label(&mut work)?;
        a.mov(ecx, 30_000_000)?;
        a.set_label(&mut count)?;
        a.dec(ecx)?;
        a.jnz(count)?;
        a.mov(dx, 0x3f8)?;
        for byte in b"done\r\n" {
            a.mov(al, u32::from(*byte))?;
            a.out(dx, al)?;
        }
        a.set_label(&mut quit)?;
        out(a, 0x501, 16)
    };
    rom(code, handler)
}

/// The guest in a file.
fn guest() -> (Scratch, String) {
    let scratch = Scratch::new();
    let path = scratch.file("echo.rom", &echo());
    (scratch, path)
}

fn system(rom: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metaphrase"));
    command.args(["system", "-bios", rom, "--debug-exit", "-m", "16"]);
    command.args(more);
    command
}

/// The guest on a terminal, ready.
fn session(rom: &str, more: &[&str]) -> Session {
    let mut session = Session::start(&mut system(rom, more));
    session.expect("ready");
    session
}

#[test]
fn what_is_typed_reaches_the_guest_and_ctrl_a_x_quits() {
    let (_scratch, rom) = guest();
    for options in [
        &["-nographic"][..],
        &["-display", "none"],
        &["-serial", "mon:stdio"],
    ] {
        let mut s = session(&rom, options);
        assert!(s.modes().is_raw());
        // Ctrl-C and Ctrl-Z are the guest's.
        s.send(b"he\x03\x1allo");
        s.expect("he\x03\x1allo");
        s.send(b"\x01\x01");
        s.expect("llo\x01");
        s.send(b"\x01h");
        s.expect("Ctrl-A x");
        s.send(b"\x01x");
        assert_eq!(s.end().code(), Some(0));
        assert!(s.is_restored());
    }
}

#[test]
fn the_guests_own_end_restores_the_terminal() {
    let (_scratch, rom) = guest();
    let mut s = session(&rom, &["-nographic"]);
    s.send(b"abcq");
    assert_eq!(s.end().code(), Some(33));
    assert!(s.is_restored());
    s.expect("abcq");
}

#[test]
fn signals_end_the_run_and_restore_the_terminal() {
    let (_scratch, rom) = guest();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        let mut s = session(&rom, &["-nographic"]);
        assert!(s.modes().is_raw());
        s.signal(signal);
        assert_eq!(signal_of(s.end()), Some(signal));
        assert!(s.is_restored(), "signal {signal}");
    }
}

#[test]
fn plain_stdio_leaves_the_keys_that_send_signals() {
    let (_scratch, rom) = guest();
    let mut s = session(&rom, &["-serial", "stdio"]);
    s.send(b"\x01x");
    s.expect("\x01x");
    s.send(b"\x03");
    assert_eq!(signal_of(s.end()), Some(libc::SIGINT));
    assert!(s.is_restored());
}

#[test]
fn a_stopped_run_gives_the_terminal_back_and_takes_it_again() {
    let (_scratch, rom) = guest();
    let mut s = session(&rom, &["-nographic"]);
    s.signal(libc::SIGTSTP);
    s.stopped();
    assert!(s.is_restored());
    s.signal(libc::SIGCONT);
    s.wait_until("raw again", |s| s.modes().is_raw());
    s.send(b"again");
    s.expect("again");
    s.send(b"q");
    assert_eq!(s.end().code(), Some(33));
    assert!(s.is_restored());
}

#[test]
fn nothing_of_a_paste_is_lost() {
    let (_scratch, rom) = guest();
    let mut s = session(&rom, &["-nographic"]);
    let text: String = (0..2000).map(|n| format!("line {n} ")).collect();
    for piece in text.as_bytes().chunks(1000) {
        s.send(piece);
    }
    s.expect("line 1999 ");
    let shown = s.text();
    let start = shown.find("line 0 ").unwrap();
    assert_eq!(&shown[start..], text);
    s.send(b"\x01x");
    s.end();
}

#[test]
fn the_monitor_looks_at_the_machine_and_stops_it() {
    let (_scratch, rom) = guest();
    let mut s = session(&rom, &["-nographic"]);
    s.send(b"\x01c");
    s.expect("(metaphrase) ");
    s.send(b"info registers\r");
    s.expect("RIP=");
    s.expect("Halted");
    s.send(b"stop\rinfo status\r");
    s.expect("stopped after");
    s.send(b"\x01cxyz");
    std::thread::sleep(Duration::from_millis(200));
    assert!(!s.text().contains("xyz"), "a stopped guest does not echo");
    s.send(b"\x01c");
    s.send(b"cont\r");
    s.expect("xyz");
    s.send(b"nosuch\rsendkey ctrl-nosuch\rscreendump\rhelp\r");
    s.expect("nosuch: help lists the commands");
    s.expect("there is no key \"nosuch\"");
    s.expect("system_powerdown");
    s.send(b"quit\r");
    assert_eq!(s.end().code(), Some(0));
    assert!(s.is_restored());
}

#[test]
fn a_reset_from_the_monitor_starts_the_guest_again() {
    let (_scratch, rom) = guest();
    let mut s = session(&rom, &["-nographic"]);
    s.send(b"\x01csystem_reset\r");
    s.wait_until("ready again", |s| s.text().matches("ready").count() == 2);
    s.send(b"\x01cok");
    s.expect("ok");
    s.send(b"\x01x");
    s.end();
}

#[test]
fn an_idle_guest_uses_next_to_no_processor_time() {
    let (_scratch, rom) = guest();
    let mut s = session(&rom, &["-nographic"]);
    let before = s.cpu_time();
    std::thread::sleep(Duration::from_secs(2));
    let used = s.cpu_time() - before;
    assert!(used < 0.2, "{used} s in 2 s");
    s.send(b"q");
    s.end();
}

/// Runs with pipes; what was printed, and the status.
fn piped(mut command: Command, input: &[u8]) -> (String, Option<i32>) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input).unwrap();
    drop(stdin);
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    (text, child.wait().unwrap().code())
}

#[test]
fn input_may_be_a_pipe_and_its_end_does_not_end_the_guest() {
    let (_scratch, rom) = guest();
    let (text, status) = piped(system(&rom, &["-nographic"]), b"hello w");
    assert_eq!(text, "ready\r\nhello wdone\r\n");
    assert_eq!(status, Some(33));
}

#[test]
fn keys_of_ours_in_a_pipe_count_in_their_place() {
    let (_scratch, rom) = guest();
    let mut input = vec![b'a'; 3000];
    input.extend(b"\x01x");
    let (text, status) = piped(system(&rom, &["-nographic"]), &input);
    // With that of "ready"; the last one has been read, but its echo may be cut off.
    let count = text.matches('a').count() - 1;
    assert!((2999..=3000).contains(&count), "{count}");
    assert_eq!(status, Some(0));
}

#[test]
fn a_guest_whose_reader_is_gone_goes_on() {
    let (_scratch, rom) = guest();
    let mut command = system(&rom, &["-nographic"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"abc").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    stdin.write_all(b"q").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(33));
}

#[test]
fn a_serial_port_may_be_a_file_a_terminal_of_its_own_or_a_connection() {
    let (scratch, rom) = guest();
    let file = scratch.file("serial", b"");
    let to = format!("file:{file}");
    let mut s = Session::start(&mut system(&rom, &["-serial", &to]));
    let read = || std::fs::read_to_string(&file).unwrap();
    s.wait_until("the file", |_| read().contains("ready"));
    s.signal(libc::SIGTERM);
    s.end();

    let mut s = Session::start(&mut system(&rom, &["-serial", "pty"]));
    s.expect("serial port 1 is /dev/pts/");
    let text = s.text();
    let name = text.split("serial port 1 is ").nth(1).unwrap();
    let name = name.lines().next().unwrap().trim().to_string();
    let mut pty = std::fs::File::options()
        .read(true)
        .write(true)
        .open(name)
        .unwrap();
    converse(&mut pty);
    assert_eq!(s.end().code(), Some(33));

    let mut s = Session::start(&mut system(&rom, &["-serial", "tcp:127.0.0.1:0,server"]));
    s.expect("waits for a connection to 127.0.0.1:");
    let text = s.text();
    let port = text.split("127.0.0.1:").nth(1).unwrap();
    let port: u16 = port.lines().next().unwrap().trim().parse().unwrap();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    converse(&mut stream);
    assert_eq!(s.end().code(), Some(33));
}

/// Reads the greeting, and types something that comes back.
fn converse(with: &mut (impl Read + Write)) {
    let mut text = String::new();
    let start = Instant::now();
    let mut typed = false;
    while !text.contains("hello") {
        assert!(start.elapsed() < PATIENCE, "{text}");
        let mut buffer = [0; 100];
        let n = with.read(&mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        if text.contains("ready") && !typed {
            typed = true;
            with.write_all(b"hello").unwrap();
        }
    }
    with.write_all(b"q").unwrap();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (_scratch, rom) = guest();
    for (options, says) in [
        (&["-serial", "nosuch"][..], "mon:stdio"),
        (
            &["-serial", "stdio", "-serial", "stdio"],
            "want the terminal",
        ),
        (&["-serial", "file:/nonexistent/x"], "serial port 1"),
        (&["-display", "term"], "terminal"),
    ] {
        let output = system(&rom, options).stdin(Stdio::null()).output().unwrap();
        let text = command::stderr(&output);
        assert!(text.contains(says), "{options:?}: {text}");
        assert!(!output.status.success());
    }
}
