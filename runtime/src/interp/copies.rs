//! Block arguments: all parameters of a block take their new values at once.

use super::emit::{Emitter, move_as};
use super::int;
use super::slots::scratch;
use metaphrase_ir::{Block, Op, Type, Value};

/// Where a block argument comes from.
#[derive(Clone, Copy)]
enum Source {
    Slot(u16),
    Const(u128),
}

/// A block argument on its way to its parameter.
#[derive(Clone, Copy)]
struct Move {
    to: u16,
    ty: Type,
    from: Source,
}

impl Emitter<'_> {
    /// Moves arguments to the parameters of `to`, all at once.
    pub fn copies(&mut self, to: Block, args: &[Value]) {
        let params = &self.region().blocks[to.0 as usize].params;
        let mut moves: Vec<Move> = Vec::new();
        for (&param, &arg) in params.iter().zip(args) {
            let arg = self.a.root(arg);
            let inst = self.region().inst(arg);
            let (to, ty) = (self.slots.of(param), self.region().ty(param));
            let from = match (self.a.constant(arg), inst.op) {
                (Some(bits), _) => Source::Const(u128::from(bits)),
                (None, Op::VConst) => Source::Const(self.vconst(inst.imm)),
                _ => Source::Slot(self.slot(arg)),
            };
            let done = matches!(from, Source::Slot(s) if s == to) && self.a.is_clean(arg);
            if !done {
                moves.push(Move { to, ty, from });
            }
        }
        while !moves.is_empty() {
            let free = (0..moves.len()).find(|&n| {
                let others = moves.iter().enumerate().filter(|&(m, _)| m != n);
                !others
                    .into_iter()
                    .any(|(_, other)| overlaps(&moves[n], other))
            });
            match free {
                Some(n) => {
                    let m = moves.swap_remove(n);
                    self.transfer(m);
                }
                None => {
                    // Only cycles are left: open one by reading one source ahead of time.
                    let m = moves[0];
                    self.transfer(Move {
                        to: scratch(3),
                        ..m
                    });
                    moves[0].from = Source::Slot(scratch(3));
                }
            }
        }
    }

    fn transfer(&mut self, m: Move) {
        match (m.from, m.ty) {
            (Source::Const(bits), Type::V128) => {
                self.push(int::constant, m.to, 0, 0, bits as u64);
                self.push(int::constant, m.to + 8, 0, 0, (bits >> 64) as u64);
            }
            (Source::Const(bits), _) => self.push(int::constant, m.to, 0, 0, bits as u64),
            (Source::Slot(from), ty) => self.push(move_as(ty), m.to, from, 0, 0),
        }
    }
}

/// Whether what `m` writes is read by `other`.
fn overlaps(m: &Move, other: &Move) -> bool {
    let Source::Slot(from) = other.from else {
        return false;
    };
    let size = |ty: Type| ty.bytes().max(8) as u16;
    m.to < from + size(other.ty) && from < m.to + size(m.ty)
}
