//! The SSE floating-point instructions as operations on two vectors: what the host's own
//! instruction, or a portable replacement of it, computes for the engines and for helpers.
//!
//! Operation `op` takes the destination's old value `a` and the source `b`, and gives the
//! destination's new value, as `op xmm, xmm` does. Integers come from and go to the low lane;
//! comparisons that set flags give the flags' image there. Every one of them rounds, treats
//! denormals and sets exception flags as MXCSR says.

use crate::ops::{FloatCc, Op, Round};
use crate::region::Inst;
use crate::types::{Shape, Type};

/// How an operation is encoded, and so how many variants it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SseForm {
    /// Two vectors.
    Plain,
    /// Two vectors and an immediate below that number.
    Imm(u16),
    /// The source is a 32-bit integer in the low lane.
    FromI32,
    /// The source is a 64-bit integer in the low lane.
    FromI64,
    /// The result is a 32-bit integer, zero-extended.
    ToI32,
    /// The result is a 64-bit integer.
    ToI64,
    /// The result is the image of ZF, PF and CF.
    Flags,
}

impl SseForm {
    /// The number of immediates.
    pub const fn variants(self) -> usize {
        match self {
            SseForm::Imm(n) => n as usize,
            _ => 1,
        }
    }
}

/// Calls a macro with the rows of the operations' table: variant, name, form. The name is the
/// mnemonic; conversions with 64-bit integers have a `q` behind it.
#[macro_export]
macro_rules! for_each_sse_op {
    ($callback:ident) => {
        $callback! {
            Addss addss [Plain]; Addsd addsd [Plain]; Addps addps [Plain]; Addpd addpd [Plain];
            Subss subss [Plain]; Subsd subsd [Plain]; Subps subps [Plain]; Subpd subpd [Plain];
            Mulss mulss [Plain]; Mulsd mulsd [Plain]; Mulps mulps [Plain]; Mulpd mulpd [Plain];
            Divss divss [Plain]; Divsd divsd [Plain]; Divps divps [Plain]; Divpd divpd [Plain];
            Minss minss [Plain]; Minsd minsd [Plain]; Minps minps [Plain]; Minpd minpd [Plain];
            Maxss maxss [Plain]; Maxsd maxsd [Plain]; Maxps maxps [Plain]; Maxpd maxpd [Plain];
            Sqrtss sqrtss [Plain]; Sqrtsd sqrtsd [Plain]; Sqrtps sqrtps [Plain]; Sqrtpd sqrtpd [Plain];
            Rcpss rcpss [Plain]; Rcpps rcpps [Plain]; Rsqrtss rsqrtss [Plain]; Rsqrtps rsqrtps [Plain];
            Haddps haddps [Plain]; Haddpd haddpd [Plain]; Hsubps hsubps [Plain]; Hsubpd hsubpd [Plain];
            Addsubps addsubps [Plain]; Addsubpd addsubpd [Plain];
            Cmpss cmpss [Imm 8]; Cmpsd cmpsd [Imm 8]; Cmpps cmpps [Imm 8]; Cmppd cmppd [Imm 8];
            Roundss roundss [Imm 16]; Roundsd roundsd [Imm 16]; Roundps roundps [Imm 16]; Roundpd roundpd [Imm 16];
            Dpps dpps [Imm 256]; Dppd dppd [Imm 256];
            Comiss comiss [Flags]; Comisd comisd [Flags]; Ucomiss ucomiss [Flags]; Ucomisd ucomisd [Flags];
            Cvtss2sd cvtss2sd [Plain]; Cvtsd2ss cvtsd2ss [Plain]; Cvtps2pd cvtps2pd [Plain]; Cvtpd2ps cvtpd2ps [Plain];
            Cvtdq2ps cvtdq2ps [Plain]; Cvtdq2pd cvtdq2pd [Plain];
            Cvtps2dq cvtps2dq [Plain]; Cvttps2dq cvttps2dq [Plain]; Cvtpd2dq cvtpd2dq [Plain]; Cvttpd2dq cvttpd2dq [Plain];
            Cvtsi2ss cvtsi2ss [FromI32]; Cvtsi2ssq cvtsi2ssq [FromI64];
            Cvtsi2sd cvtsi2sd [FromI32]; Cvtsi2sdq cvtsi2sdq [FromI64];
            Cvtss2si cvtss2si [ToI32]; Cvtss2siq cvtss2siq [ToI64];
            Cvtsd2si cvtsd2si [ToI32]; Cvtsd2siq cvtsd2siq [ToI64];
            Cvttss2si cvttss2si [ToI32]; Cvttss2siq cvttss2siq [ToI64];
            Cvttsd2si cvttsd2si [ToI32]; Cvttsd2siq cvttsd2siq [ToI64];
        }
    };
}

macro_rules! declare {
    (@form Imm $n:literal) => { SseForm::Imm($n) };
    (@form $form:ident) => { SseForm::$form };
    ($($variant:ident $name:ident [$($form:tt)*];)*) => {
        /// A floating-point instruction of SSE to SSE4.1.
        #[allow(missing_docs)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum SseOp { $($variant,)* }

        impl SseOp {
            /// Every operation, in the table's order.
            pub const ALL: &'static [SseOp] = &[$(SseOp::$variant,)*];

            /// The table's name.
            pub const fn name(self) -> &'static str {
                match self { $(SseOp::$variant => stringify!($name),)* }
            }

            /// How it is encoded.
            pub const fn form(self) -> SseForm {
                match self { $(SseOp::$variant => declare!(@form $($form)*),)* }
            }

            /// The operation with that name.
            pub fn from_name(name: &str) -> Option<SseOp> {
                match name { $(stringify!($name) => Some(SseOp::$variant),)* _ => None }
            }
        }
    };
}

