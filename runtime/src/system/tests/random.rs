//! Random descriptor tables and selectors against the literal model.

use super::model::{Jump, Loaded, Model};
use super::*;

/// A machine in a random mode with random tables, and what the model sees of it.
pub(super) fn machine(r: &mut Random) -> (Guest, Model) {
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

pub(super) fn selector(r: &mut Random) -> u16 {
    if r.one_in(32) {
        r.next() as u16
    } else {
        r.below(0x180) as u16
    }
}

/// An outcome as the model has it.
pub(super) fn refusal(fault: Fault) -> (u8, u32) {
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

/// What a far jump did.
fn landed(g: &Guest) -> Jump {
    if g.state.sys.tr.selector == TSS_SEL {
        Jump::To(g.state.seg_sel[1], g.state.rip)
    } else {
        Jump::Task(g.state.sys.tr.selector)
    }
}

#[test]
fn jumps_go_where_the_manual_says() {
    let mut r = Random(0x1234_5678_9abc_def3);
    let mut seen = [0; 3];
    for _ in 0..8000 {
        let (mut g, model) = machine(&mut r);
        let size = if model.bits64 { [2, 4, 8] } else { [2, 4, 4] }[r.below(3) as usize];
        let selector = selector(&mut r);
        let offset = r.next() << r.below(2) & !0 >> r.below(64);
        let mut expected = model.jump(size, selector, offset);
        if let Ok(Jump::Task(tss)) = expected
            && let Some(refused) = model.short_task(tss)
        {
            expected = Err(refused);
        }
        let jump = op(SystemKind::JmpFar, size, 0, 0);
        let got = g.run(jump, selector.into(), offset);
        let got = got.map(|_| landed(&g)).map_err(refusal);
        assert_eq!(got, expected, "{selector:#x}:{offset:#x}");
        seen[match got {
            Ok(Jump::To(..)) => 0,
            Ok(Jump::Task(_)) => 1,
            Err(_) => 2,
        }] += 1;
    }
    assert!(seen.iter().all(|&n| n > 20), "{seen:?}");
}

#[test]
fn nothing_random_panics_or_leaves_the_levels() {
    let mut r = Random(0x1234_5678_9abc_def4);
    let kinds = [
        SystemKind::CallFar,
        SystemKind::JmpFar,
        SystemKind::RetFar,
        SystemKind::Iret,
        SystemKind::Int,
        SystemKind::Lldt,
        SystemKind::Ltr,
        SystemKind::LoadFar,
        SystemKind::Syscall,
        SystemKind::Sysret,
        SystemKind::Sysenter,
        SystemKind::Sysexit,
        SystemKind::Rsm,
    ];
    for _ in 0..8000 {
        let (mut g, _) = machine(&mut r);
        for n in 0..64 {
            let attributes = r.next() as u32 & 0xff;
            let raw = gate(
                selector(&mut r),
                r.next() as u32,
                attributes,
                r.next() as u8,
            );
            g.put(IDT + 8 * n, raw);
        }
        for at in (0..0x80).step_by(2) {
            g.put16(TSS + at, selector(&mut r));
        }
        g.state.gpr[4] = 0x8000;
        for at in (0x7f00..0x8100).step_by(2) {
            g.put16(at, selector(&mut r));
        }
        g.state.set_rflags(r.next());
        g.state.sys.smm = r.one_in(4);
        g.state.sys.cr0 ^= u64::from(r.one_in(4));
        for _ in 0..4 {
            let kind = kinds[r.below(kinds.len() as u64) as usize];
            let size = [2, 4, 8][r.below(3) as usize];
            let op = op(kind, size, r.next() as u8, r.next() as u8);
            let a = selector(&mut r).into();
            let outcome = carry_out(&g.cx(), op, a, r.next(), NEXT);
            if let Err(fault) = outcome {
                let source = Source::Exception;
                interrupt::deliver(&g.cx(), Event { fault, source });
            }
            assert!(g.state.sys.cpl < 4);
        }
    }
}
