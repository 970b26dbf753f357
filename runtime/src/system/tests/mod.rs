//! Tests of system instructions through the function that carries them out, on a small machine
//! whose tables lie in guest memory.

mod bench;
mod chaos;
mod control;
mod cpuid;
mod debug;
mod delivery;
mod fast_calls;
mod faulting;
mod flags;
mod model;
mod msr;
mod paging;
mod ports;
mod random;
mod random_transfers;
mod segments;
mod smm;
mod tables;
mod transfers;
mod world;
mod world_stack;

use super::*;
use crate::cpu_model::CpuModel;
use crate::machine::{GuestClock, TimeMode};
use crate::memory::{GuestMemory, PAGE, PhysMemory};
use crate::state::CpuState;
use std::sync::Arc;

/// Where the tables lie.
const GDT: u64 = 0x1000;
const LDT: u64 = 0x2000;
const IDT: u64 = 0x3000;
const TSS: u64 = 0x4000;

/// The bytes of memory.
const RAM: u64 = 64 * PAGE;

/// What follows the instruction under test.
const NEXT: u64 = 0x1234;

/// Selectors of the descriptors that [`Guest::protected`] makes.
const CODE0: u16 = 0x08;
const DATA0: u16 = 0x10;
const CODE3: u16 = 0x1b;
const DATA3: u16 = 0x23;
/// The TSS (16 bytes in IA-32e mode) and the LDT, likewise.
const TSS_SEL: u16 = 0x28;
const LDT_SEL: u16 = 0x38;
/// 64-bit code of levels 0 and 3.
const LONG0: u16 = 0x48;
const LONG3: u16 = 0x53;
/// The first that tests may use for their own.
const FREE: u16 = 0x60;

/// A virtual CPU with memory.
struct Guest {
    state: Box<CpuState>,
    env: Box<Env>,
}

/// A descriptor with the attributes that [`attr`] names.
fn descriptor(base: u32, limit: u32, attributes: u32) -> u64 {
    let (base, limit) = (u64::from(base), u64::from(limit));
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | u64::from(attributes) << 40
        | (limit & 0xf_0000) << 32
        | (base >> 24) << 56
}

/// A gate.
fn gate(selector: u16, offset: u32, attributes: u32, count: u8) -> u64 {
    u64::from(offset & 0xffff)
        | u64::from(selector) << 16
        | u64::from(count) << 32
        | u64::from(attributes) << 40
        | u64::from(offset >> 16) << 48
}

/// Attributes of a present segment or gate of that type (with S) and level.
fn present(kind: u32, dpl: u32) -> u32 {
    attr::P | dpl << attr::DPL_SHIFT | kind
}

impl Guest {
    /// In real mode, everything at power-up values.
    fn new() -> Guest {
        Guest::with(CpuModel::max(), RAM, Bus::new())
    }

    /// The same with that CPU, that much memory and those ports.
    fn with(cpu: CpuModel, ram: u64, ports: Bus) -> Guest {
        let mut phys = PhysMemory::new();
        phys.add_ram(0, ram).unwrap();
        let memory = GuestMemory::system(Paged::new(Arc::new(phys)));
        let mut env = Env::new(memory, cpu);
        env.system = Some(Box::new(SystemEnv::new(
            ports,
            Arc::new(GuestClock::new(TimeMode::COUNTED)),
        )));
        let mut state = CpuState::new();
        env.attach(&mut state);
        state.sysflags = 2;
        Guest { state, env }
    }

    /// In 32-bit protected mode at level 0 with flat segments, tables and a TSS.
    fn protected() -> Guest {
        let mut g = Guest::new();
        g.state.sys.cr0 |= cr0::PE;
        let flat = attr::G | attr::DB;
        let data = attr::S | attr::RW | attr::ACCESSED;
        let code = data | attr::CODE;
        g.define(CODE0, descriptor(0, 0xfffff, flat | present(code, 0)));
        g.define(DATA0, descriptor(0, 0xfffff, flat | present(data, 0)));
        g.define(CODE3, descriptor(0, 0xfffff, flat | present(code, 3)));
        g.define(DATA3, descriptor(0, 0xfffff, flat | present(data, 3)));
        g.define(TSS_SEL, descriptor(TSS as u32, 0x67, present(11, 0)));
        g.define(LDT_SEL, descriptor(LDT as u32, 0xfff, present(2, 0)));
        let long = attr::G | attr::L;
        g.define(LONG0, descriptor(0, 0xfffff, long | present(code, 0)));
        g.define(LONG3, descriptor(0, 0xfffff, long | present(code, 3)));
        let sys = &mut g.state.sys;
        sys.gdtr = state::TableRegister {
            base: GDT,
            limit: 0xfff,
        };
        sys.idtr = state::TableRegister {
            base: IDT,
            limit: 0xfff,
        };
        let system = |base: u64, limit: u32, kind: u32, selector: u16| SystemSegment {
            base,
            limit,
            attr: present(kind, 0),
            selector,
        };
        sys.ldtr = system(LDT, 0xfff, 2, LDT_SEL);
        sys.tr = system(TSS, 0x67, 11, TSS_SEL);
        g.level(0);
        g
    }

