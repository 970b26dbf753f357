//! The board of a PC: 440FX with PIIX3, and the power management of the PIIX4.
//!
//! - `config.rs`: what it is made of. `isa.rs`: the chips of the ISA bus. `slots.rs`: PCI devices.
//! - `irqs.rs`: the way of interrupts. `pins.rs`: what else reaches the processor.
//! - `chipset.rs`: what answers where. `firmware.rs`: the ROM, what firmware is told, and what is
//!   done in its place; `pci_setup.rs` of that the PCI devices.

mod chipset;
mod config;
mod firmware;
mod irqs;
mod isa;
mod pci_setup;
mod pins;
mod slots;
#[cfg(test)]
mod storm;

use super::{Bell, BoardTables, GuestClock, Parts};
use crate::memory::PhysMemory;
pub use chipset::Chipset;
use chipset::{ConfigPorts, PcChipset};
pub use config::{BootFrom, Display, Drive, Nic, PcConfig, PcError, Seat};
pub(super) use firmware::PM_BASE;
use irqs::{Interrupts, Irqs, ProcessorApic};
pub(super) use isa::HPET_BASE;
use metaphrase_devices::acpi_pm::AcpiPm;
use metaphrase_devices::apic::{self, Apics};
use metaphrase_devices::floppy::Floppy;
use metaphrase_devices::fw_cfg::{self, FwCfg};
use metaphrase_devices::i440fx::I440fx;
use metaphrase_devices::ide::Ide;
use metaphrase_devices::keyboard::Keyboard;
use metaphrase_devices::pci;
use metaphrase_devices::pic::Pic;
use metaphrase_devices::piix::IsaBridge;
use metaphrase_devices::serial::Serial;
use metaphrase_devices::system_ports::{DebugConsole, DebugExit, PostCode};
use metaphrase_devices::vga::Vga;
use metaphrase_devices::virtio::{Balloon, Console, Net, Rng, VirtioPci};
use metaphrase_devices::{Bus, Clock, GuestMemory, QuietAccess, Shared, quiet};
pub use pins::Pins;
use slots::Slots;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where RAM must end at the latest; above it are memory-mapped devices.
const TOP: u64 = 0xc000_0000;

/// The parts of a PC that others hold on to.
#[derive(Clone)]
pub struct Board {
    /// The first serial port.
    pub serial: Shared<Serial>,
    /// The second serial port, if there is one.
    pub second_serial: Option<Shared<Serial>>,
    /// The 8259A pair.
    pub pic: Shared<Pic>,
    /// The local APIC and the I/O APIC.
    pub apics: Shared<Apics>,
    /// The keyboard and the mouse.
    pub keyboard: Shared<Keyboard>,
    /// Power management, with the power button.
    pub pm: Shared<AcpiPm>,
    /// The IDE drives.
    pub ide: Shared<Ide>,
    /// The floppy drives.
    pub floppy: Shared<Floppy>,
    /// The display adapter, if there is one.
    pub vga: Option<Shared<Vga>>,
    /// The virtio console, if there is one.
    pub console: Option<Shared<VirtioPci<Console>>>,
    /// The network cards.
    pub nics: Vec<Shared<VirtioPci<Net>>>,
    /// The memory balloon, if there is one.
    pub balloon: Option<Shared<VirtioPci<Balloon>>>,
    /// The last progress code of firmware.
    pub post: Shared<PostCode>,
}

/// Guest memory, as bus masters see it.
struct MasterView(Arc<PhysMemory>);

impl GuestMemory for MasterView {
    fn read(&self, address: u64, into: &mut [u8]) {
        self.0.read_bytes(address, into);
    }

    fn write(&self, address: u64, from: &[u8]) {
        self.0.write_bytes(address, from);
    }

    fn discard(&self, address: u64, len: u64) {
        self.0.discard(address, len);
    }
}

/// What every device is made with.
struct Site {
    memory: Arc<PhysMemory>,
    time: Arc<dyn Clock>,
    pins: Arc<Pins>,
    smi: Arc<AtomicBool>,
    irqs: Irqs,
}

impl Site {
    /// Guest memory for a bus master.
    fn master(&self) -> Box<dyn GuestMemory> {
        Box::new(MasterView(self.memory.clone()))
    }
}

