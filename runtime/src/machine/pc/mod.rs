//! The board of a PC: 440FX with PIIX3, and the power management of the PIIX4.
//!
//! - `pins.rs`: what reaches the processor. `chipset.rs`: what answers where.
//! - `firmware.rs`: the ROM, and what firmware is told.

mod chipset;
mod firmware;
mod pins;

use super::{GuestClock, Parts, TimeMode};
use crate::cpu_model::CpuModel;
use crate::memory::PhysMemory;
use crate::memory::paged::PhysError;
use crate::options::Options;
use crate::system::InterruptController;
pub use chipset::Chipset;
use chipset::{ConfigPorts, PcChipset};
pub(super) use firmware::PM_BASE;
use metaphrase_devices::acpi_pm::{self, AcpiPm, AcpiPmLines};
use metaphrase_devices::block::BlockBackend;
use metaphrase_devices::dma::{self, Dma};
use metaphrase_devices::fw_cfg::{self, FwCfg};
use metaphrase_devices::i440fx::I440fx;
use metaphrase_devices::ide::{self, Ide};
use metaphrase_devices::keyboard::{self, Keyboard, KeyboardLines};
use metaphrase_devices::pci::{self, PciFunction, PciHost};
use metaphrase_devices::pic::Pic;
use metaphrase_devices::piix::{IsaBridge, PowerFunction};
use metaphrase_devices::pit::Pit;
use metaphrase_devices::rtc::Rtc;
use metaphrase_devices::serial::{NoSink, Serial, SerialSink};
use metaphrase_devices::system_ports::{
    self, DebugConsole, DebugExit, FastA20, FpuError, PostCode,
};
use metaphrase_devices::{Bus, BusError, Clock, GuestMemory, InterruptLine, Shared, WiredOr};
pub use pins::Pins;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where RAM must end at the latest; above it are memory-mapped devices.
const TOP: u64 = 0xc000_0000;

/// The system control interrupt of the PIIX4.
const SCI: u8 = 9;

/// What a PC is made of.
pub struct PcConfig {
    /// RAM in bytes, whole megabytes.
    pub ram: u64,
    /// What guest time follows.
    pub time: TimeMode,
    /// Seconds since 1970 that the real-time clock starts with.
    pub unix_seconds: u64,
    /// Where the first serial port sends.
    pub serial: Box<dyn SerialSink>,
    /// Where what firmware writes to port 402h goes.
    pub debug_console: Option<Box<dyn SerialSink>>,
    /// The port that ends the run with an exit code.
    pub debug_exit: Option<u16>,
    /// The firmware, which ends at 4 GiB. Without it somebody else loads what is to run, and finds
    /// the chipset set up as firmware would have.
    pub firmware: Option<Vec<u8>>,
    /// The first disk.
    pub disk: Option<Box<dyn BlockBackend>>,
    /// The disc in the CD-ROM drive.
    pub disc: Option<Box<dyn BlockBackend>>,
    /// The CPU model.
    pub cpu: CpuModel,
    /// How the virtual CPU runs.
    pub options: Options,
}

impl PcConfig {
    /// A PC with a processor and RAM, in deterministic time, and nothing else.
    pub fn new(ram: u64, cpu: CpuModel, options: Options) -> PcConfig {
        PcConfig {
            ram,
            time: TimeMode::COUNTED,
            // 2025-01-01.
            unix_seconds: 1_735_689_600,
            serial: Box::new(NoSink),
            debug_console: None,
            debug_exit: None,
            firmware: None,
            disk: None,
            disc: None,
            cpu,
            options,
        }
    }
}

