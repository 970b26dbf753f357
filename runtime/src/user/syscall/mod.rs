//! System calls: decoding a call, running it, giving its answer.
//!
//! The handlers are methods of [`Process`] in the files by area; `dispatch.rs` says which is
//! whose. They take the call's arguments in a [`Call`] and never touch host memory by a guest's
//! pointer.

mod descriptors;
mod dispatch;
mod files;
mod io;
mod ioctl;
mod memory;
mod misc;
mod poll;
mod process;
mod signals;
mod socket;
mod stat;
pub mod table;
#[cfg(test)]
mod tests;
mod threads;
mod time;

use super::abi::{Abi, Errno, SysResult, check};
use super::engine::Engine;
use super::signal::frame32::AT_SYSENTER_RETURN;
use super::signal::{Restart, host};
use super::{Process, paths};
use crate::env::Env;
use crate::memory::{GuestMemory, PAGE};
use crate::state::CpuState;
use crate::vcpu::VcpuError;
use metaphrase_ir::SyscallKind;
use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use table::Sys;

/// What becomes of the guest after a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// It goes on; a signal may have interrupted the call.
    Done(Option<Restart>),
    /// It exits.
    Exit(i32),
    /// It dies by a signal.
    Killed(i32),
}

/// What a handler answers.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A value for RAX.
    Value(SysResult),
    /// The registers are set already.
    Registers,
    /// It exits.
    Exit(i32),
    /// It dies by a signal.
    Killed(i32),
    /// A fork, to be done with the engine.
    Fork(process::ForkPlan),
    /// Another program, to be started with the engine.
    Exec(Box<(GuestMemory, super::exec::Loaded)>),
}

impl From<SysResult> for Outcome {
    fn from(result: SysResult) -> Outcome {
        Outcome::Value(result)
    }
}

/// A system call in progress.
pub(super) struct Call<'a> {
    /// By whose rules.
    pub abi: Abi,
    /// The arguments; i386 has 32-bit ones, zero-extended.
    pub args: [u64; 6],
    /// The registers.
    pub cpu: &'a mut CpuState,
    /// Their surroundings.
    pub env: &'a mut Env,
}

/// Longest path that Linux takes, with its 0.
const PATH_MAX: usize = 4096;

impl Call<'_> {
    /// Guest memory.
    pub fn mem(&self) -> &GuestMemory {
        &self.env.memory
    }

    /// Argument `n` as an int.
    pub fn int(&self, n: usize) -> i32 {
        self.args[n] as i32
    }

    /// Argument `n` as a signed long.
    pub fn long(&self, n: usize) -> i64 {
        if self.abi.is_64() {
            self.args[n] as i64
        } else {
            i64::from(self.args[n] as i32)
        }
    }

    /// A 64-bit offset: one argument on x86-64, two (low, high) on i386.
    pub fn offset(&self, n: usize) -> i64 {
        if self.abi.is_64() {
            self.args[n] as i64
        } else {
            (self.args[n] & 0xffff_ffff | self.args[n + 1] << 32) as i64
        }
    }

    /// The string at argument `n`.
    pub fn string(&self, n: usize) -> Result<Vec<u8>, Errno> {
        self.string_at(self.args[n])
    }

    /// The string at an address, at most as long as a path.
    pub fn string_at(&self, at: u64) -> Result<Vec<u8>, Errno> {
        self.mem()
            .read_cstr(at, PATH_MAX)?
            .ok_or(Errno(libc::ENAMETOOLONG))
    }

    /// A buffer as far as the guest may access it: a range that becomes bad further on is cut,
    /// one whose first byte is bad is an error.
    pub fn buffer(&self, at: u64, len: u64, write: bool) -> Result<(*mut u8, usize), Errno> {
        // No call transfers more than this at once.
        let len = len.min(0x7fff_f000);
        match self.mem().host_ptr(at, len, write) {
            Ok(p) => Ok((p, len as usize)),
            Err(fault) => {
                let good = fault.addr.wrapping_sub(at);
                if good == 0 || good >= len {
                    return Err(fault.into());
                }
                Ok((self.mem().host_ptr(at, good, write)?, good as usize))
            }
        }
    }

    /// A buffer that must be good as a whole.
    pub fn exact(&self, at: u64, len: u64, write: bool) -> Result<*mut u8, Errno> {
        Ok(self.mem().host_ptr(at, len, write)?)
    }
}

