//! Which handler does which system call.

use super::stat::Layout;
use super::table::Sys;
use super::time::Width::{Native, Wide};
use super::{Call, Errno, Outcome, Process, SysResult, check, host_call, poll, process::wide_id};
use crate::user::abi::Abi;

const CWD: i32 = libc::AT_FDCWD;
const NOFOLLOW: i32 = libc::AT_SYMLINK_NOFOLLOW;

impl Process {
    /// Runs a call.
    pub(super) fn dispatch(&mut self, sys: Sys, c: &mut Call<'_>) -> Outcome {
        match sys {
            Sys::Exit | Sys::ExitGroup => self.exit(c),
            Sys::RtSigreturn => self.sigreturn(c, true),
            Sys::Sigreturn => self.sigreturn(c, false),
            Sys::Fork => self.plain_fork(c, false),
            Sys::Vfork => self.plain_fork(c, true),
            Sys::Clone => self.clone_process(c),
            Sys::Execve => {
                let [path, args, env, ..] = c.args;
                self.execve(c, CWD, path, args, env, 0)
            }
            Sys::Execveat => {
                let [_, path, args, env, ..] = c.args;
                self.execve(c, c.int(0), path, args, env, c.int(4))
            }
            _ => self.value(sys, c).into(),
        }
    }

