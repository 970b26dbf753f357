//! Instructions about registers, flags, ports and paging with random operands in random states:
//! nothing panics, a fault leaves the registers alone, and CPL above 0 changes no system register
//! but what it may.

use super::Random;
use super::bench::{Bench, RAM};
use crate::system::cpuid;
use crate::system::state::{cr0, cr4, efer};
use metaphrase_ir::{SystemKind as Kind, SystemOp};

const KINDS: [Kind; 33] = [
    Kind::ReadCr,
    Kind::WriteCr,
    Kind::ReadDr,
    Kind::WriteDr,
    Kind::Clts,
    Kind::Lmsw,
    Kind::Rdmsr,
    Kind::Wrmsr,
    Kind::Rdtsc,
    Kind::Rdtscp,
    Kind::Rdpmc,
    Kind::Xsetbv,
    Kind::GdtBase,
    Kind::GdtLimit,
    Kind::IdtBase,
    Kind::IdtLimit,
    Kind::Sldt,
    Kind::Str,
    Kind::Smsw,
    Kind::Lgdt,
    Kind::Lidt,
    Kind::Cli,
    Kind::Sti,
    Kind::Pushf,
    Kind::Popf,
    Kind::Clac,
    Kind::Monitor,
    Kind::Hlt,
    Kind::Invlpg,
    Kind::Invpcid,
    Kind::Wbinvd,
    Kind::In,
    Kind::Out,
];

/// A number that is small, a power of two, nearly all ones, or anything.
fn number(random: &mut Random) -> u64 {
    match random.below(5) {
        0 => random.below(16),
        1 => 1 << random.below(64),
        2 => u64::MAX << random.below(64),
        3 => u64::MAX.wrapping_sub(random.below(16)),
        _ => random.next() << 8 ^ random.next(),
    }
}

/// A register number that is often one that exists.
fn msr(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => random.below(0x480),
        1 => 0xc000_0080 + random.below(5),
        2 => 0xc000_0100 + random.below(4),
        _ => number(random),
    }
}

/// A state that the modes allow, with random registers.
fn shuffle(bench: &mut Bench, random: &mut Random) {
    let s = &mut bench.state;
    for r in &mut s.gpr {
        *r = number(random);
    }
    s.gpr[1] = msr(random);
    s.set_rflags(random.next() & 0x3d_7fd7 | 2);
    for (base, limit) in s.seg_base.iter_mut().zip(&mut s.sys.seg_limit) {
        *base = random.below(RAM);
        *limit = number(random) as u32;
    }
    for dr in &mut s.sys.dr[..4] {
        *dr = random.below(RAM);
    }
    s.sys.dr[7] = 0x400 | random.next() & 0xffff_03ff;
    s.sys.tr.base = random.below(RAM);
    s.sys.tr.limit = number(random) as u32;
    let toggled = cr4::VME | cr4::PVI | cr4::TSD | cr4::DE | cr4::UMIP | cr4::SMAP | cr4::OSXSAVE;
    s.sys.cr4 ^= random.next() & toggled;
    s.sys.cr0 ^= random.next() & (cr0::TS | cr0::WP | cr0::MP);
    s.sys.a20 = !random.one_in(4);
    s.sys.pending_debug = 0;
    bench.cx().changed();
}

#[test]
fn nothing_panics_and_users_change_little() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..150u64 {
        let model = ["max", "max,+monitor", "pentium3", "486"][random.below(4) as usize];
        for _ in 0..100 {
            let made = Bench::with_cpu(model);
            let mut bench = match random.below(6) {
                0 => made,
                1 => made.protected(0),
                2 => made.protected(3),
                3 => made.v86(random.below(4)),
                4 => made.long(0),
                _ => made.long(3),
            };
            shuffle(&mut bench, &mut random);
            for _ in 0..8 {
                let strings = random.one_in(8);
                let kind = if strings {
                    Kind::PortString
                } else {
                    KINDS[random.below(KINDS.len() as u64) as usize]
                };
                let op = SystemOp {
                    kind,
                    size: random.below(10) as u8,
                    n: random.below(10) as u8,
                    m: random.next() as u8,
                };
                let (a, b) = (number(&mut random), number(&mut random));
                let (before, cpl) = (bench.state.sys, bench.state.sys.cpl);
                let outcome = if strings {
                    // Elements before the one that faults have changed registers.
                    super::carry_out(&bench.cx(), op, a, b, super::NEXT)
                } else {
                    bench.run(op, a, b)
                };
                let sys = bench.state.sys;
                assert!(sys.cr0 & cr0::ET != 0 && sys.cr8 < 16, "round {round}");
                let long = sys.efer & efer::LMA != 0;
                assert!(!long || sys.cr0 & cr0::PG != 0 && sys.cr4 & cr4::PAE != 0);
                if cpl == 3 {
                    let kept = |s: &crate::system::SystemState| {
                        let registers = (s.cr0, s.cr2, s.cr3, s.cr4, s.cr8, s.efer, s.xcr0);
                        (registers, s.gdtr, s.idtr, s.dr, s.msr, s.activity)
                    };
                    assert_eq!(kept(&before), kept(&sys), "{op:?} gave {outcome:?}");
                }
            }
            let (leaf, sub) = (number(&mut random) as u32, number(&mut random) as u32);
            cpuid(&bench.cx(), leaf, sub);
        }
    }
}
