//! A whole machine: memory, devices, one virtual CPU, and time.
//!
//! ```text
//! Machine::run ── due timers, interrupts, idle ──► Vcpu::run ── blocks ──► helper `system`
//!      ▲                                              │                        │
//!      └──────── exceptions, attention, budget ◄──────┴──── `look`, faults ◄───┘
//! ```
//!
//! Nothing is global: two machines in one process do not touch.

mod acpi;
mod bell;
pub mod boot;
mod clock;
pub mod lockstep;
pub mod pc;
mod smbios;
#[cfg(test)]
mod tests;

use crate::activity::Doing;
use crate::cpu_model::CpuModel;
use crate::env::{Env, TscSource};
use crate::memory::{GuestMemory, Paged, PhysMemory};
use crate::options::Options;
use crate::state::CpuState;
use crate::stats::Stats;
use crate::system::debug;
use crate::system::interrupt::deliver;
use crate::system::{
    Activity, ClockRates, Cx, Delivered, Event, Fault, InterruptController, LocalApic, Shadow,
    Source, SystemEnv, SystemState, cr0, mode, smm,
};
use crate::vcpu::{Stop, Vcpu, VcpuError};
pub use acpi::BoardTables;
pub use bell::Bell;
pub use clock::{GuestClock, TimeMode, Waker};
use metaphrase_devices::{Bus, InterruptLine, Timed};
use metaphrase_ir::{Reg, sysflags};
pub use pc::{Chipset, Pins};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The longest run between two looks at timers and the outside, in guest instructions.
const LONGEST_RUN: u64 = 10_000_000;

/// Exceptions without an instruction between them after which the guest counts as stuck; timer events
/// in a halt that no interrupt can end after which it counts as halted for good.
const FUTILE: u32 = 10_000;

/// The #DB vector.
const DB: u8 = 1;
/// The #MF vector.
const MF: u8 = 16;

/// Why [`Machine::run`] returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MachineStop {
    /// The instruction budget is used up, exactly.
    Budget,
    /// The processor waits for an interrupt, and none can come any more.
    Halted,
    /// A triple fault.
    Shutdown,
    /// Exceptions follow each other, each of the other's handler, and no instruction is executed
    /// between them. It may be run again.
    Stuck,
    /// The guest has switched the machine off.
    PowerOff,
    /// The guest has asked for a reset, and the machine is none that restarts.
    Reset,
    /// A device or another thread asked for it through [`Machine::stop_flag`], with that number.
    Requested(u32),
}

/// What a machine is made of.
pub struct Parts {
    /// RAM, ROM and memory-mapped devices.
    pub memory: Arc<PhysMemory>,
    /// The devices at I/O ports.
    pub ports: Bus,
    /// The interrupt controller, if there is one.
    pub interrupts: Option<Box<dyn InterruptController>>,
    /// FERR#: where x87 exceptions go while CR0.NE is 0. Whoever holds it takes it down again.
    pub fpu_error: Option<Box<dyn InterruptLine>>,
    /// Devices whose outputs change by themselves.
    pub timers: Vec<Box<dyn Timed + Send>>,
    /// Devices to which things happen from outside.
    pub bells: Vec<Bell>,
    /// The clock that they were given.
    pub clock: Arc<GuestClock>,
    /// The CPU model.
    pub cpu: CpuModel,
    /// The identifier of the local APIC, if there is one.
    pub apic_id: Option<u8>,
    /// That local APIC, if it is more than an identifier.
    pub apic: Option<Box<dyn LocalApic>>,
    /// The level of the interrupt line, kept up to date by whoever drives it:
    /// [`SystemEnv::interrupt`].
    pub interrupt: Option<Arc<AtomicBool>>,
    /// Set by what requests a system-management interrupt; cleared as the CPU takes it.
    pub smi: Arc<AtomicBool>,
    /// What the board tells the processor.
    pub pins: Arc<Pins>,
    /// What maps memory and ports as the guest sets them.
    pub chipset: Option<Box<dyn Chipset>>,
    /// What the tables say of the board, for kernels without firmware.
    pub tables: BoardTables,
    /// A reset starts the machine anew, as one with firmware can.
    pub restarts: bool,
    /// See [`Machine::stop_flag`].
    pub stop: Arc<AtomicU32>,
    /// Model-specific registers that do not exist read as zero and ignore writes, instead of
    /// raising #GP.
    pub ignore_msrs: bool,
    /// How the virtual CPU runs.
    pub options: Options,
}