/// Puts a PC together.
///
/// # Errors
/// If the amount of RAM makes no sense, the host has none, or drives do not fit.
pub fn pc(config: PcConfig) -> Result<(Parts, Board), PcError> {
    const MIB: u64 = 1 << 20;
    if !(2 * MIB..=TOP).contains(&config.ram) || !config.ram.is_multiple_of(MIB) {
        return Err(PcError::Ram(config.ram));
    }
    let mut memory = PhysMemory::new();
    memory.add_low_ram(config.ram)?;
    if let Some(rom) = &config.firmware {
        firmware::map(&mut memory, rom)?;
    }
    let memory = Arc::new(memory);
    let clock = Arc::new(GuestClock::new(config.time));
    let time: Arc<dyn Clock> = clock.clone();
    let pins = Arc::new(Pins::default());
    let smi = Arc::new(AtomicBool::new(false));
    let site = Site {
        irqs: Irqs::new(time.clone(), &pins, &smi),
        memory: memory.clone(),
        time,
        pins: pins.clone(),
        smi,
    };

    let mut ports = Bus::new();
    let isa = isa::build(
        &site,
        &mut ports,
        config.serial,
        config.second_serial,
        config.unix_seconds,
    )?;
    let bridge = Shared::new(I440fx::new());
    let router = Shared::new(IsaBridge::new(site.irqs.routed()));
    let mut slots = Slots::new(&site, bridge.clone(), router);
    slots.add_power(isa.pm.clone(), isa.power.clone());
    let ide = slots.add_ide(&site, &mut ports)?;
    let vga = match config.display {
        Some(display) => Some(slots.add_display(&site, &mut ports, display)?),
        None => None,
    };
    for drive in config.drives {
        slots.connect(&site, &ide, &isa.floppy, drive)?;
    }
    let (mut nics, mut bells) = (Vec::new(), Vec::new());
    for nic in config.nics {
        let card = Shared::new(None::<Shared<VirtioPci<Net>>>);
        let polled = card.clone();
        let poll = move || {
            if let Some(card) = &*polled.lock() {
                card.lock().poll();
            }
        };
        let (bell, ring) = Bell::new(clock.waker(), Box::new(poll));
        let backend = (nic.plug)(Box::new(ring));
        let device = slots.add_virtio(&site, Net::new(backend, nic.mac))?;
        *card.lock() = Some(device.clone());
        nics.push(device);
        bells.push(bell);
    }
    let balloon = match config.balloon {
        true => Some(slots.add_virtio(&site, Balloon::new())?),
        false => None,
    };
    let console = match config.console {
        Some(sink) => Some(slots.add_virtio(&site, Console::new(sink))?),
        None => None,
    };
    if let Some(source) = config.entropy {
        slots.add_virtio(&site, Rng::new(source))?;
    }
    let Slots {
        host,
        ranges,
        mut resets,
        ..
    } = slots;

    let tables = BoardTables {
        second_serial: isa.second_serial.is_some(),
        floppy: (0..2).any(|n| isa.floppy.lock().drive_type(n) != 0),
        vga: vga.is_some(),
        firmware: config.firmware.is_some(),
    };
    let mut settings = FwCfg::new(site.master());
    firmware::fill_settings(&mut settings, config.ram, vga.is_some(), config.boot_menu);
    if let Some(kernel) = &config.firmware_kernel {
        kernel.offer(&mut settings);
    }
    firmware::fill_nvram(&mut isa.rtc.lock(), config.ram, &isa.floppy.lock());
    let (once, order) = (config.boot_once, config.boot_order);
    if once.is_empty() {
        firmware::set_boot_order(&mut isa.rtc.lock(), &order);
    } else {
        firmware::set_boot_order(&mut isa.rtc.lock(), &once);
        let rtc = isa.rtc.clone();
        resets.push(Box::new(move || {
            firmware::set_boot_order(&mut rtc.lock(), &order)
        }));
    }
    firmware::offer_tables(&mut settings, &tables, &config.cpu, config.ram);
    let settings = Shared::new(settings);
    ports.attach(
        fw_cfg::BASE.into(),
        fw_cfg::PORTS,
        "fw_cfg",
        quiet(QuietAccess::All, Box::new(settings.clone())),
    )?;
    resets.push(Box::new(move || settings.lock().reset()));
    let config_ports = ConfigPorts {
        host: host.clone(),
        pins: pins.clone(),
    };
    ports.attach(
        pci::ADDRESS.into(),
        pci::PORTS,
        "PCI",
        quiet(QuietAccess::Reads, Box::new(config_ports)),
    )?;
    {
        let mut mmio = memory.mmio();
        let apics = &site.irqs.apics;
        mmio.attach(apic::IO_BASE, apic::LEN, "I/O APIC", apics.io())?;
    }

    let mut parts = Parts::new(memory, config.cpu, config.options);
    if let Some(sink) = config.debug_console {
        let console = Shared::new(DebugConsole::new(sink));
        ports.attach(
            0x402,
            1,
            "debug console",
            quiet(QuietAccess::All, console.port(0x402)),
        )?;
    }
    if let Some(port) = config.debug_exit {
        let stop = parts.stop.clone();
        let exit = DebugExit::new(Box::new(move |code| stop.store(code, Ordering::Relaxed)));
        ports.attach(port.into(), 4, "debug exit", Box::new(exit))?;
    }
    if config.firmware.is_none() {
        firmware::set_up(&isa, &site, &ide, vga.as_ref(), &host);
    }

    parts.tables = tables;
    parts.ports = ports;
    parts.interrupts = Some(Box::new(Interrupts(site.irqs.clone())));
    parts.interrupt = Some(site.irqs.level.clone());
    parts.apic_id = Some(0);
    parts.apic = Some(Box::new(ProcessorApic {
        apics: site.irqs.apics.clone(),
        pins: pins.clone(),
    }));
    let (apics, hpet) = (site.irqs.apics.clone(), isa.hpet);
    resets.push(Box::new(move || {
        hpet.lock().reset();
        apics.lock().reset();
    }));
    parts.timers = isa.timers;
    parts.timers.push(Box::new(site.irqs.apics.clone()));
    parts.bells = bells;
    parts.clock = clock;
    parts.smi = site.smi;
    let fpu_error = isa.fpu_error;
    parts.fpu_error = Some(Box::new(move |high| {
        if high {
            fpu_error.lock().raise();
        }
    }));
    parts.restarts = config.firmware.is_some();
    pins.remap.store(true, Ordering::Relaxed);
    parts.pins = pins;
    parts.chipset = Some(Box::new(PcChipset {
        host,
        bridge,
        apics: site.irqs.apics.clone(),
        apic_at: None,
        ranges,
        resets,
    }));
    let board = Board {
        serial: isa.serial,
        second_serial: isa.second_serial,
        pic: site.irqs.pic,
        apics: site.irqs.apics,
        keyboard: isa.keyboard,
        pm: isa.pm,
        ide,
        floppy: isa.floppy,
        vga,
        console,
        nics,
        balloon,
        post: isa.post,
    };
    Ok((parts, board))
}
