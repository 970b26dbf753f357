//! Ports: rights, widths, and strings.

use super::bench::Bench;
use super::{NEXT, carry_out, op};
use crate::system::state::{SystemSegment, attr, cr4};
use crate::system::{Fault, Outcome};
use metaphrase_devices::{Bus, BusDevice, Width};
use metaphrase_ir::sysflags::{IOPL, TF};
use metaphrase_ir::{Reg, SystemKind as Kind};
use std::sync::{Arc, Mutex};

const GP: Fault = Fault::gp(0);
/// The instruction's own PC.
const HERE: u64 = 0x1230;

/// Reads count up; writes are kept.
#[derive(Default)]
struct Log {
    reads: u64,
    written: Vec<(u64, u64, u64)>,
}

struct Device(Arc<Mutex<Log>>);

impl BusDevice for Device {
    fn read(&mut self, _: u64, width: Width) -> u64 {
        let mut log = self.0.lock().unwrap();
        log.reads += 1;
        (0x8182_8384 + log.reads) & width.ones()
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        let mut log = self.0.lock().unwrap();
        log.written.push((offset, width.bytes(), value));
    }
}

/// A device at ports 0x1f0 to 0x1f7.
fn bench() -> (Bench, Arc<Mutex<Log>>) {
    let log = Arc::<Mutex<Log>>::default();
    let mut bus = Bus::new();
    bus.attach(0x1f0, 8, "device", Box::new(Device(log.clone())))
        .unwrap();
    (Bench::with_ports("max", bus), log)
}

/// The mode, with a task state segment at 0x7000 whose I/O bitmap at 0x88 allows nothing but what
/// `open` lists.
fn with_map(mut bench: Bench, kind: u32, limit: u32, open: &[u64]) -> Bench {
    let mut map = [0xff; 0x100];
    for port in open {
        map[(port / 8) as usize] &= !(1 << (port % 8));
    }
    bench.phys().write_bytes(0x7000 + 0x66, &[0x88, 0]);
    bench.phys().write_bytes(0x7000 + 0x88, &map);
    bench.state.sys.tr = SystemSegment {
        base: 0x7000,
        limit,
        attr: attr::P | kind,
        selector: 8,
    };
    bench
}

#[test]
fn widths_and_registers() {
    let (mut bench, log) = bench();
    let whole = 0x1111_2222_3333_4444;
    for (size, expected) in [
        (1, 0x1111_2222_3333_4485),
        (2, 0x1111_2222_3333_8386),
        (4, 0x8182_8387),
    ] {
        bench.set(Reg::Rax, whole);
        bench.sized(Kind::In, size, 0x1f0, 0).unwrap();
        assert_eq!(bench.reg(Reg::Rax), expected);
        bench.sized(Kind::Out, size, 0x1_01f1, whole).unwrap();
    }
    bench.set(Reg::Rax, whole);
    bench.sized(Kind::In, 2, 0x300, 0).unwrap();
    assert_eq!(bench.reg(Reg::Rax), 0x1111_2222_3333_ffff, "open bus");
    let expected = [(1, 1, 0x44), (1, 2, 0x4444), (1, 4, 0x3333_4444)];
    assert_eq!(log.lock().unwrap().written, expected);
    assert_eq!(bench.state.rip, NEXT);
}

/// Every instruction that accesses ports, with what it says.
fn all(bench: &mut Bench, port: u64, size: u8) -> Outcome {
    bench.set(Reg::Rdx, port);
    bench.set(Reg::Rdi, 0x8000);
    bench.set(Reg::Rsi, 0x8000);
    let outcomes = [
        bench.sized(Kind::In, size, port, 0),
        bench.sized(Kind::Out, size, port, 0),
        bench.run(op(Kind::PortString, size, 0, 4), HERE, 0),
        bench.run(op(Kind::PortString, size, 1, 4 | 3 << 5), HERE, 0),
    ];
    let faults = outcomes.map(|o| o.err());
    assert!(faults.iter().all(|f| *f == faults[0]), "{faults:?}");
    faults[0].map_or(Ok(0), Err)
}

