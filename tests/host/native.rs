//! The oracle: executes one guest instruction on the host CPU and says what it did.
//!
//! A forked child does it, so that nothing the instruction writes and no signal it raises can
//! touch the test. In the child everything happens in one signal handler. It copies the state out
//! of the signal frame into the case's [`Outcome`], writes the next case's registers (RSP, RIP, CS
//! and SS among them) into the frame, and returns: the kernel's `rt_sigreturn` loads them all, the
//! instruction runs, and whatever stops it (the INT3 behind it, or a fault) is the next signal.
//! The kernel does not mind a return to 32-bit code (CS 0x23) or to a 16-bit segment of the LDT.
//!
//! Cases travel in batches through shared memory; two pipes tell whose turn it is. The child makes
//! no call that needs thread-local storage once it runs: FS belongs to the cases.

use super::case::*;
use std::io;
use std::ptr::{addr_of_mut, null_mut};

/// Cases in one batch.
pub const BATCH: usize = 2048;

const USER_CS32: u64 = 0x23;
const USER_CS64: u64 = 0x33;
const USER_DS: u64 = 0x2b;
/// Selector of LDT entry `n` at privilege 3.
const fn ldt(n: u64) -> u64 {
    n << 3 | 7
}
const LDT_CODE16: u64 = ldt(0);
const LDT_DS16: u64 = ldt(1);
const LDT_ES16: u64 = ldt(2);
const LDT_SS16: u64 = ldt(3);
const LDT_FS: u64 = ldt(4);
const LDT_GS: u64 = ldt(5);

/// What parent and child share.
#[repr(C)]
struct Shared {
    /// Cases in this batch; all have the same mode.
    count: usize,
    /// 1 if the LDT could be set up.
    has_ldt: u64,
    cases: [Case; BATCH],
    outcomes: [Outcome; BATCH],
}

/// The child's own state.
struct Child {
    shared: *mut Shared,
    /// The case that is running.
    index: usize,
    running: bool,
    /// Counts cases, so that the timer sees one that does not end.
    sequence: u64,
    ticked: u64,
    from_parent: i32,
    to_parent: i32,
    /// The host has YMM registers, and the frames their upper halves.
    has_ymm: bool,
    /// The code that lies in the code pages now.
    placed_at: usize,
    placed_len: usize,
    pristine: [u64; DATA_LEN / 8],
    before: [u64; DATA_LEN / 8],
}

static mut CHILD: Child = Child {
    shared: null_mut(),
    index: 0,
    running: false,
    sequence: 0,
    ticked: 0,
    from_parent: -1,
    to_parent: -1,
    has_ymm: false,
    placed_at: 0,
    placed_len: 0,
    pristine: [0; DATA_LEN / 8],
    before: [0; DATA_LEN / 8],
};

/// A host CPU that executes cases.
pub struct Oracle {
    shared: *mut Shared,
    pid: i32,
    to_child: i32,
    from_child: i32,
}

// SAFETY: the shared memory is accessed through `&mut self` only, while the child waits.
unsafe impl Send for Oracle {}

