//! What a board tells the processor and the run, besides interrupts.

use metaphrase_devices::InterruptLine;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Lines from the board. Devices drive them at any time; [`crate::Machine::run`] looks at them
/// between instructions.
#[derive(Debug, Default)]
pub struct Pins {
    /// The machine is to be reset.
    pub reset: AtomicBool,
    /// The machine is to be switched off.
    pub power_off: AtomicBool,
    /// A non-maskable interrupt is asked for.
    pub nmi: AtomicBool,
    /// The processor is to be initialised: reset, but for what INIT leaves alone.
    pub init: AtomicBool,
    /// Address bit 20 is held at 0.
    pub a20_closed: AtomicBool,
    /// The board may answer at other addresses than before: [`super::Chipset::follow`].
    pub remap: AtomicBool,
}

impl Pins {
    /// Takes a request, if there is one.
    pub(in crate::machine) fn take(flag: &AtomicBool) -> bool {
        flag.load(Ordering::Relaxed) && flag.swap(false, Ordering::Relaxed)
    }

    /// A line of which every rise resets the machine.
    pub fn reset_line(self: &Arc<Pins>) -> Box<dyn InterruptLine> {
        let pins = self.clone();
        Box::new(move |high| {
            if high {
                pins.reset.store(true, Ordering::Relaxed);
            }
        })
    }

    /// The line that opens A20 while it is high.
    pub fn a20_line(self: &Arc<Pins>) -> Box<dyn InterruptLine> {
        let pins = self.clone();
        Box::new(move |high: bool| pins.a20_closed.store(!high, Ordering::Relaxed))
    }
}
