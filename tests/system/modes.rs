//! Changes of mode.

use crate::harness::{CODE, Guest, assemble, word};
use iced_x86::code_asm::*;

#[test]
fn real_mode_computes_and_halts() {
    let code = assemble(16, CODE, |a| {
        a.mov(ax, 0x1234u32).unwrap();
        a.mov(cx, 100u32).unwrap();
        let mut again = a.create_label();
        a.set_label(&mut again).unwrap();
        a.add(ax, 3u32).unwrap();
        a.loop_(again).unwrap();
        a.mov(word_ptr(0x500), ax).unwrap();
        a.hlt().unwrap();
    });
    Guest::real(code).run(|m| assert_eq!(word(m, 0x500) & 0xffff, 0x1234 + 300));
}
