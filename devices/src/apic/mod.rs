//! The local APICs of all processors and the I/O APIC, with the messages between them.
//!
//! They are one device behind one handle, because a message may lead to another (the end of a
//! level-triggered interrupt makes the I/O APIC ask again), and that within one access. The machine
//! attaches [`Shared::local`] at FEE00000h for each processor, [`Shared::io`] at FEC00000h, and
//! gives [`Shared::input`]s to devices; a device's line usually goes to the 8259A as well.
//!
//! The processor asks [`Apics::pending`] and takes with [`Apics::acknowledge`], whose `None` means
//! that the 8259A has the vector. Ask that one with the handle unlocked: its output is a line into
//! here. The APIC timer counts nanoseconds.
//!
//! Left out: x2APIC, the arbitration bus, focus processors, ExtINT through the I/O APIC, suppressed
//! EOI broadcasts, lowest priority by anything but the processor's priority.

mod io;
mod local;

use std::sync::Arc;

use io::Io;
use local::{Audience, EXTERNAL, Effect, FIXED, INIT, LOWEST, Local, NMI, SMI, STARTUP};
use serde::{Deserialize, Serialize};

use crate::{BusDevice, Clock, InterruptLine, Shared, Timed, Width};

/// Where the local APIC is, unless its processor moved it.
pub const LOCAL_BASE: u64 = 0xfee0_0000;
/// Where the I/O APIC is.
pub const IO_BASE: u64 = 0xfec0_0000;
/// Bytes of either.
pub const LEN: u64 = 0x1000;

/// An interrupt message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Message {
    vector: u8,
    mode: u8,
    destination: u8,
    logical: bool,
    level: bool,
}

/// What an APIC tells its processor, other than that an interrupt waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuSignal {
    /// A non-maskable interrupt.
    Nmi,
    /// A system management interrupt.
    Smi,
    /// Reset to wait for a start.
    Init,
    /// Start at this page, if waiting.
    Startup(u8),
}

/// The way to one processor. Both are called with the APICs locked.
pub struct CpuPins {
    /// High while an interrupt waits, from the APIC or from the 8259A.
    pub interrupt: Box<dyn InterruptLine>,
    /// Everything else.
    pub signal: Box<dyn Fn(CpuSignal) + Send>,
}

/// The state of all APICs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApicState {
    locals: Vec<Local>,
    io: Io,
}

/// All APICs of a machine.
pub struct Apics {
    state: ApicState,
    clock: Arc<dyn Clock>,
    cpus: Vec<CpuPins>,
}

impl Apics {
    /// One local APIC for each processor, with the index as its identity.
    pub fn new(clock: Arc<dyn Clock>, cpus: Vec<CpuPins>) -> Apics {
        let ids = (0..=254).take(cpus.len());
        Apics {
            state: ApicState {
                locals: ids.map(Local::new).collect(),
                io: Io::new(),
            },
            clock,
            cpus,
        }
    }

    /// Whether an interrupt waits for a processor.
    pub fn pending(&self, cpu: usize) -> bool {
        let local = self.state.locals.get(cpu);
        local.is_some_and(|l| l.next().is_some() || l.external())
    }

    /// The processor takes an interrupt. `None` if it is the 8259A that has one.
    pub fn acknowledge(&mut self, cpu: usize) -> Option<u8> {
        let local = self.state.locals.get_mut(cpu)?;
        let vector = match local.next() {
            None if local.external() => None,
            _ => Some(local.acknowledge()),
        };
        self.drive();
        vector
    }

    /// CR8: the priority class below which interrupts wait.
    pub fn cr8(&self, cpu: usize) -> u8 {
        self.state
            .locals
            .get(cpu)
            .map_or(0, |local| local.tpr() >> 4)
    }

    /// Writes CR8.
    pub fn set_cr8(&mut self, cpu: usize, value: u8) {
        self.with_local(cpu, |local, _| local.set_tpr(value << 4));
    }

