//! String instructions: MOVS, STOS, LODS, CMPS, SCAS, with and without REP; INS and OUTS.
//!
//! Without a prefix they are a few loads and stores. With REP one helper call does a bounded
//! number of iterations, with the registers in the guest state always architectural; when it asks
//! for more, the region is left for the same instruction, which charges fuel again. So a long
//! REP is interruptible and each of its pieces counts as an instruction.

use super::{GP, Lift};
use crate::policy::Sensitive;
use iced_x86::{Mnemonic, OpKind, Register};
use metaphrase_ir::helpers::{StringKind, StringOp};
use metaphrase_ir::{AccessKind, FlagKind, Helper, Reg, Type, Value};

/// Lifts the instruction if it is one of this family.
pub fn lift(cx: &mut Lift<'_>, mnemonic: Mnemonic) -> bool {
    if !cx.insn.is_string_instruction() {
        return false;
    }
    let kind = match mnemonic {
        Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq => StringKind::Movs,
        Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => StringKind::Stos,
        Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => StringKind::Lods,
        Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd | Mnemonic::Cmpsq => StringKind::Cmps,
        Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd | Mnemonic::Scasq => StringKind::Scas,
        _ => {
            port_string(cx);
            return true;
        }
    };
    let source = cx.insn.memory_segment();
    let checked = match kind {
        StringKind::Lods => cx.is_checked(source, false),
        StringKind::Movs => cx.is_checked(source, false) || cx.is_checked(Register::ES, true),
        StringKind::Cmps => cx.is_checked(source, false) || cx.is_checked(Register::ES, false),
        StringKind::Stos | StringKind::Scas => cx.is_checked(Register::ES, true),
    };
    let op = StringOp {
        kind,
        size: element(cx).bytes(),
        addr: address_type(cx).bytes(),
        repne: cx.insn.has_repne_prefix(),
        long: cx.mode.is_64(),
        segment: match kind {
            StringKind::Stos | StringKind::Scas => 0,
            _ => source.number() as u32,
        },
        checked,
        aligned: cx.mode.system.is_some_and(|system| system.align),
    };
    if cx.insn.has_rep_prefix() || cx.insn.has_repne_prefix() {
        repeated(cx, op);
    } else {
        once(cx, op);
    }
    true
}

/// The element's type.
fn element(cx: &Lift<'_>) -> Type {
    Type::int(cx.insn.memory_size().size() as u32)
}

/// The address size, from the implicit memory operands.
pub fn address_type(cx: &Lift<'_>) -> Type {
    for n in 0..cx.insn.op_count() {
        match cx.insn.op_kind(n) {
            OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => return Type::I16,
            OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => return Type::I32,
            _ => {}
        }
    }
    Type::I64
}

/// RSI, RDI or RCX at the address size.
fn at_size(ty: Type, whole: Register) -> Register {
    match (ty, whole) {
        (Type::I16, Register::RSI) => Register::SI,
        (Type::I16, _) => Register::DI,
        (Type::I32, Register::RSI) => Register::ESI,
        (Type::I32, _) => Register::EDI,
        _ => whole,
    }
}

/// RAX at the element size.
fn accumulator(ty: Type) -> Register {
    match ty {
        Type::I8 => Register::AL,
        Type::I16 => Register::AX,
        Type::I32 => Register::EAX,
        _ => Register::RAX,
    }
}

/// The effective address in `register` (RSI or RDI).
fn pointer(cx: &mut Lift<'_>, op: StringOp, register: Register) -> Value {
    let v = cx.read_gpr(at_size(Type::int(op.addr), register));
    cx.ir.zext(Type::I64, v)
}

/// The element of the source.
fn load_source(cx: &mut Lift<'_>, op: StringOp) -> Value {
    let segment = cx.insn.memory_segment();
    let ea = pointer(cx, op, Register::RSI);
    let addr = cx.access(segment, ea, op.size, false);
    let kind = cx.kind_of(segment);
    cx.ir.load(Type::int(op.size), addr, kind)
}

/// The element of the destination.
fn load_dest(cx: &mut Lift<'_>, op: StringOp) -> Value {
    let ea = pointer(cx, op, Register::RDI);
    let addr = cx.access(Register::ES, ea, op.size, false);
    cx.ir.load(Type::int(op.size), addr, AccessKind::Data)
}

/// Writes the element of the destination.
fn store_dest(cx: &mut Lift<'_>, op: StringOp, v: Value) {
    let ea = pointer(cx, op, Register::RDI);
    let addr = cx.access(Register::ES, ea, op.size, true);
    cx.ir.store(addr, v, AccessKind::Data);
}

/// Moves RSI or RDI by one element in the direction that DF gives.
fn advance(cx: &mut Lift<'_>, op: StringOp, register: Register) {
    let ty = Type::int(op.addr);
    let df = cx.ir.getreg(Reg::Df);
    let shift = cx.iconst(Type::I64, u64::from(op.size.trailing_zeros()));
    let step = cx.ir.shl(df, shift);
    let step = cx.ir.trunc(ty, step);
    let r = at_size(ty, register);
    let old = cx.read_gpr(r);
    let new = cx.ir.add(old, step);
    cx.write_gpr(r, new);
}

/// One iteration, without a prefix.
fn once(cx: &mut Lift<'_>, op: StringOp) {
    let ty = Type::int(op.size);
    let (source, dest) = (Register::RSI, Register::RDI);
    match op.kind {
        StringKind::Movs => {
            let v = load_source(cx, op);
            store_dest(cx, op, v);
            advance(cx, op, source);
            advance(cx, op, dest);
        }
        StringKind::Stos => {
            let v = cx.read_gpr(accumulator(ty));
            store_dest(cx, op, v);
            advance(cx, op, dest);
        }
        StringKind::Lods => {
            let v = load_source(cx, op);
            cx.write_gpr(accumulator(ty), v);
            advance(cx, op, source);
        }
        StringKind::Cmps => {
            let a = load_source(cx, op);
            let b = load_dest(cx, op);
            advance(cx, op, source);
            advance(cx, op, dest);
            cx.ir.setflags(FlagKind::Sub, &[a, b]);
        }
        StringKind::Scas => {
            let a = cx.read_gpr(accumulator(ty));
            let b = load_dest(cx, op);
            advance(cx, op, dest);
            cx.ir.setflags(FlagKind::Sub, &[a, b]);
        }
    }
}

/// A REP form: the helper iterates, and the instruction is run again while it asks for that.
fn repeated(cx: &mut Lift<'_>, op: StringOp) {
    let zero = cx.iconst(Type::I64, 0);
    let base = cx.add_segment(cx.insn.memory_segment(), zero);
    let again = cx.ir.call(Helper::RepString, op.pack(), &[base]);
    let again = cx.ir.trunc(Type::I8, again);
    cx.cond_jump(again, cx.insn.ip());
}

/// INS, OUTS: #GP at CPL 3 with IOPL 0, whatever the count is (SDM volume 1, 19.5.1).
fn port_string(cx: &mut Lift<'_>) {
    if cx.policy(Sensitive::Io).is_some() {
        cx.ir.exit_raise(GP);
    }
}