#[test]
fn iopl_opens_all_ports_outside_virtual_8086_mode() {
    type Make = fn(Bench) -> Bench;
    let modes: [(Make, u64, bool); 7] = [
        (|b| b, 0, true),
        (|b| b.protected(0), 0, true),
        (|b| b.protected(2), 2, true),
        (|b| b.protected(2), 1, false),
        (|b| b.protected(3), 3, true),
        (|b| b.long(3), 2, false),
        (|b| b.v86(3), 3, false),
    ];
    for (n, (make, iopl, open)) in modes.into_iter().enumerate() {
        // Without, and with a bitmap that allows the port.
        for allowed in [false, true] {
            let list: &[u64] = if allowed { &[0x1f0] } else { &[] };
            let mut bench = with_map(make(bench().0), 11, 0x188, list);
            bench.state.sysflags = bench.state.sysflags & !IOPL | iopl << 12;
            let expected = if open || allowed { Ok(0) } else { Err(GP) };
            assert_eq!(all(&mut bench, 0x1f0, 1), expected, "mode {n}");
        }
    }
}

#[test]
fn every_port_of_an_access_needs_its_bit() {
    let open = [0x1f0, 0x1f1, 0x1f7, 0x1f8, 0x200, 0x201, 0x202, 0x203];
    let mut bench = with_map(bench().0.protected(3), 9, 0x188, &open);
    for (port, size, allowed) in [
        (0x1f0, 1, true),
        (0x1f0, 2, true),
        (0x1f0, 4, false),
        (0x1f1, 2, false),
        (0x1f7, 2, true),
        (0x200, 4, true),
        (0x201, 4, false),
        (0x1ff, 1, false),
    ] {
        let expected = if allowed { Ok(0) } else { Err(GP) };
        assert_eq!(all(&mut bench, port, size), expected, "{port:#x}, {size}");
    }
}

#[test]
fn the_bitmap_ends_with_the_segment() {
    let open = [0x1f0];
    let at = |kind: u32, limit: u32| {
        let mut bench = with_map(bench().0.protected(3), kind, limit, &open);
        all(&mut bench, 0x1f0, 1)
    };
    // The two bytes that are read: 0x88 + 0x1f0 / 8 and the next.
    assert_eq!(at(11, 0xc7), Ok(0));
    assert_eq!(at(11, 0xc6), Err(GP));
    assert_eq!(at(11, 0x66), Err(GP), "no room for the bitmap's offset");
    assert_eq!(at(3, 0x188), Err(GP), "a 16-bit task has no bitmap");
    assert_eq!(at(2, 0x188), Err(GP));
    let mut none = with_map(bench().0.protected(3), 11, 0x188, &open);
    none.state.sys.tr.attr &= !attr::P;
    assert_eq!(all(&mut none, 0x1f0, 1), Err(GP));
    // The task state segment is the supervisor's to read.
    let mut long = with_map(bench().0.long(3), 11, 0x188, &open);
    let directory = long.state.sys.cr3 + 0x2000;
    long.phys().write_bytes(directory, &0x83u64.to_le_bytes());
    assert_eq!(long.sized(Kind::In, 1, 0x1f0, 0), Ok(0x85));
}

#[test]
fn repeated_input_fills_memory() {
    for (down, addr, count) in [
        (false, 2, 300),
        (true, 4, 300),
        (false, 8, 3000),
        (true, 8, 2),
    ] {
        let (made, log) = bench();
        let mut bench = if addr == 8 {
            made.long(0)
        } else {
            made.protected(0)
        };
        let start = if down { 0xa000 } else { 0x8ffd };
        bench.state.df = if down { -1 } else { 1 };
        bench.set(Reg::Rdx, 0x1f0);
        bench.set(Reg::Rdi, start);
        bench.set(Reg::Rcx, count);
        bench
            .run(op(Kind::PortString, 2, 0, addr | 0x10), HERE, 0)
            .unwrap();
        assert_eq!(bench.state.rip, NEXT);
        assert_eq!(log.lock().unwrap().reads, count);
        assert_eq!(bench.reg(Reg::Rcx), 0);
        let step = if down { -2i64 } else { 2 } as u64;
        let end = start.wrapping_add(step.wrapping_mul(count));
        assert_eq!(bench.reg(Reg::Rdi), end);
        for n in 0..count {
            let at = start.wrapping_add(step.wrapping_mul(n));
            assert_eq!(bench.get16(at), (0x8385 + n) as u16, "element {n}");
        }
    }
}

