//! The text form of a region: what `parse` reads back.
//!
//! ```text
//! region pc 0x401000 code64
//! guest @0 +0x0 len 3 fuel 2
//! guest @1 +0x3 len 2 fuel 1
//! block0:
//!     fuel 2 ; @0
//!     v1 = getreg.i64 rax ; @0
//!     v2 = iconst.i64 0x5 ; @0
//!     v3 = add.i64 v1, v2 ; @0
//!     setreg.i64 rax, v3 ; @0
//!     br block1(v3) ; @1
//! block1(v4: i64):
//!     exit_jump +0x5 ; @1
//! ```
//!
//! After the op come its controlling type (unless the op has only one), its immediates by name and
//! its operands, after those the state map (see [`crate::statemap`]); `; @1` is the guest
//! instruction. Which immediates an op has is said by its
//! [`Imm`]; nothing here knows single ops.

use crate::flags::{Cond, FlagKind};
use crate::guest::Reg;
use crate::helpers::Helper;
use crate::ops::{AccessKind, Control, FloatCc, Imm, IntCc, RmwOp, Round, SyscallKind};
use crate::region::{Region, Value};
use crate::types::Shape;
use std::fmt::{self, Formatter};

/// One instruction of a region, to print.
#[derive(Clone, Copy, Debug)]
pub struct InstText<'a>(pub &'a Region, pub Value);

impl fmt::Display for Region {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "region pc {:#x} code{}", self.pc, self.code_size.bits())?;
        for (n, g) in self.guest.iter().enumerate() {
            let offset = Offset(g.offset);
            writeln!(f, "guest @{n} {offset} len {} fuel {}", g.len, g.fuel_left)?;
        }
        for block in self.block_ids() {
            let data = &self.blocks[block.0 as usize];
            write!(f, "{block}")?;
            for (n, &p) in data.params.iter().enumerate() {
                let before = if n == 0 { "(" } else { ", " };
                write!(f, "{before}{p}: {}", self.inst(p).ty)?;
            }
            writeln!(f, "{}:", if data.params.is_empty() { "" } else { ")" })?;
            for &v in &data.insts {
                writeln!(f, "    {} ; @{}", InstText(self, v), self.inst(v).insn)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for InstText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let InstText(region, v) = *self;
        let (inst, info) = (region.inst(v), region.inst(v).op.info());
        if info.result.is_some() {
            write!(f, "{v} = ")?;
        }
        f.write_str(info.name)?;
        if !matches!(info.control, Control::Only(_)) {
            write!(f, ".{}", inst.ty)?;
        }
        if matches!(info.imm, Imm::Target | Imm::Targets) {
            return branch(f, region, v);
        }
        write_imm(f, region, v)?;
        // A register reads as one more operand: `setreg.i64 rax, v3`.
        let mut before = if info.imm == Imm::Reg { ", " } else { " " };
        let own = region.args(v).len() - region.state_map(v).count();
        for a in &region.args(v)[..own] {
            write!(f, "{before}{a}")?;
            before = ", ";
        }
        let mut before = " [";
        for (r, a) in region.state_map(v) {
            write!(f, "{before}{r}: {a}")?;
            before = ", ";
        }
        f.write_str(if before == ", " { "]" } else { "" })
    }
}

/// The condition if there is one, and the targets with their arguments.
fn branch(f: &mut Formatter<'_>, region: &Region, v: Value) -> fmt::Result {
    let inst = region.inst(v);
    if inst.op.info().imm == Imm::Targets {
        // A broken region must print too, for the verifier's messages.
        match region.args(v).first() {
            Some(c) if (inst.aux as usize) < region.args(v).len() => write!(f, " {c},")?,
            _ => return f.write_str(" ?"),
        }
    }
    for (n, (block, args)) in region.successors(v).enumerate() {
        write!(f, "{}{block}", if n == 0 { " " } else { ", " })?;
        for (n, a) in args.iter().enumerate() {
            write!(f, "{}{a}", if n == 0 { "(" } else { ", " })?;
        }
        f.write_str(if args.is_empty() { "" } else { ")" })?;
    }
    Ok(())
}

/// The immediates, each after a space.
fn write_imm(f: &mut Formatter<'_>, region: &Region, v: Value) -> fmt::Result {
    let inst = region.inst(v);
    let (imm, aux) = (inst.imm, inst.aux);
    // The name at that place of a table, or `?`: the verifier prints broken instructions too.
    macro_rules! name {
        ($ty:ident, $n:expr) => {
            $ty::ALL.get($n as usize).map_or("?", |x| x.name())
        };
    }
    match inst.op.info().imm {
        Imm::None | Imm::Target | Imm::Targets => Ok(()),
        Imm::Bits => write!(f, " {imm:#x}"),
        Imm::V128 => match region.vconsts.get(imm as usize) {
            Some(bits) => write!(f, " {bits:#x}"),
            None => f.write_str(" ?"),
        },
        Imm::Reg => write!(f, " {}", name!(Reg, imm)),
        Imm::Cond => write!(f, " {}", name!(Cond, imm)),
        Imm::IntCc => write!(f, " {}", name!(IntCc, imm)),
        Imm::FloatCc => write!(f, " {}", name!(FloatCc, imm)),
        Imm::Flags => write!(f, " {}", name!(FlagKind, imm)),
        Imm::Helper => write!(f, " {} {aux:#x}", name!(Helper, imm)),
        Imm::Access => write!(f, " {}", name!(AccessKind, imm)),
        Imm::Rmw => write!(f, " {}", name!(RmwOp, imm)),
        Imm::Shape => write!(f, " {}", name!(Shape, imm)),
        Imm::Lane => write!(f, " {} {aux}", name!(Shape, imm)),
        Imm::ShapeFloatCc => write!(f, " {} {}", name!(Shape, imm), name!(FloatCc, aux)),
        Imm::ShapeIntCc => write!(f, " {} {}", name!(Shape, imm), name!(IntCc, aux)),
        Imm::BitOffset | Imm::Count | Imm::Vector => write!(f, " {imm}"),
        Imm::Round => write!(f, " {}", name!(Round, imm)),
        Imm::Pc => write!(f, " {}", Offset(imm as i64)),
        Imm::PcPair => {
            let second = Offset(i64::from(aux as i32));
            write!(f, " {} {second}", Offset(imm as i64))
        }
        Imm::RetPc => write!(f, " {}", Offset(i64::from(aux as i32))),
        Imm::Syscall => {
            let next = Offset(i64::from(aux as i32));
            write!(f, " {} {next}", name!(SyscallKind, imm))
        }
    }
}

/// A PC offset: always with its sign.
struct Offset(i64);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { '-' } else { '+' };
        write!(f, "{sign}{:#x}", self.0.unsigned_abs())
    }
}
