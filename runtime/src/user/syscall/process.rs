//! Processes: fork, exec, wait, exit, identities.

use super::{Call, Errno, Outcome, Process, SysResult, check, host, host_call};
use crate::memory::GuestMemory;
use crate::user::abi::{Abi, Pack};
use crate::user::engine::Engine;
use crate::user::exec::{self, Loaded, Request};
use crate::user::segments;
use crate::user::signal::siginfo::SigInfo;
use crate::user::vfork;
use crate::vcpu::VcpuError;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;

const CLONE_VM: u64 = 0x100;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_PARENT_SETTID: u64 = 0x10_0000;
const CLONE_SETTLS: u64 = 0x8_0000;
const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
const CLONE_CHILD_SETTID: u64 = 0x100_0000;
/// Flags without meaning for a process of its own (`CLONE_DETACHED`, `CLONE_UNTRACED`).
const CLONE_NOTHING: u64 = 0x40_0000 | 0x80_0000;
/// The signal at the child's end, in the flags' low byte.
const CSIGNAL: u64 = 0xff;

/// What a fork is to do in the child.
#[derive(Clone, Copy, Debug)]
pub(in crate::user) struct ForkPlan {
    abi: Abi,
    /// Stack pointer, if not the parent's.
    stack: u64,
    /// The parent waits until the child has another program or is gone.
    vfork: bool,
    /// Where the child's number goes, in the parent.
    parent_tid: u64,
    /// Where it goes in the child.
    child_tid: u64,
    /// What is cleared at the child's end.
    clear_tid: u64,
    /// Thread-local storage: x86-64 the base, i386 a descriptor's address.
    tls: Option<u64>,
}

impl Process {
    /// `fork` and `vfork`.
    pub(super) fn plain_fork(&mut self, c: &Call<'_>, vfork: bool) -> Outcome {
        Outcome::Fork(ForkPlan {
            abi: c.abi,
            stack: 0,
            vfork,
            parent_tid: 0,
            child_tid: 0,
            clear_tid: 0,
            tls: None,
        })
    }

    /// `clone`, as far as the child is a process with memory of its own. What shares memory and
    /// waits (`posix_spawn`) is a `vfork`.
    pub(super) fn clone_process(&mut self, c: &Call<'_>) -> Outcome {
        let [flags, stack, parent_tid, fourth, fifth, _] = c.args;
        let (child_tid, tls) = match c.abi {
            Abi::X86_64 => (fourth, fifth),
            Abi::I386 => (fifth, fourth),
        };
        let known = CSIGNAL
            | CLONE_VM
            | CLONE_VFORK
            | CLONE_PARENT_SETTID
            | CLONE_SETTLS
            | CLONE_CHILD_CLEARTID
            | CLONE_CHILD_SETTID
            | CLONE_NOTHING;
        let vfork = flags & CLONE_VFORK != 0;
        if flags & !known != 0 || (flags & CLONE_VM != 0 && !vfork) {
            self.report_missing(c.abi, 1 << 32 | flags, "clone with threads or namespaces");
            return Err(Errno(libc::EAGAIN)).into();
        }
        let when = |flag: u64, value: u64| if flags & flag != 0 { value } else { 0 };
        Outcome::Fork(ForkPlan {
            abi: c.abi,
            stack,
            vfork,
            parent_tid: when(CLONE_PARENT_SETTID, parent_tid),
            child_tid: when(CLONE_CHILD_SETTID, child_tid),
            clear_tid: when(CLONE_CHILD_CLEARTID, child_tid),
            tls: (flags & CLONE_SETTLS != 0).then_some(tls),
        })
    }

