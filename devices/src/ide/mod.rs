//! IDE: the controller of the PIIX3 (function 1 of 82371SB, datasheet 290550), with ATA disks and
//! ATAPI CD-ROM drives (ATA/ATAPI-6) on its two channels.
//!
//! The controller sits at the legacy ports: attach [`Ide::command_block`] of the first channel at
//! 1F0h for 8 ports and [`Ide::control_block`] at 3F6h for 1, of the second at 170h and 376h, and
//! [`Ide::bus_master`] where the function's mapping says. The legacy ports answer once firmware has
//! enabled the function's I/O space and the channel's decoding; a machine without such firmware
//! calls [`Ide::enable`].
//!
//! Commands take no time: a drive is never seen busy but in reset. The data port moves 16 or 32
//! bits; a whole REP INS or OUTS goes in one piece. Interrupts are levels; the controllers of a PC
//! look for their edges.
//!
//! Left out: timings, which are stored and mean nothing; overlapped and queued commands; SMART,
//! security and the host protected area, which drives do not claim to have.

mod ata;
mod bus_master;
mod channel;
mod drive;
mod identify;
mod packet;
mod packet_data;
#[cfg(test)]
mod packet_tests;
#[cfg(test)]
mod tests;

use channel::Channel;
pub use channel::ChannelState;
pub use drive::DriveState;
use drive::{Drive, Medium};
use serde::{Deserialize, Serialize};

use crate::block::BlockBackend;
use crate::pci::{Bar, COMMAND, COMMAND_IO, ConfigSpace, ConfigState, Mapping, PciFunction};
use crate::{BusDevice, GuestMemory, InterruptLine, Shared, Width};

/// First port of the command block of each channel.
pub const COMMAND_BLOCKS: [u16; 2] = [0x1f0, 0x170];
/// Ports of a command block.
pub const COMMAND_PORTS: u64 = 8;
/// The port of each channel's device control register and alternate status.
pub const CONTROL_BLOCKS: [u16; 2] = [0x3f6, 0x376];
/// The base address register of the bus masters.
pub const BUS_MASTER_BAR: u8 = 4;
/// Ports of the bus masters.
pub const BUS_MASTER_PORTS: u64 = 16;

/// Timing registers; the top bit of each channel's word switches its decoding on.
const TIMING: u8 = 0x40;
const DECODE: u8 = 0x80;

/// The state of the controller and its drives. What is on the media is not part of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IdeState {
    config: ConfigState,
    channels: [ChannelState; 2],
}

/// The controller.
pub struct Ide {
    config: ConfigSpace,
    channels: [Channel; 2],
    memory: Box<dyn GuestMemory>,
}

impl Ide {
    /// A controller without drives, after reset. The lines are those of the two channels, on a PC
    /// interrupt requests 14 and 15.
    pub fn new(memory: Box<dyn GuestMemory>, lines: [Box<dyn InterruptLine>; 2]) -> Ide {
        let mut config = ConfigSpace::new(0x8086, 0x7010, 0x01_0180, 0);
        config.set_bar(BUS_MASTER_BAR, Bar::Io { size: 16 });
        config.set_writable(COMMAND, &[0x05]);
        config.set_writable(TIMING, &[0xff; 5]);
        let mut ide = Ide {
            config,
            channels: lines.map(Channel::new),
            memory,
        };
        ide.decode();
        ide
    }

    /// Connects a disk as drive 0 or 1 of channel 0 or 1. False if there is no such place.
    pub fn add_disk(
        &mut self,
        channel: usize,
        drive: usize,
        disk: Box<dyn BlockBackend>,
        serial: &str,
    ) -> bool {
        self.add(channel, drive, Drive::new(Medium::Disk(disk), serial))
    }

    /// Connects a CD-ROM drive, perhaps with a disc.
    pub fn add_cd(
        &mut self,
        channel: usize,
        drive: usize,
        disc: Option<Box<dyn BlockBackend>>,
        serial: &str,
    ) -> bool {
        self.add(channel, drive, Drive::new(Medium::Cd(disc), serial))
    }

    fn add(&mut self, channel: usize, place: usize, drive: Drive) -> bool {
        let place = self
            .channels
            .get_mut(channel)
            .and_then(|c| c.drives.get_mut(place));
        let empty = place.filter(|place| place.is_none());
        empty.map(|place| *place = Some(drive)).is_some()
    }

    /// Changes the disc in a CD-ROM drive. False if there is no such drive, or the guest has
    /// locked it.
    pub fn change_disc(
        &mut self,
        channel: usize,
        drive: usize,
        disc: Option<Box<dyn BlockBackend>>,
    ) -> bool {
        let drives = self.channels.get_mut(channel).map(|c| &mut c.drives);
        match drives.and_then(|drives| drives.get_mut(drive)) {
            Some(Some(drive)) if matches!(drive.medium, Medium::Cd(_)) && !drive.is_locked() => {
                drive.insert(disc);
                true
            }
            _ => false,
        }
    }

    /// Switches the legacy ports and the bus master on, as firmware would.
    pub fn enable(&mut self) {
        self.config.set(COMMAND, &[0x05, 0]);
        self.decode();
    }

    /// A reset of the machine. The PIIX3 decodes neither channel then; here both are on, for OVMF
    /// sets the command register only, and waits a minute for each drive that reads as busy.
    pub fn reset(&mut self) {
        self.config.set(COMMAND, &[0, 0]);
        self.config.set(TIMING, &[0; 5]);
        self.decode();
        for channel in &mut self.channels {
            channel.reset();
        }
    }

