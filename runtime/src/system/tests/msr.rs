//! Model-specific registers and counters.

use super::bench::Bench;
use crate::system::state::{cr0, cr4, efer};
use crate::system::{ClockRates, Fault};
use metaphrase_ir::{Reg, SystemKind as Kind};

const GP: Fault = Fault::gp(0);
const HIGH: u64 = 0xffff_8000_0000_0000;
const NOT_CANONICAL: u64 = 1 << 47;

pub(super) fn read(bench: &mut Bench, number: u32) -> Result<u64, Fault> {
    bench.set(Reg::Rcx, 0x5555_0000_0000_0000 | u64::from(number));
    bench.set(Reg::Rax, u64::MAX);
    bench.set(Reg::Rdx, u64::MAX);
    let value = bench.plain(Kind::Rdmsr, 0)?;
    assert_eq!(bench.reg(Reg::Rax), value & 0xffff_ffff);
    assert_eq!(bench.reg(Reg::Rdx), value >> 32);
    Ok(value)
}

pub(super) fn write(bench: &mut Bench, number: u32, value: u64) -> Result<u64, Fault> {
    bench.set(Reg::Rcx, number.into());
    bench.set(Reg::Rdx, 0x5555_0000_0000_0000 | value >> 32);
    bench.set(Reg::Rax, 0x5555_0000_0000_0000 | value & 0xffff_ffff);
    bench.plain(Kind::Wrmsr, 0)
}

/// Writes each of `fine`, which must read back, and each of `bad`, which must be refused.
fn values(model: &str, number: u32, fine: &[u64], bad: &[u64]) {
    let mut bench = Bench::with_cpu(model).protected(0);
    for &value in fine {
        assert_eq!(
            write(&mut bench, number, value),
            Ok(0),
            "{number:#x} := {value:#x}"
        );
        assert_eq!(read(&mut bench, number), Ok(value), "{number:#x}");
    }
    let kept = read(&mut bench, number);
    for &value in bad {
        assert_eq!(
            write(&mut bench, number, value),
            Err(GP),
            "{number:#x} := {value:#x}"
        );
        assert_eq!(read(&mut bench, number), kept, "{number:#x}");
    }
}

#[test]
fn only_level_0_may_and_only_with_the_feature() {
    for mut bench in [
        Bench::new().protected(1),
        Bench::new().long(3),
        Bench::new().v86(3),
    ] {
        assert_eq!(read(&mut bench, 0x277), Err(GP));
        assert_eq!(write(&mut bench, 0x277, 0), Err(GP));
    }
    let mut old = Bench::with_cpu("486");
    assert_eq!(read(&mut old, 0x10), Err(Fault::UD));
    assert_eq!(write(&mut old, 0x10, 0), Err(Fault::UD));
}

#[test]
fn unknown_registers_fault_or_are_ignored() {
    // x2APIC, a hypervisor's, AMD's, and none.
    for number in [0x802, 0x8ff, 0x4000_0000, 0xc001_0015, 0x12345, u32::MAX] {
        let mut bench = Bench::new();
        assert_eq!(read(&mut bench, number), Err(GP));
        assert_eq!(write(&mut bench, number, 5), Err(GP));
        bench.env.system.as_mut().unwrap().ignore_msrs = true;
        assert_eq!(read(&mut bench, number), Ok(0));
        assert_eq!(write(&mut bench, number, 5), Ok(0));
        assert_eq!(read(&mut bench, number), Ok(0));
        // Bad values of registers that exist stay faults.
        assert_eq!(write(&mut bench, 0x277, 2), Err(GP));
    }
}

