//! The floppy disk controller: Intel 82077AA (datasheet 290166) in PC-AT mode, with two drives.
//!
//! Ports, with their own numbers: 3F2h digital output, 3F3h tape drive, 3F4h main status and data
//! rate select, 3F5h data, 3F7h digital input and configuration control. Attach `port(0x3f0)` at
//! 3F0h for 6 ports and `port(0x3f7)` at 3F7h for 1; 3F6h belongs to IDE. Data moves on DMA channel
//! 2, or through the data port in non-DMA mode.
//!
//! Mechanics take no time: heads are where they are sent, disks always turn, and a command ends
//! when it is complete or its data has moved. A disk is known by its number of sectors.
//!
//! Left out: single density, sectors of other sizes than 512 bytes, deleted data, READ TRACK, SCAN
//! and VERIFY, tape drives, power down.

mod transfer;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use transfer::Execution;

use crate::block::BlockBackend;
use crate::dma::Dma;
use crate::{InterruptLine, PortDevice, Shared};

/// First port.
pub const BASE: u16 = 0x3f0;
/// Digital input and configuration control.
pub const DIGITAL_INPUT: u16 = 0x3f7;

const OUTPUT: u16 = 0x3f2;
const TAPE: u16 = 0x3f3;
const STATUS: u16 = 0x3f4;
const DATA: u16 = 0x3f5;

const OUTPUT_DRIVE: u8 = 0x03;
const OUTPUT_RUN: u8 = 0x04;
/// Digital output: interrupt and DMA request are connected.
const OUTPUT_GATE: u8 = 0x08;

const STATUS_REQUEST: u8 = 0x80;
const STATUS_TO_HOST: u8 = 0x40;
const STATUS_NON_DMA: u8 = 0x20;
const STATUS_BUSY: u8 = 0x10;

const INPUT_CHANGED: u8 = 0x80;
const SELECT_RESET: u8 = 0x80;

const ST0_ABNORMAL: u8 = 0x40;
const ST0_INVALID: u8 = 0x80;
const ST0_POLLED: u8 = 0xc0;
const ST0_SEEK_END: u8 = 0x20;
/// No track 0 was found.
const ST0_EQUIPMENT: u8 = 0x10;

const ST3_ALWAYS: u8 = 0x28;
const ST3_PROTECTED: u8 = 0x40;
const ST3_TRACK_0: u8 = 0x10;

const CONFIGURE_IMPLIED_SEEK: u8 = 0x40;
const CONFIGURE_NO_FIFO: u8 = 0x20;
const VERSION: u8 = 0x90;
/// The outermost place that a head can be moved to.
const LAST_TRACK: u8 = 83;

/// How a disk is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Geometry {
    pub tracks: u8,
    pub sectors: u8,
    /// Data rates at which it can be read, a bit for each number in the rate registers.
    pub rates: u8,
}

/// The smallest format that has so many sectors, and two heads.
fn geometry(sectors: u64) -> Option<Geometry> {
    const FORMATS: [(u8, u8, u8); 6] = [
        (40, 9, 0b0110),
        (80, 9, 0b0110),
        (80, 15, 0b0001),
        (80, 18, 0b0001),
        (80, 21, 0b0001),
        (80, 36, 0b1000),
    ];
    let formats = FORMATS
        .into_iter()
        .map(|(tracks, sectors, rates)| Geometry {
            tracks,
            sectors,
            rates,
        });
    let mut formats = formats.filter(|g| {
        let all = 2 * u64::from(g.tracks) * u64::from(g.sectors);
        sectors > 0 && all >= sectors
    });
    formats.next()
}

/// A drive.
struct Drive {
    disk: Option<(Box<dyn BlockBackend>, Geometry)>,
}

