//! System instructions, exceptions and interrupts of a whole system's CPU: the helper emulation
//! that sensitive instructions are trapped into.
//!
//! The lifter turns a system instruction into a call of the helper `system` with a
//! [`SystemOp`]; [`carry_out`] finds the function for it. A function raises a fault by returning
//! it, with nothing changed, or completes the instruction. Those that leave the region
//! ([`SystemKind::leaves`]) have RIP set for them to `next` before they run, and set it to
//! something else if they transfer.
//!
//! - `state.rs`: the registers; `mode.rs`: what of them translated code depends on.
//! - `segment.rs`, `transfer.rs`, `interrupt.rs`, `task.rs`, `fast_call.rs`, `smm.rs`: segments and
//!   transfers of control.
//! - `features.rs`, `rights.rs`: what of this the CPU model has, and what many instructions check.
//! - `control.rs`, `debug.rs`, `msr.rs`, `tables.rs`, `flags.rs`, `paging.rs`, `ports.rs`: the rest.

mod control;
mod cpuid;
pub mod debug;
mod descriptor;
mod fast_call;
mod fault;
pub mod features;
mod flags;
pub mod interrupt;
mod iret;
pub mod mode;
mod msr;
mod mtrr;
mod paging;
mod ports;
mod rights;
pub mod segment;
mod segment_info;
pub mod smm;
mod stack;
pub mod state;
mod tables;
mod task;
#[cfg(test)]
mod tests;
mod transfer;

use crate::activity::Doing;
use crate::env::Env;
pub use crate::helpers::Cx;
use crate::machine::GuestClock;
use crate::memory::Paged;
pub(crate) use cpuid::cpuid;
pub use fault::Fault;
use metaphrase_devices::Bus;
use metaphrase_ir::{SegmentAccess, SystemKind, SystemOp, sysflags};
pub use state::{
    Activity, Shadow, SystemSegment, SystemState, TableRegister, attr, cr0, cr4, efer,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a system instruction gives: its result, or the fault that it raises instead.
pub type Outcome = Result<u64, Fault>;

/// Something to deliver through the IDT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Vector, error code and address.
    pub fault: Fault,
    /// Where it comes from.
    pub source: Source,
}

/// Where an event comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The instruction at RIP, or the one before it (a trap): the processor.
    Exception,
    /// INT n: the gate's privilege level is checked.
    Software,
    /// INT3 and INTO: as INT n, but never redirected in virtual-8086 mode.
    SoftwareException,
    /// INT1: no check of the gate's privilege level.
    Privileged,
    /// An interrupt controller, or NMI.
    External,
}

/// What became of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivered {
    /// The handler comes next.
    Handler,
    /// A triple fault: the processor has shut down.
    Shutdown,
}

/// Gives the vectors of maskable interrupts.
pub trait InterruptController: Send {
    /// Whether the interrupt line is high.
    fn pending(&self) -> bool;

    /// The vector; the controller takes the interrupt as delivered.
    fn acknowledge(&mut self) -> u8;
}

/// The local APIC, as far as its processor reaches it otherwise than through memory.
pub trait LocalApic: Send {
    /// CR8: the priority class below which interrupts wait, 0 to 15.
    fn priority(&self) -> u8;

    /// Writes CR8.
    fn set_priority(&self, class: u8);

    /// Writes IA32_APIC_BASE. The range in memory moves before the next instruction.
    fn set_base(&self, value: u64);

    /// The guest time at which IA32_TSC_DEADLINE is reached, while it is armed.
    fn deadline(&self) -> Option<u64>;

    /// Arms or disarms it; in other timer modes nothing happens.
    fn set_deadline(&self, at: Option<u64>);
}

/// Frequencies as CPUID tells them (leaves 15H and 16H).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockRates {
    /// The core crystal, which also feeds the timer of the local APIC.
    pub crystal_hz: u32,
    /// Ticks of the time-stamp counter in one of the crystal's.
    pub tsc_ratio: u32,
}

impl ClockRates {
    /// The frequency of the time-stamp counter.
    pub fn tsc_hz(self) -> u64 {
        u64::from(self.crystal_hz) * u64::from(self.tsc_ratio)
    }
}