impl Oracle {
    /// Starts the child.
    pub fn new() -> io::Result<Oracle> {
        // SAFETY: plain system calls; the child never returns from `child_main`.
        unsafe {
            let shared = libc::mmap(
                null_mut(),
                size_of::<Shared>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if shared == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let (mut down, mut up) = ([0; 2], [0; 2]);
            if libc::pipe(down.as_mut_ptr()) != 0 || libc::pipe(up.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let pristine = pristine();
            let pid = libc::fork();
            if pid < 0 {
                return Err(io::Error::last_os_error());
            }
            if pid == 0 {
                libc::close(down[1]);
                libc::close(up[0]);
                child_main(shared.cast(), &pristine, down[0], up[1]);
            }
            libc::close(down[0]);
            libc::close(up[1]);
            let mut oracle = Oracle {
                shared: shared.cast(),
                pid,
                to_child: down[1],
                from_child: up[0],
            };
            oracle.wait()?;
            Ok(oracle)
        }
    }

    /// Whether the host can run code of this size.
    pub fn supports(&self, mode: Mode) -> bool {
        // SAFETY: the child writes it once, before its first message.
        mode == Mode::M64 || unsafe { (*self.shared).has_ldt != 0 }
    }

    /// Runs cases, all of the same mode.
    pub fn run(&mut self, cases: &[Case]) -> io::Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(cases.len());
        for batch in cases.chunks(BATCH) {
            assert!(batch.iter().all(|c| c.mode == batch[0].mode));
            // SAFETY: the child waits for the message, so the memory is ours until we send it,
            // and again once its answer has come.
            unsafe {
                (*self.shared).count = batch.len();
                addr_of_mut!((*self.shared).cases)
                    .cast::<Case>()
                    .copy_from_nonoverlapping(batch.as_ptr(), batch.len());
                if libc::write(self.to_child, [0u8].as_ptr().cast(), 1) != 1 {
                    return Err(io::Error::last_os_error());
                }
                self.wait()?;
                let from = addr_of_mut!((*self.shared).outcomes).cast::<Outcome>();
                outcomes.extend_from_slice(std::slice::from_raw_parts(from, batch.len()));
            }
        }
        Ok(outcomes)
    }

    /// Runs one case.
    pub fn run_one(&mut self, case: &Case) -> io::Result<Outcome> {
        Ok(self.run(std::slice::from_ref(case))?[0])
    }

    fn wait(&mut self) -> io::Result<()> {
        let mut byte = 0u8;
        loop {
            // SAFETY: reads one byte into a local.
            match unsafe { libc::read(self.from_child, (&raw mut byte).cast(), 1) } {
                1 => return Ok(()),
                -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                _ => return Err(io::Error::other("the oracle's child process died")),
            }
        }
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // SAFETY: our own descriptors, child and mapping.
        unsafe {
            libc::close(self.to_child);
            libc::close(self.from_child);
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, null_mut(), 0);
            libc::munmap(self.shared.cast(), size_of::<Shared>());
        }
    }
}

/// `struct user_desc` of modify_ldt.
#[repr(C)]
struct UserDesc {
    entry: u32,
    base: u32,
    limit: u32,
    flags: u32,
}

/// Writes an LDT entry that covers 4 GiB from `base`.
unsafe fn set_ldt(selector: u64, base: u64, code: bool, wide: bool) -> bool {
    // seg_32bit, contents (2 = code), limit_in_pages, useable.
    let flags = u32::from(wide) | if code { 2 << 1 } else { 0 } | 1 << 4 | 1 << 6;
    let desc = UserDesc {
        entry: (selector >> 3) as u32,
        base: base as u32,
        limit: 0xf_ffff,
        flags,
    };
    // SAFETY: the kernel copies the descriptor.
    unsafe { libc::syscall(libc::SYS_modify_ldt, 0x11, &desc, size_of::<UserDesc>()) == 0 }
}

unsafe fn child_main(shared: *mut Shared, pristine: &[u64], from: i32, to: i32) -> ! {
    const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the child is single-threaded and owns its address space; the fixed addresses are
    // far below anything that a position-independent 64-bit program has mapped.
    unsafe {
        let map = |at: u64, len: usize, prot: i32| {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
            let got = libc::mmap(at as *mut _, len, prot, flags, -1, 0);
            if got as u64 != at {
                libc::_exit(101);
            }
        };
        map(DATA, DATA_LEN, RW);
        map(CODE, CODE_LEN, RW | libc::PROT_EXEC);
        (CODE as *mut u8).write_bytes(0xcc, CODE_LEN);
        (DATA as *mut u64).copy_from_nonoverlapping(pristine.as_ptr(), DATA_LEN / 8);
        if libc::mprotect((DATA as usize + DATA_RW) as *mut _, 0x1000, libc::PROT_READ) != 0 {
            libc::_exit(102);
        }
        let child = &mut *addr_of_mut!(CHILD);
        child.shared = shared;
        child.from_parent = from;
        child.to_parent = to;
        child.has_ymm = std::arch::is_x86_feature_detected!("avx");
        child.pristine.copy_from_slice(pristine);
        let ok = set_ldt(LDT_CODE16, CODE, true, false)
            && set_ldt(LDT_DS16, DS16_BASE, false, false)
            && set_ldt(LDT_ES16, ES16_BASE, false, false)
            && set_ldt(LDT_SS16, SS16_BASE, false, false)
            && set_ldt(LDT_FS, FS_BASE, false, true)
            && set_ldt(LDT_GS, GS_BASE, false, true);
        (*shared).has_ldt = u64::from(ok);

        let size = 256 << 10;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let stack = libc::stack_t {
            ss_sp: libc::mmap(null_mut(), size, RW, flags, -1, 0),
            ss_flags: 0,
            ss_size: size,
        };
        libc::sigaltstack(&stack, null_mut());
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigfillset(&mut action.sa_mask);
        for sig in [
            libc::SIGTRAP,
            libc::SIGSEGV,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGBUS,
            libc::SIGVTALRM,
        ] {
            libc::sigaction(sig, &action, null_mut());
        }
        let tick = libc::timeval {
            tv_sec: 0,
            tv_usec: 100_000,
        };
        let timer = libc::itimerval {
            it_interval: tick,
            it_value: tick,
        };
        setitimer(1, &timer);
        // The first signal: from here on the handler runs the show.
        std::arch::asm!("int3");
        libc::_exit(103)
    }
}

