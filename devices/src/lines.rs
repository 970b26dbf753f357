//! Lines between devices: interrupt requests, and other outputs with two levels (A20, reset).

use std::sync::{Arc, Mutex, PoisonError};

/// An interrupt request line, or another output with two levels, as a device drives it.
pub trait InterruptLine: Send {
    /// Drives the line high or low. Driving the level that it already has changes nothing.
    fn set_level(&self, high: bool);

    /// A pulse: high, then low. Edge-triggered inputs see one request.
    fn pulse(&self) {
        self.set_level(true);
        self.set_level(false);
    }
}

/// A line that goes nowhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct NotConnected;

impl InterruptLine for NotConnected {
    fn set_level(&self, _high: bool) {}
}

/// Any closure is a line.
impl<F: Fn(bool) + Send> InterruptLine for F {
    fn set_level(&self, high: bool) {
        self(high);
    }
}

/// One output driven by several inputs: high while any input is. This is how PCI interrupt pins
/// share a line, and how the two A20 gates of a PC meet.
#[derive(Clone)]
pub struct WiredOr(Arc<Mutex<Inputs>>);

struct Inputs {
    levels: Vec<bool>,
    output: Box<dyn InterruptLine>,
}

struct Input {
    index: usize,
    of: WiredOr,
}

impl WiredOr {
    /// No inputs yet; drives `output` when the result changes.
    pub fn new(output: Box<dyn InterruptLine>) -> WiredOr {
        WiredOr(Arc::new(Mutex::new(Inputs {
            levels: Vec::new(),
            output,
        })))
    }

    /// One more input, low at first.
    pub fn input(&self) -> Box<dyn InterruptLine> {
        let mut inputs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inputs.levels.push(false);
        Box::new(Input {
            index: inputs.levels.len() - 1,
            of: self.clone(),
        })
    }
}

impl InterruptLine for Input {
    fn set_level(&self, high: bool) {
        let mut inputs = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = inputs.levels.contains(&true);
        inputs.levels[self.index] = high;
        let after = inputs.levels.contains(&true);
        if before != after {
            inputs.output.set_level(after);
        }
    }
}

/// A line that can be cut: the output follows the input while the gate is open, and is low else.
#[derive(Clone)]
pub struct Gate(Arc<Mutex<GateState>>);

struct GateState {
    input: bool,
    open: bool,
    output: Box<dyn InterruptLine>,
}

impl Gate {
    /// An open gate.
    pub fn new(output: Box<dyn InterruptLine>) -> Gate {
        Gate(Arc::new(Mutex::new(GateState {
            input: false,
            open: true,
            output,
        })))
    }

    fn change(&self, change: impl FnOnce(&mut GateState)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.input && state.open;
        change(&mut state);
        let after = state.input && state.open;
        if before != after {
            state.output.set_level(after);
        }
    }

    /// The line that goes through the gate.
    pub fn input(&self) -> Box<dyn InterruptLine> {
        let gate = self.clone();
        Box::new(move |high| gate.change(|state| state.input = high))
    }

    /// The line that closes the gate while it is high.
    pub fn close(&self) -> Box<dyn InterruptLine> {
        let gate = self.clone();
        Box::new(move |high: bool| gate.change(|state| state.open = !high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Probe;

    #[test]
    fn a_shared_line_falls_with_the_last_input() {
        let probe = Probe::default();
        let or = WiredOr::new(probe.line());
        let (a, b) = (or.input(), or.input());
        a.set_level(true);
        b.set_level(true);
        a.set_level(false);
        assert!(probe.level());
        b.set_level(false);
        assert!(!probe.level());
        assert_eq!(probe.rises(), 1);
    }

    #[test]
    fn a_closed_gate_keeps_the_output_low() {
        let probe = Probe::default();
        let gate = Gate::new(probe.line());
        let (input, close) = (gate.input(), gate.close());
        input.set_level(true);
        assert!(probe.level());
        close.set_level(true);
        assert!(!probe.level());
        input.pulse();
        input.set_level(true);
        assert_eq!(probe.rises(), 1);
        close.set_level(false);
        assert!(probe.level());
    }
}
