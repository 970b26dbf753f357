//! One drive on a cable: its registers, and the data that goes through its data register.
//!
//! A transfer is a row of windows: pieces of the buffer that the host moves between two looks at
//! the status. Whether words at the data port or the bus master move them makes no difference but
//! for interrupts.

use serde::{Deserialize, Serialize};

use super::packet::PacketState;
use crate::block::{BlockBackend, SECTOR};

/// Status: an error, for more see the error register. For packet commands: check condition.
pub(super) const ERR: u8 = 0x01;
/// Status: the drive wants data or has some.
pub(super) const DRQ: u8 = 0x08;
/// Status: seek complete; for packet commands: service.
pub(super) const DSC: u8 = 0x10;
/// Status: device fault.
pub(super) const DF: u8 = 0x20;
/// Status: ready.
pub(super) const DRDY: u8 = 0x40;
/// Status: busy.
pub(super) const BSY: u8 = 0x80;

/// Error: the command is not known, or its parameters are not.
pub(super) const ABRT: u8 = 0x04;
/// Error: no such address.
pub(super) const IDNF: u8 = 0x10;
/// Error: data cannot be read.
pub(super) const UNC: u8 = 0x40;

/// Device register: the address is an LBA.
pub(super) const LBA: u8 = 0x40;
/// Device register: the second drive of the cable.
pub(super) const DEV: u8 = 0x10;

/// Sectors that a DMA transfer moves at a time.
pub(super) const DMA_SECTORS: u32 = 128;

/// A register of the command block that is written twice for commands with 48-bit addresses: what
/// was written last, and before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Pair {
    pub now: u8,
    pub before: u8,
}

impl Pair {
    pub fn write(&mut self, value: u8) {
        self.before = self.now;
        self.now = value;
    }

    /// Both values are known to be this.
    pub fn set(&mut self, value: u8) {
        *self = Pair {
            now: value,
            before: 0,
        };
    }
}

/// Where the data of a command is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) enum Phase {
    /// There is none.
    #[default]
    Idle,
    /// The host reads the data port.
    In,
    /// The host writes the data port.
    Out,
    /// The host writes a command packet.
    Packet,
    /// The bus master writes to memory.
    DmaIn,
    /// The bus master reads from memory.
    DmaOut,
}

/// The state of a drive. What it stores is not part of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DriveState {
    pub(super) features: Pair,
    pub(super) count: Pair,
    pub(super) low: Pair,
    pub(super) mid: Pair,
    pub(super) high: Pair,
    pub(super) device: u8,
    pub(super) status: u8,
    pub(super) error: u8,
    /// Asks for an interrupt.
    pub(super) interrupt: bool,
    pub(super) phase: Phase,
    buffer: Vec<u8>,
    position: u32,
    /// The end of the window.
    end: u32,
    /// The next sector (of the medium's size) to be loaded or stored.
    pub(super) lba: u64,
    /// How many of them are not yet in the buffer, or not yet stored.
    pub(super) left: u32,
    /// The address of the command has 48 bits.
    pub(super) wide: bool,
    /// What is written must be on the medium when the command ends.
    pub(super) forced: bool,
    /// Sectors in a window.
    pub(super) window: u32,
    /// What SET MULTIPLE MODE chose; 0 if it did not.
    pub(super) multiple: u8,
    /// The geometry as INITIALIZE DEVICE PARAMETERS left it.
    pub(super) heads: u8,
    pub(super) sectors: u8,
    /// What SET FEATURES chose as transfer mode.
    pub(super) transfer_mode: u8,
    pub(super) write_cache: bool,
    /// In standby; any access to the medium wakes it.
    pub(super) standby: bool,
    pub(super) packet: PacketState,
}

/// What a drive is.
pub(super) enum Medium {
    /// An ATA disk.
    Disk(Box<dyn BlockBackend>),
    /// An ATAPI CD-ROM drive, perhaps with a disc in it.
    Cd(Option<Box<dyn BlockBackend>>),
}

/// A drive.
pub(super) struct Drive {
    pub state: DriveState,
    pub medium: Medium,
    /// Its serial number.
    pub serial: String,
}

impl Drive {
    pub fn new(medium: Medium, serial: &str) -> Drive {
        let mut drive = Drive {
            state: DriveState {
                heads: super::identify::HEADS,
                sectors: super::identify::SECTORS,
                transfer_mode: 0x22,
                write_cache: true,
                ..DriveState::default()
            },
            medium,
            serial: serial.to_string(),
        };
        drive.signature();
        drive
    }

