//! The lazy flag record.
//!
//! `setflags` stores kind, size and operands; `getcond` and `getflags` that the IR's passes could
//! not turn into something better ask the runtime's evaluator.

use super::Lower;
use cranelift_codegen::ir::{self as clif, InstBuilder, types};
use metaphrase_ir::{CcOp, Cond, FlagKind, Inst, Value, flags};

impl Lower<'_, '_> {
    pub(super) fn set_flags(&mut self, inst: &Inst, args: &[Value]) {
        let layout = self.unit.layout;
        let kind = FlagKind::ALL[inst.imm as usize];
        let op = CcOp::new(kind, inst.ty).0;
        if self.cc_op != Some(op) {
            self.store_state_const(types::I32, u64::from(op), layout.cc_op);
            self.cc_op = Some(op);
        }
        let places = [layout.cc_a, layout.cc_b, layout.cc_c];
        for (&arg, place) in args.iter().zip(places) {
            let value = match self.region.as_const(arg) {
                Some(bits) => self.iconst(types::I64, bits),
                None => {
                    let value = self.value(arg);
                    self.widen(value)
                }
            };
            self.store_state(value, place);
        }
    }

    /// The six flags, evaluated by the runtime.
    pub(super) fn get_flags(&mut self) -> clif::Value {
        let zero = self.iconst(types::I64, 0);
        let address = self.unit.helpers.flags as usize;
        self.call_host(address, &[self.state, zero, zero, zero, zero])
    }

    pub(super) fn get_cond(&mut self, inst: &Inst) -> clif::Value {
        let cond = Cond::ALL[inst.imm as usize];
        let image = self.get_flags();
        let direct = cond as u8 & 1 == 0;
        let base = if direct { cond } else { cond.invert() };
        let set = match base {
            Cond::O => self.any_of(image, flags::OF),
            Cond::B => self.any_of(image, flags::CF),
            Cond::Z => self.any_of(image, flags::ZF),
            Cond::Be => self.any_of(image, flags::CF | flags::ZF),
            Cond::S => self.any_of(image, flags::SF),
            Cond::P => self.any_of(image, flags::PF),
            _ => {
                // SF (bit 7) differs from OF (bit 11).
                let of = self.b.ins().ushr_imm_u(image, 4);
                let differ = self.b.ins().bxor(image, of);
                let differ = self.b.ins().band_imm_u(differ, flags::SF as i64);
                let less = if base == Cond::Le {
                    let zero = self.b.ins().band_imm_u(image, flags::ZF as i64);
                    self.b.ins().bor(differ, zero)
                } else {
                    differ
                };
                self.b
                    .ins()
                    .icmp_imm_u(clif::condcodes::IntCC::NotEqual, less, 0)
            }
        };
        if direct {
            set
        } else {
            self.b.ins().bxor_imm_u(set, 1)
        }
    }

    fn any_of(&mut self, image: clif::Value, mask: u64) -> clif::Value {
        let bits = self.b.ins().band_imm_u(image, mask as i64);
        self.b
            .ins()
            .icmp_imm_u(clif::condcodes::IntCC::NotEqual, bits, 0)
    }
}