/// setitimer; 1 is ITIMER_VIRTUAL, which counts only our own CPU time.
unsafe fn setitimer(which: u64, timer: &libc::itimerval) {
    // SAFETY: the kernel copies the value.
    unsafe {
        syscall(
            libc::SYS_setitimer as u64,
            which,
            timer as *const _ as u64,
            0,
        );
    }
}

/// A system call without errno, which is thread-local.
unsafe fn syscall(number: u64, a: u64, b: u64, c: u64) -> i64 {
    let result: i64;
    // SAFETY: the caller's business.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b,
            in("rdx") c, out("rcx") _, out("r11") _);
    }
    result
}

/// Loads the segments that a signal frame does not hold.
unsafe fn load_segments(mode: Mode) {
    const ARCH_SET_GS: u64 = 0x1001;
    const ARCH_SET_FS: u64 = 0x1002;
    let (ds, es) = match mode {
        Mode::M16 => (LDT_DS16, LDT_ES16),
        _ => (USER_DS, USER_DS),
    };
    // SAFETY: 64-bit code does not use DS and ES; nothing here uses FS or GS.
    unsafe {
        std::arch::asm!("mov ds, {0:x}", "mov es, {1:x}", in(reg) ds, in(reg) es);
        if mode == Mode::M64 {
            std::arch::asm!("mov fs, {0:x}", "mov gs, {0:x}", in(reg) 0u64);
            syscall(libc::SYS_arch_prctl as u64, ARCH_SET_FS, FS_BASE, 0);
            syscall(libc::SYS_arch_prctl as u64, ARCH_SET_GS, GS_BASE, 0);
        } else {
            std::arch::asm!("mov fs, {0:x}", "mov gs, {1:x}", in(reg) LDT_FS, in(reg) LDT_GS);
        }
    }
}

/// The general registers in the order of the encoding, as indices of `gregs`.
const GREGS: [usize; 16] = [
    libc::REG_RAX as usize,
    libc::REG_RCX as usize,
    libc::REG_RDX as usize,
    libc::REG_RBX as usize,
    libc::REG_RSP as usize,
    libc::REG_RBP as usize,
    libc::REG_RSI as usize,
    libc::REG_RDI as usize,
    libc::REG_R8 as usize,
    libc::REG_R9 as usize,
    libc::REG_R10 as usize,
    libc::REG_R11 as usize,
    libc::REG_R12 as usize,
    libc::REG_R13 as usize,
    libc::REG_R14 as usize,
    libc::REG_R15 as usize,
];

unsafe extern "C" fn on_signal(sig: i32, _: *mut libc::siginfo_t, uc: *mut libc::ucontext_t) {
    // SAFETY: flags that a case left behind (AC, NT, ID) must not reach our own code, nor stay
    // for the next case: rt_sigreturn does not restore all of them.
    unsafe {
        let left: u64;
        std::arch::asm!("pushfq", "pop {}", "push 0x202", "popfq", out(reg) left);
        let child = &mut *addr_of_mut!(CHILD);
        let uc = &mut *uc;
        if sig == libc::SIGVTALRM && (child.ticked != child.sequence || !child.running) {
            child.ticked = child.sequence;
            return;
        }
        if child.running {
            record(child, uc, sig, left);
            child.index = child.index.wrapping_add(1);
        } else {
            child.index = (*child.shared).count;
        }
        if child.index >= (*child.shared).count {
            let mut byte = 0u8;
            let at = &raw mut byte as u64;
            syscall(libc::SYS_write as u64, child.to_parent as u64, at, 1);
            if syscall(libc::SYS_read as u64, child.from_parent as u64, at, 1) != 1 {
                syscall(libc::SYS_exit_group as u64, 0, 0, 0);
            }
            child.index = 0;
            load_segments((*child.shared).cases[0].mode);
        }
        set_up(child, uc);
        child.running = true;
        child.sequence = child.sequence.wrapping_add(1);
    }
}