    /// IA32_APIC_BASE.
    pub fn base(&self, cpu: usize) -> u64 {
        self.state.locals.get(cpu).map_or(0, Local::base)
    }

    /// Writes IA32_APIC_BASE. Moving the range is the machine's to do.
    pub fn set_base(&mut self, cpu: usize, value: u64) {
        self.with_local(cpu, |local, _| local.set_base(value));
    }

    /// IA32_TSC_DEADLINE, as the guest time at which the TSC will get there; `None` disarms.
    pub fn set_deadline(&mut self, cpu: usize, at: Option<u64>) {
        self.with_local(cpu, |local, _| local.set_deadline(at));
    }

    /// The deadline, while it is armed.
    pub fn deadline(&self, cpu: usize) -> Option<u64> {
        self.state.locals.get(cpu).and_then(Local::deadline)
    }

    /// An interrupt message from a device: a write of `data` to `address` (FEExxxxxh).
    pub fn message(&mut self, address: u64, data: u32) {
        self.deliver(Message {
            vector: data as u8,
            mode: (data >> 8 & 7) as u8,
            destination: (address >> 12) as u8,
            logical: address & 4 != 0,
            level: data & 1 << 15 != 0,
        });
        self.drive();
    }

    /// A reset of the machine: everything but the levels of the inputs.
    pub fn reset(&mut self) {
        for (id, local) in (0..=254).zip(&mut self.state.locals) {
            *local = Local::new(id).with_inputs_of(local);
        }
        self.state.io = Io::new().with_inputs_of(&self.state.io);
        self.drive();
    }

    /// The state.
    pub fn save(&self) -> ApicState {
        self.state.clone()
    }

    /// Takes over a state of a machine with as many processors; false, and nothing changes, if it
    /// is of another.
    pub fn restore(&mut self, state: ApicState) -> bool {
        let fits = state.locals.len() == self.cpus.len();
        if fits {
            self.state = state;
            self.drive();
        }
        fits
    }

    /// Lets timers run, changes one local APIC, and drives what follows.
    fn with_local(&mut self, cpu: usize, change: impl FnOnce(&mut Local, u64)) {
        let now = self.clock.now();
        if let Some(local) = self.state.locals.get_mut(cpu) {
            local.run_to(now);
            change(local, now);
        }
        self.drive();
    }

    fn drive(&self) {
        for (index, cpu) in self.cpus.iter().enumerate() {
            cpu.interrupt.set_level(self.pending(index));
        }
    }

    fn deliver(&mut self, message: Message) {
        let meant = |l: &Local| l.is_meant(message.destination, message.logical);
        let all: Vec<usize> = (0..self.state.locals.len())
            .filter(|i| meant(&self.state.locals[*i]))
            .collect();
        self.deliver_to(message, &all);
    }

    fn deliver_to(&mut self, message: Message, cpus: &[usize]) {
        let locals = &mut self.state.locals;
        let signal = |signal| {
            for cpu in cpus {
                (self.cpus[*cpu].signal)(signal);
            }
        };
        match message.mode {
            FIXED => {
                for cpu in cpus {
                    locals[*cpu].accept(message.vector, message.level);
                }
            }
            LOWEST => {
                if let Some(cpu) = cpus.iter().min_by_key(|cpu| locals[**cpu].priority()) {
                    locals[*cpu].accept(message.vector, message.level);
                }
            }
            SMI => signal(CpuSignal::Smi),
            NMI => signal(CpuSignal::Nmi),
            INIT => {
                for cpu in cpus {
                    locals[*cpu].reset();
                }
                signal(CpuSignal::Init);
            }
            STARTUP => signal(CpuSignal::Startup(message.vector)),
            _ => {}
        }
    }

    fn send(&mut self, from: usize, message: Message, audience: Audience) {
        let all = 0..self.state.locals.len();
        match audience {
            Audience::Named => self.deliver(message),
            Audience::Me => self.deliver_to(message, &[from]),
            Audience::All => self.deliver_to(message, &all.collect::<Vec<_>>()),
            Audience::Others => {
                let others: Vec<usize> = all.filter(|cpu| *cpu != from).collect();
                self.deliver_to(message, &others);
            }
        }
    }

