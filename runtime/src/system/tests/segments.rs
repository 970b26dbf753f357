//! Segment loads, LLDT, LTR, and the check of an access, case by case.

use super::*;
use metaphrase_ir::SegmentAccess;

const DATA: u32 = attr::S | attr::RW | attr::ACCESSED;
const CODE: u32 = DATA | attr::CODE;

fn load(g: &mut Guest, n: u8, selector: u16) -> Outcome {
    g.run(op(SystemKind::LoadSegment, 2, n, 0), selector.into(), 0)
}

#[test]
fn real_mode_changes_selector_and_base_alone() {
    let mut g = Guest::new();
    g.state.sys.seg_limit[3] = 0xffff_ffff;
    g.state.sys.seg_attr[3] |= attr::G | attr::DB;
    let attributes = g.state.sys.seg_attr[3];
    load(&mut g, 3, 0x1234).unwrap();
    assert_eq!(g.state.seg_sel[3], 0x1234);
    assert_eq!(g.state.seg_base[3], 0x12340);
    assert_eq!(g.state.sys.seg_limit[3], 0xffff_ffff);
    assert_eq!(g.state.sys.seg_attr[3], attributes);
    assert_eq!(g.state.rip, NEXT);
}

#[test]
fn a_null_segment_is_unusable_and_a_real_mode_load_makes_it_usable() {
    let mut g = Guest::protected();
    load(&mut g, 3, 3).unwrap();
    let read = SegmentAccess {
        fetch: false,
        segment: 3,
        size: 1,
        write: false,
    };
    assert_eq!(segment::check(&g.cx(), read, 0), Err(Fault::gp(0)));
    g.state.sys.cr0 &= !cr0::PE;
    load(&mut g, 3, 3).unwrap();
    assert_eq!(segment::check(&g.cx(), read, 0), Ok(()));
    assert_eq!(g.state.sys.seg_limit[3], 0xffff_ffff);
}

#[test]
fn virtual_8086_segments_have_64_kib() {
    let mut g = Guest::protected();
    g.level(3);
    g.state.sysflags |= metaphrase_ir::sysflags::VM;
    load(&mut g, 0, 0xb800).unwrap();
    assert_eq!(g.state.seg_base[0], 0xb8000);
    assert_eq!(g.state.sys.seg_limit[0], 0xffff);
    assert_eq!(g.state.sys.seg_attr[0], 0xf3);
}

#[test]
fn a_load_of_ss_casts_a_shadow_and_lss_does_not() {
    let mut g = Guest::protected();
    load(&mut g, 2, DATA0).unwrap();
    assert_eq!(g.state.sys.shadow, Shadow::MovSs);
    assert!(g.state.sys.look);
    g.state.sys.shadow = Shadow::None;
    g.state.gpr[5] = !0;
    let lss = op(SystemKind::LoadFar, 2, 2, 5);
    g.run(lss, DATA0.into(), 0x1_5678).unwrap();
    assert_eq!(g.state.sys.shadow, Shadow::None);
    assert_eq!(g.state.gpr[5], 0xffff_ffff_ffff_5678);
    g.run(op(SystemKind::PopSegment, 4, 2, 0), DATA0.into(), !0)
        .unwrap();
    assert_eq!(g.state.sys.shadow, Shadow::MovSs);
    assert_eq!(g.state.gpr[4], 0xffff_ffff);
}

