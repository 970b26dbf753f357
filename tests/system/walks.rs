//! Every kind of access through every format of paging structures, with each bit that matters in
//! each entry, against the manual's rules written out (SDM volume 3, 4.6 and 4.7).

use crate::contexts::Context;
use crate::harness::{CODE, Guest, assemble, engines, word};
use crate::tables::{PAGES, Record};
use iced_x86::code_asm::*;
use metaphrase_runtime::system::{cr0, cr4, efer};
use metaphrase_runtime::{CpuState, Machine, MachineStop};

/// The physical page that is accessed; it holds UD2.
const TARGET: u64 = 0x40_0000;
/// The structures of the low addresses, which code and handlers use.
const LOW: u64 = PAGES + 0x2_0000;
/// The structures under test.
const TESTED: u64 = PAGES + 0x3_0000;
/// RFLAGS.AC.
const AC: u64 = 1 << 18;

const P: u64 = 1;
const RW: u64 = 2;
const US: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
const PS: u64 = 0x80;
const NX: u64 = 1 << 63;
const ALL: u64 = P | RW | US;

/// A format of paging structures, with one page mapped.
struct Format {
    name: &'static str,
    context: fn(u8) -> Context,
    /// Bytes of an entry.
    width: u64,
    /// Where the entries of the walk are, from the top, and what they hold.
    entries: Vec<(u64, u64)>,
    /// The linear address that they map to [`TARGET`].
    linear: u64,
    /// CR3, CR4 and the top entries of PAE paging.
    registers: (u64, u64, [u64; 4]),
    /// The entries that map the first 2 MiB to themselves, but for the last level.
    low: Vec<(u64, u64)>,
}