/// What a whole system's CPU is connected to, besides memory.
pub struct SystemEnv {
    ports: Mutex<Bus>,
    /// Guest time, for the devices.
    pub clock: Arc<GuestClock>,
    /// Model-specific registers that do not exist read as zero and ignore writes, instead of
    /// raising #GP.
    pub ignore_msrs: bool,
    /// The identifier of the CPU's local APIC, if the machine has one.
    pub apic_id: Option<u8>,
    /// That local APIC, if it is more than an identifier.
    pub apic: Option<Box<dyn LocalApic>>,
    /// The level of the interrupt line, if whoever drives it keeps this up to date from one
    /// instruction to the next, and the quiet ones of the ports are declared so. Otherwise whatever
    /// may lead to an interrupt returns to the machine, which asks.
    pub interrupt: Option<Arc<AtomicBool>>,
    /// The frequencies that CPUID tells, if it is to tell them.
    pub rates: Option<ClockRates>,
}

impl std::fmt::Debug for SystemEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SystemEnv")
    }
}

impl SystemEnv {
    /// Connected to those ports, whose devices were given that clock.
    pub fn new(ports: Bus, clock: Arc<GuestClock>) -> SystemEnv {
        SystemEnv {
            ports: Mutex::new(ports),
            clock,
            ignore_msrs: false,
            apic_id: None,
            apic: None,
            interrupt: None,
            rates: None,
        }
    }

    /// The I/O ports.
    pub fn ports(&self) -> MutexGuard<'_, Bus> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an interrupt may be waiting.
    pub fn may_be_interrupted(&self) -> bool {
        let line = self.interrupt.as_ref();
        line.is_none_or(|level| level.load(Ordering::Relaxed))
    }

    /// Whether an access to ports since this was last asked may be followed by more than an
    /// interrupt.
    fn take_loud(&self) -> bool {
        self.interrupt.is_none() || self.ports().take_loud()
    }
}

impl Cx {
    /// The system registers.
    #[allow(clippy::mut_from_ref)]
    pub fn sys(&self) -> &mut SystemState {
        &mut self.state().sys
    }

    /// The linear address space.
    ///
    /// # Panics
    /// In a Linux program, whose code holds no system instruction.
    pub fn paged(&self) -> &Paged {
        let env: &Env = self.env();
        env.memory.paged().expect("a full system's memory")
    }

    /// The local APIC.
    fn apic(&self) -> Option<&dyn LocalApic> {
        self.env().system.as_ref()?.apic.as_deref()
    }

    /// Guest time is that of this instruction, for what asks the clock.
    fn follow_time(&self) {
        let env = self.env();
        if let Some(system) = &env.system {
            system.clock.follow(env.instructions(self.state()));
        }
    }

    /// Returns to the machine if something has come of an access to ports.
    fn look_after_access(&self) {
        let system = self.env().system.as_ref();
        let loud = system.is_none_or(|system| system.take_loud());
        // The memory that strings go to or come from may be a device too.
        if self.paged().take_device_access() || loud {
            // A device may have something to do at another time than before.
            self.sys().look = true;
        }
        self.look_if_due();
    }

    /// Returns to the machine if an interrupt or a single step may be due.
    fn look_if_due(&self) {
        let s = self.state();
        let system = self.env().system.as_ref();
        let may = || system.is_none_or(|system| system.may_be_interrupted());
        if s.sysflags & sysflags::TF != 0 || s.sysflags & sysflags::IF != 0 && may() {
            s.sys.look = true;
        }
    }

    fn count(&self, kind: SystemKind) {
        let env = self.state().env.cast::<Env>();
        // SAFETY: the state is attached to an environment, and the counter is not otherwise
        // accessed during the call.
        unsafe {
            let count = &raw mut (*env).system_calls[kind as usize];
            *count = (*count).wrapping_add(1);
        }
    }

    /// To be called after any change of CR0, CR3, CR4, IA32_EFER, the privilege level, RFLAGS.AC,
    /// RFLAGS.VM, A20 or a segment register: memory accesses and the dispatcher follow.
    pub fn changed(&self) {
        let s = self.state();
        s.sys.mode_changed = true;
        let paged = self.paged();
        paged.set_context(mode::paging_context(s, &self.env().cpu));
        s.tlb = paged.table();
    }
}

/// The helper `system`.
pub(crate) fn system(cx: &Cx, descriptor: u32, [a, b, next]: [u64; 3]) -> u64 {
    let outcome = match SystemOp::unpack(descriptor) {
        Some(op) if cx.env().memory.paged().is_some() => carry_out(cx, op, a, b, next),
        _ => Err(Fault::UD),
    };
    outcome.unwrap_or_else(|fault| {
        cx.raise(fault.vector, fault.error);
        cx.state().fault_addr = fault.addr;
        0
    })
}

