//! The verifier: what every region must satisfy, before and after each pass.
//!
//! Blocks:
//! 1. There is an entry block, it has no parameters, and no branch goes to it.
//! 2. Each block ends with a terminator and has no other one.
//! 3. A block's parameters are `param` instructions, and those stand nowhere else.
//! 4. Each instruction stands in one place only. (Instructions in no block are ignored.)
//! 5. A branch goes to existing blocks and gives each as many arguments as it has parameters, of
//!    their types.
//!
//! Instructions, by the op's row of the table:
//! 6. The controlling type is one that the op takes.
//! 7. There are as many operands as the op, the flag kind or the helper takes; each is a value
//!    that stands in a block, of the class asked for.
//! 8. The immediate names something: a register, condition, comparison, shape, helper, vector
//!    (0 to 31), 128-bit constant. Bit offset and size stay within 64 bits; a lane is in its shape;
//!    the shape is one that the op is defined for; a constant fits its type; a state map has
//!    registers, and as many operands behind the op's own, of their types.
//! 9. Types agree with the immediate: `getreg` and `setreg` have the register's, `call` the
//!    helper's result, `vsplat`, `vget` and `vset` the lane's; `setflags raw` is i64.
//! 10. `zext` and `sext` widen, `trunc` narrows, `bitcast` keeps the size; `fcvt` converts from the
//!     other float type, `itof` from i32 or i64, `ftoi` from a float; `cas` is not of floats,
//!     `iconst` not of vectors.
//! 11. The guest instruction is in the region's table, whose lengths are 0 to 15.
//!
//! Values:
//! 12. A definition dominates its uses (in blocks that the entry reaches).

mod types;

use crate::cfg::Cfg;
use crate::ops::{Class, Control, Op};
use crate::print::InstText;
use crate::region::{Block, Region, Value};
use crate::types::Type;
use std::fmt;
use thiserror::Error;

/// One broken invariant, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyError {
    /// The block, if it is about one.
    pub block: Option<Block>,
    /// The instruction's text, if it is about one and it can be printed.
    pub inst: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(block) = self.block {
            write!(f, "{block}: ")?;
        }
        if !self.inst.is_empty() {
            write!(f, "{}: ", self.inst)?;
        }
        f.write_str(&self.message)
    }
}

/// Every broken invariant of a region.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub struct VerifyErrors {
    /// The pass after which the region was found invalid; `None` if it came so.
    pub pass: Option<&'static str>,
    /// What is wrong; at least one entry.
    pub errors: Vec<VerifyError>,
    /// The region's text, if it can be printed.
    pub region: String,
}

impl VerifyErrors {
    /// Notes that `pass` made the region invalid.
    pub fn after(self, pass: &'static str) -> VerifyErrors {
        VerifyErrors {
            pass: Some(pass),
            ..self
        }
    }
}

impl fmt::Display for VerifyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pass {
            Some(pass) => write!(f, "region is invalid after pass {pass}:")?,
            None => f.write_str("region is invalid:")?,
        }
        for e in &self.errors {
            write!(f, "\n  {e}")?;
        }
        write!(f, "\n{}", self.region)
    }
}

/// Checks every invariant.
///
/// # Errors
/// All that is broken.
pub fn verify(region: &Region) -> Result<(), VerifyErrors> {
    let mut v = Verifier {
        region,
        place: vec![None; region.insts.len()],
        errors: Vec::new(),
    };
    let printable = v.places();
    if printable {
        v.instructions();
    }
    // Dominance needs blocks and branches that are sound.
    if v.errors.is_empty() {
        v.dominance();
    }
    if v.errors.is_empty() {
        return Ok(());
    }
    Err(VerifyErrors {
        pass: None,
        errors: v.errors,
        region: match printable {
            true => region.to_string(),
            false => String::new(),
        },
    })
}

struct Verifier<'r> {
    region: &'r Region,
    /// By value: its block and its place there; parameters have place 0, all others more.
    place: Vec<Option<(Block, usize)>>,
    errors: Vec<VerifyError>,
}

