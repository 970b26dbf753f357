//! Physical pages whose backing changes while the machine runs: from the video memory at A0000h
//! to the end of the first megabyte. The host bridge of a PC puts RAM, ROM or devices there.
//!
//! The RAM behind them is part of the range that starts at 0. A change is noted, and who runs the
//! processor flushes what remembers the old backing ([`PhysMemory::take_remapped`]).

use super::PAGE;
use super::phys::{PhysMemory, Place};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// The first address.
pub(super) const START: u64 = 0xa_0000;
/// The end.
pub(super) const END: u64 = 0x10_0000;
const PAGES: usize = ((END - START) / PAGE) as usize;

const READ_RAM: u8 = 1;
const WRITE_RAM: u8 = 2;

/// Which pages show what.
#[derive(Debug)]
pub(super) struct Shadow {
    /// The RAM behind the first page.
    ram: *mut u8,
    /// The ROM at each page, or null.
    rom: [*mut u8; PAGES],
    /// [`READ_RAM`] and [`WRITE_RAM`] of each page.
    routes: [AtomicU8; PAGES],
    /// Something has changed.
    remapped: AtomicBool,
}

impl Shadow {
    pub(super) fn new(ram: *mut u8) -> Shadow {
        Shadow {
            ram,
            rom: [std::ptr::null_mut(); PAGES],
            routes: [const { AtomicU8::new(0) }; PAGES],
            remapped: AtomicBool::new(false),
        }
    }

    fn index(addr: u64) -> Option<usize> {
        (START..END)
            .contains(&addr)
            .then(|| ((addr - START) / PAGE) as usize)
    }

    /// Where the page that holds `addr` is, if it is one of these.
    #[inline]
    pub(super) fn place(&self, addr: u64) -> Option<Place> {
        let n = Shadow::index(addr)?;
        let ram = self.ram.wrapping_add(n * PAGE as usize);
        let route = self.routes[n].load(Ordering::Relaxed);
        Some(match (route & READ_RAM != 0, route & WRITE_RAM != 0) {
            (true, true) => Place::Ram(ram),
            (true, false) => Place::Rom(ram),
            (false, _) if self.rom[n].is_null() => Place::Io,
            (false, _) => Place::Rom(self.rom[n]),
        })
    }

    /// The RAM at `addr`, if writes go there although reads do not.
    fn write_only(&self, addr: u64) -> Option<*mut u8> {
        let n = Shadow::index(addr)?;
        let route = self.routes[n].load(Ordering::Relaxed);
        (route == WRITE_RAM).then(|| self.ram.wrapping_add((addr - START) as usize))
    }
}

impl PhysMemory {
    /// Shows the ROM that is at `from` at `to` as well, between A0000h and FFFFFh; whole pages.
    pub fn show_rom(&mut self, from: u64, to: u64, len: u64) {
        for at in (0..len).step_by(PAGE as usize) {
            let Place::Rom(host) = self.place(from + at) else {
                continue;
            };
            if let (Some(shadow), Some(n)) = (&mut self.shadow, Shadow::index(to + at)) {
                shadow.rom[n] = host;
            }
        }
    }

    /// Lets reads and writes of pages between A0000h and FFFFFh go to RAM, or else reads to the ROM
    /// or device there, and writes to the device or nowhere.
    pub fn set_shadow(&self, start: u64, len: u64, read_ram: bool, write_ram: bool) {
        let Some(shadow) = &self.shadow else {
            return;
        };
        let route = (u8::from(read_ram) * READ_RAM) | (u8::from(write_ram) * WRITE_RAM);
        for addr in (start..start.saturating_add(len)).step_by(PAGE as usize) {
            let Some(n) = Shadow::index(addr) else {
                continue;
            };
            if shadow.routes[n].swap(route, Ordering::Relaxed) != route {
                if self.has_code(addr / PAGE) {
                    self.note_dirty(addr);
                }
                shadow.remapped.store(true, Ordering::Release);
            }
        }
    }

    /// Whether [`PhysMemory::set_shadow`] has changed anything since this was last asked: then
    /// every soft TLB has to be flushed.
    pub fn take_remapped(&self) -> bool {
        self.shadow
            .as_ref()
            .is_some_and(|s| s.remapped.swap(false, Ordering::AcqRel))
    }

    /// A write to what is no RAM: it may be shadowed for writes alone. Whether it was.
    pub(super) fn write_shadow(&self, addr: u64, bytes: &[u8]) -> bool {
        let Some(to) = self.shadow.as_ref().and_then(|s| s.write_only(addr)) else {
            return false;
        };
        let n = bytes.len().min((PAGE - addr % PAGE) as usize);
        // SAFETY: `n` bytes of the page of RAM are left; `bytes` is not guest memory.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, n) };
        true
    }
}