    /// Calls that answer a value.
    fn value(&mut self, sys: Sys, c: &mut Call<'_>) -> SysResult {
        if let Some(result) = self.on_files(sys, c) {
            return result;
        }
        if let Some(result) = self.on_process(sys, c) {
            return result;
        }
        let layout = if c.abi.is_64() {
            Layout::Long
        } else {
            Layout::Short
        };
        match sys {
            // Memory.
            Sys::Brk => self.brk(c),
            Sys::Mmap if c.abi.is_64() => {
                let [a, l, p, f, fd, offset] = c.args;
                self.mmap(c, [a, l, p, f, fd], offset)
            }
            Sys::Mmap => self.old_mmap(c),
            Sys::Mmap2 => {
                let [a, l, p, f, fd, offset] = c.args;
                self.mmap(c, [a, l, p, f, fd], offset << 12)
            }
            Sys::Munmap => self.munmap(c),
            Sys::Mprotect => self.mprotect(c),
            Sys::Mremap => self.mremap(c),
            Sys::Madvise => self.madvise(c),
            Sys::Msync => self.msync(c),
            Sys::Mincore => self.mincore(c),
            Sys::Mlock | Sys::Mlock2 | Sys::Munlock | Sys::Mlockall | Sys::Munlockall => Ok(0),

            // Signals.
            Sys::RtSigaction => self.rt_sigaction(c),
            Sys::Sigaction => self.old_sigaction(c),
            Sys::Signal => self.old_signal(c),
            Sys::RtSigprocmask => self.sigprocmask(c, false),
            Sys::Sigprocmask => self.sigprocmask(c, true),
            Sys::RtSigpending => self.sigpending(c, c.args[1]),
            Sys::Sigpending => self.sigpending(c, 4),
            Sys::RtSigsuspend => {
                let mask = c.mask(c.args[0], c.args[1])?;
                self.sigsuspend(mask)
            }
            Sys::Sigsuspend => self.sigsuspend(c.args[2]),
            Sys::RtSigtimedwait => {
                let t = c.optional_timespec(c.args[2], Native)?;
                self.sigtimedwait(c, t)
            }
            Sys::RtSigtimedwaitTime64 => {
                let t = c.optional_timespec(c.args[2], Wide)?;
                self.sigtimedwait(c, t)
            }
            Sys::RtSigqueueinfo => self.sigqueueinfo(c),
            Sys::Sigaltstack => self.sigaltstack(c),
            Sys::Pause => self.pause(),
            Sys::Kill => {
                let (pid, n) = (c.int(0), c.int(1));
                let args = [pid as u64, n as u64, 0, 0, 0, 0];
                self.kill(libc::SYS_kill, pid, args, n)
            }
            Sys::Tkill => {
                let (tid, n) = (c.int(0), c.int(1));
                let args = [tid as u64, n as u64, 0, 0, 0, 0];
                self.kill(libc::SYS_tkill, tid, args, n)
            }
            Sys::Tgkill => {
                let (group, tid, n) = (c.int(0), c.int(1), c.int(2));
                let args = [group as u64, tid as u64, n as u64, 0, 0, 0];
                self.kill(libc::SYS_tgkill, tid, args, n)
            }

            // Time.
            Sys::Time => self.time(c),
            Sys::Gettimeofday => self.gettimeofday(c),
            Sys::ClockGettime => self.clock_get(c, false, Native),
            Sys::ClockGettime64 => self.clock_get(c, false, Wide),
            Sys::ClockGetres => self.clock_get(c, true, Native),
            Sys::ClockGetresTime64 => self.clock_get(c, true, Wide),
            Sys::ClockSettime => self.clock_settime(c, Native),
            Sys::ClockSettime64 => self.clock_settime(c, Wide),
            Sys::Nanosleep => self.sleep(c, libc::CLOCK_MONOTONIC, 0, 0, Native),
            Sys::ClockNanosleep => self.sleep(c, c.int(0), c.int(1), 2, Native),
            Sys::ClockNanosleepTime64 => self.sleep(c, c.int(0), c.int(1), 2, Wide),
            Sys::Times => self.times(c),
            Sys::Alarm => self.alarm(c),
            Sys::Setitimer => self.setitimer(c),
            Sys::Getitimer => self.getitimer(c),
            Sys::TimerfdCreate => self.timerfd_create(c),
            Sys::TimerfdSettime => self.timerfd_settime(c, Native),
            Sys::TimerfdSettime64 => self.timerfd_settime(c, Wide),
            Sys::TimerfdGettime => self.timerfd_gettime(c, Native),
            Sys::TimerfdGettime64 => self.timerfd_gettime(c, Wide),

            // Waiting for descriptors.
            Sys::Poll => {
                let timeout = poll::millis(c.int(2));
                self.poll(c, timeout, None)
            }
            Sys::Ppoll | Sys::PpollTime64 => {
                let width = if sys == Sys::Ppoll { Native } else { Wide };
                let timeout = c.optional_timespec(c.args[2], width)?;
                let mask = c.optional_mask(c.args[3], c.args[4])?;
                self.poll(c, timeout, mask)
            }
            Sys::Select if !c.abi.is_64() => self.old_select(c),
            Sys::Select | Sys::Newselect => {
                let timeout = poll::select_timeout(c, None)?;
                self.select(c, timeout, None)
            }
            Sys::Pselect6 | Sys::Pselect6Time64 => {
                let width = if sys == Sys::Pselect6 { Native } else { Wide };
                let timeout = poll::select_timeout(c, Some(width))?;
                let mask = self.select_mask(c)?;
                self.select(c, timeout, mask)
            }
            Sys::EpollCreate => self.epoll_create(0),
            Sys::EpollCreate1 => self.epoll_create(c.int(0)),
            Sys::EpollCtl => self.epoll_ctl(c),
            Sys::EpollWait => self.epoll_wait(c, None),
            Sys::EpollPwait => {
                let mask = c.optional_mask(c.args[4], c.args[5])?;
                self.epoll_wait(c, mask)
            }
            Sys::Eventfd => self.eventfd(c, 0),
            Sys::Eventfd2 => self.eventfd(c, c.int(1)),

            // Threads and what belongs to them.
            Sys::ArchPrctl if c.abi.is_64() => self.arch_prctl(c),
            Sys::SetThreadArea if !c.abi.is_64() => self.set_thread_area(c),
            Sys::GetThreadArea if !c.abi.is_64() => self.get_thread_area(c),
            Sys::SetTidAddress => {
                self.clear_child_tid = c.args[0];
                Ok(u64::from(std::process::id()))
            }
            Sys::SetRobustList => {
                self.robust_list = (c.args[0], c.args[1]);
                Ok(0)
            }
            Sys::GetRobustList => {
                let (head, len) = self.robust_list;
                let mut p = super::super::abi::Pack::new(c.abi);
                p.word(head).store(c.mem(), c.args[1])?;
                let mut p = super::super::abi::Pack::new(c.abi);
                p.word(len).store(c.mem(), c.args[2])?;
                Ok(0)
            }
            Sys::Futex => self.futex(c, Native),
            Sys::FutexTime64 => self.futex(c, Wide),
            // The C library falls back to `clone`, and does without the other two.
            Sys::Clone3 | Sys::Rseq | Sys::ModifyLdt => Err(Errno(libc::ENOSYS)),

            // Sockets.
            Sys::Socketcall => self.socketcall(c),
            Sys::Socket => self.socket_call(c, libc::SYS_socket),
            Sys::Socketpair => self.socket_call(c, libc::SYS_socketpair),
            Sys::Bind => self.socket_call(c, libc::SYS_bind),
            Sys::Connect => self.socket_call(c, libc::SYS_connect),
            Sys::Listen => self.socket_call(c, libc::SYS_listen),
            Sys::Accept => self.socket_call(c, libc::SYS_accept),
            Sys::Accept4 => self.socket_call(c, libc::SYS_accept4),
            Sys::Getsockname => self.socket_call(c, libc::SYS_getsockname),
            Sys::Getpeername => self.socket_call(c, libc::SYS_getpeername),
            Sys::Sendto => self.socket_call(c, libc::SYS_sendto),
            Sys::Recvfrom => self.socket_call(c, libc::SYS_recvfrom),
            Sys::Sendmsg => self.socket_call(c, libc::SYS_sendmsg),
            Sys::Recvmsg => self.socket_call(c, libc::SYS_recvmsg),
            Sys::Shutdown => self.socket_call(c, libc::SYS_shutdown),
            Sys::Setsockopt => self.socket_call(c, libc::SYS_setsockopt),
            Sys::Getsockopt => self.socket_call(c, libc::SYS_getsockopt),

            // The rest.
            Sys::Uname => self.uname(c),
            Sys::Sysinfo => self.sysinfo(c),
            Sys::Getrandom => self.getrandom(c),
            Sys::Prctl => self.prctl(c),
            Sys::Getcpu => self.getcpu(c),
            Sys::Personality => self.personality(c),
            Sys::Capget => self.capget(c),
            Sys::Stat => self.stat(c, CWD, 0, 0, layout),
            Sys::Lstat => self.stat(c, CWD, 0, NOFOLLOW, layout),
            Sys::Fstat => self.fstat(c, layout),
            _ => {
                let nr = sys.number(c.abi).unwrap_or(u32::MAX);
                self.report_missing(c.abi, u64::from(nr), sys.name());
                Err(Errno(libc::ENOSYS))
            }
        }
    }

