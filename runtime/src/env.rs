//! What helpers need besides the registers: memory, the CPU model, time, descriptors, counters.
//! [`CpuState::env`] points to it.

use crate::activity::Note;
use crate::cpu_model::CpuModel;
use crate::memory::GuestMemory;
use crate::state::CpuState;
use crate::system::SystemEnv;
use metaphrase_ir::{Helper, SystemKind};
use std::time::Instant;

/// Where RDTSC gets its value from.
#[derive(Clone, Copy, Debug)]
pub enum TscSource {
    /// The number of guest instructions begun: the same in every run and engine.
    Instructions,
    /// Nanoseconds of the host's monotonic clock since that instant.
    Host(Instant),
}

/// A segment that user-mode code may load, as the guest's GDT holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UserSegment {
    /// Linear base.
    pub base: u64,
    /// It is a writable data segment (else a code segment, which SS does not take).
    pub data: bool,
}

/// Number of GDT entries that user mode knows.
pub const GDT_ENTRIES: usize = 16;

/// The surroundings of one virtual CPU.
#[derive(Debug)]
pub struct Env {
    /// The guest's memory.
    pub memory: GuestMemory,
    /// What CPUID says.
    pub cpu: CpuModel,
    /// Where RDTSC gets its value from.
    pub tsc: TscSource,
    /// Calls of each helper, by `Helper as usize`.
    pub helper_calls: [u64; Helper::ALL.len()],
    /// All the fuel that was ever put into [`CpuState::fuel`]. What it no longer holds has been
    /// used, so the difference counts instructions.
    pub fuel_given: u64,
    /// The GDT by selector index: what Linux has there for user mode; entries 12 to 14 are those
    /// of `set_thread_area`.
    pub gdt: [Option<UserSegment>; GDT_ENTRIES],
    /// What a whole system's CPU is connected to; `None` in a Linux program.
    pub system: Option<Box<SystemEnv>>,
    /// System instructions carried out, by `SystemKind as usize`.
    pub system_calls: [u64; SystemKind::ALL.len()],
    /// A TSC that counts instructions counts each as `1 << tsc_shift`; at most 20.
    pub tsc_shift: u32,
    /// What the CPU does now.
    pub doing: Note,
    /// Nanoseconds of guest time that passed without instructions, which a TSC that counts
    /// instructions counts too.
    pub skipped: u64,
}

impl Env {
    /// Surroundings with the given memory and CPU, an instruction-counting TSC and the segments
    /// of a fresh Linux process.
    pub fn new(memory: GuestMemory, cpu: CpuModel) -> Box<Env> {
        let mut gdt = [None; GDT_ENTRIES];
        // __USER32_CS, __USER_DS, __USER_CS of Linux on x86-64; i386 programs see the same there.
        gdt[4] = Some(UserSegment {
            base: 0,
            data: false,
        });
        gdt[5] = Some(UserSegment {
            base: 0,
            data: true,
        });
        gdt[6] = Some(UserSegment {
            base: 0,
            data: false,
        });
        let doing = memory.paged().map(|p| p.doing.clone()).unwrap_or_default();
        Box::new(Env {
            memory,
            cpu,
            tsc: TscSource::Instructions,
            helper_calls: [0; Helper::ALL.len()],
            fuel_given: 0,
            gdt,
            system: None,
            system_calls: [0; SystemKind::ALL.len()],
            tsc_shift: 0,
            skipped: 0,
            doing,
        })
    }

    /// Makes `state` refer to this, and to its memory.
    pub fn attach(&mut self, state: &mut CpuState) {
        state.mem_base = self.memory.base() as u64;
        state.mem_limit = self.memory.limit();
        state.tlb = match self.memory.paged() {
            Some(paged) => paged.table(),
            None => std::ptr::null_mut(),
        };
        state.env = std::ptr::from_mut(self).cast();
    }

    /// Puts `amount` into the fuel counter on top of what is left.
    pub fn add_fuel(&mut self, state: &mut CpuState, amount: u64) {
        self.fuel_given = self.fuel_given.wrapping_add(amount);
        state.fuel = state.fuel.wrapping_add(amount as i64);
    }

    /// Guest instructions begun so far; inside a block, all of the block's.
    pub fn instructions(&self, state: &CpuState) -> u64 {
        self.fuel_given.wrapping_sub(state.fuel as u64)
    }

    /// The time-stamp counter.
    pub fn read_tsc(&self, state: &CpuState) -> u64 {
        match self.tsc {
            TscSource::Instructions => {
                (self.instructions(state) << self.tsc_shift).wrapping_add(self.skipped)
            }
            TscSource::Host(start) => start.elapsed().as_nanos() as u64,
        }
    }
}