#[test]
fn loads_check_and_say_why() {
    let mut g = Guest::protected();
    let sel = FREE;
    let code = u32::from(sel);
    let cases = [
        // n, CPL, RPL, attributes, outcome.
        (3, 0, 0, present(DATA, 0), Ok(0)),
        (3, 0, 3, present(DATA, 0), Err(Fault::gp(code))),
        (3, 3, 0, present(DATA, 0), Err(Fault::gp(code))),
        (3, 3, 3, present(DATA, 3), Ok(0)),
        (3, 3, 3, present(CODE, 0), Err(Fault::gp(code))),
        (3, 3, 3, present(CODE | attr::DC, 0), Ok(0)),
        (3, 0, 0, present(CODE & !attr::RW, 0), Err(Fault::gp(code))),
        (3, 0, 0, DATA, Err(Fault::np(code))),
        (3, 0, 0, present(2, 0), Err(Fault::gp(code))),
        (2, 0, 0, present(DATA, 0), Ok(0)),
        (2, 0, 0, DATA, Err(Fault::ss(code))),
        (2, 0, 0, present(DATA & !attr::RW, 0), Err(Fault::gp(code))),
        (2, 0, 0, present(DATA, 3), Err(Fault::gp(code))),
        (2, 0, 3, present(DATA, 3), Err(Fault::gp(code))),
        (2, 0, 0, present(CODE, 0), Err(Fault::gp(code))),
        (1, 0, 0, present(CODE, 0), Err(Fault::UD)),
    ];
    for (n, cpl, rpl, attributes, outcome) in cases {
        g.define(sel, descriptor(0x1000, 0xff, attributes));
        g.level(cpl);
        let got = load(&mut g, n, sel | rpl);
        assert_eq!(got, outcome, "n {n} CPL {cpl} RPL {rpl} {attributes:#x}");
    }
    assert_eq!(load(&mut g, 2, 0), Err(Fault::gp(0)));
    assert_eq!(load(&mut g, 3, 0x1000), Err(Fault::gp(0x1000)));
}

#[test]
fn loads_set_the_accessed_bit_once() {
    let mut g = Guest::protected();
    let raw = descriptor(0x1234_5678, 0xabcde, present(DATA & !1, 0) | attr::G);
    g.define(FREE, raw);
    load(&mut g, 0, FREE).unwrap();
    assert_eq!(g.get(GDT + u64::from(FREE)), raw | 1 << 40);
    assert_eq!(g.state.seg_base[0], 0x1234_5678);
    assert_eq!(g.state.sys.seg_limit[0], 0xabcd_efff);
    assert_eq!(g.state.sys.seg_attr[0], 0x8093);
}

#[test]
fn a_null_ss_is_for_the_inner_levels_of_64_bit_code() {
    let mut g = Guest::long();
    load(&mut g, 2, 0).unwrap();
    assert_eq!(load(&mut g, 2, 1), Err(Fault::gp(0)));
    g.level(3);
    assert_eq!(load(&mut g, 2, 3), Err(Fault::gp(0)));
    g.level(0);
    g.cache(1, CODE0);
    assert_eq!(load(&mut g, 2, 0), Err(Fault::gp(0)));
}

#[test]
fn lldt_and_ltr() {
    let mut g = Guest::protected();
    let lldt = op(SystemKind::Lldt, 0, 0, 0);
    let ltr = op(SystemKind::Ltr, 0, 0, 0);
    g.run(lldt, 0, 0).unwrap();
    assert_eq!(g.state.sys.ldtr.attr & attr::P, 0);
    assert_eq!(load(&mut g, 3, 4), Err(Fault::gp(4)));
    g.run(lldt, LDT_SEL.into(), 0).unwrap();
    assert_eq!(g.state.sys.ldtr.base, LDT);
    assert_eq!(g.run(lldt, DATA0.into(), 0), Err(Fault::gp(0x10)));
    // The TSS is busy.
    assert_eq!(g.run(ltr, TSS_SEL.into(), 0), Err(Fault::gp(0x28)));
    assert_eq!(g.run(ltr, 3, 0), Err(Fault::gp(0)));
    g.define(FREE, descriptor(0x5000, 0x67, present(9, 0)));
    g.run(ltr, FREE.into(), 0).unwrap();
    assert_eq!(g.state.sys.tr.attr, 0x8b);
    assert_eq!(g.get(GDT + u64::from(FREE)) >> 40 & 0xff, 0x8b);
    g.level(3);
    assert_eq!(g.run(ltr, FREE.into(), 0), Err(Fault::gp(0)));
    assert_eq!(g.run(lldt, 0, 0), Err(Fault::gp(0)));
    let mut g = Guest::new();
    assert_eq!(g.run(lldt, 0, 0), Err(Fault::UD));
}

