//! What a signal carries: `siginfo_t`, kept in its 64-bit layout and converted for i386.

use crate::user::abi::{Abi, Pack};

/// A signal with its details, in the layout of 64-bit Linux.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SigInfo {
    raw: [u8; 128],
}

/// `si_code` of a signal that the kernel sends.
pub const SI_KERNEL: i32 = 0x80;

impl SigInfo {
    /// Bare: number and code only.
    pub fn new(signal: i32, code: i32) -> SigInfo {
        let mut info = SigInfo { raw: [0; 128] };
        info.put(0, signal as u32);
        info.put(8, code as u32);
        info
    }

    /// A fault at `addr`.
    pub fn fault(signal: i32, code: i32, addr: u64) -> SigInfo {
        let mut info = SigInfo::new(signal, code);
        info.raw[16..24].copy_from_slice(&addr.to_le_bytes());
        info
    }

    /// Sent by a process (`kill`, `tgkill`).
    pub fn sent(signal: i32, code: i32, pid: i32, uid: u32) -> SigInfo {
        let mut info = SigInfo::new(signal, code);
        info.put(16, pid as u32);
        info.put(20, uid);
        info
    }

    /// What the host's handler got. The host's layout is the 64-bit one.
    pub fn from_host(raw: [u8; 128]) -> SigInfo {
        SigInfo { raw }
    }

    fn put(&mut self, at: usize, v: u32) {
        self.raw[at..at + 4].copy_from_slice(&v.to_le_bytes());
    }

    fn get(&self, at: usize) -> u32 {
        u32::from_le_bytes([
            self.raw[at],
            self.raw[at + 1],
            self.raw[at + 2],
            self.raw[at + 3],
        ])
    }

    fn get64(&self, at: usize) -> u64 {
        u64::from(self.get(at)) | u64::from(self.get(at + 4)) << 32
    }

    /// The signal's number.
    pub fn signal(&self) -> i32 {
        self.get(0) as i32
    }

    /// The signal's code.
    pub fn code(&self) -> i32 {
        self.get(8) as i32
    }

    /// `si_addr`.
    pub fn addr(&self) -> u64 {
        self.get64(16)
    }

    /// The 128 bytes as the guest sees them.
    pub fn pack(&self, abi: Abi) -> Vec<u8> {
        if abi.is_64() {
            return self.raw.to_vec();
        }
        let mut p = Pack::new(abi);
        // Number, error and code are followed by 4 bytes of padding in the 64-bit layout only.
        p.raw(&self.raw[..12]);
        match (self.signal(), self.code()) {
            // Sent by a process: process, user, and a pointer-sized value.
            (_, libc::SI_USER | libc::SI_TKILL | libc::SI_QUEUE) => {
                p.u32(self.get(16)).u32(self.get(20)).u32(self.get(24));
            }
            // A timer: id, overrun, value.
            (_, libc::SI_TIMER) => {
                p.u32(self.get(16)).u32(self.get(20)).u32(self.get(24));
            }
            // A child: process, user, status, two times.
            (libc::SIGCHLD, _) => {
                p.u32(self.get(16)).u32(self.get(20)).u32(self.get(24));
                p.u32(self.get64(32) as u32).u32(self.get64(40) as u32);
            }
            // Input or output: band, descriptor.
            (libc::SIGPOLL, 1..=6) => {
                p.u32(self.get64(16) as u32).u32(self.get(24));
            }
            (libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGTRAP, _) => {
                p.u32(self.addr() as u32);
            }
            _ => {
                p.u32(self.get(16)).u32(self.get(20)).u32(self.get(24));
            }
        }
        p.pad_to(128);
        p.bytes
    }

    /// What a guest passes to `rt_sigqueueinfo`, as the host wants it.
    pub fn unpack(abi: Abi, bytes: &[u8; 128]) -> SigInfo {
        if abi.is_64() {
            return SigInfo { raw: *bytes };
        }
        let mut info = SigInfo { raw: [0; 128] };
        info.raw[..12].copy_from_slice(&bytes[..12]);
        info.raw[16..28].copy_from_slice(&bytes[12..24]);
        info
    }

    /// The bytes for the host.
    pub fn host_bytes(&self) -> &[u8; 128] {
        &self.raw
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i386_has_no_padding_before_the_union() {
        let info = SigInfo::fault(libc::SIGSEGV, 2, 0x1234_5678);
        let b = info.pack(Abi::I386);
        assert_eq!(b.len(), 128);
        assert_eq!(b[12..16], 0x1234_5678u32.to_le_bytes());
        assert_eq!(info.pack(Abi::X86_64)[16..20], 0x1234_5678u32.to_le_bytes());
    }

    #[test]
    fn a_child_keeps_status_and_times() {
        let mut raw = [0u8; 128];
        raw[0] = libc::SIGCHLD as u8;
        raw[8] = 1;
        raw[16] = 42;
        raw[24] = 7;
        raw[32] = 9;
        let b = SigInfo::from_host(raw).pack(Abi::I386);
        assert_eq!((b[12], b[20], b[24]), (42, 7, 9));
    }
}
