//! Control, debug and model-specific registers, flags, CPUID and invalidation in running code: the
//! results, and who may not.

use crate::harness::{CODE, Guest, assemble, word};
use crate::tables::{PAGES, Record, STACK, sel};
use iced_x86::code_asm::*;
use metaphrase_runtime::CpuState;
use metaphrase_runtime::system::{attr, cr4};

/// Writes code.
type Write = fn(&mut CodeAssembler);

/// Where guests leave results.
const OUT: u64 = 0x500;

const GP: (u32, u32) = (13, 0);
const UD: (u32, u32) = (6, u32::MAX);

/// 32 or 64-bit code that ends in HLT.
fn guest(bits: u32, write: impl FnOnce(&mut CodeAssembler)) -> Guest {
    let code = assemble(bits, CODE, |a| {
        write(a);
        a.hlt().unwrap();
    });
    if bits == 32 {
        Guest::protected(code)
    } else {
        Guest::long(code)
    }
}

/// Level 3.
fn user(s: &mut CpuState) {
    s.sys.cpl = 3;
    s.seg_sel = [sel::USER_DATA; 6];
    let long = s.sys.seg_attr[1] & attr::L != 0;
    s.seg_sel[1] = if long {
        sel::USER_CODE64
    } else {
        sel::USER_CODE32
    };
    for a in &mut s.sys.seg_attr {
        *a |= 3 << attr::DPL_SHIFT;
    }
    s.gpr[4] = STACK - 0x100;
}

/// The first instruction raises that exception.
fn refused(guest: &Guest, (vector, error): (u32, u32)) {
    guest.run(|m| {
        let r = Record::of(m);
        assert_eq!((r.vector, r.error, r.ip), (vector, error, CODE as u32));
    });
}

fn wrmsr(a: &mut CodeAssembler, register: u32, value: u64) {
    a.mov(ecx, register).unwrap();
    a.mov(eax, value as u32).unwrap();
    a.mov(edx, (value >> 32) as u32).unwrap();
    a.wrmsr().unwrap();
}

fn results(m: &metaphrase_runtime::Machine) -> [u32; 6] {
    std::array::from_fn(|n| word(m, OUT + 4 * n as u64))
}

#[test]
fn users_may_not() {
    let privileged: [(&str, Write); 17] = [
        ("MOV CR0", |a| a.db(&[0x0f, 0x22, 0xc0]).unwrap()),
        ("MOV from CR3", |a| a.db(&[0x0f, 0x20, 0xd8]).unwrap()),
        ("MOV DR7", |a| a.db(&[0x0f, 0x23, 0xf8]).unwrap()),
        ("MOV from DR6", |a| a.db(&[0x0f, 0x21, 0xf0]).unwrap()),
        ("CLTS", |a| a.clts().unwrap()),
        ("LMSW", |a| a.lmsw(ax).unwrap()),
        ("RDMSR", |a| a.rdmsr().unwrap()),
        ("WRMSR", |a| a.wrmsr().unwrap()),
        ("RDPMC", |a| a.rdpmc().unwrap()),
        ("INVLPG", |a| a.invlpg(byte_ptr(0x1000)).unwrap()),
        ("INVD", |a| a.invd().unwrap()),
        ("WBINVD", |a| a.wbinvd().unwrap()),
        ("HLT", |a| a.hlt().unwrap()),
        ("CLI", |a| a.cli().unwrap()),
        ("STI", |a| a.sti().unwrap()),
        ("IN", |a| a.in_(al, 0x60).unwrap()),
        ("OUT", |a| a.out(dx, eax).unwrap()),
    ];
    for bits in [32, 64] {
        for (name, write) in privileged {
            eprintln!("{name}, {bits} bits");
            refused(&guest(bits, write).setup(user), GP);
        }
    }
    let undefined: [(&str, Write); 5] = [
        ("CLAC", |a| a.clac().unwrap()),
        ("STAC", |a| a.stac().unwrap()),
        ("MONITOR", |a| a.monitor().unwrap()),
        ("MWAIT", |a| a.mwait().unwrap()),
        ("XSETBV", |a| a.xsetbv().unwrap()),
    ];
    for (name, write) in undefined {
        eprintln!("{name}");
        refused(&guest(64, write).setup(user), UD);
    }
}

