//! Thread-local storage and futexes, for a process with one thread.

use super::{Call, Errno, Process, SysResult, host};
use crate::user::segments;

const ARCH_SET_GS: i32 = 0x1001;
const ARCH_SET_FS: i32 = 0x1002;
const ARCH_GET_FS: i32 = 0x1003;
const ARCH_GET_GS: i32 = 0x1004;

const FUTEX_WAIT: i32 = 0;
const FUTEX_WAKE: i32 = 1;
const FUTEX_REQUEUE: i32 = 3;
const FUTEX_CMP_REQUEUE: i32 = 4;
const FUTEX_WAIT_BITSET: i32 = 9;
const FUTEX_WAKE_BITSET: i32 = 10;
/// `FUTEX_PRIVATE_FLAG` and `FUTEX_CLOCK_REALTIME`.
const FUTEX_FLAGS: i32 = 128 | 256;
const FUTEX_CLOCK_REALTIME: i32 = 256;

impl Process {
    /// `arch_prctl`.
    pub(super) fn arch_prctl(&mut self, c: &mut Call<'_>) -> SysResult {
        let value = c.args[1];
        let n = match c.int(0) {
            ARCH_SET_FS | ARCH_GET_FS => 4,
            ARCH_SET_GS | ARCH_GET_GS => 5,
            _ => return Err(Errno(libc::EINVAL)),
        };
        match c.int(0) {
            ARCH_SET_FS | ARCH_SET_GS => {
                if value >= 1 << 47 {
                    return Err(Errno(libc::EPERM));
                }
                c.cpu.seg_sel[n] = 0;
                c.cpu.seg_base[n] = value;
            }
            _ => c
                .mem()
                .write_bytes(value, &c.cpu.seg_base[n].to_le_bytes())?,
        }
        Ok(0)
    }

    /// `set_thread_area`.
    pub(super) fn set_thread_area(&mut self, c: &mut Call<'_>) -> SysResult {
        segments::set_thread_area(c.env, c.args[0])?;
        Ok(0)
    }

    /// `get_thread_area`.
    pub(super) fn get_thread_area(&mut self, c: &mut Call<'_>) -> SysResult {
        segments::get_thread_area(c.env, c.args[0])?;
        Ok(0)
    }

    /// `futex`: nobody else can wake us, so a wait ends by its timeout or a signal.
    pub(super) fn futex(&mut self, c: &Call<'_>, wide: super::time::Width) -> SysResult {
        let op = c.int(1);
        match op & !FUTEX_FLAGS {
            FUTEX_WAIT | FUTEX_WAIT_BITSET => {
                let value: u32 = c.mem().read(c.args[0])?;
                if value != c.args[2] as u32 {
                    return Err(Errno(libc::EAGAIN));
                }
                let timeout = c.optional_timespec(c.args[3], wide)?;
                // The word may be in memory that another process shares, so the host's own futex
                // is what waits.
                let word = c.exact(c.args[0], 4, false)?;
                let pointer = timeout.as_ref().map_or(0, |t| std::ptr::from_ref(t) as u64);
                let shared = op & (127 | FUTEX_CLOCK_REALTIME);
                let args = [
                    word as u64,
                    shared as u64,
                    c.args[2] & 0xffff_ffff,
                    pointer,
                    0,
                    c.args[5] & 0xffff_ffff,
                ];
                // SAFETY: the word is mapped guest memory, the time is ours.
                unsafe { host::blocking(libc::SYS_futex, args) }
            }
            FUTEX_WAKE | FUTEX_WAKE_BITSET | FUTEX_REQUEUE | FUTEX_CMP_REQUEUE => {
                let word = c.exact(c.args[0], 4, false)?;
                let count = c.args[2] & 0xffff_ffff;
                let wake = libc::FUTEX_WAKE as u64;
                // SAFETY: the word is mapped guest memory.
                unsafe { super::host_call(libc::SYS_futex, [word as u64, wake, count, 0, 0, 0]) }
            }
            other => {
                self.report_missing(c.abi, 2 << 32 | other as u64, "futex operation");
                Err(Errno(libc::ENOSYS))
            }
        }
    }
}
