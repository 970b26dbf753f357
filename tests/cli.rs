//! The command line as a user meets it: refusals in one line, exit codes, the guest's end as ours.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod command;

use command::*;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use metaphrase::guest::DATA;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

/// The command line fails with that code, one line that says all of `words`, and perhaps a hint.
#[track_caller]
fn refused(args: &[&str], code: i32, words: &[&str]) {
    let out = metaphrase(args);
    let text = stderr(&out);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(out.status.code(), Some(code), "{args:?}: {text}");
    let hint = lines.get(1).is_none_or(|l| l.starts_with("  hint: "));
    assert!(
        (1..=2).contains(&lines.len()) && lines[0].starts_with("metaphrase: ") && hint,
        "{args:?}: {text}"
    );
    for word in words {
        assert!(text.contains(word), "{args:?} does not say {word}: {text}");
    }
    assert!(out.stdout.is_empty(), "{args:?}");
}

#[test]
fn programs_that_cannot_run_are_refused_in_one_line() {
    let scratch = Scratch::new();
    let good = program(|a| exit(a, 0));
    let mut arm = good.clone();
    (arm[18], arm[19]) = (183, 0); // EM_AARCH64
    let mut big_endian = good.clone();
    big_endian[5] = 2;
    let mut core = good.clone();
    core[16] = 4; // ET_CORE
    // The code segment's file size runs past the end of the file.
    let mut long_segment = good.clone();
    long_segment[64 + 32 + 3] = 0x10;
    for (name, contents, word) in [
        ("half-header", &good[..40], "truncated"),
        ("no-program-headers", &good[..64], "truncated"),
        ("half-segments", &good[..0x1003], "truncated"),
        ("long-segment", &long_segment, ""),
        ("arm", &arm, "AArch64"),
        ("big-endian", &big_endian, ""),
        ("core", &core, ""),
        ("empty", &[], "not an ELF"),
        ("text", b"Dear reader,\n", "not an ELF"),
        ("magic-only", b"\x7fELF", ""),
    ] {
        let path = scratch.file(name, contents);
        for command in ["user", "verify"] {
            refused(&[command, &path], 126, &[&path, word]);
        }
    }
    let dir = scratch.0.to_str().unwrap();
    refused(&["user", dir], 126, &[dir, "directory"]);
    let missing = format!("{dir}/missing");
    refused(&["user", &missing], 127, &[&missing, "No such file"]);
    refused(&["verify", &missing], 127, &[&missing, "No such file"]);
    refused(&["dump", &missing], 127, &[&missing, "No such file"]);
    // A file in the way of a directory: neither there nor missing.
    let text = scratch.file("text", b"x");
    refused(&["user", &format!("{text}/x")], 126, &["Not a directory"]);
    // Interpreters that are missing, and that go round in circles.
    let script = scratch.file("script", b"#!/no/such/interpreter\n");
    refused(&["user", &script], 127, &["/no/such/interpreter"]);
    let circle = scratch.0.join("circle").to_str().unwrap().to_string();
    scratch.file("circle", format!("#!{circle}\n").as_bytes());
    refused(&["user", &circle], 126, &["too many levels"]);
}

#[test]
fn files_that_cannot_be_read_are_refused() {
    let scratch = Scratch::new();
    // To root, a file without any rights is readable all the same; so these are files that nobody
    // can run: a FIFO (opening it would wait for a writer), a device without end, memory that
    // cannot be read at 0.
    let fifo = scratch.0.join("fifo").to_str().unwrap().to_string();
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    for path in [&*fifo, "/dev/zero"] {
        for command in ["user", "verify", "dump"] {
            refused(&[command, path], 126, &[path, "not a regular file"]);
        }
    }
    for command in ["user", "dump"] {
        refused(&[command, "/proc/self/mem"], 126, &["/proc/self/mem"]);
    }
    // Anyone else but root is refused here.
    let locked = scratch.file("locked", &program(|a| exit(a, 3)));
    std::fs::set_permissions(&locked, PermissionsExt::from_mode(0o000)).unwrap();
    if std::fs::File::open(&locked).is_err() {
        refused(&["user", &locked], 126, &["Permission denied"]);
    }
}

#[test]
fn command_lines_without_sense_are_refused_in_one_line() {
    let scratch = Scratch::new();
    let path = scratch.guest(|a| exit(a, 0));
    for (args, word) in [
        (&["--nonsense"][..], "--nonsense"),
        (&["-cpu", "z80"], "z80"),
        (&["--cpu", "z80"], "the models are"),
        (&["-d", "nothing"], "nothing"),
        (&["-d", "in_asm,nothing"], "nothing"),
        (&["--policy", "maybe"], "maybe"),
        (&["--policy", "nop=trap"], "nop"),
        (&["--policy", "cpuid=maybe"], "maybe"),
        (&["--policy", "0xzz=trap"], "0xzz"),
        (&["--disable-pass", "magic"], "magic"),
        (&["--enable-pass", "magic"], "magic"),
        (&["--engine", "steam"], "steam"),
        (&["--arena", "much"], "much"),
        (&["--region-opt", "best"], "best"),
        (&["-E", "novalue"], "novalue"),
        (&["-D", "/no/such/dir/log"], "/no/such/dir/log"),
    ] {
        let mut all = vec!["user"];
        all.extend(args);
        all.push(&path);
        refused(&all, 2, &[word]);
    }
    refused(&["user"], 2, &["PROGRAM"]);
    refused(&["fly"], 2, &["fly"]);
    refused(&["verify", "--tier", "3", &path], 2, &["3"]);
    refused(&["demo", "--scale", "0"], 2, &["--scale"]);
    refused(&["dump"], 2, &["--bytes"]);
    refused(&["dump", "--bytes", "9"], 2, &["hex"]);
    refused(&["dump", "--bytes", "zz"], 2, &["hex"]);
    refused(&["dump", "--bytes", "90", "--bits", "8"], 2, &["--bits"]);
    refused(&["dump", "--bytes", "90", "--show", "x"], 2, &["x"]);
    refused(&["dump", "--bytes", "90", "--pc", "x"], 2, &["--pc"]);
    refused(
        &["dump", "--bytes", "90", "--pc", "ffffffffffffffff"],
        2,
        &["0xffffffffffffffff"],
    );
    refused(&["dump", &path, "--symbol", "main"], 126, &["main"]);
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [
        &["--help"][..],
        &["user", "--help"],
        &["--version"],
        &["help"],
    ] {
        let out = metaphrase(args);
        assert_eq!(out.status.code(), Some(0), "{args:?}");
        assert!(out.stderr.is_empty() && !out.stdout.is_empty(), "{args:?}");
    }
    let help = stdout(&metaphrase(&["--help"]));
    for code in ["125", "126", "127", "signal"] {
        assert!(help.contains(code), "{help}");
    }
}