#[test]
fn values_are_checked() {
    let addresses = [0, 1, 0x7fff_ffff_ffff, HIGH, u64::MAX];
    for number in [
        0xc000_0082,
        0xc000_0083,
        0xc000_0100,
        0xc000_0101,
        0xc000_0102,
        0x175,
        0x176,
    ] {
        values("max", number, &addresses, &[NOT_CANONICAL, 1 << 63]);
    }
    values("max", 0xc000_0081, &[0, u64::MAX], &[]);
    values("max", 0xc000_0084, &[0, 0xffff_ffff], &[1 << 32]);
    values("max", 0xc000_0103, &[0, 0xffff_ffff], &[1 << 32]);
    values("max", 0x1d9, &[0, 3], &[4, 1 << 6, 1 << 32]);
    values("max", 0x17a, &[0, 7], &[8]);
    values("max", 0x400, &[0, u64::MAX], &[]);
    for number in [0x401, 0x402, 0x403, 0x40d] {
        values("max", number, &[0], &[1]);
    }
    // Read-only.
    for (number, value) in [(0xfe, 0x508), (0x179, 4), (0x10a, 0x0d10_e17b), (0x1db, 0)] {
        let mut bench = Bench::new();
        assert_eq!(read(&mut bench, number), Ok(value), "{number:#x}");
        assert_eq!(write(&mut bench, number, value), Err(GP), "{number:#x}");
    }
    values("max", 0x48, &[0, 3, 1 << 10], &[4, 1 << 63]);
    values("max,-bhi_ctrl", 0x48, &[0, 3], &[1 << 10]);
    let mut bench = Bench::new();
    assert_eq!(write(&mut bench, 0x49, 1), Ok(0));
    assert_eq!(write(&mut bench, 0x49, 2), Err(GP));
    assert_eq!(read(&mut bench, 0x49), Err(GP), "write-only");
    write(&mut bench, 0x8b, 0).unwrap();
    assert_eq!(read(&mut bench, 0x8b), Ok(1 << 32), "microcode revision");
    assert_eq!(write(&mut bench, 0x79, 0x1234), Ok(0));
    assert_eq!(read(&mut bench, 0x79), Err(GP));
    values("pentium3", 0x175, &[0xffff_ffff], &[]);
}

#[test]
fn feature_control_locks() {
    let mut bench = Bench::new();
    assert_eq!(write(&mut bench, 0x3a, 4), Err(GP), "no VMX");
    write(&mut bench, 0x3a, 1).unwrap();
    assert_eq!(read(&mut bench, 0x3a), Ok(1));
    assert_eq!(write(&mut bench, 0x3a, 1), Err(GP));
}

#[test]
fn registers_come_with_their_features() {
    for (model, number, expected) in [
        ("pentium", 0x10, true),
        ("pentium", 0x1, true),
        ("pentium", 0x277, false),
        ("pentium", 0xfe, false),
        ("pentium", 0xc000_0080, false),
        ("pentium", 0x179, false),
        ("pentium3", 0x277, true),
        ("pentium3", 0x2ff, true),
        ("pentium3", 0x174, true),
        ("pentium3", 0xc000_0082, false),
        ("pentium3", 0xc000_0102, false),
        ("max,-rdtscp,-rdpid", 0xc000_0103, false),
        ("max,-rdtscp", 0xc000_0103, true),
        ("max,-tsc_adjust", 0x3b, false),
        ("max,-arch_capabilities", 0x10a, false),
        ("max,-spec_ctrl", 0x48, false),
        ("x86-64-v1", 0x48, true),
        ("max,-sep", 0x174, false),
        ("max", 0xce, false),
        ("max", 0x1b, false),
        ("max", 0x6e0, false),
    ] {
        let mut bench = Bench::with_cpu(model);
        assert_eq!(
            read(&mut bench, number).is_ok(),
            expected,
            "{model}, {number:#x}"
        );
    }
    let mut bench = Bench::new();
    bench.env.system.as_mut().unwrap().rates = Some(ClockRates {
        crystal_hz: 25_000_000,
        tsc_ratio: 40,
    });
    assert_eq!(read(&mut bench, 0xce), Ok(10 << 8));
}

