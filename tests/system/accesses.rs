//! Checks of segments, alignment and branch targets in running code: the vector, the error code,
//! and that the faulting instruction has done nothing.

use crate::harness::{CODE, Guest, assemble, word};
use crate::tables::{GDT, Record, bytes, descriptor, gdt, sel};
use iced_x86::code_asm::*;
use metaphrase_runtime::system::{attr, cr0, cr4};
use metaphrase_runtime::{CpuState, Machine};

/// Writes code.
type Write<'a> = &'a dyn Fn(&mut CodeAssembler);

/// Where the segments under test lie.
const BASE: u32 = 0x9000;

/// Code of two parts and HLT, and where the second part starts.
fn parts(bits: u32, before: Write<'_>, last: Write<'_>) -> (Vec<u8>, u32) {
    let prefix = assemble(bits, CODE, before);
    let whole = assemble(bits, CODE, |a| {
        before(a);
        last(a);
        a.hlt().unwrap();
    });
    (whole, CODE as u32 + prefix.len() as u32)
}

/// 32-bit code at level 0 with other descriptors from [`sel::FREE`] on.
fn protected(code: Vec<u8>, more: &[u64]) -> Guest {
    let mut table = gdt();
    table.extend_from_slice(more);
    Guest::protected(code).with(GDT, bytes(&table))
}

/// The first instruction of `last` must fault so.
fn faults(
    guest: impl Fn(Vec<u8>) -> Guest,
    bits: u32,
    (before, last): (Write<'_>, Write<'_>),
    (vector, error): (u32, u32),
    check: impl Fn(&CpuState),
) {
    let (code, at) = parts(bits, before, last);
    guest(code).run(|m| {
        let r = Record::of(m);
        assert_eq!((r.vector, r.error, r.ip), (vector, error, at), "{r:x?}");
        check(m.state());
    });
}

const NONE: u32 = u32::MAX;
const UD: (u32, u32) = (6, NONE);
const NM: (u32, u32) = (7, NONE);
const SS: (u32, u32) = (12, 0);
const GP: (u32, u32) = (13, 0);
const AC: (u32, u32) = (17, 0);

/// Loads FS with the first free descriptor.
fn load_fs(a: &mut CodeAssembler) {
    a.mov(eax, u32::from(sel::FREE)).unwrap();
    a.mov(fs, eax).unwrap();
}

/// `access` through FS with that descriptor faults, or does not.
fn through_fs(fs_descriptor: u64, access: Write<'_>, faulty: bool) {
    let guest = |code| protected(code, &[fs_descriptor]);
    if faulty {
        return faults(guest, 32, (&load_fs, access), GP, |_| {});
    }
    let (code, _) = parts(32, &load_fs, access);
    let end = CODE + code.len() as u64;
    guest(code).run(|m| assert_eq!(m.state().rip, end));
}

#[test]
fn data_segments_end_at_their_limit() {
    let data = descriptor(BASE, 0xfff, 0x93, 4);
    through_fs(data, &|a| a.mov(eax, dword_ptr(0xffc).fs()).unwrap(), false);
    through_fs(data, &|a| a.mov(eax, dword_ptr(0xffd).fs()).unwrap(), true);
    through_fs(data, &|a| a.mov(al, byte_ptr(0xfff).fs()).unwrap(), false);
    through_fs(data, &|a| a.mov(al, byte_ptr(0x1000).fs()).unwrap(), true);
    through_fs(data, &|a| a.add(word_ptr(0xfff).fs(), cx).unwrap(), true);
    through_fs(
        data,
        &|a| a.lock().inc(dword_ptr(0xffd).fs()).unwrap(),
        true,
    );
    through_fs(data, &|a| a.fld(qword_ptr(0xff9).fs()).unwrap(), true);
    through_fs(data, &|a| a.fld(qword_ptr(0xff8).fs()).unwrap(), false);
    // Pages as the unit.
    let pages = descriptor(BASE, 0, 0x93, 0xc);
    through_fs(
        pages,
        &|a| a.mov(eax, dword_ptr(0xffc).fs()).unwrap(),
        false,
    );
    through_fs(pages, &|a| a.mov(eax, dword_ptr(0xffd).fs()).unwrap(), true);
}

