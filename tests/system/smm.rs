//! System-management interrupts in running code.

use crate::harness::{BUDGET, CODE, Guest, RAM, assemble, engines, word};
use iced_x86::code_asm::*;
use metaphrase_devices::{Bus, BusDevice, Width};
use metaphrase_runtime::machine::Parts;
use metaphrase_runtime::memory::PhysMemory;
use metaphrase_runtime::{CpuModel, Machine, MachineStop};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The port of chipsets that requests the interrupt.
const APM: u32 = 0xb2;

struct Request(Arc<AtomicBool>);

impl BusDevice for Request {
    fn read(&mut self, _: u64, _: Width) -> u64 {
        0
    }

    fn write(&mut self, _: u64, _: Width, _: u64) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const RESULT: u32 = 0x500;

/// Requests ten interrupts, with registers that must survive.
fn program() -> Vec<u8> {
    assemble(32, CODE, |a| {
        a.mov(ecx, 10u32).unwrap();
        a.mov(ebx, 0x1234_5678u32).unwrap();
        let mut again = a.create_label();
        a.set_label(&mut again).unwrap();
        a.stc().unwrap();
        a.out(APM, al).unwrap();
        // Carry has survived: 2 for each.
        a.adc(dword_ptr(RESULT + 8), 1).unwrap();
        a.loop_(again).unwrap();
        a.mov(dword_ptr(RESULT + 12), ebx).unwrap();
        a.cli().unwrap();
        a.hlt().unwrap();
    })
}

/// What runs first, where SMBASE is after a reset: moves it.
fn relocation() -> Vec<u8> {
    assemble(16, 0x8000, |a| {
        a.mov(ebx, 0x3_ff00u32).unwrap();
        a.mov(dword_ptr(ebx), 0x4_0000u32).unwrap();
        a.inc(dword_ptr(RESULT)).unwrap();
        a.rsm().unwrap();
    })
}

/// What runs then: requests another while it runs, once.
fn handler() -> Vec<u8> {
    assemble(16, 0x8000, |a| {
        let mut end = a.create_label();
        a.xor(ebx, ebx).unwrap();
        a.inc(dword_ptr(RESULT + 4)).unwrap();
        a.cmp(dword_ptr(RESULT + 4), 5).unwrap();
        a.jne(end).unwrap();
        a.out(APM, al).unwrap();
        a.set_label(&mut end).unwrap();
        a.clc().unwrap();
        a.rsm().unwrap();
    })
}

#[test]
fn firmware_moves_its_base_and_returns() {
    let guest = Guest::protected(program())
        .with(0x3_8000, relocation())
        .with(0x4_8000, handler());
    let mut first = None;
    for (name, options) in engines() {
        let mut memory = PhysMemory::new();
        memory.add_ram(0, RAM).unwrap();
        for (at, bytes) in &guest.pieces {
            memory.write_bytes(*at, bytes);
        }
        let mut parts = Parts::new(memory, CpuModel::max(), options);
        let mut ports = Bus::new();
        let device = Box::new(Request(parts.smi.clone()));
        ports.attach(APM.into(), 1, "request", device).unwrap();
        parts.ports = ports;
        let mut machine = Machine::new(parts).unwrap();
        let s = machine.state_mut();
        (s.seg_sel[1], s.seg_base[1], s.rip) = (0, 0, CODE);
        for set in &guest.setups {
            set(s);
        }
        machine.touch();
        assert_eq!(machine.run(BUDGET).unwrap(), MachineStop::Halted, "{name}");
        let results: [u32; 4] =
            std::array::from_fn(|n| word(&machine, u64::from(RESULT) + 4 * n as u64));
        assert_eq!(results, [1, 10, 20, 0x1234_5678], "{name}");
        assert_eq!(machine.state().sys.smbase, 0x4_0000);
        let outcome = (machine.instructions(), machine.digest());
        assert_eq!(outcome, *first.get_or_insert(outcome), "{name}");
    }
}
