//! RFLAGS, interrupts and waiting.

use super::bench::Bench;
use crate::system::Fault;
use crate::system::state::{Activity, Shadow, cr4};
use metaphrase_ir::sysflags::{AC, ID, IF, IOPL, NT, RF, TF, VIF, VIP, VM};
use metaphrase_ir::{Reg, SystemKind as Kind, flags};

const GP: Fault = Fault::gp(0);

/// The mode with that IOPL and RFLAGS.
fn with(mut bench: Bench, iopl: u64, bits: u64) -> Bench {
    bench.state.sysflags = bench.state.sysflags & !IOPL | iopl << 12 | bits;
    bench
}

#[test]
fn cli_and_sti_by_level() {
    // Mode, IOPL, CR4, and the flag that they change.
    let cases: [(Bench, u64, u64, Result<u64, Fault>); 12] = [
        (Bench::new(), 0, 0, Ok(IF)),
        (Bench::new().protected(0), 0, 0, Ok(IF)),
        (Bench::new().protected(1), 0, 0, Err(GP)),
        (Bench::new().protected(1), 1, 0, Ok(IF)),
        (Bench::new().protected(3), 2, 0, Err(GP)),
        (Bench::new().protected(3), 3, 0, Ok(IF)),
        (Bench::new().protected(3), 2, cr4::PVI, Ok(VIF)),
        (Bench::new().protected(2), 1, cr4::PVI, Err(GP)),
        (Bench::new().long(3), 0, cr4::VME, Err(GP)),
        (Bench::new().v86(0), 0, 0, Err(GP)),
        (Bench::new().v86(0), 0, cr4::VME, Ok(VIF)),
        (Bench::new().v86(0), 3, 0, Ok(IF)),
    ];
    for (n, (bench, iopl, extensions, expected)) in cases.into_iter().enumerate() {
        let mut bench = with(bench, iopl, 0);
        bench.state.sys.cr4 |= extensions;
        bench.state.sys.look = false;
        let old = bench.state.sysflags;
        let sti = bench.plain(Kind::Sti, 0);
        match expected {
            Err(fault) => {
                assert_eq!(sti, Err(fault), "case {n}");
                assert_eq!(bench.plain(Kind::Cli, 0), Err(fault), "case {n}");
                assert_eq!(bench.state.sysflags, old);
            }
            Ok(flag) => {
                assert_eq!(sti, Ok(0), "case {n}");
                assert_eq!(bench.state.sysflags, old | flag, "case {n}");
                assert_eq!(bench.state.sys.look, flag == IF, "case {n}");
                bench.plain(Kind::Cli, 0).unwrap();
                assert_eq!(bench.state.sysflags, old, "case {n}");
                bench.state.sysflags |= VIP;
                let pending = bench.plain(Kind::Sti, 0);
                assert_eq!(pending.is_err(), flag == VIF, "case {n}");
            }
        }
    }
}

#[test]
fn sti_has_a_shadow_only_if_interrupts_were_off() {
    let mut bench = Bench::new();
    bench.plain(Kind::Sti, 0).unwrap();
    assert_eq!(bench.state.sys.shadow, Shadow::Sti);
    bench.state.sys.shadow = Shadow::None;
    bench.plain(Kind::Sti, 0).unwrap();
    assert_eq!(bench.state.sys.shadow, Shadow::None);
}

#[test]
fn pushf_by_mode() {
    let all = 0x37_7fd7;
    let image = |bench: Bench, size: u8, set: u64, extensions: u64| {
        let mut bench = bench;
        let vm = bench.state.sysflags & VM;
        bench.state.set_rflags(set & !VM | vm);
        bench.state.sys.cr4 |= extensions;
        bench.sized(Kind::Pushf, size, 0, 0)
    };
    let shown = all & !(VM | RF);
    assert_eq!(image(Bench::new(), 2, all, 0), Ok(shown));
    assert_eq!(
        image(Bench::new().long(3), 8, all & !IOPL, 0),
        Ok(shown & !IOPL)
    );
    assert_eq!(image(Bench::new().v86(0), 4, all, 0), Ok(shown), "IOPL 3");
    let low = all & !IOPL;
    let vme = cr4::VME;
    assert_eq!(image(Bench::new().v86(0), 2, low, 0), Err(GP));
    assert_eq!(image(Bench::new().v86(0), 4, low, vme), Err(GP));
    let virtual_image = |set| image(Bench::new().v86(0), 2, set, vme).unwrap() as u16;
    let expected = (shown | IOPL) as u16;
    assert_eq!(
        virtual_image(low & !IF | VIF),
        expected,
        "VIF for IF, IOPL 3"
    );
    assert_eq!(virtual_image(low & !VIF | IF), expected & !(IF as u16));
}

