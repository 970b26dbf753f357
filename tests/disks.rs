//! Disk images at the command: a guest that writes and flushes is killed again and again and loses
//! nothing that it had flushed; errors of the host reach guest and user; what cannot be opened is
//! refused.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod command;

use command::*;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use metaphrase_devices::block::SECTOR;
use metaphrase_devices::image::{self, Format, ImageOptions};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The disk: 1024 clusters of the usual size of qcow2.
const DISK: u64 = 64 << 20;
/// After so many writes the places repeat.
const PLACES: u32 = 1024;
/// What the guest says instead of a number when its disk has failed.
const FAILED: u32 = 0xffff_0000;

/// Where the guest puts what it writes as number `n`.
fn place(n: u32) -> u64 {
    u64::from(((n.wrapping_mul(1237) & (PLACES - 1)) << 7) + (n & 3))
}

/// Sends AL to a port.
fn out8(a: &mut CodeAssembler, port: u32) -> Result<(), IcedError> {
    a.mov(dx, port)?;
    a.out(dx, al)
}

/// Sets a register of the IDE function in configuration space.
fn configure(a: &mut CodeAssembler, offset: u32, value: u32) -> Result<(), IcedError> {
    a.mov(eax, 0x8000_0900 | offset)?;
    a.mov(dx, 0xcf8)?;
    a.out(dx, eax)?;
    a.mov(eax, value)?;
    a.mov(dx, 0xcfc)?;
    a.out(dx, eax)
}

/// Firmware that writes sectors full of their numbers from `start` on, flushes after every third,
/// and says on the serial port how many are flushed. If a command fails, it says so, with status
/// and error register, and ends the run with exit code 7.
fn firmware(start: u32, end: u32) -> Vec<u8> {
    let mut code = CodeAssembler::new(16).unwrap();
    guest(&mut code, start, end).unwrap();
    let mut rom = code.assemble(0).unwrap();
    rom.resize(0x1_0000, 0);
    // The first instruction: a jump to the beginning of the segment.
    rom[0xfff0..0xfff3].copy_from_slice(&[0xe9, 0x0d, 0x00]);
    rom
}

fn guest(a: &mut CodeAssembler, start: u32, end: u32) -> Result<(), IcedError> {
    let mut next = a.create_label();
    let mut write = a.create_label();
    let mut flush = a.create_label();
    let mut wait = a.create_label();
    let mut busy = a.create_label();
    let mut failed = a.create_label();
    let mut say = a.create_label();
    let mut send = a.create_label();
    let mut data = a.create_label();
    let mut done = a.create_label();
    a.xor(ax, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, 0x7000)?;
    configure(a, 0x40, 0x8000_8000)?;
    configure(a, 0x04, 5)?;
    // Bytes of eight bits.
    a.mov(al, 3)?;
    out8(a, 0x3fb)?;
    a.mov(ebp, start)?;

    a.set_label(&mut next)?;
    for _ in 0..3 {
        a.call(write)?;
    }
    a.call(flush)?;
    a.mov(eax, ebp)?;
    a.call(say)?;
    a.cmp(ebp, end)?;
    a.jb(next)?;
    a.mov(al, 0)?;
    a.jmp(done)?;

    // Writes the sector of number EBP, which goes up.
    a.set_label(&mut write)?;
    a.imul_3(ebx, ebp, 1237)?;
    a.and(ebx, (PLACES - 1) as i32)?;
    a.shl(ebx, 7)?;
    a.mov(ecx, ebp)?;
    a.and(ecx, 3)?;
    a.add(ebx, ecx)?;
    a.mov(al, 1)?;
    out8(a, 0x1f2)?;
    for port in 0x1f3..0x1f6 {
        a.mov(al, bl)?;
        out8(a, port)?;
        a.shr(ebx, 8)?;
    }
    a.mov(al, 0xe0)?;
    out8(a, 0x1f6)?;
    a.mov(al, 0x30)?;
    out8(a, 0x1f7)?;
    a.call(wait)?;
    a.mov(cx, 128)?;
    a.mov(eax, ebp)?;
    a.mov(dx, 0x1f0)?;
    a.set_label(&mut data)?;
    a.out(dx, eax)?;
    a.dec(cx)?;
    a.jnz(data)?;
    a.call(wait)?;
    a.inc(ebp)?;
    a.ret()?;

    a.set_label(&mut flush)?;
    a.mov(al, 0xe7)?;
    out8(a, 0x1f7)?;
    // Falls through: waits until the drive has done it.
    a.set_label(&mut wait)?;
    a.mov(dx, 0x1f7)?;
    a.set_label(&mut busy)?;
    a.in_(al, dx)?;
    a.test(al, 0x80)?;
    a.jnz(busy)?;
    a.test(al, 0x21)?;
    a.jnz(failed)?;
    a.ret()?;

    a.set_label(&mut failed)?;
    a.mov(ah, al)?;
    a.mov(dx, 0x1f1)?;
    a.in_(al, dx)?;
    a.movzx(eax, ax)?;
    a.or(eax, FAILED as i32)?;
    a.call(say)?;
    a.mov(al, 3)?;
    a.set_label(&mut done)?;
    out8(a, 0x501)?;
    a.hlt()?;

    // Sends EAX.
    a.set_label(&mut say)?;
    a.mov(cx, 4)?;
    a.mov(dx, 0x3f8)?;
    a.set_label(&mut send)?;
    a.out(dx, al)?;
    a.shr(eax, 8)?;
    a.dec(cx)?;
    a.jnz(send)?;
    a.ret()
}

