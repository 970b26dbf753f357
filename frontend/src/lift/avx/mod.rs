//! AVX, AVX2, FMA and F16C: the instructions with a VEX prefix on vector registers.
//!
//! Most of them do what an SSE instruction does, to 128 bits or to each half of 256. The meaning is
//! that instruction's (`table` says which): it is lifted once or twice with `Lift::vex` set, which
//! makes the operand accessors in [`super::sse`] take the half that it is about, from the operands
//! one further where VEX adds one, and keep the result. The destination is written at the end, for
//! the upper half may read what the lower half writes; a 128-bit result clears the upper half.
//!
//! Memory operands are read whole before anything is computed, since arithmetic leaves flags in
//! MXCSR. They need no alignment but where the instruction's name says so.

pub mod broadcast;
pub mod compare;
pub mod dot;
pub mod fma;
pub mod masked;
pub mod moves;
pub mod permute;
pub mod table;

use super::{Lift, sse};
use iced_x86::{EncodingKind, Mnemonic, OpCodeOperandKind, OpKind, Register};
use metaphrase_ir::{IntCc, Reg, Type, Value};

/// What the accessors of [`super::sse`] need to know while a VEX instruction is lifted.
#[derive(Clone, Copy, Debug)]
pub struct Vex {
    /// 0, or 1 for bits 128 to 255.
    pub half: u32,
    /// The operation has 256 bits.
    pub wide: bool,
    /// The memory operand must be aligned.
    pub aligned: bool,
    /// What [`table::immediate_step`] says.
    pub step: u32,
    /// What [`table::widening`] says.
    pub widening: u32,
    /// The memory operand's halves, if it has been read.
    pub loaded: Option<[Value; 2]>,
    /// The result of this half.
    pub result: Option<Value>,
}

/// The groups of instructions without an SSE counterpart.
const GROUPS: &[fn(&mut Lift<'_>, Mnemonic) -> bool] = &[
    moves::lift,
    broadcast::lift,
    permute::lift,
    compare::lift,
    dot::lift,
    fma::lift,
    masked::lift,
];

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    if cx.insn.code().encoding() != EncodingKind::VEX {
        return false;
    }
    if GROUPS.iter().any(|g| g(cx, mnemonic)) {
        return true;
    }
    match table::legacy(mnemonic) {
        Some(legacy) => as_legacy(cx, mnemonic, legacy),
        None => false,
    }
}

/// Lifts the instruction as an SSE instruction of each half.
fn as_legacy(cx: &mut Lift<'_>, mnemonic: Mnemonic, legacy: Mnemonic) -> bool {
    each_half(cx, mnemonic, |cx| sse::lift(cx, legacy))
}

/// Runs `f` for each half and writes the results to the destination; false if `f` gives false.
pub fn each_half(cx: &mut Lift<'_>, mnemonic: Mnemonic, f: impl Fn(&mut Lift<'_>) -> bool) -> bool {
    let whole = cx.insn;
    let wide = is_wide(cx);
    let mut vex = Vex {
        half: 0,
        wide,
        aligned: table::aligned(mnemonic),
        step: table::immediate_step(mnemonic),
        widening: table::widening(mnemonic),
        loaded: None,
        result: None,
    };
    if wide {
        vex.loaded = load_halves(cx, &vex);
    }
    drop_destination(cx);
    let mut results = [None; 2];
    for half in 0..=u32::from(wide) {
        cx.vex = Some(Vex { half, ..vex });
        let known = f(cx);
        results[half as usize] = cx.vex.take().and_then(|v| v.result);
        if !known {
            cx.insn = whole;
            return false;
        }
    }
    cx.insn = whole;
    let narrows = wide && cx.insn.op0_register().is_xmm();
    match results {
        // Two halves of a narrower result.
        [Some(low), Some(high)] if narrows => {
            let quads = super::sse::shuffle::interleave(8, 0);
            let both = cx.ir.vshuffle(low, high, u128::from_le_bytes(quads));
            cx.set_xmm_zero_upper(0, both);
        }
        [Some(low), Some(high)] => cx.set_ymm(0, [low, high]),
        [Some(low), None] => cx.set_xmm_zero_upper(0, low),
        _ => {}
    }
    true
}

