//! Control registers.

use super::bench::Bench;
use crate::system::Fault;
use crate::system::state::{attr, cr0, cr4, efer};
use metaphrase_ir::{Reg, SystemKind as Kind};

const GP: Fault = Fault::gp(0);

fn write(bench: &mut Bench, n: u8, value: u64) -> Result<u64, Fault> {
    bench.numbered(Kind::WriteCr, n, value)
}

fn read(bench: &mut Bench, n: u8) -> u64 {
    bench.numbered(Kind::ReadCr, n, 0).unwrap()
}

#[test]
fn only_five_control_registers_exist() {
    for n in 0..=16 {
        let exists = matches!(n, 0 | 2 | 3 | 4 | 8);
        let mut bench = Bench::new();
        assert_eq!(bench.numbered(Kind::ReadCr, n, 0).is_ok(), exists, "CR{n}");
        let value = if n == 0 { cr0::ET } else { 0 };
        let outcome = bench.numbered(Kind::WriteCr, n, value);
        assert_eq!(outcome.err(), (!exists).then_some(Fault::UD), "CR{n}");
        let mut user = Bench::new().protected(3);
        let refused = if exists { GP } else { Fault::UD };
        assert_eq!(user.numbered(Kind::ReadCr, n, 0), Err(refused), "CR{n}");
        assert_eq!(
            user.numbered(Kind::WriteCr, n, value),
            Err(refused),
            "CR{n}"
        );
    }
}

#[test]
fn levels_above_0_are_refused() {
    for mut bench in [
        Bench::new().protected(1),
        Bench::new().long(3),
        Bench::new().v86(3),
    ] {
        for kind in [Kind::ReadCr, Kind::WriteCr, Kind::Clts, Kind::Lmsw] {
            assert_eq!(bench.plain(kind, 0), Err(GP), "{kind:?}");
        }
        assert_eq!(bench.plain(Kind::Smsw, 0), Ok(bench.state.sys.cr0));
        bench.state.sys.cr4 |= cr4::UMIP;
        assert_eq!(bench.plain(Kind::Smsw, 0), Err(GP));
    }
}

#[test]
fn cr0_bits_and_combinations() {
    let mut bench = Bench::new().protected(0);
    // ET stays, bits that do not exist stay clear.
    write(&mut bench, 0, 0xffff_ffff & !cr0::PG).unwrap();
    assert_eq!(read(&mut bench, 0), 0x6005_003f);
    write(&mut bench, 0, cr0::PE).unwrap();
    assert_eq!(read(&mut bench, 0), cr0::PE | cr0::ET);
    assert_eq!(write(&mut bench, 0, cr0::PG), Err(GP), "PG without PE");
    assert_eq!(write(&mut bench, 0, cr0::PE | cr0::NW), Err(GP));
    // Outside 64-bit code the upper half is not there.
    write(&mut bench, 0, 1 << 40 | cr0::PE).unwrap();
    let mut long = Bench::new().long(0);
    let now = long.state.sys.cr0;
    assert_eq!(write(&mut long, 0, now | 1 << 40), Err(GP));
    assert_eq!(write(&mut long, 0, now & !cr0::PE), Err(GP));
    assert_eq!(read(&mut long, 0), now);
    long.state.sys.mode_changed = false;
    write(&mut long, 0, now | cr0::TS).unwrap();
    assert!(long.state.sys.mode_changed);
    assert_eq!(long.state.rip, super::NEXT);
}

#[test]
fn long_mode_comes_and_goes_with_paging() {
    let ready = || {
        let mut bench = Bench::new().protected(0);
        bench.state.sys.efer = efer::LME;
        bench.state.sys.cr4 = cr4::PAE;
        bench
    };
    let paged = cr0::PE | cr0::PG;
    let mut bench = ready();
    write(&mut bench, 0, paged).unwrap();
    assert_eq!(bench.state.sys.efer, efer::LME | efer::LMA);
    // In compatibility mode paging can be turned off, in 64-bit mode not.
    bench.state.sys.seg_attr[1] |= attr::L;
    assert_eq!(write(&mut bench, 0, cr0::PE), Err(GP));
    bench.state.sys.seg_attr[1] &= !attr::L;
    bench.state.sys.cr4 |= cr4::PCIDE;
    assert_eq!(write(&mut bench, 0, cr0::PE), Err(GP));
    bench.state.sys.cr4 &= !cr4::PCIDE;
    assert_eq!(write(&mut bench, 4, 0), Err(GP), "PAE stays in long mode");
    write(&mut bench, 0, cr0::PE).unwrap();
    assert_eq!(bench.state.sys.efer, efer::LME);
    // What activation checks.
    let mut bench = ready();
    bench.state.sys.cr4 = 0;
    assert_eq!(write(&mut bench, 0, paged), Err(GP), "without PAE");
    let mut bench = ready();
    bench.state.sys.seg_attr[1] |= attr::L;
    assert_eq!(write(&mut bench, 0, paged), Err(GP), "with CS.L");
    let mut bench = ready();
    bench.state.sys.tr.attr = attr::P | 3;
    assert_eq!(write(&mut bench, 0, paged), Err(GP), "with a 16-bit TSS");
}

