//! Commands that move data: READ DATA, WRITE DATA, FORMAT TRACK, and READ ID, which finds sectors
//! as they do.

use serde::{Deserialize, Serialize};

use super::{CONFIGURE_IMPLIED_SEEK, Floppy, Geometry, OUTPUT_GATE, ST0_ABNORMAL};
use crate::block::{BlockBackend, SECTOR};

/// The DMA channel of the controller.
const CHANNEL: u8 = 2;
/// The only size of sectors, as the controller writes it.
const SIZE: u8 = 2;

const MULTI_TRACK: u8 = 0x80;
const DOUBLE_DENSITY: u8 = 0x40;

const ST1_NO_ADDRESS: u8 = 0x01;
const ST1_PROTECTED: u8 = 0x02;
const ST1_NO_DATA: u8 = 0x04;
const ST1_OVERRUN: u8 = 0x10;
const ST1_DATA_ERROR: u8 = 0x20;
const ST1_END: u8 = 0x80;
const ST2_WRONG_CYLINDER: u8 = 0x10;
const ST2_DATA_ERROR: u8 = 0x20;

/// Why a command ends early: status registers 1 and 2.
type Failure = (u8, u8);

/// What a command does with data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Kind {
    Read,
    Write,
    Format,
}

/// A command whose data is moving.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Execution {
    kind: Kind,
    /// Drive, and the head in bit 2.
    select: u8,
    multi_track: bool,
    /// Cylinder, head, sector and size of the sector that is next.
    id: [u8; 4],
    /// The last sector of a track. For formatting, how many sectors are left.
    last: u8,
    fill: u8,
    buffer: Vec<u8>,
    position: usize,
}

impl Execution {
    pub fn to_host(&self) -> bool {
        self.kind == Kind::Read
    }

    /// Whether it can be gone on with.
    pub fn is_sound(&self) -> bool {
        let len = if self.kind == Kind::Format { 4 } else { SECTOR };
        self.buffer.len() == len && self.position < len
    }

    /// Goes to the next sector. False behind the last.
    fn advance(&mut self) -> bool {
        let [cylinder, head, sector, _] = &mut self.id;
        if *sector != self.last {
            *sector = sector.wrapping_add(1);
            return true;
        }
        *sector = 1;
        if self.multi_track {
            self.select ^= 4;
            *head ^= 1;
            if *head & 1 != 0 {
                return true;
            }
        }
        *cylinder = cylinder.wrapping_add(1);
        false
    }
}

impl Floppy {
    /// The disk that a command is about, if it can be read as the command and the data rate say.
    fn disk(
        &mut self,
        select: u8,
        command: u8,
    ) -> Result<(&mut dyn BlockBackend, Geometry), Failure> {
        let rate = 1 << self.state.rate;
        match self.drives.get_mut(usize::from(select & 3)) {
            Some(Some(drive)) => match &mut drive.disk {
                Some((disk, geometry))
                    if geometry.rates & rate != 0 && command & DOUBLE_DENSITY != 0 =>
                {
                    Ok((&mut **disk, *geometry))
                }
                _ => Err((ST1_NO_ADDRESS, 0)),
            },
            _ => Err((ST1_NO_ADDRESS, 0)),
        }
    }

    /// The sector of a disk with that identity, if it is under the head.
    fn find(
        &mut self,
        select: u8,
        [cylinder, head, sector, size]: [u8; 4],
    ) -> Result<(u64, &mut dyn BlockBackend), Failure> {
        let track = self.state.tracks[usize::from(select & 3)];
        let (disk, geometry) = self.disk(select, DOUBLE_DENSITY)?;
        if track >= geometry.tracks {
            return Err((ST1_NO_ADDRESS, 0));
        }
        if cylinder != track {
            return Err((ST1_NO_DATA, ST2_WRONG_CYLINDER));
        }
        let there = (1..=geometry.sectors).contains(&sector) && size == SIZE;
        if head != select >> 2 & 1 || !there {
            return Err((ST1_NO_DATA, 0));
        }
        let row = u64::from(track) * 2 + u64::from(head);
        Ok((
            row * u64::from(geometry.sectors) + u64::from(sector - 1),
            disk,
        ))
    }

    /// Ends a command with its seven bytes of result and an interrupt.
    fn end(&mut self, select: u8, (st1, st2): Failure, id: [u8; 4]) {
        let failed = st1 | st2 != 0;
        let st0 = select & 7 | if failed { ST0_ABNORMAL } else { 0 };
        self.state.execution = None;
        self.answer(&[st0, st1, st2]);
        self.answer(&id);
        self.state.interrupt = true;
    }

    /// READ ID: the next sector that comes by.
    pub(super) fn read_id(&mut self, command: u8, select: u8) {
        let track = self.state.tracks[usize::from(select & 3)];
        let head = select >> 2 & 1;
        match self.disk(select, command).map(|(_, geometry)| geometry) {
            Ok(geometry) if track < geometry.tracks => {
                let sector = self.state.passing % geometry.sectors + 1;
                self.state.passing = sector;
                self.end(select, (0, 0), [track, head, sector, SIZE]);
            }
            _ => self.end(select, (ST1_NO_ADDRESS, 0), [track, head, 1, SIZE]),
        }
    }