/// A host system call that does not wait.
///
/// # Safety
/// As for the call.
pub(super) unsafe fn host_call(nr: i64, a: [u64; 6]) -> SysResult {
    // SAFETY: as for the caller.
    check(unsafe { libc::syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]) })
}

impl Process {
    /// Decodes and runs the call that the registers hold, and puts the answer there.
    pub(super) fn system_call<E: Engine>(
        &mut self,
        engine: &mut E,
        kind: SyscallKind,
    ) -> Result<Flow, VcpuError> {
        let (cpu, env) = engine.parts();
        let again = self.call_site(cpu, kind);
        let (abi, nr, args) = match decode(cpu, env, kind) {
            Ok(call) => call,
            Err(errno) => {
                cpu.gpr[0] = -i64::from(errno.0) as u64 & 0xffff_ffff;
                return Ok(Flow::Done(None));
            }
        };
        let mut call = Call {
            abi,
            args,
            cpu,
            env,
        };
        let sys = Sys::from_number(abi, nr);
        let outcome = match sys {
            Some(sys) => self.dispatch(sys, &mut call),
            None => {
                self.report_missing(abi, nr, "unknown");
                Err(Errno(libc::ENOSYS)).into()
            }
        };
        let name = sys.map_or("unknown", Sys::name);
        let result = match outcome {
            Outcome::Value(result) => result,
            Outcome::Registers => return Ok(Flow::Done(None)),
            Outcome::Exit(status) => {
                tracing::debug!(target: "syscall", "{name}({status})");
                return Ok(Flow::Exit(status));
            }
            Outcome::Killed(signal) => return Ok(Flow::Killed(signal)),
            Outcome::Fork(plan) => self.fork(engine, &plan)?,
            Outcome::Exec(program) => {
                self.enter_program(engine, *program)?;
                tracing::debug!(target: "syscall", "{name} = 0, {}", self.exe.display());
                return Ok(Flow::Done(None));
            }
        };
        log(name, &args, result);
        let (cpu, _) = engine.parts();
        let value = match result {
            Ok(value) => value,
            Err(e) if e.is_restart() => {
                return Ok(Flow::Done(Some(Restart {
                    mark: e,
                    number: nr,
                    rip: again,
                })));
            }
            Err(e) => -i64::from(e.0) as u64,
        };
        cpu.gpr[0] = if abi.is_64() {
            value
        } else {
            value & 0xffff_ffff
        };
        Ok(Flow::Done(None))
    }

    /// Where the call can be made again. SYSENTER has no return address: it always returns to the
    /// trampoline page, with the stack pointer that the caller left in EBP.
    fn call_site(&self, cpu: &mut CpuState, kind: SyscallKind) -> u64 {
        if kind == SyscallKind::Sysenter {
            let back = self.space.layout.trampoline + AT_SYSENTER_RETURN;
            cpu.rip = back;
            cpu.gpr[4] = cpu.gpr[5] & 0xffff_ffff;
        }
        // SYSCALL and INT 0x80 are two bytes long.
        cpu.rip.wrapping_sub(2)
    }

    /// Logs, once, that a call is missing.
    pub(super) fn report_missing(&mut self, abi: Abi, nr: u64, name: &str) {
        if self.reported.insert((abi, nr)) {
            let abi = abi.machine();
            tracing::warn!(target: "syscall", "{abi} system call {nr} ({name}) is not implemented");
        }
    }

