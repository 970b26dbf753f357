//! Accesses to what is not memory: cut into naturally aligned parts of at most 8 bytes, as a
//! chipset cuts what a processor sends for an unaligned or a 16-byte access.

use super::Paged;
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
        self.count(|s| s.device_accesses += 1);
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
        self.count(|s| s.device_accesses += 1);
    }
}
