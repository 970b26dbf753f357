//! Debug registers.

use super::bench::Bench;
use crate::system::Fault;
use crate::system::debug::{
    BD, BS, BT, Watched, breakpoints, report, report_pending, report_raised,
};
use crate::system::state::cr4;
use metaphrase_ir::SystemKind as Kind;

const GP: Fault = Fault::gp(0);

fn write(bench: &mut Bench, n: u8, value: u64) -> Result<u64, Fault> {
    bench.numbered(Kind::WriteDr, n, value)
}

fn read(bench: &mut Bench, n: u8) -> Result<u64, Fault> {
    bench.numbered(Kind::ReadDr, n, 0)
}

#[test]
fn dr4_and_dr5_are_aliases_without_de() {
    let mut bench = Bench::new();
    write(&mut bench, 5, 0x0000_0001).unwrap();
    assert_eq!(read(&mut bench, 7), Ok(0x401));
    write(&mut bench, 4, 0).unwrap();
    assert_eq!(read(&mut bench, 6), Ok(0xffff_0ff0));
    bench.state.sys.cr4 |= cr4::DE;
    for n in [4, 5, 8, 15] {
        assert_eq!(read(&mut bench, n), Err(Fault::UD), "DR{n}");
        assert_eq!(write(&mut bench, n, 0), Err(Fault::UD), "DR{n}");
    }
}

#[test]
fn bits_that_do_not_exist_keep_their_values() {
    let mut bench = Bench::new().long(0);
    assert_eq!(read(&mut bench, 6), Ok(0xffff_0ff0), "at power-up");
    assert_eq!(read(&mut bench, 7), Ok(0x400));
    write(&mut bench, 6, 0xffff_ffff).unwrap();
    assert_eq!(read(&mut bench, 6), Ok(0xffff_efff));
    write(&mut bench, 7, 0xffff_dfff).unwrap();
    assert_eq!(read(&mut bench, 7), Ok(0xffff_07ff));
    for n in [6, 7] {
        assert_eq!(write(&mut bench, n, 1 << 32), Err(GP), "DR{n}");
    }
    write(&mut bench, 3, 0x8000_0000_0000_0001).unwrap();
    assert_eq!(read(&mut bench, 3), Ok(0x8000_0000_0000_0001));
    let mut bench = Bench::new().protected(0);
    write(&mut bench, 7, 1 << 32).unwrap();
    write(&mut bench, 1, 5 << 32 | 7).unwrap();
    assert_eq!(read(&mut bench, 1), Ok(7), "32 bits outside 64-bit code");
}

#[test]
fn users_may_not_and_gd_traps() {
    for mut bench in [Bench::new().protected(3), Bench::new().v86(3)] {
        assert_eq!(read(&mut bench, 0), Err(GP));
        assert_eq!(write(&mut bench, 0, 0), Err(GP));
        bench.state.sys.dr[7] |= 1 << 13;
        assert_eq!(read(&mut bench, 0), Err(GP), "before GD");
    }
    let mut bench = Bench::new().protected(0);
    write(&mut bench, 7, 1 << 13).unwrap();
    for n in 0..8 {
        assert_eq!(read(&mut bench, n), Err(Fault::plain(1)));
        assert_eq!(write(&mut bench, n, 0), Err(Fault::plain(1)));
    }
    report_raised(&mut bench.state);
    assert_eq!(bench.state.sys.dr[6], 0xffff_0ff0 | u64::from(BD));
    assert_eq!(bench.state.sys.dr[7], 0x400, "the handler may use them");
    assert!(read(&mut bench, 7).is_ok());
}

#[test]
fn breakpoints_match_what_they_are_for() {
    let mut bench = Bench::new();
    let set = |bench: &mut Bench, at: u64, kind: u64, len: u64| {
        bench.state.sys.dr[2] = at;
        bench.state.sys.dr[7] = 0x400 | 1 << 4 | kind << 24 | len << 26;
    };
    let hit = |bench: &Bench, watched, first, len| {
        breakpoints(&bench.state).hits(watched, first, len) != 0
    };
    use Watched::{Instruction, Port, Read, Write};
    // By kind: execute, write, port, data.
    let table = [
        (0, [true, false, false, false]),
        (1, [false, false, true, false]),
        (2, [false, false, false, true]),
        (3, [false, true, true, false]),
    ];
    bench.state.sys.cr4 |= cr4::DE;
    for (kind, expected) in table {
        set(&mut bench, 0x1000, kind, 0);
        let got = [Instruction, Read, Write, Port].map(|w| hit(&bench, w, 0x1000, 1));
        assert_eq!(got, expected, "kind {kind}");
        let asked = breakpoints(&bench.state);
        assert_eq!(asked.any_instruction(), kind == 0);
        assert_eq!(asked.any_data(), matches!(kind, 1 | 3));
        assert_eq!(asked.instruction_at(0x1000), u32::from(kind == 0) << 2);
        bench.state.sys.dr[7] &= !0xff;
        let asked = breakpoints(&bench.state);
        assert!(!asked.any() && !asked.any_data() && !asked.any_instruction());
        assert!(!hit(&bench, Write, 0x1000, 1), "not enabled");
    }
    // The global bit enables as the local one does.
    set(&mut bench, 0x1000, 1, 0);
    bench.state.sys.dr[7] ^= 3 << 4;
    assert!(hit(&bench, Write, 0x1000, 1));
    bench.state.sys.cr4 &= !cr4::DE;
    set(&mut bench, 0x1000, 2, 0);
    assert!(!hit(&bench, Port, 0x1000, 1), "without CR4.DE");
    // Lengths 1, 2, 8, 4; aligned.
    for (len, bytes) in [(0, 1), (1, 2), (2, 8), (3, 4)] {
        set(&mut bench, 0x1003, 3, len);
        let start = 0x1003 / bytes * bytes;
        assert!(hit(&bench, Read, start, 1), "length {bytes}");
        assert!(hit(&bench, Read, start + bytes - 1, 1));
        assert!(!hit(&bench, Read, start + bytes, 8));
        assert!(!hit(&bench, Read, start - 4, 4));
        assert!(hit(&bench, Read, start - 3, 4));
    }
    set(&mut bench, u64::MAX, 3, 0);
    assert!(hit(&bench, Read, u64::MAX, 1));
    assert!(!hit(&bench, Read, 0, 1));
}

#[test]
fn dr6_says_why() {
    let mut bench = Bench::new();
    let ones = 0xffff_0ff0;
    report(&mut bench.state, 0b0101);
    assert_eq!(bench.state.sys.dr[6], ones | 5);
    report(&mut bench.state, BT | 8);
    assert_eq!(bench.state.sys.dr[6], ones | u64::from(BT) | 8);
    assert!(!report_pending(&mut bench.state));
    report_raised(&mut bench.state);
    assert_eq!(
        bench.state.sys.dr[6],
        ones | u64::from(BT | BS),
        "single step"
    );
    bench.state.sys.dr[6] = ones;
    bench.state.sys.pending_debug = 2;
    report_raised(&mut bench.state);
    assert_eq!(bench.state.sys.dr[6], ones | u64::from(BS) | 2);
    bench.state.sys.dr[6] = ones;
    bench.state.sys.pending_debug = 2;
    assert!(report_pending(&mut bench.state));
    assert!(!report_pending(&mut bench.state));
    assert_eq!(bench.state.sys.dr[6], ones | 2);
}
