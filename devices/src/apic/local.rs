//! The registers of one local APIC (Intel SDM volume 3, chapter "Advanced Programmable Interrupt
//! Controller"), xAPIC, version 14h. What it has to tell others it returns as an [`Effect`].

use serde::{Deserialize, Serialize};

use super::Message;

const VERSION: u32 = 0x0005_0014;

/// Offsets of registers.
pub(super) mod reg {
    pub const ID: u64 = 0x020;
    pub const VERSION: u64 = 0x030;
    pub const TPR: u64 = 0x080;
    pub const PPR: u64 = 0x0a0;
    pub const EOI: u64 = 0x0b0;
    pub const LOGICAL: u64 = 0x0d0;
    pub const FORMAT: u64 = 0x0e0;
    pub const SPURIOUS: u64 = 0x0f0;
    pub const IN_SERVICE: u64 = 0x100;
    pub const TRIGGER: u64 = 0x180;
    pub const REQUESTS: u64 = 0x200;
    pub const ERROR: u64 = 0x280;
    pub const COMMAND: u64 = 0x300;
    pub const COMMAND_HIGH: u64 = 0x310;
    pub const LVT: u64 = 0x320;
    pub const LVT_LAST: u64 = 0x370;
    pub const INITIAL: u64 = 0x380;
    pub const CURRENT: u64 = 0x390;
    pub const DIVIDE: u64 = 0x3e0;
}

const BASE_ENABLE: u64 = 1 << 11;
const BASE_BOOT: u64 = 1 << 8;
const BASE_WRITABLE: u64 = 0x000f_ffff_ffff_f800;
const DEFAULT_BASE: u64 = 0xfee0_0000;

const SPURIOUS_ENABLE: u32 = 0x100;
const MASKED: u32 = 1 << 16;

const TIMER: usize = 0;
const LINT0: usize = 3;
const ERROR: usize = 5;
const LVT_WRITABLE: [u32; 6] = [0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff];
const TIMER_PERIODIC: u32 = 1 << 17;
const TIMER_DEADLINE: u32 = 1 << 18;

/// Delivery modes, as in the LVT, the interrupt command and the I/O APIC.
pub(super) const FIXED: u8 = 0;
pub(super) const LOWEST: u8 = 1;
pub(super) const SMI: u8 = 2;
pub(super) const NMI: u8 = 4;
pub(super) const INIT: u8 = 5;
pub(super) const STARTUP: u8 = 6;
pub(super) const EXTERNAL: u8 = 7;

const ERROR_SEND_VECTOR: u32 = 0x20;
const ERROR_RECEIVE_VECTOR: u32 = 0x40;
const ERROR_REGISTER: u32 = 0x80;

const COMMAND_WRITABLE: u32 = 0x000c_cfff;
const COMMAND_LEVEL: u32 = 1 << 14;
const COMMAND_TRIGGER: u32 = 1 << 15;

/// Whom an interprocessor interrupt is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Audience {
    /// Whom the message names.
    Named,
    Me,
    All,
    Others,
}

/// What a register access means outside this APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    None,
    /// A level-triggered interrupt is over.
    EndOfLevel(u8),
    Send(Message, Audience),
}

/// A set of vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Vectors([u32; 8]);

impl Vectors {
    fn set(&mut self, vector: u8, on: bool) {
        let (word, bit) = (usize::from(vector >> 5), 1 << (vector & 31));
        if on {
            self.0[word] |= bit;
        } else {
            self.0[word] &= !bit;
        }
    }

    fn has(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 5)] & 1 << (vector & 31) != 0
    }

    fn highest(&self) -> Option<u8> {
        let (word, bits) = (0..8u8)
            .rev()
            .zip(self.0.iter().rev())
            .find(|(_, b)| **b != 0)?;
        Some(word * 32 + 31 - bits.leading_zeros() as u8)
    }
}

/// One local APIC.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Local {
    base: u64,
    id: u8,
    tpr: u8,
    logical: u8,
    /// Upper four bits of the destination format: all ones for flat, 0 for clusters.
    format: u8,
    spurious: u32,
    in_service: Vectors,
    trigger: Vectors,
    requests: Vectors,
    /// Errors since the last write to the register, and what that write made visible.
    errors: u32,
    errors_shown: u32,
    command: [u32; 2],
    lvt: [u32; 6],
    initial: u32,
    divide: u32,
    /// When the initial count was written, and how often the timer has expired since.
    started: u64,
    expired: u64,
    deadline: Option<u64>,
    lint: [bool; 2],
}