    /// Forks: in the child everything is copied but the engine's threads.
    pub(super) fn fork<E: Engine>(
        &mut self,
        engine: &mut E,
        plan: &ForkPlan,
    ) -> Result<SysResult, VcpuError> {
        let (cpu, _) = engine.parts();
        let sp = cpu.gpr[4];
        let line = if plan.vfork {
            vfork::line(sp).ok()
        } else {
            None
        };
        engine.before_fork()?;
        // Nothing may be recorded between the two processes' states.
        let pid = host::with_signals_blocked(|| {
            // SAFETY: the engine has no other thread now.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                self.signals.forget_pending();
            }
            pid
        });
        if pid < 0 {
            return Ok(Err(Errno::last()));
        }
        if pid > 0 {
            if let Some((child, parent)) = line {
                drop(parent);
                let (_, env) = engine.parts();
                child.wait(&env.memory);
            }
            if plan.parent_tid != 0 {
                let (_, env) = engine.parts();
                let bytes = pid.to_le_bytes();
                // The kernel does not tell either if it cannot write there.
                let _ = env.memory.write_bytes(plan.parent_tid, &bytes);
            }
            return Ok(Ok(pid as u64));
        }
        self.vfork_parent = line.map(|(_, parent)| parent);
        engine.after_fork_in_child()?;
        host::set_attention(engine.attention());
        self.clear_child_tid = plan.clear_tid;
        self.robust_list = (0, 0);
        let (cpu, env) = engine.parts();
        if plan.stack != 0 {
            cpu.gpr[4] = plan.stack;
        }
        if plan.child_tid != 0 {
            let pid = std::process::id();
            let _ = env.memory.write_bytes(plan.child_tid, &pid.to_le_bytes());
        }
        match (plan.tls, plan.abi) {
            (Some(base), Abi::X86_64) => cpu.seg_base[4] = base,
            (Some(at), Abi::I386) => {
                if let Err(e) = segments::set_thread_area(env, at) {
                    tracing::warn!(target: "syscall", "clone: bad thread area: {e}");
                }
            }
            (None, _) => {}
        }
        Ok(Ok(0))
    }

    /// `execve` and `execveat`.
    pub(super) fn execve(
        &mut self,
        c: &Call<'_>,
        dir: i32,
        path: u64,
        args: u64,
        env: u64,
        flags: i32,
    ) -> Outcome {
        match self.load_program(c, dir, path, args, env, flags) {
            Ok(program) => Outcome::Exec(Box::new(program)),
            Err(e) => Err(e).into(),
        }
    }

    fn load_program(
        &mut self,
        c: &Call<'_>,
        dir: i32,
        path: u64,
        args: u64,
        env: u64,
        flags: i32,
    ) -> Result<(GuestMemory, Loaded), Errno> {
        let guest = c.string_at(path)?;
        let args = strings(c, args)?;
        let env = strings(c, env)?;
        let name = if guest.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
            format!("/proc/self/fd/{}", self.fd(dir)?).into_bytes()
        } else if dir != libc::AT_FDCWD && !guest.starts_with(b"/") {
            let mut full = format!("/proc/self/fd/{}/", self.fd(dir)?).into_bytes();
            full.extend_from_slice(&guest);
            full
        } else {
            guest
        };
        let host_path = self.host_path(&name)?;
        // SAFETY: the path is a C string of ours.
        check(unsafe { libc::access(host_path.as_ptr(), libc::F_OK) })?;
        let path = std::path::PathBuf::from(std::ffi::OsString::from_vec(host_path.into_bytes()));
        if path.is_dir() {
            return Err(Errno(libc::EACCES));
        }
        let c_path = super::cstring(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))?;
        // SAFETY: as above.
        check(unsafe { libc::access(c_path.as_ptr(), libc::X_OK) })?;
        let request = Request {
            path,
            exec_path: name,
            args: if args.is_empty() {
                vec![Vec::new()]
            } else {
                args
            },
            env,
            sysroot: self.sysroot.as_deref(),
            cpu: self.cpu,
        };
        exec::load(request).map_err(|e| {
            tracing::debug!(target: "syscall", "execve: {e}");
            e.errno()
        })
    }

    /// Replaces the program by another that is in memory already.
    pub(super) fn enter_program<E: Engine>(
        &mut self,
        engine: &mut E,
        (memory, loaded): (GuestMemory, Loaded),
    ) -> Result<(), VcpuError> {
        self.close_on_exec();
        if let Some(parent) = self.vfork_parent.take() {
            let (_, env) = engine.parts();
            parent.resume(&env.memory);
        }
        self.abi = loaded.image.abi;
        engine.replace_memory(memory, self.abi)?;
        let (cpu, env) = engine.parts();
        exec::set_registers(cpu, env, &loaded.image, loaded.sp);
        self.space = loaded.space;
        self.exe = loaded.exe;
        self.args = loaded.args;
        self.clear_child_tid = 0;
        self.robust_list = (0, 0);
        self.signals.reset_for_exec();
        self.name_ourselves();
        Ok(())
    }

    /// The host's name for this process is the program's, as after a real `execve`.
    pub(in crate::user) fn name_ourselves(&self) {
        if let Some(name) = self.exe.file_name()
            && let Ok(name) = super::cstring(std::os::unix::ffi::OsStrExt::as_bytes(name))
        {
            // SAFETY: a C string of ours.
            unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
        }
    }

    /// Closes what `execve` closes, except our own descriptors.
    fn close_on_exec(&self) {
        let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
            return;
        };
        let open: Vec<i32> = entries
            .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        for fd in open {
            let ours = self.reserved_fds.contains(&fd)
                || self
                    .vfork_parent
                    .as_ref()
                    .is_some_and(|f| f.as_raw_fd() == fd);
            if ours {
                continue;
            }
            // SAFETY: plain values; the descriptors of the guest are not owned by any value.
            unsafe {
                let flags = libc::fcntl(fd, libc::F_GETFD);
                if flags >= 0 && flags & libc::FD_CLOEXEC != 0 {
                    libc::close(fd);
                }
            }
        }
    }

    /// `exit` and `exit_group`.
    pub(super) fn exit(&mut self, c: &Call<'_>) -> Outcome {
        if let Some(parent) = self.vfork_parent.take() {
            parent.resume(c.mem());
        }
        if self.clear_child_tid != 0 {
            let _ = c.mem().write_bytes(self.clear_child_tid, &[0; 4]);
        }
        Outcome::Exit(c.int(0))
    }

    /// `wait4` and `waitpid`.
    pub(super) fn wait4(&mut self, c: &Call<'_>, usage: u64) -> SysResult {
        let mut status: i32 = 0;
        // SAFETY: all zeros is a valid rusage.
        let mut r: libc::rusage = unsafe { std::mem::zeroed() };
        let args = [
            c.int(0) as u64,
            &raw mut status as u64,
            c.int(2) as u64,
            &raw mut r as u64,
            0,
            0,
        ];
        // SAFETY: status and usage are ours.
        let pid = unsafe { host::blocking(libc::SYS_wait4, args) }?;
        if pid != 0 {
            if c.args[1] != 0 {
                c.mem().write_bytes(c.args[1], &status.to_le_bytes())?;
            }
            if usage != 0 {
                pack_rusage(c.abi, &r).store(c.mem(), usage)?;
            }
        }
        Ok(pid)
    }

    /// `waitid`.
    pub(super) fn waitid(&mut self, c: &Call<'_>) -> SysResult {
        let mut raw = [0u8; 128];
        // SAFETY: all zeros is a valid rusage.
        let mut r: libc::rusage = unsafe { std::mem::zeroed() };
        let args = [
            c.int(0) as u64,
            c.int(1) as u64,
            raw.as_mut_ptr() as u64,
            c.int(3) as u64,
            &raw mut r as u64,
            0,
        ];
        // SAFETY: buffer and usage are ours.
        let result = unsafe { host::blocking(libc::SYS_waitid, args) }?;
        if c.args[2] != 0 {
            let info = SigInfo::from_host(raw).pack(c.abi);
            c.mem().write_bytes(c.args[2], &info)?;
        }
        if c.args[4] != 0 {
            pack_rusage(c.abi, &r).store(c.mem(), c.args[4])?;
        }
        Ok(result)
    }

    /// `getrusage`.
    pub(super) fn getrusage(&mut self, c: &Call<'_>) -> SysResult {
        // SAFETY: all zeros is a valid rusage.
        let mut r: libc::rusage = unsafe { std::mem::zeroed() };
        let args = [c.int(0) as u64, &raw mut r as u64, 0, 0, 0, 0];
        // SAFETY: the structure is ours.
        unsafe { host_call(libc::SYS_getrusage, args) }?;
        pack_rusage(c.abi, &r).store(c.mem(), c.args[1])?;
        Ok(0)
    }

    /// `getgroups` and i386's 16-bit form.
    pub(super) fn getgroups(&mut self, c: &Call<'_>, short: bool) -> SysResult {
        let mut groups = [0u32; 65536 / 16];
        let size = c.int(0);
        if size < 0 {
            return Err(Errno(libc::EINVAL));
        }
        let count = (size as usize).min(groups.len());
        // SAFETY: the array is ours and has room for `count`.
        let n = check(unsafe { libc::getgroups(count as i32, groups.as_mut_ptr()) })?;
        if size > 0 {
            let mut p = Pack::new(c.abi);
            for &g in &groups[..n as usize] {
                if short {
                    p.u16(super::stat::short_id(g));
                } else {
                    p.u32(g);
                }
            }
            p.store(c.mem(), c.args[1])?;
        }
        Ok(n)
    }

    /// `getresuid` and `getresgid`.
    pub(super) fn get_three_ids(&mut self, c: &Call<'_>, nr: i64, short: bool) -> SysResult {
        let mut ids = [0u32; 3];
        let p = ids.as_mut_ptr();
        let args = [
            p as u64,
            p.wrapping_add(1) as u64,
            p.wrapping_add(2) as u64,
            0,
            0,
            0,
        ];
        // SAFETY: the array is ours.
        unsafe { host_call(nr, args) }?;
        for (n, id) in ids.into_iter().enumerate() {
            if short {
                let id = super::stat::short_id(id);
                c.mem().write_bytes(c.args[n], &id.to_le_bytes())?;
            } else {
                c.mem().write_bytes(c.args[n], &id.to_le_bytes())?;
            }
        }
        Ok(0)
    }
}

