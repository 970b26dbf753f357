//! Predecoding of branches and direct exits: their tests, the copies of block arguments, and the
//! distances, which are written when every block has its place.

use super::analyze::Operand;
use super::code::Ins;
use super::emit::Emitter;
use super::fold::Test;
use super::slots::scratch;
use super::{ProgramError, flow, int};
use metaphrase_ir::{Block, Type, Value};

/// Where a branch distance belongs in the immediate.
#[derive(Clone, Copy)]
pub(super) enum Field {
    Whole,
    High,
}

/// A branch whose target is not known yet.
pub(super) struct Fixup {
    at: usize,
    field: Field,
    pub(super) to: Target,
}

/// Where a branch goes.
#[derive(Clone, Copy)]
pub(super) enum Target {
    Block(Block),
    Ins(usize),
}

impl Emitter<'_> {
    /// Emits the test of a conditional branch; answers the fixup of the taken side.
    pub(super) fn test(&mut self, v: Value, block: Block) -> usize {
        let mut field = Field::Whole;
        match self.a.test(self.a.arg(v, 0), block) {
            Test::Compare(cc, ty, a, b) => {
                field = Field::High;
                let a = self.source(a, 0);
                let fits = |bits: u64| ty != Type::I64 || i64::from(bits as i32) as u64 == bits;
                match b {
                    Operand::Const(bits) if fits(bits) => {
                        let run = flow::compare_branch(cc, ty, true);
                        self.push(run, 0, a, 0, bits & 0xffff_ffff);
                    }
                    Operand::Const(bits) => {
                        self.push(int::constant, scratch(1), 0, 0, bits);
                        self.push(flow::compare_branch(cc, ty, false), 0, a, scratch(1), 0);
                    }
                    Operand::Value(b) => {
                        let b = self.source(b, 1);
                        self.push(flow::compare_branch(cc, ty, false), 0, a, b, 0);
                    }
                }
            }
            Test::Flags(cond) => self.push(flow::branch_cond, 0, cond as u16, 0, 0),
            Test::Value(c) => {
                let c = self.source(c, 0);
                self.push(flow::branch_if, 0, c, 0, 0);
            }
        }
        self.fixups.push(Fixup {
            at: self.code.len() - 1,
            field,
            to: Target::Ins(0),
        });
        self.fixups.len() - 1
    }

    pub(super) fn branch(&mut self, v: Value, block: Block) {
        let inst = *self.region().inst(v);
        let (then, other) = (Block(inst.imm as u32), Block((inst.imm >> 32) as u32));
        let args = &self.region().args(v)[1..];
        let (then_args, other_args) = args.split_at((inst.aux as usize).min(args.len()));
        let at = self.test(v, block);
        self.copies(other, other_args);
        if then_args.is_empty() {
            self.fixups[at].to = Target::Block(then);
            self.go(block, other);
        } else {
            self.go_always(other);
            self.fixups[at].to = Target::Ins(self.code.len());
            self.copies(then, then_args);
            self.go(block, then);
        }
    }

    /// Goes to a block, by falling into it if it comes next.
    pub(super) fn go(&mut self, from: Block, to: Block) {
        if to.0 != from.0 + 1 {
            self.go_always(to);
        }
    }

    fn go_always(&mut self, to: Block) {
        self.push(flow::branch, 0, 0, 0, 0);
        self.fixups.push(Fixup {
            at: self.code.len() - 1,
            field: Field::Whole,
            to: Target::Block(to),
        });
    }

    pub(super) fn jump(&mut self, target: i64) -> Result<(), ProgramError> {
        let slot = u16::try_from(self.exits.len()).map_err(|_| ProgramError::TooLong)?;
        self.exits.push(target);
        self.push(flow::jump, 0, slot, 0, target as u64);
        Ok(())
    }

    /// Writes the distances of all branches.
    pub(super) fn resolve(&mut self) {
        for f in &self.fixups {
            let to = match f.to {
                Target::Block(b) => self.starts[b.0 as usize],
                Target::Ins(n) => n,
            };
            let distance = (to as i64 - f.at as i64) * size_of::<Ins>() as i64;
            let ins = &mut self.code[f.at];
            match f.field {
                Field::Whole => ins.imm = distance as u64,
                Field::High => ins.imm |= (distance as u64) << 32,
            }
        }
    }
}