#[test]
fn efer_is_checked() {
    let mut bench = Bench::new();
    write(&mut bench, 0xc000_0080, efer::SCE | efer::NXE).unwrap();
    assert_eq!(
        bench.env.memory.paged().unwrap().context().efer,
        efer::SCE | efer::NXE
    );
    for bit in [1, 9, 12, 14, 63] {
        assert_eq!(
            write(&mut bench, 0xc000_0080, 1 << bit),
            Err(GP),
            "bit {bit}"
        );
    }
    // LMA is the processor's.
    write(&mut bench, 0xc000_0080, efer::LMA | efer::LME).unwrap();
    assert_eq!(read(&mut bench, 0xc000_0080), Ok(efer::LME));
    let mut long = Bench::new().long(0);
    assert_eq!(
        write(&mut long, 0xc000_0080, 0),
        Err(GP),
        "LME under paging"
    );
    write(&mut long, 0xc000_0080, efer::LME | efer::NXE).unwrap();
    let expected = efer::LME | efer::LMA | efer::NXE;
    assert_eq!(read(&mut long, 0xc000_0080), Ok(expected));
    let mut legacy = Bench::new().protected(0);
    legacy.state.sys.cr0 |= cr0::PG;
    assert_eq!(write(&mut legacy, 0xc000_0080, efer::LME), Err(GP));
    values("max,-nx", 0xc000_0080, &[efer::SCE], &[efer::NXE]);
    let mut off = Bench::new();
    write(&mut off, 0x1a0, 1 << 34).unwrap();
    assert_eq!(
        write(&mut off, 0xc000_0080, efer::NXE),
        Err(GP),
        "XD disabled"
    );
}

#[test]
fn memory_types_are_checked() {
    let base = 1 << 40;
    values(
        "max",
        0x277,
        &[0x0706_0504_0100_0706],
        &[2, 3 << 24, 8 << 56],
    );
    values(
        "max",
        0x2ff,
        &[0, 0xc06, 0x805],
        &[2, 7, 0x100, 0x1000, 1 << 32],
    );
    for number in (0x268..=0x26f).chain([0x250, 0x258, 0x259]) {
        values("max", number, &[0x0606_0505_0404_0100], &[2, 7 << 40]);
    }
    for n in 0..8 {
        let number = 0x200 + 2 * n;
        values(
            "max",
            number,
            &[0xff_ffff_f006, 0],
            &[2, 7, 0x100, 0x800, base],
        );
        values("max", number + 1, &[0xff_ffff_f800, 0], &[1, 0x400, base]);
        values("pentium3", number, &[0xf_ffff_f006], &[1 << 36]);
    }
    // Each has a place of its own.
    let mut bench = Bench::new();
    let numbers = (0x200..=0x20f)
        .chain([0x250, 0x258, 0x259])
        .chain(0x268..=0x26f);
    for (n, number) in numbers.clone().enumerate() {
        write(&mut bench, number, types(n)).unwrap();
    }
    for (n, number) in numbers.enumerate() {
        assert_eq!(read(&mut bench, number), Ok(types(n)), "{number:#x}");
    }
    assert_eq!(read(&mut bench, 0x210), Err(GP));
    assert_eq!(read(&mut bench, 0x251), Err(GP));
}

/// A value that is fine in the `n`th memory-type range register.
fn types(n: usize) -> u64 {
    if n < 16 {
        (n as u64 + 1) << 12
    } else {
        1 << (8 * (n - 16) % 64) | 4 << (8 * (n - 15) % 64)
    }
}

#[test]
fn misc_enable() {
    let mut bench = Bench::new();
    assert_eq!(read(&mut bench, 0x1a0), Ok(0x1801));
    write(&mut bench, 0x1a0, 1 << 22).unwrap();
    assert_eq!(
        read(&mut bench, 0x1a0),
        Ok(0x1800 | 1 << 22),
        "fixed bits stay"
    );
    assert_eq!(write(&mut bench, 0x1a0, 1 << 18), Err(GP), "no MONITOR");
    assert_eq!(write(&mut bench, 0x1a0, 1 << 1), Err(GP));
    values(
        "max,+monitor",
        0x1a0,
        &[0x4_1800, 0x1800, 0x4_1801],
        &[1 << 60],
    );
    values("max,-nx", 0x1a0, &[], &[1 << 34]);
}