    /// The host path of a guest path, ready for a libc call. The executable's link in `/proc` is
    /// followed here, because the host's is ours.
    pub(super) fn host_path(&self, guest: &[u8]) -> Result<CString, Errno> {
        if paths::own(guest) == Some(paths::Own::Exe) {
            return cstring(self.exe.as_os_str().as_bytes());
        }
        if self.sysroot.is_none() {
            return cstring(guest);
        }
        let path = paths::to_host(self.sysroot.as_deref(), guest);
        cstring(path.as_os_str().as_bytes())
    }

    /// The host path for the string at argument `n`.
    pub(super) fn path_arg(&self, c: &Call<'_>, n: usize) -> Result<CString, Errno> {
        self.host_path(&c.string(n)?)
    }

    /// A descriptor that the guest may use.
    pub(super) fn fd(&self, fd: i32) -> Result<i32, Errno> {
        let vfork = self.vfork_parent.as_ref().map(AsRawFd::as_raw_fd);
        if self.reserved_fds.contains(&fd) || vfork == Some(fd) {
            return Err(Errno(libc::EBADF));
        }
        Ok(fd)
    }

    /// Runs a call that waits with another signal mask, as `ppoll` and its like do.
    pub(super) fn with_mask(
        &mut self,
        mask: Option<host::Mask>,
        f: impl FnOnce(*const host::Mask) -> SysResult,
    ) -> SysResult {
        let Some(mask) = mask else {
            return f(std::ptr::null());
        };
        if self.signals.pending_mask() & !mask != 0 {
            self.signals.saved_mask = Some(self.signals.mask);
            self.signals.mask = mask;
            return Err(Errno::RESTART_NO_HANDLER);
        }
        let on_host = host::host_mask(mask);
        match f(&on_host) {
            Err(e) if e.is_restart() => {
                // The signal is delivered under the new mask, and its handler returns to the old.
                self.signals.saved_mask = Some(self.signals.mask);
                self.signals.mask = mask;
                Err(Errno::RESTART_NO_HANDLER)
            }
            result => result,
        }
    }
}

fn cstring(bytes: &[u8]) -> Result<CString, Errno> {
    CString::new(bytes).map_err(|_| Errno(libc::EINVAL))
}

/// The call in the registers: ABI, number, arguments.
fn decode(cpu: &CpuState, env: &Env, kind: SyscallKind) -> Result<(Abi, u64, [u64; 6]), Errno> {
    let g = &cpu.gpr;
    if kind == SyscallKind::Syscall {
        return Ok((Abi::X86_64, g[0], [g[7], g[6], g[2], g[10], g[8], g[9]]));
    }
    let low = |n: usize| g[n] & 0xffff_ffff;
    // With SYSENTER, EBP points to the caller's EBP on the stack, which is the sixth argument.
    let sixth = if kind == SyscallKind::Sysenter {
        u64::from(env.memory.read::<u32>(low(5))?)
    } else {
        low(5)
    };
    let args = [low(3), low(1), low(2), low(6), low(7), sixth];
    Ok((Abi::I386, low(0), args))
}

fn log(name: &str, args: &[u64; 6], result: SysResult) {
    let [a, b, c, d, e, f] = args;
    match result {
        Ok(value) => tracing::debug!(
            target: "syscall",
            "{name}({a:#x}, {b:#x}, {c:#x}, {d:#x}, {e:#x}, {f:#x}) = {value:#x}"
        ),
        Err(error) => tracing::debug!(
            target: "syscall",
            "{name}({a:#x}, {b:#x}, {c:#x}, {d:#x}, {e:#x}, {f:#x}) = -{} ({error})",
            error.0
        ),
    }
}

/// Rounds up to whole pages, as lengths of mappings are.
pub(super) fn pages(len: u64) -> Option<u64> {
    Some(len.checked_add(PAGE - 1)? & !(PAGE - 1))
}