/// The state. What is on the disks is not part of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FloppyState {
    output: u8,
    tape: u8,
    rate: u8,
    command: Vec<u8>,
    result: VecDeque<u8>,
    execution: Option<Execution>,
    interrupt: bool,
    /// Drives whose change of readiness after reset has not been asked for.
    polled: u8,
    /// Ends of seeks that have not been asked for.
    sought: [Option<u8>; 4],
    tracks: [u8; 4],
    /// The disk was changed and the head has not moved since.
    changed: [bool; 4],
    specify: [u8; 2],
    configure: u8,
    precompensation: u8,
    perpendicular: u8,
    locked: bool,
    /// What DUMPREG shows: the last sector of a track, as last told.
    last_sector: u8,
    /// The sector that READ ID finds next, less one.
    passing: u8,
}

/// The controller.
pub struct Floppy {
    state: FloppyState,
    drives: [Option<Drive>; 2],
    dma: Shared<Dma>,
    irq: Box<dyn InterruptLine>,
}

impl Floppy {
    /// A controller without drives, after power on.
    pub fn new(dma: Shared<Dma>, irq: Box<dyn InterruptLine>) -> Floppy {
        Floppy {
            state: FloppyState {
                output: 0,
                tape: 0,
                rate: 2,
                command: Vec::new(),
                result: VecDeque::new(),
                execution: None,
                interrupt: false,
                polled: 0,
                sought: [None; 4],
                tracks: [0; 4],
                changed: [true; 4],
                specify: [0; 2],
                configure: CONFIGURE_NO_FIFO,
                precompensation: 0,
                perpendicular: 0,
                locked: false,
                last_sector: 0,
                passing: 0,
            },
            drives: [None, None],
            dma,
            irq,
        }
    }

    /// Connects drive 0 or 1, perhaps with a disk. False if there is no such place, or the disk is
    /// larger than any floppy disk.
    pub fn add_drive(&mut self, drive: usize, disk: Option<Box<dyn BlockBackend>>) -> bool {
        match self.drives.get_mut(drive) {
            Some(place @ None) => *place = Some(Drive { disk: None }),
            _ => return false,
        }
        self.insert(drive, disk)
    }

    /// Changes the disk in a drive. False if there is no such drive, or the disk is larger than any
    /// floppy disk.
    pub fn insert(&mut self, drive: usize, disk: Option<Box<dyn BlockBackend>>) -> bool {
        let Some(Some(place)) = self.drives.get_mut(drive) else {
            return false;
        };
        self.state.changed[drive] = true;
        let wanted = disk.is_some();
        place.disk = disk.and_then(|disk| {
            let geometry = geometry(disk.sectors())?;
            Some((disk, geometry))
        });
        wanted == place.disk.is_some()
    }

    /// What firmware calls the drive: 0 for none, 4 for 1.44 MB, 5 for 2.88 MB, and so on; a drive
    /// without a disk is for 1.44 MB.
    pub fn drive_type(&self, drive: usize) -> u8 {
        match self.drives.get(drive) {
            Some(Some(drive)) => match &drive.disk {
                Some((_, g)) if g.tracks == 40 => 1,
                Some((_, g)) if g.sectors == 15 => 2,
                Some((_, g)) if g.sectors == 9 => 3,
                Some((_, g)) if g.sectors == 36 => 5,
                _ => 4,
            },
            _ => 0,
        }
    }

    /// The state.
    pub fn save(&self) -> FloppyState {
        self.state.clone()
    }

    /// Takes over the state of a controller with the same drives.
    pub fn restore(&mut self, state: FloppyState) {
        self.state = state;
        if self.state.execution.as_ref().is_some_and(|e| !e.is_sound()) {
            self.state.execution = None;
        }
        self.drive_line();
    }

    fn running(&self) -> bool {
        self.state.output & OUTPUT_RUN != 0
    }

    fn drive_line(&self) {
        let gate = self.state.output & OUTPUT_GATE != 0;
        self.irq.set_level(self.state.interrupt && gate);
    }

    /// What a reset does, however it is made.
    fn reset(&mut self) {
        let state = &mut self.state;
        state.command.clear();
        state.result.clear();
        state.execution = None;
        state.interrupt = false;
        state.sought = [None; 4];
        state.tracks = [0; 4];
        state.perpendicular &= 0x3c;
        if !state.locked {
            state.configure = CONFIGURE_NO_FIFO;
            state.precompensation = 0;
        }
    }

