//! The network device (VIRTIO 1.2, section 5.1): one pair of queues, a frame for each request.
//!
//! The driver may leave it to the device to complete checksums, which is quicker here than in the
//! guest, and if the backend takes long segments, not to cut them up. Frames for the guest are
//! complete; each needs a request with room for all of it.

use super::{Chain, Context, Malformed, Served, VirtioDevice, gather, scatter, total};
use crate::net::{MAX_FRAME, NetBackend};

const FEATURE_CHECKSUM: u64 = 1 << 0;
const FEATURE_MTU: u64 = 1 << 3;
const FEATURE_MAC: u64 = 1 << 5;
const FEATURE_SEGMENTS: u64 = 1 << 11;
const FEATURE_STATUS: u64 = 1 << 16;

const RECEIVE: usize = 0;

/// Bytes of the header before each frame.
const HEADER: usize = 12;
/// Where the header says over how many requests a received frame goes.
const BUFFERS: usize = 10;
/// In the header: that a checksum has to be completed, and how the frame is meant to be sent.
const FLAG_CHECKSUM: u8 = 1;
const WHOLE: u8 = 0;
const TCP_SEGMENTS: u8 = 1;
/// Largest payload of a frame.
const MTU: u16 = 1500;
/// Bytes of a VLAN tag, which do not count as payload.
const TAG: usize = 4;

const LINK_UP: u16 = 1;

/// The device.
pub struct Net {
    backend: Box<dyn NetBackend>,
    mac: [u8; 6],
}

impl Net {
    /// A card with that address. When frames wait, the transport is to look at its queues
    /// ([`super::VirtioPci::poll`]).
    pub fn new(backend: Box<dyn NetBackend>, mac: [u8; 6]) -> Net {
        Net { backend, mac }
    }

    /// Gives the driver the next frame that fits.
    fn receive(&mut self, chain: &Chain, cx: &Context<'_>) -> Served {
        let room = total(&chain.writable);
        while let Some(frame) = self.backend.receive() {
            let len = HEADER + frame.len();
            if frame.len() > MAX_FRAME + TAG || len as u64 > room {
                continue;
            }
            let mut header = [0; HEADER];
            header[BUFFERS..].copy_from_slice(&1u16.to_le_bytes());
            scatter(cx.memory, &chain.writable, 0, &header);
            scatter(cx.memory, &chain.writable, HEADER as u64, &frame);
            return Served::Done(len as u32);
        }
        Served::Later
    }

    /// Sends the driver's frame, unless it is too long or its header makes no sense.
    fn send(&mut self, chain: &Chain, cx: &Context<'_>) {
        let most = HEADER + self.backend.longest().max(MAX_FRAME + TAG);
        let len = total(&chain.readable);
        if len > most as u64 {
            return;
        }
        let mut bytes = vec![0; len as usize];
        gather(cx.memory, &chain.readable, 0, &mut bytes);
        let Some((header, frame @ [_, ..])) = bytes.split_first_chunk_mut::<HEADER>() else {
            return;
        };
        let agreed = |feature| cx.features & feature != 0;
        let fits = match header[1] {
            WHOLE => frame.len() <= MAX_FRAME + TAG,
            TCP_SEGMENTS => agreed(FEATURE_SEGMENTS),
            _ => false,
        };
        let wanted = agreed(FEATURE_CHECKSUM) && header[0] & FLAG_CHECKSUM != 0;
        if fits && (!wanted || complete_checksum(header, frame).is_some()) {
            self.backend.send(frame);
        }
    }
}

/// Completes the checksum, in whose place is the sum of the pseudo header so far.
fn complete_checksum(header: &[u8; HEADER], frame: &mut [u8]) -> Option<()> {
    let half = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let (start, offset) = (half(6), half(8));
    let bytes = frame.get_mut(start..)?;
    bytes.get(offset..offset + 2)?;
    let (pairs, last) = bytes.as_chunks::<2>();
    let sum = pairs
        .iter()
        .map(|pair| u64::from(u16::from_be_bytes(*pair)));
    let last = last.first().map_or(0, |byte| u64::from(*byte) << 8);
    let mut sum: u64 = sum.sum::<u64>() + last;
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    // In UDP, a checksum of zero would say that there is none.
    let checksum = match !(sum as u16) {
        0 => 0xffff,
        checksum => checksum,
    };
    bytes[offset..offset + 2].copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

impl VirtioDevice for Net {
    fn kind(&self) -> u16 {
        1
    }

    fn class(&self) -> u32 {
        0x02_0000
    }

    fn features(&self) -> u64 {
        let long = self.backend.longest() > MAX_FRAME + TAG;
        let segments = if long { FEATURE_SEGMENTS } else { 0 };
        FEATURE_CHECKSUM | FEATURE_MTU | FEATURE_MAC | FEATURE_STATUS | segments
    }

    fn queues(&self) -> usize {
        2
    }

    fn config(&self) -> Vec<u8> {
        let mut config = self.mac.to_vec();
        for field in [LINK_UP, 1, MTU] {
            config.extend(field.to_le_bytes());
        }
        config
    }

    fn serve(
        &mut self,
        queue: usize,
        chain: &Chain,
        cx: &Context<'_>,
    ) -> Result<Served, Malformed> {
        if queue == RECEIVE {
            return Ok(self.receive(chain, cx));
        }
        self.send(chain, cx);
        Ok(Served::Done(0))
    }
}