/// Carries an instruction out.
fn carry_out(cx: &Cx, op: SystemOp, a: u64, b: u64, next: u64) -> Outcome {
    let function = match op.kind {
        SystemKind::ReadCr => control::read_cr,
        SystemKind::WriteCr => control::write_cr,
        SystemKind::ReadDr => debug::read_dr,
        SystemKind::WriteDr => debug::write_dr,
        SystemKind::Clts => control::clts,
        SystemKind::Lmsw => control::lmsw,
        SystemKind::Rdmsr => msr::rdmsr,
        SystemKind::Wrmsr => msr::wrmsr,
        SystemKind::Rdtsc => msr::rdtsc,
        SystemKind::Rdtscp => msr::rdtscp,
        SystemKind::Rdpmc => msr::rdpmc,
        SystemKind::Xsetbv => control::xsetbv,
        SystemKind::GdtBase => tables::gdt_base,
        SystemKind::GdtLimit => tables::gdt_limit,
        SystemKind::IdtBase => tables::idt_base,
        SystemKind::IdtLimit => tables::idt_limit,
        SystemKind::Sldt => tables::sldt,
        SystemKind::Str => tables::str,
        SystemKind::Smsw => control::smsw,
        SystemKind::Lgdt => tables::lgdt,
        SystemKind::Lidt => tables::lidt,
        SystemKind::Lldt => segment::lldt,
        SystemKind::Ltr => segment::ltr,
        SystemKind::LoadSegment => segment::load_segment,
        SystemKind::LoadFar => segment::load_far,
        SystemKind::PopSegment => segment::pop_segment,
        SystemKind::SegmentInfo => segment_info::segment_info,
        SystemKind::Swapgs => segment::swapgs,
        SystemKind::JmpFar => transfer::jmp_far,
        SystemKind::CallFar => transfer::call_far,
        SystemKind::RetFar => transfer::ret_far,
        SystemKind::Iret => iret::iret,
        SystemKind::Int => interrupt::int,
        SystemKind::Syscall => fast_call::syscall,
        SystemKind::Sysret => fast_call::sysret,
        SystemKind::Sysenter => fast_call::sysenter,
        SystemKind::Sysexit => fast_call::sysexit,
        SystemKind::Rsm => smm::rsm,
        SystemKind::Cli => flags::cli,
        SystemKind::Sti => flags::sti,
        SystemKind::Pushf => flags::pushf,
        SystemKind::Popf => flags::popf,
        SystemKind::Clac => flags::clac,
        SystemKind::Monitor => flags::monitor,
        SystemKind::Hlt => flags::hlt,
        SystemKind::Invlpg => paging::invlpg,
        SystemKind::Invpcid => paging::invpcid,
        SystemKind::Wbinvd => paging::wbinvd,
        SystemKind::In => ports::input,
        SystemKind::Out => ports::output,
        SystemKind::PortString => ports::port_string,
    };
    if op.kind.leaves() {
        cx.state().rip = next;
    }
    cx.count(op.kind);
    if matches!(
        op.kind,
        SystemKind::In | SystemKind::Out | SystemKind::PortString
    ) {
        cx.follow_time();
        let _doing = cx.env().doing.during(Doing::Devices);
        let outcome = function(cx, op, a, b, next);
        cx.look_after_access();
        return outcome;
    }
    let outcome = function(cx, op, a, b, next);
    if op.kind.opens_window() {
        cx.look_if_due();
    }
    if cx.paged().take_device_access() {
        cx.sys().look = true;
    }
    outcome
}

/// Whether a segment allows an access, for the helpers that access memory themselves.
pub(crate) fn segment_allows(cx: &Cx, access: SegmentAccess, offset: u64) -> Result<(), Fault> {
    segment::check(cx, access, offset)
}

/// The helper `segment_check`.
pub(crate) fn segment_check(cx: &Cx, descriptor: u32, [offset, _, _]: [u64; 3]) -> u64 {
    let access = SegmentAccess::unpack(descriptor);
    let outcome = if access.fetch {
        let inside = offset <= u64::from(cx.sys().seg_limit[1]);
        inside.then_some(()).ok_or(Fault::gp(0))
    } else {
        segment::check(cx, access, offset)
    };
    if let Err(fault) = outcome {
        cx.raise(fault.vector, fault.error);
    }
    0
}
