//! One IDE channel: the cable with up to two drives, its registers and its interrupt.
//!
//! Both drives of a cable take what is written to the registers; the selected one answers. Where
//! drive 1 is missing, drive 0 answers for it: a disk with its own registers and a status of 0, a
//! packet drive with zeros (ATA/ATAPI-6, 9.16). Where nobody answers, reads give
//! 7Fh, as the pull-down on the busy bit's line has it.

use serde::{Deserialize, Serialize};

use super::bus_master::BusMasterState;
use super::drive::{BSY, DEV, Drive, DriveState, Medium, Phase};
use crate::{GuestMemory, InterruptLine};

/// Device control: no interrupts.
const N_IEN: u8 = 0x02;
/// Device control: reset.
const SRST: u8 = 0x04;
/// Device control: registers show what was written before.
const HOB: u8 = 0x80;

const NOBODY: u8 = 0x7f;

/// The state of a channel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChannelState {
    drives: [Option<DriveState>; 2],
    control: u8,
    bus_master: BusMasterState,
}

/// A channel.
pub(super) struct Channel {
    pub drives: [Option<Drive>; 2],
    control: u8,
    selected: usize,
    pub bus_master: BusMasterState,
    line: Box<dyn InterruptLine>,
    driven: bool,
}

impl Channel {
    pub fn new(line: Box<dyn InterruptLine>) -> Channel {
        Channel {
            drives: [None, None],
            control: 0,
            selected: 0,
            bus_master: BusMasterState::default(),
            line,
            driven: false,
        }
    }

    pub fn save(&self) -> ChannelState {
        ChannelState {
            drives: self
                .drives
                .each_ref()
                .map(|d| d.as_ref().map(|d| d.state.clone())),
            control: self.control,
            bus_master: self.bus_master.clone(),
        }
    }

    pub fn restore(&mut self, state: ChannelState) {
        for (drive, state) in self.drives.iter_mut().zip(state.drives) {
            if let (Some(drive), Some(state)) = (drive, state) {
                self.selected = usize::from(state.device & DEV != 0);
                drive.restore(state);
            }
        }
        self.control = state.control;
        self.bus_master = state.bus_master;
        self.driven = self.requests();
        self.line.set_level(self.driven);
    }

    /// A hardware reset.
    pub fn reset(&mut self) {
        self.control = 0;
        self.selected = 0;
        self.bus_master.reset();
        for drive in self.drives.iter_mut().flatten() {
            drive.state.device = 0;
            drive.reset();
        }
        self.drive_line();
    }

    fn requests(&self) -> bool {
        let selected = self.drives[self.selected].as_ref();
        self.control & N_IEN == 0 && selected.is_some_and(|d| d.state.interrupt)
    }

    pub fn drive_line(&mut self) {
        let level = self.requests();
        if level != self.driven {
            self.driven = level;
            if level {
                self.bus_master.note_interrupt();
            }
            self.line.set_level(level);
        }
    }

    /// Lets the bus master go on.
    pub fn run(&mut self, memory: &dyn GuestMemory) {
        if let Some(drive) = &mut self.drives[self.selected]
            && drive.state.is_dma()
        {
            self.bus_master.run(drive, memory);
        }
        self.drive_line();
    }

    fn status(&mut self, acknowledge: bool) -> u8 {
        let status = match &mut self.drives {
            [None, None] => NOBODY,
            _ if self.control & SRST != 0 => BSY,
            drives => match &mut drives[self.selected] {
                Some(drive) => {
                    drive.state.interrupt &= !acknowledge;
                    drive.state.status
                }
                // Drive 0 answers for drive 1, but not the other way round.
                None if self.selected == 1 => 0,
                None => NOBODY,
            },
        };
        self.drive_line();
        status
    }

    /// The status, which acknowledges nothing.
    pub fn alternate_status(&mut self) -> u8 {
        self.status(false)
    }

    /// Reads a register of the command block but data.
    pub fn read(&mut self, register: u64) -> u8 {
        if register == 7 {
            return self.status(true);
        }
        let hob = self.control & HOB != 0;
        let selected = if self.drives[self.selected].is_some() {
            self.selected
        } else {
            0
        };
        let Some(drive) = &self.drives[selected] else {
            return NOBODY;
        };
        if selected != self.selected && matches!(drive.medium, Medium::Cd(_)) {
            return 0;
        }
        let state = &drive.state;
        let pair = match register {
            1 => return state.error,
            2 => state.count,
            3 => state.low,
            4 => state.mid,
            5 => state.high,
            // The upper bits always read as ones in old drives.
            _ => return state.device | 0xa0,
        };
        if hob { pair.before } else { pair.now }
    }

    /// Writes a register of the command block but data.
    pub fn write(&mut self, register: u64, value: u8, memory: &dyn GuestMemory) {
        self.control &= !HOB;
        if self.control & SRST != 0 {
            return;
        }
        if register == 7 {
            self.command(value);
            return self.run(memory);
        }
        for drive in self.drives.iter_mut().flatten() {
            let state = &mut drive.state;
            match register {
                1 => state.features.write(value),
                2 => state.count.write(value),
                3 => state.low.write(value),
                4 => state.mid.write(value),
                5 => state.high.write(value),
                _ => state.device = value,
            }
        }
        if register == 6 {
            self.selected = usize::from(value & DEV != 0);
        }
        self.drive_line();
    }

    fn command(&mut self, command: u8) {
        /// EXECUTE DEVICE DIAGNOSTIC, which both drives execute.
        const DIAGNOSE: u8 = 0x90;
        if command == DIAGNOSE {
            self.selected = 0;
            for (index, drive) in self.drives.iter_mut().enumerate() {
                if let Some(drive) = drive {
                    drive.state.device = 0;
                    drive.signature();
                    // Drive 0 reports for both.
                    drive.state.interrupt = index == 0;
                }
            }
            return;
        }
        if let Some(drive) = &mut self.drives[self.selected] {
            drive.state.interrupt = false;
            drive.state.stop();
            match drive.medium {
                Medium::Disk(_) => drive.ata_command(command),
                Medium::Cd(_) => drive.packet_drive_command(command),
            }
        }
    }

    /// Writes the device control register.
    pub fn write_control(&mut self, value: u8) {
        let fell = self.control & !value & SRST != 0;
        self.control = value & (N_IEN | SRST | HOB);
        if fell {
            self.selected = 0;
            for drive in self.drives.iter_mut().flatten() {
                drive.state.device = 0;
                drive.reset();
            }
        }
        self.drive_line();
    }

    /// Reads words of data. Where there is none, they are 0.
    pub fn read_data(&mut self, into: &mut [u8]) {
        let mut done = 0;
        match &mut self.drives[self.selected] {
            Some(drive) => {
                while done < into.len() && drive.state.phase == Phase::In {
                    // A window never has data of two: what is behind an odd end is 0.
                    done = done.next_multiple_of(2).min(into.len());
                    done += drive.take(&mut into[done..]);
                }
                into[done..].fill(0);
            }
            None => into.fill(0xff),
        }
        self.drive_line();
    }

    /// Writes words of data.
    pub fn write_data(&mut self, mut from: &[u8], memory: &dyn GuestMemory) {
        if let Some(drive) = &mut self.drives[self.selected] {
            while !from.is_empty() && matches!(drive.state.phase, Phase::Out | Phase::Packet) {
                let taken = drive.put(from);
                from = &from[taken..];
            }
        }
        self.run(memory);
    }
}
