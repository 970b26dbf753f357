//! The host's MXCSR, and a stub for each operation, on x86-64.
//!
//! A stub takes `a` and `b` in XMM0 and XMM1 and in RDI the address of two vectors: the first is
//! its own to use, the second gets the result. It changes no register but MXCSR and the flags, so
//! that compiled code can call it without saving any. Each lies in 64 bytes of its own.

use super::{FLAGS, MASKS, portable};
use metaphrase_ir::{SseForm, SseOp, for_each_sse_op};
use std::arch::{asm, global_asm};
use std::ffi::{c_int, c_void};
use std::sync::Once;

/// Where each operation's stubs begin, counted in stubs.
const STARTS: [usize; SseOp::ALL.len() + 1] = {
    let mut starts = [0; SseOp::ALL.len() + 1];
    let mut n = 0;
    while n < SseOp::ALL.len() {
        starts[n + 1] = starts[n] + SseOp::ALL[n].form().variants();
        n += 1;
    }
    starts
};

/// The number of an operation's stub.
const fn index(op: SseOp, imm: u8) -> usize {
    STARTS[op as usize] + (imm as usize & (op.form().variants() - 1))
}

/// Whether the operation needs SSE4.1, which not every x86-64 host has.
const fn is_sse41(op: SseOp) -> bool {
    matches!(op.form(), SseForm::Imm(16 | 256))
}

/// Bytes between stubs.
const STRIDE: usize = 64;

/// What a stub begins with.
macro_rules! head {
    () => {
        ".balign 64\nmovaps %xmm0, (%rdi)\n"
    };
}

/// What a stub ends with.
macro_rules! tail {
    () => {
        "movaps %xmm0, 16(%rdi)\nmovaps (%rdi), %xmm0\nret\n"
    };
}

macro_rules! stub {
    ($name:ident Plain) => {
        concat!(head!(), stringify!($name), " %xmm1, %xmm0\n", tail!())
    };
    ($name:ident Imm $n:literal) => {
        concat!(
            ".set metaphrase_imm, 0\n.rept ",
            $n,
            "\n",
            head!(),
            stringify!($name),
            " $metaphrase_imm, %xmm1, %xmm0\n",
            tail!(),
            ".set metaphrase_imm, metaphrase_imm + 1\n.endr\n"
        )
    };
    ($name:ident FromI32) => {
        concat!(
            head!(),
            "movd %xmm1, -8(%rsp)\n",
            stringify!($name),
            "l -8(%rsp), %xmm0\n",
            tail!()
        )
    };
    // The table's name ends with the size already.
    ($name:ident FromI64) => {
        concat!(
            head!(),
            "movq %xmm1, -8(%rsp)\n",
            stringify!($name),
            " -8(%rsp), %xmm0\n",
            tail!()
        )
    };
    ($name:ident ToI32) => {
        concat!(
            head!(),
            "movq %rax, -8(%rsp)\n",
            stringify!($name),
            " %xmm1, %eax\nmovd %eax, %xmm0\nmovq -8(%rsp), %rax\n",
            tail!()
        )
    };
    ($name:ident ToI64) => {
        concat!(
            head!(),
            "movq %rax, -8(%rsp)\n",
            stringify!($name),
            " %xmm1, %rax\nmovq %rax, %xmm0\nmovq -8(%rsp), %rax\n",
            tail!()
        )
    };
    ($name:ident Flags) => {
        concat!(
            head!(),
            stringify!($name),
            " %xmm1, %xmm0\npushfq\nmovq (%rsp), %xmm0\nlea 8(%rsp), %rsp\n",
            tail!()
        )
    };
}

macro_rules! stubs {
    ($($variant:ident $name:ident [$($form:tt)*];)*) => {
        global_asm!(
            ".pushsection .text.metaphrase_sse,\"ax\",@progbits\n",
            ".balign 64\n.hidden metaphrase_sse_stubs\n.globl metaphrase_sse_stubs\n",
            "metaphrase_sse_stubs:\n",
            $(stub!($name $($form)*),)*
            // Where a stub's exception goes on: nothing is on the stack but the return address.
            ".balign 64\n.hidden metaphrase_sse_fault\n.globl metaphrase_sse_fault\n",
            "metaphrase_sse_fault:\nmovl $1, %eax\nret\n",
            ".popsection\n",
            options(att_syntax)
        );
    };
}

for_each_sse_op!(stubs);

unsafe extern "C" {
    static metaphrase_sse_stubs: u8;
    static metaphrase_sse_fault: u8;
}

/// The address of an operation's stub.
pub fn stub(op: SseOp, imm: u8) -> usize {
    (&raw const metaphrase_sse_stubs).addr() + index(op, imm) * STRIDE
}

fn has_sse41() -> bool {
    std::arch::is_x86_feature_detected!("sse4.1")
}

/// Whether the host has the operation's instruction.
pub fn has(op: SseOp) -> bool {
    !is_sse41(op) || has_sse41()
}

/// The host's MXCSR.
#[inline(always)]
pub fn control() -> u32 {
    let mut value = 0u32;
    // SAFETY: stores four bytes to a local.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
    value
}

#[inline(always)]
fn load(value: u32) {
    // SAFETY: the callers' values have no reserved bits; whoever unmasks exceptions has installed
    // the handler. Code between `enter` and `leave` does its floating point here only.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
}