    /// After a reset, the drives are polled: all four are reported as ready.
    fn start(&mut self) {
        self.state.polled = 4;
        self.state.interrupt = true;
    }

    fn write_output(&mut self, value: u8) {
        let before = std::mem::replace(&mut self.state.output, value);
        if before & !value & OUTPUT_RUN != 0 {
            self.reset();
        } else if value & !before & OUTPUT_RUN != 0 {
            self.start();
        }
    }

    fn status(&self) -> u8 {
        if !self.running() {
            return 0;
        }
        let state = &self.state;
        STATUS_REQUEST
            | match &state.execution {
                Some(execution) => {
                    let direction = if execution.to_host() {
                        STATUS_TO_HOST
                    } else {
                        0
                    };
                    STATUS_NON_DMA | STATUS_BUSY | direction
                }
                None if !state.result.is_empty() => STATUS_TO_HOST | STATUS_BUSY,
                None if !state.command.is_empty() => STATUS_BUSY,
                None => 0,
            }
    }

    fn digital_input(&self) -> u8 {
        let drive = usize::from(self.state.output & OUTPUT_DRIVE);
        let present = matches!(self.drives.get(drive), Some(Some(_)));
        if present && self.state.changed[drive] {
            INPUT_CHANGED
        } else {
            0
        }
    }

    fn read_data(&mut self) -> u8 {
        if self.state.execution.is_some() {
            return self.execution_read();
        }
        if let Some(byte) = self.state.result.pop_front() {
            // Other seeks have ended, too, and ask again.
            let sought = self.state.sought.iter().any(Option::is_some);
            self.state.interrupt = sought && self.state.result.is_empty();
            return byte;
        }
        0xff
    }

    fn write_data(&mut self, value: u8) {
        if self.state.execution.is_some() {
            return self.execution_write(value);
        }
        // Results that are not read keep the controller from taking commands.
        if !self.running() || !self.state.result.is_empty() {
            return;
        }
        self.state.command.push(value);
        if self.state.command.len() >= length(self.state.command[0]) {
            let command = std::mem::take(&mut self.state.command);
            self.execute(&command);
        }
    }

    /// Answers without an interrupt.
    fn answer(&mut self, bytes: &[u8]) {
        self.state.result.extend(bytes);
    }

    fn execute(&mut self, command: &[u8]) {
        // Shorter commands have no such bytes, and do not look at them.
        let byte = |at: usize| command.get(at).copied().unwrap_or(0);
        match byte(0) & opcode_bits(byte(0)) {
            0x03 => self.state.specify = [byte(1), byte(2)],
            0x04 => self.sense_drive(byte(1)),
            0x05 | 0x06 | 0x0d => self.transfer(command),
            0x07 => self.seek(byte(1) & 3, 0, true),
            0x08 => self.sense_interrupt(),
            0x0a => self.read_id(byte(0), byte(1)),
            0x0e => self.dump(),
            0x0f => match byte(0) & 0xc0 {
                0x80 => self.seek_by(byte(1), byte(2), false),
                0xc0 => self.seek_by(byte(1), byte(2), true),
                _ => self.seek(byte(1) & 7, byte(2), false),
            },
            0x10 => self.answer(&[VERSION]),
            0x12 => {
                // The drive bits change only if they are said to.
                let kept = if byte(1) & 0x80 != 0 { 0 } else { 0x3c };
                let old = self.state.perpendicular & kept;
                self.state.perpendicular = old | byte(1) & (0x3f & !kept);
            }
            0x13 => {
                self.state.configure = byte(2) & 0x7f;
                self.state.precompensation = byte(3);
            }
            0x14 => {
                self.state.locked = byte(0) & 0x80 != 0;
                self.answer(&[u8::from(self.state.locked) << 4]);
            }
            _ => self.answer(&[ST0_INVALID]),
        }
    }

    fn seek_by(&mut self, select: u8, tracks: u8, inwards: bool) {
        let track = self.state.tracks[usize::from(select & 3)];
        let to = if inwards {
            track.saturating_add(tracks)
        } else {
            track.saturating_sub(tracks)
        };
        self.seek(select & 7, to, false);
    }

