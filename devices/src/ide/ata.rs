//! The commands of an ATA disk (ATA/ATAPI-6, chapter 8).
//!
//! They take no time. Addresses are checked against the whole range of a command before anything
//! moves. What the host cannot read is an uncorrectable error (UNC), what it cannot write or flush
//! a device fault; the registers then show the first sector of the window that failed.

use super::drive::{ABRT, DF, DMA_SECTORS, Drive, DriveState, IDNF, LBA, Medium, Phase, UNC};
use super::identify;
use crate::block::{BlockBackend, BlockError, SECTOR};

/// What a command does with sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Read,
    Write,
    Verify,
}

/// How its data moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    Single,
    Multiple,
    Dma,
}

/// The commands that read, write or verify sectors; whether the address has 48 bits.
fn sectors_command(command: u8) -> Option<(Kind, How, bool)> {
    Some(match command {
        0x20 | 0x21 => (Kind::Read, How::Single, false),
        0x24 => (Kind::Read, How::Single, true),
        0x25 => (Kind::Read, How::Dma, true),
        0x29 => (Kind::Read, How::Multiple, true),
        0xc4 => (Kind::Read, How::Multiple, false),
        0xc8 | 0xc9 => (Kind::Read, How::Dma, false),
        0x30 | 0x31 => (Kind::Write, How::Single, false),
        0x34 => (Kind::Write, How::Single, true),
        0x35 | 0x3d => (Kind::Write, How::Dma, true),
        0x39 | 0xce => (Kind::Write, How::Multiple, true),
        0xc5 => (Kind::Write, How::Multiple, false),
        0xca | 0xcb => (Kind::Write, How::Dma, false),
        0x40 | 0x41 => (Kind::Verify, How::Single, false),
        0x42 => (Kind::Verify, How::Single, true),
        _ => return None,
    })
}

/// Commands that ask for what was written to be on the medium when they end: forced unit access.
fn forces_unit_access(command: u8) -> bool {
    matches!(command, 0x3d | 0xce)
}

impl Drive {
    fn disk(&mut self) -> Option<&mut dyn BlockBackend> {
        match &mut self.medium {
            Medium::Disk(disk) => Some(&mut **disk),
            Medium::Cd(_) => None,
        }
    }

    fn total(&mut self) -> u64 {
        self.disk().map_or(0, |disk| disk.sectors())
    }

    /// Executes a command of a disk.
    pub fn ata_command(&mut self, command: u8) {
        if let Some((kind, how, wide)) = sectors_command(command) {
            return self.sectors(kind, how, wide, forces_unit_access(command));
        }
        match command {
            0x10..0x20 => self.state.finish(),
            0x70..0x80 => self.seek(),
            0x27 => self.native_max(true),
            0xf8 => self.native_max(false),
            0x91 => {
                let sectors = self.state.count.now;
                if sectors == 0 {
                    return self.state.fail(ABRT);
                }
                self.state.heads = (self.state.device & 0x0f) + 1;
                self.state.sectors = sectors;
                self.state.finish();
            }
            0xc6 => self.set_multiple(),
            // Standby and sleep stop the motor; idle and the rest start it.
            0xe0 | 0xe2 | 0xe6 | 0x94 | 0x96 | 0x99 => self.power(true),
            0xe1 | 0xe3 | 0x95 | 0x97 => self.power(false),
            0xe5 | 0x98 => {
                let mode = if self.state.standby { 0x00 } else { 0xff };
                self.state.count.set(mode);
                self.state.finish();
            }
            0xe7 | 0xea => self.flush(),
            0xec => {
                let total = self.total();
                let data = identify::disk(&self.state, &self.serial, total);
                self.state.open(Phase::In, data);
                self.state.interrupt = true;
            }
            0xef => self.set_features(),
            // Not there: NOP and SMART among others. A packet drive has A1h.
            _ => self.state.fail(ABRT),
        }
    }

    fn power(&mut self, standby: bool) {
        if standby && self.disk().is_some_and(|disk| disk.flush().is_err()) {
            return self.fault();
        }
        self.state.standby = standby;
        self.state.finish();
    }

    fn flush(&mut self) {
        match self.disk().map(|disk| disk.flush()) {
            Some(Ok(())) => self.state.finish(),
            _ => self.fault(),
        }
    }

    /// The drive has failed, not the command.
    fn fault(&mut self) {
        self.state.fail(ABRT);
        self.state.status |= DF;
    }

