//! Calls of runtime helpers.

use super::float::has_stub;
use super::{Lower, clif_type};
use cranelift_codegen::ir::{self as clif, InstBuilder, types};
use metaphrase_ir::{Effects, Helper, Inst, SseOp, Type, Value};

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

    pub(super) fn call(&mut self, inst: &Inst, args: &[Value]) -> clif::Value {
        let helper = Helper::from_imm(inst.imm);
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
}
