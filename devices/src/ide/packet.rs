//! The commands of an ATAPI CD-ROM drive: the few ATA commands that it knows, and command packets
//! (ATA/ATAPI-6, 9.8; SFF-8020i; MMC-3).
//!
//! Left out: audio, writing, raw sectors; a disc is one data track from 0 to its end.

use serde::{Deserialize, Serialize};

use super::drive::{ABRT, DMA_SECTORS, DRDY, Drive, ERR, Medium, Phase};
use super::{identify, packet_data};
use crate::block::{BlockBackend, SECTOR};

/// Bytes in a block of a CD.
pub(super) const BLOCK: usize = 2048;
/// Sectors of the backend in a block.
const PER_BLOCK: u64 = (BLOCK / SECTOR) as u64;
const PACKET_LEN: usize = 12;

/// Interrupt reason, in the count register: a command, not data.
const REASON_COMMAND: u8 = 0x01;
/// Interrupt reason: towards the host.
const REASON_TO_HOST: u8 = 0x02;

/// Sense: key, and additional code with qualifier.
type Sense = (u8, u8, u8);
const NO_SENSE: Sense = (0x0, 0x00, 0x00);
const NO_DISC: Sense = (0x2, 0x3a, 0x00);
const UNREADABLE: Sense = (0x3, 0x11, 0x00);
const BAD_COMMAND: Sense = (0x5, 0x20, 0x00);
const BAD_ADDRESS: Sense = (0x5, 0x21, 0x00);
const BAD_FIELD: Sense = (0x5, 0x24, 0x00);
const REMOVAL_PREVENTED: Sense = (0x5, 0x53, 0x02);
const DISC_CHANGED: Sense = (0x6, 0x28, 0x00);
const WAS_RESET: Sense = (0x6, 0x29, 0x00);

/// What a drive remembers between packets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct PacketState {
    sense: Sense,
    /// What the next command that cares is told first.
    attention: Option<Sense>,
    prevented: bool,
    tray_open: bool,
    /// The media event that is to be reported: 0 for none, 2 new disc, 3 removal.
    event: u8,
    /// The data of this packet goes by DMA.
    dma: bool,
    /// The data ends without an interrupt, as that of IDENTIFY does.
    quiet: bool,
    /// Most bytes in a window.
    limit: u16,
}

impl Default for PacketState {
    fn default() -> PacketState {
        PacketState {
            sense: NO_SENSE,
            attention: Some(WAS_RESET),
            prevented: false,
            tray_open: false,
            event: 0,
            dma: false,
            quiet: false,
            limit: 0,
        }
    }
}

impl PacketState {
    pub fn reset(&mut self) {
        *self = PacketState {
            tray_open: self.tray_open,
            ..PacketState::default()
        };
    }
}

