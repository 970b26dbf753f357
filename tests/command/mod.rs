//! The command as a child process, and small guests in files for it.
#![allow(dead_code)] // Each test file uses its part.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use metaphrase::guest::{CODE, elf};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The engines, with thresholds at which short guests are compiled.
pub const ENGINES: [&[&str]; 4] = [
    &["--engine", "interp"],
    &["--engine", "jit"],
    &["--engine", "jit", "--eager-regions"],
    &[
        "--engine",
        "tiered",
        "--warm-up",
        "0",
        "--tier1-threshold",
        "2",
        "--tier2-samples",
        "1",
    ],
];

/// A directory for one test's files; removed at the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let n = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("metaphrase-cli-{}-{n}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    pub fn file(&self, name: &str, contents: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path.to_str().unwrap().into()
    }

    pub fn guest(&self, emit: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> String {
        self.file("guest", &program(emit))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A static ELF program.
pub fn program(emit: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).unwrap();
    emit(&mut a).unwrap();
    elf::file(&a.assemble(CODE).unwrap())
}

pub fn exit(a: &mut CodeAssembler, status: i32) -> Result<(), IcedError> {
    a.mov(edi, status)?;
    a.mov(eax, 60)?;
    a.syscall()
}

pub fn metaphrase(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_metaphrase"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

pub fn stdout(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Writes the call that makes `handler` the guest's handler of a signal, with `restorer` to return
/// by. `at` is guest memory for the structure; RBX points to it afterwards.
pub fn install_handler(
    a: &mut CodeAssembler,
    at: u64,
    signal: u32,
    handler: CodeLabel,
    restorer: CodeLabel,
) -> Result<(), IcedError> {
    a.mov(rbx, at)?;
    a.lea(rax, ptr(handler))?;
    a.mov(qword_ptr(rbx), rax)?;
    a.mov(qword_ptr(rbx + 8), 0x0400_0004)?; // SA_SIGINFO, SA_RESTORER
    a.lea(rax, ptr(restorer))?;
    a.mov(qword_ptr(rbx + 16), rax)?;
    a.mov(edi, signal)?;
    a.mov(rsi, rbx)?;
    a.xor(edx, edx)?;
    a.mov(r10d, 8)?;
    a.mov(eax, 13)?; // rt_sigaction
    a.syscall()
}