    /// The state.
    pub fn save(&self) -> IdeState {
        IdeState {
            config: self.config.save(),
            channels: self.channels.each_ref().map(Channel::save),
        }
    }

    /// Takes over the state of a controller with the same drives.
    pub fn restore(&mut self, state: IdeState) {
        self.config.restore(&state.config);
        for (channel, state) in self.channels.iter_mut().zip(state.channels) {
            channel.restore(state);
        }
    }

    fn decode(&mut self) {
        self.config.set(TIMING, &[0x00, DECODE, 0x00, DECODE]);
    }

    /// The legacy ports of a channel answer.
    fn decodes(&self, channel: usize) -> bool {
        let timing = self.config.byte(TIMING + 1 + 2 * channel as u8);
        self.config.command() & COMMAND_IO != 0 && timing & DECODE != 0
    }
}

impl PciFunction for Ide {
    fn read_config(&mut self, register: u8) -> u32 {
        self.config.read(register)
    }

    fn write_config(&mut self, register: u8, value: u32, mask: u32) {
        self.config.write(register, value, mask);
    }

    fn mappings(&self) -> Vec<Mapping> {
        self.config.mappings()
    }
}

/// A range of the controller's ports.
struct Ports {
    ide: Shared<Ide>,
    which: Which,
}

#[derive(Clone, Copy, Debug)]
enum Which {
    Command(usize),
    Control(usize),
    BusMaster,
}

impl Shared<Ide> {
    /// The command block of channel 0 or 1.
    pub fn command_block(&self, channel: usize) -> Box<dyn BusDevice> {
        self.ports(Which::Command(channel & 1))
    }

    /// The control block of channel 0 or 1.
    pub fn control_block(&self, channel: usize) -> Box<dyn BusDevice> {
        self.ports(Which::Control(channel & 1))
    }

    /// The bus masters of both channels.
    pub fn bus_master(&self) -> Box<dyn BusDevice> {
        self.ports(Which::BusMaster)
    }

    fn ports(&self, which: Which) -> Box<dyn BusDevice> {
        Box::new(Ports {
            ide: self.clone(),
            which,
        })
    }
}

impl Ide {
    fn read_byte(&mut self, which: Which, offset: u64) -> u8 {
        match which {
            Which::Command(c) | Which::Control(c) if !self.decodes(c) => 0xff,
            Which::Command(c) => self.channels[c].read(offset),
            Which::Control(c) if offset == 0 => self.channels[c].alternate_status(),
            Which::Control(_) => 0xff,
            Which::BusMaster => {
                let channel = usize::from(offset & 15 >= bus_master::REGISTERS);
                self.channels[channel].bus_master.read(offset & 7)
            }
        }
    }

    fn write_byte(&mut self, which: Which, offset: u64, value: u8) {
        match which {
            Which::Command(c) | Which::Control(c) if !self.decodes(c) => {}
            Which::Command(c) => self.channels[c].write(offset, value, &*self.memory),
            Which::Control(c) if offset == 0 => self.channels[c].write_control(value),
            Which::Control(_) => {}
            Which::BusMaster => {
                let channel = usize::from(offset & 15 >= bus_master::REGISTERS);
                let channel = &mut self.channels[channel];
                channel.bus_master.write(offset & 7, value);
                channel.run(&*self.memory);
            }
        }
    }

    /// The channel whose data port this is.
    fn data_port(&self, which: Which, offset: u64) -> Option<usize> {
        match which {
            Which::Command(channel) if offset == 0 && self.decodes(channel) => Some(channel),
            _ => None,
        }
    }
}

impl BusDevice for Ports {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        let mut bytes = [0; 8];
        let len = width.bytes() as usize;
        self.read_many(offset, width, &mut bytes[..len]);
        u64::from_le_bytes(bytes)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        let len = width.bytes() as usize;
        self.write_many(offset, width, &value.to_le_bytes()[..len]);
    }

    fn read_many(&mut self, offset: u64, width: Width, into: &mut [u8]) {
        let mut ide = self.ide.lock();
        match ide.data_port(self.which, offset) {
            // A byte is the lower half of a word, which is gone after that.
            Some(channel) if width == Width::Byte => {
                for byte in into {
                    let mut word = [0; 2];
                    ide.channels[channel].read_data(&mut word);
                    *byte = word[0];
                }
            }
            Some(channel) => ide.channels[channel].read_data(into),
            None => {
                for unit in into.chunks_mut(width.bytes() as usize) {
                    for (byte, at) in unit.iter_mut().zip(offset..) {
                        *byte = ide.read_byte(self.which, at);
                    }
                }
            }
        }
    }

    fn write_many(&mut self, offset: u64, width: Width, from: &[u8]) {
        let mut ide = self.ide.lock();
        let ide = &mut *ide;
        match ide.data_port(self.which, offset) {
            Some(channel) if width == Width::Byte => {
                for byte in from {
                    ide.channels[channel].write_data(&[*byte, 0], &*ide.memory);
                }
            }
            Some(channel) => ide.channels[channel].write_data(from, &*ide.memory),
            None => {
                for unit in from.chunks(width.bytes() as usize) {
                    for (byte, at) in unit.iter().zip(offset..) {
                        ide.write_byte(self.which, at, *byte);
                    }
                }
            }
        }
    }
}