impl Verifier<'_> {
    fn error(&mut self, block: Block, message: impl Into<String>) {
        self.errors.push(VerifyError {
            block: Some(block),
            inst: String::new(),
            message: message.into(),
        });
    }

    fn inst_error(&mut self, block: Block, v: Value, message: impl Into<String>) {
        self.errors.push(VerifyError {
            block: Some(block),
            inst: InstText(self.region, v).to_string(),
            message: message.into(),
        });
    }

    /// Invariants 1 to 4 and 11. False if ids are so broken that the region cannot be printed.
    fn places(&mut self) -> bool {
        let region = self.region;
        let mut printable = true;
        match region.blocks.first() {
            None => {
                self.errors.push(VerifyError {
                    block: None,
                    inst: String::new(),
                    message: "there is no entry block".into(),
                });
                return false;
            }
            Some(entry) if !entry.params.is_empty() => {
                self.error(Region::ENTRY, "the entry has parameters");
            }
            Some(_) => {}
        }
        if let Some(g) = region.guest.iter().find(|g| g.len > 15) {
            self.error(
                Region::ENTRY,
                format!("a guest instruction has {} bytes", g.len),
            );
        }
        for b in region.block_ids() {
            let data = &region.blocks[b.0 as usize];
            let params = data.params.iter().map(|&v| (v, 0));
            let insts = data.insts.iter().enumerate().map(|(n, &v)| (v, n + 1));
            for (v, n) in params.chain(insts) {
                let Some(&inst) = region.insts.get(v.0 as usize) else {
                    self.error(b, format!("{v} does not exist"));
                    printable = false;
                    continue;
                };
                let end = inst.first_arg as usize + inst.nargs as usize;
                if inst.nargs > 0 && end > region.pool.len() {
                    self.error(b, format!("{v} has operands outside the pool"));
                    printable = false;
                    continue;
                }
                if self.place[v.0 as usize].replace((b, n)).is_some() {
                    self.inst_error(b, v, "stands in two places");
                }
                if (inst.op == Op::Param) != (n == 0) {
                    self.inst_error(b, v, "params stand at a block's start, and only they");
                }
                if n > 0 && inst.op.is_terminator() != (n == data.insts.len()) {
                    self.inst_error(b, v, "a block has one terminator, at its end");
                }
                if inst.op != Op::Param && inst.insn as usize >= region.guest.len() {
                    self.inst_error(
                        b,
                        v,
                        format!("there is no guest instruction @{}", inst.insn),
                    );
                }
            }
            if data.insts.is_empty() {
                self.error(b, "the block is empty");
            }
        }
        printable
    }

    /// Invariants 5 to 10.
    fn instructions(&mut self) {
        let region = self.region;
        for b in region.block_ids() {
            let data = &region.blocks[b.0 as usize];
            for &v in data.params.iter().chain(&data.insts) {
                self.control(b, v);
                let before = self.errors.len();
                if let Err(message) = types::immediate(region, v) {
                    self.inst_error(b, v, message);
                }
                // What an operand must be may depend on the immediate.
                if self.errors.len() == before && self.operands(b, v) {
                    if let Err(message) = types::relations(region, v) {
                        self.inst_error(b, v, message);
                    }
                    self.branch(b, v);
                }
            }
        }
    }

    fn control(&mut self, b: Block, v: Value) {
        let inst = self.region.inst(v);
        let ty = inst.ty;
        let good = match inst.op.info().control {
            Control::Only(only) => ty == only,
            Control::AnyInt => ty.is_int(),
            Control::WideInt => matches!(ty, Type::I32 | Type::I64),
            Control::AnyFloat => ty.is_float(),
            Control::AnyType => true,
        };
        if !good {
            self.inst_error(b, v, format!("{} is not of type {ty}", inst.op));
        }
    }

    /// Whether all operands are values of the right class.
    fn operands(&mut self, b: Block, v: Value) -> bool {
        let region = self.region;
        let before = self.errors.len();
        let args = region.args(v);
        match region.operand_count(v) {
            Some(count) if count != args.len() => {
                let message = format!("{} operands, not {count}", args.len());
                self.inst_error(b, v, message);
            }
            _ => {}
        }
        for (n, &a) in args.iter().enumerate() {
            let placed = self.place.get(a.0 as usize).copied().flatten();
            if placed.is_none() {
                self.inst_error(b, v, format!("{a} stands in no block"));
                continue;
            }
            let Some(ty) = region.result_type(a) else {
                self.inst_error(b, v, format!("{a} has no value"));
                continue;
            };
            let good = match region.operand_class(v, n) {
                Class::Ctl => ty == region.inst(v).ty,
                Class::Int => ty.is_int(),
                Class::Any => true,
                Class::Is(only) => ty == only,
            };
            if !good {
                self.inst_error(b, v, format!("{a} is {ty}"));
            }
        }
        self.errors.len() == before
    }

    /// Invariant 5, and the last part of 1.
    fn branch(&mut self, b: Block, v: Value) {
        let region = self.region;
        let inst = region.inst(v);
        if inst.op == Op::BrIf && inst.aux as usize >= region.args(v).len() {
            return self.inst_error(b, v, "the arguments do not divide so");
        }
        for (to, args) in region.successors(v) {
            let Some(target) = region.blocks.get(to.0 as usize) else {
                self.inst_error(b, v, format!("there is no {to}"));
                continue;
            };
            if to == Region::ENTRY {
                self.inst_error(b, v, "goes to the entry");
            }
            let types = target.params.iter().map(|&p| region.inst(p).ty);
            if !types.eq(args.iter().map(|&a| region.ty(a))) {
                self.inst_error(b, v, format!("the arguments are not {to}'s parameters"));
            }
        }
    }

    /// Invariant 12.
    fn dominance(&mut self) {
        let region = self.region;
        let cfg = Cfg::new(region);
        let idom = cfg.dominators();
        for &b in &cfg.rpo {
            for (n, &v) in region.blocks[b.0 as usize].insts.iter().enumerate() {
                for &a in region.args(v) {
                    let Some((from, place)) = self.place[a.0 as usize] else {
                        continue;
                    };
                    let good = if from == b {
                        place < n + 1
                    } else {
                        let mut up = b;
                        while cfg.order[up.0 as usize] > cfg.order[from.0 as usize] {
                            up = idom[up.0 as usize];
                        }
                        up == from
                    };
                    if !good {
                        self.inst_error(b, v, format!("{a} is not defined on every path here"));
                    }
                }
            }
        }
    }
}