/// A number of an even number of bytes, most significant first.
fn big(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

impl Drive {
    /// The disc, if the tray is closed on one.
    fn disc(&mut self) -> Option<&mut dyn BlockBackend> {
        match &mut self.medium {
            Medium::Cd(Some(disc)) if !self.state.packet.tray_open => Some(&mut **disc),
            _ => None,
        }
    }

    /// Blocks on the disc; none without one.
    fn blocks(&mut self) -> Option<u32> {
        let blocks = self.disc()?.sectors() / PER_BLOCK;
        Some(blocks.min(u32::MAX.into()) as u32)
    }

    /// Puts in another disc, or none.
    pub fn insert(&mut self, disc: Option<Box<dyn BlockBackend>>) {
        let packet = &mut self.state.packet;
        packet.tray_open = false;
        (packet.attention, packet.event) = match disc {
            Some(_) => (Some(DISC_CHANGED), 2),
            None => (packet.attention, 3),
        };
        self.medium = Medium::Cd(disc);
    }

    /// Whether the guest has locked the tray.
    pub fn is_locked(&self) -> bool {
        self.state.packet.prevented
    }

    /// Executes an ATA command of a packet drive.
    pub fn packet_drive_command(&mut self, command: u8) {
        match command {
            // DEVICE RESET asks for no interrupt.
            0x08 => self.signature(),
            0xa0 => {
                let state = &mut self.state;
                state.packet.quiet = false;
                state.packet.dma = state.features.now & 1 != 0;
                let limit = u16::from_be_bytes([state.high.now, state.mid.now]);
                state.packet.limit = if limit == 0 { 0xfffe } else { limit };
                state.open(Phase::Packet, vec![0; PACKET_LEN]);
                state.count.set(REASON_COMMAND);
            }
            0xa1 => {
                let data = identify::cd(&self.state, &self.serial);
                self.state.open(Phase::In, data);
                self.state.packet.quiet = true;
                self.state.interrupt = true;
            }
            0xe0..=0xe3 | 0xe6 => self.state.finish(),
            0xe5 => {
                self.state.count.set(0xff);
                self.state.finish();
            }
            0xef => self.set_features(),
            // These tell the host that it is no disk.
            0x20 | 0x21 | 0xec => {
                self.signature();
                self.state.fail(ABRT);
            }
            _ => self.state.fail(ABRT),
        }
    }

    /// The command ends well.
    fn packet_done(&mut self) {
        self.state.finish();
        self.state.count.set(REASON_COMMAND | REASON_TO_HOST);
    }

    /// The command ends with a check condition.
    fn check(&mut self, sense: Sense) {
        self.packet_done();
        self.state.packet.sense = sense;
        self.state.status = DRDY | ERR;
        self.state.error = sense.0 << 4 | ABRT;
    }

    /// Answers with data, as much as the host has room for.
    fn reply(&mut self, mut data: Vec<u8>, room: u32) {
        data.truncate(room as usize);
        if data.is_empty() {
            return self.packet_done();
        }
        self.state.left = 0;
        self.data(data);
    }

    /// Has data for the host.
    fn data(&mut self, data: Vec<u8>) {
        if self.state.packet.dma {
            self.state.open(Phase::DmaIn, data);
            self.state.count.set(REASON_TO_HOST);
        } else {
            self.state.open(Phase::In, data);
            self.next_window();
        }
    }

    /// Offers the next bytes through the data port: all that the host wants at once. Only the last
    /// window may have an odd number.
    fn next_window(&mut self) {
        let state = &mut self.state;
        let limit = usize::from(state.packet.limit & 0xfffe).max(2);
        let len = state.set_window(limit) as u16;
        let [high, low] = len.to_be_bytes();
        state.mid.set(low);
        state.high.set(high);
        state.count.set(REASON_TO_HOST);
        state.interrupt = true;
    }

    /// The host has moved the window.
    pub fn packet_window_done(&mut self) {
        if self.state.behind() > 0 {
            self.next_window();
        } else if self.state.left > 0 {
            self.read_blocks();
        } else {
            let interrupt = self.state.interrupt || !self.state.packet.quiet;
            self.packet_done();
            self.state.interrupt = interrupt;
        }
    }

    /// The packet is complete.
    pub fn packet_received(&mut self) {
        let mut packet = [0; PACKET_LEN];
        for (byte, sent) in packet.iter_mut().zip(self.state.buffer()) {
            *byte = *sent;
        }
        self.state.stop();
        self.execute(&packet);
    }

    fn execute(&mut self, packet: &[u8; PACKET_LEN]) {
        let command = packet[0];
        // These answer in any condition and leave it as it is.
        let patient = matches!(command, 0x03 | 0x12 | 0x46 | 0x4a);
        if !patient {
            if let Some(sense) = self.state.packet.attention.take() {
                return self.check(sense);
            }
            self.state.packet.sense = NO_SENSE;
        }
        let word = |at: usize| big(&packet[at..at + 2]);
        match command {
            0x00 => self.with_disc(|drive, _| drive.packet_done()),
            0x03 => {
                let pending = self.state.packet.attention.take();
                let last = std::mem::replace(&mut self.state.packet.sense, NO_SENSE);
                let sense = if last == NO_SENSE { pending } else { None }.unwrap_or(last);
                self.reply(packet_data::sense(sense), packet[4].into());
            }
            0x12 if packet[1] & 1 != 0 || packet[2] != 0 => self.check(BAD_FIELD),
            0x12 => self.reply(packet_data::inquiry(), packet[4].into()),
            0x1b => self.start_stop(packet[4]),
            0x1e => {
                self.state.packet.prevented = packet[4] & 1 != 0;
                self.packet_done();
            }
            0x25 => self.with_disc(|drive, blocks| {
                let last = blocks.saturating_sub(1).to_be_bytes();
                let size = (BLOCK as u32).to_be_bytes();
                drive.reply([last, size].concat(), 8);
            }),
            0x28 => self.read_command(big(&packet[2..6]), word(7)),
            0xa8 => self.read_command(big(&packet[2..6]), big(&packet[6..10])),
            0xbe => match packet[9] & 0xf8 {
                0x00 => self.with_disc(|drive, _| drive.packet_done()),
                // The 2048 bytes of user data, and no more.
                0x10 => self.read_command(big(&packet[2..6]), big(&packet[6..9])),
                _ => self.check(BAD_FIELD),
            },
            0x2b => self.with_disc(|drive, blocks| {
                if big(&packet[2..6]) < blocks {
                    drive.packet_done();
                } else {
                    drive.check(BAD_ADDRESS);
                }
            }),
            0x43 => self.with_disc(|drive, blocks| {
                let msf = packet[1] & 2 != 0;
                // Older drives have the format in the last byte.
                let format = packet[2] & 0x0f | packet[9] >> 6;
                match packet_data::toc(format, packet[6], msf, blocks) {
                    Some(toc) => drive.reply(toc, big(&packet[7..9])),
                    None => drive.check(BAD_FIELD),
                }
            }),
            0x46 => {
                let present = self.blocks().is_some();
                let data = packet_data::configuration(packet[1] & 3, word(2) as u16, present);
                self.reply(data, word(7));
            }
            0x4a if packet[1] & 1 == 0 => self.check(BAD_FIELD),
            0x4a => {
                let (open, present) = (self.state.packet.tray_open, self.blocks().is_some());
                let wanted = packet[4] & 0x10 != 0;
                let event = if wanted {
                    std::mem::take(&mut self.state.packet.event)
                } else {
                    0
                };
                let data = packet_data::event(wanted, event, open, present);
                self.reply(data, word(7));
            }
            0x51 => self.with_disc(|drive, _| drive.reply(packet_data::disc(), word(7))),
            0x5a => match packet_data::mode_sense(packet[2], self.state.packet.prevented) {
                Some(data) => self.reply(data, word(7)),
                None => self.check(BAD_FIELD),
            },
            0xbd => self.reply(vec![0, 0, 0, 0, 0, 1, 0, 0], word(8)),
            _ => self.check(BAD_COMMAND),
        }
    }

    /// Goes on with the number of blocks if there is a disc.
    fn with_disc(&mut self, go: impl FnOnce(&mut Drive, u32)) {
        match self.blocks() {
            Some(blocks) => go(self, blocks),
            None => self.check(NO_DISC),
        }
    }

    fn start_stop(&mut self, how: u8) {
        if how & 2 != 0 {
            let open = how & 1 == 0;
            let packet = &mut self.state.packet;
            if open && packet.prevented {
                return self.check(REMOVAL_PREVENTED);
            }
            if open != packet.tray_open {
                packet.tray_open = open;
                packet.event = if open { 3 } else { 2 };
                if !open {
                    packet.attention = Some(DISC_CHANGED);
                }
            }
        }
        self.packet_done();
    }

    fn read_command(&mut self, first: u32, count: u32) {
        self.with_disc(|drive, blocks| {
            if first.checked_add(count).is_none_or(|end| end > blocks) {
                drive.check(BAD_ADDRESS);
            } else if count == 0 {
                drive.packet_done();
            } else {
                drive.state.lba = first.into();
                drive.state.left = count;
                drive.read_blocks();
            }
        });
    }

    /// Fills the buffer with the next blocks.
    fn read_blocks(&mut self) {
        let (lba, left) = (self.state.lba, self.state.left);
        let blocks = left.min(DMA_SECTORS / PER_BLOCK as u32);
        let mut buffer = vec![0; blocks as usize * BLOCK];
        let sector = lba.saturating_mul(PER_BLOCK);
        match self.disc().map(|disc| disc.read(sector, &mut buffer)) {
            Some(Ok(())) => {
                self.data(buffer);
                self.state.lba = lba.saturating_add(blocks.into());
                self.state.left = left - blocks;
            }
            Some(Err(_)) => self.check(UNREADABLE),
            None => self.check(NO_DISC),
        }
    }
}