#[test]
fn umip_and_tsd_keep_users_out() {
    let umip: [(&str, Write); 5] = [
        ("SGDT", |a| a.sgdt(fword_ptr(OUT)).unwrap()),
        ("SIDT", |a| a.sidt(fword_ptr(OUT)).unwrap()),
        ("SLDT", |a| a.sldt(word_ptr(OUT)).unwrap()),
        ("STR", |a| a.str(word_ptr(OUT)).unwrap()),
        ("SMSW", |a| a.smsw(word_ptr(OUT)).unwrap()),
    ];
    let tsd: [(&str, Write); 2] = [
        ("RDTSC", |a| a.rdtsc().unwrap()),
        ("RDTSCP", |a| a.rdtscp().unwrap()),
    ];
    for (list, bit) in [(&umip[..], cr4::UMIP), (&tsd[..], cr4::TSD)] {
        for (name, write) in list {
            eprintln!("{name}");
            let open = guest(32, write).setup(user);
            let closed = open.clone().setup(move |s| s.sys.cr4 |= bit);
            refused(&closed, GP);
            // Without it, what comes next is refused: HLT.
            open.run(|m| assert!(Record::of(m).ip > CODE as u32));
            let kernel = guest(32, write).setup(move |s| s.sys.cr4 |= bit);
            kernel.run(|m| assert_eq!(word(m, crate::tables::RECORD), 0, "no exception"));
        }
    }
}

#[test]
fn model_specific_registers() {
    guest(64, |a| {
        wrmsr(a, 0xc000_0102, 0xffff_8000_1234_5678);
        a.mov(rax, -1i64).unwrap();
        a.mov(rdx, -1i64).unwrap();
        a.rdmsr().unwrap();
        a.mov(qword_ptr(OUT), rax).unwrap();
        a.mov(qword_ptr(OUT + 8), rdx).unwrap();
        a.mov(ecx, 0x277u32).unwrap();
        a.rdmsr().unwrap();
        a.mov(dword_ptr(OUT + 16), eax).unwrap();
    })
    .run(|m| assert_eq!(results(m), [0x1234_5678, 0, 0xffff_8000, 0, 0x0007_0406, 0]));
    // A value that is no address, and a register that does not exist.
    for (register, value) in [(0xc000_0082u32, 1u64 << 47), (0x802, 0)] {
        let guest = guest(32, move |a| wrmsr(a, register, value));
        guest.run(|m| {
            let r = Record::of(m);
            assert_eq!((r.vector, r.error, r.ip), (13, 0, CODE as u32 + 15));
        });
    }
}

#[test]
fn cpuid_follows_the_registers() {
    guest(64, |a| {
        let mut ask = |leaf: u32, at: u64, register| {
            a.mov(eax, leaf).unwrap();
            a.xor(ecx, ecx).unwrap();
            a.cpuid().unwrap();
            a.mov(dword_ptr(OUT + at), register).unwrap();
        };
        ask(1, 0, ecx);
        ask(13, 4, ebx);
        a.mov(rax, cr4).unwrap();
        a.or(eax, cr4::OSXSAVE as i32).unwrap();
        a.mov(cr4, rax).unwrap();
        a.xor(ecx, ecx).unwrap();
        a.xor(edx, edx).unwrap();
        a.mov(eax, 7u32).unwrap();
        a.xsetbv().unwrap();
        a.xor(eax, eax).unwrap();
        a.xgetbv().unwrap();
        a.mov(dword_ptr(OUT + 8), eax).unwrap();
        // AVX is there now.
        a.vpxor(ymm0, ymm0, ymm0).unwrap();
        let mut ask = |leaf: u32, at: u64, register| {
            a.mov(eax, leaf).unwrap();
            a.xor(ecx, ecx).unwrap();
            a.cpuid().unwrap();
            a.mov(dword_ptr(OUT + at), register).unwrap();
        };
        ask(1, 12, ecx);
        ask(13, 16, ebx);
    })
    .run(|m| {
        let [before, small, xcr0, after, large, _] = results(m);
        assert_eq!((before >> 27 & 1, after >> 27 & 1), (0, 1), "OSXSAVE");
        assert_eq!((small, xcr0, large), (576, 7, 832));
    });
}