impl Parts {
    /// Nothing but a CPU and that memory.
    pub fn new(memory: impl Into<Arc<PhysMemory>>, cpu: CpuModel, options: Options) -> Parts {
        Parts {
            memory: memory.into(),
            ports: Bus::new(),
            interrupts: None,
            fpu_error: None,
            timers: Vec::new(),
            bells: Vec::new(),
            clock: Arc::new(GuestClock::new(TimeMode::COUNTED)),
            cpu,
            apic_id: None,
            apic: None,
            interrupt: None,
            smi: Arc::default(),
            pins: Arc::default(),
            chipset: None,
            tables: BoardTables::default(),
            restarts: false,
            stop: Arc::default(),
            ignore_msrs: false,
            options,
        }
    }
}

/// A machine.
pub struct Machine {
    vcpu: Vcpu,
    phys: Arc<PhysMemory>,
    clock: Arc<GuestClock>,
    interrupts: Option<Box<dyn InterruptController>>,
    timers: Vec<Box<dyn Timed + Send>>,
    bells: Vec<Bell>,
    stop: Arc<AtomicU32>,
    nmi: bool,
    fpu_error: Option<Box<dyn InterruptLine>>,
    smi: Arc<AtomicBool>,
    pins: Arc<Pins>,
    chipset: Option<Box<dyn Chipset>>,
    tables: BoardTables,
    restarts: bool,
    /// Memory is mapped as in system-management mode.
    mapped_smm: bool,
    /// Interrupts delivered.
    delivered: u64,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Machine({:?})", self.vcpu)
    }
}

impl Machine {
    /// A machine after power-up: the next instruction is at the reset vector.
    ///
    /// # Errors
    /// If compiled code is asked for and cannot run on this host.
    pub fn new(parts: Parts) -> Result<Machine, VcpuError> {
        let phys = parts.memory;
        let memory = GuestMemory::system(Paged::new(phys.clone()));
        let mut env = Env::new(memory, parts.cpu);
        let mut system = SystemEnv::new(parts.ports, parts.clock.clone());
        system.apic_id = parts.apic_id;
        system.apic = parts.apic;
        system.interrupt = parts.interrupt;
        system.ignore_msrs = parts.ignore_msrs;
        // The counter counts nanoseconds, of either clock.
        system.rates = Some(ClockRates {
            crystal_hz: 1_000_000_000,
            tsc_ratio: 1,
        });
        env.system = Some(Box::new(system));
        env.tsc = match parts.clock.mode() {
            TimeMode::Deterministic { shift } => {
                env.tsc_shift = shift.min(20);
                TscSource::Instructions
            }
            TimeMode::RealTime => TscSource::Host(parts.clock.start()),
        };
        let mode = mode::mode(&CpuState::new(), env.cpu.features());
        let mut machine = Machine {
            vcpu: Vcpu::new(env, mode, parts.options)?,
            phys,
            clock: parts.clock,
            interrupts: parts.interrupts,
            timers: parts.timers,
            bells: parts.bells,
            stop: parts.stop,
            nmi: false,
            fpu_error: parts.fpu_error,
            smi: parts.smi,
            pins: parts.pins,
            chipset: parts.chipset,
            tables: parts.tables,
            restarts: parts.restarts,
            mapped_smm: false,
            delivered: 0,
        };
        machine.clock.set_attention(machine.vcpu.attention());
        machine.reset();
        Ok(machine)
    }