    /// Files and descriptors.
    fn on_files(&mut self, sys: Sys, c: &mut Call<'_>) -> Option<SysResult> {
        let a = c.args;
        Some(match sys {
            Sys::Read => self.transfer(c, true),
            Sys::Write => self.transfer(c, false),
            Sys::Pread64 => self.transfer_at(c, true),
            Sys::Pwrite64 => self.transfer_at(c, false),
            Sys::Readv => self.transfer_vector(c, true, false),
            Sys::Writev => self.transfer_vector(c, false, false),
            Sys::Preadv => self.transfer_vector(c, true, true),
            Sys::Pwritev => self.transfer_vector(c, false, true),
            Sys::Lseek => self.lseek(c),
            Sys::Llseek => self.llseek(c),
            Sys::Sendfile => self.sendfile(c, c.abi.is_64()),
            Sys::Sendfile64 => self.sendfile(c, true),
            Sys::CopyFileRange => self.copy_file_range(c),
            Sys::Fsync => self.on_descriptor(c, libc::SYS_fsync),
            Sys::Fdatasync => self.on_descriptor(c, libc::SYS_fdatasync),
            Sys::Syncfs => self.on_descriptor(c, libc::SYS_syncfs),
            Sys::Sync => {
                // SAFETY: plain call.
                unsafe { libc::sync() };
                Ok(0)
            }
            Sys::Ftruncate => self.ftruncate(c, false),
            Sys::Ftruncate64 => self.ftruncate(c, true),
            Sys::Truncate => self.truncate(c, false),
            Sys::Truncate64 => self.truncate(c, true),
            Sys::Fallocate => self.fallocate(c),
            Sys::Fadvise64 | Sys::Fadvise6464 => self.fadvise(c),

            Sys::Open => self.open(c, CWD, a[0], c.int(1), a[2]),
            Sys::Openat => self.open(c, c.int(0), a[1], c.int(2), a[3]),
            Sys::Openat2 => self.openat2(c),
            Sys::Creat => {
                let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
                self.open(c, CWD, a[0], flags, a[1])
            }
            Sys::Close => self.close(c),
            Sys::CloseRange => self.close_range(c),
            Sys::Dup => self.dup(c),
            Sys::Dup2 => self.dup_to(c, None),
            Sys::Dup3 => self.dup_to(c, Some(c.int(2))),
            Sys::Pipe => self.pipe(c, 0),
            Sys::Pipe2 => self.pipe(c, c.int(1)),
            Sys::Fcntl | Sys::Fcntl64 => self.fcntl(c),
            Sys::Flock => self.flock(c),
            Sys::Ioctl => self.ioctl(c),

            Sys::Stat64 => self.stat(c, CWD, 0, 0, Layout::Wide),
            Sys::Lstat64 => self.stat(c, CWD, 0, NOFOLLOW, Layout::Wide),
            Sys::Fstat64 => self.fstat(c, Layout::Wide),
            Sys::Fstatat64 => self.stat(c, c.int(0), 1, c.int(3), Layout::Wide),
            Sys::Newfstatat => self.stat(c, c.int(0), 1, c.int(3), Layout::Long),
            Sys::Statx => self.statx(c),
            Sys::Statfs => self.statfs(c, true, false),
            Sys::Fstatfs => self.statfs(c, false, false),
            Sys::Statfs64 => self.statfs(c, true, true),
            Sys::Fstatfs64 => self.statfs(c, false, true),
            Sys::Access => self.access(c, CWD, 0, 0),
            Sys::Faccessat => self.access(c, c.int(0), 1, 0),
            Sys::Faccessat2 => self.access(c, c.int(0), 1, c.int(3)),

            Sys::Getdents => self.getdents(c, false),
            Sys::Getdents64 => self.getdents(c, true),
            Sys::Getcwd => self.getcwd(c),
            Sys::Chdir => self.on_plain_path(c, libc::SYS_chdir, [0, 0]),
            Sys::Chroot => self.on_plain_path(c, libc::SYS_chroot, [0, 0]),
            Sys::Fchdir => self.on_descriptor(c, libc::SYS_fchdir),
            Sys::Mkdir => self.on_path(c, libc::SYS_mkdirat, CWD, 0, [a[1], 0, 0]),
            Sys::Mkdirat => self.on_path(c, libc::SYS_mkdirat, c.int(0), 1, [a[2], 0, 0]),
            Sys::Mknod => self.on_path(c, libc::SYS_mknodat, CWD, 0, [a[1], a[2], 0]),
            Sys::Mknodat => self.on_path(c, libc::SYS_mknodat, c.int(0), 1, [a[2], a[3], 0]),
            Sys::Rmdir => {
                let flags = libc::AT_REMOVEDIR as u64;
                self.on_path(c, libc::SYS_unlinkat, CWD, 0, [flags, 0, 0])
            }
            Sys::Unlink => self.on_path(c, libc::SYS_unlinkat, CWD, 0, [0; 3]),
            Sys::Unlinkat => self.on_path(c, libc::SYS_unlinkat, c.int(0), 1, [a[2], 0, 0]),
            Sys::Rename => self.on_two_paths(c, libc::SYS_renameat2, (CWD, 0), (CWD, 1), 0),
            Sys::Renameat | Sys::Renameat2 => {
                let flags = if sys == Sys::Renameat2 { a[4] } else { 0 };
                let (from, to) = ((c.int(0), 1), (c.int(2), 3));
                self.on_two_paths(c, libc::SYS_renameat2, from, to, flags)
            }
            Sys::Link => self.on_two_paths(c, libc::SYS_linkat, (CWD, 0), (CWD, 1), 0),
            Sys::Linkat => {
                let (from, to) = ((c.int(0), 1), (c.int(2), 3));
                self.on_two_paths(c, libc::SYS_linkat, from, to, a[4])
            }
            Sys::Symlink => self.symlink(c, CWD, 1),
            Sys::Symlinkat => self.symlink(c, c.int(1), 2),
            Sys::Readlink => self.readlink(c, CWD, 0),
            Sys::Readlinkat => self.readlink(c, c.int(0), 1),
            Sys::Chmod => self.on_path(c, libc::SYS_fchmodat, CWD, 0, [a[1], 0, 0]),
            Sys::Fchmodat => self.on_path(c, libc::SYS_fchmodat, c.int(0), 1, [a[2], 0, 0]),
            Sys::Fchmod => self.fd(c.int(0)).and_then(|fd| {
                // SAFETY: plain values.
                check(unsafe { libc::fchmod(fd, a[1] as u32) })
            }),
            Sys::Chown | Sys::Lchown | Sys::Chown32 | Sys::Lchown32 => {
                let follow = matches!(sys, Sys::Chown | Sys::Chown32);
                let flags = if follow { 0 } else { NOFOLLOW as u64 };
                let short = c.abi == Abi::I386 && matches!(sys, Sys::Chown | Sys::Lchown);
                let id = |v| if short { wide_id(v) } else { v };
                let ids = [id(a[1]), id(a[2]), flags];
                self.on_path(c, libc::SYS_fchownat, CWD, 0, ids)
            }
            Sys::Fchownat => {
                let rest = [a[2], a[3], a[4]];
                self.on_path(c, libc::SYS_fchownat, c.int(0), 1, rest)
            }
            Sys::Fchown | Sys::Fchown32 => self.fd(c.int(0)).and_then(|fd| {
                let short = c.abi == Abi::I386 && sys == Sys::Fchown;
                let id = |v| if short { wide_id(v) } else { v };
                // SAFETY: plain values.
                check(unsafe { libc::fchown(fd, id(a[1]) as u32, id(a[2]) as u32) })
            }),
            // SAFETY: plain value.
            Sys::Umask => Ok(u64::from(unsafe { libc::umask(a[0] as u32) })),
            Sys::Utime => self.utimes(c, CWD, 0, true),
            Sys::Utimes => self.utimes(c, CWD, 0, false),
            Sys::Futimesat => self.utimes(c, c.int(0), 1, false),
            Sys::Utimensat => self.utimensat(c, Native),
            Sys::UtimensatTime64 => self.utimensat(c, Wide),
            // Extended attributes: none here. The callers take that well.
            Sys::Getxattr | Sys::Lgetxattr | Sys::Fgetxattr => Err(Errno(libc::EOPNOTSUPP)),
            Sys::Listxattr | Sys::Llistxattr | Sys::Flistxattr => Err(Errno(libc::EOPNOTSUPP)),
            Sys::Setxattr | Sys::Lsetxattr | Sys::Fsetxattr => Err(Errno(libc::EOPNOTSUPP)),
            _ => return None,
        })
    }