/// MXCSR as Rust code has it, kept while guest code runs.
#[derive(Debug)]
pub struct Control {
    host: u32,
}

impl Control {
    /// Puts the guest's MXCSR into the host's, with every exception masked.
    #[inline(always)]
    pub fn enter(mxcsr: u32) -> Control {
        let host = control();
        load(mxcsr & 0xffff | MASKS);
        Control { host }
    }

    /// Restores Rust's MXCSR; the guest's exception flags go to `mxcsr`.
    #[inline(always)]
    pub fn leave(self, mxcsr: &mut u32) {
        let now = control();
        load(self.host);
        *mxcsr = *mxcsr & !FLAGS | now & FLAGS;
    }
}

/// Between `enter` and `leave`: the exception flags as they are now.
#[inline(always)]
pub fn flags_now(_mxcsr: u32) -> u32 {
    control() & FLAGS
}

/// Between `enter` and `leave`: changes rounding, DAZ, FTZ and flags.
#[inline(always)]
pub fn set_now(mxcsr: u32) {
    load(mxcsr & 0xffff | MASKS);
}

/// An operation made ready to run: its stub's address or, where there is none, the top bit and
/// its descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Prepared(u64);

impl Prepared {
    /// Makes an operation ready.
    pub fn new(op: SseOp, imm: u8) -> Prepared {
        Prepared(if has(op) {
            stub(op, imm) as u64
        } else {
            u64::from(op.pack(imm)) | 1 << 63
        })
    }

    /// The word that it is.
    pub fn to_word(self) -> u64 {
        self.0
    }

    /// What [`Prepared::to_word`] gave.
    ///
    /// # Safety
    /// It must be such a word, of this process.
    #[inline(always)]
    pub unsafe fn from_word(word: u64) -> Prepared {
        Prepared(word)
    }

    /// Computes the operation under the host's MXCSR of the moment, which is the guest's.
    #[inline(always)]
    pub fn run(self, a: u128, b: u128, _mxcsr: &mut u32) -> u128 {
        if self.0 >> 63 != 0 {
            return without_stub(self.0 as u32, a, b);
        }
        // SAFETY: it is the address of a stub.
        unsafe { call(self.0 as usize, a, b).0 }
    }
}

#[cold]
fn without_stub(descriptor: u32, a: u128, b: u128) -> u128 {
    let Some((op, imm)) = SseOp::unpack(descriptor) else {
        return a;
    };
    let mut mxcsr = control();
    let r = portable::operate(op, imm, a, b, &mut mxcsr);
    load(mxcsr);
    r
}

/// Room for a stub: what RDI points to.
#[repr(C, align(16))]
struct Room([u128; 2]);

/// Calls a stub; the second result is not 0 if it raised an exception.
///
/// # Safety
/// The address must be that of a stub.
#[inline(always)]
unsafe fn call(stub: usize, a: u128, b: u128) -> (u128, u32) {
    use std::arch::x86_64::__m128i;
    let mut room = Room([0; 2]);
    let faulted: u32;
    // SAFETY: stubs write the room and keep every register, but XMM0 and EAX if they fault. Rust
    // gives `asm!` without `nostack` an aligned stack and no red zone in use.
    unsafe {
        let [a, b] = [a, b].map(|v| std::mem::transmute::<u128, __m128i>(v));
        asm!(
            "call {stub}",
            stub = in(reg) stub,
            in("rdi") &raw mut room,
            inout("xmm0") a => _,
            in("xmm1") b,
            inout("eax") 0u32 => faulted,
        );
    }
    (room.0[1], faulted)
}

/// Computes an operation under the guest's own masks; `None` if it raises #XM, whose flags are in
/// `mxcsr` then. Like [`operate`] it is called while the host's MXCSR is the guest's.
pub fn operate_checked(op: SseOp, imm: u8, a: u128, b: u128, mxcsr: &mut u32) -> Option<u128> {
    if !has(op) {
        let mut now = *mxcsr & !FLAGS | flags_now(0);
        let r = portable::operate_checked(op, imm, a, b, &mut now);
        *mxcsr = now;
        set_now(now);
        return r;
    }
    install();
    let real = *mxcsr & !FLAGS | flags_now(0);
    load(real);
    // SAFETY: it is the operation's stub.
    let (r, faulted) = unsafe { call(stub(op, imm), a, b) };
    let after = control();
    *mxcsr = after;
    load(after & 0xffff | MASKS);
    (faulted == 0).then_some(r)
}

/// Makes SIGFPE of a stub its result. Later calls do nothing.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| crate::host_fault::chain_float(redirect));
}

/// Goes on at the stubs' common end if the signal's instruction is in a stub.
///
/// # Safety
/// `context` is the third argument of a SA_SIGINFO handler.
unsafe fn redirect(_: c_int, context: *mut c_void) -> bool {
    let start = (&raw const metaphrase_sse_stubs).addr();
    let end = start + STARTS[SseOp::ALL.len()] * STRIDE;
    // SAFETY: by the caller's promise.
    let regs = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let pc = &mut regs[libc::REG_RIP as usize];
    let ours = (start..end).contains(&(*pc as usize));
    if ours {
        *pc = (&raw const metaphrase_sse_fault).addr() as i64;
    }
    ours
}
