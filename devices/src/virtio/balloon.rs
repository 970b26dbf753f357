//! The memory balloon (VIRTIO 1.2, section 5.5): the guest lends pages to the host.
//!
//! Pages that the driver puts into the balloon are given to [`crate::GuestMemory::discard`]. It may
//! use them again at any time, and then finds whatever they read as now.

use super::{Chain, Context, Malformed, Served, VirtioDevice, gather, total};

const FEATURE_MUST_TELL_HOST: u64 = 1 << 0;
const FEATURE_STATISTICS: u64 = 1 << 1;
const FEATURE_DEFLATE_ON_OOM: u64 = 1 << 2;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;

/// A page, whatever the guest's pages are.
const PAGE: u64 = 4096;
/// Most page numbers of one request. Drivers send a few hundred; what comes beyond is ignored.
const MOST_PAGES: u64 = 0x1_0000;
/// Most bytes of statistics, and the size of an entry: a tag of 16 bits and a value of 64.
const MOST_STATISTICS: usize = 640;
const STATISTIC: usize = 10;

/// The device.
#[derive(Default)]
pub struct Balloon {
    target: u32,
    actual: u32,
    statistics: Vec<(u16, u64)>,
    wanted: bool,
}

impl Balloon {
    /// An empty balloon.
    pub fn new() -> Balloon {
        Balloon::default()
    }

    /// Asks the driver to lend that many pages. The transport is to tell it
    /// ([`super::VirtioPci::config_changed`]).
    pub fn set_target(&mut self, pages: u32) {
        self.target = pages;
    }

    /// How many pages the driver says it has lent.
    pub fn actual(&self) -> u32 {
        self.actual
    }

    /// Asks the driver for fresh statistics. The transport is to look at its queues after that
    /// ([`super::VirtioPci::poll`]).
    pub fn want_statistics(&mut self) {
        self.wanted = true;
    }

    /// The last statistics of the driver: tags (section 5.5.6.4) and values.
    pub fn statistics(&self) -> &[(u16, u64)] {
        &self.statistics
    }

    fn read_statistics(&mut self, chain: &Chain, cx: &Context<'_>) {
        let mut bytes = [0; MOST_STATISTICS];
        let len = gather(cx.memory, &chain.readable, 0, &mut bytes);
        let entries = bytes[..len].chunks_exact(STATISTIC).map(|entry| {
            let mut all = [0; 16];
            all[..STATISTIC].copy_from_slice(entry);
            let all = u128::from_le_bytes(all);
            (all as u16, (all >> 16) as u64)
        });
        self.statistics = entries.collect();
    }
}

impl VirtioDevice for Balloon {
    fn kind(&self) -> u16 {
        5
    }

    fn class(&self) -> u32 {
        0x00_ff00
    }

    fn features(&self) -> u64 {
        FEATURE_MUST_TELL_HOST | FEATURE_STATISTICS | FEATURE_DEFLATE_ON_OOM
    }

    fn queues(&self) -> usize {
        3
    }

    fn config(&self) -> Vec<u8> {
        [self.target.to_le_bytes(), self.actual.to_le_bytes()].concat()
    }

    fn write_config(&mut self, offset: u64, bytes: &[u8]) {
        if let (4, Ok(value)) = (offset, bytes.try_into()) {
            self.actual = u32::from_le_bytes(value);
        }
    }

    fn serve(
        &mut self,
        queue: usize,
        chain: &Chain,
        cx: &Context<'_>,
    ) -> Result<Served, Malformed> {
        match queue {
            INFLATE => {
                let len = total(&chain.readable).min(4 * MOST_PAGES);
                let mut numbers = vec![0; len as usize];
                gather(cx.memory, &chain.readable, 0, &mut numbers);
                for number in numbers.chunks_exact(4) {
                    let number = number.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
                    cx.memory.discard(number * PAGE, PAGE);
                }
            }
            DEFLATE => {}
            _ => {
                self.read_statistics(chain, cx);
                // The driver's request is its answer to the next question.
                if !std::mem::take(&mut self.wanted) {
                    return Ok(Served::Later);
                }
            }
        }
        Ok(Served::Done(0))
    }

    fn save(&self) -> Vec<u8> {
        self.config()
    }

    fn restore(&mut self, state: &[u8]) {
        let mut words = state.chunks_exact(4).map(|word| {
            let word = word.iter().rev();
            word.fold(0, |value, byte| value << 8 | u32::from(*byte))
        });
        self.target = words.next().unwrap_or(0);
        self.actual = words.next().unwrap_or(0);
    }
}
