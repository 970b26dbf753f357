//! Floating point as only a whole system sees it: environments in the formats of real mode.

use crate::harness::{CODE, Guest, assemble, word};
use iced_x86::code_asm::*;

/// Where images go.
const IMAGE: u64 = 0x9000;

/// Real-mode code in segment 100h, so that selectors and linear addresses differ.
fn real(write: impl FnOnce(&mut CodeAssembler)) -> Guest {
    let code = assemble(16, CODE - 0x1000, |a| {
        write(a);
        a.hlt().unwrap();
    });
    Guest::real(code).setup(|s| {
        (s.seg_sel[1], s.seg_base[1], s.rip) = (0x100, 0x1000, CODE - 0x1000);
        (s.seg_sel[3], s.seg_base[3]) = (0x800, 0x8000);
    })
}

/// FLD with a memory operand, whose opcode and addresses the environment must have.
fn load(a: &mut CodeAssembler) {
    a.fninit().unwrap();
    a.fld(dword_ptr(0x10)).unwrap();
}

#[test]
fn environments_of_real_mode_hold_linear_addresses() {
    // FNINIT has two bytes, so FLD is at CODE + 2. Its opcode is D9 06: 106h.
    let ip = CODE as u32 + 2;
    real(|a| {
        load(a);
        a.fnstenv(ptr(0x1000)).unwrap();
    })
    .run(|m| {
        // The decoder's default in 16-bit code is the short image.
        let short = |n: u64| word(m, IMAGE + 2 * n) & 0xffff;
        assert_eq!(short(0), 0x37f);
        assert_eq!((short(3), short(4)), (ip & 0xffff, ip >> 16 << 12 | 0x106));
        assert_eq!((short(5), short(6)), (0x8010, 0));
    });
    real(|a| {
        load(a);
        // FNSTENV with an operand-size prefix.
        a.db(&[0x66, 0xd9, 0x36, 0x00, 0x10]).unwrap();
    })
    .run(|m| {
        let long = |n: u64| word(m, IMAGE + 4 * n);
        assert_eq!(long(3) & 0xffff, ip & 0xffff);
        assert_eq!(long(4), ip >> 16 << 12 | 0x106);
        assert_eq!((long(5) & 0xffff, long(6)), (0x8010, 0));
    });
}

#[test]
fn environments_of_real_mode_come_back() {
    real(|a| {
        load(a);
        a.fnstenv(ptr(0x1000)).unwrap();
        a.fninit().unwrap();
        a.fldenv(ptr(0x1000)).unwrap();
        a.fnstenv(ptr(0x1100)).unwrap();
    })
    .run(|m| {
        for n in 0..4 {
            let at = IMAGE + 4 * n;
            let mask = if n == 3 { 0xffff } else { u32::MAX };
            assert_eq!(word(m, at) & mask, word(m, at + 0x100) & mask, "word {n}");
        }
    });
}
