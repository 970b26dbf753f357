//! A CPU in a given mode, with flat segments that need no tables, for the instructions that are
//! not about segments.

use super::Guest;
use crate::cpu_model::CpuModel;
use crate::system::Outcome;
use crate::system::state::{attr, cr0, cr4, efer};
use metaphrase_devices::Bus;
use metaphrase_ir::{Reg, SystemKind, SystemOp, sysflags};
use std::ops::{Deref, DerefMut};

/// RAM from 0 on.
pub const RAM: u64 = 16 << 20;

/// A guest, built mode by mode.
pub(super) struct Bench(Guest);

impl Deref for Bench {
    type Target = Guest;

    fn deref(&self) -> &Guest {
        &self.0
    }
}

impl DerefMut for Bench {
    fn deref_mut(&mut self) -> &mut Guest {
        &mut self.0
    }
}

impl Bench {
    /// In real mode after power-up, with the largest model.
    pub fn new() -> Bench {
        Bench::with_cpu("max")
    }

    /// In real mode after power-up.
    pub fn with_cpu(model: &str) -> Bench {
        Bench::with_ports(model, Bus::new())
    }

    /// In real mode after power-up, with those ports.
    pub fn with_ports(model: &str, ports: Bus) -> Bench {
        let cpu = CpuModel::from_name(model).unwrap();
        let mut bench = Bench(Guest::with(cpu, RAM, ports));
        bench.cx().changed();
        bench
    }

    /// Flat segments that open everything, of that code size.
    fn flat(&mut self, code_bits: u32, cpl: u8) {
        let sys = &mut self.state.sys;
        let dpl = u32::from(cpl) << attr::DPL_SHIFT;
        let data = attr::P | attr::S | attr::RW | attr::ACCESSED | attr::DB | attr::G | dpl;
        sys.seg_limit = [u32::MAX; 6];
        sys.seg_attr = [data; 6];
        sys.seg_attr[1] = data | attr::CODE;
        if code_bits == 64 {
            sys.seg_attr[1] = (sys.seg_attr[1] | attr::L) & !attr::DB;
        }
        sys.cpl = cpl;
        self.state.seg_base = [0; 6];
    }

    /// In 32-bit protected mode without paging.
    pub fn protected(mut self, cpl: u8) -> Bench {
        self.flat(32, cpl);
        self.state.sys.cr0 |= cr0::PE;
        self.cx().changed();
        self
    }

    /// In virtual-8086 mode.
    pub fn v86(self, iopl: u64) -> Bench {
        let mut bench = self.protected(3);
        bench.state.sysflags |= sysflags::VM | iopl << 12;
        bench.state.sys.seg_limit = [0xffff; 6];
        bench.cx().changed();
        bench
    }

    /// In 64-bit mode, with the first 4 GiB mapped one to one, writable, for users.
    pub fn long(mut self, cpl: u8) -> Bench {
        const PML4: u64 = RAM - 0x8000;
        let entry = |at: u64, value: u64| self.phys().write_bytes(at, &value.to_le_bytes());
        entry(PML4, (PML4 + 0x1000) | 7);
        for gib in 0..4 {
            let directory = PML4 + 0x2000 + gib * 0x1000;
            entry(PML4 + 0x1000 + 8 * gib, directory | 7);
            for n in 0..512 {
                entry(directory + 8 * n, gib << 30 | n << 21 | 0x87);
            }
        }
        self.flat(64, cpl);
        let sys = &mut self.state.sys;
        sys.cr0 |= cr0::PE | cr0::PG;
        sys.cr3 = PML4;
        sys.cr4 |= cr4::PAE;
        sys.efer |= efer::LME | efer::LMA;
        self.cx().changed();
        self
    }

    /// Executes an instruction without operand size and numbers.
    pub fn plain(&mut self, kind: SystemKind, a: u64) -> Outcome {
        self.run(SystemOp::new(kind), a, 0)
    }

    /// Executes an instruction with the number `n`.
    pub fn numbered(&mut self, kind: SystemKind, n: u8, a: u64) -> Outcome {
        let op = SystemOp {
            n,
            ..SystemOp::new(kind)
        };
        self.run(op, a, 0)
    }

    /// Executes an instruction of that operand size.
    pub fn sized(&mut self, kind: SystemKind, size: u8, a: u64, b: u64) -> Outcome {
        let op = SystemOp {
            size,
            ..SystemOp::new(kind)
        };
        self.run(op, a, b)
    }

    /// Sets a register.
    pub fn set(&mut self, reg: Reg, value: u64) {
        self.state.gpr[reg as usize] = value;
    }

    /// A register.
    pub fn reg(&self, reg: Reg) -> u64 {
        self.state.gpr[reg as usize]
    }
}
