//! The chips of the ISA bus, at the ports where every PC has them.

use super::irqs::FREE_INPUTS;
use super::{PcError, Site};
use metaphrase_devices::acpi_pm::{self, AcpiPm, AcpiPmLines};
use metaphrase_devices::dma::{self, Dma};
use metaphrase_devices::floppy::Floppy;
use metaphrase_devices::hpet::{self, Hpet, HpetLines};
use metaphrase_devices::keyboard::{self, Keyboard, KeyboardLines};
use metaphrase_devices::pci::PciFunction;
use metaphrase_devices::piix::PowerFunction;
use metaphrase_devices::pit::Pit;
use metaphrase_devices::rtc::Rtc;
use metaphrase_devices::serial::{Serial, SerialSink};
use metaphrase_devices::system_ports::{self, FastA20, FpuError, PostCode};
use metaphrase_devices::{Bus, Gate, InterruptLine, QuietAccess, Shared, Timed, WiredOr, quiet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The system control interrupt of the PIIX4.
const SCI: u8 = 9;

/// Where the event timers are.
pub(in crate::machine) const HPET_BASE: u64 = 0xfed0_0000;

/// The chips.
pub(super) struct Isa {
    pub(super) serial: Shared<Serial>,
    pub(super) second_serial: Option<Shared<Serial>>,
    pub(super) rtc: Shared<Rtc>,
    pub(super) keyboard: Shared<Keyboard>,
    pub(super) floppy: Shared<Floppy>,
    pub(super) post: Shared<PostCode>,
    pub(super) fpu_error: Shared<FpuError>,
    pub(super) hpet: Shared<Hpet>,
    pub(super) power: Shared<PowerFunction>,
    pub(super) pm: Shared<AcpiPm>,
    pub(super) timers: Vec<Box<dyn Timed + Send>>,
}

/// Puts them on the bus.
pub(super) fn build(
    site: &Site,
    ports: &mut Bus,
    serial: Box<dyn SerialSink>,
    second_serial: Option<Box<dyn SerialSink>>,
    unix_seconds: u64,
) -> Result<Isa, PcError> {
    let (irqs, pins, time) = (&site.irqs, &site.pins, &site.time);
    let [timer, clock] = [0, 8].map(|n| Gate::new(irqs.line(n)));
    let hpet = Shared::new(event_timers(site, [&timer, &clock]));
    let pit = Shared::new(Pit::new(time.clone(), timer.input()));
    let rtc = Shared::new(Rtc::new(time.clone(), clock.input(), unix_seconds));
    let serial = Shared::new(Serial::new(serial, irqs.line(4)));
    let second_serial = second_serial.map(|sink| Shared::new(Serial::new(sink, irqs.line(3))));
    let a20 = WiredOr::new(pins.a20_line());
    let keyboard = Shared::new(Keyboard::new(
        time.clone(),
        KeyboardLines {
            keyboard_irq: irqs.line(1),
            mouse_irq: irqs.line(12),
            a20: a20.input(),
            reset: pins.reset_line(),
        },
    ));
    let post = Shared::new(PostCode::default());
    let fast_a20 = Shared::new(FastA20::new(a20.input(), pins.reset_line()));
    let fpu_error = Shared::new(FpuError::new(irqs.line(13)));
    let dma = Shared::new(Dma::new(site.master()));
    let floppy = Shared::new(Floppy::new(dma.clone(), irqs.line(6)));
    let power = Shared::new(PowerFunction::new());
    let pm = Shared::new(AcpiPm::new(
        time.clone(),
        AcpiPmLines {
            sci: irqs.line(SCI),
            smi: smi_line(&power, &site.smi),
            sleep: sleep(site),
        },
    ));

    ports.attach(
        0x00,
        0x10,
        "8237A",
        quiet(QuietAccess::All, dma.port(dma::FIRST)),
    )?;
    for base in [0x20, 0xa0, 0x4d0] {
        ports.attach(
            base,
            2,
            "8259A",
            quiet(QuietAccess::All, irqs.pic.port(base as u16)),
        )?;
    }
    ports.attach(0x40, 4, "8254", quiet(QuietAccess::Reads, pit.port(0x40)))?;
    ports.attach(0x60, 1, "8042", keyboard.port(keyboard::DATA))?;
    ports.attach(0x61, 1, "port B", quiet(QuietAccess::Reads, pit.port(0x61)))?;
    ports.attach(
        0x64,
        1,
        "8042",
        quiet(QuietAccess::Reads, keyboard.port(keyboard::COMMAND)),
    )?;
    ports.attach(0x70, 2, "MC146818A", rtc.port(0x70))?;
    ports.attach(
        0x80,
        1,
        "POST",
        quiet(QuietAccess::All, post.port(system_ports::POST)),
    )?;
    ports.attach(
        0x81,
        0xf,
        "DMA pages",
        quiet(QuietAccess::All, dma.port(dma::PAGES + 1)),
    )?;
    ports.attach(
        0x92,
        1,
        "port A",
        quiet(QuietAccess::Reads, fast_a20.port(system_ports::FAST_A20)),
    )?;
    ports.attach(
        0xb2,
        2,
        "APM",
        quiet(QuietAccess::Reads, pm.port(acpi_pm::APM_CONTROL)),
    )?;
    ports.attach(
        0xc0,
        0x20,
        "8237A",
        quiet(QuietAccess::All, dma.port(dma::SECOND)),
    )?;
    let fpu_port = quiet(QuietAccess::All, fpu_error.port(system_ports::FPU_ERROR));
    ports.attach(0xf0, 2, "FPU error", fpu_port)?;
    if let Some(serial) = &second_serial {
        ports.attach(0x2f8, 8, "16550A", quiet(QuietAccess::All, serial.port(0)))?;
    }
    // 3F6h between them belongs to IDE.
    ports.attach(
        0x3f2,
        4,
        "82077AA",
        quiet(QuietAccess::All, floppy.port(0x3f2)),
    )?;
    ports.attach(
        0x3f7,
        1,
        "82077AA",
        quiet(QuietAccess::All, floppy.port(0x3f7)),
    )?;
    ports.attach(0x3f8, 8, "16550A", quiet(QuietAccess::All, serial.port(0)))?;
    let mut mmio = site.memory.mmio();
    mmio.attach(HPET_BASE, hpet::LEN, "HPET", Box::new(hpet.clone()))?;

    let timers: Vec<Box<dyn Timed + Send>> = vec![
        Box::new(pit),
        Box::new(rtc.clone()),
        Box::new(keyboard.clone()),
        Box::new(pm.clone()),
        Box::new(hpet.clone()),
    ];
    Ok(Isa {
        serial,
        second_serial,
        rtc,
        keyboard,
        floppy,
        post,
        fpu_error,
        hpet,
        power,
        pm,
        timers,
    })
}

/// The event timers, which cut the 8254 and the real-time clock from their lines while they are in
/// their place.
fn event_timers(site: &Site, replaced: [&Gate; 2]) -> Hpet {
    let [timer, clock] = replaced.map(Gate::close);
    let lines = HpetLines {
        replacing: [0, 8].map(|n| site.irqs.line(n)),
        legacy: Box::new(move |high| {
            timer.set_level(high);
            clock.set_level(high);
        }),
        route: site.irqs.free_inputs(),
        routes: FREE_INPUTS.fold(0, |all, n| all | 1 << n),
    };
    Hpet::new(site.time.clone(), lines)
}

/// Asks for a system-management interrupt, if the guest has allowed that of the APM port.
fn smi_line(power: &Shared<PowerFunction>, smi: &Arc<AtomicBool>) -> Box<dyn InterruptLine> {
    /// Device activity B of the PIIX4, with its bit for the APM port.
    const ACTIVITY: u8 = 0x58;
    const APM: u32 = 1 << 25;
    let (power, smi) = (power.clone(), smi.clone());
    Box::new(move |high| {
        if high && power.lock().read_config(ACTIVITY) & APM != 0 {
            smi.store(true, Ordering::Relaxed);
        }
    })
}

/// What sleep types mean; type 0 is soft off, in our tables and in those of SeaBIOS.
fn sleep(site: &Site) -> Box<dyn FnMut(u8) + Send> {
    let pins = site.pins.clone();
    Box::new(move |kind| {
        if kind == 0 {
            pins.power_off.store(true, Ordering::Relaxed);
        }
    })
}
