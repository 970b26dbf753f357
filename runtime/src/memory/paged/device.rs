//! Accesses to what is not memory: cut into naturally aligned parts of at most 8 bytes, as a
//! chipset cuts what a processor sends for an unaligned or a 16-byte access.
//!
//! A guest instruction may access a device only while it runs alone: elsewhere the access is refused
//! as one to translated code is, and the dispatcher runs the instruction again by itself. So the
//! device sees the exact time, and what the access leads to comes before the next instruction.

use super::{Access, Paged, Place, Rights};
use crate::activity::Doing;
use metaphrase_devices::Width;

/// The largest part that may begin at `addr` with `left` bytes to go.
fn width(addr: u64, left: usize) -> Width {
    match (addr % 8, left) {
        (0, 8..) => Width::Qword,
        (0 | 4, 4..) => Width::Dword,
        (0 | 2 | 4 | 6, 2..) => Width::Word,
        _ => Width::Byte,
    }
}

impl Paged {
    /// The instruction that comes next runs alone, or (false) no longer.
    pub fn set_alone(&self, alone: bool) {
        self.alone.set(alone);
    }

    /// Whether guest instructions may access devices now.
    pub(super) fn may_access_devices(&self) -> bool {
        self.alone.get()
    }

    /// Whether a device has been accessed, but for passive ones, since this was last asked.
    #[inline]
    pub fn take_device_access(&self) -> bool {
        self.device_access.replace(false)
    }

    /// Whether an access there may happen at any time.
    pub(super) fn is_passive(&self, phys: u64) -> bool {
        self.phys.mmio().is_passive(phys)
    }

    /// Whether the access that the current instruction was refused at `linear` is one to a device.
    pub fn is_device(&self, linear: u64, write: bool) -> bool {
        let access = if write { Access::Write } else { Access::Read };
        let phys = self.translate(linear, access, Rights::Current);
        phys.is_ok_and(|at| self.phys.place(at) == Place::Io && !self.is_passive(at))
    }

    fn note_access(&self, phys: u64) {
        self.count(|s| s.device_accesses += 1);
        if !self.is_passive(phys) {
            self.device_access.set(true);
        }
    }

    /// Reads bytes that lie on one page.
    pub(super) fn read_io(&self, phys: u64, out: &mut [u8]) {
        let _doing = self.doing.during(Doing::Devices);
        let mut done = 0;
        while done < out.len() {
            let at = phys.wrapping_add(done as u64);
            let width = width(at, out.len() - done);
            let n = width.bytes() as usize;
            let value = self.phys.read_device(at, width);
            out[done..done + n].copy_from_slice(&value.to_le_bytes()[..n]);
            done += n;
        }
        self.note_access(phys);
    }

    /// Writes bytes that lie on one page.
    pub(super) fn write_io(&self, phys: u64, bytes: &[u8]) {
        let _doing = self.doing.during(Doing::Devices);
        let mut done = 0;
        while done < bytes.len() {
            let at = phys.wrapping_add(done as u64);
            let width = width(at, bytes.len() - done);
            let n = width.bytes() as usize;
            let mut value = [0; 8];
            value[..n].copy_from_slice(&bytes[done..done + n]);
            self.phys.write_device(at, width, u64::from_le_bytes(value));
            done += n;
        }
        self.note_access(phys);
    }
}