    fn set_multiple(&mut self) {
        let count = self.state.count.now;
        if count.is_power_of_two() && count <= identify::MULTIPLE {
            self.state.multiple = count;
            self.state.finish();
        } else {
            self.state.fail(ABRT);
        }
    }

    /// SET FEATURES, for both kinds of drives.
    pub fn set_features(&mut self) {
        match self.state.features.now {
            0x02 => self.state.write_cache = true,
            0x82 => {
                if self.disk().is_some_and(|disk| disk.flush().is_err()) {
                    return self.fault();
                }
                self.state.write_cache = false;
            }
            0x03 => match self.state.count.now {
                // Default modes, PIO 0 to 4, multiword DMA 0 to 2, ultra DMA 0 to 5.
                0x00 | 0x01 => {}
                mode @ (0x08..=0x0c | 0x20..=0x22 | 0x40..=0x45) => {
                    self.state.transfer_mode = mode;
                }
                _ => return self.state.fail(ABRT),
            },
            // Look-ahead, and what a software reset keeps.
            0x55 | 0xaa | 0x66 | 0xcc => {}
            _ => return self.state.fail(ABRT),
        }
        self.state.finish();
    }

    fn native_max(&mut self, wide: bool) {
        let last = self.total().saturating_sub(1);
        if !wide && self.state.device & LBA == 0 {
            return self.state.fail(ABRT);
        }
        let limit = if wide { (1 << 48) - 1 } else { 0x0fff_ffff };
        self.state.finish();
        self.state.set_address(last.min(limit), wide);
    }

    fn seek(&mut self) {
        let total = self.total();
        match self.state.address(false) {
            Some(lba) if lba < total => self.state.finish(),
            _ => self.state.fail(IDNF),
        }
    }

    fn sectors(&mut self, kind: Kind, how: How, wide: bool, forced: bool) {
        let total = self.total();
        let state = &mut self.state;
        state.stop();
        state.standby = false;
        if how == How::Multiple && state.multiple == 0 {
            return state.fail(ABRT);
        }
        let count = state.sector_count(wide);
        let Some(lba) = state.address(wide).filter(|lba| {
            lba.checked_add(count.into())
                .is_some_and(|end| end <= total)
        }) else {
            return state.fail(IDNF);
        };
        if kind == Kind::Write && self.disk().is_some_and(|disk| disk.read_only()) {
            return self.state.fail(ABRT);
        }
        let state = &mut self.state;
        (state.lba, state.left) = (lba, count);
        state.wide = wide;
        state.forced = forced || !state.write_cache;
        state.window = match how {
            How::Single => 1,
            How::Multiple => state.multiple.into(),
            How::Dma => DMA_SECTORS,
        };
        match (kind, how) {
            (Kind::Verify, _) => self.verify(),
            (Kind::Read, How::Dma) => self.load(Phase::DmaIn),
            (Kind::Read, _) => {
                self.load(Phase::In);
                self.state.interrupt = true;
            }
            (Kind::Write, How::Dma) => self.make_room(Phase::DmaOut),
            // The first window is asked for without an interrupt.
            (Kind::Write, _) => self.make_room(Phase::Out),
        }
    }

    fn verify(&mut self) {
        while self.state.left > 0 {
            let sectors = self.state.left.min(DMA_SECTORS);
            let mut buffer = DriveState::room(sectors);
            if let Err(error) = self.read(&mut buffer) {
                return self.read_failed(&error);
            }
            self.state.lba += u64::from(sectors);
            self.state.left -= sectors;
        }
        self.state.finish();
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), BlockError> {
        let lba = self.state.lba;
        self.disk().ok_or(BlockError::Range)?.read(lba, into)
    }

    fn read_failed(&mut self, error: &BlockError) {
        let (lba, wide) = (self.state.lba, self.state.wide);
        self.state.fail(match error {
            BlockError::Range => IDNF,
            _ => UNC,
        });
        self.state.set_address(lba, wide);
    }

    /// Loads the next window.
    fn load(&mut self, phase: Phase) {
        let sectors = self.state.left.min(self.state.window);
        let mut buffer = DriveState::room(sectors);
        match self.read(&mut buffer) {
            Ok(()) => {
                self.state.lba += u64::from(sectors);
                self.state.left -= sectors;
                self.state.open(phase, buffer);
            }
            Err(error) => self.read_failed(&error),
        }
    }

