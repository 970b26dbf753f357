//! Sockets. Addresses and options have the same layout in both ABIs; messages are converted,
//! their control data on x86-64 only.

use super::{Call, Errno, Process, SysResult, check, host, host_call};
use crate::user::abi::{Pack, Unpack};

/// Longest socket address or option that is passed on.
const MAX_LEN: u64 = 4096;

/// The calls behind i386's `socketcall`, in its order from 1.
const SOCKETCALL: [(i64, usize); 20] = [
    (libc::SYS_socket, 3),
    (libc::SYS_bind, 3),
    (libc::SYS_connect, 3),
    (libc::SYS_listen, 2),
    (libc::SYS_accept, 3),
    (libc::SYS_getsockname, 3),
    (libc::SYS_getpeername, 3),
    (libc::SYS_socketpair, 4),
    // send and recv: sendto and recvfrom without an address.
    (libc::SYS_sendto, 4),
    (libc::SYS_recvfrom, 4),
    (libc::SYS_sendto, 6),
    (libc::SYS_recvfrom, 6),
    (libc::SYS_shutdown, 2),
    (libc::SYS_setsockopt, 5),
    (libc::SYS_getsockopt, 5),
    (libc::SYS_sendmsg, 3),
    (libc::SYS_recvmsg, 3),
    (libc::SYS_accept4, 4),
    (libc::SYS_recvmmsg, 5),
    (libc::SYS_sendmmsg, 4),
];

impl Process {
    /// i386's `socketcall`, with its arguments in memory.
    pub(super) fn socketcall(&mut self, c: &mut Call<'_>) -> SysResult {
        let n = (c.args[0] as usize).wrapping_sub(1);
        let &(nr, count) = SOCKETCALL.get(n).ok_or(Errno(libc::EINVAL))?;
        let mut u = Unpack::new(c.abi, c.mem(), c.args[1]);
        let mut args = [0; 6];
        for a in &mut args[..count] {
            *a = u.word()?;
        }
        c.args = args;
        self.socket_call(c, nr)
    }

    /// Any call on sockets, by the host's number.
    pub(super) fn socket_call(&mut self, c: &Call<'_>, nr: i64) -> SysResult {
        let a = c.args;
        match nr {
            // SAFETY: plain values. The types and flags of x86 are those of our hosts.
            libc::SYS_socket => unsafe { host_call(nr, [a[0], a[1] & 0xffff_ffff, a[2], 0, 0, 0]) },
            libc::SYS_socketpair => {
                let mut fds = [0i32; 2];
                c.exact(a[3], 8, true)?;
                // SAFETY: the array is ours.
                check(unsafe { libc::socketpair(c.int(0), c.int(1), c.int(2), fds.as_mut_ptr()) })?;
                let mut p = Pack::new(c.abi);
                p.u32(fds[0] as u32).u32(fds[1] as u32);
                p.store(c.mem(), a[3])?;
                Ok(0)
            }
            libc::SYS_listen | libc::SYS_shutdown => {
                let fd = self.fd(c.int(0))? as u64;
                // SAFETY: plain values.
                unsafe { host_call(nr, [fd, c.int(1) as u64, 0, 0, 0, 0]) }
            }
            libc::SYS_bind | libc::SYS_connect => {
                let fd = self.fd(c.int(0))? as u64;
                let len = address_len(a[2])?;
                let p = c.exact(a[1], len, false)? as u64;
                // SAFETY: the address was checked for its length.
                unsafe { host::blocking(nr, [fd, p, len, 0, 0, 0]) }
            }
            libc::SYS_accept | libc::SYS_accept4 => {
                let flags = if nr == libc::SYS_accept4 { a[3] } else { 0 };
                let flags = flags & 0xffff_ffff;
                self.with_address(c, a[1], a[2], |fd, p, len| {
                    let args = [fd, p, len, flags, 0, 0];
                    // SAFETY: the address buffer was checked.
                    unsafe { host::blocking(libc::SYS_accept4, args) }
                })
            }
            libc::SYS_getsockname | libc::SYS_getpeername => {
                self.with_address(c, a[1], a[2], |fd, p, len| {
                    // SAFETY: the address buffer was checked.
                    unsafe { host_call(nr, [fd, p, len, 0, 0, 0]) }
                })
            }
            libc::SYS_sendto => {
                let fd = self.fd(c.int(0))? as u64;
                let (p, n) = c.buffer(a[1], a[2], false)?;
                let len = address_len(a[5])?;
                let to = if a[4] == 0 {
                    0
                } else {
                    c.exact(a[4], len, false)? as u64
                };
                let args = [fd, p as u64, n as u64, a[3] & 0xffff_ffff, to, len];
                // SAFETY: buffer and address were checked.
                unsafe { host::blocking(nr, args) }
            }
            libc::SYS_recvfrom => {
                let (p, n) = c.buffer(a[1], a[2], true)?;
                self.with_address(c, a[4], a[5], |fd, from, len| {
                    let args = [fd, p as u64, n as u64, a[3] & 0xffff_ffff, from, len];
                    // SAFETY: buffer and address were checked.
                    unsafe { host::blocking(nr, args) }
                })
            }
            libc::SYS_setsockopt => {
                let fd = self.fd(c.int(0))? as u64;
                let len = address_len(a[4])?;
                let p = c.exact(a[3], len, false)? as u64;
                let args = [fd, a[1] & 0xffff_ffff, a[2] & 0xffff_ffff, p, len, 0];
                // SAFETY: the option was checked for its length.
                unsafe { host_call(nr, args) }
            }
            libc::SYS_getsockopt => self.with_address(c, a[3], a[4], |fd, p, len| {
                let args = [fd, a[1] & 0xffff_ffff, a[2] & 0xffff_ffff, p, len, 0];
                // SAFETY: the buffer was checked.
                unsafe { host_call(nr, args) }
            }),
            libc::SYS_sendmsg | libc::SYS_recvmsg => self.message(c, nr),
            _ => {
                self.report_missing(c.abi, 3 << 32 | nr as u64, "socket operation");
                Err(Errno(libc::ENOSYS))
            }
        }
    }