/// The upper halves of the YMM registers in a frame's XSAVE image.
unsafe fn ymm_area(uc: &libc::ucontext_t) -> *mut [u128; 16] {
    // SAFETY: with AVX the kernel's image holds them at their standard place (SDM volume 1, 13.4.3;
    // CPUID leaf 0DH, sub-leaf 2, gives it as 576 on every CPU).
    unsafe { uc.uc_mcontext.fpregs.cast::<u8>().add(576).cast() }
}

/// The SSE part of a frame's FXSAVE image: MXCSR, XMM0 to XMM15, and the XSAVE header's bitmap.
unsafe fn fp_area(uc: &mut libc::ucontext_t) -> (*mut u32, *mut u128, *mut u64) {
    let image = uc.uc_mcontext.fpregs.cast::<u8>();
    // SAFETY: the kernel writes a 512-byte FXSAVE image and the XSAVE header behind it.
    unsafe {
        (
            image.add(24).cast(),
            image.add(160).cast(),
            image.add(512).cast(),
        )
    }
}

/// The x87 part of a frame's FXSAVE image, which numbers the registers from TOP on.
unsafe fn read_fpu(uc: &libc::ucontext_t, present: bool) -> Fpu {
    let mut fpu = Fpu::INIT;
    if !present {
        return fpu;
    }
    let image = uc.uc_mcontext.fpregs.cast::<u8>();
    // SAFETY: the image has 512 bytes.
    unsafe {
        fpu.control = image.cast::<u16>().read_unaligned();
        fpu.status = image.add(2).cast::<u16>().read_unaligned();
        fpu.tags = u16::from(*image.add(4));
        for i in 0..8 {
            let n = (fpu.top() + i) & 7;
            let at = image.add(32 + 16 * i);
            fpu.mm[n] = at.cast::<u64>().read_unaligned();
            fpu.exponent[n] = at.add(8).cast::<u16>().read_unaligned();
        }
    }
    fpu
}

/// Writes what [`read_fpu`] reads.
unsafe fn write_fpu(uc: &mut libc::ucontext_t, fpu: &Fpu) {
    let image = uc.uc_mcontext.fpregs.cast::<u8>();
    // SAFETY: the image has 512 bytes.
    unsafe {
        image.cast::<u16>().write_unaligned(fpu.control);
        image.add(2).cast::<u16>().write_unaligned(fpu.status);
        *image.add(4) = fpu.tags as u8;
        for i in 0..8 {
            let n = (fpu.top() + i) & 7;
            let at = image.add(32 + 16 * i);
            at.cast::<u64>().write_unaligned(fpu.mm[n]);
            at.add(8).cast::<u16>().write_unaligned(fpu.exponent[n]);
        }
    }
}

unsafe fn record(child: &mut Child, uc: &mut libc::ucontext_t, sig: i32, left: u64) {
    // SAFETY: the index is below the batch's count; the frame and the data area are ours.
    unsafe {
        let case = &*addr_of_mut!((*child.shared).cases[child.index]);
        let out = &mut *addr_of_mut!((*child.shared).outcomes[child.index]);
        let regs = uc.uc_mcontext.gregs;
        let mask = case.mode.gpr_mask();
        for (slot, reg) in out.gpr.iter_mut().zip(GREGS) {
            *slot = regs[reg] as u64 & mask;
        }
        // NT and ID are not in the frame on every kernel; the handler entered with them.
        out.rflags = (regs[libc::REG_EFL as usize] as u64 | left & 0x20_4000) & FLAGS;
        let rip = regs[libc::REG_RIP as usize] as u64;
        let (trap, error) = (
            regs[libc::REG_TRAPNO as usize] as u64,
            regs[libc::REG_ERR as usize] as u64,
        );
        (out.rip, out.trap, out.error, out.address) = (rip, trap as u32, error, 0);
        if sig == libc::SIGVTALRM {
            out.trap = HANG;
        } else if trap == 3 {
            (out.rip, out.trap, out.error) = (rip.wrapping_sub(1), COMPLETED, 0);
        } else if trap == 14 && error & 0x10 != 0 && rip != case.ip() {
            (out.trap, out.error) = (COMPLETED, 0);
        } else if trap == 14 {
            out.address = regs[libc::REG_CR2 as usize] as u64;
        }
        if !code_is_intact(child, case) {
            out.trap = CODE_WRITTEN;
        }
        let (mxcsr, xmm, bitmap) = fp_area(uc);
        out.mxcsr = *mxcsr;
        out.fpu = read_fpu(uc, *bitmap & 1 != 0);
        out.xmm = if *bitmap & 2 != 0 {
            xmm.cast::<[u128; 16]>().read_unaligned()
        } else {
            [0; 16]
        };
        out.ymm_hi = if child.has_ymm && *bitmap & 4 != 0 {
            ymm_area(uc).read_unaligned()
        } else {
            [0; 16]
        };
        let data = std::slice::from_raw_parts_mut(DATA as *mut u64, DATA_RW / 8);
        out.record_writes(&child.before[..DATA_RW / 8], data);
        if out.changed as usize > MAX_WRITES {
            data.copy_from_slice(&child.pristine[..DATA_RW / 8]);
        } else {
            for w in out.writes() {
                let i = w.offset as usize / 8;
                data[i] = child.pristine[i];
            }
        }
        for p in &case.pokes {
            let (first, last) = (p.offset as usize / 8, (p.offset as usize).div_ceil(8));
            for i in [first, last] {
                child.before[i] = child.pristine[i];
                if i < DATA_RW / 8 {
                    data[i] = child.pristine[i];
                }
            }
        }
    }
}