impl Local {
    /// After power-on. The first processor has its input 0 open for the 8259A, as firmware leaves
    /// it.
    pub(super) fn new(id: u8) -> Local {
        let boot = id == 0;
        let mut lvt = [MASKED; 6];
        if boot {
            lvt[LINT0] = u32::from(EXTERNAL) << 8;
        }
        Local {
            base: DEFAULT_BASE | BASE_ENABLE | if boot { BASE_BOOT } else { 0 },
            id,
            tpr: 0,
            logical: 0,
            format: 0xf0,
            spurious: 0xff,
            in_service: Vectors::default(),
            trigger: Vectors::default(),
            requests: Vectors::default(),
            errors: 0,
            errors_shown: 0,
            command: [0; 2],
            lvt,
            initial: 0,
            divide: 0,
            started: 0,
            expired: 0,
            deadline: None,
            lint: [false; 2],
        }
    }

    /// INIT: everything but the identity, the base and the inputs' levels.
    pub(super) fn reset(&mut self) {
        *self = Local {
            base: self.base,
            lint: self.lint,
            lvt: [MASKED; 6],
            ..Local::new(self.id)
        };
    }

    /// With the levels that drive another's inputs.
    pub(super) fn with_inputs_of(self, other: &Local) -> Local {
        let lint = other.lint;
        Local { lint, ..self }
    }

    /// IA32_APIC_BASE.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Writes IA32_APIC_BASE. Switching the APIC off resets it.
    pub(super) fn set_base(&mut self, value: u64) {
        let boot = self.base & BASE_BOOT;
        if self.present() && value & BASE_ENABLE == 0 {
            self.reset();
        }
        self.base = value & BASE_WRITABLE | boot;
    }

    pub(super) fn present(&self) -> bool {
        self.base & BASE_ENABLE != 0
    }

    fn enabled(&self) -> bool {
        self.present() && self.spurious & SPURIOUS_ENABLE != 0
    }

    pub(super) fn tpr(&self) -> u8 {
        self.tpr
    }

    pub(super) fn set_tpr(&mut self, value: u8) {
        self.tpr = value;
    }

    /// The processor's priority: that of the task or of what is in service.
    pub(super) fn priority(&self) -> u8 {
        let serving = self.in_service.highest().unwrap_or(0);
        if self.tpr >> 4 >= serving >> 4 {
            self.tpr
        } else {
            serving & 0xf0
        }
    }

    /// Whether a destination in a message means this one.
    pub(super) fn is_meant(&self, destination: u8, logical: bool) -> bool {
        if !self.present() {
            false
        } else if !logical {
            destination == 0xff || destination == self.id
        } else if self.format == 0xf0 {
            destination & self.logical != 0
        } else {
            let (cluster, members) = (destination & 0xf0, destination & 0x0f);
            (cluster == 0xf0 || cluster == self.logical & 0xf0) && members & self.logical != 0
        }
    }

    /// Takes in an interrupt. While it is disabled by software it takes none.
    pub(super) fn accept(&mut self, vector: u8, level: bool) {
        if vector < 16 {
            self.error(ERROR_RECEIVE_VECTOR);
        } else if self.enabled() {
            self.requests.set(vector, true);
            self.trigger.set(vector, level);
        }
    }

    fn error(&mut self, error: u32) {
        self.errors |= error;
        let entry = self.lvt[ERROR];
        // A wrong vector for errors is not reported by itself.
        if entry & MASKED == 0 && entry as u8 >= 16 {
            self.accept(entry as u8, false);
        }
    }

    /// The interrupt that the processor would take now.
    pub(super) fn next(&self) -> Option<u8> {
        let vector = self.requests.highest().filter(|_| self.enabled())?;
        (vector >> 4 > self.priority() >> 4).then_some(vector)
    }

    /// The processor takes an interrupt; without one, the spurious vector.
    pub(super) fn acknowledge(&mut self) -> u8 {
        let Some(vector) = self.next() else {
            return self.spurious as u8;
        };
        self.requests.set(vector, false);
        self.in_service.set(vector, true);
        vector
    }