#[test]
fn repeated_output_reads_memory() {
    let (bench, log) = bench();
    let mut bench = bench.protected(0);
    let bytes: Vec<u8> = (0..2000u32).map(|n| (n * 7) as u8).collect();
    bench.phys().write_bytes(0x2_9ff1, &bytes);
    bench.state.seg_base[4] = 0x2_0000;
    bench.set(Reg::Rdx, 0x1f0);
    bench.set(Reg::Rsi, 0x9ff1);
    bench.set(Reg::Rcx, 500);
    let outs = op(Kind::PortString, 4, 1, 4 | 0x10 | 4 << 5);
    bench.run(outs, HERE, 0).unwrap();
    let written = std::mem::take(&mut log.lock().unwrap().written);
    let got: Vec<u8> = written
        .iter()
        .flat_map(|w| (w.2 as u32).to_le_bytes())
        .collect();
    assert_eq!(got, bytes);
    assert_eq!(bench.reg(Reg::Rsi), 0x9ff1 + 2000);
}

#[test]
fn registers_change_at_the_address_size() {
    let (mut bench, log) = bench();
    let high = 0x5555_0000_0000_0000;
    let mut run = |m: u8, di: u64, cx: u64| {
        bench.set(Reg::Rdx, 0x1f0);
        bench.set(Reg::Rdi, high | di);
        bench.set(Reg::Rcx, high | cx);
        bench.run(op(Kind::PortString, 1, 0, m), HERE, 0).unwrap();
        (bench.reg(Reg::Rdi), bench.reg(Reg::Rcx))
    };
    // DI wraps at the top of the segment.
    assert_eq!(
        run(0x12, 0x1_fffe, 0x1_0003),
        (high | 0x1_0001, high | 0x1_0000)
    );
    assert_eq!(run(0x14, 0xffe, 3), (0x1001, 0));
    assert_eq!(run(0x02, 0x100, 7), (high | 0x101, high | 7), "without REP");
    assert_eq!(run(0x14, 0x100, 0), (high | 0x100, high), "nothing to do");
    assert_eq!(log.lock().unwrap().reads, 7);
    assert_eq!(bench.get16(0xffff - 1), 0x8685);
    assert_eq!(bench.get16(0) & 0xff, 0x87);
}

#[test]
fn a_long_repeat_and_a_single_step_come_back() {
    let (made, log) = bench();
    let mut bench = made.protected(0);
    bench.set(Reg::Rdx, 0x1f0);
    bench.set(Reg::Rdi, 0x2_0000);
    bench.set(Reg::Rcx, 10_000);
    let mut calls = 0;
    let ins = op(Kind::PortString, 1, 0, 0x14);
    loop {
        bench.run(ins, HERE, 0).unwrap();
        calls += 1;
        let done = bench.reg(Reg::Rdi) - 0x2_0000;
        assert_eq!(bench.reg(Reg::Rcx), 10_000 - done);
        assert_eq!(log.lock().unwrap().reads, done);
        if bench.state.rip == NEXT {
            break;
        }
        assert_eq!(bench.state.rip, HERE);
    }
    assert_eq!(bench.reg(Reg::Rcx), 0);
    assert!((2..100).contains(&calls), "{calls} calls");
    bench.state.sysflags |= TF;
    bench.set(Reg::Rcx, 3);
    for left in [2, 1, 0] {
        bench.run(ins, HERE, 0).unwrap();
        assert_eq!(bench.reg(Reg::Rcx), left);
        assert_eq!(bench.state.rip, if left == 0 { NEXT } else { HERE });
    }
}

