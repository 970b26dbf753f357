//! How interrupts reach the processor: the requests of the ISA bus go to the 8259A pair and to the
//! I/O APIC, PCI pins through the router of the ISA bridge to such requests, and messages to the
//! local APIC, which also passes on what the 8259A asks for.

use super::Pins;
use crate::system::{InterruptController, LocalApic};
use metaphrase_devices::apic::{Apics, CpuPins, CpuSignal};
use metaphrase_devices::pic::Pic;
use metaphrase_devices::piix::IsaBridge;
use metaphrase_devices::virtio::MessageSink;
use metaphrase_devices::{Clock, InterruptLine, NotConnected, Shared, WiredOr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Inputs of the I/O APIC that no request leads to.
pub(super) const FREE_INPUTS: std::ops::Range<u8> = 20..24;

/// The controllers, and the requests of the board, each driven by any number of devices.
#[derive(Clone)]
pub(super) struct Irqs {
    pub(super) pic: Shared<Pic>,
    pub(super) apics: Shared<Apics>,
    requests: Arc<[WiredOr; 16]>,
    /// The level of the line to the processor.
    pub(super) level: Arc<AtomicBool>,
}

impl Irqs {
    pub(super) fn new(clock: Arc<dyn Clock>, pins: &Arc<Pins>, smi: &Arc<AtomicBool>) -> Irqs {
        let (pins, smi) = (pins.clone(), smi.clone());
        let signal = move |signal| match signal {
            CpuSignal::Nmi => pins.nmi.store(true, Ordering::Relaxed),
            CpuSignal::Smi => smi.store(true, Ordering::Relaxed),
            CpuSignal::Init => pins.init.store(true, Ordering::Relaxed),
            // The one processor is not one that waits for others to start it.
            CpuSignal::Startup(_) => {}
        };
        let level = Arc::new(AtomicBool::new(false));
        let line = level.clone();
        let cpu = CpuPins {
            interrupt: Box::new(move |high| line.store(high, Ordering::Relaxed)),
            signal: Box::new(signal),
        };
        let apics = Shared::new(Apics::new(clock, vec![cpu]));
        let pic = Shared::new(Pic::with_output(apics.lint0()));
        let requests = std::array::from_fn(|n| {
            let (pic, irq) = (pic.clone(), n as u8);
            // The 8254 has another input there; the cascade of the 8259A has none.
            let input = match irq {
                0 => apics.input(2),
                2 => Box::new(NotConnected),
                n => apics.input(n),
            };
            WiredOr::new(Box::new(move |high| {
                pic.lock().set_irq(irq, high);
                input.set_level(high);
            }))
        });
        Irqs {
            pic,
            apics,
            requests: Arc::new(requests),
            level,
        }
    }

    /// One more driver of an interrupt request.
    pub(super) fn line(&self, n: u8) -> Box<dyn InterruptLine> {
        self.requests[usize::from(n & 15)].input()
    }

    /// Where the ISA bridge routes PCI pins.
    pub(super) fn routed(&self) -> Box<dyn Fn(u8, bool) + Send> {
        let lines: [Box<dyn InterruptLine>; 16] = std::array::from_fn(|n| self.line(n as u8));
        Box::new(move |irq, high| lines[usize::from(irq & 15)].set_level(high))
    }

    /// Inputs of the I/O APIC that nothing on the ISA bus has, for the event timers.
    pub(super) fn free_inputs(&self) -> Box<dyn Fn(u8, bool) + Send> {
        let inputs: Vec<Box<dyn InterruptLine>> =
            FREE_INPUTS.map(|n| self.apics.input(n)).collect();
        Box::new(move |input, high| {
            let index = usize::from(input.wrapping_sub(FREE_INPUTS.start));
            if let Some(line) = inputs.get(index) {
                line.set_level(high);
            }
        })
    }

    /// Where messages go.
    pub(super) fn messages(&self) -> Box<dyn MessageSink> {
        let apics = self.apics.clone();
        Box::new(move |address, data| apics.lock().message(address, data))
    }
}

/// Pin INTA of a PCI device.
pub(super) fn pin_a(isa: &Shared<IsaBridge>, device: u8) -> Box<dyn InterruptLine> {
    let isa = isa.clone();
    Box::new(move |high| isa.lock().set_pin(device, 0, high))
}

/// What interrupts the processor.
pub(super) struct Interrupts(pub(super) Irqs);

impl InterruptController for Interrupts {
    fn pending(&self) -> bool {
        self.0.apics.lock().pending(0)
    }

    fn acknowledge(&mut self) -> u8 {
        let vector = self.0.apics.lock().acknowledge(0);
        // The APICs are unlocked by now: the output of the 8259A leads there.
        vector.unwrap_or_else(|| self.0.pic.lock().acknowledge())
    }
}

/// What the processor asks its local APIC for.
pub(super) struct ProcessorApic {
    pub(super) apics: Shared<Apics>,
    pub(super) pins: Arc<Pins>,
}

impl LocalApic for ProcessorApic {
    fn priority(&self) -> u8 {
        self.apics.lock().cr8(0)
    }

    fn set_priority(&self, class: u8) {
        self.apics.lock().set_cr8(0, class);
    }

    fn set_base(&self, value: u64) {
        self.apics.lock().set_base(0, value);
        self.pins.remap.store(true, Ordering::Relaxed);
    }

    fn deadline(&self) -> Option<u64> {
        self.apics.lock().deadline(0)
    }

    fn set_deadline(&self, at: Option<u64>) {
        self.apics.lock().set_deadline(0, at);
    }
}