#[test]
fn popf_and_pushf_by_level() {
    // IF and IOPL, set through POPF and read back, then NT and DF.
    let code: Write = |a| {
        a.push(0x7600).unwrap();
        a.popfd().unwrap();
        a.pushfd().unwrap();
        a.pop(eax).unwrap();
        a.mov(dword_ptr(OUT), eax).unwrap();
        a.cld().unwrap();
        a.cli().unwrap();
        a.pushfd().unwrap();
        a.pop(eax).unwrap();
        a.mov(dword_ptr(OUT + 4), eax).unwrap();
    };
    guest(32, code).run(|m| assert_eq!(results(m)[..2], [0x7602, 0x7002]));
    guest(32, code).setup(user).run(|m| {
        assert_eq!(results(m)[..2], [0x4402, 0], "IF and IOPL stay");
        assert_eq!(Record::of(m).vector, 13, "CLI");
    });
    let iopl = |s: &mut CpuState| s.sysflags |= 3 << 12;
    guest(32, code).setup(user).setup(iopl).run(|m| {
        assert_eq!(results(m)[..2], [0x7602, 0x7002], "with IOPL 3");
    });
}

#[test]
fn machine_status_word() {
    guest(32, |a| {
        a.mov(eax, 0xfff8u32).unwrap();
        a.lmsw(ax).unwrap();
        a.smsw(eax).unwrap();
        a.mov(dword_ptr(OUT), eax).unwrap();
        a.clts().unwrap();
        a.mov(eax, cr0).unwrap();
        a.mov(dword_ptr(OUT + 4), eax).unwrap();
    })
    .run(|m| assert_eq!(results(m)[..2], [0x39, 0x31], "PE stays"));
}

#[test]
fn invalidation_makes_a_mapping_visible() {
    // The 2 MiB page at 4 MiB is mapped to 6 MiB, and back with each of the ways.
    let ways: [(&str, Write); 4] = [
        ("INVLPG", |a| a.invlpg(byte_ptr(0x40_0010)).unwrap()),
        ("INVPCID", |a| {
            a.mov(eax, 2u32).unwrap();
            a.invpcid(rax, xmmword_ptr(OUT + 0x40)).unwrap();
        }),
        ("MOV CR3", |a| {
            a.mov(rax, cr3).unwrap();
            a.mov(cr3, rax).unwrap();
        }),
        ("CR4.PGE", |a| {
            a.mov(rax, cr4).unwrap();
            a.xor(eax, cr4::PGE as i32).unwrap();
            a.mov(cr4, rax).unwrap();
        }),
    ];
    for (name, way) in ways {
        eprintln!("{name}");
        guest(64, |a| {
            let entry = PAGES + 0x2000 + 2 * 8;
            a.mov(dword_ptr(0x40_0000), 1).unwrap();
            a.mov(dword_ptr(0x60_0000), 2).unwrap();
            a.mov(eax, dword_ptr(0x40_0000)).unwrap();
            a.mov(dword_ptr(OUT), eax).unwrap();
            a.mov(dword_ptr(entry), 0x60_0087).unwrap();
            way(a);
            a.mov(eax, dword_ptr(0x40_0000)).unwrap();
            a.mov(dword_ptr(OUT + 4), eax).unwrap();
        })
        .run(|m| assert_eq!(results(m)[..2], [1, 2], "{name}"));
    }
}

