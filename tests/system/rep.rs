//! Repeated string instructions that fault in the middle: what is done stays done, and the
//! registers say where to go on.

use crate::contexts::Context;
use crate::harness::{CODE, Guest, assemble};
use crate::tables::{PAGES, Record};
use Context::*;
use iced_x86::code_asm::*;
use metaphrase_runtime::Machine;

/// Linear address of two pages: the first is mapped to [`FIRST`], the second is not mapped.
const EDGE: u64 = 0x60_0000;
const FIRST: u64 = 0x9_0000;
/// Where plain memory is, whose page is followed by another.
const PLAIN: u64 = 0x8_0ff0;

const RCX: usize = 1;
const RSI: usize = 6;
const RDI: usize = 7;

/// Writes code.
type Write = fn(&mut CodeAssembler);

/// A guest of 32 or 64-bit code with the edge, and the string instruction `run` right at its start.
fn at_the_edge(context: Context, run: Write) -> Guest {
    let table = PAGES + 0x8000;
    let code = assemble(context.bits(), CODE, |a| {
        run(a);
        a.hlt().unwrap();
    });
    let source: Vec<u8> = (0..0x40).collect();
    context
        .guest(code)
        .with(PAGES + 0x2000 + 3 * 8, (table | 7).to_le_bytes())
        .with(table, (FIRST | 7).to_le_bytes())
        .with(PLAIN, source.clone())
        .with(FIRST + 0xfe0, &source[..0x20])
}

/// What a page fault must have left.
fn faulted(m: &Machine, error: u32, address: u64, left: u64) {
    let record = Record::of(m);
    let seen = (record.vector, record.error, record.ip, record.cr2);
    assert_eq!(seen, (14, error, CODE as u32, address as u32));
    assert_eq!(m.state().gpr[RCX], left, "RCX");
}

fn bytes(m: &Machine, at: u64, n: usize) -> Vec<u8> {
    let mut out = vec![0; n];
    m.memory().read_bytes(at, &mut out);
    out
}

const CONTEXTS: [(Context, u32); 4] = [
    (Compatibility32(0), 0),
    (Compatibility32(3), 4),
    (Long(0), 0),
    (Long(3), 4),
];

#[test]
fn movs_into_a_page_that_is_not_there() {
    let sizes: [(u64, Write); 3] = [
        (1, |a| a.rep().movsb().unwrap()),
        (2, |a| a.rep().movsw().unwrap()),
        (4, |a| a.rep().movsd().unwrap()),
    ];
    for (context, user) in CONTEXTS {
        for (size, run) in sizes {
            // 16 bytes fit.
            let start = EDGE + 0x1000 - 16;
            let guest = at_the_edge(context, run).setup(move |s| {
                (s.gpr[RCX], s.gpr[RSI], s.gpr[RDI]) = (32 / size, PLAIN, start);
            });
            guest.run(|m| {
                faulted(m, 2 | user, EDGE + 0x1000, 16 / size);
                assert_eq!(m.state().gpr[RSI], PLAIN + 16);
                assert_eq!(m.state().gpr[RDI], EDGE + 0x1000);
                let expected: Vec<u8> = (0..16).collect();
                assert_eq!(bytes(m, FIRST + 0xff0, 16), expected);
            });
        }
    }
}

#[test]
fn movs_out_of_a_page_that_is_not_there() {
    for (context, user) in CONTEXTS {
        let run: Write = |a| a.rep().movsb().unwrap();
        let guest = at_the_edge(context, run).setup(|s| {
            (s.gpr[RCX], s.gpr[RSI], s.gpr[RDI]) = (100, EDGE + 0xfe0, 0xa000);
        });
        guest.run(|m| {
            faulted(m, user, EDGE + 0x1000, 100 - 32);
            assert_eq!(m.state().gpr[RDI], 0xa000 + 32);
            let expected: Vec<u8> = (0..32).collect();
            assert_eq!(bytes(m, 0xa000, 33)[..32], expected[..]);
            assert_eq!(bytes(m, 0xa020, 1), [0]);
        });
    }
}

#[test]
fn movs_that_straddles_the_edge() {
    // Doublewords, the fifth of which is half on the missing page: it writes nothing.
    for (context, user) in CONTEXTS {
        let run: Write = |a| a.rep().movsd().unwrap();
        let start = EDGE + 0x1000 - 18;
        let guest = at_the_edge(context, run).setup(move |s| {
            (s.gpr[RCX], s.gpr[RSI], s.gpr[RDI]) = (8, PLAIN, start);
        });
        guest.run(|m| {
            faulted(m, 2 | user, EDGE + 0x1000, 4);
            assert_eq!(m.state().gpr[RDI], start + 16);
            let expected: Vec<u8> = (0..16).collect();
            assert_eq!(bytes(m, FIRST + 0xfee, 16), expected);
            // What was there before: 0x1e and 0x1f.
            assert_eq!(bytes(m, FIRST + 0xffe, 2), [0x1e, 0x1f]);
        });
    }
}

