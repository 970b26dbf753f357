//! The processor as boot protocols want it when the kernel gets control.

use super::bytes::dwords;
use super::error::BootError;
use super::plan::Plan;
use crate::machine::Machine;
use crate::system::state::{cr4, efer};
use crate::system::{attr, cr0};
use metaphrase_ir::Reg;

/// Selectors of the descriptor table.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;

/// Flat segments: code, data, and a task state segment that is never used. `long`: 64-bit code.
fn gdt(long: bool) -> Vec<u8> {
    let code = if long { 0x00af_9b00 } else { 0x00cf_9b00 };
    dwords(&[
        0,
        0,
        0,
        0,
        0x0000_ffff,
        code,
        0x0000_ffff,
        0x00cf_9300,
        0x0000_0067,
        0x0000_8b00,
    ])
}

/// How a kernel is entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Flat 32-bit protected mode without paging.
    Protected {
        /// The first instruction.
        eip: u32,
        /// Registers with meaning: EAX, EBX, ESI.
        registers: [u32; 3],
        /// The descriptor table.
        gdt: u64,
    },
    /// 64-bit mode; the first 4 GiB are mapped to themselves.
    Long {
        /// The first instruction.
        rip: u64,
        /// RSI.
        rsi: u64,
        /// The descriptor table.
        gdt: u64,
        /// The page tables.
        cr3: u64,
    },
}

impl Entry {
    /// A protected-mode entry, with its descriptor table in memory.
    pub fn protected(
        plan: &mut Plan<'_>,
        eip: u32,
        registers: [u32; 3],
    ) -> Result<Entry, BootError> {
        let gdt = plan.place_anywhere("the descriptor table", 8, gdt(false))?;
        Ok(Entry::Protected {
            eip,
            registers,
            gdt,
        })
    }

    /// A 64-bit entry, with its tables in memory.
    pub fn long(plan: &mut Plan<'_>, rip: u64, rsi: u64) -> Result<Entry, BootError> {
        const PAGE: usize = 0x1000;
        const PRESENT_WRITABLE: u64 = 3;
        const LARGE: u64 = 1 << 7;
        let gdt = plan.place_anywhere("the descriptor table", 8, gdt(true))?;
        let cr3 = plan.place_anywhere("the page tables", PAGE as u64, vec![0; 6 * PAGE])?;
        let mut tables = vec![0u64; 6 * PAGE / 8];
        let page = |n: u64| (cr3 + n * PAGE as u64) | PRESENT_WRITABLE;
        tables[0] = page(1);
        for n in 0..4 {
            tables[PAGE / 8 + n] = page(2 + n as u64);
        }
        for n in 0..4 * PAGE / 8 {
            tables[2 * PAGE / 8 + n] = (n as u64) << 21 | PRESENT_WRITABLE | LARGE;
        }
        let tables: Vec<u8> = tables.iter().flat_map(|e| e.to_le_bytes()).collect();
        plan.fill(cr3, tables);
        Ok(Entry::Long { rip, rsi, gdt, cr3 })
    }

    /// Puts the processor into that state.
    pub fn enter(self, machine: &mut Machine) {
        const FLAT: u32 = attr::P | attr::S | attr::RW | attr::ACCESSED | attr::DB | attr::G;
        let s = machine.state_mut();
        s.gpr = [0; 16];
        s.set_rflags(2);
        s.seg_base = [0; 6];
        s.seg_sel = [DATA; 6];
        s.seg_sel[1] = CODE;
        s.sys.seg_limit = [u32::MAX; 6];
        s.sys.seg_attr = [FLAT; 6];
        s.sys.seg_attr[1] = FLAT | attr::CODE;
        s.sys.tr.selector = TASK;
        s.sys.tr.limit = 0x67;
        s.sys.cr0 = cr0::PE | cr0::ET;
        s.sys.gdtr.limit = 39;
        match self {
            Entry::Protected {
                eip,
                registers,
                gdt,
            } => {
                s.rip = eip.into();
                let order = [Reg::Rax, Reg::Rbx, Reg::Rsi];
                for (reg, value) in order.into_iter().zip(registers) {
                    s.gpr[reg as usize] = value.into();
                }
                s.sys.gdtr.base = gdt;
            }
            Entry::Long { rip, rsi, gdt, cr3 } => {
                s.rip = rip;
                s.gpr[Reg::Rsi as usize] = rsi;
                s.sys.gdtr.base = gdt;
                s.sys.seg_attr[1] = FLAT & !attr::DB | attr::CODE | attr::L;
                s.sys.cr0 |= cr0::PG;
                s.sys.cr3 = cr3;
                s.sys.cr4 = cr4::PAE;
                s.sys.efer = efer::LME | efer::LMA;
            }
        }
        machine.touch();
    }
}