    /// Whether the 8259A's request reaches the processor through input 0, or past an APIC that is
    /// switched off.
    pub(super) fn external(&self) -> bool {
        let entry = self.lvt[LINT0];
        let open = entry & MASKED == 0 && (entry >> 8 & 7) as u8 == EXTERNAL;
        self.lint[0] && (open || !self.present())
    }

    /// Drives local input 0 or 1. Gives the delivery mode that a rise asks for, other than fixed.
    pub(super) fn set_lint(&mut self, input: usize, high: bool) -> Option<u8> {
        let was = std::mem::replace(&mut self.lint[input & 1], high);
        let rises = high && !was;
        let entry = self.lvt[LINT0 + (input & 1)];
        if !rises || entry & MASKED != 0 {
            // Past an APIC that is off, input 1 is the NMI pin.
            return (rises && !self.present() && input & 1 == 1).then_some(NMI);
        }
        match (entry >> 8 & 7) as u8 {
            FIXED => {
                self.accept(entry as u8, false);
                None
            }
            mode => Some(mode),
        }
    }

    /// The TSC deadline as a time; `None` disarms it.
    pub(super) fn set_deadline(&mut self, at: Option<u64>) {
        if self.lvt[TIMER] & TIMER_DEADLINE != 0 {
            self.deadline = at;
        }
    }

    /// Whether a deadline is armed.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// Nanoseconds to a count.
    fn divisor(&self) -> u64 {
        let code = self.divide & 3 | self.divide >> 1 & 4;
        if code == 7 { 1 } else { 2 << code }
    }

    fn period(&self) -> u64 {
        u64::from(self.initial) * self.divisor()
    }

    fn current(&self, now: u64) -> u32 {
        let (elapsed, period) = (now.saturating_sub(self.started), self.period());
        if period == 0 || self.lvt[TIMER] & TIMER_DEADLINE != 0 {
            return 0;
        }
        let into = match self.lvt[TIMER] & TIMER_PERIODIC {
            0 if self.expired > 0 => period,
            0 => elapsed.min(period),
            _ => elapsed % period,
        };
        self.initial - (into / self.divisor()) as u32
    }

    /// When the timer next asks for an interrupt.
    pub(super) fn next_event(&self) -> Option<u64> {
        let entry = self.lvt[TIMER];
        if entry & MASKED != 0 || !self.enabled() {
            return None;
        }
        if entry & TIMER_DEADLINE != 0 {
            return self.deadline;
        }
        let armed = self.initial != 0 && (entry & TIMER_PERIODIC != 0 || self.expired == 0);
        let after = self.period().saturating_mul(self.expired.saturating_add(1));
        armed.then(|| self.started.saturating_add(after))
    }

    /// Lets the timer run.
    pub(super) fn run_to(&mut self, now: u64) {
        let entry = self.lvt[TIMER];
        let fires = if entry & TIMER_DEADLINE != 0 {
            let due = self.deadline.is_some_and(|at| at <= now);
            if due {
                self.deadline = None;
            }
            due
        } else if let Some(n) = now.saturating_sub(self.started).checked_div(self.period()) {
            let n = if entry & TIMER_PERIODIC != 0 {
                n
            } else {
                n.min(1)
            };
            let more = n > self.expired;
            self.expired = self.expired.max(n);
            more
        } else {
            false
        };
        if fires && entry & MASKED == 0 {
            self.accept(entry as u8, false);
        }
    }

    /// Reads a register.
    pub(super) fn read(&mut self, register: u64, now: u64) -> u32 {
        let word = (register >> 4 & 7) as usize;
        match register {
            reg::ID => u32::from(self.id) << 24,
            reg::VERSION => VERSION,
            reg::TPR => u32::from(self.tpr),
            reg::PPR => u32::from(self.priority()),
            reg::LOGICAL => u32::from(self.logical) << 24,
            reg::FORMAT => u32::from(self.format) << 24 | 0x0fff_ffff,
            reg::SPURIOUS => self.spurious,
            reg::IN_SERVICE..reg::TRIGGER => self.in_service.0[word],
            reg::TRIGGER..reg::REQUESTS => self.trigger.0[word],
            reg::REQUESTS..reg::ERROR => self.requests.0[word],
            reg::ERROR => self.errors_shown,
            reg::COMMAND => self.command[0],
            reg::COMMAND_HIGH => self.command[1],
            reg::LVT..=reg::LVT_LAST => self.lvt[((register - reg::LVT) >> 4) as usize],
            reg::INITIAL => self.initial,
            reg::CURRENT => self.current(now),
            reg::DIVIDE => self.divide,
            // Write-only, and arbitration priority and remote read, which this version has not.
            reg::EOI | 0x090 | 0x0c0 => 0,
            _ => {
                self.error(ERROR_REGISTER);
                0
            }
        }
    }