#[test]
fn expand_down_segments_begin_above_their_limit() {
    let down = descriptor(0, 0x8fff, 0x97, 4);
    through_fs(down, &|a| a.mov(eax, dword_ptr(0x8fff).fs()).unwrap(), true);
    through_fs(
        down,
        &|a| a.mov(eax, dword_ptr(0x9000).fs()).unwrap(),
        false,
    );
    through_fs(
        down,
        &|a| a.mov(eax, dword_ptr(0x10000).fs()).unwrap(),
        false,
    );
    // 16 bits: up to 0xffff.
    let short = descriptor(0, 0x8fff, 0x97, 0);
    through_fs(
        short,
        &|a| a.mov(eax, dword_ptr(0xfffc).fs()).unwrap(),
        false,
    );
    through_fs(
        short,
        &|a| a.mov(eax, dword_ptr(0xfffd).fs()).unwrap(),
        true,
    );
}

#[test]
fn what_may_not_be_written_is_not() {
    let read_only = descriptor(BASE, 0xfff, 0x91, 4);
    through_fs(
        read_only,
        &|a| a.mov(eax, dword_ptr(0).fs()).unwrap(),
        false,
    );
    through_fs(read_only, &|a| a.mov(dword_ptr(0).fs(), eax).unwrap(), true);
    through_fs(read_only, &|a| a.or(dword_ptr(0).fs(), eax).unwrap(), true);
    through_fs(
        read_only,
        &|a| a.cmp(dword_ptr(0).fs(), eax).unwrap(),
        false,
    );
    // Code that can be read.
    let code = descriptor(BASE, 0xfff, 0x9b, 4);
    through_fs(code, &|a| a.mov(eax, dword_ptr(0).fs()).unwrap(), false);
    through_fs(code, &|a| a.mov(dword_ptr(0).fs(), eax).unwrap(), true);
    // Nothing loaded.
    let null: Write<'_> = &|a| {
        a.xor(eax, eax).unwrap();
        a.mov(fs, eax).unwrap();
    };
    let access: Write<'_> = &|a| a.mov(eax, dword_ptr(0).fs()).unwrap();
    faults(|code| protected(code, &[]), 32, (null, access), GP, |_| {});
    // A write through CS, however large it is.
    let write: Write<'_> = &|a| a.mov(dword_ptr(0x9000).cs(), eax).unwrap();
    faults(
        |code| protected(code, &[]),
        32,
        (&|_| {}, write),
        GP,
        |_| {},
    );
}

#[test]
fn a_repeated_move_stops_at_the_element_that_does_not_fit() {
    let before: Write<'_> = &|a| {
        a.mov(eax, u32::from(sel::FREE)).unwrap();
        a.mov(es, eax).unwrap();
        a.mov(esi, 0x8000u32).unwrap();
        a.mov(edi, 0xff0u32).unwrap();
        a.mov(ecx, 100u32).unwrap();
    };
    let data = descriptor(BASE, 0xffe, 0x93, 4);
    let guest = move |code| protected(code, &[data]);
    faults(
        guest,
        32,
        (before, &|a| a.rep().movsd().unwrap()),
        GP,
        |s| {
            // Three of them, to 0xffc; the fourth would need 0xfff.
            assert_eq!((s.gpr[1], s.gpr[6], s.gpr[7]), (97, 0x800c, 0xffc));
        },
    );
    faults(
        guest,
        32,
        (before, &|a| a.rep().stosb().unwrap()),
        GP,
        |s| {
            assert_eq!((s.gpr[1], s.gpr[7]), (85, 0xfff));
        },
    );
}

#[test]
fn operands_in_the_stack_segment_fault_with_its_vector() {
    let before: Write<'_> = &|a| {
        a.mov(eax, u32::from(sel::FREE)).unwrap();
        a.mov(ss, eax).unwrap();
        a.mov(ebp, 0xfffdu32).unwrap();
    };
    let guest = |code| protected(code, &[descriptor(0, 0xffff, 0x93, 4)]);
    faults(
        guest,
        32,
        (before, &|a| a.mov(eax, dword_ptr(ebp)).unwrap()),
        SS,
        |_| {},
    );
    faults(
        guest,
        32,
        (before, &|a| a.lock().dec(dword_ptr(ebp)).unwrap()),
        SS,
        |_| {},
    );
    faults(guest, 32, (before, &|a| a.leave().unwrap()), SS, |s| {
        assert_eq!(s.gpr[5], 0xfffd);
    });
}