    /// What a reset or a diagnosis leaves in the registers: which kind of drive this is.
    pub fn signature(&mut self) {
        let state = &mut self.state;
        let (mid, high, status) = match self.medium {
            Medium::Disk(_) => (0x00, 0x00, DRDY | DSC),
            Medium::Cd(_) => (0x14, 0xeb, 0x00),
        };
        state.count.set(1);
        state.low.set(1);
        state.mid.set(mid);
        state.high.set(high);
        state.device &= DEV;
        state.status = status;
        state.error = 1;
        state.stop();
    }

    /// A reset by software or hardware.
    pub fn reset(&mut self) {
        self.state.interrupt = false;
        self.state.multiple = 0;
        self.state.standby = false;
        self.state.packet.reset();
        self.signature();
    }

    /// Takes over a state that may come from anywhere.
    pub fn restore(&mut self, state: DriveState) {
        self.state = state;
        let state = &mut self.state;
        let len = state.buffer.len().min(1 << 20);
        state.buffer.truncate(len);
        state.end = state.end.min(len as u32);
        state.position = state.position.min(state.end);
        if state.phase != Phase::Idle && state.position == state.end {
            state.stop();
        }
        state.heads = state.heads.max(1);
        state.sectors = state.sectors.max(1);
    }

    /// Moves data out of the drive; how many bytes. 0 if there is none.
    pub fn take(&mut self, into: &mut [u8]) -> usize {
        let state = &mut self.state;
        let from = &state.buffer[state.position as usize..state.end as usize];
        let len = from.len().min(into.len());
        into[..len].copy_from_slice(&from[..len]);
        self.moved(len);
        len
    }

    /// Moves data into the drive; how many bytes. 0 if it takes none.
    pub fn put(&mut self, from: &[u8]) -> usize {
        let state = &mut self.state;
        let into = &mut state.buffer[state.position as usize..state.end as usize];
        let len = into.len().min(from.len());
        into[..len].copy_from_slice(&from[..len]);
        self.moved(len);
        len
    }

    fn moved(&mut self, len: usize) {
        let state = &mut self.state;
        state.position += len as u32;
        if len > 0 && state.position == state.end {
            match (state.phase, &self.medium) {
                (Phase::Packet, _) => self.packet_received(),
                (_, Medium::Disk(_)) => self.window_done(),
                (_, Medium::Cd(_)) => self.packet_window_done(),
            }
        }
    }
}

impl DriveState {
    /// No data moves any more.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::Idle;
        self.status &= !DRQ;
        self.buffer.clear();
        (self.position, self.end, self.left) = (0, 0, 0);
    }

    /// The command is done.
    pub(super) fn finish(&mut self) {
        self.stop();
        self.status = DRDY | DSC;
        self.error = 0;
        self.interrupt = true;
    }

    /// The command ends with these bits in the error register.
    pub(super) fn fail(&mut self, error: u8) {
        self.finish();
        self.status |= ERR;
        self.error = error;
    }

    /// A buffer full of data for the host, or room for data from it; the window is all of it.
    pub(super) fn open(&mut self, phase: Phase, buffer: Vec<u8>) {
        self.phase = phase;
        self.end = buffer.len() as u32;
        self.position = 0;
        self.buffer = buffer;
        self.status = DRDY | DSC | DRQ;
        self.error = 0;
    }

    /// Narrows the window to so many bytes from where it now begins. How many there are.
    pub(super) fn set_window(&mut self, bytes: usize) -> usize {
        let rest = self.buffer.len() - self.position as usize;
        let len = rest.min(bytes);
        self.end = self.position + len as u32;
        len
    }

    /// How many bytes are behind the window.
    pub(super) fn behind(&self) -> usize {
        self.buffer.len() - self.end as usize
    }

    /// The buffer.
    pub(super) fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    /// A buffer for so many sectors of a disk.
    pub(super) fn room(sectors: u32) -> Vec<u8> {
        vec![0; sectors as usize * SECTOR]
    }

    /// Whether the bus master moves the data.
    pub(super) fn is_dma(&self) -> bool {
        matches!(self.phase, Phase::DmaIn | Phase::DmaOut)
    }
}