    /// The same in IA-32e mode, in 64-bit code. (Paging is left off: nothing here looks at it.)
    fn long() -> Guest {
        let mut g = Guest::protected();
        g.state.sys.efer |= efer::LME | efer::LMA | efer::SCE;
        g.level(0);
        g
    }

    /// Takes code and stack of that level.
    fn level(&mut self, cpl: u8) {
        let long = self.state.sys.efer & efer::LMA != 0;
        let (code, data) = match (cpl, long) {
            (3, false) => (CODE3, DATA3),
            (3, true) => (LONG3, DATA3),
            (_, false) => (CODE0, DATA0),
            (_, true) => (LONG0, DATA0),
        };
        self.cache(1, code);
        for n in [0, 2, 3, 4, 5] {
            self.cache(n, data);
        }
        self.state.sys.cpl = cpl;
        self.cx().changed();
    }

    /// Puts the descriptor that a selector names into a segment register, unchecked.
    fn cache(&mut self, n: usize, selector: u16) {
        let raw = self.get(GDT + u64::from(selector & !7));
        let d = super::descriptor::Descriptor::fetch(&self.cx(), selector);
        let d = d.unwrap().unwrap();
        assert_eq!(d.raw, raw);
        segment::set(&self.cx(), n, d.segment());
    }

    fn cx(&mut self) -> Cx {
        Cx {
            state: &raw mut *self.state,
        }
    }

    /// Defines what a selector names.
    fn define(&self, selector: u16, raw: u64) {
        let table = if selector & 4 == 0 { GDT } else { LDT };
        self.put(table + u64::from(selector & !7), raw);
    }

    fn phys(&self) -> &PhysMemory {
        self.env.memory.paged().unwrap().phys()
    }

    fn put(&self, addr: u64, value: u64) {
        self.phys().write_bytes(addr, &value.to_le_bytes());
    }

    fn put32(&self, addr: u64, value: u32) {
        self.phys().write_bytes(addr, &value.to_le_bytes());
    }

    fn put16(&self, addr: u64, value: u16) {
        self.phys().write_bytes(addr, &value.to_le_bytes());
    }

    fn get(&self, addr: u64) -> u64 {
        let mut bytes = [0; 8];
        self.phys().read_bytes(addr, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn get32(&self, addr: u64) -> u32 {
        self.get(addr) as u32
    }

    fn get16(&self, addr: u64) -> u16 {
        self.get(addr) as u16
    }

    /// Carries out an instruction. A fault must leave the registers alone.
    fn run(&mut self, op: SystemOp, a: u64, b: u64) -> Outcome {
        let before = self.registers();
        let outcome = carry_out(&self.cx(), op, a, b, NEXT);
        if outcome.is_err() {
            self.state.rip = before.1;
            assert!(
                before == self.registers(),
                "{op:?} faults and changes state"
            );
        }
        outcome
    }

    /// What a fault must not change.
    #[allow(clippy::type_complexity)]
    fn registers(&self) -> ([u64; 16], u64, u64, [u64; 6], [u16; 6], SystemState) {
        let s = &self.state;
        let (flags, mut sys) = (s.rflags(), s.sys);
        // A hint to the dispatcher, and what IRET unblocks in any case.
        (sys.look, sys.nmi_blocked, sys.mode_changed) = (false, false, false);
        // Why a #DB comes.
        sys.pending_debug = 0;
        (s.gpr, s.rip, flags, s.seg_base, s.seg_sel, sys)
    }
}

/// An instruction with those numbers.
fn op(kind: SystemKind, size: u8, n: u8, m: u8) -> SystemOp {
    SystemOp { kind, size, n, m }
}

/// Random numbers (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True once in `n`.
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
