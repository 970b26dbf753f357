//! Refused memory accesses: the guest's own faults, host faults in compiled code, and writes to
//! pages that hold translations.

use super::{BUS, Exception, Next, PF_FETCH, PF_PRESENT, PF_USER, PF_WRITE, Stop, Vcpu, VcpuError};
use crate::memory::{MapError, PAGE, page};
use crate::system::Fault;
use crate::translate::TranslateError;
use iced_x86::Decoder;
use metaphrase_backend::{FaultInfo, host_fault};
use metaphrase_frontend::LiftError;
use metaphrase_ir::ExitReason;
use metaphrase_ir::exit::exception_info;

impl Vcpu {
    /// A host fault in compiled code: finds the guest instruction, gives its fuel back, and makes
    /// it look like any refused access.
    pub(super) fn host_fault(&mut self) -> ExitReason {
        let fault = FaultInfo::unpack(self.state.exit_info);
        let found = self
            .cache
            .by_host_pc(fault.host_pc)
            .and_then(|(id, offset)| {
                let t = self.cache.get(id);
                let code = t.code.as_ref()?;
                let fault = metaphrase_backend::fault_at(&code.faults, offset)?;
                Some((t.pc, *code.guest.get(fault.insn as usize)?, fault.write))
            });
        // The fault handler only redirects faults inside the arena, at instructions that access
        // guest memory; anything else is a defect that must not go on.
        let (pc, guest, write) = found.unwrap_or_else(|| {
            panic!(
                "host fault at {:#x}, which accesses no guest memory",
                fault.host_pc
            )
        });
        self.state.rip = pc.wrapping_add(guest.offset as u64) & self.mode.code.pc_mask();
        self.state.fuel = self.state.fuel.wrapping_add(i64::from(guest.fuel_left));
        if fault.bus {
            self.state.exit_info = exception_info(14, Some(PF_USER)) | BUS;
            return ExitReason::Exception;
        }
        self.state.exit_info = u64::from(write);
        ExitReason::Memory
    }

    /// Compiled code has left because of an access that it has written the state for. If the host
    /// MMU refused it, what only the fault handler knows is added.
    pub(super) fn refused_access(&mut self) -> ExitReason {
        let Some(fault) = host_fault::take() else {
            return ExitReason::Memory;
        };
        self.state.fault_addr = fault.linear;
        if fault.bus {
            self.state.exit_info = exception_info(14, Some(PF_USER)) | BUS;
            return ExitReason::Exception;
        }
        ExitReason::Memory
    }

    /// An access at `rip` was refused: a write to translated code, or the guest's own fault.
    pub(super) fn memory_fault(&mut self, addr: u64, write: bool) -> Result<Next, VcpuError> {
        // The address may be the first byte of an access that runs into the next page.
        let pages = [addr / PAGE, addr.wrapping_add(15) / PAGE];
        let holds_code = |n: &u64| self.env.memory.flags(n.wrapping_mul(PAGE)) & page::CODE != 0;
        if write && pages.iter().any(holds_code) {
            self.stats.smc_writes += 1;
            if !self.hits_code(addr, pages) {
                self.stats.false_invalidations += 1;
                return self.write_beside_code(pages);
            }
            for n in pages {
                self.invalidate_page(n)?;
            }
            return self.single_step();
        }
        Ok(Next::Stop(Stop::Exception(
            self.page_fault(addr, if write { PF_WRITE } else { 0 }),
        )))
    }

    /// Whether the instruction at `rip`, whose write at `addr` was refused, may write to a byte
    /// that a translation on these pages was made from.
    fn hits_code(&self, addr: u64, pages: [u64; 2]) -> bool {
        let mut bytes = [0; 15];
        let n = self.env.memory.fetch(self.state.rip, &mut bytes);
        let insn = Decoder::new(self.mode.code.bits(), &bytes[..n], 0).decode();
        let operand = insn.memory_size().size() as u64;
        let pushed = u64::from(insn.stack_pointer_increment().unsigned_abs());
        let len = operand.max(pushed);
        if len == 0 || insn.has_rep_prefix() || insn.has_repne_prefix() {
            // It writes as much as registers say.
            return true;
        }
        // `addr` is the first byte of the write, or one behind it on the next page.
        let pieces = |n: &u64| self.cache.made_from(*n, addr.saturating_sub(len), 2 * len);
        pages.iter().any(pieces)
    }

    /// Runs the instruction at `rip`, which writes to data on pages with translations; these are
    /// kept.
    fn write_beside_code(&mut self, pages: [u64; 2]) -> Result<Next, VcpuError> {
        for n in pages {
            self.env.memory.release_code(n).or_else(unmapped_is_fine)?;
        }
        let next = self.single_step()?;
        let held = pages.into_iter().filter(|&n| self.cache.holds(n));
        self.protect(&held.collect::<Vec<u64>>())?;
        Ok(next)
    }

    /// The exception for an address that the guest may not access.
    pub(super) fn page_fault(&mut self, addr: u64, code: u32) -> Exception {
        let canonical = (addr as i64) << 16 >> 16 == addr as i64;
        if self.mode.is_64() && !canonical {
            return Exception {
                vector: 13,
                error: Some(0),
                addr: 0,
                bus: false,
            };
        }
        self.state.fault_addr = addr;
        let mapped = self.env.memory.flags(addr) & page::MAPPED != 0;
        let present = if mapped { PF_PRESENT } else { 0 };
        Exception {
            vector: 14,
            error: Some(code | present | PF_USER),
            addr,
            bus: false,
        }
    }

    /// A block could not be translated: the guest's fault, or a defect of ours.
    pub(super) fn translate_failed(
        &mut self,
        pc: u64,
        error: TranslateError,
    ) -> Result<Next, VcpuError> {
        match error {
            TranslateError::Lift(LiftError::Fetch { addr }) if self.is_system() => {
                // Fetched before, it would have been found: only the guest's mapping can be why.
                let fault = self.code_address(addr).err().unwrap_or(Fault::gp(0));
                Ok(Next::Stop(Stop::Exception(fault.into())))
            }
            TranslateError::Lift(LiftError::Fetch { addr }) => {
                Ok(Next::Stop(Stop::Exception(self.page_fault(addr, PF_FETCH))))
            }
            source => Err(VcpuError::Translate { pc, source }),
        }
    }
}

/// The second of an access's two pages need not exist.
fn unmapped_is_fine(error: MapError) -> Result<(), MapError> {
    match error {
        MapError::NotMapped | MapError::BadRange => Ok(()),
        error => Err(error),
    }
}