#[test]
fn system_bases_have_64_bits_in_ia32e_mode() {
    let mut g = Guest::long();
    let ltr = op(SystemKind::Ltr, 0, 0, 0);
    g.define(FREE, descriptor(0x9abc_def0, 0x67, present(9, 0)));
    g.put(GDT + u64::from(FREE) + 8, 0xffff_8123);
    g.run(ltr, FREE.into(), 0).unwrap();
    assert_eq!(g.state.sys.tr.base, 0xffff_8123_9abc_def0);
    g.define(FREE, descriptor(0x9abc_def0, 0x67, present(9, 0)));
    g.put(GDT + u64::from(FREE) + 8, 0x8123);
    assert_eq!(g.run(ltr, FREE.into(), 0), Err(Fault::gp(FREE.into())));
    // All sixteen bytes must be in the table.
    g.put(GDT + u64::from(FREE) + 8, 0);
    for (limit, outcome) in [(14, Err(Fault::gp(FREE.into()))), (15, Ok(0))] {
        g.state.sys.gdtr.limit = FREE + limit;
        assert_eq!(g.run(ltr, FREE.into(), 0), outcome, "limit {limit}");
    }
    g.state.sys.gdtr.limit = 0xfff;
    g.define(FREE, descriptor(0, 0x67, present(9, 0)));
    // Something else's type where zeros must be.
    g.define(FREE + 8, descriptor(0, 0, present(2, 0)));
    assert_eq!(g.run(ltr, FREE.into(), 0), Err(Fault::gp(FREE.into())));
}

#[test]
fn swapgs_is_for_64_bit_code_of_level_0() {
    let mut g = Guest::long();
    let swapgs = op(SystemKind::Swapgs, 0, 0, 0);
    g.state.sys.msr.kernel_gs_base = 0xffff_8000_0000_0000;
    g.state.seg_base[5] = 0x1000;
    g.run(swapgs, 0, 0).unwrap();
    assert_eq!(g.state.seg_base[5], 0xffff_8000_0000_0000);
    assert_eq!(g.state.sys.msr.kernel_gs_base, 0x1000);
    g.level(3);
    assert_eq!(g.run(swapgs, 0, 0), Err(Fault::gp(0)));
    g.cache(1, CODE3);
    assert_eq!(g.run(swapgs, 0, 0), Err(Fault::UD));
}

#[test]
fn accesses_are_checked_against_limit_and_type() {
    let mut g = Guest::protected();
    let access = |segment, size, write| SegmentAccess {
        fetch: false,
        segment,
        size,
        write,
    };
    let mut with = |attributes: u32, limit: u32, a: SegmentAccess, offset: u64| {
        let n = usize::from(a.segment);
        g.state.sys.seg_attr[n] = attributes;
        g.state.sys.seg_limit[n] = limit;
        segment::check(&g.cx(), a, offset)
    };
    let gp = Err(Fault::gp(0));
    let data = present(DATA, 0);
    assert_eq!(with(data, 0xff, access(3, 4, true), 0xfc), Ok(()));
    assert_eq!(with(data, 0xff, access(3, 4, true), 0xfd), gp);
    assert_eq!(
        with(data, 0xff, access(2, 4, true), 0xfd),
        Err(Fault::ss(0))
    );
    assert_eq!(with(data & !attr::RW, 0xff, access(3, 1, true), 0), gp);
    assert_eq!(with(data & !attr::RW, 0xff, access(3, 1, false), 0), Ok(()));
    assert_eq!(
        with(data, 0xffff_fffe, access(3, 2, false), 0xffff_fffe),
        gp
    );
    let code = present(CODE, 0);
    assert_eq!(with(code, 0xff, access(1, 1, false), 0), Ok(()));
    assert_eq!(with(code, 0xff, access(1, 1, true), 0), gp);
    assert_eq!(with(code & !attr::RW, 0xff, access(1, 1, false), 0), gp);
    let down = data | attr::DC;
    assert_eq!(with(down, 0xff, access(3, 1, true), 0xff), gp);
    assert_eq!(with(down, 0xff, access(3, 1, true), 0x100), Ok(()));
    assert_eq!(with(down, 0xff, access(3, 2, true), 0xffff), gp);
    assert_eq!(
        with(down | attr::DB, 0xff, access(3, 2, true), 0xffff),
        Ok(())
    );
    assert_eq!(
        with(down | attr::DB, 0xff, access(3, 2, true), 0xffff_ffff),
        gp
    );
    assert_eq!(with(0, 0xffff_ffff, access(3, 1, false), 0), gp);
}
