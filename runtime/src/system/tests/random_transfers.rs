//! Random tables, stacks and frames: far CALL, RET, INT n and IRET against the literal model.

use super::random::{machine, refusal, selector};
use super::world::{Registers, World};
use super::*;

/// Where the current stack is.
const STACK: u64 = 0x8000;
/// Data segment registers: ES, DS, FS, GS.
const DATA: [usize; 4] = [0, 3, 4, 5];

/// What transfers change, as it is now.
fn registers(g: &Guest) -> Registers {
    let s = &g.state;
    Registers {
        cs: s.seg_sel[1],
        ss: s.seg_sel[2],
        rip: s.rip,
        rsp: s.gpr[4],
        rflags: s.rflags(),
        cpl: s.sys.cpl.into(),
        data: DATA.map(|n| s.seg_sel[n]),
    }
}

fn memory(g: &Guest) -> Vec<u8> {
    let mut bytes = vec![0; RAM as usize];
    g.phys().read_bytes(0, &mut bytes);
    bytes
}

/// A selector; of code that [`Guest::protected`] has, now and then.
fn code(r: &mut Random) -> u16 {
    match r.below(8) {
        0 => CODE0,
        1 => CODE3,
        2 => LONG0,
        3 => LONG3,
        _ => selector(r),
    }
}

/// A machine with tables that lead somewhere more often than not, and the world of it.
fn pair(r: &mut Random) -> (Guest, World) {
    let (mut g, _) = machine(r);
    let ia32e = g.state.sys.efer & efer::LMA != 0;
    // Segments that begin in memory and are large, so that most stacks have room.
    for table in [GDT, LDT] {
        for n in 0..64 {
            let raw = g.get(table + 8 * n);
            let small = raw & !(0xff << 56 | 0xff << 32) | (raw >> 32 & 1) << 32;
            if raw >> 44 & 1 != 0 && !r.one_in(4) {
                g.put(table + 8 * n, small | 0xffff);
            }
        }
    }
    let flat = attr::G | present(attr::S | attr::RW, 0);
    let long = flat | attr::CODE | attr::L;
    let flat = flat | attr::DB;
    let level3 = 3 << attr::DPL_SHIFT;
    for (selector, attributes) in [
        (CODE0, flat | attr::CODE),
        (CODE3, flat | attr::CODE | level3),
        (DATA0, flat),
        (DATA3, flat | level3),
        (LONG0, long),
        (LONG3, long | level3),
    ] {
        g.define(selector, descriptor(0, 0xfffff, attributes));
    }
    for n in 0..256 {
        let kind = match r.below(8) {
            0 => r.below(32) as u32,
            1 => 6 + r.below(2) as u32,
            _ => 14 + r.below(2) as u32,
        };
        let dpl = if r.one_in(4) { r.below(4) as u32 } else { 3 };
        let attributes = match r.one_in(8) {
            true => kind | dpl << attr::DPL_SHIFT,
            false => present(kind, dpl),
        };
        let near = if r.one_in(8) { u32::MAX } else { 0xffff };
        let raw = gate(
            code(r),
            r.next() as u32 & near,
            attributes,
            r.next() as u8 & 1,
        );
        g.put(IDT + 8 * n, raw);
    }
    for at in (0..0x80).step_by(8) {
        let stack = match r.below(12) {
            0 => r.next(),
            _ => 0x9000 + r.below(0x2000),
        };
        g.put(TSS + at, stack);
    }
    if !ia32e {
        let big = !r.one_in(3);
        g.state.sys.tr.attr = if big { 0x8b } else { 0x83 };
        for level in 0..3 {
            let ss = match level {
                0 if !r.one_in(4) => DATA0,
                _ => selector(r) & !3 | level,
            };
            let at = u64::from(level);
            g.put16(TSS + if big { 8 + 8 * at } else { 4 + 4 * at }, ss);
        }
    }
    g.state.sys.tr.limit = if r.one_in(6) {
        r.below(0x40) as u32
    } else {
        0x67
    };
    g.state.sys.idtr.limit = (0x100 + r.below(0x700)) as u16;
    g.state.gpr[4] = STACK + r.below(64);
    let flags = r.next() & 0x3f_7fd5 & !(1 << 17 | 1 << 14);
    g.state.set_rflags(flags);
    let bytes = memory(&g);
    let (gdt, ldt) = (g.state.sys.gdtr, g.state.sys.ldtr);
    let part = |at: u64, limit: u32| bytes[at as usize..][..=limit as usize].to_vec();
    let model = super::model::Model {
        gdt: part(GDT, gdt.limit.into()),
        ldt: (ldt.attr & attr::P != 0).then(|| part(LDT, ldt.limit)),
        cpl: g.state.sys.cpl.into(),
        ia32e,
        bits64: mode::is_long_code(&g.state),
    };
    let world = World {
        model,
        memory: bytes,
        registers: Registers {
            rip: NEXT,
            ..registers(&g)
        },
        gdt: GDT,
        ldt: LDT,
        idt: IDT,
        idt_limit: g.state.sys.idtr.limit.into(),
        tss: TSS,
        tss_limit: g.state.sys.tr.limit.into(),
        tss_selector: TSS_SEL,
        tss32: g.state.sys.tr.attr == 0x8b,
    };
    (g, world)
}

