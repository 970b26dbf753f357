//! The entropy device (VIRTIO 1.2, section 5.4): fills buffers with random bytes.

use super::{Chain, Context, Malformed, Served, VirtioDevice, scatter, total};

/// Most bytes that one request gets; the driver asks again.
const MOST: u64 = 0x1_0000;

/// Fills what it is given with random bytes.
pub trait RandomSource: FnMut(&mut [u8]) + Send {}

impl<F: FnMut(&mut [u8]) + Send> RandomSource for F {}

/// The device. Where the bytes come from is the machine's business.
pub struct Rng {
    source: Box<dyn RandomSource>,
}

impl Rng {
    /// A device that is fed by that source.
    pub fn new(source: Box<dyn RandomSource>) -> Rng {
        Rng { source }
    }
}

impl VirtioDevice for Rng {
    fn kind(&self) -> u16 {
        4
    }

    fn class(&self) -> u32 {
        0x00_ff00
    }

    fn queues(&self) -> usize {
        1
    }

    fn serve(&mut self, _: usize, chain: &Chain, cx: &Context<'_>) -> Result<Served, Malformed> {
        let mut bytes = vec![0; total(&chain.writable).min(MOST) as usize];
        (self.source)(&mut bytes);
        let written = scatter(cx.memory, &chain.writable, 0, &bytes);
        Ok(Served::Done(written as u32))
    }
}
