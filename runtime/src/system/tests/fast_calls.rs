//! SYSCALL, SYSRET, SYSENTER, SYSEXIT.

use super::*;
use metaphrase_ir::sysflags;

const STAR: u64 = 0x0013_0008_0000_5555;

/// With the registers that the instructions look at.
fn ready(mut g: Guest) -> Guest {
    let msr = &mut g.state.sys.msr;
    msr.star = STAR;
    msr.lstar = 0xffff_8000_0000_1000;
    msr.cstar = 0xffff_8000_0000_2000;
    msr.fmask = sysflags::IF | sysflags::TF;
    msr.sysenter_cs = 0x8;
    msr.sysenter_esp = 0x1_0000_9000;
    msr.sysenter_eip = 0x1_0000_6000;
    g.state.sys.efer |= efer::SCE;
    g
}

fn run(g: &mut Guest, kind: SystemKind, size: u8) -> Outcome {
    g.run(op(kind, size, 0, 0), 0, 0)
}

fn attributes(g: &Guest) -> (u32, u32) {
    (g.state.sys.seg_attr[1], g.state.sys.seg_attr[2])
}

#[test]
fn syscall_and_sysret_of_64_bit_code() {
    let mut g = ready(Guest::long());
    g.level(3);
    g.state.set_rflags(0x1_0b46);
    run(&mut g, SystemKind::Syscall, 0).unwrap();
    assert_eq!(g.state.rip, 0xffff_8000_0000_1000);
    assert_eq!((g.state.gpr[1], g.state.gpr[11]), (NEXT, 0xb46));
    assert_eq!(g.state.rflags(), 0x846);
    assert_eq!((g.state.seg_sel[1], g.state.seg_sel[2]), (0x08, 0x10));
    assert_eq!(attributes(&g), (0xa09b, 0xc093));
    assert_eq!(g.state.sys.cpl, 0);
    g.state.gpr[11] = !0;
    run(&mut g, SystemKind::Sysret, 8).unwrap();
    assert_eq!((g.state.rip, g.state.rflags()), (NEXT, 0x3c_7fd7));
    assert_eq!((g.state.seg_sel[1], g.state.seg_sel[2]), (0x23, 0x1b));
    assert_eq!(attributes(&g), (0xa0fb, 0xc0f3));
    assert_eq!(g.state.sys.cpl, 3);
    assert_eq!(run(&mut g, SystemKind::Sysret, 8), Err(Fault::gp(0)));
}

#[test]
fn sysret_to_compatibility_code_and_to_nowhere() {
    let mut g = ready(Guest::long());
    g.state.gpr[1] = 0x8000_0000_0000;
    assert_eq!(run(&mut g, SystemKind::Sysret, 8), Err(Fault::gp(0)));
    g.state.gpr[1] = 0x1_1234_5678;
    run(&mut g, SystemKind::Sysret, 4).unwrap();
    assert_eq!((g.state.rip, g.state.seg_sel[1]), (0x1234_5678, 0x13));
    assert_eq!(attributes(&g), (0xc0fb, 0xc0f3));
    g.level(0);
    g.state.sys.efer &= !efer::SCE;
    assert_eq!(run(&mut g, SystemKind::Sysret, 8), Err(Fault::UD));
    assert_eq!(run(&mut g, SystemKind::Syscall, 8), Err(Fault::UD));
}

/// The CPU models say that they are AMD's.
#[test]
fn syscall_of_compatibility_and_legacy_code_is_amds() {
    let mut g = ready(Guest::long());
    g.level(3);
    g.cache(1, CODE3);
    run(&mut g, SystemKind::Syscall, 0).unwrap();
    assert_eq!(g.state.rip, 0xffff_8000_0000_2000);
    assert!(mode::is_long_code(&g.state));
    let mut g = ready(Guest::protected());
    g.level(3);
    g.state.set_rflags(0x202);
    run(&mut g, SystemKind::Syscall, 0).unwrap();
    assert_eq!((g.state.rip, g.state.gpr[1]), (0x5555, NEXT));
    assert_eq!((g.state.rflags(), g.state.gpr[11]), (2, 0));
    assert_eq!(attributes(&g), (0xc09b, 0xc093));
    run(&mut g, SystemKind::Sysret, 4).unwrap();
    assert_eq!((g.state.rip, g.state.rflags()), (NEXT, 0x202));
    assert_eq!((g.state.seg_sel[1], g.state.seg_sel[2]), (0x13, 0x1b));
}

#[test]
fn sysenter_and_sysexit() {
    let mut g = ready(Guest::protected());
    g.level(3);
    g.state.set_rflags(0x246);
    run(&mut g, SystemKind::Sysenter, 0).unwrap();
    assert_eq!((g.state.rip, g.state.gpr[4]), (0x6000, 0x9000));
    assert_eq!((g.state.seg_sel[1], g.state.seg_sel[2]), (0x08, 0x10));
    assert_eq!((g.state.rflags(), g.state.sys.cpl), (0x46, 0));
    g.state.gpr[1] = 0x7000;
    g.state.gpr[2] = 0x1_0000_4000;
    run(&mut g, SystemKind::Sysexit, 4).unwrap();
    assert_eq!((g.state.rip, g.state.gpr[4]), (0x4000, 0x7000));
    assert_eq!((g.state.seg_sel[1], g.state.seg_sel[2]), (0x1b, 0x23));
    assert_eq!(attributes(&g), (0xc0fb, 0xc0f3));
    assert_eq!(run(&mut g, SystemKind::Sysexit, 4), Err(Fault::gp(0)));
    g.state.sys.msr.sysenter_cs = 3;
    assert_eq!(run(&mut g, SystemKind::Sysenter, 0), Err(Fault::gp(0)));
    let mut g = ready(Guest::new());
    assert_eq!(run(&mut g, SystemKind::Sysenter, 0), Err(Fault::gp(0)));
}