    /// READ DATA, WRITE DATA, FORMAT TRACK.
    pub(super) fn transfer(&mut self, command: &[u8]) {
        let byte = |at: usize| command.get(at).copied().unwrap_or(0);
        let (first, select) = (byte(0), byte(1) & 7);
        let kind = match first & 0x1f {
            0x05 => Kind::Write,
            0x06 => Kind::Read,
            _ => Kind::Format,
        };
        let (id, last) = match kind {
            Kind::Format => ([0, select >> 2 & 1, 1, byte(2)], byte(3)),
            _ => ([byte(2), byte(3), byte(4), byte(5)], byte(6)),
        };
        self.state.last_sector = last;
        if kind != Kind::Format && self.state.configure & CONFIGURE_IMPLIED_SEEK != 0 {
            self.seek(select, id[0], false);
            // The command's own result tells of its end.
            self.state.sought[usize::from(select & 3)] = None;
            self.state.interrupt = false;
        }
        let protected = match self.disk(select, first) {
            Ok((disk, _)) => disk.read_only(),
            Err(failure) => return self.end(select, failure, id),
        };
        if protected && kind != Kind::Read {
            return self.end(select, (ST1_PROTECTED, 0), id);
        }
        let mut execution = Execution {
            kind,
            select,
            multi_track: first & MULTI_TRACK != 0,
            id,
            last,
            fill: byte(5),
            buffer: Vec::new(),
            position: 0,
        };
        if let Err(failure) = self.prepare(&mut execution) {
            return self.end(select, failure, id);
        }
        if self.state.specify[1] & 1 == 0 {
            self.by_dma(execution);
        } else {
            // The host moves the data; an interrupt asks for each byte.
            self.state.execution = Some(execution);
            self.state.interrupt = true;
        }
    }

    /// Loads the next sector, or makes room for it.
    fn prepare(&mut self, execution: &mut Execution) -> Result<(), Failure> {
        execution.position = 0;
        execution.buffer = vec![
            0;
            if execution.kind == Kind::Format {
                4
            } else {
                SECTOR
            }
        ];
        if execution.kind == Kind::Format {
            return if execution.last > 0 {
                Ok(())
            } else {
                Err((ST1_NO_DATA, 0))
            };
        }
        let (lba, disk) = self.find(execution.select, execution.id)?;
        // An image may end early; the rest of the disk reads as zeros.
        if execution.kind == Kind::Read && lba < disk.sectors() {
            disk.read(lba, &mut execution.buffer)
                .map_err(|_| (ST1_DATA_ERROR, ST2_DATA_ERROR))?;
        }
        Ok(())
    }

    /// Does what is to be done with a buffer that has been moved.
    fn commit(&mut self, execution: &Execution) -> Result<(), Failure> {
        let failed = (ST1_DATA_ERROR, ST2_DATA_ERROR);
        match execution.kind {
            Kind::Read => Ok(()),
            Kind::Write => {
                let (lba, disk) = self.find(execution.select, execution.id)?;
                disk.write(lba, &execution.buffer).map_err(|_| failed)
            }
            Kind::Format => {
                let mut id = [0; 4];
                id.copy_from_slice(&execution.buffer[..4]);
                // A sector that the format of the disk does not have is lost.
                match self.find(execution.select, id) {
                    Ok((lba, disk)) => disk
                        .write(lba, &[execution.fill; SECTOR])
                        .map_err(|_| failed),
                    Err(_) => Ok(()),
                }
            }
        }
    }

    /// The buffer has been moved: commits it and goes on. `None` when there is nothing more, with
    /// the command ended; `finished` says that the DMA controller has counted to its end.
    fn next(&mut self, mut execution: Execution, finished: bool) -> Option<Execution> {
        let select = execution.select;
        if let Err(failure) = self.commit(&execution) {
            self.end(select, failure, execution.id);
            return None;
        }
        let more = if execution.kind == Kind::Format {
            execution.last = execution.last.saturating_sub(1);
            execution.last > 0
        } else {
            execution.advance()
        };
        if finished || (!more && execution.kind == Kind::Format) {
            self.end(select, (0, 0), execution.id);
            return None;
        }
        if !more {
            // Without a terminal count, the end of the cylinder is an error.
            self.end(select, (ST1_END, 0), execution.id);
            return None;
        }
        match self.prepare(&mut execution) {
            Ok(()) => Some(execution),
            Err(failure) => {
                self.end(execution.select, failure, execution.id);
                None
            }
        }
    }

    fn by_dma(&mut self, execution: Execution) {
        let mut current = Some(execution);
        while let Some(mut execution) = current.take() {
            let gate = self.state.output & OUTPUT_GATE != 0;
            let mut dma = self.dma.lock();
            let moved = if !gate || !dma.ready(CHANNEL) {
                None
            } else if execution.to_host() {
                Some(dma.device_writes(CHANNEL, &execution.buffer))
            } else {
                Some(dma.device_reads(CHANNEL, &mut execution.buffer))
            };
            drop(dma);
            match moved {
                Some(moved) if moved.finished || moved.bytes == execution.buffer.len() => {
                    current = self.next(execution, moved.finished);
                }
                // Nobody serves the request in time.
                _ => self.end(execution.select, (ST1_OVERRUN, 0), execution.id),
            }
        }
    }

    /// A byte is read in non-DMA mode.
    pub(super) fn execution_read(&mut self) -> u8 {
        match self.state.execution.take() {
            Some(execution) if execution.to_host() => {
                let byte = execution.buffer[execution.position];
                self.step(execution);
                byte
            }
            other => {
                self.state.execution = other;
                0xff
            }
        }
    }

    /// A byte is written in non-DMA mode.
    pub(super) fn execution_write(&mut self, value: u8) {
        match self.state.execution.take() {
            Some(mut execution) if !execution.to_host() => {
                let at = execution.position;
                execution.buffer[at] = value;
                self.step(execution);
            }
            other => self.state.execution = other,
        }
    }

    /// A byte has been moved.
    fn step(&mut self, mut execution: Execution) {
        execution.position += 1;
        if execution.position < execution.buffer.len() {
            self.state.execution = Some(execution);
        } else {
            self.state.execution = self.next(execution, false);
        }
    }
}
