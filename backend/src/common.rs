//! The code that every arena starts with: the trampoline into compiled code, and the stubs in
//! which unlinked exits end. Cranelift compiles it too, so that it works on every host.
//!
//! A compiled region is a function `(state, arg) -> reason` with the `tail` calling convention.
//! `arg` is the link slot plus 1 after a direct exit and the guest PC after an indirect one;
//! translations ignore it, the stubs need it.

use crate::error::BackendError;
use crate::isa;
use crate::layout::{HelperFn, StateLayout};
use crate::options::{OptLevel, Options};
use crate::sse;
use cranelift_codegen::Context;
use cranelift_codegen::FinalizedMachExceptionHandler as Handler;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{
    AbiParam, BlockArg, BlockCall, ExceptionTableData, ExceptionTableItem, Function, InstBuilder,
    MemFlagsData, Signature, UserFuncName, types,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use metaphrase_ir::{ExitReason, Reg};
use std::ffi::c_void;

/// The common code and the offsets of its parts.
pub(crate) struct Common {
    pub(crate) code: Vec<u8>,
    pub(crate) enter: usize,
    pub(crate) resume: usize,
    pub(crate) exit_stub: usize,
    pub(crate) miss_stub: usize,
    pub(crate) slow_access: usize,
}

/// How compiled code is entered from Rust. It is valid as long as its arena.
#[derive(Clone, Copy, Debug)]
pub struct Trampoline {
    enter: usize,
    resume: usize,
    slow_access: usize,
    host_resume: u32,
    slow_access_slot: u32,
    mxcsr: u32,
    x87_live: u32,
    x87_leave: Option<HelperFn>,
}

impl Trampoline {
    /// Of common code that lies at `base`.
    pub(crate) fn new(common: &Common, base: usize, layout: &StateLayout) -> Trampoline {
        Trampoline {
            enter: base + common.enter,
            resume: base + common.resume,
            slow_access: base + common.slow_access,
            host_resume: layout.host_resume,
            slow_access_slot: layout.slow_access,
            mxcsr: layout.reg(Reg::Mxcsr),
            x87_live: layout.x87.live,
            x87_leave: layout.x87_leave,
        }
    }

    /// Runs compiled code until it leaves: the reason in the low half, the link slot plus 1 of an
    /// unlinked direct exit (or 0) in the high half.
    ///
    /// # Safety
    /// `state` must be a guest state of the layout that the arena was made for, exclusively the
    /// caller's, with its memory window, jump cache and environment valid; `code` the entry of a
    /// live translation in the same arena, compiled for the same layout.
    // Not inlined: no floating point of the caller may end up between the changes of MXCSR.
    #[inline(never)]
    pub unsafe fn enter(&self, state: *mut c_void, code: usize) -> u64 {
        type Enter = unsafe extern "C" fn(*mut c_void, usize) -> u64;
        // SAFETY: the fields are two u64, a u32 and a u8 at those offsets of the caller's state;
        // `enter` is the address of a function with that signature in the arena, which the caller
        // keeps alive; `leave` takes such a state.
        unsafe {
            state
                .byte_add(self.host_resume as usize)
                .cast::<u64>()
                .write(self.resume as u64);
            state
                .byte_add(self.slow_access_slot as usize)
                .cast::<u64>()
                .write(self.slow_access as u64);
            let mxcsr = state.byte_add(self.mxcsr as usize).cast::<u32>();
            let control = sse::Control::enter(*mxcsr);
            let answer = std::mem::transmute::<usize, Enter>(self.enter)(state, code);
            control.leave(&mut *mxcsr);
            if let Some(leave) = self.x87_leave
                && state.byte_add(self.x87_live as usize).cast::<u8>().read() != 0
            {
                leave(state, 0, 0, 0, 0);
            }
            answer
        }
    }
}

/// The signature of compiled regions.
pub(crate) fn region_signature() -> Signature {
    let mut sig = Signature::new(CallConv::Tail);
    sig.params
        .extend([AbiParam::new(types::I64), AbiParam::new(types::I64)]);
    sig.returns.push(AbiParam::new(types::I64));
    sig
}

/// Compiles the common code for the host.
pub(crate) fn compile(layout: &StateLayout) -> Result<Common, BackendError> {
    let options = Options {
        opt: OptLevel::Speed,
        ..Options::default()
    };
    let isa = isa::host(&options)?;
    let mut code = Vec::new();
    let mut place = |bytes: &[u8]| {
        code.resize(code.len().next_multiple_of(32), 0);
        let at = code.len();
        code.extend_from_slice(bytes);
        at
    };
    let (enter, resume) = trampoline(&*isa, layout)?;
    let enter_at = place(&enter);
    let exit_stub = place(&exit_stub(&*isa)?);
    let miss_stub = place(&miss_stub(&*isa, layout)?);
    let slow_access = place(&slow_access(&*isa, layout)?);
    Ok(Common {
        code,
        enter: enter_at,
        resume: enter_at + resume,
        exit_stub,
        miss_stub,
        slow_access,
    })
}

/// Compiles one function; its code, and the offset of its exception handler if it has one.
fn finish(
    isa: &dyn TargetIsa,
    sig: Signature,
    build: impl FnOnce(&mut FunctionBuilder<'_>),
) -> Result<(Vec<u8>, Option<usize>), BackendError> {
    let mut cx = Context::for_function(Function::with_name_signature(UserFuncName::default(), sig));
    let mut fcx = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut cx.func, &mut fcx);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    build(&mut b);
    b.seal_all_blocks();
    b.finalize(isa.frontend_config());
    let compiled = cx
        .compile(isa, &mut ControlPlane::default())
        .map_err(|e| BackendError::Codegen(format!("{:?}", e.inner)))?;
    let handler = compiled
        .buffer
        .call_sites()
        .flat_map(|site| site.exception_handlers.iter())
        .find_map(|h| match h {
            Handler::Default(offset) => Some(*offset as usize),
            _ => None,
        });
    Ok((compiled.buffer.data().to_vec(), handler))
}

/// `enter(state, code) -> reason`: notes in the state where a host fault can cut the compiled code
/// short, and calls it. The call is a `try_call`, so Cranelift keeps nothing in registers across
/// it that the handler would miss.
fn trampoline(isa: &dyn TargetIsa, layout: &StateLayout) -> Result<(Vec<u8>, usize), BackendError> {
    let mut sig = region_signature();
    sig.call_conv = isa.default_call_conv();
    let (code, handler) = finish(isa, sig, |b| {
        let entry = b.current_block().expect("the entry block");
        let (state, code) = (b.block_params(entry)[0], b.block_params(entry)[1]);
        let flags = MemFlagsData::trusted();
        let sp = b.ins().get_stack_pointer(types::I64);
        b.ins().store(flags, sp, state, layout.host_sp as i32);
        let fp = b.ins().get_frame_pointer(types::I64);
        b.ins().store(flags, fp, state, layout.host_fp as i32);
        let (normal, fault) = (b.create_block(), b.create_block());
        b.append_block_param(normal, types::I64);
        let sig = b.import_signature(region_signature());
        let pool = &mut b.func.dfg.value_lists;
        let to_normal = BlockCall::new(normal, [BlockArg::TryCallRet(0)], pool);
        let to_fault = BlockCall::new(fault, [], pool);
        let table = b.func.dfg.exception_tables.push(ExceptionTableData::new(
            sig,
            to_normal,
            [ExceptionTableItem::Default(to_fault)],
        ));
        let zero = b.ins().iconst(types::I64, 0);
        b.ins().try_call_indirect(code, &[state, zero], table);
        b.switch_to_block(normal);
        let reason = b.block_params(normal)[0];
        b.ins().return_(&[reason]);
        b.switch_to_block(fault);
        let reason = b.ins().iconst(types::I64, ExitReason::HostFault as i64);
        b.ins().return_(&[reason]);
    })?;
    let handler = handler
        .ok_or_else(|| BackendError::Codegen("the trampoline has no handler".to_string()))?;
    Ok((code, handler))
}

/// `(state, slot + 1)`: returns `Jump` with the slot in the high half.
fn exit_stub(isa: &dyn TargetIsa) -> Result<Vec<u8>, BackendError> {
    let (code, _) = finish(isa, region_signature(), |b| {
        let entry = b.current_block().expect("the entry block");
        let slot = b.block_params(entry)[1];
        let high = b.ins().ishl_imm_u(slot, 32);
        let reason = b.ins().bor_imm_u(high, ExitReason::Jump as i64);
        b.ins().return_(&[reason]);
    })?;
    Ok(code)
}

/// `(state, pc)`: writes RIP and returns `Jump` without a slot.
fn miss_stub(isa: &dyn TargetIsa, layout: &StateLayout) -> Result<Vec<u8>, BackendError> {
    let (code, _) = finish(isa, region_signature(), |b| {
        let entry = b.current_block().expect("the entry block");
        let (state, pc) = (b.block_params(entry)[0], b.block_params(entry)[1]);
        b.ins()
            .store(MemFlagsData::trusted(), pc, state, layout.rip as i32);
        let reason = b.ins().iconst(types::I64, ExitReason::Jump as i64);
        b.ins().return_(&[reason]);
    })?;
    Ok(code)
}

/// The signature of the stub of slow accesses: `(state, access, addr, b, c, helper)`. It preserves
/// every register, so that what the soft TLB does not have costs the code around it nothing.
pub(crate) fn slow_access_signature() -> Signature {
    let mut sig = Signature::new(CallConv::PreserveAll);
    sig.params.extend([AbiParam::new(types::I64); 6]);
    sig
}

/// Calls a helper for a memory access; the value comes back in [`SLOW_VALUE`].
fn slow_access(isa: &dyn TargetIsa, layout: &StateLayout) -> Result<Vec<u8>, BackendError> {
    let (code, _) = finish(isa, slow_access_signature(), |b| {
        let entry = b.current_block().expect("the entry block");
        let params = b.block_params(entry).to_vec();
        let mut sig = Signature::new(isa.default_call_conv());
        sig.params.extend([AbiParam::new(types::I64); 5]);
        sig.returns.push(AbiParam::new(types::I64));
        let sig = b.import_signature(sig);
        let call = b.ins().call_indirect(sig, params[5], &params[..5]);
        let value = b.inst_results(call)[0];
        let slot = (layout.helper_v + SLOW_VALUE) as i32;
        b.ins()
            .store(MemFlagsData::trusted(), value, params[0], slot);
        b.ins().return_(&[]);
    })?;
    Ok(code)
}

/// Where the value of a slow access is, in the vector slots of helpers: in one that no memory
/// access has an operand in.
pub(crate) const SLOW_VALUE: u32 = 48;