    /// Puts the processor into its power-up state (SDM volume 3, table 9-1). Memory and devices
    /// stay as they are.
    pub fn reset(&mut self) {
        let signature = self.vcpu.env.cpu.cpuid(1, 0)[0];
        let s = &mut self.vcpu.state;
        s.gpr = [0; 16];
        s.gpr[Reg::Rdx as usize] = u64::from(signature);
        s.set_rflags(2);
        s.seg_sel = [0; 6];
        s.seg_base = [0; 6];
        (s.seg_sel[1], s.seg_base[1]) = (0xf000, 0xffff_0000);
        s.rip = 0xfff0;
        s.mxcsr = 0x1f80;
        s.x87.control = 0x40;
        s.sys = SystemState::power_up();
        self.touch();
    }

    /// What INIT does: a reset that leaves the floating-point and vector registers and the
    /// model-specific registers alone (SDM volume 3, table 9-1).
    fn initialise(&mut self) {
        let s = &self.vcpu.state;
        let (msr, caches) = (s.sys.msr, s.sys.cr0 & (cr0::CD | cr0::NW));
        let (x87, mxcsr, smbase) = (s.x87, s.mxcsr, s.sys.smbase);
        self.reset();
        let s = &mut self.vcpu.state;
        (s.x87, s.mxcsr) = (x87, mxcsr);
        (s.sys.msr, s.sys.smbase) = (msr, smbase);
        s.sys.cr0 = s.sys.cr0 & !(cr0::CD | cr0::NW) | caches;
        self.touch();
    }

    /// The registers.
    pub fn state(&self) -> &CpuState {
        &self.vcpu.state
    }

    /// The registers, to change. Afterwards [`Machine::touch`] must be called if a control
    /// register, a segment or the privilege level was among them.
    pub fn state_mut(&mut self) -> &mut CpuState {
        &mut self.vcpu.state
    }

    /// Makes memory accesses and translation follow changes of [`Machine::state_mut`].
    pub fn touch(&mut self) {
        self.cx().changed();
    }

    /// Physical memory.
    pub fn memory(&self) -> &PhysMemory {
        &self.phys
    }

    /// The virtual CPU.
    pub fn vcpu(&mut self) -> &mut Vcpu {
        &mut self.vcpu
    }

    /// Guest instructions executed so far.
    pub fn instructions(&self) -> u64 {
        self.vcpu.instructions()
    }

    /// The counters.
    pub fn report(&mut self) -> Stats {
        let mut stats = self.vcpu.report();
        stats.idle_ns = self.clock.skipped();
        stats.interrupts = self.delivered;
        stats
    }

    /// A number other than 0 stored here makes [`Machine::run`] return soon with it.
    pub fn stop_flag(&self) -> Arc<AtomicU32> {
        self.stop.clone()
    }

    /// Ends a sleep of the machine, from any thread: for whoever gives input to a device.
    pub fn waker(&self) -> Waker {
        self.clock.waker()
    }

    /// Raises a non-maskable interrupt.
    pub fn raise_nmi(&mut self) {
        self.nmi = true;
        self.vcpu.state.sys.look = true;
    }