/// Whether an operand has 256 bits.
pub fn is_wide(cx: &Lift<'_>) -> bool {
    let insn = &cx.insn;
    let ymm = |n| insn.op_kind(n) == OpKind::Register && insn.op_register(n).is_ymm();
    (0..insn.op_count()).any(ymm) || insn.memory_size().size() == 32
}

/// Both halves of the source in memory, if there is one.
fn load_halves(cx: &mut Lift<'_>, vex: &Vex) -> Option<[Value; 2]> {
    if !(1..cx.insn.op_count()).any(|n| cx.is_mem(n)) {
        return None;
    }
    let size = cx.insn.memory_size().size() as u32;
    let addr = cx.linear();
    if vex.aligned {
        cx.check_aligned(addr, size);
    }
    if vex.widening == 0 && size == 16 {
        // The count of a shift.
        let v = cx.ir.load(Type::V128, addr, cx.operand_kind());
        return Some([v, v]);
    }
    let part = size / 2;
    Some([0, part].map(|at| {
        let at = cx.iconst(Type::I64, at.into());
        let addr = cx.ir.add(addr, at);
        cx.load_low(addr, part)
    }))
}

/// Where VEX names a destination besides the sources: makes the operands those that the SSE
/// instruction has.
fn drop_destination(cx: &mut Lift<'_>) {
    use OpCodeOperandKind::{xmm_vvvv, ymm_vvvv};
    let info = cx.insn.code().op_code();
    let is_added = |n| matches!(info.op_kind(n), xmm_vvvv | ymm_vvvv);
    if !is_added(0) && !is_added(1) {
        return;
    }
    for n in 1..cx.insn.op_count().min(4) {
        let kind = cx.insn.op_kind(n);
        let register = if kind == OpKind::Register {
            cx.insn.op_register(n)
        } else {
            Register::None
        };
        cx.insn.set_op_kind(n - 1, kind);
        if kind == OpKind::Register {
            cx.insn.set_op_register(n - 1, register);
        }
    }
}

impl Lift<'_> {
    /// The low `bytes` bytes at an address as a vector, zeros above.
    pub fn load_low(&mut self, addr: Value, bytes: u32) -> Value {
        if bytes == 16 {
            return self.ir.load(Type::V128, addr, self.operand_kind());
        }
        let v = self.ir.load(Type::int(bytes), addr, self.operand_kind());
        let v = self.ir.zext(Type::I64, v);
        self.ir.vfromint(v)
    }

    /// Raises #GP(0) if an address is not a multiple of `size`.
    pub fn check_aligned(&mut self, addr: Value, size: u32) {
        let mask = self.iconst(Type::I64, u64::from(size) - 1);
        let low = self.ir.and(addr, mask);
        let misaligned = self.ir.icmp_imm(IntCc::Ne, low, 0);
        self.ir.trapif(misaligned, super::GP);
    }

    /// Both halves of operand `n`, a YMM register or 32 bytes of memory. For an XMM register or 16
    /// bytes the upper half is not to be used.
    pub fn ymm(&mut self, n: u32) -> [Value; 2] {
        if self.is_mem(n) {
            let addr = self.linear();
            let low = self.load_low(addr, 16);
            if self.insn.memory_size().size() < 32 {
                return [low, low];
            }
            let sixteen = self.iconst(Type::I64, 16);
            let addr = self.ir.add(addr, sixteen);
            return [low, self.load_low(addr, 16)];
        }
        let n = self.insn.op_register(n).number() & 15;
        [Reg::xmm(n), Reg::ymm_hi(n)].map(|r| self.ir.getreg(r))
    }

    /// Writes operand `n`, a YMM register.
    pub fn set_ymm(&mut self, n: u32, v: [Value; 2]) {
        let n = self.insn.op_register(n).number() & 15;
        self.ir.setreg(Reg::xmm(n), v[0]);
        self.ir.setreg(Reg::ymm_hi(n), v[1]);
    }

    /// Writes operand `n`, an XMM register, and clears the rest of the YMM register.
    pub fn set_xmm_zero_upper(&mut self, n: u32, v: Value) {
        let zero = self.ir.vconst(0);
        self.set_ymm(n, [v, zero]);
    }

    /// Writes operand 0, an XMM or YMM register.
    pub fn set_vector(&mut self, v: [Value; 2]) {
        if self.insn.op0_register().is_ymm() {
            self.set_ymm(0, v);
        } else {
            self.set_xmm_zero_upper(0, v[0]);
        }
    }
}
