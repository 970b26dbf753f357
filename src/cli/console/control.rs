//! How the console's threads reach the run of the machine.
//!
//! The machine belongs to the main thread. A thread that wants something of it leaves a request and
//! makes [`Machine::run`] return; the main thread then serves what waits and goes on.

use super::registers;
use metaphrase_runtime::{Machine, MachineStop, VcpuError};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What [`Machine::run`] returns for us: even, since exit codes from the guest are odd.
const OURS: u32 = 0x8000_0000;

/// How long a halted machine waits at once. Whoever has something for it wakes it before.
const NAP: Duration = Duration::from_millis(100);

/// Why the run ends, other than by the guest's doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The user wants it.
    Quit,
    /// A signal.
    Signal(i32),
}

/// What is asked of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// The registers as text.
    Registers,
    /// Whether it runs, and how far it came.
    Status,
    /// Stop executing.
    Stop,
    /// Go on.
    Continue,
    /// Raise a non-maskable interrupt.
    Nmi,
}

#[derive(Default)]
struct State {
    ending: Option<Ending>,
    requests: VecDeque<(Order, Sender<String>)>,
    paused: bool,
    /// Something happened that may wake the processor.
    touched: bool,
}

/// The handle; clones are the same.
#[derive(Clone)]
pub struct Control {
    state: Arc<(Mutex<State>, Condvar)>,
    stop: Arc<AtomicU32>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Control {
    /// A handle to the run with that flag ([`Machine::stop_flag`]); `wake` ends an idle sleep.
    pub fn new(stop: Arc<AtomicU32>, wake: Arc<dyn Fn() + Send + Sync>) -> Control {
        Control {
            state: Arc::default(),
            stop,
            wake,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the run return, if it does not do so anyway.
    pub fn poke(&self) {
        let _ = self
            .stop
            .compare_exchange(0, OURS, Ordering::Relaxed, Ordering::Relaxed);
        self.touch();
    }

    /// Says that a device has something new for the processor.
    pub fn touch(&self) {
        self.lock().touched = true;
        self.state.1.notify_all();
        (self.wake)();
    }

    /// Ends the run.
    pub fn end(&self, ending: Ending) {
        self.lock().ending.get_or_insert(ending);
        self.poke();
    }

    /// Asks the machine for something; what it answers.
    pub fn ask(&self, order: Order) -> String {
        let (reply, answer) = channel();
        self.lock().requests.push_back((order, reply));
        self.poke();
        let answer = answer.recv_timeout(Duration::from_secs(5));
        answer.unwrap_or_else(|_| "the machine does not answer\n".into())
    }

    /// Runs the machine for so many instructions; how that ended. `waits` says whether something
    /// outside may still interrupt a processor that has halted.
    ///
    /// # Errors
    /// If the engine cannot go on.
    pub fn run(
        &self,
        machine: &mut Machine,
        budget: u64,
        waits: impl Fn() -> bool,
    ) -> Result<Result<MachineStop, Ending>, VcpuError> {
        const INTERRUPTS: u64 = 1 << 9;
        let end = machine.instructions().saturating_add(budget);
        loop {
            if let Some(ending) = self.serve(machine) {
                return Ok(Err(ending));
            }
            let left = end.saturating_sub(machine.instructions());
            match machine.run(left)? {
                MachineStop::Requested(OURS) => {}
                MachineStop::Halted if machine.state().rflags() & INTERRUPTS != 0 && waits() => {
                    self.nap();
                }
                stop => return Ok(Ok(stop)),
            }
        }
    }

    /// Waits until something happens, or not long.
    fn nap(&self) {
        let mut state = self.lock();
        if !state.touched && state.ending.is_none() && state.requests.is_empty() {
            let waited = self.state.1.wait_timeout(state, NAP);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.touched = false;
    }

    /// Does what was asked for; returns when the machine is to go on, or to end.
    fn serve(&self, machine: &mut Machine) -> Option<Ending> {
        let mut state = self.lock();
        loop {
            if state.ending.is_some() {
                return state.ending;
            }
            if let Some((order, reply)) = state.requests.pop_front() {
                let text = obey(order, machine, &mut state.paused);
                // Whoever asked may have given up.
                let _ = reply.send(text);
            } else if state.paused {
                let waited = self.state.1.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
            } else {
                return None;
            }
        }
    }
}

fn obey(order: Order, machine: &mut Machine, paused: &mut bool) -> String {
    match order {
        Order::Registers => registers::text(machine),
        Order::Status => format!(
            "{} after {} instructions\n",
            if *paused { "stopped" } else { "running" },
            machine.instructions()
        ),
        Order::Stop | Order::Continue => {
            *paused = order == Order::Stop;
            String::new()
        }
        Order::Nmi => {
            machine.raise_nmi();
            String::new()
        }
    }
}