    /// Writes a register.
    pub(super) fn write(&mut self, register: u64, value: u32, now: u64) -> Effect {
        match register {
            reg::ID => self.id = (value >> 24) as u8,
            reg::TPR => self.tpr = value as u8,
            reg::EOI => return self.end_of_interrupt(),
            reg::LOGICAL => self.logical = (value >> 24) as u8,
            reg::FORMAT => self.format = (value >> 24) as u8 & 0xf0,
            reg::SPURIOUS => {
                self.spurious = value & 0x3ff;
                if value & SPURIOUS_ENABLE == 0 {
                    self.lvt = self.lvt.map(|entry| entry | MASKED);
                }
            }
            reg::ERROR => self.errors_shown = std::mem::take(&mut self.errors),
            reg::COMMAND_HIGH => self.command[1] = value & 0xff00_0000,
            reg::COMMAND => {
                self.command[0] = value & COMMAND_WRITABLE;
                return self.send();
            }
            reg::LVT..=reg::LVT_LAST => {
                self.write_lvt(((register - reg::LVT) >> 4) as usize, value);
            }
            reg::INITIAL if self.lvt[TIMER] & TIMER_DEADLINE == 0 => {
                self.initial = value;
                self.started = now;
                self.expired = 0;
            }
            reg::DIVIDE => {
                // The count goes on from where it is, with the new speed.
                let left = u64::from(self.current(now));
                self.divide = value & 0xb;
                let done = (u64::from(self.initial) - left) * self.divisor();
                self.started = now.saturating_sub(done);
                self.expired = self.expired.min(1);
                if self.lvt[TIMER] & TIMER_PERIODIC != 0 {
                    self.expired = 0;
                }
            }
            reg::INITIAL | reg::VERSION | reg::PPR | reg::CURRENT => {}
            reg::IN_SERVICE..reg::ERROR | 0x090 | 0x0c0 => {}
            _ => self.error(ERROR_REGISTER),
        }
        Effect::None
    }

    fn write_lvt(&mut self, index: usize, value: u32) {
        let before = self.lvt[index];
        let masked = if self.enabled() { 0 } else { MASKED };
        self.lvt[index] = value & LVT_WRITABLE[index] | masked;
        if index == TIMER && (before ^ value) & TIMER_DEADLINE != 0 {
            // Going to or from deadline mode disarms the timer.
            self.deadline = None;
            self.initial = 0;
        }
    }

    fn end_of_interrupt(&mut self) -> Effect {
        let Some(vector) = self.in_service.highest() else {
            return Effect::None;
        };
        self.in_service.set(vector, false);
        if self.trigger.has(vector) {
            Effect::EndOfLevel(vector)
        } else {
            Effect::None
        }
    }

    fn send(&mut self) -> Effect {
        let low = self.command[0];
        let message = Message {
            vector: low as u8,
            mode: (low >> 8 & 7) as u8,
            destination: (self.command[1] >> 24) as u8,
            logical: low & 1 << 11 != 0,
            level: low & COMMAND_TRIGGER != 0,
        };
        if matches!(message.mode, FIXED | LOWEST) && message.vector < 16 {
            self.error(ERROR_SEND_VECTOR);
            return Effect::None;
        }
        // INIT level de-assert only synchronised the arbitration of old processors.
        if message.mode == INIT && low & (COMMAND_LEVEL | COMMAND_TRIGGER) == COMMAND_TRIGGER {
            return Effect::None;
        }
        // Interprocessor interrupts are edges, whatever the trigger bit says.
        let message = Message {
            level: false,
            ..message
        };
        let audience = [
            Audience::Named,
            Audience::Me,
            Audience::All,
            Audience::Others,
        ];
        Effect::Send(message, audience[(low >> 18 & 3) as usize])
    }
}
