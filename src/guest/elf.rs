//! Wraps a guest program into a static ELF64 executable, so that Linux and other emulators can run
//! the same bytes.

use super::{CODE, DATA, DATA_BYTES};

const PAGE: u64 = 0x1000;

/// The executable file for a program's code.
pub fn file(code: &[u8]) -> Vec<u8> {
    let header_bytes = 64 + 2 * 56;
    let mut out = Vec::with_capacity(PAGE as usize + code.len());
    let half = |out: &mut Vec<u8>, v: u16| out.extend(v.to_le_bytes());
    let word = |out: &mut Vec<u8>, v: u32| out.extend(v.to_le_bytes());
    let long = |out: &mut Vec<u8>, v: u64| out.extend(v.to_le_bytes());
    // 64-bit, little-endian, version 1, System V.
    out.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    half(&mut out, 2); // ET_EXEC
    half(&mut out, 62); // EM_X86_64
    word(&mut out, 1);
    long(&mut out, CODE);
    long(&mut out, 64); // program headers
    long(&mut out, 0); // no section headers
    word(&mut out, 0);
    for v in [64, 56, 2, 64, 0, 0] {
        half(&mut out, v);
    }
    let mut segment = |flags: u32, offset: u64, addr: u64, in_file: u64, in_memory: u64| {
        word(&mut out, 1); // PT_LOAD
        word(&mut out, flags);
        for v in [offset, addr, addr, in_file, in_memory, PAGE] {
            long(&mut out, v);
        }
    };
    segment(5, PAGE, CODE, code.len() as u64, code.len() as u64);
    segment(6, 0, DATA, 0, DATA_BYTES);
    debug_assert_eq!(out.len(), header_bytes);
    out.resize(PAGE as usize, 0);
    out.extend_from_slice(code);
    out
}