#[test]
fn branches_beyond_the_limit_fault_themselves() {
    let before: Write<'_> = &|a| {
        a.mov(ecx, 5u32).unwrap();
        a.mov(ebx, 0x9000u32).unwrap();
        a.push(ebx).unwrap();
    };
    // Entered in a code segment that ends at 0x8fff.
    let guest = |code| {
        protected(code, &[descriptor(0, 0x8fff, 0x9b, 4)]).setup(|s| {
            s.seg_sel[1] = sel::FREE;
            s.sys.seg_limit[1] = 0x8fff;
            s.sys.seg_attr[1] &= !attr::G;
        })
    };
    let branches: [Write<'_>; 6] = [
        &|a| a.jmp(0x9000u64).unwrap(),
        &|a| a.jmp(ebx).unwrap(),
        &|a| a.call(0x9000u64).unwrap(),
        &|a| a.call(ebx).unwrap(),
        &|a| a.ret().unwrap(),
        &|a| a.jne(0x9000u64).unwrap(),
    ];
    for branch in branches {
        let before: Write<'_> = &|a| {
            before(a);
            a.test(ecx, ecx).unwrap();
        };
        faults(guest, 32, (before, branch), GP, |s| assert_eq!(s.gpr[1], 5));
    }
    // One that is not taken does not mind.
    let (code, _) = parts(32, &|a| a.xor(ecx, ecx).unwrap(), &|a| {
        a.jne(0x9000u64).unwrap();
    });
    let end = CODE + code.len() as u64;
    guest(code).run(|m| assert_eq!(m.state().rip, end));
}

/// Makes the guest start at level 3.
fn user(s: &mut CpuState) {
    s.sys.cpl = 3;
    s.seg_sel = [sel::USER_DATA; 6];
    s.seg_sel[1] = sel::USER_CODE32;
    for attributes in &mut s.sys.seg_attr {
        *attributes |= 3 << attr::DPL_SHIFT;
    }
    s.gpr[4] = 0xf000;
}

#[test]
fn alignment_is_checked_at_level_3_only() {
    let guest = |code| {
        protected(code, &[]).setup(user).setup(|s| {
            s.sys.cr0 |= cr0::AM;
            s.sysflags |= metaphrase_ir::sysflags::AC;
        })
    };
    let before: Write<'_> = &|a| a.mov(ebx, 0x9001u32).unwrap();
    let accesses: [Write<'_>; 5] = [
        &|a| a.mov(eax, dword_ptr(ebx)).unwrap(),
        &|a| a.mov(word_ptr(ebx), ax).unwrap(),
        &|a| a.add(dword_ptr(ebx + 1), eax).unwrap(),
        &|a| a.fld(qword_ptr(ebx + 3)).unwrap(),
        &|a| a.lock().xadd(dword_ptr(ebx), eax).unwrap(),
    ];
    for access in &accesses {
        faults(guest, 32, (before, access), AC, |_| {});
    }
    let strings: Write<'_> = &|a| {
        a.mov(esi, 0x9002u32).unwrap();
        a.mov(edi, 0xa000u32).unwrap();
        a.mov(ecx, 2u32).unwrap();
    };
    faults(
        guest,
        32,
        (strings, &|a| a.rep().movsd().unwrap()),
        AC,
        |s| {
            assert_eq!(s.gpr[1], 2);
        },
    );
    // At level 0 nothing happens.
    let (code, _) = parts(32, before, accesses[0]);
    let end = CODE + code.len() as u64;
    let kernel = protected(code, &[]).setup(|s| {
        s.sys.cr0 |= cr0::AM;
        s.sysflags |= metaphrase_ir::sysflags::AC;
    });
    kernel.run(|m| assert_eq!(m.state().rip, end));
}

#[test]
fn addresses_that_are_not_canonical_fault_by_segment() {
    let before: Write<'_> = &|a| {
        a.mov(rbx, 0x8000_0000_0000_0000u64).unwrap();
        a.mov(rbp, rbx).unwrap();
    };
    let cases: [(Write<'_>, (u32, u32)); 8] = [
        (&|a| a.mov(rax, qword_ptr(rbx)).unwrap(), GP),
        (&|a| a.mov(rax, qword_ptr(rbp)).unwrap(), SS),
        (&|a| a.add(qword_ptr(rbp), rax).unwrap(), SS),
        (&|a| a.lock().add(qword_ptr(rbp), rax).unwrap(), SS),
        (&|a| a.lock().add(qword_ptr(rbx), rax).unwrap(), GP),
        (&|a| a.fld(qword_ptr(rbp)).unwrap(), SS),
        (&|a| a.jmp(rbx).unwrap(), GP),
        (&|a| a.call(rbx).unwrap(), GP),
    ];
    for (access, fault) in cases {
        faults(Guest::long, 64, (before, access), fault, |s| {
            assert_eq!(s.gpr[3], 1 << 63);
        });
    }
    let pushed: Write<'_> = &|a| {
        before(a);
        a.push(rbx).unwrap();
    };
    faults(Guest::long, 64, (pushed, &|a| a.ret().unwrap()), GP, |_| {});
}