    /// Processes, identities, limits, scheduling.
    fn on_process(&mut self, sys: Sys, c: &mut Call<'_>) -> Option<SysResult> {
        let short = c.abi == Abi::I386;
        let host = |nr: i64, args: [u64; 6]| {
            // SAFETY: only calls that take plain values come here.
            unsafe { host_call(nr, args) }
        };
        let int = |n: usize| c.int(n) as u64;
        let none = [0; 6];
        // i386's first identity calls have 16-bit numbers.
        let id = |v: u64| if short { wide_id(v) } else { v & 0xffff_ffff };
        let id32 = |v: u64| v & 0xffff_ffff;
        let shorten = |r: SysResult| {
            if short {
                r.map(|v| u64::from(super::stat::short_id(v as u32)))
            } else {
                r
            }
        };
        let a = c.args;
        Some(match sys {
            Sys::Getpid | Sys::Gettid => Ok(u64::from(std::process::id())),
            Sys::Getppid => host(libc::SYS_getppid, none),
            Sys::Getuid => shorten(host(libc::SYS_getuid, none)),
            Sys::Geteuid => shorten(host(libc::SYS_geteuid, none)),
            Sys::Getgid => shorten(host(libc::SYS_getgid, none)),
            Sys::Getegid => shorten(host(libc::SYS_getegid, none)),
            Sys::Getuid32 => host(libc::SYS_getuid, none),
            Sys::Geteuid32 => host(libc::SYS_geteuid, none),
            Sys::Getgid32 => host(libc::SYS_getgid, none),
            Sys::Getegid32 => host(libc::SYS_getegid, none),
            Sys::Setuid => host(libc::SYS_setuid, [id(a[0]), 0, 0, 0, 0, 0]),
            Sys::Setgid => host(libc::SYS_setgid, [id(a[0]), 0, 0, 0, 0, 0]),
            Sys::Setreuid => host(libc::SYS_setreuid, [id(a[0]), id(a[1]), 0, 0, 0, 0]),
            Sys::Setregid => host(libc::SYS_setregid, [id(a[0]), id(a[1]), 0, 0, 0, 0]),
            Sys::Setresuid => host(libc::SYS_setresuid, [id(a[0]), id(a[1]), id(a[2]), 0, 0, 0]),
            Sys::Setresgid => host(libc::SYS_setresgid, [id(a[0]), id(a[1]), id(a[2]), 0, 0, 0]),
            Sys::Setuid32 => host(libc::SYS_setuid, [id32(a[0]), 0, 0, 0, 0, 0]),
            Sys::Setgid32 => host(libc::SYS_setgid, [id32(a[0]), 0, 0, 0, 0, 0]),
            Sys::Setreuid32 => host(libc::SYS_setreuid, [id32(a[0]), id32(a[1]), 0, 0, 0, 0]),
            Sys::Setregid32 => host(libc::SYS_setregid, [id32(a[0]), id32(a[1]), 0, 0, 0, 0]),
            Sys::Setresuid32 => host(
                libc::SYS_setresuid,
                [id32(a[0]), id32(a[1]), id32(a[2]), 0, 0, 0],
            ),
            Sys::Setresgid32 => host(
                libc::SYS_setresgid,
                [id32(a[0]), id32(a[1]), id32(a[2]), 0, 0, 0],
            ),
            Sys::Setfsuid | Sys::Setfsuid32 => {
                host(libc::SYS_setfsuid, [id32(a[0]), 0, 0, 0, 0, 0])
            }
            Sys::Setfsgid | Sys::Setfsgid32 => {
                host(libc::SYS_setfsgid, [id32(a[0]), 0, 0, 0, 0, 0])
            }
            Sys::Getresuid => self.get_three_ids(c, libc::SYS_getresuid, short),
            Sys::Getresgid => self.get_three_ids(c, libc::SYS_getresgid, short),
            Sys::Getresuid32 => self.get_three_ids(c, libc::SYS_getresuid, false),
            Sys::Getresgid32 => self.get_three_ids(c, libc::SYS_getresgid, false),
            Sys::Getgroups => self.getgroups(c, short),
            Sys::Getgroups32 => self.getgroups(c, false),
            Sys::Setpgid => host(libc::SYS_setpgid, [int(0), int(1), 0, 0, 0, 0]),
            Sys::Getpgid => host(libc::SYS_getpgid, [int(0), 0, 0, 0, 0, 0]),
            Sys::Getpgrp => host(libc::SYS_getpgid, none),
            Sys::Setsid => host(libc::SYS_setsid, none),
            Sys::Getsid => host(libc::SYS_getsid, [int(0), 0, 0, 0, 0, 0]),
            Sys::Wait4 => self.wait4(c, a[3]),
            Sys::Waitpid => self.wait4(c, 0),
            Sys::Waitid => self.waitid(c),
            Sys::Getrusage => self.getrusage(c),
            Sys::Getrlimit | Sys::Ugetrlimit => self.getrlimit(c),
            Sys::Setrlimit => self.setrlimit(c),
            Sys::Prlimit64 => self.prlimit(c),
            Sys::SchedYield => host(libc::SYS_sched_yield, none),
            Sys::SchedGetaffinity => self.sched_getaffinity(c),
            Sys::SchedSetaffinity => self.sched_setaffinity(c),
            Sys::SchedGetscheduler => host(libc::SYS_sched_getscheduler, [int(0), 0, 0, 0, 0, 0]),
            Sys::SchedSetscheduler => self.sched_param(c, libc::SYS_sched_setscheduler, 2, false),
            Sys::SchedGetparam => self.sched_param(c, libc::SYS_sched_getparam, 1, true),
            Sys::SchedSetparam => self.sched_param(c, libc::SYS_sched_setparam, 1, false),
            Sys::SchedGetPriorityMax => {
                host(libc::SYS_sched_get_priority_max, [int(0), 0, 0, 0, 0, 0])
            }
            Sys::SchedGetPriorityMin => {
                host(libc::SYS_sched_get_priority_min, [int(0), 0, 0, 0, 0, 0])
            }
            Sys::SchedRrGetInterval => self.sched_interval(c, Native),
            Sys::SchedRrGetIntervalTime64 => self.sched_interval(c, Wide),
            Sys::Getpriority => host(libc::SYS_getpriority, [int(0), int(1), 0, 0, 0, 0]),
            Sys::Setpriority => host(libc::SYS_setpriority, [int(0), int(1), int(2), 0, 0, 0]),
            Sys::Nice => {
                // SAFETY: plain value; -1 is a possible priority, so success is not told apart.
                let value = unsafe { libc::nice(c.int(0)) };
                if value == -1 {
                    Err(Errno(libc::EPERM))
                } else {
                    Ok(0)
                }
            }
            Sys::IoprioGet => host(libc::SYS_ioprio_get, [int(0), int(1), 0, 0, 0, 0]),
            Sys::IoprioSet => host(libc::SYS_ioprio_set, [int(0), int(1), int(2), 0, 0, 0]),
            _ => return None,
        })
    }
}
