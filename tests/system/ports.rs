//! Ports in running code: rights, strings, breakpoints.

use crate::harness::{CODE, Guest, assemble, word};
use crate::tables::{Record, TSS, sel};
use iced_x86::code_asm::*;
use metaphrase_devices::{Bus, BusDevice, Width};
use metaphrase_runtime::CpuState;
use metaphrase_runtime::system::{attr, cr4};

/// Where the device's ports are.
const PORT: u32 = 0x1f0;

/// Reads count up; reads of port 4 give the sum of what was written.
#[derive(Default)]
struct Device {
    reads: u64,
    sum: u64,
}

impl BusDevice for Device {
    fn read(&mut self, offset: u64, _: Width) -> u64 {
        if offset == 4 {
            return self.sum;
        }
        self.reads += 1;
        self.reads
    }

    fn write(&mut self, _: u64, _: Width, value: u64) {
        self.sum = self.sum.wrapping_mul(3).wrapping_add(value);
    }
}

fn ports() -> Bus {
    let mut bus = Bus::new();
    bus.attach(PORT.into(), 8, "device", Box::<Device>::default())
        .expect("free ports");
    bus
}

fn guest(bits: u32, write: impl FnOnce(&mut CodeAssembler)) -> Guest {
    let code = assemble(bits, CODE, |a| {
        write(a);
        a.hlt().unwrap();
    });
    let guest = if bits == 32 {
        Guest::protected(code)
    } else {
        Guest::long(code)
    };
    Guest {
        ports: Some(ports),
        ..guest
    }
}

/// Level 3, with an I/O bitmap that allows the device's first two ports.
fn user(guest: Guest) -> Guest {
    let mut map = vec![0xff; 0x100];
    map[(PORT / 8) as usize] = 0xfc;
    guest.with(TSS + 0x68, map).setup(|s: &mut CpuState| {
        s.sys.cpl = 3;
        s.seg_sel = [sel::USER_DATA; 6];
        s.seg_sel[1] = sel::USER_CODE32;
        for a in &mut s.sys.seg_attr {
            *a |= 3 << attr::DPL_SHIFT;
        }
        s.sys.tr.limit = 0x168;
    })
}

#[test]
fn strings_of_any_length() {
    for bits in [32, 64] {
        guest(bits, |a| {
            a.mov(edx, PORT).unwrap();
            a.mov(edi, 0x20_0001u32).unwrap();
            a.mov(ecx, 10_000u32).unwrap();
            a.rep().insw().unwrap();
            a.mov(ebx, edi).unwrap();
            // Going down, and out.
            a.std().unwrap();
            a.lea(esi, dword_ptr(edi - 2)).unwrap();
            a.mov(ecx, 10_000u32).unwrap();
            a.rep().outsw().unwrap();
            a.mov(edx, PORT + 4).unwrap();
            a.in_(eax, dx).unwrap();
        })
        .run(|m| {
            let s = m.state();
            assert_eq!((s.gpr[1], s.gpr[3]), (0, 0x20_0001 + 20_000));
            assert_eq!(s.gpr[6], 0x20_0001 - 2);
            for n in 0..10_000u32 {
                let at = 0x20_0001 + 2 * u64::from(n);
                assert_eq!(word(m, at) & 0xffff, n + 1, "element {n}");
            }
            let sum = (1..=10_000u64)
                .rev()
                .fold(0u64, |sum, v| sum.wrapping_mul(3).wrapping_add(v));
            assert_eq!(s.gpr[0], sum & 0xffff_ffff);
        });
    }
}

#[test]
fn the_bitmap_is_for_users() {
    let read = |port: u32| {
        user(guest(32, move |a| {
            a.mov(edx, port).unwrap();
            a.in_(al, dx).unwrap();
        }))
    };
    // HLT behind it is what is refused.
    read(PORT + 1).run(|m| assert_eq!(Record::of(m).ip, CODE as u32 + 6));
    read(PORT + 2).run(|m| {
        let r = Record::of(m);
        assert_eq!((r.vector, r.error, r.ip), (13, 0, CODE as u32 + 5));
    });
}

#[test]
fn a_string_stops_where_it_faults() {
    guest(32, |a| {
        a.mov(edx, PORT).unwrap();
        a.mov(edi, 0x9000u32).unwrap();
        a.mov(ecx, 5u32).unwrap();
        a.rep().insd().unwrap();
    })
    .setup(|s| s.sys.seg_limit[0] = 0x900a)
    .run(|m| {
        let (r, s) = (Record::of(m), m.state());
        assert_eq!((r.vector, r.error, r.ip), (13, 0, CODE as u32 + 15));
        assert_eq!((s.gpr[1], s.gpr[7]), (3, 0x9008));
        assert_eq!((word(m, 0x9004), word(m, 0x9008)), (2, 0));
    });
}

#[test]
fn a_port_can_be_watched() {
    guest(32, |a| {
        a.mov(eax, PORT + 1).unwrap();
        a.mov(dr1, eax).unwrap();
        a.mov(eax, 0x0020_0004u32).unwrap();
        a.mov(dr7, eax).unwrap();
        a.mov(edx, PORT).unwrap();
        a.in_(al, dx).unwrap();
        a.out(dx, ax).unwrap();
        a.inc(ebx).unwrap();
    })
    .setup(|s| s.sys.cr4 |= cr4::DE)
    .run(|m| {
        let r = Record::of(m);
        assert_eq!((r.vector, r.ip), (1, CODE as u32 + 24));
        assert_eq!(m.state().sys.dr[6] & 0xf, 2);
        assert_eq!(m.state().gpr[3], 0);
    });
}