#[test]
fn control_registers_gate_floating_point() {
    let ts = |code| protected(code, &[]).setup(|s| s.sys.cr0 |= cr0::TS);
    let fld: Write<'_> = &|a| a.fld1().unwrap();
    let adds: Write<'_> = &|a| a.addps(xmm0, xmm1).unwrap();
    faults(ts, 32, (&|_| {}, fld), NM, |_| {});
    // CR4.OSFXSR is clear: no SSE.
    faults(ts, 32, (&|_| {}, adds), UD, |_| {});
    let both = |code| ts(code).setup(|s| s.sys.cr4 |= cr4::OSFXSR);
    faults(both, 32, (&|_| {}, adds), NM, |_| {});
    // CLTS in the same guest makes it work.
    let (code, _) = parts(32, &|a| a.clts().unwrap(), &|a| {
        a.addps(xmm0, xmm1).unwrap();
    });
    let end = CODE + code.len() as u64;
    both(code).run(|m: &Machine| assert_eq!(m.state().rip, end));
}

#[test]
fn unmasked_exceptions_are_undefined_where_nobody_expects_them() {
    let before: Write<'_> = &|a| {
        a.mov(dword_ptr(0x9000), 0i32).unwrap();
        a.ldmxcsr(dword_ptr(0x9000)).unwrap();
        a.xorps(xmm0, xmm0).unwrap();
        a.xorps(xmm1, xmm1).unwrap();
    };
    let divide: Write<'_> = &|a| a.divss(xmm0, xmm1).unwrap();
    let guest = |bits: u64| {
        move |code| protected(code, &[]).setup(move |s| s.sys.cr4 |= cr4::OSFXSR | bits)
    };
    faults(guest(0), 32, (before, divide), UD, |_| {});
    faults(
        guest(cr4::OSXMMEXCPT),
        32,
        (before, divide),
        (19, NONE),
        |_| {},
    );
}

#[test]
fn real_mode_offsets_end_at_64_kilobytes() {
    // Vector 13: a handler that takes a note and halts.
    let handler = assemble(16, 0x7000, |a| {
        a.pop(word_ptr(0x602)).unwrap();
        a.mov(word_ptr(0x600), 13).unwrap();
        a.hlt().unwrap();
    });
    let accesses: [Write<'_>; 3] = [
        &|a| a.mov(ax, word_ptr(bx)).unwrap(),
        &|a| a.mov(word_ptr(bx), ax).unwrap(),
        &|a| a.mov(eax, dword_ptr(bx - 1)).unwrap(),
    ];
    for access in accesses {
        let (code, at) = parts(16, &|a| a.mov(bx, 0xffffu32).unwrap(), access);
        let guest = Guest::real(code)
            .with(13 * 4, vec![0, 0x70, 0, 0])
            .with(0x7000, handler.clone())
            .setup(|s| s.gpr[4] = 0x6000);
        guest.run(|m| assert_eq!(word(m, 0x600), at << 16 | 13));
    }
}

#[test]
fn sixteen_bit_segments_of_protected_mode_end_at_64_kilobytes() {
    const SHORT: u64 = 0xa000;
    // JMP CODE16:SHORT.
    let jump = assemble(32, CODE, |a| {
        let at = SHORT.to_le_bytes();
        a.db(&[0xea, at[0], at[1], 0, 0, sel::CODE16 as u8, 0])
            .unwrap();
    });
    let before: Write<'_> = &|a| {
        a.mov(ax, u32::from(sel::DATA16)).unwrap();
        a.mov(ds, ax).unwrap();
        a.mov(cx, word_ptr(0xfffe)).unwrap();
        a.mov(ebx, 0xffffu32).unwrap();
    };
    let accesses: [Write<'_>; 3] = [
        &|a| a.mov(dx, word_ptr(bx)).unwrap(),
        &|a| a.mov(dl, byte_ptr(ebx + 1)).unwrap(),
        // JMP with a 32-bit operand size, 64 KiB on.
        &|a| a.db(&[0x66, 0xe9, 0, 0, 1, 0]).unwrap(),
    ];
    for access in accesses {
        let at = SHORT as u32 + assemble(16, SHORT, before).len() as u32;
        let short = assemble(16, SHORT, |a| {
            before(a);
            access(a);
        });
        protected(jump.clone(), &[]).with(SHORT, short).run(|m| {
            let r = Record::of(m);
            let found = (r.vector, r.error, r.ip, r.cs);
            assert_eq!(found, (13, 0, at, sel::CODE16.into()), "{r:x?}");
        });
    }
}