#[test]
fn pae_keeps_the_four_top_entries() {
    let put = |bench: &Bench, at: u64, entries: [u64; 4]| {
        for (n, entry) in entries.into_iter().enumerate() {
            bench
                .phys()
                .write_bytes(at + 8 * n as u64, &entry.to_le_bytes());
        }
    };
    let good = [0x10_0001, 0x11_0001, 0, 0x12_0019];
    let other = [0x20_0001, 0, 0, 0];
    let mut bench = Bench::new().protected(0);
    put(&bench, 0x3020, good);
    put(&bench, 0x4000, other);
    put(&bench, 0x5000, [0x10_0001, 0x10_0003, 0, 0]);
    // Reserved bits of entries that are not present do not matter.
    put(&bench, 0x6000, [0x10_0001, 0x1e6, u64::MAX - 1, 0]);
    write(&mut bench, 3, 0x3020).unwrap();
    assert_eq!(bench.state.sys.pdpte, [0; 4], "no paging yet");
    write(&mut bench, 4, cr4::PAE).unwrap();
    write(&mut bench, 0, cr0::PE | cr0::PG).unwrap();
    assert_eq!(bench.state.sys.pdpte, good);
    assert_eq!(bench.env.memory.paged().unwrap().context().pdpte, good);
    assert_eq!(write(&mut bench, 3, 0x5000), Err(GP));
    write(&mut bench, 3, 0x6000).unwrap();
    write(&mut bench, 3, 0x4000).unwrap();
    assert_eq!(bench.state.sys.pdpte, other);
    // Memory may change without the CPU noticing, until one of these writes.
    put(&bench, 0x4000, good);
    write(&mut bench, 4, cr4::PAE | cr4::TSD).unwrap();
    assert_eq!(bench.state.sys.pdpte, other);
    write(&mut bench, 4, cr4::PAE | cr4::PGE).unwrap();
    assert_eq!(bench.state.sys.pdpte, good);
    put(&bench, 0x4000, [3, 0, 0, 0]);
    write(&mut bench, 0, cr0::PE | cr0::PG | cr0::WP).unwrap();
    assert_eq!(write(&mut bench, 4, cr4::PAE), Err(GP));
    assert_eq!(write(&mut bench, 0, cr0::PE | cr0::PG | cr0::CD), Err(GP));
    for bit in [1, 2, 5, 6, 7, 8, 40, 63] {
        put(&bench, 0x4000, [0, 1 | 1 << bit, 0, 0]);
        assert_eq!(write(&mut bench, 3, 0x4000), Err(GP), "bit {bit}");
    }
    // A closed A20 hides bit 20 of the address.
    put(&bench, 0x10_4000, other);
    put(&bench, 0x4000, good);
    bench.state.sys.a20 = false;
    write(&mut bench, 3, 0x10_4000).unwrap();
    assert_eq!(bench.state.sys.pdpte, good);
}

