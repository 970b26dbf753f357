//! Waiting for descriptors: `poll`, `select`, `epoll`, `eventfd`.

use super::time::Width;
use super::{Call, Errno, Process, SysResult, check, host};
use crate::user::abi::Unpack;
use crate::user::signal::host::Mask;

/// Bytes of the largest descriptor set of a `select`.
const SET_MAX: usize = 1 << 13;

fn pointer<T>(value: Option<&T>) -> u64 {
    value.map_or(0, |v| std::ptr::from_ref(v) as u64)
}

/// The time of a `poll` in milliseconds; negative is for ever.
pub(super) fn millis(ms: i32) -> Option<libc::timespec> {
    (ms >= 0).then(|| libc::timespec {
        tv_sec: i64::from(ms / 1000),
        tv_nsec: i64::from(ms % 1000) * 1_000_000,
    })
}

impl Process {
    /// `poll` and `ppoll`.
    pub(super) fn poll(
        &mut self,
        c: &Call<'_>,
        timeout: Option<libc::timespec>,
        mask: Option<Mask>,
    ) -> SysResult {
        let count = c.args[1] & 0xffff_ffff;
        if count > 1 << 20 {
            return Err(Errno(libc::EINVAL));
        }
        let fds = c.exact(c.args[0], count * 8, true)?;
        self.with_mask(mask, |mask| {
            let args = [
                fds as u64,
                count,
                pointer(timeout.as_ref()),
                mask as u64,
                8,
                0,
            ];
            // SAFETY: the array was checked for its length; time and mask are ours or null.
            unsafe { host::blocking(libc::SYS_ppoll, args) }
        })
        .map_err(no_restart)
    }

    /// `select`, `_newselect`, `pselect6`: arguments 0 to 3 are the count and three sets.
    pub(super) fn select(
        &mut self,
        c: &Call<'_>,
        timeout: Option<libc::timespec>,
        mask: Option<Mask>,
    ) -> SysResult {
        let count = c.int(0);
        if count < 0 {
            return Err(Errno(libc::EINVAL));
        }
        let count = (count as usize).min(SET_MAX * 8);
        // What the guest reads and writes is whole words of its own.
        let size = count.div_ceil(c.abi.word() as usize * 8) * c.abi.word() as usize;
        let mut sets = [const { Vec::new() }; 3];
        let mut pointers = [0; 3];
        for (n, set) in sets.iter_mut().enumerate() {
            let at = c.args[n + 1];
            if at != 0 {
                let mut bytes = vec![0u8; size];
                c.mem().read_bytes(at, &mut bytes)?;
                bytes.resize(size.next_multiple_of(8).max(8), 0);
                *set = bytes;
                pointers[n] = set.as_mut_ptr() as u64;
            }
        }
        let ready = self
            .with_mask(mask, |mask| {
                let pair = [mask as u64, 8];
                let args = [
                    count as u64,
                    pointers[0],
                    pointers[1],
                    pointers[2],
                    pointer(timeout.as_ref()),
                    pair.as_ptr() as u64,
                ];
                // SAFETY: the sets are ours and large enough; time and mask are ours or null.
                unsafe { host::blocking(libc::SYS_pselect6, args) }
            })
            .map_err(no_restart)?;
        for (n, set) in sets.iter().enumerate() {
            if c.args[n + 1] != 0 {
                c.mem().write_bytes(c.args[n + 1], &set[..size])?;
            }
        }
        Ok(ready)
    }

    /// i386's first `select`, with its arguments in memory.
    pub(super) fn old_select(&mut self, c: &mut Call<'_>) -> SysResult {
        let mut u = Unpack::new(c.abi, c.mem(), c.args[0]);
        let args = [u.word()?, u.word()?, u.word()?, u.word()?, u.word()?, 0];
        c.args = args;
        let timeout = c.optional_timeval(c.args[4])?;
        self.select(c, timeout, None)
    }

    /// The mask of `pselect6`, behind a pointer to a pointer and a size.
    pub(super) fn select_mask(&self, c: &Call<'_>) -> Result<Option<Mask>, Errno> {
        if c.args[5] == 0 {
            return Ok(None);
        }
        let mut u = Unpack::new(c.abi, c.mem(), c.args[5]);
        let (at, size) = (u.word()?, u.word()?);
        c.optional_mask(at, size)
    }

    /// `epoll_create1`.
    pub(super) fn epoll_create(&mut self, flags: i32) -> SysResult {
        // SAFETY: plain value.
        check(unsafe { libc::epoll_create1(super::descriptors::open_flags_to_host(flags)) })
    }

    /// `epoll_ctl`. The guest's structure is packed: 4 bytes of events, 8 of data.
    pub(super) fn epoll_ctl(&mut self, c: &Call<'_>) -> SysResult {
        let (epoll, fd) = (self.fd(c.int(0))?, self.fd(c.int(2))?);
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        if c.int(1) != libc::EPOLL_CTL_DEL {
            event.events = c.mem().read(c.args[3])?;
            event.u64 = c.mem().read(c.args[3].wrapping_add(4))?;
        }
        // SAFETY: the structure is ours.
        check(unsafe { libc::epoll_ctl(epoll, c.int(1), fd, &mut event) })
    }

    /// `epoll_wait` and `epoll_pwait`.
    pub(super) fn epoll_wait(&mut self, c: &Call<'_>, mask: Option<Mask>) -> SysResult {
        let epoll = self.fd(c.int(0))?;
        let max = c.int(2);
        if max <= 0 {
            return Err(Errno(libc::EINVAL));
        }
        let max = max.min(4096);
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; max as usize];
        let list = events.as_mut_ptr() as u64;
        let timeout = c.int(3);
        let ready = self
            .with_mask(mask, |mask| {
                let args = [
                    epoll as u64,
                    list,
                    max as u64,
                    timeout as u64,
                    mask as u64,
                    8,
                ];
                // SAFETY: the array is ours; the mask is ours or null.
                unsafe { host::blocking(libc::SYS_epoll_pwait, args) }
            })
            .map_err(no_restart)?;
        let mut bytes = Vec::with_capacity(ready as usize * 12);
        for event in &events[..ready as usize] {
            let (mask, data) = (event.events, event.u64);
            bytes.extend_from_slice(&mask.to_le_bytes());
            bytes.extend_from_slice(&data.to_le_bytes());
        }
        c.mem().write_bytes(c.args[1], &bytes)?;
        Ok(ready)
    }

    /// `eventfd` and `eventfd2`.
    pub(super) fn eventfd(&mut self, c: &Call<'_>, flags: i32) -> SysResult {
        let flags = super::descriptors::open_flags_to_host(flags);
        // SAFETY: plain values.
        check(unsafe { libc::eventfd(c.args[0] as u32, flags) })
    }
}

/// Waiting for descriptors never starts again behind a handler.
fn no_restart(e: Errno) -> Errno {
    if e == Errno::RESTART {
        Errno::RESTART_NO_HANDLER
    } else {
        e
    }
}

/// `timeval` or `timespec` for a `select`: the old calls have microseconds.
pub(super) fn select_timeout(
    c: &Call<'_>,
    width: Option<Width>,
) -> Result<Option<libc::timespec>, Errno> {
    match width {
        None => c.optional_timeval(c.args[4]),
        Some(width) => c.optional_timespec(c.args[4], width),
    }
}