    /// Moves a head. `select` has the drive, and the head in bit 2.
    fn seek(&mut self, select: u8, track: u8, recalibrate: bool) {
        let drive = usize::from(select & 3);
        let mut status = ST0_SEEK_END | select & 7;
        match self.drives.get(drive) {
            Some(Some(found)) => {
                let moved = self.state.tracks[drive] != track || recalibrate;
                if moved && found.disk.is_some() {
                    self.state.changed[drive] = false;
                }
            }
            _ if recalibrate => status |= ST0_ABNORMAL | ST0_EQUIPMENT,
            _ => {}
        }
        self.state.tracks[drive] = track.min(LAST_TRACK);
        self.state.sought[drive] = Some(status);
        // Firmware that asked for less than all of the reset's reports is told of this now.
        self.state.polled = 0;
        self.state.interrupt = true;
    }

    fn sense_interrupt(&mut self) {
        let state = &mut self.state;
        let (status, drive) = if state.polled > 0 {
            let drive = 4u8.saturating_sub(state.polled) & 3;
            state.polled -= 1;
            (ST0_POLLED | drive, usize::from(drive))
        } else if let Some(drive) = state.sought.iter().position(Option::is_some) {
            (state.sought[drive].take().unwrap_or(0), drive)
        } else {
            return self.answer(&[ST0_INVALID]);
        };
        let track = state.tracks[drive];
        self.answer(&[status, track]);
    }

    fn sense_drive(&mut self, select: u8) {
        let drive = usize::from(select & 3);
        let mut status = ST3_ALWAYS | select & 7;
        if let Some(Some(found)) = self.drives.get(drive) {
            if self.state.tracks[drive] == 0 {
                status |= ST3_TRACK_0;
            }
            if found
                .disk
                .as_ref()
                .is_some_and(|(disk, _)| disk.read_only())
            {
                status |= ST3_PROTECTED;
            }
        }
        self.answer(&[status]);
    }

    fn dump(&mut self) {
        let state = &self.state;
        let [t0, t1, t2, t3] = state.tracks;
        let [s0, s1] = state.specify;
        let lock = u8::from(state.locked) << 7 | state.perpendicular;
        let (configure, precompensation) = (state.configure, state.precompensation);
        let last = state.last_sector;
        self.answer(&[
            t0,
            t1,
            t2,
            t3,
            s0,
            s1,
            last,
            lock,
            configure,
            precompensation,
        ]);
    }
}

/// The bits of a first command byte that say which command it is.
fn opcode_bits(first: u8) -> u8 {
    match first & 0x1f {
        // Commands with multi-track, density and skip bits, and those that have others.
        0x05 | 0x06 | 0x0a | 0x0d | 0x0f | 0x14 => 0x1f,
        _ => 0xff,
    }
}

/// Bytes of a command; 1 for what is none.
fn length(first: u8) -> usize {
    match first & opcode_bits(first) {
        0x05 | 0x06 => 9,
        0x0d => 6,
        0x13 => 4,
        0x03 | 0x0f => 3,
        0x04 | 0x07 | 0x0a | 0x12 => 2,
        _ => 1,
    }
}

impl PortDevice for Floppy {
    fn read_port(&mut self, port: u16) -> u8 {
        let value = match port {
            OUTPUT => self.state.output,
            TAPE => self.state.tape,
            STATUS => self.status(),
            DATA => self.read_data(),
            DIGITAL_INPUT => self.digital_input(),
            _ => 0xff,
        };
        self.drive_line();
        value
    }

    fn write_port(&mut self, port: u16, value: u8) {
        match port {
            OUTPUT => self.write_output(value),
            TAPE => self.state.tape = value & 3,
            STATUS => {
                self.state.rate = value & 3;
                if value & SELECT_RESET != 0 && self.running() {
                    self.reset();
                    self.start();
                }
            }
            DATA => self.write_data(value),
            DIGITAL_INPUT => self.state.rate = value & 3,
            _ => {}
        }
        self.drive_line();
    }
}
