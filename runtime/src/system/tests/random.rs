//! Random descriptor tables and selectors against the literal model.

use super::model::{Loaded, Model};
use super::*;

/// A machine in a random mode with random tables, and what the model sees of it.
fn machine(r: &mut Random) -> (Guest, Model) {
    let ia32e = r.one_in(3);
    let mut g = if ia32e {
        Guest::long()
    } else {
        Guest::protected()
    };
    let cpl = r.below(4) as u8;
    let bits64 = ia32e && r.one_in(2);
    g.level(if cpl == 3 { 3 } else { 0 });
    if !bits64 {
        g.cache(1, CODE0);
    }
    g.state.sys.cpl = cpl;
    g.cx().changed();
    let sys = &mut g.state.sys;
    sys.gdtr.limit = (0x60 + r.below(0x120)) as u16;
    sys.ldtr.limit = r.below(0x120) as u32;
    if r.one_in(8) {
        sys.ldtr.attr = 0;
    }
    for table in [GDT, LDT] {
        for n in 0..64 {
            let raw = random_descriptor(r);
            g.put(table + 8 * n, raw);
        }
    }
    let bytes = |at: u64, limit: u32| {
        let mut bytes = vec![0; limit as usize + 1];
        g.phys().read_bytes(at, &mut bytes);
        bytes
    };
    let sys = &g.state.sys;
    let ldt = (sys.ldtr.attr & attr::P != 0).then(|| bytes(LDT, sys.ldtr.limit));
    let model = Model {
        gdt: bytes(GDT, sys.gdtr.limit.into()),
        ldt,
        cpl: cpl.into(),
        ia32e,
        bits64,
    };
    (g, model)
}

/// Mostly present, of every type; gates that lead to selectors nearby, and zeros now and then, as
/// the upper halves of sixteen-byte ones need them.
fn random_descriptor(r: &mut Random) -> u64 {
    if r.one_in(4) {
        return r.below(0x2_0000) * if r.one_in(2) { 1 } else { 0 };
    }
    let attributes = r.next() as u32 & 0xf07f | if r.one_in(4) { 0 } else { attr::P };
    if attributes & attr::S == 0 && r.one_in(2) {
        return gate(selector(r), r.next() as u32, attributes, 0);
    }
    descriptor(r.next() as u32, r.next() as u32 & 0xfffff, attributes)
}

fn selector(r: &mut Random) -> u16 {
    if r.one_in(32) {
        r.next() as u16
    } else {
        r.below(0x180) as u16
    }
}

/// An outcome as the model has it.
fn refusal(fault: Fault) -> (u8, u32) {
    (fault.vector, fault.error.unwrap_or(u32::MAX))
}

#[test]
fn loads_as_the_manual_says() {
    let mut r = Random(0x1234_5678_9abc_def1);
    for _ in 0..4000 {
        let (mut g, model) = machine(&mut r);
        for _ in 0..8 {
            let n = [0, 2, 3, 4, 5][r.below(5) as usize];
            let selector = selector(&mut r);
            let expected = model.load(n == 2, selector);
            let load = op(SystemKind::LoadSegment, 2, n, 0);
            let got = g.run(load, selector.into(), 0);
            let n = usize::from(n);
            let got = got.map_err(refusal).map(|_| {
                let sys = &g.state.sys;
                assert_eq!(g.state.seg_sel[n], selector);
                let (attributes, limit) = (sys.seg_attr[n], sys.seg_limit[n]);
                if attributes & attr::P == 0 {
                    Loaded::Null
                } else {
                    Loaded::Segment(g.state.seg_base[n], limit.into(), attributes as u8)
                }
            });
            assert_eq!(got, expected, "register {n}, selector {selector:#x}");
        }
    }
}

#[test]
fn descriptors_are_examined_as_the_manual_says() {
    let mut r = Random(0x1234_5678_9abc_def2);
    for _ in 0..4000 {
        let (mut g, model) = machine(&mut r);
        for _ in 0..16 {
            let which = r.below(4) as u8;
            let selector = selector(&mut r);
            let expected = model.info(which, selector);
            let info = op(SystemKind::SegmentInfo, 4, which, 0);
            let got = g.run(info, selector.into(), 0).unwrap();
            let got = (got >> 32 != 0).then_some(got & 0xffff_ffff);
            assert_eq!(got, expected, "{which}, selector {selector:#x}");
        }
    }
}