/// A 16-bit user or group number as an argument: all ones means "leave it".
pub(super) fn wide_id(id: u64) -> u64 {
    match id as u16 {
        u16::MAX => u64::from(u32::MAX),
        id => u64::from(id),
    }
}

/// A null-terminated array of strings; a null pointer is an empty one.
fn strings(c: &Call<'_>, at: u64) -> Result<Vec<Vec<u8>>, Errno> {
    /// Longest single string.
    const MAX_STRING: usize = 131_072;
    let mut list = Vec::new();
    let mut total = 0;
    if at == 0 {
        return Ok(list);
    }
    let mut u = crate::user::abi::Unpack::new(c.abi, c.mem(), at);
    loop {
        let pointer = u.word()?;
        if pointer == 0 {
            return Ok(list);
        }
        let s = c
            .mem()
            .read_cstr(pointer, MAX_STRING)?
            .ok_or(Errno(libc::E2BIG))?;
        total += s.len() + 16;
        if total > 6 << 20 {
            return Err(Errno(libc::E2BIG));
        }
        list.push(s);
    }
}

fn pack_rusage(abi: Abi, r: &libc::rusage) -> Pack {
    let mut p = Pack::new(abi);
    for t in [r.ru_utime, r.ru_stime] {
        p.word(t.tv_sec as u64).word(t.tv_usec as u64);
    }
    for v in [
        r.ru_maxrss,
        r.ru_ixrss,
        r.ru_idrss,
        r.ru_isrss,
        r.ru_minflt,
        r.ru_majflt,
        r.ru_nswap,
        r.ru_inblock,
        r.ru_oublock,
        r.ru_msgsnd,
        r.ru_msgrcv,
        r.ru_nsignals,
        r.ru_nvcsw,
        r.ru_nivcsw,
    ] {
        p.word(v as u64);
    }
    p
}
