//! What a PC is made of, as its user says.

use super::super::TimeMode;
use super::super::boot::FirmwareKernel;
use crate::cpu_model::CpuModel;
use crate::memory::paged::PhysError;
use crate::options::Options;
use metaphrase_devices::BusError;
use metaphrase_devices::block::BlockBackend;
use metaphrase_devices::net::{FramesWait, NetBackend};
use metaphrase_devices::serial::{NoSink, SerialSink};
use metaphrase_devices::virtio::RandomSource;

/// A drive and where it is connected.
pub struct Drive {
    /// Where.
    pub seat: Seat,
    /// What is in it: a disk must have its medium.
    pub medium: Option<Box<dyn BlockBackend>>,
}

/// Where a drive can be connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seat {
    /// A disk at an IDE channel (0 or 1), as its first or second device (0 or 1).
    IdeDisk {
        /// The channel.
        channel: u8,
        /// The device.
        unit: u8,
    },
    /// A CD-ROM drive there.
    IdeCd {
        /// The channel.
        channel: u8,
        /// The device.
        unit: u8,
    },
    /// A floppy drive, 0 or 1.
    Floppy(u8),
    /// A virtio block device, in the next free PCI slot.
    Virtio,
}

/// The display adapter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Display {
    /// Bytes of video memory: a power of two from 256 KiB to 256 MiB.
    pub memory: u32,
    /// Its option ROM, which only firmware runs; may be empty.
    pub rom: Vec<u8>,
}

impl Display {
    /// 16 MiB of video memory, with that option ROM.
    pub fn new(rom: Vec<u8>) -> Display {
        let memory = 16 << 20;
        Display { memory, rom }
    }
}

/// A virtio network card.
pub struct Nic {
    /// Its address.
    pub mac: [u8; 6],
    /// Makes what it is plugged into, given what that calls when frames wait.
    pub plug: Box<dyn FnOnce(FramesWait) -> Box<dyn NetBackend>>,
}

/// What firmware tries to boot from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootFrom {
    /// The first floppy disk.
    Floppy,
    /// The first disk.
    Disk,
    /// The first CD-ROM.
    Cd,
}

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
    /// Where the second serial port sends, if there is one.
    pub second_serial: Option<Box<dyn SerialSink>>,
    /// Where what firmware writes to port 402h goes.
    pub debug_console: Option<Box<dyn SerialSink>>,
    /// The port that ends the run with an exit code.
    pub debug_exit: Option<u16>,
    /// The firmware, which ends at 4 GiB. Without it somebody else loads what is to run, and finds
    /// the chipset set up as firmware would have.
    pub firmware: Option<Vec<u8>>,
    /// A kernel that firmware is to start.
    pub firmware_kernel: Option<FirmwareKernel>,
    /// Disks, CD-ROM and floppy drives.
    pub drives: Vec<Drive>,
    /// What firmware tries to boot from, in this order.
    pub boot_order: Vec<BootFrom>,
    /// The same until the first reset, if it is not empty.
    pub boot_once: Vec<BootFrom>,
    /// Firmware shall ask what to boot from.
    pub boot_menu: bool,
    /// The display adapter, if there is one.
    pub display: Option<Display>,
    /// Network cards.
    pub nics: Vec<Nic>,
    /// There is a virtio memory balloon.
    pub balloon: bool,
    /// What feeds the virtio entropy device, if there is one.
    pub entropy: Option<Box<dyn RandomSource>>,
    /// Where the virtio console sends, if there is one.
    pub console: Option<Box<dyn SerialSink>>,
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
            second_serial: None,
            debug_console: None,
            debug_exit: None,
            firmware: None,
            firmware_kernel: None,
            drives: Vec::new(),
            boot_order: vec![BootFrom::Disk, BootFrom::Cd, BootFrom::Floppy],
            boot_once: Vec::new(),
            boot_menu: false,
            display: None,
            nics: Vec::new(),
            balloon: false,
            entropy: None,
            console: None,
            cpu,
            options,
        }
    }

    /// Connects a drive with its medium.
    pub fn add_drive(&mut self, seat: Seat, medium: Box<dyn BlockBackend>) {
        let medium = Some(medium);
        self.drives.push(Drive { seat, medium });
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
    /// A drive that cannot be connected.
    #[error("there is no room for a drive at {0:?}, or its medium does not fit there")]
    Drive(Seat),
    /// More PCI devices than there are slots.
    #[error("a PC has no more than 29 PCI slots")]
    Slots,
    /// Memory cannot be mapped.
    #[error(transparent)]
    Memory(#[from] PhysError),
    /// Two devices want the same ports: a defect of ours.
    #[error(transparent)]
    Bus(#[from] BusError),
}