    fn write_local(&mut self, cpu: usize, register: u64, value: u32) {
        let mut effect = Effect::None;
        self.with_local(cpu, |local, now| effect = local.write(register, value, now));
        match effect {
            Effect::None => {}
            Effect::EndOfLevel(vector) => {
                for message in self.state.io.end_of_interrupt(vector) {
                    self.deliver(message);
                }
            }
            Effect::Send(message, audience) => self.send(cpu, message, audience),
        }
        self.drive();
    }

    fn set_input(&mut self, input: usize, high: bool) {
        if let Some(message) = self.state.io.set_line(input, high) {
            self.deliver(message);
            self.drive();
        }
    }

    fn set_lint(&mut self, input: usize, high: bool) {
        for cpu in 0..self.state.locals.len() {
            match self.state.locals[cpu].set_lint(input, high) {
                // The 8259A's request is a level, which `drive` passes on.
                None | Some(EXTERNAL) => {}
                Some(mode) => {
                    let message = Message {
                        vector: 0,
                        mode,
                        destination: 0,
                        logical: false,
                        level: false,
                    };
                    self.deliver_to(message, &[cpu]);
                }
            }
        }
        self.drive();
    }
}

impl Timed for Apics {
    fn next_event(&self, _now: u64) -> Option<u64> {
        self.state.locals.iter().filter_map(Local::next_event).min()
    }

    fn advance(&mut self, now: u64) {
        for local in &mut self.state.locals {
            local.run_to(now);
        }
        self.drive();
    }
}

/// Registers are 32 bits wide, in the first four of each 16 bytes. Narrower reads give their part;
/// other writes are dropped.
struct LocalView {
    apics: Shared<Apics>,
    cpu: usize,
}

impl BusDevice for LocalView {
    fn read(&mut self, offset: u64, _width: Width) -> u64 {
        let mut value = 0;
        if offset & 0xc == 0 {
            self.apics.lock().with_local(self.cpu, |local, now| {
                value = local.read(offset & !0xf, now);
            });
        }
        u64::from(value) >> (8 * (offset & 3))
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        if offset & 0xf == 0 && width == Width::Dword {
            self.apics
                .lock()
                .write_local(self.cpu, offset, value as u32);
        }
    }
}

/// As for the local APIC.
struct IoView(Shared<Apics>);

impl BusDevice for IoView {
    fn read(&mut self, offset: u64, _width: Width) -> u64 {
        let value = self.0.lock().state.io.read(offset & !3);
        u64::from(value) >> (8 * (offset & 3))
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        if width == Width::Dword {
            let mut apics = self.0.lock();
            if let Some(message) = apics.state.io.write(offset, value as u32) {
                apics.deliver(message);
                apics.drive();
            }
        }
    }
}

impl Shared<Apics> {
    /// The registers of a processor's local APIC, as that processor sees them.
    pub fn local(&self, cpu: usize) -> Box<dyn BusDevice> {
        let apics = self.clone();
        Box::new(LocalView { apics, cpu })
    }

    /// The registers of the I/O APIC.
    pub fn io(&self) -> Box<dyn BusDevice> {
        Box::new(IoView(self.clone()))
    }

    /// Input 0 to 23 of the I/O APIC. The 8254 has input 2 there.
    pub fn input(&self, input: u8) -> Box<dyn InterruptLine> {
        let apics = self.clone();
        Box::new(move |high| apics.lock().set_input(usize::from(input), high))
    }

    /// Local input 0 of every processor: the output of the 8259A.
    pub fn lint0(&self) -> Box<dyn InterruptLine> {
        let apics = self.clone();
        Box::new(move |high| apics.lock().set_lint(0, high))
    }

    /// Local input 1 of every processor: the NMI of the board.
    pub fn lint1(&self) -> Box<dyn InterruptLine> {
        let apics = self.clone();
        Box::new(move |high| apics.lock().set_lint(1, high))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