#[test]
fn the_guests_end_is_ours_in_every_engine() {
    let scratch = Scratch::new();
    type Emit = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let ends: [(&str, Result<i32, i32>, Emit); 10] = [
        ("exit-42", Ok(42), |a| exit(a, 42)),
        ("exit-0", Ok(0), |a| exit(a, 0)),
        ("exit-256", Ok(0), |a| exit(a, 256)),
        ("exit-255", Ok(255), |a| exit(a, -1)),
        ("ud2", Err(libc::SIGILL), |a| a.ud2()),
        ("null", Err(libc::SIGSEGV), |a| {
            a.xor(eax, eax)?;
            a.mov(rax, qword_ptr(rax))
        }),
        ("divide", Err(libc::SIGFPE), |a| {
            a.xor(ecx, ecx)?;
            a.mov(eax, 1)?;
            a.xor(edx, edx)?;
            a.div(ecx)
        }),
        ("int3", Err(libc::SIGTRAP), |a| a.int3()),
        ("hlt", Err(libc::SIGSEGV), |a| a.hlt()),
        ("kill", Err(libc::SIGTERM), |a| {
            a.mov(eax, 39)?; // getpid
            a.syscall()?;
            a.mov(edi, eax)?;
            a.mov(esi, libc::SIGTERM)?;
            a.mov(eax, 62)?;
            a.syscall()?;
            exit(a, 1)
        }),
    ];
    for (name, end, emit) in ends {
        let code = program(|a| {
            // A loop first, so that the engines get to compile.
            let mut again = a.create_label();
            a.mov(ecx, 100)?;
            a.set_label(&mut again)?;
            a.dec(ecx)?;
            a.jne(again)?;
            emit(a)
        });
        let path = scratch.file(name, &code);
        for engine in ENGINES {
            let mut args = vec!["user"];
            args.extend(engine);
            args.push(&path);
            let out = metaphrase(&args);
            let got = out
                .status
                .code()
                .ok_or_else(|| out.status.signal().unwrap_or(0));
            assert_eq!(got, end, "{name} with {engine:?}: {}", stderr(&out));
        }
        let out = metaphrase(&["verify", &path]);
        let got = out
            .status
            .code()
            .ok_or_else(|| out.status.signal().unwrap_or(0));
        assert_eq!(got, end, "{name} in lock step: {}", stderr(&out));
    }
}

#[test]
fn a_fork_goes_on_in_both_processes_and_their_writes_are_apart() {
    let scratch = Scratch::new();
    // Both count the shared cell up in compiled code, the child further; the child's status is its
    // cell's low byte, the parent's is the sum of that and its own cell.
    let path = scratch.guest(|a| {
        let (mut warm, mut child, mut count, mut turn) = (
            a.create_label(),
            a.create_label(),
            a.create_label(),
            a.create_label(),
        );
        a.mov(rbp, DATA)?;
        a.mov(ebx, 1000)?;
        a.set_label(&mut warm)?;
        a.call(count)?;
        a.dec(ebx)?;
        a.jne(warm)?;
        a.mov(qword_ptr(rbp), 0)?;
        a.mov(eax, 57)?; // fork
        a.syscall()?;
        a.test(eax, eax)?;
        a.je(child)?;
        // The parent: 20 turns, then the child's status.
        a.mov(ebx, 20)?;
        let mut parent_turn = a.create_label();
        a.set_label(&mut parent_turn)?;
        a.call(count)?;
        a.dec(ebx)?;
        a.jne(parent_turn)?;
        a.mov(edi, -1)?;
        a.lea(rsi, qword_ptr(rbp + 64))?;
        a.xor(edx, edx)?;
        a.xor(r10d, r10d)?;
        a.mov(eax, 61)?; // wait4
        a.syscall()?;
        a.movzx(edi, byte_ptr(rbp + 65))?;
        a.add(edi, dword_ptr(rbp))?;
        a.mov(eax, 60)?;
        a.syscall()?;
        a.set_label(&mut child)?;
        a.mov(ebx, 100)?;
        a.set_label(&mut turn)?;
        a.call(count)?;
        a.dec(ebx)?;
        a.jne(turn)?;
        a.mov(edi, dword_ptr(rbp))?;
        a.mov(eax, 60)?;
        a.syscall()?;
        a.set_label(&mut count)?;
        a.inc(dword_ptr(rbp))?;
        a.ret()
    });
    for engine in ENGINES {
        let mut args = vec!["user"];
        args.extend(engine);
        args.push(&path);
        let out = metaphrase(&args);
        assert_eq!(out.status.code(), Some(120), "{engine:?}: {}", stderr(&out));
    }
}