    /// Calls that fill an address (at `at`, its size at `len_at`); both may be null.
    fn with_address(
        &mut self,
        c: &Call<'_>,
        at: u64,
        len_at: u64,
        f: impl FnOnce(u64, u64, u64) -> SysResult,
    ) -> SysResult {
        let fd = self.fd(c.int(0))? as u64;
        if at == 0 {
            return f(fd, 0, 0);
        }
        let mut len: u32 = c.mem().read(len_at)?;
        if i64::from(len as i32) < 0 {
            return Err(Errno(libc::EINVAL));
        }
        len = len.min(MAX_LEN as u32);
        let p = c.exact(at, u64::from(len), true)? as u64;
        let result = f(fd, p, &raw mut len as u64)?;
        c.mem().write_bytes(len_at, &len.to_le_bytes())?;
        Ok(result)
    }

    /// `sendmsg` and `recvmsg`.
    fn message(&mut self, c: &Call<'_>, nr: i64) -> SysResult {
        let receive = nr == libc::SYS_recvmsg;
        let fd = self.fd(c.int(0))? as u64;
        let at = c.args[1];
        let mut u = Unpack::new(c.abi, c.mem(), at);
        let (name, name_len) = (u.word()?, u.word()? & 0xffff_ffff);
        let (iov, iov_len) = (u.word()?, u.word()?);
        let (control, control_len) = (u.word()?, u.word()?);
        let mut list = c.iovecs(iov, iov_len, receive)?;
        // SAFETY: all zeros is a valid msghdr.
        let mut m: libc::msghdr = unsafe { std::mem::zeroed() };
        if name != 0 {
            let len = address_len(name_len)?;
            m.msg_name = c.exact(name, len, receive)?.cast();
            m.msg_namelen = len as u32;
        }
        m.msg_iov = list.as_mut_ptr();
        m.msg_iovlen = list.len() as _;
        if control != 0 && control_len != 0 {
            if !c.abi.is_64() && !receive {
                self.report_missing(c.abi, 4 << 32, "sendmsg with control data");
                return Err(Errno(libc::EINVAL));
            }
            if c.abi.is_64() {
                let len = control_len.min(1 << 16);
                m.msg_control = c.exact(control, len, receive)?.cast();
                m.msg_controllen = len as _;
            }
        }
        let args = [fd, &raw mut m as u64, c.args[2] & 0xffff_ffff, 0, 0, 0];
        // SAFETY: everything that the message points to was checked or is ours.
        let n = unsafe { host::blocking(nr, args) }?;
        if receive {
            let w = c.abi.word();
            if name != 0 {
                c.mem()
                    .write_bytes(at.wrapping_add(w), &m.msg_namelen.to_le_bytes())?;
            }
            let mut p = Pack::new(c.abi);
            p.word(m.msg_controllen as u64).u32(m.msg_flags as u32);
            p.store(c.mem(), at.wrapping_add(5 * w))?;
        }
        Ok(n)
    }
}

fn address_len(len: u64) -> Result<u64, Errno> {
    let len = len & 0xffff_ffff;
    if len > MAX_LEN {
        return Err(Errno(libc::EINVAL));
    }
    Ok(len)
}