#[test]
fn a_fault_stops_at_its_element() {
    let (made, log) = bench();
    let mut bench = made.protected(0);
    // ES ends in the middle of the third word.
    bench.state.sys.seg_limit[0] = 0x8004;
    bench.set(Reg::Rdx, 0x1f0);
    bench.set(Reg::Rdi, 0x8000);
    bench.set(Reg::Rcx, 5);
    let ins = op(Kind::PortString, 2, 0, 0x14);
    assert_eq!(carry_out(&bench.cx(), ins, HERE, 0, NEXT), Err(GP));
    assert_eq!((bench.reg(Reg::Rdi), bench.reg(Reg::Rcx)), (0x8004, 3));
    assert_eq!(log.lock().unwrap().reads, 2, "the port was not read for it");
    // A page that is missing or may not be written.
    for (bits, error) in [(0u64, 2), (0x20_0085, 3)] {
        let (made, log) = self::bench();
        let mut bench = made.long(0);
        let entry = bench.state.sys.cr3 + 0x2000 + 8;
        bench.phys().write_bytes(entry, &bits.to_le_bytes());
        bench.state.sys.cr0 |= crate::system::cr0::WP;
        bench.cx().changed();
        bench.set(Reg::Rdx, 0x1f0);
        bench.set(Reg::Rdi, 0x1f_fffa);
        bench.set(Reg::Rcx, 5);
        let ins = op(Kind::PortString, 4, 0, 0x18);
        let fault = carry_out(&bench.cx(), ins, HERE, 0, NEXT);
        assert_eq!(fault, Err(Fault::pf(0x20_0000, error)));
        assert_eq!((bench.reg(Reg::Rdi), bench.reg(Reg::Rcx)), (0x1f_fffe, 4));
        assert_eq!(log.lock().unwrap().reads, 1);
    }
    // Reads that may not be: #SS through SS.
    let (made, log) = self::bench();
    let mut bench = made.protected(0);
    bench.state.sys.seg_limit[2] = 0xff;
    bench.set(Reg::Rsi, 0x100);
    let outs = op(Kind::PortString, 1, 1, 4 | 2 << 5);
    assert_eq!(bench.run(outs, HERE, 0), Err(Fault::ss(0)));
    let mut long = self::bench().0.long(0);
    long.set(Reg::Rsi, 1 << 47);
    assert_eq!(long.run(outs, HERE, 0), Ok(0), "32-bit address");
    long.set(Reg::Rsi, 1 << 47);
    let outs = op(Kind::PortString, 1, 1, 8 | 2 << 5);
    assert_eq!(long.run(outs, HERE, 0), Err(Fault::ss(0)));
    let outs = op(Kind::PortString, 1, 1, 8 | 3 << 5);
    assert_eq!(long.run(outs, HERE, 0), Err(GP));
    assert!(log.lock().unwrap().written.is_empty());
}

#[test]
fn breakpoints_on_ports_and_data() {
    let (made, _) = bench();
    let mut bench = made.protected(0);
    bench.state.sys.cr4 |= cr4::DE;
    bench.state.sys.dr[1] = 0x1f2;
    bench.state.sys.dr[7] = 0x400 | 1 << 2 | 2 << 20;
    bench.sized(Kind::In, 1, 0x1f1, 0).unwrap();
    assert_eq!(bench.state.sys.pending_debug, 0);
    bench.sized(Kind::Out, 2, 0x1f1, 0).unwrap();
    assert_eq!(bench.state.sys.pending_debug, 2);
    // A repeated instruction stops behind the element.
    bench.state.sys.pending_debug = 0;
    bench.state.sys.dr[0] = 0x8002;
    bench.state.sys.dr[7] = 0x400 | 1 | 1 << 16;
    bench.set(Reg::Rdx, 0x1f0);
    bench.set(Reg::Rdi, 0x8000);
    bench.set(Reg::Rcx, 5);
    bench
        .run(op(Kind::PortString, 1, 0, 0x14), HERE, 0)
        .unwrap();
    assert_eq!((bench.reg(Reg::Rdi), bench.reg(Reg::Rcx)), (0x8003, 2));
    assert_eq!(bench.state.sys.pending_debug, 1);
    assert_eq!(bench.state.rip, HERE);
}