#[test]
fn popf_keeps_what_it_may_not_change() {
    let arith = flags::ARITH | flags::DF | TF | NT;
    let wide = arith | AC | ID;
    // Mode, IOPL, operand size, and what can be changed.
    type Make = fn() -> Bench;
    let cases: [(Make, u64, u8, u64); 11] = [
        (Bench::new, 0, 2, arith | IF | IOPL),
        (Bench::new, 0, 4, wide | IF | IOPL),
        (|| Bench::new().protected(0), 0, 4, wide | IF | IOPL),
        (|| Bench::new().long(0), 0, 8, wide | IF | IOPL),
        (|| Bench::new().protected(1), 1, 4, wide | IF),
        (|| Bench::new().protected(1), 0, 4, wide),
        (|| Bench::new().protected(3), 3, 2, arith | IF),
        (|| Bench::new().protected(3), 2, 2, arith),
        (|| Bench::new().long(3), 0, 8, wide),
        (|| Bench::new().v86(0), 3, 2, arith | IF),
        (|| Bench::new().v86(0), 3, 4, wide | IF),
    ];
    for (n, (make, iopl, size, writable)) in cases.into_iter().enumerate() {
        for old in [0, IF | VIP | RF | flags::CF, IF | AC | ID | NT | VIF] {
            for image in [0, u64::MAX] {
                let mut bench = with(make(), iopl, 0);
                let before = bench.state.rflags() | old;
                bench.state.set_rflags(before);
                bench.sized(Kind::Popf, size, image, 0x8000).unwrap();
                let expected = before & !(writable | RF) | image & writable;
                assert_eq!(bench.state.rflags(), expected, "case {n}, {image:#x}");
                let enabled = expected & !before & IF != 0;
                assert!(!enabled || bench.state.sys.look);
            }
        }
    }
}

#[test]
fn popf_in_virtual_8086_mode() {
    let popf = |size: u8, bits: u64, image: u64| {
        let mut bench = with(Bench::new().v86(0), 0, bits);
        bench.state.sys.cr4 |= cr4::VME;
        bench.sized(Kind::Popf, size, image, 0)?;
        Ok(bench.state.rflags())
    };
    let mut plain = Bench::new().v86(2);
    assert_eq!(plain.sized(Kind::Popf, 2, 0, 0), Err(GP));
    assert_eq!(popf(4, 0, 0), Err(GP));
    assert_eq!(popf(2, 0, TF), Err(GP));
    assert_eq!(popf(2, VIP, IF), Err(GP));
    assert_eq!(popf(2, 0, IF | IOPL | 1), Ok(VM | VIF | 3));
    assert_eq!(popf(2, IF | VIF | VIP, 0), Ok(VM | IF | VIP | 2));
}

#[test]
fn popf_moves_the_stack_pointer_at_its_size() {
    let rsp = |mut bench: Bench, new: u64| {
        bench.set(Reg::Rsp, 0x1111_2222_3333_4444);
        bench.sized(Kind::Popf, 2, 0, new).unwrap();
        bench.reg(Reg::Rsp)
    };
    let new = 0xaaaa_bbbb_cccc_dddd;
    assert_eq!(rsp(Bench::new(), new), 0x1111_2222_3333_dddd);
    assert_eq!(rsp(Bench::new().protected(0), new), 0xcccc_dddd);
    assert_eq!(rsp(Bench::new().long(0), new), new);
}

#[test]
fn clac_and_stac() {
    for (mut bench, allowed) in [
        (Bench::new(), true),
        (Bench::new().protected(0), true),
        (Bench::new().long(0), true),
        (Bench::new().long(3), false),
        (Bench::new().v86(3), false),
        (Bench::with_cpu("max,-smap").protected(0), false),
    ] {
        let stac = bench.numbered(Kind::Clac, 1, 0);
        if !allowed {
            assert_eq!(stac, Err(Fault::UD));
            continue;
        }
        let context = |b: &Bench| b.env.memory.paged().unwrap().context();
        assert!(bench.state.sysflags & AC != 0 && context(&bench).ac);
        bench.numbered(Kind::Clac, 0, 0).unwrap();
        assert!(bench.state.sysflags & AC == 0 && !context(&bench).ac);
    }
}

#[test]
fn halting_and_waiting() {
    let mut bench = Bench::new().protected(1);
    assert_eq!(bench.plain(Kind::Hlt, 0), Err(GP));
    assert_eq!(bench.state.sys.activity, Activity::Running);
    let mut bench = Bench::new();
    bench.plain(Kind::Hlt, 0).unwrap();
    assert_eq!(bench.state.sys.activity, Activity::Halted);
    assert!(bench.state.sys.look);
    assert_eq!(bench.state.rip, super::NEXT);
    // Without the feature, and where the system has turned it off.
    let mut bench = Bench::new();
    assert_eq!(bench.plain(Kind::Monitor, 0), Err(Fault::UD));
    assert_eq!(bench.numbered(Kind::Hlt, 1, 0), Err(Fault::UD));
    let mut bench = Bench::with_cpu("max,+monitor").protected(3);
    assert_eq!(bench.plain(Kind::Monitor, 0), Err(Fault::UD));
    let mut bench = Bench::with_cpu("max,+monitor");
    bench.numbered(Kind::Hlt, 1, 0).unwrap();
    assert_eq!(
        bench.state.sys.activity,
        Activity::Running,
        "nothing is armed"
    );
    bench.set(Reg::Rcx, 1);
    assert_eq!(bench.plain(Kind::Monitor, 0x5000), Err(GP));
    bench.set(Reg::Rcx, 0);
    bench.plain(Kind::Monitor, 0x5000).unwrap();
    bench.set(Reg::Rcx, 2);
    assert_eq!(bench.numbered(Kind::Hlt, 1, 0), Err(GP));
    bench.set(Reg::Rcx, 1);
    bench.numbered(Kind::Hlt, 1, 0).unwrap();
    assert_eq!(bench.state.sys.activity, Activity::Waiting);
    bench.state.sys.msr.misc_enable &= !(1 << 18);
    assert_eq!(bench.plain(Kind::Monitor, 0), Err(Fault::UD));
    let mut long = Bench::with_cpu("max,+monitor").long(0);
    let missing = long.plain(Kind::Monitor, 1 << 40).unwrap_err();
    assert_eq!((missing.vector, missing.addr), (14, 1 << 40));
}
