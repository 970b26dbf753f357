//! Calls of runtime helpers.

use super::float::has_stub;
use super::{Lower, clif_type};
use crate::error::CompileError;
use cranelift_codegen::ir::{self as clif, InstBuilder, types};
use metaphrase_ir::{Effects, Helper, Inst, SseOp, Type, Value, VecOp};

impl Lower<'_, '_> {
    /// Calls a host function with the helpers' signature.
    pub(super) fn call_host(&mut self, address: usize, args: &[clif::Value; 5]) -> clif::Value {
        let sig = self.signature_of_helpers();
        let callee = self.iconst(types::I64, address as u64);
        let call = self.b.ins().call_indirect(sig, callee, args);
        // It may have evaluated or written the flags.
        self.cc_op = None;
        self.b.inst_results(call)[0]
    }

    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
    pub(super) fn call(
        &mut self,
        v: Value,
        inst: &Inst,
        args: &[Value],
    ) -> Result<clif::Value, CompileError> {
        let helper = Helper::from_imm(inst.imm);
        #[cfg(target_arch = "x86_64")]
        if helper == Helper::X87 && self.unit.options.x87 {
            return self.x87(v, inst, args);
        }
        Ok(self.call_helper(helper, inst, args))
    }

    fn call_helper(&mut self, helper: Helper, inst: &Inst, args: &[Value]) -> clif::Value {
        if helper == Helper::SseFloat
            && let Some((op, imm)) = SseOp::unpack(inst.aux)
            && has_stub(op)
        {
            let [a, b] = [0, 1].map(|n| {
                let v = self.value(args[n]);
                self.bitcast(types::I8X16, v)
            });
            return self.call_stub(op, imm, a, b, types::I8X16);
        }
        if helper == Helper::Fma
            && let Some(result) = self.fused(inst, args)
        {
            return result;
        }
        if helper == Helper::VecOp
            && let Some(result) = self.inline_vec_op(inst.aux, args)
        {
            return result;
        }
        let zero = self.iconst(types::I64, 0);
        let descriptor = self.iconst(types::I64, u64::from(inst.aux));
        let mut host = [self.state, descriptor, zero, zero, zero];
        for (n, &arg) in args.iter().enumerate() {
            let value = self.value(arg);
            if self.region.ty(arg) == Type::V128 {
                let slot = self.unit.layout.helper_v + 16 * n as u32;
                self.store_state(value, slot);
            } else {
                host[2 + n] = self.widen(value);
            }
        }
        let raw = self.call_host(self.unit.helpers.address(helper), &host);
        if helper.effects().has(Effects::MAY_EXIT) {
            self.check_helper_exit();
        }
        match helper.result() {
            Type::I64 => raw,
            Type::F64 => self.bitcast(types::F64, raw),
            Type::F32 => {
                let low = self.b.ins().ireduce(types::I32, raw);
                self.bitcast(types::F32, low)
            }
            Type::V128 => self.load_state(types::I8X16, self.unit.layout.helper_v),
            ty => self.b.ins().ireduce(clif_type(ty), raw),
        }
    }

    /// A vector operation that is one instruction of the host.
    fn inline_vec_op(&mut self, descriptor: u32, args: &[Value]) -> Option<clif::Value> {
        let (op, _, short) = VecOp::unpack(descriptor)?;
        if short || !host_has_ssse3() {
            return None;
        }
        let [a, b] = [0, 1].map(|n| self.value(args[n]));
        let [a, b] = [a, b].map(|v| self.bitcast(types::I8X16, v));
        Some(match op {
            VecOp::Pshufb => self.b.ins().x86_pshufb(a, b),
            VecOp::Pmaddubsw => {
                // Cranelift's second operand has the unsigned bytes.
                let r = self.b.ins().x86_pmaddubsw(b, a);
                self.bitcast(types::I8X16, r)
            }
            VecOp::Pmulhrsw => {
                let [a, b] = [a, b].map(|v| self.bitcast(types::I16X8, v));
                let r = self.b.ins().x86_pmulhrsw(a, b);
                self.bitcast(types::I8X16, r)
            }
            _ => return None,
        })
    }
}

/// Whether the host has SSSE3, and Cranelift uses it.
fn host_has_ssse3() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("ssse3")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}