#[test]
fn cr3_reserved_bits_and_process_contexts() {
    let mut bench = Bench::new().long(0);
    let top = bench.state.sys.cr3;
    assert_eq!(write(&mut bench, 3, top | 1 << 40), Err(GP));
    assert_eq!(
        write(&mut bench, 3, top | 1 << 63),
        Err(GP),
        "without PCIDE"
    );
    write(&mut bench, 3, top | 0x18).unwrap();
    assert_eq!(read(&mut bench, 3), top | 0x18);
    let now = bench.state.sys.cr4;
    assert_eq!(write(&mut bench, 4, now | cr4::PCIDE), Err(GP));
    write(&mut bench, 3, top).unwrap();
    write(&mut bench, 4, now | cr4::PCIDE).unwrap();
    write(&mut bench, 3, top | 5 | 1 << 63).unwrap();
    assert_eq!(read(&mut bench, 3), top | 5, "bit 63 is not kept");
    // With a context in CR3 PCIDE may stay set and may be cleared, not set again.
    write(&mut bench, 4, now | cr4::PCIDE | cr4::TSD).unwrap();
    write(&mut bench, 4, now).unwrap();
    assert_eq!(write(&mut bench, 4, now | cr4::PCIDE), Err(GP));
    let mut bench = Bench::new().protected(0);
    assert_eq!(
        write(&mut bench, 4, cr4::PCIDE),
        Err(GP),
        "outside long mode"
    );
}

#[test]
fn cr4_has_the_bits_of_the_model() {
    let bits = |model: &str| {
        let mut bench = Bench::with_cpu(model).protected(0);
        let settable = (0..32).filter(|&n| write(&mut bench, 4, 1 << n).is_ok());
        settable.fold(0u64, |all, n| all | 1 << n)
    };
    assert_eq!(bits("486"), 0);
    assert_eq!(bits("pentium"), 0x5f);
    assert_eq!(bits("pentium3"), 0x7ff);
    assert_eq!(
        bits("max"),
        0x35_0fff,
        "all but PCIDE, which wants long mode"
    );
    assert_eq!(bits("max,-smap,-umip"), 0x15_07ff);
    let mut long = Bench::new().long(0);
    let now = long.state.sys.cr4;
    assert_eq!(write(&mut long, 4, now | 1 << 33), Err(GP));
}

#[test]
fn cr8_and_cr2() {
    let mut bench = Bench::new().long(0);
    bench.state.sys.look = false;
    write(&mut bench, 8, 15).unwrap();
    assert!(bench.state.sys.look, "an interrupt may be possible now");
    assert_eq!(write(&mut bench, 8, 16), Err(GP));
    assert_eq!(read(&mut bench, 8), 15);
    write(&mut bench, 2, 0x1234_0000_0000_5678).unwrap();
    assert_eq!(read(&mut bench, 2), 0x1234_0000_0000_5678);
}

#[test]
fn lmsw_cannot_clear_pe_and_clts_clears_ts() {
    let mut bench = Bench::new();
    let other = bench.state.sys.cr0;
    bench.plain(Kind::Lmsw, 0xfff1).unwrap();
    assert_eq!(bench.state.sys.cr0, other | 1);
    bench.plain(Kind::Lmsw, 0x000e).unwrap();
    assert_eq!(bench.state.sys.cr0, other | 0xf);
    bench.plain(Kind::Clts, 0).unwrap();
    assert_eq!(bench.state.sys.cr0, other | 7);
    bench.plain(Kind::Lmsw, 0).unwrap();
    assert_eq!(bench.state.sys.cr0, other | 1);
}

#[test]
fn xsetbv_checks_the_components() {
    let mut bench = Bench::new().protected(0);
    let mut set = |number: u64, value: u64, osxsave: bool, cpl: u8| {
        bench.state.sys.cr4 = if osxsave { cr4::OSXSAVE } else { 0 };
        bench.state.sys.cpl = cpl;
        bench.set(Reg::Rcx, number);
        bench.set(Reg::Rdx, value >> 32);
        bench.set(Reg::Rax, value);
        bench.plain(Kind::Xsetbv, 0)?;
        Ok(bench.state.sys.xcr0)
    };
    assert_eq!(set(0, 7, false, 0), Err(Fault::UD));
    assert_eq!(set(0, 7, false, 3), Err(Fault::UD));
    assert_eq!(set(0, 7, true, 3), Err(GP));
    for value in [1, 3, 7] {
        assert_eq!(set(0, value, true, 0), Ok(value));
    }
    for value in [0, 2, 6, 5, 15, 1 << 32 | 7] {
        assert_eq!(set(0, value, true, 0), Err(GP), "{value:#x}");
    }
    assert_eq!(set(1, 7, true, 0), Err(GP));
    let mut old = Bench::with_cpu("max,-xsave");
    old.state.sys.cr4 = cr4::OSXSAVE;
    old.set(Reg::Rax, 1);
    assert_eq!(old.plain(Kind::Xsetbv, 0), Err(Fault::UD));
}