#[test]
fn the_apic_base_is_there_with_an_apic() {
    let mut bench = Bench::new();
    bench.env.system.as_mut().unwrap().apic_id = Some(0);
    assert_eq!(read(&mut bench, 0x1b), Ok(0xfee0_0900));
    write(&mut bench, 0x1b, 0xff_0000_0100).unwrap();
    for bit in [0, 7, 9, 10, 40] {
        assert_eq!(write(&mut bench, 0x1b, 1 << bit), Err(GP), "bit {bit}");
    }
    assert_eq!(read(&mut bench, 0x1b), Ok(0xff_0000_0100));
}

#[test]
fn smbase_can_be_read_in_smm() {
    let mut bench = Bench::new();
    assert_eq!(read(&mut bench, 0x9e), Err(GP));
    bench.state.sys.smm = true;
    assert_eq!(read(&mut bench, 0x9e), Ok(0x30000));
    assert_eq!(write(&mut bench, 0x9e, 0), Err(GP));
}

#[test]
fn segment_bases_are_the_registers() {
    let mut bench = Bench::new().long(0);
    write(&mut bench, 0xc000_0100, HIGH).unwrap();
    write(&mut bench, 0xc000_0101, 0x1234).unwrap();
    assert_eq!(bench.state.seg_base[4..], [HIGH, 0x1234]);
    bench.state.seg_base[5] = 5;
    assert_eq!(read(&mut bench, 0xc000_0101), Ok(5));
}

#[test]
fn the_counter_and_its_offset() {
    let mut bench = Bench::new();
    bench.env.fuel_given = 1000;
    let rdtsc = |bench: &mut Bench| bench.plain(Kind::Rdtsc, 0).unwrap();
    assert_eq!(rdtsc(&mut bench), 1000);
    write(&mut bench, 0x10, 5000).unwrap();
    assert_eq!(rdtsc(&mut bench), 5000);
    assert_eq!(read(&mut bench, 0x3b), Ok(4000), "the adjustment follows");
    bench.env.fuel_given = 1100;
    assert_eq!(read(&mut bench, 0x10), Ok(5100));
    write(&mut bench, 0x3b, 0u64.wrapping_sub(100)).unwrap();
    assert_eq!(rdtsc(&mut bench), 1000);
}

#[test]
fn the_counter_can_be_kept_from_users() {
    let rdtscp = |bench: &mut Bench| bench.numbered(Kind::Rdtscp, 1, 0);
    for (bench, level) in [
        (Bench::new(), 0),
        (Bench::new().protected(0), 0),
        (Bench::new().protected(1), 1),
        (Bench::new().v86(3), 3),
    ] {
        let mut bench = bench;
        bench.state.tsc_aux = 77;
        assert!(bench.plain(Kind::Rdtsc, 0).is_ok());
        assert_eq!(rdtscp(&mut bench), Ok(77));
        bench.state.sys.cr4 |= cr4::TSD;
        let refused = (level > 0).then_some(GP);
        assert_eq!(bench.plain(Kind::Rdtsc, 0).err(), refused);
        assert_eq!(rdtscp(&mut bench).err(), refused);
        assert_eq!(bench.numbered(Kind::Rdtscp, 0, 0), Ok(77), "RDPID");
    }
}

#[test]
fn there_are_no_performance_counters() {
    for mut bench in [Bench::new(), Bench::new().protected(3)] {
        bench.state.sys.cr4 |= cr4::PCE;
        assert_eq!(bench.plain(Kind::Rdpmc, 0), Err(GP));
    }
    assert_eq!(Bench::with_cpu("486").plain(Kind::Rdpmc, 0), Err(Fault::UD));
}