/// Whether the code pages still hold the case's instruction and nothing but INT3 around it; puts
/// that right if not.
unsafe fn code_is_intact(child: &mut Child, case: &Case) -> bool {
    // SAFETY: the code pages are ours.
    let code = unsafe { std::slice::from_raw_parts_mut(CODE as *mut u8, CODE_LEN) };
    let at = case.at as usize;
    let end = (at + case.len as usize).min(CODE_LEN);
    let (before, rest) = code.split_at(at);
    let (own, after) = rest.split_at(end - at);
    let intact = own == &case.code[..end - at]
        && before.iter().all(|b| *b == 0xcc)
        && after.iter().all(|b| *b == 0xcc);
    if !intact {
        code.fill(0xcc);
        (child.placed_at, child.placed_len) = (0, 0);
    }
    intact
}

unsafe fn set_up(child: &mut Child, uc: &mut libc::ucontext_t) {
    // SAFETY: as in `record`.
    unsafe {
        let case = &*addr_of_mut!((*child.shared).cases[child.index]);
        if child.sequence == 0 {
            child.before = child.pristine;
        }
        for p in &case.pokes {
            let value = p.value.to_le_bytes();
            let (at, len) = (p.offset as usize, p.len as usize);
            if at + len <= DATA_RW && len <= 8 {
                let before = child.before.as_mut_ptr().cast::<u8>().add(at);
                before.copy_from_nonoverlapping(value.as_ptr(), len);
                ((DATA as usize + at) as *mut u8).copy_from_nonoverlapping(value.as_ptr(), len);
            }
        }
        let code = std::slice::from_raw_parts_mut(CODE as *mut u8, CODE_LEN);
        let (at, len) = (case.at as usize, case.len as usize);
        let fits = len.min(CODE_LEN - at);
        if child.placed_at != at
            || child.placed_len != len
            || code[at..at + fits] != case.code[..fits]
        {
            let end = (child.placed_at + child.placed_len).min(CODE_LEN);
            code[child.placed_at..end].fill(0xcc);
            code[at..at + fits].copy_from_slice(&case.code[..fits]);
            (child.placed_at, child.placed_len) = (at, len);
        }

        let (cs, ss) = match case.mode {
            Mode::M16 => (LDT_CODE16, LDT_SS16),
            Mode::M32 => (USER_CS32, USER_DS),
            Mode::M64 => (USER_CS64, USER_DS),
        };
        let mask = case.mode.gpr_mask();
        let regs = &mut uc.uc_mcontext.gregs;
        for (value, reg) in case.gpr.iter().zip(GREGS) {
            regs[reg] = (value & mask) as i64;
        }
        regs[libc::REG_RIP as usize] = case.ip() as i64;
        // rt_sigreturn ignores NT and ID: a case cannot start with them.
        regs[libc::REG_EFL as usize] = (case.rflags & (ARITH | DF) | 0x202) as i64;
        regs[libc::REG_CSGSFS as usize] = (cs | ss << 48) as i64;
        // UC_SIGCONTEXT_SS and UC_STRICT_RESTORE_SS: take SS from the frame as it is.
        uc.uc_flags |= 6;
        let (mxcsr, xmm, bitmap) = fp_area(uc);
        *mxcsr = case.mxcsr;
        xmm.cast::<[u128; 16]>().write_unaligned(case.xmm);
        *bitmap |= 3;
        if child.has_ymm {
            *bitmap |= 4;
            ymm_area(uc).write_unaligned(case.ymm_hi);
        }
        write_fpu(uc, &case.fpu);
    }
}