fn operand_size(r: &mut Random, world: &World) -> u8 {
    let sizes = if world.model.bits64 {
        [2, 4, 8]
    } else {
        [2, 4, 4]
    };
    sizes[r.below(3) as usize]
}

/// Puts a frame of a return onto the current stack, in memory of both.
fn frame(g: &Guest, world: &mut World, size: u8, values: &[u64]) {
    for (n, value) in values.iter().enumerate() {
        let at = g.state.gpr[4] + n as u64 * u64::from(size);
        let bytes = value.to_le_bytes();
        g.phys().write_bytes(at, &bytes[..size.into()]);
        let at = at as usize;
        world.memory[at..at + usize::from(size)].copy_from_slice(&bytes[..size.into()]);
    }
}

/// How often something happened: done, refused, not followed.
type Seen = [u32; 3];

fn compare(g: &Guest, world: &World, got: Outcome, expected: Result<bool, (u8, u32)>) -> usize {
    let fault = got.map_err(refusal).err();
    assert_eq!(fault, expected.err());
    match expected {
        Ok(true) => {
            assert_eq!(registers(g), world.registers);
            let (left, right) = (memory(g), &world.memory);
            let differs = left.iter().zip(right).position(|(a, b)| a != b);
            assert_eq!(differs, None, "memory differs there");
            0
        }
        Ok(false) => 2,
        Err(_) => 1,
    }
}

/// Enough of both for the test to mean something.
fn is_telling(seen: Seen) {
    assert!(seen[0] > 200 && seen[1] > 200, "{seen:?}");
}

#[test]
fn calls_as_the_manual_says() {
    let mut r = Random(0x1234_5678_9abc_def5);
    let mut seen = Seen::default();
    for _ in 0..4000 {
        let (mut g, mut world) = pair(&mut r);
        let size = operand_size(&mut r, &world);
        let (selector, offset) = (code(&mut r), r.below(0x2_0000));
        let expected = world.call(size, selector, offset);
        let call = op(SystemKind::CallFar, size, 0, 0);
        let got = g.run(call, selector.into(), offset);
        seen[compare(&g, &world, got, expected)] += 1;
    }
    is_telling(seen);
}

#[test]
fn interrupts_as_the_manual_says() {
    let mut r = Random(0x1234_5678_9abc_def6);
    let mut seen = Seen::default();
    for _ in 0..4000 {
        let (mut g, mut world) = pair(&mut r);
        let vector = r.below(0x60) as u8;
        let expected = world.int(vector);
        if expected == Ok(false) {
            continue;
        }
        let got = g.run(op(SystemKind::Int, 0, vector, 0), 0, 0);
        seen[compare(&g, &world, got, expected)] += 1;
    }
    is_telling(seen);
}

/// A selector of a level at least as far out as the current one.
fn outer(r: &mut Random, g: &Guest) -> u16 {
    let cpl = u64::from(g.state.sys.cpl);
    let rpl = cpl + r.below(4 - cpl);
    code(r) & !3 | rpl as u16
}

/// A selector of the same level as `cs`, of data that there is now and then.
fn stack(r: &mut Random, cs: u16) -> u16 {
    match (cs & 3, r.below(3)) {
        (0, 0) => DATA0,
        (3, 0) => DATA3,
        (level, _) => selector(r) & !3 | level,
    }
}

#[test]
fn far_returns_as_the_manual_says() {
    let mut r = Random(0x1234_5678_9abc_def7);
    let mut seen = Seen::default();
    for _ in 0..4000 {
        let (mut g, mut world) = pair(&mut r);
        let size = operand_size(&mut r, &world);
        let release = if r.one_in(2) { 0 } else { r.below(24) };
        let cs = outer(&mut r, &g);
        let ss = stack(&mut r, cs);
        let values = [r.below(0x2_0000), cs.into()];
        frame(&g, &mut world, size, &values);
        let at = g.state.gpr[4];
        g.state.gpr[4] = at + 2 * u64::from(size) + release;
        let values = [r.below(0x2_0000), ss.into()];
        frame(&g, &mut world, size, &values);
        g.state.gpr[4] = at;
        let expected = world.ret(size, release).map(|()| true);
        let got = g.run(op(SystemKind::RetFar, size, 0, 0), release, 0);
        seen[compare(&g, &world, got, expected)] += 1;
    }
    is_telling(seen);
}

#[test]
fn interrupt_returns_as_the_manual_says() {
    let mut r = Random(0x1234_5678_9abc_def8);
    let mut seen = Seen::default();
    for _ in 0..4000 {
        let (mut g, mut world) = pair(&mut r);
        let size = operand_size(&mut r, &world);
        let cs = outer(&mut r, &g);
        let ss = stack(&mut r, cs);
        // Without VM: that return is another.
        let flags = r.next() & 0xffff_fffd_ffff;
        let values = [
            r.below(0x2_0000),
            cs.into(),
            flags,
            r.below(0x2_0000),
            ss.into(),
        ];
        frame(&g, &mut world, size, &values);
        let expected = world.iret(size).map(|()| true);
        let got = g.run(op(SystemKind::Iret, size, 0, 0), 0, 0);
        seen[compare(&g, &world, got, expected)] += 1;
    }
    is_telling(seen);
}
