//! The helper functions that IR calls, in the order of [`Helper`].
//!
//! Each is an `extern "C"` function of the type that compiled code calls; the interpreter calls the
//! same ones. A helper that faults changes nothing, writes the exit reason into the state and
//! returns; its caller leaves the region.

mod aes;
mod avx;
mod bits;
mod clmul;
mod fma;
mod memory;
mod mmx;
mod rep;
mod sha;
mod sse;
mod system;
#[cfg(test)]
mod tests;
mod vector;
mod x87;
pub(crate) mod xsave;

use crate::env::Env;
use crate::memory::MemFault;
use crate::state::CpuState;
use crate::system as whole;
use metaphrase_backend::{HelperFn, HelperTable};
use metaphrase_ir::exit::exception_info;
use metaphrase_ir::{ExitReason, Helper};
use std::ffi::c_void;

/// What a helper works on.
pub struct Cx {
    /// The guest state.
    pub state: *mut CpuState,
}

impl Cx {
    /// What works on that state, which must be attached to its environment.
    pub fn of(state: &mut CpuState) -> Cx {
        Cx { state }
    }

    /// The guest state.
    #[allow(clippy::mut_from_ref)]
    pub fn state(&self) -> &mut CpuState {
        // SAFETY: the engines pass the state that they run on, and use no reference to it during
        // the call. Helpers do not keep the reference across calls of this method.
        unsafe { &mut *self.state }
    }

    /// The guest state, with the x87 registers in it even if compiled code has left them in the
    /// host's FPU.
    pub fn state_with_x87(&self) -> &mut CpuState {
        let state = self.state();
        #[cfg(target_arch = "x86_64")]
        x87::live::bring_back(state);
        state
    }

    /// The environment.
    pub fn env(&self) -> &Env {
        // SAFETY: the state is attached to a live environment that nobody borrows mutably during
        // the call.
        unsafe { &*(*self.state).env.cast::<Env>() }
    }

    /// Leaves with an exception of the current instruction.
    #[cold]
    pub fn raise(&self, vector: u8, error_code: Option<u32>) {
        let s = self.state();
        s.exit_info = exception_info(vector, error_code);
        s.exit_reason = ExitReason::Exception as u32;
    }

    /// Leaves because of a refused memory access.
    #[cold]
    pub fn fault(&self, fault: MemFault) {
        let s = self.state();
        s.fault_addr = fault.addr;
        s.exit_info = u64::from(fault.write);
        s.exit_reason = ExitReason::Memory as u32;
    }
}

macro_rules! table {
    ($($helper:ident = $module:ident::$f:ident;)*) => {
        $(
            #[allow(non_snake_case)]
            unsafe extern "C" fn $helper(
                state: *mut c_void,
                descriptor: u64,
                a: u64,
                b: u64,
                c: u64,
            ) -> u64 {
                let state = state.cast::<CpuState>();
                // SAFETY: the engines pass a valid state that is attached to an environment; the
                // counter is not otherwise accessed during the call.
                unsafe {
                    let env = (*state).env.cast::<Env>();
                    let count = &raw mut (*env).helper_calls[Helper::$helper as usize];
                    *count = (*count).wrapping_add(1);
                }
                $module::$f(&Cx { state }, descriptor as u32, [a, b, c])
            }
        )*

        const HELPERS: [HelperFn; Helper::ALL.len()] = {
            let mut all: [HelperFn; Helper::ALL.len()] = [flags; Helper::ALL.len()];
            let mut named = 0;
            $(
                all[Helper::$helper as usize] = $helper;
                named += 1;
            )*
            assert!(named == Helper::ALL.len(), "a helper has no function");
            all
        };
    };
}

table! {
    Pdep = bits::pdep;
    Pext = bits::pext;
    Crc32 = bits::crc32;
    UDivW = bits::udivw;
    SDivW = bits::sdivw;
    SDivFits = bits::sdivfits;
    System = whole::system;
    SegmentCheck = whole::segment_check;
    Cpuid = system::cpuid;
    Rdtsc = system::rdtsc;
    TscAux = system::tsc_aux;
    RepString = rep::rep_string;
    X87 = x87::x87;
    Fxsave = x87::fxsave;
    Fxrstor = x87::fxrstor;
    Xsave = xsave::xsave;
    Xrstor = xsave::xrstor;
    Xgetbv = xsave::xgetbv;
    Ldmxcsr = sse::ldmxcsr;
    Stmxcsr = sse::stmxcsr;
    SseFloat = sse::sse_float;
    SseChecked = sse::sse_checked;
    SseDeferred = sse::sse_deferred;
    EnterMmx = mmx::enter_mmx;
    Emms = mmx::emms;
    VecOp = vector::vec_op;
    Sha256Rnds2 = sha::sha256_rnds2;
    Fma = fma::masked;
    FmaChecked = fma::checked;
    HalfFloat = fma::half_masked;
    HalfFloatChecked = fma::half_checked;
    PermuteDwords = avx::permute_dwords;
    MaskMove = avx::mask_move;
    Gather = avx::gather;
    PcmpStr = vector::pcmp_str;
    LoadSegment = system::load_segment;
    SegmentInfo = system::segment_info;
    PushfImage = system::pushf_image;
    Popf = system::popf;
    LeaveAt = system::leave_at;
    RaiseError = system::raise_error;
}

/// Evaluates the lazy flags to the six flags.
unsafe extern "C" fn flags(state: *mut c_void, _: u64, _: u64, _: u64, _: u64) -> u64 {
    // SAFETY: compiled code passes its valid state.
    unsafe { (*state.cast::<CpuState>()).arith_flags() }
}

/// Every helper function, for both engines.
pub static TABLE: HelperTable = HelperTable {
    helpers: &HELPERS,
    flags,
    load: memory::load,
    store: memory::store,
    rmw: memory::rmw,
    cas: memory::cas,
    #[cfg(target_arch = "x86_64")]
    x87: x87::live::x87,
    #[cfg(not(target_arch = "x86_64"))]
    x87: X87,
};

/// Brings the x87 registers from the host's FPU into the state, on hosts that have one.
pub const X87_LEAVE: Option<HelperFn> = {
    #[cfg(target_arch = "x86_64")]
    let leave: Option<HelperFn> = Some(x87::live::leave);
    #[cfg(not(target_arch = "x86_64"))]
    let leave = None;
    leave
};

/// The functions, for both engines.
pub fn table() -> HelperTable {
    TABLE
}