    /// Asks for the next window.
    fn make_room(&mut self, phase: Phase) {
        let sectors = self.state.left.min(self.state.window);
        self.state.open(phase, DriveState::room(sectors));
    }

    /// Stores what the host has sent. False if that failed.
    fn store(&mut self) -> bool {
        let (lba, wide, forced) = (self.state.lba, self.state.wide, self.state.forced);
        let sectors = (self.state.buffer().len() / SECTOR) as u32;
        let Medium::Disk(disk) = &mut self.medium else {
            return false;
        };
        let mut result = disk.write(lba, self.state.buffer());
        let last = sectors >= self.state.left;
        if result.is_ok() && forced && last {
            result = disk.flush();
        }
        match result {
            Ok(()) => {
                self.state.lba += u64::from(sectors);
                self.state.left -= sectors.min(self.state.left);
                return true;
            }
            Err(BlockError::Range) => self.state.fail(IDNF),
            Err(BlockError::ReadOnly) => self.state.fail(ABRT),
            Err(BlockError::Host(_)) => self.fault(),
        }
        self.state.set_address(lba, wide);
        false
    }

    /// The host has moved the window.
    pub fn window_done(&mut self) {
        let phase = self.state.phase;
        match phase {
            Phase::In | Phase::DmaIn if self.state.left > 0 => {
                self.load(phase);
                self.state.interrupt |= phase == Phase::In;
            }
            Phase::In => {
                // The last window read through the port ends the command without an interrupt.
                let interrupt = self.state.interrupt;
                self.state.finish();
                self.state.interrupt = interrupt;
            }
            Phase::Out | Phase::DmaOut => {
                if self.store() {
                    if self.state.left > 0 {
                        self.make_room(phase);
                        self.state.interrupt |= phase == Phase::Out;
                    } else {
                        self.state.finish();
                    }
                }
            }
            _ => self.state.finish(),
        }
    }
}

impl DriveState {
    /// The number of sectors; 0 means all that fit, and one more.
    fn sector_count(&self, wide: bool) -> u32 {
        match (wide, self.count.before, self.count.now) {
            (false, _, 0) => 0x100,
            (false, _, n) => n.into(),
            (true, 0, 0) => 0x1_0000,
            (true, high, low) => u16::from_be_bytes([high, low]).into(),
        }
    }

    /// The first sector that a command is about, if there can be such a sector.
    fn address(&self, wide: bool) -> Option<u64> {
        let bytes = |bytes: [u8; 8]| u64::from_be_bytes(bytes);
        let (low, mid, high) = (self.low, self.mid, self.high);
        if wide {
            return Some(bytes([
                0,
                0,
                high.before,
                mid.before,
                low.before,
                high.now,
                mid.now,
                low.now,
            ]));
        }
        if self.device & LBA != 0 {
            let top = self.device & 0x0f;
            return Some(bytes([0, 0, 0, 0, top, high.now, mid.now, low.now]));
        }
        let cylinder = bytes([0, 0, 0, 0, 0, 0, high.now, mid.now]);
        let (head, sector) = (self.device & 0x0f, low.now);
        let (heads, sectors) = (self.heads, self.sectors);
        (head < heads && (1..=sectors).contains(&sector)).then(|| {
            let track = cylinder * u64::from(heads) + u64::from(head);
            track * u64::from(sectors) + u64::from(sector - 1)
        })
    }

    /// Puts an address into the registers, in the form in which the host gave it.
    fn set_address(&mut self, lba: u64, wide: bool) {
        let all = lba.to_le_bytes();
        if wide || self.device & LBA != 0 {
            for (pair, i) in [(&mut self.low, 0), (&mut self.mid, 1), (&mut self.high, 2)] {
                pair.set(all[i]);
                pair.before = if wide { all[i + 3] } else { 0 };
            }
            if !wide {
                self.device = self.device & 0xf0 | all[3] & 0x0f;
            }
            return;
        }
        let (heads, sectors) = (u64::from(self.heads), u64::from(self.sectors));
        let track = lba / sectors;
        let [mid, high, ..] = (track / heads).to_le_bytes();
        self.low.set((lba % sectors) as u8 + 1);
        self.mid.set(mid);
        self.high.set(high);
        self.device = self.device & 0xf0 | (track % heads) as u8 & 0x0f;
    }
}
