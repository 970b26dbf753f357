//! Disassembly of guest code and, on x86-64 hosts, of host code.

use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
use std::fmt::Write;

/// A listing of x86 code: address, bytes, instruction.
pub fn x86(bits: u32, pc: u64, code: &[u8]) -> String {
    let mut out = String::new();
    let mut formatter = NasmFormatter::new();
    let mut text = String::new();
    for insn in Decoder::with_ip(bits, code, pc, DecoderOptions::NONE) {
        text.clear();
        formatter.format(&insn, &mut text);
        let start = insn.ip().wrapping_sub(pc) as usize;
        let bytes = &code[start..(start + insn.len()).min(code.len())];
        let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let _ = writeln!(out, "{:#012x}  {:<32} {text}", insn.ip(), hex.join(" "));
    }
    out
}

/// A listing of host code.
pub fn host(pc: u64, code: &[u8]) -> String {
    if cfg!(target_arch = "x86_64") {
        return x86(64, pc, code);
    }
    let mut out = String::new();
    for (n, line) in code.chunks(16).enumerate() {
        let hex: Vec<String> = line.iter().map(|b| format!("{b:02x}")).collect();
        let _ = writeln!(out, "{:#012x}  {}", pc + 16 * n as u64, hex.join(" "));
    }
    out
}