for_each_sse_op!(declare);

impl SseOp {
    /// The descriptor of the helpers: operation and immediate.
    pub const fn pack(self, imm: u8) -> u32 {
        self as u32 | (imm as u32) << 16
    }

    /// Unpacks a descriptor; the immediate is cut to those that there are.
    pub fn unpack(word: u32) -> Option<(SseOp, u8)> {
        let op = *SseOp::ALL.get((word & 0xffff) as usize)?;
        let imm = (word >> 16) as usize & (op.form().variants() - 1);
        Some((op, imm as u8))
    }

    /// What an IR op computes, `from` being its first operand's type; `None` if it is no
    /// floating-point op. With one operand that is `b`, with two `a` and `b`. For `fcmp` and
    /// `fsignal` it is the comparison that has their flags.
    pub fn of(inst: &Inst, from: Type) -> Option<(SseOp, u8)> {
        use SseOp::*;
        let single = inst.ty == Type::F32;
        let shape = match inst.op {
            Op::VAdd
            | Op::VSub
            | Op::VMul
            | Op::VDiv
            | Op::VSqrt
            | Op::VMinS
            | Op::VMaxS
            | Op::VFCmp
            | Op::VIToF
            | Op::VFToI
            | Op::VFCvt => {
                let shape = *Shape::ALL.get(inst.imm as usize)?;
                if shape.lane().is_int() {
                    return None;
                }
                Some(shape)
            }
            _ => None,
        };
        let scalar = |s: SseOp, d: SseOp| if single { s } else { d };
        let packed = |s: SseOp, d: SseOp| if shape == Some(Shape::F32x4) { s } else { d };
        let op = match inst.op {
            Op::FAdd => scalar(Addss, Addsd),
            Op::FSub => scalar(Subss, Subsd),
            Op::FMul => scalar(Mulss, Mulsd),
            Op::FDiv => scalar(Divss, Divsd),
            Op::FSqrt => scalar(Sqrtss, Sqrtsd),
            Op::FMin => scalar(Minss, Minsd),
            Op::FMax => scalar(Maxss, Maxsd),
            Op::FCmp => scalar(Ucomiss, Ucomisd),
            Op::FSignal if inst.imm != 0 => scalar(Comiss, Comisd),
            Op::FSignal => scalar(Ucomiss, Ucomisd),
            Op::FCvt if from == inst.ty => return None,
            Op::FCvt => scalar(Cvtsd2ss, Cvtss2sd),
            Op::IToF if from == Type::I32 => scalar(Cvtsi2ss, Cvtsi2sd),
            Op::IToF => scalar(Cvtsi2ssq, Cvtsi2sdq),
            Op::FToI => {
                let to32 = inst.ty == Type::I32;
                match (from == Type::F32, to32, inst.imm == Round::Trunc as u64) {
                    (true, true, true) => Cvttss2si,
                    (true, true, false) => Cvtss2si,
                    (true, false, true) => Cvttss2siq,
                    (true, false, false) => Cvtss2siq,
                    (false, true, true) => Cvttsd2si,
                    (false, true, false) => Cvtsd2si,
                    (false, false, true) => Cvttsd2siq,
                    (false, false, false) => Cvtsd2siq,
                }
            }
            Op::VAdd => packed(Addps, Addpd),
            Op::VSub => packed(Subps, Subpd),
            Op::VMul => packed(Mulps, Mulpd),
            Op::VDiv => packed(Divps, Divpd),
            Op::VSqrt => packed(Sqrtps, Sqrtpd),
            Op::VMinS => packed(Minps, Minpd),
            Op::VMaxS => packed(Maxps, Maxpd),
            Op::VFCmp => {
                let cc = FloatCc::from_imm(u64::from(inst.aux));
                return Some((packed(Cmpps, Cmppd), cc as u8));
            }
            Op::VIToF => packed(Cvtdq2ps, Cvtdq2pd),
            Op::VFToI => packed(Cvttps2dq, Cvttpd2dq),
            Op::VFCvt => packed(Cvtpd2ps, Cvtps2pd),
            _ => return None,
        };
        Some((op, 0))
    }
}

impl Inst {
    /// Whether the op sets flags in MXCSR, so that it must neither be dropped nor moved past
    /// anything that may look at them or leave. (`fcmp` does not: an `fsignal` stands beside it.)
    pub fn sets_mxcsr(&self) -> bool {
        let float_shape = || {
            Shape::ALL
                .get(self.imm as usize)
                .is_some_and(|s| !s.lane().is_int())
        };
        match self.op {
            Op::FAdd
            | Op::FSub
            | Op::FMul
            | Op::FDiv
            | Op::FSqrt
            | Op::FMin
            | Op::FMax
            | Op::FSignal
            | Op::FCvt
            | Op::IToF
            | Op::FToI
            | Op::VFCmp
            | Op::VIToF
            | Op::VFToI
            | Op::VFCvt => true,
            Op::VAdd | Op::VSub | Op::VMul | Op::VDiv | Op::VSqrt | Op::VMinS | Op::VMaxS => {
                float_shape()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_and_names_round_trip() {
        for &op in SseOp::ALL {
            assert_eq!(SseOp::from_name(op.name()), Some(op));
            let last = (op.form().variants() - 1) as u8;
            assert_eq!(SseOp::unpack(op.pack(last)), Some((op, last)));
            assert!(op.form().variants().is_power_of_two());
        }
        assert_eq!(SseOp::unpack(0xffff), None);
    }
}