/// Why there is no PC.
#[derive(Debug, thiserror::Error)]
pub enum PcError {
    /// Too little or too much RAM.
    #[error("{0:#x} bytes of RAM: a PC has from 2 MiB to 3 GiB, in whole megabytes")]
    Ram(u64),
    /// Firmware of a size that no ROM has.
    #[error("firmware of {0} bytes: from 64 KiB to 16 MiB in steps of 64 KiB are possible")]
    Firmware(usize),
    /// Memory cannot be mapped.
    #[error(transparent)]
    Memory(#[from] PhysError),
    /// Two devices want the same ports: a defect of ours.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// The parts of a PC that others hold on to.
#[derive(Clone)]
pub struct Board {
    /// The first serial port.
    pub serial: Shared<Serial>,
    /// The interrupt controllers.
    pub pic: Shared<Pic>,
    /// The keyboard and the mouse.
    pub keyboard: Shared<Keyboard>,
    /// Power management, with the power button.
    pub pm: Shared<AcpiPm>,
    /// The disks.
    pub ide: Shared<Ide>,
    /// The last progress code of firmware.
    pub post: Shared<PostCode>,
}

/// The 8259A pair as what interrupts the processor.
struct Interrupts(Shared<Pic>);

impl InterruptController for Interrupts {
    fn pending(&self) -> bool {
        self.0.lock().pending()
    }

    fn acknowledge(&mut self) -> u8 {
        self.0.lock().acknowledge()
    }
}

/// The interrupt requests of the board, each driven by any number of devices.
#[derive(Clone)]
struct Irqs(Arc<[WiredOr; 16]>);

impl Irqs {
    fn new(pic: &Shared<Pic>) -> Irqs {
        Irqs(Arc::new(std::array::from_fn(|n| {
            let pic = pic.clone();
            WiredOr::new(Box::new(move |high| {
                pic.lock().set_irq(n as u8, high);
            }))
        })))
    }

    fn line(&self, n: u8) -> Box<dyn InterruptLine> {
        self.0[usize::from(n & 15)].input()
    }
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
}

/// Puts a PC together.
///
/// # Errors
/// If the amount of RAM makes no sense or the host has none.
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
    let master = || Box::new(MasterView(memory.clone()));
    let given = memory.clone();

    let clock = Arc::new(GuestClock::new(config.time));
    let time: Arc<dyn Clock> = clock.clone();
    let pins = Arc::new(Pins::default());
    let pic = Shared::new(Pic::new());
    let irqs = Irqs::new(&pic);
    let pit = Shared::new(Pit::new(time.clone(), irqs.line(0)));
    let rtc = Shared::new(Rtc::new(time.clone(), irqs.line(8), config.unix_seconds));
    let serial = Shared::new(Serial::new(config.serial, irqs.line(4)));
    firmware::fill_nvram(&mut rtc.lock(), config.ram);
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
    let dma = Shared::new(Dma::new(master()));

    let power = Shared::new(PowerFunction::new());
    let smi = Arc::new(AtomicBool::new(false));
    let pm = Shared::new(AcpiPm::new(
        time,
        AcpiPmLines {
            sci: irqs.line(SCI),
            smi: smi_line(&power, &smi),
            sleep: sleep(&pins),
        },
    ));
    let bridge = Shared::new(I440fx::new());
    let isa = Shared::new(IsaBridge::new(routed(&irqs)));
    let ide = Shared::new(Ide::new(master(), [irqs.line(14), irqs.line(15)]));
    if let Some(disk) = config.disk {
        ide.lock().add_disk(0, 0, disk, "MP00001");
    }
    if let Some(disc) = config.disc {
        ide.lock().add_cd(1, 0, Some(disc), "MP00002");
    }
    let has_firmware = config.firmware.is_some();
    if !has_firmware {
        ide.lock().enable();
        firmware::enable_power(&power, &pm);
    }
    let host = Shared::new(PciHost::new(pins.reset_line()));
    {
        let mut host = host.lock();
        host.add(chipset::HOST_BRIDGE, Box::new(bridge.clone()));
        host.add(chipset::ISA_BRIDGE, Box::new(isa));
        host.add(chipset::IDE, Box::new(ide.clone()));
        host.add(chipset::POWER, Box::new(power));
    }
    let mut settings = FwCfg::new(master());
    firmware::fill_settings(&mut settings, config.ram);
    let settings = Shared::new(settings);

    let mut parts = Parts::new(given, config.cpu, config.options);
    let mut ports = Bus::new();
    ports.attach(0x00, 0x10, "8237A", dma.port(dma::FIRST))?;
    for base in [0x20, 0xa0, 0x4d0] {
        ports.attach(base, 2, "8259A", pic.port(base as u16))?;
    }
    ports.attach(0x40, 4, "8254", pit.port(0x40))?;
    ports.attach(0x60, 1, "8042", keyboard.port(keyboard::DATA))?;
    ports.attach(0x61, 1, "port B", pit.port(0x61))?;
    ports.attach(0x64, 1, "8042", keyboard.port(keyboard::COMMAND))?;
    ports.attach(0x70, 2, "MC146818A", rtc.port(0x70))?;
    ports.attach(0x80, 1, "POST", post.port(system_ports::POST))?;
    ports.attach(0x81, 0xf, "DMA pages", dma.port(dma::PAGES + 1))?;
    ports.attach(0x92, 1, "port A", fast_a20.port(system_ports::FAST_A20))?;
    let fpu_error = Shared::new(FpuError::new(irqs.line(13)));
    ports.attach(
        0xf0,
        2,
        "FPU error",
        fpu_error.port(system_ports::FPU_ERROR),
    )?;
    ports.attach(0xb2, 2, "APM", pm.port(acpi_pm::APM_CONTROL))?;
    ports.attach(0xc0, 0x20, "8237A", dma.port(dma::SECOND))?;
    ports.attach(0x3f8, 8, "16550A", serial.port(0))?;
    ports.attach(
        fw_cfg::BASE.into(),
        fw_cfg::PORTS,
        "fw_cfg",
        Box::new(settings.clone()),
    )?;
    for n in 0..2 {
        let block = ide.command_block(n);
        ports.attach(
            ide::COMMAND_BLOCKS[n].into(),
            ide::COMMAND_PORTS,
            "IDE",
            block,
        )?;
        ports.attach(
            ide::CONTROL_BLOCKS[n].into(),
            1,
            "IDE",
            ide.control_block(n),
        )?;
    }
    let config_ports = ConfigPorts {
        host: host.clone(),
        pins: pins.clone(),
    };
    ports.attach(
        pci::ADDRESS.into(),
        pci::PORTS,
        "PCI",
        Box::new(config_ports),
    )?;
    if let Some(sink) = config.debug_console {
        let console = Shared::new(DebugConsole::new(sink));
        ports.attach(0x402, 1, "debug console", console.port(0x402))?;
    }
    if let Some(port) = config.debug_exit {
        let stop = parts.stop.clone();
        let exit = DebugExit::new(Box::new(move |code| stop.store(code, Ordering::Relaxed)));
        ports.attach(port.into(), 4, "debug exit", Box::new(exit))?;
    }

    parts.ports = ports;
    parts.interrupts = Some(Box::new(Interrupts(pic.clone())));
    parts.timers = vec![
        Box::new(pit),
        Box::new(rtc),
        Box::new(keyboard.clone()),
        Box::new(pm.clone()),
    ];
    parts.clock = clock;
    parts.smi = smi;
    parts.fpu_error = Some(Box::new(move |high| {
        if high {
            fpu_error.lock().raise();
        }
    }));
    parts.restarts = has_firmware;
    pins.remap.store(true, Ordering::Relaxed);
    parts.pins = pins;
    parts.chipset = Some(Box::new(PcChipset {
        host,
        bridge,
        ide: ide.clone(),
        pm: pm.clone(),
        fw_cfg: settings,
    }));
    let board = Board {
        serial,
        pic,
        keyboard,
        pm,
        ide,
        post,
    };
    Ok((parts, board))
}

/// Where the ISA bridge routes PCI pins.
fn routed(irqs: &Irqs) -> Box<dyn Fn(u8, bool) + Send> {
    let lines: [Box<dyn InterruptLine>; 16] = std::array::from_fn(|n| irqs.line(n as u8));
    Box::new(move |irq, high| lines[usize::from(irq & 15)].set_level(high))
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
fn sleep(pins: &Arc<Pins>) -> Box<dyn FnMut(u8) + Send> {
    let pins = pins.clone();
    Box::new(move |kind| {
        if kind == 0 {
            pins.power_off.store(true, Ordering::Relaxed);
        }
    })
}