#[test]
fn downwards_into_a_page_that_is_not_there() {
    // With DF set, from plain memory down to the page below the edge's.
    for (context, user) in CONTEXTS {
        let run: Write = |a| a.rep().stosb().unwrap();
        let low = PAGES + 0x8000;
        let guest = at_the_edge(context, run)
            .with(low, [0; 8])
            .with(low + 8, (FIRST | 7).to_le_bytes())
            .setup(|s| {
                (s.gpr[0], s.gpr[RCX], s.gpr[RDI]) = (0x77, 64, EDGE + 0x1000 + 9);
                s.set_rflags(s.rflags() | 0x400);
            });
        guest.run(|m| {
            faulted(m, 2 | user, EDGE + 0xfff, 54);
            assert_eq!(m.state().gpr[RDI], EDGE + 0xfff);
            assert_eq!(bytes(m, FIRST, 11)[..10], [0x77; 10]);
            assert_eq!(bytes(m, FIRST + 10, 1), [0]);
        });
    }
}

#[test]
fn comparisons_and_scans_keep_their_flags() {
    // The flags are of the last element that was compared.
    let runs: [Write; 2] = [
        |a| a.repe().cmpsb().unwrap(),
        |a| a.repne().scasb().unwrap(),
    ];
    for (context, user) in CONTEXTS {
        for run in runs {
            let guest = at_the_edge(context, run).setup(|s| {
                (s.gpr[0], s.gpr[RCX]) = (0xff, 100);
                (s.gpr[RSI], s.gpr[RDI]) = (PLAIN, EDGE + 0xfe0);
            });
            guest.run(|m| {
                faulted(m, user, EDGE + 0x1000, 100 - 32);
                assert_eq!(m.state().gpr[RDI], EDGE + 0x1000);
            });
        }
    }
}

#[test]
fn strings_over_a_segment_limit() {
    let limit = 0xa00f;
    for context in [
        Protected32(0),
        Protected32(3),
        Protected16(0),
        Compatibility32(3),
    ] {
        let run: Write = |a| a.rep().stosb().unwrap();
        let code = assemble(context.bits(), CODE, |a| {
            run(a);
            a.hlt().unwrap();
        });
        let guest = context.guest(code).setup(move |s| {
            s.sys.seg_limit[0] = limit;
            (s.gpr[0], s.gpr[RCX], s.gpr[RDI]) = (0x55, 100, 0xa000);
        });
        guest.run(|m| {
            let record = Record::of(m);
            let seen = (record.vector, record.error, record.ip);
            assert_eq!(seen, (13, 0, CODE as u32), "{context:?}");
            assert_eq!(m.state().gpr[RCX], 100 - 16);
            assert_eq!(m.state().gpr[RDI], 0xa010);
            assert_eq!(bytes(m, 0xa000, 17)[..16], [0x55; 16]);
            assert_eq!(bytes(m, 0xa010, 1), [0]);
        });
    }
}

#[test]
fn offsets_of_16_bits_wrap() {
    for context in [Real, V86] {
        // Bytes go on at offset 0; a word over the end does not.
        let code = |run: Write| {
            assemble(16, CODE, |a| {
                run(a);
                a.hlt().unwrap();
            })
        };
        let set = |s: &mut metaphrase_runtime::CpuState| {
            (s.gpr[0], s.gpr[RCX], s.gpr[RDI]) = (0x6655, 8, 0xfffc);
            // Away from the vectors.
            s.seg_sel[0] = 0x2000;
            s.seg_base[0] = 0x2_0000;
        };
        let guest = context.guest(code(|a| a.rep().stosb().unwrap())).setup(set);
        guest.run(|m| {
            assert_eq!(m.state().gpr[RDI] & 0xffff, 4);
            assert_eq!(bytes(m, 0x2_0000, 5), [0x55, 0x55, 0x55, 0x55, 0]);
            assert_eq!(bytes(m, 0x2_fffc, 4), [0x55; 4]);
        });
        let guest = context.guest(code(|a| a.rep().stosw().unwrap()));
        let guest = guest.setup(set).setup(|s| s.gpr[RDI] = 0xfffb);
        guest.run(|m| {
            assert_eq!(Record::of(m).vector, 13);
            assert_eq!(m.state().gpr[RCX] & 0xffff, 6);
            assert_eq!(m.state().gpr[RDI] & 0xffff, 0xffff);
        });
    }
}
