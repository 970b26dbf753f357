//! Invalidation of translations and caches.

use super::bench::Bench;
use crate::memory::paged::{Access, Rights};
use crate::system::Fault;
use crate::system::state::cr4;
use metaphrase_ir::SystemKind as Kind;

const GP: Fault = Fault::gp(0);

/// Where INVPCID's descriptor is.
const AT: u64 = 0x9000;

fn invpcid(bench: &mut Bench, kind: u64, context: u64, linear: u64) -> Result<u64, Fault> {
    bench.phys().write_bytes(AT, &context.to_le_bytes());
    bench.phys().write_bytes(AT + 8, &linear.to_le_bytes());
    bench.sized(Kind::Invpcid, 0, kind, AT)
}

/// Maps the linear page at 0x200000 elsewhere, without telling the CPU.
fn remap(bench: &Bench, to: u64, bits: u64) {
    let directory = bench.state.sys.cr3 + 0x2000;
    let entry = to | 0x87 | bits;
    bench
        .phys()
        .write_bytes(directory + 8, &entry.to_le_bytes());
}

fn translate(bench: &Bench) -> u64 {
    let paged = bench.env.memory.paged().unwrap();
    paged
        .translate(0x20_0000, Access::Read, Rights::Current)
        .unwrap()
}

#[test]
fn only_level_0_may() {
    for mut bench in [
        Bench::new().protected(3),
        Bench::new().long(1),
        Bench::new().v86(3),
    ] {
        for kind in [Kind::Invlpg, Kind::Invpcid, Kind::Wbinvd] {
            assert_eq!(bench.plain(kind, 0), Err(GP), "{kind:?}");
        }
    }
    let mut bench = Bench::new();
    for kind in [Kind::Invlpg, Kind::Wbinvd] {
        assert_eq!(bench.plain(kind, 0), Ok(0), "{kind:?}");
    }
}

#[test]
fn invlpg_drops_what_the_mapping_was() {
    let mut bench = Bench::new().long(0);
    assert_eq!(translate(&bench), 0x20_0000);
    remap(&bench, 0x40_0000, 0);
    bench.plain(Kind::Invlpg, 0x20_1234).unwrap();
    assert_eq!(translate(&bench), 0x40_0000);
    assert_eq!(bench.plain(Kind::Invlpg, 1 << 47), Ok(0), "not canonical");
}

#[test]
fn invpcid_drops_what_the_mapping_was() {
    for kind in 0..4 {
        let mut bench = Bench::new().long(0);
        assert_eq!(translate(&bench), 0x20_0000);
        remap(&bench, 0x60_0000, 0);
        invpcid(&mut bench, kind, 0, 0x20_0000).unwrap();
        assert_eq!(translate(&bench), 0x60_0000, "type {kind}");
    }
}

/// What the model's physical addresses and pages do not have is reserved.
#[test]
fn the_model_says_what_is_reserved() {
    const RESERVED: u32 = 9;
    let walk = |bench: &Bench, linear: u64| {
        let paged = bench.env.memory.paged().unwrap();
        paged.translate(linear, Access::Read, Rights::Current)
    };
    let gib = |model: &str| {
        let bench = Bench::with_cpu(model).long(0);
        let table = bench.state.sys.cr3 + 0x1000;
        bench.phys().write_bytes(table + 8, &0x83u64.to_le_bytes());
        walk(&bench, 1 << 30 | 0x1234)
    };
    assert_eq!(gib("max"), Ok(0x1234));
    let refused = Err(Fault::pf(1 << 30 | 0x1234, RESERVED));
    assert_eq!(gib("max,-pdpe1gb"), refused);
    // PAE: 36 bits of physical address, or 40.
    let pae = |model: &str, bit: u32| {
        let mut bench = Bench::with_cpu(model).protected(0);
        bench.phys().write_bytes(0x3000, &0x4001u64.to_le_bytes());
        let entry = 0x83u64 | 1 << bit;
        bench.phys().write_bytes(0x4000, &entry.to_le_bytes());
        bench.state.sys.cr3 = 0x3000;
        bench.numbered(Kind::WriteCr, 4, cr4::PAE).unwrap();
        bench.numbered(Kind::WriteCr, 0, 0x8000_0001).unwrap();
        walk(&bench, 0x1234)
    };
    let refused = Err(Fault::pf(0x1234, RESERVED));
    assert_eq!(pae("max", 39), Ok(1 << 39 | 0x1234));
    assert_eq!(pae("pentium3", 35), Ok(1 << 35 | 0x1234));
    assert_eq!(pae("pentium3", 36), refused);
    assert_eq!(pae("max", 40), refused);
    // PSE: bits 20 to 13 of the entry are bits 39 to 32 of the address.
    let pse = |model: &str, bit: u32| {
        let mut bench = Bench::with_cpu(model).protected(0);
        let entry = 0x83u32 | 1 << bit;
        bench.phys().write_bytes(0x4000, &entry.to_le_bytes());
        bench.state.sys.cr3 = 0x4000;
        bench.numbered(Kind::WriteCr, 4, cr4::PSE).unwrap();
        bench.numbered(Kind::WriteCr, 0, 0x8000_0001).unwrap();
        walk(&bench, 0x1234)
    };
    assert_eq!(pse("max", 20), Ok(1 << 39 | 0x1234));
    assert_eq!(pse("max", 21), refused);
    assert_eq!(pse("pentium3", 16), Ok(1 << 35 | 0x1234));
    assert_eq!(pse("pentium3", 17), refused);
    assert_eq!(pse("pentium", 13), refused);
    assert_eq!(pse("pentium", 22), Ok(1 << 22 | 0x1234));
}

#[test]
fn invpcid_checks_type_and_descriptor() {
    let mut bench = Bench::new().long(0);
    assert_eq!(invpcid(&mut bench, 4, 0, 0), Err(GP));
    assert_eq!(invpcid(&mut bench, 1 << 32, 0, 0), Err(GP));
    for kind in 0..4 {
        assert_eq!(invpcid(&mut bench, kind, 1 << 12, 0), Err(GP), "{kind}");
        // A context only exists with CR4.PCIDE; types 2 and 3 do not look at it.
        let expected = if kind < 2 { Err(GP) } else { Ok(0) };
        assert_eq!(invpcid(&mut bench, kind, 5, 0), expected, "{kind}");
        let expected = if kind == 0 { Err(GP) } else { Ok(0) };
        assert_eq!(invpcid(&mut bench, kind, 0, 1 << 47), expected, "{kind}");
    }
    bench.state.sys.cr4 |= cr4::PCIDE;
    for kind in 0..4 {
        assert_eq!(invpcid(&mut bench, kind, 5, 0), Ok(0), "{kind}");
    }
    let missing = bench.sized(Kind::Invpcid, 0, 2, 1 << 40).unwrap_err();
    assert_eq!((missing.vector, missing.addr), (14, 1 << 40));
    let mut old = Bench::with_cpu("max,-invpcid").long(0);
    assert_eq!(invpcid(&mut old, 2, 0, 0), Err(Fault::UD));
}
