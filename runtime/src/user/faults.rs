//! Exceptions of the guest as signals.

use super::Process;
use super::signal::Trap;
use super::signal::siginfo::{SI_KERNEL, SigInfo};
use crate::env::Env;
use crate::state::CpuState;
use crate::vcpu::{Exception, PF_PRESENT};

/// #GP(0).
pub const fn general_protection() -> Exception {
    Exception {
        vector: 13,
        error: Some(0),
        addr: 0,
        bus: false,
    }
}

const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRALN: i32 = 1;
const BUS_ADRERR: i32 = 2;
const ILL_ILLOPN: i32 = 2;
const TRAP_TRACE: i32 = 2;
const FPE_INTDIV: i32 = 1;
const FPE_FLTDIV: i32 = 3;
const FPE_FLTOVF: i32 = 4;
const FPE_FLTUND: i32 = 5;
const FPE_FLTRES: i32 = 6;
const FPE_FLTINV: i32 = 7;

/// The signal for an exception, as Linux chooses it.
fn signal_of(cpu: &CpuState, e: &Exception) -> SigInfo {
    match e.vector {
        0 => SigInfo::fault(libc::SIGFPE, FPE_INTDIV, cpu.rip),
        1 => SigInfo::fault(libc::SIGTRAP, TRAP_TRACE, cpu.rip),
        3 => SigInfo::new(libc::SIGTRAP, SI_KERNEL),
        6 => SigInfo::fault(libc::SIGILL, ILL_ILLOPN, cpu.rip),
        11 | 12 => SigInfo::new(libc::SIGBUS, SI_KERNEL),
        14 if e.bus => SigInfo::fault(libc::SIGBUS, BUS_ADRERR, e.addr),
        14 => {
            let present = e.error.unwrap_or(0) & PF_PRESENT != 0;
            let code = if present { SEGV_ACCERR } else { SEGV_MAPERR };
            SigInfo::fault(libc::SIGSEGV, code, e.addr)
        }
        16 => {
            let raised = u32::from(cpu.x87.status & !cpu.x87.control);
            SigInfo::fault(libc::SIGFPE, float_code(raised), cpu.rip)
        }
        17 => SigInfo::fault(libc::SIGBUS, BUS_ADRALN, 0),
        19 => {
            let raised = cpu.mxcsr & !(cpu.mxcsr >> 7);
            SigInfo::fault(libc::SIGFPE, float_code(raised), cpu.rip)
        }
        _ => SigInfo::new(libc::SIGSEGV, SI_KERNEL),
    }
}

/// `si_code` for the exception bits of a floating-point status (invalid, denormal, zero divide,
/// overflow, underflow, precision).
fn float_code(raised: u32) -> i32 {
    match raised & 0x3f {
        r if r & 1 != 0 => FPE_FLTINV,
        r if r & 4 != 0 => FPE_FLTDIV,
        r if r & 8 != 0 => FPE_FLTOVF,
        r if r & 0x12 != 0 => FPE_FLTUND,
        r if r & 0x20 != 0 => FPE_FLTRES,
        _ => 0,
    }
}

impl Process {
    /// Turns an exception into its signal. `Some(signal)` means that the guest dies by it.
    pub(super) fn exception(
        &mut self,
        cpu: &mut CpuState,
        env: &Env,
        e: &Exception,
    ) -> Option<i32> {
        let info = signal_of(cpu, e);
        self.signals.trap = Trap {
            number: u64::from(e.vector),
            error: u64::from(e.error.unwrap_or(0)),
            cr2: if e.vector == 14 {
                e.addr
            } else {
                self.signals.trap.cr2
            },
        };
        tracing::debug!(
            target: "signal",
            "exception {} (error {:?}) at {:#x}, address {:#x}: signal {}",
            e.vector,
            e.error,
            cpu.rip,
            e.addr,
            info.signal(),
        );
        if info.signal() == libc::SIGILL {
            let mut bytes = [0; 15];
            let n = env.memory.fetch(cpu.rip, &mut bytes);
            tracing::debug!(target: "signal", "the instruction's bytes: {:02x?}", &bytes[..n]);
        }
        let trampoline = self.space.layout.trampoline;
        self.signals.force(cpu, env, self.abi, trampoline, &info)
    }
}