#[test]
fn supervisor_access_prevention() {
    // Every page of the guest is a user's, but for the 2 MiB of code, stack and tables.
    let smap = |write: Write| {
        let mut guest = guest(64, write).setup(|s| s.sys.cr4 |= cr4::SMAP);
        guest = guest.with(PAGES + 0x2000, 0x83u64.to_le_bytes());
        guest
    };
    smap(|a| {
        a.stac().unwrap();
        a.mov(dword_ptr(0x40_0000), 7).unwrap();
        a.mov(eax, dword_ptr(0x40_0000)).unwrap();
        a.mov(dword_ptr(OUT), eax).unwrap();
        a.clac().unwrap();
        a.mov(eax, dword_ptr(0x40_0000)).unwrap();
    })
    .run(|m| {
        let r = Record::of(m);
        assert_eq!((r.vector, r.error, r.cr2), (14, 1, 0x40_0000));
        assert_eq!(results(m)[0], 7);
    });
}

#[test]
fn debug_registers_break_where_they_say() {
    /// DR6 as the handler finds it.
    fn causes(m: &metaphrase_runtime::Machine) -> u64 {
        m.state().sys.dr[6] & 0xe00f
    }
    // An instruction: before it.
    guest(32, |a| {
        a.mov(eax, CODE as u32 + 18).unwrap();
        a.mov(dr0, eax).unwrap();
        a.mov(eax, 2u32).unwrap();
        a.mov(dr7, eax).unwrap();
        a.nop().unwrap();
        a.nop().unwrap();
        a.inc(ebx).unwrap();
    })
    .run(|m| {
        let r = Record::of(m);
        assert_eq!((r.vector, r.ip, causes(m)), (1, CODE as u32 + 18, 1));
        assert_ne!(r.flags & 1 << 16, 0, "RF in the image");
        assert_eq!(m.state().gpr[3], 0);
    });
    // A write: after it.
    guest(32, |a| {
        a.mov(eax, OUT as u32 + 4).unwrap();
        a.mov(dr2, eax).unwrap();
        a.mov(eax, 0x0d00_0010u32).unwrap();
        a.mov(dr7, eax).unwrap();
        a.mov(eax, dword_ptr(OUT + 4)).unwrap();
        a.mov(dword_ptr(OUT), eax).unwrap();
        a.mov(byte_ptr(OUT + 7), 9).unwrap();
        a.inc(ebx).unwrap();
    })
    .run(|m| {
        let r = Record::of(m);
        assert_eq!((r.vector, causes(m)), (1, 4));
        assert_eq!(r.ip, CODE as u32 + 16 + 5 + 5 + 7);
        assert_eq!(results(m)[1], 9 << 24);
    });
    // A single step, and the debug registers themselves.
    guest(32, |a| {
        a.push(0x102).unwrap();
        a.popfd().unwrap();
        a.inc(ebx).unwrap();
        a.inc(ebx).unwrap();
    })
    .run(|m| {
        let r = Record::of(m);
        assert_eq!((r.vector, causes(m)), (1, 0x4000));
        assert_eq!((r.ip, m.state().gpr[3]), (CODE as u32 + 7, 1));
    });
    guest(32, |a| {
        a.mov(eax, 0x2000u32).unwrap();
        a.mov(dr7, eax).unwrap();
        a.mov(ebx, dr6).unwrap();
    })
    .run(|m| {
        let r = Record::of(m);
        assert_eq!((r.vector, r.ip, causes(m)), (1, CODE as u32 + 8, 0x2000));
        assert_ne!(r.flags & 1 << 16, 0, "RF in the image");
        assert_eq!(m.state().sys.dr[7], 0x400, "GD is off in the handler");
    });
}

#[test]
fn time_goes_on() {
    guest(64, |a| {
        wrmsr(a, 0x10, 1 << 40);
        a.rdtsc().unwrap();
        a.mov(dword_ptr(OUT), eax).unwrap();
        a.mov(dword_ptr(OUT + 4), edx).unwrap();
        a.rdtscp().unwrap();
        a.mov(dword_ptr(OUT + 8), eax).unwrap();
        a.mov(ecx, 0x3bu32).unwrap();
        a.rdmsr().unwrap();
        a.mov(dword_ptr(OUT + 12), edx).unwrap();
    })
    .run(|m| {
        let [low, high, later, adjust, ..] = results(m);
        // Instructions are the clock.
        assert_eq!((high, later - low), (1 << 8, 3));
        assert!(low < 100 && adjust == 0xff, "{low} {adjust:#x}");
    });
}