/// A machine with that firmware and these further arguments, behind an optional shell command.
fn machine(scratch: &Scratch, shell: &str, rom: &[u8], more: &[&str]) -> Child {
    let bios = scratch.file("bios", rom);
    let program = env!("CARGO_BIN_EXE_metaphrase");
    Command::new("sh")
        .args(["-c", &format!("{shell} exec \"$@\""), "sh", program])
        .args(["system", "-m", "4", "--debug-exit", "-bios", &bios])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The numbers that a guest has sent whole.
fn numbers(output: &[u8]) -> Vec<u32> {
    let (words, _) = output.as_chunks::<4>();
    words.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

fn new_image(scratch: &Scratch, name: &str, format: Format) -> String {
    let path = scratch.0.join(name);
    match format {
        Format::Raw => File::create(&path).unwrap().set_len(DISK).unwrap(),
        Format::Qcow2 => image::create_qcow2(&path, DISK, None).unwrap(),
    }
    path.to_str().unwrap().into()
}

/// The number in each place of the disk. Sectors must be whole.
fn places(path: &str) -> Vec<u32> {
    let options = ImageOptions {
        read_only: true,
        ..ImageOptions::default()
    };
    let mut disk = image::open(Path::new(path), &options).unwrap();
    let mut sector = [0; SECTOR];
    let numbers = (0..PLACES).map(|n| {
        disk.read(place(n), &mut sector).unwrap();
        let first = u32::from_le_bytes([sector[0], sector[1], sector[2], sector[3]]);
        let same = sector
            .as_chunks::<4>()
            .0
            .iter()
            .all(|word| *word == first.to_le_bytes());
        assert!(same, "a torn sector at {}", place(n));
        first
    });
    numbers.collect()
}

/// More than a machine writes before it is killed.
const MOST: u32 = 1_000_000;

/// Kills a machine at different moments; what was flushed by then must be there.
fn killed(format: Format, rounds: u64) {
    let scratch = Scratch::new();
    let path = new_image(&scratch, "disk", format);
    // 0 is what nobody has written.
    let mut start = PLACES;
    let mut flushed = Vec::new();
    let mut sure = vec![0; PLACES as usize];
    for round in 0..rounds {
        let rom = firmware(start, u32::MAX);
        let mut child = machine(&scratch, "", &rom, &["-hda", &path]);
        let mut pipe = child.stdout.take().unwrap();
        // It has flushed once; then it is killed sooner or later.
        let mut output = vec![0; 4];
        pipe.read_exact(&mut output).unwrap();
        std::thread::sleep(Duration::from_micros(round * 7919 % 60_000));
        child.kill().unwrap();
        child.wait().unwrap();
        pipe.read_to_end(&mut output).unwrap();
        let last = *numbers(&output).last().unwrap();
        assert!(
            last >= start + 3 && last < FAILED,
            "round {round}: {last:#x}"
        );
        flushed.push(last - start);

        let info = image::info(Path::new(&path), Some(format)).unwrap();
        assert_eq!(info.defect, None, "round {round}");
        for number in start..last {
            sure[(number % PLACES) as usize] = number;
        }
        // What the guest says may have waited in a buffer when it was killed: it may have written
        // more than it was heard to say.
        let mut most = last;
        for (n, found) in (0..).zip(places(&path)) {
            let sure = sure[n as usize];
            assert!(
                found == sure || found % PLACES == n,
                "round {round}: {found} in place {n}"
            );
            assert!(
                found >= sure,
                "round {round}: {found} where {sure} was flushed"
            );
            assert!(
                found < start + MOST,
                "round {round}: {found} was never written"
            );
            most = most.max(found);
        }
        // The next machine starts after everything that this one has written.
        start = most + 6;
    }
    assert!(flushed.iter().max() > flushed.iter().min(), "{flushed:?}");
}

#[test]
fn a_killed_machine_has_what_it_flushed_to_a_raw_image() {
    killed(Format::Raw, 6);
}

#[test]
fn a_killed_machine_has_what_it_flushed_to_a_qcow2_image() {
    killed(Format::Qcow2, 16);
}

#[test]
fn a_snapshot_is_gone_at_the_end() {
    let scratch = Scratch::new();
    for format in [Format::Raw, Format::Qcow2] {
        let path = new_image(&scratch, &format.to_string(), format);
        let before = std::fs::read(&path).unwrap();
        let time = std::fs::metadata(&path).unwrap().mtime_nsec();
        let rom = firmware(PLACES, 2 * PLACES);
        let shell = format!("TMPDIR='{}'; export TMPDIR;", scratch.0.display());
        let child = machine(&scratch, &shell, &rom, &["-hda", &path, "-snapshot"]);
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{}", stderr(&out));
        assert_eq!(numbers(&out.stdout).last(), Some(&(2 * PLACES + 2)));
        assert!(std::fs::read(&path).unwrap() == before);
        assert_eq!(std::fs::metadata(&path).unwrap().mtime_nsec(), time);
    }
    let files = std::fs::read_dir(&scratch.0).unwrap().count();
    assert_eq!(files, 3, "two images and the firmware");
}

/// A limit on the size of files is a full disk that needs no rights.
#[test]
fn a_full_disk_is_an_error_of_the_drive() {
    let scratch = Scratch::new();
    // Limits in units of 512 bytes. Only a raw image is written far from its beginning soon.
    for (name, format, limit, more) in [
        ("raw", Format::Raw, 80_000, &[][..]),
        ("qcow2", Format::Qcow2, 8000, &[]),
        ("overlay", Format::Raw, 8000, &["-snapshot"]),
    ] {
        let path = new_image(&scratch, name, format);
        let rom = firmware(PLACES, u32::MAX);
        let mut args = vec!["-hda", &path];
        args.extend(more);
        let shell = format!("trap '' XFSZ; ulimit -f {limit};");
        let out = machine(&scratch, &shell, &rom, &args)
            .wait_with_output()
            .unwrap();
        let (all, text) = (numbers(&out.stdout), stderr(&out));
        assert_eq!(out.status.code(), Some(7), "{name}: {text}");
        // Device fault and error; the command was aborted.
        assert_eq!(
            all.last().map(|n| n & 0xffff_2104),
            Some(FAILED | 0x2104),
            "{name}"
        );
        assert!(all.len() > 1, "{name}: nothing could be written at all");
        assert_eq!(text.lines().count(), 1, "{name}: {text}");
        assert!(text.contains("cannot be written"), "{name}: {text}");
        assert_eq!(image::info(Path::new(&path), None).unwrap().defect, None);
    }
}

#[track_caller]
fn refused(args: &[&str], code: i32, words: &[&str]) {
    let mut all = vec!["system", "-bios", "/dev/null", "--budget", "1"];
    all.extend(args);
    let out = metaphrase(&all);
    let text = stderr(&out);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {text}");
    assert!((1..=2).contains(&text.lines().count()), "{args:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{args:?} does not say {word}: {text}");
    }
}

#[test]
fn images_that_cannot_be_used_are_refused() {
    let scratch = Scratch::new();
    let good = new_image(&scratch, "good", Format::Qcow2);
    let mut bytes = std::fs::read(&good).unwrap();
    let empty = scratch.file("empty", &[]);
    let torn = scratch.file("torn", &[0; 700]);
    let cut = scratch.file("cut", &bytes[..100]);
    bytes[36] = 0xff;
    let corrupt = scratch.file("corrupt", &bytes);
    let dir = scratch.0.to_str().unwrap();
    let missing = format!("{dir}/missing");
    let program = env!("CARGO_BIN_EXE_metaphrase");
    let drive = |options: &str| format!("file={good},{options}");
    refused(&["-hda", &missing], 127, &[&missing]);
    refused(&["-cdrom", &missing], 127, &[&missing]);
    refused(&["-hda", dir], 126, &["is a directory"]);
    refused(&["-hda", "/dev/null"], 126, &["neither a file"]);
    refused(&["-hda", &empty], 126, &["empty"]);
    refused(&["-hda", &torn], 126, &["700 bytes"]);
    refused(&["-fda", &cut], 126, &["cut off"]);
    refused(&["-hdb", &corrupt], 126, &["first-level table"]);
    // Our own program is being executed.
    refused(
        &["-hda", program],
        126,
        &["cannot be written", "hint: ", "-snapshot"],
    );
    refused(&["-hda", &good, "-hdb", &good], 126, &["in use"]);
    refused(&["-drive", &drive("format=vmdk")], 2, &["qcow2"]);
    refused(&["-drive", &drive("if=scsi")], 2, &["virtio"]);
    refused(
        &["-hda", &good, "-drive", &drive("index=0")],
        2,
        &["another drive"],
    );
    refused(&["-hdc", &good, "-cdrom", &good], 2, &["another drive"]);
    refused(&["-boot", "z"], 2, &["letters"]);
}