fn formats() -> Vec<Format> {
    let [one, two, three] = [0x1000, 0x2000, 0x3000].map(|n| TESTED + n);
    let (low_one, low_two) = (LOW + 0x1000, LOW + 0x2000);
    let legacy = |name, entries| Format {
        name,
        context: Context::Protected32,
        width: 4,
        entries,
        linear: 0x4000_0000,
        registers: (TESTED, cr4::PSE, [0; 4]),
        low: vec![(TESTED, LOW | ALL)],
    };
    let pae = |name, entries| Format {
        name,
        context: Context::Protected32,
        width: 8,
        entries,
        linear: 0x4000_0000,
        registers: (TESTED, cr4::PAE, [low_one | P, one | P, 0, 0]),
        low: vec![(low_one, LOW | ALL)],
    };
    let long = |name, entries, offset| Format {
        name,
        context: Context::Long,
        width: 8,
        entries,
        linear: (1 << 39) + offset,
        registers: (TESTED, cr4::PAE, [0; 4]),
        low: vec![
            (TESTED, low_two | ALL),
            (low_two, low_one | ALL),
            (low_one, LOW | ALL),
        ],
    };
    let top = TESTED + 8;
    vec![
        legacy(
            "4 KiB",
            vec![(TESTED + 4 * 256, one | ALL), (one, TARGET | ALL)],
        ),
        legacy("4 MiB", vec![(TESTED + 4 * 256, TARGET | ALL | PS)]),
        pae("PAE, 4 KiB", vec![(one, two | ALL), (two, TARGET | ALL)]),
        pae("PAE, 2 MiB", vec![(one, TARGET | ALL | PS)]),
        long(
            "4 levels, 4 KiB",
            vec![
                (top, one | ALL),
                (one, two | ALL),
                (two, three | ALL),
                (three, TARGET | ALL),
            ],
            0,
        ),
        long(
            "4 levels, 2 MiB",
            vec![(top, one | ALL), (one, two | ALL), (two, TARGET | ALL | PS)],
            0,
        ),
        long("1 GiB", vec![(top, one | ALL), (one, ALL | PS)], TARGET),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Read,
    Write,
    Fetch,
}

/// What decides whether an access is allowed, besides the entries.
#[derive(Clone, Copy, Debug)]
struct Rules {
    kind: Kind,
    cpl: u8,
    wp: bool,
    smep: bool,
    smap: bool,
    ac: bool,
}

/// The error code, or nothing if the access is allowed.
fn refusal(rules: Rules, entries: &[u64], pae: bool) -> Option<u32> {
    let all = entries.iter().fold(u64::MAX, |all, e| all & e);
    let any = entries.iter().fold(0, |any, e| any | e);
    let (write, fetch) = (rules.kind == Kind::Write, rules.kind == Kind::Fetch);
    let user = rules.cpl == 3;
    let error =
        u32::from(write) << 1 | u32::from(user) << 2 | u32::from(fetch && (pae || rules.smep)) << 4;
    if all & P == 0 {
        return Some(error);
    }
    let (users, writable, never) = (all & US != 0, all & RW != 0, any & NX != 0);
    let refused = if user {
        !users || write && !writable || fetch && never
    } else {
        write && !writable && rules.wp
            || fetch && (never || users && rules.smep)
            || !fetch && users && rules.smap && !rules.ac
    };
    refused.then_some(error | 1)
}

fn write_entry(machine: &Machine, width: u64, (at, value): (u64, u64)) {
    let bytes = value.to_le_bytes();
    machine.memory().write_bytes(at, &bytes[..width as usize]);
}

/// Sets the registers of one case.
fn set(s: &mut CpuState, format: &Format, rules: Rules) {
    let (top, more, pdpte) = format.registers;
    let flag = |on: bool, bit: u64| if on { bit } else { 0 };
    s.sys.cr3 = top;
    s.sys.pdpte = pdpte;
    s.sys.cr4 = more | flag(rules.smep, cr4::SMEP) | flag(rules.smap, cr4::SMAP);
    s.sys.cr0 |= cr0::PG | flag(rules.wp, cr0::WP);
    s.sys.efer |= efer::NXE;
    s.gpr[3] = format.linear;
    s.set_rflags(s.rflags() | flag(rules.ac, AC));
}

fn all_rules() -> Vec<Rules> {
    let mut out = Vec::new();
    for kind in [Kind::Read, Kind::Write, Kind::Fetch] {
        for cpl in [0, 3] {
            for bits in 0..16 {
                let bit = |n: u32| bits >> n & 1 != 0;
                out.push(Rules {
                    kind,
                    cpl,
                    wp: bit(0),
                    smep: bit(1),
                    smap: bit(2),
                    ac: bit(3),
                });
            }
        }
    }
    out
}

/// The entries of the walk with one bit of one entry changed, or none.
fn variants(format: &Format) -> Vec<Vec<(u64, u64)>> {
    let mut out = vec![format.entries.clone()];
    for n in 0..format.entries.len() {
        for bit in [P, RW, US, NX] {
            if bit == NX && format.width == 4 {
                continue;
            }
            let mut entries = format.entries.clone();
            entries[n].1 ^= bit;
            out.push(entries);
        }
    }
    out
}

fn guest(format: &Format, kind: Kind, cpl: u8) -> (Guest, u32) {
    let context = (format.context)(cpl);
    let write = |a: &mut CodeAssembler| match (kind, a.bitness()) {
        (Kind::Read, 64) => a.mov(al, byte_ptr(rbx)).unwrap(),
        (Kind::Write, 64) => a.mov(byte_ptr(rbx), al).unwrap(),
        (Kind::Fetch, 64) => a.jmp(rbx).unwrap(),
        (Kind::Read, _) => a.mov(al, byte_ptr(ebx)).unwrap(),
        (Kind::Write, _) => a.mov(byte_ptr(ebx), al).unwrap(),
        (Kind::Fetch, _) => a.jmp(ebx).unwrap(),
    };
    let length = assemble(context.bits(), CODE, write).len() as u32;
    let code = assemble(context.bits(), CODE, |a| {
        write(a);
        a.ud2().unwrap();
    });
    (context.guest(code), length)
}

fn check(format: &Format, engine: usize) {
    for kind in [Kind::Read, Kind::Write, Kind::Fetch] {
        for cpl in [0, 3] {
            let (guest, length) = guest(format, kind, cpl);
            let (name, options) = engines().swap_remove(engine);
            let mut machine = guest.machine(options);
            let mine = |r: &Rules| r.kind == kind && r.cpl == cpl;
            for rules in all_rules().into_iter().filter(mine) {
                for entries in variants(format) {
                    let what = format!("{name}, {}: {rules:?} {entries:x?}", format.name);
                    machine.reset();
                    machine.memory().write_bytes(TARGET, &[0x0f, 0x0b]);
                    for page in 0..512 {
                        // Of the user: the code alone.
                        let user = if cpl == 3 && page == CODE >> 12 {
                            US
                        } else {
                            0
                        };
                        let at = LOW + page * format.width;
                        write_entry(&machine, format.width, (at, page << 12 | P | RW | user));
                    }
                    for &entry in format.low.iter().chain(&entries) {
                        write_entry(&machine, format.width, entry);
                    }
                    guest.registers(&mut machine);
                    set(machine.state_mut(), format, rules);
                    machine.touch();
                    let stop = machine.run(1000).expect("it runs");
                    assert_eq!(stop, MachineStop::Halted, "{what}");
                    let values: Vec<u64> = entries.iter().map(|&(_, value)| value).collect();
                    let refused = refusal(rules, &values, format.width == 8);
                    let record = Record::of(&machine);
                    let (here, there) = (CODE as u32, format.linear as u32);
                    let expected = match (refused, kind) {
                        (Some(error), Kind::Fetch) => (14, error, there),
                        (Some(error), _) => (14, error, here),
                        (None, Kind::Fetch) => (6, u32::MAX, there),
                        (None, _) => (6, u32::MAX, here + length),
                    };
                    let seen = (record.vector, record.error, record.ip);
                    assert_eq!(seen, expected, "{what}");
                    if refused.is_some() {
                        assert_eq!(record.cr2, there, "{what}");
                        continue;
                    }
                    let last = entries.len() - 1;
                    for (n, &(at, value)) in entries.iter().enumerate() {
                        let dirty = n == last && kind == Kind::Write;
                        let expected = value | A | if dirty { D } else { 0 };
                        assert_eq!(word(&machine, at), expected as u32, "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn in_the_interpreter() {
    for format in formats() {
        check(&format, 0);
    }
}

#[test]
fn in_compiled_code() {
    for format in formats() {
        check(&format, 1);
    }
}