    /// A hash of the registers and of all RAM: the same for the same guest after the same number
    /// of instructions, in every engine.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let s = &self.vcpu.state;
        (s.gpr, s.rip, s.rflags(), s.seg_base, s.seg_sel).hash(&mut hasher);
        (s.xmm, s.ymm_hi, s.mxcsr).hash(&mut hasher);
        format!("{:?}{:?}", s.x87, s.sys.architectural()).hash(&mut hasher);
        self.phys.hash_ram(&mut hasher);
        hasher.finish()
    }

    fn cx(&mut self) -> Cx {
        Cx::of(&mut self.vcpu.state)
    }

    /// Runs for that many guest instructions, or until something ends it.
    ///
    /// # Errors
    /// If the engine cannot go on.
    pub fn run(&mut self, budget: u64) -> Result<MachineStop, VcpuError> {
        let end = self.instructions().saturating_add(budget);
        let (mut futile, mut idle) = (0, 0);
        loop {
            match self.stop.swap(0, Ordering::Relaxed) {
                0 => {}
                number => return Ok(MachineStop::Requested(number)),
            }
            if let Some(stop) = self.follow_board() {
                return Ok(stop);
            }
            for bell in &mut self.bells {
                bell.answer();
            }
            self.vcpu.drop_stale()?;
            let now = self.advance();
            if self.vcpu.state.sys.activity == Activity::Shutdown {
                return Ok(MachineStop::Shutdown);
            }
            let instructions = self.instructions();
            let sys = &mut self.vcpu.state.sys;
            if sys.shadow_from != instructions {
                sys.shadow = Shadow::None;
            }
            let left = end.saturating_sub(instructions);
            if left == 0 {
                return Ok(MachineStop::Budget);
            }
            if self.take_interrupt() {
                idle = 0;
                continue;
            }
            let deadline = self.next_event(now);
            if self.vcpu.state.sys.activity != Activity::Running {
                idle += 1;
                match deadline {
                    // Timers go on for ever, and nothing that they do ends the halt.
                    Some(_) if idle > FUTILE && !self.may_end_halt() => {
                        return Ok(MachineStop::Halted);
                    }
                    Some(at) => {
                        let _doing = self.vcpu.env.doing.during(Doing::Idle);
                        self.clock.idle_until(at);
                        // A device may have written to what MWAIT monitors.
                        if self.vcpu.state.sys.activity == Activity::Waiting {
                            self.vcpu.state.sys.activity = Activity::Running;
                        }
                    }
                    // Somebody may still type.
                    None if self.may_be_woken() => self.clock.idle_until(u64::MAX),
                    None => return Ok(MachineStop::Halted),
                }
                continue;
            }
            let until = self.clock.instructions_until(deadline.unwrap_or(u64::MAX));
            // What a shadow protects from an interrupt that is there is one instruction.
            let shadowed = self.vcpu.state.sys.shadow != Shadow::None;
            let shadowed = shadowed && self.is_interrupted();
            self.vcpu.state.sys.shadow = Shadow::None;
            let length = if shadowed {
                1
            } else {
                until.clamp(1, LONGEST_RUN)
            };
            let before = self.instructions();
            let stop = self.vcpu.run(length.min(left))?;
            let in_vain = matches!(stop, Stop::Exception(_)) && self.instructions() == before;
            futile = if in_vain { futile + 1 } else { 0 };
            self.after(stop);
            if futile == FUTILE {
                return Ok(MachineStop::Stuck);
            }
        }
    }

    /// Does what the board's lines ask for.
    fn follow_board(&mut self) -> Option<MachineStop> {
        self.chipset.as_ref()?;
        if Pins::take(&self.pins.power_off) {
            return Some(MachineStop::PowerOff);
        }
        if Pins::take(&self.pins.reset) {
            if !self.restarts {
                return Some(MachineStop::Reset);
            }
            if let Some(chipset) = &mut self.chipset {
                chipset.reset();
            }
            self.reset();
            self.nmi = false;
            self.smi.store(false, Ordering::Relaxed);
            self.pins.remap.store(true, Ordering::Relaxed);
        }
        if Pins::take(&self.pins.init) {
            self.initialise();
        }
        self.nmi |= Pins::take(&self.pins.nmi);
        let a20 = !self.pins.a20_closed.load(Ordering::Relaxed);
        if a20 != self.vcpu.state.sys.a20 {
            self.vcpu.state.sys.a20 = a20;
            self.touch();
        }
        let smm = self.vcpu.state.sys.smm;
        if Pins::take(&self.pins.remap) || smm != self.mapped_smm {
            self.remap(smm);
        }
        None
    }

    /// Maps memory and ports as the guest has set the chipset.
    fn remap(&mut self, smm: bool) {
        self.mapped_smm = smm;
        if let (Some(chipset), Some(system)) = (&mut self.chipset, &self.vcpu.env.system) {
            chipset.follow(&mut system.ports(), &self.phys, smm);
        }
        if self.phys.take_remapped() {
            self.cx().paged().flush(true);
        }
    }

    /// Does what a stop of the virtual CPU asks for.
    fn after(&mut self, stop: Stop) {
        match stop {
            Stop::Budget => {}
            Stop::Attention => {
                if debug::report_pending(&mut self.vcpu.state) {
                    self.deliver(Fault::plain(DB), Source::Exception);
                }
            }
            Stop::Exception(e) => {
                let fault = Fault {
                    vector: e.vector,
                    error: e.error,
                    addr: e.addr,
                };
                if fault.vector == DB {
                    debug::report_raised(&mut self.vcpu.state);
                }
                if fault.vector == MF && self.vcpu.state.sys.cr0 & cr0::NE == 0 {
                    self.report_fpu_error();
                } else {
                    self.deliver(fault, Source::Exception);
                }
            }
            // The lifter of system code makes calls of the helper `system` of both.
            Stop::Syscall(_) => self.deliver(Fault::UD, Source::Exception),
            Stop::Halt => self.vcpu.state.sys.activity = Activity::Halted,
        }
    }

    /// What an x87 exception does while CR0.NE is 0: the processor raises FERR#, which a PC takes to
    /// IRQ 13, and waits before the instruction for the interrupt (SDM volume 1, 8.7.2).
    fn report_fpu_error(&mut self) {
        if let Some(line) = &self.fpu_error {
            line.set_level(true);
        }
        if !self.is_interrupted() {
            self.vcpu.state.sys.activity = Activity::Halted;
        }
    }

    fn deliver(&mut self, fault: Fault, source: Source) {
        let event = Event { fault, source };
        if deliver(&self.cx(), event) == Delivered::Shutdown {
            self.vcpu.state.sys.activity = Activity::Shutdown;
        }
    }

    /// Whether a maskable interrupt or somebody outside may end a halt. Else only a timer that leads
    /// to a non-maskable interrupt could.
    fn may_end_halt(&self) -> bool {
        let enabled = self.vcpu.state.sysflags & sysflags::IF != 0;
        enabled || self.clock.mode() == TimeMode::RealTime
    }

    /// Whether the outside may end a halt that no timer ends: only in real time, in which others do
    /// something meanwhile, and on a board.
    fn may_be_woken(&self) -> bool {
        let enabled = self.vcpu.state.sysflags & sysflags::IF != 0;
        enabled && self.chipset.is_some() && self.clock.mode() == TimeMode::RealTime
    }

    /// Whether a maskable interrupt waits and may be delivered.
    fn is_interrupted(&self) -> bool {
        let enabled = self.vcpu.state.sysflags & sysflags::IF != 0;
        enabled && self.interrupts.as_ref().is_some_and(|c| c.pending())
    }

    /// Delivers an interrupt if one is due. Whether it did.
    fn take_interrupt(&mut self) -> bool {
        const NMI: u8 = 2;
        // While one is handled, another waits (SDM volume 3, 32.3).
        if !self.vcpu.state.sys.smm && self.smi.swap(false, Ordering::Relaxed) {
            self.remap(true);
            smm::enter(&self.cx());
            return true;
        }
        let sys = &mut self.vcpu.state.sys;
        if self.nmi && !sys.nmi_blocked && sys.shadow != Shadow::MovSs {
            self.nmi = false;
            sys.nmi_blocked = true;
            sys.activity = Activity::Running;
            self.deliver(Fault::plain(NMI), Source::External);
            return true;
        }
        if sys.shadow != Shadow::None || !self.is_interrupted() {
            return false;
        }
        let Some(controller) = &mut self.interrupts else {
            return false;
        };
        let vector = controller.acknowledge();
        // RF ends with the instruction that it was for.
        self.vcpu.state.sysflags &= !sysflags::RF;
        self.delivered += 1;
        self.vcpu.state.sys.activity = Activity::Running;
        self.deliver(Fault::plain(vector), Source::External);
        true
    }

    /// Brings clock and timers up to date; the time.
    fn advance(&mut self) -> u64 {
        self.clock.follow(self.vcpu.instructions());
        self.vcpu.env.skipped = self.clock.skipped();
        let now = self.clock.time();
        for timer in &mut self.timers {
            if timer.next_event(now).is_some_and(|at| at <= now) {
                timer.advance(now);
            }
        }
        now
    }

    fn next_event(&self, now: u64) -> Option<u64> {
        self.timers.iter().filter_map(|t| t.next_event(now)).min()
    }
}
