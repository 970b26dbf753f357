//! Descriptor-table registers.

use super::bench::Bench;
use crate::system::Fault;
use crate::system::state::cr4;
use metaphrase_ir::SystemKind as Kind;

const GP: Fault = Fault::gp(0);

#[test]
fn tables_are_loaded_with_the_base_that_the_mode_has() {
    for (load, base, limit) in [
        (Kind::Lgdt, Kind::GdtBase, Kind::GdtLimit),
        (Kind::Lidt, Kind::IdtBase, Kind::IdtLimit),
    ] {
        let value = 0x1234_5678_9abc;
        let loaded = |bench: &mut Bench, size: u8, value: u64| {
            bench.sized(load, size, 0x1_00ff, value)?;
            assert_eq!(bench.plain(limit, 0), Ok(0xff));
            bench.plain(base, 0)
        };
        let mut bench = Bench::new();
        assert_eq!(loaded(&mut bench, 2, value), Ok(0x78_9abc));
        assert_eq!(loaded(&mut bench, 4, value), Ok(0x5678_9abc));
        let mut long = Bench::new().long(0);
        assert_eq!(loaded(&mut long, 8, value), Ok(value));
        let high = 0xffff_8000_0000_0000;
        assert_eq!(loaded(&mut long, 8, high), Ok(high));
        assert_eq!(loaded(&mut long, 8, 1 << 47), Err(GP));
        for mut bench in [
            Bench::new().protected(1),
            Bench::new().long(3),
            Bench::new().v86(3),
        ] {
            assert_eq!(bench.sized(load, 4, 0, 0), Err(GP));
        }
    }
}

#[test]
fn stores_are_for_everybody_without_umip() {
    let everywhere = [Kind::GdtBase, Kind::GdtLimit, Kind::IdtBase, Kind::IdtLimit];
    let protected = [Kind::Sldt, Kind::Str];
    let mut bench = Bench::new().protected(3);
    bench.state.sys.ldtr.selector = 0x28;
    bench.state.sys.tr.selector = 0x30;
    assert_eq!(bench.plain(Kind::Sldt, 0), Ok(0x28));
    assert_eq!(bench.plain(Kind::Str, 0), Ok(0x30));
    for kind in everywhere.into_iter().chain(protected) {
        let has_descriptors = protected.contains(&kind);
        let undefined = if has_descriptors {
            Err(Fault::UD)
        } else {
            Ok(())
        };
        for (umip, user) in [(false, Ok(())), (true, Err(GP))] {
            let check = |mut bench: Bench, expected: Result<(), Fault>| {
                if umip {
                    bench.state.sys.cr4 |= cr4::UMIP;
                }
                assert_eq!(bench.plain(kind, 0).map(drop), expected, "{kind:?} {umip}");
            };
            check(Bench::new(), undefined);
            check(Bench::new().protected(0), Ok(()));
            check(Bench::new().protected(3), user);
            check(Bench::new().long(1), user);
            check(Bench::new().v86(3), undefined.and(user));
        }
    }
}
