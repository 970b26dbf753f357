//! Real guests on a pseudo-terminal, as a user has them: a Debian kernel with a shell on its serial
//! line, and GRUB on the screen. `tests/install-guests` fetches the images.

mod command;
mod guest_kit;
mod pty;

use command::Scratch;
use guest_kit::image;
use metaphrase::guests::cpio::Archive;
use pty::{Session, screen};
use std::process::Command;
use std::time::Duration;

fn system() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metaphrase"));
    command.arg("system");
    command
}

/// An initial RAM disk with busybox, whose first process is a shell on the first serial port.
fn shell() -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "proc", "sys", "tmp"] {
        archive.directory(directory);
    }
    archive.file("bin/busybox", &busybox);
    archive.device("dev/console", 5, 1);
    let init = "#!/bin/busybox sh\n\
        /bin/busybox --install -s /bin\n\
        export PATH=/bin PS1='guest> '\n\
        mount -t devtmpfs dev /dev\n\
        exec setsid -c sh -i < /dev/ttyS0 > /dev/ttyS0 2>&1\n";
    archive.file("init", init.as_bytes());
    archive.finish()
}

#[test]
fn a_shell_on_the_serial_line() {
    let Some(kernel) = image("boot", "vmlinuz-") else {
        return;
    };
    let scratch = Scratch::new();
    let initrd = scratch.file("initrd", &shell());
    let mut command = system();
    command
        .arg("-kernel")
        .arg(kernel)
        .args(["-initrd", &initrd]);
    let line = "console=ttyS0 quiet panic=-1";
    command.args(["-append", line, "-m", "128", "-nographic"]);
    let mut s = Session::start(&mut command);
    s.expect("guest> ");
    assert!(s.modes().is_raw());

    s.send(b"echo $((6 * 7)) answers\r");
    s.expect("42 answers");
    // Ctrl-C is the guest's, and interrupts what runs there.
    s.send(b"sleep 1000\r");
    s.expect("sleep 1000\r");
    std::thread::sleep(Duration::from_millis(500));
    s.send(b"\x03");
    s.send(b"echo status $?\r");
    s.expect("status 130");

    // A paste arrives as it is.
    let text: String = (0..400).map(|n| format!("line {n} of a paste\r")).collect();
    s.send(b"cat > /tmp/paste; sha256sum /tmp/paste\r");
    s.expect("sha256sum /tmp/paste\r");
    for piece in text.as_bytes().chunks(500) {
        s.send(piece);
    }
    s.send(b"\x04");
    let expected = scratch.file("paste", text.replace('\r', "\n").as_bytes());
    let sum = Command::new("sha256sum").arg(expected).output().unwrap();
    s.expect(&String::from_utf8_lossy(&sum.stdout)[..64]);

    // A shell that waits needs no processor.
    std::thread::sleep(Duration::from_millis(500));
    let before = s.cpu_time();
    std::thread::sleep(Duration::from_secs(3));
    let used = s.cpu_time() - before;
    assert!(used < 0.6, "{used} s in 3 s");

    s.send(b"poweroff -f\r");
    assert_eq!(s.end().code(), Some(0));
    assert!(s.is_restored());
}

#[test]
fn typing_at_grub_on_the_screen_in_the_terminal() {
    const SEABIOS: &str = "usr/share/seabios";
    let (Some(bios), Some(_), Some(disc)) = (
        image(SEABIOS, "bios-256k.bin"),
        image(SEABIOS, "vgabios-stdvga.bin"),
        image("usr/lib/grub-rescue", "grub-rescue-cdrom.iso"),
    ) else {
        return;
    };
    let scratch = Scratch::new();
    let picture = scratch.0.join("screen.png");
    let mut command = system();
    command.arg("-bios").arg(bios).arg("-cdrom").arg(disc);
    command.args(["-boot", "d", "-m", "64", "-display", "term"]);
    command.arg("--screenshot").arg(&picture);
    let mut s = Session::start(&mut command);
    let shown = |s: &Session| screen::shown(&s.text(), 80, 25);
    let wait = |s: &mut Session, text: &str| {
        s.wait_until(text, |s| shown(s).iter().any(|row| row.contains(text)));
    };
    wait(&mut s, "GNU GRUB  version");
    assert!(s.modes().is_raw());
    s.send(b"c");
    wait(&mut s, "grub>");
    s.send(b"echo \"$grub_platform-$grub_cpu\" (A_b)!\r");
    wait(&mut s, "pc-i386 (A_b)!");
    // Keys that a terminal sends as several bytes: the last line again, with another end.
    s.send(b"\x1b[A");
    wait(&mut s, "grub> echo");
    s.send(b"\x7f?\r");
    wait(&mut s, "pc-i386 (A_b)?");

    // The monitor takes the place of the screen and gives it back.
    s.send(b"\x01c");
    s.expect("(metaphrase) ");
    s.send(b"info status\r");
    s.expect("running after");
    s.send(b"sendkey shift-x\r\x01c");
    wait(&mut s, "grub> X");

    // Nothing changes, so nothing is written.
    let cursor_rests = |s: &Session| s.text().len();
    let before = cursor_rests(&s);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(cursor_rests(&s), before);

    s.send(b"\x01x");
    assert_eq!(s.end().code(), Some(0));
    assert!(s.is_restored());
    let png = std::fs::read(picture).unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n"));
}
