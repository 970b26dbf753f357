//! The network device (VIRTIO 1.2, section 5.1): one pair of queues, a frame for each request.
//!
//! Checksums and segmentation are the driver's business: nothing of that is offered, so the header
//! before each frame says nothing. A frame for the guest needs a request with room for all of it.

use super::{Chain, Context, Malformed, Served, VirtioDevice, gather, scatter, total};
use crate::net::{MAX_FRAME, NetBackend};

const FEATURE_MTU: u64 = 1 << 3;
const FEATURE_MAC: u64 = 1 << 5;
const FEATURE_STATUS: u64 = 1 << 16;

const RECEIVE: usize = 0;

/// Bytes of the header before each frame.
const HEADER: usize = 12;
/// Where the header says over how many requests a received frame goes.
const BUFFERS: usize = 10;
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

    /// Sends the driver's frame, unless it is too long.
    fn send(&mut self, chain: &Chain, cx: &Context<'_>) {
        let mut bytes = [0; HEADER + MAX_FRAME + TAG];
        if total(&chain.readable) > bytes.len() as u64 {
            return;
        }
        let len = gather(cx.memory, &chain.readable, 0, &mut bytes);
        if let Some(frame @ [_, ..]) = bytes[..len].get(HEADER..) {
            self.backend.send(frame);
        }
    }
}

impl VirtioDevice for Net {
    fn kind(&self) -> u16 {
        1
    }

    fn class(&self) -> u32 {
        0x02_0000
    }

    fn features(&self) -> u64 {
        FEATURE_MTU | FEATURE_MAC | FEATURE_STATUS
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
