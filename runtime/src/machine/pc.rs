//! The board of a PC as far as it goes without buses and disks: interrupt controllers, timer,
//! real-time clock, a serial port, and the ports that firmware expects.

use super::{GuestClock, Parts, TimeMode};
use crate::cpu_model::CpuModel;
use crate::memory::PhysMemory;
use crate::memory::paged::PhysError;
use crate::options::Options;
use crate::system::InterruptController;
use metaphrase_devices::pic::Pic;
use metaphrase_devices::pit::Pit;
use metaphrase_devices::rtc::Rtc;
use metaphrase_devices::serial::{Serial, SerialSink};
use metaphrase_devices::{Bus, BusError, Clock, InterruptLine, PortDevice, Shared};
use std::sync::Arc;

/// What lies between conventional memory and 1 MiB: video memory and ROMs.
const HOLE: std::ops::Range<u64> = 0xa0000..0x10_0000;

/// Where RAM must end at the latest; above it are memory-mapped devices.
const TOP: u64 = 0xc000_0000;

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
    /// The CPU model.
    pub cpu: CpuModel,
    /// How the virtual CPU runs.
    pub options: Options,
}

/// Why there is no PC.
#[derive(Debug, thiserror::Error)]
pub enum PcError {
    /// Too little or too much RAM.
    #[error("{0:#x} bytes of RAM: a PC has from 2 MiB to 3 GiB, in whole megabytes")]
    Ram(u64),
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

/// A line into the interrupt controllers.
struct Irq(Shared<Pic>, u8);

impl InterruptLine for Irq {
    fn set_level(&self, high: bool) {
        self.0.lock().set_irq(self.1, high);
    }
}

/// Port 92h: A20 (always open here) and fast reset; and ports that only take a value.
#[derive(Debug, Default)]
struct Latch(u8);

impl PortDevice for Latch {
    fn read_port(&mut self, _port: u16) -> u8 {
        self.0
    }

    fn write_port(&mut self, _port: u16, value: u8) {
        self.0 = value;
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
    memory.add_ram(0, HOLE.start)?;
    memory.add_ram(HOLE.end, config.ram - HOLE.end)?;

    let clock = Arc::new(GuestClock::new(config.time));
    let time: Arc<dyn Clock> = clock.clone();
    let pic = Shared::new(Pic::new());
    let irq = |line| Box::new(Irq(pic.clone(), line));
    let pit = Shared::new(Pit::new(time.clone(), irq(0)));
    let rtc = Shared::new(Rtc::new(time, irq(8), config.unix_seconds));
    let serial = Shared::new(Serial::new(config.serial, irq(4)));
    set_memory_size(&mut rtc.lock(), config.ram);

    let mut ports = Bus::new();
    for base in [0x20, 0xa0, 0x4d0] {
        ports.attach(base, 2, "8259A", pic.port(base as u16))?;
    }
    ports.attach(0x40, 4, "8254", pit.port(0x40))?;
    ports.attach(0x61, 1, "port B", pit.port(0x61))?;
    ports.attach(0x70, 2, "MC146818A", rtc.port(0x70))?;
    ports.attach(0x80, 1, "POST", Shared::new(Latch::default()).port(0))?;
    ports.attach(0x92, 1, "port A", Shared::new(Latch(2)).port(0))?;
    ports.attach(0x3f8, 8, "16550A", serial.port(0))?;

    let mut parts = Parts::new(memory, config.cpu, config.options);
    parts.ports = ports;
    parts.interrupts = Some(Box::new(Interrupts(pic.clone())));
    parts.timers = vec![Box::new(pit), Box::new(rtc)];
    parts.clock = clock;
    Ok((parts, Board { serial, pic }))
}

/// The amount of RAM as firmware finds it in the NVRAM: KiB from 1 MiB to 64 MiB, then units of
/// 64 KiB from 16 MiB on.
fn set_memory_size(rtc: &mut Rtc, ram: u64) {
    let base = 640u16;
    let extended = ((ram >> 10) - 1024).min(0xfc00) as u16;
    let above = (ram.saturating_sub(16 << 20) >> 16).min(0xffff) as u16;
    for (index, value) in [
        (0x15, base),
        (0x17, extended),
        (0x30, extended),
        (0x34, above),
    ] {
        let [low, high] = value.to_le_bytes();
        rtc.set_ram(index, low);
        rtc.set_ram(index + 1, high);
    }
}
